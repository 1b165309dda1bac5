"""Search results: the right rows, in order, over the threshold, as many as asked for, through the index."""

from collections.abc import Iterator

from pgconform.catalog import Catalog
from pgconform.checks import Evidence, check
from pgconform.contract import Vector
from pgconform.model import Finding, Nothing, NotVerified
from pgconform.probes import recall
from pgconform.probes.searching import answers, fault, index_scans
from pgconform.remedies import rebuild
from pgconform.statements import Name
from pgconform.subjects import Declared, Searching, searches, stored_vectors
from pgconform.vector_indexes import candidates


@check("search-results", guide=["muva-24", "muva-22"], when=["gate"], each=searches)
def test_every_search_finds_the_nearest_rows(subject: Searching, evidence: Evidence) -> Iterator[Finding]:
    """A search returns the caller's nearest rows over the threshold, in order, as many as asked for.

    Also for the smallest tenant: an index that looks at the nearest rows of all tenants first starves it.
    """
    given = list(answers(subject, evidence))
    faults = {str(a.identity): why for a in given if (why := fault(a))}
    if faults:
        who, why = next(iter(faults.items()))
        observed = f"{why} ({who}; {len(faults)} of {len({str(a.identity) for a in given})} callers)"
        yield Finding(subject.function, observed, subject.recreate(evidence.catalog))
    elif untried := sum(a.untried for a in given):
        raise NotVerified(f"no time for {untried} of {len(given)} searches; raise search_seconds in [limits]")
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


@check(
    "search-recall", guide=["muva-37", "muva-22", "muva-41"], when=["gate", "monthly", "quarterly"], each=stored_vectors
)
def test_every_vector_index_finds_the_nearest_rows(subject: Declared[Vector], evidence: Evidence) -> Iterator[Finding]:
    """Asked with all effort, every vector index finds the declared share of the rows that are nearest.

    An index that lost rows is valid for the catalogue and fast for everybody: only the exact answer tells.
    """
    table, name, promise = evidence.catalog.table(subject.table), subject.needs[0][1][0], subject.item.index
    found = candidates(table, name) if table and promise else []
    if table is None or promise is None or not found:
        raise Nothing(f"{subject} has no vector index")
    for index in found:
        observed, share = recall.shortcoming(subject, index, evidence, promise.recall)
        finding = Finding(str(index), observed, rebuild(table, index))
        if observed:
            yield finding if share is None else finding.against(share, promise.recall, "share")
