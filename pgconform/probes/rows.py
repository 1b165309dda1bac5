"""Which rows break a promise of the contract: each question yields a condition on rows ``r``, and its remedy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pgconform import names
from pgconform.catalog import Column
from pgconform.contract import Chunks, Contract, Flag, Members, Reference, Registry, Retention
from pgconform.contract_operations import Metrics
from pgconform.database import Database
from pgconform.model import Finding, Nothing
from pgconform.people import active
from pgconform.probes.owners import Owners
from pgconform.statements import Name, Rows, Statement, column, columns, equal, joined, statement
from pgconform.subjects import Declared


@dataclass(frozen=True, slots=True)
class Offence:
    """Rows that break a promise; ``says`` completes "N row(s) ..."; no ``change``: the remedy deletes them.

    A change overwrites: what was there is lost, too.

    ``sample`` is a query of few rows ``r`` among which some break it just where some of the table do; ``any``: all of
    its rows tell of such. It is asked first, since it takes one scan that groups.
    """

    object: str
    rows: Rows
    says: str
    change: Statement | None = None
    detail: str = ""
    sample: Statement | None = None
    any: bool = False
    advice: str = ""  # what the remedy needs besides

    def finding(self, count: int) -> Finding:
        remedy = self.rows.delete if self.change is None else self.rows.update(self.change)
        remedy = f"{names.remark(self.advice)}\n{remedy}" if self.advice else remedy
        observed = f"{count} row(s) {self.says}"
        return Finding(self.object, observed, remedy, self.detail, True, self.rows.shown, count)


def judge(database: Database, *offences: Offence) -> list[Finding]:
    """A finding for each offence that at least one row commits. Raises NotVerified, and Nothing without rows."""
    found = []
    for offence in _suspected(database, offences):
        count = int(database.one(offence.rows.count, f"counting rows of {offence.rows.table}")[0])
        if count:
            found.append(offence.finding(count))
    if not found:
        for table in dict.fromkeys(offence.rows.table for offence in offences):
            need_rows(database, table)
    return found


def _suspected(database: Database, offences: Sequence[Offence]) -> Iterator[Offence]:
    """Those that some row commits as far as the samples tell; offences of one sample are asked together."""
    for sample in dict.fromkeys(offence.sample for offence in offences):
        mine = [offence for offence in offences if offence.sample == sample]
        told: Sequence[Any] = [True] * len(mine)
        if sample:
            asked = joined(
                statement("coalesce(pg_catalog.bool_or({w}), false)", w=statement("true") if o.any else o.rows.where)
                for o in mine
            )
            question = statement("select {asked} from ({sample}) as r", asked=asked, sample=sample)
            told = database.one(question, f"looking at rows of {mine[0].rows.table}")
        yield from (offence for offence, some in zip(mine, told, strict=True) if some)


def need_rows(database: Database, table: str) -> None:
    """Raises Nothing where the relation has no row: no promise about rows can then be said to be kept."""
    question = statement("select exists (select from {table})", table=Name.of(table))
    if not database.remembered(question, f"looking for rows of {table}")[0][0]:
        raise Nothing(f"{table} has no rows")


def _offence(subject: Declared[Any], where: Statement, says: str, change: Statement | None = None) -> Offence:
    return Offence(subject.table, Rows(subject.table, where), says, change, subject.name)


def null(name: str, of: str = "r") -> Statement:
    return statement("{c} is null", c=column(name, of))


def set_null(wanted: tuple[str, ...]) -> Statement:
    return joined(statement("{c} = null", c=Name((name,))) for name in wanted)


# -- references and tenants -------------------------------------------------------------------------------------


def orphans(subject: Declared[Reference], nullable: bool, flags: Sequence[Flag] = ()) -> Offence:
    """Rows that name a row which is not there; a reference with a null column names nothing (MATCH SIMPLE)."""
    item = subject.item
    given = joined((statement("{c} is not null", c=column(name)) for name in item.columns), " and ")
    both = zip(item.to, item.columns, strict=True)
    pairs = (statement("p.{to} = r.{c}", to=Name((to,)), c=Name((name,))) for to, name in both)
    where = statement(
        "{given} and not exists (select from {table} as p where {same})",
        given=given, table=Name.of(item.table), same=joined(pairs, " and "),
    )  # fmt: skip
    cleared = [Name((flag.flag,)) for flag in flags if flag.column in item.columns]
    changes = [set_null(item.columns), *(statement("{f} = false", f=flag) for flag in cleared)]
    change = joined(changes) if nullable else None
    return _offence(subject, where, f"name a row of {item.table} that does not exist", change)


def tenants(table: str, name: str) -> Statement:
    """The tenants of a table's rows, each once."""
    return statement("select distinct r.{n} from {table} as r", n=Name((name,)), table=Name.of(table))


