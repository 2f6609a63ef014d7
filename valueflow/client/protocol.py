"""All of a client that does no waiting: requests, how answers and failures are read, lists in parts, streams that go on."""

import itertools
import logging
import os
import re
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, NamedTuple, TypedDict, TypeVar

import httpx
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic_core import to_json

from valueflow import api
from valueflow.errors import InputError, allowed
from valueflow.records import UNDECODABLE
from valueflow.retry import backoff, retry_after
from valueflow.theories import operational

log = logging.getLogger(__name__)
SERVER_ENV, KEY_ENV, SERVER = "VALUEFLOW_SERVER", "VALUEFLOW_API_KEY", "http://127.0.0.1:8000"
# Seconds that a server may ask to wait before another try; whether to wait longer is for the caller to decide.
LONGEST_WAIT = 120.0
BUSY, OUT_OF_TIME = (429, 503), 504
# Nothing came back, or less than was announced. A timeout is not among them: the server may still be at work.
LOST = (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ConnectTimeout)

ModelT = TypeVar("ModelT", bound=BaseModel)
Line = api.StreamStart | api.StreamScore | api.StreamEnd
LINE: TypeAdapter[Line] = TypeAdapter(Annotated[Line, Field(discriminator="type")])


class Settings(TypedDict, total=False):
    """How texts are scored (see valueflow.api.ScoreRequest); what is left out is for the server to choose."""

    mode: api.Mode
    k: int
    m: int
    sampling: api.Sampling
    seed: int


class ValueFlowError(Exception):
    """The server refused, was not reached, or broke off.

    Attributes:
        problem: the server's own account (RFC 9457); None where it gave none.
        num_scores: scores of a stream that had come; None where nothing was streamed.
    """

    def __init__(self, message: str, problem: api.Problem | None = None) -> None:
        super().__init__(message)
        self.problem = problem
        self.num_scores: int | None = None

    def __str__(self) -> str:
        return super().__str__() + (f"; {self.num_scores} scores had come until then" if self.num_scores else "")


class Scores(api.ScoreResponse):
    """The scores of a list of texts, however many requests it took."""

    texts: list[str]

    def rows(self) -> list[dict[str, Any]]:
        """Return one flat dict for each score, with its text; `pandas.DataFrame(scores.rows())` makes a table of them."""
        return [flat(scored, self.texts) for scored in self.scores]


def flat(scored: api.Scored, texts: list[str]) -> dict[str, Any]:
    """Return a score as a flat dict with its text."""
    return {"index": scored.index, "text": texts[scored.index], **scored.model_dump(exclude={"index", "type"})}


def fitting(schema: type[ModelT], fields: dict[str, Any]) -> ModelT:
    """Return the body of a request; InputError naming the field and its value where it does not fit."""
    try:
        return schema(**fields)
    except ValidationError as error:
        wrong = error.errors()[0]
        name = ".".join(map(str, wrong["loc"]))
        if wrong["type"] == "extra_forbidden":
            raise InputError(f"there is no setting {name!r}; {allowed(name, schema.model_fields)}") from None
        raise InputError(f"{name}: {wrong['msg']} (got {str(wrong['input'])[:80]!r})") from None


def listed(words: str | Iterable[str], what: str) -> list[str]:
    """Return one string or several as a list; InputError where one is empty or no string of Unicode."""
    found = [words] if isinstance(words, str) else list(words)
    for number, word in enumerate(found):
        if not isinstance(word, str) or not word:
            raise InputError(f"{what}[{number}] is {word!r}; a string that is not empty is needed")
        if UNDECODABLE.search(word):
            raise InputError(f"{what}[{number}] has bytes that are not UTF-8, or lone surrogates: {word[:80]!r}")
    return found


@dataclass(frozen=True)
class ApiCall(Generic[ModelT]):
    """One call; by `key` the server knows a retry for what it is."""

    method: str
    path: str
    answer: type[ModelT]
    body: BaseModel | None = None
    params: dict[str, int] | None = None
    num_texts: int = 0
    key: str = field(default_factory=lambda: uuid.uuid4().hex)


