"""What remedies make, and what they leave to whoever knows more than the contract."""

from __future__ import annotations

import datetime

import psycopg
import pytest

from pgconform.catalog import Catalog, Server
from pgconform.catalogue_of_checks import load
from pgconform.checks import Evidence, evaluate
from pgconform.database import Database
from pgconform.model import Finding
from pgconform.remedies import add_column, column_type, create_table
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
