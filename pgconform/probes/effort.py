"""What searches touch and find, and how large their indexes are, beside earlier runs: exact figures, no times."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pgconform import trends
from pgconform.model import Figure, Finding, Nothing, NotVerified
from pgconform.probes.calling import honest_call
from pgconform.probes.searching import Answer, Budget, answers, recall
from pgconform.probes.untried import largest, refused
from pgconform.statements import Name, statement
from pgconform.vector_indexes import of_relation

if TYPE_CHECKING:
    from pgconform.checks import Evidence
    from pgconform.history import History
    from pgconform.subjects import Searching

AGO = 30.0  # days: the run that is nearest to this is compared with
# Pages touched are the same in each run, and differ by 4 to 15 % when an ivfflat index is built anew.
MORE = 1.25
FEW = 32  # pages of difference that are no matter
LESS = 0.05  # recall: four standard deviations of what it varies by when an index is built anew
PAGE = 8192


def measured(search: Searching, evidence: Evidence) -> dict[str, Figure]:
    """Rows of the table, pages that a member of the largest tenant touches by one search, pages of the vector indexes,
    and the mean recall of the caller who has the worst.

    Raises Nothing where nobody can search, NotVerified, also when the time for it is spent.
    """
    budget = Budget(evidence)
    who, vector = largest(search, evidence)
    count = statement("select pg_catalog.count(*) from {t} as r", t=Name.of(search.table))
    rows = evidence.database.remembered(count, f"counting rows of {search.table}")[0][0]
    call = honest_call(search, evidence, who, vector)
    explained = statement("explain (analyze, buffers, timing off, format json) {call}", call=call)
    what = f"searching through {search.function}"
    budget.need(f"a search through {search.function}")
    try:
        with evidence.database.acting(who.role, who.settings):
            evidence.database.rows(call, what)  # what planning reads is no part of the search
            budget.need(f"a second search through {search.function}")
            root = evidence.database.one(explained, what)[0][0]["Plan"]
    except NotVerified as reason:
        raise refused(search, reason) from None
    found = {"rows": rows, "pages touched": root["Shared Hit Blocks"] + root["Shared Read Blocks"],
             "index size": _indexed(search, evidence), "recall": _worst(search, evidence, budget)}  # fmt: skip
    return {what: Figure(f"search {what}: {search.function}", value, _UNITS[what]) for what, value in found.items()}


_UNITS = {"rows": "rows", "pages touched": "pages", "index size": "pages", "recall": ""}


def _worst(search: Searching, evidence: Evidence, budget: Budget) -> float:
    """The lowest mean recall of a caller. Raises NotVerified when the time is spent before all have searched."""
    theirs: dict[str, list[Answer]] = {}
    for answer in answers(search, evidence, budget):
        if answer.untried:
            budget.need(f"all searches through {search.function}")
        theirs.setdefault(str(answer.identity), []).append(answer)
    return min(sum(map(recall, given)) / len(given) for given in theirs.values())


def grown(search: Searching, evidence: Evidence, now: dict[str, Figure], past: History) -> Iterator[Finding]:
    """A finding for each size that grew by more than a quarter beyond the table's own growth, and for a lower recall.

    Raises Nothing where no earlier run measured it.
    """
    before = {what: _near(past.series(figure.name)) for what, figure in now.items()}
    rows = before["rows"]
    if rows is None:
        raise Nothing(f"no earlier run measured {search.function}")
    growth = max(1.0, now["rows"].value / max(1.0, rows))
    remedies = {"pages touched": search.recreate(evidence.catalog), "index size": _reindex(search, evidence)}
    for what, remedy in remedies.items():
        then = before[what]
        if then is not None and now[what].value > MORE * growth * then + FEW:
            observed = (
                f"{what}: {now[what].value:g} pages, about a month ago {then:g}; rows: {growth:.2f} times as many"
            )
            yield Finding(search.function, observed, remedy, detail=what)
    then = before["recall"]
    if then is not None and now["recall"].value < then - LESS:
        observed = f"recall: {now['recall'].value:.2f} for some caller, about a month ago {then:.2f}"
        remedy = f"{_reindex(search, evidence)}\n{search.recreate(evidence.catalog)}"
        yield Finding(search.function, observed, remedy, detail="recall")


def _near(series: trends.Series) -> float | None:
    return trends.near(series, AGO, float("inf"))


def _indexed(search: Searching, evidence: Evidence) -> int:
    sizes = statement(
        "select coalesce(pg_catalog.sum(pg_catalog.pg_relation_size(c.oid)), 0)::bigint from pg_catalog.pg_class as c"
        " join pg_catalog.pg_namespace as n on n.oid = c.relnamespace"
        " where pg_catalog.format('%I.%I', n.nspname, c.relname) = any({names}::text[])",
        names=tuple(_quoted(search, evidence)),
    )  # fmt: skip
    return int(evidence.database.one(sizes, f"measuring the vector indexes of {search.table}")[0]) // PAGE


def _quoted(search: Searching, evidence: Evidence) -> list[str]:
    return [str(index) for index in of_relation(evidence.catalog, search.table, search.column)]


def _reindex(search: Searching, evidence: Evidence) -> str:
    return "\n".join(f"reindex index {name};" for name in _quoted(search, evidence))
