"""What a client may say of itself: by settings, headers of the request, the own profile.

Any session may set any setting with a dot in its name, but those that the API sets for it; the API passes on headers
and cookies as the caller wrote them; users edit their own metadata. A policy that believes them protects nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from pgconform.callees import functions_behind
from pgconform.catalog import Catalog
from pgconform.contract import Contract
from pgconform.expressions import shape
from pgconform.model import NotVerified
from pgconform.settings_read import settings_read

_PATH = re.compile(r"->>?\s*'([\w-]+)'(?:::text)?\)*\s*")  # of a claim, a step at a time
_KEY = re.compile(r"'([A-Za-z_][\w.-]*)'")  # of a JSON document, or of a path into it
_PASSED_ON = ("request.headers", "request.cookies")  # JSON documents that the caller writes (PostgREST's manual)
_PROFILE = ("user_metadata", "raw_user_meta_data")
_SIGNED = "request.jwt."
_SAFE = ("app_metadata",)  # what the backend says of a user, which a token repeats
_WORDS = ("true", "admin", "service_role")


def choosable(catalog: Catalog, contract: Contract) -> tuple[str, ...]:
    """Settings that policies, functions and views read and that any client may set, in order."""
    api = {contract.claims_setting, *(name for s in contract.sessions.values() for name in s.settings)}
    callers = list(_texts(catalog))
    bodies = [(f.body, f.name) for f in catalog.functions if not f.extension]
    sources = [pair for pair in (*((text, "") for text in callers), *bodies) if "current_setting" in pair[0]]
    read = {n for text, name in sources for names in settings_read(text, name, callers) for n in names}
    return tuple(sorted(n for n in read - api if ("." in n or n == "application_name") and not n.startswith(_SIGNED)))


def _texts(catalog: Catalog) -> Iterator[str]:
    for table in catalog.tables:
        yield from (text for policy in table.policies for text in (policy.using, policy.check) if text)
        yield table.definition
    yield from (function.body for function in catalog.functions if not function.extension)


def poses(
    catalog: Catalog, contract: Contract, claims: dict[str, Any], tenants: list[str], users: list[str]
) -> Iterator[tuple[str, str, dict[str, Any], dict[str, str]]]:
    """How such a session poses ('' where it sets what it may), the tenant whose rows it is after ('' for anybody's),
    its claims, and the settings that it chose."""
    names = choosable(catalog, contract)
    texts = [text for text in _texts(catalog) if any(word in text for word in (*names, *_PROFILE))]
    profile = next((word for word in _PROFILE if any(word in text for text in texts)), "")
    keys = sorted({key for text in texts for key in _KEY.findall(text)})
    owned = [(tenant, tenant) for tenant in tenants]
    for tenant, value in (*owned, *(("", value) for value in (*users, *_WORDS))) if names or profile else ():
        document = dict.fromkeys(keys, value)
        chosen = {name: json.dumps(document) if name in _PASSED_ON else value for name in names}
        said = {"user_metadata": document} if profile else {}
        yield "", tenant, {**claims, **said}, chosen
    if paths := _unheard(catalog, contract):
        yield from (("a further claim", tenant, {**_nested(paths, tenant), **claims}, {}) for tenant in tenants)


def _unheard(catalog: Catalog, contract: Contract) -> list[tuple[str, ...]]:
    """Claims that policies read, or functions that they call, and that no session of the contract carries."""
    carried = {*_SAFE, *_PROFILE, *(key for session in contract.sessions.values() for key in session.claims)}
    texts: dict[str, None] = {}
    for table in catalog.tables:
        for text in (text for policy in table.policies for text in (policy.using, policy.check) if text):
            texts[text] = None
            with suppress(NotVerified):  # one that cannot be parsed is another check's finding
                texts |= dict.fromkeys(f.body for f in functions_behind(shape(text, table.name), catalog))
    paths = {path for text in texts if "jwt" in text for path in _paths(text)}
    return sorted(path for path in paths if path[0] not in carried)


def _paths(text: str) -> Iterator[tuple[str, ...]]:
    """The steps that are taken into documents, as far as they follow each other."""
    path: tuple[str, ...] = ()
    end = -1
    for step in _PATH.finditer(text):
        if path and step.start() != end:
            yield path
            path = ()
        path, end = (*path, step[1]), step.end()
    if path:
        yield path


def _nested(paths: list[tuple[str, ...]], value: str) -> dict[str, Any]:
    """A document that has the value at the end of each path; of two that are in each other's way, at the longer."""
    found: dict[str, Any] = {}
    for path in sorted(paths, key=len, reverse=True):
        inner = found
        for key in path[:-1]:
            inner = inner.setdefault(key, {}) if isinstance(inner.get(key, {}), dict) else {}
        inner.setdefault(path[-1], value)
    return found
