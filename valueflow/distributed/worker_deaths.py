"""Questions that kill their worker: attempts are counted outside the workers, and a batch that failed often is put in pieces.

A worker that dies takes its batch along, and Ray puts the batch to the next worker, for ever if a question in it is what kills.
So every attempt is noted before it begins. A batch that was begun twice and never ended, or that makes the worker raise, is put
in pieces, and a single such question gets a row with the reason in place of an answer.
"""

import functools
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import pyarrow as pa
import ray

from valueflow.errors import InputError
from valueflow.records import digest

log = logging.getLogger(__name__)
ATTEMPTS = 2  # of a batch as a whole, and of a single question
PIECES = 8
Worker = Callable[[pa.Table], pa.Table]
Failure = Callable[[pa.Table, str], pa.Table]


class AttemptCounter:
    """Attempts that have not ended, by batch; an actor that the workers of all stages of a driver share."""

    def __init__(self) -> None:
        self.begun: Counter[str] = Counter()
        self.nodes: dict[str, str] = {}
        self.deaths: list[str] = []

    def begin(self, batch: str, size: int, node: str) -> int:
        """Note that a node begins a batch of `size` questions; return how often it was begun before."""
        before = self.begun[batch]
        if before and before <= ATTEMPTS:
            self.deaths.append(f"a worker on node {self.nodes[batch]} died with {size} questions (attempt {before})")
        self.begun[batch] += 1
        self.nodes[batch] = node
        return before

    def end(self, batch: str) -> None:
        """Note that a batch is answered."""
        self.begun.pop(batch, None)
        self.nodes.pop(batch, None)

    def take_deaths(self) -> list[str]:
        """Return one line for each death that was not returned before."""
        deaths, self.deaths = self.deaths, []
        return deaths


class Attempts(NamedTuple):
    """The counter of attempts; goes to workers as it is."""

    counter: Any

    def take_deaths(self) -> list[str]:
        """Return a line for each death of a worker since the last call."""
        return ray.get(self.counter.take_deaths.remote())

    def answer(self, batch: pa.Table, id_column: str, worker: Worker, failure: Failure) -> pa.Table:
        """Return a worker's answers to a batch.

        Args:
            batch: questions.
            id_column: the column that identifies a question.
            worker: answers batches of any size.
            failure: returns the rows of questions that have no answer, for a reason.

        Raises:
            InputError: of the worker.
        """
        key = digest(batch[id_column].to_pylist())
        node = ray.get_runtime_context().get_node_id()[:8]
        reason = f"its worker died {ATTEMPTS} times"
        if ray.get(self.counter.begin.remote(key, batch.num_rows, node)) < ATTEMPTS:
            try:
                answers = worker(batch)
            except InputError:
                raise
            except Exception as error:  # noqa: BLE001 what a model raises on one text, of any type, must not end the job
                reason = f"{type(error).__name__}: {error}"[:500]
                log.warning("%s questions made their worker raise %s", batch.num_rows, reason)
            else:
                ray.get(self.counter.end.remote(key))
                return answers
        if batch.num_rows == 1:
            return failure(batch, reason)
        size = -(-batch.num_rows // PIECES)
        pieces = [batch.slice(start, size) for start in range(0, batch.num_rows, size)]
        answers = pa.concat_tables([self.answer(piece, id_column, worker, failure) for piece in pieces])
        ray.get(self.counter.end.remote(key))
        return answers


def attempts() -> Attempts:
    """Return the counter of this driver."""
    context = ray.get_runtime_context()
    return Attempts(_counter(context.get_node_id(), context.get_job_id()))


@functools.lru_cache(maxsize=1)
def _counter(node: str, job: str) -> Any:  # of this connection: the actor of an earlier one is gone
    return ray.remote(AttemptCounter).options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote()
