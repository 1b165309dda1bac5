"""Tokens that say nothing, nonsense, or more than they should: what a session with one of them sees, and who writes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

from pgconform.catalog import Catalog, Table
from pgconform.checks import Evidence
from pgconform.contract import Contract, Session
from pgconform.database import Database
from pgconform.identities import Identity
from pgconform.model import NotVerified
from pgconform.privileges import Privileges
from pgconform.probes.visibility import everybodys, readable_tables
from pgconform.statements import Name, Statement, joined, statement
from pgconform.subjects import declared_name, promise_of

_HUGE = "x" * 100_000
# Instead of what the API would put in: of no type, of another type, of no meaning, SQL, more than one.
_VALUES: tuple[tuple[str, Any], ...] = (
    ("nothing", ...), ("null", None), ("a wildcard", "%"), ("an unknown value", "00000000-0000-4000-8000-00000000dead"),
    ("the empty text", ""), ("a negative number", -1), ("true", True), ("a list", []), ("a table", {}),
    ("SQL", "' or true --"), ("a huge text", _HUGE),
)  # fmt: skip
# Instead of the claims altogether.
_DOCUMENTS: tuple[tuple[str, str], ...] = (
    ("no", ""),
    ("unreadable", "{"),
    ("null", "null"),
    ("a list of", "[]"),
    ("textual", '"x"'),
)
# Enough for writing, where each session costs an attempt by each of the roads that read nothing.
_WRITING = ("nothing", "null", "a wildcard", "the empty text", "a list", "no", "unreadable")
BLIND = ("insert", "update all", "overwrite all", "delete all")

_Settings = tuple[tuple[str, str], ...]
_KNOWN: WeakKeyDictionary[Database, dict[tuple[str, _Settings], dict[str, int]]] = WeakKeyDictionary()


def private_tables(catalog: Catalog, contract: Contract, privileges: Privileges) -> Iterator[Table]:
    """Declared relations with rows of tenants or users that a client role can read."""
    for table in readable_tables(contract, privileges):
        promise = promise_of(catalog, contract, table)
        if promise is not None and promise.holds in ("tenant", "user", "child"):
            yield table


def leaks(evidence: Evidence, table: Table) -> Iterator[tuple[str, str, int]]:
    """Sessions with malformed claims that see rows of the relation: how their claims are, the role, how many rows.

    A session that the server refuses sees nothing. Raises NotVerified.
    """
    declared = declared_name(evidence.catalog, evidence.contract, table)
    for label, role, settings in _sessions(evidence):
        held = {h.privilege for h in evidence.privileges.on(role, table)}
        public = evidence.contract.scope(declared, role, "select") in ("all", "shared")
        if "SELECT" in held and not public and (seen := _seen(evidence, role, settings).get(str(table), 0)):
            yield label, role, seen


def writers(evidence: Evidence) -> list[Identity]:
    """Sessions with malformed claims that try to write; of no tenant, and nobody."""
    contract, found = evidence.contract, []
    for name, session in contract.sessions.items():
        tenancy = next((t for t, tenancy in contract.tenancies.items() if tenancy.session == name), "")
        if tenancy and evidence.catalog.role(session.role):
            for label, what, settings in _signed_in(contract, session, slice(None)):
                if label in _WRITING:
                    rank = f"{label} {what}".replace("no claims", "no claims at all")
                    found.append(Identity("malformed", 0, tenancy, frozenset(), "", session.role, settings, rank=rank))
    return found


def _sessions(evidence: Evidence) -> Iterator[tuple[str, str, _Settings]]:
    contract = evidence.contract
    few = slice(None) if evidence.effort.examples else slice(4)  # the least effort tries the first of each list
    for session in contract.sessions.values():
        if evidence.catalog.role(session.role) is None:
            continue
        for label, what, settings in _signed_in(contract, session, few):
            yield f"with {label} {what}", session.role, settings


def _signed_in(contract: Contract, session: Session, few: slice) -> Iterator[tuple[str, str, _Settings]]:
    """What is put in, in place of what, and the settings of the session that comes of it."""
    fixed = tuple((name, value) for name, value in session.settings.items() if "{" not in value)
    for path in _blanks(session.claims):
        for label, value in _VALUES[few]:
            claims = _claims(contract, _changed(session.claims, path, value))
            yield label, f"as claim {'.'.join(path)}", fixed + claims
    for label, text in _DOCUMENTS[few] if session.claims else ():
        yield label, "claims", (*fixed, (contract.claims_setting, text))
    for name in (name for name, value in session.settings.items() if "{" in value):
        texts = [(label, v) for label, v in _VALUES if isinstance(v, str)]
        yield from ((label, f"as setting {name}", (*fixed, (name, v))) for label, v in texts)


def _claims(contract: Contract, claims: dict[str, Any]) -> _Settings:
    return ((contract.claims_setting, json.dumps(claims)),)


def _blanks(claims: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths at which the API fills in the user or the tenant."""
    if isinstance(claims, dict):
        for key, value in claims.items():
            yield from _blanks(value, (*path, key))
    elif "{user" in str(claims) or "{tenant" in str(claims):
        yield path


def _changed(claims: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """The claims with another value at the path; without it for ``...``; other blanks are left out, too."""
    found: dict[str, Any] = {}
    for key, item in claims.items():
        if key == path[0] and len(path) > 1 and isinstance(item, dict):
            found[key] = _changed(item, path[1:], value)
        elif key == path[0]:
            found |= {} if value is ... else {key: value}
        elif "{" not in str(item):
            found[key] = item
    return found


def _seen(evidence: Evidence, role: str, settings: _Settings) -> dict[str, int]:
    """Rows of every private relation that such a session sees, asked once for all; 0 where it is refused."""
    known = _KNOWN.setdefault(evidence.database, {})
    if (role, settings) not in known:
        wanted = list(private_tables(evidence.catalog, evidence.contract, evidence.privileges))
        mine = [t for t in wanted if any(h.privilege == "SELECT" for h in evidence.privileges.on(role, t))]
        known[role, settings] = _counted(evidence, role, settings, mine)
    return known[role, settings]


def _everybodys(evidence: Evidence, table: Table) -> Statement:
    declared = declared_name(evidence.catalog, evidence.contract, table)
    return everybodys(evidence.contract, declared) or statement("false")


def _counted(evidence: Evidence, role: str, settings: _Settings, tables: list[Table]) -> dict[str, int]:
    one = "select {name}::text, pg_catalog.count(*) from (select 1 from {t} as r where not ({all}) limit 1000) as r"
    asked = [statement(one, name=str(t), t=Name.of(str(t)), all=_everybodys(evidence, t)) for t in tables]
    if not asked:
        return {}
    what = "reading with malformed claims"
    try:
        return dict(evidence.database.rows(joined(asked, " union all "), what, role=role, settings=settings))
    except NotVerified as reason:
        if reason.state[:2] not in ("22", "42", "P0"):
            raise
    if len(tables) == 1:
        return {}
    return {name: rows for table in tables for name, rows in _counted(evidence, role, settings, [table]).items()}
