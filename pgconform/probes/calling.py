"""How a search is called: with the arguments of an honest caller, of a strict one, and of one who wants all."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from pgconform.parameters import pieces
from pgconform.probes.findable import FEW, arguments, own_rows, spec_of
from pgconform.statements import Name, Once, Statement, joined, statement
from pgconform.vector_kinds import home, least_similarity

if TYPE_CHECKING:
    from pgconform.checks import Evidence
    from pgconform.contract_vectors import Vector
    from pgconform.identities import Identity
    from pgconform.subjects import Searching

# halfvec keeps 11 bits of each component: how far a similarity may be from the exact one.
TOLERANCE = 0.002
# More results than an index that looks at a few nearest lists can give a small tenant.
MANY = 20


def honest_call(search: Searching, evidence: Evidence, identity: Identity, vector: str) -> Statement:
    """The search as that caller makes it, the own tenant named where one can be. Raises NotVerified."""
    return call(search, vector, next(ways(search, evidence, identity))[1])


def ways(search: Searching, evidence: Evidence, identity: Identity) -> Iterator[tuple[str, dict[str, object]]]:
    """Arguments as an honest caller gives them: the own tenant named, and left out where that is allowed."""
    spec = spec_of(search)
    least = arguments(search, evidence, own_rows(search, evidence, identity))
    tenant = min(identity.tenants, default=None)
    if search.sql:
        mine = least | ({spec.tenant: tenant} if spec.tenant else {})
        for asked, count in (("as declared", spec.default_count or FEW), ("many", MANY))[: 2 if spec.count else 1]:
            yield asked, {**mine, spec.count: count} if spec.count else mine
        return
    named = least | ({spec.tenant: tenant} if spec.tenant and tenant is not None else {})
    if named != least:
        yield "own tenant", named
    if complete(search, least):
        yield "defaults", least
    if spec.count and spec.threshold:
        yield "many, however far", {**named, spec.threshold: farthest(search), spec.count: MANY}


def stricter(
    search: Searching, evidence: Evidence, identity: Identity, exact: Sequence[float]
) -> Iterator[tuple[str, dict[str, object]]]:
    """Arguments that ask for less than the declared defaults give: one row, and rows over a higher threshold, in the
    widest gap between the ``exact`` similarities of an answer; none where nothing can be told from it."""
    spec, (_, named) = spec_of(search), next(ways(search, evidence, identity))
    if spec.count:
        yield "one", {**named, spec.count: 1} | ({spec.threshold: farthest(search)} if spec.threshold else {})
    default = -math.inf if spec.default_threshold is None else spec.default_threshold
    gaps = [(s - t, (s + t) / 2) for s, t in pairwise(exact) if (s + t) / 2 > default]
    wide, between = max(gaps, default=(0.0, 0.0))
    if spec.threshold and wide > 4 * TOLERANCE:
        yield "over a higher threshold", {**named, spec.threshold: between} | ({spec.count: MANY} if spec.count else {})


def farthest(search: Searching) -> float:
    return least_similarity(search.vector.metric)


def complete(search: Searching, given: dict[str, object]) -> bool:
    """True when every argument without a default is given."""
    return all(
        a.default is not None or a.name in given or a.name == spec_of(search).query for a in search.promise.arguments
    )


def lenient(search: Searching) -> dict[str, object]:
    """Arguments that let as many rows through as can be: nothing else must hide another tenant's rows."""
    spec = spec_of(search)
    return {name: value for name, value in ((spec.threshold, farthest(search)), (spec.count, 50)) if name}


def call(search: Searching, vector: str, given: dict[str, object]) -> Statement:
    spec = spec_of(search)
    if search.sql:
        return sent(search, {spec.query: vector, **given})
    # Numbers go as text, of the argument's type: smallint takes no other integer, real and numeric no other number.
    texts = {name: str(v) if type(v) in (int, float) else v for name, v in {spec.query: vector, **given}.items()}
    passed = [statement("{name} => {value}", name=Name((name,)), value=value) for name, value in texts.items()]
    return statement(
        "select f.{key}::text, f.{s}::float8 from {f}({arguments}) as f",
        key=Name((spec.key,)), s=Name((spec.similarity,)), f=Name.of(search.function),
        arguments=joined(passed),
    )  # fmt: skip


def sent(search: Searching, values: Mapping[str, object]) -> Statement:
    """A declared query with these values of its parameters."""
    spec, template = spec_of(search), ""
    for text, name in pieces(search.sql.rstrip().rstrip(";")):
        template += text.replace("{", "{{").replace("}", "}}") + (f"{{{name}}}" if name else "")
    parts: dict[str, object] = {name: Once(value) for name, value in values.items()}
    parts[spec.query] = statement("{q}::{t}", q=parts[spec.query], t=type_of(search.vector, search.schema))
    return statement(
        "select f.{key}::text, f.{s}::float8 from (\n{sql}\n) as f",
        key=Name((spec.key,)), s=Name((spec.similarity,)), sql=statement(template, **parts),
    )  # fmt: skip


def type_of(vector: Vector, extension: str) -> Name:
    """The declared type without its dimension, where pgvector is in the schema ``extension``."""
    return Name((home(vector.type, extension), vector.type))
