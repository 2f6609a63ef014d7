"""The tiny build unchanged elsewhere: its root on an S3 API, and under `ray job submit` on a head node with a token."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from configs import SIMULATED, job_yaml
from ray_head import BIN, head_node

from jobs import build_vidb
from valueflow import store, vidb
from valueflow.distributed.submit import YOUNG
from valueflow.job import run_job

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def s3(bucket, tmp_path) -> str:
    """A root of this test in the bucket."""
    return f"{bucket}/{tmp_path.name}"


BUILD_TWICE = """
import sys
from jobs import build_vidb, ingest
from valueflow.config import load
from valueflow.distributed.cluster import ClusterConfig, session

ingesting, building, root = sys.argv[1:]
with session(ClusterConfig(num_cpus=8)):
    ingest.main(load(ingest.SCHEMA, ingesting, [f"root={root}"]))
    config = load(build_vidb.SCHEMA, building, [f"root={root}"])
    assert build_vidb.main(config) == build_vidb.main(config)
"""


def test_a_root_on_s3(s3, tmp_path):
    """In a process of its own: the workers of a cluster have the environment with which it was started."""
    build = job_yaml("build_vidb", tmp_path, judge=SIMULATED)
    command = [sys.executable, "-c", BUILD_TWICE, "conf/ingest/tiny.yaml", str(build), s3]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    version = vidb.load(s3)
    assert version.build.build_id in done.stdout
    assert version.manifest.num_rows == 216
    store.verify(version.build)
    assert store.exists(f"{s3}/reports/{version.build.build_id}.html")
    assert store.current(s3).sequence == 1


def imported(root: str, folder: Path, intensity: float) -> str:
    """The id of a version of one text, not published."""
    path = folder / f"{intensity}.jsonl"
    path.write_text(json.dumps({"theory": "svt", "value": "power", "text": "I lead.", "intensity": intensity}))
    return vidb.import_version([str(path)], "MIT", "a rater", root)[0].build_id


def test_nobody_publishes_on_s3_over_a_version_they_have_not_seen(s3, tmp_path):
    first, second = (imported(s3, tmp_path, intensity) for intensity in (1.0, 2.0))
    store.publish(s3, first, store.current(s3))
    seen = store.current(s3)
    assert seen.sequence == 1
    stale = store.Pointer(None, 0, None)
    with pytest.raises(ValueError, match="was published while"):
        store.publish(s3, second, stale)
    store.publish(s3, second, seen)
    assert store.current(s3).version == second
    with pytest.raises(ValueError, match="was published while"):
        store.publish(s3, first, seen._replace(version="another"))


def test_a_wrong_bucket_is_a_sentence(cluster, s3, tmp_path, monkeypatch, capsys):
    build = job_yaml("build_vidb", tmp_path, judge=SIMULATED)
    monkeypatch.setattr(sys, "argv", ["build_vidb", str(build), "root=s3://no-such-bucket/root"])
    with pytest.raises(SystemExit, match="2"):
        run_job(build_vidb.SCHEMA, build_vidb.main)
    assert capsys.readouterr().err.splitlines()[-1].startswith("error:")


@pytest.mark.slow
def test_the_tiny_build_under_ray_job_submit(tmp_path):
    with head_node(tmp_path) as head:
        submit = [str(BIN / "ray"), "job", "submit", "--address", head.url, "--working-dir", str(REPOSITORY)]
        submit += ["--runtime-env-json", json.dumps({"excludes": [".git", ".venv", "runs", "tests"]}), "--"]
        (tmp_path / "out").mkdir()
        build = job_yaml("build_vidb", tmp_path, judge=SIMULATED)
        python, out = f"{sys.executable} -m", f"root={tmp_path}/out"
        jobs = f"{python} jobs.ingest conf/ingest/tiny.yaml {out} && {python} jobs.build_vidb {build} {out}"
        command = [*submit, "sh", "-c", jobs]
        for _ in range(6):  # a head on a busy machine takes no job at first
            done = subprocess.run(command, env=head.environment, capture_output=True, text=True, timeout=300)
            if YOUNG not in done.stdout + done.stderr:
                break
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        assert "succeeded" in done.stdout
        assert vidb.load(f"{tmp_path}/out").manifest.num_rows == 216
        # Without the token nobody gets in.
        bare = head.without_token(tmp_path)
        refused = subprocess.run([*submit, "true"], env=bare, capture_output=True, text=True, timeout=120)
        assert refused.returncode != 0
        assert "uthentication" in refused.stdout + refused.stderr
