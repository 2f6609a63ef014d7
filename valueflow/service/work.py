"""Parts of a request that take longer than other requests should wait, for threads."""

import asyncio
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

from valueflow import api
from valueflow.evaluation.scoring import EvaluatorConfig, Scoring
from valueflow.hives.extract import Extractor
from valueflow.ranking.windows import with_texts
from valueflow.records import ValueId, clean, flaw, text_id

CHUNK = 256  # texts of one value that are planned and scored together
MAX_INLINE_TEXTS = 32  # work on up to so many texts or scores is done on the event loop: it takes milliseconds
T = TypeVar("T")


class Plan(NamedTuple):
    """Windows that a request takes.

    Attributes:
        texts: distinct texts that can be judged.
        values: on which they are scored.
        windows: that rank the texts.
        relevance: of one text each, which ask how far it concerns a value.
        sharpness: by value, windows of anchors alone that estimate the judge's sharpness first.
    """

    texts: int
    values: list[ValueId]
    windows: int
    relevance: int
    sharpness: dict[ValueId, int]


def flaw_of(text: str) -> str | None:
    """Return why a text is not judged, None if it is."""
    problem = flaw(text)
    return f"the text has {problem}" if problem else None if text.strip() else "the text is empty"


def distinct(texts: list[str]) -> tuple[list[str], set[str], list[dict[str, str]]]:
    """Return the id of each text or why it is not judged, these reasons, and the other texts by id, each once, in chunks."""
    problems = [flaw_of(text) for text in texts]
    ids = [problem or text_id(text) for problem, text in zip(problems, texts, strict=True)]
    # Scores do not depend on the order; sorted, equal sets of texts make equal chunks.
    readable = sorted({i: clean(text) for i, text, problem in zip(ids, texts, problems, strict=True) if not problem}.items())
    chunks = [dict(readable[start : start + CHUNK]) for start in range(0, len(readable), CHUNK)]
    return ids, {problem for problem in problems if problem}, chunks


def evaluator_config(request: api.ScoringRequest) -> EvaluatorConfig:
    """Return how a request plans its windows."""
    return EvaluatorConfig(k=request.k, m=request.m, sampling=request.sampling, seed=request.seed)


def in_order(answers: pa.Table, windows: pa.Table) -> list[dict]:
    """Return the rows of `rankings` in the order of the windows."""
    rows = {row["window_id"]: row for row in answers.to_pylist()}
    return [rows[i] for i in windows["window_id"].to_pylist()]


def windows_of(scoring: Scoring, round_: int, texts: Mapping[str, str]) -> pa.Table:
    """Return the windows of a round with their texts."""
    return with_texts(scoring.plan(round_), texts)


def set_nodes(extractor: Extractor, z_TD: np.ndarray, texts: list[api.ExtractedText], theories: list[str], top: int) -> None:
    """Set the nodes of some texts."""
    for text, by_theory in zip(texts, extractor(z_TD, top), strict=True):
        nodes = [node for theory in theories for node in by_theory.get(theory, [])]
        text.nodes = [api.Extracted(**node._asdict() | {"path": list(node.path)}) for node in nodes]


async def run(num: int, work: Callable[..., T], *arguments: object) -> T:
    """Return the result of work on so many texts or scores, computed in a thread if it would block other requests."""
    return work(*arguments) if num <= MAX_INLINE_TEXTS else await asyncio.to_thread(work, *arguments)
