"""Policy expressions: what is always true, what ties a row to the session, and what only looks as if it did."""

from __future__ import annotations

import pytest

from pgconform.expressions import ExpressionError, calls_alone, compares, constrains, per_row_calls, shape

COLUMNS = ("tenant_id", "org_id", "tenant_ids", "metadata")
UID = "( SELECT auth.uid() AS uid)"
MINE = "tenant_id = auth.tenant()"
MEMBERS = "SELECT m.tenant_id FROM public.members m WHERE"


def listed(text: str) -> list[str]:
    return [each.strip() for line in text.strip().splitlines() for each in line.split(" ;; ")]


ALWAYS_TRUE = listed(f"""
true ;; (SELECT true) ;; ( SELECT true AS bool) ;; (true OR is_active) ;; (is_active OR true) ;; NOT false
(1 = 1) ;; (1 < 2) ;; (1 <= 1) ;; ('a'::text = 'a'::text) ;; ('a'::text <> 'b'::text) ;; 't'::boolean
coalesce(true, is_active) ;; coalesce(is_active, true) OR true ;; (tenant_id = tenant_id)
(t.tenant_id = tenant_id) ;; ((tenant_id)::text = (tenant_id)::text) ;; ((tenant_id || ''::text) = tenant_id)
(lower(tenant_id) = lower(tenant_id)) ;; NOT (tenant_id <> tenant_id)
(tenant_id IS NOT DISTINCT FROM tenant_id) ;; (tenant_id >= tenant_id) ;; (tenant_id IN (tenant_id, 'x'))
(tenant_id = ANY (ARRAY[tenant_id, 'x'::text])) ;; ((tenant_id, a) = (tenant_id, a))
(tenant_id IN ( SELECT t.tenant_id)) ;; (tenant_id = coalesce(NULL::text, tenant_id))
((tenant_id IS NOT NULL) OR (tenant_id IS NULL)) ;; ((auth.uid() IS NULL) OR (auth.uid() IS NOT NULL))
(({MINE}) OR (tenant_id <> auth.tenant()) OR (auth.tenant() IS NULL))
((tenant_id = 'a'::text) OR (tenant_id <> 'a'::text)) ;; ((a < 5) OR (a >= 5)) ;; (flag OR (NOT flag))
(flag IS TRUE) OR (flag IS NOT TRUE) ;; (tenant_id LIKE '%'::text) ;; (tenant_id ~~* '%%'::text)
(tenant_id ~ '.*'::text) ;; (tenant_id >= ''::text) ;; CASE WHEN is_active THEN true ELSE true END
CASE WHEN true THEN true ELSE false END ;; ((tenant_id = tenant_id) = true) ;; (CURRENT_USER = CURRENT_USER)
(EXISTS ( SELECT 1))
(EXISTS ( SELECT count(*) AS count FROM public.members m WHERE (m.user_id = auth.uid())))
(({MINE}) OR (EXISTS ( SELECT 1 WHERE true))) ;; (tenant_id BETWEEN tenant_id AND tenant_id)
tenant_id = ANY (ARRAY[auth.tenant(), tenant_id])
""")

ALWAYS_FALSE = listed("""
false ;; NULL::boolean ;; (SELECT false) ;; (1 = 2) ;; NOT true ;; (tenant_id <> tenant_id)
(tenant_id < tenant_id) ;; (tenant_id = NULL::text) ;; (flag AND false)
((tenant_id IS NULL) AND (tenant_id IS NOT NULL)) ;; (flag AND (NOT flag))
((tenant_id = 'a'::text) AND (tenant_id <> 'a'::text)) ;; (tenant_id IS DISTINCT FROM tenant_id)
(tenant_id = ANY (ARRAY[]::text[])) ;; CASE WHEN flag THEN false END
(EXISTS ( SELECT 1 FROM public.m WHERE false))
""")

