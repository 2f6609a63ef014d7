"""Clients of a ValueFlow server: `Client` blocks, `AsyncClient` is awaited; their methods are the same."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any, Self, Unpack
from urllib.parse import quote

import httpx

from valueflow import api
from valueflow.client.protocol import (
    ApiCall,
    ClientProtocol,
    ModelT,
    ProfileSettings,
    ResumableStream,
    Scores,
    Settings,
    StreamLine,
    ValueFlowError,
    as_list,
    build_request,
)

__all__ = ["AsyncClient", "Client", "Scores", "Settings", "ValueFlowError"]
Words = str | Iterable[str]
THEORIES = ApiCall("GET", "/v1/theories", api.TheoriesResponse)
VIDB = ApiCall("GET", "/v1/vidb", api.VidbResponse)


class Client:
    """Blocking client; threads may share it. Close it, or use it in a `with` statement.

    Args:
        url: address of the server; default: VALUEFLOW_SERVER, else http://127.0.0.1:8000.
        key: API key; default: VALUEFLOW_API_KEY.
        timeout: seconds without any data from the server.
        retries: attempts after the first one if the server is busy (429, 503), unreachable, or drops the connection; default:
            8, but 1 if nothing listens at an address of this machine.
    """

    def __init__(
        self, url: str | None = None, key: str | None = None, timeout: float = 300.0, retries: int | None = None
    ) -> None:
        self._protocol = ClientProtocol(url, key, timeout, retries)
        self._http = httpx.Client()

    def __repr__(self) -> str:
        return f"Client({self._protocol.url!r})"

    def score(self, texts: Words, values: Words = "all", **settings: Unpack[Settings]) -> Scores:
        """Return the intensity of each value in each text, in the order of the texts; a list may have any length."""
        items, options = as_list(texts, "texts"), _options(values, settings)
        self._load_limits(items)
        if len(self._protocol.first_batch(items, 0, options)) < len(items):
            return _collect(items, list(self._stream(items, options)))
        return Scores(**dict(self._call(_score(items, options))), texts=items)

    def stream(self, texts: Words, values: Words = "all", **settings: Unpack[Settings]) -> Iterator[StreamLine]:
        """Yield a StreamStart, each StreamScore as soon as it is available, and a StreamEnd; lost connections are resumed.

        Raises:
            ValueFlowError: the stream ended early; `num_scores` is the number of scores received.
        """
        return self._stream(*_stream_arguments(texts, values, settings))

    def compare(self, first: str, second: str, values: Words = "all", **settings: Unpack[Settings]) -> api.CompareResponse:
        """Return for each value the probability that the first text has the higher intensity."""
        return self._call(_compare(first, second, _options(values, settings)))

    def profile(self, texts: Words, values: Words = "all", **settings: Unpack[ProfileSettings]) -> api.ProfileResponse:
        """Return the mean intensity of each value over the texts of one person or group that concern it."""
        return self._call(_profile(as_list(texts, "texts"), _options(values, settings)))

    def extract(self, texts: Words, theories: Words | None = None, top: int = 3) -> api.ExtractResponse:
        """Return the nodes of each theory that each text may express, best first."""
        items = as_list(texts, "texts")
        self._load_limits(items)
        calls = _extract(self._protocol, items, None if theories is None else as_list(theories, "theories"), top)
        return _merge(calls, [self._call(call) for call in calls])

    def theories(self) -> api.TheoriesResponse:
        """Return the theories and their nodes."""
        return self._call(THEORIES)

    def value(self, value: str) -> api.ValueResponse:
        """Return a value's definition, its paths in the theory, and example anchors."""
        return self._call(_value(value))

    def steering(self, value: str) -> api.SteeringResponse:
        """Return the wording by which models are steered on a value, at all levels."""
        return self._call(_steering(value))

    def anchors(self, value: str, offset: int = 0, limit: int = 100) -> api.AnchorsResponse:
        """Return anchors of a value in ascending order of intensity."""
        return self._call(_anchors(value, offset, limit))

    def vidb(self) -> api.VidbResponse:
        """Return the VIDB version in use and the capabilities and limits of the server."""
        self._protocol.vidb = self._call(VIDB)
        return self._protocol.vidb

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _load_limits(self, texts: list[str]) -> None:
        """Load the server's limits if the texts may exceed them."""
        if len(texts) > 1 and self._protocol.vidb is None:
            self.vidb()

    def _call(self, call: ApiCall[ModelT]) -> ModelT:
        for attempt in itertools.count():
            try:
                with contextlib.closing(self._http.send(self._protocol.request(call), stream=True)) as response:
                    content = self._read(call, response)
            except httpx.RequestError as error:
                failure = self._protocol.connection_failure(call, error)
            else:
                if response.is_success:
                    return self._protocol.parse(call, content)
                failure = self._protocol.refusal(call, response, content)
            time.sleep(self._protocol.wait(failure, attempt))
        raise AssertionError("itertools.count ends")

    def _stream(self, texts: list[str], options: dict[str, Any]) -> Iterator[StreamLine]:
        self._load_limits(texts)
        stream = ResumableStream(self._protocol, texts, options)
        while call := stream.next_call():
            failure = None
            try:
                with contextlib.closing(self._http.send(self._protocol.request(call), stream=True)) as response:
                    self._protocol.answered = True
                    if response.is_success:
                        for chunk in response.iter_bytes():
                            yield from stream.feed(chunk)
                    else:
                        failure = self._protocol.refusal(call, response, self._read(call, response))
            except httpx.RequestError as error:
                failure = self._protocol.connection_failure(call, error)
            time.sleep(stream.wait(failure))
        yield stream.end()

    def _read(self, call: ApiCall[Any], response: httpx.Response) -> bytes:
        self._protocol.answered = True
        body = bytearray()
        for chunk in response.iter_bytes():
            body += chunk
            self._protocol.check_size(call, len(body))
        return bytes(body)


