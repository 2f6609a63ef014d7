"""The simulated generator as a function of datasets."""

import time
from collections.abc import Callable, Iterator

import pyarrow as pa
from ray.data import Dataset

from valueflow.distributed.actor_pools import Finish
from valueflow.distributed.error_limit import ErrorLimit
from valueflow.llm.question import Task, with_replies
from valueflow.steering.simulated import SimulatedGenerator, simulated_reply


def answer_by_simulation(
    config: SimulatedGenerator, task: Task, cache: str, _: tuple[int, int], limit: ErrorLimit, finish: Finish
) -> Callable[[Dataset], Dataset]:
    """Return the function that answers datasets with planted replies; there is nothing to cache."""
    return lambda questions: questions.map_batches(
        _answer,
        fn_kwargs={"config": config, "task": task, "limit": limit, "finish": finish},
        batch_format="pyarrow",
        batch_size=config.batch_size,
        num_cpus=config.num_cpus,
    )


def _answer(
    batch: pa.Table, config: SimulatedGenerator, task: Task, limit: ErrorLimit, finish: Finish
) -> Iterator[pa.Table]:  # fmt: skip
    if limit.exceeded():
        return
    if config.seconds_per_batch:
        time.sleep(config.seconds_per_batch)
    replies = [
        simulated_reply(config, task.question(row, config), row["dose"], row["generation_id"]) for row in batch.to_pylist()
    ]
    answers = task.read(with_replies(batch, replies), config)
    limit.add(answers)
    yield finish(answers)
