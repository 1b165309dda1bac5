"""Settings of roles and of the database: none tells clients what the policies hide."""

from collections.abc import Iterator

from pgconform.catalog import Catalog
from pgconform.checks import check
from pgconform.model import Finding
from pgconform.names import quote
from pgconform.remedies import reset
from pgconform.subjects import the_database

PLANS = "pgrst.db_plan_enabled"


@check("plans-hidden", guide=["muva-18", "vs-24", "muva-42"], when=["gate", "quarterly"], of=the_database)
def test_the_api_shows_no_plans(name: str, catalog: Catalog) -> Iterator[Finding]:
    """No role, and not the database, has the API answer with the plans of its queries (pgrst.db_plan_enabled).

    A plan is made from statistics of all rows: it tells any caller how many there are of other tenants, and whether a
    value is among the most common ones, in tables that show not a single row of them.
    """
    for setting in catalog.deciding(PLANS):
        if setting.on:
            observed = f"{PLANS} is {setting.value} in database {quote(name)}"
            yield Finding(setting.whose, observed, reset(setting))
