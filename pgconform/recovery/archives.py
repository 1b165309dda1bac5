"""What is in the files that pg_basebackup and pg_dump write: read to the end, never unpacked."""

from __future__ import annotations

import importlib
import re
import tarfile
import zlib
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, cast

try:
    import lzma
except ImportError:  # Python may be built without
    lzma = None  # type: ignore[assignment]

# How scripts of pg_dump and pg_dumpall begin, and how they end; the last one is what Supabase's command line leaves of
# them: no comments, and a line of its own below.
_SCRIPTS = {
    b"-- PostgreSQL database dump": b"-- PostgreSQL database dump complete",
    b"-- PostgreSQL database cluster dump": b"-- PostgreSQL database cluster dump complete",
    b"SET statement_timeout = 0;": b"RESET ALL;",
}
# How files begin that Python's modules unpack, and those that nothing here can look into.
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\xfd7zXZ\x00": "lzma"}
_SEALED = (
    (rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", "zstd"),
    (rb"\x04\x22\x4d\x18", "lz4"),
    (rb"LZIP", "lzip"),
    (rb"\x89LZO", "lzop"),
    (rb"\x1f\x9d", "compress"),
    (rb"PK\x03\x04", "zip"),
    (rb"7z\xbc\xaf\x27\x1c", "7-Zip"),
    # A session key, for a public key or a password: its packet's old or new tag, its length, and its version.
    (rb"(\x84.|\x85..|\xc1.|\xc1[\xc0-\xdf].)[\x03\x06]|[\x8c\xc3].[\x04-\x06]|-----BEGIN PGP MESSAGE", "gpg"),
    (rb"age-encryption\.org/|-----BEGIN AGE ENCRYPTED", "age"),
    (rb"Salted__", "openssl"),
)
_TORN = (OSError, EOFError, zlib.error, *((lzma.LZMAError,) if lzma else ()))
_TAIL = 4096  # bytes
# Where the files of a base backup's archives belong; other archives are tablespaces.
_ABOVE = {"base": "", "pg_wal": "pg_wal/"}
TELLING = ("PG_VERSION", "global/pg_control")  # whose a base backup is


class Unreadable(Exception):
    """The text says what of a backup cannot be read."""


@dataclass(frozen=True, slots=True)
class Kept:
    """The files of a base backup: their sizes by path, and what is in the few that tell whose it is."""

    sizes: dict[str, int]
    read: dict[str, bytes]


def stored(folder: Path) -> list[Path]:
    """The archives in which a base backup keeps its files (``pg_basebackup -Ft``); none where they are files."""
    tars = [path for path in folder.glob("*.tar*") if path.name.partition(".")[0] in _ABOVE or path.name[0].isdigit()]
    return sorted(tars)


def kept(folder: Path, paths: Iterable[str]) -> Kept:
    """What is there of these files, of the write-ahead log, and of ``TELLING``. Raises Unreadable."""
    if tars := stored(folder):
        parts = [_members(tar) for tar in tars]
        sizes = {path: size for part in parts for path, size in part.sizes.items()}
        return Kept(sizes, {path: content for part in parts for path, content in part.read.items()})
    log = [str(path.relative_to(folder)) for path in folder.glob("pg_wal/*")]
    sizes = {path: (folder / path).stat().st_size for path in (*paths, *log) if (folder / path).is_file()}
    return Kept(sizes, {path: (folder / path).read_bytes() for path in TELLING if (folder / path).is_file()})


def _members(tar: Path) -> Kept:
    """The files of an archive; those of a tablespace are below its number."""
    name, _, kind = tar.name.partition(".")
    if kind not in ("tar", "tar.gz"):
        raise Unreadable(f"{tar.name} is compressed in a way that pgconform cannot read; use gzip, or none")
    above = _ABOVE.get(name, f"pg_tblspc/{name}/")
    found = Kept({}, {})
    try:
        # Not tarfile's own gzip: the server's programs write the log in several streams, and it reads the first one.
        with _opened(tar) as file, tarfile.open(fileobj=file, mode="r|") as archive:
            for member in filter(tarfile.TarInfo.isfile, archive):
                path = above + member.name.removeprefix("./")
                found.sizes[path] = member.size
                if path in TELLING and (content := archive.extractfile(member)):
                    found.read[path] = content.read(_TAIL)
    except (tarfile.TarError, *_TORN):
        raise Unreadable(f"{tar.name} cannot be read to its end") from None
    return found


def is_dump(path: Path) -> bool:
    """True for a file that pg_restore reads, by its beginning: as ``pg_dump -Fc`` and ``-Ft`` write it."""
    with path.open("rb") as file:
        return _archive(file.read(_TAIL))


def clock(path: Path) -> datetime | None:
    """When an archive says that it was made, by the clock of whoever made it, in a zone that it does not tell; that of
    a tar is told in UTC. None where it does not say."""
    with path.open("rb") as file:
        head = file.read(_TAIL)
    try:
        if not head.startswith(b"PGDMP"):
            with tarfile.open(path, "r:") as tar:  # its first file is written once the catalogue was read
                first = tar.next()
                return datetime.fromtimestamp(first.mtime, UTC) if first else None
        return _wall(head)
    except (tarfile.TarError, OSError, ValueError, IndexError, OverflowError):
        return None


def _wall(head: bytes) -> datetime | None:
    """As WriteHead of pg_backup_archiver.c writes it: each number is a sign and its bytes, the lowest one first."""
    width = 1 + head[8]
    start = 12 if head[5:7] >= b"\x01\x0f" else 11 + width  # behind the compression's method, or its level before that
    places = range(start, start + 7 * width, width)
    second, minute, hour, day, month, year, summer = (int.from_bytes(head[p + 1 : p + width], "little") for p in places)
    if not 90 < year < 1000:  # since 1900
        return None
    return datetime(1900 + year, month + 1, day, hour, minute, second, fold=int(summer != 1))


def _archive(head: bytes) -> bool:
    return head.startswith(b"PGDMP") or head[257:262] == b"ustar"


def sealed(path: Path) -> str:
    """Why a file cannot be looked into, by its beginning; '' where it can."""
    with path.open("rb") as file:
        head = file.read(_TAIL)
    if tool := next((tool for begins, tool in _SEALED if re.match(begins, head, re.DOTALL)), ""):
        return f"it is packed or encrypted by {tool}"
    packed = _packed(head)
    try:
        with _opened(path) as file:
            twice = _archive(file.read(_TAIL)) if packed else False
    except ImportError:
        return f"it is packed by {packed}, which this Python lacks"
    except _TORN:
        return ""  # which is told by ``unsound``
    return f"it is an archive that was packed once more, by {packed}, which pg_restore does not read" if twice else ""


def unsound(path: Path, *, whole: bool) -> str:
    """What is wrong with a dump as a script, packed or not: pg_dump ends its own by saying so.

    Its end is only looked for where the ``whole`` is read.
    """
    try:
        if sealed(path):
            return ""
        with _opened(path) as script:
            return _cut(script, whole=whole)
    except _TORN:
        return "it cannot be read to its end"


def _packed(head: bytes) -> str:
    return next((module for begins, module in _PACKED.items() if head.startswith(begins)), "")


def _opened(path: Path) -> BinaryIO:
    """The file, unpacked. Raises ImportError where Python was built without what that takes."""
    with path.open("rb") as file:
        packed = _packed(file.read(_TAIL))
    return cast(BinaryIO, importlib.import_module(packed).open(path) if packed else path.open("rb"))


def _cut(script: BinaryIO, *, whole: bool) -> str:
    block = script.read(1 << 20)
    known = next((ends for begins, ends in _SCRIPTS.items() if begins in block[:_TAIL]), b"")
    if not known:
        return "it is no dump: neither an archive nor a script of pg_dump"
    if not whole:
        return ""
    last = deque([block], maxlen=2)
    while block := script.read(1 << 20):
        last.append(block)
    return "" if known in b"".join(last)[-_TAIL:] else "pg_dump did not come to its end"
