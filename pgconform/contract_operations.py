"""The contract's sections about a running database: its limits, its backups, and the procedures that change it."""

from __future__ import annotations

from pgconform.contract_section import Section, Share


class Operations(Section, frozen=True):
    """Limits of a running server. A contract without this section promises nothing of the kind."""

    connections: Share = 0.8


class Backups(Section, frozen=True):
    """Where evidence of backups is found, and how old and how large they may be."""

    hours: float = 24


class Procedure(Section, frozen=True):
    """A procedure that changes many rows at once, which drills run on a copy."""

    call: str = ""
