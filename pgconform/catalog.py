"""An immutable picture of pg_catalog: what a schema check reads. Never talks to a server."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import groupby

import msgspec

from pgconform.names import qualified, quote
from pgconform.vector_kinds import BIT

PUBLIC = "public"  # how the pseudo-role is written in ACLs, policies and remedies; no real role can have it


class Grant(msgspec.Struct, frozen=True):
    """One privilege that ``grantee`` holds, decoded from an ACL; PUBLIC is the grantee ``public``."""

    grantee: str
    privilege: str  # 'SELECT', 'USAGE', ... as SQL spells it
    grantor: str
    grantable: bool = False


class _Object(msgspec.Struct, frozen=True):
    schema: str
    name: str

    def __str__(self) -> str:
        return qualified(self.schema, self.name)


class Schema(msgspec.Struct, frozen=True):
    name: str
    owner: str
    acl: tuple[Grant, ...] = ()
    extension: str = ""

    def __str__(self) -> str:
        return quote(self.name)


class Column(msgspec.Struct, frozen=True):
    """``type`` is format_type's text with the modifier; ``base_oid`` is ``type_oid`` with domains resolved."""

    name: str
    number: int
    type: str
    type_oid: int
    base_oid: int
    modifier: int
    not_null: bool = False
    default: str | None = None
    generated: str = ""  # '' | 's' stored | 'v' virtual
    identity: str = ""  # '' | 'a' always | 'd' by default
    acl: tuple[Grant, ...] = ()


class Constraint(msgspec.Struct, frozen=True):
    """``kind`` is pg_constraint.contype; ``inherited`` marks a partition's copy of its parent's constraint."""

    name: str
    kind: str  # c check, f foreign key, p primary key, u unique, x exclusion, n not null, t trigger
    columns: tuple[str, ...]
    definition: str
    validated: bool = True
    enforced: bool = True
    deferrable: bool = False
    inherited: bool = False
    references: str = ""  # qualified name of the referenced table
    referenced_columns: tuple[str, ...] = ()
    on_delete: str = ""  # 'no action' | 'restrict' | 'cascade' | 'set null' | 'set default'
    on_update: str = ""


class Index(_Object, frozen=True):
    """``columns`` has one entry a key: the column's name, or '' for an expression (then see ``keys``)."""

    method: str
    columns: tuple[str, ...]
    keys: tuple[str, ...]  # per key: column name quoted, or the expression's text
    operator_classes: tuple[str, ...]  # per key: qualified name
    definition: str
    included: tuple[str, ...] = ()
    collations: tuple[int, ...] = ()  # per key: collation oid, 0 where the type has none
    directions: tuple[int, ...] = ()  # per key: pg_index.indoption
    predicate: str = ""
    options: dict[str, str] = {}
    unique: bool = False
    nulls_not_distinct: bool = False
    primary: bool = False
    valid: bool = True
    ready: bool = True
    constraint: str = ""
    inherited: bool = False
    extension: str = ""
    pages: int = 0

    def has_all(self, *columns: str) -> bool:
        """True where only rows that have no value of one of the columns are left out: no search by them looks there."""
        return not self.predicate or self.predicate in [f"({quote(column)} IS NOT NULL)" for column in columns]


class Policy(msgspec.Struct, frozen=True):
    """``using`` and ``check`` are pg_get_expr's text, or None where the policy has none."""

    name: str
    command: str  # 'ALL' | 'SELECT' | 'INSERT' | 'UPDATE' | 'DELETE'
    permissive: bool
    roles: tuple[str, ...]
    using: str | None = None
    check: str | None = None


class Trigger(msgspec.Struct, frozen=True):
    name: str
    function: str  # qualified name
    enabled: str  # 'O' | 'D' disabled | 'R' replica | 'A' always
    definition: str
    internal: bool = False


class Rule(msgspec.Struct, frozen=True):
    """A rewrite rule; a view's own, which makes it a view, is its ``Table.definition``."""

    name: str
    event: str  # 'SELECT' | 'UPDATE' | 'INSERT' | 'DELETE'
    instead: bool
    enabled: str  # 'O' | 'D' disabled | 'R' replica | 'A' always
    definition: str


