"""What searches cost and find, beside earlier runs: exact counts, never times."""

from collections.abc import Iterator

from pgconform.checks import Evidence, check
from pgconform.history import History
from pgconform.model import Figure, Finding
from pgconform.probes.effort import grown, measured
from pgconform.subjects import Searching
from pgconform.subjects_queries import all_searches


@check("search-effort", guide=["muva-41"], when=["monthly"], each=all_searches)
def test_searches_cost_what_they_did(
    subject: Searching, evidence: Evidence, history: History
) -> Iterator[Finding | Figure]:
    """A search touches no more pages and has no larger index than the table's growth explains, and finds no less.

    A search that has left its index, or an index bloated by updates, still gives the right rows: it only takes longer,
    every month. An index that has aged finds fewer of the nearest rows, and nobody notices. Pages stand for the time,
    which varies: pgconform bench --compare measures that.
    """
    now = measured(subject, evidence)
    yield from now.values()
    yield from grown(subject, evidence, now, history)
