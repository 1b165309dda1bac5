"""The contract: what one database promises. Frozen and typed; read from TOML by ``contract_file``.

Every struct here is one section of the file, and its field documentation is what editors show, since the JSON
Schema is generated from it. Names of relations, columns and functions are canonical (see ``names``) once loaded.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Annotated, Any, Literal

from msgspec import Meta

from pgconform.contract_operations import Backups, Metrics, Operations, Procedure, Trends
from pgconform.contract_section import Milliseconds, Section, Share
from pgconform.contract_vectors import Query, Search, Vector

Scope = Annotated[
    Literal["none", "own", "team", "shared", "all"],
    Meta(
        description="none: no privilege; own: rows of the session's tenants or user; team: users' rows, and those of "
        "users in the same tenants; shared: rows common to all tenants; all: every tenant's rows"
    ),
]
Command = Literal["select", "insert", "update", "delete"]
COMMANDS: tuple[Command, ...] = ("select", "insert", "update", "delete")
Attribute = Literal["SUPERUSER", "BYPASSRLS", "CREATEROLE", "CREATEDB", "REPLICATION"]


class Schemas(Section, frozen=True):
    """Which schemas there are. ``tenant`` schemas hold declared relations only."""

    exposed: tuple[str, ...] = ("public",)
    tenant: tuple[str, ...] = ()
    internal: tuple[str, ...] = ()


class ExtensionPromise(Section, frozen=True):
    """``builtin_from``: the server's major version from which the extension is not needed any more."""

    minimum: Annotated[str, Meta(pattern=r"^([0-9]+(\.[0-9]+)*)?$", description="a version such as 0.8.2")] = ""
    schema: str = ""
    builtin_from: int | None = None


class Roles(Section, frozen=True):
    """``clients`` are what the API becomes for its callers; ``privileged`` maps each role that may log in with
    more than ordinary rights, directly or through membership, to just those attributes."""

    clients: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    privileged: dict[str, tuple[Attribute, ...]] = {}


class Session(Section, frozen=True):
    """How the API signs a caller in: role, claims and settings; ``{user}`` and ``{tenant}`` are filled in, as numbers
    where a claim is ``{user:number}`` or ``{tenant:number}``."""

    role: str
    claims: dict[str, Any] = {}
    settings: dict[str, str] = {}


class Registry(Section, frozen=True):
    """The table that knows every tenant."""

    table: str
    key: str
    active: str = ""
    created: str = ""


class Members(Section, frozen=True):
    """The table that says which user belongs to which tenant. A membership counts while ``active`` is true, or has
    one of ``active_values``, and before ``expires``."""

    table: str
    user: str
    tenant: str
    active: str = ""
    active_values: tuple[str, ...] = ()
    expires: str = ""
    role: str = ""
    roles: tuple[str, ...] = ()
    admin: str = ""
    permissions: str = ""
    permission_keys: tuple[str, ...] = ()
    users: str = ""


class Complete(Section, frozen=True):
    """A table in which every registered tenant has a row."""

    table: str
    column: str


class Tenancy(Section, frozen=True):
    """One way in which rows belong to tenants. Without ``members``, ``session`` itself carries ``{tenant}``
    (a claim of the token, or a setting)."""

    column: str
    type: str
    registry: Registry | None = None
    members: Members | None = None
    session: str = "member"
    complete: tuple[Complete, ...] = ()


class Reference(Section, frozen=True):
    """Columns that name a row of another table; ``declared = false``: by data only, no foreign key wanted."""

    columns: tuple[str, ...]
    table: str
    to: tuple[str, ...] = ("id",)
    on_delete: Literal["no action", "restrict", "cascade", "set null", "set default"] | None = None
    declared: bool = True


class Chunks(Section, frozen=True):
    """Rows of one ``unit`` are numbered ``first`` to ``total`` without a gap."""

    unit: tuple[str, ...]
    number: str
    total: str
    first: int = 0


class Filled(Section, frozen=True):
    """At least ``share`` of the rows have a value in ``column`` (above ``above``, where given)."""

    column: str
    share: Share
    above: float | None = None


class Allowed(Section, frozen=True):
    """Only the rows whose ``key`` is listed hold ``value`` in ``column``; ``otherwise`` is what a remedy sets."""

    column: str
    value: str
    key: str
    keys: tuple[str, ...]
    otherwise: str


