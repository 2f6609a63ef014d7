"""Client protocol without I/O: building requests, parsing responses, retry decisions, batching, resuming streams."""

import itertools
import logging
import os
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, NamedTuple, TypedDict, TypeVar

import httpx
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from valueflow import api, defaults
from valueflow.client.address import KEY_ENV, SERVER, SERVER_ENV, address, on_this_machine, stripped
from valueflow.console import one_line
from valueflow.errors import InputError, allowed
from valueflow.records import UNDECODABLE
from valueflow.retry import backoff, retry_after
from valueflow.theories import operational

log = logging.getLogger(__name__)
MAX_WAIT_SECONDS = 120.0  # longest Retry-After that is obeyed; beyond it the caller decides
BUSY, OUT_OF_TIME = (429, 503), 504
RETRIES = 8  # attempts after the first one
MAX_LINE = 2**20  # bytes of a line of a stream; the longest, the first, has some kB
# Bytes of any other response; the longest is 1,000 anchors of 20,000 characters, each of them escaped.
MAX_RESPONSE = 2**27
MAX_MESSAGE = 2_000  # characters
# Where nothing listens on this machine, waiting does not help, except for a server that answered before.
REFUSED_RETRIES = 1
# No or an incomplete response. Timeouts are not retried: the server may still be working on the request.
CONNECTION_LOST = (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ConnectTimeout)

ModelT = TypeVar("ModelT", bound=BaseModel)
StreamLine = api.StreamStart | api.StreamScore | api.StreamEnd
STREAM_LINE: TypeAdapter[StreamLine] = TypeAdapter(Annotated[StreamLine, Field(discriminator="type")])


class Settings(TypedDict, total=False):
    """Scoring settings (see `valueflow.api.ScoringRequest`); the server's defaults apply to absent ones."""

    mode: api.Mode
    k: int
    m: int
    sampling: api.Sampling
    seed: int


class ProfileSettings(Settings, total=False):
    """Settings of a profile (see `valueflow.api.ProfileRequest`)."""

    min_relevance: float
    units: list[str] | None
    threads: list[str] | None
    min_texts: int


class ValueFlowError(Exception):
    """The server refused a request, was unreachable, or dropped the connection.

    Attributes:
        problem: the error response (RFC 9457); None without one.
        num_scores: scores of a stream received before the error; None outside streams.
    """

    def __init__(self, message: str, problem: api.Problem | None = None) -> None:
        line = one_line(message)  # a server's words may have many lines, and signs that steer a terminal
        super().__init__(line if len(line) <= MAX_MESSAGE else line[: MAX_MESSAGE - 1] + "…")
        self.problem = problem
        self.num_scores: int | None = None

    def __str__(self) -> str:
        return super().__str__() + (f"; {self.num_scores} scores were received before" if self.num_scores else "")


class Scores(api.ScoreResponse):
    """Scores of a list of texts, merged over all requests."""

    texts: list[str]

    def rows(self) -> list[dict[str, Any]]:
        """Return one flat dict per score, with its text, for example for `pandas.DataFrame(scores.rows())`."""
        return [flat_row(score, self.texts) for score in self.scores]


def flat_row(score: api.Scored, texts: list[str]) -> dict[str, Any]:
    """Return a score as a flat dict with its text."""
    return {"index": score.index, "text": texts[score.index], **score.model_dump(exclude={"index", "type"})}


