"""What a server is doing: sessions, statements, slots, prepared transactions; from its own statistics views.

pgconform's own sessions (by application_name and user) are never reported: a run holds one transaction open all along.
"""

from __future__ import annotations

import re
import statistics
import time
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from importlib import import_module
from typing import Any

from pgconform.catalog import Catalog
from pgconform.contract import Contract
from pgconform.database import Database
from pgconform.model import Nothing, NotVerified
from pgconform.names import qualified, split
from pgconform.statements import Name, Statement, statement
from pgconform.vector_kinds import KINDS

_MAY = "select pg_catalog.pg_has_role(current_user, 'pg_read_all_stats', 'usage')"
_QUERIES = {"SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "WITH", "VALUES"}
_SHOWN = 100  # characters of a statement
_NOT_LOADED = "55000"  # object_not_in_prerequisite_state


def need_statistics(database: Database) -> None:
    """Raises NotVerified where the server hides what other roles do."""
    if not database.remembered(statement(_MAY), "asking for pg_read_all_stats")[0][0]:
        raise NotVerified(
            "other roles' sessions and statements are hidden; grant pg_read_all_stats to the role that pgconform"
            " connects as (pgconform reader does)"
        )


@dataclass(frozen=True, slots=True)
class Connections:
    """Client sessions of the server, and how many there may be besides those reserved for superusers."""

    used: int
    most: int
    by_state: str  # such as "12 idle, 3 active": of the whole server

    @property
    def share(self) -> float:
        return self.used / max(self.most, 1)


def connections(database: Database) -> Connections:
    """Sessions in use. Raises NotVerified."""
    need_statistics(database)
    question = statement(
        "select pg_catalog.current_setting('max_connections')::int"
        " - pg_catalog.current_setting('superuser_reserved_connections')::int"
        " - coalesce(pg_catalog.current_setting('reserved_connections', true), '0')::int,"
        " coalesce(pg_catalog.sum(s.n), 0),"
        " coalesce(pg_catalog.string_agg(s.n || ' ' || s.state || ' of ' || s.role, ', ' order by s.n desc,"
        " s.state, s.role), '')"
        " from (select coalesce(a.state, 'starting') as state, coalesce(a.usename, '-') as role,"
        " pg_catalog.count(*) as n"
        " from pg_catalog.pg_stat_activity as a where a.backend_type = 'client backend' group by 1, 2) as s"
    )
    most, used, by_state = database.one(question, "counting sessions")
    return Connections(int(used), int(most), str(by_state))


def response(database: Database) -> float:
    """Milliseconds for which one waits for a query that does nothing: the median of nine. Raises NotVerified."""
    taken = []
    for _ in range(9):
        started = time.perf_counter()
        database.send([statement("select 1")])
        taken.append((time.perf_counter() - started) * 1000)
    return statistics.median(taken)


@dataclass(frozen=True, slots=True)
class Stuck:
    """Sessions of one role that do the same for too long; ``minutes`` is the longest, ``text`` what it executes or last
    executed, without any value."""

    role: str
    sessions: int
    minutes: float
    where: Statement
    text: str

    @property
    def shown(self) -> str:
        """The SELECT that lists them, without what they execute."""
        question = statement(
            "select a.pid, a.usename, a.application_name, a.state, a.wait_event, a.query_start, a.xact_start,"
            " a.state_change"
            " from pg_catalog.pg_stat_activity as a where {w} order by a.xact_start",
            w=self.where,
        )
        return f"{question};"

    @property
    def ended(self) -> str:
        """The statement that ends them."""
        question = statement(
            "select pg_catalog.pg_terminate_backend(a.pid) from pg_catalog.pg_stat_activity as a where {w}",
            w=self.where,
        )
        return f"{question};"


# What a session does, and since when. A transaction of many short statements is as long as its beginning tells.
RUNNING = "a.state = 'active' and least(a.query_start, a.xact_start)"
IDLE_IN_TRANSACTION = "a.state in ('idle in transaction', 'idle in transaction (aborted)') and a.state_change"
IDLE = "a.state = 'idle' and a.state_change"


def stuck(database: Database, doing: str, minutes: float) -> list[Stuck]:
    """By role, the sessions of this database that do it for longer than so many minutes. Raises NotVerified."""
    need_statistics(database)
    kind, since = (statement(part) for part in doing.rsplit(" and ", 1))
    where = statement(
        "a.backend_type = 'client backend' and a.datname = pg_catalog.current_database()"
        " and not (a.application_name = 'pgconform' and a.usename = session_user) and {kind}"
        " and {since} < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => {seconds}::float8)",
        kind=kind, since=since, seconds=minutes * 60.0,
    )  # fmt: skip
    question = statement(
        "select a.usename, pg_catalog.count(*), pg_catalog.max(extract(epoch from pg_catalog.clock_timestamp()"
        " - {since})) / 60, (pg_catalog.array_agg(a.query order by {since}))[1]"
        " from pg_catalog.pg_stat_activity as a where {w} group by a.usename order by a.usename",
        since=since, w=where,
    )  # fmt: skip
    found = []
    for role, sessions, longest, text in database.rows(question, "looking at sessions"):
        his = statement("{w} and a.usename = {role}", w=where, role=role)
        found.append(Stuck(str(role), int(sessions), float(longest), his, cut(masked(str(text or "")))))
    return found


@dataclass(frozen=True, slots=True)
class Call:
    """One statement as pg_stat_statements knows it, all roles together; ``text`` holds no value.

    ``others`` are its calls by roles other than the one that pgconform connects as: its own questions are no traffic.
    """

    queryid: int
    calls: int
    mean_ms: float
    total_ms: float
    text: str
    searches: bool
    others: int

    @property
    def shown(self) -> str:
        """Its beginning."""
        return cut(self.text)

    @property
    def name(self) -> str:
        """What the statement is called in findings: the same in every run, where its number is not after an upgrade."""
        return f"statement {sha256(self.text.encode()).hexdigest()[:12]}"


def calls(database: Database, catalog: Catalog, contract: Contract) -> list[Call]:
    """Statements of this database, the costliest first. Raises Nothing where nobody counts them, NotVerified."""
    extension = catalog.extension("pg_stat_statements")
    if extension is None:
        raise Nothing("pg_stat_statements is not installed, so nobody counts statements")
    need_statistics(database)
    version = tuple(map(int, extension.version.split(".")))
    if version < (1, 8):
        raise NotVerified(f"pg_stat_statements is at {extension.version}; alter extension pg_stat_statements update")
    question = statement(  # its columns are called so since version 1.8, which came with PostgreSQL 13
        "select s.queryid, pg_catalog.sum(s.calls)::bigint, pg_catalog.sum(s.total_exec_time) /"
        " pg_catalog.sum(s.calls),"
        " pg_catalog.sum(s.total_exec_time), pg_catalog.min(s.query),"
        " coalesce(pg_catalog.sum(s.calls) filter (where u.rolname is distinct from session_user), 0)::bigint"
        " from {view} as s left join pg_catalog.pg_roles as u on u.oid = s.userid"
        " join pg_catalog.pg_database as d on d.oid = s.dbid where d.datname = pg_catalog.current_database()"
        " and s.calls > 0 and s.queryid is not null and {top} group by s.queryid order by 4 desc, 1",
        view=Name((extension.schema, "pg_stat_statements")),
        top=statement("s.toplevel" if version >= (1, 9) else "true"),
    )  # fmt: skip
    try:
        rows = database.remembered(question, "reading pg_stat_statements")
    except NotVerified as refusal:
        name = qualified(extension.schema, "pg_stat_statements")
        advice = f"grant USAGE on its schema, SELECT on {name}, and EXECUTE on function {name}(boolean)"
        if refusal.state == _NOT_LOADED:
            advice = "add it to shared_preload_libraries, and restart the server"
        raise NotVerified(f"pg_stat_statements cannot be read: {refusal.said}; {advice}", refusal.state) from None
    found = []
    for queryid, number, mean, total, text, others in rows:
        text, cost = str(text or ""), (int(queryid), int(number), float(mean), float(total))
        found.append(Call(*cost, masked(text), searches(text, contract), int(others)))
    if not found:
        raise Nothing("pg_stat_statements has counted no statement of this database yet")
    return found


def need_calls(found: list[Call], least: int, what: str, database: Database, catalog: Catalog) -> None:
    """Raises Nothing where none of the statements was called so often by anybody but pgconform's own role."""
    if any(call.others >= least for call in found):
        return
    since = "since statements are counted"
    extension = catalog.extension("pg_stat_statements")
    if extension and tuple(map(int, extension.version.split("."))) >= (1, 9):
        question = statement(
            "select extract(epoch from pg_catalog.now() - i.stats_reset) / 86400 from {info} as i",
            info=Name((extension.schema, "pg_stat_statements_info")),
        )
        with suppress(NotVerified):  # the number of calls stands without it
            since = f"in the {float(database.one(question, 'asking since when')[0]):.1f} days {since}"
    raise Nothing(f"no {what} was called {least} times {since}, by other roles than the one that pgconform connects as")


def cut(text: str) -> str:
    """The beginning of a statement."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ..."


def masked(text: str) -> str:
    """A statement without any value, by PostgreSQL's own parser; the first word of what is no query and no change of
    rows: pg_stat_statements keeps those as they were sent, passwords included."""
    postgast: Any = import_module("postgast")  # whose types mypy cannot read
    try:
        word = str(postgast.deparse(postgast.parse(text))).split()[0].upper()
        if word not in _QUERIES:
            return f"{word} ..."
        return " ".join(str(postgast.deparse(postgast.parse(postgast.normalize(text)))).split())
    except (postgast.PgQueryError, IndexError):
        return "a statement that is cut off, or of another version's grammar"


def searches(text: str, contract: Contract) -> bool:
    """True for a statement that orders by distance, or calls one of the contract's search functions."""
    names = [split(name)[-1] for name, promise in contract.functions.items() if promise.search]
    compares = any(kind.operator in text for kind in KINDS.values())
    return compares or any(re.search(rf"\b{re.escape(n)}\b", text) for n in names)


@dataclass(frozen=True, slots=True)
class Slot:
    """A replication slot; ``kept`` is the WAL that the server keeps for it, in bytes."""

    name: str
    active: bool
    kept: int
    status: str


def slots(database: Database) -> list[Slot]:
    """Replication slots of the server. Raises NotVerified."""
    question = statement(
        "select s.slot_name, s.active, coalesce(pg_catalog.pg_wal_lsn_diff(case when pg_catalog.pg_is_in_recovery()"
        " then pg_catalog.pg_last_wal_replay_lsn() else pg_catalog.pg_current_wal_lsn() end, s.restart_lsn),"
        " 0)::bigint,"
        " coalesce(s.wal_status, 'reserved') from pg_catalog.pg_replication_slots as s where not s.temporary order by 1"
    )
    return [Slot(str(n), bool(a), int(k), str(w)) for n, a, k, w in database.rows(question, "looking at slots")]


def prepared(database: Database, minutes: float) -> list[tuple[str, float]]:
    """Prepared transactions of this database older than so many minutes, with their age. Raises NotVerified."""
    question = statement(
        "select p.gid, extract(epoch from pg_catalog.clock_timestamp() - p.prepared) / 60 from"
        " pg_catalog.pg_prepared_xacts"
        " as p where p.database = pg_catalog.current_database()"
        " and p.prepared < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => {seconds}::float8)"
        " order by 1",
        seconds=minutes * 60.0,
    )
    return [(str(gid), float(age)) for gid, age in database.rows(question, "looking at prepared transactions")]
