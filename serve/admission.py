"""What stands between the network and the routes, as plain ASGI: keys, limits, time, and clients that go away."""

import asyncio
import contextlib
import logging
import math
import re
import time
from collections.abc import AsyncIterator, Coroutine, Iterator

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.access_log import GONE, Call
from serve.idempotency import Answer, IdempotencyStore
from serve.keys import Keys
from serve.metrics import Metrics
from serve.problems import Refused
from serve.settings import HttpConfig

log = logging.getLogger(__name__)

STREAM = "/v1/score/stream"
WORK = {"/v1/score", STREAM, "/v1/compare", "/v1/profile", "/v1/extract"}
STREAM_GRACE_SECONDS = 5.0  # a stream ends itself with a last line; one whose client does not read is cut after this
SANE_KEY = re.compile(r"[\x21-\x7e]{1,255}")


class ClientLeft(Exception):
    """Nobody waits for the answer any more."""


class HeldResponse:
    """The answer on its way out; its last part is held until everything that belongs to the request is released.

    So a client that sends its next request at once does not meet its own last one, and a disconnect is always a real one:
    servers also say "disconnect" after the last part.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._last: Message | None = None
        self.begun = False

    async def __call__(self, message: Message) -> None:
        """Pass a message on, or hold it."""
        self.begun = True
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._last = message
        else:
            await self._send(message)

    async def finish(self) -> None:
        """Pass on what is held."""
        if self._last:
            await self._send(self._last)


class AdmissionQueue:
    """At most so many requests work and so many more are inside; the rest is told when to come again."""

    def __init__(self, settings: HttpConfig, metrics: Metrics) -> None:
        self._slots = asyncio.Semaphore(settings.max_in_flight)
        self._workers, self._places = settings.max_in_flight, settings.max_in_flight + settings.max_queued
        self._metrics = metrics
        self._inside = self._working = 0
        self._usual_seconds = 1.0

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place; refuse with 429 where all are taken."""
        if self._inside >= self._places:
            wait = max(1, math.ceil(self._usual_seconds * (self._inside - self._working + 1) / self._workers))
            detail = f"the server is busy with {self._inside} requests; try again in {wait} s"
            raise Refused(429, "queue", detail, {"Retry-After": str(wait)})
        with self._counted(inside=1):
            yield

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for one's turn to work; the time worked tells others how long to wait."""
        async with self._slots:
            started = time.monotonic()
            with self._counted(working=1):
                yield
            self._usual_seconds += 0.1 * (time.monotonic() - started - self._usual_seconds)

    @contextlib.contextmanager
    def _counted(self, inside: int = 0, working: int = 0) -> Iterator[None]:
        self._count(inside, working)
        try:
            yield
        finally:
            self._count(-inside, -working)

    def _count(self, inside: int, working: int) -> None:
        self._inside += inside
        self._working += working
        self._metrics.in_flight.set(self._working)
        self._metrics.queued.set(self._inside - self._working)


