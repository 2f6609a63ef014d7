"""Collect the answers of a judge or namer to all questions of a plan: commit each batch, resume an earlier run."""

import functools
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pyarrow as pa
import ray
from ray.data import Dataset

from valueflow import store
from valueflow.distributed.cluster import Progress, completed_results
from valueflow.distributed.commit import Commit, Done, run_writes
from valueflow.distributed.error_limit import ErrorLimit, error_limit
from valueflow.distributed.judge import answerer, from_call_cache
from valueflow.distributed.meter import Meter, spent_on
from valueflow.distributed.worker_deaths import attempts
from valueflow.errors import BudgetSpent, InputError, TooManyErrors
from valueflow.judging.configs import AnyJudge
from valueflow.llm.configs import EndpointModel, LlmModel, Price
from valueflow.llm.cost import Spent, cost_summary
from valueflow.llm.question import Task
from valueflow.prompts.render import truncation
from valueflow.store import Build, File, Sample

log = logging.getLogger(__name__)
Questions = Callable[[Done], Dataset]
IsOpen = Callable[[], bool]
PARTS_PER_TASK = 200  # without a record, that one task reads


class AnswerTotals(NamedTuple):
    """Totals over all questions of a build, earlier runs included."""

    questions: int
    errors: int
    tokens_in: int
    tokens_out: int
    truncated: int  # texts


class AnswerStage:
    """The answers of one stage while it runs: the journal of its build, the ids that are answered, and the limit of errors.

    Attributes:
        out: build to which answers are committed.
        task: type of question.
        journal: its committed parts.
        done: ids with an answer, for the tasks that read the plan.
        limit: of the stage's errors, all rounds included.
        lost_setting: name of the setting of the limit, where it is one of lost answers alone.
    """

    def __init__(
        self, out: Build, task: Task, max_error_share: float, total: int, errors: Callable[[], int] | None = None,
        lost_setting: str = "",
    ) -> None:  # fmt: skip
        """Take over the answers of earlier runs.

        Questions that got no answer and cost nothing are open again; a finished build stays as it is.

        Args:
            out: may hold answers already.
            task: type of question.
            max_error_share: share of questions without a valid answer above which the stage fails.
            total: questions of all rounds of the stage.
            errors: returns those in the answers so far; None: all in `out`.
            lost_setting: for a stage that measures invalid answers: name of the setting of `max_error_share`. Only answers
                that never came count (`store.without_answer`): they tell of a server that is down and not of the judge.
        """
        self.out, self.task, self.lost_setting = out, task, lost_setting
        self.journal = store.Journal(out, task.id_column)
        self.done = Done.of(self.journal.load(functools.partial(_read_records, out, task.id_column, True)))
        earlier = errors() if errors else 0 if lost_setting else self.journal.totals.errors  # lost ones are open again
        self.limit = error_limit(max_error_share, total, earlier, bool(lost_setting))

    def totals(self) -> AnswerTotals:
        """Return the totals, with what other attempts have committed meanwhile."""
        if self.journal.is_behind():
            self.journal.load(functools.partial(_read_records, self.out, self.task.id_column, False))
        totals = self.journal.totals
        return AnswerTotals(totals.rows, totals.errors, totals.tokens_in, totals.tokens_out, len(totals.truncated))

    def timeline(self) -> list[Sample]:
        """Return what happened when, of all attempts; to be called before `finish`."""
        return self.journal.time.timeline()

    def finish(self) -> list[File]:
        """Merge the many small parts of the build into few, and return the files for its manifest."""
        return self.journal.compact(functools.partial(_merge, self.out, self.task.id_column))

    def answered(self, rounds: int | None = None) -> int:
        """Return the number of answers; with `rounds`, of the rounds below that number."""
        totals = self.journal.totals
        return totals.rows if rounds is None else sum(n for round_, n in totals.rounds.items() if round_ < rounds)


def _read_records(out: Build, id_column: str, reopen: bool, paths: list[str]) -> Iterator[pa.Table]:
    """Records of parts without one; many are read by tasks."""
    if len(paths) <= PARTS_PER_TASK:
        yield store.read_records(out, paths, id_column, reopen)
        return
    task = ray.remote(store.read_records).options(num_cpus=1)
    chunks = [paths[start : start + PARTS_PER_TASK] for start in range(0, len(paths), PARTS_PER_TASK)]
    yield from completed_results("resume", [task.remote(out, chunk, id_column, reopen) for chunk in chunks])


def _merge(out: Build, id_column: str, groups: list[list[str]]) -> Iterator[pa.Table]:
    task = ray.remote(store.compact).options(num_cpus=1)
    yield from completed_results("merge parts", [task.remote(out, paths, id_column) for paths in groups])


