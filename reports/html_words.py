"""Words and names that the parts of report.html share."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING
from urllib.parse import quote

from pgconform.model import Verdict

from .plain import plain

if TYPE_CHECKING:
    from pgconform.model import Result

# The kinds of results, what a reader acts on first, with the titles of their sections.
OPEN = {
    "failed": "Failures", "broken": "Not verified", "unexamined": "Not examined", "advice": "Advice",
    "waived": "Waived",
}  # fmt: skip
FOLDED = {"skipped": "Skipped", "passed": "Passed"}
SPOKEN = {"broken": "not verified", "unexamined": "not examined"}  # where the kind is no word


def text(value: object) -> str:
    """Escaped; what no page should hold shows as U+FFFD, a lone surrogate as a question mark."""
    return escape(plain(value))


def kind(result: Result) -> str:
    """Advice is a failure that fails nothing; a skip that nobody accepted is no ordinary one."""
    if result.verdict is Verdict.SKIPPED and not result.accepted:
        return "unexamined"
    return "advice" if result.verdict is Verdict.FAILED and not result.gates else str(result.verdict)


def heading(slug: str, title: str) -> str:
    """A heading of the page's contents, which are made out of these."""
    return f'<h2 id="s-{slug}">{text(title)}</h2>'


def identity(result: Result) -> str:
    """The id of the case in the page."""
    return "/".join(filter(None, (result.contract, result.check, "_".join(result.subject.split()))))


def link(result: Result) -> str:
    """Leads to the case, without '#'."""
    return text(quote(identity(result)))
