"""What a run was asked for, made out of what was typed. Never talks to pytest."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgconform.discreet import discreet
from pgconform.model import CADENCES, DRILLS, FAIL_ON, Drill, Effort, Mistake, Result, TargetLost, Verdict

if TYPE_CHECKING:
    from pgconform.baseline import Baseline
    from pgconform.checks import Check
    from pgconform.contract import Contract
    from pgconform.results import Run
    from pgconform.session import Databases

# Reports besides those that every run writes.
REPORTS = ("sarif", "github", "gitlab", "markdown", "prometheus")

OPTIONS = {
    "contract": "contract to check: a bundled one's name, or a TOML file (default: all bundled ones)",
    "target": "where the databases are: embedded[:16|18], container[:IMAGE], live[:URI] (default: embedded)",
    "prepare": "shell command that fills an empty database on an embedded or container target, at PGC_DSN",
    "effort": "how hard to attack: quick, default or nightly",
    "seed": "what the attacks are drawn from (default: 1)",
    "drill": f"drills that a live target is to undergo, which read it and write elsewhere: {DRILLS} (default)",
    "out": "directory of the reports (default: reports/out)",
    "report": f"reports besides findings.json, junit.xml and report.html, by commas: {', '.join(REPORTS)}",
    "fail_on": "what fails a run: must (default), should (advice, too) or never (no finding does)",
    "baseline": "file of known findings, which do not fail the run; pgconform baseline writes it",
    "history": "directory where runs are recorded, or none (default: history, beside that of the reports)",
}  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """What a run was asked for besides its contracts."""

    target: str
    prepare: str
    effort: Effort
    out: Path
    history: Path | None
    drill: Drill | None  # drills on copies run, whatever the target, but no others than these
    files: tuple[Path, ...]  # of the contracts
    reports: tuple[str, ...]
    fail_on: str
    baseline: Baseline | None

    @classmethod
    def of(cls, given: Mapping[str, str]) -> Asked:
        """From what was typed, '' where nothing was. Raises Mistake."""
        from pgconform.baseline import read
        from pgconform.reports import ALWAYS

        out = Path(given["out"] or "reports/out")
        effort = Effort.of(given["effort"] or "default", given["seed"] or "1")
        history = None if given["history"] == "none" else Path(given["history"] or out.parent / "history")
        fail_on = given["fail_on"] or "must"
        if fail_on not in FAIL_ON:
            raise Mistake(f"--fail-on={fail_on}: use one of {', '.join(FAIL_ON)}")
        baseline = read(Path(given["baseline"])) if given["baseline"] else None
        contracts, reports = tuple(files(given["contract"])), (*ALWAYS, *reports_of(given["report"]))
        target, drill = given["target"] or "embedded", Drill.of(given["drill"])
        return cls(target, given["prepare"], effort, out, history, drill, contracts, reports, fail_on, baseline)

    def databases(self, run: Run) -> Databases:
        """The run's databases, not yet opened."""
        from pgconform.session import Databases

        return Databases(run.started, self.effort, self.history, self.drill, self.prepare)

    def fails(self, result: Result) -> bool:
        """True where the case of pytest that carries the result is to fail."""
        gates = result.verdict is Verdict.FAILED and result.severity in FAIL_ON[self.fail_on]
        return gates or result.verdict is Verdict.BROKEN

    def begun(self, contracts: Sequence[Contract], own: bool) -> Run:
        """The run, about to begin. Where it is ours, reports say that it has not finished: what ends it by force leaves
        these. Raises Mistake where they cannot be written."""
        from pgconform.reports import write
        from pgconform.results import Run

        named = dict(zip((contract.name for contract in contracts), self.files, strict=True))
        run = Run(
            tuple(contracts), effort=self.effort, files=named, fail_on=self.fail_on, baseline=self.baseline
        )  # fmt: skip
        if own:
            write(run, self.out, self.reports)
            if run.troubles:
                raise Mistake(run.troubles[0])
        return run

    @contextmanager
    def told(self, run: Run) -> Iterator[None]:
        """Has the reports say why the databases cannot be opened in the block: nothing is judged then."""
        from pgconform.reports import write

        try:
            yield
        except (Mistake, TargetLost) as error:
            if isinstance(error, TargetLost):
                run.lost = discreet(str(error))
            else:
                run.mistake = discreet(str(error))
            write(run, self.out, self.reports)
            raise


