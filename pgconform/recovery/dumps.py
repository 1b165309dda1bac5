"""Dumps: archives and scripts of pg_dump, dated by themselves where they tell their time."""

from __future__ import annotations

import os
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from pgconform.model import NotVerified
from pgconform.recovery import archives
from pgconform.recovery.backup import Backup


def found(pattern: Path) -> list[Backup]:
    """The dumps that the pattern names; archives are dated by themselves: copying makes files young."""
    if not pattern.parent.is_dir():
        raise FileNotFoundError(2, "No such file or directory")
    files = [p for p in sorted(pattern.parent.glob(pattern.name)) if p.is_file() or (p / "toc.dat").exists()]
    newest = max(files, key=lambda path: path.stat().st_mtime, default=None)
    return [_dump(path, whole=path == newest) for path in files]


def _dump(path: Path, whole: bool) -> Backup:
    """A dump; the newest one is read to its end."""
    time = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    size = sum(p.stat().st_size for p in path.iterdir()) if path.is_dir() else path.stat().st_size
    if not size:
        return Backup(path.name, time, 0, "it is empty")
    if path.is_file() and not archives.is_dump(path):
        return Backup(path.name, time, size, archives.unsound(path, whole=whole))
    listed = _pg_restore("--list", str(path))
    if listed is None:
        return Backup(path.name, time, size, "pg_restore cannot read it")
    if made := re.search(r"Archive created at (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)", listed):
        time = datetime.strptime(made[1], "%Y-%m-%d %H:%M:%S").astimezone(UTC)  # written in our zone
    torn = whole and _pg_restore(f"--file={os.devnull}", str(path)) is None
    return Backup(path.name, time, size, "pg_restore cannot read it to its end" if torn else "")


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
