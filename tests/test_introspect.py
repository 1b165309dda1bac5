"""The snapshot against real servers: the server's own answers are the oracle."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from pgconform.catalog import Catalog, Function, Schema, Sequence, Table, Type
from pgconform.catalog_queries import queries
from pgconform.introspect import read_text, snapshot
from pgconform.names import quote
from pgconform.privileges import Privileges
from pgconform.targets.server import ServerError, running
from tests import rich_schema

Any_ = Table | Sequence | Schema | Function | Type
TABLE = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")


def begun(connection: psycopg.Connection[Any]) -> Catalog:
    """A snapshot in a transaction of its own."""
    connection.execute("begin transaction isolation level repeatable read, read only")
    try:
        return snapshot(connection)
    finally:
        connection.execute("rollback")


@pytest.fixture(scope="module", params=["15", "16", "18"])
def rich(request: pytest.FixtureRequest) -> Iterator[psycopg.Connection[Any]]:
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(running(version=request.param))
        except ServerError as error:
            pytest.skip(str(error))
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute("create database rich")
        connection = stack.enter_context(psycopg.connect(server.dsn("rich"), autocommit=True))
        rich_schema.build(connection)
        yield connection


@pytest.fixture(scope="module")
def catalog(rich: psycopg.Connection[Any]) -> Catalog:
    return begun(rich)


def answers(connection: psycopg.Connection[Any], text: str) -> dict[Any, Any]:
    """First column to second; every name qualified."""
    with connection.transaction(force_rollback=True):
        connection.execute("set local search_path = ''")
        return dict(connection.execute(text.encode()).fetchall())


def test_nothing_is_lost_on_the_way_to_a_worker(catalog: Catalog) -> None:
    assert Catalog.from_json(catalog.to_json()) == catalog


def test_two_snapshots_are_equal_whatever_the_session_says(rich: psycopg.Connection[Any], catalog: Catalog) -> None:
    hostile = {
        "search_path": '"select", plain, pg_catalog', "standard_conforming_strings": "off", "DateStyle": "German",
        "quote_all_identifiers": "on", "IntervalStyle": "iso_8601", "TimeZone": "Asia/Tokyo",
        "client_encoding": "LATIN1",
    }  # fmt: skip
    try:
        for name, value in hostile.items():
            rich.execute("select set_config(%s, %s, false)", [name, value])
        assert begun(rich) == catalog
        assert rich.execute("show search_path").fetchone() == (hostile["search_path"],)
    finally:
        rich.execute("reset all")


def test_an_ordinary_role_sees_the_same(rich: psycopg.Connection[Any], catalog: Catalog) -> None:
    rich.execute('set role "Group ""G"""')
    try:
        assert begun(rich) == catalog
    finally:
        rich.execute("reset role")


def test_relations_are_complete_and_in_order(rich: psycopg.Connection[Any], catalog: Catalog) -> None:
    mine = "n.nspname !~ '^pg_' and n.nspname <> 'information_schema'"
    text = f"""select c.oid, c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = relnamespace
               where relkind in ('r', 'p', 'v', 'm', 'f') and {mine}"""
    assert {t.oid: str(t) for t in catalog.tables} == answers(rich, text)
    assert [(t.schema, t.name) for t in catalog.tables] == sorted((t.schema, t.name) for t in catalog.tables)
    text = f"""select c.oid::regclass::text, 1 from pg_class c join pg_namespace n on n.oid = relnamespace
               where relkind = 'S' and {mine}"""
    assert {str(s) for s in catalog.sequences} == set(answers(rich, text))
    text = f"""select p.oid, p.oid::regprocedure::text from pg_proc p
               join pg_namespace n on n.oid = pronamespace where {mine}"""
    signatures = {oid: text.replace(",", ", ") for oid, text in answers(rich, text).items()}
    assert {f.oid: f.signature for f in catalog.functions} == signatures


