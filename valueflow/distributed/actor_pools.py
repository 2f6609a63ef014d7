"""Judges with worker classes (encoder, simulated) in pools of actors."""

import time
from collections.abc import Callable, Iterator

import pyarrow as pa
import ray
from ray.data import Dataset

from valueflow.distributed.error_limit import ErrorLimit
from valueflow.distributed.preemption import Notice
from valueflow.distributed.worker_deaths import Attempts, attempts
from valueflow.judging.answers import without_answers
from valueflow.judging.configs import WorkerJudge
from valueflow.judging.kind import Worker
from valueflow.judging.kinds import kind_of
from valueflow.judging.tasks import RANK
from valueflow.llm.question import Task

# Batches that an actor holds: one in work, which is what its death costs, and one that waits. With fewer, no pool grows.
TASKS_IN_FLIGHT = 2
WorkerClass = Callable[[WorkerJudge], Worker]
Finish = Callable[[pa.Table], pa.Table]


def unchanged(answers: pa.Table) -> pa.Table:
    """Return the answers as they are."""
    return answers


def answer_in_actors(config: WorkerJudge, task: Task, limit: ErrorLimit, finish: Finish) -> Callable[[Dataset], Dataset]:
    """Return the function that answers datasets by actors of its own."""
    arguments = {"worker": worker_class(config, task), "config": config, "id_column": task.id_column}
    cpus, gpus = config.replica_resources
    return lambda questions: questions.map_batches(
        JudgeActor,
        fn_constructor_kwargs=arguments | {"attempts": attempts(config.name)},
        fn_kwargs={"limit": limit, "finish": finish},
        batch_format="pyarrow",
        batch_size=config.batch_size,
        compute=ray.data.ActorPoolStrategy(
            min_size=config.num_actors, max_size=config.most_actors, max_tasks_in_flight_per_actor=TASKS_IN_FLIGHT,
            max_concurrent_calls_per_actor=1,
        ),
        num_cpus=cpus,
        num_gpus=gpus,
    )  # fmt: skip


class JudgeActor:
    """A judge's worker in an actor: one of a dataset, or one that outlives it when `ray.remote` wraps it."""

    def __init__(self, worker: WorkerClass, config: WorkerJudge, id_column: str, attempts: Attempts) -> None:
        self.worker, self.id_column, self.attempts = worker(config), id_column, attempts
        self.judge, self.notice = config.name, Notice()

    def __call__(self, batch: pa.Table, limit: ErrorLimit, finish: Finish) -> Iterator[pa.Table]:
        """Yield the finished batch; nothing once the limit is exceeded."""
        answers = self.answer(batch, limit, finish)
        if answers is not None:
            yield answers

    def answer(self, batch: pa.Table, limit: ErrorLimit, finish: Finish) -> pa.Table | None:
        """Return the finished batch; None once the limit is exceeded."""
        if limit.exceeded():
            return None
        if self.notice.is_short():
            self.notice.leave()
        started = time.monotonic()
        answers = self.attempts.answer(batch, self.id_column, self.worker, self._failed)
        self.notice.took(time.monotonic() - started)
        limit.add(answers)
        return finish(answers)

    def _failed(self, questions: pa.Table, reason: str) -> pa.Table:
        return without_answers(questions, self.judge, reason)


def worker_class(config: WorkerJudge, task: Task) -> WorkerClass:
    """Return the class that answers a task."""
    kind = kind_of(config)
    worker = kind.ranker if task is RANK else kind.voter
    assert worker
    return worker
