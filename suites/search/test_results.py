"""Search results: the right rows, in order, over the threshold, as many as asked for, through the index."""

from collections.abc import Iterator

from pgconform.catalog import Catalog
from pgconform.checks import Evidence, check
from pgconform.contract_vectors import Vector
from pgconform.model import Finding, Nothing, NotVerified
from pgconform.probes import recall
from pgconform.probes.scans import unscanned
from pgconform.probes.searching import answers, faults
from pgconform.probes.untried import why_untried
from pgconform.remedies import rebuild
from pgconform.statements import Name
from pgconform.subjects import Declared, Searching, stored_vectors
from pgconform.subjects_queries import all_searches
from pgconform.vector_indexes import candidates


@check("search-results", guide=["muva-24", "muva-22"], when=["gate"], each=all_searches)
def test_every_search_finds_the_nearest_rows(subject: Searching, evidence: Evidence) -> Iterator[Finding]:
    """A search returns the caller's nearest rows over the threshold, in order, as many as asked for.

    Also for the smallest tenant, and one with about 1 % of the rows: an index that looks at the nearest rows of all
    tenants first starves them. An approximate index may leave out as many near rows as the contract's recall allows.
    """
    given = list(answers(subject, evidence))
    if wrong := faults(subject, given):
        who, why = next(iter(wrong.items()))
        observed = f"{why} ({who}; {len(wrong)} of {len({str(a.identity) for a in given})} callers)"
        yield Finding(subject.function, observed, subject.recreate(evidence.catalog))
    elif untried := sum(a.untried for a in given):
        raise NotVerified(f"no time for {untried} of {len(given)} searches; raise search_seconds in [limits]")
    elif not any(a.exact for a in given):
        raise Nothing(f"no caller of {subject.function} has rows to find" if given else why_untried(subject, evidence))


def _indexes(subject: Searching, catalog: Catalog) -> list[Name]:
    table = catalog.table(subject.table)
    listed = table.indexes if table else ()
    return [Name((i.schema, i.name)) for i in listed if i.method in ("hnsw", "ivfflat") and i.valid]


@check("search-uses-index", guide=["muva-22"], when=["gate"], each=all_searches)
def test_every_search_can_use_the_vector_index(subject: Searching, evidence: Evidence) -> Iterator[Finding]:
    """A search scans a vector index where nothing else can give the order, and of itself where the rows are many.

    A query that orders by another expression than the index has reads every row, more of them each day; so does one
    for which the planner takes that to be cheaper. Many is the contract's ``index_from``, of the caller's own rows.
    """
    why, remedy = unscanned(subject, evidence, _indexes(subject, evidence.catalog))
    if why:
        yield Finding(subject.function, why, remedy)


@check("search-recall", guide=["muva-37", "muva-22"], when=["gate", "quarterly"], each=stored_vectors)
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
