"""What a database's catalogue says, as facts that two runs can be compared by; and what drifted between them.

Of texts that may hold a secret or a row's content (bodies, defaults, settings, views) there is a digest only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import TypeAlias

from pgconform.catalog import Catalog, Function, Grant, Policy, Role, Table
from pgconform.expressions import ExpressionError, shape
from pgconform.names import quote

# Of an object, by aspect: text, a switch, privileges that are held, or a policy's parts.
Fact: TypeAlias = "str | bool | list[str] | dict[str, str | bool | list[str] | None]"
Facts: TypeAlias = dict[str, dict[str, Fact]]

OPENS, CLOSES, CHANGES = "opens", "closes", "changes"
# Switches that keep people out while they are on, and those that let them do more.
GUARDS = ("row-level security", "forced row-level security", "security_invoker")
POWERS = (
    "superuser", "BYPASSRLS", "CREATEROLE", "CREATEDB", "REPLICATION", "LOGIN", "security definer", "leakproof",
)  # fmt: skip


@dataclass(frozen=True)
class Drift:
    """``effect``: the object opens (somebody may do more than before), closes, or changes otherwise."""

    effect: str
    object: str
    text: str


def facts(catalog: Catalog) -> Facts:
    """Every object of the catalogue with what access and structure depend on; extensions' own objects left out."""
    found: Facts = {}
    for schema in catalog.schemas:
        if not schema.extension:
            found[f"schema {schema}"] = {"owner": schema.owner, **_held(schema.acl, schema.owner)}
    found |= {f"{_KINDS[t.kind]} {t}": _table(t) for t in catalog.tables if not t.extension}
    found |= {f"function {f.signature}": _function(f) for f in catalog.functions if not f.extension}
    for sequence in catalog.sequences:
        if not sequence.extension:
            found[f"sequence {sequence}"] = {"owner": sequence.owner, **_held(sequence.acl, sequence.owner)}
    for role in catalog.roles:
        groups = {f"of {quote(m.role)}" for m in catalog.memberships if m.member == role.name}
        found[f"role {quote(role.name)}"] = {**_role(role), "member": sorted(groups)}
    for given in catalog.default_privileges:
        where = f" in schema {quote(given.schema)}" if given.schema else ""
        name = f"default privileges of {quote(given.owner)}{where} on {_OBJECTS.get(given.kind, given.kind)}"
        found[name] = dict(_held(given.acl, given.owner))
    for publication in catalog.publications:
        tables = ["all tables"] if publication.all_tables else sorted(publication.tables)
        found[f"publication {quote(publication.name)}"] = {"publishes": tables}
    for extension in catalog.extensions:
        found[f"extension {quote(extension.name)}"] = {"version": extension.version}
    for trigger in catalog.event_triggers:
        text = f"{trigger.event} {trigger.function} {trigger.enabled}"
        found[f"event trigger {quote(trigger.name)}"] = {"does": text}
    for setting in catalog.settings:
        found.setdefault(f"settings of {setting.whose}", {})[setting.name] = _digest(setting.value)
    return found


_KINDS = {
    "table": "table", "partitioned": "table", "view": "view", "materialized": "materialized view",
    "foreign": "foreign table",
}  # fmt: skip
_OBJECTS = {"r": "tables", "S": "sequences", "f": "functions", "T": "types", "n": "schemas", "L": "large objects"}


def _digest(text: str | None) -> str:
    return f"#{sha256(text.encode('utf-8', 'replace')).hexdigest()[:12]}" if text else ""


def _held(grants: Iterable[Grant], owner: str, on: str = "") -> dict[str, Fact]:
    """What each role but the owner may do, in one list a role."""
    found: dict[str, list[str]] = {}
    for grant in grants:
        if grant.grantee != owner:
            text = grant.privilege + (" with grant option" if grant.grantable else "")
            found.setdefault(f"{quote(grant.grantee)} may{on}", []).append(text)
    return {role: sorted(held) for role, held in found.items()}


def _table(table: Table) -> dict[str, Fact]:
    found: dict[str, Fact] = {"kind": table.kind, "owner": table.owner, **_held(table.acl, table.owner)}
    if table.stores_rows:
        found |= {"row-level security": table.row_security, "forced row-level security": table.forced}
    if table.kind == "view":
        found["security_invoker"] = table.options.get("security_invoker", "") in ("true", "on", "1", "yes")
    if table.definition:
        found["definition"] = _digest(table.definition)
    for column in table.columns:
        parts = (column.type, "not null" if column.not_null else "", column.generated, column.identity)
        found[f"column {quote(column.name)}"] = " ".join(filter(None, (*parts, _digest(column.default))))
        found |= _held(column.acl, table.owner, f" on column {quote(column.name)}")
    for policy in table.policies:
        found[f"policy {quote(policy.name)}"] = _policy(policy, str(table))
    for constraint in table.constraints:
        if not constraint.inherited:
            flags = ("" if constraint.validated else " not valid") + ("" if constraint.enforced else " not enforced")
            found[f"constraint {quote(constraint.name)}"] = constraint.definition + flags
    for index in table.indexes:
        if not index.inherited:
            found[f"index {quote(index.name)}"] = index.definition + ("" if index.valid else " invalid")
    for trigger in table.triggers:
        if not trigger.internal:
            found[f"trigger {quote(trigger.name)}"] = f"{trigger.definition} {trigger.enabled}"
    return found | {f"rule {quote(rule.name)}": f"{_digest(rule.definition)} {rule.enabled}" for rule in table.rules}


