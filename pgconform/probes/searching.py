"""Searches through the contract's functions, as their callers make them, beside the exact answer."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from pgconform import query_vectors
from pgconform.checks import Evidence
from pgconform.identities import Identity, identities
from pgconform.model import NotVerified
from pgconform.probes.calling import TOLERANCE, call, complete, lenient, stricter, type_of, ways
from pgconform.probes.findable import arguments, own_rows, searched, spec_of
from pgconform.probes.shares import askers
from pgconform.probes.vectors import dimension, extension_schema
from pgconform.probes.visibility import belonging
from pgconform.statements import Name, Statement, column, statement
from pgconform.subjects import Searching
from pgconform.vector_kinds import KINDS

# SQLSTATE classes by which the server blames the call or the data, and not us: syntax or access, data exception.
REFUSALS = ("42", "22")
# As near to a threshold as this is on it: whether such a row qualifies is the search's business.
ON = 1e-9
# How far a similarity that a search tells may be from the exact one, of which it may show two digits; a share of the
# distance where that is more than 1.
TOLD = 0.01
# Settings under which only an index scan can give the order that a search asks for.
INDEX_ONLY = {
    "enable_seqscan": "off", "enable_sort": "off", "enable_bitmapscan": "off",
    "plan_cache_mode": "force_custom_plan",  # a generic plan, kept from earlier calls, was made without these
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answer:
    """What one call returned, and what it should have: keys as text, similarities, nearest first. ``similarities`` are
    those of the returned rows themselves, of which ``misjudged`` are told otherwise, and ``unknown`` are of no row.
    ``nearest`` are the keys of the ``exact`` rows; so many more are just ``on`` the threshold, which bits and counts
    often are."""

    identity: Identity
    asked: str
    keys: tuple[str, ...]
    similarities: tuple[float, ...]
    exact: tuple[float, ...]
    foreign: int
    nearest: tuple[str, ...] = ()
    on: int = 0
    threshold: float | None = None
    refused: str = ""  # why the server did not let the caller search
    untried: bool = False  # the time for it was spent before
    misjudged: int = 0
    unknown: int = 0


def callers(search: Searching, evidence: Evidence) -> list[Identity]:
    """Who may execute the function, with rows of their own: members of the smallest tenant, of one with about 1 % and
    one with 3-8 % of the rows, and of the largest; the first and the last members where rows are not a tenant's.

    Raises NotVerified.
    """
    if by_tenant(search, evidence):
        return [asker.who for asker in askers(evidence, search.table, search.promise.execute)]
    able = [i for i in identities(evidence) if i.role in search.promise.execute and i.kind in ("one", "many")]
    return able[:2] + able[-1:] if len(able) > 2 else able


def by_tenant(search: Searching, evidence: Evidence) -> bool:
    """True where tenants own the rows, or those that they hang on, and members see their own ones only."""
    scopes = {evidence.contract.scope(search.table, role, "select") for role in _roles(search, evidence)}
    return _tenants_own(search, evidence) and not scopes & {"shared", "all"}


def _tenants_own(search: Searching, evidence: Evidence) -> bool:
    return evidence.contract.tables[evidence.contract.rooted(search.table)].holds == "tenant"


def _roles(search: Searching, evidence: Evidence) -> set[str]:
    """The roles by which members may execute the function."""
    known = {i.role for i in identities(evidence) if i.kind in ("one", "many")}
    return known & set(search.promise.execute)


def queries(search: Searching, evidence: Evidence, identity: Identity) -> list[str]:
    """Some vectors as text: stored ones of the identity's own rows, and of anybody's, and those of the contract's file.

    Raises NotVerified.
    """
    return [*_stored(search, evidence, identity), *_held_out(search, evidence)]


def _held_out(search: Searching, evidence: Evidence) -> list[str]:
    """The first vectors of the contract's file, as text: an index may know just what is stored."""
    vector, some = search.vector, evidence.contract.limits.searches
    found = query_vectors.read(Path(vector.queries), vector.type, vector.dimension) if vector.queries else ()
    return [query_vectors.text(one, vector.type) for one in found[:some]]


