"""The strongest lock that a remedy takes, so that it is run at the right time."""

from __future__ import annotations

import importlib
from typing import Any

LEVELS = (
    "ROW SHARE", "ROW EXCLUSIVE", "SHARE UPDATE EXCLUSIVE", "SHARE", "SHARE ROW EXCLUSIVE", "EXCLUSIVE",
    "ACCESS EXCLUSIVE",
)  # fmt: skip
MEANING = {
    "ROW EXCLUSIVE": "reads and writes go on",
    "SHARE UPDATE EXCLUSIVE": "reads and writes go on",
    "SHARE": "reads go on, writes wait; with CONCURRENTLY, where the table is not partitioned, they go on",
    "SHARE ROW EXCLUSIVE": "reads go on, writes wait",
    "ACCESS EXCLUSIVE": "reads and writes wait",
}
# By PostgreSQL's manual: "Explicit Locking", table-level locks, and ALTER TABLE for its forms.
_STATEMENTS = {
    "insert_stmt": "ROW EXCLUSIVE", "update_stmt": "ROW EXCLUSIVE", "delete_stmt": "ROW EXCLUSIVE",
    "merge_stmt": "ROW EXCLUSIVE", "truncate_stmt": "ACCESS EXCLUSIVE", "drop_stmt": "ACCESS EXCLUSIVE",
    "create_policy_stmt": "ACCESS EXCLUSIVE", "alter_policy_stmt": "ACCESS EXCLUSIVE",
    "rename_stmt": "ACCESS EXCLUSIVE", "create_trig_stmt": "SHARE ROW EXCLUSIVE",
    "refresh_mat_view_stmt": "ACCESS EXCLUSIVE", "rule_stmt": "ACCESS EXCLUSIVE",
    "reindex_stmt": "ACCESS EXCLUSIVE", "vacuum_stmt": "SHARE UPDATE EXCLUSIVE",
    "alter_object_schema_stmt": "ACCESS EXCLUSIVE",
}  # fmt: skip
_FORMS = {
    "AT_ValidateConstraint": "SHARE UPDATE EXCLUSIVE", "AT_SetStatistics": "SHARE UPDATE EXCLUSIVE",
    "AT_SetRelOptions": "SHARE UPDATE EXCLUSIVE", "AT_ResetRelOptions": "SHARE UPDATE EXCLUSIVE",
    "AT_EnableTrig": "SHARE ROW EXCLUSIVE", "AT_DisableTrig": "SHARE ROW EXCLUSIVE",
    "AT_EnableAlwaysTrig": "SHARE ROW EXCLUSIVE", "AT_EnableTrigAll": "SHARE ROW EXCLUSIVE",
    "AT_EnableTrigUser": "SHARE ROW EXCLUSIVE",
}  # fmt: skip
_ON_TABLES = ("OBJECT_TABLE", "OBJECT_INDEX", "OBJECT_MATVIEW", "OBJECT_VIEW", "OBJECT_POLICY", "OBJECT_TRIGGER",
              "OBJECT_RULE", "OBJECT_COLUMN", "OBJECT_TABCONSTRAINT")  # fmt: skip


def lock(remedy: str) -> str:
    """The strongest table lock that the SQL takes, and what waits for it; '' where it takes none, or is not known."""
    postgast: Any = importlib.import_module("postgast")
    try:
        parsed = postgast.parse(remedy).stmts
    except (postgast.PgQueryError, UnicodeEncodeError):
        return ""
    found = [level for statement in parsed if (level := _level(statement.stmt))]
    if not found:
        return ""
    strongest = max(found, key=LEVELS.index)
    return f"{strongest} ({MEANING[strongest]})"


def waits(remedy: str) -> str:
    """As `lock`, but '' where reads and writes go on: what is told beside SQL that is ready to be pasted."""
    taken = lock(remedy)
    return taken if "wait" in taken else ""


def _level(statement: Any) -> str:
    kind = statement.WhichOneof("node") or ""
    node: Any = getattr(statement, kind, None)
    words: Any = importlib.import_module("postgast.pg_query_pb2")
    options = {each.def_elem.defname for each in (*getattr(node, "options", ()), *getattr(node, "params", ()))}
    if kind == "index_stmt":
        return "SHARE UPDATE EXCLUSIVE" if node.concurrent else "SHARE"
    if kind == "alter_table_stmt":
        return max((_form(command.alter_table_cmd, words) for command in node.cmds), key=LEVELS.index)
    if kind == "drop_stmt" and words.ObjectType.Name(node.remove_type) not in _ON_TABLES:
        return ""
    if kind == "rename_stmt" and words.ObjectType.Name(node.rename_type) not in _ON_TABLES:
        return ""
    if (kind == "drop_stmt" and node.concurrent) or (kind == "reindex_stmt" and "concurrently" in options):
        return "SHARE UPDATE EXCLUSIVE"
    if kind == "vacuum_stmt" and "full" in options:
        return "ACCESS EXCLUSIVE"
    return _STATEMENTS.get(kind, "")


def _form(command: Any, words: Any) -> str:
    """The lock of one form of ALTER TABLE."""
    form = words.AlterTableType.Name(command.subtype)
    constraint = getattr(command, "def").constraint  # a word of Python's
    if form == "AT_AddConstraint" and words.ConstrType.Name(constraint.contype) == "CONSTR_FOREIGN":
        return "SHARE ROW EXCLUSIVE"
    return _FORMS.get(form, "ACCESS EXCLUSIVE")
