"""Which columns say whose a row is, who knows the tenants, and who their members are. Guessed from the catalogue."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count

from pgconform.catalog import Column, Table
from pgconform.drafting.seen import Seen
from pgconform.names import quote

# What tenants are called where nothing else tells.
KNOWN = re.compile(
    r"^(tenant|org|organi[sz]ation|account|workspace|company|customer|shop|store|site|school|clinic|hotel|property"
    r"|business|firm|agency|merchant|vendor|practice)_?(id|uuid|key|code)$",
    re.I,
)
_USER_COLUMN = re.compile(r"^(user|member|profile|person|account)_?(id|uuid)$|^uid$", re.I)
_MEMBERS = re.compile(r"member|user|permission|staff|seat|access", re.I)
_ACTIVE = re.compile(r"^(is_)?(active|enabled)$", re.I)
_EXPIRES = re.compile(r"^(expires?(_at|_on)?|valid_(until|to)|ends?_(at|on))$", re.I)


@dataclass(frozen=True)
class Members:
    """A table that pairs users with tenants, and why it is taken for one."""

    table: Table
    user: str
    tenant: str
    users: str  # schema.table.column of the user that is referenced, or ''
    why: str

    def named(self, pattern: re.Pattern[str], *types: str) -> str:
        """The first column of one of the types that is called so, or ''."""
        return next((c.name for c in self.table.columns if pattern.match(c.name) and c.type.startswith(types)), "")

    @property
    def active(self) -> str:
        return self.named(_ACTIVE, "boolean")

    @property
    def expires(self) -> str:
        return self.named(_EXPIRES, "timestamp", "date")


@dataclass(frozen=True)
class Guess:
    """A tenancy, with what speaks for it. ``tables`` have its column, ``tied`` are those whose policies compare it."""

    column: str
    type: str
    registry: Table | None
    key: str
    tables: tuple[str, ...]
    tied: tuple[str, ...]
    referencing: tuple[str, ...]
    members: tuple[Members, ...]
    of: int  # relations that there are
    name: str = ""

    def names(self) -> Iterator[str]:
        """What to call it: its registry in the singular, else its column without ``_id``, else one of them numbered."""
        column = re.sub(r"_?(id|uuid|key|code)$", "", self.column)
        told = [self.registry.name, column] if self.registry else [column]
        plain = [re.sub(r"[^a-z0-9_]", "", re.sub(r"[\s-]+", "_", name.lower())).strip("_") for name in told]
        single = [re.sub(r"(?<![su])s$", "", re.sub(r"ies$", "y", name)) or "tenant" for name in plain]
        yield from single
        yield from (f"{single[0]}_{n}" for n in count(2))

    @property
    def why(self) -> str:
        found = [f"{len(self.tables)} of {self.of} tables have this column"]
        if self.referencing and self.registry:
            found.append(f"{len(self.referencing)} reference {self.registry} by it")
        if self.tied:
            found.append(f"the policies of {len(self.tied)} compare it with who calls")
        return "guess: " + ", ".join(found)


def guesses(seen: Seen) -> tuple[list[Guess], list[Guess]]:
    """The tenancies, and the columns that might be one as well, the likeliest first."""
    weighed = sorted(_candidates(seen), key=_weight, reverse=True)
    tied = {table for guess in weighed for table in guess.tied if table != str(guess.registry)}
    found = sorted(weighed, key=lambda guess: str(guess.registry) in tied)  # parents come after whose they are
    taken: list[Guess] = []
    left: list[Guess] = []
    for guess in found:
        covered = {table for other in taken for table in other.tables}
        belongs = str(guess.registry) in _belonging(seen, covered)  # then it is no tenant
        taken.append(guess) if not belongs and _convincing(guess, covered, taken) else left.append(guess)
    belonging = _belonging(seen, {table for other in taken for table in other.tables})
    left = [guess for guess in left if str(guess.registry) not in belonging]
    left = [guess for guess in left if guess.tied or KNOWN.match(guess.column)][:3]
    called = _called([*taken, *left])
    return called[: len(taken)], called[len(taken) :]


def _called(found: list[Guess]) -> list[Guess]:
    """The guesses with a name each, no two alike: several columns may lead to one registry."""
    called: dict[str, Guess] = {}
    for guess in found:
        name = next(name for name in guess.names() if name not in called)
        called[name] = replace(guess, name=name)
    return list(called.values())


def _belonging(seen: Seen, covered: set[str]) -> set[str]:
    """Those tables, and those whose policies tie their rows to one of them by a foreign key, however far."""
    found = set(covered)
    while more := {
        str(table) for table in seen.stored for key in table.foreign_keys()
        if len(key.columns) == 1 and key.references in found and key.columns[0] in seen.tied[str(table)]
    } - found:  # fmt: skip
        found |= more
    return found


def _weight(guess: Guess) -> tuple[int, int, bool, int, str]:
    known = bool(KNOWN.match(guess.column))
    return len(guess.tied), len(guess.referencing), known, len(guess.tables), guess.column


def _convincing(guess: Guess, covered: set[str], taken: list[Guess]) -> bool:
    """True where enough speaks for it: policies; else its name; else half of all tables refer by it to one other."""
    if any(guess.registry is not None and guess.registry == other.registry for other in taken):
        return False
    new_tied, new = set(guess.tied) - covered, set(guess.tables) - covered
    known = bool(KNOWN.match(guess.column))
    if new_tied:
        return len(new_tied) > 1 or known or bool(guess.registry and guess.referencing)
    if known and not taken:
        return len(new) > 1 or guess.registry is not None
    if known and guess.registry is not None:
        return len(new) > 1
    return not taken and len(guess.referencing) >= max(2, guess.of / 2)


def _candidates(seen: Seen) -> Iterator[Guess]:
    columns: dict[str, list[tuple[Table, Column]]] = {}
    for table in seen.stored:
        for column in table.columns:
            columns.setdefault(column.name, []).append((table, column))
    for name, found in columns.items():
        tied = [t for t, c in found if _ties(seen, t, c)]
        registry, key, referencing = _registry(seen, name, found)
        known = bool(KNOWN.match(name))
        if not (tied or referencing or known) or (registry is not None and seen.of_users(str(registry))):
            continue
        kind = Counter(c.type for _, c in found).most_common(1)[0][0]
        tables = tuple(str(t) for t, _ in found)
        members = tuple(_members(seen, name, registry))
        yield Guess(
            name, kind, registry, key, tables, tuple(map(str, tied)), tuple(referencing), members, len(seen.stored)
        )


def _ties(seen: Seen, table: Table, column: Column) -> bool:
    own_key = table.primary_key == (column.name,) and not KNOWN.match(column.name)
    return column.name in seen.tied[str(table)] and not own_key and not seen.by_user(table, column.name)


def _registry(seen: Seen, name: str, found: list[tuple[Table, Column]]) -> tuple[Table | None, str, list[str]]:
    """The table that most foreign keys of the column lead to, its key, and who refers to it; else one named so."""
    targets: Counter[tuple[str, str]] = Counter()
    by: dict[tuple[str, str], list[str]] = {}
    for table, _ in found:
        for constraint in table.foreign_keys():
            if constraint.columns == (name,) and constraint.references != str(table):
                target = constraint.references, constraint.referenced_columns[0]
                targets[target] += 1
                by.setdefault(target, []).append(str(table))
    for target, _ in targets.most_common():
        if table_there := seen.catalog.table(target[0]):
            return table_there, target[1], by[target]
    for table, column in found:  # the table whose own key it is
        if table.primary_key == (column.name,) and len(found) > 1:
            return table, name, []
    stem = re.sub(r"_?(id|uuid|key|code)$", "", name)
    for table in seen.stored if KNOWN.match(name) else ():
        if table.name in (stem, f"{stem}s", f"{stem}es", f"{stem[:-1]}ies") and len(table.primary_key) == 1:
            own = table.column(table.primary_key[0])
            if own and own.type == found[0][1].type:
                return table, own.name, []
    return None, "", []


def _members(seen: Seen, column: str, registry: Table | None) -> Iterator[Members]:
    """Tables that pair a user with a tenant, those that the policies of others read first."""
    rated = []
    for table in seen.stored:
        tenants = [c.columns[0] for c in table.foreign_keys() if _leads(c.columns, c.references, registry)]
        tenant = column if table.column(column) else next(iter(tenants), "")
        user, users = _user(seen, table)
        if not tenant or not user or user == tenant or table == registry:
            continue
        pair = {user, tenant}
        keys = [set(c.columns) for c in table.constraints if c.kind in "pu"]
        keys += [set(i.columns) for i in table.indexes if i.unique and not i.predicate]
        reads, unique = seen.read_by_policies[str(table)], pair in keys
        if reads or unique:
            why = [f"the policies of {reads} other tables read it"] * bool(reads)
            why += ["each pair of user and tenant is there once"] * unique
            own = seen.by_user(table, user)
            rated.append((reads, own, unique, bool(_MEMBERS.search(table.name)), Members(
                table, user, tenant, users, "guess: " + ", ".join(why))))  # fmt: skip
    yield from (item[-1] for item in sorted(rated, key=lambda item: item[:-1], reverse=True))


def _leads(columns: tuple[str, ...], target: str, registry: Table | None) -> bool:
    return len(columns) == 1 and registry is not None and target == str(registry)


def _user(seen: Seen, table: Table) -> tuple[str, str]:
    """The column that names a user, and what it refers to as schema.table.column."""
    for constraint in table.foreign_keys():
        column = constraint.columns[0]
        named = _USER_COLUMN.match(column) or table.primary_key == (column,) or seen.by_user(table, column)
        if named and len(constraint.columns) == 1 and seen.of_users(constraint.references):
            return column, f"{constraint.references}.{quote(constraint.referenced_columns[0])}"
    for each in table.columns:
        if seen.by_user(table, each.name) or _USER_COLUMN.match(each.name):
            return each.name, ""
    return "", ""
