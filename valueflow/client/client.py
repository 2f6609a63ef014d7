"""Ask a ValueFlow server from Python: `Client` waits for its answers, `AsyncClient` is awaited; otherwise they are the same."""

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
    Line,
    ModelT,
    ResumableStream,
    Scores,
    Settings,
    ValueFlowError,
    fitting,
    listed,
)

__all__ = ["AsyncClient", "Client", "Scores", "Settings", "ValueFlowError"]
Words = str | Iterable[str]
THEORIES = ApiCall("GET", "/v1/theories", api.TheoriesResponse)
VIDB = ApiCall("GET", "/v1/vidb", api.VidbResponse)


class Client:
    """A ValueFlow server, asked one call after another; may be shared by threads, and closed with `with`.

    Args:
        url: the server; default: VALUEFLOW_SERVER, else http://127.0.0.1:8000.
        key: its API key; default: VALUEFLOW_API_KEY.
        timeout: seconds in which nothing comes.
        retries: further tries of a call that was refused for now (429, 503), not connected, or cut off.
    """

    def __init__(self, url: str | None = None, key: str | None = None, timeout: float = 300.0, retries: int = 8) -> None:
        self._calls = ClientProtocol(url, key, timeout, retries)
        self._http = httpx.Client()

    def __repr__(self) -> str:
        return f"Client({self._calls.url!r})"

    def score(self, texts: Words, values: Words = "all", **settings: Unpack[Settings]) -> Scores:
        """Return the intensity of each value in each text; a list of any length, in its order."""
        asked, rest = self._known(listed(texts, "texts")), _rest(values, settings)
        if len(self._calls.fits(asked, 0, rest)) < len(asked):
            return _collected(asked, list(self._streamed(asked, rest)))
        return Scores(**dict(self._call(_score(asked, rest))), texts=asked)

    def stream(self, texts: Words, values: Words = "all", **settings: Unpack[Settings]) -> Iterator[Line]:
        """Yield a StreamStart, each StreamScore as soon as it is there, and a StreamEnd; goes on where a connection was cut.

        Raises:
            ValueFlowError: what ended it early; its num_scores says how many scores had come.
        """
        return self._streamed(*_streaming(texts, values, settings))

    def compare(self, first: str, second: str, values: Words = "all", **settings: Unpack[Settings]) -> api.CompareResponse:
        """Return which of two texts expresses each value more, as a probability."""
        return self._call(_compare(first, second, _rest(values, settings)))

    def profile(self, texts: Words, values: Words = "all", **settings: Unpack[Settings]) -> api.ProfileResponse:
        """Return the mean intensity of each value over the texts of one person or group."""
        return self._call(_profile(listed(texts, "texts"), _rest(values, settings)))

    def extract(self, texts: Words, theories: Words | None = None, top: int = 3) -> api.ExtractResponse:
        """Return the nodes of each theory that each text may express, best first."""
        asked = self._known(listed(texts, "texts"))
        parts = _extract(self._calls, asked, None if theories is None else listed(theories, "theories"), top)
        return _joined(parts, [self._call(part) for part in parts])

    def theories(self) -> api.TheoriesResponse:
        """Return the theories and their nodes."""
        return self._call(THEORIES)

    def value(self, value: str) -> api.ValueResponse:
        """Return what a value means, where it stands, and examples along its scale."""
        return self._call(_value(value))

    def anchors(self, value: str, offset: int = 0, limit: int = 100) -> api.AnchorsResponse:
        """Return anchors of a value, weakest first."""
        return self._call(_anchors(value, offset, limit))

    def vidb(self) -> api.VidbResponse:
        """Return the VIDB version in use, and what the server takes."""
        self._calls.vidb = self._call(VIDB)
        return self._calls.vidb

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _known(self, texts: list[str]) -> list[str]:
        """The texts, once it is known how many a request may hold."""
        if len(texts) > 1 and self._calls.vidb is None:
            self.vidb()
        return texts

    def _call(self, ask: ApiCall[ModelT]) -> ModelT:
        for attempt in itertools.count():
            try:
                response = self._http.send(self._calls.request(ask))
            except httpx.RequestError as error:
                failure = self._calls.lost(ask, error)
            else:
                if response.is_success:
                    return self._calls.read(ask, response)
                failure = self._calls.refused(ask, response)
            time.sleep(self._calls.wait(failure, attempt))
        raise AssertionError("itertools.count ends")

    def _streamed(self, texts: list[str], rest: dict[str, Any]) -> Iterator[Line]:
        course = ResumableStream(self._calls, self._known(texts), rest)
        while ask := course.ask():
            failure = None
            try:
                with contextlib.closing(self._http.send(self._calls.request(ask), stream=True)) as response:
                    if response.is_success:
                        for received in response.iter_bytes():
                            yield from course.take(received)
                    else:
                        response.read()
                        failure = self._calls.refused(ask, response)
            except httpx.RequestError as error:
                failure = self._calls.lost(ask, error)
            time.sleep(course.wait(failure))
        yield course.end()


