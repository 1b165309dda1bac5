"""The restore drill of a part, a schema or a tenant: what it reads and tells, what it finds lost, what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from pgconform.catalog import Catalog
from pgconform.catalogue_of_checks import load
from pgconform.checks import COPIED, Evidence, evaluate
from pgconform.cli import main
from pgconform.contract import Contract
from pgconform.introspect import snapshot
from pgconform.model import Drill, Mistake, NotVerified, Result, Verdict
from pgconform.recovery import tenants, tools
from pgconform.recovery.copies import Copies
from pgconform.recovery.needed import needed
from pgconform.targets.server import Server
from tests import test_procedures, test_restore
from tests.committing import clone
from tests.proving import contract_of
from tests.test_procedures import changed, evidence_of
from tests.test_restore import left, written
from tests.test_run import run

weird, cache, places, catalog = (  # fixtures
    test_procedures.weird, test_restore.cache, test_restore.places, test_restore.catalog,
)  # fmt: skip
SHOP = 'Weird "Shop"'
NAMED = '"Weird ""Shop"""'
KEY = "select id::text from public.organizations order by id limit 1"


def shop() -> Contract:
    """The contract of the small database, in which lines are their orders' children."""
    contract, line = changed(), f'{NAMED}."Order\'s line"'
    child = {"holds": "child", "parent": f'{NAMED}."Order"', "parent_key": "Id", "column": "Order"}
    promise = msgspec.structs.replace(contract.tables[line], **child)
    return msgspec.structs.replace(contract, tables={**contract.tables, line: promise})


@contextmanager
def drilled(dsn: str, contract: Contract, drill: Drill) -> Iterator[Evidence]:
    with (
        evidence_of(dsn, contract, live=True) as evidence,
        closing(Copies(dsn, evidence.catalog, drill=drill)) as copies,
    ):
        yield replace(evidence, copies=copies)


def judged(dsn: str, contract: Contract, drill: Drill, check: str = "restore-complete") -> Result:
    with drilled(dsn, contract, drill) as evidence:
        return evaluate(load()[check], evidence)


@pytest.mark.parametrize(
    ("text", "drill"),
    [
        ("", None),
        ("none", None),
        ("restore", Drill()),
        ("restore:schema=public", Drill(schema="public")),
        ('restore:schema=a="b":c', Drill(schema='a="b":c')),
        ("restore:tenant=a b=c", Drill(tenant="a b=c")),
    ],
)
def test_what_is_typed_names_a_drill(text: str, drill: Drill | None) -> None:
    assert Drill.of(text) == drill


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("rest", "unknown drill 'rest'"),
        ("restore:", "names no part"),
        ("restore:schema=", "names no schema"),
        ("restore:tenant", "names no tenant"),
        ("restore:table=x", "unknown part 'table'"),
        ("restore=schema", "unknown drill 'restore=schema'"),
        ("schema=x", "unknown drill 'schema=x'"),
    ],
)
def test_what_names_none_is_refused_in_a_line(text: str, told: str) -> None:
    with pytest.raises(Mistake) as refused:
        Drill.of(text)
    assert told in str(refused.value)
    assert str(refused.value).endswith("use restore, restore:schema=NAME, restore:tenant=KEY or none")


def test_on_a_live_target_a_part_is_restored_alone_and_nothing_is_left(
    references: Server, cache: Path, tmp_path: Path
) -> None:
    with clone(references, "victorysync") as dsn, psycopg.connect(dsn, autocommit=True) as connection:
        target = [f"--target=live:{dsn}", "--contract=victorysync", "-k", "restore-complete or tenant-export-complete"]
        before, (key,) = written(connection), connection.execute(KEY).fetchone() or ("",)
        for part, told in (("schema=public", "schema public"), (f"tenant={key}", "the tenant of organization")):
            done = run(*target, f"--drill=restore:{part}", out=tmp_path)
            assert done.returncode == 0, done.stdout
            assert f"victorysync, {told}: dumped and restored: " in done.stdout
            assert "not run, unless asked for by --drill=restore: tenant-export-complete" in done.stdout
            assert ("what hung on it: reports.calls_summary is missing" in done.stdout) == (told == "schema public")
            assert (left(cache), written(connection)) == ([], before)
        said = [path for path in tmp_path.rglob("*") if path.is_file() and key.encode() in path.read_bytes()]
        assert (said, key in done.stdout + done.stderr) == ([], False)


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ("schema=Public", "has no schema 'Public' for --drill to restore; it has auth, extensions, public, reports;"),
        ("tenant=nobody's", "knows no tenant of the key that --drill=restore:tenant=KEY names"),
    ],
)
def test_a_part_that_is_not_there_is_refused_in_a_line(
    references: Server, tmp_path: Path, part: str, told: str
) -> None:
    target = f"--target=live:{references.dsn('victorysync')}"
    done = run(target, "--contract=victorysync", "-k", "restore-complete", f"--drill=restore:{part}", out=tmp_path)
    said = done.stdout + done.stderr
    assert (done.returncode, told in said, "Traceback" in said, "nobody" in said) == (4, True, False, False), said


