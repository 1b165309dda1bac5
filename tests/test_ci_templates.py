"""The CI templates: each fits its schema, and its shell parts do on a real target what they are there for.

Not run here: GitHub, GitLab, Jenkins and Kubernetes themselves; of the Jenkinsfile only the shell parts are tried.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

from pgconform.targets.server import Server
from tests.test_readme import README, SHOP

ROOT = Path(__file__).parent.parent
ACTION = ROOT / "action.yml"
WORKFLOWS = sorted((ROOT / "ci" / "github").glob("*.yml"))
GITLAB = ROOT / "ci" / "gitlab" / "pgconform.gitlab-ci.yml"
JENKINS = ROOT / "ci" / "jenkins" / "Jenkinsfile"
CRONJOB = ROOT / "ci" / "kubernetes" / "cronjob.yaml"
FLEET = ROOT / "ci" / "kubernetes" / "fleet.yaml"
SPARSE = ("access-follows-membership", "parents-stay-in-tenant")  # have nothing to try in so small a shop
SCHEMAS = {ACTION: "github-actions", GITLAB: "gitlab-ci", **dict.fromkeys(WORKFLOWS, "github-workflows")}


def loaded(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.name)
def test_each_fits_its_schema(path: Path) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{SCHEMAS[path]}", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", [CRONJOB, FLEET], ids=lambda path: path.name)
def test_each_is_what_kubernetes_takes(path: Path) -> None:
    from kubernetes import client

    job = loaded(path)
    model = getattr(client, f"V1{job['kind']}")
    model.model_validate(job)  # which knows every key of the API
    job["spec"]["schedul"] = "17 3 * * *"
    with pytest.raises(ValueError, match=r"spec\.schedul\n.*not permitted"):
        model.model_validate(job)


def test_what_they_set_is_what_a_run_reads() -> None:
    """A variable that nobody reads would be a promise of nothing."""
    from pgconform.asked import OPTIONS

    known = {f"PGC_{name.upper()}" for name in OPTIONS} | {"PGC_DSN"}
    for path in (*SCHEMAS, JENKINS, CRONJOB):
        assert set(re.findall(r"PGC_\w+", path.read_text(encoding="utf-8"))) <= known, path.name
    inputs = loaded(ACTION)["inputs"]
    for path in WORKFLOWS:
        for job in loaded(path)["jobs"].values():
            for step in job["steps"]:
                if step.get("uses", "").startswith("pgconform/"):
                    assert set(step["with"]) <= set(inputs), path.name


def test_versions_are_pinned_and_rights_are_few() -> None:
    for path in (ACTION, *WORKFLOWS):
        uses = re.findall(r"uses: (\S+)", path.read_text(encoding="utf-8"))
        assert all(re.fullmatch(r"[\w./-]+@v\d+", use) for use in uses), uses
    for path in WORKFLOWS:
        rights = loaded(path)["permissions"]
        assert rights.pop("contents") == "read"
        assert rights == ({"security-events": "write"} if path.name == "pull-request.yml" else {})


def test_no_shell_part_takes_text_from_an_expression() -> None:
    """What a pull request's author wrote would be run: values come through the environment."""
    for path in (ACTION, *WORKFLOWS):
        for text in re.findall(r"run: (?:\|\n)?((?:.|\n {8,})*)", path.read_text(encoding="utf-8")):
            assert "${{" not in text


