"""Policies of one shape are judged once: whatever a judgement depends on keeps two tables apart."""

from __future__ import annotations

import datetime
from typing import Any

import msgspec
import pytest

from pgconform.catalog import Catalog, Column, Grant, Policy, Role, Schema, Server, Table
from pgconform.catalogue_of_checks import load
from pgconform.checks import Evidence, evaluate
from pgconform.contract import Contract
from pgconform.contract_file import validate
from pgconform.policy_cases import Case, policies
from pgconform.privileges import Privileges

JUDGING = [check for check in load().values() if check.select is policies and "evidence" not in check.asks]
TIED = "(tenant_id = (current_setting('app.tenant'::text))::bigint)"
GOOD = Policy("reads", "ALL", True, ("clients",), TIED, TIED)
GRANTS = (Grant("clients", "SELECT", "owner"), Grant("clients", "INSERT", "owner"))
SHARED = {"holds": "shared", "access": "tenant"}


def table(name: str, *policies: Policy, **changes: Any) -> Table:
    columns = (Column("tenant_id", 1, "bigint", 20, 20, -1), Column("secret", 2, "text", 25, 25, -1))
    made = Table("shop", name, "table", "owner", 0, columns, GRANTS, True, True, policies=policies or (GOOD,))
    return msgspec.structs.replace(made, **changes)


def promised(**promises: dict[str, Any]) -> Contract:
    raw = {
        "name": "alike",
        "schemas": {"exposed": ["shop"]},
        "roles": {"clients": ["clients"]},
        "sessions": {"member": {"role": "clients", "settings": {"app.tenant": "{tenant}"}}},
        "access": {"tenant": {"clients": {"select": "own", "insert": "own"}}, "open": {"clients": "all"}, "none": {}},
        "tenancies": {
            "tenant": {
                "column": "tenant_id", "type": "bigint", "session": "member",
                "registry": {"table": "shop.tenants", "key": "id"},
            }
        },
        "tables": {"shop.tenants": {"holds": "service", "access": "none"}}
        | {f"shop.{name}": promise for name, promise in promises.items()},
    }  # fmt: skip
    return validate(raw, "alike.toml")


def evidence(contract: Contract, *tables: Table) -> Evidence:
    catalog = Catalog(
        Server(160_000, "db", "owner", "UTF8"), (Schema("shop", "owner", (Grant("clients", "USAGE", "owner"),)),),
        tuple(tables), roles=(Role("clients"), Role("owner"), Role("others")),
    )  # fmt: skip
    return Evidence(contract, catalog, None, datetime.date(2026, 11, 1))  # type: ignore[arg-type]


def found(contract: Contract, *tables: Table) -> set[tuple[str, str, str]]:
    seen = evidence(contract, *tables)
    results = [evaluate(check, seen) for check in JUDGING]
    assert not any(result.unverified for result in results)
    return {(r.check, f.object, f.observed) for r in results for f in r.findings}


def cases(contract: Contract, *tables: Table) -> list[Case]:
    seen = evidence(contract, *tables)
    return [case for _, _, case in policies(seen.catalog, contract, Privileges(seen.catalog))]


def test_tables_that_differ_in_names_alone_are_one_case() -> None:
    renamed = table("other", msgspec.structs.replace(GOOD, name="another"), owner="somebody", oid=7, rows=5.0)
    contract = promised(one={}, other={})
    assert len(set(map(id, cases(contract, table("one"), renamed)))) == 1
    assert found(contract, table("one"), renamed) == set()


def test_a_finding_of_one_shape_names_each_table_and_policy() -> None:
    loose = Policy("any", "SELECT", True, ("clients",), "true")
    told = found(
        promised(one={}, other={}), table("one", loose), table("other", msgspec.structs.replace(loose, name="B"))
    )
    assert {(at, what) for check, at, what in told if check == "policy-always-true"} == {
        ("shop.one", 'policy "any" is always true (clients select)'),
        ("shop.other", 'policy "B" is always true (clients select)'),
    }


RESTRICTIVE = Policy("ties", "ALL", False, ("clients",), TIED, TIED)
LOOSE = Policy("reads", "ALL", True, ("clients",), "true", "true")
LEANING = "(tenant_id IN ( SELECT one.tenant_id FROM shop.one))"  # proves nothing in the policy of ``one`` itself


