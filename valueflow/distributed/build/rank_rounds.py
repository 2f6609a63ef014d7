"""Rank in adaptive rounds of plan, judge and fit, until every value is known precisely enough or its windows are used up."""

import functools
import itertools
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.data import Dataset

from valueflow import store
from valueflow.distributed.answer import AnswerStage, check_answers, collect_answers
from valueflow.distributed.build.aggregate import AggregateConfig
from valueflow.distributed.cluster import completed_results
from valueflow.distributed.commit import Done
from valueflow.distributed.rank import is_round_open, rank, rankings_details, read_windows
from valueflow.distributed.texts import ValueTexts
from valueflow.distributed.warm_pools import warm_pools
from valueflow.errors import DamageError
from valueflow.judging.configs import AnyJudge
from valueflow.judging.tasks import RANK
from valueflow.ranking.adaptive import next_windows, swiss_windows
from valueflow.ranking.likelihood import LikelihoodShard
from valueflow.ranking.orders import orders_of
from valueflow.ranking.plackett_luce import fit
from valueflow.ranking.windows import FIRST_ADAPTIVE_ROUND, WindowsConfig, plan_table, windows_table
from valueflow.records import ValueId, digest
from valueflow.store import Build, File, WindowsDetails


class Precision(NamedTuple):
    """How precisely a value's texts were known before a round."""

    windows_per_text: float
    error: float  # root mean square standard error of theta, nats
    spread: float  # standard deviation of theta, nats


class PlannedRound(NamedTuple):
    """One value in a round: the file of its windows, None where it is done; its precision, None where no fit was needed."""

    value: ValueId
    file: File | None
    precision: Precision | None


def rank_in_rounds(
    candidates: Build, config: WindowsConfig, fit_config: AggregateConfig, judge: AnyJudge, windows: Build, rankings: Build,
    max_error_share: float, settings: dict[str, Any],
) -> store.Manifest:  # fmt: skip
    """Return the manifest of the answers; plan and answers grow together, a finished build is returned as it is.

    A round is planned once everything before it is answered, and follows from those answers alone: a rerun continues in the
    round that was interrupted and asks what the uninterrupted run would have asked. A round that was planned stays as it is,
    though a rerun may get answers of earlier rounds that were lost: its own answers may have been paid for.

    Args:
        candidates: the texts of each value.
        config: how windows are planned.
        fit_config: how a round's answers are fitted.
        judge: the judge.
        windows: the build of the plan.
        rankings: the build of the answers.
        max_error_share: share of windows without a valid order above which the job fails.
        settings: fields of `RankingsDetails` beside the totals.

    Raises:
        InputError: too many failed windows, too few texts, or a spent budget. The answers are kept.
        NotConverged: a round's fit missed its tolerance.
    """
    if store.reusable(windows):  # then the rounds are over, and what is missing are answers that were lost
        return rank(windows, ValueTexts((candidates,)), judge, rankings, max_error_share, settings)
    finished = store.finished_manifest(rankings, "rank", "windows")
    pools = store.require_manifest(candidates).files
    task = ray.remote(plan_round).options(num_cpus=1)
    stage = AnswerStage(rankings, RANK, max_error_share, 0)
    total = 0
    progress: dict[str, list[Precision]] = {}
    with warm_pools([judge], RANK):
        for round_ in itertools.count():
            tasks = [task.remote(candidates, pool.path, config, fit_config, windows, rankings, round_) for pool in pools]
            planned = sorted(PlannedRound(*result) for result in completed_results(f"plan round {round_ + 1}", tasks))
            for value, _, precision in planned:
                progress.setdefault(value, []).extend([Precision(*precision)] if precision else [])
            files = [file for _, file, _ in planned if file is not None]
            if not files:
                break
            total += sum(file.rows for file in files)
            questions = functools.partial(_questions, windows, files, candidates, judge.batch_size)
            is_open = functools.partial(is_round_open, stage, FIRST_ADAPTIVE_ROUND + round_, total)
            stage.limit = stage.limit._replace(total=total)
            collect_answers(judge, stage, questions, total, f"rank round {round_ + 1}", is_open)
            if stage.answered() <= total:  # else an earlier run has answered later rounds
                totals = check_answers(stage, total, max_error_share, f"rank round {round_ + 1}")
    store.commit(windows, WindowsDetails(settings=config.public(), windows=total, progress=progress), [candidates])
    details = rankings_details(totals, timeline=stage.timeline(), **settings)
    return finished or store.commit(rankings, details, [windows], stage.finish())


