"""explain, plan, new, completion: the commands that somebody meets first."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from pgconform.catalogue_of_checks import load
from pgconform.cli import main, parser
from pgconform.commands import ALL, run
from pgconform.shown import REMEDIES, fault
from pgconform.targets.server import Server, find_binaries
from tests.remedies import remedies
from tests.test_cli import command

ROOT = Path(__file__).parent.parent


def test_every_check_is_explained_with_a_fault_and_exceptions(capsys: pytest.CaptureFixture[str]) -> None:
    for check in load().values():
        assert main(["explain", check.id]) == 0
        told = capsys.readouterr().out
        assert told.startswith(f"{check.id}: {check.title}.")
        for part in ("\nneeds:    ", "\nA fault that it finds (", "\n  [skips]\n", "\n  [[waivers]]\n"):
            assert part in told, (check.id, part)
        assert all(f"\n  {row}, " in told for row in check.guide)


def test_the_remedies_that_are_explained_are_those_that_are_printed(references: Server) -> None:
    """As many digits and keys as there are by the day are left aside; where it fails: make remedies."""
    kept = json.loads((ROOT / "fixtures" / REMEDIES).read_text(encoding="utf-8"))
    now = remedies(references)
    assert set(now) == set(kept) == {check for check in load() if (shown := fault(check)) and not shown.committed}
    for check, told in now.items():
        assert {k: _settled(v) for k, v in told.items()} == {k: _settled(v) for k, v in kept[check].items()}, check


def _settled(text: str) -> str:
    return re.sub(r"\d+|\b[0-9a-f]{8,}\b", "#", re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "#", text))


def test_the_exceptions_of_an_explanation_are_a_contracts(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["explain", "row-security-enabled"]) == 0
    told = capsys.readouterr().out
    lines = [line.removeprefix("  ") for line in told.partition("[skips]")[2].splitlines() if line.startswith("  ")]
    contract = tmp_path / "contract.toml"
    contract.write_text("\n".join(['name = "shop"', "[skips]", *lines]), encoding="utf-8")
    assert main(["plan", f"--contract={contract}", "--target=live"]) == 0


def test_a_plan_opens_no_connection(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Neither a socket nor a process nor a driver's connection: each of them would be an error here."""
    import socket

    import psycopg

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a plan talks to nobody")

    for place, name in ((psycopg, "connect"), (socket, "socket"), (subprocess, "Popen")):
        monkeypatch.setattr(place, name, refuse)
    monkeypatch.chdir(tmp_path)
    for target in ("live:postgresql://someone:c4n4ry@db.example.org/app", "embedded"):
        assert main(["plan", "--contract=muva", f"--target={target}"]) == 0
        told = capsys.readouterr().out
        assert "c4n4ry" not in told
        assert "db.example.org" not in told
        assert "  sequence-grants" in told
        assert "may find nothing: keys are UUIDs" in told
        assert "pg_read_all_data and BYPASSRLS" in told
    assert list(tmp_path.iterdir()) == []


def test_a_plan_says_what_a_target_leaves_out(capsys: pytest.CaptureFixture[str]) -> None:
    told = {}
    for target, *more in (("live",), ("live", "--drill=restore"), ("embedded",)):
        assert main(["plan", "--contract=victorysync", f"--target={target}", *more]) == 0
        told[target, *more] = capsys.readouterr().out
    assert "a live target is never written" in told["live",]
    assert "unless asked for by --drill=restore" in told["live",]
    assert "unless asked for by --drill=restore" not in told["live", "--drill=restore"]
    assert "\nnot run, since they write" not in told["embedded",]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plan", "--contract=nothing"], "no bundled contract"),
        (["plan", "--contract=muva", "--target=cloud"], "unknown target 'cloud'"),
        (["plan", "--contract=muva", "--drill=rest"], "restore:tenant=KEY or none"),
        (["new", "comments-written", "--suite=poetry"], "use one of embeddings, integrity"),
        (["new", "Comments", "--suite=schema"], "small letters, digits and hyphens"),
        (["new", "roles-exist", "--suite=schema"], "exists already"),
        (["new", "comments-written", "--suite=schema", "--row=vs-900"], "no row 'vs-900'"),
    ],
)
def test_mistakes_are_one_clear_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert main(arguments) == 4
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert said in told.err


