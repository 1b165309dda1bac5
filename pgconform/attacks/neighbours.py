"""Roads on which own rows meet another tenant's: as children of its rows, and by values that must be unique.

Both checks of the server, foreign keys and unique indexes, look past row-level security (PostgreSQL manual, "Row
Security Policies"): they tie rows of two tenants together, and tell whether a value exists.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

from pgconform.attacks.attempts import Breach, breaches
from pgconform.attacks.bait import bait, row, same
from pgconform.attacks.roads import Aim, Road, insertable
from pgconform.catalog import Catalog, Constraint, Index, Table
from pgconform.checks import Evidence
from pgconform.contract import Contract
from pgconform.database import Outcome
from pgconform.model import Nothing
from pgconform.names import quote, remark
from pgconform.privileges import Privileges
from pgconform.statements import Name, Statement, column, joined, statement
from pgconform.subjects import promise_of, reachable_tables

_CHECKED = statement("set constraints all immediate")  # a foreign key may wait for the end of the transaction
# Types whose values nobody guesses: 122 random bits.
_UNGUESSABLE = ("uuid",)
_RANDOM = re.compile(r"uuid|random|gen_", re.IGNORECASE)  # in a default: a token
_UNIQUE = "23505"


def adoptable(catalog: Catalog, contract: Contract, privileges: Privileges) -> Iterator[tuple[Table, Constraint]]:
    """Foreign keys from tenants' tables that a client role can reach to other tables of tenants."""
    for table in reachable_tables(contract, privileges):
        for key in table.foreign_keys() if _tenant(catalog, contract, table) else ():
            parent = catalog.table(key.references)
            registries = {t.registry.table for t in contract.tenancies.values() if t.registry}
            known = parent and _tenant(catalog, contract, parent) and str(parent) not in registries
            if known and free_columns(catalog, contract, table, key):
                yield table, key


def unique_indexes(catalog: Catalog, contract: Contract, privileges: Privileges) -> Iterator[tuple[Table, Index]]:
    """Unique keys of tenants' tables that a client role can reach."""
    for table in reachable_tables(contract, privileges):
        if _tenant(catalog, contract, table):
            yield from ((table, index) for index in table.indexes if index.unique)


def guessable(catalog: Catalog, contract: Contract, table: Table, index: Index) -> bool:
    """True where a key spans all tenants, its values can be guessed, and the contract does not ask for it."""
    columns = [c for c in map(table.column, key_columns(table, index)) if c]
    promise = promise_of(catalog, contract, table)
    promised = [*promise.unique, *((c,) for c in promise.exclusive)] if promise else []
    drawn = any(c.identity or c.generated or "nextval(" in (c.default or "") for c in columns)
    random = any(c.type in _UNGUESSABLE or _RANDOM.search(c.default or "") for c in columns)
    apart = _tenant(catalog, contract, table) in {c.name for c in columns}
    return bool(columns) and not (drawn or random or apart or index.columns in promised)


def key_columns(table: Table, index: Index) -> tuple[str, ...]:
    """The columns that an index's keys are made of, those inside expressions included."""
    return tuple(c.name for c in table.columns if any(_names(key, c.name) for key in index.keys))


def _names(key: str, column: str) -> bool:
    return re.search(rf'(?<![\w"]){re.escape(quote(column))}(?![\w"])', key) is not None


def _tenant(catalog: Catalog, contract: Contract, table: Table) -> str:
    """The column that names the tenant of a relation's rows; '' where they are not tenants' rows."""
    promise = promise_of(catalog, contract, table)
    if promise is None or promise.holds != "tenant":
        return ""
    return promise.column or contract.tenancy_of(promise).column


def free_columns(catalog: Catalog, contract: Contract, table: Table, key: Constraint) -> tuple[str, ...]:
    """The columns of a key that say nothing of the tenant."""
    return tuple(c for c in key.columns if c != _tenant(catalog, contract, table))


def tied(catalog: Catalog, contract: Contract, table: Table, key: Constraint) -> bool:
    """True where a key compares the tenants of the two rows itself, so that no parent of another one fits."""
    parent = catalog.table(key.references)
    assert parent, "its subjects have one"
    owners = _tenant(catalog, contract, table), _tenant(catalog, contract, parent)
    return owners in zip(key.columns, key.referenced_columns, strict=True)


def adoptions(catalog: Catalog, contract: Contract, table: Table, key: Constraint) -> tuple[Road, ...]:
    """Ways to make an own row the child of a row that is another tenant's."""
    columns = free_columns(catalog, contract, table, key)
    words = f"own rows, by {', '.join(map(quote, columns))}, to parents of"
    made = partial(Road, authored=True, after=_CHECKED, through=_let_through)
    return (
        made("insert", f"attach new {words}", ("insert",), partial(_insert, columns=columns)),
        made("update", f"attach {words}", ("update",), partial(_update, columns=columns)),
    )


def revelations(table: Table, index: Index) -> tuple[Road, ...]:
    """Ways to learn from an error that a row with some value exists."""
    columns = key_columns(table, index)
    words = f"learn, by a clash of {', '.join(map(quote, columns))}, of"
    also = tuple(c.name for c in table.columns if c.name not in columns and _names(index.predicate, c.name))
    made = partial(Road, authored=True, after=_CHECKED, through=partial(_told, index.name))
    return (
        made("insert", words, ("insert",), partial(_insert, columns=columns, also=also)),
        made("update", words, ("update",), partial(_update, columns=columns, also=also)),
    )


