"""What a merge of two tenants must do, computed by ourselves: all rows of the second are the first one's, no more."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from pgconform.catalog import Catalog, Column
from pgconform.contract import Contract, Members, Registry
from pgconform.contract_operations import Procedure
from pgconform.model import Finding, Nothing, NotVerified
from pgconform.procedures import disturbing
from pgconform.procedures.disturbing import Trial, Values
from pgconform.procedures.stage import Drilled, Stage, State, drilled, registered, staged, tenancy_of
from pgconform.statements import Name, Statement, column, joined, statement

if TYPE_CHECKING:
    from pgconform.recovery.copies import Copies

# Rows of one tenant, without what a merge may change, each as often as it is there.
_CUT = "pg_catalog.to_jsonb(r) - {ignored}::text[]"
_KEEP = "insert into pgconform_drill.kept select {name}, {cut} from {t} as r where {tenant}::text in ({keep}, {gone})"
_COMPARED = (
    "select coalesce(pg_catalog.sum(k.n - coalesce(f.n, 0)) filter (where coalesce(f.n, 0) < k.n), 0)::bigint,"
    " coalesce(pg_catalog.sum(f.n - k.n) filter (where f.n > k.n), 0)::bigint"
    " from (select k.content, pg_catalog.count(*) as n from pgconform_drill.kept as k where k.relation = {name}"
    " group by 1) as k left join (select {cut} as content, pg_catalog.count(*) as n from {t} as r"
    " where {tenant}::text = {keep} group by 1) as f on f.content = k.content"
)
# How columns of a type are added up, by pg_type.oid: numbers, money, intervals.
NUMBERS = dict.fromkeys((20, 21, 23, 700, 701, 790, 1700), "{c}::numeric") | {
    1186: "pg_catalog.date_part('epoch', {c})::numeric"
}


def merges(contract: Contract) -> Iterator[Drilled]:
    """Procedures that merge two tenants."""
    for subject in drilled(contract, "merge"):
        registry, _ = registered(contract, subject.item)
        listed = ((n, (c,)) for n, c in _tables(contract, subject.item) if not contract.tables[n].optional)
        yield Drilled(subject.name, subject.item, ((registry.table, (registry.key,)), *listed))


def _tables(contract: Contract, item: Procedure) -> list[tuple[str, str]]:
    """Tables with rows of the tenancy's tenants, and the column that names the tenant; the members' comes first."""
    registry, members = registered(contract, item)
    found = {members.table: members.tenant}
    for name in contract.tenant_tables():
        if contract.tenancy_of(contract.tables[name]) == tenancy_of(contract, item) and name != registry.table:
            found[name] = contract.column_of(name)
    return list(found.items())


@dataclass(slots=True)
class Merging:
    """One merge on one copy."""

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

    def tables(self) -> list[tuple[str, str]]:
        """The tenant tables that store rows, with their tenant's column."""
        listed = _tables(self.contract, self.subject.item)
        return [(n, c) for n, c in listed if (stored := self.catalog.table(n)) and stored.stores_rows]

    def listed(self) -> list[tuple[str, str]]:
        """These, and the registry, each with the column that names the tenant."""
        return [*self.tables(), (self.registry.table, self.registry.key)]

    def choose(self) -> None:
        """Two tenants with as many common members as there are. Raises Nothing where there are no two."""
        question = statement(
            "select a.{k}::text, b.{k}::text from {r} as a join {r} as b on a.{k} <> b.{k} order by"
            " (select pg_catalog.count(*) from {m} as x join {m} as y on x.{u} = y.{u}"
            " where x.{t} = a.{k} and y.{t} = b.{k}) desc, a.{k}, b.{k} limit 1",
            k=Name((self.registry.key,)), r=Name.of(self.registry.table), m=Name.of(self.members.table),
            u=Name((self.members.user,)), t=Name((self.members.tenant,)),
        )  # fmt: skip
        found = self.stage.rows(question)
        if not found:
            raise Nothing(f"{self.registry.table} has no two tenants")
        self.stage.values = dict(zip(("keep", "gone"), found[0], strict=True))
        for name, tenant in self.tables():
            self.stage.rows(statement(_KEEP, **self._of(name, tenant)))

    def _of(self, name: str, tenant: str) -> dict[str, object]:
        cut = statement(_CUT, ignored=self._ignored(name, tenant))
        if name == self.members.table:
            cut = statement("pg_catalog.to_jsonb(r.{u})", u=Name((self.members.user,)))
        parts: dict[str, object] = {"name": name, "cut": cut, "t": Name.of(name), "tenant": column(tenant)}
        return parts | self.stage.values

    def _ignored(self, name: str, tenant: str) -> tuple[str, ...]:
        """Columns that a merge may change: the tenant, the time of the change, and names unique within a tenant."""
        stored = self.catalog.table(name)
        assert stored, "an absent table is skipped before"
        keys = [c.columns for c in stored.constraints if c.kind == "u"]
        keys += [i.columns for i in stored.indexes if i.unique and not i.primary]
        fixed = {*stored.primary_key, *(c for k in stored.foreign_keys() for c in k.columns)}
        named = {c for key in keys if tenant in key for c in key} - fixed
        return (tenant, self.subject.item.stamps, *sorted(named - {tenant, ""}))

    def whole(self) -> dict[str, Statement]:
        """Every declared table that stores rows, with all its rows."""
        stored = ((n, self.catalog.table(n)) for n in self.contract.tables)
        return {name: statement("true") for name, table in stored if table and table.stores_rows}

    def strangers(self) -> dict[str, Statement]:
        """The tables of the tenancy, with the rows of other tenants, or of none."""
        listed = [*self.tables(), (self.registry.table, self.registry.key)]
        return {
            name: statement("({tenant}::text in ({keep}, {gone})) is not true", tenant=column(c), **self.stage.values)
            for name, c in listed
        }

    def differences(self) -> Iterator[tuple[str, str, str]]:
        """Table, kind and words of each difference to what must be there."""
        for name, tenant in self.tables():
            parts = self._of(name, tenant)
            left = statement("select pg_catalog.count(*) from {t} as r where {tenant}::text = {gone}", **parts)
            if count := self.stage.count(left):
                yield name, "left", f"{count} row(s) still belong to the second tenant"
            lost, doubled = self.stage.rows(statement(_COMPARED, **parts))[0]
            if name == self.members.table:  # who belonged to both belongs once
                lost, doubled = self._members(parts)
            if lost - (count if name != self.members.table else 0) > 0:
                yield name, "lost", f"{lost - count} row(s) are lost, or changed in more than their tenant"
            if doubled > 0:
                yield name, "doubled", f"{doubled} row(s) are there twice"
        yield from self._registered()

    def _members(self, parts: dict[str, object]) -> tuple[int, int]:
        """Users of either tenant who are in neither now, and those who are in the first more than once."""
        lost = statement(
            "select pg_catalog.count(distinct k.content) from pgconform_drill.kept as k where k.relation = {name} and"
            " not exists (select from {t} as r where {tenant}::text in ({keep}, {gone}) and {cut} = k.content)",
            **parts,
        )
        twice = statement(
            "select pg_catalog.count(*) from (select {cut} from {t} as r where {tenant}::text = {keep} group by 1"
            " having pg_catalog.count(*) > 1) as d",
            **parts,
        )
        return self.stage.count(lost), self.stage.count(twice)

    def _registered(self) -> Iterator[tuple[str, str, str]]:
        """The first tenant is still there; the second one is gone, or not active, as the contract says."""
        question = "select pg_catalog.count(*) from {t} as r where {k}::text = {tenant}{more}"
        parts: dict[str, object] = {"t": Name.of(self.registry.table), "k": column(self.registry.key)}
        keep, gone = self.stage.values["keep"], self.stage.values["gone"]
        if not self.stage.count(statement(question, **parts, tenant=keep, more=statement(""))):
            yield self.registry.table, "lost", "the first tenant is gone"
        inactive = self.subject.item.retires == "inactive" and self.registry.active
        more = statement(" and {a}", a=column(self.registry.active)) if inactive else statement("")
        if self.stage.count(statement(question, **parts, tenant=gone, more=more)):
            yield self.registry.table, "left", f"the second tenant is still {'active' if inactive else 'registered'}"


