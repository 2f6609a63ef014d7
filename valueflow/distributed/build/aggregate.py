"""Plackett-Luce on the cluster: one fit per value, in one process or over actors that each read their own rankings."""

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import ray
import scipy.sparse
from pydantic import Field
from ray.util import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from scipy.sparse.csgraph import connected_components

from valueflow import store
from valueflow.config import Config, Resources
from valueflow.distributed.cluster import completed_results, require_resources
from valueflow.distributed.watch import first_ready
from valueflow.ranking.content_error import consensus_share
from valueflow.ranking.likelihood import Counts, Layout, LikelihoodShard, Moments
from valueflow.ranking.model_checks import check
from valueflow.ranking.newton import NotConverged
from valueflow.ranking.orders import orders_of
from valueflow.ranking.plackett_luce import Fit, fit
from valueflow.records import ValueId, conform, digest
from valueflow.store import Build, FitSummary, JudgeEffects, UtilitiesDetails

log = logging.getLogger(__name__)
MAX_CHECKED_WINDOWS = 100_000  # of a value, for the model checks
UNCUT_WINDOWS = 500_000  # of one part


class AggregateConfig(Config):
    """How rankings become log-worths."""

    prior_sd: float | None = Field(None, gt=0, description="nats; null estimates it from each value's rankings")
    tolerance: float = Field(1e-9, gt=0, description="largest gradient entry per window of an item")
    windows_per_shard: int = Field(1_000_000, ge=1, description="a value with more windows is fitted over several actors")
    judge_effects: bool | None = Field(
        None, description="estimate each judge's sharpness and position bias; null: where several judges rank"
    )


class Source(NamedTuple):
    """The rankings of one judge; `judge` is its index where judges are modelled, `name` its name."""

    rankings: Build
    judge: int = 0
    name: str = ""


class Part(NamedTuple):
    """Some rows of a parquet part of a source."""

    source: Source
    path: str
    rows: int
    start: int = 0

    def read(self) -> pa.Table:
        """Return the rows."""
        return store.read_part(self.source.rankings, self.path).slice(self.start, self.rows)


class RankingShard:
    """The likelihood of the windows in some parquet parts; an actor when `ray.remote` wraps it."""

    def __init__(self, parts: list[Part], text_ids: list[str], layout: Layout) -> None:
        by_source: dict[Source, list[pa.Table]] = {}
        for part in parts:
            by_source.setdefault(part.source, []).append(part.read())
        orders = [o for s, tables in by_source.items() for o in orders_of(pa.concat_tables(tables), text_ids, s.judge)]
        self.likelihood = LikelihoodShard(layout.num_items, orders, layout.num_judges, layout.num_positions)

    def call(self, method: str, *arguments: np.ndarray) -> Any:
        """Return the result of a method of `LikelihoodShard`."""
        return getattr(self.likelihood, method)(*arguments)


@contextlib.contextmanager
def shard_actors(shards: list[list[Part]], text_ids: list[str], layout: Layout) -> Iterator[list]:
    """Run one actor per shard; a lost actor restarts, reads its parts again and repeats the call.

    The actors of a value are placed together or not at all: values that each held some of their CPUs would deadlock.
    """
    group = placement_group([{"CPU": 1}] * len(shards), strategy="SPREAD")
    try:
        first_ready(f"aggregate: the fit of {len(shards)} shards", [group.ready()], Resources(len(shards), 0))
        strategy = PlacementGroupSchedulingStrategy(group)
        actor = ray.remote(RankingShard).options(num_cpus=1, max_restarts=10, max_task_retries=10, scheduling_strategy=strategy)
        yield [actor.remote(shard, text_ids, layout) for shard in shards]
    finally:
        remove_placement_group(group)


