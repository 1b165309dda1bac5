"""What the search benchmark itself adds to a search, beside pgbench on the same prepared statement and plan.

    python -m benchmarks.overhead [--rounds=10] [--searches=300]

Both ask the small shop's search function as the same caller on one connection each, in turn. pgbench passes the vector
as text, since it knows nothing else, and commits each search; the benchmark passes it in binary, in one transaction.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg

from pgconform.contract import Limits
from pgconform.database import Database, begin
from pgconform.introspect import snapshot
from pgconform.targets.server import running
from pgconform.vectors import asking, cases, oracle
from pgconform.vectors.measuring import Measuring

from . import shop

LIMIT = 1.2  # times pgbench's median
SCRIPT = """select f.id::text, f.similarity::float8
from shop.search(q => :query::public.vector, shop => 'huge', n => 10::int) as f;
"""


def by_pgbench(dsn: str, folder: Path, query: oracle.Matrix, searches: int) -> float:
    """Median seconds of a search, by pgbench's log of single transactions (microseconds in its third column)."""
    script, log = folder / "search.sql", folder / "log"
    script.write_text(SCRIPT, encoding="ascii")
    vector = f"query=[{','.join(f'{x:.6f}' for x in query)}]"
    options = "-c role=caller -c app.shop=huge -c search_path="
    subprocess.run(
        ["pgbench", "-n", "-M", "prepared", "-c", "1", "-t", str(searches), "-l", f"--log-prefix={log}", "-D", vector,
         "-f", str(script), dsn], check=True, capture_output=True, env={**os.environ, "PGOPTIONS": options},
    )  # fmt: skip
    lines = [line.split() for path in folder.glob("log.*") for line in path.read_text(encoding="ascii").splitlines()]
    for path in folder.glob("log.*"):
        path.unlink()
    return statistics.median(float(line[2]) for line in lines) / 1e6


def main() -> int:
    """Print both medians; returns 1 when ours is more than the limit."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--searches", type=int, default=300)
    given = parser.parse_args()
    if not shutil.which("pgbench"):
        print("pgbench is not installed: nothing to compare with")
        return 0
    ours, theirs = [], []
    with (
        running() as server,
        psycopg.connect(server.dsn(), autocommit=True) as connection,
        TemporaryDirectory() as home,
    ):
        shop.fill(connection)
        begin(connection, Limits())
        database = Database(connection)
        evidence = shop.evidence(database, snapshot(connection))
        (search,) = cases.every(evidence)
        measuring = Measuring(search, evidence, cases.drawn(search, evidence, 10), lambda: nullcontext(database))
        case = next(case for case in measuring.cases if case.share == "largest tenant")
        indexes = asking.oids(database, measuring.names())
        for _ in range(given.rounds):
            theirs.append(by_pgbench(server.dsn(), Path(home), measuring.queries[0], given.searches))
            with asking.asking(database, case.who, cases.call(case), cases.kind(case), indexes) as asked:
                ours.append(statistics.median(asked.time(measuring.queries[0]) for _ in range(given.searches)))
        connection.execute("rollback")
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    medians = [1e6 * statistics.median(each) for each in (ours, theirs)]
    print(f"a search takes {medians[0]:.0f} us here, {medians[1]:.0f} us by pgbench: {ratio:.2f} times, limit {LIMIT}")
    return int(ratio > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
