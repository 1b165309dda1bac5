"""Evidence of base backups, from those that pg_basebackup made."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pgconform.model import NotVerified
from pgconform.recovery import bases
from pgconform.recovery.backup import Backup
from pgconform.targets.server import Server, running
from tests.backed import last, listed

DEBIAN = Path("/usr/lib/postgresql/15/bin")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running("15") as started:
        yield started


@pytest.fixture(scope="module")
def base(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with one base backup in it."""
    folder = tmp_path_factory.mktemp("bases")
    command = [DEBIAN / "pg_basebackup", "-d", server.uri(), "-D", folder / "one", "-X", "none", "--checkpoint=fast"]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def test_a_base_backup_is_found_sound_and_dated(base: Path) -> None:
    (backup,) = listed("manifest", str(base))
    assert (backup.wrong, checked(base).wrong) == ("", "")
    assert timedelta(0) <= backup.age(datetime.now(UTC)) < timedelta(minutes=5)
    assert (backup.size or 0) > 10_000_000
    assert listed("manifest", str(base / "one")) == [backup]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda b: (b / "PG_VERSION").unlink(), "1 of its"),
        (lambda b: (b / "global" / "pg_control").write_bytes(b"short"), "1 of its"),
        (lambda b: _flip(b / "global" / "pg_control"), "pg_verifybackup finds it damaged"),
        (lambda b: _flip(b / "backup_manifest", -20), "manifest"),
        (lambda b: (b / "backup_manifest").write_text("{"), "its manifest cannot be read"),
    ],
    ids=["file gone", "file short", "file changed", "manifest changed", "manifest torn"],
)
def test_a_damaged_base_backup_is_not_sound(base: Path, tmp_path: Path, damage: Any, says: str) -> None:
    shutil.copytree(base / "one", tmp_path / "copy")
    damage(tmp_path / "copy")
    assert says in checked(tmp_path / "copy").wrong


def checked(place: Path) -> Backup:
    return last("manifest", place)


def test_a_base_backup_is_dated_in_any_zone(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The label tells the server's time, in words that mean another time to us."""
    shutil.copytree(base / "one", tmp_path / "copy")
    label = tmp_path / "copy" / "backup_label"
    label.write_text(re.sub(r"^(START TIME: .*) \S+$", r"\1 CST", label.read_text(), flags=re.M))
    monkeypatch.setenv("TZ", "America/Chicago")
    time.tzset()
    try:
        (backup,) = listed("manifest", str(tmp_path))
        assert abs(backup.age(datetime.now(UTC))) < timedelta(minutes=10)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_program_that_is_not_there_verifies_nothing(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGC_BINDIR", str(base))
    with pytest.raises(NotVerified, match="pg_verifybackup of PostgreSQL 15, which reads them, is not; install"):
        checked(base)


def test_base_backups_are_verified_once_and_only_the_last_one(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bases, "_verified", lambda _: pytest.fail("found() needs no program"))
    assert listed("manifest", str(base))[0].wrong == ""


@pytest.fixture(scope="module", params=["-Ft", "-Ftz"])
def archived(server: Server, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    folder = tmp_path_factory.mktemp("tar") / "one"
    options = ["-Ft", *(["-z"] if request.param.endswith("z") else []), "-X", "none", "--checkpoint=fast"]
    command = [DEBIAN / "pg_basebackup", "-d", server.uri(), "-D", folder, *options]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def test_a_base_backup_may_be_an_archive(archived: Path, tmp_path: Path) -> None:
    assert checked(archived).wrong == ""
    copy = tmp_path / "copy"
    shutil.copytree(archived, copy)
    (tar,) = copy.glob("base.tar*")
    tar.write_bytes(tar.read_bytes()[: tar.stat().st_size // 2])
    assert "of another size" in checked(copy).wrong or "cannot be read to its end" in checked(copy).wrong
    tar.rename(copy / "base.tar.zst")
    assert "compressed in a way" in checked(copy).wrong
    (copy / "base.tar.zst").unlink()
    assert "files are missing" in checked(copy).wrong


def _flip(path: Path, at: int = 100) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
