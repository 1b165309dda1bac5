"""Many databases, each checked by a fresh ``pgconform run``: what is to be checked, one attempt, and its answer kept.

Below the fleet's directory:

    fleet.json           the targets that are to answer, by name
    targets/NAME/        the reports of one target's run, and answer.json; appears whole, and only once

An answer is first written beside its place and then renamed to it, which fails where another one is already there: so
each target is reported once, though its work was done twice because a worker was killed.
"""

from __future__ import annotations

import datetime
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from pgconform.discreet import is_variable
from pgconform.model import Mistake

FORMAT = 1  # raised when a key changes its meaning or goes away
EXPECTED, ANSWER = "fleet.json", "answer.json"
ATTEMPTS = 3  # of a run that was killed
GRACE = 30.0  # seconds in which a run that took too long may write its reports
CONFORMS, FINDINGS, INTERRUPTED, NOT_VERIFIED, USAGE, NOTHING, LOST = 0, 1, 2, 3, 4, 5, 75
# The status of the fleet is the first of these that a target has: findings are known for sure, and 75 stands for
# trying again, which helps only where nothing else is wrong.
WORST = (FINDINGS, USAGE, NOT_VERIFIED, NOTHING, INTERRUPTED, LOST, CONFORMS)

_RUNNING: set[subprocess.Popen[str]] = set()
_Word = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One database. ``dsn`` names the environment variable that holds its address, ``service`` an entry of libpq's
    service file: no address ever stands in the fleet's file, in an argument, or in an answer."""

    name: _Word
    contract: str
    target: str = "live"
    dsn: str = ""
    service: str = ""
    select: str = ""
    drill: str = ""
    effort: str = ""
    baseline: str = ""
    report: str = ""
    fail_on: str = ""
    timeout: Annotated[int, Meta(gt=0)] = 3600  # seconds
    history: str = ""  # directory of this target's runs; none is kept where it is empty


