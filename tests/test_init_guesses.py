"""pgconform init: databases whose tenancy shows only in the bodies of helpers, in parents, or by a rank's name."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import psycopg
import pytest

from pgconform.targets.server import Server
from tests.test_init import drafted, made, run

# Three tables hang on appointments, and only two have the clinic's column: the child's key is compared most often.
CLINICS = """
create extension if not exists vector schema extensions;
grant execute on all functions in schema extensions to authenticated;
create table public.clinics (id uuid primary key, name text not null);
create table public.staff (clinic_id uuid not null references public.clinics, user_id uuid not null,
  role text not null check (role in ('administrator', 'doctor')),
  status text not null check (status in ('active', 'invited', 'left')), primary key (clinic_id, user_id));
create table public.appointments (id uuid primary key, clinic_id uuid not null references public.clinics, at date);
create table public.notes (id uuid primary key, body text, embedding extensions.vector(3),
  appointment_id uuid not null references public.appointments on delete cascade);
create table public.bills (id uuid primary key,
  appointment_id uuid not null references public.appointments on delete cascade);
create table public.reminders (id uuid primary key,
  appointment_id uuid not null references public.appointments on delete cascade);
create table public.payments (id uuid primary key, bill_id uuid references public.bills);
create index on public.payments (bill_id);
create index on public.appointments (clinic_id);
create index on public.notes (appointment_id);
create index on public.bills (appointment_id);
create index on public.reminders (appointment_id);
create index on public.notes using hnsw (embedding extensions.vector_cosine_ops);
create function public.is_member(clinic uuid) returns boolean language sql stable security definer set search_path = ''
  as $$ -- status = 'invited' is not enough
  select exists (select from public.staff as s where s.clinic_id = clinic and s.user_id = auth.uid()
    and s.role in ('administrator', 'doctor') and s.status = 'active') $$;
alter table public.clinics enable row level security;
alter table public.staff enable row level security;
alter table public.appointments enable row level security;
alter table public.notes enable row level security;
alter table public.bills enable row level security;
alter table public.payments enable row level security;
alter table public.reminders enable row level security;
create policy p on public.clinics for select to authenticated using (public.is_member(id));
create policy p on public.staff for select to authenticated using (user_id = (select auth.uid()));
create policy p on public.appointments for select to authenticated using (public.is_member(clinic_id));
create policy p on public.notes for select to authenticated using (exists (select from public.appointments as a
  where a.id = appointment_id and a.clinic_id in (select s.clinic_id from public.staff as s
    where s.user_id = (select auth.uid()) and s.status = 'active')));
create policy p on public.bills for select to authenticated using (exists (select from public.appointments as a
  where a.id = appointment_id and public.is_member(a.clinic_id)));
create policy p on public.payments for select to authenticated using (bill_id in (select b.id from public.bills as b
  join public.appointments as a on a.id = b.appointment_id where public.is_member(a.clinic_id)));
create policy p on public.reminders for select to authenticated using (exists (select from public.appointments as a
  where a.id = appointment_id and public.is_member(a.clinic_id)));
create function public.match_notes(q extensions.vector, clinic_id uuid, n int default 5)
  returns table (id uuid, similarity float) language sql stable set search_path = '' as $$
  select t.id, 1 - (t.embedding operator(extensions.<=>) q) from public.notes as t
  join public.appointments as a on a.id = t.appointment_id where a.clinic_id = match_notes.clinic_id
  order by t.embedding operator(extensions.<=>) q limit n $$;
revoke execute on function public.is_member, public.match_notes from public;
grant execute on function public.is_member, public.match_notes to authenticated;
grant usage on schema public to authenticated;
grant select on public.clinics, public.staff, public.appointments, public.notes, public.bills, public.reminders,
  public.payments  to authenticated;
insert into public.clinics select gen_random_uuid(), 'clinic' from generate_series(1, 3);
insert into public.staff select id, gen_random_uuid(), role, status from public.clinics,
  (values ('administrator', 'active'), ('doctor', 'active'), ('doctor', 'left')) as v (role, status);
insert into public.appointments select gen_random_uuid(), id, now() from public.clinics, generate_series(1, 3);
insert into public.notes select gen_random_uuid(), 'note', array[random(), random(), random()]::extensions.vector, id
  from public.appointments;
