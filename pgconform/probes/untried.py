"""Who searches where one caller must do, and why nobody does: reasons that a contract may accept must be true."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgconform.identities import identities
from pgconform.model import Nothing, NotVerified
from pgconform.people import owned_counts
from pgconform.probes.searching import REFUSALS, by_tenant, callers, queries

if TYPE_CHECKING:
    from pgconform.checks import Evidence
    from pgconform.identities import Identity
    from pgconform.subjects import Searching


def largest(search: Searching, evidence: Evidence) -> tuple[Identity, str]:
    """A member of the largest tenant and a query vector. Raises Nothing where there is none, NotVerified."""
    able = callers(search, evidence)
    vectors = queries(search, evidence, able[-1]) if able else []
    if not vectors:
        raise Nothing(why_untried(search, evidence))
    return able[-1], vectors[0]


def why_untried(search: Searching, evidence: Evidence) -> str:
    """Why no member searches. Raises NotVerified."""
    if callers(search, evidence) or not _may(search, evidence):
        return why_nobody(search, evidence)
    if not by_tenant(search, evidence):
        return f"no member of a tenant may call {search.function}"
    if not any(tenant and rows for tenant, rows in owned_counts(evidence, search.table).items()):
        return f"no tenant has rows in {search.table}"
    return f"no tenant with rows in {search.table} has a member of its own who may call {search.function}"


def why_nobody(search: Searching, evidence: Evidence) -> str:
    """Why nobody at all searches. Raises NotVerified."""
    if not _may(search, evidence):
        return f"nobody whom a session signs in may call {search.function}"
    return f"{search.table} has no vector of {search.vector.dimension} dimensions to search with"


def _may(search: Searching, evidence: Evidence) -> bool:
    return any(identity.role in search.promise.execute for identity in identities(evidence))


def refused(search: Searching, reason: NotVerified) -> Nothing | NotVerified:
    """What to raise where the call failed: that the caller's own one is refused is what search-results finds."""
    told = f"{search.function} refuses the call, which search-results finds"
    return Nothing(told) if reason.state[:2] in REFUSALS else reason
