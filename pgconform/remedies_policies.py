"""SQL that puts policies right: tied to the rows that the contract gives a session. Text only: nothing is run here."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

from pgconform import subjects
from pgconform.catalog import Function, Table
from pgconform.contract import COMMANDS, Command, Contract, Members, Session, Tenancy
from pgconform.expressions import ExpressionError, constrains, shape
from pgconform.memberships import names, said
from pgconform.names import literal, qualified, quote, remark, split
from pgconform.people import active
from pgconform.policy_cases import own_keys
from pgconform.policy_conditions import asked_once, counted, kept, says_whose
from pgconform.privileges import Privileges
from pgconform.remedies import quoted_role
from pgconform.statements import Name, statement

if TYPE_CHECKING:
    from pgconform.catalog import Catalog, Policy
    from pgconform.checks import Evidence

_CREATE = re.compile(r"^(\s*)create\s+(function|procedure)\b", re.IGNORECASE | re.MULTILINE)


def create_policy(contract: Contract, table: str, command: str, role: str, on: str = "") -> str:
    """The policy that gives a role just the rows that the contract's access profile says."""
    scope = contract.scope(table, role, command.lower())  # type: ignore[arg-type]
    own = "true" if scope in ("shared", "all") else own_condition(contract, table, on)
    new = "true" if own == "true" else _new_row(contract, table, own)
    parts = {"SELECT": f"using ({own})", "DELETE": f"using ({own})", "INSERT": f"with check ({new})",
             "UPDATE": f"using ({own}) with check ({new})", "ALL": f"using ({own}) with check ({new})"}  # fmt: skip
    title = quote(f"pgconform {role} {command.lower()}"[:63])
    again = f"drop policy if exists {title} on {on or table};\n"  # a remedy can be run twice
    return (
        f"{again}create policy {title} on {on or table} for {command.lower()} to {quoted_role(role)} {parts[command]};"
    )


def tie(catalog: Catalog, contract: Contract, declared: str, table: Table, policy: Policy, again: bool = False) -> str:
    """The policy anew, tied to the own rows; what it asked besides it goes on asking, so that nobody gets a row that it
    kept from them. ``again``: it is tied whatever its text says, for what it calls may lie.

    It can be run after another remedy has replaced the policy, and says the same whatever is wrong with the policy.
    """
    own, told = _own(contract, declared, table, policy), list[str]()
    name, roles = quote(policy.name), ", ".join(map(quoted_role, policy.roles))

    def asked(text: str) -> str:
        try:
            return rewritten(text)
        except ExpressionError:  # nobody can tell its parts, so all of it stays
            return f"({own}) and ({text})"

    def rewritten(text: str) -> str:
        found = kept(text, contract.tables[declared], contract, catalog, table)
        told.extend(f"policy {name} asks no longer, since it proves nothing: {each}" for each in found.gone)
        told.extend(f"it proves nothing; have policy {name} ask a membership instead: {each}" for each in found.odd)
        left = asked_once(counted(found.text, contract), catalog) if found.text else ""
        bound = left and not again and _is_bound(contract, catalog, declared, table, left)
        tied = left or own if not left or bound or own == "true" else f"({own}) and ({left})"
        return _counting(catalog, contract, table, tied)

    using = asked(policy.using) if policy.using is not None else None
    checked = asked(policy.check) if policy.check is not None else None
    if policy.command != "SELECT" and policy.command != "DELETE" and _new_row(contract, declared, own) != own:
        checked = _new_row(contract, declared, own)
    kind = "" if policy.permissive else " as restrictive"
    parts = (f" {word} ({text})" for word, text in (("using", using), ("with check", checked)) if text)
    return "\n".join(
        [
            *map(remark, dict.fromkeys(told)),
            f"drop policy if exists {name} on {table};",
            f"create policy {name} on {table}{kind} for {policy.command.lower()} to {roles}{''.join(parts)};",
        ]
    )


def _own(contract: Contract, declared: str, table: Table, policy: Policy) -> str:
    """The condition that ties rows to the session; true where the contract gives clients all of them."""
    commands = [command for command in COMMANDS if policy.command in ("ALL", command.upper())]
    scopes = {contract.scope(declared, role, command) for role in contract.roles.clients for command in commands}
    if contract.tables[declared].holds == "shared" or not scopes & {"own", "team", "none"}:
        return "true"
    return own_condition(contract, declared, str(table)) if contract.column_of(declared) else "false"


