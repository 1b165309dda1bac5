"""SQL identifiers: quoting them as the server's quote_ident does, and reading qualified names from text."""

from __future__ import annotations

import re
from functools import lru_cache

# Every keyword that quote_ident quotes, in any of PostgreSQL 15 to 18 (pg_get_keywords(), catcode <> 'U').
KEYWORDS = frozenset(
    """all analyse analyze and any array as asc asymmetric authorization between bigint binary bit boolean both
    case cast char character check coalesce collate collation column concurrently constraint create cross
    current_catalog current_date current_role current_schema current_time current_timestamp current_user dec
    decimal default deferrable desc distinct do else end except exists extract false fetch float for foreign
    freeze from full grant greatest group grouping having ilike in initially inner inout int integer intersect
    interval into is isnull join json json_array json_arrayagg json_exists json_object json_objectagg json_query
    json_scalar json_serialize json_table json_value lateral leading least left like limit localtime
    localtimestamp merge_action national natural nchar none normalize not notnull null nullif numeric offset on
    only or order out outer overlaps overlay placing position precision primary real references returning right
    row select session_user setof similar smallint some substring symmetric system_user table tablesample then
    time timestamp to trailing treat trim true union unique user using values varchar variadic verbose when
    where window with xmlattributes xmlconcat xmlelement xmlexists xmlforest xmlnamespaces xmlparse xmlpi
    xmlroot xmlserialize xmltable""".split()  # noqa: SIM905 -- a hundred and fifty lines less
)

_PLAIN = re.compile(r"[a-z_][a-z0-9_]*\Z")
_PART = re.compile(r'\s*(?:"((?:[^"]|"")+)"|([^\s".]+))\s*')


@lru_cache(maxsize=65536)
def quote(name: str) -> str:
    """The identifier as SQL text, quoted only where it must be."""
    if _PLAIN.match(name) and name not in KEYWORDS:
        return name
    return '"' + name.replace('"', '""') + '"'


def qualified(*parts: str) -> str:
    """The dotted, quoted name of an object: ``qualified("public", "Weird")`` is ``public."Weird"``."""
    return ".".join(map(quote, parts))


def remark(text: str) -> str:
    """A line of SQL that says something, and does nothing: whatever names are in the text, it ends with the line."""
    return "-- " + " ".join(text.splitlines())


def literal(value: str) -> str:
    """The text as an SQL string literal, safe whatever standard_conforming_strings says."""
    escaped = value.replace("'", "''")
    if "\\" in escaped:
        return " E'" + escaped.replace("\\", "\\\\") + "'"
    return f"'{escaped}'"


@lru_cache(maxsize=65536)
def split(text: str) -> tuple[str, ...]:
    """The parts of a dotted name; an unquoted part is folded to lower case, as the server does.

    Raises ValueError where the text is not a dotted name.
    """
    parts: list[str] = []
    position = 0
    while True:
        match = _PART.match(text, position)
        if not match:
            raise ValueError(f"not a name: {text!r}; write schema.name, with double quotes around unusual parts")
        parts.append(match[1].replace('""', '"') if match[1] else match[2].lower())
        position = match.end()
        if position == len(text):
            return tuple(parts)
        if text[position] != ".":
            raise ValueError(f"not a name: {text!r}; write schema.name, with double quotes around unusual parts")
        position += 1


def canonical(text: str, parts: int = 2) -> str:
    """The one spelling of a dotted name that the whole project compares by.

    Raises ValueError unless the name has exactly ``parts`` parts.
    """
    found = split(text)
    if len(found) != parts:
        wanted = "schema.name" if parts == 2 else "schema.table.column" if parts == 3 else "a plain name"
        raise ValueError(f"{text!r} has {len(found)} part(s); write {wanted}")
    return qualified(*found)


# Spellings that the grammar takes for the name that format_type prints.
_TYPE_ALIASES = {
    "varchar": "character varying", "char": "character", "int": "integer", "int2": "smallint", "int4": "integer",
    "int8": "bigint", "float": "double precision", "float8": "double precision", "float4": "real",
    "bool": "boolean", "decimal": "numeric", "timestamptz": "timestamp with time zone",
    "timestamp": "timestamp without time zone", "timetz": "time with time zone",
}  # fmt: skip


@lru_cache(maxsize=4096)
def same_type(wanted: str, found: str) -> bool:
    """True when a type as somebody wrote it is the one that format_type prints: ``int8`` is ``bigint``."""
    base, _, rest = wanted.partition("(")
    modifier = f"({rest.replace(' ', '').lower()}" if rest else ""
    base = base.strip() if '"' in base else base.strip().lower()
    known = _TYPE_ALIASES.get(base, base)
    timed = known.partition(" ")  # timestamp(3) with time zone
    spelled = f"{timed[0]}{modifier} {timed[2]}" if known.startswith("time") else f"{known}{modifier}"
    unqualified = found if "." in wanted else found.rpartition(".")[2]
    return spelled.strip() in (found, unqualified)


def type_name(text: str) -> str:
    """A type as two declarations of it can be compared: aliases resolved, without schema and modifier.

    A function's arguments have no modifier on the server, whatever their declaration says.
    """
    array = text.rstrip().endswith("[]")
    base = re.sub(r"\s*\([^)]*\)", "", text.rstrip().removesuffix("[]")).strip()
    base = base if base.startswith('"') else base.rpartition(".")[2]
    return _TYPE_ALIASES.get(base, base) + ("[]" if array else "")


_SCHEMA = re.compile(r'"((?:[^"]|"")*)"|([^\s,"]+)')  # of a search path


def schemas_of(path: str) -> list[str]:
    """The schemas that a search path names, unquoted."""
    return [quoted.replace('""', '"') or plain for quoted, plain in _SCHEMA.findall(path) if quoted or plain]
