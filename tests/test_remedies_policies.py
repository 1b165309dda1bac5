"""Remedies write policies anew, and nobody gets a row by that which the policy kept from them."""

from __future__ import annotations

import datetime
import json
from typing import Any

import msgspec
import psycopg
import pytest

from pgconform.catalogue_of_checks import load
from pgconform.checks import Evidence, evaluate
from pgconform.contract import Contract
from pgconform.database import Database
from pgconform.policy_cases import policies
from pgconform.policy_conditions import asked_once, counted
from pgconform.remedies_policies import fence, reopen, tie
from tests.conftest import Connect
from tests.proving import contract_of, run_remedy, snapshot, transaction

CONTRACT = contract_of("victorysync")
REVIEWS = [check for check in load().values() if check.select is policies]
MINE = "select m.org_id from public.org_users as m where m.user_id = auth.uid()"
RANKED = "exists (select 1 from public.org_users as m where m.user_id = auth.uid() and m.role in ('owner', 'admin'))"

# A policy, what must stay of it, and whether all of its rows do.
ASKING = {
    "a rank of any tenant's": (RANKED, "'owner'", False),
    "a state": ("auth.uid() is not null and status = 'completed'", "'completed'", False),
    "a rank, and a state": (f"org_id in ({MINE} and m.role = 'owner') and duration > 60", "60", False),
    "a state opens": (f"org_id in ({MINE} and m.is_active) or status = 'missed'", "'missed'", False),
    "no rank": (
        f"org_id in ({MINE}) and not exists ({MINE} and m.org_id = calls.org_id and m.role = 'viewer')",
        "'viewer'",
        False,
    ),
    "all, for each row": (f"org_id in ({MINE} and m.is_active and m.role = 'owner') and duration > 60", "60", True),
}


def _evidence(connection: psycopg.Connection[Any], contract: Contract = CONTRACT) -> Evidence:
    return Evidence(contract, snapshot(connection), Database(connection), datetime.date(2026, 11, 1))


def _remedies(connection: psycopg.Connection[Any]) -> list[str]:
    seen = _evidence(connection)
    return [f.remedy for check in REVIEWS for f in evaluate(check, seen).findings if f.object == "public.calls"]


def _visible(connection: psycopg.Connection[Any]) -> dict[str, set[Any]]:
    """The calls that each user sees, members and others."""
    users = connection.execute("select distinct user_id::text from public.org_users order by 1 limit 60").fetchall()
    found = {}
    for user in [*(user for (user,) in users), "00000000-0000-4000-8000-000000000000"]:
        with connection.transaction(force_rollback=True):
            claims = json.dumps({"sub": user, "role": "authenticated"})
            connection.execute("select set_config('request.jwt.claims', %s, true)", [claims])
            connection.execute("set local row_security = on; set local role authenticated")
            found[user] = {row for (row,) in connection.execute("select id from public.calls")}
    return found


@pytest.mark.parametrize("turned", [False, True], ids=["in order", "in the opposite order"])
@pytest.mark.parametrize(("old", "stays", "same"), ASKING.values(), ids=ASKING)
def test_a_policy_goes_on_asking_what_it_asked(
    connect: Connect, old: str, stays: str, same: bool, turned: bool
) -> None:
    connection = connect("victorysync")
    with transaction(connection, CONTRACT):
        connection.execute(f'alter policy "members read" on public.calls using ({old})'.encode())
        before, remedies = _visible(connection), _remedies(connection)
        assert remedies
        for remedy in reversed(remedies) if turned else remedies:
            connection.execute(remedy.encode())
        after = _visible(connection)
        (text,) = connection.execute(
            "select qual from pg_catalog.pg_policies where tablename = 'calls' and policyname = 'members read'"
        ).fetchone() or ("",)
        assert _remedies(connection) == []
    assert stays in text
    assert {user: rows - before[user] for user, rows in after.items() if rows - before[user]} == {}
    assert any(after.values())
    assert not same or after == before


def test_what_proves_nothing_goes_and_the_rest_stays(connect: Connect) -> None:
    """A setting of anybody's, and the user taken for the tenant; a remark says what the policy asks no longer."""
    connection = connect("victorysync")
    old = "status = 'completed' and (org_id = current_setting('app.org', true)::uuid or org_id = (select auth.uid()))"
    with transaction(connection, CONTRACT):
        connection.execute(f'alter policy "members read" on public.calls using ({old})'.encode())
        remedies = _remedies(connection)
        assert len(set(remedies)) == 1 or all("app.org" in remedy.partition("\n")[0] for remedy in remedies)
        for remedy in remedies:
            connection.execute(remedy.encode())
        assert _remedies(connection) == []
        rows = set().union(*_visible(connection).values())
        query = connection.execute("select distinct status from public.calls where id = any(%s)", [list(rows)])
        assert query.fetchall() == [("completed",)]


def test_a_rank_that_anybody_may_write_stays_until_somebody_asks_a_membership(connect: Connect) -> None:
    """Without it everybody would get what the application shows to some; beside another way in, it opens the table."""
    connection = connect("victorysync")
    rank = "auth.jwt() -> 'user_metadata' ->> 'role' = 'admin'"
    with transaction(connection, CONTRACT):
        connection.execute(f'alter policy "members read" on public.calls using ({rank} and duration > 60)'.encode())
        remedies = set(_remedies(connection))
        assert len(remedies) == 1
        assert remedies.pop().startswith('-- it proves nothing; have policy "members read" ask a membership instead: ')
        connection.execute(
            f'alter policy "members read" on public.calls using ({rank} or org_id in ({MINE} and m.is_active))'.encode()
        )
        before = _visible(connection)
        for remedy in _remedies(connection):
            connection.execute(remedy.encode())
        assert (_remedies(connection), _visible(connection)) == ([], before)


