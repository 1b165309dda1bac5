"""What a draft reads in the bodies of search functions: rows that are looked at, filters, tenants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pgconform.contract import Contract
from pgconform.contract_vectors import Search
from pgconform.targets.server import Server
from tests.test_init import drafted, made, run

RETURNS = "returns table ({key} bigint, similarity float8)"
NEAR = "1 - (c.embedding operator(public.<=>) q)"
BY = "c.embedding operator(public.<=>) q limit n"
SCRIPT = f"""
create role asker nologin;
create extension vector schema public;
create table public.firms (id int primary key);
create table public."Doc's" (id int primary key, firm_id int not null references public.firms, state text);
create table public.parts (id bigint primary key, doc int not null references public."Doc's",
  firm_id int not null references public.firms, bot int, is_active boolean, gone date, embedding public.vector(3));
insert into public.firms values (1), (2);
insert into public."Doc's" select n, 1 + n % 2, 'ready' from pg_catalog.generate_series(1, 20) as n;
insert into public.parts select n, n, 1 + n % 2, n % 3, true, null, array[n, 1, 2]::real[]::public.vector
  from pg_catalog.generate_series(1, 20) as n;
alter table public.parts enable row level security;
create policy mine on public.parts using (firm_id = pg_catalog.current_setting('app.firm')::int);
create table public.logs (id int primary key, firm_id int not null references public.firms);
alter table public.logs enable row level security;
create policy look on public.logs for select to asker using (firm_id = pg_catalog.current_setting('app.firm')::int);
create table public.posts (id int primary key, firm_id int not null references public.firms, gone date, state text,
  secret boolean not null default false);
insert into public.posts select n, 1 + n % 2, case when n > 4 then '2020-01-01'::date end, 'live', n % 4 = 0
  from pg_catalog.generate_series(1, 9) as n;
alter table public.posts enable row level security;
create policy a on public.posts for select to asker using (firm_id = pg_catalog.current_setting('app.firm')::int
  and gone is null and (state = 'live' or state is null) and pg_catalog.length(state) > 0);
create policy b on public.posts for select to asker using ((state = 'live' or state is null) and gone is null
  and false);
create table public.words (id int primary key, firm_id int references public.firms);
alter table public.words enable row level security;
create policy w on public.words for select to asker
  using (id > 0 and (firm_id is null or firm_id = pg_catalog.current_setting('app.firm')::int));
create policy c on public.posts as restrictive for select using (not secret);
grant usage on schema public to asker;
grant select on all tables in schema public to asker;
grant all on public.logs to asker;
create table public.tips (id int primary key);
grant insert, select on public.tips to asker;

create function public.plain(q public.vector, n int, whose int) {RETURNS.format(key="id")} language sql stable as $$
  select c.id, {NEAR} from public.parts as c where whose = c.firm_id and c.gone is null
    and (c.is_active or c.bot = 7) and pg_catalog.length('x') = 1 and c.embedding is not null order by {BY} $$;
create function public.joined(q public.vector, n int default 5, org int default null)
{RETURNS.format(key="part_id")} language plpgsql stable as $$
begin
  if n is null then return; end if;
  return query select c.id, {NEAR} from parts c inner join public."Doc's" d on c.doc = d.id and d.state = 'ready'
    left join public.firms as f on f.id = c.firm_id and f.id > 0
    where (org is null or d.firm_id = org) and d.state <> 'a;b' order by {BY};
end $$;
create function public.of_bot(q public.vector, n int, bot_id int) {RETURNS.format(key="id")} language sql stable as $$
  with near as (select c.id, {NEAR} as s from public.parts as c where c.bot = $3 and bot_id = c.bot order by {BY})
  select near.id, near.s from near $$;
create function public.mixed(q public.vector, n int, words text) {RETURNS.format(key="id")} language sql stable as $$
  select c.id, {NEAR} from public.parts as c where c.doc::text = words order by {BY} $$;
create function public.shadowed(q public.vector, n int, firm_id int) {RETURNS.format(key="id")} language sql as $$
  select c.id, {NEAR} from public.parts as c where c.firm_id = firm_id order by {BY} $$;
create function public.dynamic(q public.vector, n int default 3) {RETURNS.format(key="id")} language plpgsql as $$
begin return query execute 'select c.id, 0.5::float8 from public.parts as c limit $1' using n; end $$;
"""
WHERE = {
    "plain": "gone IS NULL and (is_active OR bot = 7)",
    "joined": "exists (select from public.\"Doc's\" as s where r.doc = s.id and s.state = 'ready'"
              " and s.state <> 'a;b')",
    "of_bot": "", "shadowed": "", "dynamic": "",
}  # fmt: skip


@pytest.fixture(scope="session")  # a worker may come back to this file
def draft(references: Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[Contract, str, Any]:
    place = tmp_path_factory.mktemp("drafts")
    dsn = made(references, {"part's": SCRIPT})["part's"]
    return drafted(dsn, place), dsn, place


def searches(contract: Contract) -> dict[str, Search]:
    return {name.removeprefix("public."): f.search for name, f in contract.functions.items() if f.search}


def test_the_rows_that_a_body_looks_at_are_found(draft: tuple[Contract, str, Any]) -> None:
    assert {name: found.where for name, found in searches(draft[0]).items()} == WHERE


def test_arguments_are_known_by_what_they_are_compared_with(draft: tuple[Contract, str, Any]) -> None:
    found = searches(draft[0])
    tenants = {name: search.tenant for name, search in found.items()}
    assert tenants == {"plain": "whose", "joined": "org", "of_bot": "", "shadowed": "firm_id", "dynamic": ""}
    assert {name: s.filters for name, s in found.items() if s.filters} == {"of_bot": {"bot_id": "bot"}}
    assert (found["joined"].key, found["joined"].table_key, found["plain"].table_key) == ("part_id", "id", "")


def test_rows_that_policies_hide_on_purpose_may_be_hidden(draft: tuple[Contract, str, Any]) -> None:
    promise = draft[0].tables["public.posts"]
    words = draft[0].tables["public.words"]
    assert (words.nullable, words.visible) == ("shared", "id > 0")
    assert promise.visible == "gone IS NULL and (state = 'live'::text OR state IS NULL) and (NOT secret)"
    done = run(draft[2], draft[1], "-k", "own-rows-visible")
    assert "public.posts" not in done.stdout, done.stdout


def test_what_only_a_grant_allows_is_not_promised(draft: tuple[Contract, str, Any]) -> None:
    contract = draft[0]
    assert contract.access[contract.tables["public.logs"].access or "tenant"] == {"asker": {"select": "own"}}


def test_what_nothing_tells_is_left_to_the_reader(draft: tuple[Contract, str, Path]) -> None:
    text = (draft[2] / "contract.toml").read_text("utf-8")
    assert "# MIND: asker may change anybody's rows here; if they are somebody's, say whose" in text
    assert text.count("MIND") == 1
    assert "# argument words has no default: what is it given, under which where?" in text
    assert 'given = { words = "..." }' in next(line for line in text.splitlines() if line.startswith("# search = "))


def test_the_drafted_searches_can_be_asked(draft: tuple[Contract, str, Path]) -> None:
    done = run(draft[2], draft[1], "-k", "search-results")
    assert "own error" not in done.stdout + done.stderr
    assert "the call is refused" not in done.stdout, done.stdout
