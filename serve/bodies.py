"""Request bodies as JSON: what a body costs is bounded before it is parsed, and long ones are parsed off the event loop."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from pydantic_core import from_json

from serve.problems import Refused
from serve.settings import HttpConfig

SHORT_BYTES = 64 * 2**10  # parsed in place, in a few milliseconds
MAX_KEYS = 32  # of a body; no request has as many fields
OTHER_PARTS = 1000  # keys, names of values and settings beside the texts
NO_MARKS = bytes(set(range(256)) - set(b'",:[{'))  # every key and item, except the first of a list, comes after one of these


class Outline(NamedTuple):
    """What a body would become, counted in its bytes: keys and items, keys, objects."""

    parts: int
    keys: int
    objects: int


class BodyParser:
    """Parses bodies of at most so many keys and items as the settings allow texts."""

    def __init__(self, settings: HttpConfig) -> None:
        self._max_texts = max(settings.max_texts, settings.max_streamed)
        # One thread: parsing holds Python's lock, and several parsers in a row would keep the event loop waiting.
        self._thread = ThreadPoolExecutor(1, "body")

    async def parse(self, body: bytes) -> Any:
        """Return the JSON value of a body; see `parse_json`."""
        if len(body) <= SHORT_BYTES:
            return parse_json(body, self._max_texts)
        return await asyncio.get_running_loop().run_in_executor(self._thread, parse_json, body, self._max_texts)


def parse_json(body: bytes, max_texts: int) -> Any:
    """Return the JSON value of a body; an object has at most `MAX_KEYS` keys, each once.

    Raises:
        Refused: 422, too many keys or items, or a key twice; 400, not valid UTF-8, or NaN, lone surrogates, overlong numbers or
            deep nesting; the message has the position.
    """
    outline = count_parts(body, max_texts + OTHER_PARTS)
    if outline.parts > max_texts + OTHER_PARTS:
        size = f"the body has more than {max_texts + OTHER_PARTS} keys and items"
        raise Refused(
            422,
            "limits",
            f"{size}: above this server's max_streamed, {max_texts} (GET /v1/vidb: limits); send several requests",
        )
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise Refused(400, "json", f"the body is not JSON in UTF-8: {error}") from None
    if isinstance(value, dict):
        if len(value) > MAX_KEYS:
            raise Refused(422, "schema", f"the body has {len(value)} keys; the fields of each request are in GET /openapi.json")
        # No field is an object, so that a second one is refused by the schema anyway.
        if outline.objects == 1 and outline.keys > len(value):
            names = ", ".join(name[:100] for name in value)
            raise Refused(422, "schema", f"the body has {outline.keys} keys but only these different ones: {names}")
    return value


def count_parts(body: bytes, enough: int) -> Outline:
    """Return the outline of a body; `keys` and `objects` are 0 if there are more than `enough` parts.

    Counted by a few passes over the bytes, in a tenth of a second for megabytes of anything; up to the first syntax error, the
    count is that of the parser.
    """
    if b"\\" in body:
        # Outside strings a backslash is a syntax error, so that only those inside are removed, with what they escape.
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    marks = body.translate(None, delete=NO_MARKS)
    num_strings = marks.count(b'"') // 2
    if num_strings > enough + 1:  # each but the first has a separator before it
        return Outline(num_strings, 0, 0)
    outside = b"".join(marks.split(b'"')[::2])
    if len(outside) > enough:
        return Outline(len(outside), 0, 0)
    return Outline(len(outside), outside.count(b":"), outside.count(b"{"))
