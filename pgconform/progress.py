"""A line on the terminal while something takes long: what, since when, and how much longer if that is known."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

AFTER = 5.0  # seconds; what is over sooner needs no line
_EVERY = 0.5
_WIDTH = 24


@contextmanager
def shown(what: str, expected: float | None = None, enabled: bool = True) -> Iterator[None]:
    """The line, for the time of the block; ``expected`` are the seconds that it took last time.

    It goes to the controlling terminal, since pytest catches what is written elsewhere; without one there is no line.
    """
    done = threading.Event()
    thread = threading.Thread(target=_show, args=(what, expected, done), daemon=True)
    if enabled:
        thread.start()
    try:
        yield
    finally:
        done.set()
        if enabled:
            thread.join()


def _show(what: str, expected: float | None, done: threading.Event) -> None:
    started = time.monotonic()
    if done.wait(AFTER):
        return
    with suppress(OSError), open("/dev/tty", "w", encoding="utf-8", errors="replace") as terminal:
        terminal.write("\n")
        while True:
            _write(terminal, line(what, time.monotonic() - started, expected))
            if done.wait(_EVERY):
                break
        _write(terminal, "")


def _write(terminal: TextIO, text: str) -> None:
    terminal.write(f"\r\033[K{text}")
    terminal.flush()


def line(what: str, elapsed: float, expected: float | None) -> str:
    """``what`` with its seconds so far; with a bar and what is left, where ``expected`` is known and not yet over."""
    if expected is None or elapsed >= expected:
        longer = f", longer than last time ({expected:.0f} s)" if expected else ""
        return f"{what}: {elapsed:.0f} s{longer}"
    full = int(_WIDTH * elapsed / expected)
    return f"{what}: [{'#' * full}{'.' * (_WIDTH - full)}] {elapsed:.0f} s, about {expected - elapsed:.0f} s left"
