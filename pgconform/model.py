"""The words of a result: finding, verdict, result. Standard library only, no database, no pytest."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


class Severity(StrEnum):
    """How much a finding matters: ``must`` gates a deployment, ``should`` is advice."""

    MUST = "must"
    SHOULD = "should"


# What --fail-on takes: the severities of findings that fail a run.
FAIL_ON: dict[str, tuple[Severity, ...]] = {
    "must": (Severity.MUST,), "should": (Severity.MUST, Severity.SHOULD), "never": (),
}  # fmt: skip


class Verdict(StrEnum):
    """What a check says of a database; ``broken`` means that it could not be verified."""

    PASSED = "passed"
    FAILED = "failed"
    WAIVED = "waived"
    SKIPPED = "skipped"
    BROKEN = "broken"


class Mistake(ValueError):
    """What the caller typed or wrote cannot be used: one line with what, where, accepted values, next step."""


def unwritable(what: object, error: OSError, option: str = "--out") -> str:
    """What is told where a file, or one to a directory, cannot be written; the option names another place."""
    return f"cannot write {what}: {error.strerror}; choose another with {option}="


class NotVerified(Exception):
    """A question to the database got no answer: the text says which, why, and what to grant or change.

    Raised by probes, turned into the verdict ``broken`` by the evaluation. Never holds row content. ``state`` is
    the server's SQLSTATE where the server refused, ``said`` what it said, without our advice.
    """

    def __init__(self, text: str, state: str = "", said: str = "") -> None:
        super().__init__(text)
        self.state = state
        self.said = said


class Nothing(Exception):
    """There was nothing to examine: the text says what is empty. Never a pass."""


class TargetLost(Exception):
    """The server went away, or never was there: exit status 75, so that CI may retry just that."""


# How often the guides have a check run; what -m takes.
CADENCES = ("gate", "daily", "weekly", "monthly", "quarterly")
# What --drill takes.
DRILLS = "restore, restore:schema=NAME, restore:tenant=KEY or none"
# What --effort takes: attempts that are drawn for each road, beside one for each session.
EFFORTS = {"quick": 0, "default": 8, "nightly": 200}


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard to attack: how many attempts are drawn for each road, and from which seed."""

    examples: int = EFFORTS["default"]
    seed: int = 1

    @property
    def level(self) -> str:
        """What --effort was."""
        return next(level for level, examples in EFFORTS.items() if examples == self.examples)

    @classmethod
    def of(cls, level: str, seed: str) -> Effort:
        """From what was typed. Raises Mistake."""
        if level not in EFFORTS:
            raise Mistake(f"unknown effort {level!r}; use one of {', '.join(EFFORTS)}")
        if not seed.isascii() or not seed.isdigit():
            raise Mistake(f"the seed is a whole number, not {seed!r}")
        return cls(EFFORTS[level], int(seed))


@dataclass(frozen=True, slots=True)
class Drill:
    """Which drills on copies run: all of them, or the restore drill alone, of one schema or one tenant."""

    schema: str = ""
    tenant: str = ""

    @classmethod
    def of(cls, text: str) -> Drill | None:
        """From what was typed; None where nothing was asked for. Raises Mistake."""
        if text in ("", "none"):
            return None
        name, _, part = text.partition(":")
        kind, _, value = part.partition("=")
        if name != "restore":
            raise Mistake(f"unknown drill {name!r}; use {DRILLS}")
        if kind not in ("", "schema", "tenant"):
            raise Mistake(f"unknown part {kind!r} of the restore drill; use {DRILLS}")
        if text != name and not value:
            raise Mistake(f"--drill={text} names no {kind or 'part'}; use {DRILLS}")
        return cls(**{kind: value}) if kind else cls()

    @property
    def narrowed(self) -> bool:
        return bool(self.schema or self.tenant)

    def runs(self, check: str) -> bool:
        """True for all drills on copies, where no part is named."""
        return not self.narrowed or check == "restore-complete"


@dataclass(frozen=True, slots=True)
class Finding:
    """One object that breaks one promise.

    ``object`` is the quoted, qualified name; ``detail`` tells several findings on one object apart (a role
    and command, a column); ``remedy`` is SQL that can be run as it is; ``destroys`` marks a remedy that
    deletes data. ``rows`` is SQL that shows what was judged: the rows, or the object as the catalogue has it.
    ``count`` is the number of rows, ``keys`` are digests of a few of their keys, ``tenants`` how many belong to whom,
    by digests, too. ``script`` is SQL for psql that shows what a session sees or did, and undoes it. ``value`` was
    measured where at most, or at least, ``limit`` is allowed, both in ``unit``. ``owner`` is whom the contract names.
    """

    object: str
    observed: str
    remedy: str
    detail: str = ""
    destroys: bool = False
    rows: str = ""
    count: int | None = None
    script: str = ""
    keys: tuple[str, ...] = ()
    tenants: tuple[tuple[str, int], ...] = ()
    value: float | None = None
    limit: float | None = None
    unit: str = ""
    owner: str = ""

    def against(self, value: float, limit: float, unit: str) -> Finding:
        """The same finding with what was measured, and the limit that it was judged by."""
        return replace(self, value=value, limit=limit, unit=unit)

    @property
    def measured(self) -> str:
        """The value against its limit, for people; '' where nothing was measured."""
        if self.value is None or self.limit is None:
            return ""
        number = "{:.4g}%" if self.unit == "share" else "{:,.6g}"
        factor, unit = (100, "") if self.unit == "share" else (1, self.unit)
        value, limit = (number.format(each * factor) for each in (self.value, self.limit))
        return f"{value} against {limit} {unit}".rstrip()

    @property
    def told(self) -> str:
        """What was observed, and whose business it is, on one line."""
        return f"{self.observed} (owner: {self.owner})" if self.owner else self.observed

    @property
    def key(self) -> str:
        """Stable over runs: names only, no figures."""
        return f"{self.object}: {self.detail}" if self.detail else self.object


@dataclass(frozen=True, slots=True)
class Figure:
    """A value that a check measured, kept in the history whatever the verdict. ``name`` is stable over runs."""

    name: str
    value: float
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """What one check said of one contract's database.

    ``subject`` is what the contract names, where a check is judged for each; ``examined`` counts the objects looked
    at, ``looked_for`` says what they are; ``reason`` explains a skipped or broken verdict; ``accepted`` says that the
    contract allows the skip; ``unverified`` pairs each subject that could not be verified with the
    reason; ``waived`` pairs each waived finding with the waiver's text; ``attempts`` counts what a drill tried;
    ``figures`` are what was measured.
    """

    check: str
    contract: str
    verdict: Verdict
    title: str = ""
    subject: str = ""
    why: str = ""
    guide: tuple[str, ...] = ()
    severity: Severity = Severity.MUST
    examined: int = 0
    looked_for: str = ""
    findings: tuple[Finding, ...] = ()
    waived: tuple[tuple[Finding, str], ...] = ()
    reason: str = ""
    accepted: bool = False
    unverified: tuple[tuple[str, str], ...] = ()
    seconds: float = 0.0
    attempts: int = 0
    figures: tuple[Figure, ...] = ()

    @property
    def gates(self) -> bool:
        """True when the findings break a MUST; those of a SHOULD are advice. Whether they fail a run: ``Run.gates``."""
        return self.verdict is Verdict.FAILED and self.severity is Severity.MUST
