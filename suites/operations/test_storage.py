"""How tables, indexes and sequences are kept."""

from collections.abc import Iterator

from pgconform.catalog import Catalog, Sequence, Table
from pgconform.checks import check
from pgconform.contract import Contract
from pgconform.contract_operations import Operations
from pgconform.database import Database
from pgconform.model import Figure, Finding, Nothing, Severity
from pgconform.names import literal, quote
from pgconform.probes import bloat, numbering, storage
from pgconform.subjects import application_tables
from pgconform.subjects_operations import Size, numbered_keys, operations, sizes

OFF = ("off", "false", "no", "0", "f", "n", "of", "fa", "fal", "fals")  # as the server reads a boolean
FREEZE = "vacuum (freeze); -- and see what kept vacuum from it: old transactions, slots, prepared ones"


def vacuumed_tables(catalog: Catalog, contract: Contract) -> Iterator[Table]:
    """Application tables that keep rows themselves."""
    return (t for t in application_tables(catalog, contract) if t.kind in ("table", "materialized"))


def _use(table: str) -> str:
    """The SELECT that shows what the server's statistics say of a table."""
    return f"select s.* from pg_catalog.pg_stat_all_tables as s where s.relid = {literal(table)}::pg_catalog.regclass;"


@check("sizes-within-limits", guide=["muva-26", "vs-9", "vs-22"], when=["daily", "weekly"], each=sizes)
def test_nothing_is_larger_than_declared(subject: Size, database: Database) -> Iterator[Finding | Figure]:
    """The database, its schemas and tables are no larger than declared.

    What grows beyond its plan fills the disk, and with it stops every write.
    """
    found = storage.size(database, subject.name)
    yield Figure(f"size of {subject.name}", found, "bytes")
    if found > subject.most:
        observed = f"has {found / 1e9:.3g} GB; {subject.most / 1e9:.3g} are declared"
        remedy = "-- archive or delete rows and vacuum, or give it more room in the contract under [operations.sizes]"
        yield Finding(subject.name, observed, remedy).against(found / 1e9, subject.most / 1e9, "GB")


@check("dead-rows", guide=["vs-11"], when=["weekly"], each=operations)
def test_dead_rows_are_removed(subject: Operations, database: Database) -> Iterator[Finding]:
    """Few rows of each table are dead.

    Every scan reads what was deleted until vacuum has removed it.
    """
    tables = storage.tables(database)
    for table in tables:
        rows = table.live + table.dead
        if rows >= subject.least_rows and table.dead > subject.dead * rows:
            observed = f"{table.dead:,} of {rows:,} rows are dead"
            finding = Finding(table.name, observed, f"vacuum {table.name};", rows=_use(table.name))
            yield finding.against(table.dead / rows, subject.dead, "share")
    storage.need_rows(tables, subject.least_rows)


@check("autovacuum-on", guide=["vs-11"], when=["daily", "weekly"], of=vacuumed_tables, severity=Severity.SHOULD)
def test_no_table_turns_autovacuum_off(table: Table) -> Iterator[Finding]:
    """Autovacuum looks after every table.

    One that was turned off for a large import stays off: dead rows and old statistics then wait for somebody.
    """
    if table.options.get("autovacuum_enabled", "on").lower() in OFF:
        remedy = f"alter table {table} reset (autovacuum_enabled);"
        yield Finding(str(table), "its autovacuum is turned off (autovacuum_enabled)", remedy)


@check("statistics-fresh", guide=["vs-11", "muva-40"], when=["weekly"], each=operations)
def test_statistics_are_fresh(subject: Operations, database: Database) -> Iterator[Finding]:
    """Tables were analyzed within the declared days, or few of their rows have changed since.

    The planner chooses by what it believes of the rows: an old belief is a sequential scan.
    """
    tables = storage.tables(database)
    for table in tables:
        rows = max(table.live, table.modified)
        old = not table.analyzed or table.days > subject.analyzed_days
        if rows >= subject.least_rows and old and table.modified > subject.modified * rows:
            since = (
                f"since it was analyzed {table.days:.1f} days ago" if table.analyzed else "and it was never analyzed"
            )
            observed = f"{table.modified:,} of {rows:,} rows have changed {since}"
            finding = Finding(table.name, observed, f"analyze {table.name};", rows=_use(table.name))
            yield finding.against(table.modified / rows, subject.modified, "share")
    storage.need_rows(tables, subject.least_rows)


@check("wraparound-far", guide=["vs-11"], when=["daily", "weekly"], each=operations)
def test_numbers_of_transactions_do_not_run_out(
    subject: Operations, catalog: Catalog, database: Database
) -> Iterator[Finding | Figure]:
    """The oldest row of the database and of each table is far from the age at which writing stops.

    Before numbers of transactions begin anew, the server refuses to write until vacuum has frozen all rows.
    """
    found = dict(storage.ages(database))
    here, oldest = catalog.server.database, max(found.values())
    yield Figure("transactions used", round(oldest / storage.TRANSACTIONS, 4), "share")
    old = [name for name, age in found.items() if age > subject.age * storage.TRANSACTIONS]
    says = f"transactions old; writing stops at {storage.TRANSACTIONS:,}"
    if here in old:
        finding = Finding(quote(here), f"its oldest rows are {found[here]:,} {says}", FREEZE, rows=f"{storage.AGES};")
        yield finding.against(found[here] / storage.TRANSACTIONS, subject.age, "share")
    if others := [quote(name) for name in old if name != here]:
        observed = f"{', '.join(others)}: their oldest rows are up to {oldest:,} {says}"
        yield Finding("other databases", observed, f"-- in each of them:\n{FREEZE}")


