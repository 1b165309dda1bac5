"""What is in the files that pg_basebackup and pg_dump write: read to the end, never unpacked."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, cast

# How pg_dump and pg_dumpall begin and end their scripts.
_BEGINS = (b"-- PostgreSQL database dump", b"-- PostgreSQL database cluster dump")
_ENDS = (b"-- PostgreSQL database dump complete", b"-- PostgreSQL database cluster dump complete")
_TAIL = 4096  # bytes


class Unreadable(Exception):
    """The text says what of a backup cannot be read."""


def stored(folder: Path) -> list[Path]:
    """The archives in which a base backup keeps its files (``pg_basebackup -Ft``); none where they are files."""
    return sorted(p for p in folder.glob("*.tar*") if p.name.partition(".")[0] == "base" or p.name[0].isdigit())


def missing(folder: Path, files: Mapping[str, int]) -> int:
    """How many of the files, by their path, are not there with their size. Raises Unreadable."""
    tars = stored(folder)
    there = {path: size for tar in tars for path, size in _members(tar).items()}
    if tars:
        return sum(there.get(path) != size for path, size in files.items())
    return sum(not (folder / p).is_file() or (folder / p).stat().st_size != size for p, size in files.items())


def _members(tar: Path) -> dict[str, int]:
    """The files of an archive with their sizes; those of a tablespace are below its number."""
    name, _, kind = tar.name.partition(".")
    if kind not in ("tar", "tar.gz"):
        raise Unreadable(f"{tar.name} is compressed in a way that pgconform cannot read; use gzip, or none")
    above = "" if name == "base" else f"pg_tblspc/{name}/"
    try:
        with tarfile.open(tar, "r|gz" if kind == "tar.gz" else "r|") as archive:
            return {above + member.name.removeprefix("./"): member.size for member in archive if member.isfile()}
    except (tarfile.TarError, OSError, EOFError, zlib.error):
        raise Unreadable(f"{tar.name} cannot be read to its end") from None


def is_dump(path: Path) -> bool:
    """True for a file that pg_restore reads."""
    with path.open("rb") as file:
        return file.read(5) == b"PGDMP"


def unfinished(path: Path) -> str:
    """What is wrong with a dump as a script, compressed by gzip or not: pg_dump ends its own by saying so."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as script:
            return _cut(cast(BinaryIO, script))
    except (OSError, EOFError, zlib.error):
        return "it cannot be read to its end"


def _cut(script: BinaryIO) -> str:
    block = script.read(1 << 20)
    ours = any(begins in block[:_TAIL] for begins in _BEGINS)
    last = deque([block], maxlen=2)
    while block := script.read(1 << 20):
        last.append(block)
    whole = any(ends in b"".join(last)[-_TAIL:] for ends in _ENDS)
    return "" if whole or not ours else "pg_dump did not come to its end"
