"""Evidence of base backups, from those that pg_basebackup made."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest

from pgconform.database import Database
from pgconform.model import NotVerified
from pgconform.recovery import bases
from pgconform.recovery.backup import Backup
from pgconform.targets.server import Server, find_binaries, running
from tests.backed import last, listed

DEBIAN = Path("/usr/lib/postgresql/15/bin")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running("15") as started:
        yield started


@dataclass(frozen=True)
class Asked:
    """Asks what base backups a place holds, as checks of that database do."""

    database: Database

    def listed(self, place: Path, **said: object) -> list[Backup]:
        return listed("manifest", place, self.database, **said)

    def checked(self, place: Path, **said: object) -> Backup:
        return last("manifest", place, self.database, **said)


@contextmanager
def asking(server: Server, before: LiteralString = "select 1") -> Iterator[Asked]:
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(before)
        yield Asked(Database(connection))


@pytest.fixture(scope="module")
def asked(server: Server) -> Iterator[Asked]:
    with asking(server) as one:
        yield one


@pytest.fixture(scope="module")
def base(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with one base backup in it."""
    folder = tmp_path_factory.mktemp("bases")
    command = [DEBIAN / "pg_basebackup", "-d", server.uri(), "-D", folder / "one", "--checkpoint=fast"]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def test_a_base_backup_is_found_sound_and_dated(asked: Asked, base: Path) -> None:
    (backup,) = asked.listed(base)
    assert (backup.wrong, asked.checked(base).wrong) == ("", "")
    assert timedelta(0) <= backup.age(datetime.now(UTC)) < timedelta(minutes=5)
    assert (backup.size or 0) > 10_000_000
    assert asked.listed(base / "one") == [backup]


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
def test_a_damaged_base_backup_is_not_sound(asked: Asked, base: Path, tmp_path: Path, damage: Any, says: str) -> None:
    shutil.copytree(base / "one", tmp_path / "copy")
    damage(tmp_path / "copy")
    assert says in asked.checked(tmp_path / "copy").wrong


