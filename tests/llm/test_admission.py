"""The gate in simulated time against servers with fixed limits; rates, waiting, the budget's reservations."""

import asyncio
import email.utils
import math
import random
import time
from collections.abc import Callable, Coroutine
from typing import NamedTuple

import pytest

from valueflow.callers import Caller, calling
from valueflow.llm import admission
from valueflow.llm.admission import AdaptiveConcurrency, BudgetLedger, TokenBucket, Tokens
from valueflow.llm.configs import Budget, Price
from valueflow.retry import backoff, retry_after


class Simulated(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer: simulated hours take no time and are deterministic."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        select = self._selector.select
        self._selector.select = lambda timeout: self._jump(timeout) or select(0)

    def _jump(self, seconds: float | None) -> None:
        if seconds is None:
            raise RuntimeError("everything waits and nothing will ever happen")
        self.now += seconds

    def time(self) -> float:
        return self.now


def simulate(main: Coroutine) -> object:
    with asyncio.Runner(loop_factory=Simulated) as runner:
        return runner.run(main)


def gate(
    most: int = 64, patience: float = 600.0, requests: float | None = None, tokens: float | None = None,
    timeout: float = math.inf,
) -> AdaptiveConcurrency:  # fmt: skip
    return AdaptiveConcurrency(most, patience, TokenBucket(requests), TokenBucket(tokens), timeout)


class Load(NamedTuple):
    """Statistics of a simulated server while calls were waiting."""

    utilisation: float
    refused: float


async def drive(
    limit: Callable[[float], int],
    calls: int,
    by_chance: float = 0.0,
    most: int = 64,
    service: tuple[float, float] = (0.05, 0.1),
) -> Load:
    """Send calls through a gate to a server with `limit(seconds)` slots that also refuses some at random."""
    loop, opened, rng = asyncio.get_running_loop(), gate(most), random.Random(0)
    sums = {"in_flight": 0, "since": 0.0, "held": 0.0, "allowed": 0.0, "requests": 0, "refused": 0, "unsent": calls}

    def count(change: int) -> None:
        if sums["unsent"]:
            sums["held"] += sums["in_flight"] * (loop.time() - sums["since"])
            sums["allowed"] += min(most, limit(loop.time())) * (loop.time() - sums["since"])
        sums["since"] = loop.time()
        sums["in_flight"] += change

    async def call() -> None:
        arrival, sent = loop.time(), False
        while True:
            slot = await opened.acquire(arrival, 1)
            count(0)
            sums["unsent"] -= not sent
            started, sent = loop.time(), True
            await asyncio.sleep(0.001)
            sums["requests"] += 1
            if sums["in_flight"] >= limit(loop.time()) or rng.random() < by_chance:
                sums["refused"] += 1
                await asyncio.sleep(0.001)
                opened.refuse(slot, 1.0)
                await asyncio.sleep(1.0)
                continue
            count(1)
            await asyncio.sleep(rng.uniform(*service))
            count(-1)
            await asyncio.sleep(0.001)
            opened.release(slot, loop.time() - started)
            return

    await asyncio.gather(*(call() for _ in range(calls)))
    return Load(sums["held"] / sums["allowed"], sums["refused"] / sums["requests"])


@pytest.mark.parametrize(
    ("limit", "most", "calls"), [(4, 64, 400), (10, 64, 1000), (40, 64, 2000), (64, 64, 2000), (200, 500, 12_000)]
)
def test_a_server_with_a_hard_limit_is_fully_used(limit, most, calls):
    load = simulate(drive(lambda _: limit, calls, most=most))
    assert load.utilisation > 0.9
    assert load.refused < (
        0.4 if limit == 4 else 0.25 if limit == 10 else 0.12
    )  # one or two slots too many, whatever the limit


def test_slow_answers_change_nothing():
    assert simulate(drive(lambda _: 40, 1000, service=(5.0, 15.0))).utilisation > 0.9


@pytest.mark.parametrize(("by_chance", "utilisation"), [(0.02, 0.9), (0.05, 0.8), (0.1, 0.6)])
def test_random_refusals_do_not_count_as_a_full_server(by_chance, utilisation):
    assert simulate(drive(lambda _: 40, 4000, by_chance)).utilisation > utilisation


def test_the_gate_follows_a_server_that_changes():
    more = simulate(drive(lambda seconds: 10 if seconds < 3 else 60, 4000))
    fewer = simulate(drive(lambda seconds: 40 if seconds < 3 else 5, 2000))
    assert min(more.utilisation, fewer.utilisation) > 0.85
    assert max(more.refused, fewer.refused) < 0.3


def test_a_server_that_refuses_everything_is_left_alone():
    async def main() -> tuple[int, int, float]:
        loop, opened, denied = asyncio.get_running_loop(), gate(patience=600.0), 0

        async def call() -> None:
            nonlocal denied
            arrival = loop.time()
            while slot := await opened.acquire(arrival, 1):
                await asyncio.sleep(0.01)
                opened.refuse(slot, 60.0)
                await asyncio.sleep(60.0)
            denied += 1

        await asyncio.gather(*(call() for _ in range(500)))
        return denied, opened.num_refusals, loop.time()

    denied, refusals, seconds = simulate(main())
    assert denied == 500
    assert refusals < 100
    assert 500 < seconds < 700


class Queued(NamedTuple):
    """Calls to a server that queues: answered, lost to the timeout, turned away without a call; seconds in all."""

    answered: int
    lost: int
    denied: int
    seconds: float


async def queue(
    slots: int, service: float, calls: int, timeout: float = 60.0, is_deaf: bool = False, by_chance: float = 0.0
) -> Queued:
    """Send calls to a server that answers `slots` at once and queues the others; a deaf one also answers those who left."""
    loop, opened, rng = asyncio.get_running_loop(), gate(timeout=timeout), random.Random(1)
    places, counts = asyncio.Semaphore(slots), [0, 0, 0]

    async def serve() -> None:
        async with places:
            await asyncio.sleep(service * rng.uniform(0.8, 1.2) + (2 * timeout) * (rng.random() < by_chance))

    async def call() -> None:
        slot = await opened.acquire(loop.time(), 1)
        if slot is None:
            counts[2] += 1
            return
        started, answer = loop.time(), asyncio.ensure_future(serve())
        try:
            await asyncio.wait_for(asyncio.shield(answer) if is_deaf else answer, timeout)
        except TimeoutError:
            counts[1] += 1
            opened.lose(slot)
        else:
            counts[0] += 1
            opened.release(slot, loop.time() - started)

    await asyncio.gather(*(call() for _ in range(calls)))
    return Queued(*counts, loop.time())


@pytest.mark.parametrize("is_deaf", [False, True])
@pytest.mark.parametrize(("slots", "service"), [(1, 5.0), (1, 20.0), (1, 28.0), (4, 3.0), (4, 13.0), (8, 1.0)])
def test_a_server_that_queues_loses_no_call_and_is_fully_used(slots, service, is_deaf):
    load = simulate(queue(slots, service, 144, is_deaf=is_deaf))
    assert (load.answered, load.lost, load.denied) == (144, 0, 0)
    assert load.seconds < 1.1 * 144 * service / slots


def test_calls_lost_by_chance_hardly_lower_the_concurrency():
    load = simulate(queue(64, 1.0, 4000, by_chance=0.02))
    assert 40 < load.lost < 130
    assert load.seconds < 2 * (4000 * (1 + 0.02 * 60) / 64)


def test_a_server_that_needs_longer_than_the_timeout_is_left_alone_after_a_few_calls():
    load = simulate(queue(4, 90.0, 500))
    assert (load.answered, load.lost + load.denied) == (0, 500)
    assert load.lost < 30
    assert load.seconds < 1200


def test_an_overload_is_lowered_once_for_the_calls_that_were_in_flight_together():
    async def main() -> tuple[int, int]:
        opened = gate(timeout=2.0)
        slots = []
        for _ in range(5):  # grow
            slots = [await opened.acquire(0.0, 1) for _ in range(opened.limit)]
            await asyncio.sleep(0.1)
            for slot in slots:
                opened.release(slot, 0.1)
        slots = [await opened.acquire(0.0, 1) for _ in range(opened.limit)]
        await asyncio.sleep(2.0)
        for slot in slots:
            opened.lose(slot)
        return len(slots), opened.limit

    before, after = simulate(main())
    assert before == 64
    assert 8 < after < 48  # halved, and once more by the pause after so many losses in a row


def test_calls_are_served_in_order_of_arrival_also_after_a_refusal():
    async def main() -> list[float]:
        opened, order = gate(most=1), []
        first = await opened.acquire(1.0, 1)

        async def call(arrival: float) -> None:
            slot = await opened.acquire(arrival, 1)
            order.append(arrival)
            opened.release(slot, 0.1)

        waiting = [asyncio.create_task(call(arrival)) for arrival in (3.0, 2.0, 4.0)]
        await asyncio.sleep(0)
        opened.release(first, 0.1)
        await asyncio.gather(*waiting)
        return order

    assert simulate(main()) == [2.0, 3.0, 4.0]


class TwoCallers:
    """200 calls of a heavy caller and 3 of a light one to a server with 2 slots; `answered` has the caller of each answer."""

    def __init__(self) -> None:
        self.gate, self.answered, self.refused = gate(most=2), list[str](), set[str]()

    def begin(self, name: str, count: int) -> list[asyncio.Task[None]]:
        with calling(Caller(name, name)):
            return [asyncio.create_task(self._call(name, i)) for i in range(count)]

    async def _call(self, name: str, number: int) -> None:
        loop = asyncio.get_running_loop()
        arrival = loop.time()
        while True:
            slot = await self.gate.acquire(arrival, 1)
            await asyncio.sleep(1.0)
            if f"{name}{number}" not in self.refused:
                break
            self.refused.remove(f"{name}{number}")
            self.gate.refuse(slot, None)
            await asyncio.sleep(2.0)
        self.gate.release(slot, 1.0)
        self.answered.append(name)


@pytest.mark.parametrize("refused", [set(), {"light0"}, {"light0", "light1", "light2"}], ids=len)
def test_a_light_caller_waits_for_no_queue_of_a_heavy_one_also_after_refusals(refused):
    async def main() -> tuple[int, float]:
        callers, loop = TwoCallers(), asyncio.get_running_loop()
        callers.refused = set(refused)
        heavy = callers.begin("heavy", 200)
        await asyncio.sleep(20.5)
        before, start = callers.answered.count("heavy"), loop.time()
        await asyncio.gather(*callers.begin("light", 3))
        during, seconds = callers.answered.count("heavy") - before, loop.time() - start
        await asyncio.gather(*heavy)
        return during, seconds

    answers, seconds = simulate(main())
    assert answers <= 5 + 3 * len(refused)
    assert seconds <= 4 + 4 * len(refused)


def test_a_caller_that_has_gone_leaves_the_calls_in_flight():
    async def main() -> TwoCallers:
        callers = TwoCallers()
        heavy = callers.begin("heavy", 200)
        await asyncio.sleep(20.5)
        callers.answered.clear()
        in_flight = [task for task in heavy if not task.done()][:2]
        for task in set(heavy) - set(in_flight):
            task.cancel()
        await asyncio.gather(*callers.begin("light", 3), *in_flight)
        return callers

    callers = simulate(main())
    assert sorted(callers.answered) == ["heavy", "heavy", "light", "light", "light"]
    assert len(callers.gate._queue) == 0


def test_a_cancelled_call_leaves_no_slot_behind():
    async def main() -> None:
        opened = gate(most=1)
        first = await opened.acquire(1.0, 1)
        waiting = [asyncio.create_task(opened.acquire(2.0, 1)) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()  # in the queue
        opened.release(first, 0.1)
        waiting[1].cancel()  # let in, but not yet woken
        await asyncio.gather(*waiting, return_exceptions=True)
        assert waiting[2].done()
        assert not waiting[2].cancelled()

    simulate(main())


@pytest.mark.parametrize("rates", [{"requests": 60.0}, {"tokens": 6000.0}])
def test_rates_per_minute_hold(rates):
    async def main() -> float:
        loop, opened = asyncio.get_running_loop(), gate(**rates)

        async def call() -> None:
            slot = await opened.acquire(loop.time(), 150)
            opened.refund_tokens(50)  # 100 it was
            opened.release(slot, 0.0)

        await asyncio.gather(*(call() for _ in range(600)))
        return loop.time()

    assert simulate(main()) == pytest.approx(600, abs=2)


def test_mean_concurrency_counts_only_time_with_work():
    async def main() -> float:
        opened = gate()
        for _ in range(2):
            slots = [await opened.acquire(0.0, 1) for _ in range(3)]
            await asyncio.sleep(10)
            for slot in slots:
                opened.release(slot, 10.0)
            await asyncio.sleep(1000)
        assert opened.busy_seconds == pytest.approx(20)
        return opened.call_seconds / opened.busy_seconds

    assert simulate(main()) == pytest.approx(3)


def test_retry_after_in_seconds_or_as_a_date():
    assert retry_after({"retry-after": "7"}) == 7
    assert retry_after({"retry-after": "0.5"}) == 0.5
    assert retry_after({"retry-after": "-3"}) == 0
    assert retry_after({"retry-after": email.utils.formatdate(time.time() + 60, usegmt=True)}) == pytest.approx(60, abs=2)
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    assert [retry_after({"retry-after": word}) for word in ("", "soon", "nan", "inf", "99 bottles")] == [None] * 5
    assert retry_after({}) is None


def test_backoff_doubles_up_to_a_bound_with_full_jitter():
    for attempt in (0, 1, 5, 10, 5000):
        waits = [backoff(attempt) for _ in range(300)]
        bound = min(admission.LONGEST, admission.BACKOFF * 2.0 ** min(attempt, 40))
        assert 0 <= min(waits) < bound / 10
        assert bound * 0.9 < max(waits) <= bound


def test_a_reservation_waits_for_calls_in_flight_and_ends_when_nothing_can_come_back():
    async def main() -> None:
        budget, price, spent = Budget(tokens=100), Price(), BudgetLedger(10, 5)
        estimate = Tokens(20, 20)
        assert await spent.reserve(estimate, budget, price)
        assert await spent.reserve(estimate, budget, price)
        third = asyncio.create_task(spent.reserve(estimate, budget, price))
        await asyncio.sleep(1)
        assert not third.done()  # 15 + 80 are taken, but less may be used
        spent.settle(estimate, Tokens(20, 1))
        spent.settle(estimate, Tokens(20, 1))
        assert await third
        spent.settle(estimate, Tokens(20, 1))
        assert (spent.tokens_in, spent.tokens_out) == (70, 8)
        assert not await spent.reserve(estimate, budget, price)

    simulate(main())


def test_money_is_counted_at_the_price():
    async def main() -> None:
        price, budget, spent = Price(tokens_in=1.0, tokens_out=10.0), Budget(money=0.001), BudgetLedger()
        assert not await spent.reserve(Tokens(0, 101), budget, price)
        assert await spent.reserve(Tokens(900, 10), budget, price)

    simulate(main())
