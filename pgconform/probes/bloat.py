"""How much of tables and B-tree indexes is air: estimated from the catalogue, exactly where pgstattuple may be asked.

The estimate is the usual one: rows times their mean width (pg_stats), laid out as storage/bufpage.h and
access/htup_details.h say, against the pages that there are. It knows nothing of alignment between columns, and of an
index with many equal keys it expects too much; so a bound should be a third or more. Of what is stored out of line
(TOAST) it knows the chunks alone, of which a page holds four; shorter ones need less: it finds too little, never more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pgconform.catalog import Catalog
from pgconform.contract_operations import Operations
from pgconform.database import Database
from pgconform.model import Nothing, NotVerified
from pgconform.names import qualified
from pgconform.statements import Name, Statement, statement

# A page has a header of 24 bytes and a pointer of 4 for each row; a row a header of 23 bytes and a bitmap of nulls, and
# everything begins at a multiple of 8. An entry of a B-tree has a header of 8, its page 16 more at the end, and leaves
# are filled to 90 %.
_WIDTHS = """
select w.relid, pg_catalog.sum(w.width) as width, pg_catalog.bool_or(w.nulls) as nulls, pg_catalog.count(*) as columns,
  pg_catalog.count(w.width) as known
from (select a.attrelid as relid, (1 - s.null_frac) * s.avg_width as width, coalesce(s.null_frac > 0, false) as nulls
  from pg_catalog.pg_attribute as a join pg_catalog.pg_class as c on c.oid = a.attrelid
  join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
  left join pg_catalog.pg_stats as s on s.schemaname = n.nspname and s.tablename = c.relname and s.attname = a.attname
    and s.inherited = false
  where a.attnum > 0 and not a.attisdropped and c.relkind in ('r', 'm')) as w group by w.relid"""
_KEYS = """
select k.relid, pg_catalog.sum(k.width) as width, pg_catalog.bool_or(k.nulls) as nulls, pg_catalog.count(*) as columns,
  pg_catalog.count(k.width) as known
from (select i.indexrelid as relid, (1 - s.null_frac) * s.avg_width as width, coalesce(s.null_frac > 0, false) as nulls
  from pg_catalog.pg_index as i join pg_catalog.pg_class as c on c.oid = i.indexrelid
  join pg_catalog.pg_class as t on t.oid = i.indrelid join pg_catalog.pg_namespace as n on n.oid = t.relnamespace
  cross join lateral pg_catalog.unnest(i.indkey::int2[]) with ordinality as u (number, place)
  left join pg_catalog.pg_attribute as a on a.attrelid = i.indrelid and a.attnum = u.number and u.number > 0
  left join pg_catalog.pg_attribute as e on e.attrelid = i.indexrelid and e.attnum = u.place
  left join pg_catalog.pg_stats as s on s.schemaname = n.nspname and not s.inherited
    and case when u.number > 0 then s.tablename = t.relname and s.attname = a.attname
             else s.tablename = c.relname and s.attname = e.attname end) as k group by k.relid"""
_ESTIMATE = """
select c.oid::bigint, n.nspname, c.relname, c.relkind, pg_catalog.pg_relation_size(c.oid), case
  when w.known < w.columns or c.reltuples < 0 then null
  when c.relkind = 'i' then pg_catalog.ceil(c.reltuples * (8 + case when w.nulls then 8 else 0 end
    + pg_catalog.ceil(w.width / 8) * 8 + 4) / (({page} - 24 - 16) * {btree} / 100.0)) + 1
  else pg_catalog.ceil(c.reltuples
    * (pg_catalog.ceil((23 + case when w.nulls then (w.columns + 7) / 8 else 0 end) / 8.0) * 8
    + pg_catalog.ceil(w.width / 8) * 8 + 4) / (({page} - 24) * {heap} / 100.0)) end * {page}
from pg_catalog.pg_class as c join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
join (select * from ({widths}) as h union all select * from ({keys}) as b) as w on w.relid = c.oid
left join pg_catalog.pg_am as m on m.oid = c.relam
where (c.relkind in ('r', 'm') or m.amname = 'btree') and c.relpersistence <> 't' and n.nspname not like 'pg\\_%'
  and n.nspname <> 'information_schema' and pg_catalog.pg_relation_size(c.oid) >= {least}::bigint