def build_request(schema: type[ModelT], fields: dict[str, Any]) -> ModelT:
    """Return a request body.

    Raises:
        InputError: a field is unknown or invalid; the message names it and its value.
    """
    try:
        return schema(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise InputError(f"there is no setting {name!r}; {allowed(name, schema.model_fields)}") from None
        got = "" if first["type"] == "too_long" else f" (got {str(first['input'])[:80]!r})"
        raise InputError(f"{name}: {api.message_of(first)}{got}") from None


def as_list(strings: str | Iterable[str], name: str) -> list[str]:
    """Return one string or several as a list.

    Raises:
        InputError: an item is empty, not a string, or cannot be encoded as UTF-8; `name` is that of the argument.
    """
    items = [strings] if isinstance(strings, str) else list(strings)
    for i, item in enumerate(items):
        if not isinstance(item, str) or not item:
            raise InputError(f"{name}[{i}] is {item!r}; it must be a non-empty string")
        if UNDECODABLE.search(item):
            raise InputError(f"{name}[{i}] has bytes that are not UTF-8, or lone surrogates: {item[:80]!r}")
    return items


@dataclass(frozen=True)
class ApiCall(Generic[ModelT]):
    """One API call; all its attempts send `key` as Idempotency-Key."""

    method: str
    path: str
    response: type[ModelT]
    body: BaseModel | None = None
    params: dict[str, int] | None = None
    num_texts: int = 0
    key: str = field(default_factory=lambda: uuid.uuid4().hex)


class Failure(NamedTuple):
    """A failed attempt.

    Attributes:
        error: what the caller gets if there is no further attempt.
        retryable: whether a retry may succeed.
        retry_after: the server's Retry-After in seconds.
        retries: attempts after the first one, if the caller has not set their number.
    """

    error: ValueFlowError
    retryable: bool
    retry_after: float | None = None
    retries: int = RETRIES


class ClientProtocol:
    """Requests to one server, and the interpretation of its responses and failures."""

    def __init__(self, url: str | None, key: str | None, timeout: float, retries: int | None) -> None:
        self.url = address(os.environ.get(SERVER_ENV) or SERVER if url is None else url)
        self.retries = retries
        self.answered = False  # whether the server has answered anything
        self.vidb: api.VidbResponse | None = None  # set once loaded; it holds the server's limits
        self._key = stripped(os.environ.get(KEY_ENV, "") if key is None else key)
        # No limit on waiting for a connection of the client's own pool.
        self.timeout = httpx.Timeout(timeout, connect=min(timeout, 10.0), pool=None)

    def request(self, call: ApiCall[Any]) -> httpx.Request:
        """Return the HTTP request of one attempt."""
        headers = {"User-Agent": "valueflow"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        body = None
        if call.body is not None:
            headers |= {"Content-Type": "application/json", "Idempotency-Key": call.key}
            body = call.body.model_dump_json(exclude_unset=True)
        timeout = {"timeout": self.timeout.as_dict()}
        return httpx.Request(
            call.method, self.url + call.path, params=call.params, headers=headers, content=body, extensions=timeout
        )

    def check_size(self, call: ApiCall[Any], num_bytes: int) -> None:
        """Check the bytes of a response so far.

        Raises:
            ValueFlowError: they are more than any server of API version 1 sends.
        """
        if num_bytes > MAX_RESPONSE:
            raise self.protocol_error(call, f"was answered with more than {MAX_RESPONSE >> 20} MiB, which no answer has")

    def parse(self, call: ApiCall[ModelT], content: bytes) -> ModelT:
        """Return the body of a successful response.

        Raises:
            ValueFlowError: the body does not conform to API version 1.
        """
        try:
            parsed = call.response.model_validate(from_json(content, allow_inf_nan=False))
        except ValidationError as error:
            first = error.errors()[0]
            reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            raise self.protocol_error(call, f"was not answered in API version 1 ({reason})") from None
        except ValueError as error:
            raise self.protocol_error(call, f"was not answered in JSON ({error})") from None
        indices = [row.index for row in getattr(parsed, "scores", getattr(parsed, "texts", []))]
        if call.num_texts and indices and not 0 <= min(indices) <= max(indices) < call.num_texts:
            raise self.protocol_error(call, f"was answered about texts {min(indices)} to {max(indices)} of {call.num_texts}")
        return parsed

    def protocol_error(self, call: ApiCall[Any], message: str) -> ValueFlowError:
        """Return the error for a server that does not speak API version 1."""
        return ValueFlowError(
            f"{call.method} {self.url}{call.path} {message}; is this a ValueFlow server of the same API version?"
        )

    def refusal(self, call: ApiCall[Any], response: httpx.Response, content: bytes) -> Failure:
        """Return the failure of an error response with this body."""
        text = content.decode("utf-8", "replace")
        text = text.replace(self._key, "[key]") if self._key else text
        retryable = response.status_code in BUSY
        try:
            problem = api.Problem.model_validate_json(text)
        except ValidationError:
            # Not from the application but from a proxy before it, for example because the process with the request died.
            retryable = retryable or response.status_code >= 500
            request_id = response.headers.get("x-request-id", "")
            detail = " ".join(text.split())[:200]
            problem = api.Problem(
                title=response.reason_phrase, status=response.status_code, detail=detail, request_id=request_id
            )
        return self.problem(call, problem, retry_after(response.headers))._replace(retryable=retryable)

    def problem(self, call: ApiCall[Any], problem: api.Problem, after: float | None = None) -> Failure:
        """Return the failure that a problem body (RFC 9457) describes."""
        details = [problem.detail, *(": ".join(error.values()) for error in problem.errors)]
        if problem.status == 401:
            details.append(f"set the key with key= or {KEY_ENV}")
        detail = "; ".join(filter(None, details))
        request = f" (request {problem.request_id})" if problem.request_id else ""
        message = (
            f"{call.method} {self.url}{call.path}: {problem.status} {problem.title}{': ' if detail else ''}{detail}{request}"
        )
        return Failure(ValueFlowError(message, problem), problem.status in BUSY, after)

    def connection_failure(self, call: ApiCall[Any], error: httpx.RequestError) -> Failure:
        """Return the failure of a call without a complete response."""
        target = f"{call.method} {self.url}{call.path}"
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            message = (
                f"cannot reach {self.url} ({error}); start a server (python -m serve.local root=FOLDER), set the address "
                f"of another with --server, url= or {SERVER_ENV}, or work without one (valueflow … --root FOLDER)"
            )
            if isinstance(error, httpx.ConnectError) and not self.answered and on_this_machine(self.url):
                return Failure(ValueFlowError(message), retryable=True, retries=REFUSED_RETRIES)
        elif isinstance(error, httpx.TimeoutException):
            message = f"{target}: no data for {self.timeout.read:g} s; raise timeout=, or send fewer texts per request"
        else:
            message = f"{target}: the connection was lost ({str(error) or type(error).__name__})"
        return Failure(ValueFlowError(message), isinstance(error, CONNECTION_LOST))

    def wait(self, failure: Failure, attempt: int) -> float:
        """Return the seconds to wait after attempt number `attempt` (from 0).

        Raises:
            ValueFlowError: no further attempt is made.
        """
        if failure.retryable and attempt < (failure.retries if self.retries is None else self.retries):
            seconds = (failure.retry_after or 0.0) + backoff(attempt)
            if seconds <= MAX_WAIT_SECONDS:
                log.info("%s; retrying in %.1f s", failure.error, seconds)
                return seconds
        raise failure.error

    def first_batch(self, texts: list[str], start: int, options: dict[str, Any], streamed: bool = False) -> list[str]:
        """Return as many texts from `start` on as the limits of one request allow: texts, texts times values, bytes."""
        max_texts, max_bytes = api.MAX_STREAMED if streamed else api.MAX_TEXTS, float("inf")
        if self.vidb:
            limits = self.vidb.limits
            by_units = units_limit(self.vidb, options) if "values" in options else max_texts
            max_texts = max(1, min(max_texts, limits.max_streamed if streamed else limits.max_texts, by_units))
            max_bytes = limits.max_body_bytes - len(to_json(options)) - len('{"texts":[],}')
        sizes = itertools.accumulate(len(to_json(text)) + 1 for text in itertools.islice(texts, start, start + max_texts))
        return texts[start : start + max(1, sum(1 for _ in itertools.takewhile(lambda size: size <= max_bytes, sizes)))]


def provenance_changes(before: api.Provenance, after: api.Provenance) -> str:
    """Return the differences between two provenances as text; "" if only the request ids differ."""
    names = [name for name in api.Provenance.model_fields if name != "request_id"]
    names = [name for name in names if getattr(before, name) != getattr(after, name)]
    return ", ".join(f"{name} from {getattr(before, name)} to {getattr(after, name)}" for name in names)


class ResumableStream:
    """One streamed list of texts over several requests and retries: decides the next request and filters repeated lines."""

    def __init__(self, protocol: ClientProtocol, texts: list[str], options: dict[str, Any]) -> None:
        self._protocol, self._texts, self._options = protocol, texts, options
        self._start: api.StreamStart | None = None  # of the whole list
        self._num_values = 1  # per text, once known
        self._num_scores = self._attempt = 0  # scores passed on; failures since the last of them
        self._first, self._call = 0, self._call_from(0)  # index of the first text of the current request

    def next_call(self) -> ApiCall[api.StreamEnd] | None:
        """Return the next request (the same one again if no text was completed), or None after the last score."""
        if self._start and self._num_scores == self._start.num_scores:
            return None
        first = self._num_scores // self._num_values
        if first > self._first:
            self._first, self._call = first, self._call_from(first)
        self._begun, self._seen, self._rest = False, 0, b""  # seen: scores of this attempt; rest: an incomplete line
        self._before = self._num_scores
        self._end: api.StreamEnd | None = None
        return self._call

    def feed(self, chunk: bytes) -> Iterator[StreamLine]:
        """Yield the new lines in the next bytes of a response."""
        # Lines end at line feeds only; httpx would also split at separators that may occur inside JSON strings.
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        try:
            for line in filter(bytes.strip, lines):  # empty lines keep the connection alive
                yield from self._parse_line(line)
            if len(self._rest) > MAX_LINE:
                raise self._protocol_error(f"sent a line of more than {MAX_LINE >> 20} MiB")
        except ValueFlowError as error:
            error.num_scores = self._num_scores
            raise

    def wait(self, failure: Failure | None) -> float:
        """Return the seconds to wait before the next request.

        Raises:
            ValueFlowError: the stream cannot be resumed.
        """
        failure = self._diagnose(failure)
        if failure is None:
            return 0.0
        failure.error.num_scores = self._num_scores
        seconds = self._protocol.wait(failure, self._attempt)
        self._attempt += 1
        return seconds

    def end(self) -> api.StreamEnd:
        """Return the last line of the whole list."""
        return api.StreamEnd(num_scores=self._num_scores)

    def _call_from(self, start: int) -> ApiCall[api.StreamEnd]:
        batch = self._protocol.first_batch(self._texts, start, self._options, streamed=True)
        body = build_request(api.StreamRequest, {"texts": batch, **self._options})
        return ApiCall("POST", "/v1/score/stream", api.StreamEnd, body, num_texts=len(batch))

    def _parse_line(self, text: bytes) -> Iterator[StreamLine]:
        try:
            line = STREAM_LINE.validate_python(from_json(text, allow_inf_nan=False))
        except ValueError:
            excerpt = text[:100].decode(errors="replace")
            raise self._protocol_error(f"sent a line that is not of API version 1: {excerpt!r}") from None
        if isinstance(line, api.StreamStart):
            yield from self._begin(line)
        elif isinstance(line, api.StreamEnd):
            self._end = line
        else:
            yield from self._score(line)

    def _begin(self, start: api.StreamStart) -> Iterator[StreamLine]:
        num_values, odd = divmod(start.num_scores, self._call.num_texts)
        if odd or num_values < 1 or (self._start and num_values != self._num_values):
            raise self._protocol_error(f"announced {start.num_scores} scores for {self._call.num_texts} texts")
        self._begun, self._num_values = True, num_values
        if self._start is None:
            self._start = start.model_copy(update={"num_scores": num_values * len(self._texts)})
            yield self._start
        elif changes := provenance_changes(self._start, start):
            raise ValueFlowError(f"the server changed {changes} within one list of texts; send the whole list again")

    def _score(self, score: api.StreamScore) -> Iterator[StreamLine]:
        expected = self._seen // self._num_values
        if not self._begun or score.index != expected or expected == self._call.num_texts:
            raise self._protocol_error(f"sent a score of text {score.index} out of order (expected text {expected})")
        number = self._first * self._num_values + self._seen
        self._seen += 1
        if number == self._num_scores:
            self._num_scores, self._attempt = self._num_scores + 1, 0
            yield score.model_copy(update={"index": self._first + score.index})

    def _diagnose(self, failure: Failure | None) -> Failure | None:
        """The failure of the current request; None if all its scores were received."""
        if self._end and self._end.problem:
            reported = self._protocol.problem(self._call, self._end.problem)
            # The server limits the time of a stream; the remaining texts may well fit into the next one.
            out_of_time = self._end.problem.status == OUT_OF_TIME and self._num_scores > self._before
            return reported._replace(retryable=reported.retryable or out_of_time)
        if self._begun and self._seen == self._num_values * self._call.num_texts:
            return None
        if failure:
            return failure
        if self._end:
            return Failure(self._protocol_error(f"ended a stream after {self._seen} scores, before the last"), retryable=False)
        message = f"{self._call.method} {self._protocol.url}{self._call.path}: the stream was cut off"
        return Failure(ValueFlowError(message), retryable=True)

    def _protocol_error(self, message: str) -> ValueFlowError:
        return self._protocol.protocol_error(self._call, message)


def units_limit(vidb: api.VidbResponse, options: dict[str, Any]) -> int:
    """Return the texts of one request on some values that `max_units` allows, see `api.Limits`; less than 1: none."""
    most, m = vidb.limits.max_units // num_values(options["values"]), options.get("m", defaults.M)
    if options.get("mode") == "fast" or not isinstance(m, int) or m < 1:  # such an m is refused later
        return most
    return most + -max(vidb.sharpness.values(), default=0) // m


def num_values(names: list[str]) -> int:
    """Return an upper bound on the number of values that names stand for: a name that is not an id may be a theory."""
    sizes = Counter(value.theory for value in operational())
    total = sum(1 if ":" in name else sizes.get(name, max(sizes.values())) for name in names)
    return len(operational()) if "all" in names else min(total, len(operational()))
