"""Access control lists: what the server's text says, and what it means where there is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgconform.acl import LETTERS, decode
from pgconform.catalog import PUBLIC, Grant


def written(role: str) -> str:
    """A role as putid (acl.c) writes it: quoted unless it is plain."""
    return role if role.isascii() and role.replace("_", "a").isalnum() else '"' + role.replace('"', '""') + '"'


@pytest.mark.parametrize(
    "item, grants",
    [
        ("reader=r/owner", [Grant("reader", "SELECT", "owner")]),
        ("=X/owner", [Grant(PUBLIC, "EXECUTE", "owner")]),
        ("a=r*w/b", [Grant("a", "SELECT", "b", True), Grant("a", "UPDATE", "b")]),
        ('"we=ird/ ""Name"""=U/"o*"', [Grant('we=ird/ "Name"', "USAGE", "o*")]),
        ("16402=m/10", [Grant("16402", "MAINTAIN", "10")]),
        ("a=/b", []),
    ],
)
def test_an_item_is_read(item: str, grants: list[Grant]) -> None:
    assert decode([item], "r", "nobody") == tuple(grants)


def test_every_letter_of_the_manual_is_known() -> None:
    assert set(LETTERS) == set("rawdDxtmXUCcTsA")
    assert decode(["a=z/b"], "r", "b")[0].privilege == "UNKNOWN z"  # a later server's, reported and not lost


@pytest.mark.parametrize(
    "kind, owner, everybody",
    [
        ("r", {"SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER", "MAINTAIN"}, set()),
        ("S", {"SELECT", "UPDATE", "USAGE"}, set()),
        ("f", {"EXECUTE"}, {"EXECUTE"}),
        ("n", {"USAGE", "CREATE"}, set()),
        ("T", {"USAGE"}, {"USAGE"}),
        ("l", {"USAGE"}, {"USAGE"}),
        ("L", {"SELECT", "UPDATE"}, set()),
        ("p", {"SET", "ALTER SYSTEM"}, set()),
        ("d", {"CREATE", "TEMPORARY", "CONNECT"}, {"TEMPORARY", "CONNECT"}),
        ("c", set(), set()),
    ],
)
def test_without_a_list_the_built_in_default_holds(kind: str, owner: set[str], everybody: set[str]) -> None:
    grants = decode(None, kind, "o")
    assert {g.privilege for g in grants if g.grantee == "o"} == owner
    assert {g.privilege for g in grants if g.grantee == PUBLIC} == everybody
    assert {g.grantor for g in grants} <= {"o"}


def test_an_empty_list_grants_nothing() -> None:
    assert decode([], "f", "o") == ()


def test_before_17_nobody_maintains() -> None:
    assert "MAINTAIN" not in {g.privilege for g in decode(None, "r", "o", maintain=False)}


ROLES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=12)


@given(ROLES, ROLES, st.lists(st.tuples(st.sampled_from(sorted(LETTERS)), st.booleans()), max_size=5))
def test_any_role_survives(grantee: str, grantor: str, held: list[tuple[str, bool]]) -> None:
    letters = "".join(letter + "*" * grantable for letter, grantable in held)
    item = f"{written(grantee)}={letters}/{written(grantor)}"
    assert decode([item], "r", "x") == tuple(Grant(grantee, LETTERS[x], grantor, g) for x, g in held)
