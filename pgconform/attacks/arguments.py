"""Values to call a function with, by the type of the argument and the caller."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from pgconform.attacks.bait import bait, shares, targets
from pgconform.catalog import Argument, Function, Table
from pgconform.checks import Evidence
from pgconform.identities import Identity, identities
from pgconform.model import Nothing
from pgconform.names import qualified, split
from pgconform.statements import Name, Statement, column, statement
from pgconform.subjects import promise_for

_UUID = re.compile(r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
_TEXTS = ("text", "character varying", "character", "name")
_NUMBERS = ("smallint", "integer", "bigint", "numeric", "real", "double precision")
_TIMES = ("timestamp with time zone", "timestamp without time zone", "date")
_DOCUMENTS = ("json", "jsonb")
_KEY = re.compile(r"'([A-Za-z_]\w*)'")
_NULL = statement("null")
# Identifiers that nobody has.
_NOBODY = {
    "uuid": ("00000000-0000-4000-8000-00000000be{n}f", "80000000-0000-4000-8000-00000000be{n}f",
             "ffffffff-0000-4000-8000-00000000be{n}f"),
    "text": ("pgconform_nobody_{n}", "aa_nobody_{n}", "zz_nobody_{n}"),
    "number": ("-7{n}", "-3007{n}", "-1{n}"),
}  # fmt: skip
NOBODIES = 3
# What SQL may be pasted into: a whole statement, a condition, an expression, a literal, a name.
_PROBES = (
    "select pg_catalog.nextval('{s}')",
    "pg_catalog.nextval('{s}') > 0",
    "pg_catalog.nextval('{s}')",
    "' || pg_catalog.nextval('{s}')::text || '",
    "' or pg_catalog.nextval('{s}') > 0 or '' = '",
    "(select pg_catalog.nextval('{s}')) as t",
    "1; select pg_catalog.nextval('{s}')",
    "x'; select pg_catalog.nextval('{s}'); --",
)


@dataclass(frozen=True, slots=True)
class Given:
    """One argument: ``label`` says what it is without saying its value. ``foreign`` ones name somebody else."""

    label: str
    sql: Statement
    text: str = ""
    foreign: bool = False
    omitted: bool = False
    type: str = ""
    keys: tuple[str, ...] = ()  # of a document whose values are all the text

    def nobody(self, which: int, number: int) -> Given:
        """The same with an identifier that nobody has: one of NOBODIES, another one for each number below ten."""
        shape = "uuid" if _UUID.match(self.text) else "number" if self.text.lstrip("-").isdigit() else "text"
        text = _NOBODY[shape][which].replace("{n}", str(number))
        return replace(self, text=text, sql=_typed(text, self.type, self.keys))


def values(evidence: Evidence, function: Function, argument: Argument, identity: Identity) -> list[Given]:
    """What to pass, what says most first; a null last."""
    kind = argument.type.partition("(")[0]
    base = kind.removesuffix("[]")
    keys = _keys_of(evidence, function, identity) if base in _DOCUMENTS else ()
    found = [_given(label, text, kind, foreign, keys) for label, text, foreign in _ids(evidence, function, identity)
             if keys or _fits(text, base)]  # fmt: skip
    if base in _TEXTS:
        found += [_given(label, text, kind) for label, text in (("a wildcard", "%"), ("the empty text", ""))]
    elif base in _NUMBERS:
        found += [_given(f"the number {n}", n, kind) for n in ("1", "0", "1000000")]
    elif base == "boolean":
        found += [_given(word, word, kind) for word in ("true", "false")]
    elif base in _TIMES:
        found += [_given(word, word, kind) for word in ("-infinity", "infinity")]
    elif base in _DOCUMENTS:
        found += [_given("an empty object", "{}", kind)]
    found += _embedding(evidence, function, argument)
    if argument.default is not None and all(a.name for a in function.inputs):
        found.append(Given("its default", _NULL, omitted=True))
    return [*found, Given("null", _NULL)]


def _embedding(evidence: Evidence, function: Function, argument: Argument) -> list[Given]:
    """What a declared search looks for: some stored embedding."""
    promise = promise_for(function, evidence.catalog, evidence.contract)
    if not promise or not promise.search or promise.search.query != argument.name:
        return []
    schema, name, stored = split(promise.search.vector)
    table = evidence.catalog.table(qualified(schema, name))
    copy = None
    with suppress(Nothing):  # without rows there is nothing to look for
        copy = bait(evidence, table).copy if table else None
    text = "(select b.{c} from {copy} as b where b.{c} is not null order by b.pgc_row limit 1)"
    return [Given("an embedding", statement(text, c=Name((stored,)), copy=copy))] if copy else []


def probes(argument: Argument, sequence: Name) -> Iterator[Given]:
    """SQL that draws from a sequence, in the shapes in which texts are pasted into statements."""
    if argument.type.partition("(")[0] in _TEXTS:
        for shape in _PROBES:
            text = shape.replace("{s}", ".".join(sequence))
            yield Given("SQL", statement("{t}::text", t=text), text)


def _given(label: str, text: str, kind: str, foreign: bool = False, keys: tuple[str, ...] = ()) -> Given:
    return Given(label, _typed(text, kind, keys), text, foreign, type=kind, keys=keys)


def _keys_of(evidence: Evidence, function: Function, identity: Identity) -> tuple[str, ...]:
    """The keys that a function may look for in a document: the texts in its body, and the tenant's column."""
    columns = {t.column for t in evidence.contract.tenancies.values()} if not identity.tenancy else set()
    own = evidence.contract.tenancies.get(identity.tenancy)
    return tuple(sorted({*_KEY.findall(function.body), *columns, *([own.column] if own else [])}))


