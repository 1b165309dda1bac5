"""The same verdicts on every server version: 16 and 18 for both databases, Debian's 15 for the one without vectors."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from pgconform.introspect import read_text
from pgconform.targets.embedded import server
from tests.proving import FAULTS, broken, contract_of, found, judge, read, transaction

CASES = [("16", "muva"), ("18", "muva"), ("15", "victorysync"), ("16", "victorysync"), ("18", "victorysync")]


def _verdicts(version: str, name: str, faults: list[Path]) -> dict[str, dict[str, str]]:
    contract = contract_of(name)
    seen = {}
    with server([name], version) as started, psycopg.connect(started.dsn(name), autocommit=True) as connection:
        read_text(connection)
        with transaction(connection, contract):
            results = judge(connection, contract)
            seen["reference"] = {r.check: str(r.verdict) for r in results}
            assert (found(results), broken(results)) == ({}, [])
        for path in faults:
            with transaction(connection, contract):
                connection.execute(read(path).sql.encode())
                seen[path.stem] = dict.fromkeys(found(judge(connection, contract)), "failed")
    return seen


@pytest.mark.parametrize("name", ["muva", "victorysync"])
def test_every_version_gives_the_same_verdicts(name: str) -> None:
    """On the reference database, and with some faults in it."""
    listed = [read(path) for path in sorted(FAULTS.glob("*/*.sql"))]
    newer = ("with inherit", "with admin")  # GRANT's options of PostgreSQL 16
    usable = (f for f in listed if not f.committed and not any(w in f.sql for w in newer))
    faults = [f.path for f in usable if f.contract == name and f.finds][::12]
    if name == "victorysync" and not Path("/usr/lib/postgresql/15/bin/postgres").exists():
        pytest.fail("PostgreSQL 15 is not installed: apt-get install postgresql-15")
    seen = {version: _verdicts(version, name, faults) for version, case in CASES if case == name}
    assert all(verdicts == seen["16"] for verdicts in seen.values()), seen


def test_an_empty_database_has_nothing_to_examine() -> None:
    contract = contract_of("victorysync")
    with (
        server(["victorysync"]) as started,
        psycopg.connect(started.dsn(), autocommit=True) as connection,
        transaction(connection, contract),
    ):
        results = judge(connection, contract)
    silent = {
        "tables-exist",
        "function-exists",
        "schema-grants",
    }  # what must exist is missed; all the rest has nothing to look at
    assert {r.check for r in results if r.findings} <= silent
    passed = {r.check for r in results if str(r.verdict) == "passed"}
    of_the_server = {"privileged-roles", "roles-exist", "schema-per-tenant", "schema-grants"}
    of_the_server |= {"client-memberships", "large-objects-closed", "leakproof-functions", "plans-hidden"}
    assert passed <= of_the_server, passed
