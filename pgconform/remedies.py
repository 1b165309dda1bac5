"""SQL that puts a database right, as far as the contract tells what is right. Text only: nothing is run here."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from pgconform import subjects
from pgconform.callees import called_in, functions_behind
from pgconform.catalog import PUBLIC, Function, Schema, Sequence, Table, Type
from pgconform.contract import Contract, TablePromise
from pgconform.contract_vectors import Vector
from pgconform.expressions import shape
from pgconform.names import literal, qualified, quote, remark
from pgconform.policy_cases import Case, once, policies
from pgconform.privileges import SUPERUSER, Held, Holder, Privileges
from pgconform.vector_kinds import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pgconform.catalog import Catalog, Grant, Index, Policy, Setting
    from pgconform.checks import Evidence


_PROMISES = (
    subjects.vectors, subjects.references, subjects.unique_keys, subjects.exclusive_columns,
    subjects.distinct_columns, subjects.time_columns, subjects.determined_columns, subjects.chunked_tables,
    subjects.minimums, subjects.value_sets, subjects.filled_columns, subjects.allowed_values, subjects.flags,
    subjects.retentions, subjects.archives, subjects.totals, subjects.reports, subjects.metrics, subjects.tenancies,
    subjects.memberships, subjects.completeness,
)  # fmt: skip


def promised_columns(contract: Contract) -> dict[str, tuple[str, ...]]:
    """Columns that any promise of the contract speaks of, by relation: each once, in a fixed order."""
    wanted: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for table, promise in contract.tables.items():
        if own := contract.column_by(promise):
            wanted[table][own] = None
    for selector in _PROMISES:
        for subject in selector(contract):
            for table, names in subject.needs:
                for name in names:
                    wanted[table][name] = None
    for table, promise in contract.tables.items():
        for granted in promise.columns.values():
            wanted[table] |= {name: None for names in granted.values() for name in names if name}
    return {table: tuple(names) for table, names in wanted.items()}


# -- relations and columns --------------------------------------------------------------------------------------


_TIME = "timestamp with time zone"


def column_type(contract: Contract, catalog: Catalog, table: str, name: str) -> str:
    """The type that the contract tells or implies for a column, or that a column has which must be like it; ''
    where nothing does."""
    promise = contract.tables.get(table, TablePromise(holds="service"))
    if promise.holds == "tenant" and name == contract.column_of(table):
        return contract.tenancy_of(promise).type
    if vector := promise.vectors.get(name):
        return vector_type(catalog, vector)
    return _like(contract, catalog, table, name) or _implied(contract, table, name)


def _like(contract: Contract, catalog: Catalog, table: str, name: str) -> str:
    """The type of what the column refers to, or is a copy of: in an archive, or in what is archived there."""
    promise = contract.tables.get(table, TablePromise(holds="service"))
    same = [(r.table, r.to[r.columns.index(name)]) for r in promise.references if name in r.columns]
    same += [(promise.parent, promise.parent_key)] if promise.holds == "child" and name == promise.column else []
    same += [(promise.retention.archive, name)] if promise.retention else []
    same += [(n, name) for n, t in contract.tables.items() if t.retention and t.retention.archive == table]
    for other, its in same:
        stored = catalog.table(other)
        found = stored.column(its) if stored else None
        if told := found.type if found else _implied(contract, other, its):
            return told
    return ""


def _implied(contract: Contract, table: str, name: str) -> str:
    """The type without which a promise of the contract would say nothing."""
    promise = contract.tables.get(table, TablePromise(holds="service"))
    told = dict.fromkeys(promise.minimum, "numeric") | {f.flag: "boolean" for f in promise.flags}
    told |= dict.fromkeys([*promise.times, *([promise.retention.column] if promise.retention else [])], _TIME)
    if promise.chunks:
        told |= {promise.chunks.number: "integer", promise.chunks.total: "integer"}
    if contract.metrics and contract.metrics.table == table:
        told |= {contract.metrics.name: "text", contract.metrics.value: "numeric", contract.metrics.time: _TIME}
    for tenancy in contract.tenancies.values():
        registry, members = tenancy.registry, tenancy.members
        if registry and registry.table == table:
            told |= {registry.key: tenancy.type, registry.active: "boolean", registry.created: _TIME}
        if members and members.table == table:
            told |= {members.tenant: tenancy.type, members.expires: _TIME}
            told |= {} if members.active_values else {members.active: "boolean"}
    return told.get(name, "")


def create_table(contract: Contract, catalog: Catalog, name: str) -> str:
    """The contract's definition; without one nobody can tell the whole of it, and part of it would be in the way."""
    if defined := contract.tables[name].definition:
        return defined
    types = ((c, column_type(contract, catalog, name, c)) for c in promised_columns(contract).get(name, ()))
    listed = ", ".join(f"{quote(c)} {kind}".strip() for c, kind in types)
    return "\n".join(
        [
            remark(f"make {name} as your migrations do, and bring its rows back from a backup"),
            *([remark(f"the contract speaks of these columns: {listed}")] if listed else []),
            remark(f"it has no definition of it: definition, under [tables.{literal(name)}], would be printed here"),
        ]
    )


