"""Routes of API version 1 (`valueflow.api`) over a service; `serve.admission` is the middleware in front of them."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar

from fastapi import FastAPI, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from fastapi.routing import APIRoute, APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from serve.access_log import AccessLogMiddleware, Call
from serve.admission import STREAM, AdmissionMiddleware, open_paths, timed_out
from serve.bodies import BodyParser
from serve.keys import Keys
from serve.metrics import Metrics
from serve.openapi import NDJSON, describe, problems
from serve.problems import Refused
from serve.readiness import Readiness
from serve.settings import HttpConfig
from valueflow import __version__
from valueflow.api import (
    AnchorsResponse,
    CompareRequest,
    CompareResponse,
    ExtractRequest,
    ExtractResponse,
    ProfileRequest,
    ProfileResponse,
    ScoreRequest,
    ScoreResponse,
    ScoringRequest,
    SteeringResponse,
    StreamEnd,
    StreamRequest,
    StreamScore,
    StreamStart,
    TheoriesResponse,
    ValueResponse,
    VidbResponse,
)
from valueflow.errors import InputError, OperatorError
from valueflow.records import ValueId
from valueflow.theories import operational

if TYPE_CHECKING:
    from valueflow.service.service import Service
    from valueflow.service.work import Plan

log = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")
MAX_INLINE_UNITS = 200  # texts times values whose response is serialized on the event loop: it takes a millisecond
StreamLine = StreamStart | StreamScore | StreamEnd
ValueName = Annotated[str, Path(alias="id", max_length=100, description="a value, for example svt:benevolence")]
PAGE_POLICY = (
    "default-src 'none'; style-src 'nonce-{0}'; script-src 'nonce-{0}'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SCORING_PROBLEMS = problems(400, 401, 408, 413, 415, 422, 429, 500, 503, 504)
READ_PROBLEMS = problems(401, 429, 500, 503)


class StrictRequest(Request):
    """A request whose body is parsed by the application's `BodyParser`."""

    async def json(self) -> Any:
        """Return the parsed body; see `serve.bodies.parse_json`."""
        return await self.app.state.bodies.parse(await self.body())


class StrictRoute(APIRoute):
    """A route that parses its body with `StrictRequest`."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        """Return FastAPI's handler, called with a `StrictRequest`."""
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            if self.path.startswith("/v1/"):
                await first_version(request)
            return await handler(StrictRequest(request.scope, request.receive))

        return strict


class JsonLines(StreamingResponse):
    """A stream of JSON lines; its generator is closed as soon as the response ends, also on errors."""

    media_type = NDJSON
    body_iterator: AsyncGenerator[str, None]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the lines; unlike the base class, do not watch for a disconnect, which `serve.admission` does."""
        async with aclosing(self.body_iterator):
            await self.stream_response(send)


router = APIRouter(route_class=StrictRoute)


@router.post("/v1/score", responses=SCORING_PROBLEMS, response_model=ScoreResponse)
async def score(body: ScoreRequest, request: Request) -> Response:
    """Score texts on values."""
    job = admit(request, body, body.texts)
    return await json_response(await job.service.score(body, job.call.request_id, job.values), job.call)


@router.post(STREAM, responses=SCORING_PROBLEMS, response_class=JsonLines)
async def stream_scores(body: StreamRequest, request: Request) -> JsonLines:
    """Score many texts on values; each score is sent as one line as soon as it is available.

    An error after the first line is the `problem` of the last line. Streams are not stored under an Idempotency-Key.
    """
    job = admit(request, body, body.texts)
    lines = job.service.stream(body, job.call.request_id, job.values)
    # Await the first line here: an error before it still gets its own status.
    first = await anext(lines)
    return JsonLines(json_lines(first, lines, job.call, request.app.state.settings.stream_seconds))


@router.post("/v1/compare", responses=SCORING_PROBLEMS, response_model=CompareResponse)
async def compare(body: CompareRequest, request: Request) -> Response:
    """Return for each value the probability that the first text has the higher intensity."""
    job = admit(request, body, [body.first, body.second])
    return await json_response(await job.service.compare(body, job.call.request_id, job.values), job.call)


@router.post("/v1/profile", responses=SCORING_PROBLEMS, response_model=ProfileResponse)
async def profile(body: ProfileRequest, request: Request) -> Response:
    """Measure the values of a person or group from their texts."""
    job = admit(request, body, body.texts)
    return await json_response(await job.service.profile(body, job.call.request_id, job.values), job.call)


@router.post("/v1/extract", responses=SCORING_PROBLEMS, response_model=ExtractResponse)
async def extract(body: ExtractRequest, request: Request) -> Response:
    """Return the nodes of the theories that texts may express."""
    job = admit(request, body, body.texts)
    return await json_response(await job.service.extract(body, job.call.request_id), job.call)


@router.get("/v1/theories", responses=READ_PROBLEMS)
def list_theories(request: Request) -> TheoriesResponse:
    """List the theories and their nodes."""
    return ready(request).theories()


@router.get("/v1/values/{id}", responses=READ_PROBLEMS | problems(404, 422))
def show_value(value: ValueName, request: Request) -> ValueResponse:
    """Return a value's definition, its paths in the theory, and example anchors."""
    service = ready(request)
    return look_up_or_404(lambda: service.value(value))


