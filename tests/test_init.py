"""pgconform init: what it recovers of the reference databases, and that any database yields a contract that runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgconform.contract import Contract
from pgconform.contract_file import bundled, load
from pgconform.drafting.page import Page, value
from pgconform.targets.server import Server

PGCONFORM = [sys.executable, "-m", "pgconform"]
CANARY = "c4n4ry"
PATH = '"$user", public'  # as a server has it that nobody changed

PLAIN = """
create role app_plain login;
create table public.orgs (id int primary key, name text not null);
create table public.projects (id int primary key, org_id int not null references public.orgs, name text);
create table public.tasks (id int primary key, project_id int not null references public.projects on delete cascade,
                           owner_id int, hours numeric check (hours >= 0));
create table public.remarks (id int primary key, task_id int references public.tasks, body text);
create table public.owners (id int primary key);
create table public.notes (id int primary key, org_id int not null, body text);
insert into public.orgs values (1, 'c4n4ry one'), (2, 'c4n4ry two');
insert into public.projects values (1, 1, 'c4n4ry'), (2, 2, 'c4n4ry');
alter table public.projects enable row level security;
alter table public.notes enable row level security;
create policy mine on public.projects using (org_id = pg_catalog.current_setting('app.org')::int);
create policy mine on public.notes using (org_id = pg_catalog.current_setting('app.org')::int);
grant usage on schema public to app_plain;
grant select, insert, update, delete on all tables in schema public to app_plain;
"""

WEIRD = (
    """
create role "Weird ""Client";
create schema "We.ird ""S";
create extension if not exists vector schema public;
create table "We.ird ""S"."Ten ants\\n" ("Key"""
    + '""'
    + """" uuid primary key);
create table "We.ird ""S"."Mem""bers" ("user_id" uuid, "Ten ""Id" uuid references "We.ird ""S"."Ten ants\\n",
  unique ("user_id", "Ten ""Id"));
create table "We.ird ""S"."select" (id uuid primary key, "Ten ""Id" uuid not null references "We.ird ""S"."Ten ants\\n",
  "kind '\\" text check ("kind '\\" = any (array['a''b', '\\"c'])), "e m" public.vector(3));
create index "i ""x" on "We.ird ""S"."select" using hnsw ("e m" public.vector_l2_ops);
create function "We.ird ""S"."Find ""it"("q 1" public.vector, "Ten ""Id" uuid, "max n" int default 5)
  returns table (id uuid, distance float) language sql stable as $$
  select r.id, r."e m" operator(public.<->) "q 1" from "We.ird ""S"."select" as r
  where r."Ten ""Id" = "Ten ""Id" order by 2 limit "max n" $$;
grant usage on schema "We.ird ""S" to "Weird ""Client";
grant select on all tables in schema "We.ird ""S" to "Weird ""Client";
"""
)

TWO = """
create table public.schools (id uuid primary key);
create table public.vendors (id bigint primary key);
create table public.classes (id int primary key, school_id uuid not null references public.schools);
create table public.pupils (id int primary key, school_id uuid not null references public.schools);
create table public.offers (id int primary key, vendor_id bigint not null references public.vendors);
create table public.prices (id int primary key, vendor_id bigint not null references public.vendors);
create role two_client;
grant usage on schema public to two_client;
grant select on all tables in schema public to two_client;
alter table public.classes enable row level security;
alter table public.pupils enable row level security;
alter table public.offers enable row level security;
alter table public.prices enable row level security;
create policy p on public.classes using (school_id = (pg_catalog.current_setting('app.school'))::uuid);
create policy p on public.pupils using (school_id = (pg_catalog.current_setting('app.school'))::uuid);
create policy p on public.offers using (vendor_id = (pg_catalog.current_setting('app.vendor'))::bigint);
create policy p on public.prices using (vendor_id = (pg_catalog.current_setting('app.vendor'))::bigint);
"""

KINDS = """
create role kinds_client;
create extension if not exists vector schema public;
create table public.orgs (id int primary key);
create table public.prints (id int primary key, org_id int not null references public.orgs, code bit(16), marks bit(24),
  flags bit(8), long public.vector(5000), signs public.vector(12), rare public.sparsevec);
insert into public.orgs values (1);
insert into public.prints (id, org_id, code, rare) values (1, 1, b'0101010101010101', '{1:1}/7');
create index on public.prints using ivfflat (code public.bit_hamming_ops) with (lists = 1);
create index on public.prints using hnsw ((public.binary_quantize(signs)::bit(12)) public.bit_hamming_ops);
alter table public.prints enable row level security;
create policy mine on public.prints using (org_id = pg_catalog.current_setting('app.org')::int);
create function public.alike(q bit, n int default 5) returns table (id int, similarity float) language sql stable as $$
  select p.id, 1 - (p.marks operator(public.<%>) q) from public.prints as p order by 2 desc limit n $$;
grant select on all tables in schema public to kinds_client;
"""

