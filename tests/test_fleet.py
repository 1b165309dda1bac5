"""A fleet of twenty databases, two at a time, of which one run is killed: each target is reported just once."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pgconform.reports.fleet import as_html, line
from psycopg import sql

from pgconform.fleet import ANSWER, Answer, Target, answers, keep, read, sharded, status, work
from pgconform.model import Mistake
from pgconform.targets.server import Server, running
from tests.test_readme import README, SHOP

NAMES = [f"shop-{number:02}" for number in range(20)]
BROKEN, AWAY = "shop-07", "shop-13"  # one with a finding, one whose database does not exist
SECRET = "c4n4ry-password"


@pytest.fixture(scope="module")
def place() -> Iterator[Server]:
    """A server of our own for so many databases."""
    with running() as started:
        yield started


@pytest.fixture(scope="module")
def fleet(place: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fleet's file beside its contract; the addresses are in the environment."""
    home = tmp_path_factory.mktemp("fleet")
    with psycopg.connect(place.dsn(), autocommit=True) as connection:
        connection.execute("create database fleet_template")
        with psycopg.connect(place.dsn("fleet_template"), autocommit=True) as filled:
            layer = files("pgconform.fixtures") / "databases" / "supabase" / "1_auth.sql"
            filled.execute(layer.read_text(encoding="utf-8").encode())
            filled.execute(SHOP.encode())
        for name in NAMES:
            if name != AWAY:
                copy = sql.SQL("create database {} template fleet_template").format(sql.Identifier(name))
                connection.execute(copy)
        with psycopg.connect(place.dsn(BROKEN), autocommit=True) as broken:
            broken.execute("alter policy own on public.orders using (true)")
    (block,) = re.findall(r"```toml\n(name = .*?)```", README.read_text(encoding="utf-8"), re.S)
    (home / "contract.toml").write_text(block, encoding="utf-8")
    targets = "".join(f'[[targets]]\nname = "{name}"\ndsn = "{variable(name)}"\n' for name in NAMES)
    defaults = '[defaults]\ncontract = "contract.toml"\nselect = "gate"\ntimeout = 600\n'
    (home / "fleet.toml").write_text(defaults + targets, encoding="utf-8")
    return home


def variable(name: str) -> str:
    return f"DSN_{name.replace('-', '_').upper()}"


def environment(place: Server) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PGC_", "PYTEST_"))}
    return clean | {variable(name): f"{place.dsn(name)} password={SECRET}" for name in NAMES}


