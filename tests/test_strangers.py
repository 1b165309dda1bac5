"""Databases that are built unlike both references: what is right there is not called wrong, nor dropped."""

from __future__ import annotations

import datetime
import tomllib

import msgspec
import psycopg
import pytest

from pgconform.catalogue_of_checks import load
from pgconform.checks import Evidence, evaluate
from pgconform.contract import FunctionPromise
from pgconform.contract_file import validate
from pgconform.database import Database, explain
from pgconform.introspect import snapshot
from pgconform.model import Effort
from pgconform.subjects import recreate
from tests.conftest import Connect
from tests.proving import contract_of, transaction

# Sessions that say their tenant in a setting: there is no table of members, and nobody has a user's id.
SHOPS = """
create table public.shops (id integer primary key);
create table public.goods (shop integer not null references public.shops (id), id integer, primary key (shop, id));
insert into public.shops select generate_series(1, 3);
insert into public.goods select s.id, n from public.shops as s, generate_series(1, 4) as n;
alter table public.goods enable row level security;
grant select on public.goods to authenticated;
create policy own on public.goods for select to authenticated
  using (shop = (select nullif(current_setting('app.shop', true), '')::integer))
"""
CONTRACT = """
name = "shops"
roles.clients = ["authenticated"]
sessions.shop = { role = "authenticated", settings = { "app.shop" = "{tenant}" } }
[tenancies.shops]
column = "shop"
type = "integer"
session = "shop"
registry = { table = "public.shops", key = "id" }
[access]
tenant.authenticated = { select = "own" }
service.authenticated = "none"
[tables."public.shops"]
holds = "service"
[tables."public.goods"]
"""


@pytest.mark.parametrize(
    ("policy", "verdict"), [("", "passed"), ("alter policy own on public.goods using (true)", "failed")]
)
def test_sessions_without_a_user_are_told_apart(policy: str, verdict: str, connect: Connect) -> None:
    connection, contract = connect("victorysync"), validate(tomllib.loads(CONTRACT), "shops.toml")
    with transaction(connection, contract):
        connection.execute(f"{SHOPS}; {policy}".encode())
        catalog, database = snapshot(connection), Database(connection)
        today = datetime.datetime.now(datetime.UTC).date()
        evidence = Evidence(contract, catalog, database, today, lambda: database, Effort.of("quick", "1"))
        result = evaluate(load()["access-follows-membership"], evidence, [catalog.table("public.goods")])
    assert str(result.verdict) == verdict, [f.observed for f in result.findings]


# Every other row was removed by setting a mark, as applications do: nobody sees it any more, nor changes it.
MARKED = """
alter table public.goods add column "Gone {at}" date;
update public.goods set "Gone {at}" = '2020-01-01' where id % 2 = 1;
grant update, delete on public.goods to authenticated;
create policy change on public.goods for update to authenticated using (shop = current_setting('app.shop')::integer);
create policy remove on public.goods for delete to authenticated using (shop = current_setting('app.shop')::integer);
alter policy own on public.goods using (shop = current_setting('app.shop')::integer and "Gone {at}" is null)
"""


@pytest.mark.parametrize("visible, verdict", [('"Gone {at}" is null -- \'', "passed"), ("", "failed")])
@pytest.mark.parametrize("check", ["own-rows-visible", "own-rows-writable"])
def test_rows_that_were_marked_as_removed_may_be_hidden(
    check: str, visible: str, verdict: str, connect: Connect
) -> None:
    raw = tomllib.loads(CONTRACT)
    raw["access"]["tenant"]["authenticated"] = {"select": "own", "update": "own", "delete": "own"}
    raw["tables"]["public.goods"]["visible"] = visible
    connection, contract = connect("victorysync"), validate(raw, "shops.toml")
    with transaction(connection, contract):
        connection.execute(f"{SHOPS}; {MARKED}".encode())
        catalog, database = snapshot(connection), Database(connection)
        today = datetime.datetime.now(datetime.UTC).date()
        evidence = Evidence(contract, catalog, database, today, lambda: database, Effort.of("quick", "1"))
        result = evaluate(load()[check], evidence)
    assert (result.verdict, result.unverified) == (verdict, ())


# Goods of no shop are everybody's to read, and nobody's to write.
COMMON = """
alter table public.goods drop constraint goods_pkey, alter column shop drop not null,
  add column "n o" serial primary key;
insert into public.goods (id) values (7), (8);
grant update on public.goods to authenticated;
alter policy own on public.goods using (shop is null or {own});
create policy change on public.goods for update to authenticated using ({})
"""
OWN = "shop = nullif(current_setting('app.shop', true), '')::integer"


