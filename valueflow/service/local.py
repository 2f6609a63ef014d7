"""A service in this process, without a server."""

import logging
from typing import Any

from pydantic import TypeAdapter, ValidationError

from valueflow import api, store, vidb
from valueflow.console import masked
from valueflow.errors import InputError
from valueflow.evaluation.regression import load_or_fit
from valueflow.judging.configs import AnyJudge, EncoderJudge, JudgeConfig, WorkerJudge
from valueflow.judging.fingerprint import RESOURCES
from valueflow.judging.online import online_judge
from valueflow.models import MINILM, MPNET
from valueflow.service.service import EmbeddingBackend, Service
from valueflow.vidb.version import Vidb

log = logging.getLogger(__name__)

# Reported by `Service.vidb`; nothing is enforced in this process.
LOCAL_LIMITS = api.Limits(
    max_texts=api.MAX_TEXTS, max_streamed=api.MAX_STREAMED, max_chars=20_000, max_units=10_000, max_body_bytes=2**26
)

SHOWN_CHARS = 100  # of a setting in a message


def local_service(root: str, version: str = "current", judge: AnyJudge | None = None, fast: bool = False) -> Service:
    """Return a service in this process.

    Args:
        root: folder or URL with the tables.
        version: id of the VIDB version.
        judge: default: see `judge_of`.
        fast: offer mode fast with MiniLM; its regressions are fitted and stored under `root` unless they already are.

    Raises:
        InputError: no version is published, the judge runs under Ray Serve only, or it must be named (see `judge_of`).
    """
    loaded = vidb.load(root, version)
    judge = judge_of(loaded, judge)
    if isinstance(judge, EncoderJudge):
        log.info("loading the judge %r …", judge.name)
    ask_judge = online_judge(judge, store.cache_url(root))
    return Service(loaded, judge, ask_judge, LOCAL_LIMITS, _minilm(loaded) if fast else None)


def judge_of(version: Vidb, configured: AnyJudge | None) -> AnyJudge:
    """Return the configured judge, else the judge that built the version, else (an imported version) the encoder judge.

    A version is data that somebody else may have written. So its files may name the packaged encoder or a simulated judge,
    which call nobody and load nothing; every other judge must be configured.

    Raises:
        InputError: another judge built the version, and none is configured.
    """
    if configured:
        return configured
    named = version.details.resolved.get("judge")
    if not named:
        log.info("judge: the packaged encoder, since VIDB %s was imported", version.build.build_id)
        return EncoderJudge()
    judge = _harmless(named)
    if judge is None:
        raise InputError(
            f"VIDB {version.build.build_id} says that it was built by a judge with {_described(named)}; only the packaged "
            "encoder is taken from the files of a version, which somebody else may have written. If you trust this judge, name "
            "it yourself with --judge FILE.yaml (in a job, a Serve config or Python: judge)"
        )
    log.info("judge: %r of kind %s, which built VIDB %s", judge.name, judge.kind, version.build.build_id)
    return judge


def _harmless(named: Any) -> WorkerJudge | None:
    """The judge that a manifest names, if it calls nobody and loads only what ships; its resources are the defaults."""
    if not isinstance(named, dict) or named.get("kind") not in ("encoder", "simulated"):
        return None
    try:
        taken = {name: value for name, value in named.items() if name == "name" or name not in RESOURCES}
        judge: AnyJudge = TypeAdapter(JudgeConfig).validate_python(taken)
    except ValidationError:
        return None
    if isinstance(judge, EncoderJudge) and judge.model not in (MINILM, MPNET):
        return None
    return judge if isinstance(judge, WorkerJudge) else None


def _described(named: Any) -> str:
    """What a manifest says about a judge, on one line."""
    settings = named if isinstance(named, dict) else {"judge": named}
    shown = ("kind", "name", "model", "url", "key_env", "judge")
    public = masked({name: settings[name] for name in shown if settings.get(name)})
    return ", ".join(f"{name} {str(value)[:SHOWN_CHARS]!r}" for name, value in public.items()) or "no kind"


def _minilm(version: Vidb) -> EmbeddingBackend:
    # These take seconds to import.
    from valueflow.hives.encoder import Encoder
    from valueflow.service.embedding import ThreadEncoder

    log.info("loading the encoder %r, for mode fast …", MINILM)
    encoder = Encoder.load(MINILM)
    return EmbeddingBackend(MINILM, ThreadEncoder(encoder), load_or_fit(version, MINILM, encoder.embed))
