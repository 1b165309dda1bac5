"""Procedures that make rows: a tenant that is there as a whole or not at all, users who are imported all or none."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgconform.catalog import Catalog
from pgconform.contract import Contract, Members, Registry
from pgconform.model import Finding, Nothing
from pgconform.names import qualified, split
from pgconform.procedures.disturbing import Trial, Values
from pgconform.procedures.stage import Drilled, Stage, State, drilled, registered, staged, tenancy_of, whole
from pgconform.statements import Name, column, joined, statement

if TYPE_CHECKING:
    from pgconform.recovery.copies import Copies

# What fields without a declared value hold: whatever ends a literal, a line or a field somewhere.
TEXTS = (
    "Núñez, \"Ñata\" O'Higgins", "línea uno\nlínea dos\ttab", "50 % {de} $$ \\ $1 :x", "'); select 1; --",
    "日本語 العربية 👩‍💻", " blanks around ",
)  # fmt: skip
SHORT = 3  # rows of a file that is imported often


def onboardings(contract: Contract) -> Iterator[Drilled]:
    """Procedures that make a tenant."""
    for subject in drilled(contract, "onboard"):
        yield Drilled(subject.name, subject.item, _needs(subject, contract))


def imports(contract: Contract) -> Iterator[Drilled]:
    """Procedures that import users."""
    for subject in drilled(contract, "import"):
        fields = [split(f.column) for f in subject.item.rows.values()]
        needs = ((qualified(schema, table), (name,)) for schema, table, name in fields)
        yield Drilled(subject.name, subject.item, (*_needs(subject, contract), *needs))


def _needs(subject: Drilled, contract: Contract) -> tuple[tuple[str, tuple[str, ...]], ...]:
    registry, members = registered(contract, subject.item)
    parts = [(part.table, (part.column,)) for part in tenancy_of(contract, subject.item).complete]
    return (registry.table, (registry.key,)), (members.table, (members.user, members.tenant)), *parts


@dataclass(slots=True)
class Making:
    """One run after another on one copy, each beginning at a mark."""

    subject: Drilled
    stage: Stage
    contract: Contract
    catalog: Catalog

    @property
    def registry(self) -> Registry:
        return registered(self.contract, self.subject.item)[0]

    @property
    def members(self) -> Members:
        return registered(self.contract, self.subject.item)[1]

    def run(self) -> tuple[str, list[str]]:
        """One run: what it was refused by, and the tables that it changed."""
        changed = self.stage.watched(whole(self.catalog))
        return self.stage.run().error, changed()

    def tenants(self) -> set[str]:
        """The keys of the registry, as text."""
        question = "select {k}::text from {t} as r"
        parts = {"k": column(self.registry.key), "t": Name.of(self.registry.table)}
        return {key for (key,) in self.stage.rows(statement(question, **parts))}

    def missing(self, tenant: str) -> Iterator[tuple[str, str]]:
        """What makes a tenant incomplete: the table, and what is not there."""
        tenancy, members = tenancy_of(self.contract, self.subject.item), self.members
        for part in tenancy.complete:
            if not self._has(part.table, {part.column: tenant}):
                yield part.table, "the new tenant has no row"
        wanted = {members.tenant: tenant, members.user: str(self.stage.values["user"])}
        admin = {members.role: members.admin} if members.role and members.admin else {}
        if not self._has(members.table, wanted | admin):
            yield members.table, f"the user is no {members.admin or 'member'} of the new tenant"

    def _has(self, table: str, values: dict[str, str]) -> bool:
        where = joined((statement("{c}::text = {v}", c=column(c), v=v) for c, v in values.items()), " and ")
        return bool(self.stage.rows(statement("select 1 from {t} as r where {w} limit 1", t=Name.of(table), w=where)))

    def somebody(self) -> str:
        """A user as a text: somebody without a membership where there is one. Raises Nothing."""
        users = split(self.members.users) if self.members.users else (*split(self.members.table), self.members.user)
        question = statement(
            "select {u}::text from {t} as r order by exists (select from {m} as m where {mu} = {u}), {u} limit 1",
            u=column(users[2]), t=Name(users[:2]), m=Name.of(self.members.table), mu=column(self.members.user, "m"),
        )  # fmt: skip
        if found := self.stage.rows(question):
            return str(found[0][0])
        raise Nothing(f"{qualified(*users[:2])} has no user who could found a tenant")

    def finding(self, table: str, words: str, detail: str) -> Finding:
        return Finding(table, words, self.subject.remedy, detail)


def onboarded(subject: Drilled, contract: Contract, catalog: Catalog, copies: Copies) -> Iterator[Finding]:
    """What a new tenant lacks, what a second run does to it, and what remains where a step fails."""
    with staged(copies, subject) as stage:
        making = Making(subject, stage, contract, catalog)
        stage.values = {"user": making.somebody()}
        before = making.tenants()
        error, touched = making.run()
        if error:
            yield making.finding(str(subject), f"it is refused: {error}", "refused")
        if len(making.tenants() - before) != 1:
            words = f"it makes {len(making.tenants() - before)} tenants, not one"
            yield making.finding(making.registry.table, words, "made")
        yield from _complete(making, before, "")
        yield from _again(making)
    with staged(copies, subject) as stage:
        making = Making(subject, stage, contract, catalog)
        stage.values = {"user": making.somebody()}
        for place in touched:
            with stage.trigger(place, "insert or update or delete", "fail"):
                _, remains = making.run()
            if remains:
                words = f"its write fails, and what was written before remains in {', '.join(remains)}"
                yield making.finding(place, words, "half")
                return


def onboarding(subject: Drilled, contract: Contract, catalog: Catalog, copies: Copies) -> Trial:
    """Twice the same words, by the same user."""

    def values(stage: Stage) -> list[Values]:
        return [{"user": Making(subject, stage, contract, catalog).somebody()}] * 2

    return Trial(subject, catalog, copies, values, _state(subject, catalog))


def _state(subject: Drilled, catalog: Catalog) -> Callable[[Stage], State]:
    """Looks at every table, but for unlogged ones that it has nothing to do with: a crash empties those in any case."""
    declared = {name for name, _ in subject.needs}
    unlogged = {str(table) for table in catalog.tables if table.persistence == "u"}
    tables = {name: rows for name, rows in whole(catalog).items() if name in declared or name not in unlogged}
    return lambda stage: dict(stage.sizes(tables))


def _complete(making: Making, before: set[str], when: str) -> Iterator[Finding]:
    for tenant in sorted(making.tenants() - before):
        for table, words in making.missing(tenant):
            yield making.finding(table, words + when, "incomplete")


def _again(making: Making) -> Iterator[Finding]:
    """A second run with the same words makes nothing, or another tenant that is as complete."""
    before = making.tenants()
    _, touched = making.run()
    if touched and making.tenants() == before:
        words = f"a second run makes no tenant, and leaves rows in {', '.join(touched)}"
        yield making.finding(making.registry.table, words, "again")
    yield from _complete(making, before, " after a second run")


# -- imports ----------------------------------------------------------------------------------------------------


def imported(subject: Drilled, contract: Contract, catalog: Catalog, copies: Copies) -> Iterator[Finding]:
    """What good rows lose on their way, and what bad ones leave behind."""
    with staged(copies, subject) as stage:
        making = Making(subject, stage, contract, catalog)
        tenants = sorted(making.tenants())
        if len(tenants) < 2:
            raise Nothing(f"{making.registry.table} has no two tenants")
        stage.values["tenant"] = tenants[0]
        told: dict[str, Finding] = {}
        for name, rows in _bad(making, tenants[1]):
            stage.values["rows"] = json.dumps(rows, ensure_ascii=False)
            error, touched = making.run()
            remains = f"leaves rows in {', '.join(touched)}" if touched else "" if error else "is not refused"
            if remains:
                told.setdefault(
                    name, making.finding(str(subject), f"a file with a bad {name} {remains}", f"bad {name}")
                )
        yield from told.values()
        rows = _good_rows(making, len(TEXTS))
        stage.values["rows"] = json.dumps(rows, ensure_ascii=False)
        yield from _good(making, rows)


def importing(subject: Drilled, contract: Contract, catalog: Catalog, copies: Copies) -> Trial:
    """Twice the same good file."""

    def values(stage: Stage) -> list[Values]:
        making = Making(subject, stage, contract, catalog)
        tenants = making.tenants()
        if not tenants:
            raise Nothing(f"{making.registry.table} has no tenant")
        stage.values = {"tenant": min(tenants)}
        rows = json.dumps(_good_rows(making, SHORT), ensure_ascii=False)
        return [stage.values | {"rows": rows}] * 2

    return Trial(subject, catalog, copies, values, _state(subject, catalog))


def _good_rows(making: Making, count: int) -> list[dict[str, str]]:
    return [_row(making, 100 + n) for n in range(count)]


def _row(making: Making, number: int) -> dict[str, str]:
    """A good row; fields without a declared value take one of the difficult texts."""
    tenant = str(making.stage.values["tenant"])
    return {
        name: field.value.replace("{n}", str(number)).replace("{tenant}", tenant) or TEXTS[number % len(TEXTS)]
        for name, field in making.subject.item.rows.items()
    }


def _bad(making: Making, other: str) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Files whose last row is bad, each with what is bad: the name of the field, and a repeated row."""
    number = 0
    fields = making.subject.item.rows
    for name, field in fields.items():
        for value in field.refused:
            number += 3
            rows = [_row(making, number + n) for n in range(3)]
            rows[-1][name] = value.replace("{other}", other)
            yield name, rows
    if any("{n}" in field.value for field in fields.values()):
        rows = [_row(making, number + 3), _row(making, number + 4)]
        yield "repetition", [*rows, rows[-1]]


