"""What each search finds and costs, beside the exact answer; one caller after the other."""

from __future__ import annotations

import hashlib
import math
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import copy
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec
import numpy

from pgconform.model import NotVerified
from pgconform.statements import Name, Statement, column, statement
from pgconform.vector_indexes import of_relation
from pgconform.vector_kinds import KINDS
from pgconform.vectors import asking, cases, copied, oracle

if TYPE_CHECKING:
    from pgconform.catalog import Index
    from pgconform.checks import Evidence
    from pgconform.database import Database
    from pgconform.subjects import Searching
    from pgconform.vectors.asking import Asked, Asking
    from pgconform.vectors.cases import Case
    from pgconform.vectors.copied import Block
    from pgconform.vectors.oracle import Matrix

CUSTOM = 5  # executions for which the server makes a plan each, before it may keep one (PostgreSQL's plancache.c)
EXPLAINED = 3  # searches run under EXPLAIN: what they touch does not vary
COLD = 3  # new sessions, for the first search in each
# All queries are timed again and again: for so many seconds a case, and at most so many searches in a second.
PACE, SAMPLES = 1.0, 800
THOROUGH = 4  # times as long, where much depends on it: a baseline, and what confirms that a search is slower
Sessions = Callable[[], AbstractContextManager["Database"]]


class Load(msgspec.Struct, frozen=True):
    """Some clients at once: searches per second of all of them, and milliseconds of one search."""

    rate: float
    p50: float
    p95: float


class Measured(msgspec.Struct, frozen=True):
    """One case. Times in milliseconds; ``ratio`` is the median search's time in calibrations (see ``paced``); rows,
    buffers and recall are means over the queries; counts are of queries or of rows returned."""

    case: str
    rows: int
    asked: int
    queries: int
    returned: float
    expected: float
    short: int  # queries with fewer rows than qualify
    recall: float
    worst: float
    foreign: int  # rows that are not the caller's own
    under: int  # rows under the threshold
    unordered: int  # queries whose rows are not nearest first
    misjudged: int  # rows whose similarity is not the exact one
    cold: float  # the first search of a new session, its parsing included: median of a few sessions
    samples: int  # searches that the percentiles are of, the first of the session left out
    p50: float
    p95: float
    p99: float
    ratio: float
    buffers: float
    scanned: float  # share of the first five executions that scanned an approximate index
    scanned_later: float
    plan: str  # what one search scans: indexes, or the table
    method: str
    total: int = 0  # rows of everybody; 0 where a baseline does not say
    also: tuple[str, ...] = ()  # shares that the case is an example of, besides the one in its name
    asking: str = ""  # fingerprint of the queries
    clients: dict[str, Load] = {}  # by number of clients at once
    over: int = 0  # queries with more rows than were asked for
    repeated: int = 0  # rows that are returned again


class Tried(msgspec.Struct, frozen=True):
    """One case under some settings: mean recall, queries with fewer rows than qualify, medians of milliseconds and
    calibrations, share that scanned a vector index, mean of pages touched, queries whose rows are not nearest first."""

    recall: float
    short: int
    milliseconds: float
    ratio: float
    scanned: float
    pages: float = 0.0
    unordered: int = 0


