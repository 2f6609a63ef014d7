"""Responses of OpenAI-compatible servers: their status, wherever it stands, their body and the tokens that they count.

Gateways answer HTTP 200 before they know how a call ends, and then put an error into the body, or into one of its choices; some
send a stream of events though none was requested.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from valueflow.llm.admission import Tokens
from valueflow.llm.answer_text import encodable

# The status of a response without an answer and without a reason.
NO_ANSWER = 502
# The status that the words of an error stand for; the first that its code or type contains.
_WORDS = {
    "insufficient_quota": 402, "insufficient_credit": 402, "insufficient_balance": 402, "billing": 402, "rate_limit": 429,
    "too_many_requests": 429, "resource_exhausted": 429, "throttl": 429, "overloaded": 503, "unavailable": 503, "timeout": 504,
    "deadline_exceeded": 504, "authentication": 401, "unauthenticated": 401, "unauthorized": 401, "api_key": 401,
    "permission": 403, "forbidden": 403, "not_found": 404, "content_filter": 400, "content_policy": 400, "context_length": 400,
    "bad_request": 400, "invalid": 400, "unsupported": 400,
}  # fmt: skip
# Ends of an answer that the server or the network broke off.
_BROKEN = {"error", "abort", "network_error", "insufficient_system_resource"}
# Larger counts of tokens are no counts; columns of tokens have 32 bits.
_MOST_TOKENS = 10**9


class Response(NamedTuple):
    """A complete response.

    status: HTTP's; if that is a success without an answer, the status of the error in the body.
    http: HTTP's status.
    body: the JSON in it, or the object that a stream of events adds up to; None if it is neither.
    reason: the server's words about an error, else the beginning of the body.
    may_be_answer: whether a body that cannot be read may be a damaged answer.
    """

    status: int
    http: int
    headers: Mapping[str, str]
    body: object
    reason: str
    may_be_answer: bool

    @property
    def is_success(self) -> bool:
        """Whether there is an answer, or a body that cannot be read."""
        return 200 <= self.status < 300

    @property
    def error(self) -> str:
        """What went wrong, for a response that is no success."""
        if not 200 <= self.http < 300:
            return f"HTTP {self.http}: {self.reason}"
        if _error(self.body) or _broken_end(self.body):
            return f"HTTP {self.http} with error {self.status}: {self.reason}"
        return f"the response has no choices: {self.reason!r}"

    @property
    def counts(self) -> tuple[int | None, int | None]:
        """Prompt and generated tokens that the server counted; None where it counted none."""
        return _count(lookup(self.body, "usage", "prompt_tokens")), _count(lookup(self.body, "usage", "completion_tokens"))

    @property
    def paid(self) -> Tokens | None:
        """Tokens of a call that was paid for by the server's count, None if it counted nothing."""
        tokens = Tokens(*(count or 0 for count in self.counts))
        return tokens if any(tokens) else None


def read_response(http: int, headers: Mapping[str, str], content: bytes) -> Response:
    """Return the response with the status that it means."""
    text = content.decode("utf-8", "replace")
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    body = _stream(text) if text.lstrip().startswith(("data:", "event:", ": ")) else _json(content)
    may_be_answer = bool(text.strip()) and (kind.endswith(("json", "event-stream")) or text.lstrip().startswith(("{", "data:")))
    status = http
    if 200 <= http < 300 and body is not None and not _has_answer(body):
        status = _status(_error(body))
    return Response(status, http, headers, body, _reason(body, text, headers), may_be_answer)


def lookup(tree: object, *path: str | int) -> object:
    """Return the element at a path of nested objects and lists; None if there is none."""
    for step in path:
        if isinstance(step, str) and isinstance(tree, dict):
            tree = tree.get(step)
        elif isinstance(step, int) and isinstance(tree, list) and step < len(tree):
            tree = tree[step]
        else:
            return None
    return tree


def finish_reason(body: object) -> str:
    """Return why the first answer ended, in lower case; "" if the server does not say."""
    return str(lookup(body, "choices", 0, "finish_reason") or "").lower()


def _json(content: bytes) -> object:
    try:
        body: object = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return body if body is not None else {}


