"""Contract files: what is accepted, how names become canonical, and what each mistake is answered with."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

import pgconform.contract
from pgconform import contract_file
from pgconform.contract_file import NAMES, ContractError, bundled, json_schema, load, resolve

VALID = Path(__file__).with_name("contract.toml").read_text(encoding="utf-8")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "demo.toml"


def answer(file: Path, text: str | bytes) -> str:
    """What the mistake in the text is answered with, without the file's name."""
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ContractError) as caught:
        load(file)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{file}: ") and line.isprintable() for line in lines)
    return "\n".join(line.removeprefix(f"{file}: ") for line in lines)


# -- what is accepted -------------------------------------------------------------------------------------------


def test_a_valid_file_is_read_with_canonical_names(file: Path) -> None:
    file.write_text(VALID)
    contract = load(file)
    assert list(contract.tables) == [
        "public.docs",
        "public.parts",
        "public.orgs",
        'public."Members"',
        "public.settings",
    ]
    assert list(contract.functions) == ["public.match"]
    docs = contract.tables["public.docs"]
    assert docs.references[0].table == "auth.users"
    assert docs.references[0].columns == ("Author",), "columns are kept as written"
    assert docs.retention
    assert docs.retention.archive == "old.docs"
    assert docs.totals[0].detail == "public.parts"
    assert list(docs.vectors) == ["Embedding"]
    assert contract.tables["public.parts"].parent == "public.docs"
    org = contract.tenancies["org"]
    assert org.registry
    assert org.members
    assert (org.registry.table, org.members.table, org.members.users) == (
        "public.orgs", 'public."Members"', "auth.users.id",
    )  # fmt: skip
    assert org.complete[0].table == "public.settings"
    search = contract.functions["public.match"].search
    assert search
    assert search.vector == 'public.docs."Embedding"'
    assert (contract.reports[0].relation, contract.reports[0].table) == ("public.figures", "public.docs")
    assert contract.metrics
    assert contract.metrics.table == "public.metrics"
    assert contract.waivers[0].until == datetime.date(2030, 12, 31)
    assert contract.sessions["member"].claims["nested"] == {"list": [1, True, 2.5]}


def test_every_field_that_names_an_object_is_made_canonical() -> None:
    structs = [kind for kind in vars(pgconform.contract).values()
               if isinstance(kind, type) and issubclass(kind, pgconform.contract.Section)]  # fmt: skip
    named = {"table", "parent", "archive", "relation", "users", "vector", "tables", "functions"}
    for kind in structs:
        fields = {field.name for field in msgspec.structs.fields(kind)}
        assert NAMES.get(kind, {}).keys() <= fields, kind
        assert fields & named <= NAMES.get(kind, {}).keys(), kind


def test_a_byte_order_mark_and_windows_line_ends_are_accepted(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf" + VALID.replace("\n", "\r\n").encode())
    assert load(file).name == "demo"


def test_false_switches_off_what_is_on_by_default(file: Path) -> None:
    file.write_text(VALID.replace("dimension = 3", "dimension = 3\nindex = false\nnorm = false"))
    vector = load(file).tables["public.docs"].vectors["Embedding"]
    assert (vector.index, vector.norm) == (None, None)
    assert "wanted" in answer(file, VALID.replace("dimension = 3", "dimension = 3\ncoverage = false"))


# -- files that are no contract ---------------------------------------------------------------------------------


def test_a_file_that_cannot_be_read_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ContractError, match=r"demo\.toml: cannot be read: no such file or directory$"):
        load(file)
    with pytest.raises(ContractError, match=r"cannot be read: is a directory$"):
        load(file.parent)
    with pytest.raises(ContractError, match=r"a\\x00b: cannot be read: not a path$"):
        load(Path("a\0b"))

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ContractError, match=r"cannot be read: permission denied$"):
        load(file)


@pytest.mark.parametrize(
    "text, wanted",
    [
        (b"name = 'a'\ntitle = '\xff'", "not UTF-8 at line 2; save the file as UTF-8"),
        ("name = 'a'\nroles = [", "not TOML: Invalid value (at end of document)"),
        ("name = 'a'\ntitle 5", "not TOML: Expected '=' after a key in a key/value pair (at line 2, column 7)"),
        ("name = 'a'\nname = 'b'\n", "not TOML: Cannot overwrite a value (at line 2, column 11)"),
        ("title = " + "[" * 9000, "not TOML: nested too deeply"),
    ],
    ids=["bytes", "end", "statement", "twice", "deep"],
)
def test_what_is_not_toml_is_answered_with_the_line(file: Path, text: str | bytes, wanted: str) -> None:
    assert answer(file, text) == wanted


def test_a_number_of_too_many_digits_is_one_line(file: Path) -> None:
    assert answer(file, "limits.tenants = " + "9" * 5000).startswith("not TOML: ")


