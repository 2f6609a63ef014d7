"""Judges that answer windows as they arrive, without a dataset: for the service and the command line."""

import asyncio

import pyarrow as pa

from valueflow.errors import InputError
from valueflow.judging.configs import AnyJudge
from valueflow.judging.kind import OnlineJudge, Worker
from valueflow.judging.kinds import kind_of

# Largest batch per worker call, in windows; later callers wait for the next call.
MAX_BATCH_WINDOWS = 512
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
        return ThreadJudge(kind.ranker(judge))
    raise InputError(
        f"judge {judge.name!r} is a vLLM engine, which runs under Ray Serve only (serve run serve.app:builder); here, use a "
        "judge of kind encoder, openai or simulated"
    )


class ThreadJudge:
    """A worker in a thread; windows that arrive while it works go to it in one table."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.waiting: list[_Pending] = []
        self.running: asyncio.Task[None] | None = None

    async def __call__(self, windows: pa.Table) -> pa.Table:
        """Return the `rankings` rows of one caller's windows."""
        answer = asyncio.get_running_loop().create_future()
        self.waiting.append((windows, answer))
        if self.running is None or self.running.done():
            self.running = asyncio.create_task(self._run())
        return await answer

    async def _run(self) -> None:
        while self.waiting:
            batch, size = [], 0
            while self.waiting and size < MAX_BATCH_WINDOWS:
                windows, answer = self.waiting.pop(0)
                if not answer.cancelled():  # windows of a caller that disconnected are skipped
                    batch.append((windows, answer))
                    size += windows.num_rows
            if not batch:
                continue
            try:
                rows = await asyncio.to_thread(self.worker, pa.concat_tables([windows for windows, _ in batch]))
            except Exception as error:  # noqa: BLE001  # each caller handles it
                _fail(batch, error)
                continue
            _deliver(batch, rows)


class MicroBatcher:
    """Joins the windows of one turn of the event loop, such as those of all values of a request, in one call.

    The call is cancelled once all its callers have been cancelled.
    """

    def __init__(self, judge: OnlineJudge) -> None:
        self.judge = judge
        self.waiting: list[_Pending] = []
        self.calls: set[asyncio.Future[pa.Table]] = set()  # the event loop itself keeps none alive

    async def __call__(self, windows: pa.Table) -> pa.Table:
        """Return the `rankings` rows of one caller's windows."""
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        if not self.waiting:
            loop.call_soon(self._send)
        self.waiting.append((windows, answer))
        return await answer

    def _send(self) -> None:
        batch, self.waiting = [pending for pending in self.waiting if not pending[1].cancelled()], []
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
