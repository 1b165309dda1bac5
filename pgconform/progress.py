"""A line on the terminal while something takes long: what, since when, and how much longer if that can be told."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol, TextIO, TypeVar

AFTER = 5.0  # seconds; what is over sooner needs no line
_EVERY = 0.5
_WIDTH = 24

Item = TypeVar("Item", covariant=True)


class Listed(Sized, Iterable[Item], Protocol[Item]):
    """What has a length and can be gone through."""


@dataclass(slots=True)
class Meter:
    """How far something is: by the ``seconds`` that it is expected to take, or by the ``share`` that is done.

    ``basis`` says where the seconds come from: "last time", say. ``now`` is what is done at the moment.
    """

    seconds: float = 0.0
    basis: str = ""
    share: float = 0.0
    now: str = ""
    _rest: float = 1.0  # the share that what is done at the moment will have added

    def each(self, items: Listed[Item]) -> Iterator[Item]:
        """The items one by one, each an equal part of what is done at the moment; the share follows. They nest."""
        start, rest = self.share, self._rest
        for number, item in enumerate(items):
            self.share, self._rest = start + rest * number / len(items), rest / len(items)
            yield item
        self.share, self._rest = start + rest, rest

    def line(self, what: str, elapsed: float) -> str:
        """``what`` with its seconds so far; with a bar and what is left, where that can be told."""
        whole = elapsed / self.share if self.share else self.seconds
        now = f": {self.now}" if self.now else ""
        if elapsed >= whole:
            longer = f", longer than by {self.basis} ({whole:.0f} s)" if whole and self.basis else ""
            return f"{what}: {elapsed:.0f} s{longer}{now}"
        full = int(_WIDTH * elapsed / whole)
        by = f", by {self.basis}" if self.basis else ""
        bar = f"[{'#' * full}{'.' * (_WIDTH - full)}]"
        return f"{what}: {bar} {elapsed:.0f} s, about {whole - elapsed:.0f} s left{by}{now}"


@contextmanager
def shown(what: str, meter: Meter | None = None, enabled: bool = True) -> Iterator[Meter]:
    """The line, for the time of the block, which may tell the meter how far it is.

    It goes to the controlling terminal, since pytest catches what is written elsewhere; without one there is no line.
    """
    done, meter = threading.Event(), meter or Meter()
    thread = threading.Thread(target=_show, args=(what, meter, done), daemon=True)
    if enabled:
        thread.start()
    try:
        yield meter
    finally:
        done.set()
        if enabled:
            thread.join()


def _show(what: str, meter: Meter, done: threading.Event) -> None:
    started = time.monotonic()
    if done.wait(AFTER):
        return
    with suppress(OSError), open("/dev/tty", "w", encoding="utf-8", errors="replace") as terminal:
        terminal.write("\n")
        while True:
            _write(terminal, meter.line(what, time.monotonic() - started))
            if done.wait(_EVERY):
                break
        _write(terminal, "")


def _write(terminal: TextIO, text: str) -> None:
    terminal.write(f"\r\033[K{text}")
    terminal.flush()
