"""Rank the windows of a plan: add their texts, call the judge, commit its answers."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any, Protocol

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


class Follower(Protocol):
    """Sees the answers of a judge as they come."""

    def follow(self, journal: store.Journal) -> None:
        """Look at the answers, now and whenever the journal grows."""

    def follow_finished(self, files: list[File]) -> None:
        """Take over answers that were finished before."""

    def settled(self) -> contextlib.AbstractContextManager[None]:
        """Change nothing in the build within; the answers are finished then."""


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
    what: str = "rank", follower: Follower | None = None,
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
        follower: sees the answers as they come.

    Raises:
        InputError: the share of failed windows exceeds `max_error_share`, or the judge's budget is spent. The answers are kept.
    """
    finished = store.finished_manifest(out, what, "windows")
    if finished:
        if follower:
            follower.follow_finished(finished.files)
        return finished
    windows = store.require_manifest(plan)
    total = windows.num_rows
    stage = AnswerStage(out, RANK, max_error_share, total)
    if follower:
        follower.follow(stage.journal)
    collect_answers(judge, stage, lambda done: read_windows(plan, windows.files, texts, done, judge.batch_size), total, what)
    with follower.settled() if follower else contextlib.nullcontext():
        totals = check_answers(stage, total, max_error_share, what)
        details = rankings_details(totals, timeline=stage.timeline(), **settings)
        return store.commit(out, details, [plan], stage.finish())


def rankings_details(totals: AnswerTotals, **settings: Any) -> RankingsDetails:
    """Return the details of answered windows: their totals, and other fields of the record by name."""
    return RankingsDetails(
        **settings, windows=totals.questions, errors=totals.errors, tokens_in=totals.tokens_in, tokens_out=totals.tokens_out,
        truncated=totals.truncated,
    )  # fmt: skip
