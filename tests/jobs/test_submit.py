"""`valueflow submit` on a head node with a token: twice at once, stopped, killed, refused."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from configs import SIMULATED, job_yaml
from ray.job_submission import JobStatus
from ray_head import BIN, Head, head_node

from valueflow import store, vidb
from valueflow.cli.main import main
from valueflow.distributed import submit
from valueflow.distributed.submit import exit_code
from valueflow.errors import InputError
from valueflow.job.upload import fill

REPOSITORY = Path(__file__).parents[2]
SLOW = SIMULATED | {"batch_size": 100, "seconds_per_batch": 1.0, "num_actors": 1}


def test_the_working_directory_holds_the_packages_and_the_config_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    upload = fill(tmp_path / "a", "conf/build_vidb/tiny.yaml")
    assert upload.config == "conf/build_vidb/tiny.yaml"
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["conf", "jobs", "serve", "valueflow"]
    names = {path.relative_to(tmp_path / "a").as_posix() for path in (tmp_path / "a").rglob("*") if path.is_file()}
    assert {"jobs/build_vidb.py", "valueflow/theories/svt.yaml", "valueflow/samples/neutral.csv"} <= names
    assert not [name for name in names if "__pycache__" in name or "/." in name]
    assert upload.files == len(names)
    assert 1e6 < upload.size < 20e6
    own = tmp_path / "mine.yaml"
    own.write_text("root: r")
    assert fill(tmp_path / "b", str(own)).config == "conf/mine.yaml"


def test_an_upload_that_ray_does_not_take_is_refused_before(tmp_path, monkeypatch):
    monkeypatch.setattr(submit, "GCS_STORAGE_MAX_SIZE", 1_000_000)
    monkeypatch.chdir(REPOSITORY)
    with pytest.raises(InputError, match=r"working directory has [\d.]+ MB, Ray takes less than 1\.0"):
        submit._check_size(fill(tmp_path, "conf/build_vidb/tiny.yaml"))


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        ("SUCCEEDED", 0, 0),
        ("FAILED", 2, 2),
        ("FAILED", None, 1),
        ("FAILED", -9, 137),
        ("FAILED", 137, 137),
        ("STOPPED", None, 143),
    ],
)
def test_the_exit_code_is_that_of_the_job(status, code, expected):
    assert exit_code(SimpleNamespace(status=JobStatus(status), driver_exit_code=code)) == expected


@pytest.mark.parametrize(("code", "runs"), [(0, 1), (1, 3), (2, 1), (3, 3), (4, 3), (5, 1), (6, 1), (137, 3)])
def test_a_job_is_run_again_unless_it_would_end_the_same_way(code, runs, monkeypatch):
    details = SimpleNamespace(status=JobStatus("FAILED" if code else "SUCCEEDED"), driver_exit_code=code)
    names = []

    async def follow(client: object, name: str) -> SimpleNamespace:
        return details

    monkeypatch.setattr(submit, "_client", lambda address: None)
    monkeypatch.setattr(submit, "_submit_or_attach", lambda client, submission: names.append("run") or "run")
    monkeypatch.setattr(submit, "_follow", follow)
    monkeypatch.setattr(submit.retry, "backoff", lambda attempt: 0.0)
    assert asyncio.run(submit.run(submit.Submission("build_vidb", "c.yaml", [], "b", {}), None, retries=2)) == code
    assert len(names) == runs


def test_a_head_that_has_just_started_is_asked_again(monkeypatch):
    monkeypatch.setattr(submit.retry, "backoff", lambda attempt: 0.0)
    answers = [RuntimeError(f"Request failed with status code 500: {submit.YOUNG}, please try again later..")] * 2

    def request() -> str:
        if answers:
            raise answers.pop()
        return "the job"

    assert submit._request("submit a job", request) == "the job"
    answers.extend([RuntimeError(f"{submit.YOUNG}, please try again later.")] * 100)
    with pytest.raises(InputError, match="cannot submit a job: No available agent"):
        submit._request("submit a job", request)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["build_vdib", "conf/build_vidb/tiny.yaml"], "did you mean 'build_vidb'"),
        (["build_vidb", "conf/build_vidb/tiny.yaml", "windows.kk=2"], "windows.kk"),
        (["build_vidb", "conf/build_vidb/tiny.yaml", "--runtime-env", "{env}"], "working_dir"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_sent(arguments, part, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(REPOSITORY)
    env = tmp_path / "env.yaml"
    env.write_text("working_dir: .")
    assert main(["submit", *(argument.format(env=env) for argument in arguments)]) == 2
    assert part in capsys.readouterr().err


# On a head node.


@pytest.fixture(scope="module")
def head(tmp_path_factory) -> Iterator[Head]:
    with head_node(tmp_path_factory.mktemp("head")) as head:
        yield head


def start(head: Head, *arguments: object, env: dict[str, str] | None = None) -> subprocess.Popen:
    command = [sys.executable, "-m", "valueflow.cli", "submit", *map(str, arguments), "--address", head.url]
    return subprocess.Popen(
        command, cwd=REPOSITORY, env=env or head.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def ray_job(head: Head, *arguments: str) -> str:
    command = [str(BIN / "ray"), "job", *arguments]
    environment = head.environment | {"RAY_API_SERVER_ADDRESS": head.url}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300)
    return done.stdout + done.stderr


@pytest.fixture
def out(head, tmp_path) -> Path:
    """A root with the sample corpus, ingested by a submitted job."""
    code, _, err = finish(start(head, "ingest", "conf/ingest/tiny.yaml", f"root={tmp_path}/out"))
    assert code == 0, err
    assert "working directory of" in err
    return tmp_path / "out"


def lease(out: Path) -> dict:
    return json.loads(next((out / "attempts").glob("build_vidb-*.json")).read_text())


RESUMED = re.compile(r"rank: [\d,]+ to do, [1-9][\d,]* of them done before")


def parts(out: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in (out / "rankings").rglob("*.parquet")}


def wait_for(ready: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def read_name(process: subprocess.Popen) -> str:
    """The submission id, which is the beginning of the first line on standard error."""
    for line in process.stderr:
        if line.startswith("build_vidb-"):
            return line.partition(":")[0]
    raise AssertionError("the command ended")


def names(err: str) -> set[str]:
    return {line.partition(":")[0] for line in err.splitlines() if line.startswith("build_vidb-")}


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_one_work_is_done_once_by_three_who_submit_it_at_once(head, out, tmp_path):
    build = job_yaml("build_vidb", tmp_path, judge=SLOW)
    two = [start(head, "build_vidb", build, f"root={out}") for _ in range(2)]
    wait_for(lambda: list((out / "attempts").glob("build_vidb-*.json")))
    # Under another id, by Ray's own command.
    plain = ["submit", "--submission-id", f"plain-{tmp_path.name}", "--working-dir", str(REPOSITORY), "--runtime-env-json"]
    plain += [json.dumps({"excludes": [".git", ".venv", "runs", "tests"]}), "--", "python", "-m", "jobs.build_vidb", str(build)]
    log = ray_job(head, *plain, f"root={out}")
    (first, out_1, err_1), (second, _, err_2) = map(finish, two)
    assert (first, second) == (0, 0), err_1 + err_2
    assert len(names(err_1) | names(err_2)) == 1
    assert ("attached" in err_1) + ("attached" in err_2) == 1
    version = vidb.load(str(out))
    assert version.build.build_id in out_1
    assert version.manifest.num_rows == 216
    assert "waiting for it" in log
    assert "rank: 1,728 windows, done before" in log
    assert "succeeded" in log
    assert lease(out)["number"] == 2


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_was_stopped_is_resumed_by_the_same_command_under_the_next_id(head, out, tmp_path):
    build = job_yaml("build_vidb", tmp_path, judge=SLOW)
    process = start(head, "build_vidb", build, f"root={out}", "--retry", 3)
    wait_for(lambda: len(parts(out)) >= 3)
    base = read_name(process)
    ray_job(head, "stop", base)
    code, _, err = finish(process)
    assert (code, names(err)) == (143, {base}), err  # not run again: somebody wanted it to stop
    assert not store.current(str(out)).version
    code, log, err = finish(start(head, "build_vidb", build, f"root={out}"))
    assert (code, names(err)) == (0, {f"{base}-2"}), err
    assert RESUMED.search(log), log  # what was answered is not asked again
    assert vidb.load(str(out)).manifest.num_rows == 216
    assert lease(out)["exit_code"] == 0


@pytest.mark.ray
@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_was_killed_is_run_again_as_often_as_told(head, out, tmp_path):
    build = job_yaml("build_vidb", tmp_path, judge=SLOW)
    process = start(head, "build_vidb", build, f"root={out}", "--retry", 1)
    wait_for(lambda: len(parts(out)) >= 3)
    os.kill(int(lease(out)["process"].split(":")[1]), signal.SIGKILL)
    code, log, err = finish(process)
    assert code == 0, err
    base = min(names(err), key=len)
    assert names(err) == {base, f"{base}-2"}
    assert f"{base}: failed, exit code 137" in err
    assert RESUMED.search(log), log
    assert lease(out)["number"] == 2


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_a_user_error_keeps_its_exit_code_and_is_not_tried_again(head, tmp_path):
    build = job_yaml("build_vidb", tmp_path, judge=SIMULATED)
    code, log, err = finish(start(head, "build_vidb", build, f"root={tmp_path}/empty", "--retry", 3))
    assert code == 2, err
    assert len(names(err)) == 1
    assert "error: no ingested texts under" in log
    assert lease(tmp_path / "empty")["exit_code"] == 2


@pytest.mark.slow
@pytest.mark.ray
def test_nobody_gets_in_without_the_token(head, tmp_path):
    build = job_yaml("build_vidb", tmp_path, judge=SIMULATED)
    refused = start(head, "build_vidb", build, f"root={tmp_path}/out", env=head.without_token(tmp_path))
    code, _, err = finish(refused)
    assert code == 2
    assert "RAY_AUTH_TOKEN" in err.splitlines()[-1]
    token = Path(head.environment["RAY_AUTH_TOKEN_PATH"]).read_text()
    admitted = head.without_token(tmp_path) | {"RAY_AUTH_TOKEN": token}  # the token alone is enough
    code, _, err = finish(start(head, "build_vidb", build, f"root={tmp_path}/out", "--no-wait", env=admitted))
    assert code == 0, err
