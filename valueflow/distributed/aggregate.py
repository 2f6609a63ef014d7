"""Plackett-Luce on the cluster: one fit a value, in one process or over actors that each read their own rankings."""

import logging
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import ray
import scipy.sparse
from pydantic import Field
from scipy.sparse.csgraph import connected_components

from valueflow import store
from valueflow.config import Config
from valueflow.distributed.cluster import gather
from valueflow.ranking.plackett_luce import Fit, fit
from valueflow.ranking.rankings import orders_of
from valueflow.ranking.sums import Counts, Layout, Moments, Shard
from valueflow.records import conform, digest
from valueflow.store import Build

log = logging.getLogger(__name__)


class AggregateConfig(Config):
    """How rankings become log-worths."""

    prior_sd: float | None = Field(None, gt=0, description="nats; null estimates it from each value's rankings")
    tolerance: float = Field(1e-9, gt=0, description="largest gradient entry per window of an item")
    windows_per_shard: int = Field(1_000_000, ge=1, description="a value with more windows is fitted over several actors")


class RankingShard:
    """Sums over the windows of some parquet parts; an actor when `ray.remote` wraps it."""

    def __init__(self, rankings: Build, paths: list[str], text_ids: list[str]) -> None:
        tables = [store.read_part(rankings, path) for path in paths]
        self.sums = Shard(len(text_ids), orders_of(pa.concat_tables(tables), text_ids))

    def ask(self, method: str, *arguments: np.ndarray) -> Any:
        """Return what a method of `Shard` returns."""
        return getattr(self.sums, method)(*arguments)


def shard_actors(rankings: Build, shards: list[list[str]], text_ids: list[str]) -> list:
    """Start one actor a shard; one that is lost reads its parts again, and what it was asked is asked again."""
    actor = ray.remote(RankingShard).options(max_restarts=10, max_task_retries=10)
    return [actor.remote(rankings, shard, text_ids) for shard in shards]


class Shards:
    """The same sums over many actors; large arguments are put once and shared."""

    def __init__(self, num_items: int, actors: list) -> None:
        self.layout, self.actors = Layout(num_items), actors

    def moments(self, phi: np.ndarray) -> Moments:
        """Sum of the shards' moments."""
        parts = self._ask("moments", phi)
        return Moments(sum(p[0] for p in parts), sum(p[1] for p in parts), sum(p[2] for p in parts))

    def product(self, phi: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Sum of the shards' products."""
        return sum(self._ask("product", phi, v))

    def information(self, phi: np.ndarray) -> np.ndarray:
        """Sum of the shards' information."""
        return sum(self._ask("information", phi))

    def draws(self, phi: np.ndarray) -> np.ndarray:
        """Sum of the shards' draws."""
        return sum(self._ask("draws", phi))

    def skewness(self, phi: np.ndarray, root_NS: np.ndarray) -> np.ndarray:
        """Sum of the shards' skewness."""
        return sum(self._ask("skewness", phi, root_NS))

    def counts(self) -> Counts:
        """Counts over all shards; components are joined where shards share items."""
        parts = self._ask("counts")
        size = len(parts[0].component_N)
        items = np.tile(np.arange(size), len(parts))
        # A shard's component k is an extra node of the graph, tied to its items.
        tags = np.concatenate([p.component_N + size * (s + 1) for s, p in enumerate(parts)])
        graph = scipy.sparse.csr_matrix((np.ones(len(items)), (items, tags)), (size * (len(parts) + 1),) * 2)
        _, labels = np.unique(connected_components(graph, directed=False)[1][:size], return_inverse=True)
        return Counts(
            sum(p.num_windows_N for p in parts), sum(p.wins_N for p in parts), labels, sum(p.num_comparisons for p in parts),
            sum(p.num_windows_J for p in parts),
        )  # fmt: skip

    def _ask(self, method: str, *arguments: np.ndarray) -> list:
        shared = [ray.put(a) for a in arguments]
        return ray.get([actor.ask.remote(method, *shared) for actor in self.actors])


class Fitted(NamedTuple):
    """One value's fit as numbers for manifest and report."""

    value: str
    iterations: int
    gradient_norm: float
    tolerance: float
    num_components: int
    prior_sd: float
    log_likelihood: float
    num_windows: int
    num_shards: int


def aggregate(candidates: Build, rankings: Build, config: AggregateConfig, out: Build) -> store.Manifest:
    """Return the manifest of the utilities of every value; all values and their shards are scheduled together.

    Raises:
        NotConverged: a value's fit missed its tolerance; nothing is committed.
    """
    finished = store.manifest(out)
    if finished:
        log.info("aggregate: %s utilities, done before", f"{finished.num_rows:,}")
        return finished
    files = store.need(rankings).files
    folders = sorted({file.path.rpartition("/")[0] for file in files})
    waiting = []
    for folder in folders:
        shards = split([(f.path, f.rows) for f in files if f.path.startswith(f"{folder}/")], config.windows_per_shard)
        # A task that owns actors only waits and adds up, so it must not hold the CPU they need.
        cpus = 1 if len(shards) == 1 else 0
        waiting.append(ray.remote(fit_value).options(num_cpus=cpus).remote(candidates, rankings, folder, shards, config, out))
    fits = [Fitted(*numbers) for numbers in gather("aggregate", waiting)]
    counts = {f.value: f._asdict() for f in sorted(fits)}
    return store.commit(out, config.model_dump(), [candidates.url, rankings.url], counts)


def fit_value(
    candidates: Build, rankings: Build, folder: str, shards: list[list[str]], config: AggregateConfig, out: Build
) -> tuple:
    """Fit one value and write its utilities; one shard stays in this process."""
    pool = store.read_table(candidates, ["text_id", "theory", "value"], folder)
    text_ids = sorted(pool["text_id"].to_pylist())
    theory, value = pool["theory"][0].as_py(), pool["value"][0].as_py()
    if len(shards) == 1:
        fitted = fit(RankingShard(rankings, shards[0], text_ids).sums, config.prior_sd, config.tolerance)
    else:
        fitted = fit(Shards(len(text_ids), shard_actors(rankings, shards, text_ids)), config.prior_sd, config.tolerance)
    store.write_part(out, utilities_table(theory, value, text_ids, fitted), digest(folder), folder)
    numbers = (fitted.iterations, fitted.gradient_norm, fitted.tolerance, fitted.num_components, fitted.prior_sd)
    windows = sum(f.rows for f in store.need(rankings).files if f.path.startswith(f"{folder}/"))
    return (f"{theory}:{value}", *numbers, fitted.log_likelihood, windows, len(shards))


def split(parts: Iterable[tuple[str, int]], windows_per_shard: int) -> list[list[str]]:
    """Group parts (path, rows) into shards of about that many windows."""
    shards: list[list[str]] = []
    room = 0
    for path, rows in sorted(parts):
        if room <= 0:
            shards.append([])
            room = windows_per_shard
        shards[-1].append(path)
        room -= rows
    return shards


def utilities_table(theory: str, value: str, text_ids: list[str], fitted: Fit) -> pa.Table:
    """Return the `utilities` rows of one value."""
    count = len(text_ids)
    return conform(
        pa.table(
            {
                "theory": [theory] * count, "value": [value] * count, "text_id": text_ids, "theta": fitted.theta_N,
                "standard_error": fitted.standard_error_N, "num_windows": np.rint(fitted.counts.num_windows_N).astype(np.int32),
                "wins": fitted.counts.wins_N, "component": fitted.counts.component_N.astype(np.int32),
            }
        ),
        "utilities",
    )  # fmt: skip
