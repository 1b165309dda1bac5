"""Evidence of dumps, from those that pg_dump made."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pgconform.catalogue_of_checks import load
from pgconform.model import Figure, NotVerified
from pgconform.recovery.backup import Backup
from pgconform.recovery.backups import hours_old, newest, oldest
from pgconform.targets.server import Server, find_binaries, running
from tests.backed import last, listed, source


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


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Moves us to a time zone."""

    def move(zone: str) -> None:
        monkeypatch.setenv("TZ", zone)
        time.tzset()

    yield move
    monkeypatch.undo()
    time.tzset()


def _dumped(server: Server, path: Path, zone: str = "UTC", layout: str = "-Fc") -> None:
    """A dump that is made where clocks show that zone's time."""
    command = [find_binaries("16") / "pg_dump", layout, f"--file={path}", server.uri("victorysync")]
    subprocess.run(command, check=True, env={**os.environ, "TZ": zone})


def _aged(path: Path, hours: float, copied: float | None = None) -> None:
    """Makes an archive so old, and its file too, or as old as a copy of it."""
    head = bytearray(path.read_bytes())
    start = 12  # as of PostgreSQL 16: seconds, minutes, hours, day, month, year, each of five bytes
    now = [int.from_bytes(head[at + 1 : at + 5], "little") for at in range(start, start + 30, 5)]
    second, minute, hour, day, month, year = now
    then = datetime(1900 + year, month + 1, day, hour, minute, second) - timedelta(hours=hours)
    parts = (then.second, then.minute, then.hour, then.day, then.month - 1, then.year - 1900)
    for at, value in zip(range(start, start + 30, 5), parts, strict=True):
        head[at + 1 : at + 5] = value.to_bytes(4, "little")
    path.write_bytes(head)
    written = time.time() - 3600 * (hours if copied is None else copied)
    os.utime(path, (written, written))


ZONES = ["UTC", "America/New_York", "Asia/Tokyo", "Pacific/Auckland", "Asia/Kathmandu"]


@pytest.mark.parametrize("ours", ZONES)
@pytest.mark.parametrize("makers", ZONES)
def test_no_dump_looks_younger_than_it_is_and_no_fresh_one_comes_from_the_future(
    references: Server, tmp_path: Path, at: Callable[[str], None], makers: str, ours: str
) -> None:
    """Whoever made it, whoever looks at it, and whether its file is a copy of whatever time."""
    at(ours)
    dump = tmp_path / "a.dump"
    _dumped(references, dump, makers)
    (fresh,) = listed("dumps", dump)
    assert (_within(fresh, 24), fresh.latest <= datetime.now(UTC)) == (True, True)
    assert fresh.earlier == fresh.later or makers not in (ours, "UTC"), "its zone shows"
    for copied in (0, 0.4, 29.9):
        _dumped(references, dump, makers)
        _aged(dump, 30, copied)
        made = datetime.now(UTC) - timedelta(hours=30)
        (old,) = listed("dumps", dump)
        assert old.earliest - timedelta(minutes=1) <= made <= old.latest + timedelta(minutes=1)
        assert not _within(old, 24)
        (told,) = listed("dumps", dump, zone=makers)
        assert abs(made - told.time) < timedelta(hours=1.1), "an hour, where clocks were changed in between"
        assert _within(told, 24) is False


def _within(dump: Backup, hours: float) -> bool | None:
    """Whether it is that young; None where its zone would have to be known."""
    try:
        return hours_old(dump, hours) <= hours
    except NotVerified:
        return None


def test_an_age_that_depends_on_the_zone_is_not_verified(references: Server, tmp_path: Path) -> None:
    """But for a limit that all zones keep, or none."""
    _dumped(references, tmp_path / "a.dump")
    _aged(tmp_path / "a.dump", 12, 0)
    asked = source("dumps", tmp_path / "*.dump", hours=24, retention_days=0.4)
    for check in ("backup-recent", "backup-retention"):
        with pytest.raises(
            NotVerified, match=r"a.dump is 0.0 to 26.0 hours old: .* time zone; say zone in \[backups\]"
        ):
            list(load()[check].judge(asked, None))
    told = source("dumps", tmp_path / "*.dump", hours=24, retention_days=0.4, zone="UTC")
    (figure,) = load()["backup-recent"].judge(told, None)
    assert (round(figure.value), list(load()["backup-retention"].judge(told, None))) == (12, [])
    near = source("dumps", tmp_path / "*.dump", hours=27)
    assert [type(said) for said in load()["backup-recent"].judge(near, None)] == [Figure]