insert into public.bills select gen_random_uuid(), id from public.appointments;
insert into public.payments select gen_random_uuid(), id from public.bills;
insert into public.reminders select gen_random_uuid(), id from public.appointments;
"""
# Who counts is said by a label of a type, and by what is left out; another table has a status, too.
WEIRD = """
create schema "Gu.ild ""s";
create type "Gu.ild ""s"."St ""ate" as enum ('applied', 'in', 'it''s over');
create table "Gu.ild ""s"."Guilds" ("Key ""k" int primary key);
create table "Gu.ild ""s"."Ad mitted" (user_id uuid not null, rank text check (rank in ('Owner', 'mate')),
  "Guild ""id" int not null references "Gu.ild ""s"."Guilds", "my Status" "Gu.ild ""s"."St ""ate",
  primary key ("Guild ""id", "user_id"));
create table "Gu.ild ""s".works (id int primary key, "Guild ""id" int not null references "Gu.ild ""s"."Guilds",
  "my Status" text);
create table "Gu.ild ""s".tools (id int primary key, "Guild ""id" int not null references "Gu.ild ""s"."Guilds");
create function "Gu.ild ""s"."Is ""in"(int) returns boolean language plpgsql stable security definer as $$ begin
  perform from "Gu.ild ""s".works as "W" where "W"."my Status" = 'done';
  return exists (select from "Gu.ild ""s"."Ad mitted" as "A ""m" where "A ""m"."Guild ""id" = $1
    and "A ""m"."user_id" = auth.uid() and "A ""m"."my Status" /* not 'in' */ not in ('applied', 'it''s over'));
end $$;
alter table "Gu.ild ""s".works enable row level security;
alter table "Gu.ild ""s".tools enable row level security;
create policy p on "Gu.ild ""s".works using ("Gu.ild ""s"."Is ""in"("Guild ""id"));
create policy p on "Gu.ild ""s".tools using ("Gu.ild ""s"."Is ""in"("Guild ""id"));
grant usage on schema "Gu.ild ""s" to authenticated;
grant select on all tables in schema "Gu.ild ""s" to authenticated;
"""
# Two columns lead to one registry, and two registries have one name.
ALIKE = """
create schema b;
create table public.orgs (id int primary key);
create table b.orgs (id int primary key);
create table public.projects (id int primary key, org_id int not null references public.orgs);
create table public.tasks (id int primary key, org_id int not null references public.orgs);
create table public.shares (id int primary key, guest_id int not null references public.orgs);
create table b.lists (id int primary key, workspace_id int not null references b.orgs);
create table b.items (id int primary key, workspace_id int not null references b.orgs);
alter table public.projects enable row level security;
alter table public.tasks enable row level security;
alter table public.shares enable row level security;
alter table b.lists enable row level security;
alter table b.items enable row level security;
create policy p on public.projects using (org_id = current_setting('app.org')::int);
create policy p on public.tasks using (org_id = current_setting('app.org')::int);
create policy p on public.shares using (guest_id = current_setting('app.org')::int);
create policy p on b.lists using (workspace_id = current_setting('app.workspace')::int);
create policy p on b.items using (workspace_id = current_setting('app.workspace')::int);
grant usage on schema public, b to authenticated;
grant select on all tables in schema public, b to authenticated;
"""
# The user's row says the tenant, and its key the user; members see each other by a helper that looks there.
PROFILES = """
create table public.firms (id uuid primary key);
create table public.profiles (id uuid primary key references auth.users, firm uuid references public.firms,
  firm_role text not null check (firm_role in ('clerk', 'owner')));
create table public.files (id uuid primary key, firm uuid not null references public.firms);
create function public.my_firm() returns uuid language sql stable security definer set search_path = ''
  as $$ select p.firm from public.profiles as p where p.id = (select auth.uid()) $$;
alter table public.profiles enable row level security;
alter table public.files enable row level security;
create policy p on public.profiles for select using (firm = (select public.my_firm()));
create policy p on public.files using (firm = (select public.my_firm()));
grant usage on schema public to authenticated;
grant execute on function public.my_firm() to authenticated;
grant select on all tables in schema public to authenticated;
"""
AUTH = Path(__file__).parent.parent / "fixtures" / "databases" / "supabase" / "1_auth.sql"

CHECKED = "('administrator', 'doctor') and s.status = 'active'"
FORGETFUL = """
create or replace function public.is_member(clinic uuid) returns boolean language sql stable security definer
  set search_path = '' as $$ select exists (select from public.staff as s where s.clinic_id = clinic
    and s.user_id = (select auth.uid()) and s.role in ('administrator', 'doctor')) $$;
