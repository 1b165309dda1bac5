"""One run's databases: opened and pictured once by the controller, joined by workers. Never talks to pytest."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgconform import introspect
from pgconform.catalog import Catalog
from pgconform.checks import Evidence
from pgconform.contract import Contract
from pgconform.database import Database, begin
from pgconform.drift import facts
from pgconform.history import History, append, past
from pgconform.model import Drill, Effort, NotVerified, TargetLost
from pgconform.statements import statement
from pgconform.targets import TargetError, databases, split

if TYPE_CHECKING:
    import psycopg
    from psycopg import Connection

    from pgconform.recovery.copies import Copies
    from pgconform.results import Run

# Refusals that trying again will not mend: wrong password, no such role or database (SQLSTATE 28xxx, 3Dxxx).
_OUR_MISTAKE = ("28", "3D")
# What libpq says (patterns: it has no code, and may hold host and user), and what we say; for mistakes of the caller.
_REFUSED = (
    ("authentication failed", "wrong user or password"), ("no password supplied", "a password is wanted"),
    ("is not permitted to log in", "the role may not log in"), ("no pg_hba.conf entry", "pg_hba.conf lets nobody in"),
    ("pg_hba.conf rejects", "pg_hba.conf refuses it"),
    ("permission denied for database", "the role may not connect to the database; grant connect on it"),
    ("is not currently accepting connections", "the database lets nobody in (datallowconn)"),
    ("role \".*\" does not exist", "there is no such role"),
    ("database \".*\" does not exist", "there is no such database"),
    ("unrecognized configuration parameter|invalid value for parameter|invalid command-line arg",
     "it sets a parameter that the server does not take"),
    ("invalid integer value", "the port is not a number"), ("invalid port number", "there is no such port"),
    ("invalid connection option", "unknown parameter in the connection string"),
    ("invalid sslmode", "unknown sslmode"),
    ("certificate", "the server's certificate is not accepted"), ("does not support SSL", "the server has no TLS"),
    ("root certificate file", "the root certificate is missing"), ("definition of service", "there is no such service"),
)  # fmt: skip
_AWAY = (
    ("Connection refused", "connection refused"), ("could not translate host name", "the host's name is not known"),
    ("Name or service not known", "the host's name is not known"), ("resolve", "the host's name is not known"),
    ("timeout", "no answer in time"), ("No such file or directory", "no server listens on that socket"),
    ("No route to host", "no route to the host"), ("Network is unreachable", "the network cannot be reached"),
    ("starting up", "the server is starting up"), ("too many|connection slots", "too many connections"),
)  # fmt: skip


@dataclass(frozen=True, repr=False)
class Opened:
    """One database of the run. Has no repr: the connection string is a secret."""

    contract: Contract
    dsn: str
    snapshot: str
    catalog: Catalog
    disposable: bool = False  # drills may write here
    copied: bool = False  # drills may work on copies of it
    identity: str = ""  # of the database, the same on its replicas

    def to_worker(self) -> dict[str, str]:
        """What an xdist worker needs to join: plain text only."""
        given = {"dsn": self.dsn, "snapshot": self.snapshot, "catalog": self.catalog.to_json().decode()}
        flags = {"disposable": "yes" if self.disposable else "", "copied": "yes" if self.copied else ""}
        return given | flags | {"identity": self.identity}


class Databases:
    """The open databases of a process, by contract. Close it to end transactions and stop what was started."""

    def __init__(
        self, now: datetime.datetime, effort: Effort, history: Path | None = None,
        drill: Drill | None = None, prepare: str = "",
    ) -> None:  # fmt: skip
        self.now = now
        self.effort = effort
        self.history = history
        self.drill = drill
        self.prepare = prepare
        self.called = ""  # what messages call the only database, where it is no contract's
        self.opened: dict[str, Opened] = {}
        self._evidence: dict[str, Evidence] = {}
        self._stack = ExitStack()

    def open(self, target: str, contracts: Sequence[Contract]) -> None:
        """Start or find the target, and picture each database. Raises TargetError or TargetLost."""
        from pgconform.targets.signals import terminable

        self._stack.enter_context(terminable())  # so that reports are written, and what was started is stopped
        disposable = split(target)[0] != "live"
        for name, dsn in self._stack.enter_context(databases(target, contracts, self.prepare)).items():
            contract = next(c for c in contracts if c.name == name)
            connection = self._connect(dsn, contract)
            exported = connection.execute("select pg_catalog.pg_export_snapshot()", prepare=False).fetchone()
            catalog = introspect.snapshot(connection)
            shared = str(exported[0]) if exported else ""
            identity = _identity(Database(connection))
            copied = disposable or self.drill is not None
            self.opened[name] = Opened(contract, dsn, shared, catalog, disposable, copied, identity)
            self._evidence[name] = self._of(self.opened[name], connection)
            if self.drill:
                _there(self.drill, self._evidence[name])

    def join(self, contract: Contract, given: dict[str, str]) -> None:
        """Take over what the controller saw. The connection is made when a check first asks for it."""
        catalog = Catalog.from_json(given["catalog"])
        self.opened[contract.name] = Opened(
            contract, given["dsn"], given["snapshot"], catalog, bool(given["disposable"]), bool(given["copied"]),
            given["identity"],
        )  # fmt: skip

    def evidence(self, name: str) -> Evidence:
        """What checks of one contract judge. Raises TargetLost where the database cannot be reached any more."""
        if name not in self._evidence:
            opened = self.opened[name]
            self._evidence[name] = self._of(opened, self._connect(opened.dsn, opened.contract, opened.snapshot))
        return self._evidence[name]

    @contextmanager
    def further(self, name: str) -> Iterator[Database]:
        """Another session on the same snapshot of one contract's database, for the time of the block.

        Raises TargetError or TargetLost.
        """
        opened = self.opened[name]
        connection = self._connect(opened.dsn, opened.contract, opened.snapshot)
        try:
            yield Database(connection)
        finally:
            connection.close()

    def _of(self, opened: Opened, connection: Connection[Any]) -> Evidence:
        def writing() -> Database:
            return Database(self._connect(opened.dsn, opened.contract, read_only=False))

        introspect.keep()
        drills = writing if opened.disposable else None
        copies = self._copies(opened) if opened.copied else None
        past = History(self.history, opened.contract.name, opened.identity, self.now) if self.history else None
        return Evidence(
            opened.contract, opened.catalog, Database(connection), self.now.date(), drills, self.effort, copies, past
        )

    def _copies(self, opened: Opened) -> Copies:
        from pgconform.recovery.copies import Copies

        copies = Copies(opened.dsn, opened.catalog, opened.snapshot, self.drill or Drill())
        self._stack.callback(copies.close)
        return copies

    @contextmanager
    def writing(self, name: str) -> Iterator[Database]:
        """To write into the database for good, where somebody asks for that: committed after the block."""
        opened = self.opened[name]
        connection = self._connect(opened.dsn, opened.contract, read_only=False)
        yield Database(connection)
        connection.execute("commit")

    def facts(self) -> dict[str, str]:
        """What was tested, by contract: never how it was reached."""
        return {name: f"PostgreSQL {_version(opened.catalog)}" for name, opened in self.opened.items()}

    def finish(self, run: Run) -> None:
        """Judges the run's waivers, and records it in the history; where that fails, it is a trouble of the run."""
        run.finish(self.now.date(), self.facts())
        run.catalogs = {name: facts(opened.catalog) for name, opened in self.opened.items()}
        if self.history:
            try:
                for name, opened in self.opened.items():
                    before = past(History(self.history, name, opened.identity, self.now))
                    run.past |= {name: before} if before else {}
                append(self.history, run, {name: opened.identity for name, opened in self.opened.items()})
            except NotVerified as error:
                run.troubles.append(str(error))
            except OSError as error:
                where = f"{self.history}: {error.strerror}; choose another directory with --history="
                run.troubles.append(f"cannot record the run in {where}")

    def close(self) -> None:
        introspect.release()
        self._stack.close()

    def _connect(self, dsn: str, contract: Contract, snapshot: str = "", read_only: bool = True) -> Connection[Any]:
        import psycopg

        try:
            connection = psycopg.connect(dsn, autocommit=True, prepare_threshold=None, connect_timeout=10)
            self._stack.callback(connection.close)
            introspect.read_text(connection)
            begin(connection, contract.limits, snapshot=snapshot, read_only=read_only)
        except psycopg.Error as error:
            raise refusal(error, self.called or f"the database of contract {contract.name}") from None
        return connection


