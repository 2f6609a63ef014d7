"""Answers kept for a while, so that a request sent again under the same Idempotency-Key is not worked on again."""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from serve.problems import Refused


class Answer(NamedTuple):
    """A complete answer with status 200."""

    headers: list[tuple[bytes, bytes]]
    body: bytes


class _Kept:
    """What belongs to one key: the hash of its request, and the answer once there is one."""

    def __init__(self, fingerprint: bytes, until: float) -> None:
        self.fingerprint, self.until = fingerprint, until
        self.answer: Answer | None = None
        self.done = asyncio.Event()

    @property
    def size(self) -> int:
        return len(self.answer.body) if self.answer else 0


class IdempotencyStore:
    """Kept answers by caller and Idempotency-Key, oldest first; bounded in number, bytes and time."""

    def __init__(self, answers: int, seconds: float, max_bytes: int) -> None:
        self._answers, self._seconds, self._max_bytes = answers, seconds, max_bytes
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()
        self._bytes = 0

    async def answer(
        self, caller: str, key: str, route: str, body: bytes, work: Callable[[], Awaitable[Answer | None]]
    ) -> Answer | None:
        """Return the kept answer, after waiting for it where it is being made; None where `work` was done now.

        A `work` that fails or gives no answer leaves nothing behind: the next request with the key works anew.

        Raises:
            Refused: 422, the key was used with another body or route.
        """
        place, fingerprint = (caller, key), hashlib.sha256(route.encode() + b"\0" + body).digest()
        while (kept := self._find(place)) is not None:
            if kept.fingerprint != fingerprint:
                raise Refused(422, "idempotency", "this Idempotency-Key was used for another request; send a new one")
            await kept.done.wait()
            if kept.answer:
                return kept.answer
        kept = self._kept[place] = _Kept(fingerprint, float("inf"))
        try:
            kept.answer = await work()
        finally:
            self._settle(place, kept)
        return None

    def _find(self, place: tuple[str, str]) -> _Kept | None:
        now = time.monotonic()
        for old in [place for place, kept in self._kept.items() if kept.until <= now]:
            self._drop(old)
        return self._kept.get(place)

    def _settle(self, place: tuple[str, str], kept: _Kept) -> None:
        """Keep the answer as the newest, make room by dropping the oldest, and wake who waits."""
        del self._kept[place]
        if kept.answer and kept.size <= self._max_bytes and self._answers:
            kept.until = time.monotonic() + self._seconds
            self._kept[place] = kept
            self._bytes += kept.size
            finished = [place for place, kept in self._kept.items() if kept.answer]
            while len(finished) > self._answers or self._bytes > self._max_bytes:
                self._drop(finished.pop(0))
        kept.done.set()

    def _drop(self, place: tuple[str, str]) -> None:
        self._bytes -= self._kept.pop(place).size
