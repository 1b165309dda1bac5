"""Remedies for tenants that are half there: what is missing is put in where the contract tells it."""

from __future__ import annotations

from pgconform.contract import Members, Registry
from pgconform.people import active
from pgconform.statements import Name, Rows, column, joined, statement


def complete_tenants(missing: Rows) -> str:
    """A tenant that is half there is taken out again, to be onboarded as a whole."""
    return missing.delete


def admit_admins(lacking: Rows, registry: Registry, members: Members) -> str:
    """The member who has been there longest of each such tenant becomes its admin, active and without end."""
    candidate = statement(
        "(m.ctid) in (select (select c.ctid from {members} as c where c.{t}::text = {key}::text"
        " order by ({counts}) desc, c.{u}::text limit 1) from {registry} as r where {where})",
        members=Name.of(members.table), t=Name((members.tenant,)), key=column(registry.key),
        u=Name((members.user,)), registry=Name.of(registry.table), where=lacking.where,
        counts=active(members, "c"),
    )  # fmt: skip
    changes = [statement("{role} = {admin}", role=Name((members.role,)), admin=members.admin)]
    if members.active:
        changes.append(statement("{a} = true", a=Name((members.active,))))
    if members.expires:
        changes.append(statement("{e} = null", e=Name((members.expires,))))
    promote = statement(
        "update {members} as m set {changes} where {candidate};",
        members=Name.of(members.table), changes=joined(changes), candidate=candidate,
    )  # fmt: skip
    return str(promote)
