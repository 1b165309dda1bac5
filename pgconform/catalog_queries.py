"""The questions that a snapshot asks pg_catalog: one ordered, set-based query for each kind of object.

Joined by OID, never through the text-named views; pg_depend always with its classid. Schemas are filtered in one
place, ``OURS``. Every query works for an ordinary role, on PostgreSQL 13 to 18.
"""

from __future__ import annotations

# Schemas of the system are nobody's promise.
OURS = "n.nspname <> 'information_schema' and n.nspname !~ '^pg_'"
# Relations that are left out because another session holds them ACCESS EXCLUSIVE: deparsing would wait for it. A
# setting of the transaction, since the same text is asked with and without them.
UNSEEN = "pg_catalog.string_to_array(pg_catalog.current_setting('pgconform.unseen', true), ',')::oid[]"
_SEEN = f"c.oid <> all({UNSEEN})"
_SPACE = "join pg_catalog.pg_namespace as n on n.oid = "
# The extension that owns an object of a catalogue, '' for none.
_EXT = """coalesce((select e.extname from pg_catalog.pg_depend as d
  join pg_catalog.pg_extension as e on e.oid = d.refobjid
  where d.classid = 'pg_catalog.{catalog}'::pg_catalog.regclass and d.objid = {oid} and d.deptype = 'e'
  and d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass limit 1), '')"""
_PUBLISHED_SCHEMAS = "select s.pnnspid::bigint from pg_catalog.pg_publication_namespace as s where s.pnpubid = p.oid"
_OWNER = "pg_catalog.pg_get_userbyid({})"


def _ext(catalog: str, oid: str) -> str:
    return _EXT.format(catalog=catalog, oid=oid)


