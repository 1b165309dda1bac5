"""Attacks: what clients try against each other's rows, by every road; drills, for they write and undo it."""

from collections.abc import Iterator

from pgconform.attacks.attempts import breaches, script
from pgconform.attacks.bait import targets
from pgconform.attacks.beside import clients, ways
from pgconform.attacks.calls import call_script, callable_functions, misuses
from pgconform.attacks.interleaved import shared_tables, surprise
from pgconform.attacks.joining import self_made, told
from pgconform.attacks.leaks import leak, leak_script
from pgconform.attacks.neighbours import (
    adoptable,
    adoptions,
    each_tenant_apart,
    free_columns,
    guessable,
    key_columns,
    met,
    revelations,
    tie_to_parent,
    tied,
    unique_indexes,
)
from pgconform.attacks.own import Write, mend, strays, writes
from pgconform.attacks.roads import OWN, OWN_TOO, READS, WRITES
from pgconform.attacks.tomorrow import keep_closed, makers, open_tomorrow
from pgconform.catalog import Catalog, Constraint, Function, Index, Schema, Table
from pgconform.checks import Evidence, check
from pgconform.contract import Command, Contract, Tenancy
from pgconform.model import Finding
from pgconform.names import quote
from pgconform.privileges import Privileges
from pgconform.remedies import deny, past_rows
from pgconform.remedies_policies import close, fence, keep_out, reopen
from pgconform.subjects import Declared, memberships

AUDIT = ["gate", "quarterly"]


@check("foreign-rows-unreadable", guide=["muva-18", "vs-24", "muva-42"], when=AUDIT, of=targets, drill=True)
def test_no_client_reads_foreign_rows_by_any_road(table: Table, evidence: Evidence) -> Iterator[Finding]:
    """No client session reads a row that is not its own: aimed at by its key, joined, or copied out.

    Counting what one query shows is not enough: each road has its own way through policies and privileges.
    """
    if told := leak(evidence, table):
        observed = f"{told[0]} brings a function along, and the view tells it of rows that are not its own"
        remedy = f"alter view {table} set (security_barrier = true);"
        yield Finding(str(table), observed, remedy, detail="leak", script=leak_script(*told))
    for breach in breaches(evidence, table, READS):
        remedy, how = close(evidence, table, [breach.identity.role]), script(evidence, breach)
        yield Finding(str(table), str(breach), remedy, detail=breach.road.name, script=how)


@check("foreign-rows-unwritable", guide=["muva-19", "vs-24", "muva-42"], when=AUDIT, of=targets, drill=True)
def test_no_client_writes_foreign_rows_by_any_road(table: Table, evidence: Evidence) -> Iterator[Finding]:
    """No client session inserts, overwrites, moves, locks or deletes a row that is not its own.

    A policy may hide rows well and still let them be written: reading and writing are separate promises.
    """
    for breach in breaches(evidence, table, WRITES):
        unruled, how = breach.road.privileges, script(evidence, breach)
        taken = past_rows(table, evidence.contract, evidence.privileges, unruled) if unruled else ""
        remedy = taken or close(evidence, table, [breach.identity.role])
        yield Finding(str(table), str(breach), remedy, detail=breach.road.name, script=how)


@check("memberships-unwritable", guide=["muva-19", "vs-24", "muva-42"], when=AUDIT, each=memberships, drill=True)
def test_no_client_makes_itself_a_member(
    subject: Declared[Tenancy], evidence: Evidence, contract: Contract, privileges: Privileges
) -> Iterator[Finding]:
    """No client session joins a tenant that it does not belong to, returns to one, or promotes itself.

    The row names its own user, so every other check takes it for its own; but whose rows a session sees, and as what,
    follows from it. Who makes memberships must administer the tenant already.
    """
    table = evidence.catalog.table(subject.table)
    for breach in self_made(evidence, subject.item) if table else ():
        assert table
        remedy = keep_out(table, contract, privileges, breach.road.commands[0].upper())
        yield Finding(str(table), told(breach), remedy, detail=breach.road.name, script=script(evidence, breach))


@check("own-rows-writable", guide=["muva-18", "vs-24", "muva-42"], when=AUDIT, of=targets, drill=True)
def test_members_can_write_their_own_rows(table: Table, evidence: Evidence) -> Iterator[Finding]:
    """A member can insert, update and delete own rows, one and all, by every command, wherever the contract says so.

    A policy that refuses everything also passes every test that counts what foreign writes came through.
    """
    refused: dict[Command, Write] = {}
    plain = False
    for write in writes(evidence, table, (*OWN, *OWN_TOO)):
        if write.refused and (write.road in OWN or not plain):  # what is plain explains the rest
            refused.setdefault(write.road.commands[-1], write)
            plain |= write.road in OWN
    for command, write in refused.items():
        remedy = reopen(evidence, table, [write.identity.role], ("select", command))
        yield Finding(str(table), str(write), remedy, detail=command)


