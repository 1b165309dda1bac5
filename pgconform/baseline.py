"""A baseline: the findings of one run, which later runs know and do not fail for. Only what is new gates."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pgconform.model import Mistake, Result, Verdict

FORMAT = 1  # raised when a key changes its meaning or goes away
NOT_KEPT = "waivers-current"  # a waiver that has ended is to be renewed or dropped, not forgotten
_AGAIN = "write one with: pgconform baseline"


@dataclass(frozen=True)
class Baseline:
    """The keys of known findings, by contract and check; ``date`` is the day of the run that found them."""

    date: str
    keys: dict[tuple[str, str], frozenset[str]]

    def applied(self, result: Result) -> Result:
        """The result with known findings waived, so that it fails for new ones only."""
        known = self.keys.get((result.contract, result.check), frozenset())
        told = f"in the baseline of {self.date}"
        waived = tuple((finding, told) for finding in result.findings if finding.key in known)
        if not waived:
            return result
        fresh = tuple(finding for finding in result.findings if finding.key not in known)
        verdict = Verdict.WAIVED if result.verdict is Verdict.FAILED and not fresh else result.verdict
        return replace(result, verdict=verdict, findings=fresh, waived=(*result.waived, *waived))

    def gone(self, results: Iterable[Result]) -> int:
        """How many known findings are found no more, of checks that ran and could be verified throughout."""
        seen: dict[tuple[str, str], set[str]] = {}
        broken = set()
        for result in results:
            case = (result.contract, result.check)
            seen.setdefault(case, set()).update(f.key for f in (*result.findings, *(f for f, _ in result.waived)))
            if result.verdict in (Verdict.BROKEN, Verdict.SKIPPED) or result.unverified:
                broken.add(case)
        return sum(len(self.keys.get(case, frozenset()) - found) for case, found in seen.items() if case not in broken)


def read(path: Path) -> Baseline:
    """The baseline in the file. Raises Mistake."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        if told["kind"] != "pgconform baseline" or told["format"] != FORMAT:
            raise ValueError
        keys = {
            (str(contract), str(check)): frozenset(map(str, found))
            for contract, checks in told["findings"].items()
            for check, found in checks.items()
        }
        return Baseline(str(told["date"]), keys)
    except OSError as error:
        raise Mistake(f"--baseline={path}: cannot be read: {error.strerror}; {_AGAIN}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Mistake(f"--baseline={path}: not a baseline of format {FORMAT}; {_AGAIN}") from None


def written(results: Iterable[Result], date: str) -> str:
    """The text of the baseline that these results make; a key a line, so that a review shows what was accepted.

    Findings that an earlier baseline knew stay; those that a contract waives are left to it.
    """
    found: dict[str, dict[str, Any]] = {}
    for result in results:
        known = [finding.key for finding, told in result.waived if told.startswith("in the baseline of ")]
        keys = {*(finding.key for finding in result.findings), *known}
        if keys and result.check != NOT_KEPT:
            checks = found.setdefault(result.contract, {})
            checks[result.check] = sorted({*checks.get(result.check, ()), *keys})
    document = {"kind": "pgconform baseline", "format": FORMAT, "date": date, "findings": found}
    return json.dumps(document, indent=1, sort_keys=True) + "\n"
