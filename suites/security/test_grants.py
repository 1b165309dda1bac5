"""Grants: exactly the declared ones, now and for objects created tomorrow."""

import re
from collections.abc import Iterator

from pgconform.catalog import Catalog, Column, DefaultPrivilege, Function, Grant, Schema, Sequence, Table
from pgconform.checks import check
from pgconform.contract import COMMANDS, Contract, TablePromise
from pgconform.database import role_text
from pgconform.model import Finding
from pgconform.names import qualified, quote, split
from pgconform.privileges import Holder, Privileges, granted_columns
from pgconform.remedies import noun, revoke, revoke_option
from pgconform.subjects import (
    Declared,
    application_tables,
    present_tables,
    promise_of,
    reachable_tables,
    sequences,
)  # fmt: skip

# Row-level security does not apply to these (PostgreSQL manual, "Row Security Policies").
DANGEROUS = ("TRUNCATE", "REFERENCES", "TRIGGER", "MAINTAIN")
Drawing = tuple[tuple[Table, Column], ...]  # columns that take their values from a sequence
_CALLED = re.compile(r"nextval\('((?:[^']|'')+)'::regclass")
AUDIT = ["gate", "quarterly"]


@check("grants-missing", guide=["muva-9", "muva-42"], when=AUDIT, each=present_tables)
def test_every_declared_grant_is_there(
    subject: Declared[TablePromise], catalog: Catalog, contract: Contract, privileges: Privileges
) -> Iterator[Finding]:
    """Every role holds the privileges on relations that its access profile declares.

    What is missing shows itself as "permission denied" in the application, after the deployment.
    """
    table = catalog.table(subject.table)
    for role in [r for r in (*contract.roles.clients, *contract.roles.services) if table and catalog.role(r)]:
        held = {(h.privilege, h.column) for h in privileges.on(role, table)}  # type: ignore[arg-type]
        for command in contract.commands(subject.item, role):
            if (command.upper(), "") in held:
                continue
            wanted = subject.item.columns.get(role, {}).get(command, ("",))
            if lacking := [c for c in wanted if (command.upper(), c) not in held]:
                part = f" ({', '.join(map(quote, lacking))})" if lacking != [""] else ""
                remedy = f"grant {command}{part} on {table} to {quote(role)};"
                yield Finding(str(table), f"{role} may not {command}{part}", remedy, detail=f"{role} {command}")


@check("grants-excess", guide=["muva-9", "muva-42"], when=AUDIT, of=reachable_tables)
def test_no_client_holds_an_undeclared_grant(
    table: Table, catalog: Catalog, contract: Contract, privileges: Privileges
) -> Iterator[Finding]:
    """No client role may select, insert, update or delete beyond its access profile, not even single columns.

    A grant is the outer wall: behind it, one careless policy is enough.
    """
    promise = promise_of(catalog, contract, table)
    for role in contract.roles.clients if promise else ():
        declared = contract.commands(promise, role) if promise else ()
        for held in privileges.on(role, table):
            command = held.privilege.lower()
            if promise is None or command not in COMMANDS:
                continue
            columns = promise.columns.get(role, {}).get(command, ())
            if command not in declared or (columns and held.column not in columns):
                part = f" ({quote(held.column)})" if held.column else ""
                observed = f"{role} may {command}{part}, through {held.via}"
                detail = f"{role} {command}{part}"
                yield Finding(str(table), observed, revoke(held, str(table), role, privileges), detail=detail)


@check("client-dangerous-privileges", guide=["muva-10", "muva-42"], when=AUDIT, of=reachable_tables)
def test_no_client_holds_a_privilege_that_row_security_ignores(
    table: Table, catalog: Catalog, contract: Contract, privileges: Privileges
) -> Iterator[Finding]:
    """No client role holds TRUNCATE, REFERENCES, TRIGGER or MAINTAIN, or can act as a relation's owner.

    Row-level security does not apply to them: TRUNCATE empties the table of every tenant, and an owner switches row
    security off.
    """
    for role in contract.roles.clients:
        if privileges.owns(role, table):
            remedy = f"alter {noun(table)} {table} owner to {quote(catalog.server.database_owner)};"
            yield Finding(str(table), f"{role} can act as its owner {table.owner}", remedy, detail=f"{role} owner")
            continue
        for held in privileges.on(role, table):
            if held.privilege in DANGEROUS:
                remedy = revoke(held, str(table), role, privileges)
                observed = f"{role} holds {held.privilege}, through {held.via}"
                yield Finding(str(table), observed, remedy, detail=f"{role} {held.privilege.lower()}")