class Flag(Section, frozen=True):
    """The boolean ``flag`` is true just where ``column`` is not null."""

    flag: str
    column: str


class Retention(Section, frozen=True):
    """Rows older than ``days`` have moved to ``archive``; a row is never in both."""

    column: str
    days: Annotated[int, Meta(ge=1)]
    archive: str = ""
    key: str = "id"


class Total(Section, frozen=True):
    """``column`` equals the sum of ``detail_column`` over the rows of ``detail`` that name it by ``detail_key``."""

    column: str
    detail: str
    detail_column: str
    detail_key: str
    key: str = "id"


class TablePromise(Section, frozen=True):
    """What one relation promises. ``holds``: whose rows it has (tenant: ``column`` names the tenant; user:
    ``column`` names the user; child: ``column`` names a row of ``parent``; shared: nobody's; service: no
    client's business). ``access`` is the profile, by default the one called like ``holds``. ``definition``
    is SQL that creates it, or ``file:NAME`` relative to the contract; ``unlogged`` allows a crash to empty it. Rows for
    which the SQL condition ``visible`` does not hold may be hidden from those whose they are; of a ``nullable`` tenant
    column, rows without a tenant are ``shared`` where everybody who may read own rows may read them."""

    holds: Literal["tenant", "user", "child", "shared", "service"] = "tenant"
    column: str = ""
    parent: str = ""
    parent_key: str = "id"
    tenancy: str = ""
    access: str = ""
    optional: bool = False
    definition: str = ""
    nullable: bool | Literal["shared"] = False
    unlogged: bool = False
    visible: str = ""
    columns: dict[str, dict[Command, tuple[str, ...]]] = {}
    unique: tuple[tuple[str, ...], ...] = ()
    exclusive: tuple[str, ...] = ()
    distinct: tuple[str, ...] = ()
    times: tuple[str, ...] = ()
    determines: dict[str, str] = {}
    references: tuple[Reference, ...] = ()
    vectors: dict[str, Vector] = {}
    chunks: Chunks | None = None
    minimum: dict[str, float] = {}
    values: dict[str, tuple[str, ...]] = {}
    filled: tuple[Filled, ...] = ()
    allowed: tuple[Allowed, ...] = ()
    flags: tuple[Flag, ...] = ()
    retention: Retention | None = None
    totals: tuple[Total, ...] = ()


class ArgumentPromise(Section, frozen=True):
    """``default`` is the SQL text of a constant; no ``default``: the argument must be given."""

    name: str
    type: str
    default: str | float | int | bool | None = None


class FunctionPromise(Section, frozen=True):
    """What one function promises; ``search_path`` is the value that it is pinned to;
    ``definition`` is SQL that creates it with its grants, or ``file:NAME`` relative to the contract."""

    arguments: tuple[ArgumentPromise, ...] = ()
    volatility: Literal["immutable", "stable", "volatile"] | None = None
    parallel: Literal["safe", "restricted", "unsafe"] | None = None
    security: Literal["invoker", "definer"] = "invoker"
    search_path: str | None = None
    execute: tuple[str, ...] = ()
    search: Search | None = None
    definition: str = ""


class Report(Section, frozen=True):
    """``column`` of the one row of ``relation`` equals the aggregate over ``table``."""

    relation: str
    column: str
    table: str
    aggregate: Literal["count", "count distinct", "sum", "avg", "min", "max"] = "count"
    of: str = ""
    where: dict[str, str] = {}


class Waiver(Section, frozen=True):
    """A known finding that does not fail the run before ``until``; ``detail`` narrows it."""

    check: str
    object: str
    reason: Annotated[str, Meta(min_length=1)]
    owner: Annotated[str, Meta(min_length=1)]
    until: datetime.date
    detail: str = ""


class Limits(Section, frozen=True):
    """Bounds of what pgconform itself may take; times in milliseconds."""

    statement_timeout: Milliseconds = 30_000
    lock_timeout: Milliseconds = 2_000
    call_timeout: Annotated[Milliseconds, Meta(description="of one call of a function by an attack")] = 2_000
    tenants: Annotated[int, Meta(ge=2, description="tenants whose members are acted as")] = 12
    searches: Annotated[int, Meta(ge=1, description="query vectors of each kind, per search function and caller")] = 1
    search_seconds: Annotated[int, Meta(ge=0, description="what one check's searches of one function may take")] = 120


