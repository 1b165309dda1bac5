"""The pytest plugin: options, parameters, verdicts and exit status. It wires, and decides nothing itself.

Loaded in every pytest, so it stays idle unless suites of checks are asked for; it loads neither psycopg nor a suite.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from pgconform.asked import OPTIONS, Asked, arrange, chosen, names_suites, narrow, scheduled
from pgconform.discreet import discreet
from pgconform.model import CADENCES, Mistake, TargetLost, Verdict
from pgconform.progress import shown

if TYPE_CHECKING:
    from pgconform.checks import Check
    from pgconform.contract import Contract
    from pgconform.results import Run
    from pgconform.session import Databases

CONTRACTS: pytest.StashKey[list[Contract]] = pytest.StashKey()
DATABASES: pytest.StashKey[Databases] = pytest.StashKey()
ASKED: pytest.StashKey[Asked] = pytest.StashKey()
RUN: pytest.StashKey[Run] = pytest.StashKey()
PROPERTY = "pgconform"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("pgconform", "conformance of PostgreSQL databases")
    for name, text in OPTIONS.items():
        flag = f"--pgc-{name.replace('_', '-')}"
        group.addoption(flag, dest=f"pgc_{name}", metavar=name.upper(), help=f"{text}; environment PGC_{name.upper()}")
        parser.addini(f"pgc_{name}", text)
    group.addoption("--pgc-asked", action="store_true", help=argparse.SUPPRESS)


def option(config: pytest.Config, name: str) -> str:
    """An option by its sources, nearest first: command line, environment, ini file; '' where none has it."""
    given = config.getoption(f"pgc_{name}") or os.environ.get(f"PGC_{name.upper()}") or config.getini(f"pgc_{name}")
    return str(given or "")


def pytest_configure(config: pytest.Config) -> None:
    for cadence in CADENCES:
        config.addinivalue_line("markers", f"{cadence}: checks that the guides schedule so")


def contracts(config: pytest.Config) -> list[Contract]:
    """The contracts of the run, loaded once. Raises pytest.UsageError with the contract's own one-line errors."""
    if CONTRACTS not in config.stash:
        try:
            config.stash[CONTRACTS] = chosen(option(config, "contract"))
        except Mistake as error:
            raise pytest.UsageError(discreet(str(error))) from None
    return config.stash[CONTRACTS]


def _asked(config: pytest.Config) -> bool:
    """True when this pytest run is about checks: it names our options, or the suites."""
    if any(config.getoption(f"pgc_{name}") for name in (*OPTIONS, "asked")):
        return True
    return names_suites(config.args)


def pytest_sessionstart(session: pytest.Session) -> None:
    config = session.config
    if config.getoption("collectonly") or not _asked(config):
        return
    from pgconform.results import LOST

    try:
        scheduled(config.option.markexpr)
        asked = config.stash[ASKED] = Asked.of({name: option(config, name) for name in OPTIONS})
        run = config.stash[RUN] = asked.begun(contracts(config), own=not hasattr(config, "workerinput"))
        databases = config.stash[DATABASES] = asked.databases(run)
        if given := getattr(config, "workerinput", {}).get(PROPERTY):
            for contract in contracts(config):
                databases.join(contract, json.loads(given)[contract.name])
        else:
            with asked.told(run), shown(f"opening {asked.target.partition(':')[0]}", enabled=_on_terminal(config)):
                databases.open(asked.target, contracts(config))
    except Mistake as error:
        raise pytest.UsageError(discreet(str(error))) from None  # what was opened is closed by pytest_unconfigure
    except TargetLost as error:
        config.pluginmanager.unregister(name="terminalreporter")  # it would say the same once more
        pytest.exit(str(error), returncode=LOST)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    if databases := node.config.stash.get(DATABASES, None):
        node.workerinput[PROPERTY] = json.dumps({k: v.to_worker() for k, v in databases.opened.items()})


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    check: Check | None = getattr(metafunc.function, "pgconform_check", None)
    if check is None:
        return
    from pgconform.checks import subject_name

    marks, cases = [getattr(pytest.mark, cadence) for cadence in check.when], []
    for contract in contracts(metafunc.config):
        named = check.subjects(contract) if check.by_contract else []
        for subject in named or [None]:
            label = f"{contract.name}-{subject_name(subject)}" if named else contract.name
            cases.append(pytest.param((check, contract.name, subject), id=label, marks=marks))
    metafunc.parametrize("pgc_case", cases, indirect=True)


@pytest.fixture
def pgc_case(request: pytest.FixtureRequest) -> Callable[[], None]:
    """Judges the test's check on its subject; the verdict becomes pytest's outcome and a property of the report."""
    check, contract, subject = request.param

    def judge() -> None:
        from pgconform.judging import judged, text
        from pgconform.results import to_json

        result = judged(request.config.stash[DATABASES], check, contract, subject, _on_terminal(request.config))
        asked = request.config.stash[ASKED]
        result = asked.baseline.applied(result) if asked.baseline else result
        request.node.user_properties.append((PROPERTY, to_json(result)))
        if result.verdict is Verdict.SKIPPED:
            pytest.skip(result.reason)
        if asked.fails(result):
            pytest.fail(text(result), pytrace=False)

    return judge


def _on_terminal(config: pytest.Config) -> bool:
    return bool(getattr(config.pluginmanager.getplugin("terminalreporter"), "isatty", False))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    arrange(items)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if _RUNS and (report.when == "call" or report.outcome == "failed"):
        from pgconform.judging import record

        record(_RUNS[-1], report.nodeid, report.outcome, dict(report.user_properties).get(PROPERTY))


_RUNS: list[Run] = []  # the hook above is not told its config


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    if RUN in session.config.stash and not hasattr(session.config, "workerinput"):
        _RUNS.append(session.config.stash[RUN])


def pytest_internalerror(excrepr: object) -> None:
    for run in _RUNS[-1:]:  # under xdist the exit status alone does not tell (see the style notes on execnet)
        run.troubles.append(f"internal error: {str(excrepr).strip().splitlines()[-1][:200]}")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> Iterator[None]:
    run = session.config.stash.get(RUN, None)
    if run and not hasattr(session.config, "workerinput") and exitstatus != pytest.ExitCode.USAGE_ERROR:
        from pgconform.reports import write

        asked = session.config.stash[ASKED]
        stopped = bool(session.shouldfail) and session.testscollected > len(run.results)  # -x
        run.interrupted = exitstatus == pytest.ExitCode.INTERRUPTED or stopped
        if session.testscollected or exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
            narrow(run, session.config.option, session.config.args, session.testscollected, asked.drill)
        session.config.stash[DATABASES].finish(run)
        write(run, asked.out, asked.reports)
        if exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = run.status()[0]
    if databases := session.config.stash.get(DATABASES, None):
        databases.close()
    return (yield)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if (run := config.stash.get(RUN, None)) and run.finished and not hasattr(config, "workerinput"):
        from pgconform.reports.terminal import lines

        asked = config.stash[ASKED]
        for text, style in lines(run, full=config.option.tbstyle == "no", annotated="github" in asked.reports):
            terminalreporter.write_line(text, **dict.fromkeys(style.split(), True))
        terminalreporter.write_line(f"reports: {asked.out}")


def pytest_unconfigure(config: pytest.Config) -> None:
    if databases := config.stash.get(DATABASES, None):
        databases.close()
    _RUNS[:] = [run for run in _RUNS if run is not config.stash.get(RUN, None)]
