"""Mistakes in a run's command line, which pytest answers with its own usage and paths, in one line of ours."""

from __future__ import annotations

import difflib
import re
from collections.abc import Generator, Iterable
from typing import Any

import pytest

# Those of pytest and its plugins that a run's user is likely to mean.
PYTESTS = (
    "--collect-only", "--dist", "--durations", "--exitfirst", "--failed-first", "--last-failed", "--lf", "--maxfail",
    "--numprocesses", "--quiet", "--stepwise", "--verbose",
)  # fmt: skip


class OneLine:
    """A plugin that shortens what pytest says of its command line; ``options`` are our own."""

    def __init__(self, options: Iterable[str]) -> None:
        self.options = list(options)

    @pytest.hookimpl(wrapper=True)
    def pytest_cmdline_parse(self) -> Generator[None, Any, Any]:
        try:
            return (yield)
        except pytest.UsageError as error:
            raise pytest.UsageError(said(str(error), self.options)) from None


def said(text: str, options: list[str]) -> str:
    """The error without usage and paths, and no value of an option, since it may be a secret."""
    found = re.search(r"^\S.*?: error: (.*)$", text, re.M)
    if not found:
        return text
    unknown = re.match(r"unrecognized arguments: (.*)", found[1])
    words = [word.partition("=")[0] for word in unknown[1].split() if word.startswith("-")] if unknown else []
    if not words:
        return f"{'unknown arguments' if unknown else found[1]}; see pgconform run --help"
    if words[0] in ("-n", "--numprocesses", "--dist"):
        return f"{words[0]} needs pytest-xdist: pip install 'pgconform[parallel]'"
    known = [*options, *PYTESTS]
    near = ["--target"] if words[0] == "--dsn" else difflib.get_close_matches(words[0], known, 3, 0.5)
    title, listed = ("nearest", near) if near else ("known", options)
    return f"unknown option {words[0]}; {title}: {', '.join(listed)}; see pgconform run --help"
