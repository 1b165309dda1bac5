"""The command line: thin, it fixes options and calls pytest or the engine. Heavy imports wait for their command."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pgconform import __version__

if TYPE_CHECKING:
    from pgconform.model import Effort
    from pgconform.session import Databases

INTERRUPTED, USAGE, LOST = 2, 4, 75


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status. A mistake of the caller is one line and status 4."""
    parser = _parser()
    known, rest = parser.parse_known_args(arguments)
    if rest and known.command is not run:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    command: Callable[[argparse.Namespace, list[str]], int] = known.command
    try:
        return command(known, rest)
    except (ValueError, OSError, ConnectionError) as error:
        print(f"pgconform: {error}", file=sys.stderr)
        return LOST if isinstance(error, ConnectionError) else USAGE
    except KeyboardInterrupt:
        return INTERRUPTED


class _Parser(argparse.ArgumentParser):
    """A mistake has the exit status that a contract's has: 2 is pytest's word for an interruption."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser("pgconform", description="Does this database keep the promises that its maintenance guide makes?")
    parser.add_argument("--version", action="version", version=f"pgconform {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    added = commands.add_parser(
        "run", help="check databases; further arguments go to pytest (-m gate, -k, --lf, -n 2)",
        epilog="exit status: 0 conforms, 1 findings, 2 interrupted, 3 something could not be verified, 4 usage or"
               " contract error, 5 nothing was examined, 75 the database cannot be reached or was lost",
    )  # fmt: skip
    _asked_of(added)
    added.add_argument("--out", metavar="DIR", help="where the reports go (default: reports/out)")
    added.add_argument("--history", metavar="DIR", help="where runs are recorded, or none (default: reports/history)")
    added.add_argument("--drill", metavar="NAME", help="restore: have a live target restored elsewhere, too")
    added.set_defaults(command=run)

    added = commands.add_parser(
        "access", help="whose rows each role may touch: what the contract declares beside what was observed",
        epilog="exit status: 0 as declared, 1 something differs, 3 something could not be verified, 4 usage or contract"
               " error, 5 nothing was examined, 75 the database cannot be reached or was lost",
    )  # fmt: skip
    _asked_of(added)
    added.add_argument("--format", choices=("text", "json"), default="text", help="text (default) or json")
    added.set_defaults(command=access)

    added = commands.add_parser(
        "metrics", help="what the last recorded run measured, as rows of the contract's metrics table",
        epilog="--write is the only way in which pgconform writes to a live database. exit status: 0, 4 usage or"
               " contract error, 75 the database cannot be reached or was lost",
    )  # fmt: skip
    added.add_argument("--contract", required=True, metavar="NAME|FILE", help="a bundled contract or a TOML file")
    added.add_argument("--target", metavar="KIND[:ID]", help="as for run (default: live)")
    added.add_argument(
        "--history", default="", metavar="DIR", help="where runs are recorded (default: reports/history)"
    )
    added.add_argument("--write", action="store_true", help="insert them into that table")
    added.set_defaults(command=metrics)

    added = commands.add_parser(
        "history", help="what earlier runs found and measured",
        epilog="exit status: 0, or 4 where no run is recorded, or none of that name",
    )  # fmt: skip
    added.add_argument("figure", nargs="?", default="", metavar="NAME", help="figures whose names begin so, run by run")
    added.add_argument(
        "--history", default="", metavar="DIR", help="where runs are recorded (default: reports/history)"
    )
    added.add_argument("--format", choices=("text", "json"), default="text", help="text (default) or json")
    added.set_defaults(command=history)

    added = commands.add_parser(
        "bench", help="how well, and how fast, each declared vector search finds what it should",
        epilog="exit status: 0 as promised, 1 something is not, or is worse than the baseline, 3 something could not be"
               " measured, 4 usage or contract error, 5 no search is declared, 75 the database cannot be reached",
    )  # fmt: skip
    _target_of(added)
    added.add_argument("--queries", default="40", metavar="N|FILE", help="how many, or vectors as JSON, one a line")
    added.add_argument("--clients", type=int, default=2, metavar="N", help="at most so many at once (default: 2)")
    added.add_argument("--no-curves", dest="curves", action="store_false", help="do not try settings of the indexes")
    added.add_argument(
        "--baseline", default="reports/baselines", metavar="DIR", help="where baselines are (default: %(default)s)"
    )
    how = added.add_mutually_exclusive_group()
    how.add_argument("--compare", action="store_true", help="compare with the baseline")
    how.add_argument("--update-baseline", dest="update", action="store_true", help="make this the baseline")
    added.add_argument("--format", choices=("text", "json"), default="text", help="text (default) or json")
    added.set_defaults(command=bench)

    added = commands.add_parser("up", help="start a server with a reference database and print its address")
    added.add_argument("contract", metavar="CONTRACT", help="a bundled contract's name, or a file")
    added.add_argument("--version", dest="major", default="", metavar="16|18", help="the server's major version")
    added.set_defaults(command=up)

    added = commands.add_parser("build", help="load a reference database into an empty database elsewhere")
    added.add_argument("contract", metavar="CONTRACT", help="a bundled contract's name, or a file")
    added.add_argument("--dsn", default="", metavar="URI", help="the empty database (default: libpq's environment)")
    added.add_argument("--rows", type=float, default=1.0, metavar="SCALE", help="multiplies the number of rows")
    added.add_argument("--seed", type=int, default=1, help="seed of the generator of rows")
    added.set_defaults(command=build)

    added = commands.add_parser("explain", help="what a check demands, why, and which guide rows it answers")
    added.add_argument("check", metavar="CHECK", help="the check's id; 'all' lists them")
    added.set_defaults(command=explain)
    return parser


def _target_of(command: argparse.ArgumentParser) -> None:
    """What is looked at, and where."""
    command.add_argument("--contract", metavar="NAME|FILE", help="a bundled contract or a TOML file (default: all)")
    command.add_argument(
        "--target", metavar="KIND[:ID]", help="embedded[:16|18] (default), container[:IMAGE] or live[:URI]"
    )


def _asked_of(command: argparse.ArgumentParser) -> None:
    """What both run and access are asked for."""
    _target_of(command)
    command.add_argument("--effort", metavar="LEVEL", help="how hard to attack: quick, default or nightly")
    command.add_argument("--seed", metavar="N", help="what the attacks are drawn from (default: 1)")


def run(known: argparse.Namespace, rest: list[str]) -> int:
    """Check databases through pytest, with our own configuration and nothing of the caller's."""
    import pytest

    import pgconform.suites
    from pgconform.contract_file import bundled

    if rest and (rest[0] in bundled() or rest[0].endswith(".toml")):
        raise ValueError(f"a contract is given by --contract={rest[0]}")
    home = Path(str(pgconform.suites.__file__)).parent
    fixed = [
        str(home), f"--config-file={Path(__file__).with_name('run.ini')}", f"--rootdir={home.parent}",
        "-p", "pgconform.plugin", "-p", "no:hypothesispytest", "--tb=no", "-q", "--no-header", "-r", "N",
    ]  # fmt: skip
    if "no:cacheprovider" not in rest:
        fixed.append(f"--override-ini=cache_dir={Path.cwd() / '.pytest_cache'}")
    given = [
        f"--pgc-{name}={value}"
        for name in ("contract", "target", "effort", "seed", "out", "history", "drill")
        if (value := getattr(known, name))
    ]
    return int(pytest.main([*fixed, *given, "--pgc-asked", *rest]))


