"""Who asks, and how often: API keys with a rate and a number of requests at a time."""

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
    """One key: its token bucket and how many of its requests are inside."""

    def __init__(self, key: KeyConfig) -> None:
        self.name, self._key = key.name, key
        self._tokens, self._filled, self._inside = float(key.requests_per_minute), time.monotonic(), 0

    def spend(self) -> None:
        """Take a token; refuse with 429 where there is none."""
        now, rate = time.monotonic(), self._key.requests_per_minute / 60
        self._tokens = min(self._key.requests_per_minute, self._tokens + (now - self._filled) * rate)
        self._filled = now
        if self._tokens < 1:
            wait = math.ceil((1 - self._tokens) / rate)
            detail = f"key {self.name!r} may send {self._key.requests_per_minute} requests a minute"
            raise Refused(429, "rate", f"{detail}; try again in {wait} s", {"Retry-After": str(wait)})
        self._tokens -= 1

    @contextlib.contextmanager
    def present(self) -> Iterator[None]:
        """Count a request while it is inside; refuse with 429 above the key's number."""
        if self._inside >= self._key.concurrency:
            detail = f"key {self.name!r} may have {self._key.concurrency} requests at a time, and has them; wait for one to end"
            raise Refused(429, "concurrency", detail, {"Retry-After": "1"})
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1


class Keys:
    """All callers, found by the hash of the key they send."""

    def __init__(self, keys: list[KeyConfig]) -> None:
        self._callers = [(bytes.fromhex(key.sha256), Caller(key)) for key in keys]

    def __bool__(self) -> bool:
        """Whether keys are asked for at all."""
        return bool(self._callers)

    def caller(self, headers: Headers) -> Caller:
        """Return who sent the key in `Authorization: Bearer` or `X-API-Key`; 401 for none or a wrong one."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        sent = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        if not sent:
            raise Refused(401, "key", "an API key is needed: send 'Authorization: Bearer KEY' or 'X-API-Key: KEY'", CHALLENGE)
        # Headers come decoded as latin-1; every known hash is compared, so that time tells nothing about them.
        digest = hashlib.sha256(sent.encode("latin-1")).digest()
        found = [caller for known, caller in self._callers if hmac.compare_digest(known, digest)]
        if not found:
            raise Refused(401, "key", "the API key is not one of this server's", CHALLENGE)
        return found[0]