class Table(_Object, frozen=True, dict=True):
    """A relation that can be selected from: table, partition, view, materialized view or foreign table."""

    kind: str  # 'table' | 'partitioned' | 'view' | 'materialized' | 'foreign'
    owner: str
    oid: int
    columns: tuple[Column, ...] = ()
    acl: tuple[Grant, ...] = ()
    row_security: bool = False
    forced: bool = False
    replica_identity: str = "d"  # 'd' primary key | 'i' index | 'f' full | 'n' nothing
    persistence: str = "p"
    parent: str = ""  # the partitioned table of a partition, or the only table that it inherits from
    options: dict[str, str] = {}  # reloptions: security_invoker, fillfactor ...
    extension: str = ""
    rows: float = -1  # pg_class.reltuples: -1 never analyzed
    pages: int = 0
    definition: str = ""  # of a view
    reads: tuple[str, ...] = ()  # relations that a view reads directly
    constraints: tuple[Constraint, ...] = ()
    indexes: tuple[Index, ...] = ()
    policies: tuple[Policy, ...] = ()
    triggers: tuple[Trigger, ...] = ()
    rules: tuple[Rule, ...] = ()

    def __str__(self) -> str:
        return self._called

    @cached_property
    def _called(self) -> str:
        return qualified(self.schema, self.name)

    def column(self, name: str) -> Column | None:
        """The column of that name, or None."""
        return self._by_name.get(name)

    @cached_property
    def _by_name(self) -> dict[str, Column]:
        return {column.name: column for column in self.columns}

    @property
    def stores_rows(self) -> bool:
        return self.kind in ("table", "partitioned", "foreign")

    @property
    def primary_key(self) -> tuple[str, ...]:
        """Columns of the primary key, or () where there is none."""
        return next((c.columns for c in self.constraints if c.kind == "p"), ())

    def foreign_keys(self) -> Iterator[Constraint]:
        return (c for c in self.constraints if c.kind == "f")


class Sequence(_Object, frozen=True):
    owner: str
    acl: tuple[Grant, ...] = ()
    owned_by: str = ""  # qualified table.column of a serial or identity column
    extension: str = ""


class Argument(msgspec.Struct, frozen=True):
    name: str
    type: str
    mode: str = "i"  # i in, o out, b inout, v variadic, t table
    default: str | None = None


class Function(_Object, frozen=True):
    """``identity`` is pg_get_function_identity_arguments; ``configuration`` holds its SET clauses."""

    identity: str
    kind: str  # f function, p procedure, a aggregate, w window
    owner: str
    oid: int
    language: str
    returns: str
    returns_set: bool = False
    volatility: str = "v"  # i immutable | s stable | v volatile
    parallel: str = "u"  # s safe | r restricted | u unsafe
    security_definer: bool = False
    strict: bool = False
    leakproof: bool = False
    arguments: tuple[Argument, ...] = ()
    configuration: dict[str, str] = {}
    body: str = ""
    sql_body: bool = False  # BEGIN ATOMIC or RETURN: names were resolved when it was created
    acl: tuple[Grant, ...] = ()
    extension: str = ""

    @property
    def signature(self) -> str:
        """The name with its argument types, as GRANT and DROP want it."""
        types = ", ".join(a.type for a in self.arguments if a.mode in "ibv")
        return f"{self}({types})"

    @property
    def inputs(self) -> tuple[Argument, ...]:
        return tuple(a for a in self.arguments if a.mode in "ibv")


class Type(_Object, frozen=True):
    oid: int
    kind: str  # b base, c composite, d domain, e enum, r range, m multirange, p pseudo
    owner: str
    base_oid: int = 0
    extension: str = ""
    labels: tuple[str, ...] = ()
    acl: tuple[Grant, ...] = ()


class Extension(msgspec.Struct, frozen=True):
    name: str
    version: str
    schema: str


class Role(msgspec.Struct, frozen=True):
    name: str
    superuser: bool = False
    bypass_row_security: bool = False
    create_role: bool = False
    create_database: bool = False
    replication: bool = False
    login: bool = False
    inherit: bool = True


class Membership(msgspec.Struct, frozen=True):
    """``member`` belongs to ``role``; before PostgreSQL 16 ``inherit`` is the member's own attribute."""

    role: str
    member: str
    admin: bool = False
    inherit: bool = True
    set: bool = True


class DefaultPrivilege(msgspec.Struct, frozen=True):
    """What ``owner`` opens on objects that it will create; ``schema`` is '' where it holds everywhere."""

    owner: str
    schema: str
    kind: str  # r relation, S sequence, f function, T type, n schema, L large object
    acl: tuple[Grant, ...]