def _questions(windows: Build, files: list[File], candidates: Build, batch_size: int, done: Done) -> Dataset:
    return read_windows(windows, files, ValueTexts((candidates,)), done, batch_size)


def plan_round(
    candidates: Build, path: str, config: WindowsConfig, fit_config: AggregateConfig, windows: Build, rankings: Build,
    round_: int,
) -> PlannedRound:  # fmt: skip
    """Write one value's windows of a round."""
    pool = store.read_part(candidates, path, ["theory", "value", "text_id"])
    value = ValueId.of(pool["theory"][0].as_py(), pool["value"][0].as_py())
    ids, folder = sorted(pool["text_id"].to_pylist()), path.rpartition("/")[0]
    if round_ == 0:
        first = plan_table(value.theory, value.node, ids, config.start)
        return PlannedRound(value, store.write_part(windows, first, "000", folder), None)
    answers = pa.concat_tables([store.read_part(rankings, part) for part in store.part_paths(rankings, folder)])
    answers = answers.filter(pc.less(answers["round"], FIRST_ADAPTIVE_ROUND + round_))
    distinct = np.unique(answers["window_id"].to_numpy().astype("S16"), return_index=True)[1]
    answered_WK = np.searchsorted(np.array(ids), np.array(answers["text_ids"].take(distinct).to_pylist()))
    copies = 2 if config.mirrored else 1
    remaining = (config.m * len(ids) - answered_WK.size) // (config.k * copies)
    if remaining <= 0:
        return PlannedRound(value, None, None)
    fitted = fit(LikelihoodShard(len(ids), orders_of(answers, ids)), fit_config.prior_sd, fit_config.tolerance)
    error = float(np.sqrt(np.mean(fitted.standard_error_N**2)))
    precision = Precision(answered_WK.size / len(ids), error, fitted.prior_sd)
    planned = _planned(windows, f"{folder}/part-{round_:03d}.parquet", folder)
    if planned is not None:
        return PlannedRound(value, store.write_part(windows, planned, f"{round_:03d}", folder), precision)
    if config.target_error and error <= config.target_error:
        return PlannedRound(value, None, precision)
    # How often each text was shown at each position.
    times_NK = np.stack([np.bincount(at_position, minlength=len(ids)) for at_position in answered_WK.T], axis=1)
    rng = np.random.default_rng(int(digest(config.seed, value.theory, value.node, ids, round_), 16))
    # Best first, so a round that has less room than windows keeps the most informative ones.
    per_text = max(config.per_round // copies, 1)
    if config.mode == "swiss":
        next_WK = swiss_windows(fitted.theta_N, times_NK, per_text, rng)[:remaining]
    else:
        next_WK = next_windows(fitted.theta_N, fitted.root_NS, times_NK, per_text, rng)[:remaining]
    if config.mirrored:
        next_WK = np.concatenate([next_WK, next_WK[:, ::-1]])
    if not len(next_WK):
        return PlannedRound(value, None, precision)
    text_ids = np.array(ids, dtype=object)[next_WK].tolist()
    table = windows_table(value.theory, value.node, text_ids, np.full(len(text_ids), FIRST_ADAPTIVE_ROUND + round_, np.int32))
    return PlannedRound(value, store.write_part(windows, table, f"{round_:03d}", folder), precision)


def _planned(windows: Build, path: str, folder: str) -> pa.Table | None:
    """The windows of a round that an earlier run planned; None where there are none, or where they are damaged."""
    try:
        return store.read_part(windows, path) if path in store.part_paths(windows, folder) else None
    except DamageError:
        return None
