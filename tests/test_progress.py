"""The line on a terminal while something takes long."""

from __future__ import annotations

import os
import pty
import re
import sys
from pathlib import Path

from pgconform.progress import Meter
from pgconform.targets.server import Server

CONTRACT = """
name = "slow"
[schemas]
exposed = ["shop"]
[roles]
clients = ["pg_monitor"]
[sessions.member]
role = "pg_monitor"
[access.service]
[tables."public.slow"]
holds = "service"
minimum = { price = 0 }
"""


def test_the_line_has_an_estimate_where_there_is_one() -> None:
    assert Meter().line("orphans", 6) == "orphans: 6 s"
    known = Meter(12, "last time")
    assert known.line("orphans", 6) == "orphans: [############............] 6 s, about 6 s left, by last time"
    assert known.line("orphans", 12) == "orphans: 12 s, longer than by last time (12 s)"


def test_what_has_parts_is_estimated_by_those_that_are_done() -> None:
    meter, seen = Meter(), []
    for outer in meter.each("ab"):
        for _ in meter.each(range(4)):
            meter.now = outer
            seen.append(meter.share)
    assert seen == [number / 8 for number in range(8)]
    assert meter.share == 1
    assert Meter(share=0.25, now="b").line("bench", 10).endswith("10 s, about 30 s left: b")


def on_terminal(arguments: list[str]) -> str:
    """What a run writes to its terminal."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-m", "pgconform", "run", *arguments])
    told = b""
    while True:
        try:
            piece = os.read(terminal, 10_000)
        except OSError:  # how Linux says that the other side is closed
            break
        if not piece:
            break
        told += piece
    os.waitpid(pid, 0)
    os.close(terminal)
    return told.decode()


def test_a_slow_check_shows_itself_and_knows_from_the_history_how_long_it_takes(
    references: Server, tmp_path: Path
) -> None:
    import psycopg

    with psycopg.connect(references.dsn(), autocommit=True) as connection:
        connection.execute("create database slow")
    with psycopg.connect(references.dsn("slow"), autocommit=True) as connection:
        connection.execute("create view public.slow as select 1 as price from pg_catalog.pg_sleep(7)")
    (tmp_path / "slow.toml").write_text(CONTRACT)
    arguments = [
        f"--contract={tmp_path / 'slow.toml'}", f"--target=live:{references.uri('slow')}", f"--out={tmp_path / 'out'}",
        "-k", "values-in-bounds", "-p", "no:cacheprovider",
    ]  # fmt: skip
    first, second = on_terminal(arguments), on_terminal(arguments)
    assert "values-in-bounds public.slow.price: 5 s" in first
    assert "left" not in first
    assert re.search(r"\] 5 s, about \d+ s left, by last time", second)
    with psycopg.connect(references.dsn("slow"), autocommit=True) as connection:
        connection.execute("update pg_catalog.pg_class set relpages = 300000 where oid = 'public.slow'::regclass")
    anew = on_terminal([*arguments, f"--history={tmp_path / 'anew'}"])
    assert re.search(r"\] 5 s, about 5 s left, by the table's size", anew)
