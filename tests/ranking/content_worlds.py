"""Simulated judges with a content error: pools and rated texts whose people's intensities are known."""

from typing import NamedTuple

import numpy as np

from valueflow.numerics.intervals import Z95
from valueflow.ranking.content_error import Pool, TotalScore, pool_of
from valueflow.ranking.rating_regression import RatedTexts
from valueflow.records import LIMIT

QUANTILE = 0.99


class World(NamedTuple):
    """Texts of one value: the judge's intensity with its standard error, people's intensity, whether neutral."""

    intensity_N: np.ndarray
    error_N: np.ndarray
    truth_N: np.ndarray
    neutral_N: np.ndarray

    def pool(self) -> Pool:
        return pool_of(self.intensity_N, self.error_N, self.neutral_N)

    def own(self) -> TotalScore:
        """The judge's intensity and its own interval, clipped."""
        bounds = (self.intensity_N + sign * Z95 * self.error_N for sign in (0, -1, 1))
        return TotalScore(*(np.clip(bound, -LIMIT, LIMIT) for bound in bounds))

    def rated(self, count: int, prefix: str = "t") -> RatedTexts:
        own = self.own()
        return RatedTexts([f"{prefix}{i}" for i in range(count)], *(c[:count] for c in own), self.truth_N[:count])

    def coverage(self, total: TotalScore) -> float:
        inside_N = (total.low_T <= self.truth_N) & (self.truth_N <= total.high_T)
        return float(inside_N[~self.neutral_N].mean())

    def error(self, total: TotalScore) -> float:
        return float(np.sqrt(((total.intensity_T - self.truth_N)[~self.neutral_N] ** 2).mean()))


def world(
    seed: int, content: float, reliability: float = 0.9, tails: str = "normal", size: int = 200, num_neutral: int = 20
) -> World:
    """Draw theta_people ~ N(0, 1) (0 for neutral texts), add content error, and fit theta with sampling error.

    Args:
        seed: of the draws.
        content: standard deviation of the content error, in spreads of people's theta.
        reliability: share of the judge's axis in the variance of an unshrunk estimate.
        tails: normal, t3, or topics whose content errors have five different sizes.
        size: texts that are not neutral.
        num_neutral: neutral texts, the last ones.
    """
    rng, total = np.random.default_rng(seed), size + num_neutral
    neutral_N = np.arange(total) >= size
    people_N = np.where(neutral_N, 0.0, rng.normal(size=total))
    error_N = rng.standard_t(3, total) / np.sqrt(3) if tails == "t3" else rng.normal(size=total)
    if tails == "topics":
        sizes = np.array([0.3, 0.6, 1.0, 1.2, 1.5])
        error_N *= (sizes / np.sqrt((sizes**2).mean()))[rng.integers(0, 5, total)]
    judge_N = people_N + content * error_N
    noise = np.sqrt((1 - reliability) / reliability * (1 + content**2))
    variance = float(judge_N.var())
    shrinkage = variance / (variance + noise**2)
    estimate_N = judge_N + noise * rng.normal(size=total)
    theta_N = estimate_N.mean() + shrinkage * (estimate_N - estimate_N.mean())
    zero = np.median(theta_N[neutral_N]) if num_neutral else 0.0
    unit = LIMIT / np.quantile(np.abs(theta_N - zero), QUANTILE)
    truth_N = np.clip(LIMIT * people_N / np.quantile(np.abs(people_N), QUANTILE), -LIMIT, LIMIT)
    return World((theta_N - zero) * unit, np.full(total, unit * noise * np.sqrt(shrinkage)), truth_N, neutral_N)