def test_the_size_is_limited(file: Path) -> None:
    head = b"name = 'a'\n#"
    file.write_bytes(head + b" " * (contract_file.LARGEST - len(head)))
    assert load(file).name == "a"
    assert answer(file, head + b" " * (contract_file.LARGEST - len(head) + 1)).startswith("larger than 5 MB")


# -- keys and values --------------------------------------------------------------------------------------------

SHAPES = {
    "tabels = 1": "tabels: unknown key; accepted: name, ",
    "[role]": "role: unknown key; accepted: ",
    "limits.tenant = 5":
        "[limits] tenant: unknown key; accepted: statement_timeout, lock_timeout, call_timeout, tenants, searches,"
        " search_seconds; did you mean 'tenants'?",
    "[tables.'hotels.content'.vectors.e]\ndimension = 3\nmetrc = 1":
        "[tables.\"hotels.content\".vectors.e] metrc: unknown key; accepted: dimension, type, metric, index,"
        " coverage, norm, distinct, queries; did you mean 'metric'?",
    "[tables.'a.b'.vectors.e]\ndimension = 3\nmetric = 'cosin'":
        "[tables.\"a.b\".vectors.e] metric: wanted one of 'cosine', 'l2', 'ip', 'l1', 'hamming', 'jaccard', found"
        " 'cosin'; did you mean 'cosine'?",
    "[tables.'a.b'.vectors.e]\ndimension = 3\ncoverage = 1.01":
        "[tables.\"a.b\".vectors.e] coverage: wanted a number from 0 to 1",
    "[tables.'a.b'.vectors.e]\ndimension = 3\nnorm = [2, 1]":
        "[tables.\"a.b\".vectors.e] norm: wanted the lower bound first",
    "[tables.'a.b'.vectors.e]\ndimension = 3\nnorm = [1]":
        "[tables.\"a.b\".vectors.e] norm: wanted a list of 2 numbers",
    "[tables.'a.b'.vectors.e]\ndimension = 3\nnorm = [0, inf]":
        "[tables.\"a.b\".vectors.e] norm: wanted a finite number",
    "[tables.'a.b'.vectors.e]\ndimension = 3\nindex = 3":
        "[tables.\"a.b\".vectors.e] index: wanted a table, found an integer; accepted keys: methods, cast,"
        " rows_per_list, m, ef_construction, recall",
    "[tables.'a.b']\nfilled = ['title']":
        "[tables.\"a.b\"] filled #1: wanted a table, found text; accepted keys: column, share, above",
    "[tables.'a.b']\nfilled = { column = 'title' }":
        "[tables.\"a.b\"] filled: wanted a list, found a table; accepted keys of each item, a table:"
        " column, share, above",
    "[tables.'a.b']\nchunks = 'part'":
        "[tables.\"a.b\"] chunks: wanted a table, found text; accepted keys: unit, number, total, first",
    "[tables.'a.b'.vectors.e]": "[tables.\"a.b\".vectors.e] dimension: missing; wanted an integer of at least 1",
    "[tables.'a.b'.minimum]\nx = nan": "[tables.\"a.b\".minimum] x: wanted a finite number",
    "[[tables.'a.b'.references]]\ncolumns = ['a']\ntable = 'c.d'\non_delete = 'drop'":
        "[[tables.\"a.b\".references]] #1 on_delete: wanted one of 'no action', 'restrict', 'cascade', 'set null',"
        " 'set default', found 'drop'",
    "roles.clients = ['anon', 7]": "[roles] clients #2: wanted text, found an integer",
    "roles.clients = 'anon'": "[roles] clients: wanted a list, found text",
    "roles = 2030-01-01": "roles: wanted a table, found a date or time; accepted keys: clients, services, privileged",
    "roles.privileged.a = ['SUPERUSR']": "[roles.privileged] a #1: wanted one of 'SUPERUSER', 'BYPASSRLS',"
    " 'CREATEROLE', 'CREATEDB', 'REPLICATION', found 'SUPERUSR'; did you mean 'SUPERUSER'?",
    "access.tenant.app = 'owm'": "[access.tenant] app: wanted one of 'none', 'own', 'team', 'shared', 'all' or a"
    " table,"
    " found 'owm'; did you mean 'own'?",
    "access.tenant.app.selct = 'own'": "[access.tenant.app] selct: wanted one of 'select', 'insert', 'update',"
    " 'delete', found 'selct'; did you mean 'select'?",
    "limits.tenants = 1": "[limits] tenants: wanted an integer of at least 2",
    "limits.tenants = 2.5": "[limits] tenants: wanted an integer of at least 2, found a number",
    "limits.tenants = true": "[limits] tenants: wanted an integer of at least 2, found true or false",
    "limits.tenants = 9223372036854775808": "[limits] tenants: wanted a number of at most 64 bits",
    "title = 'a\\u0000'".replace("'", '"'): "title: wanted text without the character U+0000",
    "sessions.member = { role = 'a', claims = { x = 2030-01-01 } }":
        "[sessions.member.claims] x: wanted text, a number, true or false, a list or a table,"
        " found a date or time",
    "[[waivers]]\ncheck='c'\nobject='o'\nreason='r'\nowner='w'\nuntil = 2030-01-01T00:00:00":
        "[[waivers]] #1 until: wanted a date such as 2030-12-31, found a date or time",
    "[[waivers]]\ncheck='c'\nobject='o'\nreason='r'\nowner='w'\nuntil = 'soon'":
        "[[waivers]] #1 until: wanted a date such as 2030-12-31, found text",
    "[[waivers]]\ncheck='c'\nobject='o'\nreason=''\nowner='w'\nuntil = 2030-01-01":
        "[[waivers]] #1 reason: wanted text that is not empty",
    "[tables.docs]": '[tables] docs: wanted schema.name, with double quotes around unusual parts',
    "[tables.'a.b.c']": '[tables] "a.b.c": wanted schema.name, with double quotes around unusual parts',
    "[tables.'a.\"']": '[tables] "a.\\"": wanted schema.name, with double quotes around unusual parts',
    "metrics.table = 'oops'": "[metrics] table: wanted schema.name, with double quotes around unusual parts",
    "user_functions = ['uid']": "user_functions #1: wanted schema.name, with double quotes around unusual parts",
    "[tables.'a.b']\n[tables.'A.B']": '[tables] "A.B": names the same as "a.b"; keep one of them',
    "[functions.'a.b']\n[functions.'a.\"b\"']":
        '[functions] "a.\\"b\\"": names the same as "a.b"; keep one of them',
}  # fmt: skip


