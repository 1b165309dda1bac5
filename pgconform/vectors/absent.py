"""What a benchmark should have measured and did not: searches that are gone, and cases that only the baseline has."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from pgconform.subjects_queries import all_searches
from pgconform.vectors import cases
from pgconform.vectors.gates import Problem

if TYPE_CHECKING:
    from pgconform.checks import Evidence
    from pgconform.vectors.baseline import Baseline
    from pgconform.vectors.measuring import Measured

KIND = "absent"


def lost(evidence: Evidence, before: Baseline | None) -> Iterator[Problem]:
    """Declared searches whose function or vectors do not exist, and searches of the baseline that are not declared."""
    declared = list(all_searches(evidence.contract))
    there = {search.function for search in cases.every(evidence)}
    for search in declared:
        exists = search.sql or evidence.catalog.functions_named(search.function)
        if search.function not in there and exists:
            yield Problem(search.function, KIND, f"{search.table} has no vectors {search.column}: nothing to search")
        elif search.function not in there:
            yield Problem(search.function, KIND, "the function does not exist", "", search.recreate(evidence.catalog))
    known = {search.function for search in declared}
    for function in sorted({function_of(name) for name in (before.cases if before else ())} - known):
        meant = "-- where that is meant, make a baseline anew: pgconform bench --update-baseline"
        yield Problem(function, KIND, "the baseline has it, and the contract declares no such search", "", meant)


def unmatched(before: Baseline, now: Collection[Measured], left: Collection[str] = ()) -> list[str]:
    """Cases that are compared with nothing, of searches that were measured, and why: of the baseline, those ``left``
    for lack of time apart, and those that it lacks."""
    measured = {name: found for found in now for name in names(found)}
    told = []
    for base in before.cases.values():
        found = [measured[name] for name in names(base) if name in measured]
        if found and all(one.asked != base.asked for one in found):
            told.append(f"{base.case}: asked for {base.asked} rows then, for {found[0].asked} now")
        elif not found and not {*names(base)} & {*left} and function_of(base.case) in map(function_of, measured):
            told.append(f"{base.case}: nobody owns such a share now")
    return told + [f"{one.case}: the baseline has no such case" for one in now if like(one, before) is None]


def like(found: Measured, before: Baseline) -> Measured | None:
    """The baseline's measurement of the same case, by name, or by another share that one of the two stands for."""
    known = {name: base for base in before.cases.values() for name in names(base)[1:]} | dict(before.cases)
    return next((known[name] for name in names(found) if name in known), None)


def names(found: Measured) -> list[str]:
    """What the case is called, and what it could be called."""
    return [found.case, *(f"{function_of(found.case)}, {share}" for share in found.also)]


def function_of(case: str) -> str:
    """The function in a case's name."""
    return case.rpartition(", ")[0]
