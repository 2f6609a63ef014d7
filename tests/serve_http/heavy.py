"""Bodies of the largest size that is allowed, each costly in another way, and how long one keeps the event loop from others."""

import asyncio
import json
import time
from typing import NamedTuple

from serve.settings import HttpConfig

SIZE = HttpConfig().max_body_bytes


def filled(start: bytes, unit: bytes, end: bytes) -> bytes:
    return start + unit * ((SIZE - len(start) - len(end)) // len(unit)) + end


def text_body(content: bytes) -> bytes:
    """A thousand texts of 8 kB that are within all limits."""
    text = b'"' + content * (8000 // len(content)) + b'"'
    return b'{"values":["svt:power"],"texts":[' + b",".join([text] * 1000) + b"]}"


BODIES = {
    "700,000 keys": lambda: b"{" + b",".join(b'"%05x":1' % i for i in range(700_000)) + b"}",
    "one key 800,000 times": lambda: filled(b"{", b'"texts":1,', b'"k":6}'),
    "keys for a text": lambda: b'{"texts":[{' + b",".join(b'"k%06d":1' % i for i in range(500_000)) + b"}]}",
    "two million texts": lambda: filled(b'{"texts":[', b'"a",', b'"a"]}'),
    "four million numbers": lambda: filled(b'{"texts":[', b"0,", b"0]}"),
    "lists": lambda: filled(b'{"texts":[', b"[],", b"[]]}"),
    "objects": lambda: filled(b'{"texts":[', b"{},", b"{}]}"),
    "deep lists": lambda: filled(b'{"texts":[', b"[" * 190 + b"]" * 190 + b",", b"[]]}"),
    "one deep list": lambda: filled(b'{"texts":', b"[", b"]}"),
    "values": lambda: filled(b'{"texts":["a"],"values":[', b'"svt",', b'"svt"]}'),
    "wrong texts": lambda: json.dumps({"texts": [1] * 9_000}).encode(),
    "keys within the limit": lambda: json.dumps({f"k{i}": "x" * 700 for i in range(10_000)}).encode(),
    "numbers of 4,000 digits": lambda: filled(b'{"texts":[', b"9" * 4000 + b",", b"0]}"),
    "one number": lambda: filled(b'{"texts":["a"],"seed":', b"9", b"}"),
    "fractions": lambda: filled(b'{"texts":[', b"1.234567890123456789e-300,", b"0]}"),
    "one text": lambda: filled(b'{"texts":["', b"a", b'"]}'),
    "one key": lambda: filled(b'{"', b"a", b'":1}'),
    "spaces": lambda: filled(b'{"texts":["a"]', b" ", b"}"),
    "quotes": lambda: filled(b"", b'"', b""),
    "backslashes": lambda: filled(b'{"texts":["', b"\\", b'"]}'),
    "texts": lambda: text_body(b"I help my neighbour, and she helps me. "),
    "texts of commas": lambda: text_body(b",:[{"),
    "texts of quotes": lambda: text_body(b'\\"'),
    "texts of escapes": lambda: text_body(b"\\u00e9"),
    "texts of emoji": lambda: text_body("😀".encode()),
    "10,000 accepted texts": lambda: json.dumps({"texts": ["a" * 800] * 10_000, "values": ["svt:power"]}).encode(),
    "10,000 texts": lambda: json.dumps({"texts": ["a" * 800] * 10_000, "values": ["no such value"]}).encode(),
}


def scoring_body(num_texts: int, values: list[str]) -> bytes:
    """Texts that are all different, with one window each."""
    return json.dumps({"texts": [f"I kept promise {i}." for i in range(num_texts)], "values": values, "m": 1}).encode()


class Answer(NamedTuple):
    status: int
    body: bytes
    seconds: float


class Load(NamedTuple):
    """Answers to the heavy requests, to light ones meanwhile, and the longest time the event loop did not turn."""

    heavy: list[Answer]
    light: list[Answer]
    stall: float


async def post(app, path: str, body: bytes) -> Answer:
    """Post a body in chunks, as a server hands it over."""
    scope = {
        "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"", "http_version": "1.1",
        "scheme": "http", "root_path": "", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
        "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
    }  # fmt: skip
    chunks = [body[i : i + 65_536] for i in range(0, len(body), 65_536)]
    messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages.append({"type": "http.request", "body": b"", "more_body": False})
    messages.reverse()
    status, parts, began = 0, [], time.perf_counter()

    async def receive() -> dict:
        await asyncio.sleep(0)  # as between two reads of a socket
        return messages.pop() if messages else await asyncio.Future()

    async def send(message: dict) -> None:
        nonlocal status
        status = message.get("status", status)
        parts.append(message.get("body", b""))

    await app(scope, receive, send)
    return Answer(status, b"".join(parts), time.perf_counter() - began)


async def _load(app, path: str, body: bytes, copies: int) -> Load:
    light, stall, over = [], 0.0, False

    async def heartbeat() -> None:
        nonlocal stall
        while not over:
            began = time.perf_counter()
            await asyncio.sleep(0.002)
            stall = max(stall, time.perf_counter() - began - 0.002)

    async def others() -> None:
        while not over:
            light.append(await post(app, "/v1/score", b'{"texts":["a"],"values":["svt:power"]}'))
            await asyncio.sleep(0.01)

    beside = [asyncio.ensure_future(heartbeat()), asyncio.ensure_future(others())]
    await asyncio.sleep(0.02)
    heavy = await asyncio.gather(*(post(app, path, body) for _ in range(copies)))
    over = True
    await asyncio.gather(*beside)
    return Load(heavy, light, stall)


def load(app, path: str, body: bytes, copies: int = 1) -> Load:
    """Send a body, several times at once if so, while another caller sends light requests and a task counts the time."""
    return asyncio.run(_load(app, path, body, copies))
