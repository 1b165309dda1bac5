"""Whose searches are tried: tenants by their rows in the searched table, however many members they have."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from pgconform.checks import Evidence
from pgconform.contract import Contract, Limits
from pgconform.contract_file import validate
from pgconform.database import Database, begin
from pgconform.identities import identities
from pgconform.introspect import read_text, snapshot
from pgconform.probes.searching import callers
from pgconform.probes.shares import askers
from pgconform.subjects import searches
from pgconform.targets.server import Server

# Of 40 tenants those that matter are in the middle by name; all but "lonely" and "closed" have one member, the small
# ones of no interest have many.
SIZES = {f"t{n:02}": 90 for n in range(40)} | {"t17": 2410, "t21": 7, "t25": 66, "t28": 330}
SIZES |= {"lonely": 900, "closed": 2500, "shared": 800}
FILL = """
create schema shop; create extension vector schema public; create role asking nologin;
create table shop.shops (id text primary key, open boolean not null);
create table shop.texts (id bigint generated always as identity primary key, shop_id text, embedding public.vector(3));
create table shop.members (member text, shop_id text);
create function shop.search(q public.vector) returns table (id bigint, similarity float8) language sql stable as
  $$ select t.id, 1 - (t.embedding operator(public.<=>) q) from shop.texts as t order by 2 desc limit 4 $$;
"""


@pytest.fixture(scope="module")
def filled(references: Server) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(references.dsn(), autocommit=True) as connection:
        connection.execute("create database shares")
    with psycopg.connect(references.dsn("shares"), autocommit=True) as connection:
        read_text(connection)
        connection.execute(FILL.encode())
        for tenant, rows in SIZES.items():
            connection.execute("insert into shop.shops values (%s, %s)", (tenant, tenant != "closed"))
            connection.execute(
                "insert into shop.texts (shop_id, embedding) select %s, '[1,2,3]' from generate_series(1, %s)",
                (tenant, rows),
            )
            many = 30 if rows == 90 and tenant > "t20" else 1
            connection.execute(
                "insert into shop.members select %s || n, %s from generate_series(1, %s) as n where %s <> 'lonely'",
                (tenant, tenant, many, tenant),
            )
        connection.execute("insert into shop.members values ('shared1', 't00')")
        yield connection


def contract(members: bool) -> Contract:
    claims = {"sub": "{user}"} if members else {"shop": "{tenant}"}
    tenancy: dict[str, Any] = {"column": "shop_id", "type": "text"}
    tenancy["registry"] = {"table": "shop.shops", "key": "id", "active": "open"}
    if members:
        tenancy["members"] = {"table": "shop.members", "user": "member", "tenant": "shop_id"}
    raw = {
        "name": "shares",
        "roles": {"clients": ["asking"]},
        "sessions": {"member": {"role": "asking", "claims": claims}},
        "access": {"tenant": {"asking": {"select": "own"}}, "service": {}},
        "tenancies": {"shop": tenancy},
        "tables": {
            "shop.texts": {"vectors": {"embedding": {"dimension": 3}}},
            "shop.members": {"holds": "service"}, "shop.shops": {"holds": "service"},
        },
        "functions": {"shop.search": {
            "arguments": [{"name": "q", "type": "public.vector"}], "execute": ["asking"],
            "search": {"vector": "shop.texts.embedding", "query": "q", "default_count": 4},
        }},
    }  # fmt: skip
    return validate(raw, "shares.toml")


@pytest.fixture(params=[True, False], ids=["members", "claims"])
def evidence(filled: psycopg.Connection[Any], request: pytest.FixtureRequest) -> Iterator[Evidence]:
    begin(filled, Limits())
    today = datetime.datetime.now(datetime.UTC).date()
    yield Evidence(contract(request.param), snapshot(filled), Database(filled), today)
    filled.execute("rollback")


def test_tenants_are_chosen_by_their_rows(evidence: Evidence) -> None:
    chosen = askers(evidence, "shop.texts", ["asking"])
    assert [(one.share, *one.who.tenants, one.rows) for one in chosen] == [
        ("smallest tenant", "t21", 7), ("tenant with 1 %", "t00", 90), ("tenant with 3-8 %", "t28", 330),
        ("largest tenant", "t17", 2410),
    ]  # fmt: skip
    assert {one.total for one in chosen} == {sum(SIZES.values())}
    known = [i.tenants for i in identities(evidence) if i.kind == "one"]
    assert {"t17"} not in known, "it is none of the few tenants that others are tried with, and has to be looked for"


def test_a_further_caller_is_like_the_others(evidence: Evidence) -> None:
    (search,) = searches(evidence.contract)
    found = callers(search, evidence)
    assert found == callers(search, evidence)
    everybody = {*found, *identities(evidence)}
    labels = [str(i) for i in everybody]
    assert len(labels) == len(set(labels)), "labels tell them apart"
    assert not any(tenant in label for tenant in SIZES for label in labels)
    assert [dict(one.settings)["request.jwt.claims"] for one in found[-1:]] == [
        '{"sub": "t171"}' if evidence.contract.tenancies["shop"].members else '{"shop": "t17"}'
    ]


def test_a_tenant_stands_for_two_shares_only_where_it_must(filled: psycopg.Connection[Any]) -> None:
    begin(filled, Limits(), read_only=False)
    filled.execute("delete from shop.texts where shop_id not in ('t17', 't21', 't26')")
    today = datetime.datetime.now(datetime.UTC).date()
    evidence = Evidence(contract(True), snapshot(filled), Database(filled), today)
    chosen = askers(evidence, "shop.texts", ["asking"])
    assert [(one.share, one.also, one.rows) for one in chosen] == [
        ("smallest tenant", (), 7), ("tenant with 3-8 %", (), 90), ("largest tenant", (), 2410)
    ]  # fmt: skip
    filled.execute("delete from shop.texts where shop_id = 't17' and id % 2 = 0")
    filled.execute("delete from shop.texts where shop_id = 't26'")
    again = askers(Evidence(contract(True), evidence.catalog, Database(filled), today), "shop.texts", ["asking"])
    assert [(one.share, one.also) for one in again] == [
        ("smallest tenant", ("tenant with 1 %",)), ("largest tenant", ())
    ]  # fmt: skip
    assert askers(evidence, "shop.texts", ["nobody"]) == []
    filled.execute("rollback")
