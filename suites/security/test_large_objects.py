"""Large objects: none is open to clients."""

from collections.abc import Iterator

from pgconform.checks import Evidence, check
from pgconform.model import Finding
from pgconform.names import quote
from pgconform.probes.large_objects import compatible, open_to_clients
from pgconform.remedies import reset
from pgconform.subjects import the_database


@check("large-objects-closed", guide=["muva-18", "vs-24", "muva-42"], when=["gate", "quarterly"], of=the_database)
def test_no_large_object_is_open_to_clients(name: str, evidence: Evidence) -> Iterator[Finding]:
    """No client role can read or write a large object, and their privileges are asked (lo_compat_privileges is off).

    A large object belongs to no table and to no tenant, and has no row security: whoever may read it reads all of it,
    and its number is soon guessed.
    """
    for each in open_to_clients(evidence):
        observed = f"{each.count} large object(s) are open to it, {each.way}: {each.named}"
        yield Finding(quote(each.client), observed, each.remedy(evidence), detail=each.way)
    for setting in compatible(evidence):
        observed = f"in database {quote(name)}, every large object is open to it: lo_compat_privileges is on"
        yield Finding(setting.whose, observed, reset(setting), detail=setting.name)