def grantable(catalog: Catalog) -> Iterator[tuple[Holder, tuple[tuple[Grant, str], ...]]]:
    """Relations, sequences, schemas, functions and types that no extension owns."""
    for kind in (catalog.schemas, catalog.tables, catalog.sequences, catalog.functions, catalog.types):
        for each in kind:
            columns = granted_columns(each) if isinstance(each, Table) else ()
            passable = [(g, "") for g in each.acl if g.grantable]
            passable += [(g, c.name) for c in columns for g in c.acl if g.grantable]
            if not each.extension:
                yield each, tuple(passable)


@check("client-grant-options", guide=["muva-9", "muva-42"], when=AUDIT, of=grantable)
def test_no_client_can_pass_a_privilege_on(
    subject: tuple[Holder, tuple[tuple[Grant, str], ...]], catalog: Catalog, contract: Contract, privileges: Privileges
) -> Iterator[Finding]:
    """No client role holds a privilege with grant option, itself or through a role that it inherits from.

    What it holds it can give to any other role, anonymous callers among them: whoever reviewed the grants did not.
    """
    target, passable = subject
    if not passable:
        return
    clients = [r for r in map(catalog.role, contract.roles.clients) if r and not r.superuser]
    reached = frozenset[str]().union(*(privileges.inherited(r.name) for r in clients)) - {*contract.roles.services}
    for grant, column in passable:
        if grant.grantee in reached and grant.grantee != target.owner:
            what = grant.privilege + (f" ({quote(column)})" if column else "")
            name = target.signature if isinstance(target, Function) else str(target)
            remedy = revoke_option(grant, column, target)
            who, said = quote(grant.grantee), grant.privilege.lower() + what[len(grant.privilege) :]
            yield Finding(name, f"{who} may pass {what} on", remedy, detail=f"{who} {said}")


def schemas(catalog: Catalog, contract: Contract) -> Iterator[tuple[Schema, list[str], list[str]]]:
    """Schemas of the database, each with the relations and the functions that are declared in it."""
    relations: dict[str, list[str]] = {}
    functions: dict[str, list[str]] = {}
    for names, found in ((contract.tables, relations), (contract.functions, functions)):
        for name in names:
            found.setdefault(split(name)[0], []).append(name)
    for schema in catalog.schemas:
        if not schema.extension:
            yield schema, relations.get(schema.name, []), functions.get(schema.name, [])


@check("schema-grants", guide=["muva-9", "muva-42"], when=AUDIT, of=schemas)
def test_schema_privileges_are_the_declared_ones(
    subject: tuple[Schema, list[str], list[str]], catalog: Catalog, contract: Contract, privileges: Privileges
) -> Iterator[Finding]:
    """Clients and services can use just the schemas in which something is declared for them; no client creates.

    Who can create in a schema on the search path can put a function or table in front of a trusted one.
    """
    schema, mine, called = subject
    closed = schema.name in contract.schemas.tenant or (mine and schema.name not in contract.schemas.exposed)
    for role in [r for r in (*contract.roles.clients, *contract.roles.services) if catalog.role(r)]:
        needed = any(contract.scope(name, role, c) != "none" for name in mine for c in COMMANDS)
        needed = needed or any(role in contract.functions[name].execute for name in called)
        if needed and not privileges.may(role, "USAGE", schema):
            remedy = f"grant usage on schema {schema} to {quote(role)};"
            yield Finding(str(schema), f"{role} may not use the schema", remedy, detail=f"{role} usage")
        for held in privileges.on(role, schema) if role in contract.roles.clients else ():
            if held.privilege == "CREATE" or (closed and not needed):
                remedy = revoke(held, f"schema {schema}", role, privileges)
                observed = f"{role} holds {held.privilege}, through {held.via}"
                yield Finding(str(schema), observed, remedy, detail=f"{role} {held.privilege.lower()}")


