"""What a check needs to be judged: privileges, extensions, a target that may be written. Told from what it asks for."""

from __future__ import annotations

from pgconform.checks import Check

CONNECT = "a role that may connect: it reads pg_catalog"
READ = "SELECT on every row: pg_read_all_data and BYPASSRLS"
BECOME = "SET ROLE to the client roles"
STATISTICS = "pg_read_all_stats: other roles' sessions and statements"
DISPOSABLE = "a disposable target (embedded or container): it writes, and undoes it"
COPIED = "a copy of the target: a disposable one, or --drill=restore, which reads a live one as a whole"

_BECOMING = ("isolation", "search")
_EXTENSIONS = {
    "statements-fast": "pg_stat_statements",
    "searches-fast": "pg_stat_statements",
    "bloat": "pgstattuple, if it is there",
}
READER = "pgconform reader makes a role that has all that reading needs"


def suite_of(check: Check) -> str:
    """The suite that the check stands in."""
    return check.module.split(".")[-2]


def needs(check: Check) -> tuple[str, ...]:
    """What the check needs, in a fixed order: privileges first, then extensions."""
    suite = suite_of(check)
    reads = {"database", "evidence", "copies"} & set(check.asks)
    found = [READ if reads else CONNECT]
    if "copies" in check.asks:
        found.append(COPIED)
    elif check.drill:
        found.append(DISPOSABLE)
    if suite in _BECOMING:
        found.append(BECOME)
    if suite == "operations":
        found.append(STATISTICS)
    if suite in ("embeddings", "search"):
        found.append("extension vector")
    if check.id in _EXTENSIONS:
        found.append(f"extension {_EXTENSIONS[check.id]}")
    return tuple(found)
