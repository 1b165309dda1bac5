"""Kinds of vector indexes side by side: time to build, size, recall and time of tenants' searches; so one can choose.

    python -m benchmarks.indexes [--rows=1000,3000,10000] [--queries=20]

The rows are clustered unit vectors of 3072 dimensions, of seven tenants. Each index serves searches that name their
tenant, for tenants with 55, 5 and 1 % of the rows. "used" says whether the planner takes the index of its own accord
for the largest of them; recall, beside exact answers, and times, in calibrations (x) and milliseconds, are measured
with the planner kept on it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg

from pgconform.contract import Limits
from pgconform.database import Database, begin
from pgconform.probes.searching import INDEX_ONLY
from pgconform.statements import statement
from pgconform.targets.server import running
from pgconform.vectors import copied, oracle
from pgconform.vectors.asking import NAME, Asking

from .oracle import DIMENSION, drawn, fill

COUNT = 10
TENANTS = {0: "55 %", 4: "5 %", 6: "1 %"}
HALF, BITS = f"halfvec({DIMENSION})", f"bit({DIMENSION})"
_ORDER = (
    f"select r.id::text, r.embedding::{HALF} <=> {{q}}::vector({DIMENSION})::{HALF} from {{t}} as r"
    f" where r.tenant = %s order by 2 limit {COUNT}"
)
# The nearest by signs alone, a hundred of them, then in their true order.
_SIGNS = (
    f"select s.id::text, s.embedding <=> {{q}}::vector({DIMENSION}) from (select r.id, r.embedding from {{t}} as r"
    f" where r.tenant = %s order by binary_quantize(r.embedding)::{BITS} <~> binary_quantize($1::vector({DIMENSION}))"
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
    key = f"((embedding::{HALF}) halfvec_cosine_ops)"
    lists = max(10, rows // 1000)
    yield Kind("ivfflat", f"create index on texts using ivfflat {key} with (lists = {lists})", {"ivfflat.probes": "4"})
    iterative = {"ivfflat.probes": "4", "ivfflat.iterative_scan": "relaxed_order"}
    yield Kind("ivfflat, iterative", f"create index on texts using ivfflat {key} with (lists = {lists})", iterative)
    yield Kind("hnsw", f"create index on texts using hnsw {key}", {"hnsw.ef_search": "40"})
    strict = {"hnsw.ef_search": "40", "hnsw.iterative_scan": "strict_order"}
    yield Kind("hnsw, iterative", f"create index on texts using hnsw {key}", strict)
    partial = ";".join(f"create index on texts using hnsw {key} where tenant = {tenant}" for tenant in TENANTS)
    yield Kind("hnsw, one a tenant", partial, {"hnsw.ef_search": "40"})
    yield Kind("hnsw, partitions", f"create index on parts using hnsw {key}", {"hnsw.ef_search": "40"},
               table="parts", before=_PARTS)  # fmt: skip
    signs = f"create index on texts using hnsw ((binary_quantize(embedding)::{BITS}) bit_hamming_ops)"
    yield Kind("hnsw of signs", signs, {"hnsw.ef_search": "200"}, _SIGNS)


def truth(database: Database, queries: oracle.Matrix) -> oracle.Nearest:
    groups = [statement("(r.tenant = {t}::int)", t=tenant) for tenant in TENANTS]
    asked = copied.question("public.texts", "id", "embedding", groups, statement("true"))
    blocks = copied.blocks(database.copied(asked, "reading"), "vector", DIMENSION, len(groups))
    return oracle.nearest(blocks, queries, COUNT, "cosine", len(groups))


def searched(
    database: Database, kind: Kind, tenant: int, queries: oracle.Matrix, exact: oracle.Matrix
) -> tuple[float, float, float]:
    """Mean recall, median calibrations and median milliseconds of a tenant's searches."""
    call = statement(kind.search.replace("{t}", kind.table) % tenant, q=None)
    within = oracle.tolerance(DIMENSION, kind.search == _ORDER)
    with database.setting({**INDEX_ONLY, **kind.settings, "search_path": "public"}, "searching"):
        asked = Asking(database, call, "vector", [])
        asked.prepare()
        answers = [asked.ask(query) for query in queries]
        database.connection.execute(b"deallocate " + NAME)
    recalls = [oracle.recall(answer.values, near, within) for answer, near in zip(answers, exact, strict=True)]
    ratio = statistics.median(answer.seconds / answer.calibration for answer in answers)
    return statistics.mean(recalls), ratio, 1000 * statistics.median(answer.seconds for answer in answers)


def used(database: Database, kind: Kind) -> bool:
    """True where the planner takes the index of its own accord, for the largest tenant."""
    asked = kind.search.format(t=kind.table, q="(select embedding from texts where id = 0)").replace("$1", "(select"
            " embedding from texts where id = 0)")  # fmt: skip
    with database.setting({**kind.settings, "search_path": "public"}, "explaining"):
        plan = database.connection.execute(f"explain {asked % 0}".encode()).fetchall()
    return any("Index Scan using" in line and "pkey" not in line for (line,) in plan)


def one(database: Database, kind: Kind, queries: oracle.Matrix, exact: oracle.Nearest) -> str:
    """Builds an index, measures it, and undoes it."""
    with database.connection.transaction(force_rollback=True):
        execute = database.connection.execute
        execute("set local search_path = public")
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
        chosen = "yes" if used(database, kind) else "no"
        told = [searched(database, kind, t, queries, exact.distances[n]) for n, t in enumerate(TENANTS)]
    cells = "".join(f"  {recall:.3f} {ratio:>6.1f} {ms:>6.1f}" for recall, ratio, ms in told)
    return f"{kind.name:<20} {seconds:>7.1f} {size[0]:>7.1f}  {chosen:<4}{cells}"


def main() -> None:
    """Print a table for each number of rows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", default="1000,3000,10000")
    parser.add_argument("--queries", type=int, default=20)
    given = parser.parse_args()
    queries = drawn(given.queries)
    for rows in map(int, given.rows.split(",")):
        with running() as server, psycopg.connect(server.dsn(), autocommit=True) as connection:
            fill(connection, rows)
            begin(connection, Limits(statement_timeout=3_600_000), read_only=False)
            database = Database(connection)
            exact = truth(database, queries)
            shares = "".join(f"  {share:>5} {'x':>6} {'ms':>6}" for share in TENANTS.values())
            print(f"\n{f'{rows:,} rows':<20} {'build s':>7} {'MB':>7}  used{shares}")
            for kind in kinds(rows):
                print(one(database, kind, queries, exact), flush=True)
            connection.execute("rollback")


if __name__ == "__main__":
    main()
