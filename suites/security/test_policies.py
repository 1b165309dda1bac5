"""Policies: one for each command that the grants allow, each of them tied to the tenant, for old rows and new."""

from collections.abc import Iterator

from pgconform.catalog import Catalog, Function, Policy, Table
from pgconform.checks import check
from pgconform.contract import Command, Contract, Members, TablePromise
from pgconform.expressions import constrains, shape
from pgconform.memberships import forgetful, names, said
from pgconform.model import Finding, NotVerified
from pgconform.names import literal, quote, split
from pgconform.policy_cases import Case, Placed, once, own_keys, policies
from pgconform.policy_conditions import confuses, untrusted
from pgconform.privileges import Privileges
from pgconform.remedies_policies import ask, create_policy, tie
from pgconform.subjects import declared_name, protectable_tables

EVERY_AUDIT = ["gate", "weekly", "quarterly"]
OLD: tuple[Command, ...] = ("select", "update", "delete")  # commands that look at rows which are there
NEW: tuple[Command, ...] = ("insert", "update")  # commands that leave a new row


def _speaks_for(policy: Policy, role: str, privileges: Privileges) -> bool:
    """True when the policy is asked for a role (PostgreSQL manual, CREATE POLICY, "Policies Applied")."""
    return "public" in policy.roles or not privileges.inherited(role).isdisjoint(policy.roles)


def _applies(policy: Policy, role: str, command: str, privileges: Privileges) -> bool:
    """True when the policy is asked for a role's command."""
    return policy.command in ("ALL", command.upper()) and _speaks_for(policy, role, privileges)


@check("policy-per-command", guide=["vs-14"], when=EVERY_AUDIT, of=protectable_tables)
def test_every_granted_command_has_a_policy(
    table: Table, catalog: Catalog, contract: Contract, privileges: Privileges
) -> Iterator[Finding]:
    """Every command that the contract gives a client on a table has a permissive policy there.

    Where row-level security is on and no policy speaks for a command, the command finds nothing at all.
    """
    declared, permissive = declared_name(catalog, contract, table), [p for p in table.policies if p.permissive]
    if table.parent and not permissive:
        return  # a partition is reached through its parent, whose policies count
    for role in contract.roles.clients if declared else ():
        held = {h.privilege for h in privileges.on(role, table)}
        spoken_for = {p.command for p in permissive if _speaks_for(p, role, privileges)}
        for command in contract.commands(contract.tables[declared], role):
            if command.upper() in held and spoken_for.isdisjoint({"ALL", command.upper()}):
                remedy = create_policy(contract, declared, command.upper(), role)
                yield Finding(str(table), f"no policy lets {role} {command}", remedy, detail=f"{role} {command}")


def _bound(case: Case, promise: TablePromise, text: str | None) -> bool:
    """True when an expression can only be true for rows that are compared with the session."""
    if text is None or (meaning := shape(text, case.table)).always_true:
        return False
    trusted = own_keys(case.contract, case.catalog, promise, case.declared, meaning.relations)
    return constrains(text, [case.contract.column_by(promise)], case.table, trusted)


def _loose_commands(case: Case, promise: TablePromise, commands: tuple[Command, ...]) -> list[str]:
    """Role and command for which the policy alone decides, and the contract gives own rows only.

    A restrictive policy that ties the same rows decides, too: the old ones for OLD, the new ones for NEW.
    """
    found = []
    contract, privileges = case.contract, case.privileges
    owned = case.policy.permissive and contract.column_by(promise)
    for role, held in zip(contract.roles.clients, case.held, strict=True) if owned else ():
        for command in commands:
            limited = contract.scope_by(promise, role, command) in ("own", "none")
            may = any(h.privilege == command.upper() for h in held)
            asked = may and _applies(case.policy, role, command, privileges)
            guarded = limited and asked and any(
                _applies(p, role, command, privileges)
                and _bound(case, promise, (p.check or p.using) if commands == NEW else p.using)
                for p in case.restrictive
            )  # fmt: skip
            if limited and asked and not guarded:
                found.append(f"{role} {command}")
    return found


@once
def _opened(case: Case) -> str:
    """Role and command whose old rows the policy opens without any condition."""
    using, promise = case.policy.using, case.promise
    loose = _loose_commands(case, promise, OLD) if promise else []
    return ", ".join(loose) if loose and using is not None and shape(using, case.table).always_true else ""


@check("policy-always-true", guide=["vs-14", "muva-42"], when=EVERY_AUDIT, of=policies)
def test_no_policy_is_always_true(subject: Placed, catalog: Catalog, contract: Contract) -> Iterator[Finding]:
    """No policy for own rows is true whatever the row and the session, in any disguise.

    Permissive policies add up: one that is always true makes all others pointless.
    """
    table, policy, case = subject
    if loose := _opened(case):
        observed = f"policy {quote(policy.name)} is always true ({loose})"
        remedy = tie(catalog, contract, declared_name(catalog, contract, table), table, policy)
        yield Finding(str(table), observed, remedy, detail=quote(policy.name))


