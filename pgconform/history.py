"""What earlier runs found and measured: an immutable file of JSON lines for each run, and trends out of them.

The files are the history; ``trends.sqlite`` beside them is an index that is made again from them whenever it is
missing, damaged or of another version. A run is about one database for each contract, told apart by ``identity``. A
benchmark leaves a file, too: figures without verdicts.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgconform.model import NotVerified

if TYPE_CHECKING:
    from pgconform.model import Figure
    from pgconform.results import Run

FORMAT = 1  # of the lines; raised when a key changes its meaning
INDEXED = 3  # the form of the index, which is made again when it has another
INDEX = "trends.sqlite"
_TABLES = """
create table run (file text, started real, contract text, database text, status integer);
create table verdict (
    file text, contract text, name text, subject text, verdict text, findings integer, seconds real, severity text
);
create table figure (file text, contract text, name text, value real, unit text);
create index figure_of on figure (contract, name);
create index verdict_of on verdict (contract, name);
create table loaded (file text primary key, stamp text);
"""
_JUDGED = "exists (select 1 from verdict as v where v.file = {0}.file and v.contract = {0}.contract)"  # no benchmark
_FORGET = (
    "delete from run where file = ?", "delete from verdict where file = ?", "delete from figure where file = ?",
    "delete from loaded where file = ?",
)  # fmt: skip


@dataclass(frozen=True)
class History:
    """The runs about one database. ``now`` is when this run began: no figure is later."""

    folder: Path
    contract: str
    database: str
    now: datetime

    def series(self, figure: str) -> list[tuple[float, float]]:
        """The figure's values, oldest first, each after its age in days. Raises NotVerified."""
        return self.all_series(figure).get(figure, [])

    def all_series(self, prefix: str) -> dict[str, list[tuple[float, float]]]:
        """As ``series``, for all figures whose names begin so. Raises NotVerified."""
        asked = (
            "select f.name, r.started, f.value from figure as f join run as r using (file, contract)"
            " where r.contract = ? and r.database = ? and r.started < ? and substr(f.name, 1, ?) = ?"
            " order by f.name, r.started"
        )
        found: dict[str, list[tuple[float, float]]] = {}
        now = self.now.timestamp()
        with self._index() as index:
            for name, started, value in index.execute(asked, (self.contract, self.database, now, len(prefix), prefix)):
                found.setdefault(name, []).append(((now - started) / 86_400, value))
        return found

    def last(self) -> float | None:
        """How many days ago the last run was; None where this is the first one. Raises NotVerified."""
        asked = (
            "select max(started) from run as r where contract = ? and database = ? and started < ?"
            f" and {_JUDGED.format('r')}"
        )
        with self._index() as index:
            (found,) = index.execute(asked, (self.contract, self.database, self.now.timestamp())).fetchone()
        return None if found is None else (self.now.timestamp() - found) / 86_400

    def latest(self) -> tuple[datetime, dict[str, float]] | None:
        """When the last run began, and all that it measured; None where none is recorded. Raises NotVerified."""
        asked = (
            "select r.started, f.name, f.value from run as r left join figure as f using (file, contract)"
            " where r.contract = ? and r.database = ? and r.started = (select max(l.started) from run as l"
            f" where l.contract = r.contract and l.database = r.database and {_JUDGED.format('l')}) order by f.name"
        )
        with self._index() as index:
            rows = index.execute(asked, (self.contract, self.database)).fetchall()
        if not rows:
            return None
        return datetime.fromtimestamp(rows[0][0], UTC), {name: value for _, name, value in rows if name is not None}

    def seconds(self, check: str, subject: str) -> float | None:
        """Seconds that the check took when it last gave a verdict; None where it never did. Raises NotVerified."""
        asked = (
            "select v.seconds from verdict as v join run as r using (file, contract) where r.contract = ?"
            " and r.database = ? and v.name = ? and v.subject = ? and v.verdict in ('passed', 'failed', 'waived')"
            " order by r.started desc limit 1"
        )
        with self._index() as index:
            found = index.execute(asked, (self.contract, self.database, check, subject)).fetchone()
        return float(found[0]) if found else None

    @contextmanager
    def _index(self) -> Iterator[sqlite3.Connection]:
        with closing(indexed(self.folder)) as index:
            yield index


RUNS = 30  # that reports look back on
SEARCHES = "search of "  # how the figures of the search benchmark begin


