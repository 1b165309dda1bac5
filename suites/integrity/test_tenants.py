"""Tenants: every row has one that is registered, nothing is shared between two, and each is complete."""

from collections.abc import Iterator

from pgconform.checks import check
from pgconform.contract import Complete, Contract, Tenancy
from pgconform.database import Database
from pgconform.model import Finding
from pgconform.names import quote
from pgconform.probes import rows
from pgconform.probes.remedial import admit_admins, complete_tenants
from pgconform.subjects import (
    Declared,
    completeness,
    determined_columns,
    distinct_columns,
    exclusive_columns,
    memberships,
    tenancies,
    tenant_rows,
    time_columns,
    unique_keys,
)  # fmt: skip


@check("tenant-known", guide=["muva-16", "vs-15"], when=["daily", "weekly"], each=tenant_rows)
def test_every_row_belongs_to_a_registered_tenant(
    subject: Declared[Tenancy], contract: Contract, database: Database
) -> Iterator[Finding]:
    """Every row has a tenant, and the registry knows it.

    A row without tenant is in nobody's list; after ON DELETE SET NULL exactly those are the orphans.
    """
    name, registry = contract.column_of(subject.table), subject.item.registry
    promise = contract.tables[subject.table]
    offences = [] if promise.nullable else [rows.without_tenant(subject, name)]
    referred = registry and any(r.columns == (name,) and r.table == registry.table for r in promise.references)
    if registry and registry.table != subject.table and not referred:  # else the check of orphans asks it
        offences.append(rows.unregistered(subject, name, registry))
    yield from rows.judge(database, *offences)
    rows.need_rows(database, subject.table)


@check("unique-keys", guide=["muva-16", "vs-2", "vs-3"], when=["daily"], each=unique_keys)
def test_declared_keys_are_unique(subject: Declared[tuple[str, ...]], database: Database) -> Iterator[Finding]:
    """No two rows have the same declared key.

    A unit, number or membership that is there twice is counted, billed and answered twice.
    """
    yield from rows.judge(database, rows.duplicates(subject, subject.item, f"repeat a key ({', '.join(subject.item)})"))


@check("one-value-per-key", guide=["muva-16"], when=["daily"], each=determined_columns)
def test_a_key_names_one_thing(subject: Declared[str], contract: Contract, database: Database) -> Iterator[Finding]:
    """Within a tenant, rows of one key agree in what it names.

    One unit code for two units mixes their answers.
    """
    key = rows.tenant_key(contract, subject.table, (subject.needs[0][1][0],))
    yield from rows.judge(database, rows.undetermined(subject, key))


@check("shared-by-tenants", guide=["muva-17"], when=["daily"], each=exclusive_columns)
def test_no_value_appears_under_two_tenants(subject: Declared[str], database: Database) -> Iterator[Finding]:
    """No source file, unit or content of one tenant appears under another.

    It is how a leak looks afterwards: the counts of both tenants are as they were.
    """
    yield from rows.judge(database, rows.shared_by_tenants(subject, subject.needs[0][1][0]))


@check("duplicate-content", guide=["muva-30"], when=["weekly"], each=distinct_columns)
def test_no_content_appears_twice(subject: Declared[str], contract: Contract, database: Database) -> Iterator[Finding]:
    """No content appears twice within a tenant.

    A text ingested twice crowds other answers out of every search.
    """
    key = rows.tenant_key(contract, subject.table, (subject.needs[0][1][0],))
    yield from rows.judge(database, rows.duplicates(subject, key, f"repeat the {key[-1]} of another row"))


@check("times-plausible", guide=["muva-17"], when=["daily"], each=time_columns)
def test_no_time_is_impossible(subject: Declared[str], contract: Contract, database: Database) -> Iterator[Finding]:
    """No time lies in the future, or before the row's tenant was registered.

    Such a row was imported for the wrong tenant, or by a clock that is wrong.
    """
    promise = contract.tables[subject.table]
    tenant = contract.column_of(subject.table) if promise.holds == "tenant" else ""
    offences = [rows.in_future(subject, tenant)]
    registry = contract.tenancy_of(promise).registry if tenant else None
    if registry and registry.created and registry.table != subject.table:
        offences.append(rows.before_registration(subject, tenant, registry))
    yield from rows.judge(database, *offences)


@check("onboarding-complete", guide=["muva-7"], when=["daily"], each=completeness)
def test_every_tenant_is_onboarded_completely(
    subject: Declared[tuple[Tenancy, Complete]], database: Database
) -> Iterator[Finding]:
    """Every registered tenant has its row in each table that belongs to a tenant's beginning.

    Onboarding takes several steps; where one failed, the tenant is half there.
    """
    tenancy, part = subject.item
    assert tenancy.registry
    missing = rows.incomplete(tenancy.registry, part.table, part.column)
    count = int(database.one(missing.count, f"comparing {part.table} with {tenancy.registry.table}")[0])
    if count:
        observed = f"{count} tenant(s) of {tenancy.registry.table} have no row"
        yield Finding(part.table, observed, complete_tenants(missing), quote(part.column), True, missing.shown, count)
    rows.need_rows(database, tenancy.registry.table)


def administered(contract: Contract) -> Iterator[Declared[Tenancy]]:
    """Tenancies with a table of members that says which rank administers, and a registry."""
    for subject in memberships(contract):
        if subject.item.registry and subject.item.members and subject.item.members.admin:
            yield subject


@check("tenant-has-admin", guide=["muva-7", "muva-20"], when=["daily", "weekly"], each=administered)
def test_every_active_tenant_has_an_admin(subject: Declared[Tenancy], database: Database) -> Iterator[Finding]:
    """Every active tenant has an active admin.

    Without one nobody of the tenant can invite, remove or correct anybody.
    """
    registry, members = subject.item.registry, subject.item.members
    assert registry, "its subjects have one"
    assert members, "its subjects have some"
    lacking = rows.tenants_without_admin(registry, members)
    count = int(database.one(lacking.count, f"looking for admins in {members.table}")[0])
    if count:
        observed = f"{count} active tenant(s) have no active {members.admin}"
        yield Finding(
            registry.table, observed, admit_admins(lacking, registry, members), "", True, lacking.shown, count
        )
    rows.need_rows(database, registry.table)


@check("members-valid", guide=["muva-20", "vs-2"], when=["daily", "weekly"], each=memberships)
def test_every_membership_is_valid(subject: Declared[Tenancy], database: Database) -> Iterator[Finding]:
    """Every membership names a registered tenant and an existing user, with a known role and known permissions.

    A permission for a tenant that was removed comes alive again when its id is given away anew.
    """
    tenancy, members = subject.item, subject.item.members
    assert members
    offences = [rows.duplicates(subject, (members.user, members.tenant), "repeat a membership")]
    if members.role and members.roles:
        offences.append(rows.unknown_role(subject, members))
    if members.users:
        offences.append(rows.unknown_user(subject, members))
    if tenancy.registry:
        offences.append(rows.unregistered(subject, members.tenant, tenancy.registry))
    if members.permissions:
        offences.append(rows.unknown_permissions(subject, members))
    yield from rows.judge(database, *offences)


@check("registry-sound", guide=["muva-7", "muva-16"], when=["daily"], each=tenancies)
def test_the_registry_knows_each_tenant_once(subject: Declared[Tenancy], database: Database) -> Iterator[Finding]:
    """The registry names every tenant, and each one once.

    Everything else is compared with it.
    """
    registry = subject.item.registry
    assert registry
    key = rows.duplicates(subject, (registry.key,), "repeat a tenant")
    yield from rows.judge(database, key, rows.without_tenant(subject, registry.key))
