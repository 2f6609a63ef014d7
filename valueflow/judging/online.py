"""Judges that answer windows as they arrive, without a dataset: for the service and the command line."""

import asyncio
import itertools
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from valueflow.callers import CALLER, Caller
from valueflow.errors import InputError
from valueflow.judging.configs import AnyJudge
from valueflow.judging.kind import PIECE_BYTES, Ask, OnlineJudge, Worker
from valueflow.judging.kinds import kind_of
from valueflow.judging.turns import Piece, Turns

MAX_TEXTS = 2000  # that a worker reads at once
SMALL = 64  # windows that take no turn if the worker knows their texts: a millisecond
SPECIAL_BYTES = 12  # what the tokens cost that a model puts around each text
_Pending = tuple[pa.Table, asyncio.Future[pa.Table]]


def online_judge(judge: AnyJudge, cache: str = "") -> OnlineJudge:
    """Return a judge for an event loop; the encoder and the simulated judge work in a thread.

    Args:
        judge: any kind but a vLLM engine, which needs processes of its own.
        cache: folder or URL of the call cache of an endpoint; "" for none.

    Raises:
        InputError: a vLLM judge; or the judge's weights or API key are missing.
    """
    kind = kind_of(judge)
    if kind.online:
        return kind.online(judge, cache)
    if kind.ranker:
        ranker = kind.ranker(judge)
        return ThreadJudge(ranker, ranker.piece_bytes, ranker.read_bytes, ranker.knows)
    raise InputError(
        f"judge {judge.name!r} is a vLLM engine, which runs under Ray Serve only (python -m serve.local root=FOLDER); here, "
        "use a judge of kind encoder, openai or simulated"
    )


class ThreadJudge(Turns[pa.Table, pa.Table, pa.Table]):
    """A worker in a thread; small tables go to it together, and a large one takes turns with those of other callers.

    Args:
        worker: answers windows; each answer depends on its window alone, so cutting a table does not change it.
        capacity: UTF-8 bytes of the texts, padded to the longest, that the worker answers at once.
        read_bytes: bytes of a text that the worker reads.
        knows: whether the worker has read all texts of some windows before. Few such windows are answered at once, while
            it reads texts of other callers: of the rounds of a light request, only the first waits for them.
    """

    def __init__(
        self,
        worker: Worker,
        capacity: int = PIECE_BYTES,
        read_bytes: int = PIECE_BYTES,
        knows: Callable[[pa.Table], bool] = lambda _: False,
    ) -> None:
        super().__init__(capacity)
        self.worker, self.read_bytes, self.knows = worker, read_bytes, knows

    async def __call__(self, work: pa.Table) -> pa.Table:
        """Return the `rankings` rows of one caller's windows."""
        if work.num_rows <= SMALL and self.knows(work):
            return await asyncio.to_thread(self.worker, work)
        return await super().__call__(work)

    async def check(self) -> None:
        """Return: a worker in this process answers as long as the process does."""

    def cut(self, work: pa.Table) -> list[Piece[pa.Table]]:
        """Return slices of at least one window."""
        if not work.num_rows:
            return [Piece(work, 0, 0)]
        lists = work["texts"].chunks
        num_W = np.concatenate([pc.list_value_length(texts).to_numpy(zero_copy_only=False) for texts in lists])
        bytes_T = np.concatenate([pc.binary_length(texts.flatten()).to_numpy(zero_copy_only=False) for texts in lists])
        # However short, texts cost something: at most MAX_TEXTS run at once.
        bytes_T = np.clip(bytes_T, -(-self.capacity // MAX_TEXTS), self.read_bytes) + SPECIAL_BYTES
        longest_W = np.maximum.reduceat(bytes_T, num_W.cumsum() - num_W)
        pieces: list[Piece[pa.Table]] = []
        start, num, longest = 0, 0, 0
        for i, (more, length) in enumerate(zip(num_W.tolist(), longest_W.tolist(), strict=True)):
            if i > start and (num + more) * max(longest, length) > self.capacity:
                pieces.append(Piece(work.slice(start, i - start), num, longest))
                start, num, longest = i, 0, 0
            num, longest = num + more, max(longest, length)
        return [*pieces, Piece(work.slice(start), num, longest)]

    def run(self, pieces: list[pa.Table]) -> list[pa.Table]:
        """Return the `rankings` rows of each piece."""
        rows = self.worker(pa.concat_tables(pieces))
        starts = itertools.accumulate((piece.num_rows for piece in pieces), initial=0)
        return [rows.slice(start, piece.num_rows) for start, piece in zip(starts, pieces, strict=False)]

    def join(self, pieces: list[pa.Table], results: list[pa.Table]) -> pa.Table:
        """Return the `rankings` rows of one caller's windows."""
        return pa.concat_tables(results)


class MicroBatcher:
    """Joins the windows of a request in one turn of the event loop, such as those of all its values, in one call.

    The call is cancelled once all who wait for it have been cancelled.
    """

    def __init__(self, judge: Ask) -> None:
        self.judge = judge
        self.waiting: dict[Caller | None, list[_Pending]] = {}
        self.calls: set[asyncio.Future[pa.Table]] = set()  # the event loop itself keeps none alive

    async def __call__(self, windows: pa.Table) -> pa.Table:
        """Return the `rankings` rows of the windows, for the `CALLER` of the context."""
        loop, caller = asyncio.get_running_loop(), CALLER.get()
        answer = loop.create_future()
        if caller not in self.waiting:
            self.waiting[caller] = []
            loop.call_soon(self._send, caller)  # keeps the context, so the call to the judge is the caller's too
        self.waiting[caller].append((windows, answer))
        return await answer

    def _send(self, caller: Caller | None) -> None:
        batch = [pending for pending in self.waiting.pop(caller) if not pending[1].cancelled()]
        if not batch:
            return
        self.calls.add(call := asyncio.ensure_future(self.judge(pa.concat_tables([windows for windows, _ in batch]))))

        def on_answer_done(_: asyncio.Future[pa.Table]) -> None:
            if all(answer.cancelled() for _, answer in batch):
                call.cancel()

        def on_call_done(call: asyncio.Future[pa.Table]) -> None:
            self.calls.discard(call)
            if call.cancelled():
                _fail(batch, RuntimeError("the call to the judge was cancelled"))
            elif error := call.exception():
                _fail(batch, error)
            else:
                _deliver(batch, call.result())

        for _, answer in batch:
            answer.add_done_callback(on_answer_done)
        call.add_done_callback(on_call_done)


def _deliver(batch: list[_Pending], rows: pa.Table) -> None:
    """Give each caller the rows of its windows."""
    start = 0
    for windows, answer in batch:
        if not answer.done():
            answer.set_result(rows.slice(start, windows.num_rows))
        start += windows.num_rows


def _fail(batch: list[_Pending], error: BaseException) -> None:
    for _, answer in batch:
        if not answer.done():
            answer.set_exception(error)
