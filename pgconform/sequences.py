"""Sequences that drills advanced are set back: no rollback does that. Run on disposable targets only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgconform.model import NotVerified
from pgconform.statements import Name, joined, statement

if TYPE_CHECKING:
    from pgconform.checks import Evidence

Values = dict[str, tuple[int, bool]]  # by sequence: its last value, and whether that was given out


def values(evidence: Evidence) -> Values:
    """What each sequence of the catalogue says now; nothing where one cannot be read."""
    each = [
        statement("select {n}::text, s.last_value, s.is_called from {s} as s", n=str(s), s=Name.of(str(s)))
        for s in evidence.catalog.sequences
    ]
    if not each:
        return {}
    try:
        asked = evidence.drills.rows(joined(each, " union all "), "reading the sequences")
    except NotVerified:  # nor can it be advanced, but by a function that may
        return {}
    return {name: (int(last), called) for name, last, called in asked}


def restore(evidence: Evidence, before: Values) -> str:
    """Sets those back that say something else by now; returns why one could not be, '' where all are as before."""
    now = values(evidence) if before else {}
    for name, (last, called) in before.items():
        if now.get(name) != (last, called):
            back = statement(
                "select pg_catalog.setval({s}::text::regclass, {last}::bigint, {called}::boolean)",
                s=name, last=last, called=called,
            )  # fmt: skip
            try:
                evidence.drills.run(back, f"setting {name} back")
            except NotVerified as refusal:
                return str(refusal)
    return ""
