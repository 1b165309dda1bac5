"""A table made today as one would be made tomorrow: what default privileges, and nobody's care, open to clients."""

from __future__ import annotations

from collections.abc import Iterator

from pgconform.catalog import Catalog, Schema
from pgconform.checks import Evidence
from pgconform.contract import Contract
from pgconform.model import Nothing
from pgconform.names import quote
from pgconform.privileges import Privileges
from pgconform.statements import Name, statement
from pgconform.subjects import application_tables

_NAME = "pgconform_tomorrow"
_TRIED = (
    ("select", "select from {t}"),
    ("insert", "insert into {t} (id) values (2)"),
    ("update", "update {t} set id = 3"),
    ("delete", "delete from {t}"),
)


def makers(catalog: Catalog, contract: Contract, privileges: Privileges) -> Iterator[tuple[Schema, str]]:
    """Schemas with application tables, with each role that owns such a table and may create another."""
    owners = sorted({(table.schema, table.owner) for table in application_tables(catalog, contract)})
    for name, owner in owners:
        schema = catalog.schema(name)
        if schema and privileges.may(owner, "CREATE", schema):
            yield schema, owner


def open_tomorrow(evidence: Evidence, schema: Schema, owner: str) -> Iterator[tuple[str, list[str]]]:
    """Client roles with the commands that go through on a table that the owner has just made.

    Raises Nothing where the owner cannot make one.
    """
    table, drills = Name((schema.name, _NAME)), evidence.drills
    become = statement("set local role {r}", r=Name((owner,)))
    made = [statement("create table {t} (id integer)", t=table), statement("insert into {t} (id) values (1)", t=table)]
    drills.send([statement("savepoint tomorrow")])
    try:
        if not drills.tried([become, *made, statement("reset role")]):
            raise Nothing(f"{owner} cannot create a table in {schema}")
        for role in [r for r in evidence.contract.roles.clients if evidence.catalog.role(r)]:
            tried = [(name, drills.attempt(role, (), statement(text, t=table))) for name, text in _TRIED]
            if through := [name for name, outcome in tried if outcome.passed]:
                yield role, through
    finally:
        drills.send([statement("rollback to savepoint tomorrow"), statement("release savepoint tomorrow")])


def keep_closed(schema: Schema, owner: str, role: str) -> str:
    """SQL that opens nothing to a client role in advance, in this schema and in all."""
    revoked = f"revoke all on tables from public, {quote(role)};"
    makes = f"alter default privileges for role {quote(owner)}"
    return f"{makes} {revoked}\n{makes} in schema {schema} {revoked}"
