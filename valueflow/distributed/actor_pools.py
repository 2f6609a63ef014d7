"""Judges with worker classes (encoder, simulated) in pools of actors."""

import contextlib
import zlib
from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa
import ray
from ray.data import Dataset

from valueflow.config import Resources
from valueflow.distributed.cluster import STAGE_CPUS
from valueflow.distributed.error_limit import ErrorLimit
from valueflow.distributed.worker_deaths import Attempts, attempts
from valueflow.judging.answers import without_answers
from valueflow.judging.configs import AnyJudge, WorkerJudge
from valueflow.judging.kind import Worker
from valueflow.judging.kinds import kind_of
from valueflow.judging.tasks import RANK
from valueflow.llm.configs import LlmModel
from valueflow.llm.question import Task

WorkerClass = Callable[[WorkerJudge], Worker]
Finish = Callable[[pa.Table], pa.Table]


def unchanged(answers: pa.Table) -> pa.Table:
    """Return the answers as they are."""
    return answers


def answer_in_actors(config: WorkerJudge, task: Task, limit: ErrorLimit, finish: Finish) -> Callable[[Dataset], Dataset]:
    """Return the function that answers datasets by the judge's warm pool if there is one, else by actors of its own."""
    worker, pool = _worker_class(config, task), _POOLS.get(_key(config, task))
    cpus, gpus = config.replica_resources

    def answer(questions: Dataset) -> Dataset:
        if pool:
            return questions.map_batches(
                _forward,
                fn_kwargs={"id_column": task.id_column, "actors": pool.actors(), "limit": limit, "finish": finish},
                batch_format="pyarrow",
                batch_size=config.batch_size,
                num_cpus=STAGE_CPUS,
            )
        return questions.map_batches(
            JudgeActor,
            fn_constructor_kwargs={"worker": worker, "config": config, "id_column": task.id_column, "attempts": attempts()},
            fn_kwargs={"limit": limit, "finish": finish},
            batch_format="pyarrow",
            batch_size=config.batch_size,
            compute=ray.data.ActorPoolStrategy(min_size=config.num_actors, max_size=config.most_actors),
            num_cpus=cpus,
            num_gpus=gpus,
        )

    return answer


class JudgeActor:
    """A judge's worker in an actor: one of a dataset, or one that outlives it when `ray.remote` wraps it."""

    def __init__(self, worker: WorkerClass, config: WorkerJudge, id_column: str, attempts: Attempts) -> None:
        self.worker, self.id_column, self.attempts = worker(config), id_column, attempts
        self.judge = config.name

    def __call__(self, batch: pa.Table, limit: ErrorLimit, finish: Finish) -> Iterator[pa.Table]:
        """Yield the finished batch; nothing once the limit is exceeded."""
        answers = self.answer(batch, limit, finish)
        if answers is not None:
            yield answers

    def answer(self, batch: pa.Table, limit: ErrorLimit, finish: Finish) -> pa.Table | None:
        """Return the finished batch; None once the limit is exceeded."""
        if limit.exceeded():
            return None
        answers = self.attempts.answer(batch, self.id_column, self.worker, self._failed)
        limit.add(answers)
        return finish(answers)

    def _failed(self, questions: pa.Table, reason: str) -> pa.Table:
        return without_answers(questions, self.judge, reason)


class ActorPool:
    """The actors of a judge, started when they are first needed."""

    def __init__(self, config: WorkerJudge, worker: WorkerClass, id_column: str) -> None:
        self.config, self.worker, self.id_column = config, worker, id_column
        self.started: list = []

    def actors(self) -> list:
        """Return the actors; a lost one restarts, and its unanswered batches are put to it again."""
        if not self.started:
            cpus, gpus = self.config.replica_resources
            actor = ray.remote(JudgeActor).options(
                num_cpus=cpus, num_gpus=gpus, max_restarts=-1, max_task_retries=-1, scheduling_strategy="SPREAD"
            )
            arguments = (self.worker, self.config, self.id_column, attempts())
            self.started = [actor.remote(*arguments) for _ in range(self.config.num_actors)]
        return self.started


_POOLS: dict[tuple[str, str], ActorPool] = {}


@contextlib.contextmanager
def warm_pools(judges: Sequence[AnyJudge], task: Task) -> Iterator[None]:
    """Keep the actors of judges alive through a stage of many rounds, which would otherwise start them in each.

    Judges for which the cluster has no room beside the tasks that plan and commit start in each round, and so do pools that
    grow with the work, and vLLM engines, which belong to `ray.data.llm`.
    """
    total, keys = ray.cluster_resources(), []
    room = Resources(total.get("CPU", 0) - 2, total.get("GPU", 0))
    for config in judges:
        needed = config.resources
        if isinstance(config, LlmModel) or config.max_actors or needed.cpus > room.cpus or needed.gpus > room.gpus:
            continue
        kind_of(config).check(config)
        room = Resources(room.cpus - needed.cpus, room.gpus - needed.gpus)
        keys.append(_key(config, task))
        _POOLS[keys[-1]] = ActorPool(config, _worker_class(config, task), task.id_column)
    try:
        yield
    finally:
        for key in keys:
            for actor in _POOLS.pop(key).started:
                ray.kill(actor)


def _worker_class(config: WorkerJudge, task: Task) -> WorkerClass:
    kind = kind_of(config)
    worker = kind.ranker if task is RANK else kind.voter
    assert worker
    return worker


def _key(config: WorkerJudge, task: Task) -> tuple[str, str]:
    return task.id_column, config.model_dump_json()


def _forward(batch: pa.Table, id_column: str, actors: list, limit: ErrorLimit, finish: Finish) -> Iterator[pa.Table]:
    index = zlib.crc32(str(batch[id_column][0]).encode()) % len(actors)
    answers = ray.get(actors[index].answer.remote(batch, limit, finish))
    if answers is not None:
        yield answers