# -- writers beside it ----------------------------------------------------------------------------------------------


def undisturbed(subject: Drilled, contract: Contract, catalog: Catalog, copies: Copies) -> Iterator[Finding]:
    """What becomes of rows that others add for the second tenant just before it is retired; and what comes of two
    merges at once.

    Whoever has to wait for the merge is refused in the end, and has lost nothing that the server had accepted.
    """
    try:
        lost = list(_beside(subject, contract, catalog, copies))
    except Nothing:  # no row can be lost with the tenant, but two merges may count some twice
        lost = []
    yield from lost or disturbing.undisturbed(_again(subject, contract, catalog, copies), last=1)  # of many tables


def _beside(subject: Drilled, contract: Contract, catalog: Catalog, copies: Copies) -> Iterator[Finding]:
    with staged(copies, subject) as stage:
        merging = Merging(subject, stage, contract, catalog)
        merging.choose()
        taken = [name for name, tenant in merging.tables() if _taken(merging, name, tenant)]
        if not taken:
            raise Nothing("the second tenant has no row that could be lost with it")
        with stage.held(merging.registry.table, "update or delete") as run:
            added = [name for name, tenant in merging.tables() if run.pid and name in taken
                     and _added(merging, name, tenant)]  # fmt: skip
        if not run.pid and not run.error:
            raise NotVerified(f"{subject}: the procedure was never seen writing {merging.registry.table}")
        if run.error:
            return  # it was refused as a whole, or merge-complete says so
        for name, kind, words in merging.differences():
            when = f", where {len(added)} row(s) were added while it ran"
            yield Finding(name, words + when, subject.remedy, kind)


