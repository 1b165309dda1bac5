"""Parts of a contract that contradict each other, and contracts of every other kind: never a crash."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pgconform.contract
from pgconform.contract_file import NAMES, ContractError, load, validate
from pgconform.names import canonical, qualified

VALID = Path(__file__).with_name("contract.toml").read_text(encoding="utf-8")


def answer(text: str) -> str:
    """What the mistake in the text is answered with, without the file's name."""
    with pytest.raises(ContractError) as caught:
        validate(tomllib.loads(text), "x.toml")
    return str(caught.value).replace("x.toml: ", "")


MEMBER = '[sessions.member]\nrole = "app"'
AGREEMENT = [
    ('[tables."public.orgs"]\n', '[tables."public.orgz"]\n',
     "[tenancies.org.registry] table: declare the table under [tables], too; tables: public.docs, public.parts,"
     ' public.orgz, public."Members", public.settings; did you mean \'public.orgz\'?'),
    ('name = "demo"', 'name = "demo"\nclaims_setting = "claims"',
     "claims_setting: wanted the name of a setting, with a dot, such as request.jwt.claims"),
    (MEMBER, f'[backups]\ndumps = "x"\nzone = "Europe/Madird"\n{MEMBER}',
     "[backups] zone: there is no such time zone here; wanted one such as UTC or Europe/Madrid"),
    (MEMBER, f'[backups]\ndumps = "x"\nzone = "/etc"\n{MEMBER}',
     "[backups] zone: there is no such time zone here; wanted one such as UTC or Europe/Madrid"),
    (MEMBER, '[sessions.member]\nrole = "ap"',
     "[sessions.member] role: not declared; roles.clients: anon, app; did you mean 'app'?"),
    (MEMBER, '[sessions.member]\nrole = "worker"',
     "[sessions.member] role: not declared; roles.clients: anon, app"),
    ("[sessions.member]", "[sessions.membr]",
     "[tenancies.org] session: not declared; sessions: anonymous, membr; did you mean 'membr'?"),
    ("{user}", "{tenant}", "[sessions] member: no claim or setting says {user}, but [tenancies] org has members"),
    ('admin = "owner"', 'admin = "ownr"',
     "[tenancies.org.members] admin: not declared; roles: owner, member; did you mean 'owner'?"),
    ('[access.tenant]\napp', "[access.tenant]\nap",
     "[access.tenant] ap: not declared; roles.clients and roles.services: anon, app, worker; did you mean 'app'?"),
    ("columns.app.", "columns.public.",
     '[tables."Public.Docs".columns] public: not declared; roles.clients and roles.services: anon, app, worker'),
    ('execute = ["app"]', 'execute = ["app", "wrker"]',
     '[functions."Public.Match"] execute #2: not declared; roles.clients and roles.services: anon, app, worker;'
     " did you mean 'worker'?"),
    ('[tables."Public.Docs"]', '[tables."Public.Docs"]\ntenancy = "orgs"',
     '[tables."Public.Docs"] tenancy: not declared; tenancies: org; did you mean \'org\'?'),
    ("[access.tenant]\n", '[tenancies.two]\ncolumn = "c"\ntype = "text"\n[access.tenant]\n',
     "[sessions] member: no claim or setting says {tenant}, but [tenancies] two has no members\n"
     '[tables."Public.Docs"] tenancy: missing; tenancies: org, two'),
    ("[access.tenant]", "[access.tenants]",
     "[tables.\"Public.Docs\"] access: no such profile (by default the one called 'tenant');"
     " access: tenants, child; did you mean 'tenants'?"),
    ('[tables."Public.Docs"]', '[tables."Public.Docs"]\naccess = "mine"',
     '[tables."Public.Docs"] access: no such profile; access: tenant, child'),
    ('column = "doc"\n', "", "[tables.\"public.parts\"] column: missing; holds = 'child' needs it"),
    ('holds = "child"\ncolumn = "doc"\n', 'holds = "user"\naccess = "child"\n',
     "[tables.\"public.parts\"] column: missing; holds = 'user' needs it"),
    ('parent = "public.DOCS"', "", "[tables.\"public.parts\"] parent: missing; holds = 'child' needs it"),
    ('parent = "public.DOCS"', 'parent = "public.doc"',
     '[tables."public.parts"] parent: not declared; tables: public.docs, public.parts, public.orgs,'
     ' public."Members", public.settings; did you mean \'public.docs\'?'),
    ('parent = "public.DOCS"', 'parent = "public.parts"',
     "[tables.\"public.parts\"] parent: the parents go round in a circle; one must not hold 'child'"),
    ('columns = ["Author"]', 'columns = ["Author", "b"]',
     '[[tables."Public.Docs".references]] #1 to: wanted as many columns as in columns, at least one'),
    ('[tables."Public.Docs"]', '[tables."Public.Docs"]\nholds = "shared"\naccess = "tenant"\nexclusive = ["a"]',
     "[tables.\"Public.Docs\"] exclusive: wanted only where column or holds = 'tenant' says whose a row is"),
    ('[tables."Public.Docs"]', '[tables."Public.Docs"]\nholds = "shared"\naccess = "tenant"\ncolumn = "a"',
     "[tables.\"Public.Docs\"] column: holds = 'shared' says that rows are nobody's; wanted only with exclusive,"
     " distinct or determines"),
    ("""'public.docs."Embedding"'""", '"public.docs.Embedding"',
     '[functions."Public.Match".search] vector: not declared; vectors: public.docs."Embedding";'
     " did you mean 'public.docs.\"Embedding\"'?"),
    ('query = "q"', 'query = ""', '[functions."Public.Match".search] query: not declared; arguments: q, n'),
    ('count = "n"', 'count = "k"', '[functions."Public.Match".search] count: not declared; arguments: q, n'),
    ('count = "n"', 'tenant = "k"', '[functions."Public.Match".search] tenant: not declared; arguments: q, n'),
    ('count = "n"', 'threshold = "k"',
     '[functions."Public.Match".search] threshold: not declared; arguments: q, n'),
    ("[[reports]]", '[[reports]]\naggregate = "sum"',
     "[[reports]] #1 of: missing; aggregate = 'sum' needs a column"),
]  # fmt: skip


