"""Collect the answers of a judge or namer to all questions of a plan: commit each batch, resume an earlier run."""

import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.data import Dataset

from valueflow import store
from valueflow.distributed.cluster import Progress
from valueflow.distributed.commit import commit_batches
from valueflow.distributed.error_limit import ErrorLimit, error_limit
from valueflow.distributed.judge import answerer, from_call_cache
from valueflow.errors import BudgetSpent, TooManyErrors
from valueflow.judging.configs import AnyJudge
from valueflow.llm.configs import LlmModel
from valueflow.llm.cost import cost_summary
from valueflow.llm.question import Task
from valueflow.prompts.render import truncation
from valueflow.store import Build

log = logging.getLogger(__name__)
Questions = Callable[["ray.ObjectRef"], Dataset]
IsOpen = Callable[[], bool]


class AnswerTotals(NamedTuple):
    """Totals over all questions of a build, earlier runs included."""

    questions: int
    errors: int
    tokens_in: int
    tokens_out: int
    truncated: int  # texts


def resume_answers(out: Build, task: Task, max_error_share: float, total: int) -> ErrorLimit:
    """Prepare a build for the answers of a stage, once before its first round, and return the limit of its errors.

    Questions that got no answer and cost nothing in an earlier run are open again; a finished build stays as it is.

    Args:
        out: build to which answers are committed; may hold some already.
        task: type of question.
        max_error_share: share of questions without a valid answer above which the stage fails.
        total: questions of all rounds of the stage.
    """
    store.drop_unanswered(out)
    errors = _count(out, task)[0].errors if max_error_share < 1 else 0
    return error_limit(max_error_share, total, errors)


def collect_answers(
    config: AnyJudge, task: Task, questions: Questions, out: Build, total: int, what: str, limit: ErrorLimit,
    is_open: IsOpen | None = None,
) -> None:  # fmt: skip
    """Answer the open questions of a plan: from the call cache first, then by the judge.

    Args:
        config: judge, voter or namer.
        task: type of question.
        questions: the plan's rows without those whose ids are in the array behind the reference.
        out: build to which answers are committed; may hold some already.
        total: number of answers in `out` at the end, those of earlier rounds included.
        what: name of the stage in messages.
        limit: of the stage's errors, earlier rounds included. Once it is exceeded, no further question is put; what is in
            flight is answered and kept.
        is_open: whether a question of this round has no answer yet, for builds that may hold answers of later rounds; by
            default, whether `out` holds fewer than `total`.

    Raises:
        TooManyErrors: the limit is exceeded.
        BudgetSpent: the judge's budget is spent; a rerun with a larger one continues.
    """

    def has_open(done: np.ndarray) -> bool:
        return is_open() if is_open else len(done) < total

    done = store.committed_ids(out, task.id_column)
    progress = Progress(what, total, len(done))
    if len(done) >= total and not has_open(done):
        return
    limit = limit._replace(total=max(limit.total, len(done)))  # an earlier run may have answered later rounds
    _check_limit(limit, out, task, what)
    model = config if isinstance(config, LlmModel) else None
    truncated = len(truncated_texts(out)) if model else 0
    started = time.monotonic()
    cache = store.cache_url(out.root)
    replay = from_call_cache(config, task, cache, limit)
    if replay:
        commit_batches(replay(questions(ray.put(done))), out, task.id_column, progress)
        done = store.committed_ids(out, task.id_column)
        _check_limit(limit, out, task, what)
    if not replay or has_open(done):
        answers = answerer(config, task, cache, _spent(config, out), limit)(questions(ray.put(done)))
        commit_batches(answers, out, task.id_column, progress)
    spent = _spent(config, out)
    log.info("%s: %s", what, cost_summary(total, *spent, time.monotonic() - started, model))
    if model and (now := len(truncated_texts(out))) > truncated:
        log.warning("%s: %s", what, truncation(now, model.name, model.max_chars))
    _check_limit(limit, out, task, what)
    if isinstance(config, LlmModel):
        budget = config.spending_limit
        if (budget.tokens or budget.money) and has_open(store.committed_ids(out, task.id_column)):
            raise _budget_spent(config, out, task, total, what, spent)


def check_answers(out: Build, task: Task, total: int, max_error_share: float, what: str) -> AnswerTotals:
    """Return the totals of an answered build, with each question once.

    Raises:
        TooManyErrors: too many questions have no valid answer.
    """
    totals, rows, reasons = _count(out, task)
    if rows > totals.questions:  # two attempts answered some questions
        store.drop_duplicates(out, task.id_column)
        totals, rows, reasons = _count(out, task)
    if totals.questions != total:
        raise RuntimeError(f"{what}: {totals.questions} of {total} questions answered; rerun the command to answer the rest")
    check_error_share(totals, max_error_share, what, out.url, reasons, total)
    return totals


