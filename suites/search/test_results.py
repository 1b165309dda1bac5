"""Search results: the right rows, in order, over the threshold, as many as asked for, through the index."""

from collections.abc import Iterator
from itertools import pairwise

from pgconform.catalog import Catalog
from pgconform.checks import Evidence, check
from pgconform.model import Finding, Nothing
from pgconform.probes.searching import TOLERANCE, Answer, answers, index_scans
from pgconform.statements import Name
from pgconform.subjects import Searching, searches


def _fault(answer: Answer) -> str:
    """What is wrong with one answer, measured by the exact one; '' where nothing is."""
    got, exact, threshold = answer.similarities, answer.exact, answer.threshold
    if answer.refused:
        return f"the call is refused: {answer.refused}"
    if any(later > earlier + TOLERANCE for earlier, later in pairwise(got)):
        return "the results are not nearest first"
    if threshold is not None and any(s < threshold - TOLERANCE or s != s for s in got):
        return f"a result is under the threshold of {threshold:g}"
    if answer.foreign:
        return f"{answer.foreign} result(s) are not the caller's own"
    if len(got) < len(exact):
        return f"{len(got)} result(s) where {len(exact)} rows qualify"
    if len(got) > len(exact):
        return f"{len(got)} results where {len(exact)} were asked for or qualify"
    if any(s < e - TOLERANCE for s, e in zip(got, exact, strict=True)):
        return "nearer rows are left out"
    return ""


@check("search-results", guide=["muva-24", "muva-22"], when=["gate"], each=searches)
def test_every_search_finds_the_nearest_rows(subject: Searching, evidence: Evidence) -> Iterator[Finding]:
    """A search returns the caller's nearest rows over the threshold, in order, as many as asked for.

    Also for the smallest tenant: an index that looks at the nearest rows of all tenants first starves it.
    """
    given = list(answers(subject, evidence))
    faults = {str(a.identity): why for a in given if (why := _fault(a))}
    if faults:
        who, why = next(iter(faults.items()))
        observed = f"{why} ({who}; {len(faults)} of {len({str(a.identity) for a in given})} callers)"
        yield Finding(subject.function, observed, subject.recreate(evidence.catalog))
    elif not any(a.exact for a in given):
        raise Nothing(f"no caller of {subject.function} has rows to find")


def _indexes(subject: Searching, catalog: Catalog) -> list[Name]:
    table = catalog.table(subject.table)
    listed = table.indexes if table else ()
    return [Name((i.schema, i.name)) for i in listed if i.method in ("hnsw", "ivfflat") and i.valid]


@check("search-uses-index", guide=["muva-22"], when=["gate"], each=searches)
def test_every_search_can_use_the_vector_index(subject: Searching, evidence: Evidence) -> Iterator[Finding]:
    """Where nothing else can give the order, a search through the function scans a vector index.

    A query that orders by another expression than the index has reads every row, more of them each day.
    """
    usable = _indexes(subject, evidence.catalog)
    scans = [index_scans(subject, evidence, index) for index in usable]
    if not usable or -1 in scans:
        raise Nothing(f"no valid vector index, or no caller, to try {subject.function} with")
    if not any(scans):
        observed = f"it does not scan a vector index of {subject.table}"
        yield Finding(subject.function, observed, subject.recreate(evidence.catalog))
