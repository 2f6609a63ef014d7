"""Collect the answers of a judge or namer to all questions of a plan: commit each batch, resume an earlier run."""

import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import pyarrow.compute as pc
import ray
from ray.data import Dataset

from valueflow import store
from valueflow.distributed.cluster import Progress
from valueflow.distributed.commit import commit_batches
from valueflow.distributed.judge import answerer, from_call_cache
from valueflow.errors import BudgetSpent, InputError
from valueflow.judging.configs import AnyJudge
from valueflow.llm.configs import LlmModel
from valueflow.llm.cost import cost_summary
from valueflow.llm.question import Task
from valueflow.store import Build

log = logging.getLogger(__name__)
Questions = Callable[["ray.ObjectRef"], Dataset]


class AnswerTotals(NamedTuple):
    """Totals over all questions of a build, earlier runs included."""

    questions: int
    errors: int
    tokens_in: int
    tokens_out: int


def collect_answers(config: AnyJudge, task: Task, questions: Questions, out: Build, total: int, what: str) -> None:
    """Answer the open questions of a plan: from the call cache first, then by the judge.

    Args:
        config: judge, voter or namer.
        task: type of question.
        questions: the plan's rows without those whose ids are in the array behind the reference.
        out: build to which answers are committed; may hold some already.
        total: number of answers in `out` at the end, those of earlier rounds included.
        what: name of the stage in messages.

    Raises:
        BudgetSpent: the judge's budget is spent; a rerun with a larger one continues.
    """
    done = store.committed_ids(out, task.id_column)
    progress = Progress(what, total, len(done))
    if len(done) >= total:
        return
    started = time.monotonic()
    cache = store.cache_url(out.root)
    replay = from_call_cache(config, task, cache)
    if replay:
        commit_batches(replay(questions(ray.put(done))), out, task.id_column, progress)
        done = store.committed_ids(out, task.id_column)
    if len(done) < total:
        answers = answerer(config, task, cache, _spent(config, out))(questions(ray.put(done)))
        commit_batches(answers, out, task.id_column, progress)
    spent = _spent(config, out)
    model = config if isinstance(config, LlmModel) else None
    log.info("%s: %s", what, cost_summary(total, *spent, time.monotonic() - started, model))
    if isinstance(config, LlmModel):
        _check_budget(config, out, task, total, what, spent)


def check_answers(out: Build, task: Task, total: int, max_error_share: float, what: str) -> AnswerTotals:
    """Return the totals of an answered build, with each question once.

    Raises:
        InputError: too many questions have no valid answer.
    """
    totals, rows, reasons = _count(out, task)
    if rows > totals.questions:  # two attempts answered some questions
        store.drop_duplicates(out, task.id_column)
        totals, rows, reasons = _count(out, task)
    if totals.questions != total:
        raise RuntimeError(f"{what}: {totals.questions} of {total} questions answered; rerun the command to answer the rest")
    check_error_share(totals, max_error_share, what, out.url, reasons)
    return totals


def check_error_share(totals: AnswerTotals, max_error_share: float, what: str, where: str, reasons: Counter[str]) -> None:
    """Raise InputError with the most common reasons if too many answers are invalid; `where`: URL of the answers."""
    share = totals.errors / max(totals.questions, 1)
    if share > max_error_share:
        common = "; ".join(f"{n}x {r}" for r, n in reasons.most_common(3))
        raise InputError(
            f"{what}: {totals.errors} of {totals.questions} questions ({share:.1%}) have no valid answer, max_error_share is "
            f"{max_error_share:.1%}. Most common: {common}. The answers are in {where}; fix the judge (a changed judge is "
            "a new build) or raise max_error_share"
        )


def _count(out: Build, task: Task) -> tuple[AnswerTotals, int, Counter[str]]:
    """Totals of a build, its number of rows (more than questions if some were answered twice), and the reasons of errors."""
    rows, tokens_in, tokens_out = 0, 0, 0
    reasons: Counter[str] = Counter()
    for path in store.part_paths(out):
        part = store.read_part(out, path, ["error", "tokens_in", "tokens_out"])
        rows += part.num_rows
        reasons.update(part["error"].drop_null().to_pylist())
        tokens_in += pc.sum(part["tokens_in"]).as_py() or 0
        tokens_out += pc.sum(part["tokens_out"]).as_py() or 0
    questions = len(store.committed_ids(out, task.id_column))
    return AnswerTotals(questions, reasons.total(), tokens_in, tokens_out), rows, reasons


def _spent(config: AnyJudge, out: Build) -> tuple[int, int]:
    """Tokens in and out of the answers in a build, whether this build paid for them or found them in the cache."""
    if not isinstance(config, LlmModel):
        return 0, 0
    parts = [store.read_part(out, path, ["tokens_in", "tokens_out"]) for path in store.part_paths(out)]
    tokens_in, tokens_out = (sum(pc.sum(part[name]).as_py() or 0 for part in parts) for name in ("tokens_in", "tokens_out"))
    return tokens_in, tokens_out


def _check_budget(config: LlmModel, out: Build, task: Task, total: int, what: str, spent: tuple[int, int]) -> None:
    budget, done = config.spending_limit, len(store.committed_ids(out, task.id_column))
    if done < total and (budget.tokens or budget.money):
        raise BudgetSpent(
            f"{what}: the budget of judge {config.name!r} is spent: {sum(spent):,} tokens, "
            f"{config.price.of(*spent):.2f} {config.price.currency} (budget.tokens "
            f"{budget.tokens}, budget.money {budget.money}); {done:,} of {total:,} questions are answered and "
            f"stored in {out.url}. Raise the judge's budget and rerun: no question is put twice"
        )
