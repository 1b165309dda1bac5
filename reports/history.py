"""What earlier runs found and measured: as text for people, as JSON for scripts."""

from __future__ import annotations

import json
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import Any

from pgconform.history import indexed, when
from pgconform.model import Mistake
from pgconform.trends import spark

_RUNS = """
select r.contract, r.database, r.started, r.status,
    case when v.verdict = 'failed' and v.severity = 'should' then 'advice' else v.verdict end as told, count(v.verdict)
from run as r left join verdict as v using (file, contract) group by r.file, r.contract, told
order by r.contract, r.database, r.started, r.file, told
"""
_FIGURES = """
select r.contract, r.database, f.name, f.unit, r.started, f.value from figure as f join run as r using (file, contract)
where substr(f.name, 1, ?) = ? order by r.contract, r.database, f.name, r.started
"""
_SHOWN = 30  # runs and values of a figure, the last ones


def as_json(folder: Path, prefix: str) -> str:
    """Everything, or the figures whose names begin with ``prefix``. Raises Mistake, NotVerified."""
    runs, figures = _read(folder, prefix)
    return json.dumps({"runs": runs, "figures": figures} if not prefix else {"figures": figures}, indent=1)


def as_text(folder: Path, prefix: str) -> str:
    """The last runs, and each figure as a line of bars with its last value; or a figure's values, one a line."""
    runs, figures = _read(folder, prefix)
    lines: list[str] = []
    for key, mine in groupby(runs, key=_database) if not prefix else ():
        lines += [key, *(_run(run) for run in list(mine)[-_SHOWN:]), ""]
    for key, measured in groupby(figures, key=_database):
        lines.append(key)
        for figure in measured:
            values = figure["values"][-_SHOWN:]
            bars = spark([value for _, value in values])
            lines.append(f"  {bars} {values[-1][1]:g} {figure['unit']}  {figure['name']}")
            lines += [f"    {when(stamp)}  {value:g}" for stamp, value in values] if prefix else []
        lines.append("")
    return "\n".join(lines).rstrip()


def _database(item: dict[str, Any]) -> str:
    return f"{item['contract']}, database {item['database'] or 'not identified'}"


def _run(run: dict[str, Any]) -> str:
    counts = ", ".join(f"{number} {verdict}" for verdict, number in run["verdicts"].items())
    return f"  {when(run['started'])}  exit {run['status']}: {counts or 'nothing judged, figures only'}"


def _read(folder: Path, prefix: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    if not folder.is_dir():
        raise Mistake(f"no run is recorded in {folder}; name the directory with --history=")
    with closing(indexed(folder)) as index:
        found, values = index.execute(_RUNS).fetchall(), index.execute(_FIGURES, (len(prefix), prefix)).fetchall()
    if not (values if prefix else found):
        raise Mistake(f"no run in {folder}" + (f" has measured a figure called {prefix}..." if prefix else ""))
    runs = [
        {
            "contract": contract, "database": database, "started": started, "status": status,
            "verdicts": {row[4]: row[5] for row in rows if row[4]},
        }
        for (contract, database, started, status), rows in groupby(found, key=lambda row: row[:4])
    ]  # fmt: skip
    figures = [
        {
            "contract": contract, "database": database, "name": name, "unit": unit,
            "values": [(row[4], row[5]) for row in rows],
        }
        for (contract, database, name, unit), rows in groupby(values, key=lambda row: row[:4])
    ]  # fmt: skip
    return runs, figures
