"""Routes over a service, version 1 (`valueflow.api`); `serve.admission` guards the way in."""

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from fastapi import FastAPI, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from fastapi.routing import APIRoute, APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic_core import from_json
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from serve.access_log import AccessLogMiddleware, Call
from serve.admission import STREAM, AdmissionMiddleware, open_paths, timed_out
from serve.keys import Keys
from serve.metrics import Metrics
from serve.openapi import NDJSON, describe, problems
from serve.problems import Refused
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
    StreamEnd,
    StreamRequest,
    StreamScore,
    StreamStart,
    TheoriesResponse,
    ValueResponse,
    VidbResponse,
)
from valueflow.errors import InputError
from valueflow.theories import operational

if TYPE_CHECKING:
    from valueflow.service.service import Service

log = logging.getLogger(__name__)

AnswerT = TypeVar("AnswerT")
StreamLine = StreamStart | StreamScore | StreamEnd
ValueId = Annotated[str, Path(alias="id", max_length=100, description="a value, as svt:benevolence")]
PAGE_POLICY = (
    "default-src 'none'; style-src 'nonce-{0}'; script-src 'nonce-{0}'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
WORK_PROBLEMS = problems(400, 401, 408, 413, 415, 422, 429, 500, 503, 504)
READ_PROBLEMS = problems(401, 429, 500, 503)


class StrictRequest(Request):
    """A request whose JSON has no NaN, no broken Unicode, no endless numbers and no endless nesting."""

    async def json(self) -> Any:
        """Return the body, or refuse it with the place of the fault."""
        try:
            return from_json(await self.body(), allow_inf_nan=False)
        except ValueError as error:
            raise Refused(400, "json", f"the body is not JSON in UTF-8: {error}") from None


class StrictRoute(APIRoute):
    """A route that reads its body by `StrictRequest`."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        """Return FastAPI's handler, given another request."""
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handler(StrictRequest(request.scope, request.receive))

        return strict


class Lines(StreamingResponse):
    """A stream of JSON lines; what makes them is closed as soon as the answer ends, however it ends."""

    media_type = NDJSON
    body_iterator: AsyncGenerator[str, None]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send each line as it comes; the client is watched by `serve.admission`, not here once more."""
        async with aclosing(self.body_iterator):
            await self.stream_response(send)


router = APIRouter(route_class=StrictRoute)


@router.post("/v1/score", responses=WORK_PROBLEMS)
async def score(asked: ScoreRequest, request: Request) -> ScoreResponse:
    """Score texts on values."""
    service, call = begin(request, asked.texts, asked.values)
    return await service.score(asked, call.request_id)


@router.post(STREAM, responses=WORK_PROBLEMS, response_class=Lines)
async def stream_scores(asked: StreamRequest, request: Request) -> Lines:
    """Score many texts on values, an answer line for each score as soon as it is there.

    An error after the first line comes as the `problem` of the last one. Answers are not kept under an Idempotency-Key.
    """
    service, call = begin(request, asked.texts, asked.values)
    lines = service.stream(asked, call.request_id)
    # What is wrong with the request shows before the first line, while there can still be another status than 200.
    first = await anext(lines)
    return Lines(written(first, lines, call, request.app.state.settings.stream_seconds))


@router.post("/v1/compare", responses=WORK_PROBLEMS)
async def compare(asked: CompareRequest, request: Request) -> CompareResponse:
    """Tell which of two texts expresses each value more."""
    service, call = begin(request, [asked.first, asked.second], asked.values)
    return await service.compare(asked, call.request_id)


@router.post("/v1/profile", responses=WORK_PROBLEMS)
async def profile(asked: ProfileRequest, request: Request) -> ProfileResponse:
    """Measure the values of a person or group by their texts."""
    service, call = begin(request, asked.texts, asked.values)
    return await service.profile(asked, call.request_id)


@router.post("/v1/extract", responses=WORK_PROBLEMS)
async def extract(asked: ExtractRequest, request: Request) -> ExtractResponse:
    """Find the nodes of the theories that texts may express."""
    service, call = begin(request, asked.texts, [])
    return await service.extract(asked, call.request_id)


@router.get("/v1/theories", responses=READ_PROBLEMS)
def list_theories(request: Request) -> TheoriesResponse:
    """List the theories and their nodes."""
    return ready(request).theories()


@router.get("/v1/values/{id}", responses=READ_PROBLEMS | problems(404, 422))
def show_value(value: ValueId, request: Request) -> ValueResponse:
    """Tell what a value means, with examples along its scale."""
    service = ready(request)
    return found(lambda: service.value(value))


@router.get("/v1/values/{id}/anchors", responses=READ_PROBLEMS | problems(404, 422))
def list_anchors(
    value: ValueId,
    request: Request,
    offset: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> AnchorsResponse:
    """List anchor texts of a value, weakest first."""
    service = ready(request)
    return found(lambda: service.anchors(value, offset, limit))


@router.get("/v1/vidb", responses=READ_PROBLEMS)
def show_vidb(request: Request) -> VidbResponse:
    """Tell which VIDB version is in use, and what this server takes in one request."""
    return ready(request).vidb().model_copy(update={"limits": request.app.state.settings.limits()})


@router.get("/healthz", response_class=PlainTextResponse, responses=problems(500))
async def healthz() -> str:
    """Tell that the process lives."""
    return "ok\n"


@router.get("/readyz", response_class=PlainTextResponse, responses=problems(500, 503))
async def readyz(request: Request) -> str:
    """Tell whether requests can be answered."""
    ready(request)
    return "ready\n"


@router.get("/metrics", response_class=PlainTextResponse, responses=problems(401, 429, 500))
async def metrics(request: Request) -> Response:
    """Show the numbers of this process in Prometheus' text format."""
    return Response(request.app.state.metrics.text(), media_type=CONTENT_TYPE_LATEST)


@router.get("/", include_in_schema=False)
async def page(request: Request) -> HTMLResponse:
    """Show the page for browsers."""
    if request.app.state.page is None:
        raise HTTPException(404)
    nonce = secrets.token_urlsafe(16)
    html = request.app.state.page.replace("__NONCE__", nonce)
    return HTMLResponse(html, headers={"Content-Security-Policy": PAGE_POLICY.format(nonce)})


def ready(request: Request) -> "Service":
    """Return the service of the moment; 503 while there is none."""
    service = request.app.state.service()
    if service is None:
        raise Refused(503, "not-ready", "the server is starting; try again in a few seconds", {"Retry-After": "5"})
    return service


def begin(request: Request, texts: list[str], values: list[str]) -> tuple["Service", Call]:
    """Return the service for a request that keeps the limits, and note its size."""
    service, settings, call = ready(request), request.app.state.settings, request.scope["call"]
    call.texts, call.num_units = texts, len(texts) * (len(service.values(values)) if values else 1)
    most = settings.max_streamed if call.route == STREAM else settings.max_texts
    if len(texts) > most:
        raise beyond("max_texts" if most == settings.max_texts else "max_streamed", f"{len(texts)} texts", f"{most}")
    longest = max(range(len(texts)), key=lambda i: len(texts[i]))
    if len(texts[longest]) > settings.max_chars:
        raise beyond("max_chars", f"texts[{longest}] with {len(texts[longest])} characters", f"{settings.max_chars}")
    if call.num_units > settings.max_units:
        raise beyond("max_units", f"{len(texts)} texts, {call.num_units} units (texts x values)", f"{settings.max_units}")
    return service, call


def beyond(limit: str, given: str, most: str) -> Refused:
    """Return the answer to a request above one of the limits."""
    return Refused(422, "limits", f"{given}: more than this server's {limit}, {most} (GET /v1/vidb: limits); ask in parts")


def found(look: Callable[[], AnswerT]) -> AnswerT:
    """Return what a look-up finds; 404 where it finds nothing."""
    try:
        return look()
    except InputError as error:
        raise Refused(404, "unknown-value", str(error)) from None


async def written(
    first: StreamLine, lines: AsyncGenerator[StreamLine, None], call: Call, seconds: float
) -> AsyncGenerator[str, None]:
    """Yield the lines of a stream as JSON; an error becomes its last line."""
    until, num_scores = asyncio.get_running_loop().time() + seconds, 0
    line: StreamLine | None = first
    async with aclosing(lines):
        try:
            while line is not None:
                num_scores += isinstance(line, StreamScore)
                yield line.model_dump_json() + "\n"
                async with asyncio.timeout_at(until) as limit:
                    line = await anext(lines, None)
        except Exception as error:  # noqa: BLE001 - too late for a status; Trace logs what nobody expected
            late = isinstance(error, TimeoutError) and limit.expired()
            problem = call.fail(timed_out(seconds) if late else error).problem(call.request_id)
            yield StreamEnd(num_scores=num_scores, problem=problem).model_dump_json() + "\n"


async def problem(request: Request, error: Exception) -> Response:
    """Answer an error of a route."""
    call: Call = request.scope["call"]
    return call.fail(error).response(call.request_id)


def create(service: Callable[[], "Service | None"], settings: HttpConfig, page: str | None = None) -> FastAPI:
    """Return the application.

    Args:
        service: gives the service of the moment, None while it is not ready; a request keeps the one it started with.
        settings: keys, limits and habits.
        page: the HTML of `/`; `__NONCE__` in it becomes the nonce of its scripts and styles.

    Raises:
        InputError: the file of keys cannot be used.
    """
    keys, numbers = Keys(settings.all_keys()), Metrics()
    if not keys:
        log.warning("no API keys are set (settings keys, keys_file): everybody who reaches this server may use it")
    operational()  # read now, so that the first request does not wait for it
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
    app.state.service, app.state.settings, app.state.metrics, app.state.page = service, settings, numbers, page
    app.include_router(router)
    app.openapi = lambda: describe(app.routes, open_paths(settings), bool(keys))  # type: ignore[method-assign]
    # The one added last is outermost.
    app.add_middleware(AdmissionMiddleware, settings=settings, metrics=numbers, keys=keys)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "X-API-Key", "X-Request-Id"],
            expose_headers=["X-Request-Id", "Retry-After", "Idempotency-Replayed"],
        )
    app.add_middleware(AccessLogMiddleware, metrics=numbers, log_texts=settings.log_texts)
    return app
