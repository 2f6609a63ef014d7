"""Admission of calls: an adaptive concurrency limit, rates per minute, waiting after refusals, and the token budget.

docs/design/adaptive-concurrency.md explains why.
"""

import asyncio
import math
from typing import NamedTuple

from valueflow.callers import CallQueue, share_of_caller
from valueflow.callers.slots import Share
from valueflow.llm.configs import Budget, Price
from valueflow.retry import BACKOFF, LONGEST

# Seconds of a rate that may be used at once.
BURST = 1.0
# Calls in flight before anything is known about the server (TCP's initial window).
INITIAL_PROBES = 10
# Calls in flight until the first one comes back, to a server that may answer one call at a time.
FIRST_CALLS = 2
# A server that queues calls answers them one after another: no more are in flight than it answers, at its measured rate, in the
# first share of the timeout; in the second share if it queues nothing, that is if it answers nearly all calls in the time that
# the fastest one took.
TIMELY_SHARE, LATEST_SHARE, UNQUEUED = 0.6, 0.9, 0.7
# A window of observation, in round trips.
WINDOW = 4
# The proven concurrency of earlier windows is kept while the server refuses no more than this share of the calls: some servers
# refuse a few whatever their load, and a lower limit would only be slow. Some calls are lost to the timeout by chance, too:
# that share of a window's calls, and three standard deviations of their number (of a Poisson distribution).
RANDOM_REFUSALS = 0.06
# With nothing else in flight, this many refusals in a row mean that the server accepts no calls for now.
ALL_REFUSED = 4


class Tokens(NamedTuple):
    """Prompt and generated tokens of a call, estimated or counted."""

    prompt: int
    generated: int


def _now() -> float:
    return asyncio.get_running_loop().time()


class TokenBucket:
    """A rate per minute as a token bucket; None: no limit."""

    def __init__(self, per_minute: float | None) -> None:
        self.per_second = per_minute / 60 if per_minute else math.inf
        self.full_at = 0.0  # time at which the bucket is full again if nothing more is taken

    def wait(self, now: float) -> float:
        """Return the seconds until an amount may be taken; a bucket that is not empty lends the rest."""
        return max(0.0, self.full_at - now - BURST)

    def take(self, amount: float, now: float) -> None:
        """Take an amount; a negative amount returns the excess of an estimate."""
        self.full_at = max(self.full_at, now) + amount / self.per_second


class Slot:
    """A call in flight. `level`: number of calls that the server held at once if it accepts this one.

    `start`: time of its admission; `num_answers`: number of answers before it; `share`: whose call it is.
    """

    __slots__ = ("level", "num_answers", "share", "start")

    def __init__(self, level: int, start: float, num_answers: int, share: Share) -> None:
        self.level, self.start, self.num_answers, self.share = level, start, num_answers, share


