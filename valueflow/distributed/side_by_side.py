"""Judges that work at the same time, as many as the cluster has room for."""

import queue
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

import ray

from valueflow.judging.configs import AnyJudge

T = TypeVar("T")
ResultT = TypeVar("ResultT")


def most_at_once(judges: Sequence[AnyJudge]) -> int:
    """Return how many judges fit in the cluster together, counted from the largest; at least 1.

    A pool that grows counts with its largest size, for a judge whose actors another one took would wait for them.
    """
    available, count, cpus, gpus = ray.cluster_resources(), 0, 0.0, 0.0
    for need in sorted((judge.most_resources for judge in judges), reverse=True):
        cpus, gpus = cpus + need.cpus, gpus + need.gpus
        # One CPU is reserved for the small tasks around the judges.
        if cpus > available.get("CPU", 0) - 1 or gpus > available.get("GPU", 0):
            break
        count += 1
    return max(count, 1)


def side_by_side(items: Sequence[T], run: Callable[[T], ResultT], at_once: int) -> list[ResultT]:
    """Return what `run` returns for each item, in their order; so many run at once, each in a thread of its own.

    After an error no further one begins. Those that have begun end, so that their answers are stored; then the error of the
    first item that has one is raised.
    """
    if at_once == 1 or len(items) == 1:
        return [run(item) for item in items]
    results: dict[int, ResultT] = {}
    failures: dict[int, BaseException] = {}
    ended: queue.Queue[int] = queue.Queue()

    def work(number: int, item: T) -> None:
        try:
            results[number] = run(item)
        except BaseException as error:  # noqa: BLE001 of any type, for the thread that waits
            failures[number] = error
        ended.put(number)

    running = 0
    for number, item in enumerate(items):
        if running == at_once:
            ended.get()
            running -= 1
        if failures:
            break
        # A daemon: a job that is interrupted does not wait for its judges.
        threading.Thread(target=work, args=(number, item), name=f"{number + 1} of {len(items)}", daemon=True).start()
        running += 1
    for _ in range(running):
        ended.get()
    if failures:
        raise failures[min(failures)]
    return [results[number] for number in range(len(items))]