union all
select o.oid::bigint, n.nspname, c.relname, o.relkind, pg_catalog.pg_relation_size(o.oid),
  case when o.reltuples >= 0 then pg_catalog.ceil(o.reltuples / 4) * {page} end
from pg_catalog.pg_class as c join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
join pg_catalog.pg_class as o on o.oid = c.reltoastrelid
where c.relkind in ('r', 'm') and c.relpersistence <> 't' and n.nspname not like 'pg\\_%'
  and n.nspname <> 'information_schema' and pg_catalog.pg_relation_size(o.oid) >= {least}::bigint
order by 2, 3, 4"""
_PAGE = "pg_catalog.current_setting('block_size')::bigint"
_KINDS = {"i": "index", "t": "toast"}
_OPTION = (
    "coalesce((select o.option_value::int from pg_catalog.pg_options_to_table(c.reloptions) as o"
    " where o.option_name = 'fillfactor'), {usual})"
)


@dataclass(frozen=True, slots=True)
class Bloat:
    """A relation's bytes, and those of them that its rows do not need; ``how`` is 'estimated' or 'exact'."""

    oid: int
    name: str
    kind: str  # 'table', 'index' or 'toast': what a table stores out of line
    size: int
    wasted: float | None  # None where there are no statistics to estimate it by
    how: str = "estimated"

    @property
    def share(self) -> float:
        return (self.wasted or 0) / self.size


def bloated(database: Database, catalog: Catalog, item: Operations) -> list[Bloat]:
    """Relations larger than ``bloat_mb`` with what is wasted in them, by name. Raises Nothing, NotVerified."""
    question = statement(
        _ESTIMATE,
        btree=statement(_OPTION, usual=statement("90")), heap=statement(_OPTION, usual=statement("100")),
        page=statement(_PAGE), widths=statement(_WIDTHS), keys=statement(_KEYS), least=int(item.bloat_mb * 1_000_000),
    )  # fmt: skip
    found = [
        Bloat(
            int(oid),
            qualified(schema, name),
            _KINDS.get(kind, "table"),
            int(size),
            None if need is None else max(size - need, 0.0),
        )
        for oid, schema, name, kind, size, need in database.rows(question, "estimating bloat")
    ]
    if not found:
        raise Nothing(f"no table or index is larger than {item.bloat_mb:g} MB")
    exactly = _exactly(database, catalog)
    if exactly:
        doubtful = [b for b in found if b.wasted is None or b.share >= item.bloat / 2]
        return [exact(database, bloat, exactly) if bloat in doubtful else bloat for bloat in found]
    if all(bloat.wasted is None for bloat in found):
        raise NotVerified("there are no statistics to estimate bloat by; run ANALYZE, or grant SELECT on the tables")
    return found


def _exactly(database: Database, catalog: Catalog) -> str:
    """The schema of pgstattuple, where it is installed and may be executed; else ''."""
    extension = catalog.extension("pgstattuple")
    if extension is None:
        return ""
    name = qualified(extension.schema, "pgstattuple") + "(regclass)"
    question = statement("select pg_catalog.has_function_privilege({f}, 'execute')", f=name)
    return extension.schema if database.one(question, "asking for pgstattuple")[0] else ""


def exact(database: Database, bloat: Bloat, schema: str) -> Bloat:
    """The same relation as pgstattuple measures it, page by page. Raises NotVerified."""
    template: Statement
    if bloat.kind == "index":  # density is of leaf pages, which are meant to be filled to 90 %
        template = statement(
            "select p.index_size - (p.leaf_pages * least(p.avg_leaf_density / 90, 1) + p.internal_pages + 1) * {page}"
            " from {f}({oid}::oid::pg_catalog.regclass) as p",
            f=Name((schema, "pgstatindex")), oid=bloat.oid, page=statement(_PAGE),
        )  # fmt: skip
    else:
        template = statement(
            "select p.free_space + p.dead_tuple_len from {f}({oid}::oid::pg_catalog.regclass) as p",
            f=Name((schema, "pgstattuple")), oid=bloat.oid,
        )  # fmt: skip
    wasted = database.one(template, f"measuring {bloat.name}")[0]
    return replace(bloat, wasted=max(float(wasted), 0.0), how="exact")
