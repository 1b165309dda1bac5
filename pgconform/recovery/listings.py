"""What a provider lists of its backups."""

from __future__ import annotations

import json
from collections.abc import Set
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pgconform.model import NotVerified
from pgconform.recovery.backup import Backup

# How providers call these, in the order in which they are looked for.
_LISTS = ("backups", "snapshots", "data", "items", "results")
_ENDS = ("completed_at", "finished_at")
_TIMES = (*_ENDS, "inserted_at", "created_at", "time", "timestamp", "date")
_SIZES = ("size_bytes", "size", "bytes")
_STATES = ("status", "state")
_DONE = {"completed", "complete", "success", "successful", "succeeded", "available", "finished", "ok", "done"}


def found(file: Path) -> list[Backup]:
    """The backups of a provider's answer: a list of them, or an object that holds one."""
    content = file.read_bytes()
    try:
        items = _items(json.loads(content.decode("utf-8")))
        ends = {name for item in items for name in _ENDS if name in item}
        return [_item(number, item, ends) for number, item in enumerate(items)]
    # A number may be none that is a time (OSError is the system's word for that), or nested too deeply to be read.
    except (ValueError, AttributeError, StopIteration, KeyError, TypeError, OverflowError, OSError, RecursionError):
        raise NotVerified(
            f"backups (listing): {file} is not a list of backups; wanted a JSON list of objects with a time"
            f" ({', '.join(_TIMES)}), and a size ({', '.join(_SIZES)}) and status where there are any"
        ) from None


def _items(document: Any) -> list[dict[str, Any]]:
    """The list of backups: an answer may hold others, such as warnings."""
    if isinstance(document, list):
        return document
    lists = {name: value for name, value in document.items() if isinstance(value, list)}
    known = [lists[name] for name in _LISTS if name in lists]
    dated = [items for items in lists.values() if any(isinstance(i, dict) and i.keys() & set(_TIMES) for i in items)]
    return next(iter([*known, *dated, *lists.values()]))


def _item(number: int, item: dict[str, Any], ends: Set[str]) -> Backup:
    """One of them; where the provider tells ends at all, one without is running, or never came to it."""
    told = next(item[name] for name in _TIMES if item.get(name))
    time = datetime.fromtimestamp(told, UTC) if isinstance(told, int | float) else datetime.fromisoformat(str(told))
    size = next((int(item[name]) for name in _SIZES if item.get(name) is not None), None)
    state = next((str(item[name]).lower() for name in _STATES if item.get(name) is not None), "")
    if (state and state not in _DONE) or (ends and not any(item.get(name) for name in ends)):
        wrong = "it did not complete"
    else:
        wrong = "it is empty" if size is not None and size <= 0 else ""
    return Backup(f"#{number + 1}", time if time.tzinfo else time.replace(tzinfo=UTC), size, wrong)