class Failure(NamedTuple):
    """What went wrong, whether asking again may help, and for how many seconds the server asked to wait."""

    error: ValueFlowError
    again: bool
    after: float | None = None


class ClientProtocol:
    """A server and how it is asked: the requests, and what their answers and failures mean."""

    def __init__(self, url: str | None, key: str | None, timeout: float, retries: int) -> None:
        self.url = _address(os.environ.get(SERVER_ENV) or SERVER if url is None else url)
        self.retries = retries
        self.vidb: api.VidbResponse | None = None  # what the server takes, once it has been asked
        self._key = _bare(os.environ.get(KEY_ENV, "") if key is None else key)
        # Waiting for a connection of the client's own pool is not the server's fault: no limit.
        self.timeout = httpx.Timeout(timeout, connect=min(timeout, 10.0), pool=None)

    def request(self, ask: ApiCall[Any]) -> httpx.Request:
        """Return the request of one try."""
        headers = {"User-Agent": "valueflow"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        body = None
        if ask.body is not None:
            headers |= {"Content-Type": "application/json", "Idempotency-Key": ask.key}
            body = ask.body.model_dump_json(exclude_unset=True)
        timeout = {"timeout": self.timeout.as_dict()}
        return httpx.Request(
            ask.method, self.url + ask.path, params=ask.params, headers=headers, content=body, extensions=timeout
        )

    def read(self, ask: ApiCall[ModelT], response: httpx.Response) -> ModelT:
        """Return an answer; ValueFlowError where it is not what API version 1 says."""
        try:
            return ask.answer.model_validate_json(response.content)
        except ValidationError as error:
            wrong = error.errors()[0]
            why = f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg']}"
            raise self.foreign(ask, f"was not answered in API version 1 ({why})") from None

    def foreign(self, ask: ApiCall[Any], what: str) -> ValueFlowError:
        """Return the error of a server that answers something else than API version 1."""
        return ValueFlowError(f"{ask.method} {self.url}{ask.path} {what}; is this a ValueFlow server of the same API version?")

    def refused(self, ask: ApiCall[Any], response: httpx.Response) -> Failure:
        """Return what an answer says that is not a success."""
        text = response.text.replace(self._key, "[key]") if self._key else response.text
        again = response.status_code in BUSY
        try:
            problem = api.Problem.model_validate_json(text)
        except ValidationError:
            # Not the server's own words but those of what stands before it, as when the process that had the request died.
            again = again or response.status_code >= 500
            request_id = response.headers.get("x-request-id", "")
            detail = " ".join(text.split())[:200]
            problem = api.Problem(
                title=response.reason_phrase, status=response.status_code, detail=detail, request_id=request_id
            )
        return self.problem(ask, problem, retry_after(response.headers))._replace(again=again)

    def problem(self, ask: ApiCall[Any], problem: api.Problem, after: float | None = None) -> Failure:
        """Return what the server's own account of an error comes to."""
        said = [problem.detail, *(": ".join(fault.values()) for fault in problem.errors)]
        if problem.status == 401:
            said.append(f"the key is given by key= or {KEY_ENV}")
        why = "; ".join(filter(None, said))
        request = f" (request {problem.request_id})" if problem.request_id else ""
        message = f"{ask.method} {self.url}{ask.path}: {problem.status} {problem.title}{': ' if why else ''}{why}{request}"
        return Failure(ValueFlowError(message, problem), problem.status in BUSY, after)

    def lost(self, ask: ApiCall[Any], error: httpx.RequestError) -> Failure:
        """Return what became of a call that got no answer, or not the whole of it."""
        what = f"{ask.method} {self.url}{ask.path}"
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            message = f"cannot reach {self.url} ({error}); is the server running? Its address is given by url= or {SERVER_ENV}"
        elif isinstance(error, httpx.TimeoutException):
            message = f"{what}: nothing came for {self.timeout.read:g} s; raise timeout=, or ask for less at once"
        else:
            message = f"{what}: the connection was cut ({str(error) or type(error).__name__})"
        return Failure(ValueFlowError(message), isinstance(error, LOST))

    def wait(self, failure: Failure, attempt: int) -> float:
        """Return the seconds to wait after attempt `attempt` (from 0); raises the failure where no other is to follow."""
        if failure.again and attempt < self.retries:
            seconds = (failure.after or 0.0) + backoff(attempt)
            if seconds <= LONGEST_WAIT:
                log.info("%s; asking again in %.1f s", failure.error, seconds)
                return seconds
        raise failure.error

    def fits(self, texts: list[str], start: int, rest: dict[str, Any], streamed: bool = False) -> list[str]:
        """Return the texts from `start` on that one request may hold: by number, by texts times values, by bytes."""
        most, room = api.MAX_STREAMED if streamed else api.MAX_TEXTS, float("inf")
        if self.vidb:
            limits = self.vidb.limits
            units = limits.max_units // num_values(rest["values"]) if "values" in rest else most
            most = min(most, limits.max_streamed if streamed else limits.max_texts, max(1, units))
            room = limits.max_body_bytes - len(to_json(rest)) - len('{"texts":[],}')
        sizes = itertools.accumulate(len(to_json(text)) + 1 for text in itertools.islice(texts, start, start + most))
        return texts[start : start + max(1, sum(1 for _ in itertools.takewhile(lambda size: size <= room, sizes)))]


def changed(first: api.Made, then: api.Made) -> str:
    """Return what of that which made scores is no longer the same, in words; "" where all is."""
    names = [name for name in api.Made.model_fields if name != "request_id" and getattr(first, name) != getattr(then, name)]
    return ", ".join(f"{name} from {getattr(first, name)} to {getattr(then, name)}" for name in names)


class ResumableStream:
    """A streamed list over as many requests and retries as it takes: what is asked next, and which lines are new."""

    def __init__(self, calls: ClientProtocol, texts: list[str], rest: dict[str, Any]) -> None:
        self._calls, self._texts, self._rest = calls, texts, rest
        self._start: api.StreamStart | None = None  # of the whole list
        self._num_values = 1  # of each text, once it is known
        self._come = self._attempt = 0  # scores passed on; failures since the last of them
        self._at, self._asked = 0, self._from(0)  # the text that the request begins with

    def ask(self) -> ApiCall[api.StreamEnd] | None:
        """Return the next request, the same where nothing came of it; None when all scores have come."""
        if self._start and self._come == self._start.num_scores:
            return None
        at = self._come // self._num_values
        if at > self._at:
            self._at, self._asked = at, self._from(at)
        self._begun, self._seen, self._piece = False, 0, b""  # seen: scores of this try; piece: of a line that goes on
        self._before = self._come
        self._end: api.StreamEnd | None = None
        return self._asked

    def take(self, received: bytes) -> Iterator[Line]:
        """Yield the new lines in what came next."""
        # Lines end at line feeds alone; httpx's own would also end at separators that JSON strings may hold as they are.
        *lines, self._piece = (self._piece + received).split(b"\n")
        try:
            for text in filter(bytes.strip, lines):  # an empty line keeps the connection alive
                yield from self._line(text)
        except ValueFlowError as error:
            error.num_scores = self._come
            raise

    def wait(self, failure: Failure | None) -> float:
        """Return the seconds to wait before the next request; raises where the list cannot go on."""
        failure = self._failure(failure)
        if failure is None:
            return 0.0
        failure.error.num_scores = self._come
        seconds = self._calls.wait(failure, self._attempt)
        self._attempt += 1
        return seconds

    def end(self) -> api.StreamEnd:
        """Return the last line of the whole list."""
        return api.StreamEnd(num_scores=self._come)

    def _from(self, start: int) -> ApiCall[api.StreamEnd]:
        part = self._calls.fits(self._texts, start, self._rest, streamed=True)
        body = fitting(api.StreamRequest, {"texts": part, **self._rest})
        return ApiCall("POST", "/v1/score/stream", api.StreamEnd, body, num_texts=len(part))

    def _line(self, text: bytes) -> Iterator[Line]:
        try:
            line = LINE.validate_json(text)
        except ValidationError:
            raise self._foreign(f"sent a line that is not of API version 1: {text[:100].decode(errors='replace')!r}") from None
        if isinstance(line, api.StreamStart):
            yield from self._begin(line)
        elif isinstance(line, api.StreamEnd):
            self._end = line
        else:
            yield from self._score(line)

    def _begin(self, start: api.StreamStart) -> Iterator[Line]:
        num_values, odd = divmod(start.num_scores, self._asked.num_texts)
        if odd or not num_values or (self._start and num_values != self._num_values):
            raise self._foreign(f"announced {start.num_scores} scores for {self._asked.num_texts} texts")
        self._begun, self._num_values = True, num_values
        if self._start is None:
            self._start = start.model_copy(update={"num_scores": num_values * len(self._texts)})
            yield self._start
        elif different := changed(self._start, start):
            raise ValueFlowError(f"the server changed {different} within one list of texts; ask again for all of it")

    def _score(self, score: api.StreamScore) -> Iterator[Line]:
        expected = self._seen // self._num_values
        if not self._begun or score.index != expected or expected == self._asked.num_texts:
            raise self._foreign(f"sent a score of text {score.index} that is not due (it is the turn of text {expected})")
        place = self._at * self._num_values + self._seen
        self._seen += 1
        if place == self._come:
            self._come, self._attempt = self._come + 1, 0
            yield score.model_copy(update={"index": self._at + score.index})

    def _failure(self, failure: Failure | None) -> Failure | None:
        """Why what was asked for has not come, if it has not."""
        if self._end and self._end.problem:
            told = self._calls.problem(self._asked, self._end.problem)
            # A server gives a stream so much time; what it did not reach may well fit into the next.
            out_of_time = self._end.problem.status == OUT_OF_TIME and self._come > self._before
            return told._replace(again=told.again or out_of_time)
        if self._begun and self._seen == self._num_values * self._asked.num_texts:
            return None
        if failure:
            return failure
        if self._end:
            return Failure(self._foreign(f"ended a stream after {self._seen} scores, before the last"), again=False)
        return Failure(
            ValueFlowError(f"{self._asked.method} {self._calls.url}{self._asked.path}: the stream was cut"), again=True
        )

    def _foreign(self, what: str) -> ValueFlowError:
        return self._calls.foreign(self._asked, what)


def _address(url: str) -> str:
    """The server's address without a slash at its end; it is not shown where it may hold a password."""
    if "@" in url:
        raise InputError(f"the server's address holds a user or a password; give the key by key= or {KEY_ENV} instead")
    try:
        parsed = httpx.URL(url.strip())
    except httpx.InvalidURL as error:
        raise InputError(f"the server's address is no URL ({error}); change url= or {SERVER_ENV}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.query or parsed.fragment:
        raise InputError(f"the server's address {url!r} is not of the form {SERVER}; change url= or {SERVER_ENV}")
    return str(parsed).rstrip("/")


def _bare(key: str) -> str:
    """The key without white space around it; it is never shown, not even where it is refused."""
    if not re.fullmatch(r"[!-~]*", key.strip()):
        raise InputError(f"the API key (key= or {KEY_ENV}) holds spaces or characters beyond ASCII; check how it was copied")
    return key.strip()


def num_values(names: list[str]) -> int:
    """Return no fewer than the values that names stand for: a name that is no id may be a theory in any of its spellings."""
    sizes = Counter(value.partition(":")[0] for value in operational())
    named = sum(1 if ":" in name else sizes.get(name, max(sizes.values())) for name in names)
    return len(operational()) if "all" in names else min(named, len(operational()))
