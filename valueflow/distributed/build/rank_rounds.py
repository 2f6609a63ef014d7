"""Rank in rounds of plan, judge and fit, until every value is known well enough or its windows are used up."""

import functools
import itertools
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from valueflow import store
from valueflow.distributed.build.aggregate import AggregateConfig
from valueflow.distributed.answer import check_answers, collect_answers
from valueflow.distributed.cluster import gather
from valueflow.distributed.judge import warm_pools
from valueflow.distributed.build.rank import rankings_details, read_windows
from valueflow.judging.configs import AnyJudge
from valueflow.judging.tasks import RANK
from valueflow.ranking.adaptive import next_windows, swiss_windows
from valueflow.ranking.plackett_luce import fit
from valueflow.ranking.orders import orders_of
from valueflow.ranking.likelihood import LikelihoodShard
from valueflow.ranking.windows import ADAPTED, WindowsConfig, plan_table, windows_table
from valueflow.records import digest
from valueflow.store import Build, File, WindowsDetails


class Precision(NamedTuple):
    """What was known of a value's texts before a round."""

    windows_per_text: float
    error: float  # root mean square standard error of theta, nats
    spread: float  # standard deviation of theta, nats


class PlannedRound(NamedTuple):
    """A value's windows of a round, None where it is done; what its fit said, None where it was not needed."""

    value: str
    file: File | None
    reached: Precision | None


def rank_in_rounds(
    candidates: Build, config: WindowsConfig, fitting: AggregateConfig, judge: AnyJudge, windows: Build, rankings: Build,
    max_error_share: float, described: dict,
) -> store.Manifest:  # fmt: skip
    """Return the manifest of the answers; plan and answers grow together, a finished build is returned as it is.

    A round is planned once everything before it is answered, and follows from those answers alone: a rerun goes on in the round
    that was interrupted and asks what the unkilled run would have asked.

    Raises:
        InputError: too many windows without an order, too few texts, or a spent budget. The answers are kept.
        NotConverged: a round's fit missed its tolerance.
    """
    finished = store.finished_manifest(rankings, "rank", "windows")
    if finished:
        return finished
    pools = store.require_manifest(candidates).files
    task = ray.remote(plan_round).options(num_cpus=1)
    total = 0
    progress: dict[str, list[Precision]] = {}
    with warm_pools([judge], RANK):
        for round_ in itertools.count():
            tasks = [task.remote(candidates, pool.path, config, fitting, windows, rankings, round_) for pool in pools]
            planned = sorted(PlannedRound(*result) for result in gather(f"plan round {round_ + 1}", tasks))
            for value, _, reached in planned:
                progress.setdefault(value, []).extend([Precision(*reached)] if reached else [])
            files = [file for _, file, _ in planned if file is not None]
            if not files:
                break
            total += sum(file.rows for file in files)
            questions = functools.partial(_questions, windows, files, candidates, judge.batch_size)
            collect_answers(judge, RANK, questions, rankings, total, f"rank round {round_ + 1}")
            if len(store.committed_ids(rankings, RANK.id_column)) <= total:  # else an earlier run came further
                asked = check_answers(rankings, RANK, total, max_error_share, f"rank round {round_ + 1}")
    store.commit(windows, WindowsDetails(settings=config.model_dump(), windows=total, progress=progress), [candidates])
    return store.commit(rankings, rankings_details(asked, **described), [windows])


def _questions(windows: Build, files: list[File], candidates: Build, chunk: int, done: "ray.ObjectRef") -> ray.data.Dataset:
    return read_windows(windows, files, [candidates], done, chunk)


def plan_round(
    candidates: Build, path: str, config: WindowsConfig, fitting: AggregateConfig, windows: Build, rankings: Build, round_: int
) -> PlannedRound:
    """Write one value's windows of a round."""
    pool = store.read_part(candidates, path, ["theory", "value", "text_id"])
    theory, value = pool["theory"][0].as_py(), pool["value"][0].as_py()
    ids, folder, name = sorted(pool["text_id"].to_pylist()), path.rpartition("/")[0], f"{theory}:{value}"
    if round_ == 0:
        return PlannedRound(name, store.write_part(windows, plan_table(theory, value, ids, config.start), "000", folder), None)
    answered = pa.concat_tables([store.read_part(rankings, part) for part in store.part_paths(rankings, folder)])
    answered = answered.filter(pc.less(answered["round"], ADAPTED + round_))
    asked = np.unique(answered["window_id"].to_numpy().astype("S16"), return_index=True)[1]
    shown_WK = np.searchsorted(np.array(ids), np.array(answered["text_ids"].take(asked).to_pylist()))
    times = 2 if config.mirrored else 1
    room = (config.m * len(ids) - shown_WK.size) // (config.k * times)
    if room <= 0:
        return PlannedRound(name, None, None)
    fitted = fit(LikelihoodShard(len(ids), orders_of(answered, ids)), fitting.prior_sd, fitting.tolerance)
    error = float(np.sqrt(np.mean(fitted.standard_error_N**2)))
    reached = Precision(shown_WK.size / len(ids), error, fitted.prior_sd)
    if config.target_error and error <= config.target_error:
        return PlannedRound(name, None, reached)
    shown_NK = np.stack([np.bincount(place, minlength=len(ids)) for place in shown_WK.T], axis=1)
    rng = np.random.default_rng(int(digest(config.seed, theory, value, ids, round_), 16))
    # Best first, so a round that has less room than windows keeps the most telling ones.
    per_text = max(config.per_round // times, 1)
    if config.mode == "swiss":
        next_WK = swiss_windows(fitted.theta_N, shown_NK, per_text, rng)[:room]
    else:
        next_WK = next_windows(fitted.theta_N, fitted.root_NS, shown_NK, per_text, rng)[:room]
    if config.mirrored:
        next_WK = np.concatenate([next_WK, next_WK[:, ::-1]])
    if not len(next_WK):
        return PlannedRound(name, None, reached)
    shown = np.array(ids, dtype=object)[next_WK].tolist()
    table = windows_table(theory, value, shown, np.full(len(shown), ADAPTED + round_, np.int32))
    return PlannedRound(name, store.write_part(windows, table, f"{round_:03d}", folder), reached)
