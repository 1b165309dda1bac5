"""Publications: what is sent out is declared, what browsers are told of is protected, and changes can be told apart."""

from collections.abc import Iterator

from pgconform.catalog import Catalog, Publication, Table
from pgconform.checks import check
from pgconform.contract import Contract
from pgconform.model import Finding
from pgconform.names import quote
from pgconform.subjects import promise_of


def published_tables(catalog: Catalog, contract: Contract) -> Iterator[tuple[Publication, Table]]:
    """Tables in a realtime publication."""
    for publication in catalog.publications:
        if publication.name in contract.publications:
            for name in publication.tables:
                if table := catalog.table(name):
                    yield publication, table


def publications(catalog: Catalog) -> Iterator[tuple[str, tuple[Publication, ...]]]:
    """The database with its publications."""
    yield catalog.server.database, catalog.publications


@check("publications-declared", guide=["vs-35", "muva-42"], when=["gate", "quarterly"], of=publications)
def test_no_undeclared_publication_sends_tenant_rows(
    subject: tuple[str, tuple[Publication, ...]], catalog: Catalog, contract: Contract
) -> Iterator[Finding]:
    """Every publication that sends rows of tenants or users is declared.

    It sends each change of every tenant to whoever subscribes, past row-level security, and nobody decided that.
    """
    for publication in subject[1]:
        sent = [table for name in publication.tables if (table := catalog.table(name))]
        owned = [t for t in sent if (p := promise_of(catalog, contract, t)) and p.holds in ("tenant", "user", "child")]
        if owned and publication.name not in contract.publications:
            name, others = quote(publication.name), f" and {len(owned) - 1} more" if owned[1:] else ""
            observed = f"it sends changes of {owned[0]}{others}, and is not in the contract: declare or drop it"
            yield Finding(name, observed, f"drop publication {name};")


@check("realtime-row-security", guide=["vs-35", "muva-42"], when=["gate", "quarterly"], of=published_tables)
def test_every_published_table_has_row_security(subject: tuple[Publication, Table]) -> Iterator[Finding]:
    """Every table in a realtime publication has row-level security.

    The realtime server asks the policies who may hear of a change: without them everybody hears of all.
    """
    publication, table = subject
    if not table.row_security:
        observed = f"it is published by {quote(publication.name)} without row-level security"
        yield Finding(str(table), observed, f"alter table {table} enable row level security;")


@check("realtime-replica-identity", guide=["vs-35"], when=["gate"], of=published_tables)
def test_every_published_table_has_a_replica_identity(subject: tuple[Publication, Table]) -> Iterator[Finding]:
    """Every table in a publication of updates or deletes has a replica identity.

    Without one the server refuses each UPDATE and DELETE on the table.
    """
    publication, table = subject
    usable = any(c.kind == "p" and not c.deferrable for c in table.constraints)
    lacking = table.replica_identity == "n" or (table.replica_identity == "d" and not usable)
    if table.kind == "partitioned":  # the identities of its partitions count
        return
    if lacking and {"update", "delete"} & set(publication.operations):
        kind = "default" if usable else "full"
        remedy = f"alter table {table} replica identity {kind};"
        yield Finding(str(table), f"it has no replica identity for {quote(publication.name)}", remedy)
