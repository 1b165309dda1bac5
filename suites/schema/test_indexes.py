"""Indexes: valid, none that another one already does the work of, and one for every key that is declared."""

from collections.abc import Iterator

from pgconform.catalog import Catalog, Index, Table
from pgconform.checks import check
from pgconform.model import Finding, Severity
from pgconform.names import quote
from pgconform.remedies import rebuild
from pgconform.subjects import Declared, indexes, unique_keys


@check("index-valid", guide=["muva-37", "vs-12"], when=["gate", "weekly", "quarterly"], of=indexes)
def test_every_index_is_valid(subject: tuple[Table, Index]) -> Iterator[Finding]:
    """Every index is valid and ready.

    An invalid one, left behind by a failed concurrent build, costs every write and serves no query.
    """
    table, index = subject
    if not (index.valid and index.ready):
        yield Finding(str(index), f"the index of {table} is not valid", rebuild(table, index))


def _work(index: Index) -> tuple[object, ...]:
    """What two indexes must share so that one of them is enough."""
    return index.method, index.predicate, tuple(sorted(index.options.items()))


def _keys(index: Index) -> list[tuple[object, ...]]:
    return list(zip(index.keys, index.operator_classes, index.collations, index.directions, strict=True))


def _serves(other: Index, index: Index) -> bool:
    """True when ``other`` works on the same keys, and keeps whatever rule ``index`` keeps."""
    rule = not index.unique or (other.unique and other.nulls_not_distinct == index.nulls_not_distinct)
    same = _work(index) == _work(other) and _keys(index) == _keys(other)
    return same and rule and set(index.included) <= set(other.included)


def _kept_first(index: Index) -> tuple[bool, bool, int, str]:
    return (not index.constraint, not index.unique, -len(index.included), index.name)


@check("index-duplicate", guide=["vs-12"], when=["weekly"], of=indexes, severity=Severity.SHOULD)
def test_no_index_is_a_duplicate(subject: tuple[Table, Index]) -> Iterator[Finding]:
    """No two indexes of a table have the same keys, method, predicate and options.

    The second one costs every write and every vacuum, and serves nothing.
    """
    table, index = subject
    keys = index.keys
    alike = [o for o in table.indexes if o.keys == keys]
    if len(alike) == 1:
        return  # most of many thousands are like no other
    others = [o for o in alike if o is not index and o.valid and _serves(o, index)]
    twin = min(others, key=_kept_first, default=index)
    if _kept_first(twin) < _kept_first(index) and not index.constraint and not index.inherited:
        yield Finding(str(index), f"it does the same work as {twin}", f"drop index {index};")


@check("index-redundant", guide=["vs-12"], when=["weekly"], of=indexes, severity=Severity.SHOULD)
def test_no_index_is_the_beginning_of_another(subject: tuple[Table, Index]) -> Iterator[Finding]:
    """No plain btree index has just the leading keys of another one.

    The longer index answers whatever the shorter one does.
    """
    table, index = subject
    if index.method != "btree" or index.unique or index.constraint or index.inherited or index.included:
        return
    length = len(index.keys)
    for other in table.indexes:
        if len(other.keys) <= length or other.keys[:length] != index.keys:
            continue
        longer = _keys(other)[:length] == _keys(index)
        if longer and other.valid and other.method == "btree" and other.predicate == index.predicate:
            yield Finding(str(index), f"its keys are the first ones of {other}", f"drop index {index};")
            return


def _within(index: Index, key: tuple[str, ...]) -> bool:
    """True when an index's keys are columns of the key, or expressions of such: values that differ there differ."""
    pairs = zip(index.columns, index.keys, strict=True)
    return all(column in key if column else any(name in text for name in key) for column, text in pairs)


@check("unique-enforced", guide=["muva-16", "vs-2", "vs-3"], when=["gate", "daily"], each=unique_keys)
def test_a_unique_index_keeps_every_declared_key(
    subject: Declared[tuple[str, ...]], catalog: Catalog
) -> Iterator[Finding]:
    """A unique index keeps every declared key of a table.

    Without it the key is unique by chance: two sessions that look at once both find it free.
    """
    table = catalog.table(subject.table)
    if table is None or not table.stores_rows or table.kind == "foreign":
        return
    keeping = [i for i in table.indexes if i.unique and i.valid and not i.predicate]
    if not any(_within(index, subject.item) for index in keeping):
        named = f"({', '.join(map(quote, subject.item))})"
        remedy = f"alter table {table} add unique {named};"
        yield Finding(str(table), f"no unique index keeps {named}", remedy, detail=subject.name)