@pytest.mark.parametrize("path", [CRONJOB, FLEET], ids=lambda path: path.name)
def test_kubernetes_jobs_are_confined_and_try_again_only_what_may_mend(path: Path) -> None:
    job = loaded(path)
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "CronJob" if path == CRONJOB else "Job")
    spec = job["spec"]["jobTemplate"]["spec"] if path == CRONJOB else job["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert (pod["restartPolicy"], pod["automountServiceAccountToken"]) == ("Never", False)
    (rule,) = spec["podFailurePolicy"]["rules"]
    on = rule["onExitCodes"]
    indexed = spec.get("completionMode") == "Indexed"
    assert (rule["action"], on["operator"], on["values"]) == ("FailIndex" if indexed else "FailJob", "NotIn", [75])
    assert on["containerName"] == container["name"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    secrets = [entry["name"] for entry in container["env"] if "valueFrom" in entry]
    assert secrets == ([] if indexed else ["PGC_DSN"])
    if indexed:  # each part is done, and each by one pod
        parts = {entry["name"]: entry["value"] for entry in container["env"]}["PARTS"]
        assert int(parts) == spec["completions"]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A user's checkout: a contract, and migrations that make the database it speaks of."""
    (tmp_path / "migrations").mkdir()
    layer = files("pgconform.fixtures") / "databases" / "supabase" / "1_auth.sql"
    (tmp_path / "migrations" / "0_supabase.sql").write_text(layer.read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "migrations" / "1_shop.sql").write_text(SHOP, encoding="utf-8")
    (block,) = re.findall(r"```toml\n(name = .*?)```", README.read_text(encoding="utf-8"), re.S)
    skips = "".join(f'{check} = "two shops, three people"\n' for check in SPARSE)
    (tmp_path / "contract.toml").write_text(re.sub(r"(?m)^(\[skips\].*\n)", rf"\1{skips}", block), encoding="utf-8")
    tools = tmp_path / "tools"
    tools.mkdir()
    stubs = {  # installing from an index is the one thing that is not tried
        "python": f'#!/bin/sh\ncase "$*" in *pip*|*venv*) exit 0;; esac\nexec {sys.executable} "$@"\n',
        "sleep": "#!/bin/sh\necho slept $1 >> slept\n",
    }
    for name, text in stubs.items():
        (tools / name).write_text(text, encoding="utf-8")
        (tools / name).chmod(0o755)
    (tools / "pgconform").symlink_to(Path(sys.executable).with_name("pgconform"))
    return tmp_path


def shell(checkout: Path, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PGC_", "PYTEST_", "GITHUB_"))}
    env |= {"PATH": f"{checkout / 'tools'}:{env['PATH']}", "GITHUB_OUTPUT": "output", "GITHUB_STEP_SUMMARY": "summary"}
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=checkout, env=env | environment, capture_output=True, text=True,
        timeout=600, check=False,
    )  # fmt: skip


def drawn(out: Path) -> tuple[str, int]:
    """How hard the run whose reports are there attacked, and what its attempts were drawn from."""
    told = json.loads((out / "findings.json").read_text(encoding="utf-8"))
    return told["effort"], told["seed"]


def step_of(path: Path, name: str) -> dict[str, Any]:
    document = loaded(path)
    steps = document["runs"]["steps"] if "runs" in document else next(iter(document["jobs"].values()))["steps"]
    return dict(next(step for step in steps if step.get("name") == name))


def action(checkout: Path, **given: str) -> subprocess.CompletedProcess[str]:
    """The action's own step, with its inputs as GitHub would hand them over."""
    inputs = {name: spec.get("default", "") for name, spec in loaded(ACTION)["inputs"].items()}
    inputs |= {name.replace("_", "-"): value for name, value in given.items() if name != "dsn"}
    step = step_of(ACTION, "Run")
    form = re.compile(r"\$\{\{ inputs\.([\w-]+) \}\}")
    environment = {name: form.sub(lambda m: inputs[m[1]], value) for name, value in step["env"].items()}
    return shell(checkout, step["run"], **environment, **({"PGC_DSN": given["dsn"]} if "dsn" in given else {}))


def inputs_of(path: Path) -> dict[str, str]:
    (step,) = (s for job in loaded(path)["jobs"].values() for s in job["steps"] if "pgconform/" in s.get("uses", ""))
    return {name.replace("-", "_"): value for name, value in step["with"].items()}


def test_a_pull_request_is_gated_by_its_migrations(checkout: Path) -> None:
    assert shutil.which("psql"), "the workflow's own command needs it"
    asked = inputs_of(WORKFLOWS[-1])
    sound = action(checkout, **asked)
    assert sound.returncode == 0, sound.stdout + sound.stderr
    assert (checkout / "output").read_text(encoding="utf-8") == "status=0\n"
    later = checkout / "migrations" / "2_open.sql"
    later.write_text("alter policy own on public.orders using (true);\n", encoding="utf-8")
    broken = action(checkout, **asked)
    assert broken.returncode == 1, broken.stdout + broken.stderr
    assert "::error file=contract.toml,line=" in broken.stdout
    assert "does not conform" in (checkout / "summary").read_text(encoding="utf-8")
    sarif = json.loads((checkout / "pgconform-reports" / "pgconform.sarif").read_text(encoding="utf-8"))
    assert {entry["level"] for entry in sarif["runs"][0]["results"]} == {"error"}
    assert not (checkout / "slept").exists()
    later.write_text("no SQL;\n", encoding="utf-8")
    failed = action(checkout, **asked)
    assert failed.returncode == 4
    assert "--prepare: the command ended with status 1" in failed.stdout + failed.stderr
    assert 'syntax error at or near "no"' in failed.stdout + failed.stderr


def test_a_live_database_is_never_prepared(checkout: Path) -> None:
    done = action(checkout, contract="contract.toml", target="live", prepare="touch ran", dsn="host=/nowhere")
    assert done.returncode == 4
    assert "a live one is never written" in done.stdout + done.stderr
    assert not (checkout / "ran").exists()


def test_a_deployment_waits_for_the_gate_and_tries_again_only_what_may_mend(checkout: Path, references: Server) -> None:
    asked = inputs_of(ROOT / "ci" / "github" / "deployment.yml") | {"contract": "victorysync"}
    done = action(checkout, **asked, dsn=references.uri("victorysync"))
    assert done.returncode == 0, done.stdout + done.stderr
    lost = action(checkout, **asked, dsn="host=/nowhere dbname=x password=c4n4ry")
    assert lost.returncode == 75
    assert (checkout / "slept").read_text(encoding="utf-8") == "slept 10\nslept 30\n"
    assert "c4n4ry" not in lost.stdout + lost.stderr


def test_the_nightly_workflow_draws_other_attempts_each_time(checkout: Path, references: Server) -> None:
    asked = inputs_of(ROOT / "ci" / "github" / "nightly.yml")
    assert asked["seed"] == "${{ github.run_number }}"
    given = asked | {"contract": "victorysync", "seed": "77", "select": "gate"}  # fewer checks, for the time they take
    done = action(checkout, **given, dsn=references.uri("victorysync"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert drawn(checkout / "pgconform-reports") == ("nightly", 77)


BESIDE = {"access.json", "bench.json"}  # what report.html shows besides the run


def short(script: str) -> str:
    """The script with fewer searches."""
    assert "pgconform bench" in script
    return script.replace("pgconform bench", "pgconform bench --queries=10 --clients=1 --no-curves")


def test_the_nightly_searches_are_compared_with_those_of_before(checkout: Path, references: Server) -> None:
    script = short(step_of(ROOT / "ci" / "github" / "nightly.yml", "Access and searches, into the same report")["run"])
    asked = {"PGC_OUT": "out", "PGC_CONTRACT": "muva", "PGC_TARGET": "live", "PGC_DSN": references.uri("muva")}
    first = shell(checkout, script, **asked)
    assert first.returncode == 0, first.stdout + first.stderr
    assert (checkout / "history" / "bench" / "muva.json").exists()
    assert "match_hotels_documents" in (checkout / "summary").read_text(encoding="utf-8")
    again = shell(checkout, script, **asked)
    assert again.returncode == 0, again.stdout + again.stderr
    assert {path.name for path in (checkout / "out").iterdir()} >= BESIDE
    shutil.rmtree(checkout / "history")
    none = shell(checkout, script, **asked | {"PGC_CONTRACT": "victorysync", "PGC_DSN": references.uri("victorysync")})
    assert none.returncode == 0, "a contract without searches"


@pytest.mark.parametrize("job", ["pgconform merge request", "pgconform before deployment", "pgconform nightly"])
def test_the_jobs_of_gitlab(checkout: Path, references: Server, job: str) -> None:
    document = loaded(GITLAB)
    variables = document["variables"] | document[job]["variables"]
    if job != "pgconform merge request":
        variables |= {"PGC_CONTRACT": "victorysync", "PGC_DSN": references.uri("victorysync")}
    done = shell(checkout, "\n".join(document[job]["script"]), **variables, CI_PIPELINE_IID="77")
    assert done.returncode == 0, done.stdout + done.stderr
    reports = {**document[".pgconform"]["artifacts"], **document[job].get("artifacts", {})}["reports"]
    for path in reports.values():
        assert (checkout / path.replace("$PGC_OUT", variables["PGC_OUT"])).exists()
    nightly = job == "pgconform nightly"
    assert drawn(checkout / variables["PGC_OUT"]) == (("nightly", 77) if nightly else ("default", 1))
    assert (checkout / "history").exists() == nightly
    assert (checkout / variables["PGC_OUT"] / "access.json").exists() == nightly


def test_the_shell_parts_of_jenkins(checkout: Path, references: Server) -> None:
    text = JENKINS.read_text(encoding="utf-8")
    install, gate, live, more = (a or b for a, b in re.findall(r"sh '''(.*?)'''|sh '([^'\n]+)'", text, re.S))
    variables = dict(re.findall(r"(PGC_\w+) = '([^']*)'", text))
    prepare = {"PGC_PREPARE": variables.pop("PGC_PREPARE"), "PGC_TARGET": "embedded"}
    (checkout / ".venv" / "bin").mkdir(parents=True)
    for name in ("python", "pgconform"):
        (checkout / ".venv" / "bin" / name).symlink_to(checkout / "tools" / name)
    asked = variables | {"PGC_TARGET": "live", "PGC_CONTRACT": "victorysync", "NIGHTLY": ""}
    dsn = references.uri("victorysync")
    for script, given in (
        (install, {}),
        (gate, variables | prepare),
        (live, asked | {"PGC_DSN": dsn}),
        (live, asked | {"PGC_DSN": dsn, "NIGHTLY": "yes", "BUILD_NUMBER": "77"}),
        (short(more), asked | {"PGC_DSN": dsn, "NIGHTLY": "yes"}),
    ):
        done = shell(checkout, script, **given)
        assert done.returncode == 0, done.stdout + done.stderr
    (junit,) = re.findall(r"junit testResults: '([^']+)'", text)
    assert (checkout / junit).exists()
    assert (checkout / "pgconform-reports" / "access.json").exists()
    assert drawn(checkout / "pgconform-reports") == ("nightly", 77)
    lost = shell(checkout, live, **asked, PGC_DSN="host=/nowhere dbname=x")
    assert lost.returncode == 75
    assert (checkout / "slept").read_text(encoding="utf-8") == "slept 10\nslept 30\n"


def prepared(checkout: Path, path: Path) -> tuple[str, dict[str, str]]:
    """A job's script and its variables, with a virtual environment that is there already."""
    spec = loaded(path)["spec"]
    (container,) = spec.get("jobTemplate", {"spec": spec})["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["/bin/bash", "-euo", "pipefail", "-c"]
    (script,) = container["args"]
    home = checkout / "home"
    (home / "venv" / "bin").mkdir(parents=True)
    for name in ("python", "pgconform"):
        (home / "venv" / "bin" / name).symlink_to(checkout / "tools" / name)
    variables = {entry["name"]: entry.get("value", "").replace("/var/lib", str(checkout)) for entry in container["env"]}
    return script, variables | {"HOME": str(home)}


def test_the_script_of_the_cron_job(checkout: Path, references: Server) -> None:
    script, variables = prepared(checkout, CRONJOB)
    variables |= {"PGC_CONTRACT": "muva", "PGC_DSN": references.uri("muva")}
    done = shell(checkout, short(script), **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.name for path in (checkout / "pgconform").iterdir()} == {"out", "history"}
    assert {path.name for path in (checkout / "pgconform" / "out").iterdir()} >= BESIDE
    effort, seed = drawn(checkout / "pgconform" / "out")
    assert effort == "nightly"
    assert seed > 20250101, "another one each day"
    assert (checkout / "pgconform" / "history" / "bench" / "muva.json").exists()
    recorded = list((checkout / "pgconform" / "history").glob("*.jsonl"))
    assert len(recorded) == 2, "the run, and its searches"
    assert not any(path.stat().st_mode & stat.S_IWUSR for path in recorded)


def test_the_script_of_the_fleet(checkout: Path, references: Server) -> None:
    script, variables = prepared(checkout, FLEET)
    same = 'contract = "victorysync"\ndsn = "DSN"\nselect = "gate"\n'
    targets = "".join(f'[[targets]]\nname = "{name}"\n{same}' for name in "abcde")
    (checkout / "fleet.toml").write_text(targets, encoding="utf-8")
    variables |= {"FLEET": "fleet.toml", "JOB_COMPLETION_INDEX": "1", "DSN": references.uri("victorysync")}
    done = shell(checkout, script, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.name for path in (checkout / "pgconform" / "2" / "targets").iterdir()] == ["b"]
