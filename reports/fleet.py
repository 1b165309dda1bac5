"""fleet.html and fleet-report.json: what became of every target of a fleet, also of those that never answered."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from pgconform import __version__
from pgconform.fleet import WORST, Answer, status

from .plain import plain

_TEMPLATES = Path(__file__).with_name("templates")
_WORDS = {
    0: "conforms", 1: "findings", 2: "interrupted", 3: "not verified", 4: "usage error", 5: "nothing examined",
    75: "lost",
}  # fmt: skip


def word(answer: Answer) -> str:
    """The status in words."""
    return _WORDS.get(answer.status, f"status {answer.status}")


def line(answer: Answer) -> str:
    """One target on one line of the terminal."""
    again = f", attempt {answer.attempts}" if answer.attempts > 1 else ""
    return f"{answer.name}: {word(answer)}: {plain(answer.reason)} ({answer.seconds:.0f} s{again})"


def write(answers: Sequence[Answer], out: Path, folders: Sequence[Path]) -> None:
    """Both files, whole or not at all; links lead to the targets' own reports in ``folders``. Raises OSError."""
    out.mkdir(parents=True, exist_ok=True)
    for name, text in (("fleet-report.json", as_json(answers)), ("fleet.html", as_html(answers, out, folders))):
        draft = out / f".{name}.{os.getpid()}"
        draft.write_bytes(text.encode("utf-8", "backslashreplace"))
        draft.replace(out / name)


def as_json(answers: Sequence[Answer]) -> str:
    """Every target with status, reason, counts by verdict and findings by check."""
    told = [
        {"name": a.name, "status": a.status, "reason": a.reason, "counts": a.counts, "findings": a.failed,
         "seconds": a.seconds, "attempts": a.attempts}
        for a in answers
    ]  # fmt: skip
    return json.dumps({"format": 1, "status": status(answers), "targets": told}, indent=1) + "\n"


def as_html(answers: Sequence[Answer], out: Path, folders: Sequence[Path]) -> str:
    """One page without any network: the targets, the worst first, and which check failed where."""
    style = (_TEMPLATES / "report.css").read_text(encoding="utf-8")
    good = sum(answer.status == 0 for answer in answers)
    mood = "good" if good == len(answers) else "bad"
    body = "\n".join([*_targets(answers, out, folders), *_matrix(answers)])
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="pgconform {__version__}">
<title>{good} of {len(answers)} targets conform</title>
<style>{style}</style>
</head>
<body><main>
<div class="verdict {mood}"><h1>{good} of {len(answers)} targets conform</h1></div>
{body}
</main></body>
</html>
"""


def _text(value: object) -> str:
    return escape(plain(value))


def _rank(answer: Answer) -> tuple[int, str]:
    return (WORST.index(answer.status) if answer.status in WORST else 0), answer.name


def _targets(answers: Sequence[Answer], out: Path, folders: Sequence[Path]) -> Iterator[str]:
    yield "<h2>Targets</h2><table><tr><th>target<th>verdict<th>why<th>findings<th>checks<th>seconds</tr>"
    for answer in sorted(answers, key=_rank):
        pages = [folder / "targets" / answer.name / "report.html" for folder in folders]
        page = next((page for page in pages if page.exists()), None)
        name = _text(answer.name)
        if page:
            link = Path(os.path.relpath(page.absolute(), out.absolute())).as_posix()
            name = f'<a href="{_text(quote(link))}">{name}</a>'
        counts = ", ".join(f"{number} {verdict}" for verdict, number in answer.counts.items())
        again = f" (attempt {answer.attempts})" if answer.attempts > 1 else ""
        cells = (name, _text(word(answer)), _text(answer.reason), sum(answer.failed.values()), _text(counts))
        yield f'<tr><td>{"<td>".join(map(str, cells))}<td class="n">{answer.seconds:.0f}{again}</tr>'
    yield "</table>"


def _matrix(answers: Sequence[Answer]) -> Iterator[str]:
    """Findings by check and target, where there are any."""
    checks = sorted({check for answer in answers for check in answer.failed})
    failing = [answer for answer in answers if answer.failed]
    if checks:
        heads = "".join(f"<th>{_text(answer.name)}" for answer in failing)
        yield f"<h2>Findings by check</h2><table><tr><th>check{heads}</tr>"
        for check in checks:
            cells = "".join(f'<td class="n">{answer.failed.get(check, "")}' for answer in failing)
            yield f"<tr><td>{_text(check)}{cells}</tr>"
        yield "</table>"
