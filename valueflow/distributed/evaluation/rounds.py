"""The rounds of an evaluation: plan windows among anchors, rank them, and rebuild posteriors from the stored answers.

Nothing is kept between rounds but the committed answers. Each task rebuilds the `Scoring` of its chunk from them, so a killed
evaluation resumes with the same windows and ends with the same scores.
"""

import functools
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import ray
from ray.data import Dataset

from valueflow import store, vidb
from valueflow.distributed.answer import AnswerStage, collect_answers
from valueflow.distributed.cluster import stage_tasks
from valueflow.distributed.commit import Done
from valueflow.distributed.rank import in_folder, is_round_open
from valueflow.distributed.texts import TextSource
from valueflow.distributed.warm_pools import warm_pools
from valueflow.errors import InputError
from valueflow.evaluation.scoring import EvaluatorConfig, Scoring, estimate_sharpness, is_alone
from valueflow.judging.configs import AnyJudge
from valueflow.judging.fingerprint import fingerprint
from valueflow.judging.kind import Relevance
from valueflow.judging.tasks import RANK
from valueflow.ranking.content_error import ContentError
from valueflow.ranking.windows import with_texts
from valueflow.records import ValueId
from valueflow.store import Build
from valueflow.vidb.version import Anchors, Vidb

log = logging.getLogger(__name__)
SHARPNESS_CHUNKS = 20  # chunks of a value whose first round estimates the judge's sharpness


class EvaluationChunk(NamedTuple):
    """Some distinct texts and one value: the unit that a task plans and scores."""

    value: ValueId
    number: int
    text_ids: list[str]

    @property
    def folder(self) -> str:
        """Where the chunk's rankings and scores lie in their builds."""
        return f"{store.value_folder(self.value)}/chunk={self.number:05d}"


class Evaluation(NamedTuple):
    """What every task of an evaluation needs."""

    version: Vidb  # whose anchors the texts are compared with
    texts: TextSource  # of chunks and anchors
    rankings: Build  # the answers
    config: EvaluatorConfig
    content_errors: Mapping[ValueId, ContentError] = {}  # of the judge, by value; those of the version where there is none
    relevance: Relevance = "none"  # whether the judge is asked how far the texts concern the values

    def windows(self, chunks: Sequence[EvaluationChunk], rounds: int) -> int:
        """Return the number of windows of the first rounds; those of the relevance are in the first."""
        return (rounds + (self.relevance != "none")) * sum(len(chunk.text_ids) for chunk in chunks)


def rank_chunks(
    evaluation: Evaluation, judge: AnyJudge, chunks: list[EvaluationChunk], max_error_share: float, stage: str,
    lost_setting: str = "",
) -> tuple[dict[ValueId, float], AnswerStage]:  # fmt: skip
    """Answer the windows of all rounds, and return the judge's sharpness by value and the answers.

    `max_error_share` and `lost_setting` are those of `AnswerStage`.

    Where the sharpness is not known, it is estimated from the first round and fixed from then on.

    Raises:
        InputError: the sharpness must be estimated but windows of 2 cannot tell it; too many windows of all rounds failed; or
            what the judge refuses.
    """
    config = evaluation.config
    values = sorted({chunk.value for chunk in chunks})
    stored = {value: stored_sharpness(evaluation, fingerprint(judge), value) for value in values}
    if None in stored.values() and config.k == 2:
        raise InputError(
            "evaluator.k (2) shows one anchor per window, too few to estimate the sharpness of a judge that did not build this "
            "VIDB; set evaluator.k to 3 or more, or evaluator.sharpness to the judge's nats per unit of theta"
        )
    sharpness = {value: beta or 1.0 for value, beta in stored.items()}
    total = evaluation.windows(chunks, config.m)
    answers = AnswerStage(evaluation.rankings, RANK, max_error_share, total, lost_setting=lost_setting)
    with warm_pools([judge], RANK):
        for round_ in range(config.m):
            questions = functools.partial(_questions, evaluation, chunks, round_, sharpness)
            total = evaluation.windows(chunks, round_ + 1)
            what = f"{stage} round {round_ + 1}/{config.m}"
            is_open = functools.partial(is_round_open, answers, round_, total)
            collect_answers(judge, answers, questions, total, what, is_open)
            if round_ == 0 and None in stored.values():
                sharpness = {value: beta or first_round_sharpness(evaluation, chunks, value) for value, beta in stored.items()}
                log.info("judge sharpness, nats per unit of theta: %s", {v: round(s, 3) for v, s in sharpness.items()})
    return sharpness, answers


