"""A build on a head and two nodes that loses a node, a raylet, a drained node or the head: its rows are those of a quiet one.

CHAOS_CYCLES is how often each of the four happens: 8 are the 32 cycles of docs/design/resume.md. With `-s` counts are printed.
"""

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import attempts
import pytest
from attempts import BATCH, DONE, asked_twice, beside, forked, fresh, published
from configs import job_yaml
from kills import kill_tree

from valueflow.errors import NoProgress

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.chaos, pytest.mark.timeout(3600)]
CYCLES = int(os.environ.get("CHAOS_CYCLES", "1"))
ACTORS, QUIET_SECONDS = 2, 40
JOB = """
import sys
from jobs import build_vidb
from valueflow.job.run import run_job
from valueflow.judging.kinds import KINDS
from valueflow.judging.simulated import SimulatedRanker

class Noted(SimulatedRanker):
    log = sys.argv.pop()

    def __call__(self, windows):
        with open(self.log, "a") as file:
            file.write("".join(f"{window}\\n" for window in windows["window_id"].to_pylist()))
        return super().__call__(windows)

KINDS["simulated"] = KINDS["simulated"]._replace(ranker=Noted)
sys.argv[0] = "build_vidb"
run_job(build_vidb.SCHEMA, build_vidb.main)
"""


class Nodes:
    """A head and two nodes; what is lost comes back with `mend`."""

    def __init__(self) -> None:
        self.start()
        self.mend()

    def start(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})

    def mend(self) -> None:
        """Bring the nodes back to two; after the loss of the head, those of a new cluster."""
        if self.cluster.head_node is None:
            self.end()
            self.start()
        while len(self.cluster.worker_nodes) < 2:
            self.cluster.add_node(num_cpus=2)

    def end(self) -> None:
        for node in [*self.cluster.worker_nodes, *filter(None, [self.cluster.head_node])]:
            self.lose(node)

    def lose(self, node: object) -> None:
        """As a machine that is gone: every process by SIGKILL."""
        self.cluster.remove_node(node, allow_graceful=False)

    def one(self) -> object:
        return sorted(self.cluster.worker_nodes, key=lambda node: node.unique_id)[0]


def node_removed(nodes: Nodes, _: subprocess.Popen) -> None:
    nodes.lose(nodes.one())


def raylet_killed(nodes: Nodes, _: subprocess.Popen) -> None:
    node = nodes.one()
    (raylet,) = node.all_processes["raylet"]
    raylet.process.kill()
    raylet.process.wait()
    time.sleep(5)
    nodes.lose(node)


def node_drained(nodes: Nodes, _: subprocess.Popen) -> None:
    """A notice of preemption, and ten seconds later the machine is gone."""
    node = nodes.one()
    notice = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot", "--deadline-remaining-seconds", "10"]
    command = [Path(sys.executable).parent / "ray", "drain-node", "--address", nodes.cluster.address, "--node-id", node.node_id]
    subprocess.run([*command, *notice], check=True, capture_output=True, timeout=60)
    time.sleep(10)
    nodes.lose(node)


def head_killed(nodes: Nodes, job: subprocess.Popen) -> None:
    """The driver runs there."""
    nodes.lose(nodes.cluster.head_node)
    kill_tree(job)


class World(NamedTuple):
    """A root with texts, and one with the build of a quiet run."""

    before: Path
    quiet: Path


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    folder = tmp_path_factory.mktemp("world")
    before, quiet = folder / "before", folder / "quiet"
    before.mkdir()
    assert forked(attempts.ingest_texts, str(before)) == DONE
    assert attempts.attempt(fresh(before, quiet)).code == DONE
    return World(before, quiet)


@pytest.fixture
def nodes(monkeypatch) -> Iterator[Nodes]:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    nodes = Nodes()
    yield nodes
    nodes.end()


def started(root: Path, nodes: Nodes) -> subprocess.Popen:
    judge = attempts.JUDGE | {"seconds_per_batch": 1.0, "num_actors": ACTORS}
    settings = {"candidates": attempts.VALUES, "windows": {"k": 2, "m": 8}, "judge": judge, "max_error_share": 0.5}
    limits = {"address": nodes.cluster.address, "no_progress_seconds": QUIET_SECONDS}
    path = job_yaml("build_vidb", root.parent, root=str(root), cluster=limits, **settings)
    command = [sys.executable, "-c", JOB, str(path), str(beside(root, "asked"))]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True)


def wait_for_parts(root: Path, count: int, job: subprocess.Popen) -> None:
    deadline = time.monotonic() + 240
    while len(list(root.glob("rankings/*/**/part-*.parquet"))) < count:
        assert job.poll() is None, job.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("event", [node_removed, raylet_killed, node_drained, head_killed])
def test_rows_are_those_of_a_quiet_run(world, tmp_path, nodes, event: Callable[[Nodes, subprocess.Popen], None]):
    codes, twice, rng = [], [], random.Random(event.__name__)
    for cycle in range(CYCLES):
        root = fresh(world.before, tmp_path / f"{cycle}")
        job = started(root, nodes)
        wait_for_parts(root, rng.randrange(1, 6), job)
        event(nodes, job)
        _, line = job.communicate(timeout=300)
        codes.append(job.returncode)
        assert event is head_killed or job.returncode in (0, NoProgress.exit_code), line
        if job.returncode == NoProgress.exit_code:
            assert "rerun the command to go on" in line
            assert "Traceback" not in line
        nodes.mend()
        if job.returncode:
            again = started(root, nodes)
            _, line = again.communicate(timeout=300)
            assert again.returncode == 0, line
        assert rows(root) == rows(world.quiet)
        twice.append(asked_twice(root))
        assert twice[-1] <= ACTORS * BATCH
    print(f"\n{event.__name__}: {CYCLES} cycles, exit codes {codes}; rows equal, lost 0, doubled 0; windows asked twice "
          f"{twice} (bound {ACTORS * BATCH})")  # fmt: skip


def rows(root: Path) -> dict[str, object]:
    """Answers and utilities; the ids of the builds differ by the judge's delay."""
    return {name: content for name, content in published(root).items() if name.startswith(("answers", "utilities"))}