def _stored(search: Searching, evidence: Evidence, identity: Identity) -> list[str]:
    """Some stored vectors as text: of the identity's own rows, and of anybody's."""
    mine = own_rows(search, evidence, identity)
    texts = []
    for where in (mine, statement("not coalesce({own}, false)", own=mine)):
        question = statement(
            "select {e}::text from {t} as r where {fits} and {where} order by {key} limit {n}",
            e=column(search.column), t=Name.of(search.table), where=where, key=_key(search),
            fits=_fits(search, evidence), n=evidence.contract.limits.searches,
        )  # fmt: skip
        rows = evidence.database.remembered(question, f"choosing query vectors from {search.table}")
        texts += [text for (text,) in rows]
    return texts


def answers(search: Searching, evidence: Evidence, budget: Budget | None = None) -> Iterator[Answer]:
    """One answer for each caller, query vector and way to name the tenant, and some to stricter calls; untried where
    the time that the contract's limits give is spent: each takes a scan of the table, too. Raises NotVerified."""
    budget = budget or Budget(evidence)

    def answered(identity: Identity, vector: str, asked: str, given: dict[str, object]) -> Answer:
        if budget.spent:
            return Answer(identity, asked, (), (), (), 0, untried=True)
        return _answer(search, evidence, identity, vector, asked, given)

    asking = callers(search, evidence)
    for identity in asking:
        for vector in queries(search, evidence, identity):
            last = None
            for asked, given in ways(search, evidence, identity):
                last = answered(identity, vector, asked, given)
                yield last
            if last and identity is asking[-1]:  # what is done with an argument, one caller tells
                for asked, given in stricter(search, evidence, identity, last.exact):
                    yield answered(identity, vector, asked, given)


class Budget:
    """The time that the contract's limits give one check's searches of one function, from now on."""

    def __init__(self, evidence: Evidence) -> None:
        self._until = time.monotonic() + evidence.contract.limits.search_seconds

    @property
    def spent(self) -> bool:
        """True when no other search may begin; one that has begun is bounded by the statement timeout."""
        return time.monotonic() >= self._until

    def need(self, what: str) -> None:
        """Raises NotVerified when it is spent."""
        if self.spent:
            raise NotVerified(f"no time for {what}; raise search_seconds in [limits]")


def foreign_answers(search: Searching, evidence: Evidence) -> Iterator[Answer]:
    """Answers to calls that name another tenant, none, or a pattern: for each kind of client session."""
    spec = spec_of(search)
    tenants = sorted({t for i in identities(evidence) for t in i.tenants})
    for identity in _of_each_kind(search, evidence):
        theirs = statement("not coalesce({own}, false)", own=own_rows(search, evidence, identity))
        least = arguments(search, evidence, theirs)
        named: list[tuple[str, dict[str, object]]] = [("no tenant named", {})]
        if spec.tenant:
            others = [t for t in tenants if t not in identity.tenants][:1]
            named += [("another tenant named", {spec.tenant: other}) for other in others]
            named += [("a null tenant", {spec.tenant: None}), ("a pattern as tenant", {spec.tenant: "%"})]
        for vector in (*_stored(search, evidence, identity)[-1:], *_held_out(search, evidence)[:1]):
            for asked, given in named:
                if complete(search, least | given):
                    passed = least | given | lenient(search)
                    yield _answer(search, evidence, identity, vector, asked, passed, exact=False)


def faults(search: Searching, given: Iterable[Answer]) -> dict[str, str]:
    """What is wrong with the answers of each caller, by its label: with one of them, or with the mean recall of all.

    An approximate index may leave out a near row now and then: how often is the contract's ``recall``. Order,
    threshold, number of rows and whose they are must be right each time.
    """
    asked: dict[str, list[Answer]] = {}
    for answer in given:
        asked.setdefault(str(answer.identity), []).append(answer)
    found = {}
    for who, theirs in asked.items():
        shares = [recall(answer) for answer in theirs if answer.exact and not answer.untried]
        mean, least = (sum(shares) / len(shares) if shares else 1.0), spec_of(search).recall
        missed = f"recall {mean:.2f}, promised {least:g}: nearer rows are left out" if mean < least else ""
        allowed = least if mean >= least else 1.0  # where too much is left out, what is plainest is said
        found[who] = next(filter(None, (fault(answer, allowed) for answer in theirs)), missed)
    return {who: why for who, why in found.items() if why}


