"""Reads a contract from a TOML file: every problem is one line that names file, section and key.

The file is walked along the types of ``contract``, so that a key is known here as soon as it is a field there.
Values are never echoed, since one may be a secret, except where only a fixed set of words is accepted.

How names are written: relations and functions as in SQL, ``schema.name``, folded to lower case unless in double
quotes; columns, roles and schemas exactly as they are called, without quotes. ``false`` switches off what is
on by default and can be off (a vector's ``index`` and ``norm``).
"""

from __future__ import annotations

import importlib.resources
import json
import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

import msgspec

from pgconform.contract import (
    Complete,
    Contract,
    Members,
    Reference,
    Registry,
    Report,
    Retention,
    TablePromise,
    Total,
)  # fmt: skip
from pgconform.contract_agreement import disagreements
from pgconform.contract_operations import PLACES, Child, Imported, Metrics, Procedure, Trends
from pgconform.contract_vectors import Query, Search
from pgconform.contract_words import (
    KeyPath,
    alternatives,
    called,
    choice,
    one_line,
    place,
    spelled,
    strange,
    unfit,
    unwrap,
    wanted,
)  # fmt: skip
from pgconform.model import Mistake
from pgconform.names import canonical
from pgconform.query_vectors import read

if TYPE_CHECKING:
    from collections.abc import Mapping

LARGEST = 5_000_000  # bytes
PROBLEMS = 10  # reported at once
DEEPEST = 32  # levels of tables and lists

# Fields (for mappings, their keys) that name an object of the database, and of how many parts the name is.
NAMES: dict[type[msgspec.Struct], dict[str, int]] = {
    Contract: {"tables": 2, "functions": 2, "user_functions": 2},
    TablePromise: {"parent": 2},
    Registry: {"table": 2},
    Members: {"table": 2, "users": 3},
    Complete: {"table": 2},
    Reference: {"table": 2},
    Retention: {"archive": 2},
    Total: {"detail": 2},
    Search: {"vector": 3},
    Query: {"vector": 3},
    Report: {"relation": 2, "table": 2},
    Metrics: {"table": 2},
    Trends: {"tables": 2},
    Imported: {"column": 3},
    Procedure: {"tables": 2, "changes": 2},
    Child: {"table": 2, "archive": 2},
}
# Keys whose text may stand in a file of its own, by section.
_TEXTS = {"tables": ("definition",), "functions": ("definition",), "procedures": ("definition", "script")}
_FORMS = {2: "schema.name", 3: "schema.table.column"}


class ContractError(Mistake):
    """A contract that cannot be used: a line for each problem, ten at most."""


def load(path: Path) -> Contract:
    """The contract in the file, names canonical. Raises ContractError."""
    file = one_line(str(path))
    try:
        with open(path, "rb") as stream:
            data = stream.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a path"
        raise ContractError(f"{file}: cannot be read: {reason.lower()}") from None
    if len(data) > LARGEST:
        raise ContractError(f"{file}: larger than {LARGEST // 1_000_000} MB; a contract is a short TOML file")
    try:
        return _defined(validate(tomllib.loads(data.decode("utf-8-sig")), file), path.parent, file)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ContractError(f"{file}: not UTF-8 at line {line}; save the file as UTF-8") from None
    except RecursionError:
        raise ContractError(f"{file}: not TOML: nested too deeply") from None
    except ContractError:
        raise
    except ValueError as error:  # tomllib's own, and int()'s of far too many digits
        raise ContractError(f"{file}: not TOML: {one_line(str(error))}") from None


def _defined(contract: Contract, home: Path, file: str) -> Contract:
    """The contract with the text of its ``file:NAME`` texts in place of their names, and paths from where it stands."""
    sections: dict[str, Any] = {}
    for section, keys in _TEXTS.items():
        found = {}
        for name, promise in getattr(contract, section).items():
            where = f"{file}: [{section}.{json.dumps(name)}]"
            texts = {key: _definition(getattr(promise, key), home, f"{where} {key}") for key in keys}
            found[name] = msgspec.structs.replace(promise, **texts)
        sections[section] = found
    sections["tables"] = {name: _queried(table, home, file, name) for name, table in sections["tables"].items()}
    if item := contract.backups:
        told = {key: getattr(item, key) for key in PLACES}
        places = {key: str(home / text) for key, text in told.items() if text and not text.startswith("env:")}
        sections["backups"] = msgspec.structs.replace(item, **places)
    return msgspec.structs.replace(contract, **sections)


