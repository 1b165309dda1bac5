"""Own rows whose free columns name rows of others: what a trigger then does with rights that the caller has not."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pgconform.attacks.bait import Bait, bait, naming_users, row, shares
from pgconform.attacks.roads import Aim, insertable
from pgconform.catalog import Table
from pgconform.checks import Evidence
from pgconform.identities import Identity
from pgconform.model import Nothing
from pgconform.statements import Name, Statement, joined, statement
from pgconform.subjects import promise_of


def lures(evidence: Evidence, table: Table, who: Identity) -> Iterator[Statement]:
    """Inserts of an own row of a table with triggers, each with the key of somebody else's row, of this table or of one
    that the triggers name, in every column that no foreign key, index or tenancy has a say in."""
    triggers = [t for t in table.triggers if not t.internal and " INSERT " in f" {t.definition.replace(',', ' ')} "]
    own, _ = shares(evidence, bait(evidence, table), who)
    if not triggers or not own:
        return
    functions = [f for t in triggers for f in evidence.catalog.functions_named(t.function)]
    text = "\n".join(f.body for f in functions)
    named = [t for t in evidence.catalog.tables if t == table or re.search(rf"\b{re.escape(t.name)}\b", text)]
    for other in named:
        if command := _lure(evidence, bait(evidence, table), other, who, own[0]):
            yield command


def _lure(evidence: Evidence, given: Bait, other: Table, who: Identity, number: int) -> Statement | None:
    try:
        theirs = bait(evidence, other) if promise_of(evidence.catalog, evidence.contract, other) else None
    except Nothing:
        return None
    foreign = shares(evidence, theirs, who)[1] if theirs else ()
    key = other.column(theirs.key[0]) if theirs and len(theirs.key) == 1 else None
    if theirs is None or key is None or not foreign or theirs.promise.holds in ("shared", "service"):
        return None
    author = (naming_users(evidence, given.table), who.user)
    aim = Aim(given, who.role, number, number, evidence.privileges, evidence.catalog.server.version, author)
    free = [c.name for c in aim.may("INSERT") if c.type == key.type and c.name not in _spoken_for(given)]
    if not free:
        return None
    names, values = insertable(aim, renew=True)
    pairs = joined(statement("{name}::text, o.{key}", name=name, key=Name((key.name,))) for name in free)
    return statement(
        "insert into {t} ({names}) select {values} from (select (pg_catalog.jsonb_populate_record(c,"
        " pg_catalog.jsonb_build_object({pairs}))).* from {copy} as c, {theirs} as o where {mine} and {foreign}) as b",
        t=aim.table, names=names, values=values, pairs=pairs, copy=given.copy, theirs=theirs.copy,
        mine=row(number, "c"), foreign=row(foreign[0], "o"),
    )  # fmt: skip


def _spoken_for(given: Bait) -> set[str]:
    """Columns of a key, a foreign key or an index, and the one that says whose the row is."""
    table = given.table
    keys = [k.columns for k in table.foreign_keys()]
    return {given.holder, *given.key}.union(*keys, *(filter(None, i.columns) for i in table.indexes if i.unique))
