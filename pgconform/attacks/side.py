"""What runs on the side of a client's statement, with rights that the client does not have."""

from __future__ import annotations

from pgconform.catalog import Table
from pgconform.checks import Evidence
from pgconform.names import quote
from pgconform.statements import statement


def culprits(evidence: Evidence, table: Table) -> str:
    """SQL that takes from a relation its rules, and from its triggers' functions the rights of their owners."""
    question = statement(
        "select r.rulename from pg_catalog.pg_rules as r where r.schemaname = {s} and r.tablename = {t} order by 1",
        s=table.schema, t=table.name,
    )  # fmt: skip
    rules = evidence.drills.rows(question, f"looking up the rules of {table}")
    lines = [f"drop rule {quote(name)} on {table};" for (name,) in rules]
    for trigger in table.triggers:
        for function in evidence.catalog.functions_named(trigger.function):
            if function.security_definer:
                lines.append(f"alter function {function.signature} security invoker;")
    return "\n".join(dict.fromkeys(lines)) or "-- it is neither a rule nor a definer's trigger: look at its triggers"
