"""What checks of a running database look at: what the contract promises of it.

The first line of each docstring is what a report says was looked for.
"""

from __future__ import annotations

from collections.abc import Iterator

from pgconform.contract import Contract
from pgconform.contract_operations import Trends
from pgconform.subjects import Declared, declared


def trends(contract: Contract) -> Iterator[Trends]:
    """What is promised of changes from run to run."""
    if contract.trends:
        yield contract.trends


def watched_tables(contract: Contract) -> Iterator[Declared[Trends]]:
    """Tables whose growth by tenant is watched."""
    if item := contract.trends:
        yield from (declared(name, [contract.column_of(name)], item) for name in item.tables)
