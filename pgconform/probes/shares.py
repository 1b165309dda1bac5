"""Whose searches to try: tenants that hold different shares of a table's rows, and a member of each.

An index that knows nothing of tenants looks at the nearest rows of everybody: it fails tenants in different ways, by
how much of the table is theirs. So tenants are chosen by their rows, whoever and how many their members are.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgconform.identities import Identity, members_of
from pgconform.people import owned_counts

if TYPE_CHECKING:
    from pgconform.checks import Evidence

LARGEST, SMALLEST = "largest tenant", "smallest tenant"
# Least, wanted and greatest share of all rows.
BANDS = {"tenant with 1 %": (0.005, 0.01, 0.02), "tenant with 3-8 %": (0.03, 0.05, 0.08)}


@dataclass(frozen=True, slots=True)
class Asker:
    """A member of one tenant alone, which owns ``rows`` of the ``total`` rows of a table. ``share`` says what the
    tenant is an example of, in words that stay the same from run to run; ``also``, of what else."""

    who: Identity
    rows: int
    total: int
    share: str
    also: tuple[str, ...] = ()


def askers(evidence: Evidence, table: str, roles: Collection[str]) -> list[Asker]:
    """A member each, with one of these roles, of the smallest tenant, one with about 1 % of the rows, one with 3-8 %,
    and the largest; by their rows, children's by their parents, fewer where one tenant is several of these.

    Raises NotVerified.

    Tenants without rows, that are closed, or of which nobody is a member alone, are passed over.
    """
    contract = evidence.contract
    member = members_of(evidence, contract.tables[contract.rooted(table)].tenancy or next(iter(contract.tenancies)))
    counted = owned_counts(evidence, table)
    total = sum(counted.values())
    owning = sorted((rows, tenant) for tenant, rows in counted.items() if tenant and rows)
    found: dict[str, Asker] = {}
    for share in (LARGEST, SMALLEST, *BANDS):
        for rows, tenant in _examples(share, owning, total, found):
            if (who := member(tenant)) and who.role in roles:
                known = found.get(tenant)
                share, also = (known.share, (*known.also, share)) if known else (share, ())
                found[tenant] = Asker(who, rows, total, share, also)
                break
    return sorted(found.values(), key=lambda asker: asker.rows)


def _examples(share: str, owning: list[tuple[int, str]], total: int, taken: Collection[str]) -> list[tuple[int, str]]:
    """Tenants that can stand for a share, the best first: one that stands for another only if there is no other."""
    if share in (LARGEST, SMALLEST):
        return owning[::-1] if share == LARGEST else owning
    low, wanted, high = BANDS[share]
    fitting = [(rows, tenant) for rows, tenant in owning if low <= rows / total <= high]
    return sorted(fitting, key=lambda one: (one[1] in taken, abs(one[0] / total - wanted), one[1]))