def drawn_sequences(catalog: Catalog, contract: Contract) -> Iterator[tuple[Sequence, Drawing]]:
    """Sequences of the declared schemas."""
    drawing: dict[str, Drawing] = {}
    for table in catalog.tables:
        for column in table.columns:
            if not column.identity and not column.default:
                continue
            own = [qualified(table.schema, table.name, column.name)] if column.identity else []
            for name in (*own, *_CALLED.findall(column.default or "")):
                drawing[name] = (*drawing.get(name, ()), (table, column))
    for sequence in sequences(catalog, contract):
        called = str(sequence).replace("'", "''")
        yield sequence, (*drawing.get(called, ()), *drawing.get(sequence.owned_by, ()))


@check("sequence-grants", guide=["muva-9", "muva-42"], when=AUDIT, of=drawn_sequences)
def test_sequence_privileges_follow_the_tables(
    subject: tuple[Sequence, Drawing], contract: Contract, privileges: Privileges
) -> Iterator[Finding]:
    """A client role has a privilege on a sequence just where it may insert into a table that draws from it.

    A sequence that a client may set or advance reveals how much other tenants write, and can be run out.
    """
    sequence, drawing = subject
    for role in contract.roles.clients:
        filled = [c for t, c in drawing if any(h.privilege == "INSERT" for h in privileges.on(role, t))]
        held = privileges.on(role, sequence)
        if any(not c.identity for c in filled) and not {"USAGE", "UPDATE"} & {h.privilege for h in held}:
            remedy = f"grant usage on sequence {sequence} to {quote(role)};"
            yield Finding(str(sequence), f"{role} may insert but not draw a number", remedy, detail=f"{role} usage")
        for each in held:
            if each.privilege == "UPDATE" or not filled:
                remedy = revoke(each, f"sequence {sequence}", role, privileges)
                observed = f"{role} holds {each.privilege}, through {each.via}"
                yield Finding(str(sequence), observed, remedy, detail=f"{role} {each.privilege.lower()}")


_KINDS = {"r": "tables", "S": "sequences", "f": "functions", "T": "types", "n": "schemas", "L": "large objects"}


def default_privileges(catalog: Catalog, contract: Contract) -> Iterator[tuple[str, DefaultPrivilege]]:
    """Default privileges of roles that own application tables, built-in ones included."""
    owners = sorted({t.owner for t in application_tables(catalog, contract)})
    stated = {(d.owner, d.kind) for d in catalog.default_privileges if not d.schema}
    yield from ((d.owner, d) for d in catalog.default_privileges)
    for owner in owners:
        if (owner, "f") not in stated:  # the built-in default lets everybody execute (manual, "Privileges")
            from pgconform.acl import decode

            yield owner, DefaultPrivilege(owner, "", "f", decode(None, "f", owner))


@check("default-privileges", guide=["muva-10", "muva-42"], when=AUDIT, of=default_privileges)
def test_nothing_is_opened_to_clients_in_advance(
    subject: tuple[str, DefaultPrivilege], contract: Contract, privileges: Privileges
) -> Iterator[Finding]:
    """Default privileges open no table, sequence, function or schema of tomorrow to clients or to PUBLIC.

    Otherwise each new table is within reach before anybody has thought of its policies.
    """
    owner, default = subject
    reached = {"public"}.union(*(privileges.inherited(role) for role in contract.roles.clients))
    for grantee in sorted({g.grantee for g in default.acl} & reached - {owner}):
        if default.kind in "rSfnL":
            place = f" in schema {quote(default.schema)}" if default.schema else ""
            kind, to = _KINDS[default.kind], role_text([grantee])
            remedy = f"alter default privileges for role {quote(owner)}{place} revoke all on {kind} from {to};"
            held = ", ".join(sorted({g.privilege for g in default.acl if g.grantee == grantee}))
            observed = f"{grantee} will hold {held} on {kind} that {owner} creates{place}"
            yield Finding(quote(owner), observed, remedy, detail=f"{grantee} {kind}{place}")
