"""What searching needs, lost on a copy and made again as remedies say: is all as it was?"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pgconform.catalog import Function, Index, Table
from pgconform.checks import Evidence
from pgconform.contract_vectors import Vector
from pgconform.database import Database, begin, explain
from pgconform.model import Finding, Nothing, NotVerified
from pgconform.probes.recall import shortcoming
from pgconform.probes.scans import index_scans
from pgconform.probes.searching import INDEX_ONLY, answers, faults
from pgconform.remedies import create_vector_index, rebuild
from pgconform.statements import Name
from pgconform.subjects import Declared, Searching, present_overload, recreate, searches
from pgconform.vector_indexes import candidates

if TYPE_CHECKING:
    from psycopg import Connection

    from pgconform.recovery.copies import Copies

# What makes an index invalid as a concurrent build does that failed (pg_index.indisvalid).
_INVALID = "update pg_catalog.pg_index set indisvalid = false where indexrelid = pg_catalog.to_regclass('{}')"
# An approximate index leaves near rows out, or the last ones: by chance the one or the other (probes.searching.faults).
_LEFT_OUT = re.compile(r"nearer rows are left out|result\(s\) where \d+ rows qualify")
_SIGNATURE = ("kind", "returns", "returns_set", "inputs", "arguments")
_SETTINGS = ("language", "volatility", "parallel", "security_definer", "strict", "leakproof", "configuration")


@dataclass(frozen=True)
class Scene:
    """A copy in which something is lost, and made again."""

    connection: Connection[Any]
    evidence: Evidence

    def say(self, text: str) -> str:
        """Run the SQL of a loss or a remedy; what it was refused by, or ''."""
        import psycopg

        from pgconform.database import said

        try:
            self.connection.execute(text.encode(), prepare=False)
        except psycopg.Error as error:
            return said(error)
        return ""

    @contextmanager
    def seen(self) -> Iterator[Evidence]:
        """The copy as it is now, as checks see a target."""
        from pgconform.introspect import snapshot

        begin(self.connection, self.evidence.contract.limits, read_only=False)
        try:
            database = Database(self.connection)
            catalog = snapshot(self.connection)
            yield replace(self.evidence, catalog=catalog, database=database, writing=None, copies=None)
        finally:
            self.connection.execute("rollback", prepare=False)


@contextmanager
def scene(evidence: Evidence, copies: Copies) -> Iterator[Scene]:
    """A fresh copy. Raises NotVerified."""
    import psycopg

    from pgconform.introspect import read_text

    with copies.fresh() as copy, copy.connect() as connection:
        try:
            read_text(connection)
            yield Scene(connection, evidence)
        except psycopg.Error as error:
            raise NotVerified(explain(error, "rehearsing an emergency on a copy")) from None


def rebuilt(subject: Declared[Vector], evidence: Evidence, copies: Copies) -> Iterator[Finding]:
    """What searches lack after the vector index was invalid, and after it was lost, and made again each time."""
    table, name = evidence.catalog.table(subject.table), subject.needs[0][1][0]
    indexes = [i for i in candidates(table, name) if i.valid] if table else []
    if table is None or subject.item.index is None or not indexes:
        raise Nothing(f"{subject} has no valid vector index to lose")
    with scene(evidence, copies) as stage:
        with stage.seen() as now:
            before = _shortcomings(subject, indexes, now)
        mended = stage.say(";".join(_INVALID.format(str(i).replace("'", "''")) for i in indexes))
        mended = mended or next(filter(None, (stage.say(rebuild(table, i)) for i in indexes)), "")
        yield from _served(subject, table, stage, "invalid", mended, before)
        mended = stage.say(";".join(f"drop index {i}" for i in indexes))
        mended = mended or stage.say(create_vector_index(evidence.catalog, table, name, subject.item))
        yield from _served(subject, table, stage, "dropped", mended, before)


def _served(
    subject: Declared[Vector], table: Table, stage: Scene, loss: str, refused: str, before: dict[str, dict[str, str]]
) -> Iterator[Finding]:
    """Whether the index that was made again has all rows, and serves each search function of the column."""
    assert subject.item.index
    name, after = subject.needs[0][1][0], f"after the index was {loss} and made again"
    if refused:
        advice = f"-- find out why {table} cannot have its index made again, then rehearse it"
        yield Finding(str(table), f"a vector index that was {loss} cannot be made again: {refused}", advice, loss)
        return
    with stage.seen() as evidence:
        now = evidence.catalog.table(subject.table)
        made = [i for i in candidates(now, name) if i.valid] if now else []
        for index in made:
            if observed := shortcoming(subject, index, evidence, subject.item.index.recall)[0]:
                yield Finding(str(table), f"{after}: {observed}", rebuild(table, index), loss)
        for function, wrong in _shortcomings(subject, made, evidence).items():
            if new := [why for kind, why in wrong.items() if kind not in before.get(function, {})]:
                search = next(s for s in searches(evidence.contract) if s.function == function)
                yield Finding(function, f"{after}: {new[0]}", search.recreate(evidence.catalog), loss)


def kinds(wrong: Iterable[str]) -> dict[str, str]:
    """What is wrong, by its kind. Numbers are none: each time that an hnsw index is built it is another graph, finds a
    few rows more or less, and leaves out near rows where it left out the last ones."""
    return {"rows are left out" if _LEFT_OUT.search(why) else re.sub(r"[\d.]+", "N", why): why for why in wrong}


def _shortcomings(subject: Declared[Vector], indexes: list[Index], evidence: Evidence) -> dict[str, dict[str, str]]:
    """What is wrong with each search function of the column where only an index can give the order, by its kind."""
    found = {}
    for search in searches(evidence.contract):
        there = evidence.catalog.functions_named(search.function)
        if there and (search.table, search.column) == (subject.table, subject.needs[0][1][0]):
            names = [Name((i.schema, i.name)) for i in indexes]
            with evidence.database.setting(tuple(INDEX_ONLY.items()), f"searching through {search.function}"):
                wrong = faults(search, answers(search, evidence))
            told = wrong.values() if _scans(search, evidence, names) else ["it does not scan the index"]
            found[search.function] = kinds(told)
    return found


def _scans(search: Searching, evidence: Evidence, names: list[Name]) -> bool:
    """False where a search does not scan the index that it should; whom the call is refused is told as a fault."""
    try:
        return bool(names) and index_scans(search, evidence, names, INDEX_ONLY) > 0
    except Nothing:
        return True


# -- functions --------------------------------------------------------------------------------------------------


def restored(subject: Searching, evidence: Evidence, copies: Copies) -> Iterator[Finding]:
    """How a search function that was lost differs, made again by the contract's definition."""
    function = present_overload(subject.function, subject.promise, evidence.catalog)
    if not subject.promise.definition:
        raise Nothing(f"the contract has no definition of {subject.function}; give it one")
    anybody = sorted({"public", *(g.grantee for g in function.acl)} - {function.owner})
    twin = f"create function {subject.function}(lost text) returns text language sql as 'select $1'"
    drop = f"drop function {function.signature}"
    losses = {
        "dropped": drop,
        "replaced": f"{drop};\n{twin}",
        "stripped": f"revoke all on function {function.signature} from {', '.join(map(_role, anybody))}",
    }
    with scene(evidence, copies) as stage:
        with stage.seen() as before:
            wanted = _state(subject, before)
        for loss, text in losses.items():
            yield from _made_again(subject, function, stage, loss, text, wanted)