CALLED = """
create role called_client nologin;
create schema app;
create table app.firms (id int primary key);
grant usage on schema app, public to called_client;
grant select on app.firms to called_client;
create function public.ping() returns int language sql stable set search_path = '' as 'select 1';
"""

OTHERS = {
    "called": CALLED,
    "prints": KINDS,
    "empty": "",
    "untenanted": "create table public.readings (at timestamptz primary key, celsius real); "
    "insert into public.readings values (now(), 1)",
    "plain": PLAIN,
    'weird "name': WEIRD,
    "two": TWO,
}


def init(dsn: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("PGC_")} | environment
    asked = [f"--dsn={dsn}"] if dsn else []
    return subprocess.run(
        [*PGCONFORM, "init", *asked, *arguments], capture_output=True, text=True, env=env, check=False
    )


@pytest.fixture(scope="session")  # a worker may come back to this file
def others(references: Server) -> dict[str, str]:
    """Databases of other kinds, by name."""
    return made(references, OTHERS)


def made(server: Server, scripts: dict[str, str]) -> dict[str, str]:
    """A database by each script, by name."""
    from psycopg import sql

    for name, script in scripts.items():
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        with psycopg.connect(dsn_of(server, name), autocommit=True) as connection:
            connection.execute(script.encode())
    return {name: dsn_of(server, name) for name in scripts}


def dsn_of(server: Server, name: str) -> str:
    return psycopg.conninfo.make_conninfo(server.dsn(), dbname=name)


def drafted(dsn: str, folder: Path) -> Contract:
    out = folder / "contract.toml"
    done = init(dsn, f"--out={out}")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert CANARY not in out.read_text("utf-8")
    return load(out)


def parts(contract: Contract) -> dict[str, Any]:
    """What a draft has to recover, without the names that its author chose."""
    found: dict[str, Any] = {"tenancies": [], "vectors": {}, "references": set(), "searches": {}, "chunks": {}}
    for tenancy in contract.tenancies.values():
        registry, members = tenancy.registry, tenancy.members
        assert registry
        assert members
        found["tenancies"].append((
            tenancy.column, tenancy.type, registry.table, registry.key, members.table, members.user, members.tenant,
            members.active, members.expires, members.role, members.roles, members.users,
        ))  # fmt: skip
    for name, table in contract.tables.items():
        found["chunks"] |= {name: table.chunks} if table.chunks else {}
        for column, vector in table.vectors.items():
            cast = vector.index.cast if vector.index else ""
            found["vectors"][name, column] = vector.dimension, vector.type, vector.metric, cast
        found["references"] |= {(name, r.columns, r.table, r.to, r.on_delete) for r in table.references if r.declared}
    for name, function in contract.functions.items():
        if s := function.search:
            told = s.vector, s.query, s.threshold, s.count, s.tenant, s.default_threshold, s.default_count
            found["searches"][name] = told
    return found


@pytest.mark.parametrize("name", ["muva", "victorysync"])
def test_a_reference_database_is_recovered_without_help(references: Server, name: str, tmp_path: Path) -> None:
    """All tenancies with registry and members, vectors, references, search functions and chunks are recovered."""
    draft, wanted = drafted(references.dsn(name), tmp_path), load(bundled()[name])
    found, known = parts(draft), parts(wanted)
    assert known["references"] - found["references"] == set()
    for part in ("tenancies", "vectors", "searches", "chunks"):
        assert found[part] == known[part]
    same = [t for t, p in wanted.tables.items() if t in draft.tables and draft.tables[t].holds != p.holds]
    assert same == []
    assert set(draft.roles.clients) == set(wanted.roles.clients)
    assert draft.roles.services == wanted.roles.services


@pytest.mark.parametrize("name", ["muva", "victorysync"])
def test_a_drafted_contract_holds_on_the_database_that_it_was_drafted_from(
    references: Server, name: str, tmp_path: Path
) -> None:
    drafted(references.dsn(name), tmp_path)
    done = run(tmp_path, references.dsn(name))
    assert done.returncode == 0, done.stdout


