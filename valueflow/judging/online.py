"""A judge that answers windows as they come, without a dataset: for the service and for the command line."""

import asyncio
from collections.abc import Awaitable, Callable

import pyarrow as pa

from valueflow.errors import InputError
from valueflow.judging.configs import AnyJudge, EncoderJudge, SimulatedJudge
from valueflow.judging.encoder import EncoderRanker
from valueflow.judging.simulated import SimulatedRanker
from valueflow.judging.tasks import RANK
from valueflow.llm.admission import BudgetLedger
from valueflow.llm.cache import CallCache, Reply
from valueflow.llm.configs import EndpointModel
from valueflow.llm.endpoint import Endpoint
from valueflow.llm.question import with_replies

# Windows that go to a worker together: so long waits who comes next.
MAX_BATCH_WINDOWS = 512
# Windows with their texts -> rows of `rankings`, one a window, in the same order.
OnlineJudge = Callable[[pa.Table], Awaitable[pa.Table]]
_Pending = tuple[pa.Table, asyncio.Future[pa.Table]]


def online_judge(judge: AnyJudge, cache: str = "") -> OnlineJudge:
    """Return what asks a judge; the encoder and the simulated judge work in a thread.

    Args:
        judge: any but a vLLM engine, which needs a process of its own.
        cache: folder or URL of the call cache of an endpoint; "" for none.

    Raises:
        InputError: a vLLM judge; or whatever the judge lacks (its weights, its key).
    """
    if isinstance(judge, EndpointModel):
        return EndpointJudge(judge, cache)
    if isinstance(judge, EncoderJudge | SimulatedJudge):
        return ThreadJudge(EncoderRanker(judge) if isinstance(judge, EncoderJudge) else SimulatedRanker(judge))
    raise InputError(
        f"judge {judge.name!r} is a vLLM engine, which runs under Ray Serve only (serve run serve.app:builder); here, give a "
        "judge of kind encoder, openai or simulated"
    )


class ThreadJudge:
    """Asks a judge in a thread; what callers ask while it works goes to it together, in one table."""

    def __init__(self, worker: Callable[[pa.Table], pa.Table]) -> None:
        self.worker = worker
        self.waiting: list[_Pending] = []
        self.running: asyncio.Task[None] | None = None

    async def __call__(self, windows: pa.Table) -> pa.Table:
        """Return the rows of one caller's windows."""
        answered = asyncio.get_running_loop().create_future()
        self.waiting.append((windows, answered))
        if self.running is None or self.running.done():
            self.running = asyncio.create_task(self._run())
        return await answered

    async def _run(self) -> None:
        while self.waiting:
            taken, size = [], 0
            while self.waiting and size < MAX_BATCH_WINDOWS:
                windows, answered = self.waiting.pop(0)
                if not answered.cancelled():  # a caller that went away is not asked for
                    taken.append((windows, answered))
                    size += windows.num_rows
            if not taken:
                continue
            try:
                rows = await asyncio.to_thread(self.worker, pa.concat_tables([windows for windows, _ in taken]))
            except Exception as error:  # noqa: BLE001  # it is each caller's to handle
                _fail(taken, error)
                continue
            _deliver(taken, rows)


class MicroBatcher:
    """Asks for many callers at once: what is asked in one turn of the event loop, as all values of a request are, is one call.

    Callers that all went away take the call back.
    """

    def __init__(self, ask: OnlineJudge) -> None:
        self.ask = ask
        self.waiting: list[_Pending] = []
        self.calls: set[asyncio.Future[pa.Table]] = set()  # the event loop itself keeps none alive

    async def __call__(self, windows: pa.Table) -> pa.Table:
        """Return the rows of one caller's windows."""
        loop = asyncio.get_running_loop()
        answered = loop.create_future()
        if not self.waiting:
            loop.call_soon(self._send)
        self.waiting.append((windows, answered))
        return await answered

    def _send(self) -> None:
        taken, self.waiting = [one for one in self.waiting if not one[1].cancelled()], []
        if not taken:
            return
        self.calls.add(call := asyncio.ensure_future(self.ask(pa.concat_tables([windows for windows, _ in taken]))))

        def left(_: asyncio.Future[pa.Table]) -> None:
            if all(answered.cancelled() for _, answered in taken):
                call.cancel()

        def came(call: asyncio.Future[pa.Table]) -> None:
            self.calls.discard(call)
            if call.cancelled():
                _fail(taken, RuntimeError("the call to the judge was cancelled"))
            elif error := call.exception():
                _fail(taken, error)
            else:
                _deliver(taken, call.result())

        for _, answered in taken:
            answered.add_done_callback(left)
        call.add_done_callback(came)


def _deliver(taken: list[_Pending], rows: pa.Table) -> None:
    """Give each caller the rows of its own windows."""
    at = 0
    for windows, answered in taken:
        if not answered.done():
            answered.set_result(rows.slice(at, windows.num_rows))
        at += windows.num_rows


def _fail(taken: list[_Pending], error: BaseException) -> None:
    for _, answered in taken:
        if not answered.done():
            answered.set_exception(error)


class EndpointJudge:
    """Asks an endpoint all windows of a table at once."""

    def __init__(self, judge: EndpointModel, cache: str) -> None:
        self.judge = judge
        self.endpoint = Endpoint(judge, CallCache(cache) if cache and judge.cache else None, BudgetLedger())

    async def __call__(self, windows: pa.Table) -> pa.Table:
        """Return the rows of the windows, in their order."""
        replies = await asyncio.gather(*(self._ask(row) for row in windows.to_pylist()))
        return RANK.read(with_replies(windows, replies), self.judge)

    async def _ask(self, row: dict) -> Reply:
        reply = await self.endpoint.ask(*RANK.question(row, self.judge), round_=row["round"])
        return reply or Reply("", "the judge's budget is spent; raise judge.budget", 0, 0)
