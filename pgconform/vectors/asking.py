"""One search, prepared on a connection and asked many times as one caller: rows, time, scans, buffers.

Statements go through libpq directly, with the query vector in binary: text of 3072 numbers would cost more than many a
search. The prepared statement has a name of ours, and is gone afterwards.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy

from pgconform import query_vectors
from pgconform.model import NotVerified
from pgconform.statements import Name, Statement, statement

if TYPE_CHECKING:
    from pgconform.database import Database
    from pgconform.identities import Identity
    from pgconform.vectors.oracle import Matrix

NAME = b"pgconform_search"
BINARY, TEXT = 1, 0
# About half a millisecond of a processor's work, with no table, no vector and no index in it: the measure of a machine.
CALIBRATION = (
    b"select pg_catalog.count(*) from pg_catalog.generate_series(1, 1000) as n where pg_catalog.md5(n::text) > ''"
)
_SCANS = (
    b"select coalesce(pg_catalog.sum(pg_catalog.pg_stat_get_xact_numscans(o)), 0)::bigint"
    b" from pg_catalog.unnest($1::oid[]) as o"
)
_EACH = (
    b"select o::bigint, coalesce(pg_catalog.pg_stat_get_xact_numscans(o), 0)::bigint"
    b" from pg_catalog.unnest($1::oid[]) as o"
)
# A partition is not named: it may be called like a tenant.
_SCANNED = """
with parts as (
  select c.oid, false as part from pg_catalog.pg_class as c join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
   where n.nspname = {s} and c.relname = {t}
  union all
  select p.relid::oid, true from pg_catalog.pg_class as c join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
   cross join pg_catalog.pg_partition_tree(c.oid) as p where n.nspname = {s} and c.relname = {t} and p.level > 0
)
select p.oid::bigint, 'sequential scan' || case when p.part then ' of a partition' else '' end from parts as p
union all
select i.indexrelid::bigint, a.amname || ' index ' || case when p.part then 'of a partition' else c.relname end
  from parts as p join pg_catalog.pg_index as i on i.indrelid = p.oid
  join pg_catalog.pg_class as c on c.oid = i.indexrelid join pg_catalog.pg_am as a on a.oid = c.relam
 order by 2, 1
"""


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of one search: keys and similarities (or distances) nearest first, ``seconds`` from sending to the last
    row, those of the calibration just before, and whether an index was scanned."""

    keys: tuple[str, ...]
    values: tuple[float, ...]
    seconds: float
    calibration: float
    scanned: bool


def encoded(vector: Matrix, kind: str) -> tuple[bytes, int]:
    """A query vector as parameter of that type, and the format that it is in."""
    if kind in ("vector", "halfvec"):
        head = numpy.array([len(vector), 0], ">i2").tobytes()
        return head + vector.astype(">f4" if kind == "vector" else ">f2").tobytes(), BINARY
    return query_vectors.text(tuple(vector.tolist()), kind).encode(), TEXT


