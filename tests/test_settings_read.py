"""Which settings a text reads: told from literals, also where the name is put together of several."""

from __future__ import annotations

import datetime

import pytest

from pgconform.catalogue_of_checks import load
from pgconform.checks import Evidence, evaluate
from pgconform.database import Database
from pgconform.introspect import snapshot
from pgconform.settings_read import settings_read
from tests.conftest import Connect
from tests.proving import contract_of, transaction


@pytest.mark.parametrize(
    ("text", "name", "callers", "wanted"),
    [
        ("select current_setting('app.org', true)", "", [], [{"app.org"}]),
        ("(org_id = (current_setting('app.org'::text, true))::uuid)", "", [], [{"app.org"}]),
        ("select current_setting(concat('app.', 'org'), true)", "f", [], [{"app.org"}]),
        ("select current_setting(('app.'::text || 'org'::text))", "", [], [{"app.org"}]),
        ("select current_setting(concat_ws('.', 'app', 'org'))", "", [], [{"app.org"}]),
        ("select current_setting(format('%s.%s', 'app', 'org'))", "", [], [{"app.org"}]),
        ("select current_setting('app.' || n, true)", "f", ["select f('org')"], [{"app.org"}]),
        ("begin n := 'app.org'; return current_setting(n); end", "f", [], [{"app.org"}]),
        ("select current_setting(n)", "f", ["select f('app.org'), g('app.other')"], [{"app.org"}]),
        ("select current_setting(n)", "f", ["select f(x)"], [set()]),
        ("select current_setting('a.b'), current_setting('c.d')", "", [], [{"a.b"}, {"c.d"}]),
        ("select set_config('a.b', 'c', true)", "", [], []),
    ],
)
def test_names_are_told_from_literals(text: str, name: str, callers: list[str], wanted: list[set[str]]) -> None:
    assert [set(names) for names in settings_read(text, name, callers)] == wanted


HIDDEN = """
create table auth.names (name text);
create function auth.hidden() returns uuid language sql stable security definer set search_path = pg_temp as
  'select nullif(current_setting(n.name, true), '''')::uuid from auth.names as n';
create policy hidden on public.contacts for select to authenticated using (org_id = (select auth.hidden()));
"""


def test_a_policy_whose_setting_cannot_be_told_is_not_verified(connect: Connect) -> None:
    connection, contract = connect("victorysync"), contract_of("victorysync")
    with transaction(connection, contract):
        connection.execute(HIDDEN.encode())
        today = datetime.datetime.now(datetime.UTC).date()
        evidence = Evidence(contract, snapshot(connection), Database(connection), today)
        result = evaluate(load()["policy-trusted-settings"], evidence)
    assert result.findings == ()
    assert [reason for _, reason in result.unverified] == [
        "policy hidden reads a setting whose name cannot be told from its text"
    ]
