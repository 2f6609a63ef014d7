"""An asynchronous client for OpenAI-compatible chat-completions URLs; a call that may have been paid for is never repeated.

Only calls that cost nothing are repeated: a connection that failed before the question was sent, a complete 5xx or 408, and a
refusal (429, or 503 with Retry-After). The status may stand in the body of an HTTP 200, see `responses.py`. A lost answer is an
error of its row, and so is an error for which the server counts tokens.
"""

import asyncio
import json
import logging
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import httpx

from valueflow.callers import Slots
from valueflow.console import HIDDEN, without_secrets
from valueflow.errors import InputError
from valueflow.llm.admission import AdaptiveConcurrency, BudgetLedger, Slot, TokenBucket, Tokens
from valueflow.llm.answer_text import encodable
from valueflow.llm.cache import CallCache, Reply, call_key
from valueflow.llm.chat_completions import MESSAGE_CHARS, estimated_tokens, read_reply, request_body
from valueflow.llm.configs import EndpointModel
from valueflow.llm.question import Question
from valueflow.llm.responses import Response, lookup, read_response
from valueflow.llm.troubles import Troubles
from valueflow.retry import backoff, retry_after

log = logging.getLogger(__name__)
# Seconds: an unused connection is closed before servers close it (uvicorn: 5), or a question may be sent into a closing one.
KEEP_ALIVE = 2.0
# Seconds for a connection: nothing was sent yet, so failing early and retrying is safe.
CONNECT = 10.0
CALLS = "/chat/completions"
# Bytes of a response, unpacked; an answer to a question has a few thousand.
MOST_BYTES = 16 * 2**20
# A gateway gave up waiting: the model behind it may have answered, and the answer may be billed.
GATEWAY_TIMEOUTS = {504, 524}
UNREACHED = GATEWAY_TIMEOUTS | {502, 503}
RETRIED = set(range(500, 600)) - GATEWAY_TIMEOUTS | {408}
# Status codes after which no question can be answered before a setting or the account changes, and the remedy.
MISCONFIGURED = {
    401: "put a valid key into the environment variable that key_env names ({key_env!r})",
    402: "add credit to the account behind key_env ({key_env!r})",
    403: "give the key in key_env ({key_env!r}) access to model ({model!r}), or change one of them",
    404: "change url (the base URL, without /chat/completions) or model ({model!r})",
    405: "change url (the base URL, without /chat/completions)",
} | dict.fromkeys((301, 302, 303, 307, 308), "set url to the target of the redirection")  # fmt: skip

# Asked before a judge's first question, to learn whether a server sends log-probabilities.
PROBE = [{"role": "user", "content": "Which number is larger, 1 or 2? Answer with the number only."}]

T = TypeVar("T")


class Stats(NamedTuple):
    """Activity of an endpoint so far.

    `paid`: complete answers; `waits`: refusals waited out; `concurrency`: mean calls in flight over `seconds`, the time with
    calls in flight or waiting.
    """

    calls: int
    paid: int
    retries: int
    waits: int
    concurrency: float
    seconds: float


class _NoAnswer(NamedTuple):
    """No complete answer came; `sent`: the question may have been answered and billed; `late`: because time ran out."""

    error: str
    sent: bool
    late: bool = False


class _History:
    """Waits and retries of one question so far."""

    def __init__(self) -> None:
        self.since = asyncio.get_running_loop().time()
        self.first_refused = math.inf
        self.refusals = self.retries = 0


