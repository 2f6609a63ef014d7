"""A running HTTP application over a fake service, and what its tests send to it."""

import contextlib
import hashlib
import json
import logging
import socket
import struct
from collections.abc import Iterator

import httpx
from fakes.server import listening
from fakes.service import FakeService

from serve.http import create
from serve.settings import HttpConfig
from valueflow.api import Problem

JSON = {"Content-Type": "application/json"}
PARSERS = ["h11", "httptools"]  # of uvicorn
KEY, OTHER_KEY = "vf-secret-0123456789abcdef", "vf-secret-of-another"
BEARER = {"Authorization": f"Bearer {KEY}"}
REQUEST = {"texts": ["I help my neighbour.", "Win at any cost."], "values": ["svt:benevolence", "svt:power"]}


def key_config(key: str = KEY, name: str = "tester", **limits) -> dict:
    return {"name": name, "sha256": hashlib.sha256(key.encode()).hexdigest(), **limits}


class Served:
    """A running server and a client of it."""

    def __init__(self, port: int, service: FakeService, app) -> None:
        self.port, self.url, self.service, self.app = port, f"http://127.0.0.1:{port}", service, app
        self.http = httpx.Client(base_url=self.url, timeout=30)

    def post(self, path: str, body: object = None, **options) -> httpx.Response:
        return self.http.post(path, json=REQUEST if body is None else body, **options)

    def connect(self, receive_bytes: int = 0) -> socket.socket:
        connection = socket.socket()
        connection.settimeout(20)
        if receive_bytes:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        connection.connect(("127.0.0.1", self.port))
        return connection

    def metric(self, line_start: str) -> float:
        lines = self.http.get("/metrics").text.splitlines()
        return float(next((line.rsplit(" ", 1)[1] for line in lines if line.startswith(line_start)), 0))


@contextlib.contextmanager
def serving(service: FakeService | None = None, page: str | None = None, http: str = "auto", **settings) -> Iterator[Served]:
    """Serve a fake service on a free port in a thread until the block ends."""
    service = service or FakeService()
    service.limits = HttpConfig(**settings).limits()
    app = create(lambda: service, HttpConfig(**settings), page)
    with listening(app, http) as port:
        yield Served(port, service, app)


def log_lines(records: list[logging.LogRecord]) -> list[dict]:
    """The log lines of requests."""
    return [json.loads(r.getMessage()) for r in records if r.name == "serve.access_log"]


def refused(answer: httpx.Response, status: int, reason: str) -> Problem:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    problem = Problem.model_validate_json(answer.content, strict=True)
    assert (problem.status, problem.type, bool(problem.detail)) == (status, f"urn:valueflow:{reason}", True)
    return problem


def request_head(*headers: str, path: str = "/v1/score") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def status_of(connection: socket.socket) -> int:
    return int(connection.recv(65536).split(b" ")[1])


def whole_request(body: dict = REQUEST, path: str = "/v1/score", *headers: str) -> bytes:
    content = json.dumps(body).encode()
    return request_head(f"Content-Length: {len(content)}", *headers, path=path) + content


def reset(connection: socket.socket) -> None:
    """Close with RST instead of FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def busy(served: Served) -> tuple[float, float]:
    return served.metric("valueflow_http_in_flight"), served.metric("valueflow_http_queued")
