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
from valueflow.judging.configs import AnyJudge, WorkerJudge
from valueflow.judging.kind import Worker
from valueflow.judging.kinds import kind_of
from valueflow.judging.tasks import RANK
from valueflow.llm.configs import LlmModel
from valueflow.llm.question import Task

WorkerClass = Callable[[WorkerJudge], Worker]


def answer_in_actors(config: WorkerJudge, task: Task, limit: ErrorLimit) -> Callable[[Dataset], Dataset]:
    """Return the function that answers datasets by the judge's warm pool if there is one, else by actors of its own."""
    worker, pool = _worker_class(config, task), _POOLS.get(_key(config, task))
    cpus, gpus = config.replica_resources

    def answer(questions: Dataset) -> Dataset:
        if pool:
            return questions.map_batches(
                _forward,
                fn_kwargs={"id_column": task.id_column, "actors": pool.actors(), "limit": limit},
                batch_format="pyarrow",
                batch_size=config.batch_size,
                num_cpus=STAGE_CPUS,
            )
        return questions.map_batches(
            JudgeActor,
            fn_constructor_kwargs={"worker": worker, "config": config},
            fn_kwargs={"limit": limit},
            batch_format="pyarrow",
            batch_size=config.batch_size,
            compute=ray.data.ActorPoolStrategy(size=config.num_actors),
            num_cpus=cpus,
            num_gpus=gpus,
        )

    return answer


class JudgeActor:
    """A judge's worker in an actor: one of a dataset, or one that outlives it when `ray.remote` wraps it."""

    def __init__(self, worker: WorkerClass, config: WorkerJudge) -> None:
        self.worker = worker(config)

    def __call__(self, batch: pa.Table, limit: ErrorLimit) -> Iterator[pa.Table]:
        """Yield the answered batch; nothing once the limit is exceeded."""
        answers = self.answer(batch, limit)
        if answers is not None:
            yield answers

    def answer(self, batch: pa.Table, limit: ErrorLimit) -> pa.Table | None:
        """Return the answered batch; None once the limit is exceeded."""
        if limit.exceeded():
            return None
        answers = self.worker(batch)
        limit.add(answers)
        return answers


class ActorPool:
    """The actors of a judge, started when they are first needed."""

    def __init__(self, config: WorkerJudge, worker: WorkerClass) -> None:
        self.config, self.worker = config, worker
        self.started: list = []

    def actors(self) -> list:
        """Return the actors; a lost one restarts, and its unanswered batches are put to it again."""
        if not self.started:
            cpus, gpus = self.config.replica_resources
            actor = ray.remote(JudgeActor).options(
                num_cpus=cpus, num_gpus=gpus, max_restarts=-1, max_task_retries=-1, scheduling_strategy="SPREAD"
            )
            self.started = [actor.remote(self.worker, self.config) for _ in range(self.config.num_actors)]
        return self.started


_POOLS: dict[tuple[str, str], ActorPool] = {}


@contextlib.contextmanager
def warm_pools(judges: Sequence[AnyJudge], task: Task) -> Iterator[None]:
    """Keep the actors of judges alive through a stage of many rounds, which would otherwise start them in each.

    Judges for which the cluster has no room beside the tasks that plan and commit start in each round, and so do vLLM engines,
    which belong to `ray.data.llm`.
    """
    total, keys = ray.cluster_resources(), []
    room = Resources(total.get("CPU", 0) - 2, total.get("GPU", 0))
    for config in judges:
        needed = config.resources
        if isinstance(config, LlmModel) or needed.cpus > room.cpus or needed.gpus > room.gpus:
            continue
        kind_of(config).check(config)
        room = Resources(room.cpus - needed.cpus, room.gpus - needed.gpus)
        keys.append(_key(config, task))
        _POOLS[keys[-1]] = ActorPool(config, _worker_class(config, task))
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


def _forward(batch: pa.Table, id_column: str, actors: list, limit: ErrorLimit) -> Iterator[pa.Table]:
    index = zlib.crc32(str(batch[id_column][0]).encode()) % len(actors)
    answers = ray.get(actors[index].answer.remote(batch, limit))
    if answers is not None:
        yield answers
