"""The project keeps its own promises: completeness of proofs and docs, layers, sizes, licences."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import time
from collections import Counter
from importlib.metadata import distribution
from pathlib import Path

import pytest

from docs.generate import pages
from pgconform.catalogue_of_checks import load
from pgconform.guides import guides
from tests.proving import faults

ROOT = Path(__file__).parent.parent
SOURCES = sorted(
    path
    for folder in ("pgconform", "suites", "reports", "fixtures", "benchmarks", "tests", "docs")
    for path in (ROOT / folder).rglob("*.py")
)
LONGEST_FILE, LONGEST_CHECK = 400, 15


def test_every_check_has_faults_and_a_decoy() -> None:
    proofs = faults()
    folders = {fault.check for fault in proofs}
    assert folders == set(load()), "folders of fixtures/faults and checks differ"
    bare = {check for check in load() if not any(f.check == check and f.finds for f in proofs)}
    undecoyed = {check for check in load() if not any(f.check == check and not f.finds for f in proofs)}
    assert (bare, undecoyed) == (set(), set())


def test_security_and_isolation_checks_have_three_faults() -> None:
    found = Counter(check for fault in faults() for check in {key.partition(": ")[0] for key in fault.finds})
    guarded = [c.id for c in load().values() if c.module.split(".")[-2] in ("security", "isolation")]
    assert {check: found[check] for check in guarded if found[check] < 3} == {}


def test_there_are_enough_faults() -> None:
    assert sum(bool(fault.finds) for fault in faults()) >= 150


def test_faults_find_their_own_check() -> None:
    assert [f.name for f in faults() if f.finds and not any(k.startswith(f"{f.check}: ") for k in f.finds)] == []


def test_every_checks_title_is_a_whole_sentence() -> None:
    """Reports show the docstring's first line: a sentence that goes on in the next would be cut."""
    titles = {check.id: (inspect.getdoc(check.judge) or "").partition("\n")[0] for check in load().values()}
    assert {id: title for id, title in titles.items() if not title.endswith(".")} == {}


def test_checks_cite_rows_that_exist_and_every_row_is_cited() -> None:
    known = {row.id for rows in guides().values() for row in rows}
    assert {row for check in load().values() for row in check.guide} == known


def test_what_a_guide_schedules_runs_then() -> None:
    schedules: dict[str, set[str]] = {}
    for check in load().values():
        for row in check.guide:
            schedules.setdefault(row, set()).update(check.when)
    rows = [row for rows in guides().values() for row in rows]
    assert {row.id: row.when for row in rows if row.when not in schedules.get(row.id, ())} == {}


@pytest.mark.parametrize("page", pages(), ids=lambda path: path.name)
def test_generated_pages_are_current(page: Path) -> None:
    assert page.read_text(encoding="utf-8") == pages()[page], "stale: run make docs"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_is_too_long(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE


def test_no_check_body_is_too_long() -> None:
    long = {}
    for path in (ROOT / "suites").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                body = node.body[1:]
                length = body[-1].end_lineno - body[0].lineno + 1  # type: ignore[operator]
                if length > LONGEST_CHECK:
                    long[node.name] = length
    assert long == {}


# Imports point downwards: a module may import from its own layer and those above it in this list.
LAYERS = (
    (
        "model",
        "names",
        "discreet",
        "parameters",
        "vector_kinds",
        "query_vectors",
        "history",
        "trends",
        "progress",
        "baseline",
        "locks",
    ),
    ("contract_section", "contract_operations", "contract_vectors"),
    ("contract", "catalog", "guides"),
    ("contract_words", "acl", "statements", "catalog_queries", "expression_tree", "bodies", "settings_read"),
    (
        "contract_agreement",
        "catalog_builder",
        "privileges",
        "expression_parser",
        "expression_truth",
        "expression_ties",
        "database",
        "reproduce",
    ),
    ("sequences",),
    ("contract_file", "introspect", "expressions", "subjects", "subjects_operations", "subjects_queries", "checks"),
    ("people", "posing", "identities", "callees", "policy_cases", "memberships", "policy_conditions"),
    ("drift",),
    ("remedies", "results", "metrics"),
    ("remedies_policies",),
    ("changes", "fleet"),
    ("vector_indexes",),
    ("probes",),
    ("attacks", "vectors"),
    ("targets",),
    ("recovery",),
    ("procedures",),
    ("session",),
    ("judging", "catalogue_of_checks", "needs", "shown"),
    ("drafting",),
    ("asked",),
    ("plugin", "commands"),
    ("cli",),
    ("__main__",),
)
LEVEL = {name: number for number, names in enumerate(LAYERS) for name in names}


def _imports(path: Path) -> set[str]:
    """Names of the engine's modules that a file imports when it is loaded (imports for types alone left out)."""
    found = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing = {n for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
              for n in ast.walk(node)}  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node not in typing and (node.module or "").startswith("pgconform"):
            parts = (node.module or "").split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "pgconform").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_downwards(path: Path) -> None:
    name = path.relative_to(ROOT / "pgconform").parts[0].removesuffix(".py")
    if name == "__init__":
        return
    assert name in LEVEL, f"say in LAYERS where {name} belongs"
    above = {other for other in _imports(path) if other in LEVEL and LEVEL[other] > LEVEL[name]}
    assert above == set()
    assert "plugin" not in _imports(path)


