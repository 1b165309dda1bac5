"""The bundled reference databases in a container, started for the run and removed after it."""

from __future__ import annotations

import gc
import os
import secrets
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pgconform.contract import Contract
from pgconform.model import TargetLost
from pgconform.targets import TargetError, fill, referenced

if TYPE_CHECKING:
    from testcontainers.community.postgres import PostgresContainer

DEFAULT_IMAGE = "pgvector/pgvector:pg17"
# The rows are thrown away with the container: nothing of it need survive a crash.
_SETTINGS = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off -c wal_level=logical"


@contextmanager
def databases(identifier: str, contracts: Sequence[Contract], prepare: str) -> Iterator[dict[str, str]]:
    """Each contract's database, its reference or what ``prepare`` makes; ``identifier`` is the image,
    ``pgvector/pgvector:pg17`` where it is ''.

    Raises TargetError for a contract without reference database or an image that cannot be had, TargetLost where
    no container engine answers.
    """
    import psycopg
    from psycopg import sql
    from psycopg.conninfo import make_conninfo

    from pgconform.fixtures.databases import create

    names = [] if prepare else referenced(contracts)
    with _started(identifier or DEFAULT_IMAGE) as container:
        url = container.get_connection_url(host="127.0.0.1" if _is_local(container) else None, driver=None)
        create(url, names)
        for contract in contracts if prepare else ():
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(sql.SQL("create database {}").format(sql.Identifier(contract.name)))
            fill(prepare, contract, urlsplit(url)._replace(path=f"/{contract.name}").geturl())
        yield {c.name: make_conninfo(url, dbname=c.name if prepare else c.reference) for c in contracts}


@contextmanager
def _started(image: str) -> Iterator[PostgresContainer]:
    try:
        import docker.errors
        from testcontainers.community.postgres import PostgresContainer
    except ImportError:
        raise TargetError("target container needs testcontainers; pip install 'pgconform[container]'") from None
    failed: TargetError | TargetLost
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # docker's client leaves a socket open where it gets no answer
        try:
            made = PostgresContainer(
                image, username="postgres", password=secrets.token_hex(16), dbname="postgres", driver=None,
                command=_SETTINGS,
            )  # fmt: skip
            if _is_local(made):  # then nobody else on the network need reach it
                made.ports = {"5432/tcp": ("127.0.0.1", None)}  # type: ignore[dict-item]
            container: PostgresContainer | None = made.start()
        except (docker.errors.ImageNotFound, docker.errors.APIError) as error:
            advice = "name an image that can be had: --target=container:IMAGE"
            if not os.environ.get("TESTCONTAINERS_RYUK_DISABLED"):
                advice += "; TESTCONTAINERS_RYUK_DISABLED=true goes without testcontainers' own image"
            container, failed = None, TargetError(f"image {image} cannot be started ({_line(error)}); {advice}")
        except docker.errors.DockerException:
            container = None
            failed = TargetLost("no container engine answers; start Docker, or use --target=embedded")
        except TimeoutError:
            container, failed = None, TargetLost(f"the server in image {image} is not ready in time")
        if container is None:
            gc.collect()
            raise failed
    try:
        yield container
    finally:
        container.stop()


def _is_local(container: PostgresContainer) -> bool:
    """True where the engine's published ports are on this machine's loopback (TESTCONTAINERS_HOST_OVERRIDE tells
    where testcontainers would guess another address)."""
    return container.get_docker_client().host() in ("localhost", "127.0.0.1", "::1")


def _line(error: Exception) -> str:
    """The engine's own explanation, on one line."""
    return " ".join(str(getattr(error, "explanation", None) or error).split())[:200]
