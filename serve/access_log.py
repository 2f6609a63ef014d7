"""Request ids, one log line per request without secrets, and request metrics."""

import asyncio
import json
import logging
import sys
import time
import traceback
from dataclasses import dataclass, field
from datetime import UTC, datetime

from starlette.datastructures import MutableHeaders
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.metrics import Metrics
from serve.problems import INTERNAL, UNAVAILABLE, Refused, refusal
from serve.request_ids import request_id_of
from valueflow.console import log_handler
from valueflow.errors import OperatorError

log = logging.getLogger(__name__)

CLIENT_CLOSED_REQUEST = 499  # status in logs and metrics if the client disconnected before the response
HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}


def log_in_replica() -> None:
    """Write the lines of requests to stdout, and to stderr what is asked beyond them and warnings.

    Ray Serve sets up its own loggers only.
    """
    service = logging.getLogger("valueflow.service")
    log.propagate = service.propagate = False
    for logger in (log, service):
        logger.setLevel(logging.INFO)
    for logger, stream in ((log, sys.stdout), (service, sys.stderr), (logging.getLogger(__package__), sys.stderr)):
        if not logger.handlers:
            logger.addHandler(log_handler(stream))


@dataclass
class Call:
    """The log record of one request; passed on in the ASGI scope under "call"."""

    request_id: str
    method: str
    route: str
    started: float = field(default_factory=time.perf_counter)
    status: int = CLIENT_CLOSED_REQUEST
    key: str = ""
    reason: str = ""
    repeated: bool = False
    error: Exception | None = None
    texts: list[str] = field(default_factory=list)
    num_units: int = 0

    def fail(self, error: Exception) -> Refused:
        """Record an error and return the response to it."""
        refused = refusal(error)
        self.reason = refused.reason
        self.error = error if refused.reason in (INTERNAL, UNAVAILABLE) else None
        return refused


class AccessLogMiddleware:
    """Outermost middleware: sets request ids and common headers, writes the log line and updates the metrics."""

    def __init__(self, app: ASGIApp, metrics: Metrics, log_texts: bool, sends_id: bool = True) -> None:
        self._app, self._metrics, self._log_texts, self._sends_id = app, metrics, log_texts, sends_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and log its outcome."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        request_id = request_id_of(scope)
        call = Call(request_id, scope["method"], _route(scope))
        # A HEAD is answered as a GET; the server leaves out the body.
        scope = {**scope, "call": call, "method": "GET" if call.method == "HEAD" else call.method}

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                call.status = message["status"]
                headers = MutableHeaders(scope=message)
                if self._sends_id:
                    headers["X-Request-Id"] = request_id
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            return await self._app(scope, receive, with_headers)
        except asyncio.CancelledError:  # by Ray Serve's proxy, when the client disconnects
            call.reason = call.reason or "client-left"
            raise
        finally:
            self._report(call)

    def _report(self, call: Call) -> None:
        seconds = time.perf_counter() - call.started
        self._metrics.requests.labels(call.route, str(call.status)).inc()
        self._metrics.seconds.labels(call.route).observe(seconds)
        if call.reason:
            self._metrics.rejected.labels(call.reason).inc()
        elif call.texts:
            self._metrics.texts.labels(call.route).inc(len(call.texts))
            self._metrics.units.labels(call.route).inc(call.num_units)
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request_id": call.request_id,
            "key": call.key,
            "method": call.method[:10],
            "route": call.route,
            "status": call.status,
            "milliseconds": round(1000 * seconds, 1),
            "num_texts": len(call.texts),
            "num_units": call.num_units,
            "repeated": call.repeated,
            "reason": call.reason,
        }
        line |= {"traceback": "".join(_traceback(call.error, self._log_texts))} if call.error else {}
        line |= {"texts": call.texts} if self._log_texts else {}
        log.log(logging.ERROR if call.error else logging.INFO, "%s", json.dumps(line))


def _route(scope: Scope) -> str:
    """The path template of the route (`/v1/values/{id}`), so that metrics have few labels."""
    routes = scope["app"].routes
    return next((route.path for route in routes if route.matches(scope)[0] is not Match.NONE), "none")


def _traceback(error: BaseException, with_messages: bool) -> list[str]:
    """Traceback of an error and its causes; messages that may contain texts only if asked for."""
    if with_messages:
        return traceback.format_exception(error)
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    message = f": {error}" if isinstance(error, OperatorError | OSError) else ""
    lines = [*traceback.format_tb(error.__traceback__), f"{type(error).__module__}.{type(error).__qualname__}{message}\n"]
    return [*_traceback(cause, False), *lines] if cause else lines
