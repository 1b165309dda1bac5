"""Evidence of dumps, from those that pg_dump made."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pgconform.model import NotVerified
from pgconform.targets.server import Server, find_binaries
from tests.backed import last, listed


def test_a_dump_may_be_a_directory(references: Server, tmp_path: Path) -> None:
    folder = tmp_path / "one.dir"
    command = [find_binaries("16") / "pg_dump", "-Fd", f"--file={folder}", references.uri("victorysync")]
    subprocess.run(command, check=True)
    (backup,) = listed("dumps", str(tmp_path / "*.dir"))
    assert (backup.wrong, backup.size) == ("", sum(p.stat().st_size for p in folder.iterdir()))
    max(folder.glob("*.dat*"), key=lambda p: p.stat().st_size if p.name != "toc.dat" else 0).unlink()
    assert [b.wrong for b in listed("dumps", str(tmp_path / "*.dir"))] == ["pg_restore cannot read it to its end"]


@pytest.mark.parametrize("packed", [False, True])
def test_a_dump_as_sql_says_that_it_came_to_its_end(references: Server, tmp_path: Path, packed: bool) -> None:
    command = [find_binaries("16") / "pg_dump", references.uri("victorysync")]
    text = subprocess.run(command, check=True, capture_output=True).stdout
    name = tmp_path / ("a.sql.gz" if packed else "a.sql")
    for script, wrong in ((text, ""), (text[:-5000], "pg_dump did not come to its end")):
        name.write_bytes(gzip.compress(script, 1) if packed else script)
        assert [b.wrong for b in listed("dumps", str(tmp_path / "*"))] == [wrong]
    if packed:
        name.write_bytes(name.read_bytes()[:-5000])
        assert [b.wrong for b in listed("dumps", str(tmp_path / "*"))] == ["it cannot be read to its end"]


def test_dumps_are_dated_by_themselves_and_read_to_their_end(references: Server, tmp_path: Path) -> None:
    pattern = str(tmp_path / "*.dump")
    assert listed("dumps", pattern) == []
    for name in ("a.dump", "b.dump"):
        command = [find_binaries("16") / "pg_dump", "-Fc", f"--file={tmp_path / name}", references.uri("victorysync")]
        subprocess.run(command, check=True)
    week = time.time() - 7 * 86_400
    os.utime(tmp_path / "a.dump", (week, week))  # as a copy that keeps times, or a wrong clock, would have it
    first, second = listed("dumps", pattern)
    assert first.age(datetime.now(UTC)) < timedelta(minutes=5)
    assert (first.wrong, second.wrong) == ("", "")
    whole = (tmp_path / "b.dump").read_bytes()
    (tmp_path / "b.dump").write_bytes(whole[:-5000])
    (torn,) = (b.wrong for b in listed("dumps", pattern) if b.name == "b.dump")
    assert torn.startswith("pg_restore cannot read it")
    (tmp_path / "b.dump").write_bytes(b"")
    assert [b.wrong for b in listed("dumps", pattern) if b.name == "b.dump"] == ["it is empty"]
    (tmp_path / "b.dump").write_text("-- a dump as SQL")
    assert [b.wrong for b in listed("dumps", pattern) if b.name == "b.dump"] == [NO_DUMP]


def test_the_dump_that_is_newest_by_its_own_time_is_read_to_its_end(references: Server, tmp_path: Path) -> None:
    """Whatever the files' times say, which a copy changes; and so is the one that is relied upon in its place."""
    for name in ("a.dump", "b.dump", "c.dump"):
        command = [find_binaries("16") / "pg_dump", "-Fc", f"--file={tmp_path / name}", references.uri("victorysync")]
        subprocess.run(command, check=True)
        time.sleep(1.1)  # archives tell their time by the second
    _cut(tmp_path / "c.dump")
    os.utime(tmp_path / "a.dump")
    torn = "pg_restore cannot read it to its end"
    assert [(b.name, b.wrong) for b in listed("dumps", str(tmp_path / "*"))] == [
        ("a.dump", ""), ("b.dump", ""), ("c.dump", torn)
    ]  # fmt: skip
    _cut(tmp_path / "b.dump")
    os.utime(tmp_path / "a.dump")
    assert [b.wrong for b in listed("dumps", str(tmp_path / "*"))] == ["", torn, torn]