def test_a_base_backup_is_dated_in_any_zone(
    asked: Asked, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The label tells the server's time, in words that mean another time to us."""
    shutil.copytree(base / "one", tmp_path / "copy")
    label = tmp_path / "copy" / "backup_label"
    label.write_text(re.sub(r"^(START TIME: .*) \S+$", r"\1 CST", label.read_text(), flags=re.M))
    monkeypatch.setenv("TZ", "America/Chicago")
    time.tzset()
    try:
        (backup,) = asked.listed(tmp_path)
        assert abs(backup.age(datetime.now(UTC))) < timedelta(minutes=10)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_program_that_is_not_there_verifies_nothing(
    asked: Asked, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGC_BINDIR", str(base))
    with pytest.raises(NotVerified, match="pg_verifybackup of PostgreSQL 15, which reads them, is not; install"):
        asked.checked(base)


def test_base_backups_are_verified_once_and_only_the_last_one(
    asked: Asked, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bases, "_verified", lambda _: pytest.fail("found() needs no program"))
    assert asked.listed(base)[0].wrong == ""


@pytest.fixture(scope="module", params=["-Ft", "-Ftz"])
def archived(server: Server, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    folder = tmp_path_factory.mktemp("tar") / "one"
    options = ["-Ft", *(["-z"] if request.param.endswith("z") else []), "--checkpoint=fast"]
    command = [DEBIAN / "pg_basebackup", "-d", server.uri(), "-D", folder, *options]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def test_a_base_backup_may_be_an_archive(asked: Asked, archived: Path, tmp_path: Path) -> None:
    assert asked.checked(archived).wrong == ""
    copy = tmp_path / "copy"
    shutil.copytree(archived, copy)
    (tar,) = copy.glob("base.tar*")
    tar.write_bytes(tar.read_bytes()[: tar.stat().st_size // 2])
    assert "of another size" in asked.checked(copy).wrong or "cannot be read to its end" in asked.checked(copy).wrong
    tar.rename(copy / "base.tar.zst")
    assert "compressed in a way" in asked.checked(copy).wrong
    (copy / "base.tar.zst").unlink()
    assert "files are missing" in asked.checked(copy).wrong


NO_LOG = "it holds no write-ahead log, without which it does not start; make it with -X stream, or say archiver = true"


def test_a_base_backup_without_its_log_is_sound_where_that_is_archived(
    asked: Asked, base: Path, tmp_path: Path
) -> None:
    """Whether it was made with ``-X none``, or lost its log: nothing in it tells."""
    copy = tmp_path / "copy"
    shutil.copytree(base / "one", copy)
    _lose(copy.glob("pg_wal/0*"))
    assert asked.checked(copy).wrong.startswith(NO_LOG)
    assert asked.checked(copy, archiver=True).wrong == ""


def test_archives_without_their_log_are_sound_where_that_is_archived(
    asked: Asked, archived: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(archived, copy)
    _lose(copy.glob("pg_wal.tar*"))
    assert asked.checked(copy).wrong.startswith(NO_LOG)
    assert asked.checked(copy, archiver=True).wrong == ""


def test_a_log_may_be_fetched_into_the_archive_of_all_files(asked: Asked, server: Server, tmp_path: Path) -> None:
    command = [DEBIAN / "pg_basebackup", "-d", server.uri(), "-D", tmp_path / "one", "-Ft", "-X", "fetch"]
    subprocess.run([*command, "--checkpoint=fast"], check=True, capture_output=True)
    assert asked.checked(tmp_path / "one").wrong == ""


@pytest.mark.parametrize("archiver", [False, True])
def test_a_part_of_a_log_does_not_make_a_base_backup_start(
    asked: Asked, base: Path, tmp_path: Path, archiver: bool
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(base / "one", copy)
    (segment,) = copy.glob("pg_wal/0*")
    lost = "1 of 1 segments of its write-ahead log are missing or of another size"
    os.truncate(segment, 5_000_000)  # no size of a segment
    assert asked.checked(copy, archiver=archiver).wrong == lost
    os.truncate(segment, 16 << 20)
    _flip(segment, 60)
    assert asked.checked(copy, archiver=archiver).wrong == "pg_verifybackup finds it damaged"
    segment.rename(segment.with_name(f"{1:08X}{9:08X}{9:08X}"))
    assert asked.checked(copy, archiver=archiver).wrong == lost


@pytest.mark.parametrize(
    ("first", "end", "size", "names"),
    [
        (0x2000028, 0x2000100, 16 << 20, ["000000010000000000000002"]),
        (0x2000028, 0x3000000, 16 << 20, ["000000010000000000000002"]),
        (0x2000028, 0x3000001, 16 << 20, ["000000010000000000000002", "000000010000000000000003"]),
        (0x1FF000028, 0x200000001, 16 << 20, ["0000000100000001000000FF", "000000010000000200000000"]),
        (0x140000028, 0x140000100, 1 << 30, ["000000010000000100000001"]),
    ],
    ids=["one", "to its end", "one byte more", "the next file of 4 GB", "segments of 1 GB"],
)
def test_segments_are_named_as_the_server_names_them(first: int, end: int, size: int, names: list[str]) -> None:
    assert bases._segments(1, first, end, size) == [f"pg_wal/{name}" for name in names]


@pytest.mark.parametrize("layout", ["-Fp", "-Ft"])
def test_names_of_files_may_be_no_text(asked: Asked, server: Server, tmp_path: Path, layout: str) -> None:
    """The manifest has such a name in hexadecimal digits."""
    odd = server.directory / os.fsdecode(b"caf\xe9")
    odd.write_bytes(b"x")
    command = [DEBIAN / "pg_basebackup", "-d", server.uri(), "-D", tmp_path / "one", layout, "--checkpoint=fast"]
    try:
        subprocess.run(command, check=True, capture_output=True)
    finally:
        odd.unlink()
    assert "Encoded-Path" in (tmp_path / "one" / "backup_manifest").read_text()
    assert asked.checked(tmp_path / "one").wrong == ""


def test_a_base_backup_of_another_version_is_not_sound(references: Server, base: Path, archived: Path) -> None:
    with asking(references) as other:
        for place in (base, archived):
            assert other.listed(place)[-1].wrong == "it is of PostgreSQL 15, the server of 16"


FOREIGN = "it is of another cluster: its system identifier is not the server's"
HIDDEN = """
    revoke execute on function pg_catalog.pg_control_system() from public;
    do $$ begin create role backup_reader; exception when duplicate_object then null; end $$;
    set role backup_reader;
"""


def test_a_base_backup_of_another_cluster_is_not_sound(
    asked: Asked, server: Server, base: Path, tmp_path: Path
) -> None:
    """Its number is how pg_control begins, and not compared where the server hides its own."""
    copy = tmp_path / "copy"
    shutil.copytree(base / "one", copy)
    _flip(copy / "global" / "pg_control", 0)
    assert asked.listed(copy)[-1].wrong == FOREIGN
    with asking(server, HIDDEN) as blind:
        assert blind.listed(copy)[-1].wrong == ""


def test_archives_of_another_cluster_are_not_sound(asked: Asked, archived: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(archived, copy)
    (packed,) = copy.glob("base.tar*")
    unpacked = gzip.decompress(packed.read_bytes()) if packed.suffix == ".gz" else packed.read_bytes()
    packed.unlink()
    with tarfile.open(fileobj=io.BytesIO(unpacked)) as tar:
        at = tar.getmember("global/pg_control").offset_data
    (copy / "base.tar").write_bytes(unpacked[:at] + bytes([unpacked[at] ^ 1]) + unpacked[at + 1 :])
    assert asked.listed(copy)[-1].wrong == FOREIGN


def test_manifests_of_later_versions_tell_the_cluster(tmp_path: Path) -> None:
    with running("18") as server, asking(server) as asked:
        command = [find_binaries("18") / "pg_basebackup", "-d", server.uri(), "-D", tmp_path / "one"]
        subprocess.run([*command, "--checkpoint=fast"], check=True, capture_output=True)
        manifest = tmp_path / "one" / "backup_manifest"
        assert asked.listed(tmp_path)[-1].wrong == ""
        body, key, _ = manifest.read_bytes().partition(b'"Manifest-Checksum"')
        body = re.sub(rb'("System-Identifier": )\d', rb"\g<1>1", body)
        manifest.write_bytes(body + key + f': "{hashlib.sha256(body).hexdigest()}"}}\n'.encode())
        assert asked.listed(tmp_path)[-1].wrong == FOREIGN


def _lose(files: Iterable[Path]) -> None:
    for file in list(files):
        file.unlink()


def _flip(path: Path, at: int = 100) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
