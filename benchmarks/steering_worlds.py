"""Simulated generators and judges with planted truths, for tests and figures of the steerability study.

A generator expresses, on query q at level l of a value, the default of the value, what the query attracts, the dose of the
level and noise; sources differ in their dose by planted amounts that cancel. Every persona shifts responses. The judge adds
noise, or ranks among anchors whose published theta errs.

Shapes: V values, Q queries, L = 5 levels.
"""

from typing import NamedTuple

import numpy as np

from valueflow.evaluation.scoring import RESPONSE, EvaluatorConfig, Scoring
from valueflow.ranking.calibration import Calibration
from valueflow.steering.study.effects import strata
from valueflow.vidb.version import Anchors

NUM_SOURCES = 5
# By type: dose at -2, -1, 0, 1, 2 in points, and the default. The margin of the tests is 1, the reach -8 to 8.
REACH = (-8.0, 8.0)
TYPES: dict[str, tuple[tuple[float, ...], float]] = {
    "hard": ((0.0, 0.0, 0.0, 0.0, 0.0), 1.0),
    "asymmetric": ((0.0, 0.0, 0.0, 1.5, 3.0), 1.0),
    "bidirectional": ((-3.0, -1.5, 0.0, 1.5, 3.0), 1.0),
    "ceiling": ((-3.0, -1.5, 0.0, 0.0, 0.0), 8.0),
}
BORDER = 1.0  # effects exactly at the margin: neither moved nor still is true
PERSONA_SHIFT = 1.5
QUERY_SD, NOISE_SD, JUDGE_SD, SOURCE_SPREAD = 1.5, 1.2, 1.2, 0.4


class Responses(NamedTuple):
    """Scores by value, query and level, those of the bare query, the sources, and the true effects (V, L)."""

    y_VQL: np.ndarray
    bare_VQ: np.ndarray
    stratum_Q: np.ndarray
    effect_VL: np.ndarray


def stratum_of(num_queries: int) -> np.ndarray:
    return strata([f"source {q % NUM_SOURCES}" for q in range(num_queries)])


def respond(dose_VL: np.ndarray, default_V: np.ndarray, num_queries: int, rng: np.random.Generator) -> Responses:
    """Return simulated scores; the dose of each source deviates by amounts whose mean is 0."""
    num_values, num_levels = dose_VL.shape
    stratum_Q = stratum_of(num_queries)
    attraction_VQ = rng.normal(0, QUERY_SD, (num_values, num_queries)) + rng.normal(0, QUERY_SD / 2, num_queries)
    tilt_S = SOURCE_SPREAD * (np.arange(NUM_SOURCES) - (NUM_SOURCES - 1) / 2)
    by_source_VQL = tilt_S[stratum_Q][None, :, None] * (dose_VL != 0)[:, None, :]
    noise_VQL = rng.normal(0, np.hypot(NOISE_SD, JUDGE_SD), (num_values, num_queries, num_levels))
    level_VQL = (default_V[:, None] + attraction_VQ)[..., None] + dose_VL[:, None, :] + by_source_VQL + noise_VQL
    bare_VQ = default_V[:, None] + attraction_VQ + rng.normal(0, np.hypot(NOISE_SD, JUDGE_SD), (num_values, num_queries))
    return Responses(level_VQL + PERSONA_SHIFT, bare_VQ + 0.0, stratum_Q, dose_VL - dose_VL[:, 2:3])


