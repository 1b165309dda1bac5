"""How tables, indexes and sequences are kept: sizes, dead rows, statistics, ages of transactions, use, numbers left."""

from __future__ import annotations

from dataclasses import dataclass

from pgconform.catalog import Catalog
from pgconform.contract import Contract
from pgconform.contract_operations import Operations
from pgconform.database import Database
from pgconform.model import Nothing
from pgconform.names import qualified
from pgconform.statements import Name, statement

# Tables of the application: not the system's, not an extension's, not temporary.
_OURS = (
    "n.nspname not like 'pg\\_%' and n.nspname <> 'information_schema' and not exists (select from pg_catalog.pg_depend"
    " as x where x.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and x.objid = c.oid and x.deptype = 'e')"
)
# Where numbers of transactions end: half of 2^32 (PostgreSQL's documentation, Routine Vacuuming).
TRANSACTIONS = 2_147_483_648


def size(database: Database, name: str) -> int:
    """Bytes of the database ('database'), of a schema, or of a table with its indexes and partitions.

    Raises Nothing where there is none of that name, NotVerified.
    """
    parts = Name.of(name)
    if name == "database":
        question = statement("select pg_catalog.pg_database_size(pg_catalog.current_database())")
    elif len(parts) == 1:
        question = statement(
            "select pg_catalog.sum(pg_catalog.pg_total_relation_size(c.oid)) from pg_catalog.pg_class as c"
            " join pg_catalog.pg_namespace as n on n.oid = c.relnamespace"
            " where n.nspname = {schema} and c.relkind in ('r', 'm', 'S')",
            schema=parts[0],
        )
    else:
        question = statement(
            "select pg_catalog.sum(pg_catalog.pg_total_relation_size(t.oid)) from pg_catalog.pg_class as c"
            " join pg_catalog.pg_namespace as n on n.oid = c.relnamespace cross join lateral"
            " (select c.oid union select i.relid from pg_catalog.pg_partition_tree(c.oid) as i) as t (oid)"
            " where n.nspname = {schema} and c.relname = {table}",
            schema=parts[0], table=parts[1],
        )  # fmt: skip
    found = database.one(question, f"measuring {name}")[0]
    if found is None:
        raise Nothing(f"there is no {name}")
    return int(found)


@dataclass(frozen=True, slots=True)
class TableUse:
    """What the server's statistics know of a table since they were last reset."""

    name: str
    live: int
    dead: int
    modified: int  # rows, since the table was last analyzed
    analyzed: bool  # ever
    days: float  # since then; 0 where never
    scans: int
    seq_scans: int
    estimated: int  # rows as of its last vacuum or analyze; -1 where it had none

    @property
    def forgotten(self) -> bool:
        """True where the counts were lost, by a reset or a crash, and nothing has counted since."""
        return not self.live + self.dead and self.estimated > 0


def tables(database: Database) -> list[TableUse]:
    """All tables of the application, by name. Raises Nothing where there is none, NotVerified."""
    question = statement(
        "select n.nspname, c.relname, s.n_live_tup, s.n_dead_tup, s.n_mod_since_analyze,"
        " greatest(s.last_analyze, s.last_autoanalyze) is not null, coalesce(extract(epoch from pg_catalog.now()"
        " - greatest(s.last_analyze, s.last_autoanalyze)) / 86400, 0), coalesce(s.seq_scan, 0) +"
        " coalesce(s.idx_scan, 0),"
        " coalesce(s.seq_scan, 0), c.reltuples::bigint from pg_catalog.pg_stat_all_tables as s"
        " join pg_catalog.pg_class as c on c.oid = s.relid"
        " join pg_catalog.pg_namespace as n on n.oid = c.relnamespace"
        f" where c.relkind in ('r', 'm') and c.relpersistence <> 't' and {_OURS} order by 1, 2"
    )
    found = [
        TableUse(
            qualified(schema, name),
            int(live),
            int(dead),
            int(changed),
            ever,
            float(days),
            int(scans),
            int(seq),
            int(rows),
        )
        for schema, name, live, dead, changed, ever, days, scans, seq, rows in database.remembered(
            question, "reading statistics"
        )
    ]
    if not found:
        raise Nothing("there are no tables")
    return found


def scanned(database: Database, catalog: Catalog) -> float:
    """The share of reads of protected tables that read all of it: what policies cost where no index serves them."""
    protected = {str(table) for table in catalog.tables if table.row_security}
    read = [table for table in tables(database) if table.name in protected]
    return round(sum(t.seq_scans for t in read) / max(sum(t.scans for t in read), 1), 4)


def need_rows(found: list[TableUse], least: int) -> None:
    """Raises Nothing where no table is large enough to be judged, or the counts of some that are were lost: by name."""
    lost = [table.name for table in found if table.forgotten and table.estimated >= least]
    if lost:
        raise Nothing(f"statistics were reset, and these tables were not analyzed since: {', '.join(lost)}")
    if all(max(table.live + table.dead, table.modified) < least for table in found):
        raise Nothing(f"no table has {least:,} rows, as of the server's statistics")


