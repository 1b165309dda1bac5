"""Searches: no way of calling a search function finds another tenant's rows."""

from collections.abc import Iterator

from pgconform.checks import Evidence, check
from pgconform.model import Finding, Nothing
from pgconform.probes.searching import foreign_answers
from pgconform.probes.untried import why_nobody
from pgconform.subjects import Searching, searches


@check("search-keeps-tenants", guide=["muva-18", "muva-24", "muva-42"], when=["gate", "quarterly"], each=searches)
def test_no_search_finds_rows_of_another_tenant(subject: Searching, evidence: Evidence) -> Iterator[Finding]:
    """Called with another tenant's id, with null, with a pattern or without, a search finds own rows only.

    A function that filters by an argument which the caller chooses keeps nobody out.
    """
    answers = list(foreign_answers(subject, evidence))
    leaks = [a for a in answers if a.foreign]
    if leaks:
        ways = ", ".join(dict.fromkeys(f"{str(a.identity).partition(' #')[0]} with {a.asked}" for a in leaks))
        observed = f"{max(a.foreign for a in leaks)} foreign row(s) found: {ways}"
        yield Finding(subject.function, observed, subject.recreate(evidence.catalog))
    elif not answers:
        raise Nothing(why_nobody(subject, evidence))