@pytest.mark.parametrize("name", rich_schema.NAMES)
def test_every_kind_of_object_is_described(catalog: Catalog, name: str) -> None:
    table = next(t for t in catalog.tables if t.schema == name and t.name == name)
    space = str(next(s for s in catalog.schemas if s.name == name))
    assert (table.owner, table.row_security, table.forced, table.replica_identity) == ("owner", True, True, "f")
    assert table.primary_key == (name,)
    assert [c.name for c in table.columns] == [name, "b b", "mood", "n", "g", "arr", "s"]
    key, domain, mood, number, generated, array, serial = table.columns
    assert (key.identity, key.type, key.not_null, key.default) == ("d", "integer", True, None)
    assert (domain.base_oid, domain.modifier) == (1043, 16)  # varchar(12), through two domains
    assert mood.default is not None
    assert mood.default.startswith("'sad'::" + space)
    assert (number.type, number.default) == ("numeric(7,2)", "1.5")
    assert (generated.generated, array.type, array.not_null) == ("s", "text[]", True)
    assert serial.default is not None
    assert serial.default.startswith("nextval(")
    assert {s.owned_by for s in catalog.sequences if s.schema == name} == {
        "", f"{table}.s", f"{table}.{quote(name)}", f"{space}.second.ref2",
    }  # fmt: skip
    index = next(i for i in table.indexes if i.predicate)
    assert index.columns == ("", "", "n")
    assert (index.keys[0], index.keys[2]) == ("lower(g)", "n")
    assert index.operator_classes[0] == "pg_catalog.text_pattern_ops"
    assert (index.included, index.options, index.directions[0]) == (("mood",), {"fillfactor": "70"}, 1)
    assert len(index.collations) == len(index.keys) == 3
    keys = {c.name: c for c in next(t for t in catalog.tables if str(t) == f"{space}.second").foreign_keys()}
    assert (keys[name].references, keys[name].referenced_columns) == (str(table), (name,))
    assert (keys[name].on_delete, keys[name].on_update, keys[name].deferrable) == ("cascade", "set null", True)
    assert (keys[name].validated, keys["late"].validated) == (True, False)
    policies = {p.name: p for p in table.policies}
    assert policies[name].roles == ('Group "G"', "alice")
    assert (policies[name].permissive, policies[name].command) == (False, "UPDATE")
    assert policies["everyone"] == type(policies[name])("everyone", "ALL", True, ("public",), "true", None)
    triggers = {t.name: t for t in table.triggers}
    assert (triggers[name].enabled, triggers[name].function) == ("D", f"{space}.trg")
    assert list(triggers) == [name]
    assert [(r.name, r.event, r.instead, r.enabled) for r in table.rules] == [(name, "UPDATE", False, "O")]
    quiet = next(t for t in catalog.tables if str(t) == f"{space}.part").rules
    assert [(r.name, r.event, r.instead, r.enabled) for r in quiet] == [("quiet", "INSERT", True, "D")]
    part = next(t for t in catalog.tables if str(t) == f"{space}.part_1")
    assert part.parent == f"{space}.part"
    assert [c.inherited for c in part.constraints if c.kind == "p"] == [True]
    assert [i.inherited for i in part.indexes] == [True]
    view = next(t for t in catalog.tables if t.schema == name and t.kind == "view")
    assert view.reads == tuple(sorted((str(table), f"{space}.second")))
    assert view.options == {"security_invoker": "true", "security_barrier": "true"}
    assert next(t for t in catalog.tables if str(t) == f"{space}.mat").reads == (str(view),)


def test_functions_are_described(catalog: Catalog) -> None:
    first, second = catalog.functions_named("plain.plain")
    assert [(a.name, a.type, a.mode, a.default) for a in first.arguments] == [
        ("a", "integer", "i", None), ("b", "text", "i", "'q,'''::text"), ("c", "integer[]", "v", "'{1,2}'::integer[]"),
        ("d", "text", "o", None), ("e", "integer", "o", None),
    ]  # fmt: skip
    assert first.configuration == {"search_path": "plain, pg_temp", "work_mem": "1MB"}
    assert (first.security_definer, first.body, first.sql_body) == (True, "begin return; end", False)
    assert (second.volatility, second.parallel, second.strict, second.leakproof) == ("s", "s", True, True)
    assert (second.sql_body, second.returns_set, second.returns) == (True, True, "SETOF plain.plain")
    assert "plain.plain" in second.body
    assert {f.kind for f in catalog.functions} == {"f", "p", "a"}
    assert [a.mode for a in catalog.functions_named("plain.rows")[0].arguments] == ["i", "t", "t"]
    assert catalog.functions_named("plain.trg")[0].returns == "trigger"


