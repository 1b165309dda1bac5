"""Memberships granted and ended, as the application would: rows of the contract's table of members."""

from __future__ import annotations

from dataclasses import dataclass

from pgconform.attacks.roads import renewed
from pgconform.checks import Evidence
from pgconform.contract import Members, Tenancy
from pgconform.names import split
from pgconform.people import active
from pgconform.statements import Name, Statement, column, joined, statement


@dataclass(frozen=True)
class Ledger:
    """Commands that change the memberships of one tenancy. Users and tenants are text."""

    evidence: Evidence
    tenancy: Tenancy

    @property
    def members(self) -> Members:
        assert self.tenancy.members, "a tenancy with members"
        return self.tenancy.members

    def commands(self, act: str, user: str, tenant: str) -> list[Statement]:
        """What grants or ends a membership; nothing where that cannot be said in this table."""
        if act == "leave":
            return [self._gone(user, tenant)]
        if act == "join":
            return [self._gone(user, tenant), *self._made(user, tenant)]
        if act in ("promote", "demote"):
            return self._ranked(user, tenant, self.members.roles[0 if act == "promote" else -1])
        return self._switched(user, tenant, act)

    @property
    def acts(self) -> tuple[str, ...]:
        """The changes that the contract has words for."""
        members = self.members
        ranks = ("promote", "demote") if members.role and len(members.roles) > 1 else ()
        ends = (*(("suspend",) if members.active else ()), *(("expire",) if members.expires else ()))
        return ("join", "leave", *ends, *(("restore",) if ends else ()), *ranks)

    def _pair(self, user: str, tenant: str) -> Statement:
        return statement(
            "{u}::text = {user} and {t}::text = {tenant}",
            u=column(self.members.user, "m"), t=column(self.members.tenant, "m"), user=user, tenant=tenant,
        )  # fmt: skip

    def _gone(self, user: str, tenant: str) -> Statement:
        return statement(
            "delete from {t} as m where {pair}", t=Name.of(self.members.table), pair=self._pair(user, tenant)
        )

    def _made(self, user: str, tenant: str) -> list[Statement]:
        """A copy of some membership that counts, of that user in that tenant."""
        members, table = self.members, self.evidence.catalog.table(self.members.table)
        if table is None:
            return []
        fresh = renewed(table, (members.user, members.tenant))
        fresh[members.user] = self._value(members.user, user, members.users)
        registry = self.tenancy.registry
        place = (*split(registry.table), registry.key) if registry else ()
        fresh[members.tenant] = self._value(members.tenant, tenant, Name(place))
        kept = [c.name for c in table.columns if not c.generated and c.identity != "a"]
        kept = [name for name in kept if name not in fresh or fresh[name] is not None]
        values = joined(fresh.get(name) or statement("{c}", c=column(name, "b")) for name in kept)
        made = statement(
            "insert into {t} ({names}) select {values} from"
            " (select * from {t} as m where {active} order by {user} limit 1) as b",
            t=Name.of(members.table), names=joined(Name((name,)) for name in kept), values=values,
            active=active(members), user=column(members.user, "m"),
        )  # fmt: skip
        return [made]

    def _value(self, name: str, text: str, place: str | Name) -> Statement:
        """The value of that text in the column's own type, from the table that it refers to, or from this one."""
        parts = Name.of(place) if isinstance(place, str) and place else Name(place or ())
        *table, key = parts or (*split(self.members.table), name)
        return statement(
            "(select v.{key} from {t} as v where v.{key}::text = {text} limit 1)",
            key=Name((key,)), t=Name(tuple(table)), text=text,
        )  # fmt: skip

    def _ranked(self, user: str, tenant: str, rank: str) -> list[Statement]:
        """The membership given another role, one that somebody has."""
        changed = statement(
            "update {t} as m set {c} = coalesce({other}, {c}) where {pair}",
            t=Name.of(self.members.table), c=Name((self.members.role,)), pair=self._pair(user, tenant),
            other=self._value(self.members.role, rank, ""),
        )  # fmt: skip
        return [changed]

    def _switched(self, user: str, tenant: str, act: str) -> list[Statement]:
        """The membership set to count, or not to, where the table has a word for that: one word at a time."""
        members, changes, on = self.members, [], act == "restore"
        if act == "expire":
            pass
        elif members.active and members.active_values:
            other = statement(
                "(select v.{c} from {t} as v where {not}coalesce(v.{c}::text = any({values}::text[]), false)"
                " order by 1 limit 1)",
                c=Name((members.active,)), t=Name.of(members.table), values=members.active_values,
                **{"not": statement("" if on else "not ")},
            )  # fmt: skip
            changes.append(statement("{c} = coalesce({other}, {c})", c=Name((members.active,)), other=other))
        elif members.active:
            changes.append(statement("{c} = {on}", c=Name((members.active,)), on=statement(str(on).lower())))
        if members.expires and act != "suspend":
            ends = statement("null" if on else "pg_catalog.now() - interval '1 day'")
            changes.append(statement("{c} = {ends}", c=Name((members.expires,)), ends=ends))
        pair = self._pair(user, tenant)
        text = "update {t} as m set {changes} where {pair}"
        return [statement(text, t=Name.of(members.table), changes=joined(changes), pair=pair)] if changes else []