def test_a_dump_whose_time_is_known_vouches_for_those_beside_it() -> None:
    now, hour = datetime.now(UTC), timedelta(hours=1)
    sure, vague = Backup("a", now - 5 * hour), Backup("b", now - 4 * hour, earlier=10 * hour, later=4 * hour)
    assert (newest([sure, vague]).earliest, newest([sure, vague]).latest) == (sure.time, now)
    assert (oldest([sure, vague]).earliest, oldest([sure, vague]).latest) == (vague.earliest, sure.time)


def test_a_dump_in_place_is_of_our_zone_or_of_utc(
    references: Server, tmp_path: Path, at: Callable[[str], None]
) -> None:
    """As its file's own time shows, which follows at once; the numbers say after how long it no longer does."""
    at("America/New_York")
    for maker in ("America/New_York", "UTC"):
        _dumped(references, tmp_path / "a.dump", maker)
        for minutes, known in ((-2, False), (0, True), (14, True), (16, False)):
            _aged(tmp_path / "a.dump", 0, -minutes / 60)
            (dump,) = listed("dumps", tmp_path / "a.dump")
            assert (dump.earlier == dump.later == timedelta(0)) is known, (maker, minutes)


def test_dumps_whose_order_is_not_known_are_all_read(references: Server, tmp_path: Path) -> None:
    """The last one may be any of them; they are put in the order that our own zone gives them."""
    for name, hours in (("a.dump", 40), ("b.dump", 5), ("c.dump", 1)):
        _dumped(references, tmp_path / name)
        _cut(tmp_path / name) if name != "c.dump" else None
        _aged(tmp_path / name, hours, 0)
    torn = "pg_restore cannot read it to its end"
    assert [(b.name, b.wrong) for b in listed("dumps", tmp_path / "*")] == [
        ("a.dump", ""), ("b.dump", torn), ("c.dump", "")
    ]  # fmt: skip


@pytest.mark.parametrize("layout", ["-Ft", "-Fd"])
def test_other_archives_are_dated_too(
    references: Server, tmp_path: Path, at: Callable[[str], None], layout: str
) -> None:
    """A tar tells its time in UTC, whatever becomes of its file; a directory's oldest file is its own time."""
    at("Asia/Tokyo")
    _dumped(references, tmp_path / "a", "America/New_York", layout)
    for file in tmp_path.rglob("*"):
        os.utime(file, (time.time() + 7200,) * 2)
    (dump,) = listed("dumps", tmp_path / "*")
    assert dump.earliest - timedelta(minutes=1) <= datetime.now(UTC) <= dump.latest + timedelta(minutes=1)
    assert (dump.earlier == timedelta(0)) is (layout == "-Ft")
    (told,) = listed("dumps", tmp_path / "*", zone="America/New_York")
    assert abs(datetime.now(UTC) - told.time) < timedelta(minutes=1)


@pytest.mark.parametrize(("summer", "utc"), [(1, 0), (0, 1)], ids=["before", "after"])
def test_the_hour_that_clocks_show_twice_is_two(references: Server, tmp_path: Path, summer: int, utc: int) -> None:
    _dumped(references, tmp_path / "a.dump")
    head = bytearray(tmp_path.joinpath("a.dump").read_bytes())
    for at, value in zip(range(12, 47, 5), (0, 30, 2, 25, 9, 120, summer), strict=True):  # 2020-10-25, 2:30
        head[at + 1 : at + 5] = value.to_bytes(4, "little")
    (tmp_path / "a.dump").write_bytes(head)
    (dump,) = listed("dumps", tmp_path / "a.dump", zone="Europe/Madrid")
    assert dump.time == datetime(2020, 10, 25, utc, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def server_15() -> Iterator[Server]:
    with running("15") as started:
        yield started


def test_archives_of_older_programs_tell_their_time_elsewhere(server_15: Server, tmp_path: Path) -> None:
    command = ["/usr/lib/postgresql/15/bin/pg_dump", "-Fc", f"--file={tmp_path / 'a'}", server_15.uri()]
    subprocess.run(command, check=True)
    (dump,) = listed("dumps", tmp_path / "a")
    assert abs(datetime.now(UTC) - dump.time) < timedelta(minutes=1)


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
