"""The Ray Serve application: deployments for the HTTP API, the judge, and the encoder (mode fast and extraction).

python -m serve.local root=runs/demo
python -m serve.check infra/serve/gpu-node.yaml && serve deploy infra/serve/gpu-node.yaml
"""

import asyncio
import logging
import math
import os
import time
from importlib import resources
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from fastapi import FastAPI
from pydantic import Field
from ray import serve
from ray.exceptions import RayActorError
from ray.serve import Application
from ray.serve.handle import DeploymentHandle

from serve.access_log import log_in_replica
from serve.http import create
from serve.readiness import CHECK_SECONDS
from serve.settings import HttpConfig
from valueflow import config, store, vidb
from valueflow.callers import CALLER, Caller
from valueflow.config import Resources
from valueflow.distributed.embed import EmbedderConfig, embeddings_build, read_examples, read_vectors, resolve_labels
from valueflow.distributed.extract import ExtractionConfig
from valueflow.distributed.judge import served_judge
from valueflow.errors import InputError
from valueflow.evaluation.regression import IntensityRegression, load_or_fit
from valueflow.hives.extract import Extractor
from valueflow.judging.configs import AnyJudge, JudgeConfig
from valueflow.judging.online import MicroBatcher
from valueflow.service.local import judge_of
from valueflow.service.service import EmbeddingBackend, Service

log = logging.getLogger(__name__)

MAX_INLINE_BYTES = 2**20  # serialized on the event loop, in a millisecond
MAX_ATTEMPTS = 6  # of a call before the last one, if its replica dies
DEPLOYMENTS = ("evaluator", "judge", "encoder")
DRAIN_SECONDS = 60.0  # time for a replica to finish its requests before it is stopped


class ServeConfig(config.Config):
    """Arguments of the application; replicas are configured per deployment in the Serve config (infra/serve)."""

    root: str = Field(description="folder or URL under which all tables live")
    vidb: str = Field("current", description="version at start; user_config of deployment `evaluator` swaps it live")
    judge: JudgeConfig | None = Field(None, description="null: the judge that built the version, if it is the packaged encoder")
    fast: bool = Field(True, description="offer mode fast: regression on the embedding, fitted when a version is loaded")
    # The defaults of evaluator (0.5), judge (1) and encoder fit on two CPUs.
    encoder: EmbedderConfig = Field(EmbedderConfig(num_cpus=0.5), description="num_cpus and num_gpus are per replica")
    extraction: ExtractionConfig | None = Field(None, description="null: no POST /v1/extract")
    http: HttpConfig = HttpConfig()


class JudgeReplica:
    """Deployment of the judge: answers the windows of all requests."""

    def __init__(self, judge: AnyJudge, cache: str) -> None:
        self.ask_judge = served_judge(judge, cache)
        self.num_calls, self.since, self.busy = 0, 0.0, 0.0

    async def rank(self, windows: bytes, caller: Caller | None = None) -> bytes:
        """Return the rows of `rankings`, one per window (both serialized as Arrow); a cancelled call leaves the judge."""
        CALLER.set(caller)  # of this call's task
        table = _deserialized(windows)
        if not self.num_calls:
            self.since = time.perf_counter()
        self.num_calls += 1
        try:
            return _serialized(await self.ask_judge(table))
        finally:
            self.num_calls -= 1
            if not self.num_calls:
                self.busy += time.perf_counter() - self.since

    async def check(self) -> None:
        """Return if the judge can answer; an exception otherwise."""
        await self.ask_judge.check()

    def seconds(self) -> float:
        """Return the total time with at least one call in progress, for benchmarks."""
        return self.busy


class EncoderReplica:
    """Deployment of the encoder: embeds texts."""

    def __init__(self, encoder: EmbedderConfig) -> None:
        # They import torch.
        from valueflow.distributed.embed import Embedder
        from valueflow.service.embedding import ThreadEncoder

        self.encode = ThreadEncoder(Embedder(encoder).encoder, encoder.batch_size)

    async def embed(self, texts: list[str], caller: Caller | None = None) -> np.ndarray:
        """Return unit vectors, shape (T, D); a cancelled call leaves the encoder."""
        CALLER.set(caller)  # of this call's task
        return await self.encode(texts)

    async def check(self) -> None:
        """Return: a replica that is called has loaded its model."""


