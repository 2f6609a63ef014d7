"""Actors of judges that live through the rounds or steps of a stage, which would otherwise start them in each."""

import contextlib
import zlib
from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa
import ray
from ray.data import Dataset

from valueflow.config import Resources
from valueflow.distributed.actor_pools import Finish, JudgeActor, worker_class
from valueflow.distributed.cluster import STAGE_CPUS
from valueflow.distributed.error_limit import ErrorLimit
from valueflow.distributed.worker_deaths import attempts
from valueflow.judging.configs import AnyJudge, WorkerJudge
from valueflow.judging.kinds import kind_of
from valueflow.llm.configs import LlmModel
from valueflow.llm.question import Task


class ActorPool:
    """The actors of a judge, started when they are first needed."""

    def __init__(self, config: WorkerJudge, task: Task) -> None:
        self.config, self.task = config, task
        self.started: list = []

    def actors(self) -> list:
        """Return the actors; a lost one restarts, and its unanswered batches are put to it again."""
        if not self.started:
            cpus, gpus = self.config.replica_resources
            actor = ray.remote(JudgeActor).options(
                num_cpus=cpus, num_gpus=gpus, max_restarts=-1, max_task_retries=-1, scheduling_strategy="SPREAD"
            )
            arguments = (worker_class(self.config, self.task), self.config, self.task.id_column, attempts(self.config.name))
            self.started = [actor.remote(*arguments) for _ in range(self.config.num_actors)]
        return self.started

    def answerer(self, limit: ErrorLimit, finish: Finish) -> Callable[[Dataset], Dataset]:
        """Return the function that answers datasets by these actors."""
        return lambda questions: questions.map_batches(
            _forward,
            fn_kwargs={"id_column": self.task.id_column, "actors": self.actors(), "limit": limit, "finish": finish},
            batch_format="pyarrow",
            batch_size=self.config.batch_size,
            num_cpus=STAGE_CPUS,
        )


_POOLS: dict[tuple[str, str], ActorPool] = {}


@contextlib.contextmanager
def warm_pools(judges: Sequence[AnyJudge], task: Task) -> Iterator[None]:
    """Keep the actors of judges alive through a stage of many rounds.

    Judges for which the cluster has no room beside the tasks that plan and commit start in each round, and so do pools that
    grow with the work, and vLLM engines, which belong to `ray.data.llm`.
    """
    total, keys = ray.cluster_resources(), []
    room = Resources(total.get("CPU", 0) - 2, total.get("GPU", 0))
    for config in judges:
        if isinstance(config, LlmModel) or config.max_actors:
            continue
        needed = config.resources
        if needed.cpus > room.cpus or needed.gpus > room.gpus:
            continue
        kind_of(config).check(config)
        room = Resources(room.cpus - needed.cpus, room.gpus - needed.gpus)
        keys.append(_key(config, task))
        _POOLS[keys[-1]] = ActorPool(config, task)
    try:
        yield
    finally:
        for key in keys:
            for actor in _POOLS.pop(key).started:
                ray.kill(actor)


def warm_pool(config: AnyJudge, task: Task) -> ActorPool | None:
    """Return the pool of a judge that `warm_pools` keeps; None if there is none."""
    return _POOLS.get(_key(config, task))


def _key(config: AnyJudge, task: Task) -> tuple[str, str]:
    return task.id_column, config.model_dump_json()


def _forward(batch: pa.Table, id_column: str, actors: list, limit: ErrorLimit, finish: Finish) -> Iterator[pa.Table]:
    index = zlib.crc32(str(batch[id_column][0]).encode()) % len(actors)
    answers = ray.get(actors[index].answer.remote(batch, limit, finish))
    if answers is not None:
        yield answers