def stored_sharpness(evaluation: Evaluation, judge_fingerprint: str, value: ValueId) -> float | None:
    """Return the configured sharpness, or that of a judge that built the version; None where it must be estimated."""
    return evaluation.config.sharpness or evaluation.version.sharpness(judge_fingerprint, value)


def first_round_sharpness(evaluation: Evaluation, chunks: Sequence[EvaluationChunk], value: ValueId) -> float:
    """Return the maximum-likelihood sharpness of the judge from how it ordered anchors in the first round of a value."""
    theta_windows, orders = [], []
    for chunk in [chunk for chunk in chunks if chunk.value == value][:SHARPNESS_CHUNKS]:
        scoring, answers = scoring_after(evaluation, chunk, 1.0, 1)
        theta = dict(zip(scoring.anchors.text_ids, scoring.anchors.theta_A, strict=True))
        for unit, row in answers:
            if row["order"] is not None:
                response = chunk.text_ids[unit]
                theta_windows.append(np.array([np.nan if i == response else theta[i] for i in row["text_ids"]]))
                orders.append(row["order"])
    return estimate_sharpness(theta_windows, orders)


def scoring_after(
    evaluation: Evaluation, chunk: EvaluationChunk, sharpness: float, rounds: int
) -> tuple[Scoring, list[tuple[int, dict[str, Any]]]]:
    """Rebuild the scoring of a chunk from the stored answers of its first rounds; also return these answers.

    Returns:
        The scoring, and each answered window of several texts once: the index of its text in the chunk, and the row of
        `rankings`.
    """
    version = evaluation.version.build
    anchors = _anchors(version.root, version.build_id, chunk.value, bool(evaluation.config.neutral_share))
    anchors = anchors._replace(content_error=evaluation.content_errors.get(chunk.value, anchors.content_error))
    scoring = Scoring(anchors, chunk.text_ids, sharpness, evaluation.config, evaluation.relevance)
    unit_of = scoring.window_ids(rounds)
    paths = store.part_paths(evaluation.rankings, chunk.folder)
    rows = {row["window_id"]: row for path in paths for row in store.read_part(evaluation.rankings, path).to_pylist()}
    answers = [(unit_of[window_id], row) for window_id, row in rows.items() if window_id in unit_of]
    scoring.take(answers)
    return scoring, [(unit, row) for unit, row in answers if not is_alone(row)]


@functools.lru_cache(maxsize=64)
def _anchors(root: str, version: str, value: str, with_neutral: bool) -> Anchors:
    """Kept per worker process: every chunk of a value needs them."""
    return vidb.load(root, version).anchors(value, with_neutral)


def _questions(
    evaluation: Evaluation, chunks: list[EvaluationChunk], round_: int, sharpness: dict[ValueId, float], done: Done
) -> Dataset:
    """The windows of a round that are not answered yet, with their texts."""
    return ray.data.from_items([chunk._asdict() for chunk in chunks], override_num_blocks=len(chunks)).map_batches(
        _plan_chunk,
        fn_kwargs={"evaluation": evaluation, "round_": round_, "sharpness": sharpness, "done": done},
        batch_size=1,
        batch_format="pyarrow",
        **stage_tasks(),
    )


def _plan_chunk(
    batch: pa.Table, evaluation: Evaluation, round_: int, sharpness: dict[ValueId, float], done: Done
) -> Iterator[pa.Table]:
    for row in batch.to_pylist():
        chunk = EvaluationChunk(ValueId(row["value"]), row["number"], row["text_ids"])
        scoring, _ = scoring_after(evaluation, chunk, sharpness[chunk.value], round_)
        windows = done.open_rows(scoring.plan(round_), RANK.id_column, chunk.folder)
        if windows.num_rows:
            yield in_folder(with_texts(windows, evaluation.texts(chunk.folder)), chunk.folder)
