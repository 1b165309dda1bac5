"""What the correction of a row may change: the declared columns of the rows concerned, and the time of the change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pgconform.catalog import Catalog, Table
from pgconform.contract import Contract
from pgconform.model import Finding, Nothing
from pgconform.names import quote
from pgconform.procedures import disturbing
from pgconform.procedures.disturbing import Trial, Values
from pgconform.procedures.stage import Drilled, Stage, drilled, staged
from pgconform.statements import Name, Statement, column, equal, joined, statement

if TYPE_CHECKING:
    from pgconform.recovery.copies import Copies


def fixes(contract: Contract) -> Iterator[Drilled]:
    """Procedures that correct a row."""
    yield from drilled(contract, "fix")


def exact(subject: Drilled, contract: Contract, catalog: Catalog, copies: Copies) -> Iterator[Finding]:
    """What a correction changes beyond what it declares, and rows that it changes without saying when."""
    tables = [table for name in subject.item.changes if (table := catalog.table(name))]
    key = column(_key(tables[0]))
    with staged(copies, subject) as stage:
        picked = statement("select {k}::text from {t} as r order by {k} limit 1", k=key, t=_name(tables[0]))
        found = stage.rows(picked)
        if not found:
            raise Nothing(f"{tables[0]} has no row to correct")
        stage.values["key"] = found[0][0]
        for table in tables:
            keep = "insert into pgconform_drill.kept select {n}, pg_catalog.to_jsonb(r) from {t} as r"
            stage.rows(statement(keep, n=str(table), t=_name(table)))
        whole = {n: statement("true") for n in contract.tables if (t := catalog.table(n)) and t.stores_rows}
        before = stage.sizes(whole)
        if error := stage.run().error:
            yield Finding(str(subject), f"it is refused: {error}", subject.remedy, "refused")
        for name, (rows, fresh) in stage.sizes(whole).items():
            if (fresh and name not in subject.item.changes) or rows != before[name][0]:
                yield Finding(name, "rows are written that it does not declare", subject.remedy, "undeclared")
        for table in tables:
            yield from _odd(subject, stage, table)
        name = str(tables[0])
        written = stage.sizes(whole)[name][1]
        one = stage.sizes({name: statement("{k}::text = {key}", k=key, key=stage.values["key"])})[name][1]
        if not one:
            yield Finding(name, "the row that it is told to correct is not changed", subject.remedy, "unchanged")
        if written > one:
            yield Finding(name, f"{written - one} other row(s) are changed, too", subject.remedy, "others")
        for name in stage.again(whole, subject.item.stamps):
            yield Finding(name, "a second run changes rows once more", subject.remedy, "again")


def fixing(subject: Drilled, catalog: Catalog, copies: Copies) -> Trial:
    """The corrections of two rows, of the same parents where there are any."""
    tables = [table for name in subject.item.changes if (table := catalog.table(name))]
    first, key = tables[0], _key(tables[0])

    def values(stage: Stage) -> list[Values]:
        parents = [statement("(({e}) is true)::int", e=equal(k.columns, "a", "b")) for k in first.foreign_keys()]
        shared = joined([statement("0"), *parents], " + ")
        question = statement(
            "select a.{k}::text, b.{k}::text from {t} as a join {t} as b on a.{k} <> b.{k}"
            " order by {shared} desc, a.{k}, b.{k} limit 1",
            k=Name((key,)), t=_name(first), shared=shared,
        )  # fmt: skip
        if found := stage.rows(question):
            return [{"key": key} for key in found[0]]
        raise Nothing(f"{first} has no two rows to correct")

    names = [str(table) for table in tables]
    return Trial(subject, catalog, copies, values, lambda stage: stage.digests(names, subject.item.stamps))


def undisturbed(subject: Drilled, catalog: Catalog, copies: Copies) -> Iterator[Finding]:
    """What another session writes into the row meanwhile and loses; and what comes of two corrections at once."""
    trial = fixing(subject, catalog, copies)
    table = next(stored for name in subject.item.changes if (stored := catalog.table(name)))
    with staged(copies, subject) as stage:
        stage.values = trial.values(stage)[0]
        row = statement("{k}::text = {key}", k=column(_key(table)), key=stage.values["key"])
        kept = statement(
            "select pg_catalog.to_jsonb(r) - {ignored}::text[] from {t} as r where {row}",
            ignored=(*subject.item.changes[str(table)], subject.item.stamps), t=_name(table), row=row,
        )  # fmt: skip
        with stage.held(str(table)) as run:
            for name in _free(subject, table) if run.pid else ():
                stage.beside(statement(
                    "update {t} as r set {c} = (select o.{c} from {t} as o"
                    " where o.{c}::text is distinct from r.{c}::text order by o.{k} limit 1) where {row}",
                    t=_name(table), c=Name((name,)), k=Name((_key(table),)), row=row,
                ), triggers=False)  # fmt: skip
            written = stage.rows(kept)
        lost = stage.rows(kept) != written
    if lost:
        words = "what another session wrote into the row meanwhile, into other columns, is lost"
        yield Finding(str(table), words, subject.remedy, "lost")
    yield from disturbing.undisturbed(trial)


def _free(subject: Drilled, table: Table) -> list[str]:
    """Columns that nobody but their own writers should change, and that may have any other row's value."""
    bound = {*subject.item.changes[str(table)], subject.item.stamps, *table.primary_key}
    bound |= {c for key in table.foreign_keys() for c in key.columns}
    return [c.name for c in table.columns if c.name not in bound and not c.generated and not c.identity]


def _key(table: Table) -> str:
    """The column of the primary key; a row with a compound one has no name. Raises Nothing."""
    if len(table.primary_key) != 1:
        raise Nothing(f"{table} has no primary key of one column")
    return table.primary_key[0]


def _name(table: Table) -> Name:
    return Name((table.schema, table.name))


def _odd(subject: Drilled, stage: Stage, table: Table) -> Iterator[Finding]:
    """Changed rows whose other columns are not as they were, or whose time of change is not later."""
    columns, stamps = subject.item.changes[str(table)], subject.item.stamps
    if table.column(stamps) is None:
        remedy = f"alter table {table} add column {quote(stamps)} timestamp with time zone not null default now();"
        words = f"without a column {quote(stamps)}, nothing says when a row was changed"
        yield Finding(str(table), words, remedy, "unstamped")
        return
    for kind, where, words in (
        ("audit", _differ((*columns, stamps)), f"changed in more than {', '.join(columns)}"),
        ("unstamped", _unstamped(stamps), f"changed without a later {stamps}"),
    ):
        question = statement(
            "select pg_catalog.count(*) from (select pg_catalog.to_jsonb(r) as content from {t} as r where {fresh})"
            " as n join pgconform_drill.kept as k on k.relation = {name} and n.content ->> {key} = k.content ->> {key}"
            " where {where}",
            t=_name(table), fresh=stage.fresh(), name=str(table), key=_key(table), where=where,
        )  # fmt: skip
        if count := stage.count(question):
            yield Finding(str(table), f"{count} row(s) are {words}", subject.remedy, kind)


def _differ(ignored: tuple[str, ...]) -> Statement:
    return statement("n.content - {i}::text[] <> k.content - {i}::text[]", i=ignored)


def _unstamped(stamps: str) -> Statement:
    return statement("((n.content ->> {s})::timestamptz > (k.content ->> {s})::timestamptz) is not true", s=stamps)
