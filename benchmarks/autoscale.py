"""Judges on a cluster that grows: nodes, windows/s and idle time of a rebuild under Ray's real autoscaler, on this machine.

    python -m benchmarks.autoscale [NODES [WINDOWS [SECONDS]]]

The head has one CPU, which is too little for the judge. Its autoscaler (v2, provider `fake_multinode` of Ray) adds worker
nodes, up to NODES (4), each a raylet of its own with room for one actor of the judge, and removes those that idle for half a
minute. The judge sleeps SECONDS (2) over a batch of 64 windows, so that the two cores do not bound it. Two rebuilds of
WINDOWS (5,760) windows a node: one with one actor, one whose pool may grow to NODES.

Printed from the timeline that a build stores: seconds until each node was there, windows/s while one and while all nodes
judged, their ratio over NODES, and the share of the nodes' time in which they did not judge: while all were there, and from
the first window to the last, nodes that start included. Then the seconds after the end until the head is alone again.
"""

import contextlib
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import ray

from benchmarks.pipeline import NAME, FreeRanker, candidates
from tests.kills import kill_tree
from valueflow import store
from valueflow.distributed.build.plan import plan
from valueflow.distributed.cluster import ClusterConfig, session
from valueflow.distributed.rank import rank
from valueflow.distributed.texts import ValueTexts
from valueflow.judging.configs import SimulatedJudge
from valueflow.judging.kinds import KINDS
from valueflow.ranking.windows import WindowsConfig
from valueflow.store import Build, Sample

IDLE_MINUTES = 0.5
BATCH, M = 64, 20
PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider"
HEAD = "f" * 51 + "00000"  # the id by which the provider knows the head


def _config(gcs: str, nodes: int) -> dict:
    """The autoscaler's configuration of the head at an address; the provider is named as an external one needs no template."""
    provider = {"type": "external", "module": f"{PROVIDER}.FakeMultiNodeProvider", "gcs_address": gcs, "launch_multiple": True}
    return {
        "cluster_name": "autoscale", "max_workers": nodes, "idle_timeout_minutes": IDLE_MINUTES,
        "provider": provider | {"head_node_id": HEAD}, "auth": {}, "docker": {}, "file_mounts": {}, "cluster_synced_files": [],
        "initialization_commands": [], "setup_commands": [], "head_setup_commands": [], "worker_setup_commands": [],
        "head_start_ray_commands": [], "worker_start_ray_commands": [], "file_mounts_sync_continuously": False,
        "rsync_exclude": [], "rsync_filter": [], "upscaling_speed": 1.0, "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0},
            "worker": {"resources": {"CPU": 2}, "node_config": {}, "min_workers": 0, "max_workers": nodes},
        },
    }  # fmt: skip