class EvaluatorReplica:
    """Deployment of the HTTP API over one VIDB version; a new version replaces it between two requests."""

    def __init__(self, served: ServeConfig, judge: DeploymentHandle, encoder: DeploymentHandle | None) -> None:
        self.served, self.judge, self.encoder = served, judge, encoder
        self.ask_judge = MicroBatcher(self._rank)
        self.service: Service | None = None
        self.first: asyncio.Task[None] | None = None  # loads the first version
        self.started = asyncio.Event()  # it is loaded, or cannot be
        self.answered = {"judge": -math.inf, "encoder": -math.inf}  # when

    def __serve_build_asgi_app__(self) -> FastAPI:
        page = resources.files("serve").joinpath("page.html").read_text("utf-8")
        log_in_replica()
        return create(lambda: self.service, self.served.http, page, proxy_sends_id=True, started=self.started)

    async def reconfigure(self, user_config: dict) -> None:
        """Load the version in user_config (`{"vidb": "v-…"}`); running requests finish with the previous one.

        The first version is loaded in the background, so that /readyz is answered meanwhile. A later one that cannot be loaded
        is logged, and the previous one stays in use: Ray Serve would stop the replica for an exception.

        Raises:
            InputError: the first user_config has an unknown key.
        """
        if self.first is None:
            check_user_config(user_config)
            self.first = asyncio.create_task(self._replace(user_config))
        else:
            await asyncio.wait({self.first})
            await self._replace(user_config)

    def check_health(self) -> None:
        """Called by Ray Serve, which replaces the replica on an error.

        Raises:
            RuntimeError: the first version could not be loaded; the cause is in the log.
        """
        if self.started.is_set() and self.service is None:
            raise RuntimeError("no version could be loaded; the cause is in the log of this replica")

    async def _replace(self, user_config: dict) -> None:
        version = str(user_config.get("vidb", self.served.vidb))
        try:
            check_user_config(user_config)
            self.service = await asyncio.to_thread(self._load, version, asyncio.get_running_loop())
        except Exception:
            in_use = f"VIDB {self.service.version.build.build_id} stays in use" if self.service else "there is none to serve"
            log.exception("cannot load VIDB %s; %s", version, in_use)
        self.started.set()

    def _load(self, version: str, loop: asyncio.AbstractEventLoop) -> Service:
        served = self.served
        loaded = vidb.load(served.root, version)

        def embed_now(texts: list[str]) -> np.ndarray:
            return asyncio.run_coroutine_threadsafe(self._embed(texts), loop).result()

        embedding = None
        if self.encoder is not None:
            fast: IntensityRegression | None = load_or_fit(loaded, served.encoder.model, embed_now) if served.fast else None
            extractor = _extractor(served) if served.extraction else None
            embedding = EmbeddingBackend(served.encoder.model, self._embed, fast, extractor)
        judge = judge_of(loaded, served.judge)
        service = Service(loaded, judge, self.ask_judge, served.http.limits(), embedding, self._check_backends)
        service.load()
        return service

    async def _rank(self, windows: pa.Table) -> pa.Table:
        content = await asyncio.to_thread(_serialized, windows) if windows.nbytes > MAX_INLINE_BYTES else _serialized(windows)
        rows = _deserialized(await _call(self.judge.rank, content))
        if rows["order"].null_count < rows.num_rows:
            self.answered["judge"] = time.monotonic()
        return rows

    async def _embed(self, texts: list[str]) -> np.ndarray:
        assert self.encoder
        z_TD = await _call(self.encoder.embed, texts)
        self.answered["encoder"] = time.monotonic()
        return z_TD

    async def _check_backends(self) -> None:
        """Ask the judge and the encoder, unless requests got an answer lately: under load a question would wait in the queue.

        Raises:
            Exception: one of them does not answer.
        """
        backends = {"judge": self.judge} | ({"encoder": self.encoder} if self.encoder else {})
        now = time.monotonic()
        silent = [handle for name, handle in backends.items() if now - self.answered[name] > CHECK_SECONDS]
        await asyncio.gather(*(_answer(handle) for handle in silent))


async def _answer(handle: DeploymentHandle) -> None:
    await handle.check.remote()