class AdmissionMiddleware:
    """Lets through who may ask, within the limits; ends work that takes too long or that nobody waits for any more."""

    def __init__(self, app: ASGIApp, settings: HttpConfig, metrics: Metrics, keys: Keys) -> None:
        self._app, self._settings, self._keys = app, settings, keys
        self._line = AdmissionQueue(settings, metrics)
        self._repeats = IdempotencyStore(settings.repeat_answers, settings.repeat_seconds, settings.repeat_bytes)
        self._open = open_paths(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, if only with a problem."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        call: Call = scope["call"]
        reply = HeldResponse(send)
        try:
            await self._admit(scope, receive, reply)
        except ClientLeft:
            call.status, call.reason = GONE, "client-left"
        except Exception as error:  # noqa: BLE001 - the last place that can answer; Trace logs what nobody expected
            refused = call.fail(error)
            if not reply.begun:
                await refused.response(call.request_id)(scope, receive, send)
        return await reply.finish()

    async def _admit(self, scope: Scope, receive: Receive, reply: HeldResponse) -> None:
        """Check the key, its rate and its number of requests."""
        call: Call = scope["call"]
        if not self._keys or call.route in self._open:
            return await self._take(scope, receive, reply)
        caller = self._keys.caller(Headers(scope=scope))
        call.key = caller.name
        caller.spend()
        with caller.present():
            return await self._take(scope, receive, reply)

    async def _take(self, scope: Scope, receive: Receive, reply: HeldResponse) -> None:
        """Take in the body of a request for work; other requests need none."""
        call, headers, limit = scope["call"], Headers(scope=scope), self._settings.max_body_bytes
        if call.route not in WORK or call.method != "POST":
            return await self._app(scope, receive, reply)
        check_type(headers)
        if int(headers.get("content-length", "0")) > limit:
            raise too_large(limit)
        with self._line.place():
            body = await read_body(receive, limit, self._settings.body_seconds)
            return await cancel_on_disconnect(receive, self._answer(scope, headers.get("idempotency-key"), body, reply))

    async def _answer(self, scope: Scope, key: str | None, body: bytes, reply: HeldResponse) -> None:
        """Answer with what was kept under the Idempotency-Key, else by work; streams are not kept."""
        call: Call = scope["call"]
        if key is None or call.route == STREAM:
            return await self._work(scope, body, reply)
        if not SANE_KEY.fullmatch(key):
            raise Refused(422, "idempotency", "an Idempotency-Key has 1 to 255 printable ASCII characters, no spaces")
        kept = await self._repeats.answer(call.key, key, call.route, body, lambda: self._recorded(scope, body, reply))
        if kept:
            call.repeated = True
            headers = [*kept.headers, (b"idempotency-replayed", b"true")]
            await reply({"type": "http.response.start", "status": 200, "headers": headers})
            await reply({"type": "http.response.body", "body": kept.body})
        return None

    async def _recorded(self, scope: Scope, body: bytes, reply: HeldResponse) -> Answer | None:
        """Work, and return the answer if it is a good one."""
        status, headers, parts = 0, [], []

        async def record(message: Message) -> None:
            nonlocal status, headers
            if message["type"] == "http.response.start":
                status, headers = message["status"], list(message["headers"])
            else:
                parts.append(message.get("body", b""))
            await reply(message)

        await self._work(scope, body, record)
        return Answer(headers, b"".join(parts)) if status == 200 else None

    async def _work(self, scope: Scope, body: bytes, send: Send) -> None:
        """Wait for a slot and run the route, both within the time allowed."""
        settings = self._settings
        try:
            async with asyncio.timeout(settings.timeout_seconds) as limit, self._line.slot():
                if scope["call"].route == STREAM:
                    limit.reschedule(asyncio.get_running_loop().time() + settings.stream_seconds + STREAM_GRACE_SECONDS)
                await self._app(scope, replay(body), send)
        except TimeoutError:
            if not limit.expired():
                raise
            raise timed_out(settings.timeout_seconds) from None


def open_paths(settings: HttpConfig) -> set[str]:
    """Return the paths that need no key."""
    paths = {"/", "/healthz", "/readyz"} | ({"/metrics"} if settings.metrics_open else set())
    return paths | ({"/docs", "/openapi.json"} if settings.docs else set())


def timed_out(seconds: float) -> Refused:
    """Return the answer to a request that took too long."""
    return Refused(504, "timeout", f"no answer within {seconds:g} s; send fewer texts or values, or try again later")


def too_large(limit: int) -> Refused:
    """Return the answer to a body above the limit."""
    return Refused(413, "body-size", f"the body is larger than {limit} bytes (GET /v1/vidb: limits); send the texts in parts")


def check_type(headers: Headers) -> None:
    """Refuse with 415 what is not plain JSON in UTF-8."""
    kind, *parameters = [part.strip().lower() for part in headers.get("content-type", "").split(";")]
    charset = next((p.partition("=")[2].strip('"') for p in parameters if p.startswith("charset=")), "utf-8")
    if kind != "application/json" or charset not in ("utf-8", "utf8", "us-ascii"):
        given = headers.get("content-type", "nothing")[:100]
        raise Refused(415, "content-type", f"Content-Type is {given!r}; send application/json in UTF-8")
    if (encoding := headers.get("content-encoding", "identity").lower()) != "identity":
        raise Refused(415, "content-type", f"Content-Encoding is {encoding[:100]!r}; send the body as it is")


async def read_body(receive: Receive, limit: int, seconds: float) -> bytes:
    """Return the body; refuse one that is too large (413) or too slow (408) without holding more than the limit."""
    parts, size = [], 0
    try:
        async with asyncio.timeout(seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientLeft
                part = message.get("body", b"")
                size += len(part)
                if size > limit:
                    raise too_large(limit)
                parts.append(part)
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError:
        raise Refused(408, "body-time", f"the body did not come within {seconds:g} s", {"Connection": "close"}) from None


def replay(body: bytes) -> Receive:
    """Return a `receive` that gives the body, then nothing; `unless_left` is who watches the client."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return messages.pop() if messages else await asyncio.Future()

    return receive


async def cancel_on_disconnect(receive: Receive, work: Coroutine[None, None, None]) -> None:
    """Do the work, but cancel it when the client goes away."""
    working, watching = asyncio.ensure_future(work), asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientLeft
        if working.cancelled():
            raise Refused(
                503, "stopped", "the server stopped this work, as when it restarts; send it again", {"Retry-After": "1"}
            )
        working.result()
    finally:
        working.cancel()
        watching.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