def _has_answer(body: object) -> bool:
    message = lookup(body, "choices", 0, "message")
    if not isinstance(message, dict) or lookup(body, "choices", 0, "error") or _broken_end(body):
        return False
    return not (lookup(body, "error") and not message.get("content"))


def _broken_end(body: object) -> bool:
    return finish_reason(body) in _BROKEN


def _error(body: object) -> object:
    """The error in a body without an answer: of the choice, of the body, or the body itself; None if it names none."""
    for path in (("choices", 0, "error"), ("error",), (0, "error"), ("errors", 0), ("base_resp",), ("detail",)):
        if error := lookup(body, *path):
            return error
    return body if lookup(body, "object") == "error" else None


def _status(error: object) -> int:
    for name in ("code", "status_code", "status", "type"):
        value = lookup(error, name)
        if isinstance(value, str) and not value.strip().isdigit():
            word = re.sub(r"[^a-z]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", value).lower())
            status = next((status for part, status in _WORDS.items() if part in word), 0)
        else:
            status = _count(value) or 0
        if 400 <= status < 600:
            return status
    return 429 if re.search(r"rate.?limit|too many requests", str(error), re.IGNORECASE) else NO_ANSWER


def _count(value: object) -> int | None:
    """A whole number that a server may have written as a float or a text; None for anything else."""
    try:
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        return None
    return int(number) if 0 <= number <= _MOST_TOKENS and number == int(number) else None


def _reason(body: object, text: str, headers: Mapping[str, str]) -> str:
    error = _error(body)
    if isinstance(error, str):
        return error
    for name in ("message", "status_msg", "detail"):
        if isinstance(message := lookup(error, name), str) and message:
            return message
    if "location" in headers:
        return f"redirected to {headers['location']}"
    return f"the answer ended with {finish_reason(body)!r}" if _broken_end(body) and not error else text


def _stream(text: str) -> object:
    """The completion that a stream of events adds up to; None if it is cut or holds something else."""
    answer: dict = {"role": "assistant"}
    body: dict = {}
    finish, done, logprobs = None, False, []
    for event in _events(text):
        if event is None:
            done = True
            continue
        body |= {name: event[name] for name in ("error", "usage") if isinstance(event, dict) and event.get(name)}
        choice = lookup(event, "choices", 0)
        for name in ("content", "reasoning_content", "reasoning", "refusal"):
            part = lookup(choice, "delta", name) or lookup(choice, "message", name)
            if isinstance(part, str):
                answer[name] = answer.get(name, "") + part
        places = lookup(choice, "logprobs", "content")
        logprobs += places if isinstance(places, list) else []
        finish = lookup(choice, "finish_reason") or finish
        if error := lookup(choice, "error"):
            body["error"] = error
    if "error" in body:
        return body
    if not (finish or done):
        return None
    return body | {"choices": [{"message": answer, "finish_reason": finish, "logprobs": {"content": logprobs}}]}


def _events(text: str) -> Iterator[object]:
    """The objects of a stream of events; None for its end."""
    for line in re.split(r"\r\n|\n|\r", text):
        field, _, value = line.partition(":")
        if field == "data" and value.strip() == "[DONE]":
            yield None
        elif field == "data":
            try:
                yield json.loads(value)
            except (ValueError, RecursionError):
                continue


def message_text(message: dict) -> tuple[str, str, bool]:
    """Return content, refusal, and whether the model thought, of a message in any form that the API allows.

    Content may be a text, a list of parts, of which those with thoughts are left out, or null.
    """
    content, refusal = message.get("content"), message.get("refusal")
    parts = content if isinstance(content, list) else [content]
    texts, thought = [], bool(message.get("reasoning_content") or message.get("reasoning"))
    for part in parts:
        kind, text = lookup(part, "type"), lookup(part, "text")
        if isinstance(part, str):
            texts.append(part)
        elif kind == "refusal":
            refusal = refusal or lookup(part, "refusal")
        elif isinstance(text, str) and kind in (None, "text", "output_text"):
            texts.append(text)
        elif isinstance(part, dict) and "answer" in part:  # the JSON that was requested, parsed already
            texts.append(json.dumps(part))
        elif part is not None:
            thought = thought or "think" in str(kind) or "reason" in str(kind)
    return encodable("".join(texts)), encodable(str(refusal)) if refusal else "", thought