def _cut(path: Path) -> None:
    """The end of a file is lost."""
    path.write_bytes(path.read_bytes()[:-5000])


NO_DUMP = "it is no dump: neither an archive nor a script of pg_dump"
_NO_DUMPS = {
    "zeros": (bytes(100_000), NO_DUMP),
    "text": (b"the disk is full\n" * 1000, NO_DUMP),
    "packed text": (gzip.compress(b"the disk is full\n"), NO_DUMP),
    "packed by xz": (lzma.compress(b"the disk is full\n"), NO_DUMP),
    "packed by bzip2, torn": (bz2.compress(os.urandom(5000))[:-100], "it cannot be read to its end"),
    "another tar": (bytes(257) + b"ustar\x0000" + bytes(10_000), "pg_restore cannot read it"),
}


@pytest.mark.parametrize("content", _NO_DUMPS.values(), ids=_NO_DUMPS)
def test_a_file_that_is_no_dump_is_not_sound(tmp_path: Path, content: tuple[bytes, str]) -> None:
    """Neither as the last one, which is read to its end, nor as an older one."""
    for name in ("a.dump", "b.dump"):
        (tmp_path / name).write_bytes(content[0])
    os.utime(tmp_path / "a.dump", (time.time() - 3600,) * 2)
    assert [b.wrong for b in listed("dumps", str(tmp_path / "*.dump"))] == [content[1]] * 2


@pytest.mark.parametrize(
    "pack", [bytes, gzip.compress, bz2.compress, lzma.compress], ids=["plain", "gzip", "bz2", "xz"]
)
def test_a_dump_as_sql_may_be_packed_and_have_lost_its_comments(tmp_path: Path, pack: Any) -> None:
    dump = b"--\n-- PostgreSQL database dump\n--\nselect 1;\n--\n-- PostgreSQL database dump complete\n--\n"
    bare = b"\n\nSET statement_timeout = 0;\nselect 1;\nRESET ALL;\n"
    for script, wrong in ((dump, ""), (dump[:60], CUT), (bare, ""), (bare[:40], CUT)):
        (tmp_path / "a.dump").write_bytes(pack(script))
        assert last("dumps", tmp_path / "a.dump").wrong == wrong


CUT = "pg_dump did not come to its end"


_SEALED = {
    "zstd": b"\x28\xb5\x2f\xfd\x24",
    "lz4": b"\x04\x22\x4d\x18\x64",
    "gpg": bytes.fromhex("8c0d0409030a"),
    "gpg to a key": bytes.fromhex("85018c03d1f1"),
    "gpg, armoured": b"-----BEGIN PGP MESSAGE-----\n",
    "age": b"age-encryption.org/v1\n",
    "openssl": b"Salted__12345678",
    "an archive that was packed once more, by gzip": gzip.compress(b"PGDMP" + bytes(300)),
}


@pytest.mark.parametrize("name", _SEALED)
def test_what_nothing_here_can_look_into_is_not_verified(tmp_path: Path, name: str) -> None:
    """It has an age and a size all the same."""
    content = _SEALED[name]
    (tmp_path / "a.dump").write_bytes(content if content[:2] == b"\x1f\x8b" else content + os.urandom(500))
    (backup,) = listed("dumps", str(tmp_path / "a.dump"))
    assert (backup.wrong, (backup.size or 0) > 0) == ("", True)
    with pytest.raises(
        NotVerified, match=rf"\(a.dump\) cannot be read: it is .*{name.partition(' to ')[0].split(',')[0]}"
    ):
        last("dumps", tmp_path / "a.dump")


def test_a_dump_may_be_a_tar(references: Server, tmp_path: Path) -> None:
    command = [find_binaries("16") / "pg_dump", "-Ft", f"--file={tmp_path / 'a.tar'}", references.uri("victorysync")]
    subprocess.run(command, check=True)
    assert last("dumps", tmp_path / "a.tar").wrong == ""
    (tmp_path / "a.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:100_000])
    assert last("dumps", tmp_path / "a.tar").wrong.startswith("pg_restore cannot read it")
