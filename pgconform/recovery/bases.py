"""Base backups: what their manifests list is there, with the log that it takes to start, and is of this cluster."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pgconform.database import Database
from pgconform.model import NotVerified
from pgconform.recovery import archives
from pgconform.recovery.backup import Backup
from pgconform.statements import statement

_SEGMENT = re.compile(r"pg_wal/[0-9A-F]{24}")
_SIZES = {1 << power for power in range(20, 31)}  # bytes that initdb lets a segment have: 1 MB to 1 GB


@dataclass(frozen=True, slots=True)
class Cluster:
    """Whose backups are wanted: the server's major version, and its system identifier where it tells that."""

    version: int
    identifier: int | None

    @classmethod
    def of(cls, database: Database) -> Cluster:
        """The cluster of that database. Raises NotVerified where not even its version is told."""
        version = "select pg_catalog.current_setting('server_version_num')::pg_catalog.int4 / 10000"
        number = "select s.system_identifier from pg_catalog.pg_control_system() as s"
        (major,) = database.one(statement(version), "asking for the server's version")
        try:
            return cls(major, database.one(statement(number), "identifying the cluster")[0])
        except NotVerified:
            return cls(major, None)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What ``backup_manifest`` lists: files with their sizes, and what of the log it takes to start."""

    files: dict[str, int]
    newest: datetime | None
    ranges: tuple[tuple[int, int, int], ...]  # timeline, first byte, byte behind the last one
    checksum: str
    identifier: int | None  # of the cluster; manifests tell it since PostgreSQL 17


def found(place: Path, database: Database, *, archived: bool) -> list[Backup]:
    """The directory itself where it holds a manifest, or each of its directories that does.

    One of another cluster than that database's is not sound; one without any log is where that is ``archived``.
    """
    inside = sorted(path.parent for path in place.glob("*/backup_manifest"))
    folders = [place] if (place / "backup_manifest").exists() else inside
    if not folders and not place.is_dir():
        raise FileNotFoundError(2, "No such file or directory")
    if not folders:
        return []
    cluster = Cluster.of(database)
    return [_base(folder, cluster, archived=archived) for folder in folders]


def _base(folder: Path, cluster: Cluster, *, archived: bool) -> Backup:
    """A base backup, dated by the newest file in it: its manifest tells times in GMT, a label in the server's zone."""
    content = (folder / "backup_manifest").read_bytes()
    time = datetime.fromtimestamp((folder / "backup_manifest").stat().st_mtime, UTC)
    try:
        manifest = _manifest(json.loads(content))
        body = content[: content.rindex(b'"Manifest-Checksum"')]
    except (ValueError, KeyError, TypeError, OverflowError):
        return Backup(folder.name, time, wrong="its manifest cannot be read")
    backup = Backup(folder.name, manifest.newest or time, sum(manifest.files.values()))
    if hashlib.sha256(body).hexdigest() != manifest.checksum:
        return replace(backup, wrong="its manifest was changed")
    try:
        kept = archives.kept(folder, manifest.files)
    except archives.Unreadable as error:
        return replace(backup, wrong=str(error))
    wrong = _missing(kept, manifest) or _foreign(kept, manifest, cluster) or _logless(kept, manifest, archived=archived)
    return replace(backup, wrong=wrong)


def _manifest(told: dict[str, Any]) -> Manifest:
    """Raises ValueError, KeyError or TypeError where it is none."""
    files = {_path(file): int(file["Size"]) for file in told["Files"]}
    times = [str(f["Last-Modified"]).removesuffix(" GMT") for f in told["Files"] if f.get("Last-Modified")]
    newest = datetime.fromisoformat(max(times)).replace(tzinfo=UTC) if times else None
    ranges = [(int(r["Timeline"]), _byte(str(r["Start-LSN"])), _byte(str(r["End-LSN"]))) for r in told["WAL-Ranges"]]
    return Manifest(files, newest, tuple(ranges), told["Manifest-Checksum"], told.get("System-Identifier"))


