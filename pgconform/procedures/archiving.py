"""What an archiving must do, computed by ourselves: every old row moves once, with all that hangs on it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgconform.catalog import Catalog
from pgconform.contract import Contract, Retention
from pgconform.model import Finding, Nothing, NotVerified
from pgconform.probes.owners import owners
from pgconform.procedures.disturbing import told
from pgconform.procedures.stage import Drilled, Stage, drilled, staged
from pgconform.statements import Name, Statement, column, columns, joined, statement

if TYPE_CHECKING:
    from pgconform.recovery.copies import Copies

# A month or year of the calendar is up to this many days shorter than the days that a retention is told in.
CALENDAR = 4
FAR = 10  # days beyond the retention, for rows that are surely old
_LOST = "{} row(s) are neither live nor archived as they were"
_DOUBLED = "{} row(s) are there twice"

# The documents in which an archive may hold rows: its own rows cut to the columns, and any JSON object in them.
_DOCUMENTS = (
    "select (select pg_catalog.jsonb_object_agg(e.key, e.value) from pg_catalog.jsonb_each(pg_catalog.to_jsonb(a)) as e"
    " where e.key = any({columns}::text[])) as content from {archive} as a"
    " union all select e.value from {archive} as a, pg_catalog.jsonb_each(pg_catalog.to_jsonb(a)) as e"
    " where pg_catalog.jsonb_typeof(e.value) = 'object'"
)
_COMPARED = (
    "select coalesce(pg_catalog.sum(k.n - coalesce(f.n, 0)) filter (where coalesce(f.n, 0) < k.n), 0)::bigint,"
    " coalesce(pg_catalog.sum(f.n - k.n) filter (where f.n > k.n), 0)::bigint"
    " from (select k.content, pg_catalog.count(*) as n from pgconform_drill.kept as k where k.relation = {name}"
    " group by 1) as k left join (select f.content, pg_catalog.count(*) as n from ({found}) as f group by 1) as f"
    " on f.content = k.content"
)
_KEEP = "insert into pgconform_drill.kept select {name}, pg_catalog.to_jsonb(r) from {t} as r where {where}"


@dataclass(frozen=True, slots=True)
class Moved:
    """One table whose old rows an archiving moves."""

    table: str
    item: Retention

    @property
    def time(self) -> Name:
        return column(self.item.column)

    def older(self, days: int) -> Statement:
        """The condition under which a row is older than that many days."""
        return statement("{c} < pg_catalog.now() - pg_catalog.make_interval(days => {n})", c=self.time, n=days)


def _row(names: Iterable[str]) -> Statement:
    """One value that tells a row from all others."""
    return statement("pg_catalog.jsonb_build_array({names})", names=columns(names))


def _kept(names: Iterable[str]) -> Statement:
    """The same value of a remembered row."""
    each = joined(statement("k.content -> {n}::text", n=name) for name in names)
    return statement("pg_catalog.jsonb_build_array({each})", each=each)


def archivings(contract: Contract) -> Iterator[Drilled]:
    """Procedures that move old rows to an archive."""
    for subject in drilled(contract, "archive"):
        moved = _moved(subject, contract)
        needs: list[tuple[str, tuple[str, ...]]] = [(m.table, (m.item.column, m.item.key)) for m in moved]
        needs += [(m.item.archive, (m.item.column, m.item.key)) for m in moved]
        needs += [(name, ()) for child in subject.item.children for name in (child.table, child.archive) if name]
        yield Drilled(subject.name, subject.item, tuple(needs))


def _moved(subject: Drilled, contract: Contract) -> list[Moved]:
    found = [Moved(n, t.retention) for n, t in contract.tables.items() if t.retention and t.retention.archive]
    return [moved for moved in found if not subject.item.tables or moved.table in subject.item.tables]


def _places(subject: Drilled, contract: Contract) -> list[str]:
    """The tables that it writes: those whose rows move, what hangs on them, and the archives of both."""
    moved, children = _moved(subject, contract), [child for child in subject.item.children if child.archive]
    first = [m.table for m in moved] + [child.table for child in children]
    return list(dict.fromkeys(first + [m.item.archive for m in moved] + [child.archive for child in children]))


@dataclass(slots=True)
class Archiving:
    """One archiving on one copy, in which every other row has grown old."""

    subject: Drilled
    stage: Stage
    contract: Contract
    catalog: Catalog

    @property
    def moved(self) -> list[Moved]:
        return _moved(self.subject, self.contract)

    def _names(self, moved: Moved, relation: str) -> tuple[str, ...]:
        """The columns that tell a row of the table or of its archive from all others of the two: the key, and the
        tenant where each numbers its own rows."""
        beside = owners(self.contract, self.catalog, moved.table, moved.item.key, moved.item.archive)
        return (*beside[relation != moved.table :][:1], moved.item.key) if beside else (moved.item.key,)

    def age(self) -> None:
        """Make every other row of each table old, and remember all rows. Raises Nothing where there are none."""
        self.stage.say("set session_replication_role = replica")  # what stamps rows must not undo it
        aged = 0
        for moved in self.moved:
            days = moved.item.days + FAR
            command = statement(
                "with other as (select s.k from (select {key} as k, pg_catalog.row_number() over (order by {key}) as n"
                " from {t} as r) as s where s.n % 2 = 1), aged as (update {t} as r set {c} = {time} -"
                " pg_catalog.make_interval(days => {days}) where {key} in (select o.k from other as o) and not {old}"
                " returning 1) select pg_catalog.count(*) from aged",
                key=_row(self._names(moved, moved.table)), t=Name.of(moved.table), c=Name((moved.item.column,)),
                time=moved.time, days=days, old=moved.older(moved.item.days),
            )  # fmt: skip
            aged += self.stage.count(command)
        self.stage.say("set session_replication_role = origin")
        if not aged:
            raise Nothing(f"{', '.join(m.table for m in self.moved)}: no row that could grow old")
        for name in _places(self.subject, self.contract):
            self.stage.rows(statement(_KEEP, name=name, t=Name.of(name), where=statement("true")))

    def differences(self, *, ended: bool) -> Iterator[tuple[str, str, str]]:
        """Table, kind and words of each difference to what must be there; of a run to its end also what it left."""
        for moved in self.moved:
            lost, _ = self._compared(moved.table, moved.item.archive)
            twice = statement(
                "select pg_catalog.count(*) from (select s.k from (select {live} as k from {t} as r"
                " union all select {archived} from {a} as r) as s group by s.k having pg_catalog.count(*) > 1) as d",
                live=_row(self._names(moved, moved.table)), t=Name.of(moved.table),
                archived=_row(self._names(moved, moved.item.archive)), a=Name.of(moved.item.archive),
            )  # fmt: skip
            yield from _told(moved.table, lost, self.stage.count(twice))
            before, _ = self._compared(moved.item.archive)
            yield from _told(moved.item.archive, before, 0)
            if ended:
                yield from self._unmoved(moved)
        for child in self.subject.item.children:
            if child.archive:
                yield from _told(child.table, *self._compared(child.table, child.archive))
        yield from self._undeclared()

    def _undeclared(self) -> Iterator[tuple[str, str, str]]:
        """What else refers to rows that move, and is no more: its contract does not say that it may go."""
        declared = {child.table for child in self.subject.item.children}
        for name, size in self.others(declared).items():
            now = self.stage.count(statement("select pg_catalog.count(*) from {t} as r", t=Name.of(name)))
            yield from _told(name, max(0, size - now), 0)

    def others(self, declared: set[str]) -> dict[str, int]:
        """Tables that refer to rows that move, without being declared as their children: rows in the original."""
        moved = {m.table for m in self.moved}
        names = [
            str(t) for t in self.catalog.tables
            if not t.parent and str(t) not in declared | moved and any(k.references in moved for k in t.foreign_keys())
        ]  # fmt: skip
        count = "select pg_catalog.count(*) from pgconform_drill.kept as k where k.relation = {name}"
        return {name: self.stage.count(statement(count, name=name)) for name in names}

    def _unmoved(self, moved: Moved) -> Iterator[tuple[str, str, str]]:
        """Old rows that are still live, and young ones that are not."""
        days, archive = moved.item.days, moved.item.archive
        left = statement("select pg_catalog.count(*) from {t} as r where {old}", t=Name.of(moved.table),
                         old=moved.older(days))  # fmt: skip
        if count := self.stage.count(left):
            yield moved.table, "left", f"{count} row(s) older than {days} days are still live"
        early = statement(
            "select pg_catalog.count(*) from {a} as r where not {old} and not exists (select from pgconform_drill.kept"
            " as k where k.relation = {name} and {k} = {r})",
            a=Name.of(archive), old=moved.older(days - CALENDAR if days > 7 * CALENDAR else days), name=archive,
            k=_kept(self._names(moved, archive)), r=_row(self._names(moved, archive)),
        )  # fmt: skip
        if count := self.stage.count(early):
            yield moved.table, "moved too early", f"{count} archived row(s) are not older than {days} days"

    def _compared(self, table: str, archive: str = "") -> tuple[int, int]:
        """Rows that a table had and that are neither there nor in the archive as they were; and those there twice."""
        found = statement("select pg_catalog.to_jsonb(r) as content from {t} as r", t=Name.of(table))
        if archive:
            stored = self.catalog.table(table)
            columns = tuple(c.name for c in stored.columns) if stored else ()
            documents = statement(_DOCUMENTS, columns=columns, archive=Name.of(archive))
            found = statement("{live} union all {documents}", live=found, documents=documents)
        lost, doubled = self.stage.rows(statement(_COMPARED, name=table, found=found))[0]
        return int(lost), int(doubled)

    # -- writers beside it ---------------------------------------------------------------------------------------

    def disturb(self) -> None:
        """Others change rows and commit: a young row grows old, an old one is changed, and one grows young."""
        for moved in self.moved:
            old, young = self._one(moved, old=True), self._one(moved, old=False)
            far = f"{moved.item.days + 2 * FAR} days"
            for keys, moment in (
                (young[:1], statement("pg_catalog.now() - {far}::interval", far=far)),
                (old[:1], statement("{c} - '1 hour'::interval", c=moved.time)),
                (old[1:2], statement("pg_catalog.now()")),
            ):
                for key in keys:
                    self._changed(moved, key, moment)

    def _one(self, moved: Moved, *, old: bool) -> list[str]:
        """Keys of two rows that are old, or young."""
        where = moved.older(moved.item.days)
        question = statement(
            "select {key}::text from {t} as r where {where} order by {key} limit 2",
            key=_row(self._names(moved, moved.table)), t=Name.of(moved.table),
            where=where if old else statement("not {w}", w=where),
        )  # fmt: skip
        return [key for (key,) in self.stage.rows(question)]

    def _changed(self, moved: Moved, key: str, moment: Statement) -> None:
        """One row gets another time, and its remembered self as well."""
        names = self._names(moved, moved.table)
        change = statement(
            "with changed as (update {t} as r set {c} = {moment} where {r} = {key}::jsonb returning r.*)"
            " update pgconform_drill.kept as k set content = pg_catalog.to_jsonb(n) from changed as n"
            " where k.relation = {name} and {k} = {key}::jsonb",
            t=Name.of(moved.table), c=Name((moved.item.column,)), moment=moment, r=_row(names), key=key,
            name=moved.table, k=_kept(names),
        )  # fmt: skip
        self.stage.beside(change, triggers=False)  # and remembered in the same transaction

    def hang(self, moved: Moved, child: str) -> None:
        """Others hang a child of a young row on an old one, which nobody who looked before can know of, and commit."""
        stored = self.catalog.table(child)
        for key in stored.foreign_keys() if stored else ():
            if key.references != moved.table:
                continue
            pairs = zip(key.columns, key.referenced_columns, strict=True)
            tenant = self.contract.column_of(child) if child in self.contract.tables else ""
            *shared, (own, its) = sorted(pairs, key=lambda pair: pair[0] != tenant)  # a tenant keeps its rows
            same = [statement("{a} = {b}", a=column(a), b=column(b, "p")) for a, b in shared]
            old = statement("{c} < pg_catalog.now() - pg_catalog.make_interval(days => {n})",
                            c=column(moved.item.column, "p"), n=moved.item.days)  # fmt: skip
            change = statement(
                "with hung as (select r.ctid as place, {its} as parent, pg_catalog.to_jsonb(r) as content"
                " from {t} as r join {p} as p on {on} where {its} <> {own} order by r.ctid, {its} limit 1),"
                " changed as (update {t} as r set {name} = h.parent from hung as h where r.ctid = h.place"
                " returning pg_catalog.to_jsonb(r) as now, h.content)"
                " update pgconform_drill.kept as o set content = n.now from changed as n"
                " where o.relation = {child} and o.content = n.content",
                its=column(its, "p"), own=column(own), t=Name.of(child), p=Name.of(moved.table), name=Name((own,)),
                on=joined([old, *same], " and "), child=child,
            )  # fmt: skip
            self.stage.beside(change)  # and remembered in the same transaction


def _told(table: str, lost: int, doubled: int) -> Iterator[tuple[str, str, str]]:
    if lost:
        yield table, "lost", _LOST.format(lost)
    if doubled:
        yield table, "doubled", _DOUBLED.format(doubled)


class Findings:
    """Differences as findings, each once; the first time that one is seen counts."""

    def __init__(self, subject: Drilled, catalog: Catalog) -> None:
        self.subject, self.catalog = subject, catalog
        self.found: dict[str, Finding] = {}

    def add(self, table: str, kind: str, words: str, when: str = "") -> None:
        finding = Finding(table, f"{words}{when}", self.subject.mends(table, self.catalog), kind)
        self.found.setdefault(finding.key, finding)

    def seen(self, archiving: Archiving, when: str, *, ended: bool) -> None:
        for table, kind, words in archiving.differences(ended=ended):
            self.add(table, kind, words, when)

    def finished(self, archiving: Archiving, when: str) -> None:
        """Run it to its end, and look at all that must be there then."""
        if error := archiving.stage.run().error:
            self.add(str(self.subject), "refused", f"it is refused: {error}", when)
        self.seen(archiving, when, ended=True)


def _begun(subject: Drilled, stage: Stage, contract: Contract, catalog: Catalog) -> Archiving:
    archiving = Archiving(subject, stage, contract, catalog)
    archiving.age()
    for name in archiving.others(set()):
        stage.rows(statement(_KEEP, name=name, t=Name.of(name), where=statement(
            "not exists (select from pgconform_drill.kept as k where k.relation = {name})", name=name)))  # fmt: skip
    return archiving


def exact(subject: Drilled, contract: Contract, catalog: Catalog, copies: Copies) -> Iterator[Finding]:
    """What is not as it should be after one run, and after a second one."""
    findings = Findings(subject, catalog)
    with staged(copies, subject) as stage:
        archiving = _begun(subject, stage, contract, catalog)
        findings.finished(archiving, "")
        if not findings.found:
            findings.finished(archiving, " after a second run")
    yield from findings.found.values()


def disturbed(subject: Drilled, contract: Contract, catalog: Catalog, copies: Copies) -> Iterator[Finding]:
    """What is not as it should be where rows cross the boundary while it runs, and after a next run in peace."""
    findings, reached = Findings(subject, catalog), False
    for moved in _moved(subject, contract):
        for child in ("", *_hanging(subject, catalog, moved)):
            with staged(copies, subject) as stage:
                archiving = _begun(subject, stage, contract, catalog)
                with stage.held(moved.item.archive) as run:
                    reached = reached or bool(run.pid)
                    if run.pid and child:
                        archiving.hang(moved, child)
                    elif run.pid:
                        archiving.disturb()
                findings.seen(archiving, " after others wrote meanwhile", ended=False)
                if not findings.found:
                    findings.finished(archiving, " after others wrote meanwhile, and a next run")
    if not findings.found:
        _twice(findings, contract, copies)
    yield from _told_or_unseen(findings, reached)


def _twice(findings: Findings, contract: Contract, copies: Copies) -> None:
    """Adds what is not as it should be where a second run begins while a first one is held at a write, up to the first
    such write; and after a next run in peace. A run may be refused: the rows count, not who moved them."""
    subject, catalog = findings.subject, findings.catalog
    with staged(copies, subject) as stage:
        _begun(subject, stage, contract, catalog)
        points = stage.points(_places(subject, contract))
    for point in points:
        with staged(copies, subject) as stage:
            archiving = _begun(subject, stage, contract, catalog)
            stage.crossed(point, [{}, {}])
            when = f", where a second run began at {told(point)}"
            findings.seen(archiving, when, ended=False)
            if not findings.found:
                findings.finished(archiving, f"{when}, and after a next run")
        if findings.found:
            return


def _hanging(subject: Drilled, catalog: Catalog, moved: Moved) -> list[str]:
    """The declared children that refer to a table whose rows move."""
    stored = (t for child in subject.item.children if (t := catalog.table(child.table)))
    return [str(t) for t in stored if any(k.references == moved.table for k in t.foreign_keys())]


def interrupted(subject: Drilled, contract: Contract, catalog: Catalog, copies: Copies) -> Iterator[Finding]:
    """What is not as it should be after its session, or the server, was killed at a write; and after a next run."""
    findings, reached = Findings(subject, catalog), False
    places = _places(subject, contract)
    for place in [*places, ""]:
        with staged(copies, subject) as stage:
            archiving = _begun(subject, stage, contract, catalog)
            stopped = stage.stopped((place or places[0], 1), crash=not place)
            reached = reached or stopped
            when = f" after its session was ended while writing {place}" if place else " after a crash of the server"
            if stopped:
                findings.seen(archiving, when, ended=False)
            if not place and not findings.found:
                findings.finished(archiving, f"{when}, and a next run")
                stage.crash()
                findings.seen(archiving, f"{when}, a next run, and another crash", ended=True)
    yield from _told_or_unseen(findings, reached)


def _told_or_unseen(findings: Findings, reached: bool) -> Iterator[Finding]:
    """The findings; nothing is proven where the procedure was not held anywhere."""
    if not reached and not findings.found:
        raise NotVerified(f"{findings.subject}: it was never seen writing an archive; correct what the contract names")
    yield from findings.found.values()
