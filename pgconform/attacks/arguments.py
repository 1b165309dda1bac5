"""Values to call a function with, by the type of the argument and the caller."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from pgconform.attacks.bait import bait, shares
from pgconform.callees import functions_called
from pgconform.catalog import Argument, Function, Table, Type
from pgconform.checks import Evidence
from pgconform.identities import Identity, identities
from pgconform.model import Nothing
from pgconform.names import qualified, split
from pgconform.statements import Name, Statement, column, statement
from pgconform.subjects import promise_for, promise_of

_UUID = re.compile(r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
TEXTS = ("text", "character varying", "character", "name")
_WORDS = 4  # of each kind that are offered
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
    own: Name | None = None  # a domain

    def nobody(self, which: int, number: int) -> Given:
        """The same with an identifier that nobody has: one of NOBODIES, another one for each number below ten."""
        shape = "uuid" if _UUID.match(self.text) else "number" if self.text.lstrip("-").isdigit() else "text"
        text = _NOBODY[shape][which].replace("{n}", str(number))
        sql = statement("{t}::text::{n}", t=text, n=self.own) if self.own else _typed(text, self.type, self.keys)
        return replace(self, text=text, sql=sql)


def values(evidence: Evidence, function: Function, argument: Argument, identity: Identity) -> list[Given]:
    """What to pass, what says most first; a null last."""
    kind = argument.type.partition("(")[0]
    base = kind.removesuffix("[]")
    if own := next((t for t in evidence.catalog.types if str(t) == argument.type and t.kind in "de"), None):
        return [*_of_type(evidence, function, identity, own), Given("null", _NULL)]
    keys = _keys_of(evidence, function, identity) if base in _DOCUMENTS else ()
    found = [_given(label, text, kind, foreign, keys) for label, text, foreign in _ids(evidence, function, identity)
             if keys or _fits(text, base)]  # fmt: skip
    if base in TEXTS:
        found += [_given(f"a value of a row of {table} that is not its own", text, kind, True)
                  for table, text in _others(evidence, function, identity)]  # fmt: skip
        words = [w for w in dict.fromkeys(_KEY.findall(function.body)) if kind == base][:_WORDS]
        found += [_given("a word of the function", word, kind) for word in words]
        found += _relations(evidence, function, kind)
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


def plain(offered: list[Given]) -> Given:
    """What says least: the default, or null."""
    return next((given for given in offered if given.omitted), offered[-1])


def _of_type(evidence: Evidence, function: Function, identity: Identity, own: Type) -> list[Given]:
    """Values of a type of the database: an enumeration's labels, or identifiers in a domain."""
    name = Name((own.schema, own.name))
    if own.kind == "e":
        return [Given("a label", statement("{t}::{n}", t=label, n=name), label) for label in own.labels]
    ids = _ids(evidence, function, identity)
    return [Given(label, statement("{t}::text::{n}", t=text, n=name), text, foreign, type=str(own), own=name)
            for label, text, foreign in ids]  # fmt: skip


def _relations(evidence: Evidence, function: Function, kind: str) -> list[Given]:
    """Names of private relations, where a function puts a name into a statement."""
    if not re.search(r"\bexecute\b|\bregclass\b", function.body, re.IGNORECASE) or kind.endswith("[]"):
        return []
    private = [n for n, p in evidence.contract.tables.items() if p.holds in ("tenant", "user", "child")]
    return [_given("the name of a relation", split(name)[-1], kind) for name in private[:_WORDS]]


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
    kind = argument.type.partition("(")[0]
    if kind.removesuffix("[]") in TEXTS:
        for shape in _PROBES:
            text = shape.replace("{s}", ".".join(sequence))
            yield _given("SQL", text, kind)


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
    return base in TEXTS or (base in _NUMBERS and text.lstrip("-").isdigit())


