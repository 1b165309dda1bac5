"""Which rows a search may find, and what it is given besides the vector: by the contract's promise of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from pgconform.statements import Name, Statement, column, joined, statement, written
from pgconform.vector_kinds import least_similarity

if TYPE_CHECKING:
    from pgconform.checks import Evidence
    from pgconform.contract_vectors import Search
    from pgconform.identities import Identity
    from pgconform.subjects import Searching

FEW = 10  # rows asked for where the contract does not say how many are by default


def spec_of(search: Searching) -> Search:
    """The promise of how it searches."""
    assert search.promise.search, "only search functions are asked"
    return search.promise.search


def own_rows(search: Searching, evidence: Evidence, identity: Identity) -> Statement:
    """The condition under which row ``r`` is the identity's: its own, or everybody's."""
    from pgconform.probes.visibility import touchable

    if evidence.contract.scope(search.table, identity.role, "select") in ("shared", "all"):
        return statement("true")
    return touchable(evidence, search.table, identity, ("select",))


def searched(search: Searching, given: Mapping[str, object]) -> Statement:
    """The condition under which a call with these values looks at row ``r``, whoever's it is: the declared ``where``,
    what is ``visible``, and the ``filters`` that it sets."""
    spec = spec_of(search)
    wanted = [
        statement("{c}::text = {v}::text", c=column(name), v=given[argument])
        for argument, name in spec.filters.items()
        if given.get(argument) is not None
    ]
    wanted += [written(condition) for condition in (spec.where, search.visible) if condition]
    return joined(wanted, " and ") if wanted else statement("true")


def arguments(search: Searching, evidence: Evidence, whose: Statement) -> dict[str, object]:
    """What every call gives besides vector and tenant: the declared values, what a threshold and a number without a
    default must be given, and for filters the values that most of those rows ``r`` have. Raises NotVerified."""
    spec = spec_of(search)
    required = {a.name for a in search.promise.arguments if a.default is None}
    found: dict[str, object] = dict(spec.given)
    if spec.threshold in required:
        low = least_similarity(search.vector.metric)
        found[spec.threshold] = low if spec.default_threshold is None else spec.default_threshold
    if spec.count in required:
        found[spec.count] = spec.default_count or FEW
    return found | _filtered(search, evidence, whose) if spec.filters else found


def _filtered(search: Searching, evidence: Evidence, whose: Statement) -> dict[str, object]:
    spec = spec_of(search)
    question = statement(
        "select {values} from {t} as r where {whose} and {searched} and {given}"
        " group by {columns} order by pg_catalog.count(*) desc, {columns} limit 1",
        values=joined(statement("{c}::text", c=column(name)) for name in spec.filters.values()),
        columns=joined(column(name) for name in spec.filters.values()), t=Name.of(search.table), whose=whose,
        searched=searched(search, {}), given=_not_null(spec.filters.values()),
    )  # fmt: skip
    rows = evidence.database.remembered(question, f"choosing values for the filters of {search.function}")
    return dict(zip(spec.filters, rows[0] if rows else [None] * len(spec.filters), strict=True))


def _not_null(names: Iterable[str]) -> Statement:
    return joined((statement("{c} is not null", c=column(name)) for name in names), " and ")
