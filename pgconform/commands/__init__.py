"""One module for each command: ``add`` declares it, ``call`` carries it out and returns the exit status."""

from __future__ import annotations

from pgconform.commands import access, bench, build, explain, history, init, metrics, run, up

ALL = (init, run, access, metrics, history, bench, up, build, explain)
