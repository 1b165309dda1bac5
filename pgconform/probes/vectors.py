"""Questions about stored embeddings: how many there are, of which dimension, norm and originality."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pgconform import names
from pgconform.catalog import Catalog
from pgconform.checks import Evidence
from pgconform.contract_vectors import Vector
from pgconform.probes.rows import Offence
from pgconform.statements import Name, Rows, Statement, column, statement
from pgconform.subjects import Declared
from pgconform.vector_kinds import home

# Functions that give the number of components and the Euclidean norm, by type; of bits, how many are set.
_DIMENSION = {"vector": "vector_dims", "halfvec": "vector_dims", "bit": "length"}
_NORM = {"vector": "vector_norm", "halfvec": "l2_norm", "sparsevec": "l2_norm", "bit": "bit_count"}


@dataclass(frozen=True, slots=True)
class Coverage:
    """Rows, and rows with an embedding; of the whole table, and of the tenant with the smallest share."""

    rows: int
    filled: int
    tenants: int
    poor_tenants: int

    @property
    def share(self) -> float:
        return self.filled / self.rows


def coverage(subject: Declared[Vector], evidence: Evidence) -> Coverage:
    """How many rows have an embedding, in all and by tenant. Raises NotVerified."""
    contract = evidence.contract
    tenant = contract.column_of(subject.table) if contract.tables[subject.table].holds == "tenant" else ""
    group = statement("{t}", t=column(tenant)) if tenant else statement("''")
    question = statement(
        "select coalesce(pg_catalog.sum(s.n), 0)::bigint, coalesce(pg_catalog.sum(s.f), 0)::bigint,"
        " pg_catalog.count(*), pg_catalog.count(*) filter (where s.f < {least}::float8 * s.n)"
        " from (select {group} as tenant, pg_catalog.count(*) as n, pg_catalog.count({e}) as f from {table} as r"
        " group by 1) as s",
        least=float(subject.item.coverage), group=group, e=embedding(subject), table=Name.of(subject.table),
    )  # fmt: skip
    return Coverage(*evidence.database.remembered(question, f"counting embeddings of {subject.table}")[0])


def mean_dimension(subject: Declared[Vector], evidence: Evidence) -> float | None:
    """The mean dimension of the stored vectors; None where there are none."""
    question = statement(
        "select pg_catalog.avg({dims}) from {table} as r",
        dims=_dimension(evidence.catalog, subject), table=Name.of(subject.table),
    )  # fmt: skip
    mean = evidence.database.one(question, f"measuring dimensions of {subject}")[0]
    return None if mean is None else float(mean)


def embedding(subject: Declared[Vector]) -> Name:
    return column(subject.needs[0][1][0])


def other_dimension(subject: Declared[Vector], catalog: Catalog) -> Offence:
    dims = _dimension(catalog, subject)
    where = statement("{dims} <> {dimension}::int", dims=dims, dimension=subject.item.dimension)
    return _vectors(subject, catalog, where, f"hold a vector whose dimension is not {subject.item.dimension}")


def zero(subject: Declared[Vector], catalog: Catalog) -> Offence:
    where = statement("{norm} = 0", norm=_norm(catalog, subject))
    found = ", which no cosine search finds" if subject.item.metric == "cosine" else ""
    return _vectors(subject, catalog, where, f"hold the zero vector{found}")


def off_norm(subject: Declared[Vector], catalog: Catalog) -> Offence:
    assert subject.item.norm
    low, high = subject.item.norm
    where = statement(
        "{norm} <> 0 and {norm} not between {low}::float8 and {high}::float8",
        norm=_norm(catalog, subject), low=float(low), high=float(high),
    )  # fmt: skip
    name = Name((subject.needs[0][1][0],))
    change = None
    if catalog_type(subject, catalog) != "sparsevec":
        change = statement("{n} = {unit}", n=name, unit=_call(catalog, "l2_normalize", subject))
    says = f"hold a vector whose norm is not within {low:g} and {high:g}"
    return Offence(subject.table, Rows(subject.table, where), says, change, subject.name)


def repeated(subject: Declared[Vector], catalog: Catalog) -> Offence:
    """Later rows with the very vector of another row; compared by digest, for a vector is kilobytes long."""
    name = f"{catalog_type(subject, catalog)}_send"
    send, send_d = _call(catalog, name, subject), _call(catalog, name, subject, "d")
    where = statement(
        "exists (select from {table} as d where pg_catalog.sha256({send_d}) = pg_catalog.sha256({send})"
        " and (d.tableoid, d.ctid) < (r.tableoid, r.ctid)) and {norm} <> 0",
        table=Name.of(subject.table), send=send, norm=_norm(catalog, subject),
        send_d=send_d,
    )  # fmt: skip
    twice = statement(
        "select {digest} from {table} as d where {e} is not null group by 1 having pg_catalog.count(*) > 1",
        digest=statement("pg_catalog.sha256({send})", send=send_d), table=Name.of(subject.table),
        e=column(subject.needs[0][1][0], "d"),
    )  # fmt: skip
    return replace(_vectors(subject, catalog, where, "hold the very vector of another row"), sample=twice, any=True)


def _vectors(subject: Declared[Vector], catalog: Catalog, where: Statement, says: str) -> Offence:
    """A vector that is wrong is better absent: the row is then found by whatever embeds rows anew. Where the column
    takes no null, the row itself has to go."""
    found, name = Rows(subject.table, where), subject.needs[0][1][0]
    if _filled(catalog, subject.table, name):
        advice = f"{names.quote(name)} takes no null: keep what the rows were made from, and embed it anew"
        return Offence(subject.table, found, says, None, subject.name, advice=advice)
    return Offence(subject.table, found, says, statement("{n} = null", n=Name((name,))), subject.name)


def _filled(catalog: Catalog, relation: str, name: str) -> bool:
    """True where the column takes no null, by itself or by a constraint."""
    table = catalog.table(relation)
    column = table.column(name) if table else None
    rule = f"CHECK (({names.quote(name)} IS NOT NULL))"
    ruled = any(c.definition.startswith(rule) for c in table.constraints) if table else False
    return ruled or bool(column and column.not_null)


def catalog_type(subject: Declared[Vector], catalog: Catalog) -> str:
    """The vector type that the column really has."""
    table = catalog.table(subject.table)
    found = table.column(subject.needs[0][1][0]) if table else None
    assert found, "an absent column is skipped before"
    return catalog.comparable(found)


def dimension(kind: str, extension: str, vector: Statement | Name) -> Statement:
    """How many components a vector of that type has, where pgvector is in ``extension``."""
    if kind == "sparsevec":  # pgvector has no function for it; its text ends by it: {1:0.5}/3
        return statement("pg_catalog.split_part({v}::text, '/', 2)::int", v=vector)
    return statement("{f}({v})", f=Name((home(kind, extension), _DIMENSION[kind])), v=vector)


def norm(kind: str, extension: str, vector: Statement | Name) -> Statement:
    """The Euclidean norm of a vector of that type; of bits, how many are set."""
    return statement("{f}({v})", f=Name((home(kind, extension), _NORM[kind])), v=vector)


def _dimension(catalog: Catalog, subject: Declared[Vector]) -> Statement:
    return dimension(catalog_type(subject, catalog), extension_schema(catalog), embedding(subject))


def _norm(catalog: Catalog, subject: Declared[Vector]) -> Statement:
    return norm(catalog_type(subject, catalog), extension_schema(catalog), embedding(subject))


def _call(catalog: Catalog, function: str, subject: Declared[Vector], alias: str = "r") -> Statement:
    """A call of one of the functions of the column's type, in whatever schema they are."""
    argument = column(subject.needs[0][1][0], alias)
    schema = home(catalog_type(subject, catalog), extension_schema(catalog))
    return statement("{f}({a})", f=Name((schema, function)), a=argument)


def extension_schema(catalog: Catalog) -> str:
    """The schema that pgvector is in."""
    extension = catalog.extension("vector")
    assert extension, "a column of a vector type needs the extension"
    return extension.schema