def _policy(policy: Policy, table: str) -> dict[str, str | bool | list[str] | None]:
    return {
        "command": policy.command, "permissive": policy.permissive, "roles": sorted(policy.roles),
        "using": policy.using, "check": policy.check,
        "always true": _always(policy.using, table) or _always(policy.check, table),
    }  # fmt: skip


def _always(expression: str | None, table: str) -> bool:
    try:
        return expression is not None and shape(expression, table).always_true
    except ExpressionError:
        return False


def _function(function: Function) -> dict[str, Fact]:
    return {
        "owner": function.owner, "security definer": function.security_definer, "leakproof": function.leakproof,
        "returns": function.returns, "volatility": function.volatility, "body": _digest(function.body),
        **{f"set {n}": v if n == "search_path" else _digest(v) for n, v in function.configuration.items()},
        **_held(function.acl, function.owner),
    }  # fmt: skip


def _role(role: Role) -> dict[str, Fact]:
    return {
        "superuser": role.superuser, "BYPASSRLS": role.bypass_row_security, "CREATEROLE": role.create_role,
        "CREATEDB": role.create_database, "REPLICATION": role.replication, "LOGIN": role.login,
    }  # fmt: skip


def drift(before: Facts, now: Facts) -> Iterator[Drift]:
    """What differs, by object; of a new object what it opens, of one that is gone just that."""
    for name in sorted(before.keys() | now.keys()):
        new, old = now.get(name, _absent(name)), before.get(name, _absent(name))
        if new is None:
            yield Drift(CHANGES, name, "is gone")
            continue
        if old is None:
            yield Drift(CHANGES, name, "is new")
        for aspect in sorted((old or {}).keys() | new.keys()):
            said = _compared(aspect, (old or {}).get(aspect), new.get(aspect))
            if said and (old is not None or said[0] == OPENS):
                yield Drift(said[0], name, said[1])


def _absent(name: str) -> dict[str, Fact] | None:
    """What holds where the catalogue has no entry; None for an object, which then does not exist.

    PostgreSQL manual, "Privileges": PUBLIC may execute new functions and use new types by default.
    """
    if name.startswith("settings of "):
        return {}
    if not name.startswith("default privileges of "):
        return None
    built_in = {"functions": "EXECUTE", "types": "USAGE"}.get(name.rpartition(" on ")[2], "")
    return {"public may": [built_in]} if built_in and " in schema " not in name else {}


def _compared(aspect: str, old: Fact | None, new: Fact | None) -> tuple[str, str] | None:
    """Effect and words of one aspect that differs; of a new object the earlier fact is None."""
    if old == new:
        return None
    if isinstance(old, list) or isinstance(new, list):
        return _lists(aspect, old if isinstance(old, list) else [], new if isinstance(new, list) else [])
    if aspect in GUARDS or aspect in POWERS:
        guards = aspect in GUARDS
        if old is None and (bool(new) == guards or aspect.startswith("forced")):
            return None  # a new object that is guarded, or may do nothing
        return (OPENS if bool(new) != guards else CLOSES), f"{aspect} is {'on' if new else 'off'}"
    if aspect.startswith("policy "):
        return _policies(aspect, old if isinstance(old, dict) else None, new if isinstance(new, dict) else None)
    if old is None or new is None:
        return CHANGES, f"{aspect} is {'gone' if new is None else 'new'}"
    return CHANGES, f"{aspect} differs" if str(new).startswith("#") else f"{aspect}: {old} -> {new}"


def _lists(aspect: str, old: list[str], new: list[str]) -> tuple[str, str]:
    more, fewer = sorted(set(new) - set(old)), sorted(set(old) - set(new))
    told = [f"now {', '.join(more)}"] if more else []
    told += [f"no longer {', '.join(fewer)}"] if fewer else []
    return (OPENS if more else CLOSES), f"{aspect} {'; '.join(told)}"


_Policy: TypeAlias = "dict[str, str | bool | list[str] | None]"


def _policies(name: str, old: _Policy | None, new: _Policy | None) -> tuple[str, str]:
    """A permissive policy lets rows through, a restrictive one keeps them back."""
    if old is None or new is None:
        permissive = bool((old or new or {})["permissive"])
        return (OPENS if permissive == (new is not None) else CLOSES), f"{name} is {'new' if new else 'gone'}"
    told = [f"{part}: {_shown(old[part])} -> {_shown(new[part])}" for part in new if old[part] != new[part]]
    wider = (
        set(_listed(new["roles"])) > set(_listed(old["roles"])) or (new["command"] == "ALL" != old["command"])
        or bool(new["always true"]) > bool(old["always true"]) or (old["using"] is not None and new["using"] is None)
    )  # fmt: skip
    if old["permissive"] != new["permissive"]:
        return (OPENS if new["permissive"] else CLOSES), f"{name}: {'; '.join(told)}"
    return (OPENS if wider and new["permissive"] else CHANGES), f"{name}: {'; '.join(told)}"


def _listed(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def _shown(value: object) -> str:
    return ", ".join(_listed(value)) if isinstance(value, list) else str(value)
