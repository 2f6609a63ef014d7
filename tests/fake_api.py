"""A server of API version 1 in a thread: scores are a sum over letters, and the next answers can be faults."""

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
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from valueflow import api

VALUES = ["svt:benevolence", "mft:fairness-cheating", "duty:fidelity"]
MADE = {"vidb_version": "v-1", "judge": "fake", "mode": "ranked", "k": 6, "m": 3, "sampling": "adaptive", "seed": 0}
ANCHOR = api.Anchor(text="We help.", intensity=7.0, low=6.0, high=8.0, source="sample", license="MIT")
LIMITS = {"max_texts": 1000, "max_streamed": 100_000, "max_chars": 20_000, "max_units": 100_000, "max_body_bytes": 10**7}


def intensity(text: str, value: str) -> float:
    return sum(map(ord, text + value)) % 200 / 10 - 10


def scores(texts: list[str], values: list[str]) -> list[dict]:
    return [
        {"index": i, "value": v, "intensity": intensity(t, v), "low": -10.0, "high": 10.0, "num_windows": 3, "num_failed": 0}
        for i, t in enumerate(texts)
        for v in values
    ]  # fmt: skip


def lines(texts: list[str], values: list[str], made: dict = MADE) -> list[str]:
    """What a server streams: start, scores, end."""
    found = [api.StreamScore(**s, error="one\u2028two") for s in scores(texts, values)]
    start = api.StreamStart(request_id="r-s", **made, num_scores=len(found))
    return [line.model_dump_json() + "\n" for line in (start, *found, api.StreamEnd(num_scores=len(found)))]


def problem(status: int, detail: str = "", **headers: str) -> Response:
    body = api.Problem(title="Refused", status=status, detail=detail, request_id="r-p").model_dump_json()
    return Response(body, status, {k.replace("_", "-"): v for k, v in headers.items()}, "application/problem+json")


class Fake:
    """A server of API version 1 whose next answers to POST may be `faults`; notes what it was sent."""

    def __init__(self) -> None:
        self.seen: list[SimpleNamespace] = []
        self.faults: list[Callable[[dict], Response]] = []
        self.limits, self.values, self.url = dict(LIMITS), VALUES, ""
        self.app = FastAPI()
        self.app.add_api_route("/v1/{path:path}", self.answer, methods=["GET", "POST"])

    async def answer(self, path: str, request: Request) -> Response:
        body = json.loads(await request.body() or b"{}")
        self.seen.append(SimpleNamespace(path=path, headers=request.headers, body=body, url=request.url))
        if request.method == "POST" and self.faults:
            return self.faults.pop(0)(body)
        return JSONResponse(self.good(path, body)) if path != "score/stream" else self.stream(body)

    def stream(self, body: dict, keep: int | None = None, made: dict = MADE) -> Response:
        """A stream; with `keep`, the connection is cut after so many lines."""

        async def written() -> Any:
            for number, line in enumerate(lines(body["texts"], self.values, made)):
                if number == keep:
                    raise ConnectionAbortedError
                yield line
                await asyncio.sleep(0)

        return StreamingResponse(written(), media_type="application/x-ndjson")

    def good(self, path: str, body: dict) -> dict:
        node = {"theory": "svt", "node": "svt:benevolence", "path": [], "distance": 0.1, "direction": 1, "confidence": 0.5}
        meaning = {"name": "B", "definition": "d", "supports": "s", "opposes": "o", "paths": [], "scored": True}
        interval = {"intensity": 1.0, "low": 0.0, "high": 2.0}
        match path.split("/"):
            case ["score"]:
                return {"request_id": "r", **MADE, "scores": scores(body["texts"], self.values)}
            case ["compare"]:
                first, second = scores([body["first"], body["second"]], self.values[:1])
                one = {"value": self.values[0], "probability": 0.8, "first": first, "second": second}
                return {"request_id": "r", **MADE, "comparisons": [one]}
            case ["profile"]:
                one = {"value": self.values[0], **interval, "num_texts": len(body["texts"]), "band": "neutral"}
                return {"request_id": "r", **MADE, "profile": [one]}
            case ["extract"]:
                found = [{"index": i, "nodes": [node | {"path": [text]}]} for i, text in enumerate(body["texts"])]
                return {"request_id": f"r{len(self.seen)}", "model": "fake", "texts": found}
            case ["theories"]:
                return {"theories": [{"id": "svt", "name": "Schwartz", "nodes": []}]}
            case ["values", value]:
                return {"id": value, **meaning, "examples": [ANCHOR.model_dump()]}
            case ["values", value, "anchors"]:
                return {"value": value, "vidb_version": "v-1", "total": 1, "anchors": [ANCHOR.model_dump()]}
        return {
            "version": "v-1", "judge": "fake", "modes": ["ranked"], "extract": True, "values": dict.fromkeys(self.values, 9),
            "num_texts": 27, "licenses": {"MIT": 27}, "lineage": [], "created": "2026-01-01", "valueflow": "0",
            "limits": self.limits,
        }  # fmt: skip

    def posts(self) -> list[SimpleNamespace]:
        return [call for call in self.seen if call.headers.get("content-length", "0") != "0"]


@contextlib.contextmanager
def serving(app: FastAPI, port: int = 0) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="critical"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@contextlib.contextmanager
def raw(answers: list[bytes]) -> Iterator[tuple[str, list[bytes]]]:
    """A server that reads a request, writes the next of the answers and closes the connection."""
    received: list[bytes] = []
    left = list(answers)

    def serve(listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                with connection:
                    data = b""
                    while b"\r\n\r\n" not in data or (data.startswith(b"POST") and not data.endswith(b"}")):
                        data += connection.recv(65536)
                    received.append(data)
                    connection.sendall(left.pop(0))

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", received
        listening.shutdown(socket.SHUT_RDWR)
    thread.join()