def without_tenant(subject: Declared[Any], name: str) -> Offence:
    return replace(_offence(subject, null(name), "belong to no tenant"), sample=tenants(subject.table, name))


def unregistered(subject: Declared[Any], name: str, registry: Registry) -> Offence:
    where = statement(
        "{c} is not null and not exists (select from {registry} as t where {key}::text = {c}::text)",
        c=column(name), registry=Name.of(registry.table), key=column(registry.key, "t"),
    )  # fmt: skip
    says = f"name a tenant that {registry.table} does not know"
    return replace(_offence(subject, where, says), sample=tenants(subject.table, name))


_EXTREMES = (
    "select x.{v} from (select pg_catalog.min(r.{v}) as low, pg_catalog.max(r.{v}) as high from {table} as r) as e"
    " cross join lateral (values (e.low), (e.high)) as x ({v})"
)
_EXTREMES_BY = (
    "select e.{n}, x.{v} from (select r.{n}, pg_catalog.min(r.{v}) as low, pg_catalog.max(r.{v}) as high"
    " from {table} as r group by r.{n}) as e cross join lateral (values (e.low), (e.high)) as x ({v})"
)


def extremes(table: str, name: str, tenant: str = "") -> Statement:
    """The least and the greatest value of a column, which NaN is where there is one; of each tenant's rows."""
    template = _EXTREMES_BY if tenant else _EXTREMES
    return statement(template, v=Name((name,)), table=Name.of(table), n=Name((tenant,)))


def before_registration(subject: Declared[str], tenant: str, registry: Registry) -> Offence:
    times = {"time": Name((subject.item,)), "registered": column(registry.created, "t")}
    found = statement(
        "from {registry} as t where {key}::text = {c}::text",
        registry=Name.of(registry.table), key=column(registry.key, "t"), c=column(tenant),
    )  # fmt: skip
    where = statement("exists (select {found} and r.{time} < {registered})", found=found, **times)
    change = statement("{time} = (select {registered} {found})", found=found, **times)
    offence = _offence(subject, where, "are older than the registration of their tenant", change)
    return replace(offence, sample=extremes(subject.table, subject.item, tenant))


def in_future(subject: Declared[str], tenant: str = "") -> Offence:
    where = statement("{c} > pg_catalog.now()", c=column(subject.item))
    change = statement("{c} = pg_catalog.now()", c=Name((subject.item,)))
    offence = _offence(subject, where, "lie in the future", change)
    return replace(offence, sample=extremes(subject.table, subject.item, tenant))


# -- repeated rows ----------------------------------------------------------------------------------------------


def repeated(table: str, key: tuple[str, ...]) -> Statement:
    """Rows whose key, all of it given, is that of an earlier row (by physical place, which every table has)."""
    return statement(
        "exists (select from {table} as d where {same} and (d.tableoid, d.ctid) < (r.tableoid, r.ctid))",
        table=Name.of(table), same=equal(key, "d", "r"),
    )  # fmt: skip


def duplicates(subject: Declared[Any], key: tuple[str, ...], says: str) -> Offence:
    offence = _offence(subject, repeated(subject.table, key), says)
    if len(key) > 1:
        return offence
    more = statement(  # sorts once, where to look for each row's equals builds a hash table of all
        "select from (select pg_catalog.count(d.{k}) as all_of, pg_catalog.count(distinct d.{k}) as unlike"
        " from {table} as d) as d where d.all_of > d.unlike",
        k=Name(key), table=Name.of(subject.table),
    )  # fmt: skip
    return replace(offence, sample=more, any=True)


def shared_by_tenants(subject: Declared[str], name: str) -> Offence:
    groups = statement(
        "select d.{n} from {table} as d where d.{t} is not null group by d.{n}"
        " having pg_catalog.min(d.{t}::text) <> pg_catalog.max(d.{t}::text)",
        n=Name((name,)), t=Name((subject.item,)), table=Name.of(subject.table),
    )  # fmt: skip
    return _of_groups(subject, (name,), groups, "carry a value that another tenant's rows carry too")


def undetermined(subject: Declared[str], key: tuple[str, ...]) -> Offence:
    value = Name((subject.item,))
    groups = statement(
        "select {key} from {table} as d group by {key}"
        " having pg_catalog.min(d.{value}::text) <> pg_catalog.max(d.{value}::text)",
        key=columns(key, "d"), table=Name.of(subject.table), value=value,
    )  # fmt: skip
    change = statement(
        "{value} = (select pg_catalog.min(d.{value}) from {table} as d where {same})",
        value=value, table=Name.of(subject.table), same=equal(key, "d", "r"),
    )  # fmt: skip
    return _of_groups(subject, key, groups, f"differ in {value[0]} from others of the same key", change)