@check("writes-stay-in-tenant", guide=["muva-18", "vs-24", "muva-42"], when=AUDIT, of=targets, drill=True)
def test_writing_own_rows_changes_nobody_elses(table: Table, evidence: Evidence) -> Iterator[Finding]:
    """Writing own rows changes no row of another tenant, neither by a trigger nor by a rule.

    Both run with rights that the caller does not have: a rule with those of the table's owner.
    """
    for write, others in strays(evidence, table):
        observed = f"{write.road.name} of an own row changes rows of {', '.join(others)} that are another's"
        yield Finding(str(table), observed, mend(evidence, table, write), detail=write.road.name)


@check("parents-stay-in-tenant", guide=["muva-19", "vs-24", "muva-42"], when=AUDIT, of=adoptable, drill=True)
def test_no_own_row_hangs_on_a_foreign_one(
    subject: tuple[Table, Constraint], evidence: Evidence, catalog: Catalog, contract: Contract
) -> Iterator[Finding]:
    """No client session makes its own row a child of a row that is another tenant's.

    Foreign keys are checked past row-level security: what such a child names exists, and is shown wherever the two are
    joined. A key that holds the tenant, too, keeps them apart.
    """
    table, key = subject
    if tied(catalog, contract, table, key):
        return
    for breach in met(
        evidence, table, free_columns(catalog, contract, table, key), adoptions(catalog, contract, table, key)
    ):
        remedy, how = tie_to_parent(catalog, contract, table, key), script(evidence, breach)
        yield Finding(str(table), str(breach), remedy, detail=f"{key.name} {breach.road.name}", script=how)


@check("clashes-stay-in-tenant", guide=["muva-19", "vs-24", "muva-42"], when=AUDIT, of=unique_indexes, drill=True)
def test_no_error_tells_of_foreign_values(
    subject: tuple[Table, Index], evidence: Evidence, catalog: Catalog, contract: Contract
) -> Iterator[Finding]:
    """No client session learns from an error that another tenant has a row with some value.

    A unique index is checked past row-level security: who may write can try names, numbers and addresses one by one.
    """
    table, index = subject
    if not guessable(catalog, contract, table, index):
        return
    for breach in met(evidence, table, key_columns(table, index), revelations(table, index)):
        remedy, how = each_tenant_apart(catalog, contract, table, index), script(evidence, breach)
        yield Finding(str(table), str(breach), remedy, detail=f"{index.name} {breach.road.name}", script=how)


@check("functions-keep-tenants", guide=["muva-18", "vs-24", "muva-42"], when=AUDIT, of=callable_functions, drill=True)
def test_no_function_reaches_into_another_tenant(function: Function, evidence: Evidence) -> Iterator[Finding]:
    """No function that clients may call shows, changes or tells apart another tenant's rows, or runs the caller's SQL.

    Called with identifiers of others, a function that filters by its arguments opens whatever its owner can read; one
    that runs a text lets the caller become anybody.
    """
    for misuse in misuses(evidence, function):
        remedy = deny(evidence, function)
        yield Finding(function.signature, misuse.observed, remedy, detail=misuse.how, script=call_script(misuse))


@check("access-follows-membership", guide=["muva-18", "vs-24", "muva-42"], when=AUDIT, of=shared_tables, drill=True)
def test_what_a_session_sees_follows_from_who_it_is_now(table: Table, evidence: Evidence) -> Iterator[Finding]:
    """Sessions that take turns on one connection see what their memberships say at that moment.

    Plans, settings and copies of memberships outlive the request that made them: a right is then kept after it ended,
    or lent to whoever comes next.
    """
    if found := surprise(evidence, table):
        remedy = (reopen if found.hides else fence)(evidence, table, [found.role])
        yield Finding(str(table), found.observed, remedy, script=found.script)


@check("new-tables-closed", guide=["muva-9", "vs-24", "muva-42"], when=AUDIT, of=makers, drill=True)
def test_a_table_made_tomorrow_is_closed(subject: tuple[Schema, str], evidence: Evidence) -> Iterator[Finding]:
    """A table that an owner of application tables creates is closed to clients until somebody opens it.

    Default privileges open it in advance, before anybody has thought of row-level security.
    """
    schema, owner = subject
    for role, commands in open_tomorrow(evidence, schema, owner):
        observed = f"{role} may {', '.join(commands)} in a table that {owner} has just created"
        yield Finding(str(schema), observed, keep_closed(schema, owner, role), detail=f"{owner} {role}")


@check("clients-stay-clients", guide=["muva-18", "vs-24", "muva-42"], when=AUDIT, of=clients, drill=True)
def test_no_client_goes_around_the_tables(client: str, evidence: Evidence) -> Iterator[Finding]:
    """No client session sets a sequence, takes on a role that shows it more, or reads a large object.

    Row security has no say in any of these: a sequence set back makes others' keys clash, and a role that is taken on
    is asked for its own policies.
    """
    for way in ways(evidence, client):
        yield Finding(quote(client), way.observed, way.remedy, detail=way.what, script=way.script)