class AsyncClient:
    """A ValueFlow server, asked from asyncio; many calls may be under way at once. Closed with `async with`.

    Args:
        url: the server; default: VALUEFLOW_SERVER, else http://127.0.0.1:8000.
        key: its API key; default: VALUEFLOW_API_KEY.
        timeout: seconds in which nothing comes.
        retries: further tries of a call that was refused for now (429, 503), not connected, or cut off.
    """

    def __init__(self, url: str | None = None, key: str | None = None, timeout: float = 300.0, retries: int = 8) -> None:
        self._calls = ClientProtocol(url, key, timeout, retries)
        self._http = httpx.AsyncClient()

    def __repr__(self) -> str:
        return f"AsyncClient({self._calls.url!r})"

    async def score(self, texts: Words, values: Words = "all", **settings: Unpack[Settings]) -> Scores:
        """Return the intensity of each value in each text; a list of any length, in its order."""
        asked, rest = await self._known(listed(texts, "texts")), _rest(values, settings)
        if len(self._calls.fits(asked, 0, rest)) < len(asked):
            return _collected(asked, [line async for line in self._streamed(asked, rest)])
        return Scores(**dict(await self._call(_score(asked, rest))), texts=asked)

    def stream(self, texts: Words, values: Words = "all", **settings: Unpack[Settings]) -> AsyncIterator[Line]:
        """Yield a StreamStart, each StreamScore as soon as it is there, and a StreamEnd; goes on where a connection was cut.

        Raises:
            ValueFlowError: what ended it early; its num_scores says how many scores had come.
        """
        return self._streamed(*_streaming(texts, values, settings))

    async def compare(
        self, first: str, second: str, values: Words = "all", **settings: Unpack[Settings]
    ) -> api.CompareResponse:
        """Return which of two texts expresses each value more, as a probability."""
        return await self._call(_compare(first, second, _rest(values, settings)))

    async def profile(self, texts: Words, values: Words = "all", **settings: Unpack[Settings]) -> api.ProfileResponse:
        """Return the mean intensity of each value over the texts of one person or group."""
        return await self._call(_profile(listed(texts, "texts"), _rest(values, settings)))

    async def extract(self, texts: Words, theories: Words | None = None, top: int = 3) -> api.ExtractResponse:
        """Return the nodes of each theory that each text may express, best first."""
        asked = await self._known(listed(texts, "texts"))
        parts = _extract(self._calls, asked, None if theories is None else listed(theories, "theories"), top)
        return _joined(parts, [await self._call(part) for part in parts])

    async def theories(self) -> api.TheoriesResponse:
        """Return the theories and their nodes."""
        return await self._call(THEORIES)

    async def value(self, value: str) -> api.ValueResponse:
        """Return what a value means, where it stands, and examples along its scale."""
        return await self._call(_value(value))

    async def anchors(self, value: str, offset: int = 0, limit: int = 100) -> api.AnchorsResponse:
        """Return anchors of a value, weakest first."""
        return await self._call(_anchors(value, offset, limit))

    async def vidb(self) -> api.VidbResponse:
        """Return the VIDB version in use, and what the server takes."""
        self._calls.vidb = await self._call(VIDB)
        return self._calls.vidb

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _known(self, texts: list[str]) -> list[str]:
        """The texts, once it is known how many a request may hold."""
        if len(texts) > 1 and self._calls.vidb is None:
            await self.vidb()
        return texts

    async def _call(self, ask: ApiCall[ModelT]) -> ModelT:
        for attempt in itertools.count():
            try:
                response = await self._http.send(self._calls.request(ask))
            except httpx.RequestError as error:
                failure = self._calls.lost(ask, error)
            else:
                if response.is_success:
                    return self._calls.read(ask, response)
                failure = self._calls.refused(ask, response)
            await asyncio.sleep(self._calls.wait(failure, attempt))
        raise AssertionError("itertools.count ends")

    async def _streamed(self, texts: list[str], rest: dict[str, Any]) -> AsyncIterator[Line]:
        course = ResumableStream(self._calls, await self._known(texts), rest)
        while ask := course.ask():
            failure = None
            try:
                response = await self._http.send(self._calls.request(ask), stream=True)
                async with contextlib.aclosing(response):
                    if response.is_success:
                        async for received in response.aiter_bytes():
                            for line in course.take(received):
                                yield line
                    else:
                        await response.aread()
                        failure = self._calls.refused(ask, response)
            except httpx.RequestError as error:
                failure = self._calls.lost(ask, error)
            await asyncio.sleep(course.wait(failure))
        yield course.end()


