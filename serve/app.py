"""The evaluator as a Ray Serve application: an HTTP front, a judge, and an encoder for fast scores and extraction.

serve run serve.app:builder root=runs/demo
serve deploy infra/serve/laptop.yaml
"""

import asyncio
import time
from importlib import resources
from typing import Any

import numpy as np
import pyarrow as pa
from fastapi import FastAPI
from pydantic import Field
from ray import serve
from ray.exceptions import RayActorError
from ray.serve import Application
from ray.serve.handle import DeploymentHandle

from serve.http import create
from serve.settings import HttpConfig
from valueflow import config, store, vidb
from valueflow.config import Resources
from valueflow.distributed.embed import EmbedderConfig, embeddings_build, read_examples, read_vectors, resolve_labels
from valueflow.distributed.extract import ExtractionConfig
from valueflow.errors import InputError
from valueflow.evaluation.regression import IntensityRegression, load_or_fit
from valueflow.hives.extract import Extractor
from valueflow.judging.configs import AnyJudge, JudgeConfig
from valueflow.judging.kind import OnlineJudge
from valueflow.judging.online import MicroBatcher, online_judge
from valueflow.llm.configs import VllmModel
from valueflow.service.local import judge_of
from valueflow.service.service import Service, Space

TRIES = 6  # of a call whose replica is lost
DRAIN = 60.0  # seconds that a replica may take to end what it has begun


class ServeConfig(config.Config):
    """What is served; how many replicas do it is set by deployment in Serve's own config (infra/serve)."""

    root: str = Field(description="folder or URL under which all tables live")
    vidb: str = Field("current", description="version served at first; user_config of deployment `evaluator` swaps it live")
    judge: JudgeConfig | None = Field(None, description="null: the judge that built the version")
    fast: bool = Field(True, description="offer mode fast: regression on the encoder's embedding, fitted when a version loads")
    # Two CPUs hold the defaults of the front (0.5), the judge (1) and the encoder.
    encoder: EmbedderConfig = Field(EmbedderConfig(num_cpus=0.5), description="its num_cpus and num_gpus are per replica")
    extraction: ExtractionConfig | None = Field(None, description="null: no POST /v1/extract")
    http: HttpConfig = HttpConfig()


class JudgeReplica:
    """Answers windows of all callers together."""

    def __init__(self, judge: AnyJudge, cache: str) -> None:
        if isinstance(judge, VllmModel):
            from valueflow.distributed.vllm_engine import OnlineEngine

            self.judge: OnlineJudge = OnlineEngine(judge)
        else:
            self.judge = online_judge(judge, cache)
        self.asking, self.since, self.busy = 0, 0.0, 0.0

    async def rank(self, windows: bytes) -> bytes:
        """Return rows of `rankings`, one a window (both packed)."""
        asked = _unpacked(windows)
        if not self.asking:
            self.since = time.perf_counter()
        self.asking += 1
        try:
            return _packed(await self.judge(asked))
        finally:
            self.asking -= 1
            if not self.asking:
                self.busy += time.perf_counter() - self.since

    def seconds(self) -> float:
        """Return for how long there has been something to answer, for benchmarks."""
        return self.busy


class EncoderReplica:
    """Embeds texts."""

    def __init__(self, encoder: EmbedderConfig) -> None:
        from valueflow.distributed.embed import Embedder

        self.encoder, self.size = Embedder(encoder).encoder, encoder.batch_size
        self.free = asyncio.Lock()

    async def embed(self, texts: list[str]) -> np.ndarray:
        """Return unit vectors (T, D)."""
        async with self.free:
            return await asyncio.to_thread(self.encoder.embed, texts, self.size)


