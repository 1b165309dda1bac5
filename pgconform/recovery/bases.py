"""Base backups: what their manifests list is there, and is what it was."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from pgconform.model import NotVerified
from pgconform.recovery import archives
from pgconform.recovery.backup import Backup


def found(place: Path) -> list[Backup]:
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


def verified(place: Path, backup: Backup) -> Backup:
    """The backup, with what reading all of it tells. Raises NotVerified where no program is here that could."""
    folder = place if (place / "backup_manifest").exists() else place / backup.name
    if archives.stored(folder):
        return backup  # the archives were read to their end
    return replace(backup, wrong=_verified(folder))


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