# Options of pytest that leave out cases.
_VALUED = {"-m": "markexpr", "-k": "keyword"}
_FLAGS = {"--lf": "lf", "--sw": "stepwise", "--deselect": "deselect", "--ignore": "ignore"}


def reports_of(names: str, known: Sequence[str] = REPORTS) -> tuple[str, ...]:
    """The reports that are named, separated by commas, each once. Raises Mistake."""
    found = tuple(dict.fromkeys(name for part in names.split(",") if (name := part.strip())))
    if unknown := [name for name in found if name not in known]:
        raise Mistake(f"unknown report {unknown[0]!r}; use one or more of {', '.join(known)}")
    return found


def files(names: str) -> list[Path]:
    """The files of the contracts that are named, separated by commas; of all bundled ones for ''.

    Raises ContractError.
    """
    from pgconform.contract_file import bundled, resolve

    return [resolve(name) for name in (names.split(",") if names else sorted(bundled()))]


def chosen(names: str) -> list[Contract]:
    """The contracts of those files. Raises ContractError."""
    from pgconform.catalogue_of_checks import load as all_checks
    from pgconform.contract_file import ContractError, load
    from pgconform.contract_words import hint

    contracts = [load(path) for path in files(names)]
    for contract in contracts:
        named = [("skips", name.partition(":")[0]) for name in contract.skips]
        for section, name in [*named, *(("waivers", waiver.check) for waiver in contract.waivers)]:
            if name not in (known := all_checks()):
                raise ContractError(f"contract {contract.name}: [{section}] {name}: no such check{hint(name, known)}")
    return contracts


def narrow(run: Run, option: argparse.Namespace, arguments: Iterable[str], collected: int, drill: Drill | None) -> None:
    """Tells the run how many cases were left out, and by which of pytest's options and paths; that all of a drill were
    that somebody asked for is a trouble."""
    from pgconform.catalogue_of_checks import load

    drills = {check.id for check in load().values() if "copies" in check.asks and drill and drill.runs(check.id)}
    if drills and collected and drills.isdisjoint(result.check for result in run.results):
        told = f"--drill names drills, and {_selection(option, arguments)} leaves all of them out"
        run.troubles.append(f"{told}; ask for them in a run of their own, as by -k restore-complete")
    named = [check.subjects(c) if check.by_contract else [] for c in run.contracts for check in load().values()]
    run.unasked = max(0, sum(max(1, len(subjects)) for subjects in named) - collected)
    if run.unasked:
        run.selection = _selection(option, arguments)


def _selection(option: argparse.Namespace, arguments: Iterable[str]) -> str:
    """As it is typed, but for what may name places of this machine."""
    words = [f"{flag} {shlex.quote(v)}" for flag, name in _VALUED.items() if (v := getattr(option, name, ""))]
    words += [flag for flag, name in _FLAGS.items() if getattr(option, name, None)]
    below = (re.fullmatch(r".*\bsuites[/.](.+)", argument) for argument in arguments)
    return " ".join([*words, *(match[1] for match in below if match)]) or "other options of pytest"


def scheduled(expression: str) -> None:
    """Raises Mistake where pytest's -m names a schedule that there is not: it would select nothing."""
    unknown = set(re.findall(r"\w+", expression)) - {*CADENCES, "and", "or", "not"}
    if unknown:
        raise Mistake(f"no schedule {', '.join(sorted(unknown))}; -m takes {', '.join(CADENCES)}")


def names_suites(arguments: Iterable[str]) -> bool:
    """True where one of pytest's arguments is a suite of checks."""
    homes = {Path(__file__).parent.parent / "suites", Path(__file__).parent / "suites"}
    for argument in arguments:
        path = argument.partition("::")[0]
        if path.startswith("pgconform.suites") or homes & {Path(path).resolve(), *Path(path).resolve().parents}:
            return True
    return False


def arrange(cases: list[Any]) -> None:
    """Has ``-k`` take what reports print, and what is only read judged before anything is attacked: attempts are
    undone, but leave dead rows behind, for which the planner may choose another way to search."""
    checks: dict[Any, Check] = {}
    for case in cases:
        if check := getattr(getattr(case, "function", None), "pgconform_check", None):
            case.extra_keyword_matches.add(check.id)
            checks[case] = check
    cases.sort(key=lambda case: case in checks and checks[case].drill)