@pytest.mark.parametrize("old, new, wanted", AGREEMENT, ids=[f"{n}-{case[2][:40]}" for n, case in enumerate(AGREEMENT)])
def test_parts_that_contradict_each_other_are_named(old: str, new: str, wanted: str) -> None:
    assert VALID.count(old) == 1
    assert answer(VALID.replace(old, new)) == wanted


def test_a_column_of_a_shared_table_is_accepted_where_it_is_used() -> None:
    """Everybody reads the rows, and yet a value belongs to one tenant."""
    shared = 'holds = "shared"\naccess = "tenant"\ncolumn = "a"\nexclusive = ["b"]'
    assert validate(
        tomllib.loads(VALID.replace('[tables."Public.Docs"]', f'[tables."Public.Docs"]\n{shared}')), "x.toml"
    )


def test_a_tenant_table_needs_a_tenancy() -> None:
    text = 'name = "a"\naccess.tenant = {}\n[tables."a.b"]'
    assert answer(text) == '[tables."a.b"] tenancy: missing; tenancies: none'


def walk(node: Any) -> Any:
    """Every part of a nested value."""
    yield node
    for item in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from walk(item)


KEYS = sorted({field.name for kind in [*NAMES, *vars(pgconform.contract).values()] if isinstance(kind, type)
               and issubclass(kind, msgspec.Struct) for field in msgspec.structs.fields(kind)})  # fmt: skip
SCALARS = st.one_of(
    st.text(max_size=12), st.sampled_from([*KEYS, "tenant", "own", "a.b", 'a."b c"', "vector"]), st.integers(),
    st.floats(), st.booleans(), st.dates(), st.datetimes(), st.times(),
)  # fmt: skip
TOML = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS) | st.text(), inner, max_size=4)
    ),
    max_leaves=12,
)


def problems(raw: dict[str, Any]) -> list[str]:
    """The lines of the ContractError; none where the contract is valid."""
    try:
        validate(raw, "x.toml")
    except ContractError as error:
        return str(error).split("\n")
    return []


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS) | st.text(), TOML, max_size=6))
def test_any_dictionary_is_a_contract_or_a_contract_error(raw: dict[str, Any]) -> None:
    lines = problems(raw)
    assert len(lines) <= 10
    assert all(line.isprintable() and line.startswith("x.toml: ") and len(line) < 4000 for line in lines)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_one_value_replaced_in_a_valid_contract_is_never_a_crash(data: st.DataObject) -> None:
    raw = tomllib.loads(VALID)
    spots = [(node, key) for node in walk(raw) if isinstance(node, dict | list)
             for key in (node if isinstance(node, dict) else range(len(node)))]  # fmt: skip
    node, key = data.draw(st.sampled_from(spots))
    node[key] = data.draw(TOML)
    assert all(line.isprintable() for line in problems(raw))


