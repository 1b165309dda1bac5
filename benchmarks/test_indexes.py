"""Kinds of vector indexes side by side: time to build, size, recall and time of tenants' searches; so one can choose.

The rows are clustered unit vectors of 3072 dimensions, of seven tenants. Each index serves searches that name their
tenant, for tenants with 55, 5 and 1 % of the rows, and searches of all. "used" counts those of the four for which the
planner takes the index of its own accord; recall, beside exact answers, and milliseconds are measured with the planner
kept on it. The scale curve asks for the largest tenant's nearest, from a thousand rows up, as the planner likes: it
shows where the planner takes to the index. It is written for the report, ``reports/out/scale.json``, as it comes.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from pgconform.contract import Limits
from pgconform.database import Database, begin
from pgconform.probes.searching import INDEX_ONLY
from pgconform.statements import statement
from pgconform.targets.server import running
from pgconform.vectors import copied, oracle
from pgconform.vectors.asking import NAME, Asking

from .conftest import Measured
from .rows import DIMENSION, drawn, fill

COUNT = 10
TENANTS = {0: "55 %", 4: "5 %", 6: "1 %"}
GROUPS = {f"r.tenant = {tenant}": share for tenant, share in TENANTS.items()} | {"true": "all"}
LARGEST = "r.tenant = 0"
# Rows: of the scale curve, and of the comparison.
SHORT, LONG = ((1_000,), 1_000), ((1_000, 3_000, 10_000, 30_000, 100_000), 10_000)
SCALE = Path("reports/out/scale.json")

HALF, BITS = f"halfvec({DIMENSION})", f"bit({DIMENSION})"
_ORDER = (
    f"select r.id::text, r.embedding::{HALF} <=> {{q}}::vector({DIMENSION})::{HALF} from {{t}} as r"
    f" where {{w}} order by 2 limit {COUNT}"
)
# The nearest by signs alone, a hundred of them, then in their true order.
_SIGNS = (
    f"select s.id::text, s.embedding <=> {{q}}::vector({DIMENSION}) from (select r.id, r.embedding from {{t}} as r"
    f" where {{w}} order by binary_quantize(r.embedding)::{BITS} <~> binary_quantize($1::vector({DIMENSION}))"
    f" limit 100) as s order by 2 limit {COUNT}"
)
_PARTS = (
    "create table parts (like texts) partition by list (tenant);"
    + "".join(f"create table part{n} partition of parts for values in ({n});" for n in range(7))
    + "insert into parts select * from texts; analyze parts;"
)


@dataclass(frozen=True, slots=True)
class Kind:
    """``before`` makes what is indexed, ``build`` is timed; ``settings`` are those of the searches."""

    name: str
    build: str
    settings: dict[str, str]
    search: str = _ORDER
    table: str = "texts"
    before: str = ""


def kinds(rows: int) -> Iterator[Kind]:
    key, signs = f"((embedding::{HALF}) halfvec_cosine_ops)", f"((binary_quantize(embedding)::{BITS}) bit_hamming_ops)"
    lists = max(10, rows // 1000)
    methods = (
        ("ivfflat", f"with (lists = {lists})", {"ivfflat.probes": "4"}, {"ivfflat.iterative_scan": "relaxed_order"}),
        ("hnsw", "", {"hnsw.ef_search": "40"}, {"hnsw.iterative_scan": "strict_order"}),
    )
    for method, options, settings, iterative in methods:
        build = f"create index on {{t}} using {method} {{key}} {options}"
        plain = build.format(t="texts", key=key)
        yield Kind(method, plain, settings)
        yield Kind(f"{method}, iterative", plain, settings | iterative)
        partial = ";".join(f"{plain} where tenant = {tenant}" for tenant in TENANTS)
        yield Kind(f"{method}, one a tenant", partial, settings)
        yield Kind(f"{method}, partitions", build.format(t="parts", key=key), settings, table="parts", before=_PARTS)
        wide = settings | ({"hnsw.ef_search": "200"} if method == "hnsw" else {})
        yield Kind(f"{method} of signs", build.format(t="texts", key=signs), wide, _SIGNS)


def truth(database: Database, queries: oracle.Matrix) -> oracle.Nearest:
    groups = [statement(f"({where})") for where in GROUPS]
    asked = copied.question("public.texts", "id", "embedding", groups, statement("true"))
    blocks = copied.blocks(database.copied(asked, "reading"), "vector", DIMENSION, len(groups))
    return oracle.nearest(blocks, queries, COUNT, "cosine", len(groups))


def searched(
    database: Database, kind: Kind, where: str, queries: oracle.Matrix, exact: oracle.Matrix, kept: bool = True
) -> tuple[float, float]:
    """Mean recall and median milliseconds of searches of these rows, with the planner kept on the index or free."""
    call = statement(kind.search.replace("{t}", kind.table).replace("{w}", where), q=None)
    within = oracle.tolerance(DIMENSION, kind.search == _ORDER)
    settings = {**(INDEX_ONLY if kept else {}), **kind.settings, "search_path": "public"}
    with database.setting(tuple(settings.items()), "searching"):
        asked = Asking(database, call, "vector", [])
        asked.prepare()
        answers = [asked.ask(query) for query in queries]
        database.connection.execute(b"deallocate " + NAME)
    recalls = [oracle.recall(answer.values, near, within) for answer, near in zip(answers, exact, strict=True)]
    return statistics.mean(recalls), 1000 * statistics.median(answer.seconds for answer in answers)


def used(database: Database, kind: Kind, where: str) -> bool:
    """True where the planner takes the index of its own accord."""
    query = "(select embedding from texts where id = 0)"
    asked = kind.search.format(t=kind.table, w=where, q=query).replace("$1", query)
    with database.setting([*kind.settings.items(), ("search_path", "public")], "explaining"):
        plan = database.connection.execute(f"explain {asked}".encode()).fetchall()
    return any("Index Scan using" in line and "pkey" not in line for (line,) in plan)


@contextmanager
def filled(rows: int) -> Iterator[Database]:
    """In a transaction on a database of so many rows."""
    with running() as server, psycopg.connect(server.dsn(), autocommit=True) as connection:
        fill(connection, rows)
        begin(connection, Limits(statement_timeout=3_600_000), read_only=False)
        connection.execute("set local search_path = public")
        connection.execute("set local maintenance_work_mem = '1GB'")
        yield Database(connection)
        connection.execute("rollback")


@contextmanager
def built(database: Database, kind: Kind) -> Iterator[tuple[float, float]]:
    """Seconds that it took, and MB of the index; afterwards it is undone."""
    with database.connection.transaction(force_rollback=True):
        execute = database.connection.execute
        execute(kind.before.encode() or b"select")
        started = time.perf_counter()
        for build in kind.build.split(";"):
            execute(build.encode())
        seconds = time.perf_counter() - started
        size = execute(
            "select coalesce(sum(pg_relation_size(i.indexrelid)), 0)::float8 / 1e6 from pg_index as i"
            " join pg_class as c on c.oid = i.indexrelid join pg_am as a on a.oid = c.relam"
            " where a.amname in ('hnsw', 'ivfflat')"
        ).fetchone()
        assert size
        yield seconds, size[0]


def test_kinds_of_indexes_side_by_side(measured: Measured) -> None:
    _, rows = LONG if measured.long else SHORT
    queries = drawn(20 if measured.long else 10)
    with filled(rows) as database:
        exact = truth(database, queries)

        def compare() -> None:
            for kind in kinds(rows):
                what = f"{kind.name}, {rows:,} rows"
                with built(database, kind) as (seconds, size):
                    measured.row(f"{what}: built in", seconds, "s")
                    measured.row(f"{what}: size", size, "MB")
                    measured.row(f"{what}: used", sum(used(database, kind, where) for where in GROUPS), "of 4")
                    for group, (where, share) in enumerate(GROUPS.items()):
                        if share == "all" and "one a tenant" in kind.name:
                            continue  # no index is for them
                        recall, ms = searched(database, kind, where, queries, exact.distances[group])
                        measured.row(f"{what}, {share}: recall", recall, shown=share in ("55 %", "1 %"))
                        measured.row(f"{what}, {share}: search", ms, "ms", shown=share == "55 %")

        measured.rounds(compare, 1)


def test_the_planner_takes_to_the_index_as_the_table_grows(measured: Measured) -> None:
    sizes, _ = LONG if measured.long else SHORT
    queries = drawn(20 if measured.long else 10)
    points: list[dict[str, object]] = []

    def curve() -> None:
        for rows in sizes:
            with filled(rows) as database:
                exact = truth(database, queries).distances[0]
                for kind in (kind for kind in kinds(rows) if kind.name in ("ivfflat", "hnsw")):
                    with built(database, kind) as (seconds, _):
                        recall, ms = searched(database, kind, LARGEST, queries, exact, kept=False)
                        scan = "index" if used(database, kind, LARGEST) else "sequential"
                    measured.row(f"scale, {kind.name}, {rows:,} rows: built in", seconds, "s")
                    measured.row(f"scale, {kind.name}, {rows:,} rows: recall", recall)
                    measured.row(f"scale, {kind.name}, {rows:,} rows: search", ms, "ms")
                    measured.row(f"scale, {kind.name}, {rows:,} rows: index scan", float(scan == "index"))
                    points.append({"rows": rows, "method": kind.name, "scan": scan, "ms": ms, "recall": recall})
                    SCALE.parent.mkdir(parents=True, exist_ok=True)
                    SCALE.write_text(json.dumps(points, indent=1) + "\n", encoding="ascii")

    measured.rounds(curve, 1)
