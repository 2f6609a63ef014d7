"""A service without models and a real server around it: what the tests of the HTTP layer talk to."""

import asyncio
import contextlib
import hashlib
import json
import logging
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import uvicorn

from serve.http import create
from serve.settings import HttpConfig
from valueflow.api import (
    Anchor,
    AnchorsResponse,
    Compared,
    CompareResponse,
    Extracted,
    ExtractedText,
    ExtractResponse,
    Limits,
    NodeInfo,
    Problem,
    Profiled,
    ProfileResponse,
    Scored,
    ScoreResponse,
    StreamEnd,
    StreamScore,
    StreamStart,
    TheoriesResponse,
    TheoryInfo,
    ValueResponse,
    VidbResponse,
)
from valueflow.theories import operational, resolve, theories

JSON = {"Content-Type": "application/json"}
PARSERS = ["h11", "httptools"]  # of uvicorn
KEY, OTHER_KEY = "vf-secret-0123456789abcdef", "vf-secret-of-another"
BEARER = {"Authorization": f"Bearer {KEY}"}
ASKED = {"texts": ["I help my neighbour.", "Win at any cost."], "values": ["svt:benevolence", "svt:power"]}


class FakeService:
    """Scores are hashes; it can be slow, fail, or wait until somebody cancels it."""

    def __init__(self, version: str = "fake") -> None:
        self.version = version
        self.seconds = 0.0
        self.error: Exception | None = None
        self.fail_after: int | None = None  # lines of a stream
        self.blocks = threading.Event()
        self.asked: list[str] = []  # request ids
        self.entered = threading.Semaphore(0)
        self.cancelled = threading.Semaphore(0)
        self.closed = threading.Semaphore(0)  # streams that ended, however
        self.working = self.most = 0

    def values(self, names: list[str]) -> list[str]:
        """What names, theories and `all` stand for."""
        return sorted({value for name in names for value in _values(name)})

    async def _work(self, request_id: str) -> None:
        self.asked.append(request_id)
        self.working += 1
        self.most = max(self.most, self.working)
        self.entered.release()
        try:
            while self.blocks.is_set():
                await asyncio.sleep(0.01)
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled.release()
            raise
        finally:
            self.working -= 1
        if self.error:
            raise self.error

    def _made(self, asked, request_id: str) -> dict:
        made = {"request_id": request_id, "vidb_version": self.version, "judge": "hash", "mode": asked.mode}
        return made | ({"k": asked.k, "m": asked.m, "sampling": asked.sampling, "seed": asked.seed})

    def _scores(self, texts: list[str], names: list[str]) -> list[dict]:
        values = self.values(names)
        return [_scored(i, text, value) for i, text in enumerate(texts) for value in values]

    async def score(self, asked, request_id):
        await self._work(request_id)
        scores = [Scored(**s) for s in self._scores(asked.texts, asked.values)]
        return ScoreResponse(scores=scores, **self._made(asked, request_id))

    async def stream(self, asked, request_id):
        try:
            await self._work(request_id)
            scores = self._scores(asked.texts, asked.values)
            yield StreamStart(num_scores=len(scores), **self._made(asked, request_id))
            for i, scored in enumerate(scores):
                if i == self.fail_after:
                    raise RuntimeError(f"a failure that holds {asked.texts[0]}")
                try:
                    await asyncio.sleep(self.seconds)
                except asyncio.CancelledError:
                    self.cancelled.release()
                    raise
                yield StreamScore(**scored)
            yield StreamEnd(num_scores=len(scores))
        finally:
            self.closed.release()

    async def compare(self, asked, request_id):
        await self._work(request_id)
        scores = [Scored(**s) for s in self._scores([asked.first, asked.second], asked.values)]
        half = len(scores) // 2
        pairs = zip(scores[:half], scores[half:], strict=True)
        compared = [Compared(value=a.value, probability=0.5, first=a, second=b) for a, b in pairs]
        return CompareResponse(comparisons=compared, **self._made(asked, request_id))

    async def profile(self, asked, request_id):
        await self._work(request_id)
        values = self.values(asked.values)
        profile = [Profiled(value=v, intensity=0, low=-1, high=1, num_texts=len(asked.texts), band="neutral") for v in values]
        return ProfileResponse(profile=profile, **self._made(asked, request_id))

    async def extract(self, asked, request_id):
        await self._work(request_id)
        node = Extracted(theory="svt", node="svt:power", path=["svt"], distance=0.5, direction=0, confidence=0.5)
        texts = [ExtractedText(index=i, nodes=[node]) for i in range(len(asked.texts))]
        return ExtractResponse(request_id=request_id, model="hash", texts=texts)

    def theories(self):
        if self.error:
            raise self.error
        nodes = [NodeInfo(id="svt:power", name="Power", definition="control", parents=[], scored=True)]
        return TheoriesResponse(theories=[TheoryInfo(id="svt", name="Schwartz", nodes=nodes)])

    def value(self, id):  # noqa: A002
        value = resolve(id)
        return ValueResponse(
            id=value, name=value, definition="d", supports="s", opposes="o", paths=[["a"]], scored=True, examples=[]
        )

    def anchors(self, id, offset, limit):  # noqa: A002
        value = resolve(id)
        anchors = [
            Anchor(text=f"text {i}", intensity=i / 100, low=None, high=None, source="fake", license="CC0-1.0")
            for i in range(2000)[offset : offset + limit]
        ]
        return AnchorsResponse(value=value, vidb_version=self.version, total=2000, anchors=anchors)

    def vidb(self):
        nothing = Limits(max_texts=0, max_streamed=0, max_chars=0, max_units=0, max_body_bytes=0)
        return VidbResponse(
            version=self.version, judge="hash", modes=["ranked"], extract=True, values={"svt:power": 9}, num_texts=9,
            licenses={}, lineage=[], created="2026-01-01", valueflow="0", limits=nothing,
        )  # fmt: skip