def _of_groups(
    subject: Declared[Any], key: tuple[str, ...], groups: Statement, says: str, change: Statement | None = None
) -> Offence:
    """Rows of the groups that a query finds; the query alone tells whether there are any."""
    where = statement("({key}) in ({groups})", key=columns(key), groups=groups)
    return replace(_offence(subject, where, says, change), sample=groups, any=True)


# -- values -----------------------------------------------------------------------------------------------------


def outside(subject: Declared[tuple[str, ...]], name: str) -> Offence:
    where = statement("{c}::text <> all({values}::text[])", c=column(name), values=subject.item)
    change = statement("{c} = {first}", c=Name((name,)), first=subject.item[0])
    says = f"hold a value that is none of {', '.join(subject.item)}"
    return Offence(subject.table, Rows(subject.table, where), says, change, subject.name)


def below(subject: Declared[float], name: str) -> Offence:
    # To a comparison NaN is the greatest number of all.
    where = statement("({c} < {least} or {c}::numeric = 'NaN')", c=column(name), least=subject.item)
    change = statement("{c} = {least}", c=Name((name,)), least=subject.item)
    rows, sample = Rows(subject.table, where), extremes(subject.table, name)
    return Offence(subject.table, rows, f"are below {subject.item:g}", change, subject.name, sample)


def flag_differs(subject: Declared[Any], flag: str, name: str) -> Offence:
    """A null flag counts as neither true nor false: it is in no list that filters by the flag."""
    where = statement("{f} is distinct from ({c} is not null)", f=column(flag), c=column(name))
    change = statement("{f} = ({c} is not null)", f=Name((flag,)), c=column(name))
    return _offence(subject, where, f"have {flag} not agreeing with {name}", change)


# -- members ----------------------------------------------------------------------------------------------------


def unknown_role(subject: Declared[Any], members: Members) -> Offence:
    where = statement("{c} is null or {c}::text <> all({roles}::text[])", c=column(members.role), roles=members.roles)
    return _offence(subject, where, f"have a role that is none of {', '.join(members.roles)}")


def unknown_user(subject: Declared[Any], members: Members) -> Offence:
    users = Name.of(members.users)
    where = statement(
        "{c} is null or not exists (select from {users} as u where u.{id}::text = {c}::text)",
        c=column(members.user), users=Name(users[:2]), id=Name(users[2:]),
    )  # fmt: skip
    return _offence(subject, where, f"name a user that {names.qualified(*users[:2])} does not know")


def unknown_permissions(subject: Declared[Any], members: Members) -> Offence:
    """Permission keys outside the declared ones; the remedy takes just those keys away."""
    keys = column(members.permissions)
    where = statement(
        "pg_catalog.jsonb_typeof({c}::pg_catalog.jsonb) is distinct from 'object' or"
        " ({c}::pg_catalog.jsonb - {known}::text[]) <> '{{}}'::pg_catalog.jsonb",
        c=keys, known=members.permission_keys,
    )  # fmt: skip
    change = statement(
        "{p} = coalesce((select pg_catalog.jsonb_object_agg(k.key, k.value) from pg_catalog.jsonb_each("
        "case pg_catalog.jsonb_typeof({c}::pg_catalog.jsonb) when 'object' then {c}::pg_catalog.jsonb else"
        " '{{}}'::pg_catalog.jsonb end) as k where k.key = any({known}::text[])), '{{}}'::pg_catalog.jsonb)",
        p=Name((members.permissions,)), c=keys, known=members.permission_keys,
    )  # fmt: skip
    says = f"hold a permission that is none of {', '.join(members.permission_keys)}"
    return _offence(subject, where, says, change)


def tenants_without_admin(registry: Registry, members: Members) -> Rows:
    """Active tenants in which nobody who is active is an admin."""
    live = statement("{a}", a=column(registry.active)) if registry.active else statement("true")
    where = statement(
        "{live} and not exists (select from {members} as m where m.{t}::text = {key}::text and m.{role}::text = {admin}"
        " and {active})",
        live=live, members=Name.of(members.table), t=Name((members.tenant,)), key=column(registry.key),
        role=Name((members.role,)), admin=members.admin, active=active(members),
    )  # fmt: skip
    return Rows(registry.table, where)


def incomplete(registry: Registry, table: str, name: str) -> Rows:
    """Registered tenants without a row in a table that every tenant has one in."""
    where = statement(
        "not exists (select from (select distinct d.{c} from {table} as d) as d where d.{c}::text = {key}::text)",
        table=Name.of(table), c=Name((name,)), key=column(registry.key),
    )  # fmt: skip
    return Rows(registry.table, where)


