"""Both suites in a container: the image that fixtures/image builds, PostgreSQL 17 with Debian's pgvector."""

from __future__ import annotations

import datetime
import functools
import shutil
import subprocess
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from pgconform.catalogue_of_checks import load
from pgconform.checks import Evidence, evaluate
from pgconform.database import Database
from pgconform.introspect import snapshot
from pgconform.targets.container import databases
from tests.proving import contract_of, transaction
from tests.test_run import altered, assert_short, run, verdicts

IMAGE = "pgconform-postgres:17"


@functools.cache
def absent() -> str:
    """Why there is no container to test with, '' where there is."""
    if not shutil.which("docker"):
        return "no container engine is installed"
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        return "no container engine answers"
    if subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True, check=False).returncode:
        return f"image {IMAGE} is not built: make container"
    return ""


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> None:
    if why := absent():
        pytest.skip(why)
    # No image can be pulled where the tests run, testcontainers' reaper neither; the engine is on this machine.
    monkeypatch.setenv("TESTCONTAINERS_RYUK_DISABLED", "true")
    monkeypatch.setenv("TESTCONTAINERS_HOST_OVERRIDE", "127.0.0.1")


def containers() -> set[str]:
    listed = subprocess.run(["docker", "ps", "-aq"], capture_output=True, text=True, check=True)
    return set(listed.stdout.split())


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("name", ["muva", "victorysync"])
def test_a_container_gives_the_same_verdicts_as_the_embedded_server(name: str, tmp_path: Path) -> None:
    before = containers()
    embedded, contained = tmp_path / "embedded", tmp_path / "contained"
    embedded.mkdir()
    contained.mkdir()
    # Debian trixie's pgvector is 0.8.0: older than the contract wants, which its check says rightly.
    contract = altered(tmp_path, name, 'minimum = "0.8.3"', 'minimum = "0.8.0"')
    first = run(f"--contract={contract}", out=embedded)
    second = run(f"--contract={contract}", f"--target=container:{IMAGE}", out=contained)
    assert (first.returncode, second.returncode) == (0, 0), first.stdout + second.stdout + second.stderr
    assert "PostgreSQL 17" in second.stdout
    assert verdicts(embedded) == verdicts(contained)
    assert containers() == before


@pytest.mark.usefixtures("engine")
def test_an_old_pgvector_in_the_image_is_told(tmp_path: Path) -> None:
    done = run("--contract=muva", f"--target=container:{IMAGE}", "-k", "extension", out=tmp_path)
    assert done.returncode == 1, done.stdout
    assert "version 0.8.0 is installed" in done.stdout


@pytest.mark.usefixtures("engine")
def test_the_extensions_of_the_image_are_used() -> None:
    """PostgreSQL 17's own: bloat is measured exactly, and statements are counted, as the image has the server do."""
    promise = "operations.bloat_mb = 0.01\noperations.bloat = 0.001\noperations.statement_ms = 50"
    contract = contract_of("victorysync", promise)
    with (
        databases(IMAGE, [contract], "") as dsns,
        closing(psycopg.connect(dsns["victorysync"], autocommit=True)) as one,
    ):
        one.execute('drop extension if exists "uuid-ossp"')
        for name in ("pg_stat_statements", "pgstattuple", "amcheck", "uuid-ossp"):
            one.execute(f'create extension "{name}" schema extensions'.encode())
        trees = (
            "from pg_index as i join pg_class as c on c.oid = i.indexrelid and c.relkind = 'i'"
            " join pg_am as m on m.oid = c.relam and m.amname = 'btree'"
        )
        one.execute(f"select extensions.bt_index_check(i.indexrelid, true) {trees}".encode())
        assert one.execute("select extensions.uuid_generate_v4() is not null").fetchall() == [(True,)]
        for _ in range(5):
            one.execute("select pg_catalog.pg_sleep(0.1)")
        with transaction(one, contract):
            today = datetime.datetime.now(datetime.UTC).date()
            evidence = Evidence(contract, snapshot(one), Database(one), today)
            told = {id: evaluate(load()[id], evidence) for id in ("bloat", "statements-fast")}
    assert any(f.observed.endswith("(exact)") for f in told["bloat"].findings)
    assert ["5 time(s): SELECT pg_catalog.pg_sleep" in f.observed for f in told["statements-fast"].findings] == [True]


@pytest.mark.usefixtures("engine")
def test_an_image_that_cannot_be_had_is_one_line(tmp_path: Path) -> None:
    done = run("--contract=muva", "--target=container:nosuch/image:0", out=tmp_path)
    assert done.returncode == 4
    assert "image nosuch/image:0 cannot be started" in done.stdout + done.stderr
    assert_short(done)


def test_no_engine_is_one_line(tmp_path: Path) -> None:
    done = run("--contract=muva", "--target=container", out=tmp_path, DOCKER_HOST=f"unix://{tmp_path}/none")
    assert done.returncode == 75
    assert "no container engine answers" in done.stdout + done.stderr
    assert_short(done)
