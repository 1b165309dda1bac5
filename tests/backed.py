"""What backups a place holds, asked for as the checks ask."""

from __future__ import annotations

from pgconform.contract_operations import Backups
from pgconform.database import Database
from pgconform.recovery.backup import Backup
from pgconform.recovery.backups import found, verified
from pgconform.subjects_operations import Source


def listed(kind: str, place: object, database: Database | None = None) -> list[Backup]:
    item = Backups(**({kind: place} if kind != "archiver" else {"archiver": True}))  # type: ignore[arg-type]
    return found(Source(kind, item), database)  # type: ignore[arg-type]


def last(kind: str, place: object, database: Database | None = None) -> Backup:
    """The last one there, with what reading all of it tells."""
    return verified(Source(kind, Backups(**{kind: str(place)})), listed(kind, str(place), database)[-1])  # type: ignore[arg-type]