def planted(types: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return doses (V, L) and defaults (V,) of values of these types; the persona shift is part of the default that is seen."""
    dose_VL = np.array([TYPES[name][0] for name in types])
    return dose_VL, np.array([TYPES[name][1] - PERSONA_SHIFT for name in types])


class Refusals(NamedTuple):
    """Scores with refusals at level -2: those that would express the strongest rejection are refused most often."""

    level_QR: np.ndarray
    level_answered_QR: np.ndarray
    default_QR: np.ndarray
    default_answered_QR: np.ndarray
    stratum_Q: np.ndarray
    effect: float  # on all responses, had none been refused
    effect_answered: float  # on responses that are answered at both levels


REFUSAL_SCORE = 4.0  # how a refusal reads to the judge


def refuse(num_queries: int, dose: float, slope: float, rng: np.random.Generator, num_truth: int = 0) -> Refusals:
    """Return scores of level -2 and of the default; the refusal rate rises as the latent score falls."""
    size = num_truth or num_queries
    attraction_Q = rng.normal(0, QUERY_SD, size)
    latent_Q = np.clip(attraction_Q + dose + rng.normal(0, 1.5, size), -10, 10)
    default_Q = np.clip(attraction_Q + rng.normal(0, 1.5, size), -10, 10)
    probability_Q = 1 / (1 + np.exp(-slope * (-latent_Q - 4.5)))
    answered_Q = rng.random(size) >= probability_Q
    scored_Q = np.where(answered_Q, latent_Q, rng.normal(REFUSAL_SCORE, 0.5, size))
    return Refusals(
        scored_Q[:, None], answered_Q[:, None], default_Q[:, None], np.ones((size, 1), bool), stratum_of(size), dose,
        float(latent_Q[answered_Q].mean() - default_Q[answered_Q].mean()),
    )  # fmt: skip


class RankedWorld(NamedTuple):
    """A scale of anchors whose published theta errs, and the ranking judge that knows the true one."""

    published: Anchors
    true_theta_A: np.ndarray
    error_A: np.ndarray


def ranked_world(num_anchors: int, error: float, rng: np.random.Generator) -> RankedWorld:
    true_A = np.sort(rng.normal(0, 2.5, num_anchors))
    published_A = true_A + rng.normal(0, error, num_anchors)
    order = np.argsort(published_A)
    calibration = Calibration(mode="neutral", theta=[-6.0, 6.0], intensity=[-10.0, 10.0])
    ids = np.array([f"anchor {a:03d}" for a in range(num_anchors)])
    return RankedWorld(
        Anchors("svt", "simulated", ids, published_A[order], calibration), true_A[order], np.full(num_anchors, error)
    )


class CountingJudge:
    """Orders windows by Plackett-Luce on true theta, and counts its calls."""

    def __init__(self, world: RankedWorld, theta_of: dict[str, float], rng: np.random.Generator) -> None:
        self.theta = dict(zip(world.published.text_ids.tolist(), world.true_theta_A.tolist(), strict=True)) | theta_of
        self.rng, self.calls = rng, 0

    def rank(self, window: list[str]) -> list[int]:
        """Return the order of a window, best first."""
        self.calls += 1
        perceived = np.array([self.theta[i] for i in window]) + self.rng.gumbel(size=len(window))
        return np.argsort(-perceived).tolist()


def rank_all(
    world: RankedWorld, judge: CountingJudge, text_ids: list[str], config: EvaluatorConfig
) -> list[tuple[int, dict[str, object]]]:
    """Return the answered windows of the texts: what an evaluation stores."""
    scoring = Scoring(world.published, text_ids, 1.0, config)
    answers: list[tuple[int, dict[str, object]]] = []
    for round_ in range(config.m):
        unit_of = scoring.window_ids(config.m)
        rows = scoring.plan(round_).to_pylist()
        of_round = [
            (unit_of[row["window_id"]], row | {"order": judge.rank(row["text_ids"]), "weight": None, "relevance": None})
            for row in rows
        ]
        scoring.take(of_round)
        answers += of_round
    assert RESPONSE == -1
    return answers


# By kind: the weights of both shifts with a first and with b first, and what is added on both axes.
COMPOSITIONS: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "additive": ((1.0, 1.0), (1.0, 1.0)),
    "sub-additive": ((0.6, 0.6), (0.6, 0.6)),
    "dominance": ((1.0, 0.1), (1.0, 0.1)),
    "order effect": ((0.2, 1.4), (1.4, 0.2)),
}
SHIFTS = np.array([[2.0, 0.4], [0.3, 1.8]])  # of a and of b, on the axes of a and b, in standard deviations


def compose_world(kind: str, num_queries: int, rng: np.random.Generator, default: float = 0.0) -> np.ndarray:
    """Return standardized scores (Q, 5 cells, 2 axes)."""
    attraction = rng.normal(default, 1.0, (num_queries, 1, 2))
    weights = COMPOSITIONS[kind]
    means = np.stack([np.zeros(2), *SHIFTS, *(np.array(w) @ SHIFTS for w in weights)])
    return attraction + means + rng.normal(0, 1.0, (num_queries, 5, 2))


class SideEffectWorld(NamedTuple):
    """Differences from the default: of the study's judge on a subset, of a biased cheap one on all; and the true effects."""

    trusted_VWQ: np.ndarray
    cheap_VWQ: np.ndarray
    effect_VW: np.ndarray
    stratum_Q: np.ndarray


def side_effect_world(num_values: int, num_queries: int, share: float, rng: np.random.Generator) -> SideEffectWorld:
    """Values on a circle: steering on one raises its neighbours and lowers its opposites; the cheap judge errs by up to 1.5."""
    angle_V = 2 * np.pi * np.arange(num_values) / num_values
    effect_VW = 3.0 * np.cos(angle_V[:, None] - angle_V[None, :])
    latent = effect_VW[..., None] + rng.normal(0, 2.0, (num_values, num_values, num_queries))
    trusted = latent + rng.normal(0, 1.0, latent.shape)
    bias_VW = 1.5 * np.sin(3 * angle_V)[:, None] * np.ones(num_values)
    cheap = 0.6 * latent + bias_VW[..., None] + rng.normal(0, 0.8, latent.shape)
    subset_Q = rng.permutation(num_queries) < round(share * num_queries)
    trusted = np.where(subset_Q, trusted, np.nan)
    return SideEffectWorld(trusted, cheap, effect_VW, stratum_of(num_queries))