def _counting(catalog: Catalog, contract: Contract, table: Table, text: str) -> str:
    """The expression, with a membership of the session's own that counts where it looks for one that may not: of a
    lookup that could not be told to ask itself."""
    for tenancy in contract.tenancies.values():
        members = tenancy.members
        wanted = [c for c in (members.active, members.expires) if c] if members else []
        if members is None or members.table == str(table):
            continue
        if tuple(split(members.table)) in shape(text, table.name).relations and not all(
            names([text], column) or names(said([text], catalog), column) for column in wanted
        ):
            there = _own_tenants(contract, tenancy, contract.sessions[tenancy.session])
            text = f"exists ({there}) and ({text})"
    return text


def _is_bound(contract: Contract, catalog: Catalog, declared: str, table: Table, text: str) -> bool:
    """Whether the expression's every way to be true ties the row to the session."""
    column, promise = contract.column_of(declared), contract.tables[declared]
    if not column:
        return False
    try:
        meaning = shape(text, table.name)
    except ExpressionError:
        return False
    trusted = own_keys(contract, catalog, promise, declared, meaning.relations)
    return not meaning.always_true and constrains(text, [column], table.name, trusted)


def _new_row(contract: Contract, declared: str, own: str) -> str:
    """What a policy asks of a new row: a membership is made by nobody but the backend, until somebody writes who
    administers a tenant (a lookup in the table itself would fail every query, with SQLSTATE 42P17)."""
    rosters = {tenancy.members.table for tenancy in contract.tenancies.values() if tenancy.members}
    return "false" if declared in rosters else own


def keep_out(table: Table, contract: Contract, privileges: Privileges, command: str) -> str:
    """No new row passes a client's policies for the command: the backend makes memberships."""
    spoken_for = {"public"}.union(*(privileges.inherited(role) for role in contract.roles.clients))
    enable = [] if table.row_security else [f"alter table {table} enable row level security;"]
    closed = [
        f"alter policy {quote(policy.name)} on {table} with check (false);" for policy in table.policies
        if policy.permissive and policy.command in {"ALL", command} and spoken_for & {*policy.roles}
    ]  # fmt: skip
    return "\n".join([*enable, *closed])


def retie(catalog: Catalog, contract: Contract, table: Table, policy: Policy) -> str:
    """As ``tie``, whatever the contract calls the relation; what it does not declare loses the policy."""
    promise = subjects.promise_of(catalog, contract, table)
    declared = next((name for name, p in contract.tables.items() if p is promise), "")
    return (
        tie(catalog, contract, declared, table, policy) if declared else f"drop policy {quote(policy.name)} on {table};"
    )


def ask(catalog: Catalog, contract: Contract, function: Function, members: Members, columns: list[str]) -> str:
    """The function by the contract's definition, in place, since policies hang on it; where the contract has none that
    asks for all the columns, what to add to which function."""
    promise = subjects.promise_for(function, catalog, contract)
    defined = promise.definition if promise else ""
    asked = said([defined], catalog)
    if defined and all(names(asked, column) for column in columns):
        return _CREATE.sub(r"\1create or replace \2", defined)
    return remark(f"in {function.signature}, ask of each row m of {members.table}: and {active(members)}")


def _led(evidence: Evidence, roles: Iterable[str], remedy: Callable[[], str]) -> str:
    """Puts those of the roles under policies again that are outside every one, and mends what serves the others: until
    then no attempt of theirs tells what policies are worth."""
    found = {r.name: r.bypass_row_security for r in map(evidence.catalog.role, dict.fromkeys(roles)) if r}
    lines = [f"alter role {quote(name)} nobypassrls;" for name, outside in found.items() if outside]
    return "\n".join(lines if lines and all(found.values()) else [*lines, remedy()])


def close(evidence: Evidence, table: Table, roles: Iterable[str]) -> str:
    """Takes away what shows foreign rows to sessions of these roles: an undeclared relation from the clients; else as
    ``fence``."""
    return _led(evidence, roles, lambda: _closed(evidence, table))


def _closed(evidence: Evidence, table: Table) -> str:
    promise = subjects.promise_of(evidence.catalog, evidence.contract, table)
    readable = (subjects.may_read(evidence.catalog, evidence.privileges, role, table)
                for role in evidence.contract.roles.clients)  # fmt: skip
    if promise is None or table.kind in ("materialized", "foreign") or (table.kind == "view" and not all(readable)):
        clients = ", ".join(map(quote, evidence.contract.roles.clients))
        return f"revoke all on {table} from public, {clients};"
    return _fenced(evidence, table)


def fence(evidence: Evidence, table: Table, roles: Iterable[str]) -> str:
    """Row security on; policies that do not tie rows to the session tied; where that says nothing, all those by which
    clients get rows, and what they ask besides stays; without any, the policies that the access profile tells.
    ``roles`` are those whose sessions get foreign rows."""
    return _led(evidence, roles, lambda: _fenced(evidence, table))


