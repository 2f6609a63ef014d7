"""Secrets in the settings of jobs reach the server and nothing else: no file of the root, no log, no message."""

import os
import subprocess
import sys
from pathlib import Path

import fault_server
import pyarrow.parquet as pq
import pytest
import yaml
from configs import job_yaml

from valueflow import store

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]
PLANTED = "planted"
VALUES = ["svt:benevolence", "duty:fidelity"]
# Jobs as on the command line, in one process and one cluster, and then the command.
RUN = """
import os, sys
from jobs import audit_judge, build_vidb, evaluate, ingest
from valueflow.cli.main import main
from valueflow.job import run_job
from valueflow.distributed.cluster import ClusterConfig, session

root, judge, *configs = sys.argv[1:]
more = [f"root={root}", "judge.extra.token=planted-override"]
with session(ClusterConfig(num_cpus=8)):
    for job, config in zip((ingest, build_vidb, evaluate, audit_judge), configs):
        sys.argv = ["job", config, *(more[:1] if job is ingest else more)]
        run_job(job.SCHEMA, job.main)
score = ["score", "I kept my word.", "--value", "benevolence", "--judge", judge, "--k", "3", "--m", "3"]
for words in (score, ["vidb", "show"], ["vidb", "list"]):
    main([*words, "--root", root])
"""


def judge(url: str) -> dict:
    return {
        "kind": "openai", "name": "gateway", "url": f"{url}?api-key=planted-query", "model": "${oc.env:PLANTED_MODEL}",
        "key_env": "PLANTED_KEY", "structured": "choice", "revision": "${oc.env:PLANTED_LABEL}-1",
        "extra": {
            "api_key": "planted-literal", "user": "${oc.env:PLANTED_USER}", "nested": [{"clientSecret": "planted-nested"}],
            "extra_headers": {"X-Custom": "planted-header"}, "stop_token_ids": [7],
        },
    }  # fmt: skip


def contents(path: Path) -> str:
    """A file as text; compressed rows are read."""
    text = path.read_bytes().decode("utf-8", "replace")
    return text + repr(pq.read_table(path).to_pylist()) if path.suffix == ".parquet" else text


@pytest.mark.slow
def test_secrets_are_in_no_file_and_no_output(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    with fault_server.start() as server:
        server.reset(faults={"echo": 0.1}, key="planted-key")
        llm = judge(server.url)
        policy = {"judge": llm, "audit": "ignore", "max_error_share": 0.9}
        configs = [
            job_yaml("ingest", tmp_path),
            job_yaml("build_vidb", tmp_path, candidates={"values": VALUES, "num_neutral": 20}, **policy),
            job_yaml("evaluate", tmp_path, values=VALUES, evaluator={"k": 2, "m": 2, "sampling": "bucket"}, **policy),
            job_yaml("audit_judge", tmp_path, judge=llm, values=VALUES),
        ]
        (tmp_path / "judge.yaml").write_text(yaml.safe_dump({"judge": llm}))
        environment = {"KEY": "key", "MODEL": "model", "LABEL": "label", "USER": "user"}
        env = os.environ | {f"PLANTED_{name}": f"planted-{value}" for name, value in environment.items()}
        command = [sys.executable, "-c", RUN, str(root), str(tmp_path / "judge.yaml"), *map(str, configs)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=360, env=env)
        last = server.seen()["last"]
    assert done.returncode == 0, done.stderr[-3000:]
    for secret in ("planted-model", "planted-user", "planted-literal", "planted-nested", "planted-header"):
        assert secret in str(last["body"])
    files = [path for path in root.rglob("*") if path.is_file()]
    assert {"_manifest.json", "README.md"} <= {path.name for path in files}
    assert [path.name for path in (root / "reports").glob("*.html")]
    assert not [str(path) for path in files if PLANTED in contents(path)]
    assert PLANTED not in done.stdout
    assert PLANTED not in done.stderr
    (version,) = store.finished(str(root), "vidb")
    saved = store.require_manifest(store.Build(str(root), "vidb", version)).config["resolved"]["judge"]
    assert saved["model"] == "${oc.env:PLANTED_MODEL}"
    assert saved["extra"]["user"] == "${oc.env:PLANTED_USER}"
    assert saved["extra"]["stop_token_ids"] == [7]
    (rankings,) = store.finished(str(root), "rankings")[:1]
    errors = store.read_table(store.Build(str(root), "rankings", rankings), ["error"])["error"].drop_null().to_pylist()
    assert any("bad request" in error for error in errors)  # the server told them, and it was hidden
