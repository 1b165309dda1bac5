-- The role that a live run connects as: it reads, it becomes client roles, and can do nothing else.
--
--   psql -v password="'...'" -f ci/reader.sql       as a superuser, or as postgres on a hosted Supabase
--
-- BYPASSRLS: to know what a tenant should see, all rows must be counted. pg_read_all_data: SELECT on every relation and
-- USAGE on every schema, no write. Client roles are taken on by SET ROLE only: from PostgreSQL 16 on without
-- inheriting from them. Adjust them to those that your contract lists under [roles].
create role pgconform_reader login bypassrls password :password connection limit 8;
alter role pgconform_reader set default_transaction_read_only = on;
grant pg_read_all_data, pg_read_all_stats to pgconform_reader;
do $$
declare
  without_inheriting text := case when current_setting('server_version_num')::int >= 160000
                                  then ' with inherit false, set true' else '' end;
begin
  execute 'grant anon, authenticated to pgconform_reader' || without_inheriting;
end
$$;
