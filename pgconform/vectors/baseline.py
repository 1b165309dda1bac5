"""What was measured once, kept in a file: later measurements are compared with it."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from pgconform.model import Mistake, NotVerified
from pgconform.statements import statement
from pgconform.vectors import asking
from pgconform.vectors.measuring import Measured

if TYPE_CHECKING:
    from pgconform.checks import Evidence

FORMAT = 2
# What decides plans and times of searches.
SETTINGS = (
    "effective_cache_size", "hnsw.ef_search", "hnsw.iterative_scan", "ivfflat.iterative_scan", "ivfflat.probes", "jit",
    "max_parallel_workers_per_gather", "random_page_cost", "seq_page_cost", "shared_buffers", "work_mem",
)  # fmt: skip


class Circumstances(msgspec.Struct, frozen=True):
    """Where it was measured: times of other circumstances are not compared. ``machine`` is the client's."""

    server: str
    pgvector: str
    machine: str
    settings: dict[str, str]

    def differences(self, other: Circumstances) -> list[str]:
        """What differs, in words."""
        found = [name for name in ("server", "pgvector", "machine") if getattr(self, name) != getattr(other, name)]
        names = sorted({*self.settings, *other.settings})
        return found + [name for name in names if self.settings.get(name) != other.settings.get(name)]


class Baseline(msgspec.Struct, frozen=True):
    """The measurements of one contract's searches, by case."""

    contract: str
    circumstances: Circumstances
    cases: dict[str, Measured]
    format: int = FORMAT


def circumstances(evidence: Evidence) -> Circumstances:
    """Server, extension, machine and settings of now. Raises NotVerified."""
    vector = evidence.catalog.extension("vector")
    if vector:  # its settings are there once it is loaded, which reading the catalogue does only where it has an index
        with suppress(NotVerified):  # each search then says so itself
            asking.touch(evidence.database, vector.schema)
    question = statement(
        "select s.name, s.setting || coalesce(s.unit, '') from pg_catalog.pg_settings as s"
        " where s.name = any({names}::text[]) order by 1", names=SETTINGS,
    )  # fmt: skip
    settings: dict[str, str] = dict(evidence.database.rows(question, "reading settings"))
    version = evidence.catalog.server.version
    return Circumstances(
        f"{version // 10_000}.{version % 10_000}", vector.version if vector else "", machine(), settings
    )


def machine() -> str:
    """The class of the machine that measures: kind of processor, and how many."""
    model = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{os.cpu_count()} x {model or platform.machine()}"


def load(path: Path) -> Baseline:
    """The baseline in a file. Raises Mistake."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Baseline)
    except FileNotFoundError:
        raise Mistake(f"{path}: no baseline there; make one with --update-baseline") from None
    except (OSError, msgspec.DecodeError):
        raise Mistake(f"{path}: not a baseline; make one with --update-baseline") from None
    if found.format != FORMAT:
        raise Mistake(f"{path}: a baseline of format {found.format}, not {FORMAT}; make one with --update-baseline")
    return found


def save(path: Path, baseline: Baseline) -> None:
    """Writes a baseline. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    draft.write_bytes(msgspec.json.format(msgspec.json.encode(baseline), indent=1) + b"\n")
    draft.replace(path)
