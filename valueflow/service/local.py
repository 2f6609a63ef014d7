"""The service in this process, without a server."""

import asyncio

import numpy as np
from pydantic import TypeAdapter

from valueflow import store, vidb
from valueflow.judging.configs import AnyJudge, EncoderJudge, JudgeConfig
from valueflow.judging.online import online_judge
from valueflow.models import MINILM
from valueflow.service.service import Service, Space
from valueflow.vidb.version import Vidb


def local(root: str, version: str = "current", judge: AnyJudge | None = None, fast: bool = False) -> Service:
    """Return a service in this process.

    Args:
        root: folder or URL with the tables.
        version: of the VIDB.
        judge: who answers; by default the judge that built the version, and the encoder for an imported one.
        fast: offer mode fast, by MiniLM; fitted and stored under root where it is not yet.

    Raises:
        InputError: nothing is published, or the judge runs under Ray Serve only.
    """
    loaded = vidb.load(root, version)
    judge = judge_of(loaded, judge)
    return Service(loaded, judge, online_judge(judge, store.cache_url(root)), _space(loaded) if fast else None)


def judge_of(version: Vidb, configured: AnyJudge | None) -> AnyJudge:
    """Return the judge to use with a version: the configured one, else its builder, else (an imported version) the encoder."""
    if configured:
        return configured
    builder = version.details.resolved.get("judge")
    return TypeAdapter(JudgeConfig).validate_python(builder) if builder else EncoderJudge()


def _space(version: Vidb) -> Space:
    from valueflow.evaluation.regression import load_or_fit  # these take seconds to import
    from valueflow.hives.encoder import Encoder

    encoder = Encoder.load(MINILM)

    async def embed(texts: list[str]) -> np.ndarray:
        return await asyncio.to_thread(encoder.embed, texts)

    return Space(MINILM, embed, load_or_fit(version, MINILM, encoder.embed))
