"""Servers and connections of the project's own tests: one server a worker, started when first asked for."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgconform.introspect import read_text
from pgconform.targets.embedded import server
from pgconform.targets.server import Server, find_binaries, start
from tests.committing import prepare

Connect = Callable[[str], psycopg.Connection[Any]]
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def copied() -> Callable[[Path], Path]:
    """Copies the tree: what is built or written in it would meet what another worker builds or writes there."""
    ignored = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "out", "history", "build", "dist")
    return lambda place: Path(shutil.copytree(ROOT, place, ignore=ignored))


@pytest.fixture(scope="session")
def references() -> Iterator[Server]:
    """A server with both reference databases, PostgreSQL 16."""
    with server(["muva", "victorysync"]) as started:
        prepare(started, ["muva", "victorysync"])
        yield started


@pytest.fixture(scope="session")
def contrib() -> Iterator[Server]:
    """Debian's PostgreSQL 15 with the reference database that has no vectors, and extensions that measure."""
    with server(["victorysync"], "15") as first:
        with psycopg.connect(first.dsn(), autocommit=True) as connection:
            connection.execute("alter system set shared_preload_libraries = 'pg_stat_statements'")
        first.stop()
        started = start(first.directory, find_binaries("15"))
        try:
            with psycopg.connect(started.dsn("victorysync"), autocommit=True) as connection:
                for name in ("pg_stat_statements", "pgstattuple", "amcheck", "uuid-ossp"):
                    connection.execute(f'create extension "{name}" schema extensions'.encode())
            prepare(started, ["victorysync"])
            yield started
        finally:
            started.stop(immediate=True)


@pytest.fixture(scope="session")
def connect(references: Server) -> Iterator[Connect]:
    """Connections to the reference databases as superuser, one for each, kept for the session."""
    opened: dict[str, psycopg.Connection[Any]] = {}

    def get(name: str) -> psycopg.Connection[Any]:
        if name not in opened:
            opened[name] = psycopg.connect(references.dsn(name), autocommit=True, prepare_threshold=None)
            read_text(opened[name])
        return opened[name]

    yield get
    for connection in opened.values():
        connection.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium; that it is missing fails, since the report would go unseen."""
    from playwright.sync_api import sync_playwright

    binary = shutil.which("chromium")
    assert binary, "Chromium is not installed: apt-get install chromium"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=binary, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()