def access(known: argparse.Namespace, _: list[str]) -> int:
    """The matrix of role, relation and command of each contract: declared beside observed."""
    from pgconform.attacks.access import observe
    from pgconform.model import Effort
    from pgconform.reports.access import Matrix, as_json, as_text, status

    effort, made = Effort.of(_given(known, "effort", "default"), _given(known, "seed", "1")), []
    with _databases(known, effort) as databases:
        for name, facts in databases.facts().items():
            evidence = databases.evidence(name)
            cells = observe(evidence)
            attempts, services = evidence.drills.attempts if evidence.writing else 0, evidence.contract.roles.services
            made.append(Matrix(name, facts, cells, attempts, services))
    _print((as_json if known.format == "json" else as_text)(made, effort))
    return int(status(made)[0])


def bench(known: argparse.Namespace, _: list[str]) -> int:
    """Each contract's searches, measured beside the exact answer."""
    from functools import partial

    from pgconform.model import Effort
    from pgconform.reports.bench import as_json, as_text

    try:
        from pgconform.vectors import baseline
        from pgconform.vectors.bench import Wanted, measure
    except ImportError:
        raise ValueError("pgconform bench needs numpy: python -m pip install 'pgconform[bench]'") from None
    wanted = Wanted.of(known.queries, known.clients, known.curves)
    outcomes, folder = [], Path(known.baseline)
    with _databases(known, Effort()) as databases:
        for name in databases.facts():
            before = baseline.load(folder / f"{name}.json") if known.compare else None
            told = partial(print, file=sys.stderr) if sys.stderr.isatty() else lambda _: None
            outcomes.append(measure(databases.evidence(name), partial(databases.further, name), wanted, before, told))
    for outcome in outcomes if known.update else ():
        if outcome.now.cases:
            baseline.save(folder / f"{outcome.contract}.json", outcome.now)
    _print(as_json(outcomes) if known.format == "json" else "\n\n".join(map(as_text, outcomes)))
    found = {outcome.status for outcome in outcomes}
    return next((status for status in (1, 3, 0) if status in found), 5)


def _given(known: argparse.Namespace, name: str, default: str = "") -> str:
    return str(getattr(known, name) or os.environ.get(f"PGC_{name.upper()}") or default)


