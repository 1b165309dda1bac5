"""The wheel holds suites, contracts, SQL and schema, and runs from a clean environment."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from pgconform.targets.server import Server, find_binaries

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(copied: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", f"--outdir={out}", str(copied(out / "sources"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.whl"))


def test_the_wheel_holds_everything_that_a_run_needs(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    code = [p for folder in ("suites", "reports") for p in (ROOT / folder).rglob("*.py")]
    wanted = [
        *(f"pgconform/{p.relative_to(ROOT)}" for p in code),
        *(f"pgconform/{p.relative_to(ROOT)}" for p in (ROOT / "fixtures").rglob("*") if p.suffix in (".toml", ".sql")),
        *(str(p.relative_to(ROOT)) for p in (ROOT / "pgconform").rglob("*.py")),
        "pgconform/contract.schema.json", "pgconform/run.ini", "pgconform/py.typed",
    ]  # fmt: skip
    assert sorted(set(wanted) - names) == []
    assert [name for name in names if not name.startswith(("pgconform/", "pgconform-"))] == []


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean environment without pgconform, and with the packages of this one, which pip does not fetch."""
    place = tmp_path_factory.mktemp("environment") / "env"
    venv.create(place, with_pip=True)
    site = Path(next(p for p in sys.path if p.endswith("site-packages")))
    packages = next((place / "lib").glob("python*")) / "site-packages"
    for entry in site.iterdir():  # all but the editable project itself
        if "pgconform" not in entry.name and not (packages / entry.name).exists():
            (packages / entry.name).symlink_to(entry)
    return place


PLAIN = """
create role web nologin;
create schema app;
create table app.shops (id uuid primary key default gen_random_uuid(), name text not null);
create table app.orders (
  id uuid primary key default gen_random_uuid(),
  shop_id uuid not null references app.shops on delete restrict,
  price numeric not null check (price >= 0)
);
create index on app.orders (shop_id);
insert into app.shops (name) values ('one'), ('two');
insert into app.orders (shop_id, price) select s.id, n from app.shops as s, generate_series(1, 5) as n;
alter table app.shops enable row level security;
alter table app.orders enable row level security;
create policy own on app.shops to web using (id::text = current_setting('app.shop', true));
create policy own on app.orders to web using (shop_id::text = current_setting('app.shop', true));
grant usage on schema app to web;
grant select on app.shops to web;
grant select, insert, update, delete on app.orders to web;
"""


@pytest.mark.parametrize("kind", ["supabase", "plain"])
def test_a_new_user_comes_to_a_report_by_the_readme_alone(
    references: Server, wheel: Path, environment: Path, tmp_path: Path, kind: str
) -> None:
    """From an empty directory and an address, in five commands and five minutes: README's own, as they stand there."""
    _, _, text = (ROOT / "README.md").read_text(encoding="utf-8").partition("**A real one.**")
    commands = re.findall(r"^\$ (.*)", text.partition("```console")[2].partition("```")[0], re.M)
    assert len(commands) <= 5
    with psycopg.connect(references.dsn(), autocommit=True) as connection:
        connection.execute(
            'create database "new user"' + (' template "pristine victorysync"' if kind[0] == "s" else "")
        )
    script = "\n".join(commands).replace("/path/to/pgconform", f"--no-deps --no-index {wheel}")
    script = script.replace("...@db.example.org/app?sslmode=verify-full", "c4n4ry@").replace(
        "\"'...'\"", "\"'c4n4ry'\""
    )
    if kind == "plain":
        script = script.replace("pgconform reader", "pgconform reader --clients=web")
    try:
        with psycopg.connect(references.dsn("new user"), autocommit=True) as connection:
            connection.execute(PLAIN.encode() if kind == "plain" else b"")
        parts = conninfo_to_dict(references.dsn("new user"))
        given = {"PGHOST": str(parts["host"]), "PGDATABASE": "new user", "ADMIN_DSN": references.dsn("new user")}
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PGC_", "PYTEST_", "PYTHON"))}
        path = f"{environment / 'bin'}:{find_binaries('16')}:{os.environ['PATH']}"
        started = time.monotonic()
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path,
            env=kept | given | {"PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert time.monotonic() - started < 300
    finally:
        with psycopg.connect(references.dsn(), autocommit=True) as connection:
            connection.execute('drop database "new user" with (force)')
            connection.execute("drop owned by pgconform_reader; drop role pgconform_reader; drop role if exists web")
    told = json.loads((tmp_path / "reports" / "out" / "findings.json").read_text(encoding="utf-8"))
    assert done.returncode in (0, 1), done.stdout + done.stderr
    assert told["counts"]["passed"] >= 50, told["counts"]
    assert (tmp_path / "reports" / "out" / "report.html").exists()
    assert "c4n4ry" not in done.stdout + done.stderr


def test_the_wheel_runs_in_a_clean_environment(wheel: Path, environment: Path, tmp_path: Path) -> None:
    python = environment / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    done = subprocess.run(
        [str(environment / "bin" / "pgconform"), "run", "--contract=victorysync"],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "exit 0: conforms" in done.stdout
    assert (tmp_path / "reports" / "out" / "junit.xml").is_file()
    assert list((environment / "lib").glob("python*/site-packages/pgconform/suites/__init__.py"))