CONSTRAINS = listed(f"""
    EXISTS ({MEMBERS} m.user_id = {UID} INTERSECT SELECT t.tenant_id)
    EXISTS ({MEMBERS} m.user_id = {UID} AND m.tenant_id = t.tenant_id)
    pg_has_role((tenant_id)::name, 'member'::text)
    tenant_id = ('org_'::text || auth.tenant())
    tenant_id = COALESCE(auth.tenant(), ''::text)
({MINE}) ;; (auth.tenant() = tenant_id) ;; ((tenant_id)::text = ({UID})::text)
(tenant_id = ( SELECT (auth.jwt() ->> 'tenant'::text)))
(tenant_id = (((auth.jwt() -> 'app_metadata'::text) ->> 'tenant'::text))::uuid)
(tenant_id = current_setting('app.tenant'::text, true))
(tenant_id = (NULLIF(current_setting('app.tenant'::text, true), ''::text))::uuid)
(tenant_id = ( SELECT NULLIF(current_setting('app.tenant'::text), ''::text) AS "nullif"))
(tenant_id = CURRENT_USER) ;; (tenant_id = SESSION_USER) ;; (tenant_id IS NOT DISTINCT FROM auth.tenant())
(lower(tenant_id) = lower(auth.tenant())) ;; (coalesce(tenant_id, ''::text) = auth.tenant())
(tenant_id = ANY (auth.tenants()))
(tenant_id = ANY (string_to_array(current_setting('app.tenants'::text), ','::text)))
(tenant_id = ANY (( SELECT auth.tenants() AS tenants)::text[]))
(tenant_id = ANY (ARRAY( SELECT jsonb_array_elements_text((auth.jwt() -> 'tenants'::text)))))
(tenant_id = ANY (ARRAY[auth.tenant(), auth.other()])) ;; (tenant_id IN ( {MEMBERS} (m.user_id = {UID})))
(tenant_id IN ( {MEMBERS} ((m.user_id = auth.uid()) AND m.is_active)))
(tenant_id = ( {MEMBERS} (m.user_id = auth.uid()) LIMIT 1))
(tenant_id IN ( SELECT private.my_tenants() AS my_tenants))
(tenant_id IN ( SELECT x.id FROM private.my_tenants() x(id)))
(tenant_id IN ( SELECT m.tenant_id FROM (members m JOIN u ON ((u.id = m.user_id) AND (u.sub = auth.uid())))))
(tenant_id IN ( {MEMBERS} (m.user_id = auth.uid()) UNION SELECT o.id FROM orgs o WHERE (o.owner = auth.uid())))
(tenant_id IN ( WITH w AS ( {MEMBERS} (m.user_id = auth.uid())) SELECT w.tenant_id FROM w))
(EXISTS ( SELECT 1 FROM members m WHERE ((m.tenant_id = t.tenant_id) AND (m.user_id = auth.uid()))))
(EXISTS ( SELECT 1 FROM members m WHERE ((t.org_id = ANY (m.orgs)) AND (m.user_id IN ( SELECT auth.uid())))))
(EXISTS ( SELECT 1 FROM private.mine() m(id) WHERE (m.id = t.tenant_id)))
(EXISTS ( SELECT 1 FROM m WHERE (t.tenant_id = auth.tenant())))
(auth.uid() IN ( SELECT m.user_id FROM members m WHERE (m.tenant_id = t.tenant_id)))
(auth.uid() = ( SELECT o.owner FROM orgs o WHERE (o.id = t.org_id)))
(( SELECT count(*) AS count FROM members m WHERE ((m.tenant_id = t.tenant_id) AND (m.user_id = auth.uid()))) > 0)
(( SELECT m.role FROM members m WHERE ((m.tenant_id = t.tenant_id) AND (m.user_id = auth.uid()))) = 'admin'::text)
('admin'::text IN ( SELECT m.role FROM members m WHERE ((m.tenant_id = t.tenant_id) AND (m.user_id = auth.uid()))))
app.is_member(tenant_id) ;; private.can_access(org_id) ;; ( SELECT private.can_access(t.org_id) AS can_access)
private.can_see(t.*) ;; (private.role_in(tenant_id) = ANY (ARRAY['owner'::text, 'admin'::text]))
(private.role_in(tenant_id) IS NOT NULL) ;; (app.is_member(tenant_id) IS TRUE) ;; (app.is_member(tenant_id) = true)
NOT (NOT ({MINE})) ;; NOT (tenant_id <> auth.tenant()) ;; coalesce(({MINE}), false)
CASE WHEN ({MINE}) THEN true ELSE false END ;; CASE WHEN is_active THEN ({MINE}) ELSE app.is_member(org_id) END
(({MINE}) AND is_active) ;; (is_active AND ((({MINE})) OR app.is_member(org_id))) ;; (({MINE}) OR false)
(({MINE}) OR (1 = 2)) ;; (({MINE}) OR ((a IS NULL) AND (a IS NOT NULL)))
((tenant_id, user_id) IN ( SELECT m.tenant_id, m.user_id FROM members m WHERE (m.user_id = auth.uid())))
((tenant_id, auth.uid()) IN ( SELECT m.tenant_id, m.user_id FROM members m))
((tenant_id, user_id) = (auth.tenant(), auth.uid())) ;; (tenant_ids @> ARRAY[auth.tenant()])
(ARRAY[tenant_id] <@ auth.tenants()) ;; (tenant_ids && auth.tenants())
((auth.jwt() -> 'tenants'::text) ? tenant_id) ;; ((metadata ->> 'tenant'::text) = auth.tenant())
((storage.foldername(tenant_id))[1] = ({UID})::text) ;; (tenant_id OPERATOR(pg_catalog.=) auth.tenant())
("tenant_id" = (auth.tenant() COLLATE "C"))
tenant_id IN (SELECT m.tenant_id FROM m WHERE m.tenant_id = (SELECT x.t FROM x WHERE x.u = auth.uid()))
tenant_id IN (SELECT m.tenant_id FROM m, LATERAL (SELECT auth.uid() AS u) s WHERE m.user_id = s.u)
tenant_id IN (SELECT m.id FROM m WHERE EXISTS (SELECT 1 FROM y WHERE y.u = auth.uid() AND y.t = m.id))
EXISTS (SELECT 1 FROM (SELECT m.tenant_id FROM m WHERE m.u = auth.uid()) q WHERE q.tenant_id = t.tenant_id)
EXISTS (SELECT 1 FROM m WHERE m.user_id = auth.uid() AND m.tenant_id = t.tenant_id OFFSET 0)
(tenant_id = auth.tenant()) IS NOT DISTINCT FROM true ;; tenant_id = ANY (array_append(auth.tenants(), 'x'))
tenant_id = 'a' || auth.tenant()
(SELECT bool_or(m.active) FROM m WHERE m.tenant_id = t.tenant_id AND m.u = auth.uid())
coalesce((SELECT true FROM m WHERE m.tenant_id = t.tenant_id AND m.u = auth.uid()), false)
tenant_id = (SELECT m.tenant_id FROM m WHERE m.u = auth.uid() EXCEPT SELECT 'x')
org_id IN (WITH RECURSIVE w(i) AS (SELECT t FROM m WHERE app.f()=m.u UNION SELECT o.c FROM o, w WHERE w.i=o.p) TABLE w)
(tenant_id, 1) = (auth.tenant(), 1) ;; has_table_privilege(tenant_id, 'select')
auth.uid() = ANY (SELECT m.u FROM m WHERE m.tenant_id = t.tenant_id)
auth.uid() = ANY (ARRAY(SELECT m.u FROM m WHERE m.tenant_id = t.tenant_id))
app.is_member(coalesce(NULL, tenant_id))
(SELECT count(*) > 0 FROM m WHERE m.tenant_id = t.tenant_id AND m.u = auth.uid())
EXISTS (SELECT 1 FROM private.members_of(t.tenant_id) m WHERE m.u = auth.uid())
tenant_id IN (SELECT m.tenant_id FROM m JOIN private.mine() x ON x.id = m.team)
""")

