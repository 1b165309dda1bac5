"""The contract's sections about a running database: its limits, its backups, and the procedures that change it."""

from __future__ import annotations

from datetime import UTC, tzinfo
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from msgspec import Meta

from pgconform.contract_section import Section, Share

Positive = Annotated[float, Meta(gt=0)]


class Operations(Section, frozen=True):
    """Limits of a running server; a contract without this section promises nothing of the kind.

    ``connections``: share of those that clients may have; ``idle``: share of them that may be idle for longer than
    ``idle_minutes``; ``statement_ms``, ``search_ms``: mean time of statements called at least ``least_calls`` times;
    ``sizes``: GB (10^9 bytes) of "database", a schema or a table; ``dead``, ``modified``: share of a table's rows,
    once they are ``least_rows``; ``age``: share of the 2^31 transactions after which writing ends; ``bloat``: share
    of tables and indexes larger than ``bloat_mb``; ``sequence``: share of a sequence's numbers; ``response_ms``: of a
    query that does nothing; ``slot_gb``: WAL that one slot may hold back. What needs traffic is judged after so many
    days of it, on tables that were read ``least_scans`` times.
    """

    connections: Share = 0.8
    running_minutes: Positive = 5
    idle_in_transaction_minutes: Positive = 5
    idle_minutes: Positive = 30
    idle: Share = 0.5
    statement_ms: Positive = 1000
    search_ms: Positive = 1000
    least_calls: Annotated[int, Meta(ge=1)] = 5
    sizes: dict[str, Positive] = {}
    dead: Share = 0.2
    modified: Share = 0.2
    least_rows: Annotated[int, Meta(ge=1)] = 10_000
    analyzed_days: Positive = 7
    age: Share = 0.5
    bloat: Share = 0.5
    bloat_mb: Positive = 100
    sequence: Share = 0.8
    slot_gb: Positive = 5
    prepared_minutes: Positive = 60
    response_ms: Positive = 100
    judged_after_days: Annotated[float, Meta(ge=0)] = 7
    least_scans: Annotated[int, Meta(ge=1)] = 100

    def __str__(self) -> str:
        return "operations"


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
    """Where evidence of backups is found, and what it must tell. A place is a path relative to the contract, or
    ``env:NAME`` for what an environment variable names.

    ``archiver``: the server archives its log; ``manifest``: a base backup's directory, or one of several;
    ``dumps``: a pattern of files, such as ``backups/*.dump``; ``listing``: a provider's answer as JSON. ``zone``: the
    time zone of whoever makes dumps, which these do not tell, such as ``UTC`` or ``Europe/Madrid``. ``hours``: age of
    the last sound one; ``size_change``: share by which it may differ from the one before; ``retention_days``: how far
    back they must reach.
    """

    archiver: bool = False
    manifest: str = ""
    dumps: str = ""
    listing: str = ""
    zone: str = ""
    hours: Positive = 24
    size_change: Share = 0.1
    retention_days: Positive = 7


def zone_of(name: str) -> tzinfo:
    """The time zone of that name. Raises ValueError where there is none."""
    try:
        return UTC if name == "UTC" else ZoneInfo(name)  # which finds none where the system has no list of zones
    except (KeyError, OSError):
        raise ValueError(name) from None


PLACES = ("manifest", "dumps", "listing")  # of backups, on disk

# What is filled in for each kind of procedure, as text.
BLANKS: dict[str, tuple[str, ...]] = {
    "archive": (), "merge": ("keep", "gone"), "onboard": ("user",), "import": ("tenant", "rows"), "fix": ("key",),
}  # fmt: skip


class Imported(Section, frozen=True):
    """A field of an imported row: the column in which it arrives, its value in a good row (``{n}``: the row's number,
    ``{tenant}``; without one a text that is hard to quote), and values (``{other}``: another tenant) that are refused.
    """

    column: str
    value: str = ""
    refused: tuple[str, ...] = ()


class Child(Section, frozen=True):
    """What hangs on archived rows: ``archive`` has each such row, as columns or as one JSON document of it; without
    one it is dropped on purpose."""

    table: str
    archive: str = ""


class Procedure(Section, frozen=True):
    """A procedure that changes many rows at once, which drills run on a copy.

    ``call`` is one statement, ``script`` several (or ``file:NAME.sql``), run as ``role``. Blanks are filled in by kind:
    ``{keep}`` and ``{gone}`` (merge), ``{user}`` (onboard), ``{tenant}`` and ``{rows}``, a JSON array (import),
    ``{key}`` (fix). ``definition`` is SQL that creates what is called, or ``file:NAME.sql``. ``tables``: those whose
    retention an archiving carries out, by default all that have an archive. ``children``: where what hangs on archived
    rows goes. ``retires``: what a merge does to the second tenant.
    ``changes``: the columns that a fix changes, by table; ``{key}`` names a row of the first one. ``stamps``: the
    column with the time of a row's last change. ``rows``: the fields of imported rows.
    """

    kind: Literal["archive", "merge", "onboard", "import", "fix"]
    call: str = ""
    script: str = ""
    role: str = ""
    definition: str = ""
    tenancy: str = ""
    tables: tuple[str, ...] = ()
    children: tuple[Child, ...] = ()
    retires: Literal["deleted", "inactive"] = "deleted"
    changes: dict[str, tuple[str, ...]] = {}
    stamps: str = "updated_at"
    rows: dict[str, Imported] = {}


class Metrics(Section, frozen=True):
    """The table in which the database keeps its own measurements. ``figures`` maps metrics that pgconform may log there
    to the figures that it measures."""

    table: str
    name: str = "metric_name"
    value: str = "metric_value"
    time: str = "recorded_at"
    known: tuple[str, ...] = ()
    hours: float = 24
    figures: dict[str, str] = {}
