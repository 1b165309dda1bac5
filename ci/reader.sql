-- The role that a live run connects as: it reads, becomes client roles, and can do nothing else.
--
--   psql -v password="'...'" -f ci/reader.sql       as a superuser, or as postgres on a hosted Supabase
--
-- BYPASSRLS: to know what a tenant should see, all rows must be counted. pg_read_all_data: SELECT on every relation
-- and USAGE on every schema, no writes. Membership in the client roles without inheriting from them: only SET ROLE.
-- Adjust the client roles to those that your contract lists under [roles].
create role pgconform_reader login noinherit bypassrls password :password connection limit 5;
alter role pgconform_reader set default_transaction_read_only = on;
grant pg_read_all_data to pgconform_reader;
grant pg_read_all_stats to pgconform_reader;
grant anon, authenticated to pgconform_reader;
