"""What holds a call back: the server's own limit, found by asking; rates per minute; waiting after a refusal; the budget."""

import asyncio
import heapq
import itertools
import math
from typing import NamedTuple

from valueflow.llm.configs import Budget, Price
from valueflow.retry import BACKOFF, LONGEST

# Seconds of a rate that may be used at once.
BURST = 1.0
# Calls in flight before anything is known of the server (TCP's initial window).
START = 10
# What the server held at once counts for two windows of so many round trips; longer while it refuses less than this share of
# the calls: some servers refuse a few whatever their load, and to be careful with those would only be slow.
WINDOW, FEW = 4, 0.06
# So many refusals in a row with nothing else in flight mean that the server takes nothing at all for now.
ALL_REFUSED = 4


class Tokens(NamedTuple):
    """Prompt and generated tokens of a call, estimated or counted."""

    prompt: int
    generated: int


def _now() -> float:
    return asyncio.get_running_loop().time()


class TokenBucket:
    """A rate per minute as a token bucket; None is without limit."""

    def __init__(self, per_minute: float | None) -> None:
        self.per_second = per_minute / 60 if per_minute else math.inf
        self.full_at = 0.0  # when the bucket will be full again if nothing more is taken

    def wait(self, now: float) -> float:
        """Return the seconds until something may be taken; a bucket that is not empty lends the rest."""
        return max(0.0, self.full_at - now - BURST)

    def take(self, amount: float, now: float) -> None:
        """Take an amount; a negative one gives back what an estimate had taken too much."""
        self.full_at = max(self.full_at, now) + amount / self.per_second


class Slot:
    """A call in flight and its place among them: how many the server held with it, if none of those is refused."""

    __slots__ = ("place",)

    def __init__(self, place: int) -> None:
        self.place = place


