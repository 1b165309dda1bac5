"""What the last recorded run measured, for the table in which a database keeps its own measurements."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches

from pgconform.checks import Evidence
from pgconform.contract import Contract
from pgconform.database import Database
from pgconform.model import Mistake, NotVerified
from pgconform.statements import Name, statement


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement; ``time`` is when the run that made it began."""

    metric: str
    value: float
    time: datetime


def rows(evidence: Evidence) -> tuple[list[Row], list[str]]:
    """The metrics that the contract maps to figures, as the last run measured them; and a line about each that it did
    not measure.

    Raises Mistake where the contract maps none, or no run has measured any; NotVerified.
    """
    metrics = evidence.contract.metrics
    if metrics is None or not metrics.figures:
        raise Mistake(f"contract {evidence.contract.name} maps no metric to a figure; say so in [metrics.figures]")
    latest = evidence.history.latest() if evidence.history else None
    if latest is None or evidence.history is None:
        raise Mistake("no run about this database is recorded; run pgconform first, or name another --history=")
    when, measured = latest
    found = [Row(metric, measured[figure], when) for metric, figure in metrics.figures.items() if figure in measured]
    known = evidence.history.all_series("").keys() | measured.keys()
    lacking = [_lacking(m, figure, sorted(known)) for m, figure in metrics.figures.items() if figure not in measured]
    if not found:
        raise Mistake(f"the last recorded run measured none of the mapped figures: {'; '.join(lacking)}")
    return found, lacking


def _lacking(metric: str, figure: str, known: Sequence[str]) -> str:
    if figure in known:
        return f"{metric}: the last recorded run did not measure {figure!r}, as earlier ones did"
    near = get_close_matches(figure, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else "pgconform history lists what runs measure"
    return f"{metric}: no run has measured {figure!r}; {hint}"


def write(database: Database, contract: Contract, found: Sequence[Row]) -> str:
    """Insert the rows that are not there yet, and say how many these were. Raises Mistake where that is refused."""
    assert contract.metrics, "rows were made from it"
    metrics, written = contract.metrics, 0
    for row in found:
        command = statement(
            "insert into {table} ({name}, {value}, {time}) select {metric}, {measured}::float8, {when}::timestamptz"
            " where not exists (select from {table} as m where m.{name}::text = {metric}"
            " and m.{time} = {when}::timestamptz) returning 1",
            table=Name.of(metrics.table), name=Name((metrics.name,)), value=Name((metrics.value,)),
            time=Name((metrics.time,)), metric=row.metric, measured=row.value, when=row.time,
        )  # fmt: skip
        try:
            written += len(database.rows(command, f"writing to {metrics.table}"))
        except NotVerified as refusal:
            advice = _advice(database, metrics.table, refusal.state)
            raise Mistake(f"{metrics.table} cannot be written: {refusal.said}; {advice}") from None
    return f"{written} row(s) written to {metrics.table}"


def _advice(database: Database, table: str, state: str) -> str:
    """What to do about a refusal. Our sessions turn row security off, so that it is an error where it would hide rows:
    those that are there already would be written again."""
    role = "the role that pgconform metrics connects as"
    if state != "42501":
        return "compare it with [metrics] in the contract, and see which locks others hold on it"
    asked = statement("select pg_catalog.row_security_active({table})", table=table)
    with suppress(NotVerified):  # no right to look into its schema
        if database.one(asked, "asking for row security")[0]:
            return f"row security may hide its rows; give {role} BYPASSRLS, or connect as its owner if that is exempt"
    return f"grant SELECT and INSERT on it to {role}"
