"""What a piece of work takes in a process of its own, where nothing that ran before counts."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parent.parent
_CODE = """
import importlib, json, resource, sys
module, _, name = sys.argv[1].partition(":")
told = getattr(importlib.import_module(module), name)(*json.loads(sys.argv[2]))
children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
print(json.dumps([told, children]), open("/proc/self/status").read(), sep="\\n")
"""


@dataclass(frozen=True, slots=True)
class Apart:
    """What came of it: seconds from start to end, the most memory in MB of the process and of any that it started."""

    told: Any
    seconds: float
    peak: float
    children: float


def apart(call: str, *given: Any) -> Apart:
    """Calls ``module:function`` in a fresh interpreter; what it takes and returns goes by JSON.

    Raises subprocess.CalledProcessError where it fails.
    """
    started = time.perf_counter()
    command = [sys.executable, "-c", _CODE, call, json.dumps(given)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=_ROOT)
    seconds = time.perf_counter() - started
    lines = done.stdout[done.stdout.index("\nName:") :]
    told, children = json.loads(done.stdout[: -len(lines)].splitlines()[-1])
    return Apart(told, seconds, of_status(lines, "VmHWM"), children)


def interpreter() -> float:
    """MB of an interpreter that does nothing."""
    return apart("builtins:len", "").peak


def of_status(status: str, name: str) -> float:
    """MB by /proc/PID/status. getrusage() counts what a process was forked from."""
    return next(float(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith(name))


def memory(name: str, pid: int | str = "self") -> float:
    """MB: VmRSS of now, VmHWM the highest so far, RssAnon of the process alone."""
    return of_status(Path(f"/proc/{pid}/status").read_text(encoding="ascii"), name)


def of_server(pid: int) -> float:
    """MB that all processes of a server have of their own, parallel workers too, by the process of one session."""
    postmaster = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[1]
    total = 0.0
    for child in Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text(encoding="ascii").split():
        with suppress(FileNotFoundError, ProcessLookupError, StopIteration):  # a worker that has just ended
            total += memory("RssAnon", child)
    return total


def forget_peak() -> None:
    """VmHWM of this process begins anew."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
