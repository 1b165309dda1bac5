"""The contract's sections about a running database: its limits, its backups, and the procedures that change it."""

from __future__ import annotations

from typing import Literal

from pgconform.contract_section import Section, Share


class Operations(Section, frozen=True):
    """Limits of a running server. A contract without this section promises nothing of the kind."""

    connections: Share = 0.8


class Backups(Section, frozen=True):
    """Where evidence of backups is found, and how old and how large they may be."""

    hours: float = 24


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