@pytest.fixture
def checkout(copied: Callable[[Path], Path], tmp_path: Path) -> Path:
    """A copy of the tree."""
    return copied(tmp_path / "copy")


def test_a_place_that_cannot_be_written_is_told_in_the_same_words_by_every_command(
    references: Server, tmp_path: Path
) -> None:
    target, below = f"--target=live:{references.dsn('muva')}", tmp_path / "file" / "below"
    done = command("run", target, "--contract=muva", "-k", "tables-exist", f"--out={tmp_path}", "--history=none")
    assert done.returncode == 0, done.stdout
    (tmp_path / "file").write_text("")
    (tmp_path / "fleet.toml").write_text('[[targets]]\nname = "one"\ncontract = "muva"\ndsn = "PROD_DSN"\n')
    for asked in (
        ["init", target],
        ["baseline", str(tmp_path)],
        ["run", target, "--contract=muva", "-k", "tables-exist"],
        ["fleet", str(tmp_path / "fleet.toml")],
        ["report", str(tmp_path)],
    ):
        done = command(*asked, f"--out={below}")
        assert (done.returncode, done.stdout) == (4, ""), asked
        told = rf"\w+: cannot write (\S+ to )?{below}: Not a directory; choose another with --out="  # pytest says ERROR
        assert re.fullmatch(told, done.stderr.strip()), done.stderr


def test_a_mistake_of_the_system_is_told_without_its_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "is_dir", lambda _: (tmp_path / "gone").stat())
    assert main(["history", f"--history={tmp_path}"]) == 4
    assert capsys.readouterr().err == f"pgconform: {tmp_path / 'gone'}: No such file or directory\n"


