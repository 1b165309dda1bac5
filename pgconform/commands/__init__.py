"""One module for each command: ``add`` declares it, ``call`` carries it out and returns the exit status."""

from __future__ import annotations

from pgconform.commands import (
    access,
    baseline,
    bench,
    build,
    compare,
    completion,
    explain,
    fleet,
    history,
    init,
    metrics,
    new,
    plan,
    reader,
    report,
    run,
    up,
)

ALL = (
    reader, init, plan, run, baseline, compare, report, fleet, access, bench, metrics, history, explain, up, build, new,
    completion,
)  # fmt: skip