FREE = listed(f"""
    pg_column_size(tenant_id) > 0
    textlen(tenant_id) > 0
    uuid_send(org_id) IS NOT NULL
    text_ge(tenant_id, ''::text)
    name(tenant_id) IS NOT NULL
    json_typeof(to_json(tenant_id)) = 'string'
    quote_nullable(tenant_id) <> 'x'
    (tenant_id IS NFC NORMALIZED)
    (ARRAY[tenant_id, ({UID})::text] && ARRAY[({UID})::text])
    (ARRAY[tenant_id] && ARRAY[({UID})::text, 'a'::text])
    replace(tenant_id, tenant_id, ''::text) = replace(({UID})::text, ({UID})::text, ''::text)
    repeat(tenant_id, 0) = repeat(({UID})::text, 0)
    regexp_replace(tenant_id, '.*', '') = regexp_replace(({UID})::text, '.*', '')
    ((tenant_id, {UID}) IN (SELECT r.tenant_id, {UID} FROM public.registry r))
    jsonb_build_object('t', tenant_id) ? auth.role()
    tenant_id = COALESCE((auth.jwt() ->> 'tenant_id'::text), 'casa'::text)
    tenant_id = ANY ((ARRAY(SELECT r.tenant_id FROM public.registry r) || ARRAY({MEMBERS} (m.user_id = {UID}))))
    tenant_id = CASE WHEN is_active THEN 'casa'::text ELSE auth.tenant() END
    tenant_id IN (SELECT unnest(ARRAY['a','b']) FROM public.p p WHERE p.user_id = {UID})
(auth.uid() IS NOT NULL) ;; (auth.role() = 'authenticated'::text) ;; is_active ;; private.is_admin()
(tenant_id IS NOT NULL) ;; (tenant_id = 'acme'::text) ;; (tenant_id = ANY ('{{a,b}}'::text[]))
(tenant_id <> auth.tenant()) ;; NOT ({MINE}) ;; (tenant_id LIKE (auth.tenant() || '%'::text))
(tenant_id = other_id) ;; (user_id = auth.uid()) ;; (tenant_id = coalesce(auth.tenant(), tenant_id))
(tenant_id = CASE WHEN is_admin() THEN tenant_id ELSE auth.tenant() END)
(tenant_id = NULLIF(tenant_id, auth.tenant())) ;; (coalesce(tenant_id, auth.tenant()) = auth.tenant())
(length(tenant_id) = length(auth.tenant())) ;; ("left"(tenant_id, 1) = "left"(auth.tenant(), 1))
(tenant_id > auth.tenant()) ;; (({MINE}) OR is_public) ;; (({MINE}) OR true)
(({MINE}) OR (auth.uid() IS NULL)) ;; ((auth.tenant() IS NULL) OR ({MINE})) ;; (({MINE}) OR private.is_admin())
(tenant_id IN ('shared'::text, auth.tenant())) ;; coalesce(({MINE}), true) ;; (({MINE}) IS NOT FALSE)
(({MINE}) IS NULL) ;; CASE WHEN ({MINE}) THEN true ELSE is_public END
CASE WHEN (tenant_id <> auth.tenant()) THEN false ELSE true END
(tenant_id IN ( SELECT c.tenant_id FROM hotels.content c))
(tenant_id IN ( SELECT c.tenant_id FROM hotels.content c WHERE c.is_active))
(tenant_id IN ( {MEMBERS} (auth.uid() IS NOT NULL)))
(tenant_id IN ( {MEMBERS} (auth.role() = 'authenticated'::text)))
(tenant_id IN ( {MEMBERS} ((m.user_id = auth.uid()) OR m.is_public)))
(tenant_id IN ( SELECT t.tenant_id FROM members m WHERE (m.user_id = auth.uid())))
(tenant_id IN ( {MEMBERS} (m.user_id = auth.uid()) UNION SELECT o.id FROM orgs o))
(tenant_id IN ( SELECT m.tenant_id FROM (orgs m LEFT JOIN users u ON ((u.id = m.x) AND (u.sub = auth.uid())))))
(tenant_id <> ALL (ARRAY( SELECT auth.tenants()))) ;; (tenant_id = ALL ( {MEMBERS} (m.user_id = auth.uid())))
NOT (tenant_id IN ( {MEMBERS} (m.user_id = auth.uid())))
NOT (EXISTS ( SELECT 1 FROM members m WHERE ((m.tenant_id = t.tenant_id) AND (m.user_id = auth.uid()))))
(EXISTS ( SELECT 1 FROM members m WHERE ((m.tenant_id = m.tenant_id) AND (m.user_id = auth.uid()))))
(EXISTS ( SELECT 1 FROM members m WHERE (m.user_id = auth.uid())))
(EXISTS ( SELECT 1 FROM members m WHERE (m.tenant_id = t.tenant_id)))
(EXISTS ( SELECT 1 FROM members m WHERE ((m.tenant_id = t.tenant_id) OR (m.user_id = auth.uid()))))
(EXISTS ( SELECT count(*) FROM members m WHERE ((m.tenant_id = t.tenant_id) AND (m.user_id = auth.uid()))))
(( SELECT count(*) AS count FROM members m WHERE ((m.tenant_id = t.tenant_id) AND (m.user_id = auth.uid()))) = 0)
(( SELECT count(*) AS count FROM members m WHERE ((m.tenant_id = t.tenant_id) AND (m.user_id = auth.uid()))) >= 0)
(auth.uid() IN ( SELECT m.user_id FROM members m)) ;; (lower(tenant_id) = 'a'::text)
(tenant_id = md5('a'::text)) ;; NOT app.is_member(tenant_id) ;; app.is_member(user_id)
starts_with(tenant_id, auth.tenant()) ;; (POSITION((tenant_id) IN (current_setting('app.tenants'::text))) > 0)
((tenant_id, user_id) = (tenant_id, auth.uid())) ;; (tenant_id = ANY (ARRAY['shared'::text, auth.tenant()]))
tenant_id IN (SELECT m.tenant_id FROM m WHERE m.user_id = coalesce(auth.uid(), m.user_id))
tenant_id IN (SELECT m.tenant_id FROM m WHERE EXISTS (SELECT 1 FROM y WHERE y.u = auth.uid()))
tenant_id IN (SELECT m.tenant_id FROM m CROSS JOIN private.me() me WHERE true)
tenant_id IN (SELECT m.tenant_id FROM m CROSS JOIN (SELECT now() AS n) me)
EXISTS (SELECT 1 FROM m WHERE m.user_id = auth.uid() AND (m.tenant_id = t.tenant_id OR m.is_admin))
(tenant_id = auth.tenant()) = is_active ;; (tenant_id = auth.tenant()) >= false
(tenant_id = auth.tenant())::int = 1 ;; tenant_id = ANY (array_append(auth.tenants(), tenant_id))
tenant_id = auth.tenant() || tenant_id ;; tenant_id = greatest(auth.tenant(), tenant_id)
EXISTS (SELECT 1 FROM m WHERE t.tenant_id = coalesce(m.tenant_id, t.tenant_id) AND m.u = auth.uid())
(SELECT count(*) = 0 FROM m WHERE m.tenant_id = t.tenant_id AND m.u = auth.uid())
(SELECT coalesce(max(m.x), 1) = 1 FROM m WHERE m.tenant_id = t.tenant_id AND m.u = auth.uid())
(SELECT bool_or(m.active) IS NULL FROM m WHERE m.tenant_id = t.tenant_id AND m.u = auth.uid())
EXISTS (SELECT 1 FROM m WHERE m.tenant_id = t.tenant_id AND m.u = auth.uid() HAVING count(*) >= 0)
EXISTS (SELECT 1 FROM m WHERE m.tenant_id = t.tenant_id AND m.u = auth.uid() GROUP BY GROUPING SETS (()))
tenant_id IN (SELECT coalesce(max(m.tenant_id), t.tenant_id) FROM m WHERE m.u = auth.uid())
tenant_id = f(tenant_id)
tenant_id IN (SELECT q.x FROM m, LATERAL (SELECT t.tenant_id AS x) q WHERE m.u = auth.uid())
tenant_id IN (SELECT m.tenant_id FROM m, private.mine() x)
""")


