"""junit.xml: a suite for each section of a guide, a case for each check and subject."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING

from pgconform.guides import sections_of
from pgconform.judging import text
from pgconform.model import Verdict

if TYPE_CHECKING:
    from junit_xml import TestCase, TestSuite

    from pgconform.model import Result
    from pgconform.results import Run

# What XML 1.0 cannot hold: control characters, lone surrogates, two non-characters.
_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def clean(value: str) -> str:
    """The text with whatever XML cannot hold shown as an escape."""
    return _ILLEGAL.sub(lambda match: f"\\u{ord(match[0]):04x}", value)


def render(run: Run) -> str:
    """The run as JUnit XML. Names are unique; ``disabled``, which Jenkins' schema refuses, is left out."""
    from junit_xml import TestSuite, to_xml_report_string

    suites: dict[str, TestSuite] = {}
    for result in run.results:
        section = _section(run, result)
        if section not in suites:
            suites[section] = TestSuite(clean(section), timestamp=run.started.isoformat(timespec="seconds"))
        suites[section].test_cases.append(_case(run, result))
    if troubles := _troubles(run):
        suites["pgconform"] = TestSuite("pgconform", troubles)
    xml = to_xml_report_string([suites[name] for name in sorted(suites)], prettyprint=False)
    return re.sub(r' disabled="\d*"', "", xml)


def _section(run: Run, result: Result) -> str:
    """The guide's section that a check answers first, by the contract's guide."""
    guide = next((c.guide for c in run.contracts if c.name == result.contract), "")
    found = sections_of(guide, result.guide)
    return f"{result.contract}: {found[0] if found else 'other promises'}"


def _case(run: Run, result: Result) -> TestCase:
    from junit_xml import TestCase

    name = result.check + (f" [{result.subject}]" if result.subject else "")
    case = TestCase(
        clean(name), classname=clean(f"pgconform.{result.contract}"), elapsed_sec=Decimal(f"{result.seconds:.3f}"),
        allow_multiple_subelements=True,
    )  # fmt: skip
    case.stdout = clean("\n".join([
        f"[[PROPERTY|check={result.check}]]", f"[[PROPERTY|severity={result.severity}]]",
        f"[[PROPERTY|guide={','.join(result.guide)}]]", f"[[PROPERTY|verdict={result.verdict}]]",
        f"examined: {result.examined} ({result.looked_for})",
        *(f"waived: {finding.key}: {waiver}" for finding, waiver in result.waived),
    ]))  # fmt: skip
    if run.gates(result):
        summary = f"{result.check}: {len(result.findings)} finding(s)"
        case.add_failure_info(clean(summary), clean(text(result)), "finding")
    elif result.verdict is Verdict.BROKEN:
        case.add_error_info(clean(f"could not be verified: {result.reason}"), error_type="broken")
    elif result.verdict is Verdict.SKIPPED:
        case.add_skipped_info(clean(result.reason))
    return case


def _troubles(run: Run) -> list[TestCase]:
    """Cases for what no check can be blamed for: what was not asked, a lost target, an interruption, our own error."""
    from junit_xml import TestCase

    found = []
    if left := run.selected():
        case = TestCase("selection", classname="pgconform.run")
        case.add_skipped_info(clean(left))
        found.append(case)
    for number, trouble in enumerate(run.incomplete(), 1):
        case = TestCase(f"complete run {number}", classname="pgconform.run")
        case.add_error_info(clean(trouble), error_type="incomplete")
        found.append(case)
    return found