def add_column(contract: Contract, catalog: Catalog, table: str, name: str) -> str:
    """The column as far as the contract tells; its values are wherever it went."""
    kind, stored, defined = column_type(contract, catalog, table, name), catalog.table(table), ""
    if stored and stored.kind in ("view", "materialized"):
        defined, kind = contract.tables[table].definition if table in contract.tables else "", ""
    values = remark("its values are in a backup, or in a column of another name")
    unknown = remark(f"add {quote(name)} to {table} as your migrations do: the contract does not tell all of it")
    told = f"{values}\nalter table {table} add column {quote(name)} {kind};"
    return defined or (told if kind else f"{values}\n{unknown}")


def retype(table: Table, name: str, wanted: str) -> str:
    """Gives a column another type. Policies may read the column, so they are dropped before and made anew after."""
    change = f"alter table {table} alter column {quote(name)} type {wanted} using {quote(name)}::{wanted};"
    drops = [f"drop policy if exists {quote(policy.name)} on {table};" for policy in table.policies]
    return "\n".join([*drops, change, *(policy_text(table, policy) for policy in table.policies)])


def policy_text(table: Table, policy: Policy) -> str:
    """CREATE POLICY for a policy of the catalogue, as it is."""
    kind = "" if policy.permissive else " as restrictive"
    using = f" using ({policy.using})" if policy.using is not None else ""
    checked = f" with check ({policy.check})" if policy.check is not None else ""
    return (
        f"create policy {quote(policy.name)} on {table}{kind} for {policy.command.lower()}"
        f" to {', '.join(map(quoted_role, policy.roles))}{using}{checked};"
    )


def rebuild(table: Table, index: Index) -> str:
    """Makes an index valid. That of a partitioned table, made for the parent only, has nothing to rebuild: made anew
    it is made for the partitions too."""
    if table.kind != "partitioned":
        return f"reindex index {index};"
    name = quote(index.name)
    if rule := next((c for c in table.constraints if c.name == index.constraint), None):
        return f"alter table {table} drop constraint {name}, add constraint {name} {rule.definition};"
    return f"drop index {index};\n{index.definition.replace(f' {name} ON ONLY ', f' {name} ON ', 1)};"


def set_logged(catalog: Catalog, table: Table) -> str:
    """Logs a table, after those that its foreign keys refer to: a logged one must not refer to an unlogged one."""
    found, pending = [table], [table]
    while pending:
        referred = [catalog.table(key.references) for key in pending.pop().foreign_keys()]
        new = [t for t in referred if t and t.persistence == "u" and t not in found]
        found = [*new, *found]
        pending += new
    return "\n".join(f"alter table {each} set logged;" for each in found)