def test_what_hides_own_rows_by_their_state_is_shown_and_stays(connect: Connect) -> None:
    connection = connect("victorysync")
    with transaction(connection, CONTRACT):
        connection.execute(
            f'alter policy "members read" on public.calls using (org_id in ({MINE}) and duration > 60)'.encode()
        )
        evidence = _evidence(connection)
        table = evidence.catalog.table("public.calls")
        assert table
        before, remedy = _visible(connection), reopen(evidence, table, ["authenticated"], ("select",))
        assert remedy.startswith('-- policy "members read" asks more than whose the row is: ')
        assert "duration > 60" in remedy.partition("\n")[0]
        connection.execute(remedy.encode())
        assert _visible(connection) == before


def test_what_shows_foreign_rows_is_fenced_and_asks_the_rest(connect: Connect) -> None:
    """Whatever the text says: a function may lie. A policy of the backend's is nobody's business here."""
    connection = connect("victorysync")
    with transaction(connection, CONTRACT):
        connection.execute(
            "create function auth.yes(uuid) returns boolean language sql stable set search_path = '' as 'select true';"
            "grant execute on function auth.yes(uuid) to authenticated;"
            "create policy backend on public.calls to service_role using (true);"
            'alter policy "members read" on public.calls using (auth.yes(org_id) and duration > 60)'
        )
        evidence = _evidence(connection)
        table = evidence.catalog.table("public.calls")
        assert table
        before = _visible(connection)
        remedy = fence(evidence, table, ["authenticated"])
        assert "backend" not in remedy
        run_remedy(connection, remedy)
        after = _visible(connection)
    assert any(before[user] - rows for user, rows in after.items())
    assert all(rows <= before[user] for user, rows in after.items())
    assert any(after.values())


@pytest.mark.parametrize(
    "text",
    [
        "not (exists (select from public.org_users as m where m.user_id = a.b()))",
        "(0 = (select count(*) from public.org_users as m))",
        "x <> all (select m.org_id from public.org_users as m)",
        "exists (select 1 from public.t as t left join public.org_users as m on m.org_id = t.org_id)",
        "exists (select t.id from public.t as t except select m.org_id from public.org_users as m)",
        "exists (select 1 from public.org_users as m where m.is_active)",
    ],
)
def test_a_lookup_is_left_alone_where_finding_less_lets_more_through(text: str) -> None:
    assert counted(text, CONTRACT) == text


@pytest.mark.parametrize(
    ("text", "once"),
    [
        ("id = auth.uid()", "id = (select auth.uid())"),
        ("(id = ( SELECT auth.uid() AS uid))", "(id = ( SELECT auth.uid() AS uid))"),
        ("'auth.uid()' = id", "'auth.uid()' = id"),
        ("(id = ANY (auth.orgs()))", "(id = ANY ((select auth.orgs())::uuid[]))"),
        ("(id = ANY (auth.unknown()))", "(id = ANY (auth.unknown()))"),
    ],
)
def test_who_is_there_is_asked_once(connect: Connect, text: str, once: str) -> None:
    connection = connect("victorysync")
    with transaction(connection, CONTRACT):
        connection.execute("create function auth.orgs() returns uuid[] language sql stable as 'select null::uuid[]'")
        assert asked_once(text, snapshot(connection)) == once


def test_a_condition_that_cannot_be_read_stays_whole(connect: Connect) -> None:
    """What is nested too deeply to be parsed is a condition like any other."""
    connection = connect("victorysync")
    with transaction(connection, CONTRACT):
        evidence = _evidence(connection)
        table = evidence.catalog.table("public.calls")
        assert table
        deep = msgspec.structs.replace(table.policies[0], using=f"{'(' * 5}x{')' * 4}")
        told = tie(evidence.catalog, CONTRACT, "public.calls", table, deep)
        assert f") and ({deep.using})" in told
        odd = msgspec.structs.replace(table, policies=(deep,))
        assert f") and ({deep.using})" in fence(evidence, odd, ["authenticated"])
        assert "asks more than whose the row is" in reopen(evidence, odd, ["authenticated"], ("select",))


def test_a_role_that_is_outside_every_policy_is_blamed_for_its_own_sessions_alone(connect: Connect) -> None:
    """What members see who are under row security is mended by that, not by taking BYPASSRLS from somebody else."""
    hidden = load()["foreign-rows-hidden"]
    connection = connect("victorysync")
    with transaction(connection, CONTRACT):
        connection.execute("alter role anon bypassrls; alter table public.calls disable row level security")
        evidence = _evidence(connection)
        table = evidence.catalog.table("public.calls")
        assert table
        (finding,) = evaluate(hidden, evidence, [table]).findings
        assert finding.remedy == "alter table public.calls enable row level security;"
        assert fence(evidence, table, ["anon"]) == "alter role anon nobypassrls;"
        assert fence(evidence, table, ["anon", "authenticated"]).splitlines() == [
            "alter role anon nobypassrls;", finding.remedy,
        ]  # fmt: skip
        run_remedy(connection, finding.remedy)
        assert evaluate(hidden, _evidence(connection), [table]).findings == ()