# What the first table has, what the second has instead, and what is promised of the second.
GRANTED = (Column("secret", 2, "text", 25, 25, -1, acl=GRANTS[1:]),)
DIFFERENCES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "using": ({}, {"policies": (msgspec.structs.replace(GOOD, using="true"),)}, {}),
    "check": ({}, {"policies": (msgspec.structs.replace(GOOD, check="true"),)}, {}),
    "command": (
        {"policies": (Policy("reads", "DELETE", True, ("clients",), "true"),)},
        {"policies": (Policy("reads", "SELECT", True, ("clients",), "true"),)},
        {},
    ),
    "permissive": (
        {"policies": (msgspec.structs.replace(LOOSE, permissive=False),)},
        {"policies": (LOOSE,)},
        {},
    ),
    "a restrictive one": ({"policies": (LOOSE, RESTRICTIVE)}, {"policies": (LOOSE,)}, {}),
    "the restrictive one's command": (
        {"policies": (LOOSE, RESTRICTIVE)},
        {"policies": (LOOSE, msgspec.structs.replace(RESTRICTIVE, command="DELETE"))},
        {},
    ),
    "the restrictive one's expression": (
        {"policies": (LOOSE, RESTRICTIVE)},
        {"policies": (LOOSE, msgspec.structs.replace(RESTRICTIVE, using="true"))},
        {},
    ),
    "the restrictive one's roles": (
        {"policies": (LOOSE, RESTRICTIVE)},
        {"policies": (LOOSE, msgspec.structs.replace(RESTRICTIVE, roles=("others",)))},
        {},
    ),
    "grants": ({"policies": (LOOSE,)}, {"policies": (LOOSE,), "acl": GRANTS[:1]}, {}),
    "grants of columns": (
        {"policies": (LOOSE,), "acl": GRANTS[:1]},
        {"policies": (LOOSE,), "acl": GRANTS[:1], "columns": GRANTED},
        {},
    ),
    "whose rows": ({"policies": (LOOSE,)}, {"policies": (LOOSE,)}, SHARED),
    "profile": ({"policies": (LOOSE,)}, {"policies": (LOOSE,)}, {"access": "open"}),
    "column": ({}, {}, {"column": "branch_id"}),
}


@pytest.mark.parametrize("first, second, promise", DIFFERENCES.values(), ids=DIFFERENCES)
def test_tables_that_differ_in_what_a_judgement_depends_on_are_judged_apart(
    first: dict[str, Any], second: dict[str, Any], promise: dict[str, Any]
) -> None:
    one, other, contract = table("one", **first), table("other", **second), promised(one={}, other=promise)
    alone = found(contract, one), found(contract, other)
    assert {(check, what) for check, _, what in alone[0]} != {(check, what) for check, _, what in alone[1]}
    assert found(contract, one, other) == found(contract, other, one) == alone[0] | alone[1]


def test_a_policy_that_leans_on_its_own_table_is_judged_apart() -> None:
    leaning = msgspec.structs.replace(GOOD, using=LEANING)
    one, other, contract = table("one", leaning), table("other", leaning), promised(one={}, other={})
    told = found(contract, one, other)
    assert told == found(contract, other, one)
    assert {(check, at) for check, at, _ in told} == {("policy-bound-to-tenant", "shop.one")}


def test_a_policy_without_check_is_another_case() -> None:
    one, other = cases(
        promised(one={}, other={}), table("one"), table("other", msgspec.structs.replace(GOOD, check=None))
    )
    assert one is not other


def test_a_policy_for_another_role_is_another_case() -> None:
    public = msgspec.structs.replace(GOOD, roles=("public",))
    one, other = cases(promised(one={}, other={}), table("one"), table("other", public))
    assert one is not other


def test_a_name_with_a_double_quote_is_found_as_the_server_spells_it() -> None:
    text = '(tenant_id = (select "o""ne".tenant_id from shop."o""ne"))'
    (case,) = cases(promised(), table('o"ne', msgspec.structs.replace(GOOD, using=text)))
    assert (case.table, case.named) == ('o"ne', 'shop."o""ne"')


def test_subjects_come_from_what_stays_as_it_is() -> None:
    """They are selected once for all checks, so neither a database nor an effort may be asked."""
    import inspect

    asked = {name for check in load().values() for name in inspect.signature(check.select).parameters}
    assert asked <= {"catalog", "contract", "privileges"}