def _good(making: Making, rows: list[dict[str, str]]) -> Iterator[Finding]:
    """A good file arrives in full, exactly, and nowhere else; a second time it adds nothing."""
    error, _ = making.run()
    if error:
        yield making.finding(str(making.subject), f"a good file is refused: {error}", "refused")
        return
    targets: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for name, field in making.subject.item.rows.items():
        schema, table, arrives = split(field.column)
        targets.setdefault((schema, table), []).append((name, arrives))
    for place, pairs in targets.items():
        wanted = Counter(tuple(row[name] for name, _ in pairs) for row in rows)
        listed = joined(statement("{c}::text", c=column(c)) for _, c in pairs)
        found = statement("select {l} from {t} as r where {f}", l=listed, t=Name(place), f=making.stage.fresh())
        arrived = Counter(making.stage.rows(found))
        if lost := (wanted - arrived).total():
            words = f"{lost} of {len(rows)} good rows did not arrive as they were"
            yield making.finding(qualified(*place), words, "lost")
        if more := (arrived - wanted).total():
            yield making.finding(qualified(*place), f"{more} row(s) arrived that were not in the file", "more")
    for name in making.stage.again(whole(making.catalog), making.subject.item.stamps):
        yield making.finding(name, "the same file again changes rows", "again")