def collect_answers(
    config: AnyJudge, stage: AnswerStage, questions: Questions, total: int, what: str, is_open: IsOpen | None = None
) -> None:
    """Answer the open questions of a plan: from the call cache first, then by the judge.

    Args:
        config: judge, voter or namer.
        stage: of the answers. Once its limit of errors is exceeded, no further question is put; what is in flight is answered
            and kept.
        questions: the plan's rows without those that are done.
        total: number of answers at the end, those of earlier rounds included.
        what: name of the stage in messages.
        is_open: whether a question of this round has no answer yet, for builds that may hold answers of later rounds; by
            default, whether there are fewer answers than `total`.

    Raises:
        TooManyErrors: the limit is exceeded.
        BudgetSpent: the judge's budget is spent; a rerun with a larger one continues.
    """
    out, task, journal = stage.out, stage.task, stage.journal

    def has_open() -> bool:
        return is_open() if is_open else stage.answered() < total

    progress = Progress(what, total, stage.answered())
    if stage.answered() >= total and not has_open():
        return
    # An earlier run may have answered later rounds.
    limit = stage.limit._replace(total=max(stage.limit.total, stage.answered()))
    _check_limit(limit, stage, what)
    truncated = len(journal.totals.truncated)
    started = time.monotonic()
    cache = store.cache_url(out.root)
    commit = Commit(out, task.id_column)
    replay = from_call_cache(config, task, cache, limit, commit)
    if replay:
        stage.done = stage.done.with_records(run_writes(replay(questions(stage.done)), progress, journal, keep=True))
        _check_limit(limit, stage, what)
    meter = Meter(config, journal, limit, attempts(config.name))
    if (not replay or has_open()) and not meter.is_spent:
        spent = spent_on(config, journal)
        answers = answerer(config, task, cache, (spent.tokens_in, spent.tokens_out), limit, commit)(questions(stage.done))
        run_writes(answers, progress, journal, need=config.resources, look=meter.look)
    spent = spent_on(config, journal)
    model = config if isinstance(config, LlmModel) else None
    seconds = time.monotonic() - started
    log.info("%s: %s", what, cost_summary(stage.answered(), spent.tokens_in, spent.tokens_out, seconds, model))
    if model and (now := len(journal.totals.truncated)) > truncated:
        log.warning("%s: %s", what, truncation(now, model.name, model.max_chars))
    _check_limit(limit, stage, what)
    budget = config.spending_limit
    refused = isinstance(config, EndpointModel) and (budget.tokens or budget.money)  # by the actor that calls it
    if (refused or meter.is_spent) and has_open():
        raise _budget_spent(config, stage, total, what, spent)


def check_answers(stage: AnswerStage, total: int, max_error_share: float, what: str) -> AnswerTotals:
    """Return the totals of an answered build, with each question once.

    Raises:
        TooManyErrors: too many questions have no valid answer.
        InputError: another attempt has finished the build meanwhile.
    """
    totals = stage.totals()
    if totals.questions > total:  # the other one has finished the build, which nobody changes
        raise InputError(
            f"{what}: another attempt has answered the same questions ({totals.questions} answers to {total}). Nothing was "
            "lost; rerun the command"
        )
    if totals.questions != total:
        raise RuntimeError(f"{what}: {totals.questions} of {total} questions answered; rerun the command to answer the rest")
    check_error_share(totals, max_error_share, what, stage.out.url, stage.journal.totals.reasons, total)
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


def check_lost_calls(stage: AnswerStage, what: str) -> None:
    """Refuse answers that tell of a server that is down and not of the judge; for stages with a `lost_setting`.

    Raises:
        TooManyErrors: too many questions got no answer.
    """
    reasons: Counter[str] = Counter()
    for path in stage.journal.files:
        part = store.read_part(stage.out, path, ["error", "reply", "tokens_in", "tokens_out"])
        reasons.update(part.filter(store.without_answer(part))["error"].to_pylist())
    answered, share = stage.answered(), stage.limit.share
    planned = max(stage.limit.total, answered)
    if reasons.total() > share * planned:
        after = f", after {answered:,} of {planned:,}" if planned > answered else ""
        common = "; ".join(f"{n}x {r}" for r, n in reasons.most_common(3))
        raise TooManyErrors(
            f"{what}: {reasons.total()} of {answered} questions got no answer, {stage.lost_setting} is {share:.1%}{after}. "
            f"Most common: {common}. Mend the server or its settings and rerun: these are asked again"
        )


def _check_limit(limit: ErrorLimit, stage: AnswerStage, what: str) -> None:
    if not limit.exceeded():
        return
    if limit.lost_only:
        check_lost_calls(stage, what)
    else:
        check_error_share(stage.totals(), limit.share, what, stage.out.url, stage.journal.totals.reasons, limit.total)


def _budget_spent(config: AnyJudge, stage: AnswerStage, total: int, what: str, spent: Spent) -> BudgetSpent:
    budget, price = config.spending_limit, config.price or Price()
    money = price.of(spent.tokens_in, spent.tokens_out, spent.engine_hours)
    hours = f", {spent.gpu_hours:.3g} GPU hours" if budget.gpu_hours else ""
    of_hours = f", budget.gpu_hours {budget.gpu_hours}" if budget.gpu_hours else ""
    return BudgetSpent(
        f"{what}: the budget of judge {config.name!r} is spent: {spent.tokens_in + spent.tokens_out:,} tokens, "
        f"{money:.2f} {price.currency}{hours} (budget.tokens "
        f"{budget.tokens}, budget.money {budget.money}{of_hours}); {stage.answered():,} of {total:,} questions are answered "
        f"and stored in {stage.out.url}. Raise the judge's budget and rerun: no question is put twice"
    )