class ShardedLikelihood:
    """The likelihood of all windows as the sum over actors; large arguments are put into the object store once."""

    def __init__(self, layout: Layout, actors: list) -> None:
        self.layout, self.actors = layout, actors

    def moments(self, phi: np.ndarray) -> Moments:
        """Sum of the shards' moments."""
        parts = self._call("moments", phi)
        return Moments(sum(p[0] for p in parts), sum(p[1] for p in parts), sum(p[2] for p in parts))

    def product(self, phi: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Sum of the shards' products."""
        return sum(self._call("product", phi, v))

    def information(self, phi: np.ndarray) -> np.ndarray:
        """Sum of the shards' information."""
        return sum(self._call("information", phi))

    def draws(self, phi: np.ndarray) -> np.ndarray:
        """Sum of the shards' draws."""
        return sum(self._call("draws", phi))

    def skewness(self, phi: np.ndarray, root_NS: np.ndarray) -> np.ndarray:
        """Sum of the shards' skewness."""
        return sum(self._call("skewness", phi, root_NS))

    def counts(self) -> Counts:
        """Counts over all shards; components of different shards that share items are one."""
        parts = self._call("counts")
        size = len(parts[0].component_N)
        items = np.tile(np.arange(size), len(parts))
        # Component k of a shard is an extra node of the graph, connected to its items.
        nodes = np.concatenate([p.component_N + size * (s + 1) for s, p in enumerate(parts)])
        graph = scipy.sparse.csr_matrix((np.ones(len(items)), (items, nodes)), (size * (len(parts) + 1),) * 2)
        _, labels = np.unique(connected_components(graph, directed=False)[1][:size], return_inverse=True)
        return Counts(
            sum(p.num_windows_N for p in parts), sum(p.wins_N for p in parts), labels, sum(p.num_comparisons for p in parts),
            sum(p.num_windows_J for p in parts),
        )  # fmt: skip

    def _call(self, method: str, *arguments: np.ndarray) -> list:
        shared = [ray.put(a) for a in arguments]
        return ray.get([actor.call.remote(method, *shared) for actor in self.actors])


def aggregate(
    candidates: Build, sources: Sequence[Source], places: int, config: AggregateConfig, out: Build,
    done: Mapping[str, FitSummary] | None = None,
) -> store.Manifest:  # fmt: skip
    """Return the manifest of the utilities of every value; all values and their shards are scheduled together.

    Args:
        candidates: the texts.
        sources: each judge's answers to the same windows.
        places: positions in a window.
        config: settings of the fit.
        out: the utilities.
        done: fits of the values whose utilities this run has written already, by folder.

    Raises:
        NotConverged: a value's fit missed its tolerance; nothing is committed.
    """
    finished = store.finished_manifest(out, "aggregate", "utilities")
    if finished:
        return finished
    by_folder: dict[str, list[Part]] = {}
    for source in sources:
        for file in store.require_manifest(source.rankings).files:
            by_folder.setdefault(file.path.rpartition("/")[0], []).append(Part(source, file.path, file.rows))
    fits = list((done or {}).values())
    tasks, cpus = [], 1
    for folder, parts in sorted(by_folder.items()):
        if done and folder in done:
            continue
        shards = split(parts, config.windows_per_shard)
        require_resources(len(shards), 0, f"aggregate: the fit of {folder}", "Raise aggregate.windows_per_shard")
        # A task with actors only waits and sums, so it must not hold a CPU that they need.
        task = ray.remote(fit_value).options(num_cpus=1 if len(shards) == 1 else 0)
        tasks.append(task.remote(candidates, folder, shards, places, config, out))
        cpus = max(cpus, len(shards))
    fits += completed_results("aggregate", tasks, Resources(cpus))
    details = UtilitiesDetails(settings=config.public(), fits={fit.value: fit for fit in sorted(fits, key=lambda f: f.value)})
    return store.commit(out, details, [candidates, *(source.rankings for source in sources)])


def fit_value(
    candidates: Build, folder: str, shards: list[list[Part]], places: int, config: AggregateConfig, out: Build
) -> FitSummary:
    """Fit one value, check the model, write the utilities; a single shard is fitted in this process."""
    pool = store.read_table(candidates, ["text_id", "theory", "value", "neutral"], folder).sort_by("text_id")
    text_ids = pool["text_id"].to_pylist()
    value = ValueId.of(pool["theory"][0].as_py(), pool["value"][0].as_py())
    parts = [part for shard in shards for part in shard]
    judges = sorted({part.source for part in parts}, key=lambda source: source.judge)
    modelled = len(judges) > 1 if config.judge_effects is None else config.judge_effects
    layout = Layout(len(text_ids), len(judges), places) if modelled else Layout(len(text_ids))
    checked_parts = split(parts, MAX_CHECKED_WINDOWS)[0]
    # Most values have few windows: they are read once, for the fit and the checks.
    checked = RankingShard(checked_parts, text_ids, layout).likelihood
    if len(shards) == 1 and len(checked_parts) == len(parts):
        fitted = fit(checked, config.prior_sd, config.tolerance)
    elif len(shards) == 1:
        fitted = fit(RankingShard(parts, text_ids, layout).likelihood, config.prior_sd, config.tolerance)
    else:
        with shard_actors(shards, text_ids, layout) as actors:
            fitted = fit(ShardedLikelihood(layout, actors), config.prior_sd, config.tolerance)
    checks = _model_checks(checked, fitted, config.tolerance)
    store.write_part(out, utilities_table(value, text_ids, fitted), digest(folder), folder)
    return FitSummary(
        value=value, iterations=fitted.iterations, gradient_norm=fitted.gradient_norm, tolerance=fitted.tolerance,
        num_components=fitted.num_components, prior_sd=fitted.prior_sd, log_likelihood=fitted.log_likelihood,
        num_windows=sum(part.rows for part in parts), num_shards=len(shards),
        judges=judge_effects(fitted, [source.name for source in judges]), checks=checks,
        content_share=_content_share(checked_parts, fitted, pool, config) if modelled and len(judges) > 1 else None,
    )  # fmt: skip


def _content_share(parts: list[Part], fitted: Fit, pool: pa.Table, config: AggregateConfig) -> float | None:
    """The share of content errors that fits of each informative judge alone show; None where that tells nothing."""
    others_N = ~pool["neutral"].to_numpy(zero_copy_only=False)
    text_ids, fits = pool["text_id"].to_pylist(), []
    for judge in np.flatnonzero(fitted.beta_J > 0):
        shard = RankingShard([part for part in parts if part.source.judge == judge], text_ids, Layout(len(text_ids)))
        try:
            fits.append(fit(LikelihoodShard(len(text_ids), shard.likelihood.orders), config.prior_sd, config.tolerance))
        except NotConverged as error:
            log.warning("the disagreement of the judges could not be measured: %s", error)
            return None
    if len(fits) < 2 or others_N.sum() < 2:
        return None
    theta_JN = np.stack([of_judge.theta_N[others_N] for of_judge in fits])
    return consensus_share(theta_JN, np.stack([of_judge.standard_error_N[others_N] for of_judge in fits]))


def _model_checks(shard: LikelihoodShard, fitted: Fit, tolerance: float) -> dict[str, Any]:
    """The model checks of a fit; none, and a warning, where the fit to the training windows does not converge."""
    # With several judges the prior was rescaled to the average judge; the fit of the checks estimates its own.
    prior_sd = None if shard.layout.num_judges > 1 else fitted.prior_sd
    try:
        return check(shard.orders, shard.layout, prior_sd, tolerance).model_dump()
    except NotConverged as error:
        log.warning("the model could not be checked on held-out windows: %s", error)
        return {}


def judge_effects(fitted: Fit, names: list[str]) -> list[JudgeEffects]:
    """Return sharpness and position bias of every judge that was modelled, with standard errors."""
    rows = zip(names, fitted.beta_J, fitted.beta_error_J, fitted.gamma_JP, fitted.gamma_error_JP, strict=True)
    return [
        JudgeEffects(
            name=name, sharpness=float(beta), sharpness_error=float(beta_error), places=gamma_P.tolist(),
            places_error=error_P.tolist(), uninformative=bool(beta == 0.0),
        )
        for name, beta, beta_error, gamma_P, error_P in (rows if len(fitted.beta_J) else ())
    ]  # fmt: skip


def split(parts: Iterable[Part], windows_per_shard: int) -> list[list[Part]]:
    """Group parts into shards of about that many windows; a large part is cut."""
    shards: list[list[Part]] = []
    remaining, size = 0, max(windows_per_shard, UNCUT_WINDOWS)
    cut = [
        part._replace(start=start, rows=min(size, part.rows + part.start - start))
        for part in sorted(parts, key=lambda part: (part.path, part.source.judge))
        for start in range(part.start, part.start + part.rows, size)
    ]
    for part in cut:
        if remaining <= 0:
            shards.append([])
            remaining = windows_per_shard
        shards[-1].append(part)
        remaining -= part.rows
    return shards


def utilities_table(value: ValueId, text_ids: list[str], fitted: Fit) -> pa.Table:
    """Return the `utilities` rows of one value."""
    count = len(text_ids)
    return conform(
        pa.table(
            {
                "theory": [value.theory] * count, "value": [value.node] * count, "text_id": text_ids, "theta": fitted.theta_N,
                "standard_error": fitted.standard_error_N, "num_windows": np.rint(fitted.counts.num_windows_N).astype(np.int32),
                "wins": fitted.counts.wins_N, "component": fitted.counts.component_N.astype(np.int32),
            }
        ),
        "utilities",
    )  # fmt: skip
