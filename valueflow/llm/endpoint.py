"""An asynchronous client for any OpenAI-compatible chat-completions URL: a call that was paid for is never asked again.

Only what cost nothing is repeated: a connection that failed before the question was sent, a complete 5xx or 408, and a refusal
(429, or 503 with Retry-After). An answer that was lost on its way is an error of its row.
"""

import asyncio
import json
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import httpx

from valueflow.errors import InputError
from valueflow.llm.admission import AdaptiveConcurrency, BudgetLedger, Slot, TokenBucket, Tokens
from valueflow.llm.cache import CallCache, Reply, call_key
from valueflow.llm.configs import EndpointModel
from valueflow.retry import backoff, retry_after

CHARS_PER_TOKEN = 4
# What {"answer": "..."} takes beside the answer, white space included.
JSON_TOKENS = 16
MESSAGE_CHARS = 300
JSON_NOTE = '\n\nGive this answer as JSON, in the form {"answer": "..."}.'
# Alternatives asked for with the first token; more are refused by some servers.
TOP_LOGPROBS = 5
# Seconds: an unused connection is closed before servers do it (uvicorn: 5), or a question may be sent into a closing one.
KEEP_ALIVE = 2.0
# Seconds for a connection: nothing was sent yet, so failing early and trying again is safe.
CONNECT = 10.0
# A gateway that stopped waiting: the model behind it may have answered and be paid.
GATEWAY_TIMEOUTS = {504, 524}
RETRIED = set(range(500, 600)) - GATEWAY_TIMEOUTS | {408}
# No question can be answered before a setting or the account changes: what to do about it.
MISCONFIGURED = {
    401: "put a valid key into the environment variable that judge.key_env names ({key_env!r})",
    402: "add credit to the account behind judge.key_env ({key_env!r})",
    403: "give the key in judge.key_env ({key_env!r}) access to judge.model ({model!r}), or change one of them",
    404: "change judge.url (the base URL, without /chat/completions) or judge.model ({model!r})",
    405: "change judge.url (the base URL, without /chat/completions)",
} | dict.fromkeys((301, 302, 303, 307, 308), "set judge.url to where it redirects to")  # fmt: skip

T = TypeVar("T")


class Stats(NamedTuple):
    """What an endpoint did so far; `paid` are complete answers, `waits` refusals waited out, `seconds` those with work."""

    calls: int
    paid: int
    retries: int
    waits: int
    concurrency: float
    seconds: float


class _Lost(NamedTuple):
    """No complete answer came; `sent`: the question may have been answered and paid for."""

    error: str
    sent: bool


class _Tries:
    """What one question went through so far."""

    def __init__(self) -> None:
        self.asked = asyncio.get_running_loop().time()
        self.first_refused = math.inf
        self.refusals = self.retries = 0