class Contract(Section, frozen=True, dict=True):
    """Everything that one database promises."""

    name: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_-]*$", description="short name, used in test ids")]
    title: str = ""
    guide: str = ""
    schemas: Schemas = Schemas()
    extensions: dict[str, ExtensionPromise] = {}
    roles: Roles = Roles()
    claims_setting: str = "request.jwt.claims"
    user_functions: tuple[str, ...] = ("auth.uid",)
    sessions: dict[str, Session] = {}
    tenancies: dict[str, Tenancy] = {}
    access: dict[str, dict[str, Scope | dict[Command, Scope]]] = {}
    tables: dict[str, TablePromise] = {}
    functions: dict[str, FunctionPromise] = {}
    queries: dict[str, Query] = {}
    publications: tuple[str, ...] = ()
    reports: tuple[Report, ...] = ()
    metrics: Metrics | None = None
    operations: Operations | None = None
    trends: Trends | None = None
    backups: Backups | None = None
    procedures: dict[str, Procedure] = {}
    owner: Annotated[str, Meta(description="whose business findings are, unless [owners] names somebody else")] = ""
    owners: Annotated[
        dict[str, str],
        Meta(
            description="by check, or by relation or function (* for any text): whose business findings are; a check "
            "comes before an object, and of objects the first that fits"
        ),
    ] = {}
    skips: Annotated[
        dict[str, Annotated[str, Meta(min_length=1)]],
        Meta(description="check, or check:subject, that may find nothing to examine, and why"),
    ] = {}
    waivers: tuple[Waiver, ...] = ()
    limits: Limits = Limits()
    reference: Annotated[
        str, Meta(description="bundled reference database that embedded and container targets build")
    ] = ""

    def tenancy_of(self, promise: TablePromise) -> Tenancy:
        """The tenancy that a table's rows belong to: the named one, or the only one."""
        return self.tenancies[promise.tenancy or next(iter(self.tenancies))]

    def scope(self, table: str, role: str, command: Command) -> Scope:
        """Whose rows ``role`` may touch by ``command``; ``none`` where nothing is declared."""
        promise = self.tables.get(table)
        return "none" if promise is None else self.scope_by(promise, role, command)

    def scope_by(self, promise: TablePromise, role: str, command: Command) -> Scope:
        """Whose rows of a relation of which that is promised."""
        granted = self.access.get(promise.access or promise.holds, {}).get(role, "none")
        return granted if isinstance(granted, str) else granted.get(command, "none")

    def commands(self, promise: TablePromise, role: str) -> tuple[Command, ...]:
        """The commands by which ``role`` may touch any row of a relation of which that is promised."""
        return self._commands.get((promise.access or promise.holds, role), ())

    @cached_property
    def _commands(self) -> dict[tuple[str, str], tuple[Command, ...]]:
        return {
            (profile, role): tuple([c for c in COMMANDS if (g if isinstance(g, str) else g.get(c, "none")) != "none"])
            for profile, roles in self.access.items() for role, g in roles.items()
        }  # fmt: skip

    def column_of(self, table: str) -> str:
        """The column that says whose a row is; '' where rows are nobody's."""
        return self.column_by(self.tables[table])

    def column_by(self, promise: TablePromise) -> str:
        """That column of a relation of which that is promised."""
        if promise.column or promise.holds != "tenant":
            return promise.column
        return self.tenancy_of(promise).column

    def rooted(self, table: str) -> str:
        """The relation whose rows say whose this one's are: a child's parent, or its parent's, else itself."""
        while self.tables[table].holds == "child":
            table = self.tables[table].parent
        return table

    def owner_of(self, check: str, name: str) -> str:
        """Whose business a check's finding on an object is; '' where the contract does not say."""
        fitting = (owner for pattern, owner in self.owners.items() if fnmatchcase(name, pattern))
        return self.owners.get(check) or next(fitting, self.owner)

    def tenant_tables(self) -> Iterator[str]:
        """The names of the relations whose rows carry a tenant, in file order."""
        return (name for name, promise in self.tables.items() if promise.holds == "tenant")