def counted(database: Database) -> float:
    """Days since which the statistics of this database are counted: since their last reset, or the server's start."""
    question = statement(
        "select extract(epoch from pg_catalog.now() - coalesce(d.stats_reset, pg_catalog.pg_postmaster_start_time()))"
        " / 86400 from pg_catalog.pg_stat_database as d where d.datname = pg_catalog.current_database()"
    )
    return float(database.remembered(question, "asking since when statistics are counted")[0][0])


def need_days(database: Database, item: Operations) -> None:
    """Raises Nothing where too little time has passed to judge what is used."""
    days = counted(database)
    if days < item.judged_after_days:
        raise Nothing(f"statistics are counted since {days:.1f} days; use is judged after {item.judged_after_days:g}")


def need_reads(found: list[IndexUse], item: Operations) -> None:
    """Raises Nothing where of no index it can be told whether it is used."""
    if not any(index.judged(item) for index in found):
        raise Nothing(f"no table with such an index, old enough to be judged, was read {item.least_scans:,} times")


def serves(index: str, table: str, catalog: Catalog, contract: Contract) -> bool:
    """True where other checks want an index: it begins with a foreign key's columns, or with the tenant."""
    found = catalog.table(table)
    columns = next((i.columns for i in found.indexes if str(i) == index), ()) if found else ()
    tenant = contract.column_of(table) if table in contract.tables else ""
    keys = [set(key.columns) for key in found.foreign_keys()] if found else []
    return (bool(tenant) and columns[:1] == (tenant,)) or any(set(columns[: len(key)]) == key for key in keys)


AGES = (
    "select pg_catalog.format('%I.%I', n.nspname, c.relname), greatest(pg_catalog.age(c.relfrozenxid),"
    " pg_catalog.mxid_age(c.relminmxid)) from pg_catalog.pg_class as c join pg_catalog.pg_namespace as n"
    " on n.oid = c.relnamespace where c.relkind in ('r', 'm', 't') order by 2 desc, 1 limit 20"
)


def ages(database: Database) -> list[tuple[str, int]]:
    """How many transactions, or groups of them (multixacts), ago the oldest rows of each database were frozen: the
    greater of the two, greatest first. Each of them can stop the server. Raises NotVerified."""
    question = statement(
        "select d.datname, greatest(pg_catalog.age(d.datfrozenxid), pg_catalog.mxid_age(d.datminmxid))"
        " from pg_catalog.pg_database as d order by 2 desc, 1"
    )
    return [(str(name), int(age)) for name, age in database.rows(question, "asking for the age of rows")]


NEW = 10_000  # transactions in which an index counts as new


@dataclass(frozen=True, slots=True)
class IndexUse:
    """An index that nothing but searches needs, and how often it was read since statistics are counted."""

    name: str
    table: str
    scans: int
    table_scans: int
    searches: bool  # it is one of pgvector's
    transactions: int  # since it was made: PostgreSQL keeps no time
    definition: str

    def judged(self, item: Operations) -> bool:
        """True where it was read, or its table was often enough to tell; a new one is given time."""
        new = item.judged_after_days > 0 and self.transactions < NEW
        return bool(self.scans) or (self.table_scans >= item.least_scans and not new)

    def unused(self, item: Operations) -> bool:
        """True where it was never read, though its table was."""
        return not self.scans and self.judged(item)


def indexes(database: Database) -> list[IndexUse]:
    """Valid indexes that enforce nothing: no constraint, no uniqueness, no replica identity, no order of the table."""
    question = statement(
        "select n.nspname, c.relname, tn.nspname, t.relname, coalesce(s.idx_scan, 0),"
        " coalesce(u.seq_scan, 0) + coalesce(u.idx_scan, 0), m.amname in ('hnsw', 'ivfflat'),"
        " pg_catalog.age(i.xmin), pg_catalog.pg_get_indexdef(c.oid) from pg_catalog.pg_index as i"
        " join pg_catalog.pg_class as c on c.oid = i.indexrelid and c.relkind = 'i'"
        " join pg_catalog.pg_am as m on m.oid = c.relam join pg_catalog.pg_namespace as n on n.oid = c.relnamespace"
        " join pg_catalog.pg_class as t on t.oid = i.indrelid join pg_catalog.pg_namespace as tn on tn.oid ="
        " t.relnamespace"
        " left join pg_catalog.pg_stat_all_indexes as s on s.indexrelid = c.oid"
        " left join pg_catalog.pg_stat_all_tables as u on u.relid = t.oid"
        " where i.indisvalid and not i.indisunique and not i.indisreplident and not i.indisclustered and not exists"
        " (select from pg_catalog.pg_constraint as k where k.conindid = c.oid)"
        f" and t.relpersistence <> 't' and {_OURS} order by 1, 2"
    )
    return [
        IndexUse(
            qualified(schema, name), qualified(of_schema, of), int(scans), int(table_scans), bool(vectors), int(age),
            str(definition),
        )
        for schema, name, of_schema, of, scans, table_scans, vectors, age, definition in database.remembered(
            question, "reading the use of indexes"
        )
    ]  # fmt: skip