class EvaluatorReplica:
    """The HTTP front: holds a version of the VIDB and asks the judge; a new version replaces it between two requests."""

    def __init__(self, served: ServeConfig, judge: DeploymentHandle, encoder: DeploymentHandle | None) -> None:
        self.served, self.judge, self.encoder = served, judge, encoder
        self.ask = MicroBatcher(self._rank)
        self.service: Service | None = None

    def __serve_build_asgi_app__(self) -> FastAPI:
        page = resources.files("serve").joinpath("page.html").read_text("utf-8")
        return create(lambda: self.service, self.served.http, page)

    async def reconfigure(self, user_config: dict) -> None:
        """Load the version that user_config names (`{"vidb": "v-…"}`); requests under way end with the one before.

        Raises:
            InputError: there is no such version; the one before stays.
        """
        unknown = set(user_config) - {"vidb"}
        if unknown:
            raise InputError(f"user_config of deployment 'evaluator' has the unknown key {unknown.pop()!r}; allowed: vidb")
        self.service = await asyncio.to_thread(
            self._loaded, str(user_config.get("vidb", self.served.vidb)), asyncio.get_running_loop()
        )

    def _loaded(self, version: str, loop: asyncio.AbstractEventLoop) -> Service:
        served = self.served
        loaded = vidb.load(served.root, version)

        def embed_now(texts: list[str]) -> np.ndarray:
            return asyncio.run_coroutine_threadsafe(self._embed(texts), loop).result()

        space = None
        if self.encoder is not None:
            fast: IntensityRegression | None = load_or_fit(loaded, served.encoder.model, embed_now) if served.fast else None
            space = Space(served.encoder.model, self._embed, fast, _extractor(served) if served.extraction else None)
        service = Service(loaded, judge_of(loaded, served.judge), self.ask, space, served.http.limits())
        for value in loaded.calibrations:
            service.warm(value)
        return service

    async def _rank(self, windows: pa.Table) -> pa.Table:
        return _unpacked(await _asked(self.judge.rank, _packed(windows)))

    async def _embed(self, texts: list[str]) -> np.ndarray:
        assert self.encoder
        return await _asked(self.encoder.embed, texts)


def _packed(table: pa.Table) -> bytes:
    """A small table for a handle: Arrow's own format, since Ray takes milliseconds to serialise a table."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue().to_pybytes()


def _unpacked(packed: bytes) -> pa.Table:
    return pa.ipc.open_stream(packed).read_all()


async def _asked(method: DeploymentHandle, given: Any) -> Any:
    """Ask a replica, and another one where it is lost before it answers: what is asked has no effect but its answer."""
    for attempt in range(TRIES):
        try:
            return await method.remote(given)
        except RayActorError:
            await asyncio.sleep(0.2 * 2**attempt)
    return await method.remote(given)


def builder(args: dict[str, Any]) -> Application:
    """Return the application that arguments describe (see `ServeConfig`; on a command line `key=value`, dotted where nested).

    Raises:
        InputError: a key is unknown or a value not allowed; nothing is published under root; the judge lacks something.
    """
    asked = config.parse(ServeConfig, args, "serve arguments")
    judge = judge_of(vidb.load(asked.root, asked.vidb), asked.judge)
    # The version is not among what replicas are made with: a change of it alone goes to those that run.
    served = asked.model_copy(update={"judge": judge, "vidb": "current"})
    if served.extraction:
        _extraction_builds(served)  # what is missing is said here, not by a dying replica
    encoder = None
    if served.fast or served.extraction:
        options = _actor_options(Resources(served.encoder.num_cpus, served.encoder.num_gpus))
        shape = serve.deployment(
            name="encoder", ray_actor_options=options, max_ongoing_requests=64, graceful_shutdown_timeout_s=DRAIN
        )
        encoder = shape(EncoderReplica).bind(served.encoder)
    shape = serve.deployment(
        name="judge",
        ray_actor_options=_actor_options(judge.replica_resources),
        max_ongoing_requests=256,
        graceful_shutdown_timeout_s=DRAIN,
    )
    asking = shape(JudgeReplica).bind(judge, store.cache_url(served.root))
    shape = serve.deployment(
        name="evaluator",
        ray_actor_options={"num_cpus": 0.5},
        # More than the application takes: it refuses by itself what is too much, with a reason and the time to come back.
        max_ongoing_requests=2 * (served.http.max_in_flight + served.http.max_queued),
        user_config={"vidb": asked.vidb},
        graceful_shutdown_timeout_s=DRAIN,
    )
    return shape(serve.ingress()(EvaluatorReplica)).bind(served, asking, encoder)


def _extraction_builds(served: ServeConfig) -> tuple[store.Build, store.Build, store.Build]:
    """The labelled texts, their labels and their vectors."""
    assert served.extraction
    of, labels = resolve_labels(served.root, served.extraction.texts, served.extraction.labels)
    embedded = embeddings_build(of, served.encoder, served.root)
    if not store.manifest(embedded):
        raise InputError(
            f"the labelled texts {of.build_id} have no vectors by {served.encoder.model}; run python -m jobs.embed with "
            f"root={served.root} texts={of.build_id} encoder.model={served.encoder.model} first, or leave extraction out"
        )
    return of, labels, embedded


def _extractor(served: ServeConfig) -> Extractor:
    of, labels, embedded = _extraction_builds(served)
    assert served.extraction
    examples = read_examples(of, labels)
    return Extractor(read_vectors(embedded, examples.text_ids), examples, served.extraction.k)


def _actor_options(replica: Resources) -> dict[str, float]:
    return {"num_cpus": replica.cpus, "num_gpus": replica.gpus}