class Publication(msgspec.Struct, frozen=True):
    name: str
    all_tables: bool
    tables: tuple[str, ...]
    operations: tuple[str, ...]
    columns: dict[str, tuple[str, ...]] = {}  # only where a column list restricts
    filters: dict[str, str] = {}


class Setting(msgspec.Struct, frozen=True):
    """One setting of ALTER DATABASE/ROLE ... SET; '' means every database or every role."""

    database: str
    role: str
    name: str
    value: str

    @property
    def whose(self) -> str:
        """Whom it is for, as a finding names it."""
        place = f" in {quote(self.database)}" if self.database else ""
        return (quote(self.role) if self.role else "every role") + place

    @property
    def on(self) -> bool:
        """True as the server reads a boolean, and as PostgREST does: TRUE, "true", any number above 0."""
        text = self.value.strip("\"' ").lower()
        return text in ("on", "t", "tr", "tru", "true", "y", "ye", "yes") or (text.isdecimal() and int(text) > 0)


class EventTrigger(msgspec.Struct, frozen=True):
    name: str
    event: str
    function: str
    enabled: str
    owner: str


class Server(msgspec.Struct, frozen=True):
    version: int  # server_version_num: 160014
    database: str
    database_owner: str
    encoding: str
    database_acl: tuple[Grant, ...] = ()


class Catalog(msgspec.Struct, frozen=True, dict=True):
    """Everything that one snapshot saw, ordered by name. System schemas are left out."""

    server: Server
    schemas: tuple[Schema, ...] = ()
    tables: tuple[Table, ...] = ()
    sequences: tuple[Sequence, ...] = ()
    functions: tuple[Function, ...] = ()
    types: tuple[Type, ...] = ()
    extensions: tuple[Extension, ...] = ()
    roles: tuple[Role, ...] = ()
    memberships: tuple[Membership, ...] = ()
    default_privileges: tuple[DefaultPrivilege, ...] = ()
    publications: tuple[Publication, ...] = ()
    settings: tuple[Setting, ...] = ()
    event_triggers: tuple[EventTrigger, ...] = ()
    unseen: tuple[str, ...] = ()  # relations whose parts could not be read: another session holds them locked

    def table(self, name: str) -> Table | None:
        """The relation of that qualified name, or None."""
        return self._tables.get(name)

    def schema(self, name: str) -> Schema | None:
        return self._schemas.get(name)

    def functions_named(self, name: str) -> tuple[Function, ...]:
        """All overloads of a qualified name, in the order of their arguments."""
        return self._functions.get(name, ())

    def role(self, name: str) -> Role | None:
        return self._roles.get(name)

    def extension(self, name: str) -> Extension | None:
        return next((e for e in self.extensions if e.name == name), None)

    def deciding(self, name: str) -> Iterator[Setting]:
        """The settings of that name; what a role has in this database goes before what it has everywhere."""
        found = [setting for setting in self.settings if setting.name.lower() == name]
        here = {setting.role for setting in found if setting.database}
        return (setting for setting in found if setting.database or setting.role not in here)

    @cached_property
    def vector_types(self) -> dict[int, str]:
        """OIDs of pgvector's types with a dimension, each with its name (vector, halfvec, sparsevec)."""
        return {t.oid: t.name for t in self.types if t.extension == "vector" and t.kind == "b"}

    def comparable(self, column: Column | None) -> str:
        """The type of a column that pgvector can search: one of its own, or bit; '' for any other."""
        known = {**self.vector_types, BIT: "bit"} if self.vector_types else {}
        return known.get(column.base_oid, "") if column else ""

    @cached_property
    def _tables(self) -> dict[str, Table]:
        return {str(table): table for table in self.tables}

    @cached_property
    def _schemas(self) -> dict[str, Schema]:
        return {schema.name: schema for schema in self.schemas}

    @cached_property
    def _functions(self) -> dict[str, tuple[Function, ...]]:
        return {name: tuple(found) for name, found in groupby(sorted(self.functions, key=str), str)}

    @cached_property
    def _roles(self) -> dict[str, Role]:
        return {role.name: role for role in self.roles}

    def to_json(self) -> bytes:
        """The whole picture as JSON, for xdist workers and for comparing two runs."""
        return msgspec.json.encode(self)

    @staticmethod
    def from_json(data: bytes | str) -> Catalog:
        """The picture again; equal to the one that was written. Raises msgspec.ValidationError."""
        return msgspec.json.decode(data, type=Catalog)