# -- chunks, archives, metrics ----------------------------------------------------------------------------------


def broken_units(subject: Declared[Chunks], unit: tuple[str, ...]) -> Offence:
    """All rows of the units whose chunks are not numbered from ``first`` on without a gap, each once, under one
    total that is their count; and the rows that belong to no unit."""
    item = subject.item
    broken = statement(
        "pg_catalog.count(*) <> pg_catalog.count(distinct d.{number})"
        " or pg_catalog.min(d.{number}) <> {first}::int"
        " or pg_catalog.max(d.{number}) <> {first}::int + pg_catalog.count(*) - 1"
        " or pg_catalog.count(d.{total}) <> pg_catalog.count(*)"
        " or pg_catalog.min(d.{total}) <> pg_catalog.max(d.{total})"
        " or pg_catalog.max(d.{total}) <> pg_catalog.count(*)",
        number=Name((item.number,)), total=Name((item.total,)), first=item.first,
    )  # fmt: skip
    parts = {"unit": columns(unit, "d"), "table": Name.of(subject.table), "broken": broken}
    groups = statement("select {unit} from {table} as d group by {unit} having {broken}", **parts)
    nameless = joined(map(null, unit), " or ")
    where = statement("({unit}) in ({groups}) or {nameless}", unit=columns(unit), groups=groups, nameless=nameless)
    some = joined((groups, *(null(name, "d") for name in unit)), " or ")
    says = "are chunks of a text whose chunks are not complete, numbered and counted alike"
    return replace(_offence(subject, where, says), sample=some, any=True)


def overdue(subject: Declared[Retention]) -> Offence:
    item = subject.item
    where = statement(
        "{c} < pg_catalog.now() - pg_catalog.make_interval(days => {days}::int)",
        c=column(item.column),
        days=item.days,
    )
    return _offence(subject, where, f"are older than {item.days} days and still live")


def archived(found: Finding, subject: Declared[Retention], live: Iterable[Column]) -> Finding:
    """The same finding with a remedy that keeps the rows: in one statement out of the live table, into the archive.

    Every live column is named, so that an archive without a place for one refuses the rows instead of losing it.
    """
    listed = joined(Name((c.name,)) for c in live if not c.generated)
    move = statement(
        "with moved as ({delete} returning {listed}) insert into {archive} ({listed}) select {listed} from moved;",
        delete=overdue(subject).rows.deleted, listed=listed, archive=Name.of(subject.item.archive),
    )  # fmt: skip
    return replace(found, remedy=str(move), destroys=False)


def live_and_archived(subject: Declared[Retention], owners: Owners | None) -> Offence:
    item = subject.item
    same = [statement("l.{key} = r.{key}", key=Name((item.key,)))]
    same += [statement("{l} = {r}", l=column(owners[0], "l"), r=column(owners[1]))] if owners else []
    where = statement(
        "exists (select from {live} as l where {same})", live=Name.of(subject.table), same=joined(same, " and ")
    )
    return Offence(
        item.archive, Rows(item.archive, where), f"are in {subject.table} as well", None, names.quote(item.key)
    )


def unknown_metrics(subject: Declared[Metrics]) -> Offence:
    name = Name((subject.item.name,))
    where = statement("r.{n}::text is null or r.{n}::text <> all({known}::text[])", n=name, known=subject.item.known)
    return _offence(subject, where, f"name a metric that is none of {', '.join(subject.item.known)}")


def infinite_metrics(subject: Declared[Metrics]) -> Offence:
    # Less itself, a number is zero, NaN and the infinities are NaN: of any numeric type, on any server, without a cast.
    where = statement("r.{v} is null or r.{v} - r.{v} <> 0", v=Name((subject.item.value,)))
    return Offence(
        subject.table, Rows(subject.table, where), "hold no finite value", None, names.quote(subject.item.value)
    )


def in_one_scan(*offences: Offence) -> tuple[Offence, ...]:
    """The offences of one table, with the rows that commit any as their sample."""
    anyhow = joined((statement("({w})", w=offence.rows.where) for offence in offences), " or ")
    source = Rows(offences[0].rows.table, anyhow).source
    return tuple(replace(o, sample=statement("select r.* from {source}", source=source)) for o in offences)


def tenant_key(contract: Contract, table: str, key: tuple[str, ...]) -> tuple[str, ...]:
    """The key, led by the tenant column where the relation has one."""
    tenant = contract.column_of(table) if contract.tables[table].holds == "tenant" else ""
    return key if not tenant or tenant in key else (tenant, *key)