def _taken(merging: Merging, name: str, tenant: str) -> bool:
    """Take one of the second tenant's rows out of a table to which none refers, to be added later; False where there is
    none, or where the server itself keeps a tenant with such rows from being deleted."""
    stage, referred = merging.stage, {k.references for t in merging.catalog.tables for k in t.foreign_keys()}
    stored = merging.catalog.table(name)
    keys = [k for k in stored.foreign_keys() if k.references == merging.registry.table] if stored else []
    kept = merging.subject.item.retires == "deleted" and any(k.on_delete in ("restrict", "no action") for k in keys)
    if name in referred or kept:
        return False
    parts = merging._of(name, tenant) | {"taken": _place(name)}
    stage.rows(statement(
        "create table {taken} as select r.* from {t} as r where (r.tableoid, r.ctid) ="
        " (select x.tableoid, x.ctid from {t} as x where x.{column}::text = {gone} order by x.ctid limit 1)",
        column=Name((tenant,)), **parts,
    ))  # fmt: skip
    stage.say("set session_replication_role = replica")  # nothing else may happen to it meanwhile
    stage.rows(statement("delete from {t} as r using {taken} as x where r.* is not distinct from x.*", **parts))
    stage.say("set session_replication_role = origin")
    stage.rows(statement(
        "delete from pgconform_drill.kept as k where k.ctid = (select o.ctid from pgconform_drill.kept as o"
        " join (select {cut} as content from {taken} as r) as x on x.content = o.content"
        " where o.relation = {name} limit 1)",
        **parts,
    ))  # fmt: skip
    return bool(stage.count(statement("select pg_catalog.count(*) from {taken}", **parts)))


def _added(merging: Merging, name: str, tenant: str) -> bool:
    """Another session adds the row, and it is remembered as it arrived; False where it was locked out, or refused."""
    stored = merging.catalog.table(name)
    assert stored, "an absent table is skipped before"
    columns = joined(Name((c.name,)) for c in stored.columns if not c.generated)
    command = statement(
        "with r as (insert into {t} ({columns}) overriding system value select {columns} from {taken} returning *)"
        " insert into pgconform_drill.kept select {name}, {cut} from r",
        columns=columns, taken=_place(name), **merging._of(name, tenant),
    )  # fmt: skip
    return merging.stage.beside(command)


def _place(name: str) -> Name:
    """Where a row that was taken out of the table is kept."""
    return Name(("pgconform_drill", f"taken {sha256(name.encode()).hexdigest()[:16]}"))