@pytest.mark.parametrize("drill", [Drill(schema=SHOP), Drill(tenant="a")], ids=["schema", "tenant"])
def test_unusual_names_are_restored(weird: str, drill: Drill) -> None:
    result = judged(weird, shop(), drill)
    assert (result.verdict, result.reason, result.findings) == (Verdict.PASSED, "", ())
    assert len(result.figures) == 2


def test_a_schema_that_does_not_load_from_its_own_dump_is_a_finding_that_says_why(references: Server) -> None:
    """A partition is attached to the partitioned table of another schema, and gets its key, before its own is made."""
    with clone(references, "victorysync") as dsn:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(
                'create schema "X y"; create table public.parts (id int primary key) partition by list (id);'
                'create table "X y"."default" partition of public.parts default; insert into public.parts values (4711)'
            )
        result = judged(dsn, contract_of("victorysync"), Drill(schema="X y"))
    (finding,) = result.findings
    assert (result.verdict, finding.key) == (Verdict.FAILED, '"X y"')
    assert 'at ALTER TABLE ONLY "X y"."default": multiple primary keys for table "default"' in finding.observed
    assert "dump and restore both together" in finding.observed
    assert "4711" not in finding.observed


def test_workers_restore_the_part_that_is_named(references: Server, tmp_path: Path) -> None:
    target = [f"--target=live:{references.dsn('victorysync')}", "--contract=victorysync", "-n2"]
    done = run(*target, "-k", "restore-complete", "--drill=restore:schema=auth", out=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "victorysync, schema auth: dumped and restored: " in done.stdout


def test_a_plan_tells_which_drills_a_part_leaves_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--contract=muva", "--target=live", "--drill=restore:tenant=x"]) == 0
    runs, _, left_out = capsys.readouterr().out.partition("since --drill names a part")
    assert "restore-complete" in runs
    assert "schema-restored" in left_out
    assert "tenant-export-complete" in left_out


def test_a_full_disk_is_told_and_leaves_the_session_as_it_was(weird: str, tmp_path: Path) -> None:
    (tmp_path / "0").symlink_to("/dev/full")
    with drilled(weird, shop(), Drill()) as evidence:
        wanted = tenants.parts(evidence.contract, evidence.catalog, "one", tenants.Tenant("a"))
        with pytest.raises(NotVerified, match="cannot be written: No space left on device; set PGC_CACHE_DIR"):
            tenants.export(evidence.database, wanted, tmp_path)
        assert tenants.its(evidence.database, evidence.catalog, wanted)


def test_of_drills_on_copies_a_part_has_the_restore_alone_run(weird: str) -> None:
    result = judged(weird, shop(), Drill(schema=SHOP), "tenant-export-complete")
    assert (result.verdict, result.reason) == (Verdict.SKIPPED, COPIED)


@pytest.mark.parametrize(
    ("harm", "found"),
    [
        ('delete from {shop}."Order" where "Id" = 7', {f'{NAMED}."Order": rows', f'{NAMED}."Order\'s line": rows'}),
        ('update {shop}."Order" set "Sum" = "Sum" + 1e-30 where "Id" = 7', {f'{NAMED}."Order": rows'}),
        ('alter table {shop}."Order" drop column "Changed"', {f'{NAMED}."Order": catalogue'}),
        ('drop function {shop}."Merge"(text, text)', {f'{NAMED}."Merge"(text, text): catalogue'}),
        ('create table {shop}."Besides" ()', {f'{NAMED}."Besides": catalogue'}),
        ('create schema "Outside"', set()),
    ],
)
def test_what_a_schema_lost_is_found_and_shown(
    weird: str, monkeypatch: pytest.MonkeyPatch, harm: str, found: set[str]
) -> None:
    real = tools.restore

    def harmed(binaries: Path, dsn: str, file: Path, there: str) -> None:
        real(binaries, dsn, file, there)
        if there:
            executed(dsn, harm)

    monkeypatch.setattr(tools, "restore", harmed)
    with drilled(weird, shop(), Drill(schema=SHOP)) as evidence:
        result = evaluate(load()["restore-complete"], evidence)
        assert {finding.key for finding in result.findings} == found
        for finding in result.findings:
            assert finding.rows
            evidence.database.connection.execute(finding.rows.encode())


def executed(dsn: str, harm: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(harm.replace("{shop}", NAMED).encode())


@pytest.mark.parametrize(
    ("harm", "found"),
    [
        (
            'delete from {shop}."Order" where "Id" = 3',
            {f'{NAMED}."Order": rows', f'{NAMED}."Order\'s line": rows'},
        ),
        ('update {shop}."Members%" set "Role" = \'hand\'', {f'{NAMED}."Members%": rows'}),
        ('insert into {shop}."Order" values (-1)', {f'{NAMED}."Order": rows'}),
    ],
)
def test_what_a_tenant_lost_or_got_is_found(
    weird: str, monkeypatch: pytest.MonkeyPatch, harm: str, found: set[str]
) -> None:
    real: Callable[..., Any] = tenants.load

    def harmed(connection: psycopg.Connection[Any], *arguments: object) -> object:
        failed = real(connection, *arguments)
        connection.execute(harm.replace("{shop}", NAMED).encode())
        return failed

    monkeypatch.setattr(tenants, "load", harmed)
    result = judged(weird, shop(), Drill(tenant="a"))
    assert {finding.key for finding in result.findings} == found


@pytest.mark.parametrize("version", ["18", "15"])
@pytest.mark.parametrize("part", ["schema", "tenant"])
def test_parts_of_other_versions_are_restored_too(version: str, part: str) -> None:
    from pgconform.targets.embedded import server

    with server(["victorysync"], version) as started:
        with psycopg.connect(started.dsn("victorysync"), autocommit=True) as connection:
            (key,) = connection.execute(KEY).fetchone() or ("",)
        drill = Drill(**{part: "public" if part == "schema" else key})
        result = judged(started.dsn("victorysync"), contract_of("victorysync"), drill)
    assert (result.verdict, result.reason, result.findings) == (Verdict.PASSED, "", ())


def test_a_server_newer_than_all_programs_is_refused_in_a_line(references: Server, catalog: Catalog) -> None:
    newer = msgspec.structs.replace(catalog, server=msgspec.structs.replace(catalog.server, version=190_000))
    with (
        closing(Copies(references.dsn("victorysync"), newer)) as made,
        pytest.raises(NotVerified, match="PostgreSQL 19"),
        made.partial(()),
    ):
        raise AssertionError


def test_what_rows_refer_to_is_needed_with_partitions_and_all_that_it_refers_to(references: Server) -> None:
    with psycopg.connect(references.dsn("victorysync")) as connection:
        connection.execute(
            'create schema "A.*"; create table "A.*"."t""" (id int primary key);'
            'create table "A.*".parts (id int primary key references "A.*"."t""") partition by range (id);'
            'create table "A.*".one partition of "A.*".parts default;'
            'create table "A.*".mine (id int references "A.*".parts, me int unique references "A.*".mine (me));'
            'alter table "A.*"."t""" add back int references "A.*".mine (me)'
        )
        found = snapshot(connection)
        connection.rollback()
    there = {'"A.*"."t"""', '"A.*".parts', '"A.*".one'}
    assert needed(found, {'"A.*".mine'}) == {*there, '"A.*".mine'}
    assert needed(found, {'"A.*".mine', *there}) == set()
    kept = tools.only_rows(found, {'"A.*".one'})
    assert '--exclude-table-data="A.*"."t"""' in kept
    assert '--exclude-table-data="A.*"."one"' not in kept
    assert '--exclude-table-data="public".*' in kept