def _typed(text: str, kind: str, keys: tuple[str, ...] = ()) -> Statement:
    """The text cast to a built-in type, or an array of one; only names of this module get here."""
    base = kind.removesuffix("[]")
    held = json.dumps(dict.fromkeys(keys, text)) if keys else text
    one = statement(f"{{t}}::pg_catalog.{_CATALOGUE.get(base, base)}", t=held)
    return statement("array[{one}]", one=one) if base != kind else one


_CATALOGUE = {
    "character varying": "text", "character": "text", "integer": "int4", "bigint": "int8", "smallint": "int2",
    "real": "float4", "double precision": "float8", "boolean": "bool", "timestamp with time zone": "timestamptz",
    "timestamp without time zone": "timestamp",
}  # fmt: skip


def _fits(text: str, base: str) -> bool:
    if base == "uuid":
        return bool(_UUID.match(text))
    return base in _TEXTS or (base in _NUMBERS and text.lstrip("-").isdigit())


def _ids(evidence: Evidence, function: Function, identity: Identity) -> Iterator[tuple[str, str, bool]]:
    """Labels and texts of identifiers: of others, of rows of tables that the function names, and own ones."""
    others = [i for i in identities(evidence) if i.tenancy == identity.tenancy or not identity.tenancy]
    foreign = sorted({t for i in others for t in i.tenants} - identity.tenants)
    yield from (("another tenant's id", tenant, True) for tenant in foreign[:1])
    users = sorted({i.user for i in others if i.user and i.user != identity.user and i.kind in ("one", "many")
                    and not i.tenants & identity.tenants})  # fmt: skip
    yield from (("the id of a user of another tenant", user, True) for user in users[:1])
    for table in targets(evidence.catalog, evidence.contract, evidence.privileges):
        if re.search(rf"\b{re.escape(table.name)}\b", function.body):
            yield from ((f"the key of a row of {table} that is not its own", key, True)
                        for key in _keys(evidence, table, identity))  # fmt: skip
    yield from (("its own tenant's id", tenant, False) for tenant in sorted(identity.tenants)[:1])
    if identity.user:
        yield "its own user's id", identity.user, False


def _keys(evidence: Evidence, table: Table, identity: Identity) -> list[str]:
    """The key of one row that is not the identity's."""
    try:
        given = bait(evidence, table)
    except Nothing:
        return []
    foreign = shares(evidence, given, identity)[1]
    if len(given.key) != 1 or not foreign or given.promise.holds in ("shared", "service"):
        return []
    question = statement(
        "select {k}::text from {copy} as r where {n} = {number}::int",
        k=column(given.key[0]), copy=given.copy, n=column("pgc_row"), number=foreign[0],
    )  # fmt: skip
    return [str(key) for (key,) in evidence.drills.remembered(question, f"looking up a key of {table}")]
