-- The role that a live run connects as: it reads, it becomes client roles, and can do nothing else.
--
--   pgconform reader | psql -v ON_ERROR_STOP=1 -v password="'...'" "$ADMIN_DSN"
--
-- as a superuser, or as postgres on a hosted Supabase. The roles that your API's clients have: --clients=web,app
--
-- BYPASSRLS: to know what a tenant should see, all rows must be counted. pg_read_all_data: SELECT on every relation and
-- USAGE on every schema, no write. Client roles are taken on by SET ROLE only: from PostgreSQL 16 on without
-- inheriting from them.
--
-- It may be run again, with another password or for further clients: what was granted before stays.
do $pgconform$
begin
  if not exists (select from pg_catalog.pg_roles where rolname = 'pgconform_reader') then
    create role pgconform_reader nologin bypassrls;
  elsif not (select rolbypassrls from pg_catalog.pg_roles where rolname = 'pgconform_reader') then
    alter role pgconform_reader bypassrls;
  end if;
end
$pgconform$;
alter role pgconform_reader login password :password connection limit 20;
alter role pgconform_reader set default_transaction_read_only = on;
grant pg_read_all_data, pg_read_all_stats to pgconform_reader;
do $pgconform$
declare
  client name;
  without_inheriting text := case when current_setting('server_version_num')::int >= 160000
                                  then ' with inherit false, set true' else '' end;
begin
  for client in select rolname from pg_catalog.pg_roles where rolname in ('anon', 'authenticated') order by 1 loop
    execute format('grant %I to pgconform_reader', client) || without_inheriting;
  end loop;
end
$pgconform$;
