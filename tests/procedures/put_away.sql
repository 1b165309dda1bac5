-- Old orders and their lines move to their archives; nobody else writes meanwhile.
begin;
lock table "Weird ""Shop"""."Order", "Weird ""Shop"""."Order's line" in share row exclusive mode;
insert into "Weird ""Shop"""."Old line" select to_jsonb(l) from "Weird ""Shop"""."Order's line" as l
join "Weird ""Shop"""."Order" as o on o."Id" = l."Order" where o."When {it} was" < now() - interval '30 days';
insert into "Weird ""Shop"""."Old order" select * from "Weird ""Shop"""."Order" where "When {it} was" < now() - interval '30 days';
delete from "Weird ""Shop"""."Order" where "When {it} was" < now() - interval '30 days';
commit;