def pgconform(fleet: Path, place: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pgconform", "fleet", *arguments]
    return subprocess.run(
        command, cwd=fleet, env=environment(place), capture_output=True, text=True, timeout=600, check=False
    )


def runs(parent: int | None = None) -> list[tuple[int, str]]:
    """Process numbers and command lines of runs that a fleet has started."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if b"run" in words and b"pgconform" in words and any(b"pgconform-fleet-" in word for word in words):
                above = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if parent in (None, above):
                    found.append((int(entry.name), b" ".join(words).decode()))
        except (OSError, ValueError):
            continue
    return found


class Killer(threading.Thread):
    """Kills one process as soon as three targets have answered, and notes all command lines until it is stopped."""

    def __init__(self, out: Path, victims: Any) -> None:
        super().__init__(daemon=True)
        self.out, self.victims = out, victims
        self.killed: list[int] = []
        self.seen: set[str] = set()
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.is_set():
            self.seen |= {command for _, command in runs()}
            if not self.killed and len(list(self.out.glob(f"targets/*/{ANSWER}"))) >= 3:
                for victim in self.victims()[:1]:
                    os.kill(victim, signal.SIGKILL)
                    self.killed.append(victim)
            time.sleep(0.02)


def judged(out: Path, done: subprocess.CompletedProcess[str], killer: Killer) -> list[Answer]:
    killer.over.set()
    killer.join()
    assert done.returncode == 1, done.stdout + done.stderr
    assert killer.killed, "nothing was killed: the test has not tried what it is there for"
    found = answers([out])
    assert [answer.name for answer in found] == NAMES
    told = {answer.name: answer for answer in found}
    assert {name for name in NAMES if told[name].status} == {BROKEN, AWAY}
    assert (told[BROKEN].status, told[AWAY].status) == (1, 4)
    assert "foreign-rows-hidden" in told[BROKEN].failed
    assert sorted(path.parent.name for path in out.glob(f"targets/*/{ANSWER}")) == NAMES
    assert not list(out.glob(".*")), "no draft is left"
    printed = [text.partition(":")[0] for text in done.stdout.splitlines() if re.match(r"shop-\d\d: ", text)]
    assert sorted(printed) == NAMES, "each once"
    assert "18 of 20 targets conform" in done.stdout
    everything = "".join(path.read_text(encoding="utf-8") for path in out.rglob("*") if path.is_file())
    assert SECRET not in everything + "".join(killer.seen) + done.stdout + done.stderr
    return found


def test_a_pool_of_processes_of_which_one_is_killed(fleet: Path, place: Server, tmp_path: Path) -> None:
    killer = Killer(tmp_path, lambda: [pid for pid, command in runs() if "contract" in command])
    killer.start()
    done = pgconform(fleet, place, "fleet.toml", "--jobs=2", f"--out={tmp_path}")
    found = judged(tmp_path, done, killer)
    assert sorted(answer.attempts for answer in found)[-2:] == [1, 2], "the killed one was tried again"
    page = (tmp_path / "fleet.html").read_text(encoding="utf-8")
    for name in NAMES:
        (link,) = re.findall(rf'<a href="([^"]+)">{name}</a>', page)
        assert (tmp_path / link).exists()
    assert re.search(r"foreign-rows-hidden<td class=\"n\">\d", page)


def test_a_dask_cluster_of_which_one_worker_is_killed(fleet: Path, place: Server, tmp_path: Path) -> None:
    where, out = tmp_path / "scheduler.json", tmp_path / "out"
    dask = Path(sys.executable).with_name("dask")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": tmp_path}
    env = environment(place)
    started = [subprocess.Popen([dask, "scheduler", "--host=127.0.0.1", "--port=0", "--no-dashboard",
                                 f"--scheduler-file={where}"], **quiet)]  # type: ignore[call-overload]  # fmt: skip
    try:
        until(where.exists)
        address = json.loads(where.read_text(encoding="utf-8"))["address"]
        for _ in range(2):
            worker = [dask, "worker", address, "--host=127.0.0.1", "--nthreads=1", "--no-nanny", "--no-dashboard"]
            started.append(subprocess.Popen(worker, env=env, **quiet))  # type: ignore[call-overload]
        killer = Killer(out, lambda: [started[1].pid] if runs(started[1].pid) else [])
        killer.start()
        done = pgconform(fleet, place, "fleet.toml", f"--scheduler={address}", f"--out={out}")
        judged(out, done, killer)
        assert started[1].wait(timeout=10) == -signal.SIGKILL
    finally:
        for process in reversed(started):
            process.kill()
            process.wait()


def until(there: Any) -> None:
    for _ in range(600):
        if there():
            return
        time.sleep(0.05)
    raise AssertionError("it never came")


def test_shards_are_merged_and_who_never_answered_is_told(fleet: Path, place: Server, tmp_path: Path) -> None:
    one, two, whole = tmp_path / "1", tmp_path / "2", tmp_path / "whole"
    text = (fleet / "fleet.toml").read_text(encoding="utf-8").split("[[targets]]")
    (fleet / "four.toml").write_text("[[targets]]".join(text[:5]), encoding="utf-8")
    done = pgconform(fleet, place, "four.toml", "--shard=1/2", f"--out={one}")
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1].startswith("2 of 2 targets conform")
    half = pgconform(fleet, place, "merge", str(one), f"--out={whole}")
    assert half.returncode == 75
    told = json.loads((whole / "fleet-report.json").read_text(encoding="utf-8"))["targets"]
    assert [target["reason"] for target in told if target["status"]] == ["it never answered"] * 2
    assert "it never answered" in (whole / "fleet.html").read_text(encoding="utf-8")
    gone = pgconform(fleet, place, "merge", str(one), str(two), f"--out={whole}")
    assert (gone.returncode, gone.stdout.splitlines()[0][: len(str(two)) + 11]) == (75, f"{two}: not there")
    assert json.loads((whole / "fleet-report.json").read_text(encoding="utf-8"))["targets"] == told
    none = pgconform(fleet, place, "merge", str(two), f"--out={whole}")
    assert none.returncode == 4
    assert "no directory of a fleet" in none.stderr + none.stdout
    empty = pgconform(fleet, place, "four.toml", "--shard=9/9", f"--out={tmp_path / '9'}")
    assert (empty.returncode, empty.stdout) == (0, "part 9/9 of 4 targets is empty\n")
    pgconform(fleet, place, "four.toml", "--shard=2/2", f"--out={two}")
    both = pgconform(fleet, place, "merge", str(one), str(two), f"--out={whole}")
    assert (both.returncode, both.stdout) == (0, f"4 of 4 targets conform; {whole}/fleet.html\n")
    shutil.rmtree(two / "targets" / NAMES[3])
    kept = tmp_path / "kept"
    resumed = pgconform(fleet, place, "four.toml", "--shard=2/2", "--resume", f"--out={two}", f"--history={kept}")
    assert [path.name for path in kept.iterdir()] == [NAMES[3]]
    assert len(list((kept / NAMES[3]).glob("*.jsonl"))) == 1
    assert resumed.stdout.startswith(NAMES[3])
    assert resumed.stdout.count("shop-") == 1


def test_a_fleet_that_is_ended_ends_its_runs_and_keeps_what_it_has(fleet: Path, place: Server, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pgconform", "fleet", "fleet.toml", f"--out={tmp_path}"]
    process = subprocess.Popen(
        command, cwd=fleet, env=environment(place), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    until(lambda: list(tmp_path.glob(f"targets/*/{ANSWER}")))
    process.terminate()
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 2, output
    assert "Traceback" not in output
    assert not runs(process.pid)
    found = answers([tmp_path])
    assert [answer.name for answer in found] == NAMES
    assert any(answer.status == 0 for answer in found)
    assert any(answer.reason == "it never answered" for answer in found)


MISTAKES = {
    "": "cannot be read",
    "targets = []": "fleet.toml: ",
    "[[targets]]\nname = 'a'": "missing required field `contract`",
    f"[[targets]]\nname = 'a'\ncontract = 'muva'\ndsn = 'postgresql://u:{SECRET}@h/x'": (
        "target a: dsn names the environment variable that holds the address, such as PROD_DSN; no address stands in"
    ),
    "[[targets]]\nname = 'a'\ncontract = 'muva'": "target a: a live one, and only that, has either dsn or service",
    "[[targets]]\nname = 'a'\ncontract = 'muva'\ntarget = 'embedded'\ndsn = 'X'": "target a: a live one",
    "[[targets]]\nname = '../a'\ncontract = 'muva'": "matching regex",
    "[[targets]]\nname = 'a'\ncontract = 'muva'\npassword = 'c4n4ry'": "unknown field `password`",
    "[[targets]]\nname = 'a'\ncontract = 'x'\ndsn = 'X'\n" * 2: "two targets are called 'a'",
    "[[targets]": "fleet.toml: ",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_in_the_file_is_one_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "fleet.toml"
    if text:
        file.write_text(text, encoding="utf-8")
    with pytest.raises(Mistake) as caught:
        read(file)
    assert MISTAKES[text] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "c4n4ry" not in str(caught.value)


def test_a_run_that_breaks_down_is_no_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho Traceback >&2; echo 'OSError: oops' >&2; exit 1\n", encoding="utf-8")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    answer = work(Target("a", "muva", "embedded"))
    assert (answer.status, answer.reason) == (3, "it ended without a report (OSError)")
    broken.write_text("#!/bin/sh\nkill -9 $$\n", encoding="utf-8")
    answer = work(Target("a", "muva", "embedded"))
    assert (answer.status, answer.attempts, answer.reason) == (75, 3, "its run was killed 3 times, last by signal 9")
    broken.write_text("#!/bin/sh\nexec sleep 60\n", encoding="utf-8")
    answer = work(Target("a", "muva", "embedded", timeout=1))
    assert (answer.status, answer.reason) == (75, "no answer within 1 s")


def test_parts_are_disjoint_and_complete(tmp_path: Path) -> None:
    text = "".join(f"[[targets]]\nname = 't{n}'\ncontract = 'muva'\ntarget = 'embedded'\n" for n in range(10))
    (tmp_path / "fleet.toml").write_text(text, encoding="utf-8")
    fleet = read(tmp_path / "fleet.toml")
    parts = [sharded(fleet, f"{part}/3") for part in (1, 2, 3)]
    assert sorted(target.name for part in parts for target in part) == [target.name for target in fleet]
    for wrong in ("0/3", "4/3", "x", "1/0", "1", "-1/2"):
        with pytest.raises(Mistake, match="wanted I/N"):
            sharded(fleet, wrong)


def test_the_first_answer_stays(tmp_path: Path) -> None:
    (tmp_path / "targets").mkdir()
    first = Answer("a", 0, "conforms", files={"report.html": b"x"})
    outcomes: list[bool] = []
    writers = [
        threading.Thread(target=lambda n=n: outcomes.append(keep(tmp_path, Answer("b", n, "")))) for n in range(8)
    ]
    assert keep(tmp_path, first)
    assert not keep(tmp_path, Answer("a", 1, "later"))
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(outcomes) == [False] * 7 + [True]
    assert json.loads((tmp_path / "targets" / "a" / ANSWER).read_text(encoding="utf-8"))["reason"] == "conforms"
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("statuses", "worst"), [((), 75), ((0, 0), 0), ((0, 75), 75), ((75, 3), 3), ((3, 4, 1), 1), ((2, 5), 5)]
)
def test_the_worst_target_decides(statuses: tuple[int, ...], worst: int) -> None:
    assert status([Answer(str(n), each, "") for n, each in enumerate(statuses)]) == worst


def test_what_a_target_says_is_text(tmp_path: Path) -> None:
    evil = Answer("a", 1, "<script>alert(1)</script>\x1b[31m", failed={"<b>": 1})
    page = as_html([evil], tmp_path, [tmp_path])
    assert "<script>" not in page
    assert "<b>" not in page
    assert "\x1b" not in page + line(evil)
