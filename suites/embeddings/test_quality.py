"""Stored embeddings: there for enough rows, of one dimension, with a norm, each its own."""

from collections.abc import Iterator

from pgconform.catalog import Catalog
from pgconform.checks import Evidence, check
from pgconform.contract_vectors import Vector
from pgconform.database import Database
from pgconform.model import Finding, Nothing
from pgconform.probes import rows, vectors
from pgconform.statements import Rows, statement
from pgconform.subjects import Declared, stored_vectors

Subject = Declared[Vector]


def _fill(subject: Subject) -> Rows:
    return Rows(subject.table, statement("{e} is null", e=vectors.embedding(subject)))


@check("embedding-coverage", guide=["muva-13", "muva-34"], when=["daily"], each=stored_vectors)
def test_enough_rows_have_an_embedding(subject: Subject, evidence: Evidence) -> Iterator[Finding]:
    """The share of rows with an embedding reaches the declared minimum, in the table and for each tenant.

    A row without an embedding is never found, and a mean over all tenants hides the one that has none.
    """
    found = vectors.coverage(subject, evidence)
    if not found.rows:
        raise Nothing(f"{subject.table} has no rows")
    if found.poor_tenants or found.share < subject.item.coverage:
        observed = f"{found.share:.1%} of {found.rows} rows have {subject.name}, wanted {subject.item.coverage:.0%}"
        if found.tenants > 1:
            observed += f"; too few for {found.poor_tenants} of {found.tenants} tenants (embed these rows again)"
        missing = _fill(subject)
        count = found.rows - found.filled
        finding = Finding(subject.table, observed, missing.delete, subject.name, True, missing.shown, count)
        short = found.share < subject.item.coverage  # else it is so for single tenants only
        yield finding.against(found.share, subject.item.coverage, "share") if short else finding


@check("embedding-health", guide=["muva-34"], when=["daily"], each=stored_vectors)
def test_the_mean_dimension_is_the_declared_one(subject: Subject, evidence: Evidence) -> Iterator[Finding]:
    """The mean dimension of the stored vectors is the declared one, unrounded.

    A rounded mean hides a mix; and a table that lost all its rows is not healthy, but nothing to examine.
    """
    mean = vectors.mean_dimension(subject, evidence)
    if mean is None:
        raise Nothing(f"{subject} holds no vector")
    if mean != subject.item.dimension:
        wrong = vectors.other_dimension(subject, evidence.catalog)
        observed = f"the mean dimension is {mean:g}, not {subject.item.dimension}"
        remedy = wrong.finding(0).remedy
        finding = Finding(subject.table, observed, remedy, subject.name, True, wrong.rows.shown)
        yield finding.against(mean, subject.item.dimension, "dimensions")


@check("embedding-dimension", guide=["muva-14"], when=["weekly"], each=stored_vectors)
def test_every_row_has_the_declared_dimension(
    subject: Subject, catalog: Catalog, database: Database
) -> Iterator[Finding]:
    """Every stored vector, not a sample of them, has the declared dimension.

    One vector of another length makes each search that meets it fail.
    """
    table = catalog.table(subject.table)
    column = table.column(subject.needs[0][1][0]) if table else None
    if column and column.modifier != subject.item.dimension:  # else the type itself sees to it
        yield from rows.judge(database, vectors.other_dimension(subject, catalog))


@check("embedding-zero", guide=["muva-15"], when=["weekly"], each=stored_vectors)
def test_no_vector_is_zero(subject: Subject, catalog: Catalog, database: Database) -> Iterator[Finding]:
    """No stored vector is zero, unless Hamming distances are compared.

    Its cosine with anything is undefined: no index holds it, and a scan sorts it anywhere.
    """
    if subject.item.metric != "hamming":  # by which no bits are as good as any others
        yield from rows.judge(database, vectors.zero(subject, catalog))


@check("embedding-norm", guide=["muva-15"], when=["weekly"], each=stored_vectors)
def test_every_vector_has_unit_norm(subject: Subject, catalog: Catalog, database: Database) -> Iterator[Finding]:
    """Every stored vector has a norm within the declared bounds.

    Text-embedding models return unit vectors: another norm means that something cut or mixed them.
    """
    if subject.item.norm and vectors.catalog_type(subject, catalog) != "bit":
        yield from rows.judge(database, vectors.off_norm(subject, catalog))


@check("embedding-distinct", guide=["muva-15"], when=["weekly"], each=stored_vectors)
def test_no_vector_is_used_twice(subject: Subject, catalog: Catalog, database: Database) -> Iterator[Finding]:
    """No two rows share a vector.

    Two texts never embed alike to the last bit: a shared vector was written to the wrong row, or tenant.
    """
    if subject.item.distinct:
        yield from rows.judge(database, vectors.repeated(subject, catalog))
