"""Dumps: archives and scripts of pg_dump, dated by themselves where they tell their time."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pgconform.contract_operations import zone_of
from pgconform.model import NotVerified
from pgconform.recovery import archives
from pgconform.recovery.backup import Backup

# How far clocks run before UTC and behind it; how long after its beginning the file of a dump is still no later copy,
# and how far clocks of two machines differ.
_BEFORE, _BEHIND = timedelta(hours=14), timedelta(hours=12)
_SOON, _ASTRAY = timedelta(minutes=15), timedelta(minutes=1)


def found(pattern: Path, zone: str) -> list[Backup]:
    """The dumps that the pattern names, not read to their end; archives are dated by themselves: copying makes files
    young. ``zone`` is that of whoever makes them, '' where nobody tells."""
    if not pattern.parent.is_dir():
        raise FileNotFoundError(2, "No such file or directory")
    files = [p for p in sorted(pattern.parent.glob(pattern.name)) if p.is_file() or (p / "toc.dat").exists()]
    return [_dump(path, zone) for path in files]


def read(folder: Path, dumps: Iterable[Backup]) -> list[Backup]:
    """The same dumps of that folder, oldest first, with what reading them to their end tells.

    So read is each that may be the last sound one: as far as times are known, from the last to the first that is sound.
    """
    told: list[Backup] = []
    for dump in reversed(list(dumps)):
        older = any(dump.latest < newer.earliest for newer in told if not newer.wrong)
        told.append(dump if older or dump.wrong else replace(dump, wrong=_torn(folder / dump.name)))
    return told[::-1]


def _dump(path: Path, zone: str) -> Backup:
    files = list(path.iterdir()) if path.is_dir() else [path]
    size = sum(file.stat().st_size for file in files)
    time = datetime.fromtimestamp(min(file.stat().st_mtime for file in files), UTC)
    if not size:
        return Backup(path.name, time, 0, "it is empty")
    if not _archive(path):
        return Backup(path.name, time, size, archives.unsound(path, whole=False))
    if _pg_restore("--list", str(path)) is None:
        return Backup(path.name, time, size, "pg_restore cannot read it")
    clock = archives.clock(path / "toc.dat" if path.is_dir() else path)
    return _dated(Backup(path.name, time, size), clock, zone) if clock else Backup(path.name, time, size)


def _dated(dump: Backup, clock: datetime, zone: str) -> Backup:
    """The dump, dated by its maker's clock.

    Where nobody tells the clock's zone, it is ours or UTC if the file's own time follows at once; else any may be the
    one, but for those in which the dump was made after its file was written.
    """
    if clock.tzinfo or zone:
        return replace(dump, time=(clock if clock.tzinfo else clock.replace(tzinfo=zone_of(zone))).astimezone(UTC))
    ours, utc = clock.astimezone(UTC), clock.replace(tzinfo=UTC)
    for time in (ours, utc):
        if -_ASTRAY <= dump.time - time < _SOON:
            return replace(dump, time=time)
    earliest = utc - _BEFORE
    ends = [utc + _BEHIND, datetime.now(UTC), *([dump.time] if dump.time >= earliest else [])]  # else that is wrong
    latest = max(earliest, min(ends))
    time = max(earliest, min(ours, latest))
    return replace(dump, time=time, earlier=time - earliest, later=latest - time)


def _archive(path: Path) -> bool:
    return path.is_dir() or archives.is_dump(path)


def _torn(path: Path) -> str:
    """What keeps a dump from being read to its end; '' where nothing does."""
    if not _archive(path):
        return archives.unsound(path, whole=True)
    return "" if _pg_restore(f"--file={os.devnull}", str(path)) is not None else "pg_restore cannot read it to its end"


def _pg_restore(*arguments: str) -> str | None:
    """What the newest pg_restore that is here writes; None where it fails."""
    from pgconform.targets.server import ServerError, find_binaries

    try:
        program = find_binaries("18") / "pg_restore"
    except ServerError as error:
        raise NotVerified(f"dumps cannot be read: {error}") from None
    done = subprocess.run([program, *arguments], capture_output=True, stdin=subprocess.DEVNULL, check=False)
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


def seen_into(path: Path) -> None:
    """Raises NotVerified where that cannot be."""
    if path.is_file() and (why := archives.sealed(path)):
        raise NotVerified(
            f"the last backup ({path.name}) cannot be read: {why}; have [backups] name what can be read before it is"
            " packed or encrypted, or a listing"
        )