def _print(text: str) -> None:
    """A name may hold what the terminal cannot show."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    print(text)


@contextmanager
def _databases(known: argparse.Namespace, effort: Effort) -> Iterator[Databases]:
    """The target's databases, for the time of the block; what goes wrong on the way is one line."""
    import datetime

    import psycopg

    from pgconform.asked import chosen
    from pgconform.model import TargetLost
    from pgconform.session import Databases

    databases = Databases(datetime.datetime.now(datetime.UTC), effort)
    try:
        databases.open(_given(known, "target", "embedded"), chosen(_given(known, "contract")))
        yield databases
    except TargetLost as error:
        raise ConnectionError(str(error)) from None
    except psycopg.Error as error:  # libpq's own message may hold host, user and password
        raise ConnectionError(
            f"the database could not be pictured ({error.sqlstate or type(error).__name__})"
        ) from None
    finally:
        databases.close()


def metrics(known: argparse.Namespace, _: list[str]) -> int:
    """The rows for the metrics table, shown, and inserted where that is asked for."""
    import datetime

    from pgconform.asked import chosen
    from pgconform.metrics import rows, write
    from pgconform.model import Effort, NotVerified, TargetLost
    from pgconform.session import Databases

    databases = Databases(datetime.datetime.now(datetime.UTC), Effort(), _folder(known.history))
    try:
        contracts = chosen(known.contract)
        databases.open(known.target or os.environ.get("PGC_TARGET") or "live", contracts)
        for contract in contracts:
            found = rows(databases.evidence(contract.name))
            for row in found:
                print(f"{row.time:%Y-%m-%d %H:%M:%S}  {row.value:<12g}  {row.metric}")
            if known.write:
                with databases.writing(contract.name) as database:
                    print(write(database, contract, found))
    except NotVerified as error:
        raise ValueError(str(error)) from None
    except TargetLost as error:
        raise ConnectionError(str(error)) from None
    finally:
        databases.close()
    return 0


def _folder(given: str) -> Path:
    return Path(given or os.environ.get("PGC_HISTORY") or "reports/history")


def history(known: argparse.Namespace, _: list[str]) -> int:
    """The recorded runs and figures, or one figure's values."""
    from pgconform.model import NotVerified
    from pgconform.reports.history import as_json, as_text

    try:
        print((as_json if known.format == "json" else as_text)(_folder(known.history), known.figure))
    except NotVerified as error:
        raise ValueError(str(error)) from None
    return 0


def up(known: argparse.Namespace, _: list[str]) -> int:
    """A server with the contract's reference database, until it is interrupted."""
    from pgconform.targets import TargetError
    from pgconform.targets.embedded import server
    from pgconform.targets.server import ServerError

    for signum in (signal.SIGINT, signal.SIGTERM):  # a shell starts jobs in the background with SIGINT ignored
        signal.signal(signum, signal.default_int_handler)
    reference = _reference(known.contract)
    try:
        with server([reference], known.major) as started:
            print(started.uri(reference), flush=True)
            checked = f"pgconform run --contract={known.contract} --target='live:{started.uri(reference)}'"
            print(f"check it: {checked}\nstop with Ctrl-C", file=sys.stderr)
            signal.pause()
    except ServerError as error:
        raise TargetError(str(error)) from None
    except KeyboardInterrupt:
        pass
    return 0


def build(known: argparse.Namespace, _: list[str]) -> int:
    """The contract's reference database, in an empty database that somebody else runs."""
    import psycopg

    from pgconform.fixtures.databases import build as load

    reference = _reference(known.contract)
    try:
        with psycopg.connect(known.dsn or os.environ.get("PGC_DSN", ""), prepare_threshold=None) as connection:
            load(connection, reference, scale=known.rows, seed=known.seed)
    except psycopg.Error as error:  # libpq's own message may hold host, user and password
        state = error.sqlstate or type(error).__name__
        message = (error.diag.message_primary or "") if error.sqlstate else "is the server up, and its address right?"
        raise ConnectionError(f"cannot build {reference} ({state}): {message}") from None
    print(f"built {reference}")
    return 0


def explain(known: argparse.Namespace, _: list[str]) -> int:
    """The check's obligation, reason, subjects, guide rows and cadence."""
    import difflib

    from pgconform.catalogue_of_checks import load

    checks = load()
    if known.check == "all":
        print("\n".join(f"{check.id:28} {check.title}" for check in checks.values()))
        return 0
    if known.check not in checks:
        near = difflib.get_close_matches(known.check, checks, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ";"
        raise ValueError(f"no check {known.check!r}{hint} 'pgconform explain all' lists them")
    check = checks[known.check]
    print(f"{check.id}: {check.title}.\n\n{check.why}\n")
    print(f"looks at: {check.looked_for}\nguide:    {', '.join(check.guide)}")
    print(f"when:     {', '.join(check.when)}\nseverity: {check.severity}")
    return 0


def _reference(contract: str) -> str:
    """The reference database that a contract names. Raises ValueError."""
    from pgconform.contract_file import load, resolve

    found = load(resolve(contract))
    if not found.reference:
        raise ValueError(f"contract {found.name} names no reference database; set reference in it")
    return found.reference
