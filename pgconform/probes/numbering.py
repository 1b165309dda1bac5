"""How many numbers sequences have left, how they get more, and whether they give what rows hold already."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from pgconform.catalog import Catalog, Table
from pgconform.database import Database
from pgconform.model import Nothing, NotVerified
from pgconform.names import qualified, remark
from pgconform.remedies import retype
from pgconform.statements import Name, Rows, column, statement

MOST = 9_223_372_036_854_775_807  # of a bigint


@dataclass(frozen=True, slots=True)
class Fill:
    """A column that a sequence fills; ``holds`` is the largest number that its type can."""

    table: str
    column: str
    holds: int


@dataclass(frozen=True, slots=True)
class Numbers:
    """A sequence: the last number that it gave, the last that it can by itself, and the columns that it fills."""

    name: str
    last: int
    most: int
    fills: tuple[Fill, ...]

    @property
    def held(self) -> int:
        """The largest number that all columns can hold."""
        return min((fill.holds for fill in self.fills), default=MOST)

    @property
    def limit(self) -> int:
        return min(self.most, self.held)


_SEQUENCES = """
select n.nspname, c.relname, pg_catalog.has_sequence_privilege(c.oid, 'select,usage'),
  pg_catalog.pg_sequence_last_value(c.oid), q.seqmax, a.attname, tn.nspname, t.relname,
  case when b.base = 'int2'::pg_catalog.regtype then 32767 when b.base = 'int4'::pg_catalog.regtype then 2147483647 end
from pg_catalog.pg_sequence as q join pg_catalog.pg_class as c on c.oid = q.seqrelid
join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
left join (
  select p.objid as sequence, p.refobjid as relation, p.refobjsubid as number from pg_catalog.pg_depend as p
  where p.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and p.deptype in ('a', 'i') and p.refobjsubid > 0
    and p.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
  union
  select p.refobjid, d.adrelid, d.adnum from pg_catalog.pg_depend as p
  join pg_catalog.pg_attrdef as d on p.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass and p.objid = d.oid
  where p.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass) as f on f.sequence = c.oid
left join pg_catalog.pg_attribute as a on a.attrelid = f.relation and a.attnum = f.number
left join pg_catalog.pg_type as y on y.oid = a.atttypid
left join lateral (select case y.typtype when 'd' then y.typbasetype else y.oid end as base) as b on true
left join pg_catalog.pg_class as t on t.oid = f.relation
left join pg_catalog.pg_namespace as tn on tn.oid = t.relnamespace
where q.seqincrement > 0 and not q.seqcycle and c.relpersistence <> 't' order by 1, 2, 7, 8, 6"""


def sequences(database: Database) -> list[Numbers]:
    """Ascending sequences that were used and do not begin again, with each column that they fill: their own, and those
    that have them as default. Raises NotVerified."""
    found = []
    answers = database.rows(statement(_SEQUENCES), "reading sequences")
    for (schema, name, may, last, most), each in groupby(answers, key=lambda row: tuple(row[:5])):
        if not may:
            raise NotVerified(f"sequence {qualified(schema, name)} may not be read; grant SELECT on all sequences")
        if last is None:
            continue
        fills = (Fill(qualified(row[6], row[7]), str(row[5]), int(row[8] or MOST)) for row in each if row[7])
        found.append(Numbers(qualified(schema, name), int(last), int(most), tuple(fills)))
    return found


_NEXT = """
select case when s.is_called then s.last_value::numeric + q.seqincrement else s.last_value end, q.seqmax, q.seqincrement
from {name} as s, pg_catalog.pg_sequence as q
where q.seqrelid = {name_text}::pg_catalog.regclass and q.seqincrement > 0 and not q.seqcycle"""


def taken(table: str, key: str, sequence: str, database: Database) -> tuple[int, Rows]:
    """The number that a sequence gives next, and the rows whose key is that one or one that it gives later.

    Both are of one snapshot, and a sequence is read as it is now: numbers given since are no longer its next one.
    Raises NotVerified, and Nothing where the sequence counts backwards or begins again.
    """
    question = statement(_NEXT, name=Name.of(sequence), name_text=sequence)
    for next_one, most, step in database.rows(question, f"reading sequence {sequence}"):
        where = statement("{k} between {n} and {m}", k=column(key), n=int(next_one), m=int(most))
        if step > 1:  # such as where two servers take turns
            where = statement("{w} and ({k} - {n}) % {s} = 0", w=where, k=column(key), n=int(next_one), s=int(step))
        return int(next_one), Rows(table, where)
    raise Nothing(f"{sequence} counts backwards, or begins again")


def ahead(held: Rows, key: str, sequence: str) -> str:
    """SQL after which the sequence goes on behind those rows."""
    return str(
        statement(
            "select pg_catalog.setval({s}::pg_catalog.regclass, pg_catalog.max({k})::bigint) from {source};",
            s=sequence, k=column(key), source=held.source,
        )
    )  # fmt: skip


def more(numbers: Numbers, share: float, catalog: Catalog) -> str:
    """SQL after which less than that share of the numbers is given, where any can do that."""
    if numbers.last > share * MOST:
        return _none_left(numbers)
    if numbers.last <= share * numbers.held:
        return f"alter sequence {numbers.name} as bigint maxvalue {numbers.held};"
    small = [place for fill in numbers.fills if fill.holds < MOST for place in _joined(fill, catalog)]
    wide = {(str(table), name): retype(table, name, "bigint") for table, name in small}
    lines = ["-- each rewrites its table, locked; a view that shows the column has to be dropped before, and made anew"]
    return "\n".join([*lines, *wide.values(), f"alter sequence {numbers.name} as bigint maxvalue {MOST};"])


def _none_left(numbers: Numbers) -> str:
    """No type of a sequence has more numbers; they may be free all the same, where it was set too far."""
    ends = (
        "-- where rows hold the last ones, a bigint has no more: only a key of another type (numeric, uuid) gives room"
    )
    if len(numbers.fills) != 1:
        again = remark(f"after that, where it is far below: alter sequence {numbers.name} restart with ...;")
        return f"-- no SQL can be given: find the largest number that is in use, and have it go on\n{again}\n{ends}"
    fill = numbers.fills[0]
    back = statement(
        "select pg_catalog.setval({s}::pg_catalog.regclass, greatest(pg_catalog.max({c}), 1)::bigint) from {t} as r;",
        s=numbers.name, c=column(fill.column), t=Name.of(fill.table),
    )  # fmt: skip
    return f"-- while nobody inserts: it goes on after the largest number that rows hold\n{back}\n{ends}"


def _joined(fill: Fill, catalog: Catalog) -> Iterator[tuple[Table, str]]:
    """The column itself, in the table that a partition has it from, and all smaller ones that refer to it."""
    table = catalog.table(fill.table)
    while table and table.parent and (parent := catalog.table(table.parent)) and parent.column(fill.column):
        table = parent
    pending = [(table, fill.column)] if table else []
    seen = set()
    while pending:
        place = pending.pop(0)
        if (str(place[0]), place[1]) in seen:
            continue
        seen.add((str(place[0]), place[1]))
        yield place
        pending += _referring(*place, catalog)


def _referring(table: Table, name: str, catalog: Catalog) -> Iterator[tuple[Table, str]]:
    for other in catalog.tables:
        for key in other.foreign_keys() if not other.parent else ():
            if key.references == str(table) and name in key.referenced_columns:
                mine = other.column(key.columns[key.referenced_columns.index(name)])
                if mine and mine.type in ("smallint", "integer"):
                    yield other, mine.name