class Endpoint:
    """Asks a judge's URL, cache first, within its limits and budget. One per event loop.

    Raises:
        InputError: the environment variable of the key is missing, or the URL, key or model are refused by the server.
    """

    def __init__(self, config: EndpointModel, cache: CallCache | None, spent: BudgetLedger) -> None:
        self.config, self.cache, self.spent = config, cache, spent
        self.exhausted = False
        self._key = _api_key(config)
        self._url = _chat_url(config)
        self._gate = AdaptiveConcurrency(
            config.concurrency, config.patience, TokenBucket(config.requests_per_minute), TokenBucket(config.tokens_per_minute)
        )
        self._calls = self._paid = self._retries = 0
        self._files = ThreadPoolExecutor(min(32, config.concurrency), "call-cache")
        self._certificates = httpx.create_ssl_context()
        self._idle: list[httpx.AsyncClient] = []
        self._misconfigured: InputError | None = None

    @property
    def stats(self) -> Stats:
        """What was done so far."""
        gate = self._gate
        concurrency = gate.call_seconds / gate.busy_seconds if gate.busy_seconds else 0.0
        return Stats(self._calls, self._paid, self._retries, gate.refusals, concurrency, gate.busy_seconds)

    async def ask(self, messages: list[dict], constraint: dict, max_tokens: int, logprobs: bool, round_: int) -> Reply | None:
        """Return the cached or new reply to a chat; None where the budget does not allow the call, which was not sent.

        Raises:
            InputError: the judge is misconfigured; the message names the setting to change.
        """
        self._calls += 1
        body = _body(self.config, messages, constraint, max_tokens, logprobs)
        sampling = {name: value for name, value in body.items() if name not in ("model", "messages")}
        key = call_key(body["model"], self.config.revision, body["messages"], sampling, round_)
        if self.cache and (known := await self._in_thread(self.cache.get, key)):
            return known
        estimate = _estimate(body["messages"], sampling[self.config.max_tokens_field])
        if self.exhausted or not await self.spent.reserve(estimate, self.config.budget, self.config.price):
            self.exhausted = True
            return None
        used = Tokens(0, 0)
        try:
            reply = await self._answer(key, json.dumps(body).encode(), estimate, constraint)
            used = Tokens(reply.tokens_in, reply.tokens_out)
        finally:
            self.spent.settle(estimate, used)
        if self.cache:
            await self._in_thread(self.cache.put, key, reply)
        return reply

    async def close(self) -> None:
        """Close the connections."""
        for client in self._idle:
            await client.aclose()
        self._files.shutdown()

    async def _in_thread(self, function: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._files, function, *args)

    async def _answer(self, key: str, content: bytes, estimate: Tokens, constraint: dict) -> Reply:
        """Return the reply to a question, asked again as long as that is safe and allowed."""
        tries = _Tries()
        while slot := await self._gate.enter(tries.asked, sum(estimate)):
            if self._misconfigured:
                self._gate.leave(slot)
                raise self._misconfigured
            answer = await self._attempt(slot, key, content)
            if isinstance(answer, _Lost) and answer.sent:
                return Reply("", answer.error, *estimate)
            if isinstance(answer, httpx.Response) and answer.is_success:
                self._paid += 1
                reply = _read(answer, constraint, self.config.structured, estimate)
                self._gate.give_back(sum(estimate) - reply.tokens_in - reply.tokens_out)
                return reply._replace(error=self._safe(reply.error))
            self._gate.give_back(sum(estimate))
            wait = self._wait(answer, tries)
            if isinstance(wait, Reply):
                return wait
            await asyncio.sleep(wait)
        return Reply("", f"the server refused all calls (429) for longer than patience ({self.config.patience:g} s)", 0, 0)

    async def _attempt(self, slot: Slot, key: str, content: bytes) -> httpx.Response | _Lost:
        """Send a question and give the slot back, with what the gate can learn from the answer."""
        started, answer = asyncio.get_running_loop().time(), None
        try:
            answer = await self._send(key, content)
        finally:
            if isinstance(answer, httpx.Response) and _is_refusal(answer):
                self._gate.refused(slot, retry_after(answer.headers))
            else:
                good = isinstance(answer, httpx.Response) and answer.is_success
                self._gate.leave(slot, asyncio.get_running_loop().time() - started if good else None)
        return answer

    async def _send(self, key: str, content: bytes) -> httpx.Response | _Lost:
        paid = "the answer may have been paid for, so it is not asked again"
        try:
            async with asyncio.timeout(self.config.timeout):
                answer = await self._post(content, {"Idempotency-Key": key})
            if answer.status_code in GATEWAY_TIMEOUTS:
                return _Lost(f"HTTP {answer.status_code}: {self._said(answer)}; {paid}", True)
            return answer
        except TimeoutError:
            return _Lost(f"no complete answer within timeout ({self.config.timeout:g} s); {paid}", True)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            return _Lost(self._safe(f"no connection ({str(error) or type(error).__name__})"), False)
        except httpx.RequestError as error:
            return _Lost(self._safe(f"the connection broke ({str(error) or type(error).__name__}); {paid}"), True)

    async def _post(self, content: bytes, headers: dict[str, str]) -> httpx.Response:
        # A client, that is a connection, per call in flight: a shared one looks at all its connections for every call (httpcore
        # 1.0.9: 4.7 ms a call at 40 connections, 0.8 ms this way) and loses places to calls that are cancelled.
        client = self._idle.pop() if self._idle else self._connect()
        try:
            return await client.post(self._url, content=content, headers=headers)
        finally:
            self._idle.append(client)

    def _connect(self) -> httpx.AsyncClient:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        return httpx.AsyncClient(
            headers=headers,
            verify=self._certificates,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=1, keepalive_expiry=KEEP_ALIVE),
            # The time for an answer is measured around the whole call, so that no slow drip evades it.
            timeout=httpx.Timeout(None, connect=min(CONNECT, self.config.timeout / 3)),
        )

    def _wait(self, answer: httpx.Response | _Lost, tries: _Tries) -> float | Reply:
        """Return the seconds after which a question may be asked again, or the reply that ends it."""
        error = answer.error if isinstance(answer, _Lost) else f"HTTP {answer.status_code}: {self._said(answer)}"
        if isinstance(answer, httpx.Response):
            self._check_settings(answer)
            if _is_refusal(answer):
                return self._wait_refused(retry_after(answer.headers), error, tries)
            if answer.status_code not in RETRIED:
                return Reply("", error, 0, 0)
        if tries.retries == self.config.retries:
            return Reply("", f"{error} (after {tries.retries} retries)", 0, 0)
        tries.retries += 1
        self._retries += 1
        return backoff(tries.retries - 1)

    def _wait_refused(self, asked_for: float | None, error: str, tries: _Tries) -> float | Reply:
        now = asyncio.get_running_loop().time()
        tries.first_refused = min(tries.first_refused, now)
        wait = asked_for or backoff(tries.refusals)
        tries.refusals += 1
        if now + wait - tries.first_refused > self.config.patience:
            return Reply("", f"{error} (waiting {wait:.1f} s more would pass patience, {self.config.patience:g} s)", 0, 0)
        return wait

    def _check_settings(self, response: httpx.Response) -> None:
        """Refuse to go on where no question can be answered."""
        said = self._said(response)
        status = 402 if response.status_code == 429 and "insufficient_quota" in response.text else response.status_code
        if status in MISCONFIGURED:
            todo = MISCONFIGURED[status].format(key_env=self.config.key_env, model=self.config.model)
            what = f"judge {self.config.name!r}: {self._url} answered {response.status_code} ({said}); {todo}"
            self._misconfigured = InputError(what)  # for the calls that wait, too: a wrong key is not tried a thousand times
            raise self._misconfigured

    def _said(self, response: httpx.Response) -> str:
        """Return what the server said, in one short line and without the key, which some servers repeat."""
        try:
            error = response.json()["error"]
            said = error if isinstance(error, str) else error["message"]
        except (ValueError, KeyError, TypeError, RecursionError):
            said = response.text
        return self._safe(str(said))

    def _safe(self, text: str) -> str:
        text = " ".join(_encodable(text).split())
        return (text.replace(self._key, "***") if self._key else text)[:MESSAGE_CHARS]