def test_a_new_check_is_clean_and_its_proof_fails_until_it_is_written(checkout: Path) -> None:
    def ran(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", *arguments], capture_output=True, text=True, cwd=checkout, check=False
        )

    made = ran("pgconform", "new", "comments-written", "--suite=schema", "--row=vs-34")
    assert made.returncode == 0, made.stderr
    files = [line.removeprefix("wrote ") for line in made.stdout.splitlines() if line.startswith("wrote ")]
    assert len(files) == 3
    assert all((checkout / file).is_file() for file in files)
    again = ran("pgconform", "new", "comments-written", "--suite=schema")
    assert (again.returncode, again.stdout) == (4, "")
    check = files[0]
    for lint in (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy", check]):
        done = ran(*lint)
        assert done.returncode == 0, (lint, done.stdout + done.stderr)
    for name in ("suites", "fixtures", "reports", "benchmarks"):  # which an installation maps: here they are the copy's
        (checkout / "pgconform" / name).symlink_to(checkout / name)
    for docs in (["docs.generate"], ["docs.generate", "--check"]):
        done = ran(*docs)
        assert done.returncode == 0, (docs, done.stdout + done.stderr)
    proof = ran("pytest", "-q", "-p", "no:cacheprovider", "tests/test_proofs.py", "-k", "comments-written")
    assert proof.returncode == 1, proof.stdout + proof.stderr
    assert "FAILED tests/test_proofs.py::" in proof.stdout
    assert "comments-written" in proof.stdout


COMPLETE = r"""
set -eu
source "$1"
complete -p pgconform >/dev/null
shift
COMP_WORDS=(pgconform "$@"); COMP_CWORD=$#; COMP_LINE="pgconform $*"; COMP_POINT=${#COMP_LINE}; COMPREPLY=()
"$(complete -p pgconform | sed -E 's/.*-F ([^ ]+).*/\1/')" pgconform "${@: -1}" pgconform
printf '%s\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["ex"], "explain"),
        (["i"], "init"),
        (["run", "--targ"], "--target"),
        (["completion", "fi"], "fish"),
        (["init", "--d"], "--dsn"),
    ],
)
def test_bash_completes_the_command_line(tmp_path: Path, typed: list[str], offered: str) -> None:
    script = tmp_path / "pgconform.bash"
    script.write_text(command("completion", "bash").stdout, encoding="utf-8")
    done = subprocess.run(
        ["bash", "-c", COMPLETE, "bash", str(script), *typed], capture_output=True, text=True, check=False
    )
    assert offered in done.stdout.split(), done.stdout + done.stderr


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_a_script_with_every_command(shell: str) -> None:
    done = command("completion", shell)
    assert done.returncode == 0
    assert all(word in done.stdout for word in ("init", "explain", "plan", "--target" if shell == "zsh" else "target"))
    if found := shutil.which(shell):
        checked = subprocess.run([found, "-n", "/dev/stdin"], input=done.stdout, text=True, check=False)
        assert checked.returncode == 0


def test_help_teaches_by_examples() -> None:
    top = command("--help").stdout
    assert "begin here:" in top
    own = parser()
    for module in ALL:
        name = module.__name__.rpartition(".")[2]
        _, _, examples = command(name, "--help").stdout.partition("\nexample")
        shown = re.findall(r"^  .*?\bpgconform (.*?)(?: {2,}| [|>] |$)", examples.partition("\n\n")[0], re.M)
        called = []
        for each in shown:
            known, rest = own.parse_known_args(shlex.split(each))
            assert not rest or known.command is run.call, each
            called.append(known.command)
        assert module.call in called, name
    assert os.linesep in top


@pytest.mark.parametrize("arguments", [
    ("explain", "all"), ("reader",), ("plan", "--contract=muva"), ("completion", "bash"), ("--help",),
])  # fmt: skip
def test_what_nobody_reads_on_ends_without_a_word(arguments: tuple[str, ...]) -> None:
    env = {name: told for name, told in os.environ.items() if name != "PYTHONUNBUFFERED"}
    reading, writing = os.pipe()
    os.close(reading)
    try:
        asked = [sys.executable, "-m", "pgconform", *arguments]
        done = subprocess.run(asked, stdout=writing, stderr=subprocess.PIPE, text=True, env=env, check=False)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_the_readers_sql_may_be_run_again_with_another_password_and_further_clients(
    references: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    psql = [str(find_binaries("16") / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", references.dsn("postgres")]

    def made(clients: str, *password: str) -> subprocess.CompletedProcess[str]:
        assert main(["reader", f"--clients={clients}"]) == 0
        sql = capsys.readouterr().out
        return subprocess.run([*psql, *password], input=sql, capture_output=True, text=True, check=False)

    asked = (
        "select rolcanlogin, rolbypassrls, rolconnlimit, rolpassword, array(select roleid::regrole::text from"
        " pg_catalog.pg_auth_members where member = r.oid order by 1) from pg_catalog.pg_authid as r"
        " where rolname = 'pgconform_reader'"
    )
    with psycopg.connect(references.dsn(), autocommit=True) as connection:
        connection.execute('create role "We\'b"')
        try:
            unset = made("anon")
            assert unset.returncode == 3, "a password is wanted"
            assert (connection.execute(asked).fetchone() or ())[0] is False, "who cannot log in yet"
            secrets = set()
            for clients in ("anon", "anon,We'b", "anon,We'b"):
                done = made(clients, "-v", f"password='for {len(secrets)}'")
                assert done.returncode == 0, done.stderr
                login, bypasses, limit, secret, roles = connection.execute(asked).fetchone() or ()
                secrets.add(secret)
                assert (login, bypasses, limit) == (True, True, 20)
                assert ('"We\'b"' in roles, "anon" in roles, len(roles)) == (
                    clients != "anon",
                    True,
                    3 + ("," in clients),
                )
            connection.execute("alter role pgconform_reader nobypassrls")
            assert made("anon", "-v", "password='x'").returncode == 0
            assert (connection.execute(asked).fetchone() or ())[:2] == (True, True)
            assert len(secrets) == 3
        finally:
            connection.execute('drop owned by pgconform_reader; drop role pgconform_reader; drop role "We\'b"')
