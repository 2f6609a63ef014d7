"""What holds a call back: the server's own limit, found by asking; rates per minute; waiting after a refusal; the budget."""

import asyncio
import email.utils
import heapq
import itertools
import math
import random
import time
from collections.abc import Mapping
from typing import NamedTuple

from valueflow.judging.judges import Budget, Price

# Seconds before the first retry, and at most before a later one; each wait is drawn between 0 and its bound.
BACKOFF, LONGEST = 0.5, 30.0
# Seconds of a rate that may be used at once.
BURST = 1.0
# Calls in flight before anything is known of the server (TCP's initial window).
START = 10.0
# Shares of the slots that rest after a refusal: up to FEW the limit grows, above MANY a refused slot is closed for good. In
# between it shrinks slowly: some calls are refused whatever the limit, and a slot too many keeps a server full at little cost.
FEW, MANY = 0.04, 0.25
# What a refusal takes from the limit where it is one of a few.
SHRINK = 0.1
# So many refusals in a row with nothing else in flight mean that the server takes nothing at all for now.
ALL_REFUSED = 4


class Tokens(NamedTuple):
    """Prompt and generated tokens of a call, estimated or counted."""

    prompt: int
    generated: int


def backoff(attempt: int) -> float:
    """Return seconds to wait before retry `attempt` (from 0): exponential, full jitter."""
    return random.uniform(0, min(LONGEST, BACKOFF * 2.0 ** min(attempt, 32)))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a Retry-After header, given as seconds or as a date; None where it is absent or unreadable."""
    given = headers.get("retry-after", "").strip()
    try:
        seconds = float(given)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(given).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _now() -> float:
    return asyncio.get_running_loop().time()


class Rate:
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


class Gate:
    """Lets calls through, the one asked first first, as many at once as the server takes.

    The limit starts small and doubles every round trip, then grows by one or a little more in each. A slot whose call was
    refused rests for a round trip, so it asks once in that time; where many rest, it is closed. So a server with a hard limit
    stays full at the price of a few refusals, and one that refuses a few calls at random is not taken for a full one. A server
    that refuses everything is left alone for as long as it asks.
    """

    def __init__(self, most: int, patience: float, requests: Rate, tokens: Rate) -> None:
        self.most, self.patience, self.requests, self.tokens = most, patience, requests, tokens
        self.limit = min(START, most)
        self.in_flight = self.resting = 0
        self.round_trip = 1.0  # smoothed seconds of an answer
        self.waits = 0
        self._starting = True
        self._closed = 0.0  # when a slot was closed last
        self._refused, self._refused_since = 0, math.inf  # in a row
        self._paused_until, self._pauses = 0.0, 0
        self._queue: list[tuple[float, int, int, asyncio.Future[bool]]] = []
        self._entered = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._counted = self.busy_seconds = self.call_seconds = 0.0

    async def enter(self, asked: float, tokens: int) -> bool:
        """Wait for a slot and take it; False where the server's pause outlasts the patience of a call asked then."""
        if self._out_of_patience(asked):
            return False
        self._count()
        waiting: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._queue, (asked, next(self._entered), tokens, waiting))
        self._open()
        try:
            return await waiting
        except asyncio.CancelledError:
            if waiting.done() and not waiting.cancelled() and waiting.result():
                self.leave()
            raise

    def leave(self, round_trip: float | None = None) -> None:
        """Give a slot back; `round_trip`: seconds after which the server answered, None where it did not."""
        if round_trip is not None:
            self.round_trip += (round_trip - self.round_trip) * (1.0 if self._starting else 0.1)
            self._refused, self._refused_since, self._pauses = 0, math.inf, 0
            if self.in_flight + self.resting >= int(self.limit):
                self.limit = min(self.most, self.limit + self._growth())
        self._count()
        self.in_flight -= 1
        self._open()

    def refused(self, wait: float | None) -> None:
        """Give a slot back that the server refused; `wait`: seconds it asked for, None where it did not say."""
        now = _now()
        self._count()
        self.in_flight -= 1
        self.waits += 1
        self._refused, self._refused_since = self._refused + 1, min(self._refused_since, now)
        if self.resting + 1 > max(1.0, MANY * self.limit):
            self._closed, self._starting = now, False
            self.limit = max(1.0, self.limit - 1)
        else:
            self.limit = max(1.0, self.limit - SHRINK)
            self.resting += 1
            asyncio.get_running_loop().call_later(self.round_trip, self._rested)
        if self._refused >= (4 * ALL_REFUSED * self.limit if self.in_flight else ALL_REFUSED):
            self._pause(now, wait)
        self._open()

    def give_back(self, tokens: int) -> None:
        """Correct the estimate of a call's tokens: so many were too much (negative: too few)."""
        self.tokens.take(-tokens, _now())

    def _growth(self) -> float:
        """What one answer adds to the limit: doubling at first, later more the longer no slot had to be closed."""
        if self._starting:
            return 1.0 if self.resting <= MANY / 2 * self.limit else 0.0
        rounds = (_now() - self._closed) / self.round_trip
        return min(1 + rounds / 4, max(1.0, self.limit / 10)) / self.limit if self.resting <= FEW * self.limit else 0.0

    def _pause(self, now: float, wait: float | None) -> None:
        self._paused_until = max(self._paused_until, now + (wait or min(LONGEST, BACKOFF * 2.0**self._pauses)))
        self._refused, self._pauses, self.limit = 0, self._pauses + 1, max(1.0, self.limit / 2)
        for asked, _, _, waiting in self._queue:
            if not waiting.done() and self._out_of_patience(asked):
                waiting.set_result(False)

    def _out_of_patience(self, asked: float) -> bool:
        """Whether a call asked then would have met nothing but refusals for longer than the patience when the pause ends."""
        since = max(asked, min(self._refused_since, _now()))
        return self._paused_until - since > self.patience

    def _rested(self) -> None:
        self.resting -= 1
        self._open()

    def _open(self) -> None:
        """Let in whom the limits allow now; where only time is missing, come back then."""
        now = _now()
        while self._queue and self.in_flight < int(self.limit) - self.resting:
            wait = max(self._paused_until - now, self.requests.wait(now), self.tokens.wait(now))
            if wait > 0:
                self._come_back(wait)
                return
            _, _, tokens, waiting = heapq.heappop(self._queue)
            if not waiting.done():
                self._count()
                self.in_flight += 1
                self.requests.take(1, now)
                self.tokens.take(tokens, now)
                waiting.set_result(True)

    def _come_back(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._open)

    def _count(self) -> None:
        """Add the time since the last change to the sums behind the mean concurrency."""
        now = _now()
        if self.in_flight or self._queue:
            self.busy_seconds += now - self._counted
            self.call_seconds += self.in_flight * (now - self._counted)
        self._counted = now


class Spent:
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