def queries(version: int) -> dict[str, str]:
    """The queries for a server of this version, by kind of object."""
    return {
        "server": f"""
select pg_catalog.current_setting('server_version_num')::int, d.datname, {_OWNER.format("d.datdba")},
  pg_catalog.pg_encoding_to_char(d.encoding), d.datacl::text[]
from pg_catalog.pg_database as d where d.datname = pg_catalog.current_database()""",
        "schemas": f"""
select n.nspname, {_OWNER.format("n.nspowner")}, n.nspacl::text[], {_ext("pg_namespace", "n.oid")}
from pg_catalog.pg_namespace as n where {OURS} order by 1""",
        "relations": f"""
select c.oid::bigint, n.nspname, c.relname, c.relkind, {_OWNER.format("c.relowner")}, c.relacl::text[],
  c.relrowsecurity, c.relforcerowsecurity, c.relreplident, c.relpersistence, c.relispartition, c.reloptions,
  c.reltuples, c.relpages, {_ext("pg_class", "c.oid")},
  case when c.relkind in ('v', 'm') and {_SEEN} then pg_catalog.pg_get_viewdef(c.oid) else '' end
from pg_catalog.pg_class as c {_SPACE} c.relnamespace
where c.relkind in ('r', 'p', 'v', 'm', 'f') and {OURS} order by 2, 3""",
        "columns": f"""
select a.attrelid::bigint, a.attname, a.attnum, pg_catalog.format_type(a.atttypid, a.atttypmod), a.atttypid::bigint,
  a.atttypmod, a.attnotnull,
  case when a.atthasdef then pg_catalog.pg_get_expr(x.adbin, x.adrelid) end, a.attgenerated, a.attidentity,
  a.attacl::text[]
from pg_catalog.pg_attribute as a
join pg_catalog.pg_class as c on c.oid = a.attrelid {_SPACE} c.relnamespace
left join pg_catalog.pg_attrdef as x on x.adrelid = a.attrelid and x.adnum = a.attnum
where c.relkind in ('r', 'p', 'v', 'm', 'f') and a.attnum > 0 and not a.attisdropped and {OURS} and {_SEEN}
order by 1, 3""",
        "constraints": f"""
select k.conrelid::bigint, k.conname, k.contype, k.conkey::int[], pg_catalog.pg_get_constraintdef(k.oid),
  k.convalidated,
  {"k.conenforced" if version >= 180_000 else "true"}, k.condeferrable, k.conparentid <> 0, k.confrelid::bigint,
  k.confkey::int[], k.confdeltype, k.confupdtype
from pg_catalog.pg_constraint as k
join pg_catalog.pg_class as c on c.oid = k.conrelid {_SPACE} c.relnamespace
where {OURS} and {_SEEN} order by 1, 3, 2""",
        "indexes": f"""
select i.indrelid::bigint, n.nspname, c.relname, am.amname, i.indnkeyatts, i.indkey::int[], i.indclass::bigint[],
  i.indcollation::bigint[], i.indoption::int[], pg_catalog.pg_get_indexdef(i.indexrelid),
  case when i.indexprs is not null then array(
    select pg_catalog.pg_get_indexdef(i.indexrelid, g.k, false)
    from pg_catalog.generate_series(1, i.indnkeyatts::int) as g(k) order by g.k) end,
  coalesce(pg_catalog.pg_get_expr(i.indpred, i.indrelid), ''), c.reloptions, i.indisunique,
  {"i.indnullsnotdistinct" if version >= 150_000 else "false"}, i.indisprimary, i.indisvalid, i.indisready,
  coalesce((select k.conname from pg_catalog.pg_constraint as k
            where k.conindid = i.indexrelid and k.conrelid = i.indrelid and k.contype in ('p', 'u', 'x') limit 1), ''),
  c.relispartition, {_ext("pg_class", "c.oid")}, c.relpages
from pg_catalog.pg_index as i
join pg_catalog.pg_class as c on c.oid = i.indexrelid {_SPACE} c.relnamespace
join pg_catalog.pg_am as am on am.oid = c.relam
where {OURS} and i.indrelid <> all({UNSEEN}) order by 1, 2, 3""",
        "operator_classes": """
select o.oid::bigint, n.nspname, o.opcname from pg_catalog.pg_opclass as o
join pg_catalog.pg_namespace as n on n.oid = o.opcnamespace order by 1""",
        "policies": f"""
select p.polrelid::bigint, p.polname, p.polcmd, p.polpermissive,
  array(select case r.o when 0 then 'public' else {_OWNER.format("r.o")} end
        from pg_catalog.unnest(p.polroles) as r(o) order by 1),
  pg_catalog.pg_get_expr(p.polqual, p.polrelid), pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid)
from pg_catalog.pg_policy as p
join pg_catalog.pg_class as c on c.oid = p.polrelid {_SPACE} c.relnamespace
where {OURS} and {_SEEN} order by 1, 2""",
        "triggers": f"""
select t.tgrelid::bigint, t.tgname, f.pronamespace::bigint, f.proname, t.tgenabled,
  case when t.tgisinternal then '' else pg_catalog.pg_get_triggerdef(t.oid) end, t.tgisinternal
from pg_catalog.pg_trigger as t
join pg_catalog.pg_class as c on c.oid = t.tgrelid {_SPACE} c.relnamespace
join pg_catalog.pg_proc as f on f.oid = t.tgfoid
where {OURS} and {_SEEN} order by 1, 2""",
        "inherits": """
select i.inhrelid::bigint, i.inhparent::bigint from pg_catalog.pg_inherits as i order by 1, i.inhseqno""",
        "reads": """
select distinct w.ev_class::bigint, d.refobjid::bigint from pg_catalog.pg_rewrite as w
join pg_catalog.pg_depend as d on d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass and d.objid = w.oid
  and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refobjid <> w.ev_class
where w.ev_type = '1' and w.rulename = '_RETURN' order by 1, 2""",
        "sequences": f"""
select n.nspname, c.relname, {_OWNER.format("c.relowner")}, c.relacl::text[], d.refobjid::bigint, d.refobjsubid,
  {_ext("pg_class", "c.oid")}
from pg_catalog.pg_class as c {_SPACE} c.relnamespace
left join pg_catalog.pg_depend as d on d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = c.oid
  and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.deptype in ('a', 'i')
where c.relkind = 'S' and {OURS} order by 1, 2""",
        "functions": f"""
select n.nspname, p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid), p.prokind,
  {_OWNER.format("p.proowner")}, p.oid::bigint, l.lanname, pg_catalog.pg_get_function_result(p.oid), p.proretset,
  p.provolatile, p.proparallel, p.prosecdef, p.proisstrict, p.proleakproof, p.proargnames,
  coalesce(p.proallargtypes, p.proargtypes::oid[])::bigint[], p.proargmodes::text[],
  case when p.pronargdefaults > 0 then array(
    select pg_catalog.pg_get_function_arg_default(p.oid, g.k)
    from pg_catalog.generate_series(1, coalesce(pg_catalog.cardinality(p.proallargtypes), p.pronargs::int)) as g(k)
    order by g.k) end,
  p.proconfig, case when x.ext = '' then p.prosrc else '' end,
  {"p.prosqlbody is not null" if version >= 140_000 else "false"}, p.proacl::text[], x.ext
from pg_catalog.pg_proc as p {_SPACE} p.pronamespace
join pg_catalog.pg_language as l on l.oid = p.prolang
cross join lateral (select {_ext("pg_proc", "p.oid")} as ext) as x
where {OURS} order by 1, 2, 3""",
        "type_names": """
select t.oid::bigint, pg_catalog.format_type(t.oid, null) from pg_catalog.pg_type as t
where t.typtype <> 'c' or t.typrelid in (select c.oid from pg_catalog.pg_class as c where c.relkind = 'c')
  or t.oid in (select pg_catalog.unnest(coalesce(p.proallargtypes, p.proargtypes::oid[])) from pg_catalog.pg_proc as p)
order by 1""",
        "types": f"""
select n.nspname, t.typname, t.oid::bigint, t.typtype, {_OWNER.format("t.typowner")}, t.typbasetype::bigint,
  {_ext("pg_type", "t.oid")},
  case when t.typtype = 'e' then array(select e.enumlabel from pg_catalog.pg_enum as e
    where e.enumtypid = t.oid order by e.enumsortorder) end, t.typacl::text[]
from pg_catalog.pg_type as t {_SPACE} t.typnamespace
left join pg_catalog.pg_class as c on c.oid = t.typrelid
where t.typcategory <> 'A' and (t.typtype <> 'c' or c.relkind = 'c') and {OURS} order by 1, 2""",
        "extensions": """
select e.extname, e.extversion, n.nspname from pg_catalog.pg_extension as e
join pg_catalog.pg_namespace as n on n.oid = e.extnamespace order by 1""",
        "roles": """
select r.rolname, r.rolsuper, r.rolbypassrls, r.rolcreaterole, r.rolcreatedb, r.rolreplication, r.rolcanlogin,
  r.rolinherit from pg_catalog.pg_roles as r order by 1""",
        "memberships": f"""
select {_OWNER.format("m.roleid")}, {_OWNER.format("m.member")}, pg_catalog.bool_or(m.admin_option),
  pg_catalog.bool_or({"m.inherit_option" if version >= 160_000 else "r.rolinherit"}),
  pg_catalog.bool_or({"m.set_option" if version >= 160_000 else "true"})
from pg_catalog.pg_auth_members as m join pg_catalog.pg_roles as r on r.oid = m.member
group by 1, 2 order by 1, 2""",
        "default_privileges": f"""
select {_OWNER.format("d.defaclrole")}, coalesce(n.nspname, ''), d.defaclobjtype, d.defaclacl::text[]
from pg_catalog.pg_default_acl as d
left join pg_catalog.pg_namespace as n on n.oid = d.defaclnamespace order by 1, 2, 3""",
        "publications": f"""
select p.oid::bigint, p.pubname, p.puballtables, p.pubinsert, p.pubupdate, p.pubdelete, p.pubtruncate,
  array({_PUBLISHED_SCHEMAS if version >= 150_000 else "select null::bigint where false"})
from pg_catalog.pg_publication as p order by 2""",
        "published": f"""
select r.prpubid::bigint, r.prrelid::bigint, {"r.prattrs::int[]" if version >= 150_000 else "null::int[]"},
  {"pg_catalog.pg_get_expr(r.prqual, r.prrelid)" if version >= 150_000 else "null::text"}
from pg_catalog.pg_publication_rel as r order by 1, 2""",
        "settings": f"""
select coalesce(d.datname, ''), case s.setrole when 0 then '' else {_OWNER.format("s.setrole")} end, s.setconfig
from pg_catalog.pg_db_role_setting as s left join pg_catalog.pg_database as d on d.oid = s.setdatabase
where s.setdatabase = 0 or d.datname = pg_catalog.current_database() order by 1, 2""",
        "event_triggers": f"""
select t.evtname, t.evtevent, f.pronamespace::bigint, f.proname, t.evtenabled, {_OWNER.format("t.evtowner")}
from pg_catalog.pg_event_trigger as t join pg_catalog.pg_proc as f on f.oid = t.evtfoid order by 1""",
        "unseen": f"""
select c.oid::bigint from pg_catalog.pg_class as c where c.oid = any({UNSEEN}) order by 1""",
        "namespaces": "select n.oid::bigint, n.nspname from pg_catalog.pg_namespace as n order by 1",
    }


# Relations that another session holds ACCESS EXCLUSIVE, and the views that read them, directly or not.
LOCKED = """
with recursive locked as (
  select l.relation as oid from pg_catalog.pg_locks as l
  where l.locktype = 'relation' and l.mode = 'AccessExclusiveLock' and l.granted
    and l.database = (select d.oid from pg_catalog.pg_database as d where d.datname = pg_catalog.current_database())
    and l.pid <> pg_catalog.pg_backend_pid()
  union
  select w.ev_class from locked
  join pg_catalog.pg_depend as d on d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
    and d.refobjid = locked.oid and d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
  join pg_catalog.pg_rewrite as w on w.oid = d.objid
)
select coalesce(pg_catalog.string_agg(oid::text, ',' order by oid), '') from locked"""
