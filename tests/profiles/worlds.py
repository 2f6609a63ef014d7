"""Simulated units: people's intensities of their texts, and what a judge with a content error says of these."""

from typing import NamedTuple

import numpy as np

from valueflow.profiles.estimate import EstimateConfig, Estimates, TextScores, UnitTexts, estimate
from valueflow.ranking.content_error import ContentError


class World(NamedTuple):
    """True means of units (U, V), and scores of their texts."""

    truth_UV: np.ndarray
    texts: UnitTexts
    scores: TextScores
    errors: list[ContentError]

    def profiles(self, **settings: float) -> Estimates:
        return estimate(self.texts, self.scores, self.errors, EstimateConfig(**settings))


def world(
    seed: int, num_units: int, num_texts: int, num_values: int = 3, between: float = 2.0, within: float = 2.0,
    judge_sd: float = 0.0, thread_sd: float = 0.0, thread_size: int = 1,
) -> World:  # fmt: skip
    """Units ~ N(0, between²), threads ~ N(unit, thread_sd²), texts ~ N(thread, within²); the judge adds N(0, judge_sd²)."""
    rng = np.random.default_rng(seed)
    truth_UV = rng.normal(0, between, (num_units, num_values))
    num_threads = num_texts // thread_size
    thread_UGV = truth_UV[:, None] + thread_sd * rng.normal(size=(num_units, num_threads, num_values))
    people_UTV = np.repeat(thread_UGV, thread_size, axis=1)
    people_UTV = people_UTV + within * rng.normal(size=people_UTV.shape)
    judge_UTV = people_UTV + judge_sd * rng.normal(size=people_UTV.shape)
    spread2 = between**2 + thread_sd**2 + within**2
    agreement = spread2 / (spread2 + judge_sd**2)
    spread = float(np.sqrt(spread2))
    error = ContentError(slope=agreement, sd=spread * float(np.sqrt(1 - agreement)), spread=spread)
    error = error if judge_sd else ContentError()
    unit_T = np.repeat(np.arange(num_units), num_threads * thread_size)
    cluster_T = np.repeat(np.arange(num_units * num_threads), thread_size)
    judge_TV = judge_UTV.reshape(-1, num_values)
    scores = TextScores(judge_TV, np.full(judge_TV.shape, np.nan))
    return World(truth_UV, UnitTexts(unit_T, cluster_T, np.ones(len(unit_T))), scores, [error] * num_values)


def coverage(world: World, found: Estimates) -> float:
    """Share of true means in their intervals."""
    return float(((found.low_UV <= world.truth_UV) & (world.truth_UV <= found.high_UV)).mean())