DIRECT = listed("""
tenant_id = auth.uid() ;; auth.uid() = tenant_id ;; (tenant_id)::text = (( SELECT auth.uid() AS uid))::text
is_active AND tenant_id IS NOT DISTINCT FROM auth.uid() ;; tenant_id IN (auth.uid())
tenant_id IN ( SELECT auth.uid() AS uid) ;; tenant_id = ANY (ARRAY[( SELECT auth.uid() AS uid)])
(tenant_id = NULLIF(current_setting('x'), '')::uuid) ;; tenant_id = pg_catalog.current_setting('x')
EXISTS (SELECT 1 FROM m WHERE t.tenant_id = auth.uid()) ;; (tenant_id, a) = (auth.uid(), b)
""")

INDIRECT = listed("""
user_id = auth.uid() ;; tenant_id = private.tenant_of(auth.uid()) ;; tenant_id = (auth.jwt() ->> 'tenant')
EXISTS (SELECT 1 FROM m WHERE m.tenant_id = auth.uid())
tenant_id IN (SELECT m.tenant_id FROM m WHERE m.user_id = auth.uid()) ;; tenant_id > auth.uid()
'tenant_id = auth.uid()' = a
""")


@pytest.mark.parametrize("expression", ALWAYS_TRUE)
def test_a_disguised_true_is_recognised(expression: str) -> None:
    found = shape(expression, "t")
    assert (found.always_true, found.always_false) == (True, False)
    assert not constrains(expression, COLUMNS, "t")
    assert shape(f"NOT ({expression})", "t").always_false or "IS NOT DISTINCT" in expression


