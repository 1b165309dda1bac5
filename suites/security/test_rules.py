"""Rewrite rules: none acts with its owner's rights on what a client does."""

from collections.abc import Iterator

from pgconform.catalog import Rule, Table
from pgconform.checks import check
from pgconform.model import Finding
from pgconform.names import quote
from pgconform.subjects import reachable_tables


def _acts(rule: Rule, table: Table) -> bool:
    """True unless the rule is off in ordinary sessions, or only says that nothing is to be done, whatever the row."""
    on = f"CREATE RULE {quote(rule.name)} AS ON {rule.event} TO {table} DO"
    idle = {" ".join(f"{on} {how}NOTHING;".split()) for how in ("INSTEAD ", "")}
    return rule.enabled in ("O", "A") and " ".join(rule.definition.split()) not in idle


@check("rules-declared", guide=["muva-18", "vs-24", "muva-42"], when=["gate", "quarterly"], of=reachable_tables)
def test_no_rule_acts_for_a_client(table: Table) -> Iterator[Finding]:
    """No rewrite rule adds to, or replaces, what a client does to a relation that it can reach.

    What a rule does it does with the rights of the relation's owner, past every policy, also behind a view that asks as
    its caller: one INSERT of a client may then read, change or empty the rows of all tenants.
    """
    for rule in table.rules:
        if _acts(rule, table):
            observed = f"rule {quote(rule.name)} acts as {table.owner} on each {rule.event}"
            remedy = f"drop rule {quote(rule.name)} on {table};"
            yield Finding(str(table), observed, remedy, detail=quote(rule.name))
