"""Add texts to a published version: they meet its texts as a response would, and only they and the texts they met are refitted.

The scale of the version stays: its calibration, and its thetas as priors of the texts that the new ones met.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from valueflow import store
from valueflow.distributed.build.aggregate import AggregateConfig
from valueflow.distributed.answer import check_answers
from valueflow.distributed.cluster import gather
from valueflow.distributed.evaluate import ResponseChunk, ask_rounds
from valueflow.distributed.build.rank import rankings_details
from valueflow.errors import InputError
from valueflow.evaluation.scoring import EvaluatorConfig, check_anchors
from valueflow.judging.configs import AnyJudge
from valueflow.judging.fingerprint import fingerprint
from valueflow.judging.tasks import RANK
from valueflow.ranking.plackett_luce import Fit, Known, fit
from valueflow.ranking.orders import orders_of
from valueflow.ranking.likelihood import LikelihoodShard
from valueflow.ranking.windows import WindowsConfig
from valueflow.records import SCHEMAS, conform, digest
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
        raise InputError(f"version {base.build.build_id} was built by several judges; extend asks one. Build a version anew")
    if base.judge_fingerprint != fingerprint(judge):
        raise InputError(
            f"version {base.build.build_id} was built by judge {base.details.judge!r} "
            f"({base.judge_fingerprint}), not by {judge.name!r} ({fingerprint(judge)}): new texts would be on another scale. "
            "Give the version's judge with all its settings, or build a version anew"
        )


def evaluator_config(config: WindowsConfig) -> EvaluatorConfig:
    """Return how a new text meets texts of the version: m windows of k - 1 of them, chosen by what is known of it so far."""
    return EvaluatorConfig(k=config.k, m=config.m, sampling="adaptive", seed=config.seed)


def new_texts(base: Vidb, candidates: Build) -> list[ResponseChunk]:
    """Return the texts of the pools that the version lacks, in chunks.

    Raises:
        InputError: it lacks none.
    """
    chunks = []
    for value in base.calibrations:
        folder = store.value_folder(value)
        old = store.read_table(base.build, ["text_id"], folder)["text_id"]
        pool = store.read_table(candidates, ["text_id"], folder)["text_id"]
        new = sorted(pool.filter(pc.invert(pc.is_in(pool, old.combine_chunks()))).to_pylist())
        chunks += [ResponseChunk(value, at // CHUNK, new[at : at + CHUNK]) for at in range(0, len(new), CHUNK)]
    if not chunks:
        raise InputError(f"version {base.build.build_id} holds every text of these pools already; there is nothing to add")
    return chunks


def rank_new(
    base: Vidb, candidates: Build, config: WindowsConfig, judge: AnyJudge, rankings: Build, max_error_share: float,
    described: dict,
) -> store.Manifest:  # fmt: skip
    """Return the manifest of the answers about the new texts; a finished build is returned as it is.

    Raises:
        InputError: nothing is new, too few texts in the version, too many windows without an order, or a spent budget.
    """
    finished = store.finished_manifest(rankings, "rank", "windows")
    if finished:
        return finished
    chunks = new_texts(base, candidates)
    for value in sorted({chunk.value for chunk in chunks}):
        check_anchors(base.anchors(value), evaluator_config(config))
    ask_rounds(evaluator_config(config), judge, base, candidates, chunks, rankings, "rank")
    asked = check_answers(rankings, RANK, config.m * sum(len(chunk.text_ids) for chunk in chunks), max_error_share, "rank")
    return store.commit(rankings, rankings_details(asked, **described), [base.build, candidates])


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
    waiting = [task.remote(base, value, fits[value].prior_sd, rankings, config, out) for value in base.calibrations]
    written = []
    for value, file, numbers in gather("aggregate", waiting):
        written.append(file)
        # Spread and checks are those of the version; the rest says what was fitted now.
        more = numbers | {"num_windows": fits[value].num_windows + numbers.get("num_windows", 0)}
        fits[value] = fits[value].model_copy(update=more)
    details = UtilitiesDetails(settings=config.model_dump(), extends=base.build.build_id, fits=fits)
    return store.commit(out, details, [base.build, rankings], written)


def refit_value(
    base: Vidb, value: str, spread: float, rankings: Build, config: AggregateConfig, out: Build
) -> tuple[str, File, dict]:
    """Write the utilities of one value, the old texts' as they are but for those that new ones met; return what was fitted."""
    folder = store.value_folder(value)
    old = store.read_table(base.build, SCHEMAS["utilities"].names, folder).sort_by("text_id")
    parts = store.part_paths(rankings, folder)
    rows, numbers = old, {}
    if parts:
        answered = pa.concat_tables([store.read_part(rankings, part) for part in parts])
        ids, fitted = refitted(old, answered, spread, config.tolerance)
        rows = joined(old, value, ids, fitted)
        numbers = {name: getattr(fitted, name) for name in ("iterations", "gradient_norm", "log_likelihood")}
        numbers["num_windows"] = answered.num_rows
    return value, store.write_part(out, conform(rows, "utilities"), digest(folder), folder), numbers


def refitted(old: pa.Table, answered: pa.Table, spread: float, tolerance: float) -> tuple[list[str], Fit]:
    """Return the ids in the windows and their fit: old texts begin from what is known of them, new ones from N(0, spread^2).

    Old texts' errors are taken as independent; texts of which much is known hardly move.
    """
    ids = sorted(set(pc.list_flatten(answered["text_ids"]).to_pylist()))
    index = {i: n for n, i in enumerate(ids)}
    known = np.full((2, len(ids)), np.nan)
    for text_id, *belief in zip(*(old[name].to_pylist() for name in ("text_id", "theta", "standard_error")), strict=True):
        if text_id in index:
            known[:, index[text_id]] = belief
    return ids, fit(LikelihoodShard(len(ids), orders_of(answered, ids)), spread, tolerance, Known(*known))


def joined(old: pa.Table, value: str, ids: list[str], fitted: Fit) -> pa.Table:
    """Return the old rows, those in `ids` as fitted anew, and rows for the ids that are not among them."""
    theory, _, node = value.partition(":")
    found = {i: n for n, i in enumerate(ids)}
    windows_N, wins_N = np.rint(fitted.counts.num_windows_N).astype(int), fitted.counts.wins_N
    rows = []
    for row in old.to_pylist():
        n = found.pop(row["text_id"], None)
        if n is not None:
            row |= {"theta": fitted.theta_N[n], "standard_error": fitted.standard_error_N[n]}
            row |= {"num_windows": row["num_windows"] + windows_N[n], "wins": row["wins"] + wins_N[n]}
        rows.append(row)
    for text_id, n in found.items():
        rows.append(
            {
                "theory": theory, "value": node, "text_id": text_id, "theta": fitted.theta_N[n],
                "standard_error": fitted.standard_error_N[n], "num_windows": windows_N[n], "wins": wins_N[n], "component": 0,
            }
        )  # fmt: skip
    return pa.Table.from_pylist(rows)