@pytest.mark.parametrize("expression", ALWAYS_FALSE)
def test_a_disguised_false_is_recognised(expression: str) -> None:
    found = shape(expression, "t")
    assert (found.always_true, found.always_false) == (False, True)
    assert constrains(expression, COLUMNS, "t"), "what lets nothing through constrains"


@pytest.mark.parametrize("expression", CONSTRAINS)
def test_what_ties_the_tenant_to_the_session_constrains(expression: str) -> None:
    found = shape(expression, "t")
    assert (found.always_true, found.always_false) == (False, False)
    assert constrains(expression, COLUMNS, "t")
    assert constrains(expression, COLUMNS) or "t.*" in expression, "the table's name is a help, not a need"
    assert not constrains(expression, ("created_at",), "t") or "t.*" in expression


@pytest.mark.parametrize("expression", FREE)
def test_what_only_looks_like_it_does_not_constrain(expression: str) -> None:
    assert not constrains(expression, COLUMNS, "t")
    known = (f"(({MINE}) OR true)", ">= 0)", "(EXISTS ( SELECT count(*)")
    assert not shape(expression, "t").always_true or any(each in expression for each in known)


@pytest.mark.parametrize(
    "expression",
    ["random() = random()", "a OR NULL", "CASE WHEN a THEN true END", "x IS NOT NULL", "auth.uid() = auth.uid()",
     "EXISTS (SELECT unnest(x))", "EXISTS (SELECT 1 FROM m)", "(created_at)::date = created_at", "a = b OR c <> d",
     "EXISTS (SELECT 1 LIMIT 0)", "(a = a) AND b", "coalesce(a = a, false)", "f(x)", "x <> ''", "x LIKE 'a%'"],
)  # fmt: skip
def test_what_depends_is_neither_true_nor_false(expression: str) -> None:
    assert (shape(expression).always_true, shape(expression).always_false) == (False, False)