class AsyncClient:
    """Client for asyncio; calls may run concurrently. Close it, or use it in an `async with` statement.

    Args:
        url: address of the server; default: VALUEFLOW_SERVER, else http://127.0.0.1:8000.
        key: API key; default: VALUEFLOW_API_KEY.
        timeout: seconds without any data from the server.
        retries: attempts after the first one if the server is busy (429, 503), unreachable, or drops the connection; default:
            8, but 1 if nothing listens at an address of this machine.
    """

    def __init__(
        self, url: str | None = None, key: str | None = None, timeout: float = 300.0, retries: int | None = None
    ) -> None:
        self._protocol = ClientProtocol(url, key, timeout, retries)
        self._http = httpx.AsyncClient()

    def __repr__(self) -> str:
        return f"AsyncClient({self._protocol.url!r})"

    async def score(self, texts: Words, values: Words = "all", **settings: Unpack[Settings]) -> Scores:
        """Return the intensity of each value in each text, in the order of the texts; a list may have any length."""
        items, options = as_list(texts, "texts"), _options(values, settings)
        await self._load_limits(items)
        if len(self._protocol.first_batch(items, 0, options)) < len(items):
            return _collect(items, [line async for line in self._stream(items, options)])
        return Scores(**dict(await self._call(_score(items, options))), texts=items)

    def stream(self, texts: Words, values: Words = "all", **settings: Unpack[Settings]) -> AsyncIterator[StreamLine]:
        """Yield a StreamStart, each StreamScore as soon as it is available, and a StreamEnd; lost connections are resumed.

        Raises:
            ValueFlowError: the stream ended early; `num_scores` is the number of scores received.
        """
        return self._stream(*_stream_arguments(texts, values, settings))

    async def compare(
        self, first: str, second: str, values: Words = "all", **settings: Unpack[Settings]
    ) -> api.CompareResponse:
        """Return for each value the probability that the first text has the higher intensity."""
        return await self._call(_compare(first, second, _options(values, settings)))

    async def profile(self, texts: Words, values: Words = "all", **settings: Unpack[ProfileSettings]) -> api.ProfileResponse:
        """Return the mean intensity of each value over the texts of one person or group that concern it."""
        return await self._call(_profile(as_list(texts, "texts"), _options(values, settings)))

    async def extract(self, texts: Words, theories: Words | None = None, top: int = 3) -> api.ExtractResponse:
        """Return the nodes of each theory that each text may express, best first."""
        items = as_list(texts, "texts")
        await self._load_limits(items)
        calls = _extract(self._protocol, items, None if theories is None else as_list(theories, "theories"), top)
        return _merge(calls, [await self._call(call) for call in calls])

    async def theories(self) -> api.TheoriesResponse:
        """Return the theories and their nodes."""
        return await self._call(THEORIES)

    async def value(self, value: str) -> api.ValueResponse:
        """Return a value's definition, its paths in the theory, and example anchors."""
        return await self._call(_value(value))

    async def steering(self, value: str) -> api.SteeringResponse:
        """Return the wording by which models are steered on a value, at all levels."""
        return await self._call(_steering(value))

    async def anchors(self, value: str, offset: int = 0, limit: int = 100) -> api.AnchorsResponse:
        """Return anchors of a value in ascending order of intensity."""
        return await self._call(_anchors(value, offset, limit))

    async def vidb(self) -> api.VidbResponse:
        """Return the VIDB version in use and the capabilities and limits of the server."""
        self._protocol.vidb = await self._call(VIDB)
        return self._protocol.vidb

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _load_limits(self, texts: list[str]) -> None:
        """Load the server's limits if the texts may exceed them."""
        if len(texts) > 1 and self._protocol.vidb is None:
            await self.vidb()

    async def _call(self, call: ApiCall[ModelT]) -> ModelT:
        for attempt in itertools.count():
            try:
                response = await self._http.send(self._protocol.request(call), stream=True)
                async with contextlib.aclosing(response):
                    content = await self._read(call, response)
            except httpx.RequestError as error:
                failure = self._protocol.connection_failure(call, error)
            else:
                if response.is_success:
                    return self._protocol.parse(call, content)
                failure = self._protocol.refusal(call, response, content)
            await asyncio.sleep(self._protocol.wait(failure, attempt))
        raise AssertionError("itertools.count ends")

    async def _stream(self, texts: list[str], options: dict[str, Any]) -> AsyncIterator[StreamLine]:
        await self._load_limits(texts)
        stream = ResumableStream(self._protocol, texts, options)
        while call := stream.next_call():
            failure = None
            try:
                response = await self._http.send(self._protocol.request(call), stream=True)
                async with contextlib.aclosing(response):
                    self._protocol.answered = True
                    if response.is_success:
                        async for chunk in response.aiter_bytes():
                            for line in stream.feed(chunk):
                                yield line
                    else:
                        failure = self._protocol.refusal(call, response, await self._read(call, response))
            except httpx.RequestError as error:
                failure = self._protocol.connection_failure(call, error)
            await asyncio.sleep(stream.wait(failure))
        yield stream.end()

    async def _read(self, call: ApiCall[Any], response: httpx.Response) -> bytes:
        self._protocol.answered = True
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            self._protocol.check_size(call, len(body))
        return bytes(body)


