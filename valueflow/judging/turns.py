"""A worker in a thread that several callers share: work is cut into pieces, and the callers take turns piece by piece."""

import asyncio
import contextlib
import functools
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable
from typing import Generic, NamedTuple, TypeVar

from valueflow.callers import CALLER, PAUSE, go_on, new_caller

MOST_IN_PAUSE = 4096  # characters of the pieces that run while a long one pauses, padded to the longest

WorkT = TypeVar("WorkT")
PieceT = TypeVar("PieceT")
ResultT = TypeVar("ResultT")


class Piece(NamedTuple, Generic[PieceT]):
    """A part of a caller's work: so many texts, and the length of the longest, to which a model pads the others."""

    content: PieceT
    num: int
    longest: int


class _Job(Generic[PieceT, ResultT]):
    """One call: the pieces that wait, the results so far, and the keys (caller, request, call) whose turns it takes."""

    def __init__(self, pieces: list[Piece[PieceT]]) -> None:
        self.pieces, self.results = pieces[::-1], list[ResultT]()
        self.answer: asyncio.Future[list[ResultT]] = asyncio.get_running_loop().create_future()
        caller = CALLER.get() or new_caller()
        self.keys: tuple[Hashable, ...] = (caller.name, caller, id(self))


class _NobodyWaits(Exception):
    """All calls of a run were cancelled."""


class Turns(ABC, Generic[WorkT, PieceT, ResultT]):
    """Answers calls piece by piece in a thread: one caller after the other, and one request after the other of each caller.

    Pieces of several callers run together as long as they fit into `capacity`, so small calls share a run, and a large one
    waits for its next turn instead of making theirs longer. A call that was cancelled costs no more than the piece in progress.
    A worker that calls `callers.pause` between the steps of a long piece lets short ones run there, and ends a cancelled one.
    """

    def __init__(self, capacity: int) -> None:
        """`capacity`: most that `size` may return for several pieces that run together; 0: each runs alone."""
        self.capacity = capacity
        self._jobs: list[_Job[PieceT, ResultT]] = []
        self._last: dict[Hashable, int] = {}  # last turn of every caller, request and call that waits
        self._count = itertools.count()
        self._running: asyncio.Task[None] | None = None

    @abstractmethod
    def cut(self, work: WorkT) -> list[Piece[PieceT]]:
        """Return the pieces of a call, at least one, each no larger than the capacity if possible."""

    @abstractmethod
    def run(self, pieces: list[PieceT]) -> list[ResultT]:
        """Return the result of each piece; called in a thread."""

    @abstractmethod
    def join(self, pieces: list[PieceT], results: list[ResultT]) -> ResultT:
        """Return the result of a call from those of its pieces, in their order."""

    def size(self, pieces: list[Piece[PieceT]]) -> int:
        """Return the length of the texts of these pieces, padded to one length, in the unit of `capacity`."""
        return sum(piece.num for piece in pieces) * max(piece.longest for piece in pieces)

    async def __call__(self, work: WorkT) -> ResultT:
        """Return the result of one call, for the `CALLER` of the context."""
        pieces = self.cut(work)
        job: _Job[PieceT, ResultT] = _Job(pieces)
        self._jobs.append(job)
        for key in job.keys:
            self._last.setdefault(key, next(self._count))
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        return self.join([piece.content for piece in pieces], await job.answer)

    def _next(
        self, most: float = float("inf"), without: Collection[_Job[PieceT, ResultT]] = ()
    ) -> list[tuple[_Job[PieceT, ResultT], PieceT]]:
        """The pieces whose turn it is, each of at most this size; those of cancelled and failed calls are dropped."""
        self._jobs = [job for job in self._jobs if not job.answer.done()]
        self._last = {key: self._last[key] for job in self._jobs for key in job.keys}
        waiting = (job for job in self._jobs if job not in without and self.size(job.pieces[-1:]) <= most)
        batch: list[tuple[_Job[PieceT, ResultT], Piece[PieceT]]] = []
        for job in sorted(waiting, key=lambda job: [self._last[key] for key in job.keys]):
            pieces = [*(piece for _, piece in batch), job.pieces[-1]]
            if batch and self.size(pieces) > self.capacity:
                break
            batch.append((job, job.pieces.pop()))
        return [(job, piece.content) for job, piece in batch]

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while batch := self._next():
            await self._take_turn(batch, functools.partial(self._pause, [job for job, _ in batch], loop))

    async def _take_turn(self, batch: list[tuple[_Job[PieceT, ResultT], PieceT]], pause: Callable[[], None]) -> None:
        token = PAUSE.set(pause)  # the thread has a copy of this context
        try:
            results = await asyncio.to_thread(self.run, [piece for _, piece in batch])
        except Exception as error:  # noqa: BLE001  each caller handles it
            for job, _ in batch:
                if not job.answer.done():
                    job.answer.set_exception(error)
            return
        finally:
            PAUSE.reset(token)
        for (job, _), result in zip(batch, results, strict=True):
            job.results.append(result)
            if not job.pieces and not job.answer.done():
                job.answer.set_result(job.results)
            # A caller that came during the run has its turn before those that were in it.
            self._last.update((key, next(self._count)) for key in job.keys)

    def _pause(self, running: list[_Job[PieceT, ResultT]], loop: asyncio.AbstractEventLoop) -> None:
        """Called in the thread of a run: let short pieces of other calls run, while this thread waits."""
        if all(job.answer.done() for job in running):
            raise _NobodyWaits
        if all(job in running for job in self._jobs) or not loop.is_running():
            return
        between = asyncio.run_coroutine_threadsafe(self._run_short(running), loop)
        while loop.is_running() and not between.done():  # a loop that stops meanwhile runs nothing any more
            with contextlib.suppress(TimeoutError):
                between.result(1)

    async def _run_short(self, running: list[_Job[PieceT, ResultT]]) -> None:
        batch = self._next(MOST_IN_PAUSE, running)
        if batch:
            await self._take_turn(batch, go_on)
