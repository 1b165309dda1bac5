"""The questions that a snapshot asks pg_catalog: one ordered, set-based query for each kind of object.

Joined by OID, never through the text-named views; pg_depend always with its classid. System schemas are left out
in one place, ``OURS``. Every query works for an ordinary role, reads no user relation, and runs on PostgreSQL 13
to 18. Vectors and arrays of numbers come as text: few differ, so they are parsed once each.
"""

from __future__ import annotations

from collections.abc import Iterable

# Not the system's schemas, those of temporary and TOAST tables included: no other name may begin with pg_.
OURS = "n.nspname <> 'information_schema' and pg_catalog.left(n.nspname, 3) <> 'pg_'"

# Columns that came with a version: the version, how to read them, what they were before.
_SINCE = {
    "enforced": (180_000, "k.conenforced", "true"),
    "nulls_not_distinct": (150_000, "i.indnullsnotdistinct", "false"),
    "sql_body": (140_000, "pg_catalog.pg_get_function_sqlbody(p.oid)", "null::text"),
    "inherit_option": (160_000, "m.inherit_option", "r.rolinherit"),
    "set_option": (160_000, "m.set_option", "true"),
    "published_columns": (150_000, "r.prattrs::text", "null::text"),
    "published_rows": (150_000, "pg_catalog.pg_get_expr(r.prqual, r.prrelid)", "null::text"),
    "published_schemas": (
        150_000,
        "array(select s.pnnspid from pg_catalog.pg_publication_namespace as s where s.pnpubid = p.oid order by 1)",
        "array[]::oid[]",
    ),
    # from 18 on attnotnull is also set for a constraint that was not validated yet
    "not_null": (180_000, "a.attnotnull and u.oid is null", "a.attnotnull"),
    "unvalidated": (
        180_000,
        "left join pg_catalog.pg_constraint as u on u.conrelid = a.attrelid and u.contype = 'n'"
        " and not u.convalidated and u.conkey[1] = a.attnum",
        "",
    ),
}

_RELATION = "join pg_catalog.pg_class as c on c.oid = {0} join pg_catalog.pg_namespace as n on n.oid = c.relnamespace"
_WORDS = {
    "ours": OURS,
    "kinds": "c.relkind in ('r', 'p', 'v', 'm', 'f')",
    # an index that was dropped, or is not valid, identifies nothing
    "identity": """case when c.relreplident = 'i' and not exists (select from pg_catalog.pg_index as r
    where r.indrelid = c.oid and r.indisreplident and r.indisvalid) then 'n' else c.relreplident::text end""",
    "space": "join pg_catalog.pg_namespace as n on n.oid =",
    "of_attribute": _RELATION.format("a.attrelid"),
    "of_constraint": _RELATION.format("k.conrelid"),
    "of_index": _RELATION.format("i.indexrelid"),
    "of_policy": _RELATION.format("p.polrelid"),
    "of_rule": _RELATION.format("w.ev_class"),
    "of_trigger": _RELATION.format("t.tgrelid"),
}

