"""The exact answers to vector searches equal those of SQL: every type, metric, group and limit."""

from __future__ import annotations

from collections.abc import Iterator

import numpy
import pytest
from numpy.typing import NDArray

from pgconform.contract import Limits
from pgconform.database import Database, begin
from pgconform.statements import Name, statement
from pgconform.vector_kinds import KINDS
from pgconform.vectors import copied, oracle
from tests.conftest import Connect

ROWS, DIMENSION, COUNT = 300, 24, 7
TABLE = 'hotels."Weird ""Name"""'
GROUPS = [statement("true"), statement("(r.id % 10 = 0)"), statement("(r.id = 7)"), statement("false")]


@pytest.fixture
def database(connect: Connect) -> Iterator[Database]:
    connection = connect("muva")
    begin(connection, Limits(), read_only=False)
    yield Database(connection)
    connection.execute("rollback")


def fill(database: Database, kind: str) -> str:
    """A table of such vectors, with ties, a null and, but for bits, a zero vector; the type's full name."""
    draw = numpy.random.default_rng(2)
    drawn = draw.integers(0, 2, (ROWS, DIMENSION)) if kind == "bit" else draw.normal(size=(ROWS, DIMENSION)).round(3)
    drawn[8] *= kind == "bit"
    if kind == "sparsevec":
        drawn *= draw.random(drawn.shape) < 0.4
    spell = (lambda row: "".join(map(str, row))) if kind == "bit" else (lambda row: str(row.tolist()))
    full = f"bit({DIMENSION})" if kind == "bit" else f"extensions.{kind}({DIMENSION})"
    execute = database.connection.execute
    execute(f'create table {TABLE} (id int, "the Vector" {full})'.encode())
    with database.connection.cursor() as cursor:
        cast = full if kind in ("bit", "halfvec") else f"extensions.vector::{full}"
        rows = [(n, spell(row)) for n, row in enumerate(drawn, 1)]
        cursor.executemany(f"insert into {TABLE} values (%s, %s::text::{cast})".encode(), rows)
    execute(f'insert into {TABLE} select id + 1000, "the Vector" from {TABLE} where id <= 20'.encode())
    execute(f"insert into {TABLE} values (5000, null)".encode())
    return full


