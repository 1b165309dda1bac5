"""A small database of tenants' texts whose searches use their vector index: for tests of the search benchmark, and for
trying its gates. The reference databases are too small for the planner to leave the sequential scan."""

from __future__ import annotations

import copy
import datetime
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy
import psycopg

from pgconform.catalog import Catalog
from pgconform.checks import Evidence
from pgconform.contract import Contract, Limits
from pgconform.contract_file import validate
from pgconform.database import Database, begin
from pgconform.introspect import read_text, snapshot
from pgconform.targets.server import running
from pgconform.vectors.baseline import Baseline
from pgconform.vectors.bench import Outcome, Wanted, measure

DIMENSION, ROWS, CLUSTERS = 48, 6000, 40
SHARES = {"huge": 0.6, "large": 0.2, "mid": 0.13, "fair": 0.05, "tiny": 0.02}
SEARCH = """
create or replace function shop.search(
  q public.vector, shop text default null, threshold float8 default 0.2, n int default 5)
returns table (id bigint, similarity float8) language plpgsql stable set search_path = ''
set plan_cache_mode = 'force_custom_plan' {settings} as $$
begin
  return query with near as materialized (
    select t.id, t.embedding operator(public.<=>) q as distance from shop.texts as t
    where (shop is null or t.shop_id = shop) and t.embedding operator(public.<=>) q < 1 - threshold
    order by t.embedding operator(public.<=>) q limit n)
  select near.id, 1 - near.distance from near order by near.distance;
end $$;
"""
WANTED = Wanted(30, (), False, pace=0.3)
GOOD = "set ivfflat.probes = '12' set ivfflat.iterative_scan = 'relaxed_order'"
INDEX = "create index texts_idx on shop.texts using ivfflat (embedding public.vector_cosine_ops) with (lists = 40);"
# The index was built before there were rows.
EARLY = f"""
create temporary table saved as select * from shop.texts;
drop index shop.texts_idx;
truncate shop.texts;
{INDEX}
insert into shop.texts select * from saved;
analyze shop.texts;
"""
_MAKE = f"""
create extension vector schema public;
create schema shop;
do $$ begin create role caller nologin; exception when duplicate_object then null; end $$;
create table shop.texts (id bigint primary key, shop_id text not null, embedding public.vector({DIMENSION}));
alter table shop.texts enable row level security;
create policy own on shop.texts for select to caller
  using (shop_id = pg_catalog.current_setting('app.shop', true));
grant usage on schema shop to caller;
grant select on shop.texts to caller;
{SEARCH.format(settings=GOOD)}
"""
_RAW: dict[str, Any] = {
    "name": "shop",
    "roles": {"clients": ["caller"]},
    "sessions": {"member": {"role": "caller", "settings": {"app.shop": "{tenant}"}}},
    "access": {"tenant": {"caller": {"select": "own"}}},
    "tenancies": {"shop": {"column": "shop_id", "type": "text"}},
    "tables": {
        "shop.texts": {"vectors": {"embedding": {"dimension": DIMENSION, "index": {"methods": ["ivfflat", "hnsw"]}}}}
    },
    "functions": {
        "shop.search": {
            "arguments": [
                {"name": "q", "type": "public.vector"}, {"name": "shop", "type": "text", "default": "NULL"},
                {"name": "threshold", "type": "double precision", "default": 0.2},
                {"name": "n", "type": "integer", "default": 5},
            ],
            "execute": ["caller"], "definition": SEARCH.format(settings=GOOD),
            "search": {"vector": "shop.texts.embedding", "query": "q", "threshold": "threshold", "count": "n",
                       "tenant": "shop", "default_threshold": 0.2, "default_count": 5, "index_from": 3000},
        }
    },
}  # fmt: skip


def contract(
    renamed: Mapping[str, str] | None = None, *, threshold: float = 0.2, texts: Any = None, query: str = ""
) -> Contract:
    """What the shop promises, with some of its names replaced; or with another threshold, table or type of query."""

    def named(part: Any) -> Any:
        if isinstance(part, dict):
            return {named(key): named(value) for key, value in part.items()}
        return (renamed or {}).get(part, part) if isinstance(part, str) else part

    raw = copy.deepcopy(_RAW)
    search = raw["functions"]["shop.search"]
    search["search"]["default_threshold"] = search["arguments"][2]["default"] = threshold
    search["arguments"][0]["type"] = query or search["arguments"][0]["type"]
    raw["tables"]["shop.texts"] = texts or raw["tables"]["shop.texts"]
    return validate(named(raw), "shop.toml")


def fill(connection: psycopg.Connection[Any]) -> None:
    """Creates everything; the index after the rows."""
    connection.execute(_MAKE.encode())
    draw = numpy.random.default_rng(5)
    centres = draw.normal(size=(CLUSTERS, DIMENSION))
    tenants = draw.choice(list(SHARES), ROWS, p=list(SHARES.values()))
    vectors = centres[draw.integers(0, CLUSTERS, ROWS)] + draw.normal(size=(ROWS, DIMENSION))
    vectors /= numpy.linalg.norm(vectors, axis=1, keepdims=True)
    with connection.cursor() as cursor, cursor.copy("copy shop.texts from stdin") as stream:
        for n, (tenant, vector) in enumerate(zip(tenants, vectors, strict=True)):
            stream.write_row((n, str(tenant), str([round(float(x), 6) for x in vector])))
    connection.execute(INDEX)
    connection.execute("vacuum analyze shop.texts")


@contextmanager
def opened(further: str = "") -> Iterator[psycopg.Connection[Any]]:
    """The shop on a server of its own, and what else is made there."""
    with running() as server, psycopg.connect(server.dsn(), autocommit=True, prepare_threshold=None) as connection:
        read_text(connection)
        fill(connection)
        connection.execute(further.encode())
        yield connection


def evidence(database: Database, catalog: Catalog, promised: Contract | None = None) -> Evidence:
    today = datetime.datetime.now(datetime.UTC).date()
    return Evidence(promised or contract(), catalog, database, today, lambda: database)


def benched(
    connection: psycopg.Connection[Any], before: Baseline | None = None, wanted: Wanted = WANTED, dsn: str = "",
    promised: Contract | None = None,
) -> Outcome:  # fmt: skip
    """The benchmark within the transaction that is open on the connection; in sessions of their own with a ``dsn``."""
    database = Database(connection)

    @contextmanager
    def sessions() -> Iterator[Database]:
        with psycopg.connect(dsn, autocommit=True, prepare_threshold=None) as further:
            begin(further, Limits())
            yield Database(further)

    shown = evidence(database, snapshot(connection), promised)
    return measure(shown, sessions if dsn else lambda: nullcontext(database), wanted, before)
