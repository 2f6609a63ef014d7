"""Slots for calls, shared by callers: a light caller does not wait for the queue of a heavy one.

The next call is one of the caller with the fewest calls in progress (max-min fairness over slots). Of several such callers, it
is one of the caller whose last call ended first, or who came first. The same rule holds among the requests of a caller.
"""

import asyncio
import contextlib
import heapq
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Hashable, Iterator
from typing import Any, NamedTuple

from valueflow.callers.caller import CALLER

Share = tuple[Hashable, ...]  # whose slots a call takes: a caller's and a request's; () where there are no callers, as in a job


def share_of_caller() -> Share:
    """Return the share of the `CALLER` of the context."""
    caller = CALLER.get()
    return (caller.name, caller) if caller else ()


class QueuedCall(NamedTuple):
    """A call in the queue. It leaves the queue when `admitted` is done, also by cancellation.

    since: the calls of one share are ordered by it, then by `number`, which is unique.
    tokens: for a rate; 0 where none applies.
    """

    since: float
    number: int
    share: Share
    tokens: int
    admitted: asyncio.Future[Any]


class CallQueue:
    """Calls that wait, and the number of those in progress, by share.

    Args:
        most: calls in progress of one caller; None: any number.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._waiting: dict[Share, list[QueuedCall]] = {}  # heaps, none of them empty
        self._in_progress: Counter[Hashable] = Counter()  # by caller and by request
        self._last: dict[Hashable, int] = {}  # when the last call of each ended, or it came; on the clock `_count`
        self._count = itertools.count()

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def __iter__(self) -> Iterator[QueuedCall]:
        return itertools.chain.from_iterable(self._waiting.values())

    def put(self, share: Share, since: float, tokens: int = 0) -> asyncio.Future[Any]:
        """Add a call and return the future of its admission."""
        admitted: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        for key in share:
            self._last.setdefault(key, next(self._count))
        heapq.heappush(self._waiting.setdefault(share, []), QueuedCall(since, next(self._count), share, tokens, admitted))
        return admitted

    def start(self) -> QueuedCall | None:
        """Take the next call out of the queue; it is in progress until `end`. None if no call may start."""
        self._drop_gone()
        share = min(filter(self._may_start, self._waiting), key=self._rank, default=None)
        if share is None:
            return None
        call = heapq.heappop(self._waiting[share])
        self._in_progress.update(share)
        self._forget(share)
        return call

    def end(self, share: Share) -> None:
        """Count a call as ended."""
        self._in_progress.subtract(share)
        self._last.update((key, next(self._count)) for key in share)
        self._forget(share)

    def _may_start(self, share: Share) -> bool:
        return self._most is None or not share or self._in_progress[share[0]] < self._most

    def _rank(self, share: Share) -> list[tuple[int, int]]:
        return [(self._in_progress[key], self._last[key]) for key in share]

    def _drop_gone(self) -> None:
        """Drop calls that were cancelled from the head of each heap; they take no turn."""
        for share, calls in list(self._waiting.items()):
            while calls and calls[0].admitted.done():
                heapq.heappop(calls)
            if not calls:
                self._forget(share)

    def _forget(self, share: Share) -> None:
        """Forget whoever of a share has no call any more."""
        if share in self._waiting and not self._waiting[share]:
            del self._waiting[share]
        for key in share:
            if not self._in_progress[key] and not any(key in waiting for waiting in self._waiting):
                del self._in_progress[key]
                self._last.pop(key, None)


class Slots:
    """At most `num` calls in progress, `most` of them of one caller (None: any number)."""

    def __init__(self, num: int, most: int | None = None) -> None:
        self._free, self._queue = num, CallQueue(most)

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for a slot for the `CALLER` of the context, and hold it."""
        share = share_of_caller()
        admitted = self._queue.put(share, 0.0)
        self._admit()
        try:
            await admitted
            yield
        finally:
            if not admitted.cancelled():  # else it was cancelled in the queue
                self._free += 1
                self._queue.end(share)
                self._admit()

    def _admit(self) -> None:
        while self._free and (call := self._queue.start()):
            self._free -= 1
            call.admitted.set_result(None)
