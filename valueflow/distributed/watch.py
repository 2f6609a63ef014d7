"""Stages that make no progress, lack resources or pass the deadline end with one line; what is committed stays."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import ray

from valueflow.config import Resources
from valueflow.errors import DeadlinePassed, NoCapacity, NoProgress

log = logging.getLogger(__name__)
T = TypeVar("T")
NOTHING = Resources(0, 0)
AHEAD = 4  # results that the waiting thread holds
LOOK_SECONDS = 2.0
RESUME = "what is finished is stored; rerun the command to go on"


class Watch:
    """The limits of a job's stages, from its start.

    Attributes:
        no_progress: seconds in which a stage must finish something.
        capacity: the same while the cluster lacks what the stage needs.
        deadline: seconds of the whole job; None: no limit.
    """

    def __init__(self, no_progress: float, capacity: float, deadline: float | None) -> None:
        self.no_progress, self.capacity, self.deadline = no_progress, capacity, deadline
        self.started = time.monotonic()
        self.deaths: list[str] = []

    def check(self, what: str, since: float, need: Resources) -> None:
        """Raise if a stage may wait no longer.

        Args:
            what: the stage.
            since: `time.monotonic()` when it last finished something.
            need: its resources.

        Raises:
            DeadlinePassed, NoCapacity, NoProgress: with what it waits for.
        """
        now = time.monotonic()
        if self.deadline and now > self.started + self.deadline:
            raise DeadlinePassed(f"{what}: the deadline of {self.deadline:g} s has passed (cluster.deadline_seconds); {RESUME}")
        if now <= since + min(self.no_progress, self.capacity):
            return
        total = ray.cluster_resources()
        short = [
            f"{number:g} {name} (the cluster has {total.get(name, 0):g})"
            for name, number in (("CPU", need.cpus), ("GPU", need.gpus))
            if number > total.get(name, 0)
        ]
        last = f"; last deaths: {'; '.join(self.deaths[-3:])}" if self.deaths else ""
        if short and now > since + self.capacity:
            raise NoCapacity(
                f"{what}: waited {self.capacity:g} s for {' and '.join(short)} "
                f"(cluster.wait_for_capacity_seconds){last}; {RESUME}"
            )
        if not short and now > since + self.no_progress:
            free = ray.available_resources()
            raise NoProgress(
                f"{what}: nothing was finished for {self.no_progress:g} s (cluster.no_progress_seconds); of "
                f"{total.get('CPU', 0):g} CPUs {free.get('CPU', 0):g} are free, of {total.get('GPU', 0):g} GPUs "
                f"{free.get('GPU', 0):g}{last}; {RESUME}"
            )


_watch = Watch(float("inf"), float("inf"), None)


def start(watch: Watch) -> None:
    """Set the limits of the job that begins."""
    global _watch
    _watch = watch


def first_ready(
    what: str, waiting: list["ray.ObjectRef"], need: Resources = NOTHING
) -> tuple[list["ray.ObjectRef"], list["ray.ObjectRef"]]:
    """Return the tasks that have finished, once there is one, and the others; raise as `Watch.check` does."""
    since = time.monotonic()
    while True:
        if ray.wait(waiting, timeout=min(LOOK_SECONDS, _watch.no_progress, _watch.capacity))[0]:
            # All that have finished: one call for each of 100,000 tasks would look at all of them each time.
            return ray.wait(waiting, num_returns=len(waiting), timeout=0)
        _watch.check(what, since, need)


def watched(what: str, results: Iterable[T], need: Resources = NOTHING, look: Callable[[], list[str]] = list) -> Iterator[T]:
    """Yield results as they come.

    Args:
        what: the stage, in messages.
        results: waits in another thread, for an iterator of Ray cannot be left.
        need: resources of the stage.
        look: is called every few seconds and at the end; returns a line for each worker that has died since.

    Raises:
        DeadlinePassed, NoCapacity, NoProgress: as `Watch.check` says.
    """
    arrived: queue.Queue[tuple[list[T], BaseException | None]] = queue.Queue(AHEAD)

    def wait() -> None:
        try:
            for result in results:
                arrived.put(([result], None))
            arrived.put(([], None))
        except BaseException as error:  # noqa: BLE001 of any type, for the thread that waits
            arrived.put(([], error))

    threading.Thread(target=wait, name=f"results of {what}", daemon=True).start()
    since = looked = time.monotonic()
    while True:
        if time.monotonic() > looked + LOOK_SECONDS:
            looked = time.monotonic()
            for line in look():
                log.warning("%s: %s", what, line)
                _watch.deaths.append(line)
        try:
            result, error = arrived.get(timeout=min(LOOK_SECONDS, _watch.no_progress, _watch.capacity))
        except queue.Empty:
            _watch.check(what, since, need)
            continue
        if error:
            raise error
        if not result:
            break
        since = time.monotonic()
        yield result[0]
        if _watch.deadline:
            _watch.check(what, since, need)
    for line in look():
        log.warning("%s: %s", what, line)
