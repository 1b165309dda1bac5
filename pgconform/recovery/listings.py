"""What a provider lists of its backups."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pgconform.model import NotVerified
from pgconform.recovery.backup import Backup

# How providers call these, in the order in which they are looked for.
_TIMES = ("completed_at", "finished_at", "inserted_at", "created_at", "time", "timestamp", "date")
_SIZES = ("size_bytes", "size", "bytes")
_STATES = ("status", "state")
_DONE = {"completed", "complete", "success", "successful", "succeeded", "available", "finished", "ok", "done"}


def found(file: Path) -> list[Backup]:
    """A provider's answer: a list of backups, or an object that holds one."""
    try:
        document = json.loads(file.read_text("utf-8"))
        items = document if isinstance(document, list) else next(v for v in document.values() if isinstance(v, list))
        return [_item(number, item) for number, item in enumerate(items)]
    except (ValueError, AttributeError, StopIteration, KeyError, TypeError):
        raise NotVerified(
            f"backups (listing): {file} is not a list of backups; wanted a JSON list of objects with a time"
            f" ({', '.join(_TIMES)}), and a size ({', '.join(_SIZES)}) and status where there are any"
        ) from None


def _item(number: int, item: dict[str, Any]) -> Backup:
    told = next(item[name] for name in _TIMES if item.get(name))
    time = datetime.fromtimestamp(told, UTC) if isinstance(told, int | float) else datetime.fromisoformat(str(told))
    size = next((int(item[name]) for name in _SIZES if item.get(name) is not None), None)
    state = next((str(item[name]).lower() for name in _STATES if item.get(name) is not None), "")
    wrong = "it did not complete" if state and state not in _DONE else ""
    return Backup(f"#{number + 1}", time if time.tzinfo else time.replace(tzinfo=UTC), size, wrong)