class Fleet(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file's content; ``defaults`` are laid under each target."""

    targets: Annotated[list[Target], Meta(min_length=1)]


class Answer(msgspec.Struct, frozen=True):
    """What became of one target. ``seconds`` is the time of the last attempt; ``files`` are its reports."""

    name: str
    status: int
    reason: str
    counts: dict[str, int] = {}
    failed: dict[str, int] = {}  # findings by check
    seconds: float = 0.0
    attempts: int = 1
    files: dict[str, bytes] = {}


def read(path: Path) -> list[Target]:
    """The targets of a fleet's file, by name. Raises Mistake with one line."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        defaults = raw.pop("defaults", {})
        raw["targets"] = [{**defaults, **target} for target in raw.get("targets", [])]
        targets = msgspec.convert(raw, Fleet).targets
    except OSError as error:
        raise Mistake(f"{path}: cannot be read: {(error.strerror or 'no such file').lower()}") from None
    except (ValueError, TypeError) as error:  # also tomllib's and msgspec's own
        raise Mistake(f"{path}: {' '.join(str(error).split())}; see docs/fleet.md") from None
    names = [target.name for target in targets]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise Mistake(f"{path}: two targets are called {twice[0]!r}; a name is a directory of reports")
    for target in targets:
        if (target.target == "live") != bool(target.dsn or target.service) or (target.dsn and target.service):
            raise Mistake(f"{path}: target {target.name}: a live one, and only that, has either dsn or service")
        if target.dsn and not is_variable(target.dsn):
            what = "dsn names the environment variable that holds the address, such as PROD_DSN"
            raise Mistake(f"{path}: target {target.name}: {what}; no address stands in this file")
    home = path.parent
    return sorted((_at(target, home) for target in targets), key=lambda target: target.name)


def _at(target: Target, home: Path) -> Target:
    """Files are named relative to the fleet's file."""
    paths = {key: str(home / text) for key in ("contract", "baseline") if "." in (text := getattr(target, key))}
    paths |= {"history": str(home / target.history)} if target.history else {}
    return msgspec.structs.replace(target, **{key: os.path.abspath(path) for key, path in paths.items()})


def recorded(target: Target, folder: str) -> Target:
    """The target with a history of its own below that directory, unless the fleet's file names one or there is none."""
    if target.history or not folder:
        return target
    return msgspec.structs.replace(target, history=os.path.abspath(os.path.join(folder, target.name)))


def sharded(targets: Sequence[Target], shard: str) -> list[Target]:
    """Those of part I of N, written ``I/N`` with I from 1: every N-th by name. Raises Mistake."""
    if not shard:
        return list(targets)
    part, _, parts = shard.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise Mistake(f"--shard={shard}: wanted I/N with I from 1 to N, such as 2/4")
    return list(targets)[int(part) - 1 :: int(parts)]


def work(target: Target, hidden: Sequence[str] = ()) -> Answer:
    """Check one target in a process of its own; a killed one is tried again. ``hidden`` are variables with the
    addresses of other targets, which it does not get."""
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    if target.dsn:
        if not os.environ.get(target.dsn):
            return Answer(target.name, USAGE, f"environment variable {target.dsn} is not set where the run is to be")
        environment["PGC_DSN"] = os.environ[target.dsn]
    if target.service:
        environment.pop("PGC_DSN", None)
        environment["PGSERVICE"] = target.service
    answer = Answer(target.name, LOST, "not tried")
    for attempt in range(1, ATTEMPTS + 1):
        with tempfile.TemporaryDirectory(prefix="pgconform-fleet-") as place:
            answer = msgspec.structs.replace(_attempt(target, environment, Path(place)), attempts=attempt)
        if answer.status >= 0:
            return answer
    killed = f"its run was killed {ATTEMPTS} times, last by signal {-answer.status}"
    return msgspec.structs.replace(answer, status=LOST, reason=killed)


def _attempt(target: Target, environment: dict[str, str], out: Path) -> Answer:
    options = ("contract", "target", "drill", "effort", "baseline", "report", "fail_on")
    given = [f"--{name.replace('_', '-')}={value}" for name in options if (value := getattr(target, name))]
    given += ["-m", target.select] if target.select else []
    command = [
        sys.executable,
        "-P",
        "-m",
        "pgconform",
        "run",
        f"--out={out}",
        f"--history={target.history or 'none'}",
        "-p",
        "no:cacheprovider",
    ]
    started = time.monotonic()
    late = ""
    with subprocess.Popen(
        [*command, *given], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace",
    ) as process:  # fmt: skip
        _RUNNING.add(process)
        try:
            said, _ = process.communicate(timeout=target.timeout)
        except subprocess.TimeoutExpired:
            late = f"no answer within {target.timeout} s"
            process.terminate()
            try:
                said, _ = process.communicate(timeout=GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                said, _ = process.communicate()
        finally:
            _RUNNING.discard(process)
    files = {path.name: path.read_bytes() for path in sorted(out.iterdir()) if path.is_file()}
    told = _told(files.get("findings.json", b"{}"))
    status = LOST if late else process.returncode
    reason = late or str(told.get("reason") or "")
    if status == USAGE or not reason:
        reason = next((line for line in said.splitlines() if line.strip()), "it said nothing")
    if status == FINDINGS and not told:  # Python's own status for what nobody caught
        kind = said.strip().rpartition("\n")[2].partition(":")[0]  # not its text, which may hold anything
        status, reason = NOT_VERIFIED, f"it ended without a report ({kind[:100]})"
    failed: dict[str, int] = {}
    for result in told.get("results", []):
        if result["findings"] and result["verdict"] == "failed":
            failed[result["check"]] = failed.get(result["check"], 0) + len(result["findings"])
    seconds = round(time.monotonic() - started, 1)
    return Answer(target.name, status, reason, told.get("counts", {}), failed, seconds, files=files)


def _told(text: bytes) -> dict[str, Any]:
    with suppress(ValueError):
        return dict(json.loads(text))
    return {}


def begin(out: Path, fleet: Sequence[Target], mine: Iterable[Target], resume: bool) -> list[Target]:
    """Say who is to answer, and forget earlier answers of those asked now; returns who is still to be asked."""
    (out / "targets").mkdir(parents=True, exist_ok=True)
    listed = [{"name": target.name, "contract": Path(target.contract).name} for target in fleet]
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    draft = out / f".{EXPECTED}.{os.getpid()}"
    draft.write_text(json.dumps({"format": FORMAT, "started": now, "targets": listed}, indent=1), encoding="utf-8")
    draft.replace(out / EXPECTED)
    waiting = []
    for target in mine:
        place = out / "targets" / target.name
        if resume and place.exists():
            continue
        shutil.rmtree(place, ignore_errors=True)
        waiting.append(target)
    return waiting


def keep(out: Path, answer: Answer) -> bool:
    """Write the answer and its reports; False where the target has answered already."""
    draft = Path(tempfile.mkdtemp(prefix=f".{answer.name}.", dir=out))
    draft.chmod(0o755)
    for name, content in answer.files.items():
        (draft / name).write_bytes(content)
    (draft / ANSWER).write_bytes(msgspec.json.encode(msgspec.structs.replace(answer, files={})))
    try:
        draft.rename(out / "targets" / answer.name)
    except OSError:
        if not (out / "targets" / answer.name / ANSWER).exists():
            raise
        shutil.rmtree(draft)
        return False
    return True


def pooled(targets: Sequence[Target], hidden: Sequence[str], jobs: int) -> Iterator[Answer]:
    """The answers as they come, of so many runs at once on this machine."""
    with ThreadPoolExecutor(jobs) as pool, _ended(pool):
        for done in as_completed([pool.submit(work, target, hidden) for target in targets]):
            yield done.result()


@contextmanager
def _ended(pool: ThreadPoolExecutor) -> Iterator[None]:
    """What ends us ends the runs that we have started; each of them then writes that it was cut short."""
    try:
        yield
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in list(_RUNNING):
            process.terminate()
        raise


def scheduled(targets: Sequence[Target], hidden: Sequence[str], address: str) -> Iterator[Answer]:
    """The answers as they come, of the workers of a Dask cluster; its scheduler gives a killed worker's target to
    another one. Addresses of databases are read from the workers' own environment. Raises Mistake."""
    try:
        from distributed import Client
        from distributed import as_completed as completed
    except ImportError:
        raise Mistake("--scheduler needs Dask; pip install 'pgconform[dask]'") from None
    try:
        client = Client(address, timeout=10)  # type: ignore[no-untyped-call]
    except (OSError, TimeoutError, ValueError) as error:
        raise Mistake(f"--scheduler={address}: no scheduler answers ({type(error).__name__})") from None
    with client:
        names = {}
        for target in targets:
            key = f"pgconform-{target.name}-{time.time()}"
            names[client.submit(work, target, hidden, key=key, pure=False)] = target.name
        for done in completed(list(names)):  # type: ignore[no-untyped-call]
            lost = done.exception()
            yield Answer(names[done], LOST, f"its workers were lost ({type(lost).__name__})") if lost else done.result()


def run(
    out: Path, targets: Sequence[Target], hidden: Sequence[str], asked: Callable[..., Iterator[Answer]], *how: Any
) -> Iterator[Answer]:
    """Each answer, after it was kept."""
    for answer in asked(targets, hidden, *how):
        keep(out, answer)
        yield answer


def absent(folders: Sequence[Path]) -> list[Path]:
    """The directories that no part of a fleet has written."""
    return [folder for folder in folders if not (folder / EXPECTED).exists()]


def answers(folders: Sequence[Path]) -> list[Answer]:
    """One answer for each target that any of the directories expects, by name; lost where none came. A directory that
    is not there is that of a part that never ran. Raises Mistake, also where none is there."""
    expected: dict[str, None] = {}
    found: dict[str, Answer] = {}
    missing = absent(folders)
    for folder in missing if len(missing) == len(folders) else [f for f in folders if f not in missing]:
        try:
            told = json.loads((folder / EXPECTED).read_text(encoding="utf-8"))
            expected |= dict.fromkeys(str(target["name"]) for target in told["targets"])
            for path in sorted(folder.glob(f"targets/*/{ANSWER}")):
                found.setdefault(path.parent.name, msgspec.json.decode(path.read_bytes(), type=Answer))
        except OSError as error:
            raise Mistake(f"{folder}: no directory of a fleet: {(error.strerror or '').lower()}") from None
        except (ValueError, KeyError, TypeError) as error:
            raise Mistake(f"{folder}: damaged: {type(error).__name__}") from None
    never = {name: Answer(name, LOST, "it never answered", attempts=0) for name in expected if name not in found}
    return sorted((never | {n: a for n, a in found.items() if n in expected}).values(), key=lambda a: a.name)


def status(all_answers: Iterable[Answer]) -> int:
    """The exit status of the fleet."""
    seen = {answer.status for answer in all_answers}
    return next((worst for worst in WORST if worst in seen), LOST)
