"""What a fault may have changed for whom: the tables and functions for which a slow check may find something else."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Any

from msgspec.structs import replace

from pgconform.catalog import Catalog, Function, Table
from pgconform.checks import Check
from pgconform.contract import Contract
from pgconform.expressions import shape
from pgconform.names import qualified
from pgconform.subjects import Declared


class Concern:
    """What differs from the reference, and the subjects of behaviour that it may change.

    What attacks, sessions and searches find of a table follows from its rows and from the catalogue: from its own
    policies, grants and triggers, those of the tables that it names or that name it, and from functions, roles and
    schemas. ``wanted`` are objects that are looked at in any case, ``written`` tables whose rows differ.
    """

    def __init__(
        self,
        catalog: Catalog,
        reference: Catalog,
        contract: Contract,
        wanted: AbstractSet[str],
        written: AbstractSet[str],
    ) -> None:
        self._reference = reference
        self._functions = _functions(catalog, reference)
        altered = _altered(catalog, reference, contract, self._functions)
        neighbours = {str(t) for t in catalog.tables if altered & {str(t), t.parent, *named_by(t)}}
        self._tables = {*wanted, *neighbours, *written}
        members = {t.members.table for t in contract.tenancies.values() if t.members}
        self._callers = not members.isdisjoint(altered | written)
        self._read = self._tables | {str(t) for t in catalog.tables if written & named_by(t)}
        names = {name.rpartition(".")[2] for name in self._read}
        self._reading = {f.name for f in catalog.functions if any(name in f.body for name in names)} | self._functions

    def subjects(self, check: Check, subjects: list[Any]) -> list[Any]:
        """Those of a check's subjects for which the outcome may differ."""
        if _searching(check):
            return [s for s in subjects if self._searched(s)]
        behaviour = check.drill or check.module.endswith((".test_rows", ".test_tokens"))
        return [s for s in subjects if not behaviour or self._concerns(s)]

    def _searched(self, subject: Any) -> bool:
        """Whether a vector column, an index of one, or a search through it may answer something else, or others ask."""
        first = subject[0] if isinstance(subject, tuple) else subject
        table, function = getattr(first, "table", str(first)), getattr(first, "function", "").rpartition(".")[2]
        return self._callers or table in self._read or function in self._reading

    def _concerns(self, subject: Any) -> bool:
        first = subject[0] if isinstance(subject, tuple) else subject
        if isinstance(first, Function):
            names = {table.name for table in self._reference.tables if str(table) in self._tables}
            same = repr(first) in set(map(repr, self._reference.functions)) and first.name not in self._functions
            return not same or any(name in first.body for name in names)
        if isinstance(first, Declared):
            return first.table in self._tables
        return not isinstance(first, Table) or str(first) in self._tables


def _searching(check: Check) -> bool:
    """True for checks of embeddings and searches, which read every vector."""
    return ".embeddings." in check.module or ".search." in check.module or check.id == "search-keeps-tenants"


def _functions(catalog: Catalog, reference: Catalog) -> set[str]:
    """Names of functions that differ, and of those that name them, however far away."""
    one, other = ({(f.signature, repr(f)): f.name for f in c.functions} for c in (catalog, reference))
    names = {(one | other)[key] for key in one.keys() ^ other.keys()}
    more = names
    while more:
        more = {f.name for f in catalog.functions if any(name in f.body for name in more)} - names
        names |= more
    return names


def _altered(catalog: Catalog, reference: Catalog, contract: Contract, functions: set[str]) -> set[str]:
    """Tables that are not as they were, or that use what is not; all of them where a client may be another."""
    if catalog.types != reference.types or catalog.settings != reference.settings:
        return {str(t) for t in catalog.tables}
    known = {s.name for s in reference.schemas}
    if [s for s in catalog.schemas if s.name in known] != list(reference.schemas):
        return {str(t) for t in catalog.tables}
    if _acting(catalog, contract) != _acting(reference, contract):
        return {str(t) for t in catalog.tables}
    sequences = {str(s) for s in {*catalog.sequences} ^ {*reference.sequences}}
    before = {str(t): _promised(t) for t in reference.tables}
    found = {str(t) for t in catalog.tables if _promised(t) != before.get(str(t)) or _uses(t, functions | sequences)}
    found |= {s.owned_by.rpartition(".")[0] for s in catalog.sequences if str(s) in sequences and s.owned_by}
    return found | {str(t) for t in reference.tables if catalog.table(str(t)) is None}


def _promised(table: Table) -> Table:
    """The table without its sizes: whoever attacks it, or vacuums it, changes these, although all is undone."""
    return replace(table, rows=-1, pages=0, indexes=tuple(replace(index, pages=0) for index in table.indexes))


def _acting(catalog: Catalog, contract: Contract) -> tuple[set[str], set[str]]:
    """Roles that act: the API's, owners of anything, and all that they belong to; with their memberships."""
    names = {*contract.roles.clients, *contract.roles.services, *contract.roles.privileged}
    names |= {o.owner for o in (*catalog.tables, *catalog.functions, *catalog.sequences)}
    more = names
    while more:
        more = {m.role for m in catalog.memberships if m.member in more} - names
        names |= more
    return {repr(r) for r in catalog.roles if r.name in names}, {
        repr(m) for m in catalog.memberships if m.member in names
    }


def _uses(table: Table, names: set[str]) -> bool:
    """True where policies, triggers, the view, defaults or constraints name one of them."""
    texts = [table.definition, *(t.function for t in table.triggers), *(c.default or "" for c in table.columns)]
    texts += [c.definition for c in table.constraints]
    texts += [f"{p.using} {p.check}" for p in table.policies]
    return any(name in text for name in names for text in texts)


def named_by(table: Table) -> set[str]:
    """Tables that a relation's policies, view or foreign keys name."""
    texts = [text for policy in table.policies for text in (policy.using, policy.check) if text]
    paths = {path for text in texts for path in shape(text, table.name).relations}
    return {*table.reads, *(qualified(*path) for path in paths), *(k.references for k in table.foreign_keys())}
