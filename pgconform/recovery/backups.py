"""Evidence of backups from what really exists: the archiver's view, base backups, dumps, a provider's listing."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgconform.database import Database
from pgconform.model import Nothing, NotVerified
from pgconform.recovery import archives
from pgconform.statements import statement
from pgconform.subjects_operations import Source

if TYPE_CHECKING:
    from pgconform.history import History

# How providers call these, in the order in which they are looked for.
_TIMES = ("completed_at", "finished_at", "inserted_at", "created_at", "time", "timestamp", "date")
_SIZES = ("size_bytes", "size", "bytes")
_STATES = ("status", "state")
_DONE = {"completed", "complete", "success", "successful", "succeeded", "available", "finished", "ok", "done"}


@dataclass(frozen=True, slots=True)
class Backup:
    """One backup; ``wrong`` says why it cannot be relied upon, '' where nothing speaks against it."""

    name: str
    time: datetime
    size: int | None = None
    wrong: str = ""

    def age(self, now: datetime) -> timedelta:
        return now - self.time


def found(source: Source, database: Database) -> list[Backup]:
    """All backups of that source, oldest first; those from the future are left out, as nobody made them.

    Raises Nothing where the place is not told, NotVerified where it cannot be read.
    """
    now = datetime.now(UTC)
    if source.kind == "archiver":
        listed = _archived(database)
    else:
        place = _place(getattr(source.item, source.kind))
        read: dict[str, Callable[[Path], list[Backup]]] = {"manifest": _bases, "dumps": _dumps, "listing": _listed}
        try:
            listed = read[source.kind](place)
        except OSError as error:
            why = (error.strerror or "cannot be read").lower()
            raise NotVerified(f"backups ({source.kind}): {place}: {why}; correct [backups] in the contract") from None
    return sorted((b for b in listed if b.time <= now + timedelta(minutes=5)), key=lambda b: (b.time, b.name))


def _place(told: str) -> Path:
    """The path, or what the environment variable after ``env:`` holds."""
    _, env, name = told.partition("env:")
    if not env:
        return Path(told)
    if not os.environ.get(name):
        raise Nothing(f"{name} is not set, which the contract has name the place of the backups")
    return Path(os.environ[name])


def _archived(database: Database) -> list[Backup]:
    question = statement(
        "select pg_catalog.current_setting('archive_mode'), a.last_archived_time, a.last_failed_time, a.failed_count"
        " from pg_catalog.pg_stat_archiver as a"
    )
    mode, archived, failed, failures = database.one(question, "asking what was archived")
    if mode == "off":
        return []
    wrong = f"archiving fails since then ({failures} times)" if failed and (not archived or failed > archived) else ""
    return [Backup("write-ahead log", archived or failed, wrong=wrong)] if archived or failed else []


def _bases(place: Path) -> list[Backup]:
    """The directory itself where it holds a manifest, or each of its directories that does."""
    inside = sorted(path.parent for path in place.glob("*/backup_manifest"))
    folders = [place] if (place / "backup_manifest").exists() else inside
    if not folders and not place.is_dir():
        raise FileNotFoundError(2, "No such file or directory")
    return [_base(folder) for folder in folders]


def _base(folder: Path) -> Backup:
    """A base backup, dated by the newest file in it: its manifest tells times in GMT, a label in the server's zone."""
    manifest = (folder / "backup_manifest").read_bytes()
    time = datetime.fromtimestamp((folder / "backup_manifest").stat().st_mtime, UTC)
    try:
        listed, told = json.loads(manifest)["Files"], json.loads(manifest)["Manifest-Checksum"]
        files = {str(f["Path"]): int(f["Size"]) for f in listed}
        times = [str(f["Last-Modified"]).removesuffix(" GMT") for f in listed if f.get("Last-Modified")]
        time = datetime.fromisoformat(max(times)).replace(tzinfo=UTC) if times else time
    except (ValueError, KeyError, TypeError):
        return Backup(folder.name, time, wrong="its manifest cannot be read")
    body = manifest[: manifest.rindex(b'"Manifest-Checksum"')]
    if hashlib.sha256(body).hexdigest() != told:
        return Backup(folder.name, time, sum(files.values()), "its manifest was changed")
    try:
        lost = archives.missing(folder, files)
    except archives.Unreadable as error:
        return Backup(folder.name, time, sum(files.values()), str(error))
    wrong = f"{lost} of its {len(files)} files are missing or of another size" if lost else ""
    return Backup(folder.name, time, sum(files.values()), wrong)