@dataclass(frozen=True)
class Past:
    """What the last runs about one database found and measured, for reports.

    ``started`` is when the last one began; ``keys`` are the findings of the last one that asked, by check and subject;
    ``verdicts`` those of the last runs, oldest first and '' where a run did not ask; ``figures`` are values after their
    times, in seconds, those of benchmarks among them.
    """

    started: float
    keys: dict[tuple[str, str], frozenset[str]]
    verdicts: dict[tuple[str, str], tuple[str, ...]]
    figures: dict[str, list[tuple[float, float]]]


def past(history: History) -> Past | None:
    """The runs before this one; None where there are none. Raises NotVerified."""
    about = (history.contract, history.database, history.now.timestamp())
    judged = (
        "select file, started from run as r where contract = ? and database = ? and started < ?"
        f" and {_JUDGED.format('r')} order by started desc limit {RUNS}"
    )
    with closing(indexed(history.folder)) as index:
        files = index.execute(judged, about).fetchall()[::-1]
        if not files:
            return None
        found: dict[tuple[str, str], list[str]] = {}
        latest: dict[tuple[str, str], str] = {}
        for number, (file, _) in enumerate(files):
            asked = "select name, subject, verdict from verdict where file = ? and contract = ?"
            for name, subject, verdict in index.execute(asked, (file, history.contract)):
                found.setdefault((name, subject), [""] * len(files))[number] = verdict
                latest[name, subject] = file
        figures: dict[str, list[tuple[float, float]]] = {}
        measured = (
            "select f.name, r.started, f.value from figure as f join run as r using (file, contract)"
            " where r.contract = ? and r.database = ? and r.started < ? order by r.started"
        )
        for name, started, value in index.execute(measured, about):
            figures.setdefault(name, []).append((started, value))
    keys = {}
    for file in set(latest.values()):  # one, or two where a part was asked in between
        for line in _read(history.folder / file):
            mine = line["kind"] == "verdict" and line["contract"] == history.contract
            if mine and latest.get((line["name"], line["subject"])) == file:
                keys[line["name"], line["subject"]] = frozenset(line["findings"])
    verdicts = {case: tuple(each) for case, each in found.items()}
    return Past(files[-1][1], keys, verdicts, {name: values[-RUNS:] for name, values in figures.items()})


def append(folder: Path, run: Run, databases: dict[str, str]) -> Path:
    """Write the finished run's file and make it read-only; ``databases`` are the identities, by contract.

    Returns its path. Raises OSError; then no part of it is left.
    """
    return _write(folder, run.started, _lines(run, databases))


def append_figures(
    folder: Path, started: datetime, contract: str, database: str, status: int, figures: Sequence[Figure]
) -> Path:
    """The same for what a benchmark measured: no verdicts."""
    about: dict[str, object] = {
        "kind": "run", "format": FORMAT, "contract": contract, "database": database, "started": started.timestamp(),
        "facts": "", "status": status, "reason": "measured", "complete": True,
    }  # fmt: skip
    return _write(folder, started, [about, *_figures(contract, figures)])