@once
def _untied(case: Case) -> str:
    """Role and command whose old rows the policy does not tie to the session, on some condition."""
    using, promise = case.policy.using, case.promise
    loose = _loose_commands(case, promise, OLD) if promise else []
    if not promise or not loose or using is None or (meaning := shape(using, case.table)).always_true:
        return ""
    return "" if meaning.always_false or _bound(case, promise, using) else ", ".join(loose)


@check("policy-bound-to-tenant", guide=["vs-14", "muva-42"], when=EVERY_AUDIT, of=policies)
def test_every_policy_ties_rows_to_the_session(
    subject: Placed, catalog: Catalog, contract: Contract
) -> Iterator[Finding]:
    """Every policy for own rows compares the row's tenant or owner with the session, on each way to be true.

    "Somebody is signed in" is no tenant; nor is a flag on the row, nor a null that lets everybody through.
    """
    table, policy, case = subject
    if loose := _untied(case):
        observed = f"policy {quote(policy.name)} does not tie rows to the session ({loose})"
        remedy = tie(catalog, contract, declared_name(catalog, contract, table), table, policy)
        yield Finding(str(table), observed, remedy, detail=quote(policy.name))


@once
def _unchecked(case: Case) -> str:
    """Role and command whose new rows the policy does not tie to the session, where the old ones do not tell it."""
    policy, promise = case.policy, case.promise
    text = policy.check or policy.using  # without WITH CHECK, USING holds for the new row, too
    loose = _loose_commands(case, promise, NEW) if promise else []
    if not promise or not loose or not text or (policy.check is None and _loose_commands(case, promise, OLD)):
        return ""
    return "" if _bound(case, promise, text) or shape(text, case.table).always_false else ", ".join(loose)


@check("policy-checks-new-row", guide=["vs-14", "muva-42"], when=EVERY_AUDIT, of=policies)
def test_every_write_policy_checks_the_new_row(
    subject: Placed, catalog: Catalog, contract: Contract
) -> Iterator[Finding]:
    """Every policy for writing own rows ties the new row, too, to the session.

    Otherwise a client inserts rows for another tenant, or moves an own row to it.
    """
    table, policy, case = subject
    if loose := _unchecked(case):
        observed = f"policy {quote(policy.name)} does not check the new row's tenant ({loose})"
        remedy = tie(catalog, contract, declared_name(catalog, contract, table), table, policy)
        yield Finding(str(table), observed, remedy, detail=quote(policy.name))


def _harmless(text: str, table: Table, members: Members) -> bool:
    """True where a new row must name a tenant that the session may, or is no membership that counts."""
    if constrains(text, [members.tenant], table.name) or shape(text, table.name).always_false:
        return True
    if members.active_values:
        asked = members.active in shape(text, table.name).columns
        return asked and not any(literal(value) in text for value in members.active_values)
    return bool(members.active) and shape(f"({text}) and {quote(members.active)}", table.name).always_false


def _chosen(
    table: Table, policy: Policy, members: Members, contract: Contract, privileges: Privileges
) -> Iterator[str]:
    """Columns of a membership that a client may fill in as it likes, as far as this policy and restrictive ones say."""
    what = [c for c in (members.role, members.active, members.expires, members.permissions) if c]
    for role, command in [(role, command) for role in contract.roles.clients for command in NEW]:
        if not _applies(policy, role, command, privileges) or contract.scope(str(table), role, command) == "all":
            continue
        asked = [policy, *(p for p in table.policies if not p.permissive and _applies(p, role, command, privileges))]
        texts = [text for p in asked if (text := p.check or p.using)]
        if not texts or any(_harmless(text, table, members) for text in texts):
            continue
        named = frozenset[str]().union(*(shape(text, table.name).columns for text in texts))
        held = {h.column for h in privileges.on(role, table) if h.privilege == command.upper()}
        unasked = [members.tenant, *(c for c in what if command == "update" and c not in named)]
        yield from (c for c in unasked if held & {"", c})


@check("policy-guards-memberships", guide=["vs-14", "muva-42"], when=EVERY_AUDIT, of=policies)
def test_no_policy_lets_clients_make_memberships(
    subject: Placed, contract: Contract, privileges: Privileges
) -> Iterator[Finding]:
    """No policy on a table of members lets a client fill in the tenant, or what makes a membership count, as it likes.

    That the row names its own user is not enough: whoever adds one for a tenant belongs to it from then on.
    """
    table, policy, _ = subject
    for members in [t.members for t in contract.tenancies.values() if t.members and t.members.table == str(table)]:
        chosen = sorted({*_chosen(table, policy, members, contract, privileges)}) if policy.permissive else []
        if chosen:
            which = ", ".join(map(quote, chosen))
            observed = f"policy {quote(policy.name)} lets clients choose {which} of a membership"
            remedy = f"alter policy {quote(policy.name)} on {table} with check (false);"
            yield Finding(str(table), observed, remedy, detail=quote(policy.name))


@once
def _confused(case: Case) -> bool:
    """True where the policy compares the tenant's column with the user's id."""
    promise, contract = case.promise, case.contract
    return promise is not None and any(confuses(text, promise, contract, case.table) for text in case.texts)