@check("sequences-far-from-end", guide=["vs-11"], when=["weekly"], each=operations)
def test_sequences_do_not_run_out(subject: Operations, catalog: Catalog, database: Database) -> Iterator[Finding]:
    """No sequence has given more than the declared share of its numbers, or of those that its column can hold.

    After the last one, no row can be inserted; an integer column ends long before its sequence.
    """
    found = numbering.sequences(database)
    if not found:
        raise Nothing("no sequence has given a number")
    for numbers in found:
        if numbers.last > subject.sequence * numbers.limit:
            observed = f"has given {numbers.last:,} of {numbers.limit:,} numbers"
            finding = Finding(numbers.name, observed, numbering.more(numbers, subject.sequence, catalog))
            yield finding.against(numbers.last / numbers.limit, subject.sequence, "share")


@check("sequences-ahead", guide=["vs-26", "muva-39"], when=["gate", "daily"], of=numbered_keys)
def test_no_sequence_gives_a_number_that_is_taken(
    subject: tuple[Table, str, Sequence], database: Database
) -> Iterator[Finding]:
    """No sequence gives a number that a row of its table holds already as its key.

    Rows that were restored or imported with their keys leave the sequence behind: inserts then fail, one number each.
    """
    table, key, sequence = subject
    number, held = numbering.taken(str(table), key, str(sequence), database)
    count = int(database.one(held.count, f"counting rows of {table}")[0])
    if count:
        observed = f"gives {number} next, and {count} row(s) of {table} hold that number or one that comes later"
        remedy, detail = numbering.ahead(held, key, str(sequence)), f"{table}.{quote(key)}"
        yield Finding(str(sequence), observed, remedy, detail, rows=held.shown, count=count)


@check("index-unused", guide=["vs-12"], when=["weekly"], each=operations, severity=Severity.SHOULD)
def test_every_index_is_used(
    subject: Operations, catalog: Catalog, contract: Contract, database: Database
) -> Iterator[Finding]:
    """Every index that enforces nothing is used, where its table is read.

    Each one makes every write slower, and is only worth it for reads.
    """
    storage.need_days(database, subject)
    indexes = storage.indexes(database)
    storage.need_reads(indexes, subject)
    for index in indexes:
        wanted = index.searches or storage.serves(index.name, index.table, catalog, contract)
        if index.unused(subject) and not wanted:
            days = storage.counted(database)
            observed = f"was not used in {days:.0f} days, while {index.table} was read {index.table_scans:,} times"
            yield Finding(index.name, observed, f"drop index {index.name};")


@check("vector-index-used", guide=["muva-25", "muva-12"], when=["weekly"], each=operations)
def test_every_vector_index_is_used(subject: Operations, database: Database) -> Iterator[Finding]:
    """Every index of embeddings is used, where its table is read.

    A search that cannot use its index reads every vector, and becomes slower with every row.
    """
    vectors = [index for index in storage.indexes(database) if index.searches]
    if not vectors:
        raise Nothing("there is no index of embeddings")
    storage.need_days(database, subject)
    storage.need_reads(vectors, subject)
    for index in vectors:
        if index.unused(subject):
            observed = f"was never used, while {index.table} was read {index.table_scans:,} times"
            remedy = "-- have searches order by the indexed expression, cast and all, with a limit: see its definition"
            yield Finding(index.name, observed, remedy)


@check("bloat", guide=["vs-16", "vs-30"], when=["monthly"], each=operations)
def test_relations_are_not_bloated(
    subject: Operations, catalog: Catalog, database: Database
) -> Iterator[Finding | Figure]:
    """Tables and indexes are not mostly air.

    What was deleted is read, cached and backed up again and again until the table is rewritten.
    """
    found = bloat.bloated(database, catalog, subject)
    total = sum(b.size for b in found)
    yield Figure("bloat", round(sum(b.wasted or 0 for b in found) / total, 4), "share")
    for relation in found:
        if relation.share > subject.bloat:
            index, apart = relation.kind == "index", relation.kind == "toast"
            remedy = f"reindex index {relation.name};" if index else f"vacuum (full) {relation.name};"
            where = " out of line (TOAST)" if apart else ""
            observed = f"{relation.share:.0%} of {relation.size / 1e6:,.0f} MB{where} are not needed ({relation.how})"
            remedy += " -- locks it meanwhile; pg_repack would not"
            finding = Finding(relation.name, observed, remedy, "toast" if apart else "")
            yield finding.against(relation.share, subject.bloat, "share")