def run(folder: Path, dsn: str, *more: str) -> subprocess.CompletedProcess[str]:
    asked = [f"--contract={folder / 'contract.toml'}", f"--target=live:{dsn}", "--history=none"]
    return subprocess.run(
        [*PGCONFORM, "run", *asked, f"--out={folder / 'out'}", "-p", "no:cacheprovider", *more],
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
    )


@pytest.mark.parametrize("name", OTHERS)
def test_any_database_yields_a_contract_that_runs(others: dict[str, str], name: str, tmp_path: Path) -> None:
    """Findings are fine; a usage error, a traceback or an error of our own is not."""
    drafted(others[name], tmp_path)
    done = run(tmp_path, others[name])
    assert done.returncode in (0, 1, 3, 5), done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "own error" not in done.stdout + done.stderr


def test_tenants_of_a_plain_application_are_found(others: dict[str, str], tmp_path: Path) -> None:
    contract = drafted(others["plain"], tmp_path)
    (tenancy,) = contract.tenancies.values()
    assert (tenancy.column, tenancy.type, tenancy.members) == ("org_id", "integer", None)
    assert tenancy.registry
    assert tenancy.registry.table == "public.orgs"
    assert contract.sessions["member"].settings == {"app.org": "{tenant}", "search_path": PATH}
    assert contract.roles.clients == ("app_plain",)
    tasks = contract.tables["public.tasks"]
    assert (tasks.holds, tasks.column, tasks.parent, tasks.minimum) == (
        "child", "project_id", "public.projects", {"hours": 0},
    )  # fmt: skip
    remarks = contract.tables["public.remarks"]
    assert (remarks.holds, remarks.parent) == ("child", "public.tasks"), "its key may be null, and yet is all it has"
    text = (tmp_path / "contract.toml").read_text("utf-8")
    assert '  # { columns = ["owner_id"], table = "public.owners", declared = false },  # guess: ' in text


def test_two_tenancies_are_kept_apart(others: dict[str, str], tmp_path: Path) -> None:
    contract = drafted(others["two"], tmp_path)
    assert {n: t.column for n, t in contract.tenancies.items()} == {"school": "school_id", "vendor": "vendor_id"}
    assert contract.tables["public.offers"].tenancy == "vendor"
    told = {name: contract.sessions[t.session].settings for name, t in contract.tenancies.items()}
    assert told == {name: {f"app.{name}": "{tenant}", "search_path": PATH} for name in ("school", "vendor")}


def test_functions_are_offered_where_no_table_is(others: dict[str, str], tmp_path: Path) -> None:
    contract = drafted(others["called"], tmp_path)
    assert (contract.schemas.exposed, list(contract.functions)) == (("public", "app"), ["public.ping"])


def test_what_has_no_tenants_gets_none(others: dict[str, str], tmp_path: Path) -> None:
    assert drafted(others["untenanted"], tmp_path).tenancies == {}
    assert minded(tmp_path) == [
        "no tenancy was found in 1 table(s): whose rows are whose is not judged; say it in [tenancies] if rows are"
        " somebody's"
    ]
    (tmp_path / "contract.toml").unlink()
    assert drafted(others["empty"], tmp_path).tables == {}
    assert minded(tmp_path) == ["no tenancy was found, since there is no table; draft again once there are some"]
    (tmp_path / "contract.toml").unlink()
    drafted(others["plain"], tmp_path)
    assert not any("no tenancy" in line or "may not read" in line for line in minded(tmp_path))


def minded(folder: Path) -> list[str]:
    """What the draft asks its reader to mind, in its first lines."""
    head = (folder / "contract.toml").read_text("utf-8").partition("\nname = ")[0]
    return [line.removeprefix("# MIND: ") for line in head.splitlines() if line.startswith("# MIND: ")]


def test_unusual_names_survive(others: dict[str, str], tmp_path: Path) -> None:
    contract = drafted(others['weird "name'], tmp_path)
    table = contract.tables['"We.ird ""S"."select"']
    (tenancy,) = contract.tenancies.values()
    assert tenancy.column == 'Ten "Id'
    assert table.vectors["e m"].metric == "l2"
    assert table.values == {"kind '\\": ("a'b", '\\"c')}
    assert contract.roles.clients == ('Weird "Client',)
    search = contract.functions['"We.ird ""S"."Find ""it"'].search
    assert search
    assert (search.vector, search.tenant, search.count) == ('"We.ird ""S"."select"."e m"', 'Ten "Id', "max n")


