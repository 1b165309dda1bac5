"""Attacks: what clients try against each other's rows, by every road; drills, for they write and undo it."""

from collections.abc import Iterator

from pgconform.attacks.attempts import breaches, script
from pgconform.attacks.bait import targets
from pgconform.attacks.own import strays, writes
from pgconform.attacks.roads import READS, WRITES
from pgconform.attacks.side import culprits
from pgconform.catalog import Table
from pgconform.checks import Evidence, check
from pgconform.model import Finding
from pgconform.remedies import close, reopen

AUDIT = ["gate", "quarterly"]


@check("foreign-rows-unreadable", guide=["muva-18", "vs-24", "muva-42"], when=AUDIT, of=targets, drill=True)
def test_no_client_reads_foreign_rows_by_any_road(table: Table, evidence: Evidence) -> Iterator[Finding]:
    """No client session reads a row that is not its own: aimed at by its key, joined, or copied out.

    Counting what one query shows is not enough: each road has its own way through policies and privileges.
    """
    for breach in breaches(evidence, table, READS):
        remedy, how = close(evidence, table), script(evidence, breach)
        yield Finding(str(table), str(breach), remedy, detail=breach.road.name, script=how)


@check("foreign-rows-unwritable", guide=["muva-19", "vs-24", "muva-42"], when=AUDIT, of=targets, drill=True)
def test_no_client_writes_foreign_rows_by_any_road(table: Table, evidence: Evidence) -> Iterator[Finding]:
    """No client session inserts, overwrites, moves, locks or deletes a row that is not its own.

    A policy may hide rows well and still let them be written: reading and writing are separate promises.
    """
    for breach in breaches(evidence, table, WRITES):
        remedy, how = close(evidence, table), script(evidence, breach)
        yield Finding(str(table), str(breach), remedy, detail=breach.road.name, script=how)


@check("own-rows-writable", guide=["muva-18", "vs-24", "muva-42"], when=AUDIT, of=targets, drill=True)
def test_members_can_write_their_own_rows(table: Table, evidence: Evidence) -> Iterator[Finding]:
    """A member can insert, update and delete own rows wherever the contract says so.

    A policy that refuses everything also passes every test that counts what foreign writes came through.
    """
    refused: dict[str, str] = {}
    for write in writes(evidence, table):
        if write.refused:
            why = f": {write.outcome.said}" if write.outcome.state else ""
            refused.setdefault(write.road.name, f"{write.identity} cannot {write.road.name} own rows{why}")
    for road, observed in refused.items():
        yield Finding(str(table), observed, reopen(evidence, table), detail=road)


@check("writes-stay-in-tenant", guide=["muva-18", "vs-24", "muva-42"], when=AUDIT, of=targets, drill=True)
def test_writing_own_rows_changes_nobody_elses(table: Table, evidence: Evidence) -> Iterator[Finding]:
    """Writing own rows changes no row of another tenant, neither by a trigger nor by a rule.

    Both run with rights that the caller does not have: a rule with those of the table's owner.
    """
    for write, others in strays(evidence, table):
        observed = f"{write.road.name} of an own row changes rows of {', '.join(others)} that are another's"
        yield Finding(str(table), observed, culprits(evidence, table), detail=write.road.name)
