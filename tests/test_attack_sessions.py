"""Every client role that reaches a relation is attacked with, or it is said that nobody signs in with it."""

from __future__ import annotations

import datetime

import psycopg
import pytest

from pgconform.catalogue_of_checks import load
from pgconform.checks import Evidence, evaluate
from pgconform.database import Database
from pgconform.introspect import snapshot
from pgconform.model import Effort, Result
from tests.conftest import Connect
from tests.proving import contract_of, transaction

# A further client role, to which a helper shows everything.
PARTNER = """
create role partner nologin;
grant usage on schema public, auth to partner;
grant select, insert, update, delete on public.contacts to partner;
create function auth.any_row(uuid) returns boolean language sql stable set search_path = '' as 'select $1 is not null';
grant execute on function auth.any_row(uuid) to partner;
create policy partners on public.contacts to partner using (auth.any_row(org_id)) with check (auth.any_row(org_id))
"""
CLIENT = 'roles.clients = ["anon", "authenticated", "partner"]\naccess.tenant.partner = "own"\n'
SESSION = 'sessions.partner = { role = "partner", claims = { sub = "{user}" } }\n'
NOBODYS = 'sessions.partner = { role = "partner", claims = { role = "partner" } }\n'
CHECKS = ("relations-answer", "foreign-rows-hidden", "foreign-rows-unreadable", "foreign-rows-unwritable")


def judged(connection: psycopg.Connection, promise: str, sql: str = PARTNER) -> list[Result]:
    contract, database = contract_of("victorysync", promise), Database(connection)
    with transaction(connection, contract):
        connection.execute(sql.encode())
        catalog, today = snapshot(connection), datetime.datetime.now(datetime.UTC).date()
        evidence = Evidence(contract, catalog, database, today, lambda: database, Effort.of("quick", "1"))
        contacts = [catalog.table("public.contacts")]
        return [evaluate(load()[check], evidence, contacts) for check in CHECKS]


def test_a_client_role_without_a_session_is_not_verified(connect: Connect) -> None:
    """Where it reaches a relation: nothing of it has been tried there."""
    for result in judged(connect("victorysync"), CLIENT):
        assert (str(result.verdict), [f.key for f in result.findings]) == ("broken", []), result.check
        assert "role partner can reach public.contacts" in result.reason
        assert "[sessions.NAME]" in result.reason


def test_a_role_that_reaches_nothing_needs_no_session(connect: Connect) -> None:
    for result in judged(connect("victorysync"), CLIENT, "create role partner nologin"):
        assert str(result.verdict) == "passed", result.check


@pytest.mark.parametrize("session", [SESSION, NOBODYS], ids=["of users", "of nobody"])
def test_every_session_of_the_contract_attacks(session: str, connect: Connect) -> None:
    """Those that no tenancy names, too."""
    results = {r.check: r for r in judged(connect("victorysync"), CLIENT + session)}
    assert not [r.unverified for r in results.values() if r.unverified]
    assert {f.detail for f in results["foreign-rows-unwritable"].findings} >= {"insert", "update", "delete all"}
    assert {f.detail for f in results["foreign-rows-unreadable"].findings} == {"select", "copy to"}