def _api_key(config: EndpointModel) -> str:
    if not config.key_env:
        return ""
    key = os.environ.get(config.key_env, "").strip()
    if not key:
        raise InputError(
            f"judge {config.name!r} needs an API key: set the environment variable {config.key_env}, or judge.key_env to the "
            "name of the one that holds it ('' for a server that needs none)"
        )
    if not key.isascii() or not key.isprintable():  # an HTTP library would show it in its error
        raise InputError(f"judge {config.name!r}: {config.key_env} holds characters that no API key has")
    return key


def _chat_url(config: EndpointModel) -> str:
    try:
        host = httpx.URL(config.url).host
    except httpx.InvalidURL:
        host = ""
    if not host:
        raise InputError(f"judge {config.name!r}: url {config.url!r} names no server; change judge.url")
    return f"{config.url.rstrip('/')}/chat/completions"


def _body(config: EndpointModel, messages: list[dict], constraint: dict, max_tokens: int, logprobs: bool) -> dict:
    """Return the request's fields; everything but the model and the messages is the sampling."""
    as_json = config.structured == "json_schema"
    if as_json:
        messages = [*messages[:-1], messages[-1] | {"content": messages[-1]["content"] + JSON_NOTE}]
    length = max_tokens + config.extra_tokens + (JSON_TOKENS if as_json else 0)
    body: dict = {"model": config.model, "messages": messages, config.max_tokens_field: length}
    if config.temperature is not None:
        body["temperature"] = config.temperature
    if logprobs:
        body |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
    if as_json:
        body["response_format"] = {"type": "json_schema", "json_schema": _answer_schema(constraint)}
    elif config.structured == "choice":
        body["structured_outputs"] = constraint
    return body | config.extra


