"""What checks of a running database look at: what the contract promises of it.

The first line of each docstring is what a report says was looked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pgconform.contract import Contract
from pgconform.contract_operations import Operations, Trends
from pgconform.subjects import Declared, declared


def trends(contract: Contract) -> Iterator[Trends]:
    """What is promised of changes from run to run."""
    if contract.trends:
        yield contract.trends


def watched_tables(contract: Contract) -> Iterator[Declared[Trends]]:
    """Tables whose growth by tenant is watched."""
    if item := contract.trends:
        yield from (declared(name, [contract.column_of(name)], item) for name in item.tables)


def operations(contract: Contract) -> Iterator[Operations]:
    """Limits of the running server."""
    if contract.operations:
        yield contract.operations


@dataclass(frozen=True, slots=True)
class Size:
    """How large something may be: 'database', a schema or a table; in bytes."""

    name: str
    most: float

    def __str__(self) -> str:
        return self.name


def sizes(contract: Contract) -> Iterator[Size]:
    """Declared sizes."""
    for name, most in (contract.operations.sizes if contract.operations else {}).items():
        yield Size(name, most * 1e9)


def whole(contract: Contract) -> Iterator[str]:
    """The database as a whole."""
    yield contract.name


def tenancies(contract: Contract) -> Iterator[str]:
    """Ways in which rows belong to tenants."""
    yield from contract.tenancies
