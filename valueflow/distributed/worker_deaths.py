"""Questions that kill their worker: attempts are counted outside the workers, and a batch that failed often is put in pieces.

A worker that dies takes its batch along, and Ray puts the batch to the next worker, for ever if a question in it is what kills.
So every attempt is noted before it begins. A batch that was begun twice and never ended, or that makes the worker raise, is put
in pieces, and a single such question gets a row with the reason in place of an answer.
"""

import asyncio
import contextlib
import functools
import logging
import os
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import ray
from ray._private import state
from ray.core.generated import gcs_pb2

from valueflow.errors import InputError
from valueflow.records import digest

log = logging.getLogger(__name__)
ATTEMPTS = 2  # of a batch as a whole, and of a single question
PIECES = 8
REASON_CHARS = 200
Worker = Callable[[pa.Table], pa.Table]
AsyncWorker = Callable[[pa.Table], Awaitable[pa.Table]]
Failure = Callable[[pa.Table, str], pa.Table]


class Place(NamedTuple):
    """The process of a worker: id of its node in hexadecimal digits, process id."""

    node: str
    pid: int


class Death(NamedTuple):
    """A worker that died with a batch of `size` questions, in the n-th attempt at it."""

    place: Place
    size: int
    attempt: int


class Look(NamedTuple):
    """What has happened since the last look: deaths, and the number of workers that had a batch."""

    deaths: list[Death]
    workers: int


class AttemptCounter:
    """Attempts that have not ended, by batch; an actor that the workers of all stages of a driver share."""

    def __init__(self) -> None:
        self.begun: Counter[str] = Counter()
        self.open: dict[str, tuple[str, Place]] = {}  # judge and place of the last attempt
        self.deaths: dict[str, list[Death]] = {}
        self.busy: dict[str, set[Place]] = {}

    def times_begun(self, batch: str) -> int:
        """Return how often a batch was begun that has not ended."""
        return self.begun[batch]

    def begin(self, judge: str, batch: str, size: int, place: Place) -> int:
        """Note that a worker of a judge begins a batch of `size` questions; return how often it was begun before."""
        before = self.begun[batch]
        if before and before <= ATTEMPTS:
            self.deaths.setdefault(judge, []).append(Death(self.open[batch][1], size, before))
        self.begun[batch] += 1
        self.open[batch] = judge, place
        self.busy.setdefault(judge, set()).add(place)
        return before

    def end(self, batch: str) -> None:
        """Note that a batch is answered."""
        self.begun.pop(batch, None)
        self.open.pop(batch, None)

    def look(self, judge: str) -> Look:
        """Return what has happened to the workers of a judge since the last look."""
        deaths, busy = self.deaths.pop(judge, []), self.busy.pop(judge, set())
        return Look(deaths, len(busy | {place for of, place in self.open.values() if of == judge}))


class Gate:
    """Lets so many batches in at once, or one alone, which waits until the others have left."""

    def __init__(self, size: int) -> None:
        self.size, self._places, self._one = size, asyncio.Semaphore(size), asyncio.Lock()

    @contextlib.asynccontextmanager
    async def enter(self, alone: bool) -> AsyncIterator[None]:
        """Wait for a place, or for all of them; leave at the end."""
        taken = 0
        try:
            async with self._one if alone else contextlib.nullcontext():  # two that each had some places would wait for ever
                while taken < (self.size if alone else 1):
                    await self._places.acquire()
                    taken += 1
            yield
        finally:
            for _ in range(taken):
                self._places.release()


class Attempts(NamedTuple):
    """The counter of attempts and the name of a judge; goes to its workers as it is."""

    counter: Any
    judge: str

    def look(self) -> Look:
        """Return what has happened to the workers since the last look."""
        return ray.get(self.counter.look.remote(self.judge))

    def answer(self, batch: pa.Table, id_column: str, worker: Worker, failure: Failure) -> pa.Table:
        """Return the answers to a batch of a worker that has one batch at a time; else as `answer_async`."""

        async def answers(questions: pa.Table) -> pa.Table:
            return worker(questions)

        return asyncio.run(self._answer(batch, id_column, answers, failure))

    async def answer_async(
        self, batch: pa.Table, id_column: str, worker: AsyncWorker, failure: Failure, gate: Gate
    ) -> pa.Table:  # fmt: skip
        """Return the answers to a batch of a worker that has several batches at a time.

        A batch that was begun before and has not ended is alone in the worker, for its death would be blamed on all.

        Args:
            batch: questions.
            id_column: the column that identifies a question.
            worker: answers batches of any size.
            failure: returns the rows of questions that have no answer, for a reason.
            gate: of the worker.

        Raises:
            InputError: of the worker.
        """
        begun = await self.counter.times_begun.remote(self._key(batch[id_column].to_pylist()))
        async with gate.enter(alone=begun > 0):
            return await self._answer(batch, id_column, worker, failure)

    async def _answer(self, batch: pa.Table, id_column: str, worker: AsyncWorker, failure: Failure) -> pa.Table:
        key = self._key(batch[id_column].to_pylist())
        reason = f"its worker died {ATTEMPTS} times"
        if await self.counter.begin.remote(self.judge, key, batch.num_rows, _place()) < ATTEMPTS:
            try:
                answers = await worker(batch)
            except InputError:
                raise
            except Exception as error:  # noqa: BLE001 what a model raises on one text, of any type, must not end the job
                reason = _raised(error, batch.num_rows)
            else:
                await self.counter.end.remote(key)
                return answers
        if batch.num_rows == 1:
            return failure(batch, reason)
        size = -(-batch.num_rows // PIECES)
        pieces = [batch.slice(start, size) for start in range(0, batch.num_rows, size)]
        answers = pa.concat_tables([await self._answer(piece, id_column, worker, failure) for piece in pieces])
        await self.counter.end.remote(key)
        return answers

    def _key(self, ids: Sequence[str]) -> str:
        return digest(self.judge, list(ids))  # several judges may have the same windows at once


def _raised(error: Exception, size: int) -> str:
    reason = f"{type(error).__name__}: {error}"[:500]
    log.warning("%s questions made their worker raise %s", size, reason)
    return reason


def _place() -> Place:
    return Place(ray.get_runtime_context().get_node_id(), os.getpid())


def reason_of(place: Place) -> str:
    """Return what Ray knows of the end of a process: the loss of its node, or how it ended."""
    for node in ray.nodes():
        if node["NodeID"] == place.node and not node["Alive"]:
            return f"its node is gone {node.get('DeathReasonMessage') or ''}".strip()
    # Ray's public lists of workers come from its dashboard, which may not run.
    for raw in state.state._connect_and_get_accessor().get_worker_table():
        worker = gcs_pb2.WorkerTableData.FromString(raw)  # type: ignore[attr-defined]
        if worker.pid == place.pid and worker.worker_address.node_id.hex() == place.node and worker.exit_detail:
            return " ".join(worker.exit_detail.split())[:REASON_CHARS]
    return "its process ended"


_CREATING = threading.Lock()


def attempts(judge: str) -> Attempts:
    """Return the counter of this driver, for a judge."""
    context = ray.get_runtime_context()
    with _CREATING:  # judges side by side must have the same
        return Attempts(_counter(context.get_node_id(), context.get_job_id()), judge)


@functools.lru_cache(maxsize=1)
def _counter(node: str, job: str) -> Any:  # of this connection: the actor of an earlier one is gone
    return ray.remote(AttemptCounter).options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote()
