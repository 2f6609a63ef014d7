"""Servers in a thread: the real HTTP application over a fake service, with recorded requests and injected faults."""

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import uvicorn
from fastapi.responses import Response, StreamingResponse
from starlette.datastructures import Headers

from fakes.service import FakeService
from serve.http import create
from serve.settings import HttpConfig
from valueflow import api


def problem(status: int, detail: str = "", title: str = "Refused", **headers: str) -> Response:
    body = api.Problem(title=title, status=status, detail=detail, request_id="r-p").model_dump_json()
    return Response(body, status, {k.replace("_", "-"): v for k, v in headers.items()}, "application/problem+json")


class FaultInjector:
    """ASGI wrapper that records the calls under /v1 and answers some of them itself.

    Attributes:
        calls: all requests, with `path` (after /v1/), `query`, `headers`, `body` (parsed) and `arrival` (seconds).
        faults: functions body -> response for the next POSTs.
        intercept: function call -> response, or None to pass the call on.
    """

    def __init__(self, app: Any) -> None:
        self.app = app
        self.url = ""
        self.reset()

    def reset(self) -> None:
        self.calls: list[SimpleNamespace] = []
        self.faults: list[Callable[[dict], Response]] = []
        self.intercept: Callable[[SimpleNamespace], Response | None] = lambda _: None

    @property
    def posts(self) -> list[SimpleNamespace]:
        return [call for call in self.calls if call.method == "POST"]

    @property
    def bodies(self) -> list[dict]:
        return [call.body for call in self.posts]

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            return await self.app(scope, receive, send)
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        call = SimpleNamespace(
            method=scope["method"], path=scope["path"].removeprefix("/v1/"), query=scope["query_string"].decode(),
            headers=Headers(scope=scope), body=json.loads(body or b"{}"), arrival=time.monotonic(),
        )  # fmt: skip
        self.calls.append(call)
        fault = self.intercept(call)
        if fault is None and self.faults and call.method == "POST":
            fault = self.faults.pop(0)(call.body)
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> dict:
            return messages.pop() if messages else await receive()

        return await (self.app if fault is None else fault)(scope, replay, send)


class FakeServer(FaultInjector):
    """The real HTTP application over a fake service."""

    def __init__(self, service: FakeService, page: str | None = None, **settings: Any) -> None:
        self.service = service
        super().__init__(create(lambda: self.service, HttpConfig(**settings), page))

    def stream(self, body: dict, num_lines: int | None = None, **provenance: str) -> Response:
        """The response to a stream; the connection is cut after `num_lines` lines."""
        lines = stream_lines(self.service, body, **provenance)

        async def cut_lines() -> Any:
            for line in lines[:num_lines]:
                yield line
                await asyncio.sleep(0)
            if num_lines is not None:
                raise ConnectionAbortedError

        return StreamingResponse(cut_lines(), media_type="application/x-ndjson")


def stream_lines(service: FakeService, body: dict, **provenance: str) -> list[str]:
    """The lines that a service streams: start, scores, end."""
    scores = service._scores(request := api.StreamRequest(**body), request.texts)
    start = service._provenance(request, "r-s") | provenance
    lines = [api.StreamStart(**start, num_scores=len(scores)), *(api.StreamScore(**s.model_dump()) for s in scores)]
    return [line.model_dump_json() + "\n" for line in (*lines, api.StreamEnd(num_scores=len(scores)))]


@contextlib.contextmanager
def listening(app: Any, http: str = "auto", port: int = 0) -> Iterator[int]:
    """Serve an ASGI application in a thread until the block ends; yields the port."""
    server = uvicorn.Server(
        uvicorn.Config(
            app, "127.0.0.1", port, http=http, log_config=None, access_log=False, lifespan="off",
            timeout_graceful_shutdown=1,
        )
    )  # fmt: skip
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    eventually(lambda: server.started)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


@contextlib.contextmanager
def running(server: FakeServer) -> Iterator[FakeServer]:
    """Serve a fake server; sets its `url`."""
    with listening(server) as port:
        server.url = f"http://127.0.0.1:{port}"
        yield server


@contextlib.contextmanager
def raw(answers: list[bytes]) -> Iterator[tuple[str, list[bytes]]]:
    """A server that reads a request, writes the next of the answers and closes the connection."""
    received: list[bytes] = []
    remaining = list(answers)

    def serve(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    data = b""
                    while b"\r\n\r\n" not in data or (data.startswith(b"POST") and not data.endswith(b"}")):
                        data += connection.recv(65536)
                    received.append(data)
                    connection.sendall(remaining.pop(0))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", received
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def eventually(condition: Callable[[], object], seconds: float = 10) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition does not hold in time"
        time.sleep(0.01)