def test_what_belongs_to_no_schema_is_described(catalog: Catalog) -> None:
    publications = {p.name: p for p in catalog.publications}
    assert publications["everything"].all_tables
    assert publications["Some %s"].tables == ("plain.part", "plain.part_1", "plain.plain")
    assert publications["Some %s"].operations == ("insert", "update")
    listed = publications["listed"]
    assert (listed.columns, listed.filters) == ({"plain.second": ("id", "ref")}, {"plain.second": "(id > 1)"})
    assert {'"select"."select"', '"select".second', '"select".part_1'} < set(publications["spaces"].tables)
    stated = {(s.database, s.role, s.name): s.value for s in catalog.settings}
    assert stated[("", "alice", "statement_timeout")] == "3s"
    assert stated[("rich", "alice", "search_path")] == '"a=b", c'
    assert stated[("rich", "", "work_mem")] == "5MB"
    assert [(e.name, e.function) for e in catalog.event_triggers] == [("Ev %s", "plain.ddl")]
    assert {(d.schema, d.kind) for d in catalog.default_privileges} >= {("", "f"), ("plain", "r")}
    types = {t.name: t for t in catalog.types if t.schema == "plain"}
    assert types["plainm"].labels == ("sad", 'it\'s "ok"')
    assert {n: t.kind for n, t in types.items()} == {"plainm": "e", "plaind": "d", "plaine": "d", "plainp": "c"}
    assert types["plaine"].base_oid == 1043


def test_what_came_with_18(catalog: Catalog) -> None:
    table = catalog.table("plain.second")
    assert table is not None
    assert [c.not_null for c in table.columns if c.name == "ref2"] == [False]  # on 18: not validated
    if catalog.server.version >= 180_000:
        virtual = table.column("virt")
        assert [c.name for c in table.constraints if not c.enforced] == ["lax"]
        assert (virtual and virtual.generated) == "v"
        assert "n" in {c.kind for c in table.constraints}
    if catalog.server.version >= 150_000:
        assert [i.name for i in table.indexes if i.nulls_not_distinct] == ["nn"]


def test_definitions_are_the_servers(rich: psycopg.Connection[Any], catalog: Catalog) -> None:
    constraints = answers(
        rich, "select conrelid::int8 || ' ' || conname, pg_get_constraintdef(oid) from pg_constraint where conrelid > 0"
    )
    for table in catalog.tables:
        for constraint in table.constraints:
            assert constraint.definition == constraints[f"{table.oid} {constraint.name}"]
    indexes = answers(rich, "select indexrelid::regclass::text, pg_get_indexdef(indexrelid) from pg_index")
    text = "select ev_class, rulename, pg_get_ruledef(oid) from pg_rewrite where rulename <> '_RETURN' and oid > 16383"
    rules = {(t.oid, r.name, r.definition) for t in catalog.tables for r in t.rules}
    assert rules == set(rich.execute(text).fetchall())
    views = answers(rich, "select oid::int8, pg_get_viewdef(oid) from pg_class where relkind in ('v', 'm')")
    assert all(i.definition == indexes[str(i)] for t in catalog.tables for i in t.indexes)
    assert all(t.definition == views.get(t.oid, "") for t in catalog.tables)
    published = rich.execute("select pubname, schemaname, tablename from pg_publication_tables").fetchall()
    sent = {(p.name, t) for p in catalog.publications for t in p.tables}
    names = {(t.schema, t.name): str(t) for t in catalog.tables}
    assert published
    assert {(p, names[s, t]) for p, s, t in published} <= sent


def test_a_locked_relation_is_named_and_the_rest_described(rich: psycopg.Connection[Any], catalog: Catalog) -> None:
    rich.execute("set lock_timeout = '100ms'")
    try:
        with psycopg.connect(rich.info.dsn) as other:
            other.execute("lock table plain.plain in access exclusive mode")
            found = begun(rich)
    finally:
        rich.execute("reset lock_timeout")
    view = next(str(t) for t in catalog.tables if t.schema == "plain" and t.kind == "view")
    assert found.unseen == tuple(sorted(("plain.mat", "plain.part", "plain.plain", view)))
    assert found.table("plain.second") is not None
    rest = [t for t in catalog.tables if str(t) not in found.unseen and t.schema != "plain"]
    assert [t for t in found.tables if str(t) not in found.unseen and t.schema != "plain"] == rest
    bodies = {f.signature: f.body for f in found.functions if f.sql_body}
    assert [signature for signature, body in bodies.items() if not body] == ["plain.plain(text)"]
    assert begun(rich) == catalog