def test_the_shape_names_what_is_read() -> None:
    found = shape(
        """((tenant_id = (((current_setting('request.jwt.claims'::text, true))::json -> 'user_metadata')
            ->> 'tenant'))
        AND (auth.jwt() #>> '{app_metadata,role}'::text[]) = 'x' AND (auth.jwt() ->> 'sub') = "Öwner"
        AND (SELECT (auth.jwt() -> 'a'))['b'] IS NOT NULL AND t.archived
        AND current_setting('request.jwt.claim.sub') = x AND EXISTS (WITH c AS (SELECT 1 FROM "S p"."T")
            SELECT 1 FROM c, public.m m WHERE m.id = t.ref AND m.z = c.y))""",
        "t",
    )
    assert found.columns == {"tenant_id", "Öwner", "archived", "ref", "x"}
    assert found.functions == {("current_setting",), ("auth", "jwt")}
    assert found.settings == {"request.jwt.claims", "request.jwt.claim.sub"}
    assert found.relations == {("S p", "T"), ("public", "m")}
    assert found.claims == {("user_metadata", "tenant"), ("app_metadata", "role"), ("sub",), ("a", "b")}
    assert shape("t.a = m.b AND t.*::t IS NULL", "t").columns == {"a", "*"}


@pytest.mark.parametrize("expression", DIRECT + INDIRECT)
def test_a_direct_comparison_is_found_through_its_disguises(expression: str) -> None:
    found = compares(expression, "tenant_id", [("auth", "uid"), ("current_setting",)], "t")
    assert found is (expression in DIRECT)


