"""Reports that are written again later: nothing of the page is lost, and what other commands found stands in it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from pgconform.reports import again, html, write
from pgconform.reports.beside import ACCESS, read
from pgconform.reports.findings import read as read_run
from pgconform.reports.past import packed, unpacked

from pgconform.cli import main
from pgconform.model import Finding, Result, Verdict
from pgconform.results import Run
from pgconform.targets.server import Server
from tests.pages import beside
from tests.runs import small


def noted() -> Run:
    """With a past, a selection, and a note whose reasons only the contract has."""
    run = small()
    run.selection, run.unasked = "-m gate", 300
    missed = tuple(Finding(name, "does not exist", "") for name in run.contracts[0].tables)
    run.results.append(Result("tables-exist", "muva", Verdict.FAILED, "Declared tables exist", findings=missed))
    assert run.notes()
    return run


def page(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def test_the_page_is_the_same_when_written_again(tmp_path: Path) -> None:
    run = noted()
    write(run, tmp_path)
    first = page(tmp_path)
    assert "<b>new</b>" in first
    assert "data-h=" in first
    assert html.render(read_run(tmp_path)) == first
    (tmp_path / "report.html").unlink()
    assert main(["report", str(tmp_path)]) == 0
    assert page(tmp_path) == first


def test_only_what_is_asked_for_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(noted(), tmp_path)
    (tmp_path / "report.html").write_text("mine", encoding="utf-8")
    assert main(["report", str(tmp_path), "--report=sarif,junit"]) == 0
    assert capsys.readouterr().out == f"wrote sarif, junit to {tmp_path}\n"
    assert page(tmp_path) == "mine"
    assert (tmp_path / "pgconform.sarif").exists()
    assert main(["report", str(tmp_path), "--report=findings"]) == 4, "that would be its own source"


def test_another_directory_has_what_stood_beside_the_run(tmp_path: Path) -> None:
    beside(tmp_path / "run")
    write(noted(), tmp_path / "run")
    assert main(["report", str(tmp_path / "run"), f"--out={tmp_path / 'new'}"]) == 0
    assert page(tmp_path / "new") == page(tmp_path / "run")
    assert ">Access</h2>" in page(tmp_path / "new")


def test_findings_of_an_earlier_version_are_read(tmp_path: Path) -> None:
    write(noted(), tmp_path)
    file = tmp_path / "findings.json"
    told = json.loads(file.read_text(encoding="utf-8"))
    for key in ("past", "notes", "selection", "unasked"):
        del told[key]
    file.write_text(json.dumps(told), encoding="utf-8")
    run = read_run(tmp_path)
    assert (run.past, run.notes(), run.selected()) == ({}, [], "")


@pytest.mark.parametrize(
    "verdicts", [(), ("passed",) * 28, ("", "failed", "failed", "broken", "waived", "skipped", "")]
)
def test_verdicts_are_packed_and_unpacked(verdicts: tuple[str, ...]) -> None:
    assert unpacked(packed(verdicts)) == verdicts
    assert len(packed(verdicts)) <= len(verdicts)


def test_what_access_and_bench_find_stands_in_the_page_at_once(
    references: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = noted()
    write(run, tmp_path)
    before = page(tmp_path)
    live = ["--contract=muva", f"--target=live:{references.dsn('muva')}", f"--out={tmp_path}"]
    assert main(["access", *live]) == 0
    assert ">Access</h2>" in page(tmp_path)
    assert main(["bench", *live, "--queries=10", "--clients=1", "--no-curves"]) in (0, 1)
    capsys.readouterr()
    run.beside = read(tmp_path)
    assert page(tmp_path) == html.render(run), "and nothing else has changed"
    assert ">Searches</h2>" in page(tmp_path)
    assert ">Searches</h2>" not in before


def test_without_a_run_no_page_is_made(tmp_path: Path) -> None:
    beside(tmp_path)
    again(tmp_path)
    assert not (tmp_path / "report.html").exists()
    (tmp_path / "findings.json").write_text("{}", encoding="utf-8")
    again(tmp_path)
    assert not (tmp_path / "report.html").exists()
    shutil.rmtree(tmp_path)
    again(tmp_path)
    assert not (tmp_path / ACCESS).exists()