def _score(texts: list[str], rest: dict[str, Any]) -> ApiCall[api.ScoreResponse]:
    return ApiCall("POST", "/v1/score", api.ScoreResponse, fitting(api.ScoreRequest, {"texts": texts, **rest}))


def _compare(first: str, second: str, rest: dict[str, Any]) -> ApiCall[api.CompareResponse]:
    body = fitting(api.CompareRequest, {"first": first, "second": second, **rest})
    return ApiCall("POST", "/v1/compare", api.CompareResponse, body)


def _profile(texts: list[str], rest: dict[str, Any]) -> ApiCall[api.ProfileResponse]:
    return ApiCall("POST", "/v1/profile", api.ProfileResponse, fitting(api.ProfileRequest, {"texts": texts, **rest}))


def _value(name: str) -> ApiCall[api.ValueResponse]:
    return ApiCall("GET", f"/v1/values/{quote(name, safe=':')}", api.ValueResponse)


def _anchors(name: str, offset: int, limit: int) -> ApiCall[api.AnchorsResponse]:
    path = f"/v1/values/{quote(name, safe=':')}/anchors"
    return ApiCall("GET", path, api.AnchorsResponse, params={"offset": offset, "limit": limit})


def _extract(
    calls: ClientProtocol, texts: list[str], theories: list[str] | None, top: int
) -> list[ApiCall[api.ExtractResponse]]:
    """The requests that a list takes; at least one, which refuses an empty list."""
    parts: list[ApiCall[api.ExtractResponse]] = []
    start = 0
    while start < len(texts) or not parts:
        part = calls.fits(texts, start, rest := {"theories": theories, "top": top})
        body = fitting(api.ExtractRequest, {"texts": part, **rest})
        parts.append(ApiCall("POST", "/v1/extract", api.ExtractResponse, body, num_texts=len(part)))
        start += len(part)
    return parts


def _joined(asks: list[ApiCall[api.ExtractResponse]], answers: list[api.ExtractResponse]) -> api.ExtractResponse:
    """The answers to the parts of a list as one; `request_id` names all of them."""
    starts = itertools.accumulate((ask.num_texts for ask in asks), initial=0)
    found = [
        text.model_copy(update={"index": start + text.index})
        for start, answer in zip(starts, answers, strict=False)
        for text in answer.texts
    ]
    request_id = " ".join(answer.request_id for answer in answers)
    return api.ExtractResponse(request_id=request_id, model=answers[0].model, texts=found)


def _collected(texts: list[str], lines: list[Line]) -> Scores:
    """A stream that came to its end, as one answer."""
    start = next(line for line in lines if isinstance(line, api.StreamStart))
    scores = [api.Scored(**line.model_dump(exclude={"type"})) for line in lines if isinstance(line, api.StreamScore)]
    return Scores(**start.model_dump(include=set(api.ScoreResponse.model_fields)), scores=scores, texts=texts)


def _rest(values: Words, settings: Settings) -> dict[str, Any]:
    return {"values": listed(values, "values"), **settings}


def _streaming(texts: Words, values: Words, settings: Settings) -> tuple[list[str], dict[str, Any]]:
    """The texts and the rest of a stream's request; what is wrong with them is said before anything is sent."""
    asked, rest = listed(texts, "texts"), _rest(values, settings)
    fitting(api.StreamRequest, {"texts": asked[:1], **rest})
    return asked, rest
