"""A service in this process, without a server."""

import asyncio

import numpy as np
from pydantic import TypeAdapter

from valueflow import api, store, vidb
from valueflow.evaluation.regression import load_or_fit
from valueflow.judging.configs import AnyJudge, EncoderJudge, JudgeConfig
from valueflow.judging.online import online_judge
from valueflow.models import MINILM
from valueflow.service.service import EmbeddingBackend, Service
from valueflow.vidb.version import Vidb

# Reported by `Service.vidb`; nothing is enforced in this process.
LOCAL_LIMITS = api.Limits(
    max_texts=api.MAX_TEXTS, max_streamed=api.MAX_STREAMED, max_chars=20_000, max_units=10_000, max_body_bytes=2**26
)


def local_service(root: str, version: str = "current", judge: AnyJudge | None = None, fast: bool = False) -> Service:
    """Return a service in this process.

    Args:
        root: folder or URL with the tables.
        version: id of the VIDB version.
        judge: default: the judge that built the version; the encoder judge for an imported version.
        fast: offer mode fast with MiniLM; its regressions are fitted and stored under `root` unless they already are.

    Raises:
        InputError: no version is published, or the judge runs under Ray Serve only.
    """
    loaded = vidb.load(root, version)
    judge = judge_of(loaded, judge)
    ask_judge = online_judge(judge, store.cache_url(root))
    return Service(loaded, judge, ask_judge, LOCAL_LIMITS, _minilm(loaded) if fast else None)


def judge_of(version: Vidb, configured: AnyJudge | None) -> AnyJudge:
    """Return the configured judge, else the judge that built the version, else (an imported version) the encoder judge."""
    if configured:
        return configured
    builder = version.details.resolved.get("judge")
    return TypeAdapter(JudgeConfig).validate_python(builder) if builder else EncoderJudge()


def _minilm(version: Vidb) -> EmbeddingBackend:
    from valueflow.hives.encoder import Encoder  # takes seconds to import

    encoder = Encoder.load(MINILM)

    async def embed(texts: list[str]) -> np.ndarray:
        return await asyncio.to_thread(encoder.embed, texts)

    return EmbeddingBackend(MINILM, embed, load_or_fit(version, MINILM, encoder.embed))