def noun(table: Table) -> str:
    """What SQL calls this kind of relation."""
    return {"view": "view", "materialized": "materialized view", "foreign": "foreign table"}.get(table.kind, "table")


# -- privileges -------------------------------------------------------------------------------------------------


def revoke(held: Held, on: str, role: str, privileges: Privileges) -> str:
    """Takes a privilege away where it comes from: the role itself, PUBLIC, a role behind it, or being superuser."""
    if held.via == SUPERUSER:
        return f"alter role {quote(role)} nosuperuser;"
    if held.via not in (role, PUBLIC):
        return leave(role, held.via, privileges)
    columns = f" ({quote(held.column)})" if held.column else ""
    return f"revoke {held.privilege.lower()}{columns} on {on} from {quoted_role(held.via)};"


def revoke_option(grant: Grant, column: str, target: Holder) -> str:
    """Leaves the privilege, and takes away the right to pass it on, with all that was passed on; as the grantor did."""
    kinds = {Sequence: "sequence ", Schema: "schema ", Type: "type ", Table: ""}
    on = kinds.get(type(target), "routine ") + (target.signature if isinstance(target, Function) else str(target))
    what = grant.privilege.lower() + (f" ({quote(column)})" if column else "")
    taken = f"revoke grant option for {what} on {on} from {quoted_role(grant.grantee)} cascade;"
    own = grant.grantor == target.owner
    return taken if own else f"set role {quote(grant.grantor)};\n{taken}\nreset role;"


def shut(table: Table, contract: Contract, privileges: Privileges) -> str:
    """Takes from the client roles all that they hold on a relation."""
    lines = [revoke(h, str(table), r, privileges) for r in contract.roles.clients for h in privileges.on(r, table)]
    return "\n".join(dict.fromkeys(lines))


def past_rows(table: Table, contract: Contract, privileges: Privileges, what: Iterable[str]) -> str:
    """Takes privileges from the client roles in which row security has no say: no policy can stand in their way."""
    held = {role: privileges.on(role, table) for role in contract.roles.clients}
    lines = [
        revoke(h, str(table), r, privileges) for r, some in held.items() for h in some if h.privilege.lower() in what
    ]
    return "\n".join(dict.fromkeys(lines))


def deny(evidence: Evidence, function: Function) -> str:
    """Takes from a function its owner's rights, where the contract does not grant them; else it from the clients."""
    promise = subjects.promise_for(function, evidence.catalog, evidence.contract)
    kind = "procedure" if function.kind == "p" else "function"
    if promise and promise.definition:
        return subjects.recreate(str(function), promise, *evidence.catalog.functions_named(str(function)))
    if function.security_definer and not (promise and promise.security == "definer"):
        return unless_asked(evidence, function, f"alter {kind} {function.signature} security invoker;")
    clients = ", ".join(map(quote, evidence.contract.roles.clients))
    return unless_asked(evidence, function, f"revoke execute on {kind} {function.signature} from public, {clients};")


def unless_asked(evidence: Evidence, function: Function, remedy: str) -> str:
    """The remedy, unless it takes from clients what policies call for them: the server would refuse them the tables, or
    the function find less than before. It is then moved to where clients cannot name it. Policies know it by its
    identity, and ask for EXECUTE alone; bodies know it by its name, so those that call it have to be changed first."""
    if _needed not in evidence.selected:
        evidence.selected[_needed] = list(_needed(evidence.catalog, evidence.contract, evidence.privileges))
    tables = list(dict.fromkeys(table for name, table in evidence.selected[_needed] if name == function.signature))
    if not tables:
        return remedy
    catalog, signature, schema = evidence.catalog, function.signature, _out_of_sight(evidence)
    callers = [f.signature for f in catalog.functions if f is not function and function in called_in(f.body, catalog)]
    others = f" and {len(tables) - 1} more" if len(tables) > 1 else ""
    told = [f"policies of {tables[0]}{others} call {signature} as it is, for clients: without it they would be refused"]
    move = f"create schema if not exists {schema};\nalter function {signature} set schema {schema};"
    if not callers:
        told.append("policies go on finding it where clients cannot name it")
        return "\n".join([*map(remark, told), move])
    told.append(f"in one transaction, have {', '.join(callers)} call it as {schema}.{quote(function.name)}, and run:")
    return "\n".join(map(remark, [*told, *move.splitlines()]))