@contextlib.contextmanager
def growing_cluster(folder: Path, nodes: int) -> Iterator[str]:
    """Run a head whose autoscaler adds up to so many worker nodes of two CPUs; yield its address.

    Only processes that were started here are ended.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"{ray.util.get_node_ip_address()}:{port}"
    (folder / "autoscaler.json").write_text(json.dumps(_config(address, nodes)))
    own = {
        "RAY_FAKE_CLUSTER": "1", "RAY_enable_autoscaler_v2": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_AUTH_MODE": "disabled",
        "RAY_CLOUD_INSTANCE_ID": HEAD, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD, "RAY_NODE_TYPE_NAME": "ray.head.default",
    }  # fmt: skip
    command = [
        str(Path(sys.executable).with_name("ray")), "start", "--head", f"--port={port}", "--num-cpus=1", "--block",
        f"--autoscaling-config={folder / 'autoscaler.json'}", "--include-dashboard=false", "--disable-usage-stats",
        "--dashboard-agent-listen-port=0", f"--temp-dir=/tmp/vf-{port}",
    ]  # fmt: skip
    with (folder / "head.log").open("w") as log:
        head = subprocess.Popen(command, env=os.environ | own, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while not _answers(port):
            if head.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the head did not start:\n{(folder / 'head.log').read_text()[-2000:]}")
            time.sleep(0.5)
        yield address
    finally:
        kill_tree(head, 20)
        shutil.rmtree(f"/tmp/vf-{port}", ignore_errors=True)


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def rebuild(root: str, windows: int, seconds: float, most: int) -> tuple[int, list[Sample]]:
    """Plan and judge so many windows by a pool of at most so many actors; return their number and the timeline."""
    judge = SimulatedJudge(name=NAME, batch_size=BATCH, num_cpus=1.5, num_actors=1, max_actors=most, seconds_per_batch=seconds)
    pool = candidates(root, 2, windows // M)  # a text is in M windows of two
    name = f"actors-{most}"
    planned = Build(root, "windows", name)
    plan(pool, WindowsConfig(k=2, m=M), planned)
    manifest = rank(planned, ValueTexts((pool,)), judge, Build(root, "rankings", name), 0, {"judge": judge.public()})
    details = manifest.details(store.RankingsDetails)
    return manifest.num_rows, [Sample(*sample) for sample in details.timeline]


def slope(samples: list[Sample]) -> float:
    """Return answers per second between the first and the last of some samples; nan for fewer than two."""
    if len(samples) < 2:
        return float("nan")
    return (samples[-1].answers - samples[0].answers) / (samples[-1].seconds - samples[0].seconds)


def figures(samples: list[Sample], nodes: int, seconds: float) -> tuple[float, float, float]:
    """Return windows/s while so many nodes judged, their idle share then, and that from the first window to the last."""
    working = [sample for sample in samples if sample.workers == nodes and sample.nodes > nodes]
    rate = slope(working)
    while_all = 1 - rate * seconds / BATCH / nodes
    judging = [sample for sample in samples if sample.answers]
    given = sum((after.seconds - before.seconds) * (after.nodes - 1) for before, after in itertools.pairwise(judging))
    batches = (judging[-1].answers - judging[0].answers) / BATCH
    return rate, while_all, 1 - batches * seconds / given


def num_nodes() -> int:
    """Return the number of nodes, the head included."""
    return sum(bool(node["Alive"]) for node in ray.nodes())


def measure(nodes: int, windows: int, seconds: float) -> None:
    """Print the figures."""
    os.environ["RAY_CLUSTER_AUTOSCALES"] = "1"
    os.environ["RAY_AUTH_MODE"] = "disabled"
    KINDS["simulated"] = KINDS["simulated"]._replace(ranker=FreeRanker)
    rates = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        growing_cluster(Path(folder), nodes) as address,
        session(ClusterConfig(address=address)),
    ):
        for most in (1, nodes):
            rows, samples = rebuild(folder, windows * most, seconds, most)
            rates[most], idle, whole = figures(samples, most, seconds)
            joined = [next((s.seconds for s in samples if s.nodes > n), float("nan")) for n in range(1, most + 1)]
            print(
                f"at most {most} actors: {rows:,} windows in {samples[-1].seconds:.0f} s; nodes joined after "
                f"{', '.join(f'{s:.0f}' for s in joined)} s; {rates[most]:.1f} windows/s while all judged, "
                f"{rates[most] / rates[1] / most:.2f} of {most} times one; idle {idle:.1%} then, {whole:.1%} from the first "
                "window to the last",
                flush=True,
            )
        ended = time.monotonic()
        while num_nodes() > 1 and time.monotonic() < ended + 60 * IDLE_MINUTES + 120:
            time.sleep(1)
        print(f"{num_nodes()} node {time.monotonic() - ended:.0f} s after the end (idle timeout {60 * IDLE_MINUTES:.0f} s)")


def main() -> None:
    """Measure as the command line says."""
    numbers = sys.argv[1:]
    measure(
        int(numbers[0]) if numbers else 4,
        int(numbers[1]) if len(numbers) > 1 else 5_760,
        float(numbers[2]) if len(numbers) > 2 else 2.0,
    )


if __name__ == "__main__":
    main()
