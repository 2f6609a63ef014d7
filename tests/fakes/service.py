"""A service without models: scores are hashes of text and value. It can be slow, fail, or wait until it is cancelled."""

import asyncio
import functools
import hashlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import numpy as np

from serve.settings import HttpConfig
from valueflow import api
from valueflow.profiles.requested import profiles
from valueflow.ranking.content_error import ContentError
from valueflow.records import ValueId
from valueflow.service.steering import steering_of
from valueflow.service.work import Plan
from valueflow.theories import operational, resolve, theories

VERSION, JUDGE, ENCODER = "3f0c2ab94d17e6aa", "qwen3-8b", "minilm"
UNJUDGEABLE = "nobody can judge this"  # a text with it gets no score
HALTING = "the judge hesitates"  # one window of a text with it fails
MANY = "mft:care-harm"  # the value with more anchors than one request returns
LIMITS = HttpConfig().limits()


def share(*parts: object) -> float:
    """A number in [0, 1) that depends on the parts only."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:6], "big") / 2**48


def fake_score(index: int, text: str, value: str, num_windows: int = 3, error: str | None = None) -> api.Scored:
    value = str(value)
    if UNJUDGEABLE in text:
        return api.Scored(
            index=index, value=value, intensity=None, low=None, high=None, num_windows=0, num_failed=num_windows,
            error="no usable order",
        )  # fmt: skip
    failed = int(HALTING in text)
    mean, half = 16 * share(text, value) - 8, 0.5 + 3 * share(value, text) ** 2
    return api.Scored(
        index=index, value=value, intensity=mean, low=max(-10, mean - half), high=min(10, mean + half),
        num_windows=num_windows - failed, num_failed=failed, error="refused" if failed else error,
    )  # fmt: skip


def probability(first: api.Scored, second: api.Scored) -> float | None:
    if first.intensity is None or second.intensity is None:
        return None
    return 1 / (1 + 10 ** ((second.intensity - first.intensity) / 2))


@functools.cache
def anchors(value: str) -> list[api.Anchor]:
    """Anchors of a value, weakest first."""
    value = str(value)
    number = 1200 if value == MANY else 45
    means = sorted(19 * share(value, i, "anchor") - 9.5 for i in range(number))
    return [
        api.Anchor(
            text=f"A remark about {ValueId(value).node}, one of many that people make when they talk, number {i}",
            intensity=mean, low=max(-10, mean - 0.8), high=min(10, mean + 0.8), source="remarks", license="CC-BY-4.0",
        )
        for i, mean in enumerate(means)
    ]  # fmt: skip


class FakeService:
    """Stands in for `valueflow.service.Service`.

    Args:
        values: what every request is scored on; None: what its names stand for.
        version: of the VIDB.
        request_id: of every response; None: that of the request.
        remark: error of every score.
    """

    def __init__(
        self,
        values: list[str] | None = None,
        version: str = VERSION,
        request_id: str | None = None,
        remark: str | None = None,
    ) -> None:
        self.fixed_values, self.version, self.request_id, self.remark = values, version, request_id, remark
        self.limits = LIMITS
        self.modes: list[api.Mode] = ["ranked"]
        # What a judge is asked beyond the windows: of each text and value, and by value.
        self.relevance, self.sharpness = False, dict[str, int]()
        self.seconds = 0.0  # before a response, and before each score of a stream
        self.error: Exception | None = None
        self.check: Callable[[], Awaitable[None]] = _well
        # A stream ends after so many scores: with an exception, with a problem in its last line, or (None) without last line.
        self.end_after: int | None = None
        self.ending: Exception | api.Problem | None = None
        self.blocks = threading.Event()  # while set, requests wait
        self.requests: list[Any] = []
        self.entered, self.cancelled = threading.Semaphore(0), threading.Semaphore(0)
        self.closed = threading.Semaphore(0)  # streams that ended for any reason
        self.working = self.max_working = 0

    def values(self, names: list[str]) -> list[ValueId]:
        expanded = dict.fromkeys(value for name in names for value in _expand(name))
        return [ValueId(value) for value in self.fixed_values or expanded]

    def resolve(self, request: api.ScoringRequest) -> list[ValueId]:
        return self.values(request.values)

    def questions(self, request: api.ScoringRequest, num_texts: int, values: list[ValueId]) -> Plan:
        if request.mode == "fast":
            return Plan(num_texts, values, 0, 0, {})
        sharpness = {value: self.sharpness[value] for value in values if value in self.sharpness}
        scores = num_texts * len(values)
        return Plan(num_texts, values, scores * request.m, scores * self.relevance, sharpness)

    async def score(self, request, request_id, values=None):
        await self._work(request)
        scores = await self._scored(request)
        return api.ScoreResponse(scores=scores, **self._provenance(request, request_id))

    async def stream(self, request, request_id, values=None) -> AsyncIterator[Any]:
        try:
            await self._work(request)
            scores = await self._scored(request)
            values = self.resolve(request)
            agreement = [
                api.Agreement(value=value, texts=120, spearman=0.81, mean_absolute_error=1.26, coverage=0.95, width=7.5)
                for value in map(str, values)
            ]
            yield api.StreamStart(
                num_scores=len(scores), agreement=agreement if request.mode == "fast" else None,
                **self._provenance(request, request_id),
            )  # fmt: skip
            for i, score in enumerate(scores):
                if i == self.end_after:
                    if isinstance(self.ending, Exception):
                        raise self.ending
                    if self.ending:
                        yield api.StreamEnd(num_scores=i, problem=self.ending)
                    return
                try:
                    await asyncio.sleep(self.seconds)
                except asyncio.CancelledError:
                    self.cancelled.release()
                    raise
                yield api.StreamScore(**score.model_dump())
            yield api.StreamEnd(num_scores=len(scores))
        finally:
            self.closed.release()

    async def compare(self, request, request_id, values=None):
        await self._work(request)
        scores = self._scores(request, [request.first, request.second])
        half = len(scores) // 2
        comparisons = [
            api.Compared(value=first.value, probability=probability(first, second), first=first, second=second)
            for first, second in zip(scores[:half], scores[half:], strict=True)
        ]
        return api.CompareResponse(comparisons=comparisons, **self._provenance(request, request_id))

    async def profile(self, request, request_id, values=None):
        """The real profile of fake scores."""
        await self._work(request)
        values = self.resolve(request)
        corpus = {value: np.array([anchor.intensity for anchor in anchors(value)]) for value in values}
        scores = [s.model_copy(update={"judge_intensity": s.intensity}) for s in self._scores(request, request.texts)]
        fields = profiles(request, scores, values, dict.fromkeys(values, ContentError()), corpus)
        return api.ProfileResponse(**fields, **self._provenance(request, request_id))

    async def extract(self, request, request_id):
        await self._work(request)
        node = {"theory": "svt", "node": "svt:benevolence", "distance": 0.1, "direction": 1, "confidence": 0.5}
        texts = [api.ExtractedText(index=i, nodes=[api.Extracted(path=[text], **node)]) for i, text in enumerate(request.texts)]
        return api.ExtractResponse(request_id=request_id, model=ENCODER, texts=texts)

    def theories(self):
        if self.error:
            raise self.error
        infos = []
        for theory in theories().values():
            nodes = [
                api.NodeInfo(
                    id=f"{theory.id}:{node.id}", name=node.name, definition=node.definition,
                    parents=[f"{theory.id}:{parent}" for parent in node.parents], scored=node.operational,
                )
                for node in theory.nodes
            ]  # fmt: skip
            infos.append(api.TheoryInfo(id=theory.id, name=theory.name, nodes=nodes))
        return api.TheoriesResponse(theories=infos)

    def value(self, id):  # noqa: A002
        value = resolve(id)
        theory = theories()[value.theory]
        node = theory.node(value.node)
        return api.ValueResponse(
            id=str(value), name=node.name, definition=node.definition, supports=node.supports, opposes=node.opposes,
            paths=[list(path) for path in theory.paths(value.node)], scored=node.operational,
            examples=anchors(str(value))[::9] if node.operational else [],
        )  # fmt: skip

    def steering(self, id):  # noqa: A002
        return steering_of(id)

    def anchors(self, id, offset, limit):  # noqa: A002
        value = str(resolve(id))
        all_anchors = anchors(value)
        page = all_anchors[offset : offset + limit]
        return api.AnchorsResponse(value=value, vidb_version=self.version, total=len(all_anchors), anchors=page)

    def vidb(self):
        return api.VidbResponse(
            version=self.version, judge=JUDGE, modes=self.modes, extract=True,
            values={str(value): len(anchors(str(value))) for value in operational()}, num_texts=2485,
            licenses={"CC-BY-4.0": 2485}, lineage=[], created="2026-11-21T12:40:00+00:00", valueflow="1.0",
            limits=self.limits, relevance=self.relevance, sharpness=self.sharpness,
        )  # fmt: skip

    async def _work(self, request) -> None:
        self.requests.append(request)
        self.working += 1
        self.max_working = max(self.max_working, self.working)
        self.entered.release()
        try:
            while self.blocks.is_set():
                await asyncio.sleep(0.01)
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled.release()
            raise
        finally:
            self.working -= 1
        if self.error:
            raise self.error

    async def _scored(self, request) -> list[api.Scored]:
        """Like the service, in a thread if there are many."""
        if len(request.texts) * len(self.resolve(request)) <= 32:
            return self._scores(request, request.texts)
        return await asyncio.to_thread(self._scores, request, request.texts)

    def _scores(self, request, texts: list[str]) -> list[api.Scored]:
        values = self.resolve(request)
        return [fake_score(i, text, value, request.m, self.remark) for i, text in enumerate(texts) for value in values]

    def _provenance(self, request, request_id: str) -> dict:
        names = ("k", "m", "sampling", "seed")
        settings = {name: None if request.mode == "fast" else getattr(request, name) for name in names}
        judge = ENCODER if request.mode == "fast" else JUDGE
        request_id = self.request_id or request_id
        return {"request_id": request_id, "vidb_version": self.version, "judge": judge, "mode": request.mode} | settings


async def _well() -> None:
    pass


def _expand(name: str) -> list[str]:
    if name == "all":
        return list(operational())
    return [v for v in operational() if v.startswith(f"{name}:")] if name in theories() else [resolve(name)]
