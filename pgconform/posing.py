"""What a client may say of itself: by settings, headers of the request, the own profile.

Any session may set any setting with a dot in its name, but those that the API sets for it; the API passes on headers
and cookies as the caller wrote them; users edit their own metadata. A policy that believes them protects nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from pgconform.catalog import Catalog
from pgconform.contract import Contract

_READ = re.compile(r"current_setting\(\s*'((?:[^']|'')+)'", re.IGNORECASE)
_KEY = re.compile(r"'([A-Za-z_][\w.-]*)'")  # of a JSON document, or of a path into it
_PASSED_ON = ("request.headers", "request.cookies")  # JSON documents that the caller writes (PostgREST's manual)
_PROFILE = ("user_metadata", "raw_user_meta_data")
_SIGNED = "request.jwt."
_WORDS = ("true", "admin", "service_role")


def choosable(catalog: Catalog, contract: Contract) -> tuple[str, ...]:
    """Settings that policies, functions and views read and that any client may set, in order."""
    api = {contract.claims_setting, *(name for s in contract.sessions.values() for name in s.settings)}
    read = {name.replace("''", "'") for text in _texts(catalog) for name in _READ.findall(text)}
    return tuple(sorted(n for n in read - api if ("." in n or n == "application_name") and not n.startswith(_SIGNED)))


def _texts(catalog: Catalog) -> Iterator[str]:
    for table in catalog.tables:
        yield from (text for policy in table.policies for text in (policy.using, policy.check) if text)
        yield table.definition
    yield from (function.body for function in catalog.functions if not function.extension)


def poses(
    catalog: Catalog, contract: Contract, claims: dict[str, Any], tenants: list[str], users: list[str]
) -> Iterator[tuple[str, dict[str, Any], dict[str, str]]]:
    """The tenant whose rows such a session is after ('' for anybody's), its claims, and the settings that it chose."""
    names = choosable(catalog, contract)
    texts = [text for text in _texts(catalog) if any(word in text for word in (*names, *_PROFILE))]
    profile = next((word for word in _PROFILE if any(word in text for text in texts)), "")
    if not names and not profile:
        return
    keys = sorted({key for text in texts for key in _KEY.findall(text)})
    owned = [(tenant, tenant) for tenant in tenants]
    for tenant, value in (*owned, *(("", value) for value in (*users, *_WORDS))):
        document = dict.fromkeys(keys, value)
        chosen = {name: json.dumps(document) if name in _PASSED_ON else value for name in names}
        said = {"user_metadata": document} if profile else {}
        yield tenant, {**claims, **said}, chosen
