"""Policies as cases: all that a judgement of one may depend on, without names, so that equal ones are judged once.

Thousands of tables have policies of one shape. Pure: never talks to a server, judges nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from pgconform.names import split
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
    restrictive: tuple[Policy, ...]  # of its table
    table: str  # the table's name without schema, where an expression may name it; else NOT_NAMED
    named: str  # the same, qualified; else ''
    declared: str  # as the contract calls the table, where an expression may name that; else ''
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
    for table in protectable_tables(contract, privileges):
        declared = declared_name(catalog, contract, table)
        promise = contract.tables.get(declared)
        restrictive = tuple([p for p in table.policies if not p.permissive])
        held = tuple([privileges.on(role, table) for role in clients])
        said = msgspec.json.encode(promise)  # all of it, since its dictionaries cannot be hashed
        for policy in table.policies:
            if spoken_for.isdisjoint(policy.roles):
                continue
            texts = _texts(policy, *restrictive)
            here = (table.name, str(table)) if _may_name(texts, table.name) else (NOT_NAMED, "")
            there = declared if declared and _may_name(texts, split(declared)[-1]) else ""
            nameless = msgspec.structs.replace(policy, name="")
            key = (nameless, restrictive, here, there, said, held)
            if key not in cases:
                cases[key] = Case(
                    contract, catalog, privileges, nameless, restrictive, *here, there, promise, held
                )  # fmt: skip
            yield table, policy, cases[key]


def _texts(*policies: Policy) -> list[str]:
    return [text for policy in policies for text in (policy.using, policy.check) if text]


def _may_name(texts: Iterable[str], name: str) -> bool:
    """True where a text has the name in it, as the server spells it: it may then be the table's."""
    spelled = name.replace('"', '""')
    return any(spelled in text for text in texts)
