"""What searches cost, beside earlier runs: exact counts of pages, never times."""

from collections.abc import Iterator

from pgconform.checks import Evidence, check
from pgconform.history import History
from pgconform.model import Figure, Finding
from pgconform.probes.effort import grown, measured
from pgconform.subjects import Searching, searches


@check("search-effort", guide=["muva-41"], when=["monthly"], each=searches)
def test_searches_cost_what_they_did(
    subject: Searching, evidence: Evidence, history: History
) -> Iterator[Finding | Figure]:
    """A search touches no more pages, and its vector indexes have no more, than the table's growth explains.

    A search that has left its index, or an index bloated by updates, still gives the right rows: it only takes longer,
    every month.
    """
    now = measured(subject, evidence)
    yield from now.values()
    yield from grown(subject, evidence, now, history)