class Measuring:
    """Measures the cases of one search. ``sessions`` opens further sessions on what ``evidence`` shows; the oracle's
    answer is found once. Raises NotVerified."""

    def __init__(
        self, search: Searching, evidence: Evidence, queries: Matrix, sessions: Sessions, pace: float = PACE
    ) -> None:
        extension = evidence.catalog.extension("vector")
        spec = search.promise.search
        assert extension, "a declared vector of a vector type needs the extension"
        assert spec, "only search functions are measured"
        self.search, self.evidence, self.sessions = search, evidence, sessions
        self.schema, self.spec, self.pace = extension.schema, spec, pace
        self.cases = cases.cases(search, evidence)
        if not self.cases:
            raise NotVerified(f"nobody who may execute {search.function} owns a row of {search.table}")
        # What a halfvec cannot hold is not asked for.
        half = "halfvec" in (search.vector.type, cases.kind(self.cases[0]))
        self.queries = queries.astype(numpy.float16).astype(numpy.float32) if half else queries
        self.margin = oracle.tolerance(search.vector.dimension, search.vector.index_cast == "halfvec")
        # As the suites take it, whatever the metric: similarity = 1 - distance.
        self.within = None if spec.default_threshold is None else 1 - spec.default_threshold
        self.wanted = cases.wanted(self.cases[0])
        self.relations = asking.scanned(evidence.database, search.table)
        rows = self._rows(statement("true"))
        self.truth = oracle.nearest(
            rows, self.queries, self.wanted, search.vector.metric, len(self.cases), self.within, self.margin
        )

    def indexes(self) -> list[Index]:
        """The approximate indexes of the column, those of partitions included."""
        return of_relation(self.evidence.catalog, self.search.table, self.search.column)

    def names(self) -> list[Name]:
        """What they are called."""
        return [Name((index.schema, index.name)) for index in self.indexes()]

    def measured(self, number: int) -> Measured:
        """One case: its first search in new sessions, then all in another. Raises NotVerified, TargetLost."""
        case = self.cases[number]
        cold = statistics.median(self._cold(case, query) for query in self.queries[:COLD])
        with self._asking(case, cases.call(case), cases.kind(case)) as asked:
            answers = [asked.ask(query) for query in self.queries]
            buffers = statistics.mean(asked.buffers(query) for query in self.queries[:EXPLAINED])
            shape = asked.shape(self.queries[0], self.relations)
            seconds = self._rounds(asked, answers)
        times = [1000 * float(second) for second in seconds[:, :, 1].flat][1:]
        return Measured(
            case=case.name, rows=case.findable, total=case.total, also=case.also, asked=self.wanted,
            queries=len(answers), cold=cold, samples=len(times), p50=statistics.median(times),
            p95=quantile(times, 0.95), p99=quantile(times, 0.99), ratio=paced(seconds), buffers=buffers,
            plan=shape or "nothing",
            asking=fingerprint(self.queries),
            scanned=statistics.mean(a.scanned for a in answers[:CUSTOM]),
            scanned_later=statistics.mean(a.scanned for a in answers[CUSTOM:] or answers),
            method=self._method(), **self._judged(number, answers),
        )  # fmt: skip

    def _method(self) -> str:
        """Of the first index that searches could use."""
        vector = self.search.vector
        wanted = KINDS[vector.indexed_as].operator_class if vector.indexed_as else ""
        sound = [(i.method, i.operator_classes[0].rpartition(".")[2]) for i in self.indexes() if i.valid and i.ready]
        return next((method for method, operators in sound if operators == wanted), "")

    def ratio(self, number: int) -> float:
        """The median search's time in calibrations, measured anew and more thoroughly."""
        case = self.cases[number]
        with self._asking(case, cases.call(case), cases.kind(case)) as asked:
            return paced(self._rounds(asked, (), THOROUGH))

    def _cold(self, case: Case, query: Matrix) -> float:
        """Milliseconds of the first search in a new session, before anything there has loaded the extension."""
        with (
            self.sessions() as session,
            asking.asking(session, case.who, cases.call(case), cases.kind(case), ()) as asked,
        ):
            return 1000 * (asked.preparing + asked.time(query))

    def _rounds(self, asked: Asking, answers: Sequence[Asked], times: int = 1) -> Matrix:
        """Seconds of calibrations and searches, rounds x queries x 2: ``answers`` first, two rounds at least."""
        pace = times * self.pace
        ends, most = time.perf_counter() + pace, pace * SAMPLES / len(self.queries)
        rounds = [[(answer.calibration, answer.seconds) for answer in answers]] if answers else []
        while len(rounds) < 2 or (len(rounds) < most and time.perf_counter() < ends):
            rounds.append([(asked.calibrate(), asked.time(query)) for query in self.queries])
        return numpy.array(rounds)

    def tried(self, number: int, settings: Mapping[str, str], some: int, own: bool = False) -> Tried:
        """The search without its function, for the first queries, under these settings; ``own`` is with it."""
        case = self.cases[number]
        call = cases.call(case) if own else cases.plain(case, self.schema)
        with self._asking(case, call, cases.kind(case) if own else self.search.vector.type, settings) as asked:
            answers = [asked.ask(query) for query in self.queries[:some]]
            pages = statistics.mean(asked.buffers(query) for query in self.queries[:EXPLAINED])
        near, qualifying = self.truth.distances[number], self.truth.qualifying[number]
        margins = (self.margin * self.truth.magnitudes[number]).tolist()
        limit = math.inf if self.within is None else self.within
        distances = [[1 - value for value in a.values] if own else list(a.values) for a in answers]
        found = [sum(d <= limit + margins[n] for d in told) for n, told in enumerate(distances)]
        return Tried(
            recall=statistics.mean(oracle.recall(told, near[n], margins[n]) for n, told in enumerate(distances)),
            short=sum(rows < min(self.wanted, int(qualifying[n])) for n, rows in enumerate(found)),
            milliseconds=1000 * statistics.median(a.seconds for a in answers),
            ratio=statistics.median(a.seconds / a.calibration for a in answers),
            scanned=statistics.mean(a.scanned for a in answers), pages=pages,
            unordered=sum(any(a > b + 2 * margins[n] for a, b in pairwise(told)) for n, told in enumerate(distances))
            if own else 0,  # what the contract implies is sorted by whoever takes it over
        )  # fmt: skip

    def scans(self, number: int, settings: Mapping[str, str]) -> bool:
        """True where the function scans an approximate index under these settings."""
        case = self.cases[number]
        with self._asking(case, cases.call(case), cases.kind(case), settings) as asked:
            return asked.ask(self.queries[0]).scanned

    def visible(self, number: int, which: Statement | None = None) -> int:
        """How many rows of the table the caller sees, of those for which that holds. Raises NotVerified."""
        case, database = self.cases[number], self.evidence.database
        question = statement(
            "select pg_catalog.count(*) from {t} as r where {w}",
            t=Name.of(self.search.table), w=which or statement("true"),
        )  # fmt: skip
        what = f"counting rows of {self.search.table}"
        return int(database.one(question, what, role=case.who.role, settings=case.who.settings)[0])

    def load(self, number: int, clients: int, seconds: float) -> Load:
        """So many clients at once, each in a session of its own, after one search each."""
        case, times = self.cases[number], [list[float]() for _ in range(clients)]
        errors: list[Exception] = []
        ready = threading.Barrier(clients)

        def client(n: int) -> None:
            try:
                with self._asking(case, cases.call(case), cases.kind(case)) as asked:
                    asked.time(self.queries[0])
                    ready.wait()
                    ends = time.perf_counter() + seconds
                    while time.perf_counter() < ends:
                        times[n].append(asked.time(self.queries[(n + len(times[n])) % len(self.queries)]))
            except Exception as error:
                ready.abort()
                errors.append(error)

        threads = [threading.Thread(target=client, args=(n,)) for n in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for error in errors:
            raise error
        every = [1000 * second for mine in times for second in mine]
        # Each client's own rate: the last search of each ends after the time is over.
        rate = sum(len(mine) / sum(mine) for mine in times)
        return Load(rate, statistics.median(every), quantile(every, 0.95))

    @contextmanager
    def changed(self, lines: Sequence[str], what: str) -> Iterator[Measuring]:
        """The same measurements after these commands, which are undone; on disposable targets only."""
        drills = self.evidence.drills
        with drills.setting((), what):
            for line in lines:
                drills.run(statement(line.replace("{", "{{").replace("}", "}}")), what)
            other = copy(self)
            other.sessions = lambda: nullcontext(drills)
            yield other

    @contextmanager
    def _asking(
        self, case: Case, call: Statement, kind: str, settings: Mapping[str, str] | None = None
    ) -> Iterator[Asking]:
        with self.sessions() as session:
            asking.touch(session, self.schema)
            indexes = asking.oids(session, self.names())
            with asking.asking(session, case.who, call, kind, indexes, settings) as asked:
                yield asked

    def _rows(self, where: Statement) -> Iterator[Block]:
        search, database = self.search, self.evidence.database
        owners = cases.owners(search, self.evidence, self.cases)
        question = copied.question(search.table, search.key, search.column, owners, where)
        messages = database.copied(question, f"reading the vectors of {search.table}")
        return copied.blocks(messages, search.vector.type, search.vector.dimension, len(owners))

    def _judged(self, number: int, answers: list[Asked]) -> dict[str, Any]:
        """What was returned, measured by the exact answer."""
        keys = tuple(sorted({key for answer in answers for key in answer.keys}))
        listed = statement("{k}::text = any({keys}::text[])", k=column(self.search.key), keys=keys)
        own: dict[str, list[Matrix]] = {}  # of chunks, several may have the key of one document
        for block in self._rows(listed):
            for n, key in enumerate(block.keys):
                if block.owned[n, number]:
                    own.setdefault(key, []).append(block.vectors[n].copy())
        recalls, short, over, repeated, under, unordered, misjudged = [], 0, 0, 0, 0, 0, 0
        qualifying = self.truth.qualifying[number].tolist()
        limit = math.inf if self.within is None else self.within
        for n, answer in enumerate(answers):
            rows = list(self._paired(n, answer, own))
            found = self._distances(n, [vector for vector, _ in rows])
            distances = [distance for distance, _ in found]
            repeated += sum(key in own for key in answer.keys) - len(rows)
            over += len(answer.keys) > self.wanted
            margin = self.margin * float(self.truth.magnitudes[number, n])
            recalls.append(oracle.recall(distances, self.truth.distances[number, n], margin))
            short += len(answer.keys) < min(self.wanted, qualifying[n])
            under += sum(distance > limit + slack for distance, slack in found)
            unordered += any(a > b + slack + other for (a, slack), (b, other) in pairwise(found))
            pairs = zip(rows, found, strict=True)
            misjudged += sum(not abs(said - (1 - d)) <= 10 * slack for (_, said), (d, slack) in pairs)
        return {
            "returned": statistics.mean(len(answer.keys) for answer in answers),
            "expected": statistics.mean(min(self.wanted, q) for q in qualifying), "short": short,
            "recall": statistics.mean(recalls), "worst": min(recalls), "under": under, "unordered": unordered,
            "misjudged": misjudged, "over": over, "repeated": repeated,
            "foreign": sum(key not in own for answer in answers for key in answer.keys),
        }  # fmt: skip

    def _paired(self, query: int, answer: Asked, own: Mapping[str, list[Matrix]]) -> Iterator[tuple[Matrix, float]]:
        """The vector of each returned row and what is said of its similarity, without what is returned again. Of the
        rows of one key it is the one that is as near as is said."""
        left = {key: list(own[key]) for key in answer.keys if key in own}
        for key, said in zip(answer.keys, answer.values, strict=True):
            if vectors := left.get(key):
                off = [abs(said - (1 - distance)) for distance, _ in self._distances(query, vectors[1:] and vectors)]
                yield vectors.pop(off.index(min(off)) if off else 0), said

    def _distances(self, query: int, vectors: list[Matrix]) -> list[tuple[float, float]]:
        """The distance of each vector to a query, and how wrong the server's may be."""
        if not vectors:
            return []
        zeros, count, stacked = [0] * len(vectors), range(len(vectors)), numpy.stack(vectors)
        asked, metric = self.queries[query : query + 1], self.search.vector.metric
        distances = oracle.pairwise(asked, zeros, stacked, count, metric)
        slack = self.margin * oracle.magnitude(asked, zeros, stacked, count, metric)
        return list(zip(map(float, distances), map(float, slack), strict=True))


def paced(seconds: Matrix) -> float:
    """The median search's time in calibrations, of seconds of both (rounds x queries x 2).

    Other work on the machine only adds to a time: of each query and of its calibrations the shortest counts. Measured
    while four processes wanted each processor, 12 repeats: ratios of two rounds differ by a standard deviation of 15 %,
    of 20 rounds by 1 %, but where sessions themselves differ, by 12 %.
    """
    shortest = seconds.min(axis=0)
    return float(numpy.median(shortest[:, 1] / shortest[:, 0]))


def fingerprint(queries: Matrix) -> str:
    """The same for the same queries."""
    return hashlib.sha256(numpy.ascontiguousarray(queries, "<f4").tobytes()).hexdigest()[:16]


def quantile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` of the values do not exceed; the largest of few."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]
