"""What goes along with a notification, told from a body's text."""

from __future__ import annotations

import time

import pytest

from pgconform.bodies import code, rows_in, sent

WHOLE = (
    "begin perform pg_notify('c', row_to_json(new)::text); return new; end",
    "begin perform pg_catalog.pg_notify('c', to_jsonb ( OLD )::text); return old; end",
    "begin perform pg_notify('c', hstore(new)::text); end",
    "begin perform pg_notify('c', new::text); end",
    "begin perform pg_notify('c', row(new.*)::text); end",
    "begin perform pg_notify('c', json_build_object('op', tg_op, 'row', new)::text); end",
    "declare payload jsonb := to_jsonb(new); begin perform pg_notify('c', payload::text); end",
    "declare p json default row_to_json(old); begin perform pg_notify('c', p #>> '{}'); end",
    "declare p text; begin p = new; perform pg_notify('c', p); end",
    "declare p json; q text; begin p := row_to_json(new); q := p::text; perform pg_notify('c', 'x' || q); end",
    "declare d json[] not null := '{}'; begin d[1] := to_json(new); perform pg_notify('c', d::text); end",
    "declare r record; begin r := new; perform pg_notify('c', row_to_json(r)::text); end",
    "declare p text; begin if tg_op = 'INSERT' then p := new::text; end if; perform pg_notify('c', p); end",
    "declare p text; begin select row_to_json(t) into strict p from (select new.*) t; perform pg_notify('c', p); end",
    "declare p text; begin select into p to_jsonb(new); perform pg_notify('c', p); end",
    "begin execute format('notify c, %L', row_to_json(new)); end",
    "begin execute 'NOTIFY c, ' || quote_literal(to_json(new)); end",
    "begin execute $q$ notify c, $q$ || quote_literal(new::text); end",
    "begin execute 'select pg_notify(''c'', $1)' using row_to_json(new)::text; end",
    "begin perform app.tell('c', to_jsonb(new)); end",
    "begin /* all /* of */ it */ perform pg_notify('c', -- the row\n new::text); end",
)
NOTHING = (
    "begin return new; end",
    "begin perform pg_notify('c', ''); return new; end",
    "begin notify c, 'row_to_json(new)'; return new; end",
    "begin insert into audit (old) values (to_jsonb(old)); perform pg_notify('c', tg_op); end",
    "begin -- perform pg_notify('c', new::text);\n return new; end",
    "begin perform pg_notify('c', 'new::text and ''old'''); end",
    "begin perform pg_notify('c', case when new is distinct from old then 'changed' end); end",
    "begin if new.notify then insert into todo select new.*; end if; end",
    "declare n bigint; begin insert into audit values (to_jsonb(old)) returning id into n;"
    " perform pg_notify('c', n::text); end",
)


@pytest.mark.parametrize("body", WHOLE)
def test_a_whole_row_goes_along(body: str) -> None:
    assert rows_in(sent(body, frozenset(["tell"])))[0]


@pytest.mark.parametrize("body", NOTHING)
def test_nothing_of_a_row_goes_along(body: str) -> None:
    assert rows_in(sent(body)) == (False, frozenset())


def test_columns_are_named_as_the_server_would() -> None:
    body = """declare k text := old."Key "" B"; begin new.seen := new.other;
      perform pg_notify('c', new.ID || (to_jsonb(new) ->> 'note') || k || coalesce(old.x::text, '')); end"""
    assert rows_in(sent(body)) == (False, frozenset(["id", "note", 'Key " B', "x"]))


def test_comments_and_literals_are_left_out() -> None:
    assert (
        code("a 'b''c' /* d /* e */ f */ \"g--h\" -- i\n E'j\\'k' $l$m'$l$ n::text[] $1") == "a '' \"g--h\" '' '' n $1"
    )
    assert code("a /* b") == "a"
    assert code("a $$ b") == "a ''"


@pytest.mark.parametrize(
    "body", ["a" * 20_000, "a." * 10_000, "a " * 10_000, "(" * 20_000, "'" * 20_001, "/*" * 10_000]
)
def test_no_body_takes_long(body: str) -> None:
    started = time.monotonic()
    sent(f"perform pg_notify(x); {body}")
    assert time.monotonic() - started < 5  # some milliseconds on a quiet machine