@pytest.mark.parametrize("nullable, policy, failing", [
    ("shared", OWN, set()),
    (True, OWN, {"foreign-rows-hidden", "malformed-claims", "foreign-rows-unreadable", "strangers-see-nothing"}),
    ("shared", f"shop is null or {OWN}", {"foreign-rows-unwritable"}),
])  # fmt: skip
def test_rows_of_no_tenant_may_be_everybodys_to_read(
    nullable: object, policy: str, failing: set[str], connect: Connect
) -> None:
    raw = tomllib.loads(CONTRACT)
    raw["access"]["tenant"]["authenticated"] = {"select": "own", "update": "own"}
    raw["tables"]["public.goods"]["nullable"] = nullable
    connection, contract = connect("victorysync"), validate(raw, "shops.toml")
    wanted = ("foreign-rows-hidden", "malformed-claims", "foreign-rows-unreadable", "foreign-rows-unwritable",
              "own-rows-visible", "strangers-see-nothing")  # fmt: skip
    found = set()
    with transaction(connection, contract):
        connection.execute(f"{SHOPS}; {COMMON.format(policy, own=OWN)}".encode())
        catalog, database = snapshot(connection), Database(connection)
        today = datetime.datetime.now(datetime.UTC).date()
        evidence = Evidence(contract, catalog, database, today, lambda: database, Effort.of("quick", "1"))
        for check in wanted:
            result = evaluate(load()[check], evidence)
            assert result.unverified == (), check
            found |= {check for finding in result.findings if finding.object == "public.goods"}
    assert found == failing


TEAM = """
create function auth.my_orgs() returns setof uuid language sql stable security definer set search_path = '' as $$
  select m.org_id from public.org_users as m where m.user_id = auth.uid() and m.is_active $$;
grant execute on function auth.my_orgs() to authenticated;
alter policy "own memberships" on public.org_users
  using (user_id = (select auth.uid()) or org_id in (select auth.my_orgs()));
"""


@pytest.mark.parametrize("scope, failing", [("team", False), ("own", True)])
def test_members_may_see_their_team(scope: str, failing: bool, connect: Connect) -> None:
    connection, contract = connect("victorysync"), contract_of("victorysync")
    granted = {**contract.access["membership"], "authenticated": {"select": scope}}
    contract = msgspec.structs.replace(contract, access={**contract.access, "membership": granted})
    wanted = ("foreign-rows-hidden", "foreign-rows-unreadable", "own-rows-visible", "policy-bound-to-tenant")
    with transaction(connection, contract):
        connection.execute(TEAM.encode())
        catalog, database = snapshot(connection), Database(connection)
        today = datetime.datetime.now(datetime.UTC).date()
        evidence = Evidence(contract, catalog, database, today, lambda: database, Effort.of("quick", "1"))
        found = {
            check for check in wanted for f in evaluate(load()[check], evidence).findings if "org_users" in f.object
        }
        assert ("foreign-rows-hidden" in found) == failing, found
        connection.execute('alter policy "own memberships" on public.org_users using (true)')
        evidence = Evidence(contract, snapshot(connection), Database(connection), today)
        told = evaluate(load()["foreign-rows-hidden"], evidence).findings
        assert told, "a team is not everybody"
        for finding in told:
            connection.execute(finding.remedy.encode())
        evidence = Evidence(contract, snapshot(connection), Database(connection), today)
        assert evaluate(load()["foreign-rows-hidden"], evidence).findings == ()
    assert failing or not found, found


def test_no_function_is_dropped_that_cannot_be_made_again(connect: Connect) -> None:
    connection, contract = connect("victorysync"), contract_of("victorysync", "")
    with transaction(connection, contract):
        gone = next(f for f in snapshot(connection).functions if str(f) == "auth.uid")
    assert "drop" not in recreate("auth.uid", FunctionPromise(), gone)
    defined = FunctionPromise(definition="create function auth.uid() ...")
    assert recreate("auth.uid", defined, gone).startswith("drop function auth.uid();\ncreate function")


def test_a_refused_function_is_what_is_to_be_granted(connect: Connect) -> None:
    """The role that reads is granted none: to make it once more would change nothing."""
    connection, contract = connect("victorysync"), contract_of("victorysync", "")
    with transaction(connection, contract):
        connection.execute("create function public.shut() returns integer language sql as 'select 1'")
        connection.execute("revoke execute on function public.shut() from public")
        connection.execute("set local role anon")
        with pytest.raises(psycopg.errors.InsufficientPrivilege) as refused:
            connection.execute("select public.shut()")
        assert "grant EXECUTE on function shut to the role that asked" in explain(refused.value, "asking")


def test_where_no_rank_administers_none_is_looked_for() -> None:
    """Such a contract promises no admin: a check that passes would say that it looked."""
    check = load()["tenant-has-admin"]
    assert [d.item.members.admin for d in check.subjects(contract_of("muva"))] == ["admin"]
    assert not check.subjects(contract_of("victorysync"))
