"""Statements on all rows that a constraint stopped: whether policies let more rows pass than the caller's own.

A broken constraint tells that a row passed the policies, but not whose it was. So rows are taken one at a time, told
apart by a sequence that counts them: a condition that reads a column would bring the policies for SELECT along.
"""

from __future__ import annotations

from pgconform.attacks.bait import Bait
from pgconform.checks import Evidence
from pgconform.identities import Identity
from pgconform.model import NotVerified
from pgconform.statements import Name, Statement, statement

_TURN = Name(("pg_temp", "pgc_turn"))
_MOST = 300  # attempts at one relation by one road of one session
# So that every attempt meets the rows in the same order.
_ORDERED = (("synchronize_seqscans", "off"),)


def passes_beyond(evidence: Evidence, given: Bait, who: Identity, command: Statement, own: int) -> bool:
    """True where more rows than the ``own`` ones pass the policies of an UPDATE or DELETE without a condition.

    Raises NotVerified where more are reached, but too many are the caller's to tell.
    """
    drills, what = evidence.drills, "counting the rows that a statement reaches"
    for text in (
        "drop sequence if exists {s}",
        "create sequence {s} minvalue 0",
        "grant all on sequence {s} to public",
    ):
        drills.run(statement(text, s=_TURN), what)
    settings = (*who.settings, *_ORDERED)

    def turn(number: int) -> bool:
        drills.run(statement("select pg_catalog.setval('pg_temp.pgc_turn', 0, false)"), what)
        one = statement("{c} where pg_catalog.nextval('pg_temp.pgc_turn') = {n}::bigint", c=command, n=number)
        return drills.attempt(who.role, settings, one).passed

    turn(-1)  # touches none, and counts those that pass the policy's first condition
    last, called = drills.one(statement("select last_value, is_called from {s}", s=_TURN), what)
    reached = int(last) + 1 if called else 0
    if reached <= own:
        return False
    passed = 0
    for number in range(min(reached, _MOST)):
        passed += turn(number)
        if passed > own:
            return True
    if reached > _MOST:
        raise NotVerified(
            f"{who} reaches {reached} rows of {given}, of which {own} are its own; constraints stopped the attempts at"
            f" the first {_MOST}: look at the policies"
        )
    return False
