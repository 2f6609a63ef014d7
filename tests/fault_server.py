"""A chat-completions server that misbehaves on purpose, the same way for the same prompt, and counts what was paid for.

As a program it serves on a free port, whose number it prints; `start()` runs it so. POST /reset sets the behaviour (the fields
of `Settings`), GET /seen returns what came in.
"""

import asyncio
import contextlib
import email.utils
import hashlib
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from aiohttp import web
from fakes.logits import logprobs_of

KEY = "sk-secret-0123456789"
# Each is a share of the prompts in the big test; others are asked for by name.
FAULTS = ("429", "500", "hang", "cut", "drip", "empty", "prose", "short", "twice", "refusal")


@dataclass
class Settings:
    """How the server behaves; `faults` are shares of prompts, drawn by their hash."""

    limit: int = 1000  # calls in flight; more get 429
    service: tuple[float, float] = (0.0, 0.0)
    retry_after: str = ""  # seconds, or "date" for a date one to two seconds ahead
    per_minute: float = 0.0  # calls above this rate get 429
    faults: dict[str, float] = field(default_factory=dict)
    times: int = 1  # how often a prompt meets its fault; then it is answered
    only: str = ""  # prompts without this text meet no fault
    total: int = 0  # prompts of the test: the queue is empty when each has been seen
    key: str = KEY
    usage: bool = True
    logprobs: dict[str, float] = field(default_factory=dict)
    worth: dict[str, float] = field(default_factory=dict)  # of texts, for answers by fakes/logits.py