def met(evidence: Evidence, table: Table, columns: tuple[str, ...], roads: tuple[Road, ...]) -> Iterator[Breach]:
    """For each road the simplest attempt that went through. Raises Nothing where no rows of two owners could meet."""
    given = bait(evidence, table)
    holder = given.holder
    question = statement(
        "select exists (select from {copy} as b, {copy} as o where {given} and {h} is distinct from {other})",
        copy=given.copy, given=_given(columns), h=column(holder, "b"), other=column(holder, "o"),
    )  # fmt: skip
    if not evidence.drills.remembered(question, f"looking for rows of {table} that could meet")[0][0]:
        raise Nothing(f"{table} has no two tenants' rows with different {', '.join(map(quote, columns))}")
    yield from breaches(evidence, table, roads)


def tie_to_parent(catalog: Catalog, contract: Contract, table: Table, key: Constraint) -> str:
    """SQL that has children name their parent together with the tenant."""
    parent = catalog.table(key.references)
    assert parent, "its subjects have one"
    theirs = [_tenant(catalog, contract, parent)]
    theirs += [r for r in key.referenced_columns if r not in theirs]
    mine = [_tenant(catalog, contract, table)]
    mine += [c for c in key.columns if c not in mine]
    known = any(i.unique and not i.predicate and sorted(i.columns) == sorted(theirs) for i in parent.indexes)
    unique = "" if known else f"alter table {parent} add unique ({', '.join(map(quote, theirs))});\n"
    return (
        f"{_refused(table, parent, key, mine[0], theirs[0])}"
        f"{unique}alter table {table} add foreign key ({', '.join(map(quote, mine))})"
        f" references {parent} ({', '.join(map(quote, theirs))});"
    )


def _refused(table: Table, parent: Table, key: Constraint, mine: str, theirs: str) -> str:
    """What the new key refuses that is there already: an audit does not mend rows, and a null in the parent's column
    is no mistake of the key."""
    pairs = zip(key.columns, key.referenced_columns, strict=True)
    same = joined((statement("{p} = {c}", p=column(p, "p"), c=column(c, "c")) for c, p in pairs), " and ")
    question = "select c.* from {t} as c join {parent} as p on {same} where {mine} <> {theirs}"
    rows = statement(
        question, t=Name.of(str(table)), parent=Name.of(str(parent)), same=same,
        mine=column(mine, "c"), theirs=column(theirs, "p"),
    )  # fmt: skip
    stored = parent.column(theirs)
    if stored and stored.not_null:
        return f"{remark(f'rows that name a parent of another tenant are refused; put right first: {rows};')}\n"
    nulls = (
        f"{parent}.{quote(theirs)} may be null, and a parent without a tenant could have no children; put right first"
    )
    return f"{remark(f'{nulls}: {rows} or p.{quote(theirs)} is null;')}\n"


def each_tenant_apart(catalog: Catalog, contract: Contract, table: Table, index: Index) -> str:
    """SQL that makes values unique within a tenant only."""
    keys = ", ".join([quote(_tenant(catalog, contract, table)), *index.keys])
    nulls = " nulls not distinct" if index.nulls_not_distinct else ""
    if index.constraint:
        kind = "primary key" if index.primary else f"unique{nulls}"
        return f"alter table {table} drop constraint {quote(index.constraint)}, add {kind} ({keys});"
    where = f" where {index.predicate}" if index.predicate else ""
    extra = f" include ({', '.join(map(quote, index.included))})" if index.included else ""
    return f"drop index {index};\ncreate unique index on {table} ({keys}){extra}{nulls}{where};"


def _let_through(outcome: Outcome) -> bool:
    return not outcome.state and outcome.rows > 0


def _told(index: str, outcome: Outcome) -> bool:
    return outcome.state == _UNIQUE and outcome.constraint == index


def _insert(aim: Aim, columns: tuple[str, ...], also: tuple[str, ...] = ()) -> Statement | None:
    """A copy of an own row, but for some columns that are as in the row of somebody else; so are others beside them."""
    if not aim.own:
        return None
    names, values = insertable(aim, renew=True, others=(*columns, *also))
    return statement(
        "insert into {t} ({names}) select {values} from {copy} as b, {copy} as o where {mine} and {row} and {given}",
        t=aim.table, names=names, values=values, copy=aim.bait.copy, mine=row(aim.own), row=row(aim.number, "o"),
        given=_given(columns),
    )  # fmt: skip


def _update(aim: Aim, columns: tuple[str, ...], also: tuple[str, ...] = ()) -> Statement | None:
    """An own row is given what some columns hold in the row of somebody else."""
    if not aim.own:
        return None
    changes = joined(statement("{n} = o.{n}", n=Name((c,))) for c in (*columns, *also))
    return statement(
        "update {t} as t set {changes} from {copy} as b, {copy} as o where {mine} and {same} and {row} and {given}",
        t=aim.table, changes=changes, copy=aim.bait.copy, mine=row(aim.own), same=same(aim.bait),
        row=row(aim.number, "o"), given=_given(columns),
    )  # fmt: skip


def _given(columns: tuple[str, ...]) -> Statement:
    """True where the other row has the values, and they are not the own row's."""
    there = [statement("{c} is not null", c=column(c, "o")) for c in columns]
    other = statement(
        "({o}) is distinct from ({b})",
        o=joined(column(c, "o") for c in columns), b=joined(column(c, "b") for c in columns),
    )  # fmt: skip
    return joined([*there, other], " and ")
