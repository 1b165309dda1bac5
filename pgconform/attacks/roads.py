"""The roads by which a client may try to touch a row: each builds one statement, aimed at one row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pgconform.attacks.bait import Bait, row, same
from pgconform.catalog import Column, Table
from pgconform.contract import Command
from pgconform.database import Outcome
from pgconform.privileges import Privileges
from pgconform.statements import Name, Statement, column, joined, statement

# Types whose values can be made anew from their text, and how; those of a domain are left alone: its rule is unknown.
_RENEWED = {
    "uuid": "pg_catalog.md5({old}::text || 'renewed')::uuid",
    "text": "'renewed ' || pg_catalog.md5({old}::text)",
    "character varying": "pg_catalog.left(pg_catalog.md5({old}::text), {room}::int)",
    "integer": "{old} + 1000000007",
    "bigint": "{old} + 1000000007",
}
_ROOM = 32  # characters of a digest


Author = tuple[frozenset[str], str]  # columns that name a user, and who the caller is
NOBODY: Author = (frozenset(), "")


@dataclass(frozen=True, slots=True)
class Aim:
    """One row to touch, as one role: ``number`` counts the bait's rows; ``own`` is one of the caller's, or 0."""

    bait: Bait
    role: str
    number: int
    own: int
    privileges: Privileges
    version: int  # of the server
    author: Author = NOBODY

    @property
    def table(self) -> Name:
        return Name.of(str(self.bait.table))

    def may(self, privilege: str) -> list[Column]:
        """Columns that the role may use so; all of them where it may use none: then the attempt is refused."""
        held = {h.column for h in self.privileges.on(self.role, self.bait.table) if h.privilege == privilege}
        mine = [c for c in self.bait.table.columns if held & {"", c.name} and not c.generated and c.identity != "a"]
        return mine or [c for c in self.bait.table.columns if not c.generated and c.identity != "a"]

    def written(self) -> Column:
        """A column to write: one that may be read too, and that no key needs, where there is such a column."""
        read = {c.name for c in self.may("SELECT")}
        kept = {*self.bait.key, self.bait.holder}
        return min(self.may("UPDATE"), key=lambda c: (c.name not in read, c.name in kept, c.number))


@dataclass(frozen=True, slots=True)
class Road:
    """One way to touch a row: ``commands`` are what the contract must allow for it, ``words`` finish "could ..."."""

    name: str
    words: str
    commands: tuple[Command, ...]
    build: Callable[[Aim], Statement | None]
    every: bool = False  # touches all rows it can reach: more than the own ones is too many
    privileges: tuple[str, ...] = ()  # what it takes, where that is not what the commands are called
    settings: tuple[tuple[str, str], ...] = ()  # of the attempt, beside the session's own
    after: Statement | None = None  # what must work right after it
    by_role: bool = False  # what comes of it depends on the role alone: one session of each will do
    authored: bool = False  # what it adds is the caller's own
    through: Callable[[Outcome], bool] = lambda outcome: outcome.passed  # whether the outcome shows a breach

    @property
    def needs(self) -> frozenset[str]:
        """The privileges without which the server refuses at once, in lower case."""
        return frozenset(self.privileges or self.commands)


def insertable(aim: Aim, renew: bool, others: tuple[str, ...] = ()) -> tuple[Statement, Statement]:
    """Column list and values of a copied row; with keys made anew, or left to their defaults, and ``others`` as they
    are in row ``o``."""
    fresh = renewed(aim.bait.keyed, (aim.bait.holder, *others)) if renew else {}
    fresh |= {name: statement("{c}", c=column(name, "o")) for name in others}
    listed = [c for c in aim.may("INSERT") if c.name not in fresh or fresh[c.name] is not None]
    values = [fresh.get(c.name) or _authored(aim, c) or column(c.name, "b") for c in listed]
    return joined(Name((c.name,)) for c in listed), joined(values)


def _authored(aim: Aim, column: Column) -> Statement | None:
    """Where a column of a row that is added names a user, that is whoever adds it."""
    columns, user = aim.author
    types = {"uuid": "{user}::uuid", "text": "{user}::text", "integer": "{user}::integer", "bigint": "{user}::bigint"}
    return statement(types[column.type], user=user) if column.name in columns and column.type in types else None


def renewed(table: Table, kept: tuple[str, ...]) -> dict[str, Statement | None]:
    """For each unique key one column, none of the ``kept``, with its new value in a copy of row ``b``; None stands for
    its default."""
    owned = set(kept).union(*(c.columns for c in table.constraints if c.kind == "f"))
    fresh: dict[str, Statement | None] = {}
    for index in table.indexes:
        if index.unique and not fresh.keys() & set(index.columns):
            able = [c for c in map(table.column, filter(None, index.columns)) if c and c.name not in owned]
            choice = next((c for c in able if c.default or c.identity or _recipe(c)), None)
            if choice:
                recipe = "" if choice.default or choice.identity else _recipe(choice)
                old = column(choice.name, "b")
                fresh[choice.name] = statement(recipe, old=old, room=_room(choice)) if recipe else None
    return fresh


def _recipe(column: Column) -> str:
    return _RENEWED.get(column.type.partition("(")[0], "") if column.type_oid == column.base_oid else ""


def _room(column: Column) -> int:
    return min(_ROOM, column.modifier - 4) if column.modifier > 4 else _ROOM


def _insert(aim: Aim) -> Statement:
    names, values = insertable(aim, renew=True)
    return statement(
        "insert into {t} ({names}) select {values} from {copy} as b where {row}",
        t=aim.table, names=names, values=values, copy=aim.bait.copy, row=row(aim.number),
    )  # fmt: skip


def _upsert(aim: Aim) -> Statement | None:
    if not aim.bait.key:
        return None
    names, values = insertable(aim, renew=False)
    return statement(
        "insert into {t} ({names}) select {values} from {copy} as b where {row}"
        " on conflict ({key}) do update set {c} = excluded.{c}",
        t=aim.table, names=names, values=values, copy=aim.bait.copy, row=row(aim.number),
        key=joined(Name((k,)) for k in aim.bait.key), c=Name((aim.written().name,)),
    )  # fmt: skip


def _update(aim: Aim) -> Statement:
    return statement(
        "update {t} as t set {c} = t.{c} from {copy} as b where {row} and {same}",
        t=aim.table, c=Name((aim.written().name,)), copy=aim.bait.copy,
        row=row(aim.number), same=same(aim.bait),
    )  # fmt: skip


def _update_all(aim: Aim) -> Statement:
    return statement("update {t} as t set {c} = {c}", t=aim.table, c=Name((aim.written().name,)))


def _move(aim: Aim) -> Statement | None:
    if not aim.own or not aim.bait.holder:
        return None
    return statement(
        "update {t} as t set {h} = b.{h} from {copy} as b, {copy} as o where {row} and {mine} and {same}",
        t=aim.table, h=Name((aim.bait.holder,)), copy=aim.bait.copy, row=row(aim.number),
        mine=row(aim.own, "o"), same=same(aim.bait, alias="o"),
    )  # fmt: skip


def _move_all(aim: Aim) -> Statement | None:
    """Reads nothing of the relation: what is read must pass the policies for SELECT, before and after."""
    if not aim.own or not aim.bait.holder:
        return None
    return statement(
        "update {t} set {h} = (select b.{h} from {copy} as b where {row})",
        t=aim.table, h=Name((aim.bait.holder,)), copy=aim.bait.copy, row=row(aim.number),
    )  # fmt: skip


def _overwrite(aim: Aim) -> Statement:
    """Reads nothing of the relation, so that no policy for SELECT stands in its way."""
    return statement(
        "update {t} set {c} = (select b.{c} from {copy} as b where {row})",
        t=aim.table, c=Name((aim.written().name,)), copy=aim.bait.copy, row=row(aim.own or aim.number),
    )  # fmt: skip


def _take(aim: Aim) -> Statement | None:
    """An own tenant's name on all rows, and the own parents that go with it: what a policy asks of the new row is then
    true, and what a foreign key asks, too."""
    if not aim.own or not aim.bait.holder:
        return None
    holder, able = aim.bait.holder, {c.name for c in aim.may("UPDATE")}
    keys = [c.columns for c in aim.bait.table.foreign_keys() if holder in c.columns]
    changed = list(dict.fromkeys([holder, *(name for key in keys for name in key if name in able)]))
    return statement(
        "update {t} set ({changed}) = (select {values} from {copy} as b where {row})",
        t=aim.table, changed=joined(Name((name,)) for name in changed),
        values=joined(column(name, "b") for name in changed), copy=aim.bait.copy, row=row(aim.own),
    )  # fmt: skip


def _merge(aim: Aim) -> Statement | None:
    if aim.version < 150_000:
        return None
    return statement(
        "merge into {t} as t using (select * from {copy} as b where {row}) as b on {same}"
        " when matched then update set {c} = b.{c}",
        t=aim.table, copy=aim.bait.copy, row=row(aim.number), same=same(aim.bait),
        c=Name((aim.written().name,)),
    )  # fmt: skip


def _delete(aim: Aim) -> Statement:
    return statement(
        "delete from {t} as t using {copy} as b where {row} and {same}",
        t=aim.table, copy=aim.bait.copy, row=row(aim.number), same=same(aim.bait),
    )  # fmt: skip


def _delete_all(aim: Aim) -> Statement:
    return statement("delete from {t}", t=aim.table)


def _truncate(aim: Aim) -> Statement:
    return statement("truncate {t} cascade", t=aim.table)


def _emptied(outcome: Outcome) -> bool:
    """The privilege is asked for before the lock is (RangeVarCallbackForTruncate in PostgreSQL's tablecmds.c)."""
    return outcome.state in ("", "55P03")


def _lock(aim: Aim) -> Statement:
    return statement(
        "select 1 from {t} as t, {copy} as b where {row} and {same} for update of t",
        t=aim.table, copy=aim.bait.copy, row=row(aim.number), same=same(aim.bait),
    )  # fmt: skip


def _read(aim: Aim) -> Statement:
    return statement(
        "select 1 from {t} as t, {copy} as b where {row} and {same}",
        t=aim.table, copy=aim.bait.copy, row=row(aim.number), same=same(aim.bait),
    )  # fmt: skip


def _copy_out(aim: Aim) -> Statement:
    return statement("copy (select from {t} as t) to stdout", t=aim.table)


def _copy_in(aim: Aim) -> Statement:
    return statement("copy {t} ({c}) from stdin", t=aim.table, c=joined(Name((c.name,)) for c in aim.may("INSERT")))


def _statistics(aim: Aim) -> Statement:
    return statement(
        "select 1 from pg_catalog.pg_stats as s where s.schemaname = {schema} and s.tablename = {name}"
        " and (s.most_common_vals is not null or s.histogram_bounds is not null)",
        schema=aim.bait.table.schema, name=aim.bait.table.name,
    )  # fmt: skip


READS = (
    Road("select", "read", ("select",), _read),
    Road("copy to", "copy out, with no condition,", ("select",), _copy_out, every=True),
    Road("statistics", "read, in pg_stats, values of", ("select",), _statistics, by_role=True),
)
WRITES = (
    Road("insert", "insert", ("insert",), _insert),
    Road("upsert", "overwrite, by insert on conflict,", ("insert", "update"), _upsert),
    Road("copy from", "copy in", ("insert",), _copy_in),
    Road("update", "update", ("update",), _update),
    Road("update all", "update, with no condition,", ("update",), _update_all, every=True),
    Road("overwrite all", "overwrite, reading nothing,", ("update",), _overwrite, every=True),
    Road("take all", "take over, with no condition,", ("update",), _take, every=True),
    Road("move", "give rows to the owner of", ("update",), _move),
    Road("move all", "give, with no condition, rows to the owner of", ("update",), _move_all),
    Road("merge", "merge into", ("update",), _merge),
    Road("delete", "delete", ("delete",), _delete),
    Road("delete all", "delete, with no condition,", ("delete",), _delete_all, every=True),
    Road(
        "truncate",
        "empty of",
        ("delete",),
        _truncate,
        privileges=("truncate",),
        settings=(("lock_timeout", "100"),),
        through=_emptied,
    ),
    Road("lock", "lock", ("select", "update"), _lock),
)
# What must work on own rows, where the contract allows it.
OWN = tuple(road for road in WRITES if road.name in ("insert", "update", "delete"))
# What must work on them, too, in tables: by other commands, and on all of them.
OWN_TOO = tuple(road for road in WRITES if road.name in ("upsert", "merge", "lock", "update all", "delete all"))
