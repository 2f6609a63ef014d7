"""The limit of errors of a stage: its workers count together, and put no further question once the limit is exceeded."""

import functools
import math
import uuid
from collections import Counter
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import ray

from valueflow import store


class ErrorCounter:
    """Errors by stage; an actor that the workers of all stages of a driver share."""

    def __init__(self) -> None:
        self.errors: Counter[str] = Counter()
        self.stopped: set[str] = set()

    def add(self, stage: str, errors: int) -> int:
        """Add errors of a stage and return their number; -1 for a stage that was stopped."""
        self.errors[stage] += errors
        return -1 if stage in self.stopped else self.errors[stage]

    def stop(self, stage: str) -> None:
        """Let no batch of a stage begin any more."""
        self.stopped.add(stage)


class ErrorLimit(NamedTuple):
    """The largest share of a stage's questions that may have no valid answer; goes to workers as it is.

    share: of `total`; infinite: no limit.
    total: questions of the stage, those not asked yet included.
    lost_only: count only answers that never came (`store.without_answer`), for stages that measure invalid ones.
    stage: key of its errors in `counter`.
    counter: the actor that counts them; None: nobody counts.
    """

    share: float
    total: int
    lost_only: bool = False
    stage: str = ""
    counter: Any = None

    def add(self, answers: pa.Table) -> None:
        """Count the errors among answers."""
        if self.counter is not None and (errors := self._errors(answers)):
            ray.get(self.counter.add.remote(self.stage, errors))

    def exceeded(self) -> bool:
        """Return whether there are more errors than allowed, or the stage was stopped."""
        return self.counter is not None and self._exceeded_by(ray.get(self.counter.add.remote(self.stage, 0)))

    async def exceeded_async(self, answers: pa.Table | None = None) -> bool:
        """Count the errors among answers, and return whether there are more than allowed."""
        if self.counter is None:
            return False
        return self._exceeded_by(await self.counter.add.remote(self.stage, self._errors(answers) if answers else 0))

    def stop(self) -> None:
        """Let no batch of the stage begin any more; what is in flight is answered and kept."""
        if self.counter is not None:
            ray.get(self.counter.stop.remote(self.stage))

    def _exceeded_by(self, errors: int) -> bool:
        return errors < 0 or errors > self.share * self.total

    def _errors(self, answers: pa.Table) -> int:
        if self.lost_only:
            return pc.sum(store.without_answer(answers)).as_py() or 0
        return answers.num_rows - answers["error"].null_count


NO_LIMIT = ErrorLimit(math.inf, 0)


def error_limit(share: float, total: int, errors: int, lost_only: bool = False) -> ErrorLimit:
    """Return the limit of a stage that has so many errors (if `lost_only`: lost answers) already."""
    share = share if share < 1 else math.inf
    context = ray.get_runtime_context()
    limit = ErrorLimit(share, total, lost_only, uuid.uuid4().hex, _counter(context.get_node_id(), context.get_job_id()))
    ray.get(limit.counter.add.remote(limit.stage, errors))
    return limit


@functools.lru_cache(maxsize=1)
def _counter(node: str, job: str) -> Any:  # of this connection: the actor of an earlier one is gone
    # A lost actor begins again from nothing: the stage then stops later.
    return ray.remote(ErrorCounter).options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote()
