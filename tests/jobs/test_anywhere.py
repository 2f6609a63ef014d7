"""The tiny build unchanged elsewhere: its root on an S3 API, and under `ray job submit` on a head node with a token."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from valueflow import store, vidb

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
REPOSITORY = Path(__file__).parents[2]
SIMULATED = "judge={kind: simulated, name: sim}"


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def simulated_yaml(folder: Path) -> str:
    text = (REPOSITORY / "conf/build_vidb/tiny.yaml").read_text()
    path = folder / "build.yaml"
    path.write_text("\n".join(line for line in text.splitlines() if not line.startswith("judge:")))
    return str(path)


@pytest.fixture
def s3(monkeypatch):
    """A bucket of moto's server on localhost."""
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for _ in range(100):
        try:
            urllib.request.urlopen(environment["AWS_ENDPOINT_URL"], timeout=1)
            break
        except urllib.error.HTTPError:
            break
        except OSError:
            time.sleep(0.2)
    import fsspec

    fsspec.filesystem("s3", skip_instance_cache=True).mkdir("valueflow-test")
    yield "s3://valueflow-test/root"
    server.terminate()
    server.wait()


def run(*command: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", *command], cwd=REPOSITORY, capture_output=True, text=True, timeout=300)


def test_a_root_on_s3(s3, tmp_path):
    done = run("jobs.ingest", "conf/ingest/tiny.yaml", f"root={s3}")
    assert done.returncode == 0, done.stderr
    build = ("jobs.build_vidb", simulated_yaml(tmp_path), f"root={s3}", SIMULATED)
    done = run(*build)
    assert done.returncode == 0, done.stderr
    version = vidb.load(s3)
    assert version.build.build_id in done.stdout
    assert version.manifest.num_rows == 216
    store.verify(version.build)
    assert store.exists(f"{s3}/reports/{version.build.build_id}.html")
    assert run(*build).returncode == 0
    assert store.current(s3).sequence == 1
    # The fence: nobody may publish over what they have not seen.
    stale = store.Pointer(None, 0, None)
    other = run(*build, "windows.seed=5", "publish=false")
    assert other.returncode == 0, other.stderr
    newer = next(v for v in store.finished(s3, "vidb") if v != version.build.build_id)
    with pytest.raises(ValueError, match="was published while"):
        store.publish(s3, newer, stale)
    seen = store.current(s3)
    store.publish(s3, newer, seen)
    assert store.current(s3).version == newer
    with pytest.raises(ValueError, match="was published while"):
        store.publish(s3, version.build.build_id, seen._replace(version="another"))


def test_a_wrong_bucket_is_a_sentence(s3, tmp_path):
    done = run("jobs.build_vidb", simulated_yaml(tmp_path), "root=s3://no-such-bucket/root", SIMULATED)
    assert done.returncode == 2
    assert done.stderr.startswith("error:") or "\nerror:" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_tiny_build_under_ray_job_submit(tmp_path):
    port, dashboard = free_port(), free_port()
    ray = str(Path(sys.executable).parent / "ray")
    # The token is made on the first start; the submitting side must say that it uses tokens.
    environment = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
    (tmp_path / "token").write_text("0123456789abcdef0123456789abcdef")
    start = [
        ray, "start", "--head", f"--port={port}", f"--dashboard-port={dashboard}", "--num-cpus=8", "--disable-usage-stats",
        f"--temp-dir=/tmp/vf-{port}", "--dashboard-agent-listen-port=0", "--block",
    ]  # fmt: skip
    head = subprocess.Popen(
        start, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        submit = [ray, "job", "submit", "--address", f"http://127.0.0.1:{dashboard}", "--working-dir", str(REPOSITORY)]
        submit += ["--runtime-env-json", json.dumps({"excludes": [".git", ".venv", "runs", "tests"]}), "--"]
        (tmp_path / "out").mkdir()
        build = simulated_yaml(tmp_path)
        for job in (
            ["jobs.ingest", "conf/ingest/tiny.yaml", f"root={tmp_path}/out"],
            ["jobs.build_vidb", build, f"root={tmp_path}/out", SIMULATED],
        ):
            command = [*submit, sys.executable, "-m", *job]
            for _ in range(30):
                done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
                if "Failed to connect" not in done.stdout + done.stderr:
                    break
                time.sleep(2)
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
            assert "succeeded" in done.stdout
        assert vidb.load(f"{tmp_path}/out").manifest.num_rows == 216
        # Without the token nobody gets in.
        bare = {k: v for k, v in environment.items() if not k.startswith("RAY_AUTH")} | {"HOME": str(tmp_path)}
        refused = subprocess.run([*submit, "true"], env=bare, capture_output=True, text=True, timeout=120)
        assert refused.returncode != 0
        assert "uthentication" in refused.stdout + refused.stderr
    finally:
        os.killpg(head.pid, 15)
        try:
            head.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(head.pid, 9)
        subprocess.run(["pkill", "-9", "-f", f"/tmp/vf-{port}"], check=False)
