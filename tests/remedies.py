"""What pgconform prints for the fault that explains a check: written into fixtures/remedies.json.

    python -m tests.remedies

One fault a check, in a transaction that is undone; what only holds once it is committed is left out.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg

from pgconform.catalogue_of_checks import load
from pgconform.checks import Check, Evidence, evaluate, subject_name
from pgconform.database import Database
from pgconform.introspect import read_text, snapshot
from pgconform.shown import REMEDIES, fault
from pgconform.targets.embedded import server
from pgconform.targets.server import Server
from tests.committing import prepare
from tests.proving import FAULTS, QUICK, contract_of, forget, listing, past, read, transaction

Told = dict[str, dict[str, str]]


def remedies(started: Server) -> Told:
    """For each check the finding, what was observed and the remedy, of the fault that explains it."""
    found: Told = {}
    for check in load().values():
        shown = fault(check.id)
        if shown and not shown.committed:
            found |= _told(started, check, FAULTS / check.id / shown.name)
    return found


def _told(started: Server, check: Check, path: Path) -> Told:
    case = read(path)
    with (
        TemporaryDirectory() as folder,
        psycopg.connect(started.dsn(case.contract), autocommit=True, prepare_threshold=None) as connection,
    ):
        read_text(connection)
        contract = contract_of(case.contract, "\n".join([case.promise, *listing(case, Path(folder))]))
        forget(connection)
        with transaction(connection, contract):
            history = past(connection, contract, case, Path(folder)) if case.history else None
            connection.execute(case.sql.encode())
            database, today = Database(connection), datetime.datetime.now(datetime.UTC).date()
            evidence = Evidence(
                contract, snapshot(connection), database, today, lambda: database, QUICK, None, history
            )  # fmt: skip
            result = evaluate(check, evidence, _subjects(check, evidence, case.finds))
        for finding in result.findings[:1]:
            return {check.id: {"found": finding.key, "observed": finding.observed, "remedy": finding.remedy}}
    return {}


def _subjects(check: Check, evidence: Evidence, finds: frozenset[str]) -> list[Any] | None:
    """Those that the fault's own findings speak of; all, where none is called so."""
    keys = [key.removeprefix(f"{check.id}: ") for key in finds if key.startswith(f"{check.id}: ")]
    given = check.subjects(evidence.contract, evidence)
    return [s for s in given if any(key.startswith(subject_name(s)) for key in keys)] or None


def main() -> int:
    argparse.ArgumentParser("python -m tests.remedies", description=__doc__).parse_args()  # it takes nothing
    with server(["muva", "victorysync"]) as started:
        prepare(started, ["muva", "victorysync"])
        path = FAULTS.parent / REMEDIES
        path.write_text(json.dumps(remedies(started), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