def measured(figure: str, last: Backup, history: History | None) -> float:
    """The size of the backup before the last one, as the latest run before that was made has measured it, in bytes.

    Raises Nothing where no run has.
    """
    made = last.age(datetime.now(UTC)) / timedelta(days=1)
    past = [value for age, value in history.series(figure) if age > made] if history else []
    if not past:
        raise Nothing("there are no two sound backups whose sizes are known, and no earlier run has measured one")
    return past[-1]


def verified(source: Source, backup: Backup) -> Backup:
    """The backup, with what reading all of it tells; it is done once, for the backup that would be used.

    Raises NotVerified where it is a base backup, and there is no program that could verify it, or a dump that nothing
    here can look into.
    """
    if source.kind == "dumps" and not backup.wrong:
        _seen_into(_place(source.item.dumps).parent / backup.name)
    if source.kind != "manifest" or backup.wrong:
        return backup
    place = _place(source.item.manifest)
    folder = place if (place / "backup_manifest").exists() else place / backup.name
    if archives.stored(folder):
        return backup  # the archives were read to their end
    return replace(backup, wrong=_verified(folder))


def _seen_into(path: Path) -> None:
    """Raises NotVerified where that cannot be."""
    if path.is_file() and (why := archives.sealed(path)):
        raise NotVerified(
            f"the last backup ({path.name}) cannot be read: {why}; have [backups] name what can be read before it is"
            " packed or encrypted, or a listing"
        )


def _verified(folder: Path) -> str:
    """What pg_verifybackup of the backup's own version has against it. Raises NotVerified where it is not here."""
    version = (folder / "PG_VERSION").read_text().strip()
    program = Path(f"/usr/lib/postgresql/{version}/bin/pg_verifybackup")
    if given := os.environ.get("PGC_BINDIR"):
        program = Path(given) / "pg_verifybackup"
    if not program.exists():
        raise NotVerified(
            f"the files of {folder.name} are there, of their size, but pg_verifybackup of PostgreSQL {version}, which"
            f" reads them, is not; install postgresql-{version}, or set PGC_BINDIR to the directory of its programs"
        )
    done = subprocess.run(
        [program, "--no-parse-wal", "--quiet", folder], capture_output=True, stdin=subprocess.DEVNULL, check=False
    )
    return "pg_verifybackup finds it damaged" if done.returncode else ""


def _dumps(pattern: Path) -> list[Backup]:
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


def _listed(file: Path) -> list[Backup]:
    """A provider's answer: a list of backups, or an object that holds one."""
    try:
        document = json.loads(file.read_text("utf-8"))
        items = document if isinstance(document, list) else next(v for v in document.values() if isinstance(v, list))
        return [_item(number, item) for number, item in enumerate(items)]
    except (ValueError, AttributeError, StopIteration, KeyError, TypeError):
        raise NotVerified(
            f"backups (listing): {file} is not a list of backups; wanted a JSON list of objects with a time"
            f" ({', '.join(_TIMES)}), and a size ({', '.join(_SIZES)}) and status where there are any"
        ) from None


def _item(number: int, item: dict[str, Any]) -> Backup:
    told = next(item[name] for name in _TIMES if item.get(name))
    time = datetime.fromtimestamp(told, UTC) if isinstance(told, int | float) else datetime.fromisoformat(str(told))
    size = next((int(item[name]) for name in _SIZES if item.get(name) is not None), None)
    state = next((str(item[name]).lower() for name in _STATES if item.get(name) is not None), "")
    wrong = "it did not complete" if state and state not in _DONE else ""
    return Backup(f"#{number + 1}", time if time.tzinfo else time.replace(tzinfo=UTC), size, wrong)
