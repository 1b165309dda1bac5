"""What is measured: each declared search, by callers whose tenants hold different shares of the rows, for queries that
no row is the answer to by itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy

from pgconform import query_vectors
from pgconform.identities import Identity, identities
from pgconform.model import Mistake, NotVerified
from pgconform.people import NOBODY, NUMBERS
from pgconform.probes.calling import sent, type_of
from pgconform.probes.findable import arguments, own_rows, searched, spec_of
from pgconform.probes.searching import by_tenant
from pgconform.probes.shares import askers
from pgconform.statements import Name, Once, Statement, column, joined, statement
from pgconform.vector_kinds import KINDS, alike, home
from pgconform.vectors import copied

if TYPE_CHECKING:
    from pgconform.checks import Evidence
    from pgconform.contract_vectors import Vector
    from pgconform.subjects import Searching
    from pgconform.vectors.oracle import Matrix

COUNT = 10  # rows asked for, where a search takes a number
CANDIDATES = 20  # rows by their signs, for each that is wanted: recall .998 of 3072 dimensions
FLIPPED = 0.15  # share of the bits set: as many signs differ where vectors are NEAR (the angle's share of a half turn)
NEAR = 0.5  # how far a query is from the stored vector that it is drawn from, of that vector's length


@dataclass(frozen=True, slots=True)
class Case:
    """One search by one caller; ``share`` says which tenant's, without naming it, and ``also`` of which other shares it
    is the example; ``rows`` are the caller's own, of ``total``, and so many of them ``findable``. ``given`` is what the
    call passes besides vector, tenant and number."""

    search: Searching
    who: Identity
    share: str
    rows: int
    total: int
    also: tuple[str, ...] = ()
    nobody: str = ""  # what to say where a tenant must be named and the caller has none
    findable: int = 0
    given: tuple[tuple[str, object], ...] = ()

    @property
    def name(self) -> str:
        """Stable over runs."""
        return f"{self.search.function}, {self.share}"


def cases(search: Searching, evidence: Evidence) -> list[Case]:
    """Members of the smallest, the largest and some tenants between, and somebody without membership; one member where
    the rows are everybody's. Raises NotVerified."""
    able = [i for i in identities(evidence) if i.role in search.promise.execute]
    members = [i for i in able if i.kind in ("one", "many")]
    if not by_tenant(search, evidence):
        return [
            _filled(Case(search, who, "everybody", rows, rows), evidence)
            for who in members[:1]
            for rows in [_count(search, evidence)]
        ]
    asking = askers(evidence, search.table, search.promise.execute)
    found = [Case(search, one.who, one.share, one.rows, one.total, one.also) for one in asking]
    outside = [who for who in able if who.kind in ("none", "bare")][:1] if found else []
    owning = evidence.contract.tables[evidence.contract.rooted(search.table)]
    kind = evidence.contract.tenancy_of(owning).type.partition("(")[0]
    nobody = NOBODY if kind == "uuid" else "-1" if kind in NUMBERS else ""
    found += [Case(search, who, "no tenant", 0, found[0].total, nobody=nobody) for who in outside]
    return [_filled(case, evidence) for case in found]


def _filled(case: Case, evidence: Evidence) -> Case:
    """With what its calls pass, and how many rows they may find. Who has none looks where most rows are."""
    spec = spec_of(case.search)
    mine = own_rows(case.search, evidence, case.who) if case.rows else statement("true")
    given = arguments(case.search, evidence, mine)
    findable = case.rows
    if findable and (spec.where or spec.filters or case.search.visible):
        wanted = statement("{mine} and {searched}", mine=mine, searched=searched(case.search, given))
        findable = _count(case.search, evidence, wanted)
    return replace(case, findable=findable, given=tuple(given.items()))


def _count(search: Searching, evidence: Evidence, where: Statement | None = None) -> int:
    question = statement(
        "select pg_catalog.count(*) from {t} as r where {w}", t=Name.of(search.table), w=where or statement("true")
    )
    return int(evidence.database.remembered(question, f"counting rows of {search.table}")[0][0])


def call(case: Case) -> Statement:
    """The search through its function, the way an honest caller asks: own tenant, default threshold. Its first value is
    the query vector."""
    search, spec = case.search, spec_of(case.search)
    given: dict[str, object] = {spec.query: None, **dict(case.given)}
    if spec.tenant and case.who.tenants:
        given[spec.tenant] = min(case.who.tenants)
    elif spec.tenant and any(a.name == spec.tenant and a.default is None for a in search.promise.arguments):
        given[spec.tenant] = case.nobody
    if spec.count:
        given[spec.count] = wanted(case)
    if search.sql:
        return sent(search, given)
    named = [statement("{n} => {v}", n=Name((name,)), v=value) for name, value in given.items()]
    return statement(
        "select f.{key}::text, f.{s}::float8 from {f}({arguments}) as f",
        key=Name((spec.key,)), s=Name((spec.similarity,)), f=Name.of(search.function), arguments=joined(named),
    )  # fmt: skip


def wanted(case: Case) -> int:
    """How many rows are asked for."""
    spec = case.search.promise.search
    assert spec
    return COUNT if spec.count else spec.default_count or COUNT


def kind(case: Case) -> str:
    """The type of the function's query vector."""
    spec = case.search.promise.search
    assert spec
    if case.search.vector.type == "bit":
        return "bit"  # bit varying is written alike
    argument = next(a for a in case.search.promise.arguments if a.name == spec.query)
    return argument.type.rpartition(".")[2].partition("(")[0].strip('"')