@pytest.mark.parametrize("text", SHAPES, ids=[f"{n}-{key.splitlines()[-1][:40]}" for n, key in enumerate(SHAPES)])
def test_each_malformed_part_is_answered_with_section_and_key(file: Path, text: str) -> None:
    got, wanted = answer(file, f'name = "demo"\n{text}'), SHAPES[text]
    assert got.startswith(wanted)
    assert wanted.endswith((": ", ", ")) or got == wanted


def test_a_name_is_required_and_has_a_form(file: Path) -> None:
    assert answer(file, "") == "name: missing; wanted text that matches ^[a-z][a-z0-9_-]*$"
    assert answer(file, "name = 'My base'") == "name: wanted text that matches ^[a-z][a-z0-9_-]*$"


def test_a_version_is_one(file: Path) -> None:
    """Text that is none would be older than each installed one, and pass."""
    form = "wanted text that matches ^([0-9]+(\\.[0-9]+)*)?$"
    assert answer(file, "name = 'a'\nextensions.vector.minimum = 'new'") == f"[extensions.vector] minimum: {form}"


def test_ten_problems_are_reported_at_once(file: Path) -> None:
    keys = [f"key{n} = 1" for n in range(12)]
    assert len(answer(file, "\n".join(keys)).splitlines()) == 10
    assert len(answer(file, "name = 'a'\n" + "\n".join(keys[:9])).splitlines()) == 9


def test_values_are_never_echoed(file: Path) -> None:
    secret = "hunter2 hunter2"
    places = [
        "name = '{}'", "roles = '{}'", "limits.tenants = '{}'", "metrics.table = '{}'", "skips = ['{}']",
        "[[waivers]]\nuntil = '{}'", "[sessions.a]\nrole = '{}'\nclaims = '{}'", "user_functions = ['{}']",
    ]  # fmt: skip
    for place in places:
        assert "hunter" not in answer(file, place.replace("{}", secret))


# -- names of contracts -----------------------------------------------------------------------------------------


def test_a_bundled_name_or_a_path_is_resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "contracts" / "muva.toml"
    monkeypatch.setattr(contract_file, "bundled", lambda: {"muva": path})
    assert resolve("muva") == path
    assert resolve(str(tmp_path)) == tmp_path
    for odd in ("muvva", "a\0b", "x" * 5000):
        with pytest.raises(ContractError) as caught:
            resolve(odd)
        assert "no such file and no bundled contract; bundled: muva" in str(caught.value)
        assert ("did you mean 'muva'?" in str(caught.value)) == (odd == "muvva")


def test_every_bundled_contract_is_valid() -> None:
    for name, path in bundled().items():
        assert load(path).name == name


# -- the schema for editors -------------------------------------------------------------------------------------


def test_the_committed_schema_is_current() -> None:
    committed = Path(contract_file.__file__).with_name("contract.schema.json").read_text(encoding="utf-8")
    current = json.dumps(json_schema(), indent=2) + "\n"
    assert committed == current, "write it: python -m pgconform.contract_file > pgconform/contract.schema.json"


def test_the_schema_never_wants_null_and_knows_every_section() -> None:
    schema = json_schema()
    assert '"null"' not in json.dumps(schema)
    definitions: Any = schema["$defs"]
    assert {kind.__name__ for kind in NAMES} <= definitions.keys()
    assert {"const": False} in definitions["Vector"]["properties"]["norm"]["anyOf"]