def _path(file: dict[str, Any]) -> str:
    """The path of a file, as Python names it; one that is not UTF-8 is told in hexadecimal digits."""
    return os.fsdecode(bytes.fromhex(file["Encoded-Path"])) if "Encoded-Path" in file else str(file["Path"])


def _byte(lsn: str) -> int:
    high, _, low = lsn.partition("/")
    return int(high, 16) << 32 | int(low, 16)


def _missing(kept: archives.Kept, manifest: Manifest) -> str:
    lost = sum(kept.sizes.get(path) != size for path, size in manifest.files.items())
    return f"{lost} of its {len(manifest.files)} files are missing or of another size" if lost else ""


def _foreign(kept: archives.Kept, manifest: Manifest, cluster: Cluster) -> str:
    """Why it is no backup of that cluster; '' where it may be one."""
    version = kept.read.get("PG_VERSION", b"").decode("ascii", "replace").strip()
    if version != str(cluster.version):
        return f"it is of PostgreSQL {version or '?'}, the server of {cluster.version}"
    control = kept.read.get("global/pg_control", b"")[:8]  # begins with it, in the server's byte order
    numbers = {int.from_bytes(control, "little", signed=True), int.from_bytes(control, "big", signed=True)}
    told = {manifest.identifier} if manifest.identifier is not None else numbers
    other = cluster.identifier is not None and cluster.identifier not in told
    return "it is of another cluster: its system identifier is not the server's" if other else ""


def _logless(kept: archives.Kept, manifest: Manifest, *, archived: bool) -> str:
    """What is missing of the log: the manifest lists none of its files, only what of it must be replayed."""
    there = {path: size for path, size in kept.sizes.items() if _SEGMENT.fullmatch(path)}
    if not there:
        advice = "make it with -X stream, or say archiver = true where an archive has that"
        return "" if archived else f"it holds no write-ahead log, without which it does not start; {advice}"
    size = max(there.values())
    wanted = {path for span in manifest.ranges for path in _segments(*span, size)} if size in _SIZES else set(there)
    lost = sum(there.get(path) != size or size not in _SIZES for path in wanted)
    return f"{lost} of {len(wanted)} segments of its write-ahead log are missing or of another size" if lost else ""


def _segments(timeline: int, first: int, end: int, size: int) -> list[str]:
    """The files that hold a part of the log, as XLogFileName names them."""
    each = (1 << 32) // size  # of them have the same number in the middle
    numbers = range(first // size, (end - 1) // size + 1)
    return [f"pg_wal/{timeline:08X}{number // each:08X}{number % each:08X}" for number in numbers]


def verified(place: Path, backup: Backup) -> Backup:
    """The backup, with what reading all of it tells. Raises NotVerified where no program is here that could."""
    folder = place if (place / "backup_manifest").exists() else place / backup.name
    if archives.stored(folder):
        return backup  # the archives were read to their end
    return replace(backup, wrong=_verified(folder))


def _verified(folder: Path) -> str:
    """What pg_verifybackup of the backup's own version has against it, which has pg_waldump read the log where it is
    in there. Raises NotVerified where either is not here."""
    version = (folder / "PG_VERSION").read_text().strip()
    programs = Path(os.environ.get("PGC_BINDIR") or f"/usr/lib/postgresql/{version}/bin")
    if lacking := [name for name in ("pg_verifybackup", "pg_waldump") if not (programs / name).exists()]:
        raise NotVerified(
            f"the files of {folder.name} are there, of their size, but {lacking[0]} of PostgreSQL {version}, which"
            f" reads them, is not; install postgresql-{version}, or set PGC_BINDIR to the directory of its programs"
        )
    log = any(_SEGMENT.fullmatch(f"pg_wal/{path.name}") for path in folder.glob("pg_wal/*"))
    command = [str(programs / "pg_verifybackup"), *([] if log else ["--no-parse-wal"]), "--quiet", str(folder)]
    done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    return "pg_verifybackup finds it damaged" if done.returncode else ""
