"""Evidence of backups from what really exists: the archiver's view, base backups, dumps, a provider's listing."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pgconform.database import Database
from pgconform.model import Nothing, NotVerified
from pgconform.recovery import bases, dumps, listings
from pgconform.recovery.backup import Backup
from pgconform.statements import statement
from pgconform.subjects_operations import Source

if TYPE_CHECKING:
    from pgconform.history import History


def found(source: Source, database: Database) -> list[Backup]:
    """All backups of that source, oldest first; those from the future are left out, as nobody made them.

    Raises Nothing where the place is not told, NotVerified where it cannot be read.
    """
    if source.kind == "archiver":
        return _counted(_archived(database, source.item.hours))
    place = _place(getattr(source.item, source.kind))
    try:
        if source.kind == "dumps":
            return dumps.read(place.parent, _counted(dumps.found(place, source.item.zone)))
        if source.kind == "manifest":
            return _counted(bases.found(place, database, archived=source.item.archiver))
        return _counted(listings.found(place))
    except OSError as error:
        why = (error.strerror or "cannot be read").lower()
        raise NotVerified(f"backups ({source.kind}): {place}: {why}; correct [backups] in the contract") from None


def _counted(backups: list[Backup]) -> list[Backup]:
    """Those that count, oldest first."""
    soon = datetime.now(UTC) + timedelta(minutes=5)
    return sorted((b for b in backups if b.time <= soon), key=lambda b: (b.time, b.earliest, b.name))


def _place(told: str) -> Path:
    """The path, or what the environment variable after ``env:`` holds."""
    _, env, name = told.partition("env:")
    if not env:
        return Path(told)
    if not os.environ.get(name):
        raise Nothing(f"{name} is not set, which the contract has name the place of the backups")
    return Path(os.environ[name])


def _archived(database: Database, hours: float) -> list[Backup]:
    """The log, as of when a part of it was last archived. Raises Nothing where the server forgot when that was, and
    there may have been one in the last ``hours``."""
    question = statement(
        "select pg_catalog.current_setting('archive_mode'), a.last_archived_time, a.last_failed_time, a.failed_count,"
        " pg_catalog.clock_timestamp() - a.stats_reset from pg_catalog.pg_stat_archiver as a"
    )
    mode, archived, failed, failures, since = database.one(question, "asking what was archived")
    if mode == "off":
        return []
    if not archived and not failed and since is not None and since / timedelta(hours=1) < hours:
        raise Nothing(
            f"the server's statistics of archiving began {since / timedelta(hours=1):.1f} hours ago, and nothing was"
            f" archived since; whether something was in the last {hours:g} hours shows when a segment is full"
        )
    wrong = f"archiving fails since then ({failures} times)" if failed and (not archived or failed > archived) else ""
    return [Backup("write-ahead log", archived or failed, wrong=wrong)] if archived or failed else []


def newest(sound: list[Backup]) -> Backup:
    """The last of these, as certain of its time as all of them together are."""
    last = sound[-1]
    earlier, later = last.time - max(b.earliest for b in sound), max(b.latest for b in sound) - last.time
    return replace(last, earlier=earlier, later=later)


def oldest(sound: list[Backup]) -> Backup:
    """The first of these, as certain of its time as all of them together are."""
    first = sound[0]
    earlier, later = first.time - min(b.earliest for b in sound), min(b.latest for b in sound) - first.time
    return replace(first, earlier=earlier, later=later)


def hours_old(backup: Backup, limit: float) -> float:
    """The age of a backup, in hours. Raises NotVerified where it is not known on which side of the limit that is."""
    now, hour = datetime.now(UTC), timedelta(hours=1)
    least, most = (now - backup.latest) / hour, (now - backup.earliest) / hour
    if least <= limit < most:
        raise NotVerified(
            f"{backup.name} is {least:.1f} to {most:.1f} hours old: a dump tells its maker's clock, and not in which"
            " time zone; say zone in [backups], or keep the files' times when they are copied"
        )
    return (now - backup.time) / hour


def measured(figure: str, last: Backup, history: History | None) -> float:
    """The size of the backup before the last one, as the latest run before that was made has measured it, in bytes.

    Raises Nothing where no run has.
    """
    made = (datetime.now(UTC) - last.earliest) / timedelta(days=1)
    past = [value for age, value in history.series(figure) if age > made] if history else []
    if not past:
        raise Nothing("there are no two sound backups whose sizes are known, and no earlier run has measured one")
    return past[-1]


def verified(source: Source, backup: Backup) -> Backup:
    """The backup, with what reading all of it tells; it is done once, for the backup that would be used.

    Raises NotVerified where it is a base backup, and there is no program that could verify it, or a dump that nothing
    here can look into.
    """
    if backup.wrong:
        return backup
    if source.kind == "dumps":
        dumps.seen_into(_place(source.item.dumps).parent / backup.name)
    return bases.verified(_place(source.item.manifest), backup) if source.kind == "manifest" else backup
