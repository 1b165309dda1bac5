"""Settings of roles and of the database: none tells clients what the policies hide."""

from collections.abc import Iterator

from pgconform.catalog import Catalog, Setting
from pgconform.checks import check
from pgconform.model import Finding
from pgconform.names import quote
from pgconform.remedies import reset
from pgconform.subjects import the_database

PLANS = "pgrst.db_plan_enabled"


def _on(value: str) -> bool:
    """True as PostgREST reads it (TRUE, "true", any number above 0), and as the server reads a boolean."""
    text = value.strip("\"' ").lower()
    return text in ("true", "on", "yes", "t", "y") or (text.lstrip("+").isdecimal() and int(text) > 0)


def _whose(setting: Setting) -> str:
    place = f" in {quote(setting.database)}" if setting.database else ""
    return quote(setting.role) + place if setting.role else f"every role{place}"


def _deciding(catalog: Catalog, name: str) -> Iterator[Setting]:
    """The settings of that name; what a role has in this database goes before what it has everywhere."""
    found = [setting for setting in catalog.settings if setting.name.lower() == name]
    here = {setting.role for setting in found if setting.database}
    return (setting for setting in found if setting.database or setting.role not in here)


@check("plans-hidden", guide=["muva-18", "vs-24", "muva-42"], when=["gate", "quarterly"], of=the_database)
def test_the_api_shows_no_plans(name: str, catalog: Catalog) -> Iterator[Finding]:
    """No role, and not the database, has the API answer with the plans of its queries (pgrst.db_plan_enabled).

    A plan is made from statistics of all rows: it tells any caller how many there are of other tenants, and whether a
    value is among the most common ones, in tables that show not a single row of them.
    """
    for setting in _deciding(catalog, PLANS):
        if _on(setting.value):
            observed = f"{PLANS} is {setting.value} in database {name}"
            yield Finding(_whose(setting), observed, reset(setting))
