"""Tokens: what does not name a member opens nothing."""

from collections.abc import Iterator

from pgconform.catalog import Table
from pgconform.checks import Evidence, check
from pgconform.model import Finding
from pgconform.probes.malformed import leaks, private_tables
from pgconform.remedies_policies import fence

AUDIT = ["gate", "quarterly"]


@check("malformed-claims", guide=["vs-24", "muva-18", "muva-42"], when=AUDIT, of=private_tables)
def test_no_malformed_token_opens_anything(table: Table, evidence: Evidence) -> Iterator[Finding]:
    """A session whose claims are missing, null, empty, of another type or unknown sees no row of anybody.

    Policies compare texts and casts: a value that nobody thought of may be true for all.
    """
    found = {label: (role, rows) for label, role, rows in leaks(evidence, table)}
    if found:
        label, (_, rows) = next(iter(found.items()))
        more = f", and {len(found) - 1} more such sessions" if len(found) > 1 else ""
        observed = f"a session {label} sees {rows} row(s){more}"
        yield Finding(str(table), observed, fence(evidence, table, [role for role, _ in found.values()]))