def test_vectors_of_all_kinds_are_found_and_other_bits_are_not(others: dict[str, str], tmp_path: Path) -> None:
    contract = drafted(others["prints"], tmp_path)
    found = contract.tables["public.prints"].vectors
    told = {name: (v.dimension, v.type, v.metric, v.index_cast, v.distinct) for name, v in found.items()}
    assert told == {
        "code": (16, "bit", "hamming", "", False), "marks": (24, "bit", "jaccard", "", False),
        "long": (5000, "vector", "cosine", "halfvec", True), "signs": (12, "vector", "cosine", "bit", True),
        "rare": (7, "sparsevec", "cosine", "", True),
    }  # fmt: skip
    assert found["long"].index is None
    search = contract.functions["public.alike"].search
    assert search
    assert (search.vector, search.query, search.count) == ("public.prints.marks", "q", "n")


def test_neither_address_nor_password_nor_rows_are_written(others: dict[str, str], tmp_path: Path) -> None:
    dsn = psycopg.conninfo.make_conninfo(others["plain"], password=CANARY)
    host = psycopg.conninfo.conninfo_to_dict(dsn)["host"]
    done = init("", PGC_DSN=dsn)
    assert done.returncode == 0
    assert CANARY not in done.stdout + done.stderr
    assert str(host) not in done.stdout + done.stderr
    there = tmp_path / "kept.toml"
    there.write_text("mine", encoding="utf-8")
    refused = init(dsn, f"--out={there}")
    assert (refused.returncode, there.read_text("utf-8")) == (4, "mine")
    assert refused.stderr.count("\n") == 1


def test_a_role_that_may_read_nothing_gets_a_draft_too(references: Server, tmp_path: Path) -> None:
    """What the rows would tell is left open, the rest is in the catalogue."""
    with psycopg.connect(references.dsn("muva"), autocommit=True) as connection:
        connection.execute("create role no_reader login")
    try:
        dsn = psycopg.conninfo.make_conninfo(references.dsn("muva"), user="no_reader")
        found = parts(drafted(dsn, tmp_path))
        (told,) = minded(tmp_path)
        assert re.match(r"this role may not read all rows of (\d+) of \1 table\(s\); .* pgconform reader", told), told
        with psycopg.connect(references.dsn("muva"), autocommit=True) as connection:
            connection.execute("grant pg_read_all_data to no_reader; alter role no_reader bypassrls")
        (tmp_path / "contract.toml").unlink()
        drafted(dsn, tmp_path)
        assert minded(tmp_path) == []
    finally:
        with psycopg.connect(references.dsn("muva"), autocommit=True) as connection:
            connection.execute("drop role no_reader")
    known = parts(load(bundled()["muva"]))
    assert {part: found[part] for part in ("tenancies", "vectors", "searches")} == {
        part: known[part] for part in ("tenancies", "vectors", "searches")
    }


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--dsn=host=/nowhere password=c4n4ry"], 75, "the database that --dsn names cannot be reached"),
        (["--target=live:host=/nowhere password=c4n4ry"], 75, "the database that --target names cannot be reached"),
        (["--target=embedded"], 4, "use --dsn=URI"),
        (["--dsn=not a dsn"], 4, "the connection string is not valid"),
    ],
)
def test_mistakes_are_one_clear_line(arguments: list[str], status: int, said: str) -> None:
    done = init("", *arguments)
    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert CANARY not in done.stderr


def test_the_source_of_an_address_is_named(tmp_path: Path) -> None:
    away = f"host={tmp_path} password=c4n4ry"
    for environment, source in (
        ({"PGC_DSN": away}, "PGC_DSN"), ({"PGC_TARGET": f"live:{away}"}, "PGC_TARGET"),
        ({"PGHOST": str(tmp_path)}, "libpq's environment (PGHOST, PGSERVICE, ...)"),
    ):  # fmt: skip
        done = init("", **environment)
        assert done.returncode == 75
        assert done.stderr.startswith(f"pgconform: the database that {source} names cannot be reached: ")


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
VALUES = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_any_value_comes_back_out_of_its_toml(item: Any) -> None:
    assert tomllib.loads(f"x = {value(item)}") == {"x": item}


@given(st.lists(TEXTS, min_size=1, max_size=3), TEXTS, TEXTS)
def test_no_name_and_no_reason_breaks_the_page(path: list[str], name: str, why: str) -> None:
    page = Page()
    page.section(*path, why=why)
    page.put(name, [why], why=why)
    page.put(name, why, why=why, off=True)
    page.rows(f"{name}2", [(why, why), (why, f"off:{why}")])
    found: Any = tomllib.loads(str(page))
    for part in path:
        found = found[part]
    assert found[name] == [why]
