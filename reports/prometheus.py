"""pgconform.prom: the run for the textfile collector of Prometheus' node exporter."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from pgconform.model import Verdict

from .plain import plain

if TYPE_CHECKING:
    from pgconform.results import Run


def render(run: Run) -> str:
    """The run's status, counts, findings by check, figures and ends of waivers as gauges; times in Unix seconds."""
    from prometheus_client import CollectorRegistry, Gauge, generate_latest

    registry = CollectorRegistry()

    def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
        return Gauge(f"pgconform_{name}", text, labels, registry=registry)

    gauge("run_timestamp_seconds", "when the run began").set(run.started.timestamp())
    ended = run.finished or run.started
    gauge("run_duration_seconds", "what the run took").set((ended - run.started).total_seconds())
    gauge("run_complete", "1 where all that was asked for was judged").set(not run.incomplete())
    gauge("run_cases_not_asked", "cases that options such as -m and -k left out").set(run.unasked)
    gauge("run_status", "exit status: 0 conforms").set(run.status()[0])
    checks = gauge("checks", "judged cases, by verdict", ("contract", "verdict"))
    for contract in run.contracts:
        for verdict in Verdict:
            number = sum(r.contract == contract.name and r.verdict is verdict for r in run.results)
            checks.labels(contract.name, str(verdict)).set(number)
    findings = gauge("findings", "findings, by check", ("contract", "check", "severity"))
    figures = gauge("figure", "what checks measured", ("contract", "name", "unit"))
    for result in run.results:
        findings.labels(result.contract, result.check, str(result.severity)).inc(len(result.findings))
        for figure in result.figures:
            figures.labels(result.contract, plain(figure.name), plain(figure.unit)).set(figure.value)
    ends = gauge("waiver_end_timestamp_seconds", "the end of a waiver's last day", ("contract", "check", "object"))
    for contract in run.contracts:
        for waiver in contract.waivers:
            end = datetime.datetime.combine(waiver.until, datetime.time.max, datetime.UTC).timestamp()
            ends.labels(contract.name, waiver.check, plain(waiver.object)).set(end)
    return str(generate_latest(registry).decode())
