"""What remedies make, and what they leave to whoever knows more than the contract."""

from __future__ import annotations

import datetime

import psycopg
import pytest

from pgconform.attacks.neighbours import tie_to_parent
from pgconform.catalog import Catalog, Server
from pgconform.catalogue_of_checks import load
from pgconform.checks import Evidence, evaluate
from pgconform.contract import Contract
from pgconform.database import Database
from pgconform.model import Finding
from pgconform.privileges import Privileges
from pgconform.remedies import add_column, column_type, create_table, deny, past_rows
from pgconform.targets.server import running
from tests.conftest import Connect
from tests.proving import contract_of, snapshot, transaction

TIME = "timestamp with time zone"
EMPTY = Catalog(Server(160000, "none", "nobody", "UTF8"))


@pytest.mark.parametrize(
    ("contract", "table", "name", "kind"),
    [
        ("muva", "public.tenant_registry", "is_active", "boolean"),
        ("muva", "public.tenant_registry", "created_at", TIME),
        ("muva", "public.tenant_registry", "tenant_id", "character varying(50)"),
        ("muva", "public.user_tenant_permissions", "is_active", "boolean"),
        ("muva", "public.user_tenant_permissions", "expires_at", TIME),
        ("muva", "public.user_tenant_permissions", "tenant_id", "character varying(50)"),
        ("muva", "public.user_tenant_permissions", "role", ""),
        ("muva", "hotels.unit_amenities", "amenity", ""),
        ("muva", "hotels.unit_amenities", "property_id", "uuid"),
        ("victorysync", "public.call_archives", "created_at", TIME),
        ("victorysync", "public.call_archives", "direction", "text"),  # as in the table that is archived there
        ("victorysync", "public.call_archives", "nothing_like_it", ""),
        ("victorysync", "public.call_notes", "call_id", "uuid"),
    ],
)
def test_a_column_has_the_type_that_the_contract_tells_or_none(
    connect: Connect, contract: str, table: str, name: str, kind: str
) -> None:
    catalog = snapshot(connect(contract))
    assert column_type(contract_of(contract), catalog, table, name) == kind


def test_a_registry_whose_table_is_gone_gives_the_types_of_its_columns() -> None:
    remedy = create_table(contract_of("muva"), EMPTY, "public.tenant_registry")
    assert all(line.startswith("-- ") for line in remedy.splitlines())
    told = ("tenant_id character varying(50)", "is_active boolean", f"created_at {TIME}")
    assert [column for column in told if column not in remedy] == []


@pytest.mark.parametrize("name", ['public."A\nB"', "public.plain"])
def test_what_nobody_defined_is_said_and_not_made(connect: Connect, name: str) -> None:
    """Whatever the name is: no part of it leaves the comment."""
    contract = contract_of("victorysync", f"tables.{_toml(name)} = {{ access = 'service' }}")
    _does_nothing(connect("victorysync"), create_table(contract, EMPTY, name))
    _does_nothing(connect("victorysync"), add_column(contract, EMPTY, name, 'x";\ndrop table "y'))


def _toml(name: str) -> str:
    return '"' + name.replace('"', '\\"').replace("\n", "\\n") + '"'


def _does_nothing(connection: psycopg.Connection[object], remedy: str) -> None:
    assert all(line.startswith("-- ") for line in remedy.splitlines())
    with connection.transaction(force_rollback=True):
        connection.execute(remedy.encode())


def test_a_definition_is_what_is_made() -> None:
    contract = contract_of("victorysync")
    assert "create or replace view" in create_table(contract, EMPTY, "reports.users_summary")


RULED = """
create table public."A b" (id integer, x integer);
insert into public."A b" values (1, null), (0, null);
alter table public."A b" add constraint "Not enforced" check (id > 0) not enforced;
alter table public."A b" add constraint "Not valid" check ("A b".id < 7 and x is null) no inherit not valid;
alter table public."A b" add constraint "Not null" not null x not valid;
"""


def test_constraints_of_18_hold_after_their_remedies() -> None:
    """Once the rows that they refuse are put right, which a comment shows."""
    check, contract = load()["foreign-key-validated"], contract_of("victorysync")
    today = datetime.datetime.now(datetime.UTC).date()
    with running("18") as started, psycopg.connect(started.dsn(), autocommit=True) as connection:

        def judged() -> list[Finding]:
            return list(evaluate(check, Evidence(contract, snapshot(connection), Database(connection), today)).findings)

        connection.execute(RULED.encode())
        remedies = [finding.remedy for finding in judged()]
        shown = [remedy.partition("put right first: ")[2].partition("\n")[0] for remedy in remedies]
        assert [len(connection.execute(text.encode()).fetchall()) for text in shown] == [1, 2, 0]
        connection.execute('alter table public."A b" drop constraint "Not valid"; update public."A b" set x = 1')
        connection.execute('delete from public."A b" where id = 0')
        for remedy in remedies[:2]:
            connection.execute(remedy.encode())
        assert judged() == []


