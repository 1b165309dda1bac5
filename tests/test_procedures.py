"""Drills of procedures in a small database whose every name is unusual, and what they say where they cannot run."""

from __future__ import annotations

import datetime
import time
import tomllib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from pgconform.catalogue_of_checks import load
from pgconform.checks import COPIED, Evidence, evaluate
from pgconform.contract import Contract
from pgconform.contract_file import ContractError, _defined, validate
from pgconform.database import Database, begin
from pgconform.introspect import read_text, snapshot
from pgconform.model import Effort, Result, Verdict
from pgconform.procedures.stage import PATIENCE
from pgconform.recovery.copies import Copies
from pgconform.targets.server import Server

HOME = Path(__file__).with_name("procedures")
ARCHIVE = (HOME / "put_away.sql").read_text(encoding="utf-8")
SHOP = '"Weird ""Shop""".'
DRILLS = [check.id for check in load().values() if ".recovery.test_procedures" in check.module]


@pytest.fixture(scope="module")
def weird(references: Server) -> Iterator[str]:
    """The connection string of the small database."""
    name = sql.Identifier('Weird "Database"')
    with psycopg.connect(references.dsn(), autocommit=True) as connection:
        connection.execute(sql.SQL("create database {} template template0").format(name))
        try:
            with psycopg.connect(references.dsn('Weird "Database"'), autocommit=True) as inside:
                inside.execute((HOME / "weird.sql").read_bytes())
            yield references.dsn('Weird "Database"')
        finally:
            connection.execute(sql.SQL("drop database {} with (force)").format(name))


@contextmanager
def evidence_of(dsn: str, contract: Contract, *, live: bool = False) -> Iterator[Evidence]:
    with closing(psycopg.connect(dsn, autocommit=True, prepare_threshold=None)) as connection:
        read_text(connection)
        begin(connection, contract.limits)
        catalog = snapshot(connection)
        today = datetime.datetime.now(datetime.UTC).date()
        with closing(Copies(dsn, catalog)) as copies:
            given = None if live else copies
            yield Evidence(contract, catalog, Database(connection), today, effort=Effort.of("quick", "1"), copies=given)


def changed(**procedures: dict[str, Any]) -> Contract:
    """The contract, with other keys in some of its procedures."""
    raw = tomllib.loads((HOME / "weird.toml").read_text(encoding="utf-8"))
    for name, given in procedures.items():
        raw["procedures"][name] |= given
    return _defined(validate(raw, "weird.toml"), HOME, "weird.toml")


def judged(dsn: str, contract: Contract, *checks: str, live: bool = False) -> dict[str, Result]:
    with evidence_of(dsn, contract, live=live) as evidence:
        return {id: evaluate(load()[id], evidence) for id in checks}


def keys(result: Result) -> list[str]:
    return [finding.key for finding in result.findings]


def test_right_procedures_pass_whatever_things_are_called(weird: str) -> None:
    results = judged(weird, changed(), *DRILLS)
    assert {id: (r.verdict, r.reason, keys(r)) for id, r in results.items()} == {
        id: (Verdict.PASSED, "", []) for id in DRILLS
    }


def test_a_live_database_is_not_drilled(weird: str) -> None:
    results = judged(weird, changed(), *DRILLS, live=True)
    assert {r.verdict for r in results.values()} == {Verdict.SKIPPED}
    assert {r.reason for r in results.values()} == {COPIED}


def _unsafe() -> str:
    """The script without its transaction and lock."""
    return "\n".join(s for s in ARCHIVE.splitlines() if not s.startswith(("begin", "lock", "commit", "--")))


def test_a_script_goes_on_after_an_error_as_in_psql(weird: str) -> None:
    """The archive has no such column; what was to be archived is deleted all the same, with its children."""
    script = _unsafe().replace("select * from", "select *, 1 from")
    contract = changed(**{"Put away": {"script": script}})
    result = judged(weird, contract, "archive-exact")["archive-exact"]
    assert keys(result) == [f'{SHOP}"Order": lost', "Put away: refused"]
    assert "SQLSTATE 42601" in result.findings[1].observed
    assert result.findings[0].remedy.startswith("-- correct what [procedures.Put away] of the contract runs")


def test_a_script_without_a_transaction_is_half_done_when_it_is_stopped(weird: str) -> None:
    contract = changed(**{"Put away": {"script": _unsafe()}})
    results = judged(weird, contract, "archive-exact", "archive-interrupted", "archive-undisturbed")
    assert keys(results["archive-exact"]) == []
    assert f'{SHOP}"Order": doubled' in keys(results["archive-interrupted"])
    assert f'{SHOP}"Order": lost' in keys(results["archive-undisturbed"])


