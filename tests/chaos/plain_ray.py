"""Ray replaced by plain calls in this process: tasks and actors run where they are called, datasets are lists of tables.

For hundreds of kills in minutes: the jobs, the store and the judges are the real ones; Ray's start and processes are left out.
"""

from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import ray
import ray.data

from valueflow.distributed import commit, error_limit, preemption, worker_deaths


class Ref:
    """What a task has returned."""

    def __init__(self, content: Any) -> None:
        self.content = content

    def __await__(self) -> Iterator[Any]:
        yield from ()
        return self.content


class Remote:
    """A function, or the methods of an object, called in place."""

    def __init__(self, function: Callable) -> None:
        self.function = function

    def options(self, **_: object) -> "Remote":
        return self

    def remote(self, *arguments: Any, **named: Any) -> Any:
        if isinstance(self.function, type):
            return Actor(self.function(*map(get, arguments), **named))
        return Ref(self.function(*(get(a) if isinstance(a, Ref) else a for a in arguments), **named))


class Actor:
    """An object in this process."""

    def __init__(self, instance: Any) -> None:
        self.instance = instance

    def __getattr__(self, name: str) -> Remote:
        return Remote(getattr(self.instance, name))


def get(what: Any) -> Any:
    if isinstance(what, list):
        return [get(one) for one in what]
    return what.content if isinstance(what, Ref) else what


class Dataset:
    """Tables that are made when they are read."""

    def __init__(self, tables: Callable[[], Iterable[pa.Table]]) -> None:
        self.tables = tables
        self.context = SimpleNamespace(execution_options=SimpleNamespace())

    def repartition(self, target_num_rows_per_block: int) -> "Dataset":
        def blocks() -> Iterator[pa.Table]:
            for table in self.tables():
                for start in range(0, table.num_rows, target_num_rows_per_block):
                    yield table.slice(start, target_num_rows_per_block)

        return Dataset(blocks)

    def map_batches(
        self, function: Any, fn_kwargs: dict | None = None, fn_constructor_kwargs: dict | None = None,
        batch_size: int | None = None, **_: object,
    ) -> "Dataset":  # fmt: skip
        def mapped() -> Iterator[pa.Table]:
            call = function(**(fn_constructor_kwargs or {})) if isinstance(function, type) else function
            for block in self.tables():
                for batch in [block] if batch_size is None else Dataset(lambda b=block: [b]).repartition(batch_size).tables():
                    result = call(batch, **(fn_kwargs or {}))
                    yield from [result] if isinstance(result, pa.Table) else result

        return Dataset(mapped)

    def iter_batches(self, **_: object) -> Iterator[pa.Table]:
        return iter(self.tables())


def from_items(items: list[dict], **_: object) -> Dataset:
    return Dataset(lambda: [pa.Table.from_pylist([item]) for item in items])


def install() -> None:
    """Put plain calls in the place of Ray, in this process and for good."""
    counters = {}

    def actor(kind: type) -> Callable[..., Actor]:
        return lambda *_: counters.setdefault(kind, Actor(kind()))

    ray.remote = Remote
    ray.get = get
    ray.put = Ref
    ray.wait = lambda refs, **_: (refs[:1], refs[1:])
    ray.kill = lambda _: None
    ray.is_initialized = lambda: True
    ray.cluster_resources = lambda: {"CPU": 8.0}
    ray.get_runtime_context = lambda: SimpleNamespace(get_node_id=lambda: "node", get_job_id=lambda: "job")
    ray.data.from_items = from_items
    ray.data.from_arrow = lambda table: Dataset(lambda: [table])
    error_limit._counter = actor(error_limit.ErrorCounter)
    worker_deaths._counter = actor(worker_deaths.AttemptCounter)
    preemption.seconds_left = lambda _: float("inf")
    commit.watched = lambda what, results, *_: results
