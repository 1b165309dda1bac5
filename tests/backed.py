"""What backups a place holds, asked for as the checks ask."""

from __future__ import annotations

from pgconform.contract_operations import Backups
from pgconform.database import Database
from pgconform.recovery.backup import Backup
from pgconform.recovery.backups import found, verified
from pgconform.subjects_operations import Source


def source(kind: str, place: object, **said: object) -> Source:
    """The place, and what else the contract says of backups."""
    return Source(kind, Backups(**{kind: place if kind == "archiver" else str(place), **said}))  # type: ignore[arg-type]


def listed(kind: str, place: object, database: Database | None = None, **said: object) -> list[Backup]:
    return found(source(kind, place, **said), database)  # type: ignore[arg-type]


def last(kind: str, place: object, database: Database | None = None, **said: object) -> Backup:
    """The last one there, with what reading all of it tells."""
    return verified(source(kind, place, **said), listed(kind, place, database, **said)[-1])
