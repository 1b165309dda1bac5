"""Whether two databases are the same: their catalogues, object by object, and their rows, table by table.

Rows are compared by sums of 64-bit hashes, computed inside each server in one scan of a table: they do not depend on
the order of the rows. A row is hashed as text, which holds numerics to their last digit; vectors as their bytes. What
belongs to the cluster (roles, settings of databases) or to an extension is not in a dump, and not compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from pgconform.catalog import Catalog, Table
from pgconform.statements import Name, Statement, joined, statement

if TYPE_CHECKING:
    from pgconform.database import Database

PARTS = ("schemas", "tables", "sequences", "functions", "types", "extensions", "default_privileges", "publications",
         "event_triggers")  # fmt: skip
# What a restored object has anew: numbers of the catalogue, estimates, and what version of an extension is there.
_ANEW = {"oid", "type_oid", "base_oid", "number", "pages", "rows", "collations", "version"}
# What each version of the server spells in its own way.
_SPELLED = {"definition", "default", "using", "check", "keys", "predicate", "when", "action"}
# What makes the text of a value depend on the session.
TEXTS = {
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    "xmloption": "content",
    "lc_monetary": "C",
}


@dataclass(frozen=True, slots=True)
class Difference:
    """An object of the first database, and what the second one has otherwise."""

    object: str
    says: str


def catalogues(one: Catalog, other: Catalog, schema: str = "") -> list[Difference]:
    """What of ``one``, or of one schema in it, is missing or otherwise in ``other``, and what is there besides.

    Between servers of two major versions, expressions and definitions are not compared: each spells them its own way.
    """
    found = []
    same = one.server.version // 10_000 == other.server.version // 10_000
    ignored = frozenset(_ANEW if same else _ANEW | _SPELLED)
    for part in PARTS:
        ours, theirs = (_by_name(_inside(each, part, schema), ignored) for each in (one, other))
        for name in sorted(ours.keys() | theirs.keys()):
            if name not in theirs:
                found.append(Difference(name, "is missing"))
            elif name not in ours:
                found.append(Difference(name, "is there besides"))
            elif ours[name] != theirs[name]:
                found.append(Difference(name, f"differs in {', '.join(_paths(ours[name], theirs[name]))}"))
    return found


def _inside(catalog: Catalog, part: str, schema: str) -> Iterator[Any]:
    """The objects of one kind; where a schema is named, those that are in it, and itself."""
    for thing in getattr(catalog, part):
        place = thing.name if part == "schemas" else getattr(thing, "schema", None)
        if schema in ("", place):
            yield thing


def _by_name(objects: Iterable[Any], ignored: frozenset[str]) -> dict[str, Any]:
    found = {}
    for thing in objects:
        if not getattr(thing, "extension", ""):
            plain = _plain(msgspec.to_builtins(thing), ignored)
            name = str(getattr(thing, "signature", "") or thing)
            if name.startswith(f"{type(thing).__name__}("):  # it has no qualified name
                name = getattr(thing, "name", "") or str(plain)
            found[name] = plain
    return found


def _plain(value: Any, ignored: frozenset[str]) -> Any:
    """The same without what is ignored, lists of privileges in one order, lists of named things by their names.

    A NOT NULL constraint (of PostgreSQL 18) is called by its column: its own name is not always the same again.
    """
    if isinstance(value, Mapping):
        plain = {key: _plain(item, ignored) for key, item in value.items() if key not in ignored}
        unnamed = {"name": f"not null {plain.get('columns')}", "definition": ""}
        return plain | unnamed if plain.get("kind") == "n" else plain
    if isinstance(value, list | tuple):
        items = [_plain(item, ignored) for item in value]
        if "definition" in ignored:  # only PostgreSQL 18 and later have such constraints in their catalogue
            items = [item for item in items if not (isinstance(item, dict) and item.get("kind") == "n")]
        if items and all(isinstance(item, dict) and "name" in item and "acl" not in item for item in items):
            return {str(item["name"]): item for item in items}
        return sorted(items, key=str) if items and all(isinstance(item, dict) for item in items) else items
    return value


def _paths(one: Any, other: Any, path: str = "") -> Iterator[str]:
    """Where two plain values differ, as deep as both have names for it."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() | other.keys()):
            if one.get(key) != other.get(key):
                yield from _paths(one.get(key), other.get(key), f"{path} {key}".strip())
    else:
        yield path


def checksum(table: Table, catalog: Catalog, where: Statement | None = None) -> Statement:
    """Asks for the number of rows ``r`` and the sum of their hashes, of all or of some."""
    extension = catalog.extension("vector")
    parts = []
    for column in table.columns:
        name, kind = Name(("r", column.name)), catalog.vector_types.get(column.base_oid)
        if kind and extension:
            send = Name((extension.schema, f"{kind}_send"))
            parts.append(statement("pg_catalog.sha256({send}({c}))", send=send, c=name))
        else:
            parts.append(statement("{c}::text", c=name))
    return statement(
        "select pg_catalog.count(*),"
        " coalesce(pg_catalog.sum(pg_catalog.hashtextextended(row({parts})::text, 0)), 0)::text"
        " from {only} {table} as r where {where}",
        parts=joined(parts), only=statement("only" if table.kind == "table" else ""),
        table=Name.of(str(table)), where=where or statement("true"),
    )  # fmt: skip


def rows(database: Database, catalog: Catalog, schema: str = "") -> dict[str, tuple[int, str]]:
    """Number and checksum of the rows of every table, and of large objects; or of every table of one schema. Partitions
    count by themselves.

    Materialized views are left out: a restore computes them anew. Raises NotVerified.
    """
    names = [
        str(table) for table in _inside(catalog, "tables", schema) if table.kind == "table" and not table.extension
    ]
    found = {}
    with database.setting(tuple(TEXTS.items()), "reading all rows"):
        for name in names if schema else [*names, LARGE]:
            count, total = database.one(counted(name, catalog), f"reading {name}")
            found[name] = (int(count), str(total))
    return found


def counted(name: str, catalog: Catalog) -> Statement:
    """What ``rows`` asks of a table, or of large objects."""
    table = catalog.table(name)
    return checksum(table, catalog) if table else statement(_LARGE)


def sequences(database: Database, catalog: Catalog, schema: str = "") -> dict[str, int]:
    """The last number of each sequence, or of each in one schema: of now, since no snapshot holds them. Raises
    NotVerified."""
    found = {}
    for sequence in _inside(catalog, "sequences", schema):
        if not sequence.extension:
            asked = statement("select s.last_value from {s} as s", s=Name.of(str(sequence)))
            found[str(sequence)] = int(database.one(asked, f"reading {sequence}")[0])
    return found


LARGE = "large objects"
_LARGE = (
    "select pg_catalog.count(*), coalesce(pg_catalog.sum(pg_catalog.hashtextextended(l.oid::text ||"
    " pg_catalog.md5(pg_catalog.lo_get(l.oid)), 0)), 0)::text from pg_catalog.pg_largeobject_metadata as l"
)


def differing(one: Mapping[str, tuple[int, str]], other: Mapping[str, tuple[int, str]]) -> list[Difference]:
    """Tables of ``one`` whose rows are not the same in ``other``."""
    found = []
    for name, (count, total) in sorted(one.items()):
        there, theirs = other.get(name, (0, ""))
        if (count, total) != (there, theirs):
            says = (
                f"has {there:,} rows of {count:,}" if there != count else f"has {count:,} rows, but not the same ones"
            )
            found.append(Difference(name, says))
    return found
