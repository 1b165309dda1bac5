"""SQL statements as values: for the server by psycopg.sql or with parameters, shown with literals. Never talks to one.

A statement is a template with ``{parts}``. A part that is a ``Name`` becomes an identifier, a nested
``Statement`` its text, anything else a literal or a parameter; so a value cannot become SQL by mistake.
"""

from __future__ import annotations

import datetime
import string
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from pgconform import names

if TYPE_CHECKING:
    from psycopg import Connection


class Name(tuple[str, ...]):
    """The parts of an identifier, unquoted: ``Name(("shop", "orders"))``."""

    __slots__ = ()

    @classmethod
    def of(cls, canonical: str) -> Name:
        """A name from the contract's canonical spelling, such as ``shop."Weird"``."""
        return cls(names.split(canonical))


def column(name: str, of: str = "r") -> Name:
    """A column of the row that the statement speaks about, by its table alias."""
    return Name((of, name))


@dataclass(frozen=True, slots=True, eq=False)
class Once:
    """A value that is one parameter, however often the statement has it."""

    value: object


@dataclass(frozen=True, slots=True)
class Statement:
    """``run_text`` gives text and parameters for the server, ``str()`` the same for people to paste."""

    template: str
    parts: tuple[tuple[str, object], ...] = ()

    def _render(self, name: Callable[[Name], str], value: Callable[[object], str]) -> str:
        parts = dict(self.parts)
        out: list[str] = []
        for text, field, _, _ in string.Formatter().parse(self.template):
            out.append(text)
            if field is None:
                continue
            part = parts[field]
            if isinstance(part, Statement):
                out.append(part._render(name, value))
            else:
                out.append(name(part) if isinstance(part, Name) else value(part))
        return "".join(out)

    def __str__(self) -> str:
        return self._render(lambda part: names.qualified(*part), _literal)

    @property
    def bound(self) -> bool:
        """True where a value must be a parameter of the server's, which gives it one type wherever it stands."""
        return any(isinstance(part, Once) or (isinstance(part, Statement) and part.bound) for _, part in self.parts)

    def run_text(self) -> tuple[str, list[object]]:
        """The text with ``$1`` placeholders and its parameters, for psycopg's raw cursor."""
        parameters: list[object] = []
        numbers: dict[Once, str] = {}

        def placeholder(value: object) -> str:
            if isinstance(value, Once):
                return numbers[value] if value in numbers else numbers.setdefault(value, placeholder(value.value))
            parameters.append(list(value) if isinstance(value, tuple) else value)
            return f"${len(parameters)}"

        return self._render(_identifier, placeholder), parameters

    def inline(self, connection: Connection[Any]) -> str:
        """The text with psycopg's literals: for several statements in one message, which take no parameters."""
        from psycopg import sql

        def literal(value: object) -> str:
            value = value.value if isinstance(value, Once) else value
            # Not by as_string: a database of encoding SQL_ASCII is sent UTF-8, too.
            return bytes(sql.Literal(list(value) if isinstance(value, tuple) else value).as_bytes(connection)).decode()

        return self._render(_identifier, literal)


def _identifier(name: Name) -> str:
    from psycopg import sql

    return sql.Identifier(*name).as_string()  # as UTF-8, which any connection of ours is sent


def statement(template: str, **parts: object) -> Statement:
    """A statement from a template; see the module's text for what the parts become."""
    return Statement(template, tuple(parts.items()))


def written(condition: str) -> Statement:
    """A condition as the contract has it. A comment at its end does not take what follows with it."""
    return Statement("(" + condition.replace("{", "{{").replace("}", "}}") + "\n)")


def joined(parts: Iterable[Statement | Name], separator: str = ", ") -> Statement:
    """The parts one after another."""
    listed = list(parts)
    template = separator.join(f"{{p{i}}}" for i in range(len(listed)))
    return Statement(template, tuple((f"p{i}", part) for i, part in enumerate(listed)))


def columns(wanted: Iterable[str], of: str = "r") -> Statement:
    """Columns of one alias, separated by commas."""
    return joined(column(name, of) for name in wanted)


def equal(wanted: Iterable[str], left: str, right: str) -> Statement:
    """The same columns of two aliases are equal, one by one."""
    return joined((statement("{l} = {r}", l=column(name, left), r=column(name, right)) for name in wanted), " and ")


def _literal(value: object) -> str:
    match value:
        case Once():
            return _literal(value.value)
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case Decimal():
            return str(value)
        case datetime.date():
            return names.literal(value.isoformat())
        case tuple() | list():
            return f"array[{', '.join(map(_literal, value))}]::text[]" if value else "array[]::text[]"
        case _:
            return names.literal(str(value))


class Shown(str):
    """The SELECT that lists rows, which still knows them: their keys are masked before anybody reads it."""

    of: Rows


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows ``r`` of one relation for which ``where`` holds: they can be counted, shown, deleted or changed."""

    table: str
    where: Statement

    @property
    def count(self) -> Statement:
        return self._text("select pg_catalog.count(*) from {table} as r where {where}")

    @property
    def source(self) -> Statement:
        """What comes after FROM: the relation as ``r``, and the condition."""
        return self._text("{table} as r where {where}")

    @property
    def shown(self) -> Shown:
        """The SELECT that lists the rows, with its literals."""
        text = Shown(f"{self._text('select r.* from {table} as r where {where}')};")
        text.of = self
        return text

    @property
    def deleted(self) -> Statement:
        return self._text("delete from {table} as r where {where}")

    @property
    def delete(self) -> str:
        return f"{self.deleted};"

    def update(self, change: Statement) -> str:
        """An UPDATE that changes just these rows."""
        return f"{self._text('update {table} as r set {change} where {where}', change=change)};"

    def _text(self, template: str, **more: object) -> Statement:
        return statement(template, table=Name.of(self.table), where=self.where, **more)
