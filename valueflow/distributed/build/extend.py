"""Add texts to a published version: they are compared with its texts like responses, and only windows with them are fitted.

The scale of the version stays: its calibration, and its thetas as priors of the texts that the new ones met.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from valueflow import store
from valueflow.distributed.answer import check_answers
from valueflow.distributed.build.aggregate import AggregateConfig
from valueflow.distributed.cluster import completed_results
from valueflow.distributed.evaluation.rounds import Evaluation, EvaluationChunk, rank_chunks
from valueflow.distributed.rank import rankings_details
from valueflow.distributed.texts import ValueTexts
from valueflow.errors import InputError
from valueflow.evaluation.scoring import EvaluatorConfig, check_anchors
from valueflow.judging.configs import AnyJudge
from valueflow.judging.fingerprint import fingerprint
from valueflow.ranking.likelihood import LikelihoodShard
from valueflow.ranking.orders import orders_of
from valueflow.ranking.plackett_luce import Fit, fit
from valueflow.ranking.prior import ItemPriors
from valueflow.ranking.windows import WindowsConfig
from valueflow.records import SCHEMAS, ValueId, conform, digest
from valueflow.store import Build, File, UtilitiesDetails
from valueflow.vidb.version import Vidb

CHUNK = 500  # new texts of a value planned by one task


def check_base(base: Vidb, judge: AnyJudge) -> None:
    """Refuse a version whose scale this judge does not share.

    Raises:
        InputError: the version was imported, or another judge built it.
    """
    if not base.judge_fingerprint:
        raise InputError(f"version {base.build.build_id} was imported: its judge's scale is unknown; build one to extend it")
    if len(base.details.judges) > 1:
        raise InputError(
            f"version {base.build.build_id} was built by several judges; extend takes one judge. Build a new version"
        )
    if base.judge_fingerprint != fingerprint(judge):
        raise InputError(
            f"version {base.build.build_id} was built by judge {base.details.judge!r} "
            f"({base.judge_fingerprint}), not by {judge.name!r} ({fingerprint(judge)}): new texts would be on another scale. "
            "Configure the version's judge with all its settings, or build a new version"
        )


def evaluator_config(config: WindowsConfig) -> EvaluatorConfig:
    """Return how a new text is compared with texts of the version: m windows with k - 1 of them, chosen adaptively."""
    return EvaluatorConfig(k=config.k, m=config.m, sampling="adaptive", seed=config.seed)


def new_texts(base: Vidb, candidates: Build) -> list[EvaluationChunk]:
    """Return the candidates that the version lacks, in chunks.

    Raises:
        InputError: it lacks none.
    """
    chunks = []
    for value in base.calibrations:
        folder = store.value_folder(value)
        old = store.read_table(base.build, ["text_id"], folder)["text_id"]
        pool = store.read_table(candidates, ["text_id"], folder)["text_id"]
        new = sorted(pool.filter(pc.invert(pc.is_in(pool, old.combine_chunks()))).to_pylist())
        chunks += [EvaluationChunk(value, at // CHUNK, new[at : at + CHUNK]) for at in range(0, len(new), CHUNK)]
    if not chunks:
        raise InputError(f"version {base.build.build_id} already holds all candidates; there is nothing to add")
    return chunks


def rank_new(
    base: Vidb, candidates: Build, config: WindowsConfig, judge: AnyJudge, rankings: Build, max_error_share: float,
    settings: dict[str, Any],
) -> store.Manifest:  # fmt: skip
    """Return the manifest of the answers about the new texts; a finished build is returned as it is.

    Raises:
        InputError: nothing is new, the version has too few texts, too many windows failed, or the budget is spent.
    """
    finished = store.finished_manifest(rankings, "rank", "windows")
    if finished:
        return finished
    chunks = new_texts(base, candidates)
    for value in sorted({chunk.value for chunk in chunks}):
        check_anchors(base.anchors(value), evaluator_config(config))
    texts = ValueTexts((base.build, candidates))
    evaluation = Evaluation(base, texts, rankings, evaluator_config(config))
    _, answers = rank_chunks(evaluation, judge, chunks, max_error_share, "rank")
    total = config.m * sum(len(chunk.text_ids) for chunk in chunks)
    totals = check_answers(answers, total, max_error_share, "rank")
    details = rankings_details(totals, timeline=answers.timeline(), **settings)
    return store.commit(rankings, details, [base.build, candidates], answers.finish())


def refit(base: Vidb, rankings: Build, config: AggregateConfig, out: Build) -> store.Manifest:
    """Return the manifest of the utilities of all texts, old and new.

    Raises:
        NotConverged: a value's fit missed its tolerance; nothing is committed.
    """
    finished = store.finished_manifest(out, "aggregate", "utilities")
    if finished:
        return finished
    utilities = Build(base.build.root, "utilities", base.details.builds["utilities"])
    fits = store.details_of(utilities, UtilitiesDetails).fits
    task = ray.remote(refit_value).options(num_cpus=1)
    tasks = [task.remote(base, value, fits[value].prior_sd, rankings, config, out) for value in base.calibrations]
    files = []
    for value, file, numbers in completed_results("aggregate", tasks):
        files.append(file)
        # The prior and the model checks are those of the version; the other numbers are of the new fit.
        num_windows = fits[value].num_windows + numbers.get("num_windows", 0)
        fits[value] = fits[value].model_copy(update=numbers | {"num_windows": num_windows})
    details = UtilitiesDetails(settings=config.public(), extends=base.build.build_id, fits=fits)
    return store.commit(out, details, [base.build, rankings], files)


def refit_value(
    base: Vidb, value: ValueId, prior_sd: float, rankings: Build, config: AggregateConfig, out: Build
) -> tuple[ValueId, File, dict[str, Any]]:
    """Write the utilities of one value, and return the numbers of the fit; old texts without new windows stay as they are."""
    folder = store.value_folder(value)
    old = store.read_table(base.build, SCHEMAS["utilities"].names, folder).sort_by("text_id")
    parts = store.part_paths(rankings, folder)
    rows: pa.Table = old
    numbers: dict[str, Any] = {}
    if parts:
        answers = pa.concat_tables([store.read_part(rankings, part) for part in parts])
        ids, fitted = refit_texts(old, answers, prior_sd, config.tolerance)
        rows = merge_fit(old, value, ids, fitted)
        numbers = {name: getattr(fitted, name) for name in ("iterations", "gradient_norm", "log_likelihood")}
        numbers["num_windows"] = answers.num_rows
    return value, store.write_part(out, conform(rows, "utilities"), digest(folder), folder), numbers


def refit_texts(old: pa.Table, answers: pa.Table, prior_sd: float, tolerance: float) -> tuple[list[str], Fit]:
    """Return the ids in the windows and their fit.

    The prior of an old text is its theta and standard error (errors are taken as independent, so texts with many windows hardly
    move), that of a new text N(0, prior_sd^2).
    """
    ids = sorted(set(pc.list_flatten(answers["text_ids"]).to_pylist()))
    index = {text_id: n for n, text_id in enumerate(ids)}
    prior_2N = np.full((2, len(ids)), np.nan)
    for text_id, *prior in zip(*(old[name].to_pylist() for name in ("text_id", "theta", "standard_error")), strict=True):
        if text_id in index:
            prior_2N[:, index[text_id]] = prior
    return ids, fit(LikelihoodShard(len(ids), orders_of(answers, ids)), prior_sd, tolerance, ItemPriors(*prior_2N))


def merge_fit(old: pa.Table, value: ValueId, ids: list[str], fitted: Fit) -> pa.Table:
    """Return the old rows with the new fit of those in `ids`, and rows of the ids that the old ones lack."""
    index = {text_id: n for n, text_id in enumerate(ids)}
    windows_N, wins_N = np.rint(fitted.counts.num_windows_N).astype(int), fitted.counts.wins_N
    rows = []
    for row in old.to_pylist():
        n = index.pop(row["text_id"], None)
        if n is not None:
            row |= {"theta": fitted.theta_N[n], "standard_error": fitted.standard_error_N[n]}
            row |= {"num_windows": row["num_windows"] + windows_N[n], "wins": row["wins"] + wins_N[n]}
        rows.append(row)
    for text_id, n in index.items():
        rows.append(
            {
                "theory": value.theory, "value": value.node, "text_id": text_id, "theta": fitted.theta_N[n],
                "standard_error": fitted.standard_error_N[n], "num_windows": windows_N[n], "wins": wins_N[n], "component": 0,
            }
        )  # fmt: skip
    return pa.Table.from_pylist(rows)
