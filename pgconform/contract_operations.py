"""The contract's sections about a running database: its limits, its backups, and the procedures that change it."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from pgconform.contract_section import Section, Share


class Operations(Section, frozen=True):
    """Limits of a running server. A contract without this section promises nothing of the kind."""

    connections: Share = 0.8


class Trends(Section, frozen=True):
    """How figures may change from run to run, judged from the history. Times in days.

    ``factor``: how many times more, or fewer, rows a tenant may gain in ``days`` than in such a time before, once the
    difference is ``least`` rows; ``silent``: how long a tenant may gain none; ``full``: how far away the day must be
    on which the database reaches ``capacity`` (GB); ``gap``: how far apart runs may be. ``tables`` are those whose
    growth is watched.
    """

    tables: tuple[str, ...] = ()
    days: Annotated[float, Meta(gt=0)] = 30
    factor: Annotated[float, Meta(gt=1)] = 3
    least: Annotated[int, Meta(ge=0)] = 100
    silent: Annotated[float, Meta(gt=0)] = 14
    capacity: Annotated[float, Meta(gt=0)] | None = None
    full: Annotated[float, Meta(gt=0)] = 60
    gap: Annotated[float, Meta(gt=0)] = 2

    def __str__(self) -> str:
        return "trends"


class Backups(Section, frozen=True):
    """Where evidence of backups is found, and how old and how large they may be."""

    hours: float = 24


class Procedure(Section, frozen=True):
    """A procedure that changes many rows at once, which drills run on a copy."""

    call: str = ""
