"""What makes a finding whole: SQL that shows it, masked keys of its rows, its tenants, its owner. Decides nothing.

Rows are shown by the question that counted them; a catalogue's object by one small SELECT for each aspect of it that
the check's topic judges. Nothing that names somebody leaves here: keys and tenants are digests.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING

from pgconform import names
from pgconform.model import Finding, NotVerified
from pgconform.statements import Rows, Shown, Statement, column, columns, joined, statement

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pgconform.checks import Check, Evidence

KEYS = 5  # masked keys that a finding shows
TENANTS = 50  # that a finding counts rows of: those with the most

# -- the catalogue: what is judged of a relation {r}, a function {s}.{n}, a schema or role or extension {o} ------------

_TABLE = (
    "select c.relkind, pg_catalog.pg_get_userbyid(c.relowner) as owner, c.relrowsecurity, c.relforcerowsecurity,"
    " c.relreplident, c.reloptions, case when c.relkind in ('v', 'm') then pg_catalog.pg_get_viewdef(c.oid) end as view"
    " from pg_catalog.pg_class as c where c.oid = {r};"
)
_COLUMNS = (
    "select a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod) as type, a.attnotnull"
    " from pg_catalog.pg_attribute as a where a.attrelid = {r} and a.attnum > 0 and not a.attisdropped"
    " order by a.attnum;"
)
_GRANTS = (
    "select coalesce(pg_catalog.pg_get_userbyid(nullif(g.grantee, 0)), 'public') as grantee, g.privilege_type,"
    " g.is_grantable, acls.attname as of_column from (select c.relacl as acl, null::pg_catalog.name as attname"
    " from pg_catalog.pg_class as c where c.oid = {r} union all select a.attacl, a.attname"
    " from pg_catalog.pg_attribute as a where a.attrelid = {r}) as acls"
    " cross join lateral pg_catalog.aclexplode(acls.acl) as g order by 1, 2, 4;"
)
_POLICIES = (
    "select p.polname, p.polcmd, p.polpermissive, p.polroles::pg_catalog.regrole[] as roles,"
    " pg_catalog.pg_get_expr(p.polqual, p.polrelid) as using,"
    " pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid) as with_check"
    " from pg_catalog.pg_policy as p where p.polrelid = {r} order by p.polname;"
)
_RULES = (
    "select w.rulename, w.ev_enabled, pg_catalog.pg_get_ruledef(w.oid) as definition"
    " from pg_catalog.pg_rewrite as w where w.ev_class = {r} order by w.rulename;"
)
_TRIGGERS = (
    "select t.tgname, t.tgenabled, pg_catalog.pg_get_triggerdef(t.oid) as definition"
    " from pg_catalog.pg_trigger as t where t.tgrelid = {r} order by t.tgname;"
)
_CONSTRAINTS = (
    "select k.conname, k.contype, k.convalidated, pg_catalog.pg_get_constraintdef(k.oid) as definition"
    " from pg_catalog.pg_constraint as k where k.conrelid = {r} order by k.conname;"
)
_INDEXES = (
    "select i.indexrelid::pg_catalog.regclass as name, i.indisvalid, i.indisready,"
    " pg_catalog.pg_get_indexdef(i.indexrelid) as definition, s.idx_scan from pg_catalog.pg_index as i"
    " left join pg_catalog.pg_stat_all_indexes as s on s.indexrelid = i.indexrelid"
    " where {r} in (i.indrelid, i.indexrelid) order by 1;"
)
_PUBLICATIONS = (
    "select p.pubname, p.pubinsert, p.pubupdate, p.pubdelete from pg_catalog.pg_publication as p"
    " where {r} in (select t.relid from pg_catalog.pg_get_publication_tables(p.pubname) as t) order by 1;"
)
_PUBLISHED = (
    "select p.pubname, p.schemaname, p.tablename from pg_catalog.pg_publication_tables as p where p.pubname = {o}"
    " order by 2, 3;"
)
_SEQUENCE = (
    "select q.last_value, q.max_value, q.increment_by, q.data_type from pg_catalog.pg_sequences as q"
    " where pg_catalog.format('%I.%I', q.schemaname, q.sequencename)::pg_catalog.regclass = {r};"
)
_SIZE = (
    "select pg_catalog.pg_size_pretty(pg_catalog.pg_total_relation_size(c.oid)) as size, c.reltuples, c.relpages"
    " from pg_catalog.pg_class as c where c.oid = {r};"
)
_FUNCTION = (
    "select p.oid::pg_catalog.regprocedure as name, pg_catalog.pg_get_userbyid(p.proowner) as owner, p.prosecdef,"
    " p.provolatile, p.proparallel, p.proleakproof, p.proconfig, p.proacl,"
    " pg_catalog.pg_get_function_arguments(p.oid) as arguments, p.prosrc from pg_catalog.pg_proc as p"
    " join pg_catalog.pg_namespace as n on n.oid = p.pronamespace where n.nspname = {s} and p.proname = {n} order by 1;"
)
_SCHEMA = (
    "select n.nspname, pg_catalog.pg_get_userbyid(n.nspowner) as owner, n.nspacl"
    " from pg_catalog.pg_namespace as n where n.nspname = {o};"
)
_ROLE = (
    "select r.rolname, r.rolsuper, r.rolbypassrls, r.rolcreaterole, r.rolcreatedb, r.rolreplication, r.rolcanlogin,"
    " array(select m.roleid::pg_catalog.regrole from pg_catalog.pg_auth_members as m where m.member = r.oid order by 1)"
    " as member_of from pg_catalog.pg_roles as r where r.rolname = {o};"
)
_DEFAULTS = (
    "select pg_catalog.pg_get_userbyid(d.defaclrole) as owner, d.defaclnamespace::pg_catalog.regnamespace as schema,"
    " d.defaclobjtype, d.defaclacl from pg_catalog.pg_default_acl as d order by 1, 2, 3;"
)
_EXTENSION = (
    "select e.extname, e.extversion, e.extnamespace::pg_catalog.regnamespace as schema"
    " from pg_catalog.pg_extension as e where e.extname = {o};"
)
_SETTINGS = (
    "select s.setdatabase::pg_catalog.oid, s.setrole::pg_catalog.regrole as role, u.setting"
    " from pg_catalog.pg_db_role_setting as s cross join lateral pg_catalog.unnest(s.setconfig) as u (setting)"
    " order by 1, 2, 3;"
)
_LARGE_OBJECTS = (
    "select l.oid, pg_catalog.pg_get_userbyid(l.lomowner) as owner, l.lomacl"
    " from pg_catalog.pg_largeobject_metadata as l order by 1;"
)
_AGES = (
    "select d.datname, pg_catalog.age(d.datfrozenxid) as age, pg_catalog.pg_database_size(d.oid) as bytes"
    " from pg_catalog.pg_database as d order by 2 desc;"
)
_SESSIONS = (
    "select a.usename, a.state, pg_catalog.count(*) from pg_catalog.pg_stat_activity as a"
    " where a.backend_type = 'client backend' group by 1, 2 order by 3 desc;"
)
_GUARDS = (_TABLE, _POLICIES, _GRANTS, _TRIGGERS, _RULES)

# By check, or else by topic: the file of the suite that it is in.
SHOWN: dict[str, tuple[str, ...]] = {
    "embeddings.test_columns": (_COLUMNS, _INDEXES),
    "isolation.test_attacks": _GUARDS,
    "security.test_large_objects": (_LARGE_OBJECTS, _SETTINGS),
    "isolation.test_searches": (_FUNCTION,),
    "isolation.test_tokens": _GUARDS,
    "new-tables-closed": (_DEFAULTS,),
    "autovacuum-on": (_TABLE,),
    "bloat": (_SIZE,),
    "index-unused": (_INDEXES,),
    "vector-index-used": (_INDEXES,),
    "sequences-far-from-end": (_SEQUENCE,),
    "sizes-within-limits": (_SIZE, _AGES),
    "wraparound-far": (_AGES,),
    "response-time": (_SESSIONS,),
    "recovery.test_restore": (_SCHEMA, _TABLE, _COLUMNS, _GRANTS, _CONSTRAINTS, _INDEXES, _POLICIES, _TRIGGERS),
    "recovery.test_tenants": (_CONSTRAINTS, _TRIGGERS, _RULES),
    "schema.test_archives": (_COLUMNS,),
    "schema.test_extensions": (_EXTENSION,),
    "schema.test_functions": (_FUNCTION,),
    "schema.test_indexes": (_INDEXES,),
    "schema.test_references": (_CONSTRAINTS, _INDEXES),
    "schema.test_tables": (_TABLE, _COLUMNS, _INDEXES),
    "schema.test_triggers": (_TRIGGERS,),
    "search.test_effort": (_FUNCTION,),
    "search-results": (_FUNCTION,),
    "search-uses-index": (_FUNCTION,),
    "search-recall": (_INDEXES,),
    "security.test_functions": (_FUNCTION,),
    "security.test_grants": (_TABLE, _GRANTS),
    "client-grant-options": (_GRANTS, _FUNCTION, _SCHEMA),
    "schema-grants": (_SCHEMA,),
    "services-unhindered": (_ROLE,),
    "default-privileges": (_DEFAULTS,),
    "security.test_notifications": (_TRIGGERS,),
    "security.test_policies": (_TABLE, _POLICIES),
    "security.test_policy_functions": (_TABLE, _POLICIES),
    "publications-declared": (_PUBLISHED,),
    "security.test_realtime": (_TABLE, _PUBLICATIONS, _CONSTRAINTS),
    "security.test_roles": (_ROLE,),
    "security.test_row_security": (_TABLE,),
    "security.test_rules": (_RULES,),
    "security.test_settings": (_SETTINGS,),
}
# Why no SQL on the target shows what these found, by topic or check.
EXCEPTED = {
    "recovery.test_backups": "backups are files, or what their provider says of them",
    "recovery.test_emergencies": "what was lost is lost on a copy, which is gone",
    "recovery.test_procedures": "the procedure ran on a copy, which is gone",
    "history-without-gap": "the history is kept in files beside the reports",
}


def topic(check: Check) -> str:
    """Which file of which suite a check is in, such as ``security.test_grants``."""
    return ".".join(check.module.split(".")[-2:])


SEARCHED = ("search-recall",)  # under which an index that searches use is shown


def shown(keys: Sequence[str], name: str) -> str:
    """SELECTs on the catalogue that show what was judged of the object called so, by the first of the keys of ``SHOWN``
    that is there: a check or a topic; '' where there are none."""
    wanted = next((SHOWN[key] for key in keys if key in SHOWN), ())
    try:
        path = names.split(name.partition("(")[0])
    except ValueError:  # no name of an object, such as "every role"
        path = ()
    known: dict[str, object] = {"o": path[0] if path else ""}
    if len(path) > 1:
        relation = names.qualified(*path[:2])
        known |= {"s": path[0], "n": path[1], "r": statement("pg_catalog.to_regclass({text})", text=relation)}
    fitting = [text for text in wanted if _parts(text) <= known.keys()]
    return "\n".join(str(statement(text, **{part: known[part] for part in _parts(text)})) for text in fitting)


def _parts(template: str) -> set[str]:
    return {part for part in "rsno" if f"{{{part}}}" in template}


# -- rows ---------------------------------------------------------------------------------------------------------


def tenant_digest(tenant: str) -> str:
    """What a tenant is called in reports and in the history: twelve hexadecimal digits."""
    return sha256(tenant.encode()).hexdigest()[:12]


def per_tenant(counts: Iterable[tuple[str, int]]) -> tuple[tuple[str, int], ...]:
    """The numbers of rows by tenant as a finding carries them: by digest, the most first."""
    found = sorted(((tenant_digest(tenant), number) for tenant, number in counts), key=lambda pair: (-pair[1], pair[0]))
    return tuple(found[:TENANTS])


def session_script(
    role: str, settings: Iterable[tuple[str, str]], known: Mapping[str, Statement], *asked: Statement
) -> str:
    """SQL for psql that asks as a client does, with the session's claims, and undoes it.

    ``known`` are users and tenants, each with a query of texts that it is among: none is printed, but looked
    up by its digest before the script takes on the role.
    """
    called = {value: f"pg_catalog.current_setting('pgconform.id_{n}')" for n, value in enumerate(known, 1)}
    raw = {form: value for value in known for form in (value, _escaped(value))}
    said = [f"select pg_catalog.set_config({names.literal(n)}, {_spelled(v, raw, called)}, true);" for n, v in settings]
    quoted = _any({names.literal(value): value for value in known})
    read = [quoted.sub(lambda found: called[found[0][1:-1].replace("''", "'")], f"{each};") for each in asked]
    become = f"set local role {names.quote(role)};"
    used = [value for value in known if any(called[value] in line for line in (*said, *read))]
    found = [_looked_up(f"pgconform.id_{list(known).index(value) + 1}", value, known[value]) for value in used]
    return "\n".join(["begin;", "set local row_security = on;", *found, *said, become, *read, "rollback;"])


def _escaped(value: str) -> str:
    """The value as JSON in ASCII spells it; itself where that holds what a text in JSON must not."""
    return value if set(value) & {'"', "\\"} else json.dumps(value)[1:-1]


def _any(forms: Iterable[str]) -> re.Pattern[str]:
    """What finds any of the texts, the longest that there is; nothing where there are none."""
    return re.compile("|".join(map(re.escape, sorted(filter(None, forms), key=len, reverse=True))) or r"(?!)")


def _spelled(text: str, raw: Mapping[str, str], called: Mapping[str, str]) -> str:
    """A text as an expression in which what is known is called by its setting."""
    pieces = re.split(f"({_any(raw).pattern})", text)
    return " || ".join(called[raw[p]] if n % 2 else names.literal(p) for n, p in enumerate(pieces) if p) or "''"


def _looked_up(setting: str, value: str, among: Statement) -> str:
    question = statement(
        "select pg_catalog.set_config({setting}, (select k.id from ({among}) as k (id) where"
        " pg_catalog.left(pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(k.id, 'UTF8')), 'hex'), 12)"
        " = {digest} limit 1), true)",
        setting=setting, among=among, digest=tenant_digest(value),
    )  # fmt: skip
    return f"{question};"


def whole(finding: Finding, check: Check, evidence: Evidence) -> Finding:
    """The finding with what every finding has: SQL that shows it, an owner; with rows, their masked keys and tenants.

    Where the server refuses to answer a second time, the finding stands without keys.
    """
    finding = replace(finding, owner=evidence.contract.owner_of(check.id, finding.object))
    if isinstance(finding.rows, Shown):
        return _with_keys(finding, finding.rows.of, evidence)
    if finding.rows or finding.script:
        return finding
    if query := evidence.contract.queries.get(finding.object):  # no object of the catalogue: its table's indexes
        table = names.qualified(*names.split(query.vector)[:2])
        told = f"-- the query stands in the contract, under [queries.{finding.object}]; it searches {table}:"
        return replace(finding, rows=f"{told}\n{shown(SEARCHED, table)}")
    return replace(finding, rows=shown((check.id, topic(check)), finding.object))


def _with_keys(finding: Finding, rows: Rows, evidence: Evidence) -> Finding:
    masked = _masked(rows, evidence)
    text = statement("select {m} as masked_key, r.* from {rows}", m=masked, rows=rows.source)
    finding = replace(finding, rows=f"{text};")
    question = statement(
        "with o as materialized (select {m} as key, {tenant} as tenant from {rows})"
        " (select 'key', o.key, 1::bigint from o group by o.key order by o.key limit {keys})"
        " union all (select 'tenant', o.tenant, pg_catalog.count(*) from o where o.tenant is not null group by o.tenant"
        " order by 3 desc, 2 limit {tenants})",
        m=masked, rows=rows.source, tenant=_tenant(rows, evidence), keys=KEYS, tenants=TENANTS,
    )  # fmt: skip
    try:
        found = evidence.database.rows(question, f"masking keys of {rows.table}")
    except NotVerified:
        return finding
    return replace(
        finding,
        keys=tuple(text for kind, text, _ in found if kind == "key"),
        tenants=per_tenant((text, number) for kind, text, number in found if kind == "tenant"),
    )


def _masked(rows: Rows, evidence: Evidence) -> Statement:
    """Eight hexadecimal digits of a row's primary key, or of the whole row where it has none."""
    table = evidence.catalog.table(rows.table)
    key = table.primary_key if table else ()
    listed = joined(statement("{c}::text", c=column(name)) for name in key)
    text = statement("pg_catalog.concat_ws(',', {listed})", listed=listed) if key else statement("r::text")
    digest = "pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to({text}, 'UTF8')), 'hex')"
    return statement(f"pg_catalog.left({digest}, 8)", text=text)


def _tenant(rows: Rows, evidence: Evidence) -> Statement:
    """Whose a row is, as text; null where rows belong to no tenant."""
    contract = evidence.contract
    keys = [t.registry.key for t in contract.tenancies.values() if t.registry and t.registry.table == rows.table]
    promise, table = contract.tables.get(rows.table), evidence.catalog.table(rows.table)
    if promise and promise.holds == "tenant":
        keys.append(contract.column_of(rows.table))
    there = [key for key in keys if table and table.column(key)]
    return statement("{c}::text", c=columns(there[:1])) if there else statement("null::text")