NAME = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)
HOSTILE = st.sampled_from(
    ['Weird "Name"', "drop table x;--", "a.b", "select", "ß", "\u202e", "x\ny", "'", "{user}", "\x7f"]
)
PAIRS = st.tuples(NAME | HOSTILE, NAME | HOSTILE)


def toml(value: Any) -> str:
    """The value as inline TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)


def quoted(*parts: str) -> str:
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)


@st.composite
def contracts(draw: st.DrawFn) -> dict[str, Any]:
    """Valid contracts with names of every kind."""
    tables = draw(st.lists(PAIRS, min_size=1, max_size=4, unique=True))
    column, role, profile = draw(NAME | HOSTILE), draw(NAME), draw(NAME)
    vector = draw(NAME | HOSTILE)
    first = quoted(*tables[0])
    return {
        "name": "demo",
        "roles": {"clients": [role], "services": []},
        "sessions": {"member": {"role": role, "claims": {"sub": ["{user}"]}}},
        "tenancies": {"t": {"column": column, "type": "text", "members": {
            "table": first, "user": "u", "tenant": "t", "users": quoted(*draw(PAIRS), column)}}},
        "access": {profile: {role: draw(st.sampled_from(["own", {"select": "own", "delete": "none"}]))}},
        "tables": {
            quoted(*pair): {
                "access": profile,
                "references": [{"columns": [column], "table": first}],
                "vectors": {
                    vector: {"dimension": 3, "norm": draw(st.sampled_from([False, [0, 1]])), "index": False}
                },
                "minimum": {column: draw(st.floats(allow_nan=False, allow_infinity=False))},
            }
            for pair in tables
        },
        "functions": {quoted(*draw(PAIRS)): {
            "arguments": [{"name": "q", "type": "vector", "default": draw(st.sampled_from([False, 1, "x"]))}],
            "search": {"vector": f"{first}.{quoted(vector)}", "query": "q"}, "execute": [role]}},
    }  # fmt: skip


def dumped(contract: pgconform.contract.Contract) -> Any:
    """The contract as TOML would have it."""

    def without_none(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without_none(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [without_none(item) for item in value]
        return False if value is None else value

    return without_none(msgspec.to_builtins(contract))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(contracts())
def test_loading_a_dumped_contract_changes_nothing(tmp_path: Path, raw: dict[str, Any]) -> None:
    path = tmp_path / "x.toml"
    text = "\n".join(f"{key} = {toml(value)}" for key, value in raw.items())
    path.write_text(text, encoding="utf-8", newline="")
    contract = load(path)
    assert contract == validate(raw, "x.toml")
    assert list(contract.tables) == [canonical(name) for name in raw["tables"]]
    assert all(name == canonical(name) for name in contract.tables)
    assert validate(dumped(contract), "x.toml") == contract


@given(PAIRS)
def test_a_quoted_name_is_kept_to_the_letter(pair: tuple[str, str]) -> None:
    tables = {quoted(*pair): {"holds": "shared"}}
    contract = validate({"name": "a", "access": {"shared": {}}, "tables": tables}, "x.toml")
    assert list(contract.tables) == [qualified(*pair)]


PROMISES = [
    ('reference = "nope"', "reference: not declared; reference databases: muva, victorysync"),
    ('guide = "mvua"', "guide: not declared; guides: muva, victorysync; did you mean 'muva'?"),
    ("[backups]\nhours = 24", "backups: names no place; wanted archiver = true, or one of manifest, dumps, listing"),
    ('[backups]\nlisting = "env:postgresql://u:c4n4ry@h/x"',
     "[backups] listing: wanted the name of an environment variable after env:, such as env:BACKUPS"),
    ("[limits]\nstatement_timeout = 2147483648",
     "[limits] statement_timeout: wanted an integer from 1 to 2147483647"),
    ("[limits]\nlock_timeout = 0", "[limits] lock_timeout: wanted an integer from 1 to 2147483647"),
    ('[skips]\nbloat = ""', "[skips] bloat: wanted text that is not empty"),
    ("[operations.sizes]\ndatabase = -1", "[operations.sizes] database: wanted a number above 0"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), PROMISES)
def test_what_no_database_can_keep_is_said(text: str, said: str) -> None:
    told = answer(f'name = "demo"\n{text}')
    assert told == said
    assert "c4n4ry" not in told