@check("policy-user-as-tenant", guide=["vs-14", "muva-42"], when=EVERY_AUDIT, of=policies)
def test_no_policy_compares_the_tenant_to_the_user(
    subject: Placed, catalog: Catalog, contract: Contract
) -> Iterator[Finding]:
    """No policy compares a tenant's id with the user's id.

    The two are never equal: every member sees nothing, until somebody opens the table to everybody.
    """
    table, policy, case = subject
    if _confused(case):
        declared = declared_name(catalog, contract, table)
        observed = f"policy {quote(policy.name)} compares {quote(contract.column_of(declared))} with the user's id"
        yield Finding(str(table), observed, tie(catalog, contract, declared, table, policy), detail=quote(policy.name))


@once
def _trusted(case: Case) -> list[str]:
    """What the policy reads of the session that proves nothing."""
    shapes = [(text, shape(text, case.table)) for text in case.texts]
    return sorted({each for text, seen in shapes for each in untrusted(text, seen, case.catalog, case.contract)})


@check("policy-trusted-settings", guide=["vs-14", "muva-42"], when=EVERY_AUDIT, of=policies)
def test_no_policy_trusts_a_setting_of_anybody(
    subject: Placed, catalog: Catalog, contract: Contract
) -> Iterator[Finding]:
    """Policies, and functions that they call, read nothing that the session's own user can set.

    Any session may set any custom setting but those that it is signed in by, and users edit their own metadata: what
    they say of the tenant proves nothing.
    """
    table, policy, case = subject
    if not (found := _trusted(case)) or case.promise is None:
        return
    if odd := [each for each in found if each != "setting "]:
        observed = f"policy {quote(policy.name)} trusts the {', the '.join(odd)}"
        remedy = tie(catalog, contract, declared_name(catalog, contract, table), table, policy)
        yield Finding(str(table), observed, remedy, detail=quote(policy.name))
    else:
        raise NotVerified(f"policy {quote(policy.name)} reads a setting whose name cannot be told from its text")


@once
def _overlooked(case: Case) -> list[str]:
    """What the contract asks of a membership, and a policy that looks memberships up does not.

    A helper or a view may ask, a restrictive policy, or the policies of the members' own table: the lookup passes them.
    """
    catalog, shapes, found = case.catalog, [shape(text, case.table) for text in case.texts], set[str]()
    for members in _rosters(case):
        there = catalog.table(members.table)
        looked_up = any(tuple(split(members.table)) in seen.relations for seen in shapes)
        if there is None or members.table == case.named or not looked_up:
            continue
        asking = [*case.restrictive, *(there.policies if there.row_security else ())]
        asked = said([*case.texts, *(f"{p.using} {p.check}" for p in asking)], catalog)
        found |= {column for column in _wanted(members) if not names(asked, column)}
    return sorted(found)


def _rosters(case: Case) -> list[Members]:
    return [tenancy.members for tenancy in case.contract.tenancies.values() if tenancy.members]


def _wanted(members: Members) -> list[str]:
    """The columns that say whether a membership counts."""
    return [column for column in (members.active, members.expires) if column]


@once
def _forgetful(case: Case) -> list[tuple[Function, Members, list[str]]]:
    """Functions behind the policy that look memberships up, and what neither they ask nor anything that they read, that
    stands beside them, or that a restrictive policy says."""
    found: dict[str, tuple[Function, Members, list[str]]] = {}
    asked = said([f"{p.using} {p.check}" for p in case.restrictive], case.catalog)
    for members in _rosters(case):
        for column in [column for column in _wanted(members) if not names(asked, column)]:
            for text in case.texts:
                for function in forgetful(text, case.table, members, column, case.catalog):
                    columns = found.setdefault(function.signature, (function, members, []))[2]
                    columns += [] if column in columns else [column]
    return list(found.values())


@check("policy-members-current", guide=["vs-14", "muva-42"], when=EVERY_AUDIT, of=policies)
def test_policies_ask_whether_a_membership_counts(
    subject: Placed, catalog: Catalog, contract: Contract
) -> Iterator[Finding]:
    """Policies that look a membership up ask what the contract asks of one: that it is active, and has not expired.

    A row in the table of members is not yet a right: who has left keeps the row. Functions that the policy calls, and
    those that they call, are read, too.
    """
    table, policy, case = subject
    overlooked = _overlooked(case)
    if overlooked and case.promise:
        observed = f"policy {quote(policy.name)} looks memberships up without {', '.join(map(quote, overlooked))}"
        remedy = tie(catalog, contract, declared_name(catalog, contract, table), table, policy)
        yield Finding(str(table), observed, remedy, detail=quote(policy.name))
    for function, members, columns in _forgetful(case) if case.promise else ():
        without = f"looks memberships up without {', '.join(map(quote, columns))}"
        observed = f"policy {quote(policy.name)} calls {function.signature}, which {without}"
        remedy = ask(catalog, contract, function, members, columns)
        yield Finding(str(table), observed, remedy, detail=f"{quote(policy.name)} {function.signature}")