def test_suites_import_no_driver_and_no_plugin() -> None:
    for path in (ROOT / "suites").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"^\s*(import|from) (psycopg|pytest)|pgconform\.plugin", text, re.M), path


@pytest.mark.parametrize("folder", ["pgconform", "suites"])
def test_no_name_of_a_reference_database_is_in_the_engine(folder: str) -> None:
    names = (
        "hotels|accommodation|tenant_registry|sire_content|org_users|phone_numbers|victorysync|organizations|simmerdown"
    )
    for path in (ROOT / folder).rglob("*.py"):
        assert not re.search(names, path.read_text(encoding="utf-8"), re.I), path


def _requirements() -> set[str]:
    """The distributions that an installation without extras brings, found by following their own requirements."""
    found: set[str] = set()
    pending = ["pgconform"]
    while pending:
        for text in distribution(pending.pop()).requires or ():
            name = re.split(r"[\s;\[<>=!~(]", text, maxsplit=1)[0].lower().replace("_", "-")
            wanted = "extra ==" not in text or (name == "psycopg-binary" and "binary" in text)
            if wanted and "sys_platform ==" not in text and "python_version <" not in text and name not in found:
                try:
                    distribution(name)
                except ModuleNotFoundError:
                    continue
                found.add(name)
                pending.append(name)
    return found


def test_no_dependency_of_the_core_is_under_the_gpl() -> None:
    """psycopg's LGPL is fine: it is used as a library."""
    names = _requirements()
    assert {"psycopg", "msgspec", "postgast", "junit-xml", "pytest"} <= names
    for name in names:
        meta = distribution(name).metadata
        told = " ".join(
            [meta.get("License-Expression") or "", meta.get("License") or "", *meta.get_all("Classifier", [])]
        )
        licences = told.replace("LGPL", "").replace("Lesser General Public License", "")
        assert not re.search(r"\bGPL|GNU General Public|AGPL|Affero", licences), (name, told[:200])


@pytest.mark.parametrize("arguments", [["--version"], ["--help"]])
def test_the_command_line_starts_quickly_and_lightly(arguments: list[str]) -> None:
    code = "import sys; from pgconform.cli import main\ntry: main(sys.argv[1:])\nexcept SystemExit: pass\n" \
           "print(sorted({'psycopg', 'pytest', 'postgast', 'hypothesis', 'msgspec'} & set(sys.modules)))"  # fmt: skip
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert time.monotonic() - started < 3  # 1 s on a quiet machine; the shared one may be slow


def test_loading_the_plugin_loads_no_driver() -> None:
    code = "import sys, pgconform.plugin; print(sorted({'psycopg', 'postgast', 'hypothesis'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert len((ROOT / "pgconform" / "plugin.py").read_text(encoding="utf-8").splitlines()) <= 200
