"""Runs all checks on a reference database in one transaction: with a fault in it, and after its remedies."""

from __future__ import annotations

import datetime
import json
import re
import tomllib
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg

from pgconform.catalog import Catalog
from pgconform.catalogue_of_checks import load
from pgconform.checks import Evidence, evaluate
from pgconform.contract import Contract
from pgconform.contract_file import _defined, resolve, validate
from pgconform.contract_file import load as load_contract
from pgconform.database import Database, begin
from pgconform.history import History, append
from pgconform.introspect import snapshot
from pgconform.model import Effort, Finding, Result, Verdict
from pgconform.recovery.copies import Copies
from pgconform.reproduce import EXCEPTED, topic
from pgconform.results import Run
from tests.concerned import Concern

FAULTS = Path(__file__).parent.parent / "fixtures" / "faults"
# What a remedy may meet when another one has already dropped or made its object.
POINTLESS = (
    psycopg.errors.UndefinedObject, psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedFunction, psycopg.errors.DuplicateObject, psycopg.errors.DuplicateTable,
    psycopg.errors.DuplicateFunction, psycopg.errors.InvalidSchemaName, psycopg.errors.InvalidForeignKey,
    psycopg.IntegrityError,  # rows that another remedy has to remove first: the next round tries again
)  # fmt: skip
WORDS = (
    "contract",
    "finds",
    "errata",
    "about",
    "committed",
    "beside",
    "promise",
    "wait",
    "history",
    "mend",
    "server",
    "backup",
    "review",
)
QUICK = Effort.of("quick", "1")
ROUNDS = 4  # a remedy may uncover what another check then finds


@dataclass(frozen=True)
class Fault:
    """One SQL file: what it breaks, and the exact findings of all checks; a decoy has none.

    ``committed`` says why it cannot be undone: it then runs in a database of its own, each of its paragraphs by itself.
    Every ``beside`` is run by a further session, which stays as that leaves it; ``wait`` are seconds after that.
    ``promise`` are lines of TOML that the contract has besides. ``history`` are earlier runs: how many days ago, and
    what part of the reference's figures they measured. ``mend`` is SQL in place of a remedy that no SQL can be, or says
    why there can be none. ``server`` is 'contrib' where it takes extensions that the embedded one has not.
    ``backup`` are those that a provider lists: hours ago, bytes, and a status. ``review`` says, of what only attempts
    find, why the review of the catalogue cannot: 'none, because ...'.
    """

    path: Path
    check: str
    contract: str
    finds: frozenset[str]
    errata: tuple[str, ...]
    sql: str
    committed: str = ""
    beside: tuple[str, ...] = ()
    promise: str = ""
    wait: float = 0.0
    history: tuple[tuple[float, float], ...] = ()
    mend: str = ""
    server: str = ""
    backups: tuple[str, ...] = ()
    review: str = ""

    @property
    def name(self) -> str:
        return f"{self.check}/{self.path.stem}"


def faults() -> list[Fault]:
    """All faults and decoys, in the order of their paths. Raises ValueError for a malformed header."""
    return [read(path) for path in sorted(FAULTS.glob("*/*.sql"))]