"""

TEAM = """
grant select, update on public.staff to authenticated;
create policy team on public.staff for select to authenticated using (public.is_member(clinic_id));
create policy me on public.staff for update to authenticated using (user_id = (select auth.uid()));
"""

OTHERS = {"clinics": CLINICS, "teams": CLINICS + TEAM, 'gu "ilds': WEIRD, "alike": ALIKE, "profiles": PROFILES}


@pytest.fixture(scope="session")  # a worker may come back to this file
def others(references: Server) -> dict[str, str]:
    """Databases with an API's roles and auth.uid(), by name."""
    auth = AUTH.read_text("utf-8")
    return made(references, {name: auth + script for name, script in OTHERS.items()})


def text_of(folder: Path) -> str:
    return (folder / "contract.toml").read_text("utf-8")


def test_members_who_see_each_other_are_a_team(others: dict[str, str], tmp_path: Path) -> None:
    contract = drafted(others["teams"], tmp_path)
    staff = contract.tables["public.staff"]
    assert contract.access[staff.access or staff.holds]["authenticated"] == {"select": "team", "update": "own"}
    done = run(tmp_path, others["teams"], "-k", "foreign-rows-hidden or own-rows-visible or policy-bound-to-tenant")
    assert "public.staff" not in done.stdout, done.stdout


def test_a_child_of_tenants_rows_makes_no_tenancy(others: dict[str, str], tmp_path: Path) -> None:
    contract = drafted(others["clinics"], tmp_path)
    assert list(contract.tenancies) == ["clinic"]
    for name in ("notes", "bills", "reminders"):
        table = contract.tables[f"public.{name}"]
        assert (table.holds, table.column, table.parent) == ("child", "appointment_id", "public.appointments")
    payments = contract.tables["public.payments"]
    assert (payments.holds, payments.column, payments.parent) == ("child", "bill_id", "public.bills")
    assert "[tenancies.appointment" not in text_of(tmp_path)
    search = contract.functions["public.match_notes"].search
    assert search
    assert search.tenant == "clinic_id"


def test_a_row_that_is_the_user_names_a_member(others: dict[str, str], tmp_path: Path) -> None:
    contract = drafted(others["profiles"], tmp_path)
    members = contract.tenancies["firm"].members
    assert members
    assert (members.table, members.user, members.tenant) == ("public.profiles", "id", "firm")
    assert (members.role, members.admin, members.users) == ("firm_role", "owner", "auth.users.id")
    assert contract.sessions["member"].claims["sub"] == "{user}"


def test_who_counts_is_found_in_the_bodies_of_helpers(others: dict[str, str], tmp_path: Path) -> None:
    """Else nobody who has left would be tried."""
    members = drafted(others["clinics"], tmp_path).tenancies["clinic"].members
    assert members
    assert (members.active, members.active_values) == ("status", ("active",))
    done = run(tmp_path, others["clinics"])
    assert done.returncode == 0, done.stdout
    with psycopg.connect(others["clinics"], autocommit=True) as connection:
        connection.execute(FORGETFUL.encode())
        try:
            done = run(tmp_path, others["clinics"])
        finally:
            connection.execute(FORGETFUL.replace("('administrator', 'doctor')", CHECKED).encode())
    assert done.returncode == 1
    assert "public.appointments: deactivated or expired member sees 3 row(s)" in done.stdout


def test_who_counts_is_found_under_unusual_names(others: dict[str, str], tmp_path: Path) -> None:
    (tenancy,) = drafted(others['gu "ilds'], tmp_path).tenancies.values()
    assert tenancy.members
    assert (tenancy.members.active, tenancy.members.active_values) == ("my Status", ("in",))


def test_no_two_tenancies_are_called_alike(others: dict[str, str], tmp_path: Path) -> None:
    """Neither those that are written, nor those that wait for the reader to take their comment signs away."""
    tenancies = drafted(others["alike"], tmp_path).tenancies
    assert {name: t.column for name, t in tenancies.items()} == {"org": "workspace_id", "org_2": "org_id"}
    on = re.sub(r"^# (?=\[tenancies|column = |type = )", "", text_of(tmp_path), flags=re.M)
    assert {name: t["column"] for name, t in tomllib.loads(on)["tenancies"].items()} == {
        "org": "workspace_id", "org_2": "org_id", "guest": "guest_id",
    }  # fmt: skip


def test_who_administers_is_guessed_by_an_obvious_name(others: dict[str, str], tmp_path: Path) -> None:
    """Else nobody would ask whether each tenant has one."""
    found = {}
    for name in ("clinics", 'gu "ilds'):
        (tenancy,) = drafted(others[name], tmp_path).tenancies.values()
        assert tenancy.members
        found[name] = tenancy.members.admin
        assert f"# admin: guess: {tenancy.members.admin} is called so; each" in text_of(tmp_path)
        (tmp_path / "contract.toml").unlink()
    assert found == {"clinics": "administrator", 'gu "ilds': "Owner"}