def _score(texts: list[str], options: dict[str, Any]) -> ApiCall[api.ScoreResponse]:
    body = build_request(api.ScoreRequest, {"texts": texts, **options})
    return ApiCall("POST", "/v1/score", api.ScoreResponse, body, num_texts=len(texts))


def _compare(first: str, second: str, options: dict[str, Any]) -> ApiCall[api.CompareResponse]:
    body = build_request(api.CompareRequest, {"first": first, "second": second, **options})
    return ApiCall("POST", "/v1/compare", api.CompareResponse, body)


def _profile(texts: list[str], options: dict[str, Any]) -> ApiCall[api.ProfileResponse]:
    return ApiCall("POST", "/v1/profile", api.ProfileResponse, build_request(api.ProfileRequest, {"texts": texts, **options}))


def _value(name: str) -> ApiCall[api.ValueResponse]:
    return ApiCall("GET", f"/v1/values/{quote(name, safe=':')}", api.ValueResponse)


def _steering(name: str) -> ApiCall[api.SteeringResponse]:
    return ApiCall("GET", f"/v1/steering/{quote(name, safe=':')}", api.SteeringResponse)


def _anchors(name: str, offset: int, limit: int) -> ApiCall[api.AnchorsResponse]:
    path = f"/v1/values/{quote(name, safe=':')}/anchors"
    return ApiCall("GET", path, api.AnchorsResponse, params={"offset": offset, "limit": limit})


def _extract(
    protocol: ClientProtocol, texts: list[str], theories: list[str] | None, top: int
) -> list[ApiCall[api.ExtractResponse]]:
    """The requests for a list of texts; for an empty list one request, which fails validation."""
    calls: list[ApiCall[api.ExtractResponse]] = []
    start = 0
    while start < len(texts) or not calls:
        batch = protocol.first_batch(texts, start, options := {"theories": theories, "top": top})
        body = build_request(api.ExtractRequest, {"texts": batch, **options})
        calls.append(ApiCall("POST", "/v1/extract", api.ExtractResponse, body, num_texts=len(batch)))
        start += len(batch)
    return calls


def _merge(calls: list[ApiCall[api.ExtractResponse]], responses: list[api.ExtractResponse]) -> api.ExtractResponse:
    """Merge the responses of several requests; `request_id` lists all of theirs."""
    starts = itertools.accumulate((call.num_texts for call in calls), initial=0)
    texts = [
        text.model_copy(update={"index": start + text.index})
        for start, response in zip(starts, responses, strict=False)
        for text in response.texts
    ]
    request_id = " ".join(response.request_id for response in responses)
    return api.ExtractResponse(request_id=request_id, model=responses[0].model, texts=texts)


def _collect(texts: list[str], lines: list[StreamLine]) -> Scores:
    """Turn the lines of a complete stream into one response."""
    start = next(line for line in lines if isinstance(line, api.StreamStart))
    scores = [api.Scored(**line.model_dump(exclude={"type"})) for line in lines if isinstance(line, api.StreamScore)]
    return Scores(**start.model_dump(include=set(api.ScoreResponse.model_fields)), scores=scores, texts=texts)


def _options(values: Words, settings: Settings) -> dict[str, Any]:
    return {"values": as_list(values, "values"), **settings}


def _stream_arguments(texts: Words, values: Words, settings: Settings) -> tuple[list[str], dict[str, Any]]:
    """The texts and the other fields of a stream's request, validated before anything is sent."""
    items, options = as_list(texts, "texts"), _options(values, settings)
    build_request(api.StreamRequest, {"texts": items[:1], **options})
    return items, options
