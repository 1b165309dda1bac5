"""The wheel holds suites, contracts, SQL and schema, and runs from a clean environment."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", f"--outdir={out}", str(ROOT)]
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


def test_the_wheel_runs_in_a_clean_environment(wheel: Path, tmp_path: Path) -> None:
    """The dependencies are those of this environment, which pip is not asked to fetch again."""
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    site = Path(next(p for p in sys.path if p.endswith("site-packages")))
    packages = next((tmp_path / "env" / "lib").glob("python*")) / "site-packages"
    for entry in site.iterdir():  # all but the editable project itself
        if "pgconform" not in entry.name and not (packages / entry.name).exists():
            (packages / entry.name).symlink_to(entry)
    done = subprocess.run(
        [str(tmp_path / "env" / "bin" / "pgconform"), "run", "--contract=victorysync"],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "exit 0: conforms" in done.stdout
    assert (tmp_path / "reports" / "out" / "junit.xml").is_file()
    assert (packages / "pgconform" / "suites").is_dir()
