"""Names and encodings that bite: every check works with them, and nothing that they hold is ever run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from pgconform.contract import Contract
from pgconform.contract_file import validate
from pgconform.introspect import read_text
from pgconform.names import canonical, literal, qualified, quote, split
from pgconform.remedies_policies import create_policy
from pgconform.targets.server import Server
from tests.proving import broken, found, judge, run_remedy, transaction

HOSTILE = [
    'Weird "Name"', 'x"; drop table y; --', "select", "100% of %s", "%(name)s", "{curly} {0}", "$1", "a.b", "a b",
    "ñandú", "日本語", "É" * 31, "x" * 63, "'; --", "\\", "back\\slash'", "tab\there", "new\nline", "user", "r", "m",
    "d", "ctid_", "-- ",
]  # fmt: skip
RESERVED = {"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid", "oid"}  # names of system columns
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=15).filter(
    lambda text: len(text.encode()) <= 63 and text not in RESERVED and not text.startswith("pg_")
)
NAMES = st.lists(st.sampled_from(HOSTILE) | TEXT, min_size=9, max_size=9, unique_by=lambda name: name.strip().lower())


def contract_for(names: list[str]) -> Contract:
    """Tenancy by membership in which everything is called by hostile names."""
    schema, registry, members, rows, child, tenant, user, unit, parent = names
    privileged = ["SUPERUSER", "BYPASSRLS", "CREATEROLE", "CREATEDB", "REPLICATION"]
    number, total = f"{unit[:12]}#", f"{unit[:12]}##"
    return validate(
        {
            "name": "hostile",
            "schemas": {"exposed": [schema]},
            "roles": {"clients": ["anon", "authenticated"], "services": ["service_role"],
                      "privileged": {"postgres": privileged, "authenticator": ["BYPASSRLS"]}},
            "sessions": {"anonymous": {"role": "anon", "claims": {"role": "anon"}},
                         "member": {"role": "authenticated", "claims": {"sub": "{user}"}}},
            "tenancies": {"t": {"column": tenant, "type": "text",
                                "registry": {"table": qualified(schema, registry), "key": tenant},
                                "members": {"table": qualified(schema, members), "user": user, "tenant": tenant}}},
            "access": {"tenant": {"authenticated": "own"}, "member": {"authenticated": {"select": "own"}}},
            "tables": {
                qualified(schema, registry): {"access": "member"},
                qualified(schema, members): {"holds": "user", "column": user, "access": "member"},
                qualified(schema, rows): {
                    "unique": [[unit, number]],
                    "chunks": {"unit": [unit], "number": number, "total": total, "first": 1},
                    "minimum": {number: 1}, "values": {unit: ["a'b", "c\\d", "%s"]}, "exclusive": [parent],
                    "references": [{"columns": [tenant], "table": qualified(schema, registry), "to": [tenant]}]},
                qualified(schema, child): {
                    "holds": "child", "column": parent, "parent": qualified(schema, rows), "parent_key": parent,
                    "access": "tenant",
                    "references": [{"columns": [parent], "table": qualified(schema, rows), "to": [parent]}]},
            },
        },
        "hostile.toml",
    )  # fmt: skip


def make(connection: psycopg.Connection[Any], names: list[str], contract: Contract) -> None:
    schema, registry, members, rows, child, tenant, user, unit, parent = names
    number, total = f"{unit[:12]}#", f"{unit[:12]}##"
    parts = {key: sql.Identifier(name) for key, name in {
        "schema": schema, "tenant": tenant, "user": user, "unit": unit, "parent": parent, "number": number,
        "total": total}.items()}  # fmt: skip
    tables = {key: sql.Identifier(schema, name) for key, name in {
        "registry": registry, "members": members, "rows": rows, "child": child}.items()}  # fmt: skip
    connection.execute(
        sql.SQL("""
        alter default privileges revoke execute on functions from public;
        create schema {schema}; grant usage on schema {schema} to authenticated;
        create table {registry} ({tenant} text primary key);
        create table {members} ({user} text, {tenant} text references {registry}, primary key ({user}, {tenant}));
        create index on {members} ({tenant});
        create table {rows} ({parent} integer primary key, {tenant} text not null references {registry},
          {unit} text not null, {number} integer not null, {total} integer not null, unique ({unit}, {number}));
        create index on {rows} ({tenant});
        create table {child} ({parent} integer not null references {rows}, {user} text);
        create index on {child} ({parent});
        insert into {registry} values ('o''ne'), ('two');
        insert into {members} values ('u%1', 'o''ne'), ('u2', 'two'), ('both', 'o''ne'), ('both', 'two');
        insert into {rows} values (1, 'o''ne', 'a''b', 1, 2), (2, 'o''ne', 'a''b', 2, 2), (3, 'two', '%s', 1, 1);
        insert into {child} values (1, 'x'), (3, 'y');
        grant select on {registry}, {members} to authenticated;
        grant select, insert, update, delete on {rows}, {child} to authenticated;
        alter table {registry} enable row level security; alter table {members} enable row level security;
        alter table {rows} enable row level security; alter table {child} enable row level security;
        """)
        .format(**parts, **tables)
    )  # fmt: skip
    for table in contract.tables:
        for command in ("SELECT", "INSERT", "UPDATE", "DELETE"):
            if contract.scope(table, "authenticated", command.lower()) != "none":  # type: ignore[arg-type]
                connection.execute(create_policy(contract, table, command, "authenticated").encode())


@pytest.fixture(scope="module")
def bare(references: Server) -> Iterator[psycopg.Connection[Any]]:
    """The maintenance database of the server: it has the roles, and nothing else."""
    with psycopg.connect(references.dsn(), autocommit=True, prepare_threshold=None) as connection:
        read_text(connection)
        yield connection


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(names=NAMES)
def test_every_check_works_with_any_name(bare: psycopg.Connection[Any], names: list[str]) -> None:
    """Silent on a database that conforms; and after a fault, found by name and mended by the remedy."""
    contract = contract_for(names)
    schema, _, _, rows, child, *_ = names
    with transaction(bare, contract):
        make(bare, names, contract)
        results = judge(bare, contract)
        assert (found(results), broken(results)) == ({}, [])
        assert sum(str(r.verdict) == "passed" for r in results) > 25
        for name in (rows, child):
            off = sql.SQL("alter table {} disable row level security; grant truncate on {} to public")
            bare.execute(off.format(sql.Identifier(schema, name), sql.Identifier(schema, name)))
        findings = found(judge(bare, contract))
        for name in (rows, child):
            assert f"row-security-enabled: {qualified(schema, name)}" in findings
            assert f"foreign-rows-hidden: {qualified(schema, name)}" in findings
        for remedy in dict.fromkeys(f.remedy for f in findings.values()):
            run_remedy(bare, remedy)
        assert found(judge(bare, contract)) == {}


@given(st.lists(st.sampled_from(HOSTILE) | st.text(min_size=1).filter(lambda t: "\0" not in t), min_size=1, max_size=3))
def test_quoting_and_reading_names_are_inverse(parts: list[str]) -> None:
    assert split(qualified(*parts)) == tuple(parts)
    assert canonical(qualified(*parts), len(parts)) == qualified(*parts)


def test_quoting_is_the_servers(bare: psycopg.Connection[Any]) -> None:
    for name in [*HOSTILE, "plain", "Upper", "_x1$", "1a", "table", "interval", "varchar", "left", "value"]:
        row = bare.execute("select pg_catalog.quote_ident(%s), pg_catalog.quote_literal(%s)", (name, name)).fetchone()
        assert row is not None
        assert quote(name) == row[0]
        assert literal(name).strip() == row[1]


def test_a_database_without_encoding_is_read_too(references: Server) -> None:
    """SQL_ASCII: names are whatever bytes they are; those that are no UTF-8 are shown as escapes."""
    contract = contract_for(["s", "registry", "members", "rows", "child", "tenant", "usr", "unit", "parent"])
    with psycopg.connect(references.dsn(), autocommit=True) as connection:
        connection.execute("drop database if exists bytes")
        connection.execute("create database bytes encoding 'SQL_ASCII' template template0 locale 'C'")
    with psycopg.connect(references.dsn("bytes"), autocommit=True, prepare_threshold=None) as connection:
        read_text(connection)
        names = ["s", "registry", "members", "rows", "child", "tenant", "usr", "unit", "parent"]
        with transaction(connection, contract):
            make(connection, names, contract)
            assert found(judge(connection, contract)) == {}
            connection.execute(b'create table s."caf\xe9" (id integer); grant select on s."caf\xe9" to anon')
            connection.execute("grant usage on schema s to anon")
            results = judge(connection, contract)
            assert 'tables-declared: s."caf\\xe9"' in found(results)