def _role(name: str) -> str:
    from pgconform.names import quote

    return name if name == "public" else quote(name)


def _made_again(
    subject: Searching, function: Function, stage: Scene, loss: str, text: str, wanted: dict[str, object]
) -> Iterator[Finding]:
    remedy = recreate(subject.function, subject.promise, function)
    refused = stage.say(text)
    with stage.seen() as evidence:
        there = evidence.catalog.functions_named(subject.function) if loss != "stripped" else ()
    refused = refused or stage.say(recreate(subject.function, subject.promise, *there))
    if refused:
        yield Finding(subject.function, f"{loss}, it cannot be made again: {refused}", remedy, loss)
        return
    with stage.seen() as evidence:
        found = _state(subject, evidence)
    for what, value in wanted.items():
        if found.get(what) != value:
            yield Finding(subject.function, f"{loss} and made again, it has other {what} than now", remedy, loss)
            return


def _state(subject: Searching, evidence: Evidence) -> dict[str, object]:
    """All that callers of a search function rely on, by what it is called; nothing where it is not there."""
    found = evidence.catalog.functions_named(subject.function)
    if len(found) != 1:
        return {"overloads": len(found)}
    function = found[0]
    given = list(answers(subject, evidence))
    return {
        "overloads": 1,
        "arguments or results": [getattr(function, part) for part in _SIGNATURE],
        "settings": [getattr(function, part) for part in _SETTINGS],
        "grants": sorted((g.grantee, g.privilege) for g in function.acl),
        "answers": [(str(a.identity), a.asked, a.keys, a.refused) for a in given],
    }
