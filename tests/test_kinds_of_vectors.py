"""Bits, sparse vectors, L1 distances and indexes of signs, from contract to findings, on a server: what is right is
found by searches and silent, and each fault has just its findings, which their remedies take away."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy
import psycopg
import pytest

from benchmarks.shop import benched
from pgconform.catalogue_of_checks import load
from pgconform.checks import Evidence, evaluate
from pgconform.contract import Contract, Limits
from pgconform.contract_file import validate
from pgconform.contract_vectors import Query
from pgconform.database import Database, begin
from pgconform.introspect import snapshot
from pgconform.model import Finding, Verdict
from pgconform.targets.server import Server
from pgconform.vector_kinds import KINDS as KINDS_OF
from pgconform.vector_kinds import by_operator_class
from pgconform.vectors.bench import Wanted
from tests.proving import POINTLESS

Connection = psycopg.Connection[Any]
TABLE, COLUMN, FUNCTION = '"Odd ""S"."We""ird {Table} %s"', '"Co{d}e %s"', '"Odd ""S"."Find ""it"'
TENANTS = {"huge": 240, "mid": 70, "tiny": 12}
CHECKS = [c for c in load().values() if ".embeddings." in c.module or ".search." in c.module or c.id in (
    "search-keeps-tenants", "index-valid", "function-exists")]  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """A vector column: its type, operator, operator class and method; how its searches and its index spell it;
    what it promises besides; a vector drawn, as text; another operator class, and another dimension."""

    type: str
    metric: str
    operator: str
    index: str  # method and operator class
    other: str  # that no search can use
    shorter: str  # the column's type and value, of one dimension less
    spelled: str
    dimension: int
    promise: dict[str, Any]
    threshold: float
    held: str = COLUMN  # what the index holds

    @property
    def elsewhere(self) -> str:
        """The same by another method, where there is one."""
        method, operators = self.index.split()
        others = [other for other in KINDS_OF[by_operator_class(operators) or ("", "")].methods if other != method]
        return f"{(*others, method)[0]} {operators}"

    def search(self, operator: str = "", security: str = "invoker", where: str = "") -> str:
        of = self.held.replace(COLUMN, "q")
        near = f"t.{COLUMN} operator(ext.{operator or self.operator}) q"
        held = self.held.replace(COLUMN, f"t.{COLUMN}")
        first = f"{held} operator(ext.<~>) {of}" if self.held != COLUMN else near
        return f"""
        create or replace function {FUNCTION}(q {self.spelled},
          bound float8 default {self.threshold}, n int default 5)
        returns table (id bigint, similarity float8) language sql stable security {security}
        set search_path = '' set enable_seqscan = off set enable_sort = off
          set hnsw.ef_search = '400' set ivfflat.probes = '4' as $$
          with near as materialized (select t.id, {near} as distance from {TABLE} as t
            {where} order by {first} limit {"300" if self.held != COLUMN else "n"})
          select near.id, 1 - near.distance from near where 1 - near.distance > bound order by near.distance limit n;
        $$;
        grant execute on function {FUNCTION} to kinds_caller;"""

    def create_index(self, index: str = "") -> str:
        method, operators = (index or self.index).split()
        options = "with (lists = 4)" if method == "ivfflat" else ""
        return f'create index "The ""index" on {TABLE} using {method} (({self.held}) ext.{operators}) {options};'


Drawn = Callable[[numpy.random.Generator, int], str]


def bits(share: float) -> Drawn:
    return lambda draw, n: "".join(map(str, (draw.random(n) < share).astype(int)))


def sparse(draw: numpy.random.Generator, n: int) -> str:
    places = sorted(draw.choice(n, 8, replace=False) + 1)
    return "{" + ",".join(f"{place}:{draw.normal():.4f}" for place in places) + f"}}/{n}"


def dense(draw: numpy.random.Generator, n: int) -> str:
    return str(draw.normal(size=n).round(4).tolist())


ANY = {"norm": False, "coverage": 0.5}
SIGNS = f"ext.binary_quantize({COLUMN})::pg_catalog.bit(64)"
KINDS = {
    "bit, hamming": (bits(0.5), Kind(
        "bit(64)", "hamming", "<~>", "ivfflat bit_hamming_ops", "hnsw bit_jaccard_ops",
        f"bit(63) using pg_catalog.substring({COLUMN}, 1, 63)", "bit", 64,
        {"type": "bit", "metric": "hamming", "coverage": 0.5}, -24.0)),
    "bit, jaccard": (bits(0.2), Kind(
        "bit(64)", "jaccard", "<%>", "hnsw bit_jaccard_ops", "hnsw bit_hamming_ops",
        f"bit(65) using {COLUMN} || b'1'", "bit", 64,
        {"type": "bit", "metric": "jaccard", "coverage": 0.5}, 0.25)),
    "sparsevec, l1": (sparse, Kind(
        "ext.sparsevec(40)", "l1", "<+>", "hnsw sparsevec_l1_ops", "hnsw sparsevec_l2_ops",
        f"ext.sparsevec(41) using pg_catalog.replace({COLUMN}::text, '/40', '/41')::ext.sparsevec",
        "ext.sparsevec", 40,
        {"type": "sparsevec", "metric": "l1", **ANY}, -20.0)),
    "halfvec, l1": (dense, Kind(
        "ext.halfvec(24)", "l1", "<+>", "hnsw halfvec_l1_ops", "ivfflat halfvec_ip_ops",
        f"ext.halfvec(23) using ext.subvector({COLUMN}, 1, 23)", "ext.halfvec", 24,
        {"type": "halfvec", "metric": "l1", **ANY}, -30.0)),
    "vector, signs": (dense, Kind(
        "ext.vector(64)", "cosine", "<=>", "hnsw bit_hamming_ops", "hnsw bit_jaccard_ops",
        f"ext.vector(63) using ext.subvector({COLUMN}, 1, 63)", "ext.vector", 64,
        {"index": {"cast": "bit"}, **ANY}, 0.0, SIGNS)),
}  # fmt: skip


def contract(kind: Kind) -> Contract:
    vector = {"dimension": kind.dimension, "distinct": True, **kind.promise}
    arguments = [{"name": "q", "type": kind.spelled}, {"name": "bound", "type": "float8", "default": kind.threshold},
                 {"name": "n", "type": "integer", "default": 5}]  # fmt: skip
    search = {"vector": f"{TABLE}.{COLUMN}", "query": "q", "threshold": "bound", "count": "n",
              "default_threshold": kind.threshold, "default_count": 5, "index_from": 200}  # fmt: skip
    return validate({
        "name": "kinds", "roles": {"clients": ["kinds_caller"]},
        "schemas": {"exposed": ['Odd "S']}, "extensions": {"vector": {"schema": "ext"}},
        "sessions": {"member": {"role": "kinds_caller", "settings": {"app.shop": "{tenant}"}}},
        "access": {"tenant": {"kinds_caller": {"select": "own"}}},
        "tenancies": {"shop": {"column": "shop_id", "type": "text"}},
        "tables": {TABLE: {"vectors": {COLUMN.strip('"'): vector}}},
        "functions": {FUNCTION: {"arguments": arguments, "execute": ["kinds_caller"], "search": search,
                                 "definition": kind.search()}},
    }, "kinds.toml")  # fmt: skip


@pytest.fixture(scope="session")  # a worker may come back to this file
def server(references: Server) -> Iterator[Connection]:
    with psycopg.connect(references.dsn(), autocommit=True) as connection:
        connection.execute("create database kinds_of_vectors")
        connection.execute("create role kinds_caller nologin")
    with psycopg.connect(references.dsn("kinds_of_vectors"), autocommit=True, prepare_threshold=None) as connection:
        connection.execute('create schema ext; create extension vector schema ext; create schema "Odd ""S"')
        yield connection


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, server: Connection) -> Iterator[Kind]:
    """The column with its rows, and an index made after them, in a transaction that is undone."""
    spell, found = KINDS[request.param]
    with undone(server):
        make(server, found, spell)
        yield found


@contextmanager
def undone(connection: Connection) -> Iterator[None]:
    begin(connection, Limits(), read_only=False)
    try:
        yield
    finally:
        connection.execute("rollback")


def make(server: Connection, found: Kind, spell: Drawn) -> None:
    server.execute(
        f"""create table {TABLE} (id bigint primary key, shop_id text not null, {COLUMN} {found.type});
        alter table {TABLE} enable row level security;
        create policy own on {TABLE} for select to kinds_caller
          using (shop_id = (select pg_catalog.current_setting('app.shop', true)));
        grant usage on schema "Odd ""S", ext to kinds_caller; grant select on {TABLE} to kinds_caller;""".encode()
    )
    draw = numpy.random.default_rng(4)
    tenants = [tenant for tenant, count in TENANTS.items() for _ in range(count)]
    with server.cursor() as cursor, cursor.copy(f"copy {TABLE} from stdin".encode()) as stream:
        for n, tenant in enumerate(tenants):
            stream.write_row((n, tenant, spell(draw, found.dimension)))
    server.execute((found.create_index() + found.search() + f"analyze {TABLE};").encode())


def evidence_of(connection: Connection, promised: Contract) -> Evidence:
    database, today = Database(connection), datetime.datetime.now(datetime.UTC).date()
    return Evidence(promised, snapshot(connection), database, today, lambda: database)


def judged(connection: Connection, kind: Kind, passing: bool = False) -> list[tuple[str, Finding]]:
    """All findings; whatever could not be verified fails, and what was not examined where all is to pass."""
    evidence = evidence_of(connection, contract(kind))
    results = [evaluate(check, evidence) for check in CHECKS]
    assert [(r.check, r.unverified) for r in results if r.verdict is Verdict.BROKEN] == []
    if passing:
        skipped = {"vector-columns-dimensioned", "search-effort"}  # nothing else is a vector, and no history is kept
        assert {r.check for r in results if r.verdict is not Verdict.PASSED} == skipped
    return [(result.check, finding) for result in results for finding in result.findings]


DECOYS: dict[str, Callable[[Kind], str]] = {
    "nothing": lambda _: "",
    "index by another name": lambda _: 'alter index "Odd ""S"."The ""index" rename to other',
    "index by another method": lambda kind: LOST + kind.create_index(kind.elsewhere),
    "rows on the threshold": lambda kind: kind.search().replace("> bound", ">= bound"),
    "another bit column": lambda _: f"alter table {TABLE} add flags bit(8) default b'00000000'",
}


@pytest.mark.parametrize("name", DECOYS)
def test_what_is_right_is_examined_and_silent(server: Connection, kind: Kind, name: str) -> None:
    server.execute(DECOYS[name](kind).encode())
    assert judged(server, kind, passing=True) == []


LOST = 'drop index "Odd ""S"."The ""index";'
# What is done, and the checks that find it, with words of what they say.
FAULTS: dict[str, tuple[Callable[[Kind], str], dict[str, str]]] = {
    "index lost": (lambda _: LOST, {"vector-index": "no approximate index on"}),
    "wrong operator class": (
        lambda kind: LOST + kind.create_index(kind.other),
        {"vector-index": "its operator class is ext.", "search-uses-index": "it does not scan a vector index"},
    ),
    "index invalid": (
        lambda _: "update pg_catalog.pg_index set indisvalid = false where indexrelid ="
        " '\"Odd \"\"S\".\"The \"\"index\"'::pg_catalog.regclass",
        {"vector-index": "it is not valid", "index-valid": ""},
    ),
    "wrong dimension": (
        lambda kind: LOST + f"alter table {TABLE} alter {COLUMN} type {kind.shorter}",
        {"vector-dimension": ", not ", "vector-index": "no approximate index on",
         "embedding-dimension": "hold a vector whose dimension is not", "embedding-health": "the mean dimension is"},
    ),
    "vector repeated": (
        lambda _: f"update {TABLE} as t set {COLUMN} = s.{COLUMN} from {TABLE} as s where t.id = 3 and s.id = 4",
        {"embedding-distinct": "hold the very vector of another row"},
    ),
    "tenants mixed": (
        lambda kind: kind.search(security="definer"),
        {"search-keeps-tenants": "foreign row(s) found", "search-results": "are not the caller's own"},
    ),
    "rows left out": (lambda kind: kind.search(where="where t.id % 7 <> 0"), {"search-results": "qualify"}),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_has_just_its_findings_and_their_remedies_mend_it(server: Connection, kind: Kind, name: str) -> None:
    change, checks = FAULTS[name]
    server.execute(change(kind).encode())
    found = judged(server, kind)
    assert {check for check, _ in found} == {*checks}, found
    assert all(checks[check] in finding.observed for check, finding in found), found
    for _, finding in found if name != "wrong dimension" else ():  # its remedy takes the vectors away, and says so
        with suppress(*POINTLESS), server.transaction():
            server.execute(finding.remedy.encode())
    assert name == "wrong dimension" or judged(server, kind) == []


def test_a_column_of_another_kind_is_one_finding_and_nothing_else_is_asked(server: Connection, kind: Kind) -> None:
    other = "ext.vector(3)" if kind.spelled == "bit" else "bit(64)"
    server.execute(LOST.encode() + f"alter table {TABLE} alter {COLUMN} type {other} using null".encode())
    assert [check for check, _ in judged(server, kind)] == ["vector-dimension"]
    outcome = benched(server, wanted=Wanted(10, (), False, pace=0.1), promised=contract(kind))
    assert [(p.kind, outcome.unverified) for p in outcome.problems] == [("absent", {})]


@pytest.mark.parametrize("right", [True, False])
def test_a_query_that_an_application_sends_is_judged_as_functions_are(
    server: Connection, kind: Kind, right: bool
) -> None:
    server.execute("set local enable_indexscan = off")  # it has no settings of its own
    distance = f"t.{COLUMN} operator(ext.{kind.operator}) :query"
    text = f"""select t.id, 1 - ({distance}) as similarity from {TABLE} as t
               order by {distance} {"" if right else "desc"} limit :count"""
    query = Query(text, f"{TABLE}.{COLUMN}", ("kinds_caller",))
    promised = msgspec.structs.replace(contract(kind), functions={}, queries={"near": query})
    result = evaluate(load()["search-results"], evidence_of(server, promised))
    assert result.verdict is (Verdict.PASSED if right else Verdict.FAILED)


def test_zeros_are_near_nothing_except_by_hamming_distance(server: Connection, kind: Kind) -> None:
    zeros = f"update {TABLE} set {COLUMN} = %s where id = 3"
    text = {"bit": "0" * 64, "sparsevec": "{}/40"}.get(kind.promise.get("type", ""), str([0] * kind.dimension))
    server.execute(zeros.replace("{Table} %", "{Table} %%").replace("{d}e %", "{d}e %%").encode(), (text,))
    found = judged(server, kind)
    assert [check for check, _ in found] == ["embedding-zero"] * (kind.metric != "hamming"), [
        f.observed for _, f in found
    ]


def test_searches_are_measured_and_an_index_of_the_wrong_class_is_named(server: Connection, kind: Kind) -> None:
    outcome = benched(server, wanted=Wanted(10, (), True, pace=0.1), promised=contract(kind))
    assert (outcome.problems, outcome.unverified) == ([], {})
    assert outcome.now.cases[f"{FUNCTION}, largest tenant"].scanned_later == 1
    assert max(point.least for point in outcome.curves[FUNCTION]) > 0.95, "the implied search is as good"
    server.execute((LOST + kind.create_index(kind.other)).encode())
    again = benched(server, outcome.now, Wanted(10, (), False, pace=0.1), promised=contract(kind))
    problems = [p for p in again.problems if p.kind == "index"]
    assert problems
    assert all("its operator class is ext." in p.cause for p in problems)
    server.execute(problems[0].remedy.encode())
    assert benched(server, wanted=Wanted(10, (), False, pace=0.1), promised=contract(kind)).problems == []