def test_what_two_archivings_have_read_before_either_wrote_is_found(weird: str) -> None:
    """Whoever has to wait for the lock goes on with what it had read before."""
    reads = f"""begin; create temporary table "Read" as select * from {SHOP}"Order"
      where "When {{it}} was" < now() - interval '30 days';"""
    script = ARCHIVE.replace(f'select * from {SHOP}"Order"', 'select * from "Read"').replace("begin;", reads)
    contract = changed(**{"Put away": {"script": script}})
    results = judged(weird, contract, "archive-exact", "archive-undisturbed")
    assert keys(results["archive-exact"]) == []
    assert keys(results["archive-undisturbed"]) == [f'{SHOP}"Order": doubled']
    said = f"row(s) are there twice, where a second run began at write 1 of {SHOP}"
    assert said in results["archive-undisturbed"].findings[0].observed


def test_what_two_merges_have_read_before_either_wrote_is_found(weird: str) -> None:
    """The first merge has retired the second tenant by then, and the second one goes on."""
    more = f"""begin; create temporary table "Read" as select sum("Sum") from {SHOP}"Order" where "Tenant" = {{gone}};
      select {SHOP}"Merge"({{keep}}, {{gone}}); insert into {SHOP}"Order"
      select (select max("Id") + 1 from {SHOP}"Order"), {{keep}}, now(), r."sum" from "Read" as r; commit"""
    result = judged(weird, changed(Join={"call": "", "script": more}), "merge-undisturbed")["merge-undisturbed"]
    assert keys(result) == [f'{SHOP}"Order": crossed']


@pytest.mark.parametrize(("type", "nothing", "added", "crossed"), [
    ("money", "0", '(select r.sum from "Read" as r)', True),
    ("interval", "'0'", '(select r.sum from "Read" as r)', True),
    ("float8", "0", "extract(epoch from clock_timestamp())", False),
    ("real", "0", "random()", False),
])  # fmt: skip
def test_what_two_merges_add_up_is_of_any_type_and_no_time(
    weird: str, type: str, nothing: str, added: str, crossed: bool
) -> None:
    """What no two runs in peace leave alike tells nothing of two at once."""
    script = f"""begin; create temporary table "Read" as select coalesce(sum("More"), {nothing}::{type}) as sum
      from {SHOP}"Order" where "Tenant" = {{gone}}; select {SHOP}"Merge"({{keep}}, {{gone}}); insert into {SHOP}"Order"
      select (select max("Id") + 1 from {SHOP}"Order"), {{keep}}, now(), 0, now(), {added}; commit"""
    with psycopg.connect(weird, autocommit=True) as connection:
        connection.execute(f'alter table {SHOP}"Order" add column "More" {type} not null default \'5\''.encode())
        try:
            found = judged(weird, changed(Join={"call": "", "script": script}), "merge-undisturbed")
        finally:
            connection.execute(f'alter table {SHOP}"Order" drop column "More"'.encode())
    assert keys(found["merge-undisturbed"]) == ([f'{SHOP}"Order": crossed'] if crossed else [])
    assert not found["merge-undisturbed"].unverified


FOUND = f"""insert into {SHOP}"Tenant's" values ('100 %');
  insert into {SHOP}"Members%" values ({{user}}, '100 %', 'boss')"""
BRING = f"""insert into {SHOP}"User" ("E-Mail") select p ->> 'mail' from jsonb_array_elements({{rows}}) as p;
  insert into {SHOP}"Members%" select u."Id", {{tenant}}, p ->> 'role'
  from {SHOP}"User" as u join jsonb_array_elements({{rows}}) as p on u."E-Mail" = p ->> 'mail'"""


@pytest.mark.parametrize(("name", "script", "check", "half"), [
    ("found", FOUND, "onboarding-interrupted", "\"Tenant's\""),
    ("bring", BRING, "import-interrupted", '"User"'),
])  # fmt: skip
def test_what_is_killed_between_two_statements_is_half_done(
    weird: str, name: str, script: str, check: str, half: str
) -> None:
    given = {"script": script, "call": ""}
    assert keys(judged(weird, changed(**{name: given}), check)[check]) == [f"{SHOP}{half}: half"]
    given["script"] = f"begin; {script}; commit"
    assert judged(weird, changed(**{name: given}), check)[check].verdict is Verdict.PASSED


def test_two_runs_that_wait_for_each_other_are_parted_by_the_server(weird: str) -> None:
    """Each writes its own row first, and the other's next; the one that is refused counts as none."""
    table = f'update {SHOP}"Order" set "Changed" = now(), "Sum"'
    script = f"""begin; {table} = 9.99 where "Id" = {{key}};
      {table} = "Sum" where "Id" in (1, 2, 3, 4); commit"""
    started = time.monotonic()
    result = judged(weird, changed(correct={"script": script, "call": ""}), "fix-undisturbed")["fix-undisturbed"]
    assert result.verdict is Verdict.PASSED
    assert time.monotonic() - started < PATIENCE


