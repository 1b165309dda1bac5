"""One module for each command: ``add`` declares it, ``call`` carries it out and returns the exit status."""

from __future__ import annotations

from pgconform.commands import (
    access,
    bench,
    build,
    completion,
    explain,
    history,
    init,
    metrics,
    new,
    plan,
    run,
    up,
)

ALL = (init, plan, run, access, bench, metrics, history, explain, up, build, new, completion)
