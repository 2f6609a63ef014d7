"""Slots that callers share: who is next, what a caller may hold, and calls that were cancelled."""

import asyncio
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from valueflow.callers import Caller, CallQueue, Slots, calling, share_of_caller


class Work:
    """Calls that hold a slot until they are let go; `running` and `ended` have the caller of each."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self.running: list[str] = []
        self.ended: list[str] = []
        self._let_go: list[asyncio.Event] = []

    def call(self, name: str, request: str = "") -> asyncio.Task[None]:
        """Begin a call for a caller."""
        with calling(Caller(name, request or name)):
            return asyncio.create_task(self._hold(request or name))

    async def _hold(self, name: str) -> None:
        async with self.slots.slot():
            self.running.append(name)
            self._let_go.append(event := asyncio.Event())
            try:
                await event.wait()
            finally:
                place = self._let_go.index(event)
                del self._let_go[place]
                self.ended.append(self.running.pop(place))

    async def end_first(self) -> None:
        """End the call that has run longest."""
        self._let_go[0].set()
        await settle()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def run(slots: Slots, steps: Callable) -> None:
    async def main() -> None:
        work = Work(slots)
        await steps(work)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await settle()
        assert not work.running

    asyncio.run(main())


def test_a_light_caller_waits_for_one_call_of_a_heavy_one():
    async def steps(work: Work) -> None:
        for _ in range(200):
            work.call("heavy")
        await settle()
        light = [work.call("light") for _ in range(3)]
        await settle()
        while not all(task.done() for task in light):
            await work.end_first()
        assert work.ended.count("heavy") <= 5

    run(Slots(2), steps)


def test_slots_are_shared_evenly_whatever_each_caller_asks():
    async def steps(work: Work) -> None:
        for name, count in (("a", 100), ("b", 20), ("c", 20)):
            for _ in range(count):
                work.call(name)
        await settle()
        for _ in range(30):
            await work.end_first()
        assert sorted(work.running) == ["a", "a", "b", "b", "c", "c"]
        assert [work.ended[-12:].count(name) for name in "abc"] == [4, 4, 4]

    run(Slots(6), steps)


def test_requests_of_one_caller_share_what_the_caller_has():
    async def steps(work: Work) -> None:
        for request in ("a1", "a2", "a3"):
            for _ in range(20):
                work.call("a", request)
        for _ in range(20):
            work.call("b")
        await settle()
        for _ in range(12):
            await work.end_first()
        assert sorted(work.running) == ["a1", "a2", "a3", "b", "b", "b"]

    run(Slots(6), steps)


def test_without_a_caller_calls_start_in_their_order():
    async def main() -> list[int]:
        queue, order = CallQueue(), []
        assert share_of_caller() == ()
        for since in (3.0, 1.0, 2.0, 1.0):
            queue.put((), since, len(queue))
        while call := queue.start():
            order.append(call.tokens)
            queue.end(call.share)
        return order

    assert asyncio.run(main()) == [1, 3, 2, 0]


def test_a_caller_holds_at_most_its_share_of_the_slots():
    async def steps(work: Work) -> None:
        for request in ("a1", "a2", "a3"):
            work.call("a", request)
        await settle()
        assert work.running == ["a1"]
        work.call("b")
        await settle()
        assert work.running == ["a1", "b"]
        await work.end_first()
        assert work.running == ["b", "a2"]

    run(Slots(2, most=1), steps)


def test_a_caller_that_has_gone_leaves_the_calls_in_progress():
    async def steps(work: Work) -> None:
        gone = [work.call("gone") for _ in range(200)]
        await settle()
        light = work.call("light")
        for task in gone[2:]:
            task.cancel()
        await settle()
        await work.end_first()
        assert work.running == ["gone", "light"]
        await work.end_first()
        await work.end_first()
        assert light.done()
        assert work.ended == ["gone", "gone", "light"]

    run(Slots(2), steps)


def test_a_call_that_is_cancelled_between_admission_and_its_start_leaves_its_slot():
    async def main() -> None:
        slots = Slots(1)

        async def hold() -> None:
            async with slots.slot():
                pass

        async with slots.slot():
            waiting = [asyncio.create_task(hold()) for _ in range(2)]
            await settle()
        waiting[0].cancel()  # admitted, not yet awake
        await asyncio.wait_for(waiting[1], 5)
        assert waiting[0].cancelled()

    asyncio.run(main())


@settings(max_examples=60, deadline=None)
@given(
    calls=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("12"), st.booleans()), max_size=40),
    num=st.integers(1, 4),
    most=st.sampled_from([None, 1, 3]),
)
def test_no_slot_is_lost_and_nothing_is_remembered_of_callers_without_calls(calls, num, most):
    async def main() -> None:
        slots = Slots(num, most)
        work = Work(slots)
        for name, request, leaves in calls:
            task = work.call(name, name + request)
            await settle()
            assert len(work.running) <= num
            if leaves:
                task.cancel()
                await settle()
        while work.running:
            await work.end_first()
        queue = slots._queue
        assert (slots._free, len(queue), dict(queue._in_progress), queue._last) == (num, 0, {}, {})

    asyncio.run(main())
