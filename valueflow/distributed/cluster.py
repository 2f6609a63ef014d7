"""The only owner of cluster state: starts or joins Ray, sets its options, checks resources, reports progress."""

import contextlib
import logging
import math
import os
import time
import warnings
from collections.abc import Iterator
from typing import Any

import ray
from pydantic import Field

from valueflow.config import Config, Resources
from valueflow.distributed import watch
from valueflow.distributed.address import AUTO, Address, cluster_address
from valueflow.errors import BudgetSpent, DamageError, InputError, StorageError, of_storage, storage_error

log = logging.getLogger(__name__)
RETRY_NOTE = "Failed to apply UDF transform after"  # Ray Data appends advice about its retries to the message of an exception
# Logical CPUs of each small task around an engine or an actor, and CPUs of the cluster for each task that runs at once: a task
# is a process, whose start takes seconds of a core, and a few of them feed many judges.
STAGE_CPUS = 0.1
CPUS_PER_STAGE_TASK = 4
GROWN_STAGE_TASKS = 32  # of a cluster that grows by itself


class ClusterConfig(Config):
    """Where a job runs. Under `ray job submit` or with RAY_ADDRESS set the running cluster is joined."""

    address: str | None = Field(None, description="null: join RAY_ADDRESS if set, else start Ray on this machine")
    num_cpus: int | None = Field(None, ge=1, description="logical CPUs of a local Ray; may exceed the physical ones")
    no_progress_seconds: float = Field(3600, gt=0, description="a stage that finishes nothing for so long ends the job")
    wait_for_capacity_seconds: float = Field(
        1800, gt=0, description="the same while the cluster lacks what the stage needs, as where it grows by itself"
    )
    deadline_seconds: float | None = Field(None, gt=0, description="the job ends after so long; null: no limit")


@contextlib.contextmanager
def session(config: ClusterConfig) -> Iterator[None]:
    """Start or join Ray for the duration of a job; an existing connection of this process is reused and left open.

    Raises:
        InputError: the cluster cannot be joined, or Ray did not start; the message names the address and who set it.
    """
    if ray.is_initialized():
        try:
            yield
        except ray.exceptions.RayError as error:
            raise user_error(error) or error from None
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # messages of the core worker are for developers of Ray
    _connect(cluster_address(config.address), config)
    watch.start(watch.Watch(config.no_progress_seconds, config.wait_for_capacity_seconds, config.deadline_seconds))
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True  # otherwise its type is lost between processes
    # Of a small build, whose stages have fewer inputs than `stage_tasks` allows tasks.
    warnings.filterwarnings("ignore", message="The maximum number of concurrent tasks for")
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        yield
    except ray.exceptions.RayError as error:
        raise user_error(error) or error from None
    finally:
        ray.shutdown()


def _connect(address: Address, config: ClusterConfig) -> None:
    address.check()
    try:
        ray.init(
            # Ray looks for auto itself: it uses its token for clusters of this machine only.
            address=AUTO if config.address == AUTO else address.address,
            num_cpus=None if address.joins else config.num_cpus,
            include_dashboard=None if address.joins else False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except Exception as error:  # of any type: Ray raises plain ones too
        ray.shutdown()
        raise address.failure(error) from error


def user_error(error: BaseException | None) -> InputError | None:
    """Return the InputError among the causes of a worker's exception, or its failure of a disk as one; None for others."""
    while error is not None:
        message = (str(error.args[0]) if error.args else str(error)).partition(RETRY_NOTE)[0].rstrip()
        for kind in (DamageError, StorageError, BudgetSpent, InputError):
            if isinstance(error, kind):
                return kind(message)
        cause = getattr(error, "cause", None) or error.__cause__
        if cause is None and of_storage(error):
            return storage_error(error)
        error = cause
    return None


def stage_tasks() -> dict[str, Any]:
    """Return the arguments of `map_batches` for small tasks around an engine or an actor: the CPUs of each, and how many."""
    most = GROWN_STAGE_TASKS if os.environ.get("RAY_CLUSTER_AUTOSCALES") else 2
    cpus = ray.cluster_resources().get("CPU", 0)
    return {"num_cpus": STAGE_CPUS, "concurrency": max(most, math.ceil(cpus / CPUS_PER_STAGE_TASK))}


def require_resources(cpus: float, gpus: float, what: str, remedy: str) -> None:
    """Refuse a stage that exceeds the cluster's resources (Ray would wait without a message).

    Args:
        cpus: CPUs of the stage.
        gpus: GPUs of the stage.
        what: the stage, in messages.
        remedy: how to lower its needs, in messages.

    Raises:
        InputError: the cluster is too small; not checked with RAY_CLUSTER_AUTOSCALES, whose limits are unknown in advance.
    """
    available = ray.cluster_resources()
    if os.environ.get("RAY_CLUSTER_AUTOSCALES") or not available:
        return
    short = [
        f"{need:g} {name} (the cluster has {available.get(name, 0):g})"
        for name, need in (("CPU", cpus), ("GPU", gpus))
        if need > available.get(name, 0)
    ]
    if short:
        raise InputError(
            f"{what} needs {' and '.join(short)}. {remedy}, raise cluster.num_cpus, or "
            "set RAY_CLUSTER_AUTOSCALES=1 if the cluster grows by itself"
        )


def completed_results(what: str, waiting: list["ray.ObjectRef"], need: Resources = watch.NOTHING) -> Iterator[Any]:
    """Yield the results of tasks as they finish, reporting progress; raise as `watch.watched` does.

    Args:
        what: the stage, in messages.
        waiting: the tasks.
        need: resources of the largest one.
    """
    progress = Progress(what, len(waiting))
    while waiting:
        ready, waiting = watch.first_ready(what, waiting, need)
        yield from ray.get(ready)
        progress.add(len(ready))


def ordered_results(what: str, tasks: list["ray.ObjectRef"], need: Resources = watch.NOTHING) -> list[Any]:
    """Return the results of tasks, which must be small, in their order, as `completed_results` waits for them."""
    for _ in completed_results(what, tasks, need):
        pass
    return ray.get(tasks)


def result_of(what: str, task: "ray.ObjectRef", need: Resources = watch.NOTHING) -> Any:
    """Return the result of one task; raise as `watch.watched` does."""
    watch.first_ready(what, [task], need)
    return ray.get(task)


class Progress:
    """Logs one line per stage every two seconds: units done, rate, time left."""

    def __init__(self, what: str, total: int, done: int = 0) -> None:
        self.what, self.total, self.done, self.resumed = what, total, done, done
        self.started = self.printed = time.monotonic()
        resumed = f", {done:,} of them done before" if done else ""
        log.info("%s: %s to do%s", what, f"{total:,}", resumed)

    def add(self, count: int, note: str = "") -> None:
        """Add finished units; `note` is appended to the line."""
        self.done += count
        now = time.monotonic()
        if now - self.printed < 2 and self.done < self.total:
            return
        self.printed = now
        rate = (self.done - self.resumed) / max(now - self.started, 1e-9)
        left = f", {(self.total - self.done) / rate:,.0f} s left" if rate and self.done < self.total else ""
        log.info("%s: %s/%s (%.0f/s%s)%s", self.what, f"{self.done:,}", f"{self.total:,}", rate, left, note)
