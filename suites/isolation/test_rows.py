"""Rows: each kind of session sees its own, all of them, and nobody else's."""

from collections.abc import Iterable, Iterator

from pgconform.catalog import Table
from pgconform.checks import Evidence, check
from pgconform.identities import represented
from pgconform.model import Finding, Nothing
from pgconform.names import quote
from pgconform.probes.visibility import Sight, readable_tables, seen, sight_script, sights
from pgconform.remedies_policies import answering, close, reopen
from pgconform.reproduce import per_tenant

AUDIT = ["gate", "quarterly"]
MEMBERS = ("one", "many")
TENTATIVE = ("bare", "posing")  # sessions that lack what they need, or carry what makes no sense
STRANGERS = ("anonymous", "unknown", "none", "bare", "former")


def _who(found: list[Sight]) -> str:
    kinds = dict.fromkeys(str(s.identity).partition(" #")[0] for s in found)
    return ", ".join(kinds)


def _roles(found: list[Sight]) -> list[str]:
    return [s.identity.role for s in found]


def _tenants(found: Iterable[tuple[Sight, int]]) -> tuple[tuple[str, int], ...]:
    """Rows by the tenant whose members do not see them, or see what is not theirs; members of several are left out."""
    most: dict[str, int] = {}
    for sight, number in found:
        if len(sight.identity.tenants) == 1:
            (tenant,) = sight.identity.tenants
            most[tenant] = max(number, most.get(tenant, 0))
    return per_tenant(most.items())


@check("own-rows-visible", guide=["muva-18", "vs-24", "muva-42"], when=AUDIT, of=readable_tables)
def test_members_see_all_of_their_own_rows(table: Table, evidence: Evidence) -> Iterator[Finding]:
    """A member of one tenant, or of several, sees every row of its own.

    A policy that hides everything also passes every test that counts foreign rows.
    """
    looks = [s for s in seen(evidence, table, *MEMBERS) if s.expected]
    short = [s for s in looks if s.own < s.expected]
    if short:
        worst = min(short, key=lambda s: s.own / s.expected)
        observed = f"{_who(short)} sees {worst.own} of {worst.expected} own rows"
        how, whose = sight_script(evidence, table, worst), _tenants((s, s.expected - s.own) for s in short)
        yield Finding(
            str(table), observed, reopen(evidence, table, _roles(short), ("select",)), script=how, tenants=whose
        )
    elif not looks:
        raise Nothing(f"no member has rows in {table}")


@check("foreign-rows-hidden", guide=["muva-18", "vs-24", "muva-42"], when=AUDIT, of=readable_tables)
def test_members_see_no_row_of_another_tenant(table: Table, evidence: Evidence) -> Iterator[Finding]:
    """A member sees no row of another tenant, nor any that is nobody's business but the service's.

    It is the promise that all the others are there for.
    """
    looks = list(seen(evidence, table, *MEMBERS, "posing"))
    leaks = [s for s in looks if s.foreign]
    if leaks:
        worst = max(leaks, key=lambda s: s.foreign)
        observed = f"{_who(leaks)} sees {worst.foreign} row(s) that are not its own"
        how, whose = sight_script(evidence, table, worst), _tenants((s, s.foreign) for s in leaks)
        yield Finding(str(table), observed, close(evidence, table, _roles(leaks)), script=how, tenants=whose)
    represented(evidence, table)
    if not looks:
        raise Nothing(f"no member can read {table}")


@check("strangers-see-nothing", guide=["vs-24", "muva-18", "muva-42"], when=AUDIT, of=readable_tables)
def test_strangers_see_nothing_of_any_tenant(table: Table, evidence: Evidence) -> Iterator[Finding]:
    """Anonymous sessions, users without a tenant, and deactivated or expired members see no tenant's rows.

    Access that outlives a membership is the leak that nobody looks for.
    """
    looks = list(seen(evidence, table, *STRANGERS))
    leaks = [s for s in looks if s.foreign]
    if leaks:
        worst = max(leaks, key=lambda s: s.foreign)
        observed = f"{_who(leaks)} sees {worst.foreign} row(s)"
        how = sight_script(evidence, table, worst)
        yield Finding(str(table), observed, close(evidence, table, _roles(leaks)), script=how)
    elif not looks:
        raise Nothing(f"no stranger can read {table}")


@check("relations-answer", guide=["vs-14", "vs-24"], when=["gate", "weekly"], of=readable_tables)
def test_every_readable_relation_answers(table: Table, evidence: Evidence) -> Iterator[Finding]:
    """Every relation that a client may read answers each kind of session.

    A policy that looks up its own table fails every query with SQLSTATE 42P17: what looks protected is broken.
    """
    looks = [s for s in sights(evidence) if s.table == str(table) and s.identity.kind not in TENTATIVE]
    refused = [s for s in looks if s.error]  # those that were left out may be
    if refused:
        roles, error = dict.fromkeys(s.identity.role for s in refused), refused[0].error
        how, remedy = sight_script(evidence, table, refused[0]), answering(evidence, table, roles, error)
        yield Finding(str(table), f"{', '.join(map(quote, roles))}: {error}", remedy, script=how)
    represented(evidence, table)
    if not looks:
        raise Nothing(f"no session reads {table}")