def _answer_schema(constraint: dict) -> dict:
    """Return the strict schema of an object with one field, the answer."""
    # A pattern of JSON Schema holds anywhere in the text, vLLM's regex for all of it.
    allowed = {"enum": constraint["choice"]} if "choice" in constraint else {"pattern": f"^({constraint['regex']})$"}
    answer = {"type": "object", "properties": {"answer": {"type": "string"} | allowed}, "required": ["answer"]}
    return {"name": "answer", "strict": True, "schema": answer | {"additionalProperties": False}}


def _estimate(messages: list[dict], max_tokens: int) -> Tokens:
    return Tokens(-(-sum(len(str(message["content"])) for message in messages) // CHARS_PER_TOKEN), max_tokens)


def _is_refusal(response: httpx.Response) -> bool:
    return response.status_code == 429 or (response.status_code == 503 and "retry-after" in response.headers)


def _read(response: httpx.Response, constraint: dict, structured: str, estimate: Tokens) -> Reply:
    """Return the reply in a complete answer; whatever it lacks is the error of a call that was paid for."""
    try:
        body = response.json()
    except (ValueError, RecursionError):
        return Reply("", f"the answer's body is not JSON: {_encodable(response.text)[:MESSAGE_CHARS]!r}", *estimate)
    choice = _at(body, "choices", 0)
    content, refusal = _at(choice, "message", "content"), _at(choice, "message", "refusal")
    text = _encodable(content) if isinstance(content, str) else ""
    used = _usage(body, Tokens(estimate.prompt, -(-len(text) // CHARS_PER_TOKEN)))
    if not isinstance(choice, dict) or not isinstance(choice.get("message"), dict):
        return Reply("", f"the answer has no choices: {_encodable(response.text)[:MESSAGE_CHARS]!r}", *used)
    if refusal:
        return Reply(text, f"the model refused: {_encodable(str(refusal))[:MESSAGE_CHARS]}", *used)
    if choice.get("finish_reason") == "content_filter":
        return Reply(text, "the answer was withheld by the server's content filter", *used)
    if choice.get("finish_reason") == "length":
        return Reply(text, "the answer was cut at max_tokens; raise judge.extra_tokens for a model that thinks first", *used)
    if not text.strip():
        return Reply(text, "empty answer", *used)
    answer = _unwrap(text) if structured == "json_schema" else text
    if answer is None:
        return Reply(text, 'the answer is JSON without a string "answer"', *used)
    return Reply(answer, "", *used, _first(choice, constraint))


def _at(found: object, *path: str | int) -> object:
    """Return what stands at a path of nested objects and lists, None where there is nothing."""
    for step in path:
        if isinstance(step, str) and isinstance(found, dict):
            found = found.get(step)
        elif isinstance(step, int) and isinstance(found, list) and step < len(found):
            found = found[step]
        else:
            return None
    return found


def _usage(body: object, estimate: Tokens) -> Tokens:
    """Return the tokens that the server counted; where it did not, the estimate, so that the budget holds."""
    counted = (_at(body, "usage", "prompt_tokens"), _at(body, "usage", "completion_tokens"))
    return Tokens(*(c if isinstance(c, int) and c >= 0 else e for c, e in zip(counted, estimate, strict=True)))


def _unwrap(text: str) -> str | None:
    """Return the answer in a JSON text, None where it has none; a text that is not JSON is left to the strict parser."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text
    answer = _at(found, "answer")
    return _encodable(answer) if isinstance(answer, str) else None


def _first(choice: dict, constraint: dict) -> float | None:
    """Return the probability of the first choice among the choices, by the first token; None without log-probabilities."""
    seen: dict[str, float] = {}
    top = _at(choice, "logprobs", "content", 0, "top_logprobs")
    for entry in top if isinstance(top, list) else []:
        token, logprob = _at(entry, "token"), _at(entry, "logprob")
        if isinstance(token, str) and token.strip() in constraint.get("choice", []) and isinstance(logprob, int | float):
            seen[token.strip()] = seen.get(token.strip(), 0.0) + math.exp(min(logprob, 0.0))
    total = sum(seen.values())
    return seen.get(constraint["choice"][0], 0.0) / total if total else None


def _encodable(text: str) -> str:
    """Return a text that can be written: half a surrogate pair, which JSON can carry, becomes a question mark."""
    return text.encode("utf-8", "replace").decode()