def _fenced(evidence: Evidence, table: Table) -> str:
    contract, catalog = evidence.contract, evidence.catalog
    if enabled := _unguarded(table):
        return enabled
    declared = subjects.declared_name(catalog, contract, table)
    giving = [policy for policy in _spoken(evidence, table, contract.roles.clients) if policy.permissive]
    loose = [p for p in giving if declared and _is_loose(evidence, declared, table, p)]
    if not declared or not giving:
        drops = [f"drop policy if exists {quote(policy.name)} on {table};" for policy in giving]
        return "\n".join(
            [f"alter table {table} enable row level security;", *drops, *_given(evidence, table, COMMANDS)]
        )
    return "\n".join(tie(catalog, contract, declared, table, policy, again=not loose) for policy in loose or giving)


def reopen(evidence: Evidence, table: Table, roles: Iterable[str], commands: Iterable[Command] = COMMANDS) -> str:
    """The policies anew that keep own rows from clients, as the access profile tells; ``roles`` are those of whose
    sessions they are kept. Those that ask more than whose the row is may be meant so: they are shown, and stay, since
    without them clients would get what was kept from them."""
    return _led(evidence, roles, lambda: _reopened(evidence, table, {*commands}))


def _reopened(evidence: Evidence, table: Table, commands: AbstractSet[Command]) -> str:
    if enabled := _unguarded(table):
        return enabled
    catalog, contract = evidence.catalog, evidence.contract
    declared = subjects.declared_name(catalog, contract, table)
    given = [r for r in contract.roles.clients for c in commands if contract.scope(declared, r, c) != "none"]
    asked = [p for p in _spoken(evidence, table, given) if p.command == "ALL" or p.command.lower() in commands]
    if not declared or (meant := [p for p in asked if not _says_whose(contract, declared, table, p)]):
        return _shown(table, meant if declared else asked)
    shut = [p for p in asked if any(shape(text, table.name).always_false for text in _texts(p))]
    lines = [remark(f"policy {quote(p.name)} lets nobody through: without it the others decide") for p in shut]
    lines += [f"drop policy if exists {quote(policy.name)} on {table};" for policy in shut or asked]
    left = [p for p in asked if shut and p.permissive and p not in shut]
    anew = [c for c in COMMANDS if c in commands or any(p.command == "ALL" for p in shut or asked if p.permissive)]
    unsaid = [c for c in anew if not any(p.command in ("ALL", c.upper()) for p in left)]
    return "\n".join([*lines, *_given(evidence, table, unsaid)])


def _unguarded(table: Table) -> str:
    """What comes before any policy: that it is asked."""
    if table.kind == "view":
        return f"alter view {table} set (security_invoker = true);"
    # What its policies are worth shows when they are asked.
    unasked = table.policies and not table.row_security
    return f"alter table {table} enable row level security;" if unasked else ""


def _spoken(evidence: Evidence, table: Table, roles: Iterable[str]) -> list[Policy]:
    """The policies that are asked for roles: what a backend gets is not the business of clients' remedies."""
    spoken_for = {"public"}.union(*(evidence.privileges.inherited(role) for role in roles))
    return [policy for policy in table.policies if not spoken_for.isdisjoint(policy.roles)]


def _given(evidence: Evidence, table: Table, commands: Iterable[Command]) -> list[str]:
    """The policies that the contract's access profile tells."""
    contract = evidence.contract
    declared = subjects.declared_name(evidence.catalog, contract, table)
    return [
        create_policy(contract, declared, command.upper(), role, on=str(table))
        for role in (contract.roles.clients if declared else ()) for command in commands
        if contract.scope(declared, role, command) != "none"
    ]  # fmt: skip


def _texts(policy: Policy) -> list[str]:
    return [text for text in (policy.using, policy.check) if text]


def _says_whose(contract: Contract, declared: str, table: Table, policy: Policy) -> bool:
    try:
        return all(says_whose(text, contract.tables[declared], contract, table.name) for text in _texts(policy))
    except ExpressionError:
        return False


def _shown(table: Table, meant: Iterable[Policy]) -> str:
    """What somebody has to decide who knows what the policies are for, and the policies as they are."""
    asks = [remark(f"policy {quote(p.name)} asks more than whose the row is: {' and '.join(_texts(p))}") for p in meant]
    return "\n".join(
        [
            *asks,
            remark("if this condition is meant, leave it, and have the contract say less; else take it out"),
            "select p.policyname, p.permissive, p.roles, p.cmd, p.qual, p.with_check from pg_catalog.pg_policies as p"
            f" where p.schemaname = {literal(table.schema)} and p.tablename = {literal(table.name)};",
        ]
    )


