"""Rank the windows of a plan: add their texts, call the judge, commit its answers."""

import functools
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import ray
from ray.data import Dataset

from valueflow import store
from valueflow.distributed.answer import AnswerStage, AnswerTotals, check_answers, collect_answers
from valueflow.distributed.commit import Done, pending_parts
from valueflow.distributed.texts import TextSource
from valueflow.judging.configs import AnyJudge
from valueflow.judging.tasks import RANK
from valueflow.ranking.windows import with_texts
from valueflow.store import Build, File, RankingsDetails


def read_windows(plan: Build, files: list[File], texts: TextSource, done: Done, batch_size: int) -> Dataset:
    """Return the unanswered windows of a plan's files, with their texts and the folder of their answers.

    Args:
        plan: the windows.
        files: those of its files to read.
        texts: texts by id, for each folder of the plan.
        done: the ids of answered windows.
        batch_size: windows of one batch.
    """
    read, transform = functools.partial(store.read_part, plan), functools.partial(_batches, texts=texts, batch_size=batch_size)
    return pending_parts(files, read, "window_id", done, transform)


def unanswered(windows: pa.Table, done: Done) -> Dataset:
    """Return the windows of a table that are not answered."""
    return ray.data.from_arrow(done.open_rows(windows, RANK.id_column))


def is_round_open(stage: AnswerStage, round_: int, total: int) -> bool:
    """Return whether fewer than `total` windows of the rounds up to this one are answered; later ones may be, too."""
    return stage.answered(round_ + 1) < total


def in_folder(table: pa.Table, folder: str) -> pa.Table:
    """Return the questions with a column `folder`: where in the build their answers are written."""
    return table.append_column("folder", pa.array([folder] * table.num_rows, pa.string()))


def _batches(windows: pa.Table, folder: str, texts: TextSource, batch_size: int) -> Iterator[pa.Table]:
    for start in range(0, windows.num_rows, batch_size):
        yield in_folder(with_texts(windows.slice(start, batch_size), texts(folder)), folder)


def rank(
    plan: Build, texts: TextSource, judge: AnyJudge, out: Build, max_error_share: float, settings: dict[str, Any],
    what: str = "rank",
) -> store.Manifest:  # fmt: skip
    """Return the manifest of the answered plan; a finished build is returned as it is, an unfinished one is continued.

    Args:
        plan: a finished build of windows.
        texts: texts by id, for each folder of the plan.
        judge: the judge.
        out: the build of rankings.
        max_error_share: share of windows without a valid order above which the job fails.
        settings: fields of `RankingsDetails` beside the totals.
        what: the stage, in messages.

    Raises:
        InputError: the share of failed windows exceeds `max_error_share`, or the judge's budget is spent. The answers are kept.
    """
    finished = store.finished_manifest(out, what, "windows")
    if finished:
        return finished
    windows = store.require_manifest(plan)
    total = windows.num_rows
    stage = AnswerStage(out, RANK, max_error_share, total)
    collect_answers(judge, stage, lambda done: read_windows(plan, windows.files, texts, done, judge.batch_size), total, what)
    totals = check_answers(stage, total, max_error_share, what)
    details = rankings_details(totals, timeline=stage.timeline(), **settings)
    return store.commit(out, details, [plan], stage.finish())


def rankings_details(totals: AnswerTotals, **settings: Any) -> RankingsDetails:
    """Return the details of answered windows: their totals, and other fields of the record by name."""
    return RankingsDetails(
        **settings, windows=totals.questions, errors=totals.errors, tokens_in=totals.tokens_in, tokens_out=totals.tokens_out,
        truncated=totals.truncated,
    )  # fmt: skip