def test_a_pinned_function_goes_on_finding_what_it_names_without_a_schema(connect: Connect) -> None:
    check, contract, connection = load()["definer-search-path"], contract_of("victorysync"), connect("victorysync")
    today = datetime.datetime.now(datetime.UTC).date()
    with transaction(connection, contract):
        connection.execute("set local search_path = public")
        connection.execute(
            "create function auth.my_organizations() returns setof uuid language sql stable security definer"
            " as $$ select org_id from org_users where user_id = auth.uid() $$;"
            "grant execute on function auth.my_organizations() to authenticated"
        )
        evidence = Evidence(contract, snapshot(connection), Database(connection), today)
        (finding,) = evaluate(check, evidence).findings
        assert finding.remedy == "alter function auth.my_organizations() set search_path = public, auth, pg_temp;"
        connection.execute(finding.remedy.encode())
        connection.execute("set local search_path = ''; set local role authenticated")
        connection.execute("select auth.my_organizations()")


def test_what_row_security_does_not_govern_is_revoked(connect: Connect) -> None:
    """No policy stands in the way of TRUNCATE: one that is written anew would change nothing."""
    contract, connection = contract_of("victorysync"), connect("victorysync")
    with transaction(connection, contract):
        connection.execute("grant truncate, trigger on public.calls to authenticated")
        catalog = snapshot(connection)
        table = catalog.table("public.calls")
        assert table
        remedy = past_rows(table, contract, Privileges(catalog), ("truncate",))
        assert remedy == "revoke truncate on public.calls from authenticated;"
        connection.execute(remedy.encode())


HELPERS = """
create function public.is_member(org uuid) returns boolean language sql stable security definer
  set search_path = pg_temp as
  'select exists (select from public.org_users as m where m.org_id = org and m.user_id = auth.uid() and m.is_active)';
create function auth.may(org uuid) returns boolean language sql stable as 'select public.is_member(org)';
grant execute on function public.is_member(uuid), auth.may(uuid) to authenticated;
"""


def _denied(connection: psycopg.Connection[object], contract: Contract) -> str:
    today = datetime.datetime.now(datetime.UTC).date()
    evidence = Evidence(contract, snapshot(connection), Database(connection), today)
    return deny(evidence, evidence.catalog.functions_named("public.is_member")[0])


def test_what_policies_call_is_not_taken_from_clients(connect: Connect) -> None:
    """It moves; where a body names it, that has to be changed first, so nothing is moved."""
    contract, connection = contract_of("victorysync"), connect("victorysync")
    with transaction(connection, contract):
        connection.execute(HELPERS)
        assert _denied(connection, contract) == "alter function public.is_member(uuid) security invoker;"
        connection.execute('alter policy "members read" on public.calls using (auth.may(org_id))')
        told = _denied(connection, contract).splitlines()
        assert all(line.startswith("-- ") for line in told)
        assert "auth.may(uuid)" in told[1]
        connection.execute('alter policy "members read" on public.calls using (public.is_member(org_id))')
        connection.execute("drop function auth.may(uuid)")
        connection.execute(_denied(connection, contract).encode())
        connection.execute("set local row_security = on; set local role authenticated; select from public.calls")


def test_a_key_with_the_tenant_says_what_it_refuses(connect: Connect) -> None:
    contract, connection = contract_of("muva"), connect("muva")
    with transaction(connection, contract):
        catalog = snapshot(connection)
        table = catalog.table("hotels.guest_information")
        assert table
        key = next(key for key in table.foreign_keys() if key.references == "hotels.properties")
        strict = tie_to_parent(catalog, contract, table, key).partition("\n")[0]
        connection.execute("alter table hotels.properties alter tenant_id drop not null")
        loose = tie_to_parent(snapshot(connection), contract, table, key).partition("\n")[0]
        for told in (strict, loose):
            assert told.startswith("-- ")
            assert connection.execute(told.partition("put right first: ")[2].encode()).fetchall() == []
    assert "may be null" in loose
