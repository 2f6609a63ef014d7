"""ASGI middleware in front of the routes: API keys, request limits, timeouts, and cancellation on disconnect."""

import asyncio
import contextlib
import logging
import math
import re
import time
from collections.abc import AsyncIterator, Coroutine, Iterator

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.access_log import CLIENT_CLOSED_REQUEST, Call
from serve.heads import PROBES, Hosts, check_size
from serve.idempotency import IdempotencyStore, StoredResponse
from serve.keys import Keys
from serve.metrics import Metrics
from serve.problems import Refused
from serve.settings import HttpConfig
from valueflow.callers import Slots, calling, new_caller

log = logging.getLogger(__name__)

STREAM = "/v1/score/stream"
SCORING_ROUTES = {"/v1/score", STREAM, "/v1/compare", "/v1/profile", "/v1/extract"}
STREAM_GRACE_SECONDS = 5.0  # a stream ends itself with a last line; if its client does not read, it is cut after this
VALID_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")


class ClientDisconnected(Exception):
    """The client has closed the connection."""


class HeldResponse:
    """Wrapper of `send` that holds the last part of a response until the slots of its request are released.

    Then the next request of a client cannot collide with its previous one, and a disconnect is always a real one: servers also
    report a disconnect after the last part.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._last: Message | None = None
        self.started = False

    async def __call__(self, message: Message) -> None:
        """Send a message, or hold it if it is the last."""
        self.started = True
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._last = message
        else:
            await self._send(message)

    async def finish(self) -> None:
        """Send the held part."""
        if self._last:
            await self._send(self._last)


class AdmissionQueue:
    """Limits requests in process (slots) and in the queue; the rest is refused with Retry-After.

    Callers take turns in the queue, and one slot is never held by the caller of all others.
    """

    def __init__(self, settings: HttpConfig, metrics: Metrics) -> None:
        self._slots = Slots(settings.max_in_flight, most=max(1, settings.max_in_flight - 1))
        self._num_slots, self._capacity = settings.max_in_flight, settings.max_in_flight + settings.max_queued
        self._metrics = metrics
        self._admitted = self._working = 0
        self._mean_seconds = 1.0  # exponential moving average of the time in a slot

    @contextlib.contextmanager
    def admit(self) -> Iterator[None]:
        """Count a request as admitted.

        Raises:
            Refused: 429, slots and queue are full.
        """
        if self._admitted >= self._capacity:
            wait = max(1, math.ceil(self._mean_seconds * (self._admitted - self._working + 1) / self._num_slots))
            detail = f"the server is busy with {self._admitted} requests; try again in {wait} s"
            raise Refused(429, "queue", detail, {"Retry-After": str(wait)})
        with self._counted(admitted=1):
            yield

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for a slot for the `CALLER` of the context and hold it; Retry-After is computed from the mean time held."""
        async with self._slots.slot():
            started = time.monotonic()
            with self._counted(working=1):
                yield
            self._mean_seconds += 0.1 * (time.monotonic() - started - self._mean_seconds)

    @contextlib.contextmanager
    def _counted(self, admitted: int = 0, working: int = 0) -> Iterator[None]:
        self._count(admitted, working)
        try:
            yield
        finally:
            self._count(-admitted, -working)

    def _count(self, admitted: int, working: int) -> None:
        self._admitted += admitted
        self._working += working
        self._metrics.in_flight.set(self._working)
        self._metrics.queued.set(self._admitted - self._working)