def answering(evidence: Evidence, table: Table, roles: Collection[str], error: str) -> str:
    """What has a relation answer again: where the server denies what its policies ask, the grants of that, as far as
    the contract gives them; else as ``reopen``, which writes policies anew."""
    lacking = [grant for role in roles for grant in _lacking(evidence, table, role)] if "42501" in error else []
    return "\n".join(dict.fromkeys(lacking)) or reopen(evidence, table, roles, ("select",))


def _lacking(evidence: Evidence, table: Table, role: str) -> Iterator[str]:
    """The privileges that a role lacks to be asked a relation's policies: to call what they call, and to read what they
    look up, where the contract gives it that anyway."""
    catalog, privileges = evidence.catalog, evidence.privileges
    for text in [text for policy in table.policies for text in (policy.using, policy.check) if text]:
        meaning = shape(text, table.name)
        for function in [f for path in meaning.functions for f in catalog.functions_named(qualified(*path))]:
            if not privileges.may(role, "EXECUTE", function):
                yield f"grant execute on function {function.signature} to {quote(role)};"
        for name in sorted(qualified(*path) for path in meaning.relations):
            read, given = catalog.table(name), evidence.contract.scope(name, role, "select") != "none"
            if read and given and not any(held.privilege == "SELECT" for held in privileges.on(role, read)):
                yield f"grant select on {name} to {quote(role)};"


def _is_loose(evidence: Evidence, declared: str, table: Table, policy: Policy) -> bool:
    if not policy.permissive or not evidence.contract.column_of(declared):
        return False
    contract, catalog = evidence.contract, evidence.catalog
    return not all(_is_bound(contract, catalog, declared, table, text) for text in _texts(policy))


def own_condition(contract: Contract, table: str, alias: str = "") -> str:
    """SQL that is true for the rows of the session's tenants or user, by the contract's tenancy.

    What the session carries is cast to the column's type, so that its index serves the policy.
    """
    promise = contract.tables[table]
    column = qualified(*split(alias or table), contract.column_of(table))
    if promise.holds == "user":
        return f"{column}::text = {_carried(contract, _session(contract), 'user')}"
    if promise.holds == "child":
        inner = own_condition(contract, promise.parent)
        key = qualified(*split(promise.parent), promise.parent_key)
        return f"exists (select from {promise.parent} where {key} = {column} and {inner})"
    tenancy = contract.tenancy_of(promise)
    session = contract.sessions[tenancy.session]
    if tenancy.members is None:
        return f"{column} = {_carried(contract, session, 'tenant')}::{tenancy.type}"
    return f"{column} in ({_own_tenants(contract, tenancy, session)})"


def _own_tenants(contract: Contract, tenancy: Tenancy, session: Session) -> str:
    members = tenancy.members
    assert members
    user = _carried(contract, session, "user")
    return str(
        statement(
            "select {tenant} from {table} as m where {user}::text = " + user.replace("{", "{{").replace("}", "}}")
            + " and {active}",
            tenant=Name(("m", members.tenant)), table=Name.of(members.table), user=Name(("m", members.user)),
            active=active(members),
        )
    )  # fmt: skip


def _session(contract: Contract) -> Session:
    """The session that carries the user: in its claims or in a setting."""
    return next(
        (s for s in contract.sessions.values() if _carried(contract, s, "user") != "null"),
        next(iter(contract.sessions.values())),
    )


def _carried(contract: Contract, session: Session, blank: str) -> str:
    """SQL that reads what the session carries: out of its claims or out of a setting; null where it is wrapped in
    something else, which shows nothing to anybody until somebody writes the policy that the contract cannot tell."""
    for path in _paths(session.claims, blank):
        claims = f"nullif(pg_catalog.current_setting({literal(contract.claims_setting)}, true), '')::pg_catalog.jsonb"
        keys = ", ".join(map(literal, path))
        return f"(select pg_catalog.jsonb_extract_path_text({claims}, {keys}))"
    for name, value in session.settings.items():
        if value == f"{{{blank}}}":
            return f"(select nullif(pg_catalog.current_setting({literal(name)}, true), ''))"
    return "null"


def _paths(claims: Any, blank: str, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(claims, dict):
        for key, value in claims.items():
            yield from _paths(value, blank, (*path, key))
    elif claims in (f"{{{blank}}}", f"{{{blank}:number}}"):
        yield path
    elif isinstance(claims, list) and claims and claims[0] == f"{{{blank}}}":
        yield (*path, "0")