@pytest.mark.parametrize("kind, metric", KINDS)
@pytest.mark.parametrize("limited", [False, True])
def test_nearest_rows_are_those_of_sql(database: Database, kind: str, metric: str, limited: bool) -> None:
    full = fill(database, kind)
    asked = [(f"{n}", n) for n in (3, 11, 250)]
    question = copied.question(TABLE, "id", "the Vector", GROUPS, statement("true"))
    whole = list(copied.blocks(database.copied(question, "reading"), kind, DIMENSION, len(GROUPS)))
    assert [len(block.keys) for block in whole] == [ROWS + 20]
    queries = numpy.stack([whole[0].vectors[whole[0].keys.index(name)] for name, _ in asked])
    operator = "operator(" + ("extensions." + KINDS[kind, metric].operator) + ")"
    for number, (_, key) in enumerate(asked):
        one = queries[number : number + 1]
        for group, own in enumerate(GROUPS):
            distance = statement("r.{v} " + operator + " (select q.{v} from {t} as q where q.id = {k}::int)::" + full,
                                 v=Name(("the Vector",)), t=Name.of(TABLE), k=key)  # fmt: skip
            rows = database.rows(
                statement("select s.id::text, s.d::float8 from (select r.id, {d} as d from {t} as r where {own}) as s"
                          " where s.d <> 'NaN' and s.d is not null order by 2, 1", d=distance, t=Name.of(TABLE),
                          own=own),
                "asking",
            )  # fmt: skip
            distances = [float(d) for _, d in rows]
            within = distances[len(distances) // 2] + 5e-4 if limited and distances else None  # lengths are about 5
            found = oracle.nearest(whole, one, COUNT, metric, len(GROUPS), within)
            wanted = [d for d in distances if within is None or d < within]
            near = found.distances[group, 0]
            assert numpy.isfinite(near).sum() == min(COUNT, len(wanted))
            assert near[numpy.isfinite(near)] == pytest.approx(wanted[:COUNT], abs=2e-5)
            assert found.qualifying[group, 0] == (len(wanted) if within is not None else len(distances))
            known = dict(rows)
            keys = [k for k in found.keys[group, 0] if k]
            assert [float(known[k]) for k in keys] == pytest.approx(near[: len(keys)], abs=2e-5)
            assert oracle.recall([float(known[k]) for k in keys], near, 1e-4) == 1.0


def test_blocks_are_joined_and_other_dimensions_left_out(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(database, "vector")
    database.connection.execute(f'alter table {TABLE} alter column "the Vector" type extensions.vector'.encode())
    database.connection.execute(f"insert into {TABLE} values (9999, '[1,2]')".encode())
    question = copied.question(TABLE, "id", "the Vector", GROUPS, statement("true"))

    def read() -> oracle.Nearest:
        messages = database.copied(question, "reading")
        return oracle.nearest(copied.blocks(messages, "vector", DIMENSION, len(GROUPS)), queries, COUNT, "l2", 4)

    queries = numpy.linspace(-1, 1, 5 * DIMENSION).reshape(5, DIMENSION)
    whole = read()
    monkeypatch.setattr(copied, "BLOCK_BYTES", 4 * DIMENSION * 13)
    parts = read()
    assert parts.distances == pytest.approx(whole.distances)
    assert (parts.qualifying == whole.qualifying).all()
    assert "9999" not in parts.keys


def test_recall_counts_ties_and_nothing_to_find() -> None:
    exact = numpy.array([0.1, 0.2, 0.2, 0.3, numpy.inf])
    assert oracle.recall([0.1, 0.2, 0.2, 0.3], exact, 0) == 1.0
    assert oracle.recall([0.1, 0.2, 0.300001, 0.3], exact, 1e-5) == 1.0  # another row that is as near as the last
    assert oracle.recall([0.1, 0.2, 0.5], exact, 1e-5) == 0.5
    assert oracle.recall([], exact, 1e-5) == 0.0
    assert oracle.recall([], numpy.array([numpy.inf]), 0) == 1.0


def test_what_is_no_copy_is_an_error() -> None:
    with pytest.raises(ValueError, match="not a binary COPY"):
        list(copied.blocks([b"something that is no COPY at all"], "vector", 3, 1))
    with pytest.raises(ValueError, match="62 groups"):
        copied.question("a.b", "id", "v", [statement("true")] * 63, statement("true"))


def unnormalised(metric: str) -> tuple[NDArray[numpy.float32], NDArray[numpy.float32]]:
    """Rows and queries of 3072 dimensions and lengths up to 700; half of the rows are near copies of others."""
    draw = numpy.random.default_rng(4)
    rows = draw.normal(size=(600, 3072)) * draw.uniform(0.5, 12, (600, 1)) + (3 if metric in ("l1", "l2") else 0)
    rows[300:] = rows[:300] + 0.02 * draw.normal(size=(300, 3072))
    rows = rows.astype(numpy.float32)
    return rows, (rows[::40] + draw.normal(size=(15, 3072))).astype(numpy.float32)


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2", "l1"])
@pytest.mark.parametrize("limited", [False, True])
def test_answers_in_double_precision_are_perfect_at_any_length(metric: str, limited: bool) -> None:
    """The nearest by double precision has a recall of 1, the 11th nearest in place of the 10th has not."""
    rows, queries = unnormalised(metric)
    numbers = numpy.arange(len(rows))
    exact = numpy.stack([
        oracle.pairwise(queries, numpy.full(len(rows), n), rows, numbers, metric) for n in range(len(queries))
    ])  # fmt: skip
    within = float(numpy.median(exact)) if limited else None
    blocks = [
        copied.Block([str(n) for n in numbers[part : part + 128]], numpy.ones((len(rows[part : part + 128]), 1), bool),
                     rows[part : part + 128])
        for part in range(0, len(rows), 128)
    ]  # fmt: skip
    found = oracle.nearest(blocks, queries, 10, metric, 1, within)
    for n, distances in enumerate(exact):
        order = numpy.argsort(distances, kind="stable")
        wanted = [row for row in order[:10] if within is None or distances[row] < within]
        assert found.distances[0, n, : len(wanted)] == pytest.approx(distances[wanted], rel=1e-12)
        margin = oracle.SINGLE * found.magnitudes[0, n]
        assert oracle.recall(list(distances[order[:10]]), found.distances[0, n], margin) == 1.0
        qualify = len(rows) if within is None else int((distances < within).sum())
        assert abs(found.qualifying[0, n] - qualify) <= 1, "but for one as near as the limit"
        further = [*distances[order[:9]], distances[order[9]] + 4 * margin]
        assert oracle.recall(further, found.distances[0, n], margin) == (0.9 if len(wanted) == 10 else 1.0)


def test_half_precision_stays_within_the_tolerance() -> None:
    draw = numpy.random.default_rng(3)
    for dimension in (8, 384, 3072):
        left, right = draw.normal(size=(2, 500, dimension))
        rounded = left.astype(numpy.float16).astype(numpy.float64)
        pairs = numpy.arange(500)
        exact = oracle.pairwise(left, pairs, right, pairs, "cosine")
        half = oracle.pairwise(rounded, pairs, right.astype(numpy.float16).astype(numpy.float64), pairs, "cosine")
        assert numpy.abs(exact - half).max() < oracle.tolerance(dimension, True)
        for metric in ("ip", "l2", "l1"):
            exact = oracle.pairwise(9 * left, pairs, 7 * right, pairs, metric)
            halves = (numpy.float16(9) * left.astype(numpy.float16), numpy.float16(7) * right.astype(numpy.float16))
            half = oracle.pairwise(halves[0], pairs, halves[1], pairs, metric)
            sizes = oracle.magnitude(9 * left, pairs, 7 * right, pairs, metric)
            assert (numpy.abs(exact - half) / sizes).max() < oracle.tolerance(dimension, True)