class Endpoint:
    """Client of one URL: cache first, within its limits and budget. One per event loop.

    Args:
        config: the LLM.
        cache: replies of earlier calls; None for none.
        ledger: tokens spent.
        tell: receives lines about calls that fail, as they happen.

    Raises:
        InputError: the environment variable of the key is missing, or the server refuses the URL, key or model.
    """

    def __init__(
        self, config: EndpointModel, cache: CallCache | None, ledger: BudgetLedger, tell: Callable[[str], None] = log.warning
    ) -> None:
        self.config, self.cache, self.ledger = config, cache, ledger
        self.troubles = Troubles(config.name, tell)
        self.exhausted = False
        self._key = _api_key(config)
        self._secrets = sorted({self._key, *config.secrets()} - {""}, key=len, reverse=True)
        self._url = _url(config, CALLS)
        self._admission = AdaptiveConcurrency(
            config.concurrency, config.patience, TokenBucket(config.requests_per_minute), TokenBucket(config.tokens_per_minute),
            config.timeout,
        )  # fmt: skip
        self._calls = self._paid = self._retries = 0
        num_threads = min(32, config.concurrency)
        self._files, self._lookups = ThreadPoolExecutor(num_threads, "call-cache"), Slots(num_threads)
        self._certificates = httpx.create_ssl_context()
        self._idle: list[httpx.AsyncClient] = []
        self._misconfigured: InputError | None = None
        self._probe: asyncio.Future[None] | None = None

    @property
    def stats(self) -> Stats:
        """Activity so far."""
        admission = self._admission
        concurrency = admission.call_seconds / admission.busy_seconds if admission.busy_seconds else 0.0
        refusals, seconds = admission.num_refusals, admission.busy_seconds
        return Stats(self._calls, self._paid, self._retries, refusals, concurrency, seconds)

    async def ask(self, question: Question, round_: int) -> Reply | None:
        """Return the cached or new reply to a question; None if the budget does not allow the call, which was not sent.

        Args:
            question: of a constrained or free answer.
            round_: number of the sample; the cache holds one reply per round.

        Raises:
            InputError: the endpoint is misconfigured; the message names the setting to change.
        """
        self._calls += 1
        body = request_body(question, self.config)
        sampling = {name: value for name, value in body.items() if name not in ("model", "messages")}
        key = call_key(body["model"], self.config.revision, body["messages"], sampling, round_)
        if cached := await self._look_up(key):
            return cached
        if question.needs_logprobs and question.messages != PROBE:
            await self._check_logprobs(question)
        estimate = estimated_tokens(body["messages"], sampling[self.config.max_tokens_field])
        if self.exhausted or not await self.ledger.reserve(estimate, self.config.budget, self.config.price):
            self.exhausted = True
            return None
        used = Tokens(0, 0)
        try:
            reply = await self._answer(key, json.dumps(body).encode(), estimate, question)
            used = Tokens(reply.tokens_in, reply.tokens_out)
        finally:
            self.ledger.settle(estimate, used)
        if reply.error:
            self.troubles.add(reply.error, f"; {self._admission.limit} calls may be in flight now")
        if self.cache:
            await self._in_thread(self.cache.put, key, reply)
        return reply

    async def check(self) -> None:
        """Return if a server answers at the URL, also if it refuses to list its models or cannot; no model is asked.

        Raises:
            InputError: a question found that a setting or the account must change.
            ConnectionError: nothing answers, or only a gateway does.
        """
        if self._misconfigured:
            raise self._misconfigured
        try:
            async with self._connect() as client:
                response = await client.get(_url(self.config, "/models"))
        except httpx.RequestError as error:
            raise ConnectionError(self._redacted(f"no connection ({str(error) or type(error).__name__})")) from None
        if response.status_code in UNREACHED:
            raise ConnectionError(f"the gateway answers {response.status_code}")

    async def _check_logprobs(self, question: Question) -> None:
        """Return if the server sends log-probabilities, which one call of a few tokens finds out, or if that is not known."""
        if self._probe is None:
            self._probe = asyncio.ensure_future(self._try_logprobs(question))
        await asyncio.shield(self._probe)

    async def _try_logprobs(self, question: Question) -> None:
        reply = await self.ask(question._replace(messages=PROBE, constraint={"choice": ["1", "2"]}), 0)
        if reply and reply.error and (reply.text or reply.error.startswith("HTTP 4")):
            letter = self.config.answer == "letter"
            reader = "readings: [probabilities]" if letter else f"answer: {self.config.answer}"
            self._misconfigured = InputError(
                f"LLM {self.config.name!r}: {self._url} sends no log-probabilities ({reply.error}), which {reader} reads; use "
                f"a server and model that send them, or set {'readings to [letter]' if letter else 'answer to letter'}"
            )
            raise self._misconfigured

    async def close(self) -> None:
        """Close the connections."""
        for client in self._idle:
            await client.aclose()
        self._files.shutdown()

    async def _look_up(self, key: str) -> Reply | None:
        if not self.cache:
            return None
        async with self._lookups.slot():
            return await self._in_thread(self.cache.get, key)

    async def _in_thread(self, function: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._files, function, *args)

    async def _answer(self, key: str, content: bytes, estimate: Tokens, question: Question) -> Reply:
        """Return the reply to a question, repeating the call as long as that is safe and allowed."""
        history = _History()
        while slot := await self._admission.acquire(history.since, sum(estimate)):
            if self._misconfigured:
                self._admission.release(slot)
                raise self._misconfigured
            answer = await self._attempt(slot, key, content)
            if isinstance(answer, _NoAnswer) and answer.sent:
                return Reply("", answer.error, *estimate)
            if isinstance(answer, Response) and answer.is_success:
                self._paid += 1
                reply = read_reply(answer, question, self.config, estimate)
                self._admission.refund_tokens(sum(estimate) - reply.tokens_in - reply.tokens_out)
                return reply._replace(error=self._redacted(reply.error))
            self._admission.refund_tokens(sum(estimate))
            wait = self._wait(answer, history)
            if isinstance(wait, Reply):
                return wait
            await asyncio.sleep(wait)
        return Reply("", f"the server answered no call for longer than patience ({self.config.patience:g} s)", 0, 0)

    async def _attempt(self, slot: Slot, key: str, content: bytes) -> Response | _NoAnswer:
        """Send a question and return the slot, with the information that the answer gives about the server's limit."""
        start, answer = asyncio.get_running_loop().time(), None
        try:
            answer = await self._send(key, content)
        finally:
            seconds = asyncio.get_running_loop().time() - start
            if isinstance(answer, Response) and _is_refusal(answer):
                self._admission.refuse(slot, retry_after(answer.headers))
            elif isinstance(answer, _NoAnswer) and answer.late:
                self._admission.lose(slot)
            else:
                at_work = isinstance(answer, Response) and answer.status < 500
                self._admission.release(slot, seconds if at_work else None)
                if at_work and seconds > self.config.timeout / 2 and self._admission.limit < self.config.concurrency:
                    self.troubles.hint("slow", self._slow_hint(seconds))
        return answer

    def _slow_hint(self, seconds: float) -> str:
        limit, most, timeout = self._admission.limit, self.config.concurrency, self.config.timeout
        return (
            f"an answer took {seconds:.0f} s of timeout ({timeout:g} s), so {limit} calls and not concurrency ({most}) may be "
            "in flight; raise timeout"
        )

    async def _send(self, key: str, content: bytes) -> Response | _NoAnswer:
        paid = "the answer may have been paid for, so the call is not repeated"
        try:
            async with asyncio.timeout(self.config.timeout):
                answer = await self._post(content, {"Idempotency-Key": key})
            if answer is None:
                return _NoAnswer(f"the response has more than {MOST_BYTES >> 20} MiB; {paid}", True)
            if answer.status in GATEWAY_TIMEOUTS and not answer.paid:
                return _NoAnswer(f"{self._redacted(answer.error)}; {paid}", True, True)
            return answer
        except TimeoutError:
            return _NoAnswer(f"no complete answer within timeout ({self.config.timeout:g} s); {paid}", True, True)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            return _NoAnswer(self._redacted(f"no connection ({str(error) or type(error).__name__})"), False)
        except httpx.RequestError as error:
            return _NoAnswer(self._redacted(f"the connection broke ({str(error) or type(error).__name__}); {paid}"), True)

    async def _post(self, content: bytes, headers: dict[str, str]) -> Response | None:
        """Return the response to a question; None if it is too large."""
        # A client, that is a connection, per call in flight: a shared one scans all its connections for every call (httpcore
        # 1.0.9: 4.7 ms a call at 40 connections, 0.8 ms this way) and loses connections to cancelled calls.
        client = self._idle.pop() if self._idle else self._connect()
        try:
            async with client.stream("POST", self._url, content=content, headers=headers) as response:
                body = bytearray()
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > MOST_BYTES:
                        return None
                return read_response(response.status_code, response.headers, bytes(body))
        finally:
            self._idle.append(client)

    def _connect(self) -> httpx.AsyncClient:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        return httpx.AsyncClient(
            headers=headers,
            verify=self._certificates,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=1, keepalive_expiry=KEEP_ALIVE),
            # The timeout of an answer is measured around the whole call, so that an answer that trickles in cannot evade it.
            timeout=httpx.Timeout(None, connect=min(CONNECT, self.config.timeout / 3)),
        )

    def _wait(self, answer: Response | _NoAnswer, history: _History) -> float | Reply:
        """Return the seconds after which a call may be repeated, or the reply that ends the question."""
        error = self._redacted(answer.error)
        if isinstance(answer, Response):
            self._check_settings(answer)
            if answer.paid:
                return Reply("", error, *answer.paid)
            if _is_refusal(answer):
                return self._wait_after_refusal(retry_after(answer.headers), error, history)
            if answer.status not in RETRIED:
                return Reply("", error, 0, 0)
        if history.retries == self.config.retries:
            return Reply("", f"{error} (after {history.retries} retries)", 0, 0)
        history.retries += 1
        self._retries += 1
        return backoff(history.retries - 1)

    def _wait_after_refusal(self, requested: float | None, error: str, history: _History) -> float | Reply:
        now = asyncio.get_running_loop().time()
        history.first_refused = min(history.first_refused, now)
        wait = requested or backoff(history.refusals)
        history.refusals += 1
        if now + wait - history.first_refused > self.config.patience:
            return Reply("", f"{error} (waiting {wait:.1f} s more would exceed patience, {self.config.patience:g} s)", 0, 0)
        return wait

    def _check_settings(self, response: Response) -> None:
        """Raise an error if no question can be answered before a setting changes."""
        if response.status == 403 and _is_flagged(response.body):
            return
        status = 402 if response.status == 429 and "insufficient_quota" in json.dumps(response.body) else response.status
        if status in MISCONFIGURED:
            remedy = MISCONFIGURED[status].format(key_env=self.config.key_env, model=self.config.model)
            message = self._redacted(response.reason)
            problem = f"LLM {self.config.name!r}: {self._url} answered {response.status} ({message}); {remedy}"
            self._misconfigured = InputError(problem)  # also for the calls in the queue: a wrong key is not tried again
            raise self._misconfigured

    def _redacted(self, text: str) -> str:
        text = " ".join(encodable(text).split())
        for secret in self._secrets:  # a server may show what was sent to it
            text = text.replace(secret, HIDDEN)
        return without_secrets(text)[:MESSAGE_CHARS]


