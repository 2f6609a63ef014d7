"""The sharded fit: the same numbers as in one process, with a shard's actor killed on the way."""

import itertools
import os
import signal
import threading
import time
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
import ray
from ray.util.placement_group import placement_group, remove_placement_group

from valueflow import store
from valueflow.distributed.build.aggregate import (
    AggregateConfig,
    Part,
    RankingShard,
    ShardedLikelihood,
    Source,
    aggregate,
    shard_actors,
    split,
)
from valueflow.errors import InputError
from valueflow.ranking.likelihood import Layout
from valueflow.ranking.plackett_luce import fit
from valueflow.records import SCHEMAS, digest
from valueflow.store import Build

pytestmark = pytest.mark.ray


def answered(root: str, num_texts: int, num_windows: int, values: Sequence[str] = ("power",)) -> tuple[Build, list[str]]:
    """Rankings of pairs by a judge of sharpness 1, in ten parts."""
    rng = np.random.default_rng(0)
    ids = sorted(digest(i) for i in range(num_texts))
    theta = rng.normal(0.0, 2.0, num_texts)
    pairs = np.stack([rng.choice(num_texts, 2, replace=False) for _ in range(num_windows)])
    first_wins = theta[pairs[:, 0]] - theta[pairs[:, 1]] + rng.logistic(size=num_windows) > 0
    build = Build(root, "rankings", "b")
    for value, (part, rows) in itertools.product(values, enumerate(np.array_split(np.arange(num_windows), 10))):
        n = len(rows)
        table = {
            "window_id": [digest(value, int(i)) for i in rows], "theory": ["svt"] * n, "value": [value] * n,
            "text_ids": [[ids[a], ids[b]] for a, b in pairs[rows]],
            "order": [[0, 1] if w else [1, 0] for w in first_wins[rows]],
            "round": pa.array([0] * n, pa.int32()), "judge": ["j"] * n, "error": pa.nulls(n, pa.string()),
            "weight": pa.nulls(n, pa.float64()), "reply": pa.nulls(n, pa.string()),
            "tokens_in": pa.nulls(n, pa.int32()), "tokens_out": pa.nulls(n, pa.int32()), "relevance": pa.nulls(n, pa.float64()),
            "truncated_ids": pa.nulls(n, pa.list_(pa.string())),
        }  # fmt: skip
        store.write_part(build, pa.table(table), f"{part}", store.value_folder(f"svt:{value}"))
    store.commit(build, store.RankingsDetails(judge={"name": "j"}))
    return build, ids


def pid(actor: "ray.actor.ActorHandle") -> int:
    return ray.get(actor.__ray_call__.remote(lambda _: os.getpid()))


@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_actor_that_dies_during_the_fit_changes_nothing(cluster, tmp_path):
    rankings, ids = answered(str(tmp_path), 2200, 30_000)  # above plackett_luce.EXACT: draws are summed over shards too
    parts = [Part(Source(rankings), file.path, file.rows) for file in store.require_manifest(rankings).files]
    layout = Layout(len(ids))
    expected = fit(RankingShard(parts, ids, layout).likelihood)
    killed = []
    with shard_actors(split(parts, 10_000), ids, layout) as actors:
        victim = pid(actors[1])

        def kill() -> None:
            time.sleep(0.5)
            os.kill(victim, signal.SIGKILL)
            killed.append(victim)

        started = time.monotonic()
        threading.Thread(target=kill).start()
        found = fit(ShardedLikelihood(layout, actors))
        assert killed, f"the fit took {time.monotonic() - started:.1f} s, less than it takes to kill an actor in it"
        assert pid(actors[1]) != victim
    np.testing.assert_allclose(found.theta_N, expected.theta_N, atol=1e-9)
    np.testing.assert_allclose(found.standard_error_N, expected.standard_error_N, atol=1e-9)
    assert found.iterations == expected.iterations


def test_values_whose_shards_do_not_all_fit_take_turns(cluster, tmp_path):
    """Two values of two shards each while two CPUs are free: if each held one, both would wait forever."""
    values = ["power", "face"]
    rankings, ids = answered(str(tmp_path), 60, 1000, values)
    pools = Build(str(tmp_path), "candidates", "c")
    for value in values:
        rows = [
            {"theory": "svt", "value": value, "text_id": i, "text": i, "neutral": False, "source": "s", "license": "MIT"}
            for i in ids
        ]
        store.write_part(pools, pa.Table.from_pylist(rows, SCHEMAS["candidates"]), "0", store.value_folder(f"svt:{value}"))
    store.commit(pools, store.CandidatesDetails())
    shards = AggregateConfig(windows_per_shard=500)
    others = placement_group([{"CPU": 6}])
    ray.get(others.ready())
    try:
        found = aggregate(pools, [Source(rankings)], 2, shards, Build(str(tmp_path), "utilities", "u"))
    finally:
        remove_placement_group(others)
    assert {fit["num_shards"] for fit in found.counts.values()} == {2}
    assert set(found.counts) == {f"svt:{value}" for value in values}
    with pytest.raises(InputError, match=r"fit of theory=svt/value=face needs 10 CPU \(the cluster has 8\). Raise agg"):
        aggregate(pools, [Source(rankings)], 2, AggregateConfig(windows_per_shard=1), Build(str(tmp_path), "utilities", "w"))
