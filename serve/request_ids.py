"""One valid X-Request-Id for each request, in the application and in Ray's HTTP proxy before it.

Ray Serve 2.60 repeats in its answers whatever X-Request-Id a client sends, and adds it to the one of the application, which
cannot remove it (ray/serve/_private/http_util.py, RequestIdMiddleware). Its proxy calls the function that the variable
RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH names and puts the middlewares that it returns before its own; `serve.local` sets
it to `proxy_middlewares`.
"""

import re
import uuid

from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

HEADER = "x-request-id"
VALID_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def request_id_of(scope: Scope) -> str:
    """Return the id that the client sent, once and valid, else a new one."""
    (*others, sent) = ["", *(value for name, value in MutableHeaders(scope=scope).items() if name == HEADER)]
    return sent if len(others) < 2 and VALID_ID.fullmatch(sent) else uuid.uuid4().hex


class OneRequestId:
    """ASGI middleware: passes a request on with one valid X-Request-Id."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] in ("http", "websocket"):
            rest = [(name, value) for name, value in scope["headers"] if name != HEADER.encode()]
            scope = {**scope, "headers": [*rest, (HEADER.encode(), request_id_of(scope).encode())]}
        await self._app(scope, receive, send)


def proxy_middlewares() -> list[Middleware]:
    """Return the middlewares of Ray's HTTP proxy."""
    return [Middleware(OneRequestId)]
