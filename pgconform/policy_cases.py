"""Policies as cases: all that a judgement of one may depend on, without names, so that equal ones are judged once.

Thousands of tables have policies of one shape. Pure: never talks to a server, judges nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from pgconform.names import qualified, split
from pgconform.subjects import declared_name, protectable_tables

if TYPE_CHECKING:
    from pgconform.catalog import Catalog, Policy, Table
    from pgconform.contract import Contract, TablePromise
    from pgconform.privileges import Held, Privileges

Answer = TypeVar("Answer")
NOT_NAMED = "\0"  # how a table is called to whom its name says nothing: no table has this name


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A policy where it stands. Whoever judges a case is given nothing else, above all not the table: so whatever the
    judgement depends on is part of the case, or the same for all cases of one catalogue."""

    contract: Contract
    catalog: Catalog
    privileges: Privileges
    policy: Policy  # without its name
    table: str  # the table's name without schema, where one of its policies may name it; else NOT_NAMED
    named: str  # the same, qualified; else ''
    declared: str  # as the contract calls the table, where one of its policies may name that; else ''
    restrictive: tuple[Policy, ...]  # of the table
    promise: TablePromise | None
    held: tuple[tuple[Held, ...], ...]  # what each of the contract's clients holds on the table, in their order
    answers: dict[object, Any] = field(default_factory=dict)

    @property
    def texts(self) -> list[str]:
        """The policy's expressions."""
        return [text for text in (self.policy.using, self.policy.check) if text]


Placed = tuple["Table", "Policy", Case]


def once(question: Callable[[Case], Answer]) -> Callable[[Case], Answer]:
    """Has a question about a case answered once."""

    @wraps(question)
    def ask(case: Case) -> Answer:
        if question not in case.answers:
            case.answers[question] = question(case)
        answer: Answer = case.answers[question]
        return answer

    return ask


def policies(catalog: Catalog, contract: Contract, privileges: Privileges) -> Iterator[Placed]:
    """Policies for client roles, on tables that these can reach."""
    clients = contract.roles.clients
    spoken_for = {"public"}.union(*(privileges.inherited(role) for role in clients))
    cases: dict[tuple[object, ...], Case] = {}
    places: dict[tuple[object, ...], int] = {}  # a number for each, which is hashed sooner than all that it stands for
    for table in protectable_tables(contract, privileges):
        declared = declared_name(catalog, contract, table)
        promise = contract.tables.get(declared)
        named = _named(table, declared)
        restrictive = tuple([p for p in table.policies if not p.permissive])
        held = tuple([privileges.on(role, table) for role in clients])
        told = msgspec.json.encode(promise)  # its dictionaries cannot be hashed
        where = places.setdefault((*named, restrictive, held, told), len(places))
        for policy in table.policies:
            if not spoken_for.isdisjoint(policy.roles):
                _, *parts = msgspec.structs.astuple(policy)  # without its name
                case = cases.get((where, *parts))
                if case is None:
                    nameless = msgspec.structs.replace(policy, name="")
                    case = Case(contract, catalog, privileges, nameless, *named, restrictive, promise, held)
                    cases[where, *parts] = case
                yield table, policy, case


def _named(table: Table, declared: str) -> tuple[str, str, str]:
    """What the table's policies may call it: its name, the same qualified, the declared one.

    The server spells names as they are, but for double quotes: one that is not in the text is not meant.
    """
    text = "\n".join([text for policy in table.policies for text in (policy.using, policy.check) if text])
    own = table.name.replace('"', '""') in text
    other = own if declared == str(table) else bool(declared) and split(declared)[-1].replace('"', '""') in text
    return (table.name if own else NOT_NAMED), (str(table) if own else ""), (declared if other else "")


def own_keys(
    contract: Contract, catalog: Catalog, promise: TablePromise, declared: str, relations: Iterable[tuple[str, ...]]
) -> tuple[tuple[tuple[str, ...], str], ...]:
    """Columns by which a policy may lean on another table's row security: among the relations that it names, other than
    the ``declared`` one of which that is promised, of tables with row security on, the key of a child's parent, and the
    column that names the tenant, where clients are given own rows only."""
    found = []
    for name in sorted(qualified(*path) for path in relations):
        table, other = catalog.table(name), contract.tables.get(name)
        scopes = {contract.scope(name, role, "select") for role in contract.roles.clients}
        if name == declared or table is None or other is None or not table.row_security or scopes & {"all", "shared"}:
            continue
        if promise.holds == "child" and promise.parent == name:
            found.append((split(name), promise.parent_key))
        if promise.holds == "tenant" == other.holds and contract.tenancy_of(promise) == contract.tenancy_of(other):
            found.append((split(name), contract.column_of(name)))
    return tuple(found)
