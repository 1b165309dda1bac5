"""One module for each command: ``add`` declares it, ``call`` carries it out and returns the exit status."""

from __future__ import annotations

from pgconform.commands import access, bench, build, explain, history, metrics, run, up

ALL = (run, access, metrics, history, bench, up, build, explain)
