"""API keys with a rate limit and a concurrency limit."""

import contextlib
import hashlib
import hmac
import math
import time
from collections.abc import Iterator

from starlette.datastructures import Headers

from serve.problems import Refused
from serve.settings import KeyConfig

CHALLENGE = {"WWW-Authenticate": 'Bearer realm="valueflow"'}


class Caller:
    """The state of one key: its token bucket and its requests in flight."""

    def __init__(self, key: KeyConfig) -> None:
        self.name, self._key = key.name, key
        self._tokens, self._filled, self._in_flight = float(key.requests_per_minute), time.monotonic(), 0

    def take_token(self) -> None:
        """Take a token from the bucket.

        Raises:
            Refused: 429, the bucket is empty.
        """
        now, rate = time.monotonic(), self._key.requests_per_minute / 60
        self._tokens = min(self._key.requests_per_minute, self._tokens + (now - self._filled) * rate)
        self._filled = now
        if self._tokens < 1:
            wait = math.ceil((1 - self._tokens) / rate)
            detail = f"rate limit of key {self.name!r} reached ({self._key.requests_per_minute} requests per minute)"
            raise Refused(429, "rate", f"{detail}; try again in {wait} s", {"Retry-After": str(wait)})
        self._tokens -= 1

    @contextlib.contextmanager
    def in_flight(self) -> Iterator[None]:
        """Count a request while it is in flight.

        Raises:
            Refused: 429, the concurrency limit of the key is reached.
        """
        if self._in_flight >= self._key.concurrency:
            limit = self._key.concurrency
            detail = f"concurrency limit of key {self.name!r} reached ({limit} requests at a time); retry when one has ended"
            raise Refused(429, "concurrency", detail, {"Retry-After": "1"})
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1


class Keys:
    """All callers, looked up by the hash of the key they send."""

    def __init__(self, keys: list[KeyConfig]) -> None:
        self._callers = [(bytes.fromhex(key.sha256), Caller(key)) for key in keys]

    def __bool__(self) -> bool:
        """Whether requests need a key."""
        return bool(self._callers)

    def caller(self, headers: Headers) -> Caller:
        """Return the caller whose key is in `Authorization: Bearer` or `X-API-Key`.

        Raises:
            Refused: 401, the key is missing or unknown.
        """
        scheme, _, token = headers.get("authorization", "").partition(" ")
        key = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        if not key:
            raise Refused(401, "key", "an API key is required: send 'Authorization: Bearer KEY' or 'X-API-Key: KEY'", CHALLENGE)
        # Headers arrive decoded as latin-1. Every hash is compared, so that the time taken reveals nothing about them.
        digest = hashlib.sha256(key.encode("latin-1")).digest()
        callers = [caller for sha256, caller in self._callers if hmac.compare_digest(sha256, digest)]
        if not callers:
            raise Refused(401, "key", "the API key is unknown to this server", CHALLENGE)
        return callers[0]