def recall(answer: Answer) -> float:
    """Share of the exact nearest rows that one answer has. Rows as near as the last of them count for one another."""
    if not answer.exact:
        return 1.0
    last, got = answer.exact[-1], dict(zip(answer.keys, answer.similarities, strict=True))
    clear = {key for key, s in zip(answer.nearest, answer.exact, strict=True) if s > last + TOLERANCE}
    others = sum(s >= last - TOLERANCE for key, s in got.items() if key not in clear)
    return (len(clear & got.keys()) + min(others, len(answer.exact) - len(clear))) / len(answer.exact)


def fault(answer: Answer, least: float = 1.0) -> str:
    """What is wrong with one answer, of which rows may be left out as far as a recall of ``least``
    allows; '' where nothing is."""
    got, exact, threshold = answer.similarities, answer.exact, answer.threshold
    if answer.refused:
        return f"the call is refused: {answer.refused}"
    if answer.unknown:
        return f"{answer.unknown} result(s) are no row of the table"
    if any(later > earlier + TOLERANCE for earlier, later in pairwise(got)):
        return "the results are not nearest first"
    if threshold is not None and any(s < threshold - TOLERANCE for s in got):
        return f"a result is under the threshold of {threshold:g}"
    if answer.foreign:
        return f"{answer.foreign} result(s) are not the caller's own"
    if len(got) < least * len(exact):
        return f"{len(got)} result(s) where {len(exact)} rows qualify"
    if len(got) > len(exact) + answer.on:
        return f"{len(got)} results, more than the {len(exact)} that were asked for or qualify"
    if answer.misjudged:
        return f"{answer.misjudged} result(s) have another similarity than the search tells"
    return ""


def _of_each_kind(search: Searching, evidence: Evidence) -> list[Identity]:
    """The first and the last identity of each kind that may execute the function: one of a small tenant, one of a
    large one."""
    kinds: dict[str, list[Identity]] = {}
    for identity in identities(evidence):
        if identity.role in search.promise.execute:
            kinds.setdefault(identity.kind, []).append(identity)
    return [identity for found in kinds.values() for identity in dict.fromkeys((found[0], found[-1]))]


def _fits(search: Searching, evidence: Evidence) -> Statement:
    """The condition under which row ``r`` has a vector of the declared dimension: others cannot be compared."""
    table, vector = evidence.catalog.table(search.table), column(search.column)
    kind = evidence.catalog.comparable(table.column(search.column) if table else None)
    dims = dimension(kind, extension_schema(evidence.catalog), vector)
    return statement("{dims} = {n}::int", dims=dims, n=search.vector.dimension)


def _key(search: Searching) -> Name:
    return column(search.key)


def _answer(
    search: Searching, evidence: Evidence, identity: Identity, vector: str, asked: str, given: dict[str, object],
    exact: bool = True,
) -> Answer:  # fmt: skip
    try:
        rows = evidence.database.rows(
            call(search, vector, given), f"searching through {search.function}", role=identity.role,
            settings=identity.settings,
        )  # fmt: skip
    except NotVerified as reason:
        if reason.state[:2] in REFUSALS:  # the caller's own call is refused: that is an observation
            return Answer(identity, asked, (), (), (), 0, refused=reason.said)
        raise
    mine = own_rows(search, evidence, identity)
    found = _looked_up(search, evidence, mine, vector, tuple(key for key, _ in rows))
    # What is near nothing, a vector of zeros or of another dimension, is the business of other checks.
    rows = [(key, s) for key, s in rows if key not in found or any(near == near for _, near in found[key])]
    told = [(math.nan if s is None else s, [t for _, t in found.get(key, ()) if t == t]) for key, s in rows]
    own = tuple(min(near, key=lambda s: abs(s - said), default=math.nan) for said, near in told)
    threshold = _threshold(search, given)
    nearest = _exact(search, evidence, mine, vector, given) if exact else []
    over = [(key, float(s)) for key, s in nearest if threshold is None or s > threshold + ON]
    return Answer(
        identity, asked, tuple(key for key, _ in rows), own, tuple(s for _, s in over),
        sum(stray for key in found for stray, _ in found[key]), tuple(key for key, _ in over),
        len(nearest) - len(over), threshold,
        misjudged=sum(not _as_told(said, s) for (said, _), s in zip(told, own, strict=True)),
        unknown=sum(key not in found for key, _ in rows),
    )  # fmt: skip