# -- privileges: has_*_privilege is the oracle --------------------------------------------------------------------


def kinds(catalog: Catalog) -> list[tuple[str, list[Any_], tuple[str, ...]]]:
    table = (*TABLE, "MAINTAIN") if catalog.server.version >= 170_000 else TABLE
    return [
        ("table", list(catalog.tables), table),
        ("sequence", list(catalog.sequences), ("SELECT", "UPDATE", "USAGE")),
        ("schema", list(catalog.schemas), ("USAGE", "CREATE")),
        ("function", list(catalog.functions), ("EXECUTE",)),
        ("type", list(catalog.types), ("USAGE",)),
    ]


def assert_as_the_server_says(connection: psycopg.Connection[Any], catalog: Catalog) -> int:
    """Every role, object and privilege; returns how many were compared."""
    privileges, compared = Privileges(catalog), 0
    roles = [r.name for r in catalog.roles]
    for kind, objects, words in kinds(catalog):
        by_oid = kind in ("table", "function", "type")
        keys = [str(getattr(o, "oid", "")) if by_oid else o.name if isinstance(o, Schema) else str(o) for o in objects]
        text = sql.SQL(
            "select r, i, p, pg_catalog.{}(r::name, o::{}, p) from unnest(%s::text[]) r,"
            " unnest(%s::text[]) with ordinality u(o, i), unnest(%s::text[]) p"
        ).format(sql.Identifier(f"has_{kind}_privilege"), sql.SQL("oid" if by_oid else "text"))  # fmt: skip
        for role, number, word, held in connection.execute(text, [roles, keys, list(words)]).fetchall():
            ours = privileges.may(role, word, objects[number - 1])
            assert ours == held, f"{role} {word} on {kind} {objects[number - 1]}: server {held}"
            compared += 1
    whole = "SET" if catalog.server.version >= 160_000 else "MEMBER"
    members = connection.execute(
        "select a, b, pg_has_role(a, b, 'USAGE'), pg_has_role(a, b, %s)"
        " from unnest(%s::name[]) a, unnest(%s::name[]) b",
        [whole, roles, roles],
    ).fetchall()  # fmt: skip
    for role, other, inherits, sets in members:
        assert (other in privileges.inherited(role)) == inherits, (role, other, "inherits")
        assert (other in privileges.can_become(role)) == sets, (role, other, "becomes")
    columns = connection.execute(
        "select r, a.attrelid::int8, a.attname, p, has_column_privilege(r::name, a.attrelid, a.attnum, p)"
        " from unnest(%s::text[]) r, pg_attribute a, unnest(array['SELECT', 'INSERT', 'UPDATE', 'REFERENCES']) p"
        " where a.attrelid = any(%s::oid[]) and a.attnum > 0 and not a.attisdropped",
        [roles, [t.oid for t in catalog.tables]],
    ).fetchall()
    tables = {t.oid: t for t in catalog.tables}
    found = {(r, oid, h.column, h.privilege) for r in roles for oid, t in tables.items() for h in privileges.on(r, t)}
    for role, oid, column, word, held in columns:
        assert (bool({(role, oid, c, word) for c in ("", column)} & found)) == held, (role, tables[oid], column, word)
    return compared + len(members) + len(columns)


def test_every_role_holds_just_what_the_server_says(rich: psycopg.Connection[Any], catalog: Catalog) -> None:
    assert assert_as_the_server_says(rich, catalog) > 10_000


def test_via_says_where_a_privilege_comes_from(catalog: Catalog) -> None:
    privileges, table = Privileges(catalog), catalog.table("plain.plain")
    assert table is not None
    vias = {(h.privilege, h.column, h.via) for h in privileges.on("alice", table)}
    assert {("SELECT", "", "alice"), ("UPDATE", "n", "public"), ("DELETE", "", "owner")} <= vias
    assert {h.via for h in privileges.on("boss", table)} == {"(superuser)"}
    assert ("SELECT", "", "pg_read_all_data") in {(h.privilege, h.column, h.via) for h in privileges.on("bob", table)}
    assert privileges.reaches("alice", table)
    assert not privileges.reaches("pg_monitor", table)  # UPDATE of two columns by PUBLIC, but not the schema


