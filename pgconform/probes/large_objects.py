"""Large objects: no row security guards them, only their grants and their owners."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pgconform.catalog import PUBLIC, Setting
from pgconform.checks import Evidence
from pgconform.database import role_text
from pgconform.names import quote
from pgconform.remedies import leave
from pgconform.statements import statement

SHOWN = 5  # named in the finding
LISTED = 1000  # put right by one remedy; where there are more, the next run finds the rest
_OPEN = """
select h.role::text, h.owns, pg_catalog.count(*), (pg_catalog.array_agg(h.oid::bigint order by h.oid))[:{listed}]
from (
  select m.oid, pg_catalog.pg_get_userbyid(m.lomowner), true from pg_catalog.pg_largeobject_metadata as m
  union
  select m.oid, case a.grantee when 0 then 'public' else pg_catalog.pg_get_userbyid(a.grantee) end, false
  from pg_catalog.pg_largeobject_metadata as m cross join pg_catalog.aclexplode(m.lomacl) as a
  where a.grantee <> m.lomowner
) as h (oid, role, owns)
where h.role::text = any({roles}::text[]) group by h.role, h.owns order by h.role, h.owns"""


@dataclass(frozen=True, slots=True)
class Open:
    """Large objects that a client reaches: as the role ``via``, who owns them or was granted something on them."""

    client: str
    via: str
    owns: bool
    count: int
    oids: tuple[int, ...]

    @property
    def way(self) -> str:
        return f"{'as owner' if self.owns else 'through'} {role_text([self.via])}"

    @property
    def named(self) -> str:
        more = ", ..." if self.count > SHOWN else ""
        return ", ".join(map(str, self.oids[:SHOWN])) + more

    def remedy(self, evidence: Evidence) -> str:
        """Takes the grants away where they come from; a client's own objects become the database owner's."""
        if self.via not in (self.client, PUBLIC):
            return leave(self.client, self.via, evidence.privileges)
        if not self.owns:
            return f"revoke all on large object {', '.join(map(str, self.oids))} from {role_text([self.via])};"
        owner = quote(evidence.catalog.server.database_owner)
        return "\n".join(f"alter large object {oid} owner to {owner};" for oid in self.oids)


def open_to_clients(evidence: Evidence) -> Iterator[Open]:
    """What each client role reaches: by itself, by PUBLIC, or by a role that it inherits from or can take on."""
    reached = {client: _reached(client, evidence) for client in evidence.contract.roles.clients}
    roles = tuple(sorted(frozenset().union(*reached.values())))
    question = statement(_OPEN, roles=roles, listed=LISTED)
    for role, owns, count, oids in evidence.database.remembered(question, "looking for open large objects"):
        for client in [each for each, through in reached.items() if role in through]:
            yield Open(client, role, owns, int(count), tuple(oids))


def _reached(client: str, evidence: Evidence) -> frozenset[str]:
    """Superusers, who reach everything, are another check's finding; other clients have findings of their own."""
    others = {role.name for role in evidence.catalog.roles if role.superuser} | set(evidence.contract.roles.clients)
    privileges = evidence.privileges
    role = evidence.catalog.role(client)
    taken = frozenset() if role and role.superuser else privileges.can_take(client) - (others - {client})
    return (frozenset().union(*map(privileges.inherited, taken)) - others) | {client, PUBLIC}


def compatible(evidence: Evidence) -> Iterator[Setting]:
    """Where lo_compat_privileges is on for sessions that are, or can become, a client's."""
    clients = set(evidence.contract.roles.clients)
    for setting in evidence.catalog.deciding("lo_compat_privileges"):
        if setting.on and (not setting.role or clients & evidence.privileges.can_take(setting.role)):
            yield setting
