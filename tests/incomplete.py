"""What every report of a run that is not complete has to say."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from html import unescape
from pathlib import Path
from typing import Any

import jsonschema
from pgconform.reports import ALWAYS, FILES
from prometheus_client.parser import text_string_to_metric_families

from pgconform.asked import REPORTS

EVERY = f"--report={','.join(REPORTS)}"
SCHEMA = Path(__file__).parent / "schemas" / "sarif-2.1.0-rtm.5.json"
CUT = "the run was cut short"


def told_everywhere(out: Path, said: str) -> dict[str, Any]:
    """Asserts that each report, of every format, is valid and says so, or that its run was cut short, as those say that
    are written when a run begins. Returns findings.json."""
    text = {name: (out / FILES[name]).read_text(encoding="utf-8") for name in (*ALWAYS, *REPORTS)}
    found: dict[str, Any] = json.loads(text["findings"])
    assert found["complete"] is False
    assert found["status"] not in (0, 1)
    sarif = json.loads(text["sarif"])
    jsonschema.Draft4Validator(json.loads(SCHEMA.read_text(encoding="utf-8"))).validate(sarif)
    (invocation,) = sarif["runs"][0]["invocations"]
    assert invocation["executionSuccessful"] is False
    notes = [note["message"]["text"] for note in invocation["toolExecutionNotifications"] if note["level"] == "error"]
    blockers = [issue["description"] for issue in json.loads(text["gitlab"]) if issue["severity"] == "blocker"]
    errors = [error.attrib["message"] for error in ET.fromstring(text["junit"].encode()).iter("error")]
    page = unescape(text["html"])
    assert page.rstrip().endswith("</html>")
    alerts = re.findall(r'<p class="warn" role="alert">(.*?)</p>', page)
    lines = {name: re.sub(r"\\(.)", r"\1", text[name]).splitlines() for name in ("markdown", "github")}
    whole = [found["reason"], found["lost"], found["mistake"], *found["troubles"]]
    told = {"findings": whole, "sarif": notes, "gitlab": blockers, "junit": errors, "html": alerts, **lines}
    for name, texts in told.items():
        assert any(said in each or CUT in each for each in texts), (name, said, texts)
    gauges = {s.name: s.value for f in text_string_to_metric_families(text["prometheus"]) for s in f.samples}
    assert gauges["pgconform_run_complete"] == 0
    assert gauges["pgconform_run_status"] not in (0, 1)
    json.loads(text["catalog"])
    assert not list(out.glob(".*.*")), "no draft is left"
    return found
