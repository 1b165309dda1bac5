"""What a trigger function's body sends along with NOTIFY, told from its text. Runs nothing, resolves no name.

A body is searched, not parsed: any language may be in it. Comments are left out and literals emptied; what a payload
names is followed through the assignments of the body.
"""

from __future__ import annotations

import re
from functools import lru_cache

_TOKEN = re.compile(
    r"""(?P<comment>--[^\n]*|/\*)|(?P<name>"(?:[^"]|"")*")|[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'"""
    r"""|(?P<tag>\$(?:[^\W\d]\w*)?\$)""",
    re.DOTALL,
)
# A literal that EXECUTE will run. A plain NOTIFY takes nothing but a literal: it can carry no row.
_SENDS = re.compile(r"^(?:[eE]?'|\$\w*\$)\s*notify\s|\bpg_notify\s*\(", re.IGNORECASE)
_CAST = re.compile(r"::\s*[\w$.]+(?:\s*\([^)]*\))?(?:\s*\[\])*")
_KEYED = re.compile(  # one column out of a row that was made a document
    r"\b(?:to_jsonb?|row_to_json|hstore)\s*\(\s*(new|old)\s*\)[\s)]*->>?\s*'(\w+)'", re.IGNORECASE
)
_COMPARED = re.compile(
    r"\b(?:new|old)\s+is\s+(?:not\s+)?null\b"
    r"|\b(?:new|old)\s*(?:\*?(?:=|<>)|is\s+(?:not\s+)?distinct\s+from)\s*(?:new|old)\b(?!\s*\.)",
    re.IGNORECASE,
)
_ARRAY = r"(?:\s*\[[^\]]*\])*"
_SET = re.compile(  # a variable, or one with its type
    rf"(?<![\w$.])([\w$]++)(?:\.[\w$]++)*+{_ARRAY}"
    rf"(?:\s+([\w$]++)[\w$.%]*+(?:\s*\([^)]*\))?{_ARRAY}(?:\s+not\s+null)?)?\s*(?::=|=(?!>)|\bdefault\b)",
    re.IGNORECASE,
)
_INTO = re.compile(r"(?<!insert )(?<!merge )\binto\s+(?:strict\s+)?([\w$]+(?:\s*,\s*[\w$]+)*)", re.IGNORECASE)
_WORD = re.compile(r"(?<![\w$.])[\w$]+")
_ROW = re.compile(r"(?<![\w$.\"])(?:new|old)\b(?:\s*\.\s*(\"(?:[^\"]|\"\")+\"|[\w$]+))?", re.IGNORECASE)
_NO_VARIABLES = frozenset(("new", "old", "then", "else", "begin", "loop", "declare", "when", "case", "end", "not"))


@lru_cache(maxsize=4096)
def code(body: str) -> str:
    """The body without comments, casts and the text of literals; one that notifies becomes the word pg_notify."""
    kept = _KEYED.sub(r"\1.\2", _CAST.sub("", _tokens(body, literals=True)))
    return " ".join(_tokens(kept, literals=False).split())


def uncommented(body: str) -> str:
    """The body without its comments."""
    return _tokens(body, literals=True)


def _tokens(body: str, *, literals: bool) -> str:
    out: list[str] = []
    position = 0
    while match := _TOKEN.search(body, position):
        out.append(body[position : match.start()])
        token, position = match[0], match.end()
        if match["comment"]:
            position = _after_comment(body, position) if token == "/*" else position
            out.append(" ")
            continue
        if match["tag"]:
            end = body.find(token, position)
            position = end + len(token) if end >= 0 else len(body)
            token = body[match.start() : position]
        if match["name"] or literals:
            out.append(token)
        else:
            out.append(" pg_notify " if _SENDS.search(token) else "''")
    return "".join([*out, body[position:]])


def _after_comment(body: str, position: int) -> int:
    """Where a comment ends that began before: comments can be nested."""
    depth = 1
    for mark in re.finditer(r"/\*|\*/", body[position:]):
        depth += 1 if mark[0] == "/*" else -1
        if not depth:
            return position + mark.end()
    return len(body)


@lru_cache(maxsize=4096)
def sent(body: str, senders: frozenset[str] = frozenset()) -> str:
    """All that goes into the notifications of a body, '' where it sends none.

    ``senders`` are other functions that notify, by their names without a schema.
    """
    text = code(body)
    named = "|".join(re.escape(name) for name in sorted(senders))
    called = rf'(?<![\w$])(?:pg_notify\s*|"?(?:{named})"?\s*(?=\())' if named else r"(?<![\w$])pg_notify\s*"
    found = [_payload(text, match.end()) for match in re.finditer(called, text, re.IGNORECASE)]
    given, known = _given(text), set(_NO_VARIABLES)
    for payload in found:  # which grows by what the variables in it were given
        for word in sorted({word.lower() for word in _WORD.findall(payload)} - known):
            known.add(word)
            found += given.get(word, [])
    return " ; ".join(found)


def _payload(text: str, start: int) -> str:
    """What stands in the brackets that open here; without brackets, the rest of the statement."""
    if not text.startswith("(", start):
        return text[start:].partition(";")[0]
    depth = 0
    for mark in re.finditer(r"[()]", text[start:]):
        depth += 1 if mark[0] == "(" else -1
        if not depth:
            return text[start + 1 : start + mark.start()]
    return text[start:]


def _given(text: str) -> dict[str, list[str]]:
    """What the body puts into each variable: by an assignment, its declaration, or INTO."""
    found: dict[str, list[str]] = {}
    for part in text.split(";"):
        for match in _SET.finditer(part):
            for name in filter(None, match.groups()):  # "begin x :=" looks like "x text :="
                found.setdefault(name.lower(), []).append(part[match.end() :])
        for match in _INTO.finditer(part):
            returned = re.split(r"\breturning\b", part[: match.start()], flags=re.IGNORECASE)
            value = returned[-1] if len(returned) > 1 else part[: match.start()] + part[match.end() :]
            for name in match[1].split(","):
                found.setdefault(name.strip().lower(), []).append(value)
    return found


def rows_in(text: str) -> tuple[bool, frozenset[str]]:
    """Whether a whole row, new or old, is in the text, and which columns of one are."""
    named = [match[1] for match in _ROW.finditer(_COMPARED.sub("", text))]
    columns = {n[1:-1].replace('""', '"') if n.startswith('"') else n.lower() for n in named if n}
    return not all(named), frozenset(columns)
