"""The draft of a contract, section by section, and what it finds nothing of in this database."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pgconform.catalog import Function, Table
from pgconform.contract_file import validate
from pgconform.drafting.conditions import shows_without, visible
from pgconform.drafting.members import told
from pgconform.drafting.missing import missing
from pgconform.drafting.page import Page, key, value
from pgconform.drafting.roles import Roles, roles
from pgconform.drafting.searches import Vector, search, vectors
from pgconform.drafting.seen import Seen
from pgconform.drafting.tables import (
    Whose,
    access,
    by_column,
    chunks,
    declared,
    exposed,
    references,
    unique,
    values,
    whose,
)
from pgconform.drafting.tenancy import Guess, guesses
from pgconform.names import qualified, quote
from pgconform.statements import statement

if TYPE_CHECKING:
    from pgconform.checks import Evidence

_VOLATILITY = {"i": "immutable", "s": "stable", "v": "volatile"}
_PARALLEL = {"s": "safe", "r": "restricted", "u": "unsafe"}
_GB = 10**9


def draft(evidence: Evidence) -> str:
    """A contract of this database as TOML that can be loaded, with a reason beside every guess.

    Reads the snapshot, and of the rows no more than dimension and norm of vectors and the size of the database.
    """
    text = str(_Draft(evidence).page)
    contract = validate(tomllib.loads(text), "the draft")
    return text + _skips(replace(evidence, contract=contract))


class _Draft:
    """Everything that is guessed, and the page that it is written on."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.seen = seen = Seen(evidence.catalog)
        self.roles: Roles = roles(seen)
        self.tenancies, self.doubtful = guesses(seen)
        self.tables: list[Table] = declared(seen, self.roles, self.tenancies)
        self.whose = whose(seen, self.roles, self.tenancies, self.tables)
        self.vectors: list[Vector] = []
        self.profile: dict[str, str] = {}  # of access, by table
        self.page = Page()
        self._head()
        self._roles()
        self._sessions()
        for guess in self.tenancies:
            self._tenancy(guess)
        for guess in self.doubtful:
            self._doubtful(guess)
        self._access()
        for table in self.tables:
            self._table(table)
        for function in self._functions():
            self._function(function)
        self._limits()

    # -- who there is ------------------------------------------------------------------------------------------

    def _head(self) -> None:
        catalog, page = self.evidence.catalog, self.page
        page.say(
            "Drafted by pgconform init from what the database looks like. It writes down what is there, not what is",
            "right: read every guess, correct it, then let pgconform run compare the two. docs/contracts.md explains"
            " the words.",
        )
        page.say(*missing(self.seen, self.evidence.database, len(self.tenancies), len(self.doubtful)))
        if catalog.unseen:
            page.say(f"not seen, since another session holds them locked: {', '.join(catalog.unseen)}; draft again")
        name = re.sub(r"[^a-z0-9_-]", "", re.sub(r"\s", "-", catalog.server.database.lower()))
        page.put("name", name if re.match(r"[a-z]", name) else f"db{name}" if name else "draft")
        if "auth.uid" not in (found := [qualified(*path) for path in sorted(self.seen.who)]) or found[1:]:
            page.put("user_functions", found, "guess: called so, without arguments, by policies")
        if catalog.publications:
            page.put("publications", [each.name for each in catalog.publications])
        page.section("schemas")
        shown = exposed(self.seen, self.roles)
        page.put("exposed", shown, "guess: clients reach relations in them")
        owned = [s for s in shown if s != "public" and self.tenancies and self._all_of_tenants(s)]
        if owned:
            page.put(
                "tenant", owned, "guess: every relation in them holds a tenant's rows; nothing undeclared may come"
            )
        rest = [s.name for s in catalog.schemas if s.name not in shown and not s.name.startswith("pg_")]
        page.put("internal", rest, "the others that there are")
        installed = [e for e in catalog.extensions if e.name != "plpgsql"]
        if installed:
            page.section("extensions", why="as installed now; minimum is the oldest version that will do")
        for extension in installed:
            item = {"minimum": extension.version, "schema": extension.schema}
            if extension.schema in shown:  # where none should lie
                del item["schema"]
            page.put(extension.name, item)

    def _all_of_tenants(self, schema: str) -> bool:
        there = [table for table in self.tables if table.schema == schema]
        return bool(there) and all(self.whose[str(table)].holds in ("tenant", "child") for table in there)

    def _roles(self) -> None:
        page, found = self.page, self.roles
        page.section("roles")
        page.put("clients", found.clients, found.why_clients)
        page.put("services", found.services, found.why_services)
        page.section("roles", "privileged", why="who may log in with more than ordinary rights today; fewer is better")
        for role, attributes in found.privileged.items():
            page.put(role, attributes)

    def _sessions(self) -> None:
        page = self.page
        if self.roles.anonymous:
            page.section("sessions", "anonymous", why="how the API signs in callers without a token")
            page.put("role", self.roles.anonymous)
            page.put("claims", {"role": self.roles.anonymous})
            page.put("settings", {"search_path": self._search_path()}, "as an API sets it, or else the server")
        for guess in self.tenancies:
            page.section("sessions", self._session(guess), why="how the application signs in a member")
            page.put("role", self.roles.member)
            blank, user = ("{user}", True) if guess.members else ("{tenant}", False)
            said = self.seen.said(self._judged(guess), user)
            tied = {said[1][0]: blank} if said and said[0] == "settings" else {}
            why = "guess: policies read this setting" if tied else "as an API sets it, or else the server"
            page.put("settings", tied | {"search_path": self._search_path()}, why)
            if said is None and guess.members:
                why = "guess: nothing that policies read holds a user but the token's subject"
                page.put("claims", {"sub": "{user}", "role": self.roles.member}, why)
            elif said is None:
                why = "guess: no policy tells how sessions say their tenant; write the claim or the setting here"
                page.put("claims", {guess.column: blank}, why)
            elif not tied:
                claim: Any = blank
                for part in reversed(said[1]):
                    claim = {part: claim}
                page.put("claims", {"role": self.roles.member, **claim}, "guess: policies read this claim of the token")

    def _search_path(self) -> str:
        """Where sessions look for names without a schema: in what the API shows and in its extensions, which PostgREST
        sets; without an API, as the server is set."""
        catalog = self.evidence.catalog
        if self.roles.anonymous:
            shown = sorted(exposed(self.seen, self.roles), key=lambda schema: (schema != "public", schema))
            return ", ".join(map(quote, [*shown, *(["extensions"] if catalog.schema("extensions") else [])]))
        known = {(s.role, s.database): s.value for s in catalog.settings if s.name == "search_path"}
        here, role = catalog.server.database, self.roles.member
        return next((known[key] for key in ((role, here), (role, ""), ("", here)) if key in known), '"$user", public')

    def _judged(self, guess: Guess) -> list[str]:
        """The tables whose policies tell how a session of the tenancy says who it is."""
        return [*guess.tied, *(str(members.table) for members in guess.members[:1])]

    def _session(self, guess: Guess) -> str:
        return "member" if guess is self.tenancies[0] else f"member_{guess.name}"

    # -- tenancy -----------------------------------------------------------------------------------------------

    def _tenancy(self, guess: Guess) -> None:
        page = self.page
        page.section("tenancies", guess.name, why=guess.why)
        page.put("column", guess.column)
        page.put("type", guess.type)
        page.put("session", self._session(guess))
        if guess.registry is not None:
            registry = {"table": str(guess.registry), "key": guess.key}
            if active := _flag(guess.registry):
                registry["active"] = active
            if guess.registry.column("created_at"):
                registry["created"] = "created_at"
            why = "" if guess.referencing else "guess: by its name and the type of its key"
            page.put("registry", registry, why)
        for n, members in enumerate(guess.members):
            item: dict[str, Any] = {"table": str(members.table), "user": members.user, "tenant": members.tenant}
            more, reasons = told(self.seen, members)
            page.say(f"or, {reasons[0]}" if n else reasons[0], *reasons[1:])
            page.put("members", item | more, off=bool(n))
        if not guess.members:
            page.say("guess: no table pairs users with tenants, so the session itself says the tenant")

    def _doubtful(self, guess: Guess) -> None:
        lines = Page()
        lines.section("tenancies", guess.name)
        lines.put("column", guess.column)
        lines.put("type", guess.type)
        self.page.lines.append("")
        self.page.say(f"{guess.why}; not enough to take it for a tenancy", *filter(None, lines.lines))

    def _access(self) -> None:
        """Profiles of access: tables that hold the same and are granted alike share one."""
        made: dict[str, tuple[str, dict[str, Any]]] = {}
        for table in self.tables:
            holds = self.whose[str(table)].holds
            teams = [g.members[0].tenant for g in self.tenancies if g.members and g.members[0].table == table]
            tenant = teams[0] if teams and holds == "user" else ""
            wanted = holds, access(self.seen, self.roles, table, holds, tenant)
            name = next((name for name, profile in made.items() if profile == wanted), "")
            if not name:
                taken = sum(profile[0] == holds for profile in made.values())
                name = f"{holds}_{taken + 1}" if taken else holds
                made[name] = wanted
            self.profile[str(table)] = name
        for name, (_, granted) in made.items():
            used = [table for table, profile in self.profile.items() if profile == name]
            more = ", ..." if len(used) > 3 else ""
            self.page.section("access", name, why=f"as grants and policies let today on {', '.join(used[:3])}{more}")
            for role, scope in granted.items():
                self.page.put(role, scope)

    # -- tables ------------------------------------------------------------------------------------------------

    def _table(self, table: Table) -> None:
        page, of = self.page, self.whose[str(table)]
        page.section("tables", str(table), why=of.why)
        if of.holds == "shared" and (writing := self._writers(table)):
            page.say(f"MIND: {', '.join(writing)} may change anybody's rows here; if they are somebody's, say whose")
        self._ownership(of, self.profile[str(table)])
        if columns := by_column(self.seen, self.roles, table):
            page.put("columns", columns, "as granted today")
        if not table.stores_rows:
            return
        tenant = self._tenant_column(of)
        column = table.column(tenant) if of.holds == "tenant" else None
        if column and not column.not_null and table.primary_key != (tenant,):
            everybodys = any(shows_without(policy, tenant) for policy in table.policies)
            why = f"guess: {tenant} may be null; take this out if every row has a tenant"
            why = "by policies, rows without a tenant are everybody's to read" if everybodys else why
            page.put("nullable", "shared" if everybodys else True, why)
        named = [name for role in self.roles.clients for name in self.seen.privileges.inherited(role)]
        if shown := visible(table, named):
            page.put("visible", shown, "guess: by its policies; own rows that are not so may be hidden")
        if keys := unique(table):
            page.put("unique", keys)
        listed, least = values(table)
        if listed:
            page.put("values", listed, "by check constraints")
        if least:
            page.put("minimum", least, "by check constraints")
        if found := chunks(table, {guess.column for guess in self.tenancies}):
            page.put("chunks", *found)
        for vector in vectors(self.seen, table, self.evidence.database):
            known = bool(vector.dimension)
            self.vectors += [vector] * known
            page.say(*vector.why)
            page.lines.append(f"{'' if known else '# '}vectors.{key(vector.column.name)} = {value(vector.item)}")
        if items := references(self.seen, table):
            page.rows("references", items)

    def _ownership(self, of: Whose, profile: str) -> None:
        told = {"holds": "" if of.holds == "tenant" else of.holds, "column": of.column, "parent": of.parent,
                "parent_key": of.parent_key if of.parent and of.parent_key != "id" else "", "tenancy": of.tenancy,
                "access": profile if profile != of.holds else ""}  # fmt: skip
        for name, given in told.items():
            if given:
                self.page.put(name, given)

    def _writers(self, table: Table) -> list[str]:
        """The clients who may write to a table of nobody's rows."""
        granted = access(self.seen, self.roles, table, "shared")
        scopes = {role: granted.get(role) for role in self.roles.clients}
        return [r for r, s in scopes.items() if s and (s == "shared" or not {*s} <= {"select"})]

    def _tenant_column(self, of: Whose) -> str:
        if of.column or not self.tenancies:
            return of.column
        return next((g.column for g in self.tenancies if g.name == of.tenancy), self.tenancies[0].column)

    # -- functions and limits ----------------------------------------------------------------------------------

    def _functions(self) -> list[Function]:
        """The functions of exposed schemas that can be called: one of each name, in the order of their names."""
        shown, found = exposed(self.seen, self.roles), dict[str, Function]()
        for function in self.evidence.catalog.functions:
            called = function.kind in "fp" and function.returns not in ("trigger", "event_trigger")
            if called and function.schema in shown and not function.extension:
                found.setdefault(str(function), function)
        return [function for function in found.values() if all(a.name for a in function.inputs)]

    def _function(self, function: Function) -> None:
        page, catalog = self.page, self.evidence.catalog
        others = len(catalog.functions_named(str(function))) - 1
        page.section("functions", str(function), why=f"{others} more have this name" if others else "")
        if function.inputs:
            told = [{"name": a.name, "type": a.type} | ({} if a.default is None else {"default": a.default})
                    for a in function.inputs]  # fmt: skip
            page.rows("arguments", [(item, "") for item in told])
        page.put("volatility", _VOLATILITY[function.volatility])
        page.put("parallel", _PARALLEL[function.parallel])
        if function.security_definer:
            page.put("security", "definer")
        if "search_path" in function.configuration:
            page.put("search_path", function.configuration["search_path"].replace('""', ""))
        everybody = (*self.roles.clients, *self.roles.services)
        page.put(
            "execute", [r for r in everybody if self.seen.privileges.may(r, "EXECUTE", function)], "as granted today"
        )
        found = search(function, self.vectors, {guess.column for guess in self.tenancies}, catalog)
        if found:
            blank = {"given": dict.fromkeys(found.unknown, "...")} if found.unknown else {}
            page.say(
                *(f"argument {name} has no default: what is it given, under which where?" for name in found.unknown)
            )
            page.put("search", found.item | blank, found.why, bool(blank))
            page.say(*(f"or: vector = {value(name)}, which its body names, too" for name in found.others))
            page.put(
                "definition", "file:NAME.sql", "SQL that makes it, with its grants, once it is as it should be", True
            )

    def _limits(self) -> None:
        asked = statement("select pg_catalog.pg_database_size(pg_catalog.current_database())")
        size = int(self.evidence.database.one(asked, "the size of the database")[0])
        gigabytes = max(1, round(2 * size / _GB + 0.5))
        self.page.section("operations", why="limits of the running server; docs/contracts.md has all of them")
        why = f"GB; guess: twice of what it has today, {size / _GB:.3f} GB"
        self.page.put("sizes", {"database": gigabytes}, why)


def _flag(table: Table) -> str:
    return next(
        (c.name for c in table.columns if c.type == "boolean" and c.name in ("is_active", "active", "enabled")), ""
    )


def _skips(evidence: Evidence) -> str:
    """The [skips] of checks that find nothing here: no object of their kind, or nothing to judge a server by yet."""
    from pgconform.catalogue_of_checks import load
    from pgconform.checks import evaluate
    from pgconform.model import Verdict

    page = Page()
    page.section("skips", why="what may find nothing to examine here, and why; take a line out once there is something")
    for check in load().values():
        if not check.by_contract:
            if not check.subjects(evidence.contract, evidence):
                page.put(check.id, f"there are none: {check.looked_for[:1].lower()}{check.looked_for[1:]}")
        elif check.id == "search-function-restored" and check.subjects(evidence.contract):
            page.put(check.id, "no search function has a definition here yet")
        elif check.drill:
            continue
        elif "history" in check.asks and check.subjects(evidence.contract):
            page.put(check.id, "judged once earlier runs are recorded")
        elif check.module.split(".")[-2] == "operations":
            result = evaluate(check, evidence)
            if result.verdict is Verdict.SKIPPED and not result.accepted:
                page.put(check.id, result.reason)
    return "\n" + str(page)