PER_ROW = listed("""
a = auth.uid() ;; a = current_setting('x') ;; a = ( SELECT private.f(auth.uid(), t.b))
EXISTS (SELECT 1 FROM m WHERE m.t = t.a AND m.u = auth.uid()) ;; a IN (SELECT m.t FROM m WHERE m.u = auth.uid())
""")

ONCE = listed(f"""
a = {UID} ;; a = ( SELECT (auth.jwt() ->> 't')) ;; a = ( SELECT NULLIF(current_setting('x'), ''))
(a)::text = ( SELECT (auth.uid())::text AS uid) ;; EXISTS (SELECT 1 FROM m WHERE m.t = t.a AND m.u = {UID})
a = lower(b)
""")


@pytest.mark.parametrize("expression", PER_ROW + ONCE)
def test_calls_per_row_are_outside_scalar_subqueries(expression: str) -> None:
    called = {("current_setting",) if "current_setting" in expression else ("auth", "uid")}
    assert per_row_calls(expression) == (called if expression in PER_ROW else set())


MINE_ALONE = listed("""
org_id in (select auth.mine()) ;; org_id in (select f.f from auth.mine() f(f)) ;; org_id = any (auth.mine())
is_active and auth.mine(org_id) ;; exists (select 1 from public.m m where t.is_active and m.o = auth.mine())
(org_id in (select auth.mine())) or (select auth.asks(org_id)) ;; coalesce(auth.mine(org_id), false)
exists (select 1 from public.m m where m.o = auth.mine()) or exists (select 1 from public.m m where m.is_active)
org_id in (select auth.mine() union select m.o from public.m m where m.is_active)
""")
NOT_ALONE = listed("""
(org_id in (select auth.mine())) and (select auth.asks(org_id))
exists (select 1 from public.m m where m.is_active and m.o = auth.mine())
case when auth.asks(org_id) then auth.mine(org_id) else false end
auth.asks(org_id) and (a or (b and (org_id in (select auth.mine()))))
exists (select 1 from public.x x left join public.m m on (m.is_active and m.o = x.o) where x.o = auth.mine())
""")


@pytest.mark.parametrize("expression", MINE_ALONE + NOT_ALONE)
def test_a_call_is_alone_where_nothing_that_must_hold_with_it_asks(expression: str) -> None:
    alone = calls_alone(expression, "is_active", [("auth", "asks")], "t")
    assert alone == ({("auth", "mine")} if expression in MINE_ALONE else set())


@pytest.mark.parametrize(
    "text",
    ["", " ", "a b c",
     "a; drop table x", "a, b", "a from b", "a where b", "true) or (true", "a union select b", "((",
     "a as b", "true\0false", "\ud800", "not " * 2000 + "a", "(" * 200_000, "'open secret", "*", "1 limit 1"],
)  # fmt: skip
def test_what_is_not_one_expression_is_refused_without_being_quoted(text: str) -> None:
    with pytest.raises(ExpressionError) as error:
        shape(text, "t")
    assert str(error.value).startswith("expression cannot be parsed")
    assert "secret" not in str(error.value)
