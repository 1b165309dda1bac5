"""One backup, as any evidence of it tells."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Backup:
    """One backup; ``wrong`` says why it cannot be relied upon, '' where nothing speaks against it."""

    name: str
    time: datetime
    size: int | None = None
    wrong: str = ""

    def age(self, now: datetime) -> timedelta:
        return now - self.time