def _as_told(said: float, exact: float) -> bool:
    return abs(said - exact) <= TOLD * max(1.0, abs(1 - exact))


def _looked_up(
    search: Searching, evidence: Evidence, mine: Statement, vector: str, keys: tuple[str, ...]
) -> dict[str, list[tuple[bool, float]]]:
    """The rows of these keys: whether each is another's, and its exact similarity, nan where it has none."""
    question = statement(
        "select {key}::text, not coalesce({mine}, true), case when {fits} then 1 - ({distance}) end"
        " from {t} as r where {key}::text = any({keys}::text[]) order by 1",
        t=Name.of(search.table), key=_key(search), keys=keys, mine=mine, fits=_fits(search, evidence),
        distance=_distance(search, evidence, vector),
    )  # fmt: skip
    found: dict[str, list[tuple[bool, float]]] = {}
    for key, stray, similarity in evidence.database.rows(question, f"looking up results of {search.function}"):
        found.setdefault(key, []).append((stray, math.nan if similarity is None else similarity))
    return found


def _distance(search: Searching, evidence: Evidence, vector: str) -> Statement:
    """The distance of row ``r`` to a vector."""
    schema = extension_schema(evidence.catalog)
    return statement(
        "{e} operator({o}." + KINDS[search.vector.type, search.vector.metric].operator + ") {q}::{t}",
        e=column(search.column), o=Name((schema,)), q=vector, t=type_of(search.vector, schema),
    )  # fmt: skip


def _threshold(search: Searching, given: dict[str, object]) -> float | None:
    """The threshold that a call asks for: its own, or the declared default."""
    told = given.get(spec_of(search).threshold, spec_of(search).default_threshold)
    return told if isinstance(told, float | None) else float(str(told))


def _exact(
    search: Searching, evidence: Evidence, mine: Statement, vector: str, given: dict[str, object]
) -> list[tuple[str, float]]:
    """Keys and similarities of the true nearest rows, those on the threshold included, by a sequential scan over the
    identity's rows."""
    spec = spec_of(search)
    threshold = _threshold(search, given)
    count = given.get(spec.count, spec.default_count)
    tenant = given.get(spec.tenant)
    if tenant is not None and _tenants_own(search, evidence):
        named = belonging(evidence.contract, search.table, (str(tenant),))
        mine = statement("{mine} and {named}", mine=mine, named=named)
    mine = statement("{mine} and {searched}", mine=mine, searched=searched(search, given))
    near = statement("s.similarity >= {least}::float8", least=threshold - ON) if threshold is not None else None
    question = statement(
        "select s.key, s.similarity from (select {key}::text as key, 1 - ({distance}) as similarity from {t} as r"
        " where {mine} and {fits}) as s where {near} and s.similarity <> 'NaN'"
        " order by 2 desc limit {n}::bigint",
        key=_key(search), distance=_distance(search, evidence, vector), t=Name.of(search.table), mine=mine,
        fits=_fits(search, evidence),
        near=near or statement("true"), n=count,
    )  # fmt: skip
    exactly = (("enable_indexscan", "off"),)
    return evidence.database.rows(question, f"finding the exact answer for {search.function}", settings=exactly)
