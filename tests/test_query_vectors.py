"""Files of vectors to search for: what they may be, one line for what they may not, and what they find."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy
import psycopg
import pytest

from benchmarks.shop import DIMENSION, GOOD, SEARCH, benched, evidence, fill
from benchmarks.shop import contract as shop_contract
from pgconform.catalogue_of_checks import load as checks
from pgconform.checks import evaluate
from pgconform.contract import Contract, Limits
from pgconform.contract_file import ContractError, load
from pgconform.database import Database, begin
from pgconform.introspect import snapshot
from pgconform.model import Mistake
from pgconform.query_vectors import MOST, read, text
from pgconform.targets.server import Server
from pgconform.vectors.bench import Wanted
from pgconform.vectors.measuring import fingerprint

CANARY = "4.2424242"
GOOD_LINES = [
    ("vector", "[1, 2.5, -3e-2]", (1, 2.5, -0.03)), ("halfvec", "[65504,0,0]", (65504, 0, 0)),
    ("sparsevec", "{1:0.5,3:-1}/3", (0.5, 0, -1)), ("sparsevec", "[0,0,2]", (0, 0, 2)),
    ("bit", "010", (0, 1, 0)), ("bit", "[0, 1, 1]", (0, 1, 1)), ("bit", "000", (0, 0, 0)),
]  # fmt: skip


@pytest.mark.parametrize("kind, line, vector", GOOD_LINES)
def test_a_line_is_a_vector_as_postgresql_writes_it_or_as_json(
    tmp_path: Path, kind: str, line: str, vector: tuple[float, ...]
) -> None:
    (tmp_path / "q").write_text(f"\n{line}\r\n  {line}  ")
    assert read(tmp_path / "q", kind, 3) == (vector, vector)
    (tmp_path / "again").write_text(text(vector, kind))
    assert read(tmp_path / "again", kind, 3) == (vector,)


MISTAKES = [
    ("vector", f"[{CANARY}, 2]", "line 1: wanted 3 numbers, found 2"),
    ("vector", f"[1,2,3]\n\n[{CANARY}, 2, 3, 4]", "line 3: wanted 3 numbers, found 4"),
    ("vector", f'[{CANARY}, "{CANARY}", 1]', "line 1: wanted a vector of 3 numbers, such as [0.5,0,1]"),
    ("vector", f"[{CANARY}, true, 1]", "line 1: wanted a vector of 3 numbers, such as [0.5,0,1]"),
    ("vector", f"{CANARY}", "line 1: wanted a vector of 3 numbers, such as [0.5,0,1]"),
    ("vector", "010", "line 1: wanted a vector of 3 numbers, such as [0.5,0,1]"),
    ("vector", "[" * 100_000, "line 1: wanted a vector of 3 numbers, such as [0.5,0,1]"),
    ("vector", "[NaN, 1, 1]", "line 1: a number is none that a vector can hold"),
    ("vector", f"[{10**400}, 1, 1]", "line 1: a number is none that a vector can hold"),
    ("halfvec", "[65505, 1, 1]", "line 1: a number is none that a halfvec can hold"),
    ("vector", "[0, 0, 0.0]", "line 1: a vector of zeros is near nothing"),
    ("sparsevec", "{}/3", "line 1: a vector of zeros is near nothing"),
    ("sparsevec", "{4:1}/3", "line 1: wanted a sparsevec of 3 numbers, such as {1:0.5,3:1}/4"),
    ("sparsevec", "{1:1}/999999999", "line 1: wanted a sparsevec of 3 numbers, such as {1:0.5,3:1}/4"),
    ("sparsevec", f"{{1:{CANARY},x}}/3", "line 1: wanted a sparsevec of 3 numbers, such as {1:0.5,3:1}/4"),
    ("bit", "0101", "line 1: wanted 3 numbers, found 4"),
    ("bit", "012", "line 1: wanted a bit of 3 numbers, such as 0101"),
    ("bit", "[0,1,0.5]", "line 1: a number is none that a bit can hold"),
    ("vector", "\n \n", f"wanted 1 to {MOST} vectors, one a line, not 0"),
    ("bit", "010\n" * (MOST + 1), f"wanted 1 to {MOST} vectors, one a line, not {MOST + 1}"),
    ("vector", "\udcff", "the file cannot be read as UTF-8 text"),
]  # fmt: skip


@pytest.mark.parametrize("kind, lines, told", MISTAKES, ids=[f"{n}" for n in range(len(MISTAKES))])
def test_a_mistake_is_one_line_without_what_is_in_the_file(tmp_path: Path, kind: str, lines: str, told: str) -> None:
    (tmp_path / "q").write_bytes(lines.encode("utf-8", "surrogateescape"))
    with pytest.raises(Mistake) as caught:
        read(tmp_path / "q", kind, 3)
    assert str(caught.value) == told
    assert CANARY not in told


def test_a_directory_is_no_file_of_vectors(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match=r"^the file cannot be read: Is a directory$"):
        read(tmp_path, "vector", 3)


CONTRACT = """
name = "shop"
[access.service]
[tables.'shop."Te xts"']
holds = "service"
vectors."The ""v" = { dimension = 3, queries = "sub dir/q.jsonl" }
""".replace('"The ""v"', "'The \"v'")


def test_a_contract_names_a_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(CONTRACT)
    where = f'{tmp_path}/c.toml: [tables."shop.\\"Te xts\\"".vectors."The \\"v"] queries:'
    end = "; its name is relative to the contract"
    with pytest.raises(ContractError) as missing:
        load(tmp_path / "c.toml")
    assert str(missing.value) == f"{where} the file does not exist{end}"
    (tmp_path / "sub dir").mkdir()
    (tmp_path / "sub dir" / "q.jsonl").write_text("[1,2]")
    with pytest.raises(ContractError) as short:
        load(tmp_path / "c.toml")
    assert str(short.value) == f"{where} line 1: wanted 3 numbers, found 2"
    (tmp_path / "sub dir" / "q.jsonl").write_text("[1,2,3]\n")
    (vector,) = next(iter(load(tmp_path / "c.toml").tables.values())).vectors.values()
    assert Path(vector.queries) == tmp_path / "sub dir" / "q.jsonl"


@pytest.fixture(scope="module")
def shop(references: Server) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(references.dsn(), autocommit=True) as connection:
        connection.execute("drop database if exists asked_of_files with (force)")  # a worker may come back to this file
        connection.execute("create database asked_of_files")
    with psycopg.connect(references.dsn("asked_of_files"), autocommit=True, prepare_threshold=None) as connection:
        fill(connection)
        yield connection


@pytest.fixture
def asked(tmp_path: Path) -> Contract:
    """The shop's contract with a file of twelve queries that are no rows."""
    vectors = numpy.random.default_rng(8).normal(size=(12, DIMENSION)).round(3)
    (tmp_path / "held-out").write_text("\n".join(json.dumps(vector.tolist()) for vector in vectors))
    promised = shop_contract(threshold=-1.0)
    (name, table), *_ = promised.tables.items()
    vector = msgspec.structs.replace(table.vectors["embedding"], queries=str(tmp_path / "held-out"))
    return msgspec.structs.replace(
        promised, tables={name: msgspec.structs.replace(table, vectors={"embedding": vector})}
    )