def check_error_share(
    totals: AnswerTotals, max_error_share: float, what: str, where: str, reasons: Counter[str], planned: int | None = None
) -> None:
    """Raise TooManyErrors with the most common reasons if too many answers are invalid.

    Args:
        totals: of the answers.
        max_error_share: of the planned questions.
        what: name of the stage.
        where: URL of the answers.
        reasons: of the errors.
        planned: number of questions that a job puts, those not put yet included; None for answers that came in a file.
    """
    again = "" if planned is None else ". A rerun asks again what got no answer and cost nothing"
    planned = max(planned or 0, totals.questions)
    if totals.errors > max_error_share * planned:
        share = totals.errors / totals.questions
        after = f", after {totals.questions:,} of {planned:,}" if planned > totals.questions else ""
        common = "; ".join(f"{n}x {r}" for r, n in reasons.most_common(3))
        raise TooManyErrors(
            f"{what}: {totals.errors} of {totals.questions} questions ({share:.1%}) have no valid answer, "
            f"max_error_share is {max_error_share:.1%}{after}. Most common: {common}. The answers are in {where}; fix the "
            f"judge (a changed judge is a new build) or raise max_error_share{again}"
        )


def check_lost_calls(out: Build, max_share: float, setting: str, what: str) -> None:
    """Refuse answers that tell of a server that is down and not of the judge; for stages that measure invalid answers.

    Raises:
        TooManyErrors: too many questions got no answer; `setting` names where `max_share` is set.
    """
    reasons: Counter[str] = Counter()
    total = 0
    for path in store.part_paths(out):
        part = store.read_part(out, path, ["error", "reply", "tokens_in", "tokens_out"])
        total += part.num_rows
        reasons.update(part.filter(store.without_answer(part))["error"].to_pylist())
    if reasons.total() > max_share * total:
        common = "; ".join(f"{n}x {r}" for r, n in reasons.most_common(3))
        raise TooManyErrors(
            f"{what}: {reasons.total()} of {total} questions got no answer, {setting} is {max_share:.1%}. Most common: "
            f"{common}. Mend the server or its settings and rerun: these are asked again"
        )


def _check_limit(limit: ErrorLimit, out: Build, task: Task, what: str) -> None:
    if limit.exceeded():
        totals, _, reasons = _count(out, task)
        check_error_share(totals, limit.share, what, out.url, reasons, limit.total)


def _count(out: Build, task: Task) -> tuple[AnswerTotals, int, Counter[str]]:
    """Totals of a build, its number of rows (more than questions if some were answered twice), and the reasons of errors."""
    rows, tokens_in, tokens_out = 0, 0, 0
    reasons: Counter[str] = Counter()
    truncated: set[str] = set()
    for path in store.part_paths(out):
        part = store.read_part(out, path, ["error", "tokens_in", "tokens_out", "truncated_ids"])
        truncated.update(_distinct(part["truncated_ids"]))
        rows += part.num_rows
        reasons.update(part["error"].drop_null().to_pylist())
        tokens_in += pc.sum(part["tokens_in"]).as_py() or 0
        tokens_out += pc.sum(part["tokens_out"]).as_py() or 0
    questions = len(store.committed_ids(out, task.id_column))
    return AnswerTotals(questions, reasons.total(), tokens_in, tokens_out, len(truncated)), rows, reasons


def truncated_texts(out: Build) -> set[str]:
    """Return the ids of the texts of which an LLM read the beginning, by its answers so far."""
    parts = (store.read_part(out, path, ["truncated_ids"])["truncated_ids"] for path in store.part_paths(out))
    return {text for part in parts for text in _distinct(part)}


def _distinct(ids: pa.ChunkedArray) -> list[str]:
    distinct: list[str] = pc.unique(pc.list_flatten(ids)).to_pylist()
    return distinct


def _spent(config: AnyJudge, out: Build) -> tuple[int, int]:
    """Tokens in and out of the answers in a build, whether this build paid for them or found them in the cache."""
    if not isinstance(config, LlmModel):
        return 0, 0
    parts = [store.read_part(out, path, ["tokens_in", "tokens_out"]) for path in store.part_paths(out)]
    tokens_in, tokens_out = (sum(pc.sum(part[name]).as_py() or 0 for part in parts) for name in ("tokens_in", "tokens_out"))
    return tokens_in, tokens_out


def _budget_spent(config: LlmModel, out: Build, task: Task, total: int, what: str, spent: tuple[int, int]) -> BudgetSpent:
    budget, done = config.spending_limit, len(store.committed_ids(out, task.id_column))
    return BudgetSpent(
        f"{what}: the budget of judge {config.name!r} is spent: {sum(spent):,} tokens, "
        f"{config.price.of(*spent):.2f} {config.price.currency} (budget.tokens "
        f"{budget.tokens}, budget.money {budget.money}); {done:,} of {total:,} questions are answered and "
        f"stored in {out.url}. Raise the judge's budget and rerun: no question is put twice"
    )
