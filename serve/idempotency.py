"""Responses stored for a while, so that a request repeated under its Idempotency-Key is not processed again."""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from serve.problems import Refused


class StoredResponse(NamedTuple):
    """A complete response with status 200."""

    headers: list[tuple[bytes, bytes]]
    body: bytes


class _Entry:
    """The request under one key: its fingerprint and, once finished, its response."""

    def __init__(self, fingerprint: bytes) -> None:
        self.fingerprint, self.expires = fingerprint, float("inf")
        self.response: StoredResponse | None = None
        self.finished = asyncio.Event()

    @property
    def size(self) -> int:
        return len(self.response.body) if self.response else 0


class IdempotencyStore:
    """Responses by caller and Idempotency-Key, oldest first; bounded in number, bytes and time."""

    def __init__(self, max_responses: int, seconds: float, max_bytes: int) -> None:
        self._max_responses, self._seconds, self._max_bytes = max_responses, seconds, max_bytes
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()
        self._bytes = 0

    async def respond(
        self, caller: str, key: str, route: str, body: bytes, work: Callable[[], Awaitable[StoredResponse | None]]
    ) -> StoredResponse | None:
        """Return the stored response, waiting for it if the same request is in progress; else run `work` and return None.

        If `work` fails or returns None, nothing is stored, and the next request with the key runs its own work.

        Raises:
            Refused: 422, the key was used with another body or route.
        """
        index, fingerprint = (caller, key), hashlib.sha256(route.encode() + b"\0" + body).digest()
        while (entry := self._lookup(index)) is not None:
            if entry.fingerprint != fingerprint:
                raise Refused(422, "idempotency", "this Idempotency-Key was used for another request; send a new one")
            await entry.finished.wait()
            if entry.response:
                return entry.response
        entry = self._entries[index] = _Entry(fingerprint)
        try:
            entry.response = await work()
        finally:
            self._finish(index, entry)
        return None

    def _lookup(self, index: tuple[str, str]) -> _Entry | None:
        now = time.monotonic()
        for expired in [index for index, entry in self._entries.items() if entry.expires <= now]:
            self._remove(expired)
        return self._entries.get(index)

    def _finish(self, index: tuple[str, str], entry: _Entry) -> None:
        """Store the response as the newest, remove the oldest above the limits, and wake waiting requests."""
        del self._entries[index]
        if entry.response and entry.size <= self._max_bytes and self._max_responses:
            entry.expires = time.monotonic() + self._seconds
            self._entries[index] = entry
            self._bytes += entry.size
            stored = [index for index, entry in self._entries.items() if entry.response]
            while len(stored) > self._max_responses or self._bytes > self._max_bytes:
                self._remove(stored.pop(0))
        entry.finished.set()

    def _remove(self, index: tuple[str, str]) -> None:
        self._bytes -= self._entries.pop(index).size