class AdaptiveConcurrency:
    """Lets calls through, the one asked first first, as many at once as the server takes.

    That is as many as the server was lately seen to hold, and some probes more. An accepted probe adds one (at first the limit
    doubles in a round trip), most probes refused halve them. A slot whose call was refused rests for a round trip. So a server
    with a hard limit stays full at the price of a few refusals, and one that refuses calls at random is not taken for a full
    one. A server that refuses everything is left alone for as long as it asks.
    """

    def __init__(self, most: int, patience: float, requests: TokenBucket, tokens: TokenBucket) -> None:
        self.most, self.patience, self.requests, self.tokens = most, patience, requests, tokens
        self.round_trip = 1.0  # seconds until an answer, smoothed
        self.answers = self.refusals = 0
        self._held, self._held_before = 0, 0  # most calls at once, in this window and in earlier ones
        self._probes, self._halved = START, 0.0
        self._resting = self._resting_probes = 0
        self._window = (0.0, 0, 0)  # when it began, answers and refusals until then
        self._in_a_row, self._refused_since = 0, math.inf
        self._paused_until, self._pauses = 0.0, 0
        self._out: set[Slot] = set()
        self._queue: list[tuple[float, int, int, asyncio.Future[Slot | None]]] = []
        self._entered = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._counted = self.busy_seconds = self.call_seconds = 0.0

    async def enter(self, asked: float, tokens: int) -> Slot | None:
        """Wait for a slot and take it; None where the server's pause outlasts the patience of a call asked then."""
        if self._out_of_patience(asked):
            return None
        self._count()
        waiting: asyncio.Future[Slot | None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._queue, (asked, next(self._entered), tokens, waiting))
        self._open()
        try:
            return await waiting
        except asyncio.CancelledError:
            if waiting.done() and not waiting.cancelled() and (slot := waiting.result()):
                self.leave(slot)
            raise

    def leave(self, slot: Slot, round_trip: float | None = None) -> None:
        """Give a slot back; `round_trip`: seconds after which the server answered, None where it did not."""
        if round_trip is not None:
            self.answers += 1
            self.round_trip += (round_trip - self.round_trip) * max(0.1, 1 / self.answers)
            self._in_a_row, self._refused_since, self._pauses = 0, math.inf, 0
            if slot.place > self._proven:
                self._probes = min(self._probes + 1, max(START, self._proven))
            self._held = max(self._held, slot.place)
        self._remove(slot)

    def refused(self, slot: Slot, wait: float | None) -> None:
        """Give a slot back that the server refused; `wait`: seconds it asked for, None where it did not say."""
        now = _now()
        self.refusals += 1
        self._in_a_row, self._refused_since = self._in_a_row + 1, min(self._refused_since, now)
        for other in self._out:
            other.place -= other.place > slot.place  # the server never held this one beside it
        probe = slot.place > self._proven
        self._rest(probe, 1)
        asyncio.get_running_loop().call_later(self.round_trip, self._rest, probe, -1)
        if probe and self._resting_probes > self._probes / 2 and now - self._halved > self.round_trip:
            self._probes, self._halved = max(1, self._probes // 2), now
        self._remove(slot)
        if self._in_a_row >= ALL_REFUSED + 4 * self._limit * bool(self._out):
            self._pause(now, wait)

    def give_back(self, tokens: int) -> None:
        """Correct the estimate of a call's tokens: so many were too much (negative: too few)."""
        self.tokens.take(-tokens, _now())

    @property
    def _proven(self) -> int:
        return max(self._held, self._held_before)

    @property
    def _limit(self) -> int:
        return min(self.most, self._proven + max(0, self._probes - self._resting_probes)) - self._resting

    def _remove(self, slot: Slot) -> None:
        self._count()
        self._out.remove(slot)
        self._turn_window()
        self._open()

    def _turn_window(self) -> None:
        """Forget what the server held in earlier windows, unless it still refuses next to nothing."""
        began, answers, refusals = self._window
        now = _now()
        if now - began > WINDOW * self.round_trip:
            refused, answered = self.refusals - refusals, self.answers - answers
            self._held_before = self._held if refused > FEW * (refused + answered) else self._proven
            self._held, self._window = 0, (now, self.answers, self.refusals)

    def _pause(self, now: float, wait: float | None) -> None:
        self._paused_until = max(self._paused_until, now + (wait or min(LONGEST, BACKOFF * 2.0**self._pauses)))
        self._in_a_row, self._pauses = 0, self._pauses + 1
        self._held, self._held_before, self._probes = 0, self._proven // 2, 1
        for asked, _, _, waiting in self._queue:
            if not waiting.done() and self._out_of_patience(asked):
                waiting.set_result(None)

    def _out_of_patience(self, asked: float) -> bool:
        """Whether a call asked then would have met nothing but refusals for longer than the patience when the pause ends."""
        since = max(asked, min(self._refused_since, _now()))
        return self._paused_until - since > self.patience

    def _rest(self, probe: bool, change: int) -> None:
        if probe:
            self._resting_probes += change
        else:
            self._resting += change
        if change < 0:
            self._open()

    def _open(self) -> None:
        """Let in whom the limits allow now; where only time is missing, come back then."""
        now = _now()
        while self._queue and len(self._out) < self._limit:
            wait = max(self._paused_until - now, self.requests.wait(now), self.tokens.wait(now))
            if wait > 0:
                self._come_back(wait)
                return
            _, _, tokens, waiting = heapq.heappop(self._queue)
            if not waiting.done():
                self._count()
                self._out.add(slot := Slot(len(self._out) + 1))
                self.requests.take(1, now)
                self.tokens.take(tokens, now)
                waiting.set_result(slot)

    def _come_back(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._open)

    def _count(self) -> None:
        """Add the time since the last change to the sums behind the mean concurrency."""
        now = _now()
        if self._out or self._queue:
            self.busy_seconds += now - self._counted
            self.call_seconds += len(self._out) * (now - self._counted)
        self._counted = now


class BudgetLedger:
    """Tokens paid for so far, those of earlier runs included, and those that calls in flight may still take."""

    def __init__(self, tokens_in: int = 0, tokens_out: int = 0) -> None:
        self.tokens_in, self.tokens_out = tokens_in, tokens_out
        self._reserved_in = self._reserved_out = 0
        self._turn, self._settled = asyncio.Lock(), asyncio.Event()

    async def reserve(self, call: Tokens, budget: Budget, price: Price) -> bool:
        """Set a call's tokens aside; False where they do not fit even if the calls in flight turn out to cost nothing."""
        async with self._turn:  # in the order asked, and one wakes, not all
            while not self._fits(call, budget, price, self._reserved_in, self._reserved_out):
                if not self._fits(call, budget, price, 0, 0):
                    return False
                self._settled.clear()
                await self._settled.wait()
            self._reserved_in += call.prompt
            self._reserved_out += call.generated
            return True

    def settle(self, reserved: Tokens, used: Tokens) -> None:
        """Replace what was set aside for a call by what it took."""
        self._reserved_in -= reserved.prompt
        self._reserved_out -= reserved.generated
        self.tokens_in += used.prompt
        self.tokens_out += used.generated
        self._settled.set()

    def _fits(self, call: Tokens, budget: Budget, price: Price, reserved_in: int, reserved_out: int) -> bool:
        tokens_in = self.tokens_in + reserved_in + call.prompt
        tokens_out = self.tokens_out + reserved_out + call.generated
        if budget.tokens is not None and tokens_in + tokens_out > budget.tokens:
            return False
        return budget.money is None or price.of(tokens_in, tokens_out) <= budget.money
