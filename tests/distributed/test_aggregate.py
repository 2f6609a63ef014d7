"""The sharded fit: the same numbers as in one process, with a shard's actor killed on the way."""

import os
import signal
import threading
import time

import numpy as np
import pyarrow as pa
import pytest
import ray

from valueflow import store
from valueflow.distributed.aggregate import RankingShard, Shards, shard_actors, split
from valueflow.ranking.plackett_luce import fit
from valueflow.records import digest
from valueflow.store import Build

pytestmark = pytest.mark.ray


def answered(root: str, num_texts: int, num_windows: int) -> tuple[Build, list[str]]:
    """Rankings of pairs by a judge of sharpness 1, in ten parts."""
    rng = np.random.default_rng(0)
    ids = sorted(digest(i) for i in range(num_texts))
    theta = rng.normal(0.0, 2.0, num_texts)
    pairs = np.stack([rng.choice(num_texts, 2, replace=False) for _ in range(num_windows)])
    first_wins = theta[pairs[:, 0]] - theta[pairs[:, 1]] + rng.logistic(size=num_windows) > 0
    build = Build(root, "rankings", "b")
    for part, rows in enumerate(np.array_split(np.arange(num_windows), 10)):
        n = len(rows)
        table = {
            "window_id": [digest("window", int(i)) for i in rows], "theory": ["svt"] * n, "value": ["power"] * n,
            "text_ids": [[ids[a], ids[b]] for a, b in pairs[rows]],
            "order": [[0, 1] if w else [1, 0] for w in first_wins[rows]],
            "round": pa.array([0] * n, pa.int32()), "judge": ["j"] * n, "error": pa.nulls(n, pa.string()),
            "weight": pa.nulls(n, pa.float64()), "reply": pa.nulls(n, pa.string()),
            "tokens_in": pa.nulls(n, pa.int32()), "tokens_out": pa.nulls(n, pa.int32()),
        }  # fmt: skip
        store.write_part(build, pa.table(table), f"{part}", store.partition("svt", "power"))
    store.commit(build, {}, [], {})
    return build, ids


def pid(actor: "ray.actor.ActorHandle") -> int:
    return ray.get(actor.__ray_call__.remote(lambda _: os.getpid()))


@pytest.mark.timeout(600)
def test_an_actor_that_dies_during_the_fit_changes_nothing(cluster, tmp_path):
    rankings, ids = answered(str(tmp_path), 2200, 30_000)  # above plackett_luce.EXACT: draws are summed over shards too
    paths = [(file.path, file.rows) for file in store.need(rankings).files]
    expected = fit(RankingShard(rankings, [path for path, _ in paths], ids).sums)
    actors = shard_actors(rankings, split(paths, 10_000), ids)
    victim = pid(actors[1])
    killed = []

    def kill() -> None:
        time.sleep(2.0)
        os.kill(victim, signal.SIGKILL)
        killed.append(victim)

    started = time.monotonic()
    threading.Thread(target=kill).start()
    found = fit(Shards(len(ids), actors))
    assert killed, f"the fit took {time.monotonic() - started:.1f} s, less than it takes to kill an actor in it"
    assert pid(actors[1]) != victim
    np.testing.assert_allclose(found.theta_N, expected.theta_N, atol=1e-9)
    np.testing.assert_allclose(found.standard_error_N, expected.standard_error_N, atol=1e-9)
    assert found.iterations == expected.iterations