def _api_key(config: EndpointModel) -> str:
    if not config.key_env:
        return ""
    key = os.environ.get(config.key_env, "").strip()
    if not key:
        raise InputError(
            f"LLM {config.name!r} needs an API key: set the environment variable {config.key_env}, or key_env to the "
            "name of the variable that holds it ('' for a server that needs none)"
        )
    if not key.isascii() or not key.isprintable():  # an HTTP library would show it in its error
        raise InputError(f"LLM {config.name!r}: {config.key_env} holds characters that no API key has")
    return key


def _url(config: EndpointModel, end: str) -> str:
    """The path of `url`, without /chat/completions, with `end`, and the query of `url`."""
    try:
        url = httpx.URL(config.url.strip())
    except httpx.InvalidURL:
        url = httpx.URL()
    if not url.host:
        raise InputError(f"LLM {config.name!r}: url {config.url!r} names no server; change url")
    path, question_mark, query = url.raw_path.decode("ascii").partition("?")
    path = path.rstrip("/").removesuffix(CALLS).rstrip("/")
    raw_path = f"{path}{end}{question_mark if query else ''}{query}".encode("ascii")
    return str(url.copy_with(raw_path=raw_path, fragment=None))


def _is_refusal(response: Response) -> bool:
    return response.status == 429 or (response.status == 503 and "retry-after" in response.headers)


def _is_flagged(body: object) -> bool:
    """Whether a gateway forbids one text and not the model: its moderation flagged it."""
    return any(lookup(body, "error", "metadata", name) for name in ("reasons", "flagged_input"))
