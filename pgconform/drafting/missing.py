"""What a draft could not find or read, for its first lines: else a short draft looks like a simple database."""

from __future__ import annotations

from pgconform.database import Database
from pgconform.drafting.seen import Seen
from pgconform.statements import statement

_SHOWN = 3
# Rows are read where all of them are: with a policy in between, an answer would be of some.
_UNREAD = """
select n.nspname, c.relname from pg_catalog.pg_class as c
join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
where c.relkind in ('r', 'p', 'f') and not (
    pg_catalog.has_schema_privilege(n.oid, 'USAGE') and pg_catalog.has_table_privilege(c.oid, 'SELECT')
    and not pg_catalog.row_security_active(c.oid)
)
"""


def missing(seen: Seen, database: Database, tenancies: int, doubtful: int) -> list[str]:
    """A line for each thing that the reader has to know before the guesses. Raises NotVerified."""
    told = []
    if not seen.stored:
        told.append("MIND: no tenancy was found, since there is no table; draft again once there are some")
    elif not tenancies:
        maybe = "what may be one is commented out below" if doubtful else "say it in [tenancies] if rows are somebody's"
        told.append(
            f"MIND: no tenancy was found in {len(seen.stored)} table(s): whose rows are whose is not judged; {maybe}"
        )
    unread = {(str(schema), str(name)) for schema, name in database.rows(statement(_UNREAD), "looking for grants")}
    if names := [str(table) for table in seen.stored if (table.schema, table.name) in unread]:
        some = ", ".join(names[:_SHOWN]) + (", ..." if names[_SHOWN:] else "")
        told.append(
            f"MIND: this role may not read all rows of {len(names)} of {len(seen.stored)} table(s); what rows tell is"
            f" left open, and a run cannot verify it; grant what pgconform reader prints: {some}"
        )
    return told