def _write(folder: Path, started: datetime, lines: Iterable[dict[str, object]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{started:%Y%m%dT%H%M%S%f}-{os.getpid()}.jsonl"
    draft = folder / f".{name}"
    try:
        with draft.open("w", encoding="utf-8") as stream:
            stream.writelines(json.dumps(line, ensure_ascii=True) + "\n" for line in lines)
            stream.flush()
            os.fsync(stream.fileno())
        draft.chmod(0o444)
        draft.rename(folder / name)
    finally:
        draft.unlink(missing_ok=True)
    return folder / name


def _lines(run: Run, databases: dict[str, str]) -> Iterator[dict[str, object]]:
    status, reason = run.status()
    for contract in run.contracts:
        yield {
            "kind": "run", "format": FORMAT, "contract": contract.name, "database": databases.get(contract.name, ""),
            "started": run.started.timestamp(), "facts": run.facts.get(contract.name, ""), "status": status,
            "reason": reason, "complete": not run.incomplete(),
        }  # fmt: skip
    for result in run.results:
        about = {"contract": result.contract, "name": result.check, "subject": result.subject}
        yield {
            "kind": "verdict", **about, "verdict": str(result.verdict), "seconds": round(result.seconds, 4),
            "severity": str(result.severity), "findings": [finding.key for finding in result.findings],
        }  # fmt: skip
        yield from _figures(result.contract, result.figures)


def _figures(contract: str, figures: Iterable[Figure]) -> Iterator[dict[str, object]]:
    """Without those that no later run could read: a file that holds one would be no history any more."""
    for figure in figures:
        if abs(figure.value) < _MOST:
            yield _figure(contract, figure)


def _figure(contract: str, figure: Figure) -> dict[str, object]:
    return {"kind": "figure", "contract": contract, "name": figure.name, "value": figure.value, "unit": figure.unit}


def indexed(folder: Path) -> sqlite3.Connection:
    """The trends of all files in the folder, up to date; in memory where nothing can be written there.

    Raises NotVerified for a file that is not a run's.
    """
    for place in (str(folder / INDEX), ":memory:"):
        for _ in range(2):
            connection = None
            try:
                connection = sqlite3.connect(place, timeout=30, isolation_level=None)
                _load(connection, folder)
            except sqlite3.DatabaseError as error:
                if connection:
                    connection.close()
                if isinstance(error, sqlite3.OperationalError):
                    break  # no place to write, or another process holds it for long
                (folder / INDEX).unlink(missing_ok=True)  # damaged; the files are the truth
            else:
                return connection
    raise NotVerified(f"the history in {folder} cannot be indexed; is the disk full?")


def _load(index: sqlite3.Connection, folder: Path) -> None:
    """Take in the files that the index does not know."""
    index.execute("begin immediate")
    if index.execute("pragma user_version").fetchone()[0] != INDEXED:
        for (name,) in index.execute("select name from sqlite_schema where type = 'table'").fetchall():
            index.execute(f'drop table "{name}"')
        for text in filter(str.strip, _TABLES.split(";")):
            index.execute(text)
        index.execute(f"pragma user_version = {INDEXED}")
    known = dict(index.execute("select file, stamp from loaded"))
    files = {path.name: _stamp(path) for path in folder.glob("*.jsonl") if not path.name.startswith(".")}
    for name, _ in sorted(known.items() - files.items()):  # taken away, which somebody means, or written to
        for text in _FORGET:
            index.execute(text, (name,))
    for name, stamp in sorted(files.items() - known.items()):
        try:
            lines = _read(folder / name)
        except NotVerified:
            index.close()  # which undoes all
            raise
        index.execute("insert into loaded values (?, ?)", (name, stamp))
        for line in lines:
            _take(index, name, line)
    index.execute("commit")


def _stamp(path: Path) -> str:
    """What changes with the file; '' where it cannot be looked at, which reading it will tell."""
    with suppress(OSError):
        known = path.stat()
        return f"{known.st_size} {known.st_mtime_ns}"
    return ""


_KEPT: dict[str, dict[str, type]] = {
    "run": {"started": float, "contract": str, "database": str, "status": int},
    "verdict": {
        "contract": str, "name": str, "subject": str, "verdict": str, "findings": list, "seconds": float,
        "severity": str,
    },
    "figure": {"contract": str, "name": str, "value": float, "unit": str},
}  # fmt: skip
_OLDER = {"severity": "must"}  # what lines of earlier versions do not say
_MOST = 2**63  # the first number that the index cannot hold


def _read(path: Path) -> list[dict[str, Any]]:
    """The lines of a run's file, with all that is kept of them. Raises NotVerified for a file that is not a run's."""
    with suppress(ValueError, KeyError, TypeError, OSError, OverflowError, RecursionError):
        lines = [_OLDER | json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if all(_fits(line[key], kind) for line in lines for key, kind in _KEPT[line["kind"]].items()):
            for line in lines:
                when(line.get("started", 0))
            return lines
    raise NotVerified(f"{path.name} in {path.parent} is not a run's file of pgconform; move it away")


def _fits(value: object, kind: type) -> bool:
    """Whether the index can hold the value, and it is what it should be: a whole number is any number, too."""
    if isinstance(value, list):
        return kind is list and all(_fits(item, str) for item in value)
    if isinstance(value, str):
        return kind is str and value == value.encode(errors="replace").decode()  # no half of a character
    number = kind in (int, float) and type(value) in (int, kind)
    return number and isinstance(value, int | float) and abs(value) < _MOST  # which nan is not, either


def _take(index: sqlite3.Connection, file: str, line: dict[str, Any]) -> None:
    row = [file, *(len(v) if isinstance(v := line[key], list) else v for key in _KEPT[line["kind"]])]
    marks = ", ".join("?" * len(row))
    index.execute(f"insert into {line['kind']} values ({marks})", row)


def when(stamp: float) -> str:
    """A run's time as people read it, in UTC."""
    return f"{datetime.fromtimestamp(stamp, UTC):%Y-%m-%d %H:%M}"