def _serialized(table: pa.Table) -> bytes:
    """A table in the Arrow stream format; Ray would take milliseconds to serialize a small one."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue().to_pybytes()


def _deserialized(content: bytes) -> pa.Table:
    return pa.ipc.open_stream(content).read_all()


async def _call(method: DeploymentHandle, argument: Any) -> Any:
    """Call a replica for the current caller, and another one if it dies before it answers; the calls have no side effects."""
    for attempt in range(MAX_ATTEMPTS):
        try:
            return await method.remote(argument, CALLER.get())
        except RayActorError:
            await asyncio.sleep(0.2 * 2**attempt)
    return await method.remote(argument, CALLER.get())


def builder(args: dict[str, Any]) -> Application:
    """Return the application for the arguments of `ServeConfig` (on a command line `key=value`, nested keys dotted).

    Raises:
        InputError: a key is unknown or a value invalid; root is relative on a cluster; nothing is published under root, or the
            version is damaged; builds for extraction are missing.
    """
    settings = config.parse(ServeConfig, args, "serve arguments")
    if ray.is_initialized():  # in a task of the cluster that is joined, whose folder is not the user's
        require_absolute(settings.root)
    settings = settings.model_copy(update={"root": absolute(settings.root)})
    version = vidb.load(settings.root, settings.vidb)
    # Here and not in a replica, for which Ray Serve would first stop one that serves the version before.
    store.verify(version.build)
    judge = judge_of(version, settings.judge)
    # Replicas are created without the version, so that changing it alone reconfigures the running ones.
    served = settings.model_copy(update={"judge": judge, "vidb": "current"})
    if served.extraction:
        _extraction_builds(served)  # fail here with a clear error rather than in a replica
    encoder = None
    if served.fast or served.extraction:
        options = _actor_options(Resources(served.encoder.num_cpus, served.encoder.num_gpus))
        deploy = serve.deployment(
            name="encoder", ray_actor_options=options, max_ongoing_requests=64, graceful_shutdown_timeout_s=DRAIN_SECONDS
        )
        encoder = deploy(EncoderReplica).bind(served.encoder)
    deploy = serve.deployment(
        name="judge",
        ray_actor_options=_actor_options(judge.replica_resources),
        max_ongoing_requests=256,
        graceful_shutdown_timeout_s=DRAIN_SECONDS,
    )
    judge_app = deploy(JudgeReplica).bind(judge, store.cache_url(served.root))
    deploy = serve.deployment(
        name="evaluator",
        ray_actor_options={"num_cpus": 0.5},
        # Above the application's own limit: it refuses excess requests itself, with a reason and Retry-After.
        max_ongoing_requests=2 * (served.http.max_in_flight + served.http.max_queued),
        user_config={"vidb": settings.vidb},
        graceful_shutdown_timeout_s=DRAIN_SECONDS,
    )
    return deploy(serve.ingress()(EvaluatorReplica)).bind(served, judge_app, encoder)


def absolute(root: str) -> str:
    """Return a root that names the same folder in every process of this machine; URLs stay as they are."""
    return root if "://" in root else os.path.abspath(os.path.expanduser(root))


def require_absolute(root: str) -> None:
    """Check a root that other processes read.

    Raises:
        InputError: it is relative.
    """
    if "://" not in root and not os.path.isabs(root):
        raise InputError(
            f"root {root!r} is relative: on a cluster it would be a folder of the head; write an absolute path that every node "
            "reads, or a URL (python -m serve.local serves a relative one on this machine)"
        )


def check_user_config(user_config: dict[str, Any]) -> dict[str, Any]:
    """Return the user_config of deployment `evaluator` after a check of its keys.

    Raises:
        InputError: a key is unknown.
    """
    if unknown := set(user_config) - {"vidb"}:
        raise InputError(f"user_config of deployment 'evaluator' has the unknown key {unknown.pop()!r}; allowed: vidb")
    return user_config


def _extraction_builds(served: ServeConfig) -> tuple[store.Build, store.Build, store.Build]:
    """The labelled texts, their labels and their embeddings.

    Raises:
        InputError: one of them does not exist.
    """
    assert served.extraction
    texts, labels = resolve_labels(served.root, served.extraction.texts, served.extraction.labels)
    embeddings = embeddings_build(texts, served.encoder, served.root)
    if not store.manifest(embeddings):
        raise InputError(
            f"the labelled texts {texts.build_id} have no vectors by {served.encoder.model}; run python -m jobs.embed with "
            f"root={served.root} texts={texts.build_id} encoder.model={served.encoder.model} first, or leave out `extraction`"
        )
    return texts, labels, embeddings


def _extractor(served: ServeConfig) -> Extractor:
    texts, labels, embeddings = _extraction_builds(served)
    assert served.extraction
    examples = read_examples(texts, labels)
    return Extractor(read_vectors(embeddings, examples.text_ids), examples, served.extraction.k)


def _actor_options(replica: Resources) -> dict[str, float]:
    return {"num_cpus": replica.cpus, "num_gpus": replica.gpus}
