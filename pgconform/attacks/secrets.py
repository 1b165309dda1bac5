"""Values by which others' rows are recognized in an answer, whatever shape it has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from pgconform.attacks.bait import Bait, bait
from pgconform.catalog import Table
from pgconform.checks import Evidence
from pgconform.database import Database
from pgconform.identities import Identity
from pgconform.model import Nothing
from pgconform.probes.visibility import belongs, concerns
from pgconform.statements import Name, Statement, column, joined, statement
from pgconform.subjects import promise_of

_LEAST = 8  # characters: shorter values may come up by chance
_TEXTS = ("text", "character varying", "character", "uuid")


@dataclass(frozen=True, slots=True)
class Secret:
    """A value in a row of ``table`` that is not the caller's. Never printed."""

    table: str
    value: str


_KNOWN: WeakKeyDictionary[Database, dict[Identity, tuple[Secret, ...]]] = WeakKeyDictionary()


def secrets(evidence: Evidence, identity: Identity) -> tuple[Secret, ...]:
    """Keys and texts of rows that are not the identity's, of every private table. Raises NotVerified."""
    known = _KNOWN.setdefault(evidence.drills, {})
    if identity not in known:
        known[identity] = tuple(_secrets(evidence, identity))
    return known[identity]


def _secrets(evidence: Evidence, identity: Identity) -> Iterator[Secret]:
    asked = [question for given in _private(evidence) for question in _values(evidence, given, identity)]
    own = {identity.user, *identity.tenants}.union(*(tenants for _, tenants in identity.also))
    if asked:
        rows = evidence.drills.remembered(joined(asked, " union "), "looking up values of foreign rows")
        yield from (Secret(table, value) for table, value in sorted(rows) if value not in own)


def _private(evidence: Evidence) -> Iterator[Bait]:
    for table in evidence.catalog.tables:  # whoever can reach it: functions reach further
        promise = promise_of(evidence.catalog, evidence.contract, table)
        if promise and promise.holds in ("tenant", "user", "child") and str(table) in evidence.contract.tables:
            try:
                yield bait(evidence, table)
            except Nothing:
                continue


def _values(evidence: Evidence, given: Bait, identity: Identity) -> Iterator[Statement]:
    own = concerns(evidence, given.declared, identity)
    for each in _texts(given.table):
        yield statement(
            "select {name}::text, {c}::text from {copy} as r"
            " where not {own} and pg_catalog.length({c}::text) >= {least}",
            name=str(given.table), c=column(each), copy=given.copy, own=own, least=_LEAST,
        )  # fmt: skip


def _texts(table: Table) -> list[str]:
    return [c.name for c in table.columns if c.type.partition("(")[0] in _TEXTS]


def shown_anyway(evidence: Evidence, identity: Identity, value: str) -> bool:
    """True where the value is in a row that the identity may see, too: its own, or everybody's."""
    asked = []
    for table in evidence.catalog.tables:
        promise = promise_of(evidence.catalog, evidence.contract, table)
        texts = _texts(table)
        if promise is None or promise.holds == "service" or not texts:
            continue
        declared = next(name for name, p in evidence.contract.tables.items() if p is promise)
        own = statement("true") if promise.holds == "shared" else belongs(evidence, declared, identity)
        matches = joined((statement("{c}::text = {v}", c=column(c), v=value) for c in texts), " or ")
        asked.append(statement("select from {t} as r where {own} and ({m})", t=Name.of(str(table)), own=own, m=matches))
    if not asked:
        return False
    found = statement("select exists ({all})", all=joined(asked, " union all "))
    return bool(evidence.drills.remembered(found, "looking for a value among own rows")[0][0])