def _needed(catalog: Catalog, contract: Contract, privileges: Privileges) -> Iterator[tuple[str, str]]:
    """The functions that policies call for clients, themselves or through others, each with the table."""
    for table, _, case in policies(catalog, contract, privileges):
        yield from ((signature, str(table)) for signature in _behind(case))


@once
def _behind(case: Case) -> set[str]:
    return {f.signature for text in case.texts for f in functions_behind(shape(text, case.table), case.catalog)}


def _out_of_sight(evidence: Evidence) -> str:
    """A schema in which clients can name nothing; a new one where there is none."""
    clients, privileges = evidence.contract.roles.clients, evidence.privileges
    closed = {s.name for s in evidence.catalog.schemas if not any(privileges.may(c, "USAGE", s) for c in clients)}
    internal = [name for name in evidence.contract.schemas.internal if name in closed]
    taken = {s.name for s in evidence.catalog.schemas} - closed
    return quote(next(iter(internal), "private" if "private" not in taken else "pgconform_private"))


def leave(role: str, other: str, privileges: Privileges) -> str:
    """Ends the role's own memberships that lead to another role, however far away; others keep theirs."""
    return f"revoke {', '.join(map(quote, privileges.ways(role, other)))} from {quote(role)};"


def reset(setting: Setting) -> str:
    """Ends what ALTER ROLE or ALTER DATABASE set."""
    whose = f"role {quote(setting.role) if setting.role else 'all'}"
    if setting.database:
        whose = (
            f"{whose} in database {quote(setting.database)}" if setting.role else f"database {quote(setting.database)}"
        )
    return f"alter {whose} reset {qualified(*setting.name.split('.'))};"


# -- vectors ----------------------------------------------------------------------------------------------------


def vector_type(catalog: Catalog, vector: Vector) -> str:
    """The declared type with its dimension, in the schema of the extension."""
    return _sized(catalog, vector.type, vector.dimension)


def _sized(catalog: Catalog, kind: str, dimension: int) -> str:
    return f"{'' if kind == 'bit' else _extension_schema(catalog)}{kind}({dimension})"


def _extension_schema(catalog: Catalog) -> str:
    extension = catalog.extension("vector")
    return f"{quote(extension.schema)}." if extension else ""


def create_vector_index(catalog: Catalog, table: Table, name: str, vector: Vector) -> str:
    """An index that a search by the declared metric can use, with options suited to the number of rows."""
    schema, cast, key = _extension_schema(catalog), vector.index_cast, quote(name)
    assert vector.index
    assert vector.indexed_as, "what no index takes is no contract"
    if cast:
        held = f"{schema}binary_quantize({key})" if cast == "bit" else key
        key = f"({held}::{_sized(catalog, cast, vector.dimension)})"
    kind = KINDS[vector.indexed_as]
    method = next(method for method in vector.index.methods if method in kind.methods)
    options = f" with (lists = {suited_lists(table.rows)})" if method == "ivfflat" else ""
    return f"create index on {table} using {method} ({key} {schema}{kind.operator_class}){options};"


def suited_lists(rows: float) -> int:
    """Lists for an ivfflat index: rows/1000 up to a million rows, then their root (pgvector's README)."""
    if rows <= 1_000_000:
        return max(1, round(max(rows, 0) / 1000) or min(10, max(1, int(max(rows, 0) / 10))))
    return int(rows**0.5)


def quoted_role(role: str) -> str:
    return "public" if role == "public" else quote(role)