def _ids(evidence: Evidence, function: Function, identity: Identity) -> Iterator[tuple[str, str, bool]]:
    """Labels and texts of identifiers: of others, of rows of tables that the function names, and own ones."""
    others = [i for i in identities(evidence) if i.tenancy == identity.tenancy or not identity.tenancy]
    foreign = sorted({t for i in others for t in i.tenants} - identity.tenants)
    former = [t for t in _once(evidence, identity) if t in foreign]
    for tenant in dict.fromkeys([*former, *foreign[:1], *foreign[-1:]]):
        yield "another tenant's id", tenant, True
    users = sorted({i.user for i in others if i.user and i.user != identity.user and i.kind in ("one", "many")
                    and not i.tenants & identity.tenants})  # fmt: skip
    yield from (("the id of a user of another tenant", user, True) for user in users[:1])
    for table in _named(evidence, function):
        if promise_of(evidence.catalog, evidence.contract, table):
            yield from ((f"the key of a row of {table} that is not its own", key, True)
                        for key in _keys(evidence, table, identity))  # fmt: skip
    yield from (("its own tenant's id", tenant, False) for tenant in sorted(identity.tenants)[:1])
    if identity.user:
        yield "its own user's id", identity.user, False


def _text(evidence: Evidence, function: Function) -> str:
    """The body, and those of the functions that it calls."""
    return "\n".join(f.body for f in (function, *functions_called(function, evidence.catalog)))


def _named(evidence: Evidence, function: Function) -> Iterator[Table]:
    """The relations that a function names."""
    text = _text(evidence, function)
    yield from (t for t in evidence.catalog.tables if re.search(rf"\b{re.escape(t.name)}\b", text))


def _others(evidence: Evidence, function: Function, identity: Identity) -> Iterator[tuple[Table, str]]:
    """Texts that tell rows of others apart, of columns that the function names: a telephone number, an address."""
    text = _text(evidence, function)
    for table in _named(evidence, function):
        promise = promise_of(evidence.catalog, evidence.contract, table)
        if promise is None or promise.holds not in ("tenant", "user", "child"):
            continue
        for each in table.columns:
            if each.type.partition("(")[0] in TEXTS and re.search(rf"\b{re.escape(each.name)}\b", text):
                yield from ((table, value) for value in _distinct(evidence, table, each.name, identity))


def _distinct(evidence: Evidence, table: Table, name: str, identity: Identity) -> list[str]:
    """One of a column's values in rows that are not the identity's, where no two rows that were copied share one."""
    try:
        given = bait(evidence, table)
    except Nothing:
        return []
    foreign = shares(evidence, given, identity)[1]
    question = statement(
        "select pg_catalog.min(r.{c}::text) filter (where r.pgc_row = any({numbers}::int[])) from {copy} as r"
        " having pg_catalog.count(distinct r.{c}) = pg_catalog.count(r.{c}) and pg_catalog.count(r.{c}) > 2",
        c=Name((name,)), copy=given.copy, numbers=foreign,
    )  # fmt: skip
    values = evidence.drills.remembered(question, f"looking up a value of {table}")
    return [str(value) for (value,) in values if value and name not in (given.holder, *given.key)]


def _once(evidence: Evidence, identity: Identity) -> list[str]:
    """The tenants of which a former member was one."""
    tenancy = evidence.contract.tenancies.get(identity.tenancy)
    if identity.kind != "former" or not tenancy or not tenancy.members:
        return []
    members = tenancy.members
    question = statement(
        "select distinct {tenant}::text from {t} as m where {user}::text = {u} order by 1",
        tenant=column(members.tenant, "m"), t=Name.of(members.table), user=column(members.user, "m"), u=identity.user,
    )  # fmt: skip
    return [str(t) for (t,) in evidence.database.remembered(question, f"looking up former members of {members.table}")]


def _keys(evidence: Evidence, table: Table, identity: Identity) -> list[str]:
    """Keys of some rows that are not the identity's."""
    try:
        given = bait(evidence, table)
    except Nothing:
        return []
    foreign = shares(evidence, given, identity)[1]
    if len(given.key) != 1 or not foreign or given.promise.holds in ("shared", "service"):
        return []
    question = statement(
        "select {k}::text from {copy} as r where {n} = any({numbers}::int[]) order by {n}",
        k=column(given.key[0]), copy=given.copy, n=column("pgc_row"), numbers=foreign[:_WORDS],
    )  # fmt: skip
    return [str(key) for (key,) in evidence.drills.remembered(question, f"looking up a key of {table}")]
