"""Types and metrics of vectors: the one table of them is pgvector's own, and a contract's fit one another."""

from __future__ import annotations

import tomllib
from typing import get_args, get_type_hints

import pytest

from pgconform.contract import Contract
from pgconform.contract_file import ContractError, validate
from pgconform.contract_vectors import Vector, VectorIndex
from pgconform.expressions import is_cast_of
from pgconform.probes.activity import searches
from pgconform.vector_kinds import KINDS, Kind, by_operator_class, least_similarity
from tests.conftest import Connect


def test_the_table_is_what_the_server_has(connect: Connect) -> None:
    found = connect("muva").execute(
        "select o.opcintype::pg_catalog.regtype::text, p.oprname, o.opcname, pg_catalog.array_agg(a.amname order by 1)"
        " from pg_catalog.pg_opclass as o join pg_catalog.pg_am as a on a.oid = o.opcmethod"
        " join pg_catalog.pg_amop as f on f.amopfamily = o.opcfamily and f.amoppurpose = 'o'"
        " join pg_catalog.pg_operator as p on p.oid = f.amopopr where a.amname in ('hnsw', 'ivfflat') group by 1, 2, 3"
    )
    there = {(kind.rpartition(".")[2], operator, name): sorted(methods) for kind, operator, name, methods in found}
    assert there == {(kind, k.operator, k.operator_class): sorted(k.methods) for (kind, _), k in KINDS.items()}
    assert all(by_operator_class(f'"Odd ""S".{kind.operator_class}') == key for key, kind in KINDS.items())
    assert by_operator_class("pg_catalog.text_ops") is None


def test_contracts_have_a_word_for_every_type_and_metric() -> None:
    words = get_type_hints(Vector)
    assert {*get_args(words["type"])} == {kind for kind, _ in KINDS}
    assert {*get_args(words["metric"])} == {metric for _, metric in KINDS}


def test_every_similarity_is_over_the_least_one() -> None:
    assert [least_similarity(metric) for metric in ("cosine", "jaccard", "hamming")] == [-1, -1, -1e9]


VECTORS = {
    "type = 'bit'": "metric: no distance of bit; accepted: hamming, jaccard",
    "type = 'bit'\nmetric = 'l2'": "metric: no distance of bit; accepted: hamming, jaccard",
    "metric = 'hamming'": "metric: no distance of vector; accepted: cosine, ip, l2, l1",
    "type = 'bit'\nmetric = 'jaccard'\nindex.methods = ['ivfflat']":
        "index] methods: none has an index of bit by jaccard; accepted: hnsw",
    "metric = 'l1'\nindex.methods = ['ivfflat']": "methods: none has an index of vector by l1; accepted: hnsw",
    "type = 'sparsevec'\nindex.methods = ['ivfflat']":
        "methods: none has an index of sparsevec by cosine; accepted: hnsw",
    "type = 'bit'\nmetric = 'hamming'\nindex.cast = 'vector'": "cast: no index holds bit as vector by hamming",
    "type = 'sparsevec'\nindex.cast = 'bit'": "cast: no index holds sparsevec as bit by cosine",
    "type = 'halfvec'\nindex.cast = 'vector'\nindex.methods = []": "methods: none has an index of vector by cosine",
}  # fmt: skip


@pytest.mark.parametrize("told", VECTORS)
def test_a_type_without_such_a_metric_or_index_is_one_line(told: str) -> None:
    with pytest.raises(ContractError) as caught:
        contract(f"dimension = 64\n{told}")
    (line,) = str(caught.value).splitlines()
    assert line.startswith('shop.toml: [tables."a.b".vectors.e')
    assert VECTORS[told] in line


@pytest.mark.parametrize("kind, most", [("vector", 4000), ("halfvec", 4000), ("bit", 64_000)])
def test_what_is_too_long_for_an_index_is_one_line(kind: str, most: int) -> None:
    metric = "hamming" if kind == "bit" else "ip"
    vector = "type = '{}'\nmetric = '{}'\ndimension = {}\n{}"
    assert contract(vector.format(kind, metric, most, ""))
    assert contract(vector.format(kind, metric, most + 1, "index = false"))
    held = "bit" if kind == "bit" else "halfvec"
    with pytest.raises(ContractError, match=f"index: an index takes {most} dimensions of {held}; write index = false"):
        contract(vector.format(kind, metric, most + 1, ""))


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.operator_class)
def test_a_statement_that_orders_by_any_distance_is_a_search(kind: Kind) -> None:
    shop = contract("dimension = 3")
    assert searches(f"select id from a.b order by e {kind.operator} $1", shop)
    assert not searches("select id from a.b where n < 1 or n > 2", shop)


def contract(vector: str) -> Contract:
    text = f"name = 'shop'\n[access.service]\n[tables.'a.b']\nholds = 'service'\n[tables.'a.b'.vectors.e]\n{vector}"
    return validate(tomllib.loads(text), "shop.toml")


def test_an_index_holds_the_column_or_what_it_is_cast_to() -> None:
    plain, long = Vector(64, "bit", "jaccard"), Vector(3072)
    assert [(v.index_cast, v.indexed_as) for v in (plain, long)] == [
        ("", ("bit", "jaccard")), ("halfvec", ("halfvec", "cosine"))
    ]  # fmt: skip
    signs = Vector(64, "halfvec", "ip", VectorIndex(cast="bit"))
    assert (signs.index_cast, signs.indexed_as) == ("bit", ("bit", "hamming"))


@pytest.mark.parametrize("expression, through, same", [
    ("(e)::ext.halfvec(3)", "", True), ("(ext.binary_quantize(e))::bit(3)", "binary_quantize", True),
    ("(binary_quantize(e))::bit(3)", "binary_quantize", True), ("(ext.binary_quantize(e))::bit(3)", "", False),
    ("(e)::bit(3)", "binary_quantize", False), ("(ext.binary_quantize(f))::bit(3)", "binary_quantize", False),
    ("(ext.binary_quantize(ext.subvector(e, 1, 2)))::bit(3)", "binary_quantize", False),
    ("(ext.other(e))::bit(3)", "binary_quantize", False), ("ext.binary_quantize(e)", "binary_quantize", False),
])  # fmt: skip
def test_an_indexed_expression_is_told_from_the_next_best(expression: str, through: str, same: bool) -> None:
    assert is_cast_of(expression, "e", through) == same
