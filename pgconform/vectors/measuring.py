"""What each search finds and costs, beside the exact answer; one caller after the other."""

from __future__ import annotations

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
from pgconform.remedies import index_cast
from pgconform.statements import Name, Statement, column, statement
from pgconform.vector_indexes import of_relation
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
Sessions = Callable[[], AbstractContextManager["Database"]]


class Measured(msgspec.Struct, frozen=True):
    """One case. Times in milliseconds; ``ratio`` is the median search's time in calibrations; rows, buffers and recall
    are means over the queries; counts are of queries or of rows returned."""

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
    first: float
    p50: float
    p95: float
    p99: float
    ratio: float
    buffers: float
    scanned: float  # share of the first five executions that scanned an approximate index
    scanned_later: float
    plan: str
    method: str
    rates: dict[str, float] = {}  # queries per second, by number of clients
    total: int = 0  # rows of everybody; 0 in older baselines
    also: tuple[str, ...] = ()  # shares that the case is an example of, besides the one in its name


class Tried(msgspec.Struct, frozen=True):
    """One case under some settings: mean recall, queries with fewer rows than qualify, medians of milliseconds and
    calibrations, share that scanned a vector index."""

    recall: float
    short: int
    milliseconds: float
    ratio: float
    scanned: float


class Measuring:
    """Measures the cases of one search. ``sessions`` opens further sessions on what ``evidence`` shows; the oracle's
    answer is found once. Raises NotVerified."""

    def __init__(self, search: Searching, evidence: Evidence, queries: Matrix, sessions: Sessions) -> None:
        extension = evidence.catalog.extension("vector")
        spec = search.promise.search
        assert extension, "a declared vector of a vector type needs the extension"
        assert spec, "only search functions are measured"
        self.search, self.evidence, self.queries, self.sessions = search, evidence, queries, sessions
        self.schema, self.spec = extension.schema, spec
        self.cases = cases.cases(search, evidence)
        if not self.cases:
            raise NotVerified(f"nobody who may execute {search.function} owns a row of {search.table}")
        self.margin = oracle.tolerance(search.vector.dimension, bool(index_cast(search.vector)))
        self.threshold = spec.default_threshold if search.vector.metric == "cosine" else None
        self.within = None if self.threshold is None else 1 - self.threshold  # similarity = 1 - distance
        self.wanted = cases.wanted(self.cases[0])
        rows = self._rows(statement("true"))
        self.truth = oracle.nearest(
            rows, queries, self.wanted, search.vector.metric, len(self.cases), self.within, self.margin
        )

    def indexes(self) -> list[Index]:
        """The approximate indexes of the column, those of partitions included."""
        return of_relation(self.evidence.catalog, self.search.table, self.search.column)

    def names(self) -> list[Name]:
        """What they are called."""
        return [Name((index.schema, index.name)) for index in self.indexes()]

    def measured(self, number: int) -> Measured:
        """One case, in a session of its own. Raises NotVerified, TargetLost."""
        case = self.cases[number]
        with self._asking(case, cases.call(case), cases.kind(case)) as asked:
            answers = [asked.ask(query) for query in self.queries]
            plans = [asked.explained(query) for query in self.queries[:EXPLAINED]]
        with self._asking(case, cases.plain(case, self.schema), self.search.vector.type) as asked:
            shape = asked.explained(self.queries[0]).shape
        times = [1000 * answer.seconds for answer in answers]
        return Measured(
            case=case.name, rows=case.rows, total=case.total, also=case.also, asked=self.wanted, queries=len(answers),
            first=times[0], p50=statistics.median(times), p95=quantile(times, 0.95), p99=quantile(times, 0.99),
            ratio=statistics.median(a.seconds / a.calibration for a in answers),
            buffers=statistics.mean(plan.buffers for plan in plans), plan=shape,
            scanned=statistics.mean(a.scanned for a in answers[:CUSTOM]),
            scanned_later=statistics.mean(a.scanned for a in answers[CUSTOM:] or answers),
            method=next((i.method for i in self.indexes()), ""), **self._judged(number, answers),
        )  # fmt: skip

    def ratio(self, number: int) -> float:
        """The median search's time in calibrations, measured anew."""
        case = self.cases[number]
        with self._asking(case, cases.call(case), cases.kind(case)) as asked:
            answers = [asked.ask(query) for query in self.queries]
        return statistics.median(a.seconds / a.calibration for a in answers)

    def tried(self, number: int, settings: Mapping[str, str], some: int) -> Tried:
        """The search without its function, for the first queries, under these settings."""
        case = self.cases[number]
        with self._asking(case, cases.plain(case, self.schema), self.search.vector.type, settings) as asked:
            answers = [asked.ask(query) for query in self.queries[:some]]
        near, qualifying = self.truth.distances[number], self.truth.qualifying[number]
        limit = math.inf if self.within is None else self.within + self.margin
        found = [sum(value <= limit for value in answer.values) for answer in answers]
        return Tried(
            recall=statistics.mean(oracle.recall(a.values, near[n], self.margin) for n, a in enumerate(answers)),
            short=sum(rows < min(self.wanted, int(qualifying[n])) for n, rows in enumerate(found)),
            milliseconds=1000 * statistics.median(a.seconds for a in answers),
            ratio=statistics.median(a.seconds / a.calibration for a in answers),
            scanned=statistics.mean(a.scanned for a in answers),
        )

    def scans(self, number: int, settings: Mapping[str, str]) -> bool:
        """True where the function scans an approximate index under these settings."""
        case = self.cases[number]
        with self._asking(case, cases.call(case), cases.kind(case), settings) as asked:
            return asked.ask(self.queries[0]).scanned

    def visible(self, number: int) -> int:
        """How many rows of the table the caller sees. Raises NotVerified."""
        case, database = self.cases[number], self.evidence.database
        question = statement("select pg_catalog.count(*) from {t} as r", t=Name.of(self.search.table))
        with database.acting(case.who.role, dict(case.who.settings)):
            return int(database.one(question, f"counting rows of {self.search.table}")[0])

    def rate(self, number: int, clients: int, seconds: float) -> float:
        """Searches per second of so many clients at once, each in a session of its own, after one search each."""
        case, done = self.cases[number], [0] * clients
        errors: list[Exception] = []
        ready = threading.Barrier(clients)

        def client(n: int) -> None:
            try:
                with self._asking(case, cases.call(case), cases.kind(case)) as asked:
                    asked.time(self.queries[0])
                    ready.wait()
                    ends = time.perf_counter() + seconds
                    while time.perf_counter() < ends:
                        asked.time(self.queries[(n + done[n]) % len(self.queries)])
                        done[n] += 1
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
        return sum(done) / seconds

    @contextmanager
    def rebuilt(self, index: str) -> Iterator[Measuring]:
        """The same measurements with an index built anew, which is undone; on disposable targets only."""
        drills = self.evidence.drills
        with drills.setting({}, f"building {index} anew"):
            drills.run(statement("reindex index {i}", i=Name.of(index)), f"building {index} anew")
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
        question = copied.question(search.table, self.spec.key, search.column, owners, where)
        messages = database.copied(question, f"reading the vectors of {search.table}")
        return copied.blocks(messages, search.vector.type, search.vector.dimension, len(owners))

    def _judged(self, number: int, answers: list[Asked]) -> dict[str, Any]:
        """What was returned, measured by the exact answer."""
        keys = tuple(sorted({key for answer in answers for key in answer.keys}))
        listed = statement("{k}::text = any({keys}::text[])", k=column(self.spec.key), keys=keys)
        own: dict[str, Matrix] = {}
        for block in self._rows(listed):
            for n, key in enumerate(block.keys):
                if block.owned[n, number]:
                    own[key] = block.vectors[n].copy()
        recalls, short, under, unordered, misjudged = [], 0, 0, 0, 0
        qualifying = self.truth.qualifying[number].tolist()
        for n, answer in enumerate(answers):
            distances = self._distances(n, [own[key] for key in answer.keys if key in own])
            recalls.append(oracle.recall(distances, self.truth.distances[number, n], self.margin))
            short += len(answer.keys) < min(self.wanted, qualifying[n])
            limit = math.inf if self.within is None else self.within + self.margin
            under += sum(distance > limit for distance in distances)
            unordered += any(a > b + 2 * self.margin for a, b in pairwise(distances))
            if self.search.vector.metric == "cosine" and len(distances) == len(answer.values):
                pairs = zip(answer.values, distances, strict=True)
                misjudged += sum(not abs(said - (1 - d)) <= 10 * self.margin for said, d in pairs)
        return {
            "returned": statistics.mean(len(answer.keys) for answer in answers),
            "expected": statistics.mean(min(self.wanted, q) for q in qualifying), "short": short,
            "recall": statistics.mean(recalls), "worst": min(recalls), "under": under, "unordered": unordered,
            "misjudged": misjudged, "foreign": sum(key not in own for answer in answers for key in answer.keys),
        }  # fmt: skip

    def _distances(self, query: int, vectors: list[Matrix]) -> list[float]:
        if not vectors:
            return []
        count = range(len(vectors))
        asked, metric = self.queries[query : query + 1], self.search.vector.metric
        return [float(d) for d in oracle.pairwise(asked, [0] * len(count), numpy.stack(vectors), count, metric)]


def quantile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` of the values do not exceed; the largest of few."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]
