"""Approximate indexes measured by the exact answer: what they find of the nearest rows, whatever function asks."""

from __future__ import annotations

import time
from dataclasses import dataclass

from pgconform.catalog import Index
from pgconform.checks import Evidence
from pgconform.contract_vectors import Vector
from pgconform.model import Nothing, NotVerified
from pgconform.probes.searching import INDEX_ONLY
from pgconform.statements import Name, Statement, column, joined, statement
from pgconform.subjects import Declared
from pgconform.vector_kinds import KINDS, by_operator_class, home

QUERIES = 4  # stored vectors from each end of the table: old rows, and those that came last
NEAREST = 10  # rows asked for
CLOSE = 1e-5  # distances that differ by less are the same, computed by another path
# With all effort that pgvector lets an index make: what it then misses is not in it (README, "Query Options").
EFFORT = {"ivfflat": ("ivfflat.probes", "32768"), "hnsw": ("hnsw.ef_search", "1000")}


# The vectors of one end of a table, save those that have no distance to anything.
_END = (
    "(select ({{e}})::text as q from {{t}} as r where (({{e}}) {operator} ({{e}})) <> 'NaN'"
    " order by r.tableoid {way}, r.ctid {way} limit {{n}})"
)


@dataclass(frozen=True, slots=True)
class Recall:
    """How many of the nearest rows an index found, of how many there are."""

    found: int
    rows: int

    @property
    def share(self) -> float:
        return self.found / self.rows


def shortcoming(subject: Declared[Vector], index: Index, evidence: Evidence, least: float) -> tuple[str, float | None]:
    """What is wrong with an index that finds less than it should, with the share, or that the server cannot read; ''
    for nothing."""
    try:
        measured = recall(subject, index, evidence)
    except NotVerified as refusal:
        if refusal.state[:2] == "XX":  # internal error: damaged (PostgreSQL's Appendix A)
            return f"its pages cannot be read: {refusal.said}", None
        raise
    if measured.share < least:
        return f"it finds {measured.found} of {measured.rows} nearest rows, wanted {least:.0%}", measured.share
    return "", None


def recall(subject: Declared[Vector], index: Index, evidence: Evidence) -> Recall:
    """What searches by the index's own order find, over a few stored vectors. Raises Nothing and NotVerified."""
    name = subject.needs[0][1][0]
    compared = by_operator_class(index.operator_classes[0])
    extension = evidence.catalog.extension("vector")
    if compared is None or extension is None or not index.has_all(name) or not index.valid:
        raise Nothing(f"{index} is not one that finds the nearest rows by itself")
    key = statement(index.keys[0].replace("{", "{{").replace("}", "}}"))
    operator, kind = f"operator({{o}}.{KINDS[compared].operator})", compared[0]
    parts = {"e": key, "o": Name((extension.schema,)), "t": Name.of(subject.table), "n": QUERIES}
    ends = joined((statement(_END.format(operator=operator, way=way), **parts) for way in ("asc", "desc")), " union ")
    what = f"measuring {index} by the exact answer"
    until = time.monotonic() + evidence.contract.limits.search_seconds
    listed = evidence.database.rows(statement("select s.q from ({ends}) as s order by s.q", ends=ends), what)
    found = total = 0
    for (vector,) in listed:
        if total and time.monotonic() >= until:  # each takes a scan of the table: what was measured must do
            break
        distance = statement(
            f"({{e}}) {operator} {{q}}::{{k}}", q=vector, k=Name((home(kind, extension.schema), kind)), e=key,
            o=parts["o"],
        )  # fmt: skip
        nearest = statement(
            "select {d} from {t} as r where {e} is not null order by {d} limit {n}", d=distance, t=parts["t"],
            e=column(name), n=NEAREST,
        )  # fmt: skip
        exact = _distances(evidence, nearest, {"enable_indexscan": "off"}, what)
        approximate = _by_index(evidence, nearest, index, what)
        total += len(exact)
        found += sum(d <= exact[-1] + CLOSE for d in approximate) if exact else 0
    if not total:
        raise Nothing(f"{subject} holds no vector")
    return Recall(found, total)


def _by_index(evidence: Evidence, nearest: Statement, index: Index, what: str) -> list[float]:
    """The answer of this very index. Raises Nothing where the planner takes another one."""
    scans = statement(
        "select pg_catalog.pg_stat_get_xact_numscans(c.oid) from pg_catalog.pg_class as c"
        " join pg_catalog.pg_namespace as n on n.oid = c.relnamespace where n.nspname = {s} and c.relname = {i}",
        s=index.schema, i=index.name,
    )  # fmt: skip
    before = evidence.database.one(scans, what)[0]
    found = _distances(evidence, nearest, INDEX_ONLY | dict([EFFORT[index.method]]), what)
    if evidence.database.one(scans, what)[0] == before:
        raise Nothing(f"{index} is not what the planner takes")
    return found


def _distances(evidence: Evidence, nearest: Statement, settings: dict[str, str], what: str) -> list[float]:
    """The distances that are numbers: zero vectors have none, and are in no index for cosines."""
    rows = evidence.database.rows(nearest, what, settings=tuple(settings.items()))
    return [d for (d,) in rows if d is not None and d == d]
