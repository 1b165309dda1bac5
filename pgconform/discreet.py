"""Text for messages, without an address or a password that somebody typed in the wrong place."""

from __future__ import annotations

import re

# Addresses with somebody's name or password, and any of PostgreSQL's; ours, of which nothing is filled in, may stay.
_ADDRESS = re.compile(
    r"(?:\bpostgres(?:ql)?:/+(?!USER@)|\b[a-z][\w+.-]*:/+(?=[^\s'\"@]*@)(?!USER@))[^\s'\"]*[^\s'\":;,.]", re.I
)
_SECRET = re.compile(r"\b(password|passwd|sslpassword)\s*=\s*(?:'[^']*'?|[^\s'\"]+)", re.I)


def discreet(text: str) -> str:
    """The text with what is between its words, as far as that may hold a secret."""
    return _SECRET.sub(r"\1=(hidden)", _ADDRESS.sub("(an address)", text))


def is_variable(text: str) -> bool:
    """True for what may be the name of an environment variable; no address is."""
    return re.fullmatch(r"[A-Za-z_]\w*", text) is not None


def is_address(text: str) -> bool:
    """True for a word that says how a database is reached."""
    return bool(_ADDRESS.search(text) or _SECRET.search(text) or re.search(r"\b(?:dbname|host|hostaddr)=", text))