def read(path: Path) -> Fault:
    """The header's ``-- word: text`` lines, as ``Fault`` names them."""
    headers: list[tuple[str, str]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("-- "):
            break
        word, colon, text = line[3:].partition(": ")
        if not colon or word not in WORDS:
            raise ValueError(f"{path}: header lines are '-- {'|'.join(WORDS)}: text', not {line!r}")
        headers.append((word, text.strip()))
    contract = [text for word, text in headers if word == "contract"]
    finds = frozenset(text for word, text in headers if word == "finds")
    errata = tuple(e for word, text in headers if word == "errata" for e in text.split(", "))
    if len(contract) != 1 or not any(word == "about" for word, _ in headers):
        raise ValueError(f"{path}: one '-- contract:' and one '-- about:' line wanted")
    if path.stem.startswith("decoy") == bool(finds):
        raise ValueError(f"{path}: a decoy finds nothing, a fault something; decoys' names begin with 'decoy'")
    said = {word: tuple(text for other, text in headers if other == word) for word in WORDS}
    return Fault(
        path, path.parent.name, contract[0], finds, errata, path.read_text(encoding="utf-8"),
        " ".join(said["committed"]), said["beside"], "\n".join(said["promise"]), sum(map(float, said["wait"])),
        tuple(_point(text) for line in said["history"] for text in line.split(", ")), " ".join(said["mend"]),
        " ".join(said["server"]), said["backup"], " ".join(said["review"]),
    )  # fmt: skip


def _point(text: str) -> tuple[float, float]:
    age, part = map(float, text.split())
    return age, part


def contract_of(name: str, promise: str = "") -> Contract:
    """A bundled contract, with further promises laid over it."""
    path = resolve(name)
    if not promise:
        return load_contract(path)
    raw = _merged(tomllib.loads(path.read_text(encoding="utf-8")), tomllib.loads(promise))
    return _defined(validate(raw, str(path)), path.parent, str(path))


def _merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    nested = {key: _merged(one[key], other[key]) for key in one.keys() & other.keys() if isinstance(other[key], dict)}
    return one | other | nested


@contextmanager
def transaction(connection: psycopg.Connection[Any], contract: Contract) -> Iterator[None]:
    """A transaction like a run's, but one that may write; it is rolled back."""
    begin(connection, contract.limits, read_only=False)
    try:
        yield
    finally:
        connection.execute("rollback")


_REFERENCES: dict[tuple[int, str], Catalog] = {}


def untouched(connection: psycopg.Connection[Any], contract: Contract) -> Catalog:
    """The catalogue of the database without any fault; asked once for each connection."""
    key = (connection.info.backend_pid, contract.name)
    if key not in _REFERENCES:
        _REFERENCES[key] = snapshot(connection)
    return _REFERENCES[key]


def judge(
    connection: psycopg.Connection[Any],
    contract: Contract,
    reference: Catalog | None = None,
    expected: AbstractSet[str] = frozenset(),
    written: AbstractSet[str] = frozenset(),
    copies: Copies | None = None,
    history: History | None = None,
) -> list[Result]:
    """The results of all checks, on what the open transaction sees.

    Drills, sessions and searches take longer than all other checks together. So where a reference is given, on which
    they are silent, they look at what may differ (``Concern``): tables that are altered or ``written``, and what
    ``expected`` findings speak of. Drills that commit need ``copies`` of what is committed.
    """
    catalog = snapshot(connection)
    database, today = Database(connection), datetime.datetime.now(datetime.UTC).date()
    evidence = Evidence(contract, catalog, database, today, lambda: database, QUICK, copies, history)
    wanted, checks = {key.split(": ")[1] for key in expected if ": " in key}, {key.split(": ")[0] for key in expected}
    concern = Concern(catalog, reference, contract, wanted, written) if reference else None
    results = []
    for check in load().values():
        subjects = None
        if "copies" in check.asks:
            subjects = None if copies and (check.id in checks or not concern) else []
        elif concern and (check.drill or check.id not in checks):
            given = check.subjects(contract, evidence)
            subjects = concern.subjects(check, given) or ([] if given else None)
        if subjects != []:
            results.append(evaluate(check, evidence, subjects))
    return results


class Writes:
    """Tables whose rows were written in the open transaction, but not by the drills, which undo what they do."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        # What the session did before may not be reported yet (a server does so once a second): it is counted, too.
        self._known, self._files = self._counts(), self._stored()
        self.tables: set[str] = set()

    def look(self) -> AbstractSet[str]:
        """All of them so far; asked after a fault, and after its remedies."""
        now = self._counts()
        self.tables |= {table for table, count in now.items() if count != self._known.get(table, 0)}
        self.tables |= {table for table, file in self._stored().items() if file != self._files.get(table, file)}
        return self.tables

    def drilled(self) -> None:
        """What is counted by now was no fault and no remedy, save what was seen."""
        self._known = self._counts()

    def _stored(self) -> dict[str, int]:
        """The file of each table: truncating one, or writing it anew, counts no row."""
        rows = self._connection.execute(
            "select relnamespace::regnamespace::text || '.' || pg_catalog.quote_ident(relname),"
            " pg_catalog.pg_relation_filenode(oid) from pg_catalog.pg_class where relkind = 'r' and oid >= 16384"
        )
        return dict(rows.fetchall())

    def _counts(self) -> dict[str, int]:
        rows = self._connection.execute(
            "select format('%I.%I', schemaname, relname), n_tup_ins + n_tup_upd + n_tup_del"
            " from pg_catalog.pg_stat_xact_user_tables where n_tup_ins + n_tup_upd + n_tup_del > 0"
        )
        return dict(rows.fetchall())


def found(results: list[Result]) -> dict[str, Finding]:
    """Findings by 'check: key'."""
    return {f"{r.check}: {f.key}": f for r in results for f in r.findings}


def broken(results: list[Result]) -> list[str]:
    told = [f"{r.check}: {subject}: {reason}" for r in results for subject, reason in r.unverified]
    return told + [f"{r.check}: {r.reason}" for r in results if r.verdict is Verdict.BROKEN and not r.unverified]


def prove(connection: psycopg.Connection[Any], fault: Fault) -> None:
    """Applies a fault, compares the findings of all checks, runs their remedies, and wants silence.

    Raises AssertionError that says what differs.
    """
    with TemporaryDirectory() as folder:
        promise = "\n".join([fault.promise, *listing(fault, Path(folder))])
        prove_in(connection, fault, contract_of(fault.contract, promise), Path(folder))


def listing(fault: Fault, folder: Path) -> list[str]:
    """A file in which a provider lists backups, where the fault has some, as a promise."""
    if not fault.backups:
        return []
    now = datetime.datetime.now(datetime.UTC)
    items = []
    for text in fault.backups:
        hours, size, *status = text.split()
        time = now - datetime.timedelta(hours=float(hours))
        items.append(
            {"inserted_at": time.isoformat(), "size_bytes": int(size), **({"status": status[0]} if status else {})}
        )
    (folder / "backups.json").write_text(json.dumps({"backups": items}), encoding="utf-8")
    return [f"backups.listing = {json.dumps(str(folder / 'backups.json'))}"]


def forget(connection: psycopg.Connection[Any]) -> None:
    """Have the server count anew: attacks that were undone before have left dead rows."""
    connection.execute("select pg_catalog.pg_stat_reset()")


def prove_in(connection: psycopg.Connection[Any], fault: Fault, contract: Contract, folder: Path) -> None:
    """As ``prove``, by a contract that knows of the folder."""
    forget(connection)
    with transaction(connection, contract):
        reference = untouched(connection, contract)
        history = past(connection, contract, fault, folder) if fault.history else None
        writes = Writes(connection)
        connection.execute(fault.sql.encode())

        def judged() -> list[Result]:
            said = fault.finds | {fault.check}  # a decoy's own check looks at all there is, whatever else it touches
            results = judge(connection, contract, reference, said, writes.look(), history=history)
            writes.drilled()
            return results

        proven(connection, fault, judged, lambda remedy: run_remedy(connection, remedy))


def past(connection: psycopg.Connection[Any], contract: Contract, fault: Fault, folder: Path) -> History:
    """A history in which earlier runs measured parts of what is measured now."""
    now = datetime.datetime.now(datetime.UTC)
    history = History(folder, contract.name, "", now)
    evidence = Evidence(contract, snapshot(connection), Database(connection), now.date(), history=history)
    measuring = [c for c in load().values() if "history" in c.asks or c.id == fault.check]
    results = [evaluate(check, evidence) for check in measuring]
    for age, part in fault.history:
        run = Run((contract,), started=now - datetime.timedelta(days=age))
        run.results = [
            replace(r, figures=tuple(replace(f, value=round(f.value * part, 9)) for f in r.figures)) for r in results
        ]
        append(folder, run, {})
    return history


def reproduced(connection: psycopg.Connection[Any], fault: Fault, results: list[Result]) -> None:
    """Wants of each finding SQL that shows it, unless it is declared that there can be none, and executes that.

    Scripts of attacks are executed by the tests of attacks; those of sessions here.
    """
    checks = load()
    for result in results:
        check = checks[result.check]
        for finding in result.findings:
            what = f"{fault.path}: {result.check}: {finding.key}"
            excepted = {result.check, topic(check)} & EXCEPTED.keys()
            assert excepted or finding.rows or finding.script, f"{what}: no SQL shows it"
            assert not re.search(r"^\s*\\", finding.rows, re.M), f"{what}: commands of psql are not SQL"
            asked = [finding.rows] if finding.rows else []
            if topic(check) == "isolation.test_rows" and result.check != "relations-answer":
                asked.append(finding.script.removeprefix("begin;").removesuffix("rollback;"))
            for text in asked:
                try:
                    with connection.transaction(force_rollback=True):
                        connection.execute(text.encode())
                except psycopg.Error as error:
                    raise AssertionError(f"{what}: {error}: {text}") from error


def proven(
    connection: psycopg.Connection[Any],
    fault: Fault,
    judged: Callable[[], list[Result]],
    remedied: Callable[[str], None],
) -> None:
    """Compares what is found with what the fault should be found by, and executes what shows it; runs the remedies, and
    wants silence."""
    results = judged()
    findings = found(results)
    differ = {"missed": sorted(fault.finds - set(findings)), "unexpected": {
        key: f.observed for key, f in sorted(findings.items()) if key not in fault.finds}}  # fmt: skip
    assert not any(differ.values()), f"{fault.path}: {differ}"
    assert not broken(results), f"{fault.path}: broken: {broken(results)}"
    reproduced(connection, fault, results)
    if fault.mend.startswith("none: "):
        return
    for _ in range(ROUNDS):
        if not findings:
            break
        if fault.mend:
            remedied(fault.mend)
        for remedy in dict.fromkeys(f.remedy for _, f in sorted(findings.items())):
            remedied(remedy)
        findings = found(judged())
    left = {key: (f.observed, f.remedy) for key, f in findings.items()}
    assert not left, f"{fault.path}: not silenced by its remedies: {left}"


def run_remedy(connection: psycopg.Connection[Any], remedy: str) -> None:
    """Runs a remedy as an engineer would paste it; one that another remedy made pointless may fail."""
    try:
        with connection.transaction():
            connection.execute(remedy.encode())
    except POINTLESS:
        pass
