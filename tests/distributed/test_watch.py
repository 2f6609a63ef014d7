"""A stage that hangs, a cluster that stays too small and a deadline end a job with one line and a code; the next goes on."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray
from configs import SIMULATED, job_yaml

from valueflow import store
from valueflow.config import Resources
from valueflow.distributed.cluster import completed_results, ordered_results, result_of
from valueflow.distributed.watch import Watch, watched
from valueflow.errors import DeadlinePassed, NoCapacity, NoProgress

pytestmark = pytest.mark.ray
HANGS = SIMULATED | {"seconds_per_batch": 600}


NEVER_READY = """
import sys, time
from jobs import build_vidb
from valueflow.job.run import run_job
from valueflow.judging.kinds import KINDS

class NeverReady:
    def __init__(self, config):
        time.sleep(600)

KINDS["simulated"] = KINDS["simulated"]._replace(ranker=NeverReady)
sys.argv[0] = "build_vidb"
run_job(build_vidb.SCHEMA, build_vidb.main)
"""


def run(
    root: Path, judge: dict, cluster: dict, job: tuple[str, ...] = ("-m", "jobs.build_vidb")
) -> subprocess.CompletedProcess:  # fmt: skip
    path = job_yaml("build_vidb", root, root=str(root), judge=judge, cluster={"num_cpus": 4} | cluster)
    command = [sys.executable, *job, str(path), "candidates.values=[svt:benevolence]"]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def last_line(done: subprocess.CompletedProcess) -> str:
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.slow
def test_a_judge_that_hangs_ends_the_job_and_the_next_run_goes_on(root):
    judge = SIMULATED | {"seconds_per_batch": 1.0, "batch_size": 100}
    stopped = run(root, judge, {"deadline_seconds": 12})
    assert (stopped.returncode, "cluster.deadline_seconds" in last_line(stopped)) == (5, True)
    hung = run(root, HANGS, {"no_progress_seconds": 6})
    assert hung.returncode == 3
    assert "error: rank: nothing was finished for 6 s (cluster.no_progress_seconds); of 4 CPUs" in last_line(hung)
    done = run(root, SIMULATED, {})
    assert done.returncode == 0, done.stderr
    assert len(store.finished(str(root), "vidb")) == 1


@pytest.mark.slow
def test_a_worker_that_never_gets_ready_ends_the_job_and_the_next_run_goes_on(root):
    """As an engine whose weights never load: its constructor does not return."""
    waited = run(root, SIMULATED, {"no_progress_seconds": 15}, ("-c", NEVER_READY))
    assert waited.returncode == 3
    assert "error: rank: nothing was finished for 15 s (cluster.no_progress_seconds)" in last_line(waited)
    done = run(root, SIMULATED, {})
    assert done.returncode == 0, done.stderr
    assert len(store.finished(str(root), "vidb")) == 1


@pytest.mark.slow
def test_a_cluster_that_stays_too_small_ends_the_job_and_a_run_that_needs_less_finishes(root, monkeypatch):
    monkeypatch.setenv("RAY_CLUSTER_AUTOSCALES", "1")
    waited = run(root, SIMULATED | {"num_cpus": 6}, {"wait_for_capacity_seconds": 6})
    assert waited.returncode == 4
    assert "rank: waited 6 s for 6 CPU (the cluster has 4) (cluster.wait_for_capacity_seconds)" in last_line(waited)
    done = run(root, SIMULATED | {"num_cpus": 1}, {})
    assert done.returncode == 0, done.stderr
    assert len(store.finished(str(root), "vidb")) == 1


def test_limits_of_a_stage(cluster):
    watch = Watch(no_progress=0.01, capacity=0.02, deadline=None)
    watch.check("rank", time.monotonic(), Resources(1, 0))
    with pytest.raises(NoProgress, match="no_progress_seconds"):
        watch.check("rank", time.monotonic() - 1, Resources(1, 0))
    with pytest.raises(NoCapacity, match="1 GPU"):
        watch.check("rank", time.monotonic() - 1, Resources(1, 1))
    watch.deaths.append("a worker on node 1f died")
    with pytest.raises(NoProgress, match="last deaths: a worker on node 1f died"):
        watch.check("rank", time.monotonic() - 1, Resources(1, 0))
    late = Watch(no_progress=60, capacity=60, deadline=0.01)
    time.sleep(0.02)
    with pytest.raises(DeadlinePassed, match=r"cluster\.deadline_seconds"):
        late.check("rank", time.monotonic(), Resources(1, 0))


def test_results_and_errors_come_through(cluster):
    def results():
        yield from range(20)
        raise KeyError("of the worker")

    through = watched("rank", results())
    assert [next(through) for _ in range(20)] == list(range(20))
    with pytest.raises(KeyError, match="of the worker"):
        next(through)


def test_a_task_that_never_ends_or_never_begins(cluster, monkeypatch):
    monkeypatch.setattr("valueflow.distributed.watch._watch", Watch(no_progress=0.3, capacity=0.3, deadline=None))
    sleeps = ray.remote(lambda: time.sleep(60)).remote()
    begins = ray.remote(lambda: 0).options(num_gpus=1).remote()
    try:
        with pytest.raises(NoProgress, match=r"regression: nothing was finished for 0\.3 s"):
            result_of("regression", sleeps)
        with pytest.raises(NoCapacity, match=r"score: waited 0\.3 s for 1 GPU"):
            list(completed_results("score", [begins], Resources(1, 1)))
    finally:
        ray.cancel(sleeps, force=True)
        ray.cancel(begins)


def test_results_come_in_the_order_of_the_tasks(cluster):
    task = ray.remote(lambda seconds: (time.sleep(seconds), seconds)[1])
    seconds = [0.3, 0.0, 0.1, 0.0]
    assert ordered_results("tally", [task.remote(s) for s in seconds]) == seconds