def _queried(table: TablePromise, home: Path, file: str, name: str) -> TablePromise:
    """The table with its files of queries as paths from where the contract stands; each can be used."""
    found = {}
    for column, vector in table.vectors.items():
        path = home / vector.queries
        try:
            if vector.queries:
                read(path, vector.type, vector.dimension)
        except Mistake as mistake:
            where = place(("tables", name, "vectors", column, "queries"))
            hint = "" if path.is_file() else "; its name is relative to the contract"
            raise ContractError(f"{file}: {where}: {mistake}{hint}") from None
        found[column] = msgspec.structs.replace(vector, queries=str(path) if vector.queries else "")
    return msgspec.structs.replace(table, vectors=found)


def _definition(told: str, home: Path, where: str) -> str:
    kind, _, target = told.partition("file:")
    if kind or not target:
        return told
    if not target.endswith(".sql"):
        raise ContractError(f"{where}: wanted the name of an .sql file after 'file:'")
    try:
        return (home / target).read_text(encoding="utf-8")
    except (OSError, ValueError):
        raise ContractError(f"{where}: the file cannot be read; its name is relative to the contract") from None


def validate(raw: Mapping[str, Any], file: str) -> Contract:
    """The contract in the parsed file ``file``, names canonical. Raises ContractError."""
    reader = _Reader(file)
    contract = reader.read(dict(raw), Contract, ())
    reader.finish()
    assert isinstance(contract, Contract)
    for path, text in disagreements(contract):
        reader.problem(path, text)
    reader.finish()
    return contract


def bundled() -> dict[str, Path]:
    """The contracts that come with pgconform, by name."""
    try:
        fixtures = Path(str(importlib.resources.files("pgconform.fixtures")))
    except ModuleNotFoundError:  # a checkout that is not installed
        fixtures = Path(__file__).parent.parent / "fixtures"
    return {path.stem: path for path in sorted(fixtures.glob("contracts/*.toml"))}


def resolve(name_or_path: str) -> Path:
    """The file of a bundled contract, or the path itself. Raises ContractError where there is neither."""
    contracts = bundled()
    if name_or_path in contracts:
        return contracts[name_or_path]
    if os.path.exists(name_or_path):
        return Path(name_or_path)
    known = choice(name_or_path, contracts, "bundled")
    raise ContractError(f"{one_line(name_or_path)}: no such file and no bundled contract; {known}")


def json_schema() -> dict[str, object]:
    """The JSON Schema of a contract file, for editors."""
    schema = msgspec.json.schema(Contract)
    _without_null(schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "pgconform contract", **schema}


def _without_null(node: Any) -> None:
    """TOML has no null: what is optional is left out, what is on by default is switched off by ``false``."""
    if isinstance(node, dict):
        if {"type": "null"} in node.get("anyOf", ()):
            off = [] if node.get("default", ...) is None else [{"const": False}]
            node["anyOf"] = [option for option in node["anyOf"] if option != {"type": "null"}] + off
            if not off:
                del node["default"]
        node = list(node.values())
    for item in node if isinstance(node, list) else ():
        _without_null(item)


