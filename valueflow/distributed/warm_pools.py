"""Actors of judges that live through the rounds or steps of a stage, which would otherwise start them in each."""

import contextlib
import math
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import ray
from ray.data import Dataset

from valueflow.config import Resources
from valueflow.distributed.actor_pools import TASKS_IN_FLIGHT, Finish, JudgeActor, worker_class
from valueflow.distributed.cluster import STAGE_CPUS
from valueflow.distributed.error_limit import ErrorLimit
from valueflow.distributed.vllm_batch import BATCHES, EngineActor
from valueflow.distributed.worker_deaths import attempts
from valueflow.judging.configs import AnyJudge, WorkerJudge
from valueflow.llm.configs import VllmModel
from valueflow.llm.question import Task


class ActorPool:
    """The actors of a judge or the engines of an LLM, started when they are first needed."""

    def __init__(self, config: WorkerJudge | VllmModel, task: Task) -> None:
        self.config, self.task = config, task
        self.started: list = []

    def actors(self, cache: str) -> list:
        """Return the actors; a lost one restarts, and its unanswered batches are put to it again."""
        if not self.started:
            cpus, gpus = self.config.replica_resources
            options: dict[str, Any] = {"num_cpus": cpus, "num_gpus": gpus, "max_restarts": -1, "max_task_retries": -1}
            options["scheduling_strategy"] = "SPREAD"
            self.started = [self._start(options, cache) for _ in range(self.config.num_engines)]
        return self.started

    def _start(self, options: dict[str, Any], cache: str) -> Any:
        counter = attempts(self.config.name)
        if isinstance(self.config, VllmModel):
            return ray.remote(EngineActor).options(**options).remote(self.config, self.task, cache, counter)
        arguments = (worker_class(self.config, self.task), self.config, self.task.id_column, counter)
        return ray.remote(JudgeActor).options(**options).remote(*arguments)

    def answerer(self, cache: str, limit: ErrorLimit, finish: Finish) -> Callable[[Dataset], Dataset]:
        """Return the function that answers datasets by these actors; `cache`: URL of an LLM's call cache, "" for none."""
        return lambda questions: questions.map_batches(
            _forward,
            fn_kwargs={"id_column": self.task.id_column, "actors": self.actors(cache), "limit": limit, "finish": finish},
            batch_format="pyarrow",
            batch_size=self.config.batch_size,
            num_cpus=STAGE_CPUS,
            concurrency=self.config.num_engines * (2 * BATCHES if isinstance(self.config, VllmModel) else TASKS_IN_FLIGHT),
        )


_POOLS: dict[tuple[str, str], ActorPool] = {}


@contextlib.contextmanager
def warm_pools(judges: Sequence[AnyJudge], task: Task) -> Iterator[None]:
    """Keep the actors and vLLM engines of judges alive through a stage of many rounds.

    Judges for which the cluster has no room beside the tasks that plan and commit start in each round, and so do pools that
    grow with the work. A cluster that grows by itself has room.
    """
    total, keys = ray.cluster_resources(), []
    room = Resources(total.get("CPU", 0) - 2, total.get("GPU", 0))
    if os.environ.get("RAY_CLUSTER_AUTOSCALES"):
        room = Resources(math.inf, math.inf)
    for config in judges:
        if not isinstance(config, (WorkerJudge, VllmModel)) or config.most_engines > config.num_engines:
            continue
        cpus, gpus = config.replica_resources
        needed = Resources(config.num_engines * cpus, config.num_engines * gpus)
        if needed.cpus > room.cpus or needed.gpus > room.gpus:
            continue
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