class Asking:
    """Asks one prepared search. ``indexes`` are the OIDs of those whose scans count."""

    def __init__(self, database: Database, call: Statement, kind: str, indexes: Sequence[int]) -> None:
        self._pgconn = database.connection.pgconn
        text, values = call.run_text()
        self._text, self._kind, self._place = text.encode(), kind, values.index(None)
        self._values = [None if value is None else str(value).encode() for value in values]
        self._indexes = _array(indexes)
        self.preparing = 0.0

    def prepare(self) -> None:
        """Parses the search; ``preparing`` is then how many seconds that took."""
        started = time.perf_counter()
        self._checked(self._pgconn.prepare(NAME, self._text))
        self.preparing = time.perf_counter() - started

    def ask(self, vector: Matrix) -> Asked:
        """Asks for one vector. Raises psycopg.Error."""
        parameters, formats = self._parameters(vector)
        before = self.scans()
        calibration = self.calibrate()
        started = time.perf_counter()
        answer = self._pgconn.exec_prepared(NAME, parameters, formats, TEXT)
        seconds = time.perf_counter() - started
        rows = self._rows(self._checked(answer))
        scanned = self.scans() > before
        return Asked(
            tuple(key or "" for key, _ in rows),
            tuple(float(v or "nan") for _, v in rows),
            seconds,
            calibration,
            scanned,
        )

    def time(self, vector: Matrix) -> float:
        """Seconds of one search, and nothing else."""
        parameters, formats = self._parameters(vector)
        started = time.perf_counter()
        self._checked(self._pgconn.exec_prepared(NAME, parameters, formats, TEXT))
        return time.perf_counter() - started

    def calibrate(self) -> float:
        """Seconds that the calibration takes now."""
        started = time.perf_counter()
        self._checked(self._pgconn.exec_params(CALIBRATION, []))
        return time.perf_counter() - started

    def scans(self) -> int:
        """Scans of the indexes in this transaction so far: functions' own among them, seen by any role."""
        return int(self._rows(self._checked(self._pgconn.exec_params(_SCANS, [self._indexes])))[0][0] or 0)

    def buffers(self, vector: Matrix) -> int:
        """The pages that one search hits and reads, by EXPLAIN."""
        parameters, formats = self._parameters(vector)
        text = b"explain (analyze, buffers, timing off, format json) " + self._text
        answer = self._checked(self._pgconn.exec_params(text, parameters, param_formats=formats))
        root = json.loads(self._rows(answer)[0][0] or "[]")[0]["Plan"]
        return int(root["Shared Hit Blocks"]) + int(root["Shared Read Blocks"])

    def shape(self, vector: Matrix, relations: Mapping[int, str]) -> str:
        """Which of these tables and indexes one search scans, and how often: also inside a function, where EXPLAIN does
        not look. Names are the values of ``relations``, by OID."""
        before = self._each(relations)
        self.time(vector)
        found: dict[str, int] = {}
        for oid, scans in self._each(relations).items():
            found[relations[oid]] = found.get(relations[oid], 0) + scans - before[oid]
        return ", ".join(name if scans == 1 else f"{name} x {scans}" for name, scans in found.items() if scans)

    def _each(self, relations: Mapping[int, str]) -> dict[int, int]:
        counted = self._rows(self._checked(self._pgconn.exec_params(_EACH, [_array(relations)])))
        return {int(oid or 0): int(scans or 0) for oid, scans in counted}

    def _parameters(self, vector: Matrix) -> tuple[list[Any], list[int]]:
        parameters: list[Any] = list(self._values)
        formats = [TEXT] * len(parameters)
        parameters[self._place], formats[self._place] = encoded(vector, self._kind)
        return parameters, formats

    @staticmethod
    def _checked(answer: Any) -> Any:
        from psycopg import errors, pq

        if answer.status not in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK):
            raise errors.error_from_result(answer)
        return answer

    @staticmethod
    def _rows(answer: Any) -> list[tuple[str | None, ...]]:
        def text(row: int, column: int) -> str | None:
            value = answer.get_value(row, column)
            return None if value is None else value.decode("utf-8", "backslashreplace")

        return [tuple(text(n, c) for c in range(answer.nfields)) for n in range(answer.ntuples)]


def _array(oids: Iterable[int]) -> bytes:
    return f"{{{','.join(map(str, oids))}}}".encode()


@contextmanager
def asking(
    database: Database, who: Identity, call: Statement, kind: str, indexes: Sequence[int],
    settings: Mapping[str, str] | None = None,
) -> Iterator[Asking]:  # fmt: skip
    """The search as that caller, with these settings besides; all is undone afterwards. What is None in ``call`` is
    the query vector. Raises NotVerified, also where a setting did not take."""
    import psycopg

    prepared = Asking(database, call, kind, indexes)
    wanted = dict(settings or {})
    done = False
    try:
        with database.acting(who.role, [*who.settings, *wanted.items()]):
            _took(database, wanted)
            prepared.prepare()
            done = True
            yield prepared
    finally:
        if done:
            with suppress(psycopg.Error):  # where the connection is lost, so is the statement
                database.connection.execute(b"deallocate " + NAME, prepare=False)


def touch(database: Database, schema: str) -> None:
    """Has the server load the extension's library: before that it takes any value for its settings, and drops it
    later. Raises NotVerified."""
    load = statement("select '[1]'::{t}::text", t=Name((schema, "vector")))
    database.rows(load, "loading the extension vector")


def _took(database: Database, wanted: Mapping[str, str]) -> None:
    for name, value in wanted.items():
        found = database.one(statement("select pg_catalog.current_setting({n}, true)", n=name), f"reading {name}")[0]
        if found != value:
            raise NotVerified(f"the setting {name} = {value} did not take; is the extension up to date?")


def oids(database: Database, names: Sequence[Name]) -> list[int]:
    """The OIDs of these indexes. Raises NotVerified."""
    found = []
    for schema, name in names:
        question = statement(
            "select c.oid::bigint from pg_catalog.pg_class as c join pg_catalog.pg_namespace as n"
            " on n.oid = c.relnamespace where n.nspname = {s} and c.relname = {i}", s=schema, i=name,
        )  # fmt: skip
        found += [int(oid) for (oid,) in database.rows(question, "looking up indexes")]
    return found


def scanned(database: Database, table: str) -> dict[int, str]:
    """What a search of the table may scan, in words, by OID: itself, its partitions, and their indexes. Raises
    NotVerified."""
    schema, name = Name.of(table)
    return dict(database.rows(statement(_SCANNED, s=schema, t=name), f"looking up what a search of {table} may scan"))
