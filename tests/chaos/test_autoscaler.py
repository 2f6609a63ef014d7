"""The real autoscaler on one machine: a rebuild takes a cluster from one node to four and back, and the judge's rate follows.

Ray's provider `fake_multinode` starts a raylet for each node. The judge waits in place of computing, so that two cores do not
bound what four nodes can do.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from configs import SIMULATED, job_yaml
from kills import kill_tree
from ray._private.services import get_node_ip_address
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

from valueflow import store

pytestmark = [pytest.mark.ray, pytest.mark.chaos, pytest.mark.slow, pytest.mark.timeout(600)]
NODES, IDLE_SECONDS, BATCH, SECONDS = 4, 20, 24, 3.0
ENVIRONMENT = {
    "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_FAKE_CLUSTER": "1", "RAY_enable_autoscaler_v2": "1",
    "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
}  # fmt: skip


@pytest.fixture
def autoscaled(tmp_path) -> Iterator[str]:
    """The address of a head whose autoscaler may start three more nodes."""
    head = {"resources": {"CPU": 2}, "node_config": {}, "max_workers": 0}
    worker = {"resources": {"CPU": 2}, "node_config": {}, "min_workers": 0, "max_workers": NODES - 1}
    settings = {
        "cluster_name": "fake", "max_workers": NODES - 1, "idle_timeout_minutes": IDLE_SECONDS / 60, "upscaling_speed": 10,
        "provider": {"type": "fake_multinode", "head_node_id": FAKE_HEAD_NODE_ID, "launch_multiple": True},
        "available_node_types": {"ray.head.default": head, "worker": worker}, "head_node_type": "ray.head.default",
        "auth": {}, "docker": {}, "file_mounts": {}, "initialization_commands": [], "setup_commands": [],
        "head_setup_commands": [], "worker_setup_commands": [], "head_start_ray_commands": [], "worker_start_ray_commands": [],
    }  # fmt: skip
    # What the provider reads, and the wheel lacks.
    example = Path(ray.__file__).parent / "autoscaler/_private/fake_multi_node/example.yaml"
    missing = not example.exists()
    for path in (tmp_path / "autoscaler.yaml", *([example] if missing else [])):
        path.write_text(json.dumps(settings))
    command = ["ray", "start", "--head", "--block", "--port=6379", "--num-cpus=2", "--include-dashboard=true"]
    command[0] = str(Path(sys.executable).parent / "ray")
    process = subprocess.Popen(
        [*command, f"--autoscaling-config={tmp_path / 'autoscaler.yaml'}"], env=os.environ | ENVIRONMENT,
        start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield f"{get_node_ip_address()}:6379"
    finally:
        kill_tree(process)
        if missing:
            example.unlink()


def num_nodes() -> int:
    return sum(node["Alive"] for node in ray.nodes())


def test_a_rebuild_takes_nodes_and_gives_them_back(autoscaled, root):
    judge = SIMULATED | {
        "seconds_per_batch": SECONDS,
        "batch_size": BATCH,
        "num_cpus": 1.5,
        "num_actors": 1,
        "max_actors": NODES,
    }
    path = job_yaml("build_vidb", root, root=str(root), judge=judge, candidates={"values": ["svt:benevolence"]})
    environment = os.environ | {"RAY_ADDRESS": autoscaled, "RAY_CLUSTER_AUTOSCALES": "1"}
    log = root / "job.log"
    with contextlib.ExitStack() as stack:
        until = time.monotonic() + 60
        while not ray.is_initialized():
            with contextlib.suppress(ConnectionError):
                ray.init(autoscaled, log_to_driver=False)
            assert time.monotonic() < until
        stack.callback(ray.shutdown)
        assert num_nodes() == 1
        with log.open("w") as output:
            job = subprocess.Popen(
                [sys.executable, "-m", "jobs.build_vidb", str(path)], env=environment, stderr=output, stdout=output
            )
        stack.callback(lambda: job.poll() is None and kill_tree(job))
        seen = []
        while job.poll() is None:
            seen.append((time.time(), num_nodes()))
            time.sleep(0.5)
        assert job.returncode == 0, log.read_text()[-3000:]
        assert max(nodes for _, nodes in seen) == NODES
        until = time.monotonic() + 6 * IDLE_SECONDS
        while num_nodes() > 1 and time.monotonic() < until:
            time.sleep(1)
        assert num_nodes() == 1
    done = [
        (int(m[1].replace(",", "")), float(m[2])) for m in re.finditer(r"rank: ([\d,]+)/[\d,]+ \(([\d.]+)/s", log.read_text())
    ]
    print(f"nodes {[nodes for _, nodes in seen]}; windows and rate {done}; one actor judges {BATCH / SECONDS} windows/s")
    assert len(store.finished(str(root), "vidb")) == 1
