"""Helpers behind policies: which look a membership up, and what counts as asking whether it counts."""

from __future__ import annotations

import pytest

from pgconform.catalog import Catalog, Function, Policy, Role, Server, Table
from pgconform.contract import Members
from pgconform.memberships import forgetful

MEMBERS = Members(table="shop.members", user="user_id", tenant="shop_id", active="is_active")
OWN = "where m.user_id = auth.uid()"


def helper(
    body: str, name: str = "mine", path: str | None = None, definer: bool = True, owner: str = "own"
) -> Function:
    settings = {} if path is None else {"search_path": path}
    return Function(
        "auth", name, "", "f", owner, 0, "sql", "uuid", security_definer=definer, configuration=settings, body=body
    )


def found(*functions: Function, view: str = "", members: Table | None = None, text: str = "auth.mine()") -> list[str]:
    roster = members or Table("shop", "members", "table", "own", 0, (), (), True, False)
    seen = Table("auth", "current", "view", "own", 0, (), (), False, False, definition=view)
    catalog = Catalog(
        Server(160_000, "db", "own", "UTF8"),
        (),
        (roster, seen),
        functions=functions,
        roles=(Role("own"), Role("other")),
    )
    return [f.name for f in forgetful(text, "rows", MEMBERS, "is_active", catalog)]


@pytest.mark.parametrize(
    "body",
    [
        f"select m.shop_id from shop.members m {OWN}",
        f"select m.shop_id from members m {OWN}",
        f'select m.shop_id from shops s join only "shop"."members" m using (id) {OWN} -- and m.is_active',
        f"select m.shop_id from shop . members m /* is_active */ {OWN}",
        f"select m.shop_id from shop.members m {OWN} and m.was_is_active",
    ],
)
def test_a_lookup_that_asks_nothing_is_found(body: str) -> None:
    assert found(helper(body)) == ["mine"]


@pytest.mark.parametrize(
    "body",
    [
        f"select m.shop_id from shop.members m {OWN} and coalesce(m.IS_ACTIVE, false)",
        f'select m.shop_id from shop.members m {OWN} and m."is_active" is true',
        f"select m.shop_id from other.members m {OWN}",
        "select s.members from shop.shops s where s.user_id = auth.uid() -- shop.members",
        "select count(*) from shop.members m where m.shop_id = $1",
        f"select m.shop_id from shop.members m {OWN} and exists (select from auth.current v)",
    ],
)
def test_what_asks_somewhere_or_looks_up_nobody_is_not(body: str) -> None:
    assert found(helper(body), view="SELECT id FROM shop.members WHERE is_active") == []


def test_a_bare_name_is_the_members_table_only_on_the_path_of_the_function() -> None:
    body = f"select m.shop_id from members m {OWN}"
    assert found(helper(body, path="shop, pg_temp")) == ["mine"]
    assert found(helper(body, path="other, pg_temp")) == []


def test_the_function_that_looks_up_is_named_however_deep() -> None:
    inner = helper(f"select m.shop_id from shop.members m {OWN}", name="inner")
    assert found(helper("select auth.inner()"), inner) == ["inner"]
    assert found(helper("select auth.inner() from shop.x where is_active"), inner) == []
    assert found(helper("select 1 -- auth.inner()"), inner) == []


def test_policies_of_the_members_table_ask_for_whom_they_bind() -> None:
    asking = (Policy("own", "SELECT", True, ("public",), "(is_active AND (user_id = auth.uid()))"),)
    roster = Table("shop", "members", "table", "own", 0, (), (), True, False, policies=asking)
    body = f"select m.shop_id from shop.members m {OWN}"
    assert found(helper(body, definer=False), members=roster) == []
    assert found(helper(body, owner="other"), members=roster) == []
    assert found(helper(body), members=roster) == ["mine"]
