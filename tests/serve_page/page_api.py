"""The server behind the page in its tests: API v1 with made-up numbers that follow from text and value, and chosen faults."""

import asyncio
import contextlib
import functools
import hashlib
import secrets
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse

from valueflow.api import (
    Agreement,
    Anchor,
    AnchorsResponse,
    Compared,
    CompareRequest,
    CompareResponse,
    Limits,
    Made,
    Mode,
    NodeInfo,
    Problem,
    Scored,
    StreamEnd,
    StreamRequest,
    StreamScore,
    StreamStart,
    TheoriesResponse,
    TheoryInfo,
    ValueResponse,
    VidbResponse,
)
from valueflow.theories import operational, theories

PAGE = Path(__file__).parents[2] / "serve" / "page.html"
POLICY = (
    "default-src 'none'; style-src 'nonce-{0}'; script-src 'nonce-{0}'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
VERSION, JUDGE = "3f0c2ab94d17e6aa", "qwen3-8b"
KEY = "vf-secret"
FAILS = "nobody can judge this"  # a text with it gets no score
HALTING = "the judge hesitates"  # a text with it loses a window
MANY = "mft:care-harm"  # the value with more anchors than one request brings


@dataclass
class Faults:
    """How the server behaves; and what it has seen."""

    key: str = ""  # asked for where set
    busy: int = 0  # so many POSTs are refused with 429
    down: int = 0  # so many requests to the API fail with 500
    lost: bool = False  # requests for anchors fail
    seconds: float = 0.0  # before each score of a stream
    cut: int | None = None  # the stream breaks after so many scores
    breaks: int | None = None  # the stream ends with a problem after so many scores
    modes: tuple[Mode, ...] = ("ranked",)
    bodies: list[dict] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    arrivals: list[float] = field(default_factory=list)


def share(*parts: object) -> float:
    """A number in [0, 1) that the parts always give."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:6], "big") / 2**48


def scored(index: int, text: str, value: str, num_windows: int = 3) -> Scored:
    if FAILS in text:
        return Scored(
            index=index, value=value, intensity=None, low=None, high=None, num_windows=0, num_failed=3, error="no usable order"
        )
    halted = int(HALTING in text)
    mean, half = 16 * share(text, value) - 8, 0.5 + 3 * share(value, text) ** 2
    return Scored(
        index=index, value=value, intensity=mean, low=max(-10, mean - half), high=min(10, mean + half),
        num_windows=num_windows - halted, num_failed=halted, error="refused" if halted else None,
    )  # fmt: skip


@functools.cache
def anchors(value: str) -> list[Anchor]:
    """Anchors of a value, weakest first."""
    number = 1200 if value == MANY else 45
    means = sorted(19 * share(value, i, "anchor") - 9.5 for i in range(number))
    return [
        Anchor(
            text=f"A remark about {value.partition(':')[2]}, one of many that people make when they talk, number {i}",
            intensity=mean, low=max(-10, mean - 0.8), high=min(10, mean + 0.8), source="remarks", license="CC-BY-4.0",
        )
        for i, mean in enumerate(means)
    ]  # fmt: skip


def probability(first: Scored, second: Scored) -> float | None:
    if first.intensity is None or second.intensity is None:
        return None
    return 1 / (1 + 10 ** ((second.intensity - first.intensity) / 2))


def create(faults: Faults) -> FastAPI:
    """Return the application."""
    app = FastAPI()

    @app.middleware("http")
    async def guard(request: Request, go_on) -> Response:
        if request.url.path.startswith("/v1"):
            faults.paths.append(request.url.path)
            if faults.key and request.headers.get("authorization") != f"Bearer {faults.key}":
                return _problem(401, "Unauthorized", "an API key is needed")
            if faults.down or (faults.lost and request.url.path.endswith("/anchors")):
                faults.down -= bool(faults.down)
                return _problem(500, "Internal Server Error", "the server failed")
        if request.method == "POST":
            faults.arrivals.append(time.monotonic())
            if faults.busy:
                faults.busy -= 1
                return _problem(429, "Too Many Requests", "64 requests wait already.", headers={"Retry-After": "1"})
            faults.bodies.append(await request.json())
        return await go_on(request)

    @app.exception_handler(RequestValidationError)
    async def misfit(_: Request, error: RequestValidationError) -> Response:
        found = [{"field": ".".join(map(str, item["loc"])), "message": item["msg"]} for item in error.errors()]
        return _problem(422, "Unprocessable Content", found[0]["message"], found)

    @app.get("/")
    async def page() -> HTMLResponse:
        nonce = secrets.token_urlsafe(16)
        content = PAGE.read_text("utf-8").replace("__NONCE__", nonce)
        return HTMLResponse(content, headers={"Content-Security-Policy": POLICY.format(nonce)})

    @app.get("/v1/vidb")
    async def vidb() -> VidbResponse:
        return VidbResponse(
            version=VERSION, judge=JUDGE, modes=list(faults.modes), extract=False,
            values={value: len(anchors(value)) for value in operational()}, num_texts=2485, licenses={"CC-BY-4.0": 2485},
            lineage=[], created="2026-11-21T12:40:00+00:00", valueflow="1.0",
            limits=Limits(max_texts=1000, max_streamed=10_000, max_chars=20_000, max_units=32_000, max_body_bytes=2**23),
        )  # fmt: skip

    @app.get("/v1/theories")
    async def list_theories() -> TheoriesResponse:
        return TheoriesResponse(
            theories=[
                TheoryInfo(
                    id=theory.id,
                    name=theory.name,
                    nodes=[
                        NodeInfo(
                            id=f"{theory.id}:{node.id}", name=node.name, definition=node.definition,
                            parents=[f"{theory.id}:{parent}" for parent in node.parents], scored=node.operational,
                        )
                        for node in theory.nodes
                    ],
                )
                for theory in theories().values()
            ]
        )  # fmt: skip

    @app.get("/v1/values/{value}")
    async def show(value: str) -> ValueResponse:
        theory, _, name = value.partition(":")
        node = theories()[theory].node(name)
        return ValueResponse(
            id=value, name=node.name, definition=node.definition, supports=node.supports, opposes=node.opposes,
            paths=[list(path) for path in theories()[theory].paths(name)], scored=node.operational,
            examples=anchors(value)[::9] if node.operational else [],
        )  # fmt: skip

    @app.get("/v1/values/{value}/anchors")
    async def list_anchors(value: str, offset: int, limit: int) -> AnchorsResponse:
        found = anchors(value)
        return AnchorsResponse(
            value=value, vidb_version=VERSION, total=len(found), anchors=found[offset : offset + min(limit, 1000)]
        )

    @app.post("/v1/score/stream")
    async def stream(asked: StreamRequest) -> Response:
        made = _made(asked.mode, asked.m)
        number = len(asked.texts) * len(asked.values)
        agreed = [
            Agreement(value=value, texts=120, spearman=0.81, mean_absolute_error=1.26, coverage=0.95, width=7.5)
            for value in asked.values
        ]

        async def lines() -> AsyncIterator[str]:
            start = StreamStart(**made.model_dump(), num_scores=number, agreement=agreed if asked.mode == "fast" else None)
            yield start.model_dump_json() + "\n"
            sent = 0
            for index, text in enumerate(asked.texts):
                for value in asked.values:
                    if sent == faults.cut:
                        return
                    if sent == faults.breaks:
                        fault = Problem(title="Service Unavailable", status=503, detail="the judge stopped.")
                        yield StreamEnd(num_scores=sent, problem=fault).model_dump_json() + "\n"
                        return
                    await asyncio.sleep(faults.seconds)
                    yield StreamScore(**scored(index, text, value, asked.m).model_dump()).model_dump_json() + "\n"
                    sent += 1
            yield StreamEnd(num_scores=number).model_dump_json() + "\n"

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    @app.post("/v1/compare")
    async def compare(asked: CompareRequest) -> CompareResponse:
        found = []
        for value in asked.values:
            first, second = scored(0, asked.first, value), scored(1, asked.second, value)
            found.append(Compared(value=value, probability=probability(first, second), first=first, second=second))
        return CompareResponse(**_made(asked.mode, asked.m).model_dump(), comparisons=found)

    return app


def _made(mode: Mode, m: int) -> Made:
    if mode == "fast":
        return Made(
            request_id="r-123", vidb_version=VERSION, judge="minilm", mode="fast", k=None, m=None, sampling=None, seed=None
        )
    return Made(request_id="r-123", vidb_version=VERSION, judge=JUDGE, mode="ranked", k=6, m=m, sampling="adaptive", seed=0)


def _problem(status: int, title: str, detail: str, errors: list[dict] | None = None, headers: dict | None = None) -> Response:
    problem = Problem(title=title, status=status, detail=detail, request_id="r-9", errors=errors or [])
    return JSONResponse(problem.model_dump(), status, headers, "application/problem+json")


@contextlib.contextmanager
def serving(faults: Faults) -> Iterator[str]:
    """Serve on a free port in a thread until the block ends; gives the address."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create(faults), log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