KNOWN = """create function shop.known(q public.vector) returns bool language sql stable security definer
set search_path = '' as 'select exists (select from shop.texts as s where s.embedding operator(public.=) q)';"""
LENIENT = SEARCH.format(settings=f"{GOOD} set ivfflat.probes = '40'").replace("0.2", "-1")
# Searches that know by heart what is stored, and not what somebody asks for.
ONLY_STORED = {
    "search-results": ("where (", "where shop.known(q) and ("),
    "search-keeps-tenants": (
        "(shop is null or t.shop_id = shop)",
        "(t.shop_id = pg_catalog.current_setting('app.shop', true) or not shop.known(q))",
    ),
}  # fmt: skip


@pytest.mark.parametrize("check", ONLY_STORED)
def test_queries_of_a_file_find_what_stored_vectors_do_not(
    shop: psycopg.Connection[Any], asked: Contract, check: str
) -> None:
    begin(shop, Limits(), read_only=False)
    try:
        shop.execute(LENIENT.encode())
        assert found(shop, asked, check) == []
        changed = LENIENT.replace(*ONLY_STORED[check])
        if check == "search-keeps-tenants":
            changed = changed.replace("stable", "stable security definer")
        shop.execute((KNOWN + changed).encode())
        assert found(shop, shop_contract(threshold=-1.0), check) == []
        assert len(found(shop, asked, check)) == 1
    finally:
        shop.execute("rollback")


def found(connection: psycopg.Connection[Any], promised: Contract, check: str) -> list[str]:
    result = evaluate(checks()[check], evidence(Database(connection), snapshot(connection), promised))
    assert result.unverified == ()
    return [finding.observed for finding in result.findings]


def test_the_benchmark_asks_what_the_contract_says(shop: psycopg.Connection[Any], asked: Contract) -> None:
    begin(shop, Limits(), read_only=False)
    try:
        shop.execute(LENIENT.encode())
        told = [benched(shop, wanted=Wanted(count, (), False, pace=0.1), promised=asked).now for count in (10, 40)]
    finally:
        shop.execute("rollback")
    (path,) = {v.queries for table in asked.tables.values() for v in table.vectors.values()}
    vectors = numpy.array(read(Path(path), "vector", DIMENSION), numpy.float32)
    assert [{case.asking for case in one.cases.values()} for one in told] == [
        {fingerprint(vectors[:10])}, {fingerprint(vectors)}
    ]  # fmt: skip
    assert {case.queries for case in told[1].cases.values()} == {12}
