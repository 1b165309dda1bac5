"""Values: from the declared sets, within bounds, filled, and agreeing with each other."""

from collections.abc import Iterator

from pgconform.catalog import Catalog
from pgconform.checks import check
from pgconform.contract import Allowed, Contract, Filled, Flag, Report, Total
from pgconform.contract_operations import Metrics
from pgconform.database import Database
from pgconform.model import Finding
from pgconform.probes import figures, rows
from pgconform.probes.owners import owners
from pgconform.subjects import (
    Declared,
    allowed_values,
    filled_columns,
    flags,
    metrics,
    minimums,
    reports,
    totals,
    value_sets,
)  # fmt: skip


@check("values-declared", guide=["vs-5", "vs-6", "vs-2", "muva-20"], when=["daily"], each=value_sets)
def test_every_value_is_a_declared_one(subject: Declared[tuple[str, ...]], database: Database) -> Iterator[Finding]:
    """Every status, direction and role is from the declared set.

    A value that no query asks for is in no report and no list.
    """
    yield from rows.judge(database, rows.outside(subject, subject.needs[0][1][0]))


@check("values-in-bounds", guide=["vs-4", "vs-5"], when=["daily"], each=minimums)
def test_no_value_is_below_its_minimum(subject: Declared[float], database: Database) -> Iterator[Finding]:
    """No amount or duration is below its declared minimum.

    A negative amount turns a revenue into a guess.
    """
    yield from rows.judge(database, rows.below(subject, subject.needs[0][1][0]))


@check("values-filled", guide=["vs-4"], when=["daily"], each=filled_columns)
def test_enough_rows_are_filled(subject: Declared[Filled], database: Database) -> Iterator[Finding]:
    """The share of filled rows reaches the declared minimum.

    A pipeline that stopped writing a column is seen here first.
    """
    total, filled = figures.filled(subject, database)
    if filled < subject.item.share * total:
        lacking = figures.lacking(subject)
        observed = f"{filled / total:.1%} of {total} rows are filled, wanted {subject.item.share:.0%}"
        finding = Finding(subject.table, observed, lacking.delete, subject.name, True, lacking.shown, total - filled)
        yield finding.against(filled / total, subject.item.share, "share")


@check("values-allowed", guide=["vs-2"], when=["daily"], each=allowed_values)
def test_only_the_allowed_rows_hold_a_value(subject: Declared[Allowed], database: Database) -> Iterator[Finding]:
    """Exactly the listed rows hold a value that is reserved to them, such as the role of a platform admin.

    One too many is an intruder or a forgotten test account; one too few locks the owner out.
    """
    yield from figures.compare_allowed(subject, database)


@check("flags-agree", guide=["vs-3"], when=["daily"], each=flags)
def test_every_flag_agrees_with_its_column(subject: Declared[Flag], database: Database) -> Iterator[Finding]:
    """A flag is true just where the column it stands for is filled, and never null.

    A null flag is in neither list, that of the assigned ones and that of the free ones.
    """
    yield from rows.judge(database, rows.flag_differs(subject, subject.item.flag, subject.item.column))


@check("totals-reconcile", guide=["vs-5"], when=["daily"], each=totals)
def test_every_total_is_the_sum_of_its_parts(
    subject: Declared[Total], contract: Contract, catalog: Catalog, database: Database
) -> Iterator[Finding]:
    """Every total is the sum of the rows that belong to it.

    An invoice that is not what was billed is a dispute to come.
    """
    beside = owners(contract, catalog, subject.table, subject.item.key, subject.item.detail)
    yield from rows.judge(database, figures.unequal_totals(subject, beside))


@check("reports-reconcile", guide=["vs-20"], when=["monthly"], each=reports)
def test_every_report_equals_its_base(
    subject: Declared[Report], contract: Contract, database: Database
) -> Iterator[Finding]:
    """Every figure of a report equals what the base tables say.

    A report that counts memberships as users, or refunds as revenue, is wrong without any error.
    """
    reported, actual = figures.report(subject, database)
    if reported != actual:
        promise = contract.tables.get(subject.table)
        remedy = (promise.definition if promise else "") or figures.report_query(subject)
        observed, asked = f"it says {reported}, the base says {actual}", figures.report_query(subject)
        yield Finding(subject.table, observed, remedy, subject.name, rows=asked)


@check("metrics-sound", guide=["vs-31"], when=["daily"], each=metrics)
def test_every_metric_is_known_and_finite(subject: Declared[Metrics], database: Database) -> Iterator[Finding]:
    """The table of measurements has known metrics and finite values only.

    One NaN makes each mean and maximum over it NaN.
    """
    offences = [rows.infinite_metrics(subject)]
    if subject.item.known:
        offences.append(rows.unknown_metrics(subject))
    yield from rows.judge(database, *rows.in_one_scan(*offences))


@check("metrics-fresh", guide=["vs-31"], when=["daily"], each=metrics)
def test_the_metrics_are_fresh(subject: Declared[Metrics], database: Database) -> Iterator[Finding]:
    """The table of measurements has a sample that is recent enough.

    A collector that stopped looks like a quiet database.
    """
    age = figures.newest_hours(subject, database)
    if age > subject.item.hours:
        observed = f"the newest sample is {age:.0f} h old, wanted {subject.item.hours:g} h"
        finding = Finding(subject.table, observed, figures.sample(subject), rows=f"{figures.newest(subject)};")
        yield finding.against(age, subject.item.hours, "hours")
