"""Figures to compare: shares, sums, reports, reserved values, ages."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from pgconform.contract import Allowed, Filled, Report, Total
from pgconform.contract_operations import Metrics
from pgconform.database import Database
from pgconform.model import Finding, Nothing
from pgconform.names import quote
from pgconform.probes.owners import Owners
from pgconform.probes.rows import Offence, need_rows
from pgconform.statements import Name, Rows, Statement, column, joined, statement
from pgconform.subjects import Declared


def lacking(subject: Declared[Filled]) -> Rows:
    """Rows whose column is empty, or not above the declared bound."""
    item = subject.item
    where = statement("{c} is null", c=column(item.column))
    if item.above is not None:
        # Not as a float: a comparison would make one of each row's value.
        where = statement("({c} > {above}) is not true", c=column(item.column), above=Decimal(str(item.above)))
    return Rows(subject.table, where)


def filled(subject: Declared[Filled], database: Database) -> tuple[int, int]:
    """All rows, and the filled ones. Raises Nothing where there is no row."""
    question = statement(
        "select pg_catalog.count(*), pg_catalog.count(*) filter (where not ({empty})) from {table} as r",
        empty=lacking(subject).where, table=Name.of(subject.table),
    )  # fmt: skip
    total, full = database.one(question, f"counting filled rows of {subject.table}")
    if not total:
        raise Nothing(f"{subject.table} has no rows")
    return int(total), int(full)


def compare_allowed(subject: Declared[Allowed], database: Database) -> list[Finding]:
    """Findings for rows that hold the reserved value and may not, and for listed ones that do not hold it."""
    item = subject.item
    parts = {"c": column(item.column), "key": column(item.key), "value": item.value, "keys": item.keys}
    stray = Rows(
        subject.table,
        statement("{c}::text = {value} and ({key} is null or {key}::text <> all({keys}::text[]))", **parts),
    )
    lost = Rows(
        subject.table,
        statement("{c}::text is distinct from {value} and {key}::text = any({keys}::text[])", **parts),
    )
    question = statement(
        "select pg_catalog.count(*) filter (where {stray}), pg_catalog.count(*) filter (where {lost})"
        " from {table} as r",
        stray=stray.where, lost=lost.where, table=Name.of(subject.table),
    )  # fmt: skip
    counts = database.one(question, f"looking for {item.value} in {subject.table}")
    found = []
    for count, rows, value, says in zip(
        counts, (stray, lost), (item.otherwise, item.value),
        ("hold it and are not listed", "are listed and do not hold it"), strict=True,
    ):  # fmt: skip
        if count:
            remedy = rows.update(statement("{c} = {v}", c=Name((item.column,)), v=value))
            observed = f"{item.value}: {count} row(s) {says}"
            found.append(
                Finding(subject.table, observed, remedy, f"{quote(item.column)} {says}", rows=rows.shown, count=count)
            )
    need_rows(database, subject.table)
    return found


def unequal_totals(subject: Declared[Total], owners: Owners | None) -> Offence:
    """Rows whose total is not the sum of the rows that name them; none of those sums to zero."""
    item = subject.item
    keys = [(item.key, item.detail_key), *([owners] if owners else [])]  # ours, and theirs
    total = statement(
        "coalesce((select pg_catalog.sum(d.{part}) from {detail} as d where {named}), 0)",
        part=Name((item.detail_column,)), detail=Name.of(item.detail),
        named=_alike((theirs, "d", ours, "r") for ours, theirs in keys),
    )  # fmt: skip
    sums = statement(
        "select {by}, pg_catalog.sum(d.{part}) as total from {detail} as d group by {by}",
        by=joined(column(theirs, "d") for _, theirs in keys), part=Name((item.detail_column,)),
        detail=Name.of(item.detail),
    )  # fmt: skip
    given = {"table": Name.of(subject.table), "sums": sums, "c": column(item.column, "o")}
    on = _alike((theirs, "s", ours, "o") for ours, theirs in keys)
    where = statement(  # not by {total}: without an index on the parts, that is a scan of them for each row
        "not exists (select from {table} as o left join ({sums}) as s on {on}"
        " where {same} and {c} = coalesce(s.total, 0))",
        **given, on=on, same=_alike((ours, "o", ours, "r") for ours, _ in keys),
    )  # fmt: skip
    # One hash of the sums, where the condition needs a second one of the rows; worked out once, not by each worker.
    some = statement(
        "with s as materialized ({sums}) select from {table} as o left join s on {on}"
        " where ({c} = coalesce(s.total, 0)) is not true or {k} is null",
        **given, on=on, k=column(item.key, "o"),
    )  # fmt: skip
    change = statement("{c} = {total}", c=Name((item.column,)), total=total)
    says = f"differ from the sum of {item.detail}"
    return Offence(subject.table, Rows(subject.table, where), says, change, subject.name, some, any=True)


def _alike(pairs: Iterable[tuple[str, str, str, str]]) -> Statement:
    """True where each column of one relation is like one of the other."""
    equal = (statement("{a} = {b}", a=column(a, of), b=column(b, to)) for a, of, b, to in pairs)
    return joined(equal, " and ")


def _aggregate(item: Report) -> Statement:
    """The figure by the base table; identifiers and values come from the contract, the aggregate from its set."""
    of = column(item.of) if item.of else statement("*")
    function, _, distinct = item.aggregate.partition(" ")
    where = [statement("{c}::text = {v}", c=column(name), v=value) for name, value in sorted(item.where.items())]
    figure = "pg_catalog." + function + "(" + ("distinct " if distinct else "") + "{of})"
    if function == "sum":  # of nothing: a report that says null is not added up with others
        figure = "coalesce(" + figure + ", 0)"
    template = "select " + figure + " from {table} as r"
    if where:
        template += " where {where}"
    return statement(template, of=of, table=Name.of(item.table), where=joined(where, " and "))


def report(subject: Declared[Report], database: Database) -> tuple[str, str]:
    """What the report says, and what the base says, as decimal text; 'null' is a null figure.

    Raises Nothing without a report row.
    """
    question = statement("select {c} from {t} as r limit 2", c=column(subject.item.column), t=Name.of(subject.table))
    reported = database.rows(question, f"reading {subject.table}")
    if not reported:
        raise Nothing(f"{subject.table} has no rows")
    actual = database.one(_aggregate(subject.item), f"computing {subject}")[0]
    return _figure(reported[0][0]), _figure(actual)


def report_query(subject: Declared[Report]) -> str:
    """A view of just this figure, computed from the base: what the report should say."""
    return f"{_aggregate(subject.item)};"


def _figure(value: object) -> str:
    """Figures as decimals of nine digits: a mean may be a numeric here and a double there."""
    return "null" if value is None else f"{Decimal(str(value)):.9f}".rstrip("0").rstrip(".")


def newest(subject: Declared[Metrics]) -> Statement:
    """The hours since the newest sample, null where there is none."""
    return statement(
        "select pg_catalog.date_part('epoch', pg_catalog.now() - pg_catalog.max({c})::timestamptz)"
        " / 3600 from {t} as r",
        c=column(subject.item.time), t=Name.of(subject.table),
    )  # fmt: skip


def newest_hours(subject: Declared[Metrics], database: Database) -> float:
    """Hours since the newest sample. Raises Nothing where there is none."""
    hours = database.one(newest(subject), f"reading {subject.table}")[0]
    if hours is None:
        raise Nothing(f"{subject.table} has no rows")
    return float(hours)


def sample(subject: Declared[Metrics]) -> str:
    """An INSERT of one sample of what every server can tell: its connections."""
    item = subject.item
    name = item.known[0] if item.known else "connections"
    return str(
        statement(
            "insert into {t} ({n}, {v}, {at}) select {name}, pg_catalog.count(*), pg_catalog.now()"
            " from pg_catalog.pg_stat_activity where backend_type = 'client backend';",
            t=Name.of(subject.table), n=Name((item.name,)), v=Name((item.value,)), at=Name((item.time,)), name=name,
        )
    )  # fmt: skip
