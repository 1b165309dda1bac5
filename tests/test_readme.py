"""The README's smallest contract, as it stands there: it conforms on a database like the one it speaks of."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import psycopg
import pytest

from pgconform.targets.server import Server
from tests.test_run import keys, run

README = Path(__file__).parent.parent / "README.md"
SHOP = """
create table public.shops (id uuid primary key default gen_random_uuid(), name text not null);
create table public.staff (
  user_id uuid not null references auth.users on delete cascade,
  shop_id uuid not null references public.shops on delete cascade,
  is_active boolean not null default true,
  primary key (shop_id, user_id)
);
create index on public.staff (user_id);
create table public.orders (
  id uuid primary key default gen_random_uuid(),
  shop_id uuid not null references public.shops on delete restrict,
  price numeric not null check (price >= 0)
);
create index on public.orders (shop_id);
insert into auth.users (email) values ('a@example.org'), ('b@example.org'), ('c@example.org');
insert into public.shops (name) values ('one'), ('two');
insert into public.staff (user_id, shop_id)
select u.id, s.id from auth.users as u join public.shops as s
  on (s.name, u.email) in (('one', 'a@example.org'), ('two', 'b@example.org'), ('one', 'b@example.org'));
insert into public.orders (shop_id, price) select s.id, n from public.shops as s, generate_series(1, 5) as n;
alter table public.shops enable row level security;
alter table public.staff enable row level security;
alter table public.orders enable row level security;
create policy own on public.staff for select to authenticated using (user_id = (select auth.uid()));
create policy own on public.shops for select to authenticated using (id in (
  select m.shop_id from public.staff as m where m.user_id = (select auth.uid()) and m.is_active));
create policy own on public.orders to authenticated using (shop_id in (
  select m.shop_id from public.staff as m where m.user_id = (select auth.uid()) and m.is_active));
revoke all on schema public from public;
grant usage on schema public to anon, authenticated, service_role;
alter default privileges revoke execute on functions from public;
grant select on public.shops, public.staff to authenticated;
grant select, insert, update, delete on public.orders to authenticated;
grant select, insert, update, delete on all tables in schema public to service_role;
"""


@pytest.fixture(scope="module")
def shop(references: Server) -> str:
    """The connection string of a database like the README's example."""
    with psycopg.connect(references.dsn(), autocommit=True) as connection:
        connection.execute("create database shop")
    with psycopg.connect(references.dsn("shop"), autocommit=True) as connection:
        layer = files("pgconform.fixtures") / "databases" / "supabase" / "1_auth.sql"
        connection.execute(layer.read_text(encoding="utf-8").encode())
        connection.execute(SHOP.encode())
    return references.dsn("shop")


def test_the_smallest_contract_conforms_and_tells_what_breaks(shop: str, tmp_path: Path) -> None:
    blocks = re.findall(r"```toml\n(name = .*?)```", README.read_text(encoding="utf-8"), re.S)
    assert len(blocks) == 1
    contract = tmp_path / "shop.toml"
    contract.write_text(blocks[0], encoding="utf-8")
    sound = run(f"--contract={contract}", f"--target=live:{shop}", out=tmp_path)
    assert sound.returncode == 0, sound.stdout
    with psycopg.connect(shop, autocommit=True) as connection:
        connection.execute("alter policy own on public.orders using (true)")
    broken = run(f"--contract={contract}", f"--target=live:{shop}", out=tmp_path)
    assert broken.returncode == 1
    assert "foreign-rows-hidden: public.orders" in keys(tmp_path)