WHO = ("alice", "bob", '"Group ""G"""', "owner", "public", '"a=r*/b"')
WHAT = {
    "plain.plain": (*TABLE, "select (n)", "update (n, g)", "all"),
    "schema plain": ("usage", "create", "all"),
    "sequence plain.free": ("usage", "select", "all"),
    "function plain.plain(text)": ("execute",),
}
GRANTS = st.lists(
    st.tuples(
        st.sampled_from(["grant", "revoke"]),
        st.sampled_from([(privilege, on) for on, words in WHAT.items() for privilege in words]),
        st.sampled_from(WHO),
        st.booleans(),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(changes=GRANTS)
def test_any_sequence_of_grants_is_understood(rich: psycopg.Connection[Any], changes: list[Any]) -> None:
    with rich.transaction(force_rollback=True):
        rich.execute("set local search_path = ''")
        for verb, (privilege, on), role, option in changes:
            tail = (
                " with grant option"
                if option and verb == "grant" and role != "public"
                else " cascade" * (verb == "revoke")
            )
            word = "to" if verb == "grant" else "from"
            rich.execute(f"{verb} {privilege} on {on} {word} {role}{tail}".encode())
        whole = snapshot(rich)
        few = Catalog(  # only what the changes touch is compared
            whole.server,
            tuple(s for s in whole.schemas if s.name == "plain"),
            tuple(t for t in whole.tables if t.schema == "plain"),
            tuple(s for s in whole.sequences if s.schema == "plain"),
            tuple(f for f in whole.functions if f.schema == "plain"),
            roles=whole.roles, memberships=whole.memberships,
        )  # fmt: skip
        assert_as_the_server_says(rich, few)


# -- other databases ----------------------------------------------------------------------------------------------


def test_a_database_without_encoding_can_be_read() -> None:
    with running(version="16") as server:
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute("create database plain encoding 'SQL_ASCII' template template0 locale 'C'")
        with psycopg.connect(server.dsn("plain"), autocommit=True) as connection:
            connection.execute(b'create role "\xe9"; create table "caf\xe9" ("\xff" text default \'\xfe\')')
            connection.execute(b'grant select on "caf\xe9" to "\xe9"; create table "gr\xc3\xb6\xc3\x9fe" (e int)')
            connection.execute(b"create type mood as enum ('a\xe9')")
            found = begun(connection)
            assert found.server.encoding == "SQL_ASCII"
            assert [t.name for t in found.tables] == [r"caf\xe9", "größe"]
            assert found.tables[0].columns[0].default == r"'\xfe'::text"
            assert ("SELECT", r"\xe9") in {(g.privilege, g.grantee) for g in found.tables[0].acl}
            assert found.types[0].labels == (r"a\xe9",)
            assert Catalog.from_json(found.to_json()) == found
            read_text(connection)
            row = connection.execute("select 'x'::text, array['y'::name], 'z'::varchar").fetchone()
            assert row == ("x", ["y"], "z")


def test_an_extension_owns_what_it_brought() -> None:
    with running(version="16") as server, psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute("create extension vector; create table docs (v vector(3), h halfvec)")
        connection.execute("create domain embedding as vector(7); create table more (e embedding)")
        connection.execute("create index on docs using hnsw (v vector_cosine_ops) with (m = 8)")
        found = begun(connection)
        docs, more = found.tables
        columns = (*docs.columns, *more.columns)
        assert [found.vector_types.get(c.base_oid) for c in columns] == ["vector", "halfvec", "vector"]
        assert [c.modifier for c in columns] == [3, -1, 7]
        assert docs.indexes[0].operator_classes == ("public.vector_cosine_ops",)
        assert (docs.indexes[0].method, docs.indexes[0].options) == ("hnsw", {"m": "8"})
        assert docs.extension == ""
        owned = [f for f in found.functions if f.extension == "vector"]
        assert len(owned) > 100
        assert {f.body for f in owned} == {""}


@pytest.mark.parametrize("version", [130_000, 140_000, 150_000, 160_000, 170_000, 180_000])
def test_every_question_is_qualified_and_ordered(version: int) -> None:
    for kind, text in queries(version).items():
        assert "order by" in text or kind == "server"
        sources = [part.split()[0] for part in text.replace(" join ", " from ").split(" from ")[1:]]
        sources += [part.split()[0] for part in text.split("\nfrom ")[1:]]
        assert all(s.startswith(("pg_catalog.", "(")) for s in sources), (kind, sources)
        assert "pg_authid" not in text
        assert ("conenforced" in text) == (kind == "constraints" and version >= 180_000)