class _Reader:
    """Builds the structs from parsed TOML and gathers problems; what it returns counts only without problems."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.lines: list[str] = []
        self.written: dict[KeyPath, str] = {}  # how the file spells a canonical key

    def problem(self, path: KeyPath, text: str) -> None:
        if path[:2] in self.written:
            path = (path[0], self.written[path[:2]], *path[2:])
        self.lines.append(f"{self.file}: {place(path)}: {text}")
        if len(self.lines) == PROBLEMS:
            self.finish()

    def finish(self) -> None:
        if self.lines:
            raise ContractError("\n".join(self.lines))

    def read(self, value: Any, kind: Any, path: KeyPath, parts: int = 0) -> Any:
        """The value as the type has it; ``parts`` is not 0 where it names an object of the database."""
        kind, whole = _alternative(value, kind), kind
        base, _ = unwrap(kind)
        if base is Any:
            return self.anything(value, path)
        if isinstance(base, type) and issubclass(base, msgspec.Struct):
            return self.section(value, base, path)
        origin, arguments = get_origin(base), get_args(base)
        if origin is dict and isinstance(value, dict):
            return self.mapping(value, arguments, path, parts)
        if origin is tuple and arguments[-1] is ... and isinstance(value, list):
            return tuple(self.read(item, arguments[0], (*path, n), parts) for n, item in enumerate(value))
        if oddity := strange(value):
            return self.problem(path, oddity)
        try:
            found = msgspec.convert(value, kind)
        except msgspec.ValidationError:
            return self.problem(path, unfit(value, whole))
        if origin is tuple and list(found) != sorted(found):
            return self.problem(path, "wanted the lower bound first")
        return self.name(found, path, parts) if parts and found else found

    def section(self, value: Any, kind: type[msgspec.Struct], path: KeyPath) -> Any:
        """The struct of a table of the file."""
        if not isinstance(value, dict):
            return self.problem(path, unfit(value, kind))
        fields = {field.name: field for field in msgspec.structs.fields(kind)}
        found: dict[str, Any] = {}
        for key, item in value.items():
            field = fields.get(key)
            if field is None:
                self.problem((*path, key), f"unknown key; {choice(key, fields)}")
            elif item is False and _may_be_off(field):
                found[key] = None
            else:
                found[key] = self.read(item, field.type, (*path, key), NAMES.get(kind, {}).get(key, 0))
        for field in fields.values():
            if field.required and field.name not in value:
                self.problem((*path, field.name), f"missing; wanted {wanted(field.type)}")
                found[field.name] = None
        return kind(**found)

    def mapping(self, value: dict[str, Any], kinds: tuple[Any, ...], path: KeyPath, parts: int) -> dict[str, Any]:
        """A table whose keys the author chooses, or that come from a fixed set."""
        found: dict[str, Any] = {}
        for key, item in value.items():
            here = (*path, key)
            name = self.name(key, here, parts) if parts else self.read(key, kinds[0], here)
            if name in found:
                self.problem(here, f"names the same as {spelled(self.written[*path, name])}; keep one of them")
            elif name is not None:
                if parts:
                    self.written[*path, name] = key
                found[name] = self.read(item, kinds[1], here)
        return found

    def name(self, text: str, path: KeyPath, parts: int) -> Any:
        """The canonical name; None with a problem."""
        if oddity := strange(text):
            return self.problem(path, oddity)
        try:
            return canonical(text, parts)
        except ValueError:
            return self.problem(path, f"wanted {_FORMS[parts]}, with double quotes around unusual parts")

    def anything(self, value: Any, path: KeyPath) -> Any:
        """A value of any kind that JSON has too, since claims become JSON."""
        if len(path) > DEEPEST:
            self.problem(path[:2], "nested too deeply")
        elif isinstance(value, dict):
            for key, item in value.items():
                self.read(key, str, (*path, key))
                self.anything(item, (*path, key))
        elif isinstance(value, list):
            for n, item in enumerate(value):
                self.anything(item, (*path, n))
        elif oddity := strange(value):
            self.problem(path, oddity)
        elif not isinstance(value, str | int | float):
            self.problem(path, unfit(value, Any))
        return value


def _alternative(value: Any, kind: Any) -> Any:
    """Of a union, what the value is meant to be, by its shape."""
    tables = [option for option in alternatives(kind) if called(option) == "a table"]
    others = [option for option in alternatives(kind) if option not in tables]
    return Union[tuple(tables if isinstance(value, dict) and tables else others or tables)]  # noqa: UP007 - of as many as there are


def _may_be_off(field: msgspec.structs.FieldInfo) -> bool:
    """Whether the field is optional but on by default."""
    return type(None) in get_args(field.type) and field.default is not None


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2))