def test_an_amount_that_was_read_before_another_run_wrote_it_is_found(weird: str) -> None:
    """Both add to the sum of all, as they had read it."""
    total = f'(select sum(o."Sum") from {SHOP}"Order" as o)'
    script = f"""begin; update {SHOP}"Order" set "Sum" = 9.99, "Changed" = now() where "Id" = {{key}};
      update {SHOP}"Order" set "Sum" = {total} where "Id" = 30; commit"""
    result = judged(weird, changed(correct={"script": script, "call": ""}), "fix-undisturbed")["fix-undisturbed"]
    assert keys(result) == [f'{SHOP}"Order": crossed']
    assert result.findings[0].observed.startswith(f'where a second run began at write 2 of {SHOP}"Order", it is not as')


def test_a_crash_takes_no_rows_from_the_copies_of_later_drills(weird: str) -> None:
    """Unlogged tables of all databases are empty after it."""
    with psycopg.connect(weird, autocommit=True) as connection:
        connection.execute(f'create unlogged table {SHOP}"Un%logged" as select 1 as one'.encode())
    try:
        with evidence_of(weird, changed()) as evidence:
            assert evidence.copies
            for _ in range(2):
                with evidence.copies.fresh() as copy, copy.connect() as connection:
                    rows = connection.execute(f'select one from {SHOP}"Un%logged"'.encode()).fetchall()
                    assert rows == [(1,)]
                copy.scratch.crash()
            assert evaluate(load()["onboarding-interrupted"], evidence).verdict is Verdict.PASSED
    finally:
        with psycopg.connect(weird, autocommit=True) as connection:
            connection.execute(f'drop table {SHOP}"Un%logged"'.encode())


def test_what_writes_nothing_is_not_verified(weird: str) -> None:
    contract = changed(found={"script": "select {user}"})
    results = judged(weird, contract, "onboarding-interrupted", "onboarding-undisturbed")
    told = "found: it was never seen writing a table; correct what the contract names"
    assert {(r.verdict, r.reason) for r in results.values()} == {(Verdict.BROKEN, told)}


def test_a_second_tenant_that_stays_active_is_found(weird: str) -> None:
    call = f'update {SHOP}"Order" set "Tenant" = {{keep}} where "Tenant" = {{gone}}'
    result = judged(weird, changed(Join={"call": call}), "merge-complete")["merge-complete"]
    assert keys(result) == [
        f'{SHOP}"Members%": left', f'{SHOP}"Tenant\'s": left',
    ]  # fmt: skip


def test_what_cannot_be_run_is_not_verified(weird: str) -> None:
    contract = changed(**{"Put away": {"script": "\\copy x from y"}, "found": {"role": "app"}})
    results = judged(weird, contract, "archive-exact", "onboarding-atomic")
    assert results["archive-exact"].verdict is Verdict.BROKEN
    assert results["archive-exact"].reason == "the script is not SQL; psql's own commands cannot be drilled"
    assert keys(results["onboarding-atomic"])[0] == f'{SHOP}"Tenant\'s": made'


@pytest.mark.parametrize(("name", "given", "said"), [
    ("Join", {"call": "select 1"}, "[procedures.Join] call: wanted {keep} in it; kind = 'merge' fills it in"),
    ("Join", {"script": "select {keep}, {gone}"}, "[procedures.Join] call: wanted one of call and script"),
    ("Join", {"kind": "mege"}, "[procedures.Join] kind: wanted one of 'archive', 'merge', 'onboard', 'import', 'fix',"
     " found 'mege'; did you mean 'merge'?"),
    ("Join", {"tenancy": "two"}, "[procedures.Join] tenancy: not declared; tenancies: one"),
    ("found", {"role": "ap"}, "[procedures.found] role: not declared; roles.clients and roles.services: app;"
     " did you mean 'app'?"),
    ("correct", {"changes": {}}, "[procedures.correct] changes: missing; kind = 'fix' needs it"),
    ("Put away", {"tables": ["public.x"]}, '[procedures."Put away"] tables #1: not declared; tables with a retention'
     ' and an archive: "Weird ""Shop"""."Order"'),
    ("bring", {"rows": {}}, "[procedures.bring] rows: missing; kind = 'import' needs it"),
])  # fmt: skip
def test_what_a_contract_may_not_say_of_a_procedure(name: str, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ContractError) as caught:
        changed(**{name: given})
    assert said in str(caught.value).replace("weird.toml: ", "").splitlines()


def test_only_a_registry_that_says_who_is_active_can_retire_a_tenant() -> None:
    raw = tomllib.loads((HOME / "weird.toml").read_text(encoding="utf-8"))
    del raw["tenancies"]["one"]["registry"]["active"]
    with pytest.raises(ContractError, match="retires = 'inactive' needs a registry that says by active"):
        validate(raw, "weird.toml")
