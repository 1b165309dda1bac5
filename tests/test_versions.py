"""The same verdicts on every server version: 16 and 18 for both databases, Debian's 15 for the one without vectors."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from pgconform.introspect import read_text, snapshot
from pgconform.targets.embedded import server
from tests.proving import FAULTS, broken, contract_of, forget, found, judge, read, transaction

CASES = [("16", "muva"), ("18", "muva"), ("15", "victorysync"), ("16", "victorysync"), ("18", "victorysync")]


def _verdicts(version: str, name: str, faults: list[Path]) -> dict[str, dict[str, str]]:
    contract = contract_of(name)
    seen = {}
    with server([name], version) as started, psycopg.connect(started.dsn(name), autocommit=True) as connection:
        read_text(connection)
        with transaction(connection, contract):
            reference = snapshot(connection)
            results = judge(connection, contract)
            seen["reference"] = {r.check: str(r.verdict) for r in results}
            assert (found(results), broken(results)) == ({}, [])
        for path in faults:
            forget(connection)
            with transaction(connection, contract):
                fault = read(path)
                connection.execute(fault.sql.encode())
                results = judge(connection, contract, reference, fault.finds)
                seen[fault.name] = dict.fromkeys(found(results), "failed")
    return seen


@pytest.mark.parametrize("name", ["muva", "victorysync"])
def test_every_version_gives_the_same_verdicts(name: str) -> None:
    """On the reference database, and with some faults in it."""
    listed = [read(path) for path in sorted(FAULTS.glob("*/*.sql"))]
    newer = ("with inherit", "with admin")  # GRANT's options of PostgreSQL 16
    plain = [f for f in listed if f.contract == name and f.finds and not (f.committed or f.history or f.promise)]
    faults = [f.path for f in plain if not any(word in f.sql for word in newer)][::12]
    if name == "victorysync" and not Path("/usr/lib/postgresql/15/bin/postgres").exists():
        pytest.fail("PostgreSQL 15 is not installed: apt-get install postgresql-15")
    seen = {version: _verdicts(version, name, faults) for version, case in CASES if case == name}
    differ = [
        (version, fault, check, verdict, seen["16"][fault].get(check))
        for version, verdicts in seen.items()
        for fault, found in verdicts.items()
        for check, verdict in {**dict.fromkeys(seen["16"][fault], "nothing"), **found}.items()
        if verdict != seen["16"][fault].get(check)
    ]
    assert not differ


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
    of_the_server |= {
        "client-grant-options",
        "client-memberships",
        "clients-stay-clients",
        "large-objects-closed",
        "leakproof-functions",
        "plans-hidden",
        "publications-declared",
        "services-unhindered",
    }
    of_the_server |= {"connections-used", "sessions-running", "sessions-idle", "sessions-idle-in-transaction"}
    of_the_server |= {"slots-keep-up", "prepared-transactions", "sizes-within-limits", "wraparound-far"}
    assert passed <= of_the_server, passed