def _indexed(vector: Vector, schema: str, value: Statement | Name) -> Statement:
    """A vector as the declared index holds it: the very expression."""
    if not (cast := vector.index_cast):
        return statement("{v}", v=value)
    held = statement("{f}({v})", f=Name((schema, "binary_quantize")), v=value) if cast == "bit" else value
    kind = Name((home(cast, schema), cast))
    return statement("{v}::{t}(" + str(int(vector.dimension)) + ")", v=held, t=kind)


def _distance(kind: tuple[str, str], schema: str, left: Statement | Name, right: Statement) -> Statement:
    return statement(
        "({l} operator({s}." + KINDS[kind].operator + ") {r})", l=left, s=Name((schema,)), r=right
    )  # fmt: skip


def plain(case: Case, schema: str) -> Statement:
    """The search that the contract implies, without its function: the caller's nearest rows under row security. Its
    first value is the query vector, of the column's type. What an index of signs finds is sorted again by the vectors:
    of so many more rows."""
    search, vector = case.search, case.search.vector
    spec = search.promise.search
    assert spec
    assert vector.indexed_as or not vector.index, "what no index takes is no contract"
    sized = "{q}::{t}(" + str(int(vector.dimension)) + ")"
    query = statement(sized, q=Once(None), t=type_of(vector, schema))
    held = [_indexed(vector, schema, value) for value in (column(search.column), query)]
    near = _distance(vector.indexed_as or (vector.type, vector.metric), schema, held[0], held[1])
    parts: dict[str, object] = {"key": column(search.key), "near": near, "t": Name.of(search.table), "n": wanted(case)}
    # Nulls are asked away, since an index without them serves such a search only.
    kept = {"e": column(search.column), "searched": searched(search, dict(case.given))}
    parts["kept"] = statement(" where {e} is not null and {searched}", **kept)
    if vector.index_cast != "bit":
        return statement(
            "select {key}::text, {near} as distance from {t} as r{kept} order by 2 limit {n}::int", **parts
        )
    again = _distance((vector.type, vector.metric), schema, column(search.column), query)
    return statement(
        "select {key}::text, {again} as distance from (select r.* from {t} as r{kept} order by {near}"
        " limit {many}::int) as r order by 2 limit {n}::int", again=again, many=CANDIDATES * wanted(case), **parts,
    )  # fmt: skip


def owners(search: Searching, evidence: Evidence, found: list[Case]) -> list[Statement]:
    """For each case the condition under which row ``r`` may be an answer."""
    return [
        statement(
            "({own} and {searched})",
            own=own_rows(search, evidence, case.who),
            searched=searched(search, dict(case.given)),
        )
        if case.rows
        else statement("false")
        for case in found
    ]


def drawn(search: Searching, evidence: Evidence, count: int) -> Matrix:
    """Distinct queries from the distribution of the data: stored vectors, each moved at random by half its length, at
    its old length again, and zero where it was; of bits, a part of those that are set are others. Alike for the same
    rows. Raises NotVerified where there is no vector."""
    spec = search.promise.search
    assert spec
    some = statement(
        "({key} = any(array(select s.{k} from {t} as s where s.{e} is not null"
        " order by pg_catalog.md5(s.{k}::text), s.{k} limit {n}::int)))",
        key=column(search.key), k=Name((search.key,)), t=Name.of(search.table), e=Name((search.column,)), n=count,
    )  # fmt: skip
    question = copied.question(search.table, search.key, search.column, [statement("true")], some)
    messages = evidence.database.copied(question, f"choosing query vectors from {search.table}")
    picked = [
        (key, vector.copy())
        for block in copied.blocks(messages, search.vector.type, search.vector.dimension, 1)
        for key, vector in zip(block.keys, block.vectors, strict=False)
        if vector.any()
    ]
    if not picked:
        raise NotVerified(f"{search.table} has no vector to draw queries from")
    picked.sort(key=lambda pair: pair[0])
    base = numpy.stack([picked[n % len(picked)][1] for n in range(count)])
    draw = numpy.random.default_rng(1)
    if search.vector.type == "bit":
        return numpy.stack([_flipped(bits, draw) for bits in base])
    noise = draw.standard_normal(base.shape, numpy.float32) * (base != 0)
    length = numpy.linalg.norm(base, axis=1, keepdims=True)
    moved = base + NEAR * length * noise / numpy.linalg.norm(noise, axis=1, keepdims=True)
    return numpy.asarray(moved * (length / numpy.linalg.norm(moved, axis=1, keepdims=True)), numpy.float32)


def _flipped(bits: Matrix, draw: numpy.random.Generator) -> Matrix:
    """As many bits are set as before, and some of them others."""
    places, clear = numpy.flatnonzero(bits), numpy.flatnonzero(bits == 0)
    some = min(len(clear), max(1, round(FLIPPED * len(places))), len(places))
    moved = bits.copy()
    moved[draw.choice(places, some, replace=False)] = 0
    moved[draw.choice(clear, some, replace=False)] = 1
    return moved


def read(path: Path, vector: Vector) -> Matrix:
    """The queries of a file. Raises Mistake."""
    try:
        return numpy.array(query_vectors.read(path, vector.type, vector.dimension), numpy.float32)
    except Mistake as mistake:
        raise Mistake(f"{path}: {mistake}") from None


def every(evidence: Evidence) -> Iterator[Searching]:
    """The declared searches whose functions and vectors exist: what is missing is the checks' finding."""
    from pgconform.subjects_queries import all_searches

    for search in all_searches(evidence.contract):
        table = evidence.catalog.table(search.table)
        kind = evidence.catalog.comparable(table.column(search.column) if table else None)
        there = alike(kind, search.vector.type)
        if there and (search.sql or evidence.catalog.functions_named(search.function)):
            yield search