class AdaptiveConcurrency:
    """Adaptive concurrency limit with a queue, for a server whose own limit is unknown and may change; callers share its slots.

    limit = min(max_concurrency, proven + probes - resting probes, timely) - resting slots

    State:
        proven: largest number of calls that the server held at once, in this window or, while it counts, in earlier ones.
        probes: number of slots beyond `proven`. An accepted probe adds one, up to `proven` (so the limit doubles per round trip
            at first); if more than half of the probes are refused, their number is halved, at most once per round trip.
        resting: slots whose call was refused stay closed for one round trip.
        window: every 4 round trips, the proven concurrency of earlier windows is forgotten, unless at most 6 % of the calls
            were refused.
        timely: number of calls that the server answers within a share of the timeout, at the largest rate of answers measured
            in this window or the one before; at first 2. So a server that queues calls instead of refusing them loses few.
        losses: if clearly more than 6 % of the calls are lost to the timeout nevertheless, half of the calls in flight count
            as proven, with one probe; once for calls that were in flight together.
        pause: after a run of refusals or losses without an answer, no call is sent for the time that the server asked for, else
            for an exponential backoff. After a pause, half of the proven concurrency counts, and one probe.

    So a server with a hard limit stays full at the price of a few refusals, one that refuses calls at random is not mistaken
    for a full one, and one that refuses everything is left alone.
    """

    def __init__(
        self, max_concurrency: int, patience: float, requests: TokenBucket, tokens: TokenBucket, timeout: float = math.inf
    ) -> None:
        self.max_concurrency, self.patience, self.requests, self.tokens = max_concurrency, patience, requests, tokens
        self.timeout = timeout
        self.round_trip = 1.0  # seconds until an answer, smoothed
        self.num_answers = self.num_refusals = self.num_losses = 0
        self.busy_seconds = self.call_seconds = 0.0  # time with calls in flight or in the queue; sum of calls over that time
        self._proven_now, self._proven_before = 0, 0  # in this window, in earlier windows
        self._probes, self._halved_at = INITIAL_PROBES, 0.0
        self._resting = self._resting_probes = 0
        self._window_start = (0.0, 0, 0, 0)  # time, number of answers, of refusals and of losses
        self._rate_now = self._rate_before = 0.0  # largest number of answers a second, in this window and before it
        self._shortest = math.inf  # shortest round trip, in seconds
        self._none_back, self._lowered_at = True, -math.inf
        self._refusals_in_a_row, self._refused_since = 0, math.inf
        self._paused_until, self._num_pauses = 0.0, 0
        self._in_flight: set[Slot] = set()
        self._queue = CallQueue()
        self._timer: asyncio.TimerHandle | None = None
        self._accounted_until = 0.0

    async def acquire(self, since: float, tokens: int) -> Slot | None:
        """Wait for a slot and take it, for the `CALLER` of the context.

        Calls of one caller are admitted in the order of `since`, so that a repeated call keeps its place.

        Args:
            since: time at which the question was first put, on the clock of the event loop.
            tokens: estimated tokens of the call, for the rate.

        Returns:
            The slot; None if a pause of the server outlasts the patience of the call.
        """
        if self._is_out_of_patience(since):
            return None
        self._account()
        admitted: asyncio.Future[Slot | None] = self._queue.put(share_of_caller(), since, tokens)
        self._admit()
        try:
            return await admitted
        except asyncio.CancelledError:
            if admitted.done() and not admitted.cancelled() and (slot := admitted.result()):
                self.release(slot)
            raise

    def release(self, slot: Slot, round_trip: float | None = None) -> None:
        """Return a slot; `round_trip`: seconds until the server's answer, None if it gave none."""
        self._none_back = False
        if round_trip is not None:
            self.num_answers += 1
            self._shortest = min(self._shortest, round_trip)
            self.round_trip += (round_trip - self.round_trip) * max(0.1, 1 / self.num_answers)
            self._refusals_in_a_row, self._refused_since, self._num_pauses = 0, math.inf, 0
            if slot.start >= self._lowered_at:
                self._prove(slot)
        self._remove(slot)

    def refuse(self, slot: Slot, wait: float | None) -> None:
        """Return a slot whose call the server refused; `wait`: seconds of its Retry-After, None if it sent none."""
        now = _now()
        self.num_refusals += 1
        self._refusals_in_a_row, self._refused_since = self._refusals_in_a_row + 1, min(self._refused_since, now)
        for other in self._in_flight:
            other.level -= other.level > slot.level  # the server never held this call at the same time
        is_probe = slot.level > self._proven
        self._change_resting(is_probe, 1)
        asyncio.get_running_loop().call_later(self.round_trip, self._change_resting, is_probe, -1)
        if is_probe and self._resting_probes > self._probes / 2 and now - self._halved_at > self.round_trip:
            self._probes, self._halved_at = max(1, self._probes // 2), now
        self._remove(slot)
        self._pause_after_a_run(now, wait)

    def lose(self, slot: Slot) -> None:
        """Return a slot whose call got no answer within the timeout; if that is no chance, lower the limit."""
        now = _now()
        self._none_back = False
        self.num_losses += 1
        self._refusals_in_a_row, self._refused_since = self._refusals_in_a_row + 1, min(self._refused_since, slot.start)
        _, num_answers, _, num_losses = self._window_start
        lost = self.num_losses - num_losses
        # At the beginning of a window, the calls in flight count: one loss among the first few calls is no sign. Of a server
        # that has never answered, every loss is.
        calls = max(lost + self.num_answers - num_answers, len(self._in_flight)) if self.num_answers else 0
        by_chance = RANDOM_REFUSALS * calls
        is_new = slot.start >= self._lowered_at  # else it is one of the calls for which the limit was lowered
        if is_new and lost > by_chance + 3 * math.sqrt(by_chance):
            self._proven_now = self._proven_before = min(self._proven, len(self._in_flight)) // 2
            self._probes, self._lowered_at = 1, now
            self._rate_now, self._rate_before = self._rate_now / 2, self._rate_before / 2
        self._remove(slot)
        self._pause_after_a_run(now, None)

    def refund_tokens(self, tokens: int) -> None:
        """Correct the estimate of a call's tokens by its excess (negative: it was too low)."""
        self.tokens.take(-tokens, _now())

    def _prove(self, slot: Slot) -> None:
        """Learn from an answered call: the server held its level, and this is its rate of answers."""
        if slot.level > self._proven:
            self._probes = min(self._probes + 1, max(INITIAL_PROBES, self._proven))
        self._proven_now = max(self._proven_now, slot.level)
        rate = (self.num_answers - slot.num_answers) / max(_now() - slot.start, 1e-9)
        self._rate_now = max(self._rate_now, rate)

    @property
    def _proven(self) -> int:
        return max(self._proven_now, self._proven_before)

    @property
    def limit(self) -> int:
        """Number of calls that may be in flight now."""
        return max(0, self._limit)

    @property
    def _limit(self) -> int:
        probes = max(0, self._probes - self._resting_probes)
        return min(self.max_concurrency, self._proven + probes, self._timely) - self._resting

    @property
    def _timely(self) -> int:
        if math.isinf(self.timeout):
            return self.max_concurrency
        if self._none_back:
            return FIRST_CALLS
        if not (rate := max(self._rate_now, self._rate_before)):
            return self.max_concurrency
        is_unqueued = self._proven > 1 and rate * self._shortest > UNQUEUED * self._proven
        calls = round(rate * LATEST_SHARE * self.timeout) if is_unqueued else int(rate * TIMELY_SHARE * self.timeout)
        return max(1, min(self.max_concurrency, calls))

    def _remove(self, slot: Slot) -> None:
        self._account()
        self._in_flight.remove(slot)
        self._queue.end(slot.share)
        self._end_window()
        self._admit()

    def _end_window(self) -> None:
        """At the end of a window, forget the proven concurrency of earlier ones, unless refusals were rare."""
        start, num_answers, num_refusals, _ = self._window_start
        now = _now()
        if now - start > WINDOW * self.round_trip:
            refused, answered = self.num_refusals - num_refusals, self.num_answers - num_answers
            self._proven_before = self._proven_now if refused > RANDOM_REFUSALS * (refused + answered) else self._proven
            self._proven_now, self._window_start = 0, (now, self.num_answers, self.num_refusals, self.num_losses)
            self._rate_now, self._rate_before = 0.0, self._rate_now or self._rate_before

    def _pause_after_a_run(self, now: float, wait: float | None) -> None:
        """Pause if the server has refused or lost all calls for some time."""
        if self._refusals_in_a_row < ALL_REFUSED + 4 * self._limit * bool(self._in_flight):
            return
        self._paused_until = max(self._paused_until, now + (wait or min(LONGEST, BACKOFF * 2.0**self._num_pauses)))
        self._refusals_in_a_row, self._num_pauses = 0, self._num_pauses + 1
        self._proven_now, self._proven_before, self._probes = 0, self._proven // 2, 1
        for call in self._queue:
            if not call.admitted.done() and self._is_out_of_patience(call.since):
                call.admitted.set_result(None)

    def _is_out_of_patience(self, since: float) -> bool:
        """Whether a call will have seen nothing but refusals for longer than the patience when the pause ends."""
        refused_since = max(since, min(self._refused_since, _now()))
        return self._paused_until - refused_since > self.patience

    def _change_resting(self, is_probe: bool, change: int) -> None:
        if is_probe:
            self._resting_probes += change
        else:
            self._resting += change
        if change < 0:
            self._admit()

    def _admit(self) -> None:
        """Admit queued calls as far as the limits allow now; if only time is missing, set a timer."""
        now = _now()
        while self._queue and len(self._in_flight) < self._limit:
            wait = max(self._paused_until - now, self.requests.wait(now), self.tokens.wait(now))
            if wait > 0:
                self._set_timer(wait)
                return
            if call := self._queue.start():
                self._account()
                self._in_flight.add(slot := Slot(len(self._in_flight) + 1, now, self.num_answers, call.share))
                self.requests.take(1, now)
                self.tokens.take(call.tokens, now)
                call.admitted.set_result(slot)

    def _set_timer(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._admit)

    def _account(self) -> None:
        """Add the time since the last change to the sums behind the mean concurrency."""
        now = _now()
        if self._in_flight or self._queue:
            self.busy_seconds += now - self._accounted_until
            self.call_seconds += len(self._in_flight) * (now - self._accounted_until)
        self._accounted_until = now


class BudgetLedger:
    """Tokens paid for, those of earlier runs included, and tokens reserved for calls in flight."""

    def __init__(self, tokens_in: int = 0, tokens_out: int = 0) -> None:
        self.tokens_in, self.tokens_out = tokens_in, tokens_out
        self._reserved_in = self._reserved_out = 0
        self._turn, self._settled = asyncio.Lock(), asyncio.Event()

    async def reserve(self, call: Tokens, budget: Budget, price: Price) -> bool:
        """Reserve the tokens of a call; False if they do not fit even if the calls in flight turn out to cost nothing."""
        async with self._turn:  # first come, first served; one waiter wakes, not all
            while not self._fits(call, budget, price, self._reserved_in, self._reserved_out):
                if not self._fits(call, budget, price, 0, 0):
                    return False
                self._settled.clear()
                await self._settled.wait()
            self._reserved_in += call.prompt
            self._reserved_out += call.generated
            return True

    def settle(self, reserved: Tokens, used: Tokens) -> None:
        """Replace the reservation of a call by its actual tokens."""
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