def _again(subject: Drilled, contract: Contract, catalog: Catalog, copies: Copies) -> Trial:
    """Twice the same two tenants: how many rows each has then, and what their numbers add up to.

    Numbers that two runs in peace, on two copies, leave differently are no measure: times, and what is drawn.
    """

    def values(stage: Stage) -> list[Values]:
        Merging(subject, stage, contract, catalog).choose()
        return [stage.values] * 2

    def state(stage: Stage) -> State:
        merging = Merging(subject, stage, contract, catalog)
        return {name: stage.rows(_added_up(merging, name, tenant, unsteady)) for name, tenant in merging.listed()}

    def in_peace() -> dict[tuple[str, str], list[object]]:
        with staged(copies, subject) as stage:
            stage.values = values(stage)[0]
            stage.run()
            merging, sums = Merging(subject, stage, contract, catalog), {}
            for name, tenant in merging.listed():
                rows = stage.rows(_added_up(merging, name, tenant, frozenset()))
                for place, number in enumerate(_numbers(merging, name), 2):
                    sums[name, number.name] = [row[place] for row in rows]
            return sums

    once = in_peace()
    time.sleep(1)  # so that times in seconds differ, too
    other = in_peace()
    unsteady = frozenset(number for number, sums in once.items() if sums != other[number])
    return Trial(subject, catalog, copies, values, state)


def _numbers(merging: Merging, name: str) -> list[Column]:
    """Columns of numbers that tell no rows apart, are no declared stamps, and come of no sequence: a refused run draws
    from it, too."""
    stored = merging.catalog.table(name)
    assert stored, "an absent table is skipped before"
    telling = {c for key in stored.constraints if key.kind in "pfu" for c in key.columns}
    telling |= {c for index in stored.indexes if index.unique for c in index.columns}
    telling.add(merging.subject.item.stamps)
    given = (c for c in stored.columns if not c.identity and "nextval(" not in (c.default or ""))
    return [c for c in given if c.base_oid in NUMBERS and c.name not in telling]


def _added_up(merging: Merging, name: str, tenant: str, unsteady: frozenset[tuple[str, str]]) -> Statement:
    counted = [c for c in _numbers(merging, name) if (name, c.name) not in unsteady]
    sums = [statement(f"pg_catalog.sum({NUMBERS[c.base_oid]})::text", c=column(c.name)) for c in counted]
    return statement(
        "select {c}::text, {listed} from {t} as r where {c}::text in ({keep}, {gone}) group by 1 order by 1",
        c=column(tenant), listed=joined([statement("pg_catalog.count(*)"), *sums]), t=Name.of(name),
        **merging.stage.values,
    )  # fmt: skip


def complete(subject: Drilled, contract: Contract, catalog: Catalog, copies: Copies) -> Iterator[Finding]:
    """What is not as it should be after a merge, and what a second run changes."""
    with staged(copies, subject) as stage:
        merging = Merging(subject, stage, contract, catalog)
        merging.choose()
        changed = stage.watched(merging.whole())
        strangers, others = stage.sizes(merging.strangers()), stage.sizes(merging.whole())
        known = {*merging.strangers()}
        if error := stage.run().error:
            yield Finding(str(subject), f"it is refused: {error}", subject.remedy, "refused")
            if not changed():
                return
        for name, kind, words in merging.differences():
            yield Finding(name, words, subject.remedy, kind)
        for name, (rows, fresh) in stage.sizes(merging.strangers()).items():
            if fresh or rows != strangers[name][0]:
                yield Finding(name, "rows of other tenants were changed", subject.remedy, "others")
        for name, (rows, _) in stage.sizes(merging.whole()).items():
            if name not in known and rows < others[name][0]:
                words = f"{others[name][0] - rows} row(s) that are no tenant's are lost"
                yield Finding(name, words, subject.remedy, "lost")
        for name in stage.again(others, subject.item.stamps):
            yield Finding(name, "a second run changes rows", subject.remedy, "again")


def interrupted(subject: Drilled, contract: Contract, catalog: Catalog, copies: Copies) -> Iterator[Finding]:
    """What a merge leaves behind whose session is ended while it writes."""
    with staged(copies, subject) as stage:
        merging = Merging(subject, stage, contract, catalog)
        merging.choose()
        reached = 0
        for place in (merging.registry.table, *(name for name, _ in merging.tables())):
            changed = stage.watched(merging.whole())
            stopped = stage.stopped((place, 1))
            reached += stopped
            if stopped and (touched := changed()):
                words = f"stopped while it wrote this table, it left {len(touched)} table(s) changed: "
                yield Finding(place, words + ", ".join(touched), subject.remedy, "half")
                return
            if not stopped and changed():
                break  # it has run to its end, without a look at this table
        if not reached:
            raise NotVerified(f"{subject}: the procedure was never seen writing a table of the tenancy")
