"""Remedies for tenants that are half there: what is missing is put in where the contract tells it."""

from __future__ import annotations

from pgconform.contract import Members, Registry
from pgconform.names import remark
from pgconform.people import active
from pgconform.statements import Name, Rows, column, joined, statement


def complete_tenants(missing: Rows) -> str:
    """A tenant that is half there is taken out again, to be onboarded as a whole."""
    return missing.delete


def admit_admins(lacking: Rows, registry: Registry, members: Members) -> str:
    """A member of each such tenant who is active today becomes its admin; where nobody is, nothing is done: whom to
    let in is not ours to say."""
    candidate = statement(
        "(m.ctid) in (select (select c.ctid from {members} as c where c.{t}::text = {key}::text and {counts}"
        " order by c.{u}::text limit 1) from {registry} as r where {where})",
        members=Name.of(members.table), t=Name((members.tenant,)), key=column(registry.key),
        u=Name((members.user,)), registry=Name.of(registry.table), where=lacking.where,
        counts=active(members, "c"),
    )  # fmt: skip
    changes = [statement("{role} = {admin}", role=Name((members.role,)), admin=members.admin)]
    promote = statement(
        "update {members} as m set {changes} where {candidate};",
        members=Name.of(members.table), changes=joined(changes), candidate=candidate,
    )  # fmt: skip
    advice = "it chooses the first user of each such tenant: name another one where you know better"
    return f"{remark(advice)}\n{promote}"
