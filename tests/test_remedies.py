"""What remedies make, and what they leave to whoever knows more than the contract."""

from __future__ import annotations

import psycopg
import pytest

from pgconform.catalog import Catalog, Server
from pgconform.remedies import add_column, column_type, create_table
from tests.conftest import Connect
from tests.proving import contract_of, snapshot

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
