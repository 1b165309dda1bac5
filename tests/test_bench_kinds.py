"""The search benchmark on every type and metric: a search that finds all scores all, one by another metric is told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from benchmarks.shop import DIMENSION, ROWS, SEARCH, benched, contract, fill
from pgconform.contract import Contract, Limits
from pgconform.contract_vectors import Vector, VectorIndex
from pgconform.database import begin
from pgconform.targets.server import Server
from pgconform.vector_kinds import KINDS, home, metrics
from pgconform.vectors.bench import Wanted

Connection = psycopg.Connection[Any]
WANTED = Wanted(10, (), False, pace=0.1)
CASES = [(kind, metric, "") for kind, metric in KINDS]
# Of vectors of length 3, so that about half of the rows qualify: similarity is 1 - distance, whatever the metric.
LEAST = {"cosine": 0.0, "l2": -3.2, "ip": 1.0, "l1": -23.0, "hamming": -20.0, "jaccard": 0.4}


@pytest.fixture(scope="module")
def kinds(references: Server) -> Iterator[Connection]:
    with psycopg.connect(references.dsn(), autocommit=True) as connection:
        connection.execute("drop database if exists kinds with (force)")  # a worker may come back to this file
        connection.execute("create database kinds")
    with psycopg.connect(references.dsn("kinds"), autocommit=True, prepare_threshold=None) as connection:
        fill(connection)
        yield connection


def typed(kind: str) -> str:
    return f"{home(kind, 'public')}.{kind}"


def promised(kind: str, metric: str, cast: str) -> Contract:
    vector = Vector(DIMENSION, kind, metric, VectorIndex(("hnsw",), cast))  # type: ignore[arg-type]
    texts = {"vectors": {"embedding": {"dimension": DIMENSION, "type": vector.type, "metric": vector.metric,
                                       "index": {"methods": ["hnsw"], "cast": cast}, "norm": [2.9, 3.1]}}}  # fmt: skip
    return contract(threshold=LEAST[metric], texts=texts, query=typed(kind))


def search(kind: str, operator: str, cast: str, least: float) -> str:
    found = SEARCH.format(settings="set enable_indexscan = off").replace("public.<=>", f"public.{operator}")
    if cast:
        found = found.replace("t.embedding", f"t.embedding::public.{cast}({DIMENSION})")
        found = found.replace(") q", f") q::public.{cast}({DIMENSION})")
    return found.replace("q public.vector", f"q {typed(kind)}").replace("0.2", str(least))


@pytest.mark.parametrize("kind, metric, cast", [*CASES, ("vector", "cosine", "halfvec"), ("vector", "ip", "halfvec")])
def test_each_type_and_metric_is_judged_exactly(kinds: Connection, kind: str, metric: str, cast: str) -> None:
    begin(kinds, Limits(), read_only=False)
    try:
        three = f"(select pg_catalog.array_agg(3.0) from pg_catalog.generate_series(1, {DIMENSION}))::public.vector"
        kinds.execute(b"drop index shop.texts_idx; drop function shop.search")
        kinds.execute(f"delete from shop.texts where id >= {ROWS // 5}".encode())
        kinds.execute(f"update shop.texts set embedding = embedding operator(public.*) {three}".encode())
        full = f"{typed(kind)}({DIMENSION})"
        held = "public.binary_quantize(embedding)" if kind == "bit" else "embedding"
        kinds.execute(f"alter table shop.texts alter embedding type {full} using {held}::{full}".encode())
        kinds.execute(search(kind, KINDS[kind, metric].operator, cast, LEAST[metric]).encode())
        outcome = benched(kinds, wanted=WANTED, promised=promised(kind, metric, cast))
        assert (outcome.problems, outcome.unverified) == ([], {})
        cases = list(outcome.now.cases.values())
        assert [(case.recall, case.worst, case.short) for case in cases] == [(1.0, 1.0, 0)] * len(cases)
        assert cases[-2].returned == cases[-2].expected == 10
        other = next(word for word in metrics(kind) if word != metric)
        kinds.execute(search(kind, KINDS[kind, other].operator, cast, -1000).encode())
        outcome = benched(kinds, wanted=WANTED, promised=promised(kind, metric, cast))
        assert "similarity" in {problem.kind for problem in outcome.problems}
    finally:
        kinds.execute("rollback")
