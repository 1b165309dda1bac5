"""How many rows each tenant has, and what became of that since earlier runs."""

from __future__ import annotations

from pgconform import trends
from pgconform.contract import Contract
from pgconform.contract_operations import Trends
from pgconform.database import Database
from pgconform.history import History
from pgconform.model import Figure, Finding, Nothing
from pgconform.reproduce import tenant_digest
from pgconform.statements import Name, Statement, statement
from pgconform.subjects import Declared

REMEDY = "-- no statement puts this right: find out what the tenants' imports do, then look at their newest rows"


def rows(database: Database, contract: Contract, table: str) -> list[Figure]:
    """Rows of each tenant, in one scan. A tenant is called by a digest of its key: the history holds no key."""
    question = statement(
        "select r.{c}::text, pg_catalog.count(*) from {table} as r where r.{c} is not null group by 1 order by 1",
        c=Name((contract.column_of(table),)), table=Name.of(table),
    )  # fmt: skip
    found = database.remembered(question, f"counting rows of {table} by tenant")
    if not found:
        raise Nothing(f"{table} has no rows")
    return [Figure(f"{_prefix(table)}{tenant_digest(tenant)}", int(number), "rows") for tenant, number in found]


def departing(subject: Declared[Trends], figures: list[Figure], history: History, contract: Contract) -> list[Finding]:
    """A finding where tenants gain rows in another way than before. Raises Nothing where that is not known yet."""
    item, past = subject.item, history.all_series(_prefix(subject.table))
    told = [trends.departs(past.get(f.name, ()), f.value, item.days, item.factor, item.least) for f in figures]
    if all(known is None for known in told):
        raise Nothing(f"the history of {subject.table} does not reach {2 * item.days:g} days back")
    gained = f"{item.factor:g} times more, or fewer, rows in {item.days:g} days than in such a time before"
    observed = f"{sum(map(bool, told))} tenant(s) gained {gained}"
    return [Finding(subject.table, observed, REMEDY, rows=_shown(subject, contract))] if any(told) else []


def fallen_silent(
    subject: Declared[Trends], figures: list[Figure], history: History, contract: Contract
) -> list[Finding]:
    """A finding where tenants gain no rows any more. Raises Nothing where that is not known yet."""
    item, past = subject.item, history.all_series(_prefix(subject.table))
    told = [trends.silent(past.get(f.name, ()), f.value, item.silent) for f in figures]
    if all(known is None for known in told):
        raise Nothing(f"the history of {subject.table} does not reach {2 * item.silent:g} days back")
    observed = f"{sum(map(bool, told))} tenant(s) gained no row in {item.silent:g} days, and did before"
    return [Finding(subject.table, observed, REMEDY, rows=_shown(subject, contract))] if any(told) else []


def _shown(subject: Declared[Trends], contract: Contract) -> str:
    """The SELECT that shows the rows of each tenant."""
    question = statement(
        "select r.{c}, pg_catalog.count(*) from {table} as r group by 1 order by 2 desc;",
        c=Name((contract.column_of(subject.table),)), table=Name.of(subject.table),
    )  # fmt: skip
    return str(question)


def _prefix(table: str) -> str:
    return f"rows of {table} of tenant "


def size(database: Database) -> Figure:
    """The size of the database, in bytes."""
    question: Statement = statement("select pg_catalog.pg_database_size(pg_catalog.current_database())")
    return Figure("database size", int(database.one(question, "measuring the database")[0]), "bytes")


def filling(item: Trends, now: Figure, history: History, name: str) -> list[Finding]:
    """A finding where the database reaches its capacity too soon. Raises Nothing where that is not known."""
    if item.capacity is None:
        raise Nothing("the contract declares no capacity under [trends]")
    capacity = item.capacity * 1e9
    left = trends.days_to(history.series(now.name), now.value, capacity, item.days)
    if now.value < capacity and left is None:
        raise Nothing(f"the history does not reach {item.days / 4:g} days back")
    if left is not None and left >= item.full:
        return []
    observed = f"{now.value / 1e9:.3g} of {item.capacity:g} GB are used, and full in {left or 0:.0f} day(s)"
    return [Finding(name, observed, "-- enlarge the disk, or archive and vacuum the largest relations", rows=LARGEST)]


LARGEST = (
    "select c.oid::pg_catalog.regclass, pg_catalog.pg_total_relation_size(c.oid) from pg_catalog.pg_class as c"
    " where c.relkind in ('r', 'm') order by 2 desc limit 20;"
)