@router.get("/v1/values/{id}/anchors", responses=READ_PROBLEMS | problems(404, 422))
def list_anchors(
    value: ValueName,
    request: Request,
    offset: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> AnchorsResponse:
    """List anchors of a value in ascending order of intensity."""
    service = ready(request)
    return look_up_or_404(lambda: service.anchors(value, offset, limit))


@router.get("/v1/steering/{id}", responses=READ_PROBLEMS | problems(404, 422))
def show_steering(value: ValueName, request: Request) -> SteeringResponse:
    """Return the wording by which models are steered on a value, at all levels; nothing is generated."""
    service = ready(request)
    return look_up_or_404(lambda: service.steering(value))


@router.get("/v1/vidb", responses=READ_PROBLEMS)
def show_vidb(request: Request) -> VidbResponse:
    """Return the VIDB version in use and the limits of one request."""
    return ready(request).vidb()


@router.get("/healthz", response_class=PlainTextResponse, responses=problems(500))
async def healthz() -> str:
    """Return ok while the process is alive, whether or not it can answer requests."""
    return "ok\n"


@router.get("/readyz", response_class=PlainTextResponse, responses=problems(500, 503))
async def readyz(request: Request) -> str:
    """Return ready if a version is in memory and the judge and the encoder answer; asked every few seconds, not per probe."""
    ready(request)
    if not await request.app.state.readiness():
        raise Refused(503, "not-ready", "the server cannot reach its judge or data", {"Retry-After": "5"})
    return "ready\n"


@router.get("/metrics", response_class=PlainTextResponse, responses=problems(401, 429, 500))
async def metrics(request: Request) -> Response:
    """Return the metrics of this process in the Prometheus text format."""
    return Response(request.app.state.metrics.text(), media_type=CONTENT_TYPE_LATEST)


@router.get("/", include_in_schema=False)
async def page(request: Request) -> HTMLResponse:
    """Return the page for browsers."""
    if request.app.state.page is None:
        raise HTTPException(404)
    nonce = secrets.token_urlsafe(16)
    html = request.app.state.page.replace("__NONCE__", nonce)
    return HTMLResponse(html, headers={"Content-Security-Policy": PAGE_POLICY.format(nonce)})


async def first_version(request: Request) -> None:
    """Return when the service has started, or could not, or after the timeout of requests."""
    state = request.app.state
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(state.settings.timeout_seconds):
            await state.started.wait()


def ready(request: Request) -> "Service":
    """Return the current service.

    Raises:
        Refused: 503, it is not loaded yet.
    """
    service = request.app.state.service()
    if service is None:
        raise Refused(503, "not-ready", "the server is starting; try again in a few seconds", {"Retry-After": "5"})
    return service


class AdmittedRequest(NamedTuple):
    """A request within the limits: the service for it, the ids of its values, and its log record."""

    service: "Service"
    values: list[ValueId]
    call: Call


def admit(request: Request, body: ScoringRequest | ExtractRequest, texts: list[str]) -> AdmittedRequest:
    """Check a request against the limits and record its size for log and metrics.

    Raises:
        Refused: 503, no service is loaded; 422, the request exceeds a limit.
        InputError: see `Service.resolve`.
    """
    service, settings, call = ready(request), request.app.state.settings, request.scope["call"]
    values = service.resolve(body) if isinstance(body, ScoringRequest) else []
    call.texts, call.num_units = texts, len(texts) * (len(values) if isinstance(body, ScoringRequest) else 1)
    name = "max_streamed" if call.route == STREAM else "max_texts"
    if len(texts) > getattr(settings, name):
        raise over_limit(name, f"{len(texts)} texts", getattr(settings, name))
    longest = max(range(len(texts)), key=lambda i: len(texts[i]))
    if len(texts[longest]) > settings.max_chars:
        size = f"texts[{longest}] with {len(texts[longest])} characters"
        raise over_limit("max_chars", size, settings.max_chars, "shorten the text or split it")
    if isinstance(body, ScoringRequest):
        check_scores(service.questions(body, len(texts), values), body.m, settings.max_units)
    elif call.num_units > settings.max_units:
        raise over_limit("max_units", f"{len(texts)} texts", settings.max_units, "send fewer texts at a time")
    return AdmittedRequest(service, values, call)


def check_scores(plan: "Plan", m: int, most: int) -> None:
    """Check the number of scores of a request; the windows that it takes beyond them count as 1/m of a score.

    Raises:
        Refused: 422, there are more than `most`.
    """
    num_scores, sharpness = plan.texts * len(plan.values), sum(plan.sharpness.values())
    if num_scores + sharpness / m <= most:
        return
    size = f"{plan.texts} texts x {len(plan.values)} value{'s' * (len(plan.values) > 1)} = {num_scores} scores"
    if plan.windows:
        relevance = f", and {plan.relevance} questions about relevance" * bool(plan.relevance)
        size += f" (m = {m}: {plan.windows} windows{relevance})"
    advice = "send fewer texts at a time, or fewer values"
    if sharpness:
        size += f", and once {sharpness} windows that show how sharply the judge tells texts apart, each 1/{m} of a score"
        advice += ", or a larger m"
    raise over_limit("max_units", size, most, advice)


def over_limit(name: str, size: str, limit: int, advice: str = "send several requests") -> Refused:
    """Return the refusal of a request above the limit `name`."""
    return Refused(422, "limits", f"{size}: above this server's {name}, {limit} (GET /v1/vidb: limits); {advice}")


def look_up_or_404(look_up: Callable[[], ResultT]) -> ResultT:
    """Return the result of a look-up.

    Raises:
        Refused: 404, there is no such value.
        OperatorError: its rows cannot be read.
    """
    try:
        return look_up()
    except OperatorError:
        raise
    except InputError as error:
        raise Refused(404, "unknown-value", str(error)) from None


async def json_response(model: BaseModel, call: Call) -> Response:
    """Return the response with a model: FastAPI would validate it again, and keep the event loop from others meanwhile."""
    few = call.num_units <= MAX_INLINE_UNITS
    content = model.model_dump_json() if few else await asyncio.to_thread(model.model_dump_json)
    return Response(content, media_type="application/json")


async def json_lines(
    first: StreamLine, lines: AsyncGenerator[StreamLine, None], call: Call, seconds: float
) -> AsyncGenerator[str, None]:
    """Yield the lines of a stream as JSON; an error becomes the `problem` of the last line."""
    deadline, num_scores = asyncio.get_running_loop().time() + seconds, 0
    line: StreamLine | None = first
    async with aclosing(lines):
        try:
            while line is not None:
                num_scores += isinstance(line, StreamScore)
                yield line.model_dump_json() + "\n"
                async with asyncio.timeout_at(deadline) as limit:
                    line = await anext(lines, None)
        except Exception as error:  # noqa: BLE001 - too late for a status; AccessLogMiddleware logs unexpected errors
            late = isinstance(error, TimeoutError) and limit.expired()
            problem = call.fail(timed_out(seconds) if late else error).problem(call.request_id)
            yield StreamEnd(num_scores=num_scores, problem=problem).model_dump_json() + "\n"


async def _check(service: "Service | None") -> None:
    if service is not None:
        await service.check()


async def problem(request: Request, error: Exception) -> Response:
    """Return the response to an error of a route."""
    call: Call = request.scope["call"]
    return call.fail(error).response(call.request_id)


def create(
    service: Callable[[], "Service | None"],
    settings: HttpConfig,
    page: str | None = None,
    proxy_sends_id: bool = False,
    started: asyncio.Event | None = None,
) -> FastAPI:
    """Return the application.

    Args:
        service: returns the current service, None while it is not ready; a request keeps the one it started with.
        settings: keys, limits and timeouts.
        page: the HTML of `/`; `__NONCE__` in it is replaced by the nonce of its scripts and styles.
        proxy_sends_id: the proxy in front (Ray Serve's) adds the X-Request-Id to responses.
        started: requests wait for it, probes do not; None: it has started.

    Raises:
        InputError: `keys_file` is unusable.
    """
    keys, registry = Keys(settings.all_keys()), Metrics()
    if not keys:
        log.warning("no API keys are set (settings keys, keys_file): everyone who reaches this server may use it")
    operational()  # load the theories now, not in the first request
    handled = (InputError, RequestValidationError, HTTPException)
    app = FastAPI(
        title="ValueFlow",
        version=__version__,
        docs_url="/docs" if settings.docs else None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
        exception_handlers=dict.fromkeys(handled, problem),
    )
    app.state.service, app.state.settings, app.state.metrics, app.state.page = service, settings, registry, page
    app.state.bodies = BodyParser(settings)
    app.state.started = started or asyncio.Event()
    if started is None:
        app.state.started.set()
    app.state.readiness = Readiness(lambda: _check(service()))
    app.include_router(router)
    app.openapi = lambda: describe(app.routes, open_paths(settings), bool(keys))  # type: ignore[method-assign]
    # The middleware added last is outermost.
    app.add_middleware(AdmissionMiddleware, settings=settings, metrics=registry, keys=keys)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "X-API-Key", "X-Request-Id"],
            expose_headers=["X-Request-Id", "Retry-After", "Idempotency-Replayed"],
        )
    app.add_middleware(AccessLogMiddleware, metrics=registry, log_texts=settings.log_texts, sends_id=not proxy_sends_id)
    return app