_QUERIES = {
    "server": """
select pg_catalog.current_setting('server_version_num')::int, d.datname, d.datdba,
  pg_catalog.pg_encoding_to_char(d.encoding), d.datacl::text[]
from pg_catalog.pg_database as d where d.datname = pg_catalog.current_database()""",
    "roles": """
select r.oid, r.rolname, r.rolsuper, r.rolbypassrls, r.rolcreaterole, r.rolcreatedb, r.rolreplication,
  r.rolcanlogin, r.rolinherit
from pg_catalog.pg_roles as r order by r.rolname""",
    "memberships": """
select g.rolname, r.rolname, pg_catalog.bool_or(m.admin_option), pg_catalog.bool_or({inherit_option}),
  pg_catalog.bool_or({set_option})
from pg_catalog.pg_auth_members as m join pg_catalog.pg_roles as g on g.oid = m.roleid
join pg_catalog.pg_roles as r on r.oid = m.member
group by g.rolname, r.rolname order by g.rolname, r.rolname""",
    "members": """
select k.relname, d.objid, e.extname
from pg_catalog.pg_depend as d join pg_catalog.pg_class as k on k.oid = d.classid
join pg_catalog.pg_extension as e on e.oid = d.refobjid
where d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass and d.deptype = 'e' order by 1, 2""",
    "extensions": """
select e.extname, e.extversion, n.nspname
from pg_catalog.pg_extension as e {space} e.extnamespace order by e.extname""",
    "namespaces": "select n.oid, n.nspname from pg_catalog.pg_namespace as n order by n.nspname",
    "schemas": """
select n.oid, n.nspname, n.nspowner, n.nspacl::text[] from pg_catalog.pg_namespace as n where {ours}
order by n.nspname""",
    "relations": """
select c.oid, n.nspname, c.relname, c.relkind::text, c.relowner, c.relacl::text[], c.relrowsecurity,
  c.relforcerowsecurity, {identity}, c.relpersistence::text, c.reloptions, c.reltuples, c.relpages,
  case when c.relkind in ('v', 'm') and {seen} then coalesce(pg_catalog.pg_get_viewdef(c.oid), '') else '' end
from pg_catalog.pg_class as c {space} c.relnamespace
where {kinds} and {ours} order by n.nspname, c.relname""",
    "columns": """
select a.attrelid, a.attname, a.attnum, pg_catalog.format_type(a.atttypid, a.atttypmod), a.atttypid, a.atttypmod,
  {not_null}, pg_catalog.pg_get_expr(x.adbin, x.adrelid), a.attgenerated::text, a.attidentity::text,
  a.attacl::text[]
from pg_catalog.pg_attribute as a {of_attribute}
left join pg_catalog.pg_attrdef as x on x.adrelid = a.attrelid and x.adnum = a.attnum {unvalidated}
where {kinds} and a.attnum > 0 and not a.attisdropped and {ours} and {seen} order by a.attrelid, a.attnum""",
    "domains": """
select t.oid, t.typbasetype, t.typtypmod from pg_catalog.pg_type as t where t.typtype = 'd' order by t.oid""",
    "constraints": """
select k.conrelid, k.conname, k.contype::text, k.conkey::text, coalesce(pg_catalog.pg_get_constraintdef(k.oid), ''),
  k.convalidated, {enforced}, k.condeferrable, k.conparentid <> 0 or not k.conislocal, k.confrelid,
  k.confkey::text, k.confdeltype::text, k.confupdtype::text
from pg_catalog.pg_constraint as k {of_constraint}
where {ours} and {seen} order by k.conrelid, k.contype, k.conname""",
    "indexes": """
select i.indrelid, n.nspname, c.relname, am.amname, i.indnkeyatts, i.indkey::text, i.indclass::text,
  i.indcollation::text, i.indoption::text, coalesce(pg_catalog.pg_get_indexdef(i.indexrelid), ''),
  case when i.indexprs is not null then array(
    select pg_catalog.pg_get_indexdef(i.indexrelid, g.k, false)
    from pg_catalog.generate_series(1, i.indnkeyatts::int) as g(k) order by g.k) end,
  coalesce(pg_catalog.pg_get_expr(i.indpred, i.indrelid), ''), c.reloptions, i.indisunique, {nulls_not_distinct},
  i.indisprimary, i.indisvalid, i.indisready, coalesce(k.conname, ''), c.relispartition, c.relpages
from pg_catalog.pg_index as i {of_index} join pg_catalog.pg_am as am on am.oid = c.relam
left join pg_catalog.pg_constraint as k
  on k.conindid = i.indexrelid and k.conrelid = i.indrelid and k.contype in ('p', 'u', 'x')
where {ours} and {indexed_seen} order by i.indrelid, c.relname""",
    "operator_classes": """
select o.oid, n.nspname, o.opcname from pg_catalog.pg_opclass as o {space} o.opcnamespace order by o.oid""",
    "policies": """
select p.polrelid, p.polname, p.polcmd::text, p.polpermissive, p.polroles::text,
  pg_catalog.pg_get_expr(p.polqual, p.polrelid), pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid)
from pg_catalog.pg_policy as p {of_policy} where {ours} and {seen} order by p.polrelid, p.polname""",
    # What enforces a foreign key is an ordinary internal trigger, told by the constraint; it matters when disabled.
    "triggers": """
select t.tgrelid, t.tgname, f.pronamespace, f.proname, t.tgenabled::text,
  case when t.tgisinternal then '' else coalesce(pg_catalog.pg_get_triggerdef(t.oid), '') end, t.tgisinternal
from pg_catalog.pg_trigger as t {of_trigger} join pg_catalog.pg_proc as f on f.oid = t.tgfoid
where {ours} and {seen} and not (t.tgisinternal and t.tgconstraint <> 0 and t.tgenabled = 'O')
order by t.tgrelid, t.tgname""",
    # a view's own rule is its definition
    "rules": """
select w.ev_class, w.rulename, w.ev_type::text, w.is_instead, w.ev_enabled::text,
  coalesce(pg_catalog.pg_get_ruledef(w.oid), '')
from pg_catalog.pg_rewrite as w {of_rule}
where {ours} and {seen} and w.rulename <> '_RETURN' order by w.ev_class, w.rulename""",
    "partitions": """
select i.inhrelid, i.inhparent
from pg_catalog.pg_inherits as i join pg_catalog.pg_class as c on c.oid = i.inhrelid
where c.relkind in ('r', 'p', 'f') and not exists (
  select from pg_catalog.pg_inherits as o where o.inhrelid = i.inhrelid and o.inhparent <> i.inhparent)
order by i.inhrelid""",
    "reads": """
select distinct w.ev_class, d.refobjid
from pg_catalog.pg_rewrite as w join pg_catalog.pg_depend as d on d.objid = w.oid
where d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
  and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
  and d.refobjid <> w.ev_class and w.rulename = '_RETURN' order by 1, 2""",
    "sequences": """
select c.oid, n.nspname, c.relname, c.relowner, c.relacl::text[], d.refobjid, d.refobjsubid
from pg_catalog.pg_class as c {space} c.relnamespace
left join pg_catalog.pg_depend as d on d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = c.oid
  and d.objsubid = 0 and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refobjsubid > 0
  and d.deptype in ('a', 'i')
where c.relkind = 'S' and {ours} order by n.nspname, c.relname""",
    "functions": """
select n.nspname, p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid), p.prokind::text, p.proowner,
  p.oid, l.lanname, coalesce(pg_catalog.pg_get_function_result(p.oid), ''), p.proretset, p.provolatile::text,
  p.proparallel::text, p.prosecdef, p.proisstrict, p.proleakproof, p.proargnames,
  coalesce(p.proallargtypes, p.proargtypes::oid[]), p.proargmodes::text[],
  case when p.pronargdefaults > 0 then array(
    select pg_catalog.pg_get_function_arg_default(p.oid, g.k)
    from pg_catalog.generate_series(1, coalesce(pg_catalog.cardinality(p.proallargtypes), p.pronargs::int)) as g(k)
    order by g.k) end,
  p.proconfig, p.prosrc, case when {body_seen} then {sql_body} else '' end, p.proacl::text[]
from pg_catalog.pg_proc as p {space} p.pronamespace join pg_catalog.pg_language as l on l.oid = p.prolang
where {ours} order by 1, 2, 3""",
    "argument_types": """
select t.oid, pg_catalog.format_type(t.oid, null) from pg_catalog.pg_type as t
where t.oid in (
  select pg_catalog.unnest(coalesce(p.proallargtypes, p.proargtypes::oid[]))
  from pg_catalog.pg_proc as p {space} p.pronamespace where {ours})
order by t.oid""",
    # without the row types of relations, and without arrays
    "types": """
select n.nspname, t.typname, t.oid, t.typtype::text, t.typowner, t.typbasetype,
  case when t.typtype = 'e' then array(
    select e.enumlabel from pg_catalog.pg_enum as e where e.enumtypid = t.oid order by e.enumsortorder) end,
  t.typacl::text[]
from pg_catalog.pg_type as t {space} t.typnamespace left join pg_catalog.pg_class as c on c.oid = t.typrelid
where t.typcategory <> 'A' and (t.typtype <> 'c' or c.relkind = 'c') and {ours}
order by n.nspname, t.typname""",
    "default_privileges": """
select d.defaclrole, coalesce(n.nspname, ''), d.defaclobjtype::text, d.defaclacl::text[]
from pg_catalog.pg_default_acl as d left {space} d.defaclnamespace order by 1, 2, 3""",
    "publications": """
select p.oid, p.pubname, p.puballtables, {published_schemas}, p.pubinsert, p.pubupdate, p.pubdelete, p.pubtruncate
from pg_catalog.pg_publication as p order by p.pubname""",
    "published": """
select r.prpubid, r.prrelid, {published_columns}, {published_rows}
from pg_catalog.pg_publication_rel as r order by 1, 2""",
    "settings": """
select coalesce(d.datname, ''), coalesce(r.rolname, ''), s.setconfig
from pg_catalog.pg_db_role_setting as s left join pg_catalog.pg_database as d on d.oid = s.setdatabase
left join pg_catalog.pg_roles as r on r.oid = s.setrole
where s.setdatabase = 0 or d.datname = pg_catalog.current_database() order by 1, 2""",
    "event_triggers": """
select t.evtname, t.evtevent, n.nspname, f.proname, t.evtenabled::text, t.evtowner
from pg_catalog.pg_event_trigger as t join pg_catalog.pg_proc as f on f.oid = t.evtfoid {space} f.pronamespace
order by t.evtname""",
}


