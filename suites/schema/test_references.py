"""References: declared as validated foreign keys, with the declared action, and indexed."""

from collections.abc import Iterator

from pgconform.catalog import Catalog, Constraint, Table
from pgconform.checks import check
from pgconform.contract import Contract, Reference
from pgconform.model import Finding, Nothing
from pgconform.names import quote, remark
from pgconform.remedies import noun
from pgconform.subjects import Declared, application_tables, references


def _columns(names: tuple[str, ...]) -> str:
    return ", ".join(map(quote, names))


def _foreign_key(subject: Declared[Reference], catalog: Catalog) -> Constraint | None:
    """The foreign key that the reference promises: same columns to same columns, in whatever order."""
    table = catalog.table(subject.table)
    wanted = set(zip(subject.item.columns, subject.item.to, strict=True))
    for key in table.foreign_keys() if table else ():
        same = set(zip(key.columns, key.referenced_columns, strict=True)) == wanted
        if same and key.references == subject.item.table:
            return key
    return None


def _add(subject: Declared[Reference], catalog: Catalog) -> str:
    """Adds the foreign key, and the unique index that it needs where the referenced columns have none."""
    item, target = subject.item, catalog.table(subject.item.table)
    action = f" on delete {item.on_delete}" if item.on_delete else ""
    unique = [i for i in target.indexes if i.unique and i.valid and not i.predicate] if target else []
    index = quote(f"{'_'.join(item.to)}_key of {item.table}"[:63])
    needed = f"create unique index if not exists {index} on {item.table} ({_columns(item.to)});\n"
    return ("" if any(set(i.columns) == set(item.to) for i in unique) else needed) + (
        f"alter table {subject.table} add foreign key ({_columns(item.columns)})"
        f" references {item.table} ({_columns(item.to)}){action};"
    )


@check("reference-declared", guide=["muva-29", "vs-34"], when=["gate", "quarterly"], each=references)
def test_every_reference_is_a_foreign_key(subject: Declared[Reference], catalog: Catalog) -> Iterator[Finding]:
    """Every reference of the contract is a foreign key of the database.

    Without it nothing stops a row from naming a tenant, a call or an invoice that never was.
    """
    table = catalog.table(subject.table)
    if table and table.kind not in ("table", "partitioned"):
        raise Nothing(f"{table} is a {noun(table)}: it can have no foreign keys")
    if subject.item.declared and _foreign_key(subject, catalog) is None:
        observed = f"no foreign key from ({_columns(subject.item.columns)}) to {subject.item.table}"
        yield Finding(subject.table, observed, _add(subject, catalog), detail=subject.name)


@check("reference-action", guide=["vs-34"], when=["quarterly"], each=references)
def test_every_reference_has_the_declared_action(subject: Declared[Reference], catalog: Catalog) -> Iterator[Finding]:
    """The foreign key's ON DELETE action is the declared one.

    A CASCADE where nobody expects one deletes a tenant's invoices along with the tenant.
    """
    key, wanted = _foreign_key(subject, catalog), subject.item.on_delete
    if key and wanted and key.on_delete != wanted:
        remedy = f"alter table {subject.table} drop constraint {quote(key.name)};\n{_add(subject, catalog)}"
        yield Finding(subject.table, f"on delete {key.on_delete}, not {wanted}", remedy, detail=subject.name)


def keyed_tables(catalog: Catalog, contract: Contract) -> Iterator[Table]:
    """Application tables with foreign keys."""
    return (t for t in application_tables(catalog, contract) if any(t.foreign_keys()))


def _enforce(table: Table, rule: Constraint) -> str:
    """Has a constraint hold; of a foreign key alone that can be altered."""
    name, text = quote(rule.name), rule.definition.removesuffix(" NOT ENFORCED")
    if rule.kind == "f":
        return f"alter table {table} alter constraint {name} enforced;"
    return f"{_broken(table, rule)}alter table {table} drop constraint {name}, add constraint {name} {text};"


def _validate(table: Table, rule: Constraint) -> str:
    """Has a constraint hold for the rows before it, too."""
    return f"{_broken(table, rule)}alter table {table} validate constraint {quote(rule.name)};"


def _broken(table: Table, rule: Constraint) -> str:
    """What shows the rows that a constraint refuses, which have to be put right first; '' for a foreign key, whose
    rows ``orphans`` shows."""
    text = rule.definition.removesuffix(" NOT ENFORCED").removesuffix(" NOT VALID").removesuffix(" NO INHERIT")
    held = f"not {text.removeprefix('CHECK ')}" if rule.kind == "c" else f"{_columns(rule.columns)} is null"
    return "" if rule.kind == "f" else f"{remark(f'put right first: select * from {table} where {held};')}\n"


def ruled_tables(catalog: Catalog, contract: Contract) -> Iterator[Table]:
    """Application tables with foreign keys or check constraints."""
    return (t for t in application_tables(catalog, contract) if any(c.kind in "fcn" for c in t.constraints))


@check("foreign-key-validated", guide=["muva-29", "vs-34"], when=["gate", "quarterly"], of=ruled_tables)
def test_every_constraint_is_validated(table: Table) -> Iterator[Finding]:
    """Every foreign key and check constraint is validated and enforced.

    One that is NOT VALID says nothing about the rows that were there before it.
    """
    for rule in [c for c in table.constraints if c.kind in "fcn" and not (c.enforced and c.validated)]:
        name = quote(rule.name)
        if not rule.enforced and not (rule.inherited and rule.kind != "f"):
            yield Finding(str(table), f"{name} is not enforced", _enforce(table, rule), detail=name)
        elif not rule.validated and not rule.inherited:
            yield Finding(str(table), f"{name} is not validated", _validate(table, rule), detail=name)


@check("foreign-key-indexed", guide=["vs-12"], when=["weekly"], of=keyed_tables)
def test_every_foreign_key_is_indexed(table: Table) -> Iterator[Finding]:
    """Every foreign key's columns are the leading columns, in any order, of a valid index of all rows with a value.

    Otherwise each delete or key change of a referenced row reads the whole referencing table.
    """
    usable = [i for i in table.indexes if i.valid and i.ready and i.method in ("btree", "hash")]
    for key in table.foreign_keys():
        wanted = set(key.columns)
        if not key.inherited and not any(
            set(i.columns[: len(wanted)]) == wanted and i.has_all(*wanted) for i in usable
        ):
            observed = f"no index leads with ({_columns(key.columns)}) of {quote(key.name)}"
            remedy = f"create index on {table} ({_columns(key.columns)});"
            yield Finding(str(table), observed, remedy, detail=quote(key.name))
