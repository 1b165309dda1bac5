"""One backup, as any evidence of it tells."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Backup:
    """One backup; ``wrong`` says why it cannot be relied upon, '' where nothing speaks against it.

    ``time`` is when it was made; it may have been ``earlier`` or ``later`` by so much.
    """

    name: str
    time: datetime
    size: int | None = None
    wrong: str = ""
    earlier: timedelta = timedelta(0)
    later: timedelta = timedelta(0)

    def age(self, now: datetime) -> timedelta:
        return now - self.time

    @property
    def earliest(self) -> datetime:
        return self.time - self.earlier

    @property
    def latest(self) -> datetime:
        return self.time + self.later
