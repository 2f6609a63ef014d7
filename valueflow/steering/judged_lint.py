"""The rules of the wordings that need a judge: signs of clauses, nearest value, order of the levels (rules 3, 9 and 10).

The judge is a function from texts to their support for each of the 32 values, as the encoder judge gives it
(`judging.encoder.EncoderRanker.scores`). It was fitted to single statements, and its features are means over a text; so a
persona is read sentence by sentence, and its score is the mean over its sentences. `benchmarks/wording.py` prints both.

Shapes: V values (rows), W values (columns of the judge), L levels from -2 to 2 with the neutral persona at 0, K variants.
"""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from valueflow.records import ValueId
from valueflow.steering.lint import SENTENCE, Finding
from valueflow.steering.wording import LEVELS, VARIANTS, WordingTable
from valueflow.theories import operational

Scores = Callable[[list[str]], np.ndarray]  # N texts -> (N, W)
Embed = Callable[[list[str]], np.ndarray]  # N texts -> (N, dimensions)
NEUTRAL = 2  # index of the neutral persona among the levels


class Readings(NamedTuple):
    """What the judge says of all wordings.

    Attributes:
        level_VLKW: score of each wording; that of level 0 is the mean over the neutral personas, in every variant.
        clauses: value, level, variant and text of each sentence.
        clause_C: score of the sentence for its own value.
    """

    level_VLKW: np.ndarray
    clauses: list[tuple[ValueId, int, int, str]]
    clause_C: np.ndarray


def sentences(text: str) -> list[str]:
    """Return the sentences of a persona."""
    return [sentence.strip() for sentence in SENTENCE.findall(text)]


def whole(text: str) -> list[str]:
    """Return the persona as one text, the other way to read it."""
    return [text]


def read(table: WordingTable, scores: Scores, split: Callable[[str], list[str]] = sentences) -> Readings:
    """Return the judge's scores of all wordings; of one, the mean over the pieces into which `split` cuts it."""
    cells = [
        (value, level, variant, text)
        for value in operational()
        for level in LEVELS
        for variant, text in enumerate(table.values[value].texts[level])
    ]
    pieces = [split(text) for *_, text in cells] + [split(text) for text in table.neutral]
    distinct = {piece: i for i, piece in enumerate(dict.fromkeys(piece for group in pieces for piece in group))}
    score_NW = scores(list(distinct))
    mean_CW = np.stack([score_NW[[distinct[piece] for piece in group]].mean(0) for group in pieces])
    num_values = len(operational())
    levels = mean_CW[: len(cells)].reshape(num_values, len(LEVELS), VARIANTS, num_values)
    neutral = np.broadcast_to(mean_CW[len(cells) :].mean(0), (num_values, 1, VARIANTS, num_values))
    level_VLKW = np.concatenate([levels[:, :NEUTRAL], neutral, levels[:, NEUTRAL:]], axis=1)
    clauses = [(value, level, variant, piece) for (value, level, variant, text) in cells for piece in split(text)]
    columns = {value: i for i, value in enumerate(operational())}
    clause_C = np.array([score_NW[distinct[piece], columns[value]] for value, _, _, piece in clauses])
    return Readings(level_VLKW, clauses, clause_C)


def own_levels(readings: Readings) -> np.ndarray:
    """Return each value's score of its own levels, the mean over the variants; shape (V, L)."""
    return np.einsum("vlkv->vl", readings.level_VLKW) / VARIANTS


def is_ordered(level_VL: np.ndarray) -> np.ndarray:
    """Return for each value whether its levels ascend; shape (V)."""
    ascending: np.ndarray = np.all(np.diff(level_VL, axis=-1) > 0, axis=-1)
    return ascending


def order_findings(readings: Readings) -> list[Finding]:
    """Rule 10: the judge orders -2 < -1 < neutral < 1 < 2, by the mean over the variants."""
    level_VL, levels = own_levels(readings), sorted((*LEVELS, 0))
    return [
        Finding(10, value, levels[i + 1], 0, f"scores {high:.2f}, and level {levels[i]} scores {low:.2f}")
        for value, level_L in zip(operational(), level_VL, strict=True)
        for i, (low, high) in enumerate(itertools.pairwise(level_L))
        if high <= low
    ]


def clause_findings(readings: Readings) -> list[Finding]:
    """Rule 3: each sentence has the sign of its level; a sentence that the judge finds irrelevant (score 0) has none."""
    return [
        Finding(3, value, level, variant, f"{text!r} scores {score:+.2f}")
        for (value, level, variant, text), score in zip(readings.clauses, readings.clause_C, strict=True)
        if score * level < 0
    ]


def nearest_findings(table: WordingTable, embed: Embed) -> list[Finding]:
    """Rule 9: on average a wording is nearer to its value's others of the same sign than to those of any other value."""
    values = operational()
    cells = [
        (v, level, variant, text)
        for v, value in enumerate(values)
        for level in LEVELS
        for variant, text in enumerate(table.values[value].texts[level])
    ]
    vector_CD = embed([text for *_, text in cells])
    vector_CD = vector_CD / np.linalg.norm(vector_CD, axis=1, keepdims=True)
    cosine_CC = vector_CD @ vector_CD.T
    value_C, sign_C = np.array([cell[0] for cell in cells]), np.sign([cell[1] for cell in cells])
    findings = []
    for c, (v, level, variant, _) in enumerate(cells):
        peers = (sign_C == sign_C[c]) & (np.arange(len(cells)) != c)
        near_V = np.array([cosine_CC[c, peers & (value_C == other)].mean() for other in range(len(values))])
        nearest = int(near_V.argmax())
        if nearest != v:
            reason = f"nearer to {values[nearest]} ({near_V[nearest]:.2f}) than to its own value ({near_V[v]:.2f})"
            findings.append(Finding(9, values[v], level, variant, reason))
    return findings
