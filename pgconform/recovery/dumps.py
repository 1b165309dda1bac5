"""Dumps: archives and scripts of pg_dump, dated by themselves where they tell their time."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from pgconform.model import NotVerified
from pgconform.recovery import archives
from pgconform.recovery.backup import Backup


def found(pattern: Path) -> list[Backup]:
    """The dumps that the pattern names, not read to their end; archives are dated by themselves: copying makes files
    young."""
    if not pattern.parent.is_dir():
        raise FileNotFoundError(2, "No such file or directory")
    files = [p for p in sorted(pattern.parent.glob(pattern.name)) if p.is_file() or (p / "toc.dat").exists()]
    return [_dump(path) for path in files]


def read(folder: Path, dumps: Iterable[Backup]) -> list[Backup]:
    """The same dumps of that folder, oldest first, with what reading them to their end tells.

    So read is the last one, and those before it until one is sound, which then is the one to rely upon.
    """
    told: list[Backup] = []
    for dump in reversed(list(dumps)):
        sound = any(not newer.wrong for newer in told)
        told.append(dump if sound or dump.wrong else replace(dump, wrong=_torn(folder / dump.name)))
    return told[::-1]


def _dump(path: Path) -> Backup:
    time = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    size = sum(p.stat().st_size for p in path.iterdir()) if path.is_dir() else path.stat().st_size
    if not size:
        return Backup(path.name, time, 0, "it is empty")
    if not _archive(path):
        return Backup(path.name, time, size, archives.unsound(path, whole=False))
    listed = _pg_restore("--list", str(path))
    if listed is None:
        return Backup(path.name, time, size, "pg_restore cannot read it")
    if made := re.search(r"Archive created at (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)", listed):
        time = datetime.strptime(made[1], "%Y-%m-%d %H:%M:%S").astimezone(UTC)  # written in our zone
    return Backup(path.name, time, size)


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