def _there(drill: Drill, evidence: Evidence) -> None:
    """Raises TargetError where what the drill names is not there. Does not repeat a tenant's key."""
    from pgconform.recovery.tenants import knowing

    contract, known = evidence.contract, [schema.name for schema in evidence.catalog.schemas]
    what = f"the database of contract {contract.name}"
    if drill.schema and drill.schema not in known:
        raise TargetError(
            f"{what} has no schema {drill.schema!r} for --drill to restore; it has {', '.join(known)}; name one"
            " of these, without quoting it, or the contract by --contract"
        )
    try:
        if drill.tenant and not knowing(evidence.database, contract, evidence.catalog, drill.tenant):
            raise TargetError(
                f"{what} knows no tenant of the key that --drill=restore:tenant=KEY names; write it as the columns of"
                f" {', '.join(contract.tenancies) or 'a tenancy'} have it, or name the contract by --contract"
            )
    except NotVerified as error:
        raise TargetError(f"the tenant that --drill names cannot be looked for: {error}") from None


def _identity(database: Database) -> str:
    """Tells databases apart in the history, and says nothing about them; '' where the server hides its number."""
    asked = (
        "select s.system_identifier::text || d.oid::text from pg_catalog.pg_control_system() as s"
        " cross join pg_catalog.pg_database as d where d.datname = pg_catalog.current_database()"
    )
    try:
        return sha256(str(database.one(statement(asked), "identifying the database")[0]).encode()).hexdigest()[:12]
    except NotVerified:
        return ""


def _version(catalog: Catalog) -> str:
    major, minor = divmod(catalog.server.version, 10_000)
    return f"{major}.{minor}, {len(catalog.tables)} relations"


def refusal(error: psycopg.Error, what: str) -> Exception:
    """What to raise for a refused connection, in one line without host, user or password, which libpq's own message may
    hold: TargetError where the caller has to correct something, TargetLost where trying again may help."""
    import psycopg

    state = error.sqlstate or ""
    text = str(error)
    if isinstance(error, psycopg.ProgrammingError) and not state:
        return TargetError("the connection string is not valid; write postgresql://USER@HOST:PORT/DATABASE")
    why = next((said for part, said in _REFUSED if re.search(part, text, re.DOTALL)), "")
    if why or state.startswith(_OUR_MISTAKE):
        why = why or "the login was refused"
        return TargetError(f"{what} cannot be used: {why}; check the address, user, password and database name")
    why = next((said for part, said in _AWAY if re.search(part, text)), state or type(error).__name__)
    return TargetLost(f"{what} cannot be reached: {why}; is the server up, and its address right?")
