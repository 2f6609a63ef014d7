"""Ask a judge every question of a plan, commit answers as they come, continue where an earlier run stopped."""

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
from valueflow.distributed.judge import from_call_cache, judge
from valueflow.errors import BudgetSpent, InputError
from valueflow.judging.configs import AnyJudge
from valueflow.llm import cost
from valueflow.llm.configs import EndpointModel, LlmModel
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
    """Bring `out` to `total` answers of a judge: from the call cache first, then by asking.

    Args:
        config: the judge.
        task: what it is asked.
        questions: the plan's rows without those whose ids are in the array behind the reference.
        out: where answers are committed; may hold some already.
        total: answers that `out` shall hold in the end, those of earlier rounds included.
        what: the name of the stage in messages.

    Raises:
        BudgetSpent: the judge's budget is used up; a rerun with a larger one continues.
    """
    done = store.committed_ids(out, task.id_column)
    progress = Progress(what, total, len(done))
    if len(done) >= total:
        return
    started = time.monotonic()
    cache = store.cache_url(out.root)
    memory = from_call_cache(config, task, cache)
    if memory:
        commit_batches(memory(questions(ray.put(done))), out, task.id_column, progress)
        done = store.committed_ids(out, task.id_column)
    if len(done) < total:
        answers = judge(config, task, cache, _spent(config, out))(questions(ray.put(done)))
        commit_batches(answers, out, task.id_column, progress)
    spent = _spent(config, out)
    log.info("%s: %s", what, cost.total(config, total, *spent, time.monotonic() - started))
    if isinstance(config, EndpointModel):
        _check_budget(config, out, task, total, what, spent)


def check_answers(out: Build, task: Task, total: int, max_error_share: float, what: str) -> AnswerTotals:
    """Return the totals of an answered build, each question once.

    Raises:
        InputError: too many questions have no usable answer.
    """
    asked, rows, reasons = _count(out, task)
    if rows > asked.questions:  # two attempts answered some questions
        store.drop_duplicates(out, task.id_column)
        asked, rows, reasons = _count(out, task)
    if asked.questions != total:
        raise RuntimeError(f"{what}: {asked.questions} of {total} questions answered; rerun the command to ask the rest")
    check_error_share(asked, max_error_share, what, out.url, reasons)
    return asked


def check_error_share(asked: AnswerTotals, max_error_share: float, what: str, where: str, reasons: Counter[str]) -> None:
    """Refuse answers of which too many are broken; say which reasons were most common."""
    share = asked.errors / max(asked.questions, 1)
    if share > max_error_share:
        common = "; ".join(f"{n}x {r}" for r, n in reasons.most_common(3))
        raise InputError(
            f"{what}: {asked.errors} of {asked.questions} questions ({share:.1%}) have no usable answer, max_error_share is "
            f"{max_error_share:.1%}. Most common: {common}. The answers are kept in {where}; fix the judge (a changed judge is "
            "a new build) or raise max_error_share"
        )


def _count(out: Build, task: Task) -> tuple[AnswerTotals, int, Counter[str]]:
    """The totals over everything a build holds, its rows (a question answered twice counts twice) and the reasons of errors."""
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
    """Tokens behind the answers that a build already holds, whether paid for by this build or found in the cache."""
    if not isinstance(config, LlmModel):
        return 0, 0
    parts = [store.read_part(out, path, ["tokens_in", "tokens_out"]) for path in store.part_paths(out)]
    tokens_in, tokens_out = (sum(pc.sum(part[name]).as_py() or 0 for part in parts) for name in ("tokens_in", "tokens_out"))
    return tokens_in, tokens_out


def _check_budget(config: EndpointModel, out: Build, task: Task, total: int, what: str, spent: tuple[int, int]) -> None:
    done = len(store.committed_ids(out, task.id_column))
    if done < total and (config.budget.tokens or config.budget.money):
        raise BudgetSpent(
            f"{what}: the budget of judge {config.name!r} is spent: {sum(spent):,} tokens, "
            f"{config.price.of(*spent):.2f} {config.price.currency} (budget.tokens "
            f"{config.budget.tokens}, budget.money {config.budget.money}); {done:,} of {total:,} questions are answered and "
            f"kept in {out.url}. Raise the judge's budget and rerun: nothing is asked twice"
        )