# Relations that another session holds ACCESS EXCLUSIVE, and what is described in terms of them, directly or not: views,
# and tables whose policies ask them. To describe those would wait for the lock.
LOCKED = """
with recursive locked as (
  select l.relation as oid from pg_catalog.pg_locks as l
  where l.locktype = 'relation' and l.mode = 'AccessExclusiveLock' and l.granted
    and l.database = (select d.oid from pg_catalog.pg_database as d where d.datname = pg_catalog.current_database())
    and l.pid <> pg_catalog.pg_backend_pid()
  union
  select coalesce(w.ev_class, p.polrelid) from locked
  join pg_catalog.pg_depend as d on d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
    and d.refobjid = locked.oid
  left join pg_catalog.pg_rewrite as w on w.oid = d.objid
    and d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
  left join pg_catalog.pg_policy as p on p.oid = d.objid and d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass
  where w.oid is not null or p.oid is not null
)
select oid from locked order by oid"""
_BODY_SEEN = """not exists (select from pg_catalog.pg_depend as d
    where d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass and d.objid = p.oid
      and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refobjid in ({}))"""


def queries(version: int, unseen: Iterable[int] = ()) -> dict[str, str]:
    """The queries for a server of this version (server_version_num), by kind of object.

    The parts of ``unseen`` relations are left out.
    """
    words = {word: now if version >= since else before for word, (since, now, before) in _SINCE.items()}
    oids = ", ".join(str(int(oid)) for oid in unseen)
    words["seen"] = f"c.oid not in ({oids})" if oids else "true"
    words["body_seen"] = _BODY_SEEN.format(oids) if oids else "true"
    words["indexed_seen"] = f"i.indrelid not in ({oids})" if oids else "true"
    return {kind: text.format(**_WORDS, **words) for kind, text in _QUERIES.items()}