class Server:
    """The state between two resets."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.seen: Counter[str] = Counter()  # requests by prompt
        self.accepted: Counter[str] = Counter()  # of them those within the limits, the only ones that meet a fault
        self.paid: Counter[str] = Counter()  # requests that a provider would charge for, answered or not
        self.refusals = 0
        self.keys: dict[str, set[str]] = {}  # idempotency keys by prompt
        self.last: dict = {}
        self.arrivals: list[float] = []
        self.in_flight = self.most = 0
        self.since = 0.0
        self.call_seconds = self.seconds = 0.0
        self.bucket, self.filled = settings.per_minute / 60, time.monotonic()

    def count(self, change: int) -> None:
        """Add up calls in flight over time, from the first call until every prompt has been sent once."""
        now = time.monotonic()
        if self.since and len(self.seen) <= self.settings.total:
            self.call_seconds += self.in_flight * (now - self.since)
            self.seconds += now - self.since
        self.since = now if len(self.seen) < self.settings.total else 0.0
        self.in_flight += change
        self.most = max(self.most, self.in_flight)

    def report(self) -> dict:
        return {
            "seen": self.seen, "paid": self.paid, "refusals": self.refusals, "last": self.last, "arrivals": self.arrivals,
            "keys": {prompt: sorted(keys) for prompt, keys in self.keys.items()},
            "most": self.most, "in_flight": self.in_flight,
            "concurrency": self.call_seconds / self.seconds if self.seconds else 0.0,
        }  # fmt: skip

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        prompt = body["messages"][-1]["content"].partition("\n\nGive this answer as JSON")[0]
        self.count(0)
        self.arrivals.append(time.time())
        self.seen[prompt] += 1
        self.keys.setdefault(prompt, set()).add(request.headers.get("Idempotency-Key", ""))
        self.last = {"body": body, "headers": {k.lower(): v for k, v in request.headers.items()}}
        if self.settings.key and request.headers.get("Authorization") != f"Bearer {self.settings.key}":
            return _error(401, f"Incorrect API key: {request.headers.get('Authorization')}")
        if self.in_flight >= self.settings.limit or not self.within_rate():
            return self.refuse()
        self.count(1)
        self.accepted[prompt] += 1
        try:
            low, high = self.settings.service
            fault = self.fault(prompt)
            if fault == "429":
                return self.refuse()
            await asyncio.sleep(low + (high - low) * _share(f"time of {prompt}"))
            return await self.answer(request, body, prompt, fault)
        finally:
            self.count(-1)

    def fault(self, prompt: str) -> str:
        if self.settings.only not in prompt:
            return ""
        share = _share(prompt)
        for kind, part in self.settings.faults.items():
            if share < part:
                return kind if self.accepted[prompt] <= self.settings.times else ""
            share -= part
        return ""

    def within_rate(self) -> bool:
        if not self.settings.per_minute:
            return True
        now = time.monotonic()
        rate = self.settings.per_minute / 60
        self.bucket, self.filled = min(rate, self.bucket + (now - self.filled) * rate), now
        if self.bucket < 1:
            return False
        self.bucket -= 1
        return True

    def refuse(self, status: int = 429) -> web.Response:
        self.refusals += 1
        after = self.settings.retry_after
        after = email.utils.formatdate(time.time() + 2, usegmt=True) if after == "date" else after
        return _error(status, "too many calls", {"Retry-After": after} if after else {})

    async def answer(self, request: web.Request, body: dict, prompt: str, fault: str) -> web.StreamResponse:
        if fault in ("503", "429 quota"):
            return self.refuse(503) if fault == "503" else _error(429, "no money", code="insufficient_quota")
        if fault == "echo":  # what debugging gateways do
            sent = {name: value for name, value in body.items() if name != "messages"}
            return _error(400, f"bad request: {sent} {request.url} {dict(request.headers)}")
        if fault.isdigit():
            return _error(int(fault), f"status {fault} for {request.headers.get('Authorization')}")
        self.paid[prompt] += 1
        if fault == "hang":
            await asyncio.sleep(3600)
        text = json.dumps(self.completion(body, prompt, fault))
        if fault == "not json":
            return web.Response(text="<html>oops</html>", content_type="text/html")
        if fault in ("cut", "drip"):
            return await _broken_stream(request, text, fault)
        return web.Response(text=text, content_type="application/json")

    def completion(self, body: dict, prompt: str, fault: str) -> dict:
        schema = body.get("response_format", {}).get("json_schema", {}).get("schema", {})
        choices = schema.get("properties", {}).get("answer", {}).get("enum") or body.get("structured_outputs", {}).get("choice")
        choices = choices or ["A > B > C"]
        answer = choices[int(_share(f"answer to {prompt}") * len(choices))]
        logprobs = logprobs_of(prompt, self.settings.worth) if self.settings.worth else self.settings.logprobs
        if self.settings.worth:
            answer = max(logprobs, key=lambda option: logprobs[option])
        reply = {"prose": f"Sure! The order is {answer}.", "short": "A > B", "twice": "A > A > B"}.get(fault, answer)
        text = json.dumps({"answer": reply}) if schema else reply
        text = {"empty": "", "no answer": '{"order": "A"}', "refusal": None, "surrogate": "A\ud800", "length": "A > "}.get(
            fault, text
        )
        message = {"role": "assistant", "content": text} | ({"refusal": "I cannot judge this."} if fault == "refusal" else {})
        choice: dict = {"index": 0, "message": message, "finish_reason": "stop"}
        if fault in ("length", "content_filter"):
            choice["finish_reason"] = fault
        if logprobs:
            top = [{"token": token, "logprob": logprob} for token, logprob in logprobs.items()]
            choice["logprobs"] = {"content": [{"token": text, "logprob": -0.1, "top_logprobs": top}]}
        answered = {"choices": [] if fault == "no choices" else [choice]}
        return answered | ({"usage": {"prompt_tokens": 30, "completion_tokens": 6}} if self.settings.usage else {})


async def _broken_stream(request: web.Request, text: str, fault: str) -> web.StreamResponse:
    """Send half an answer and close the connection, or send an answer at one byte per 50 ms."""
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(text))})
    await response.prepare(request)
    if fault == "cut":
        await response.write(text[: len(text) // 2].encode())
        request.transport.close()
        return response
    for letter in text:
        await response.write(letter.encode())
        await asyncio.sleep(0.05)
    return response


def _error(status: int, message: str, headers: dict[str, str] | None = None, code: str = "") -> web.Response:
    return web.json_response({"error": {"message": message, "code": code or status}}, status=status, headers=headers)


def _share(text: str) -> float:
    """A number in [0, 1) from the hash of a text."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "replace")).digest()[:6], "big") / 2**48


class Handle:
    """Handle of a running server."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/v1"
        self._control = f"http://127.0.0.1:{port}"

    def reset(self, **settings: object) -> None:
        httpx.post(f"{self._control}/reset", json=settings).raise_for_status()

    def seen(self) -> dict:
        return httpx.get(f"{self._control}/seen").json()


@contextlib.contextmanager
def start() -> Iterator[Handle]:
    """Run the server in a separate process until the block ends."""
    process = subprocess.Popen([sys.executable, str(Path(__file__).resolve())], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield Handle(int(process.stdout.readline()))
    finally:
        process.terminate()
        process.wait()


async def serve() -> None:
    state = {"server": Server(Settings())}

    async def chat(request: web.Request) -> web.StreamResponse:
        return await state["server"].chat(request)

    async def reset(request: web.Request) -> web.Response:
        state["server"] = Server(Settings(**await request.json()))
        return web.Response()

    async def seen(request: web.Request) -> web.Response:
        return web.json_response(state["server"].report())

    app = web.Application()
    app.add_routes([web.post("/v1/chat/completions", chat), web.post("/reset", reset), web.get("/seen", seen)])
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve())