class AdmissionMiddleware:
    """Admits requests by key and limits; cancels work on timeout and on disconnect."""

    def __init__(self, app: ASGIApp, settings: HttpConfig, metrics: Metrics, keys: Keys) -> None:
        self._app, self._settings, self._keys = app, settings, keys
        self._queue = AdmissionQueue(settings, metrics)
        self._responses = IdempotencyStore(settings.repeat_answers, settings.repeat_seconds, settings.repeat_bytes)
        self._open, self._hosts = open_paths(settings), Hosts(settings.hosts, bool(keys))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; errors become problem details."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        call: Call = scope["call"]
        response = HeldResponse(send)
        try:
            await self._admit(scope, receive, response)
        except ClientDisconnected:
            call.status, call.reason = CLIENT_CLOSED_REQUEST, "client-left"
        except Exception as error:  # noqa: BLE001 - last chance to answer; AccessLogMiddleware logs unexpected errors
            refused = call.fail(error)
            if not response.started:
                await refused.response(call.request_id)(scope, receive, send)
        return await response.finish()

    async def _admit(self, scope: Scope, receive: Receive, response: HeldResponse) -> None:
        """Check the head, the key, and its rate and concurrency limits."""
        call: Call = scope["call"]
        check_size(scope)
        if call.route not in PROBES:
            self._hosts.check(scope)
        if not self._keys or call.route in self._open:
            return await self._receive(scope, receive, response)
        caller = self._keys.caller(Headers(scope=scope))
        call.key = caller.name
        caller.take_token()
        with caller.in_flight():
            return await self._receive(scope, receive, response)

    async def _receive(self, scope: Scope, receive: Receive, response: HeldResponse) -> None:
        """Read the body of a scoring request; other requests have none."""
        call, headers, limit = scope["call"], Headers(scope=scope), self._settings.max_body_bytes
        if call.route not in SCORING_ROUTES or call.method != "POST":
            return await self._app(scope, receive, response)
        check_type(headers)
        if int(headers.get("content-length", "0")) > limit:
            raise too_large(limit)
        with self._queue.admit(), calling(new_caller(call.key)):
            body = await read_body(receive, limit, self._settings.body_seconds)
            return await cancel_on_disconnect(receive, self._answer(scope, headers.get("idempotency-key"), body, response))

    async def _answer(self, scope: Scope, key: str | None, body: bytes, response: HeldResponse) -> None:
        """Answer with the response stored under the Idempotency-Key, or run the route; streams are not stored."""
        call: Call = scope["call"]
        if key is None or call.route == STREAM:
            return await self._work(scope, body, response)
        if not VALID_IDEMPOTENCY_KEY.fullmatch(key):
            raise Refused(422, "idempotency", "an Idempotency-Key has 1 to 255 printable ASCII characters, no spaces")
        stored = await self._responses.respond(call.key, key, call.route, body, lambda: self._record(scope, body, response))
        if stored:
            call.repeated = True
            headers = [*stored.headers, (b"idempotency-replayed", b"true")]
            await response({"type": "http.response.start", "status": 200, "headers": headers})
            await response({"type": "http.response.body", "body": stored.body})
        return None

    async def _record(self, scope: Scope, body: bytes, response: HeldResponse) -> StoredResponse | None:
        """Run the route and return its response if the status is 200."""
        status, headers, parts = 0, [], []

        async def record(message: Message) -> None:
            nonlocal status, headers
            if message["type"] == "http.response.start":
                status, headers = message["status"], list(message["headers"])
            else:
                parts.append(message.get("body", b""))
            await response(message)

        await self._work(scope, body, record)
        return StoredResponse(headers, b"".join(parts)) if status == 200 else None

    async def _work(self, scope: Scope, body: bytes, send: Send) -> None:
        """Wait for a slot and run the route, within the timeout."""
        settings = self._settings
        try:
            async with asyncio.timeout(settings.timeout_seconds) as limit, self._queue.slot():
                if scope["call"].route == STREAM:
                    limit.reschedule(asyncio.get_running_loop().time() + settings.stream_seconds + STREAM_GRACE_SECONDS)
                await self._app(scope, receive_body(body), send)
        except TimeoutError:
            if not limit.expired():
                raise
            raise timed_out(settings.timeout_seconds) from None


def open_paths(settings: HttpConfig) -> set[str]:
    """Return the paths that require no key."""
    paths = {"/", "/healthz", "/readyz"} | ({"/metrics"} if settings.metrics_open else set())
    return paths | ({"/docs", "/openapi.json"} if settings.docs else set())


def timed_out(seconds: float) -> Refused:
    """Return the refusal of a request that took too long."""
    return Refused(504, "timeout", f"no answer within {seconds:g} s; send fewer texts or values, or try again later")


def too_large(limit: int) -> Refused:
    """Return the refusal of a body above the limit."""
    return Refused(
        413,
        "body-size",
        f"the body is above this server's max_body_bytes, {limit} (GET /v1/vidb: limits); send the texts in parts",
    )


def check_type(headers: Headers) -> None:
    """Check that the content is uncompressed JSON in UTF-8.

    Raises:
        Refused: 415.
    """
    kind, *parameters = [part.strip().lower() for part in headers.get("content-type", "").split(";")]
    charset = next((p.partition("=")[2].strip('"') for p in parameters if p.startswith("charset=")), "utf-8")
    if kind != "application/json" or charset not in ("utf-8", "utf8", "us-ascii"):
        content_type = headers.get("content-type", "nothing")[:100]
        raise Refused(415, "content-type", f"Content-Type is {content_type!r}; send application/json in UTF-8")
    if (encoding := headers.get("content-encoding", "identity").lower()) != "identity":
        raise Refused(415, "content-type", f"Content-Encoding is {encoding[:100]!r}; send the body uncompressed")


async def read_body(receive: Receive, limit: int, seconds: float) -> bytes:
    """Return the body; at most `limit` bytes are held.

    Raises:
        Refused: 413, the body is larger than `limit` bytes; 408, it was not received within `seconds`.
        ClientDisconnected: before the end of the body.
    """
    parts, size = [], 0
    try:
        async with asyncio.timeout(seconds):
            while True:
                message = await _received(receive)
                if message["type"] == "http.disconnect":
                    raise ClientDisconnected
                part = message.get("body", b"")
                size += len(part)
                if size > limit:
                    raise too_large(limit)
                parts.append(part)
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError:
        raise Refused(408, "body-time", f"the body was not received within {seconds:g} s", {"Connection": "close"}) from None


async def _received(receive: Receive) -> Message:
    """Return the next message; the call by which Ray Serve fetches it is cancelled when the client disconnects, and then fails.

    Raises:
        ClientDisconnected: the server cannot deliver any.
    """
    try:
        return await receive()
    except Exception as error:  # its type is the server's own
        raise ClientDisconnected from error


def receive_body(body: bytes) -> Receive:
    """Return a `receive` with one message, the body; `cancel_on_disconnect` watches the client."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return messages.pop() if messages else await asyncio.Future()

    return receive


async def cancel_on_disconnect(receive: Receive, work: Coroutine[None, None, None]) -> None:
    """Await `work`; cancel it if the client disconnects.

    Raises:
        ClientDisconnected: before the end of the work.
        Refused: 503, the server itself cancelled the work.
    """
    working, watching = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnected
        if working.cancelled():
            raise Refused(
                503,
                "stopped",
                "the server cancelled this request, as in a restart; send it again",
                {"Retry-After": "1"},
            )
        working.result()
    finally:
        working.cancel()
        watching.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
