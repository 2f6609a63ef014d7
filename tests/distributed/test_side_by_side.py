"""Judges side by side: they overlap where there is room, and an error waits for those that have begun."""

import logging
import threading
import time

import pytest
from configs import SIMULATED, job_config

from jobs import build_vidb
from valueflow import store
from valueflow.distributed.side_by_side import most_at_once, side_by_side
from valueflow.judging.configs import SimulatedJudge
from valueflow.store import RankingsDetails


def test_results_in_order_and_no_more_at_once_than_allowed():
    inside, most, lock = set(), [], threading.Lock()

    def run(item: int) -> int:
        with lock:
            inside.add(item)
            most.append(len(inside))
        time.sleep(0.02)
        with lock:
            inside.remove(item)
        return -item

    assert side_by_side([3, 1, 2, 5], run, 2) == [-3, -1, -2, -5]
    assert max(most) == 2
    assert side_by_side([3, 1], run, 1) == [-3, -1]


def test_an_error_waits_for_those_that_have_begun():
    begun, ended = [], []

    def run(item: int) -> None:
        begun.append(item)
        if item == 1:
            raise KeyError("first")
        time.sleep(0.05)
        ended.append(item)

    with pytest.raises(KeyError, match="first"):
        side_by_side([0, 1, 2, 3, 4], run, 2)
    assert sorted(ended) == sorted(set(begun) - {1})
    assert 4 not in begun


def test_a_pool_that_grows_counts_with_its_largest_size(monkeypatch):
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 8.0})
    assert most_at_once([SimulatedJudge(num_actors=3), SimulatedJudge(num_actors=3)]) == 2
    assert most_at_once([SimulatedJudge(num_actors=3), SimulatedJudge(num_actors=1, max_actors=5)]) == 1
    assert most_at_once([SimulatedJudge(num_actors=30)]) == 1


def test_two_slow_judges_overlap_in_time(root, caplog):
    slow = SIMULATED | {"seconds_per_batch": 0.4, "batch_size": 200}
    judges = {"judge": slow, "further_judges": [slow | {"name": "second", "seed": 1}]}
    with caplog.at_level(logging.INFO):
        at = build_vidb.main(job_config(build_vidb, root, "candidates.values=[svt:benevolence]", **judges))
    times = {name: [r.created for r in caplog.records if r.message.startswith(f"rank, {name}: ")] for name in ("sim", "second")}
    assert max(min(of_judge) for of_judge in times.values()) < min(max(of_judge) for of_judge in times.values())
    details = [store.details_of(answers, RankingsDetails) for answers in at.rankings]
    assert [of.judge["name"] for of in details] == ["sim", "second"]
    for of in details:  # each has a timeline of its own, which ends with all its answers
        seconds, nodes, workers, answers = zip(*of.timeline, strict=True)
        assert list(seconds) == sorted(seconds)
        assert (set(nodes), max(workers), answers[-1]) == ({1}, 1, of.windows)