def _values(name: str) -> list[str]:
    if name == "all":
        return list(operational())
    return [v for v in operational() if v.startswith(f"{name}:")] if name in theories() else [resolve(name)]


def _scored(index: int, text: str, value: str) -> dict:
    share = int.from_bytes(hashlib.sha256(f"{value} {text}".encode()).digest()[:4], "big") / 2**32
    intensity = round(20 * share - 10, 3)
    return {
        "index": index, "value": value, "intensity": intensity, "low": intensity - 1, "high": intensity + 1,
        "num_windows": 3, "num_failed": 0,
    }  # fmt: skip


def key_config(key: str = KEY, name: str = "tester", **limits) -> dict:
    return {"name": name, "sha256": hashlib.sha256(key.encode()).hexdigest(), **limits}


class Served:
    """A running server, from outside."""

    def __init__(self, port: int, service: FakeService, app) -> None:
        self.port, self.url, self.service, self.app = port, f"http://127.0.0.1:{port}", service, app
        self.http = httpx.Client(base_url=self.url, timeout=30)

    def post(self, path: str, body: object = None, **given) -> httpx.Response:
        return self.http.post(path, json=ASKED if body is None else body, **given)

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
    app = create(lambda: service, HttpConfig(**settings), page)
    with listening(app, http) as port:
        yield Served(port, service, app)


@contextlib.contextmanager
def listening(app, http: str = "auto") -> Iterator[int]:
    server = uvicorn.Server(
        uvicorn.Config(
            app, "127.0.0.1", 0, http=http, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1
        )
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    eventually(lambda: server.started)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def eventually(condition: Callable[[], object], seconds: float = 10) -> None:
    """Wait until something is so."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "did not come to pass"
        time.sleep(0.01)


def log_lines(records: list[logging.LogRecord]) -> list[dict]:
    """The requests that the log tells of."""
    return [json.loads(r.getMessage()) for r in records if r.name == "serve.access_log"]


def refused(answer: httpx.Response, status: int, reason: str) -> Problem:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    said = Problem.model_validate_json(answer.content, strict=True)
    assert (said.status, said.type, bool(said.detail)) == (status, f"urn:valueflow:{reason}", True)
    return said


def request_head(*headers: str, path: str = "/v1/score") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def status_of(connection: socket.socket) -> int:
    return int(connection.recv(65536).split(b" ")[1])


def whole_request(asked: dict = ASKED, path: str = "/v1/score", *headers: str) -> bytes:
    body = json.dumps(asked).encode()
    return request_head(f"Content-Length: {len(body)}", *headers, path=path) + body


def reset(connection: socket.socket) -> None:
    """Go away the rude way: RST instead of FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def busy(served: Served) -> tuple[float, float]:
    return served.metric("valueflow_http_in_flight"), served.metric("valueflow_http_queued")
