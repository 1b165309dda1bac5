"""Damaged pages of indexes: what the catalogue calls valid, and what finds it all the same."""

from __future__ import annotations

import datetime
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from benchmarks import shop
from benchmarks.shop import SEARCH
from pgconform.catalogue_of_checks import load
from pgconform.checks import Evidence, evaluate
from pgconform.database import Database, begin
from pgconform.introspect import read_text, snapshot
from pgconform.model import Result, Verdict
from pgconform.procedures.emergencies import kinds, rebuilt
from pgconform.recovery.copies import Copies, Scratch
from pgconform.recovery.tools import _environment
from pgconform.subjects import stored_vectors
from pgconform.targets.server import Server, find_binaries, running
from tests.proving import contract_of

PAGE = 8192  # bytes
LOWER = slice(12, 14)  # pd_lower: where a page's list of items ends (PostgreSQL's bufpage.h)
HEADER = (24).to_bytes(2, "little")  # an item list of no items
NEIGHBOURS = 2  # the first byte of an item that lists an element's neighbours (pgvector's hnsw.h)


def emptied(file: Path, blocks: slice) -> int:
    """Take the items out of some pages of an index, as a write that was lost does; how many pages had any."""
    data = bytearray(file.read_bytes())
    damaged = 0
    for block in range(len(data) // PAGE)[blocks]:
        page = memoryview(data)[block * PAGE : (block + 1) * PAGE]
        damaged += bytes(page[LOWER]) != HEADER
        page[LOWER] = HEADER
    file.write_bytes(data)
    return damaged


def file_of(server: Server, connection: psycopg.Connection[Any], index: str) -> Path:
    """The file of an index whose pages are all written."""
    connection.execute("checkpoint")
    row = connection.execute("select pg_catalog.pg_relation_filepath(%s::regclass)", [index]).fetchone()
    assert row
    return server.directory / str(row[0])


def judged(connection: psycopg.Connection[Any], *checks: str) -> dict[str, Result]:
    contract = contract_of("muva")
    begin(connection, contract.limits)
    catalog = snapshot(connection)
    today = datetime.datetime.now(datetime.UTC).date()
    evidence = Evidence(contract, catalog, Database(connection), today)
    results = {id: evaluate(load()[id], evidence) for id in checks}
    connection.execute("rollback")
    return results


def unmarked(file: Path) -> int:
    """Overwrite the number by which pgvector knows the first page of its index as such."""
    data = bytearray(file.read_bytes())
    data[24:28] = bytes(4)
    file.write_bytes(data)
    return 1


def disconnected(file: Path) -> int:
    """Have the items of an HNSW index know no neighbours any more, but on every eighth page; how many did."""
    data = bytearray(file.read_bytes())
    damaged = 0
    for block in range(1, len(data) // PAGE):  # the first page describes the index
        page = memoryview(data)[block * PAGE : (block + 1) * PAGE]
        for place in range(24, int.from_bytes(page[LOWER], "little"), 4):
            item = int.from_bytes(page[place : place + 4], "little")
            offset, length = item & 0x7FFF, item >> 17
            if page[offset] == NEIGHBOURS and block % 8:
                page[offset + 4 : offset + length] = bytes(length - 4)
                damaged += 1
    file.write_bytes(data)
    return damaged


IVFFLAT, HNSW = "public.sire_content_embedding_idx", 'public."Weird ""HNSW"""'
REPLACED = (
    f"drop index {IVFFLAT}; create index "
    + HNSW.removeprefix("public.")
    + " on public.sire_content using hnsw ((embedding::extensions.halfvec(3072)) extensions.halfvec_cosine_ops)"
)


@pytest.mark.parametrize(("index", "damage", "observed"), [
    (IVFFLAT, lambda file: emptied(file, slice(-12, None)), "nearest rows, wanted 95%"),  # no reader complains
    (IVFFLAT, unmarked, "its pages cannot be read: InternalError_ (SQLSTATE XX000)"),
    (HNSW, disconnected, "nearest rows, wanted 95%"),  # nor here
])  # fmt: skip
def test_a_damaged_vector_index_is_found_by_recall_and_rebuilt(
    references: Server, index: str, damage: Callable[[Path], int], observed: str
) -> None:
    with closing(psycopg.connect(references.dsn("muva"), autocommit=True)) as target:
        read_text(target)
        catalog = snapshot(target)
    with closing(Copies(references.dsn("muva"), catalog)) as copies, copies.fresh() as copy:
        with closing(copy.connect()) as connection:
            if index == HNSW:
                connection.execute(REPLACED.encode())
            file = file_of(copy.scratch.server, connection, index)
        assert damage(file) > 0
        copy.scratch.crash()  # what it has in memory is right
        with closing(copy.connect()) as connection:
            read_text(connection)
            results = judged(connection, "index-valid", "vector-index", "search-recall")
            assert [results[id].verdict for id in ("index-valid", "vector-index")] == [Verdict.PASSED] * 2
            (finding,) = results["search-recall"].findings
            assert (finding.key, finding.observed.endswith(observed)) == (index, True), finding.observed
            connection.execute(finding.remedy.encode())
            assert judged(connection, "search-recall")["search-recall"].verdict is Verdict.PASSED


def test_a_damaged_b_tree_is_found_by_pg_amcheck_and_rebuilt() -> None:
    """On Debian's PostgreSQL 15, which has the extension amcheck: apt-get install postgresql-15."""
    binaries = find_binaries("15")
    with running("15") as server:
        scratch = Scratch(server, binaries)
        try:
            with closing(psycopg.connect(scratch.server.dsn(), autocommit=True)) as connection:
                connection.execute('create table "Weird ""T""" as select n from generate_series(1, 20000) as n')
                connection.execute('create index "Weird ""I""" on "Weird ""T""" (n)')
                connection.execute("create extension amcheck")
                file = file_of(scratch.server, connection, '"Weird ""I"""')
            assert _amcheck(scratch.server, binaries) == (0, False)
            assert emptied(file, slice(10, 12)) == 2
            scratch.crash()
            assert _amcheck(scratch.server, binaries) == (2, True)
            with closing(psycopg.connect(scratch.server.dsn(), autocommit=True)) as connection:
                connection.execute('reindex index "Weird ""I"""')
            assert _amcheck(scratch.server, binaries) == (0, False)
        finally:
            scratch.stop()


def _amcheck(server: Server, binaries: Path) -> tuple[int, bool]:
    """Status of pg_amcheck with every row looked up in its indexes, and whether it names the damaged one."""
    done = subprocess.run(
        [binaries / "pg_amcheck", "--database=postgres", "--heapallindexed"],
        env=_environment(server.dsn()) | {"LC_ALL": "C", "PATH": str(binaries)}, capture_output=True, text=True,
        check=False, timeout=600,
    )  # fmt: skip
    return done.returncode, 'Weird "I"' in done.stdout


# A graph that is another one each time it is built, and a search that looks at so little of it that the small tenant
# finds now two of its rows, now three.
POOR = f"""
drop index shop.texts_idx;
create index texts_idx on shop.texts using hnsw (embedding public.vector_cosine_ops)
  with (m = 16, ef_construction = 100);
{SEARCH.format(settings="set hnsw.ef_search = '25'")}
"""


def test_a_search_that_finds_as_little_as_before_is_no_finding(references: Server) -> None:
    promised = shop.contract()
    with closing(psycopg.connect(references.dsn(), autocommit=True)) as connection:
        connection.execute("create database poor")
    with closing(psycopg.connect(references.dsn("poor"), autocommit=True)) as target:
        read_text(target)
        shop.fill(target)
        target.execute(POOR.encode())
        catalog = snapshot(target)
        evidence = shop.evidence(Database(target), catalog, promised)
        with closing(Copies(references.dsn("poor"), catalog)) as copies:
            (subject,) = stored_vectors(promised)
            for _ in range(3):
                assert [(f.object, f.observed) for f in rebuilt(subject, evidence, copies)] == []


def test_numbers_are_no_other_kind_of_shortcoming() -> None:
    few, recall = "3 result(s) where 5 rows qualify", "recall 0.42, promised 0.9: nearer rows are left out"
    assert kinds([few]).keys() == kinds([recall]).keys() == kinds(["4 result(s) where 20 rows qualify"]).keys()
    assert kinds(["a result is under the threshold of 0.2"]).keys() == {"a result is under the threshold of N"}
    assert len(kinds([few, "the results are not nearest first"])) == 2
