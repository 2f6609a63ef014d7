"""Where people would put a text, given where a judge puts it: the judge's content error and the interval that includes it.

A judge sees people's theta plus an error of its own for each text. However often the judge is asked, the error stays. So
people's intensity y is regressed on the judge's intensity x:

    y = intercept + slope x + N(0, sd²)          slope below 1: regression to the mean

The error of the zero, of the unit and of the anchors is common to the texts of a value and is carried apart from sd. All errors
are in points of intensity and scaled such that 1.96 of them are half a 95 % interval: Student's quantiles are part of them.

Shapes: N texts of a pool, T texts with a score, V values, D draws.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeVar, get_args

import numpy as np
from pydantic import Field
from scipy.special import digamma, ndtr, ndtri, polygamma

from valueflow.config import Config
from valueflow.numerics.intervals import Z95
from valueflow.ranking import relevance
from valueflow.records import LIMIT

DRAWS = 4000
MAX_KURTOSIS = 12.0
MIN_SHRINKAGE = 0.05  # a posterior mean that its prior has shrunk further says nothing about the spread
K = TypeVar("K", bound=str)
# What content errors rest on, the best last.
Basis = Literal["none", "neutral", "judges", "direction", "record", "ratings", "known"]


class TotalScore(NamedTuple):
    """People's intensity: posterior mean and 95 % interval of T texts, clipped to [-10, 10]."""

    intensity_T: np.ndarray
    low_T: np.ndarray
    high_T: np.ndarray


class ContentError(Config):
    """The regression of people's intensity on one judge's, for one value; by default that of a judge without content error."""

    slope: float = Field(1.0, ge=0)
    intercept: float = Field(0.0, description="points")
    sd: float = Field(0.0, ge=0, description="points: people's intensity of single texts around the line")
    shared_sd: float = Field(0.0, ge=0, description="points: error of the line at `center`, the same for all texts")
    slope_sd: float = Field(0.0, ge=0, description="error of the slope and of the unit")
    center: float = Field(0.0, description="points: judge's intensity at which the errors of line and slope are independent")
    spread: float = Field(0.0, ge=0, description="points: standard deviation of people's intensities")
    anchor_sd: float = Field(0.0, ge=0, description="points: standard error of one anchor")
    factor: float = Field(1.0, gt=0, description="conformal: on the half width of the interval")
    basis: Basis = "none"
    n: int = Field(0, ge=0, description="texts that it rests on")
    source: str = Field("the judge's own interval; not calibrated to people", description="what it rests on, for readers")

    @property
    def rank(self) -> int:
        """How good the basis is, from 0."""
        return get_args(Basis).index(self.basis)

    @property
    def is_exact(self) -> bool:
        """Whether people's intensity is taken to be the judge's, with the judge's own interval."""
        errors = (self.intercept, self.sd, self.shared_sd, self.slope_sd, self.anchor_sd)
        return self.slope == 1 and self.factor == 1 and not any(errors)

    @property
    def agreement(self) -> float:
        """Share of its variance that the judge has in common with people; 1 where nothing is known of it."""
        return float(np.clip(1 - (self.sd / self.spread) ** 2, 0, 1)) if self.spread else 1.0

    @property
    def calibrated_to_people(self) -> bool:
        """Whether people's ratings are behind it."""
        return self.basis in ("ratings", "record")

    def total(
        self, intensity_T: np.ndarray, low_T: np.ndarray, high_T: np.ndarray, num_anchors: int | np.ndarray = 0,
        relevance_T: np.ndarray | None = None,
    ) -> TotalScore:  # fmt: skip
        """Return people's intensity given the judge's, with its 95 % interval.

        Args:
            intensity_T: the judge's.
            low_T: lower end of the judge's own interval.
            high_T: upper end.
            num_anchors: anchors that a text was compared with, whose errors it shares; 0 for texts of the fit.
            relevance_T: how far each text concerns the value by a judge whose intensity does not know it; nan where unknown.
        """
        intensity_T, low_T, high_T = (np.asarray(column, float) for column in (intensity_T, low_T, high_T))
        if self.is_exact and relevance_T is None:
            return TotalScore(intensity_T, low_T, high_T)
        mean_T = self.intercept + self.slope * intensity_T
        variance_T = Z95**2 * self.variance(intensity_T, num_anchors)
        below_T = self.factor * np.sqrt((self.slope * (intensity_T - low_T)) ** 2 + variance_T)
        above_T = self.factor * np.sqrt((self.slope * (high_T - intensity_T)) ** 2 + variance_T)
        low_T, high_T = mean_T - below_T, mean_T + above_T
        if relevance_T is not None:
            concern_T = relevance.concern(relevance_T, self.agreement)
            ends = relevance.interval(mean_T, below_T / Z95, above_T / Z95, concern_T)
            low_T, high_T = (np.where(concern_T == 1, *both) for both in zip((low_T, high_T), ends, strict=True))
            mean_T = concern_T * np.clip(mean_T, -LIMIT, LIMIT)
        return TotalScore(*(np.clip(column, -LIMIT, LIMIT) for column in (mean_T, low_T, high_T)))

    def text_variance(self, num_anchors: int | np.ndarray = 0) -> np.ndarray:
        """Return the squared error beyond the judge's own that a text does not share with the others, points²."""
        num_anchors = np.asarray(num_anchors)
        anchors = (self.slope * self.anchor_sd) ** 2 / np.maximum(num_anchors, 1) * (num_anchors > 0)
        return self.sd**2 + anchors

    def variance(self, intensity_T: np.ndarray, num_anchors: int | np.ndarray = 0) -> np.ndarray:
        """Return the squared error beyond the judge's own, points²."""
        return self.text_variance(num_anchors) + self.shared_variance(intensity_T)

    def shared_variance(self, intensity_T: np.ndarray) -> np.ndarray:
        """Return the squared error of the line, which all texts of the value share, points²."""
        return self.shared_sd**2 + (self.slope_sd * (intensity_T - self.center)) ** 2


class Pool(NamedTuple):
    """How one value's texts are spread on the judge's scale.

    Attributes:
        num_neutral: neutral texts.
        neutral_ratio: their variance, sampling error included, in units of the variance of the judge's axis.
        sampling_ratio: the sampling error in it.
        kurtosis: of the neutral texts; 3 for a normal distribution.
        spread: root mean square of the published intensities of the other texts, points.
        judge_variance: of the judge's true intensities of the other texts about the zero, points².
        sampling: mean squared standard error of a text, points².
        num_texts: other texts.
    """

    num_neutral: int
    neutral_ratio: float
    sampling_ratio: float
    kurtosis: float
    spread: float
    judge_variance: float
    sampling: float
    num_texts: int


def pool_of(intensity_N: np.ndarray, error_N: np.ndarray, neutral_N: np.ndarray) -> Pool:
    """Return the summary of a pool.

    Spreads of neutral and other texts are compared on normal scores of the others, so that it does not matter how a fit
    stretches the middle of the axis against its ends.

    Args:
        intensity_N: posterior means, points about the zero, not clipped.
        error_N: standard errors, points.
        neutral_N: whether people's intensity is zero.
    """
    # The fit has shrunk each text towards the mean of the pool by 1 - error² / variance: undo it where the truth is another.
    middle = float(intensity_N.mean())
    shrinkage_N = np.clip(1 - error_N**2 / max(float(intensity_N.var() + (error_N**2).mean()), 1e-12), MIN_SHRINKAGE, 1)
    raw_N, sampling_N = middle + (intensity_N - middle) / shrinkage_N, error_N**2 / shrinkage_N
    num_neutral, others_N = int(neutral_N.sum()), ~neutral_N
    if not others_N.any():
        others_N = np.ones(len(neutral_N), bool)
    square, sampling = float((intensity_N[others_N] ** 2).mean()), float((error_N[others_N] ** 2).mean())
    ratio, of_sampling, kurtosis = 0.0, 0.0, 3.0
    if num_neutral > 1 and np.ptp(raw_N[others_N]) > 0 and np.ptp(raw_N[neutral_N]) > 0:
        score_N = normal_scores(raw_N[neutral_N], raw_N[others_N])
        variance = float(score_N.var(ddof=1))
        reliability = max(1 - float(sampling_N[others_N].mean()) / float(raw_N[others_N].var()), MIN_SHRINKAGE)
        axis = reliability * (1 + float(score_N.mean()) ** 2)  # about the zero: the mean of the neutral texts
        ratio, kurtosis = variance / axis, _kurtosis(score_N)
        of_sampling = ratio * float(sampling_N[neutral_N].mean()) / float(raw_N[neutral_N].var(ddof=1))
    return Pool(num_neutral, ratio, of_sampling, kurtosis, square**0.5, square + sampling, sampling, int(others_N.sum()))


def normal_scores(x_T: np.ndarray, sample_N: np.ndarray) -> np.ndarray:
    """Return the normal quantiles of the ranks that x has in a sample, continued beyond its ends with the average slope."""
    sorted_N = np.sort(sample_N)
    score_N = ndtri((np.arange(len(sorted_N)) + 0.5) / len(sorted_N))
    slope = (score_N[-1] - score_N[0]) / (sorted_N[-1] - sorted_N[0])
    beyond_T = np.minimum(x_T - sorted_N[0], 0.0) + np.maximum(x_T - sorted_N[-1], 0.0)
    return np.interp(x_T, sorted_N, score_N) + slope * beyond_T


def known(correlation: float, spread: float, source: str) -> ContentError:
    """Return the content error of a judge whose correlation with the truth is known, as that of a simulated one."""
    if correlation == 1:
        return ContentError(basis="known", source=source, spread=spread)
    sd = spread * float(np.sqrt(1 - correlation**2))
    return ContentError(slope=correlation, sd=sd, spread=spread, basis="known", source=source)


def _unknown(total: float, df: float) -> float:
    """Return the weight of the worst case, a judge that shares nothing with people, where neutral texts do not tell the share.

    0 up to a standard error of the share of 0.5, 1 from 1.0: sampling error then exceeds the whole axis, as with a judge that
    hardly answers by the texts, and the difference of two large numbers would be taken for a content error of 0.
    """
    return float(np.clip(2 * total * np.sqrt(2 / df) - 1, 0.0, 1.0))


def from_neutral(
    pools: Mapping[K, Pool], num_distinct: int, extreme_quantile: float, seed: int = 0, shares: Mapping[K, float] | None = None
) -> dict[K, ContentError]:
    """Return the content error of each value from texts whose truth is zero; none for pools without two of them.

    The spread of neutral texts beyond sampling error is the spread tau of the content error. With S² the variance of the
    judge's axis, the judge's correlation with people is rho, rho² = 1 - tau² / S². The spread of people's intensities is that
    of the judge's as far as the judge agrees with people, and that of a normal distribution of the same unit as far as not.
    20 neutral texts say little about tau: its share of S² is pooled over values (a scaled inverse chi² prior, Smyth 2004), and
    the rest of the uncertainty is integrated over draws.

    Args:
        pools: by value.
        num_distinct: different neutral texts of all pools; values that share their texts do not know more than these.
        extreme_quantile: that is intensity 10, for the error of the unit.
        seed: of the draws.
        shares: lower bound of tau² / S² by value from several judges' disagreement, as the pattern to which values are pooled.
    """
    usable = {value: pool for value, pool in pools.items() if pool.num_neutral > 1 and pool.judge_variance > 0}
    if not usable:
        return {}
    guess_V = np.array([_expected_ratio(pool, (shares or {}).get(value)) for value, pool in usable.items()])
    ratio_V = np.array([pool.neutral_ratio for pool in usable.values()])
    num_V = np.array([pool.num_neutral for pool in usable.values()], float)
    # A variance of heavy tailed errors is less certain: its own variance has the factor (kurtosis - 1) / 2.
    kurtosis = float(np.average([pool.kurtosis for pool in usable.values()], weights=num_V))
    certainty = 2 / (np.clip(kurtosis, 3.0, MAX_KURTOSIS) - 1)
    df_V, max_df = certainty * (num_V - 1), certainty * (max(num_distinct, num_V.max()) - 1)
    pooled_V, total_df_V = moderated(np.maximum(ratio_V / guess_V, 1e-12), df_V, max_df)
    unit = unit_error(extreme_quantile)
    result = {}
    for number, (value, pool) in enumerate(usable.items()):
        rng = np.random.default_rng([seed, number])
        df = total_df_V[number]
        total_D = pooled_V[number] * guess_V[number] * df / rng.chisquare(df, DRAWS)
        lowest = min((shares or {}).get(value, 0.0), 1.0)
        share_D = np.clip(total_D - pool.sampling_ratio, lowest, 1.0)
        share_D[rng.random(DRAWS) < _unknown(pooled_V[number] * guess_V[number], df)] = 1.0
        normal_spread = _normal_spread(extreme_quantile, pool)
        spread_D = pool.spread + np.sqrt(share_D) * max(normal_spread - pool.spread, 0.0)
        slope_D = np.sqrt(1 - share_D) * spread_D / pool.judge_variance**0.5
        slope, mean_share = float(slope_D.mean()), float(share_D.mean())
        zero_variance = np.pi / 2 * float(total_D.mean()) * pool.judge_variance / pool.num_neutral
        of_unit = slope * unit * np.sqrt(2 * mean_share / pool.num_texts)
        result[value] = ContentError(
            slope=slope, sd=mixture_sd(np.sqrt(share_D) * spread_D), shared_sd=slope * float(np.sqrt(zero_variance)),
            slope_sd=float(np.hypot(slope_D.std(), of_unit)), spread=float(spread_D.mean()), anchor_sd=pool.sampling**0.5,
            basis="judges" if shares and value in shares else "neutral", n=pool.num_neutral,
            source=_neutral_source(pool.num_neutral, len(usable), bool(shares and value in shares)),
        )  # fmt: skip
    return result


def _expected_ratio(pool: Pool, share: float | None) -> float:
    """What the variance of neutral texts is expected to be, up to a factor common to all values; in units of S²."""
    return 1.0 if share is None else max(share, 1e-3) + pool.sampling_ratio


def _normal_spread(extreme_quantile: float, pool: Pool) -> float:
    """Standard deviation, points, of normal intensities among the neutral texts of a pool whose quantile is intensity 10."""
    beyond = max(1 - extreme_quantile, 0.001) * (1 + pool.num_neutral / pool.num_texts)
    return LIMIT / -float(ndtri(min(beyond, 0.5) / 2))


def consensus_share(theta_JN: np.ndarray, error_JN: np.ndarray) -> float:
    """Return tau² / S² of the mean of J judges whose content errors are independent, from fits of each of them alone.

    It is a lower bound: errors that the judges have in common do not show. With r the mean correlation of the judges' true
    thetas, the squared correlation of their mean with what they have in common is J r / (1 + (J - 1) r) (Spearman & Brown).

    Args:
        theta_JN: posterior means of texts that are not neutral.
        error_JN: their standard errors.
    """
    sampling_J, num_judges = (error_JN**2).mean(1), len(theta_JN)
    true_J = theta_JN.var(1) + sampling_J
    # Each posterior mean was shrunk by 1 - sampling / true variance, so the covariances of two judges were by both factors.
    shrinkage_J = np.maximum(1 - sampling_J / true_J, MIN_SHRINKAGE)
    scale_J = shrinkage_J * np.sqrt(true_J)
    correlation_JJ = np.cov(theta_JN, ddof=0) / np.outer(scale_J, scale_J)
    r = float(np.clip(correlation_JJ[~np.eye(num_judges, dtype=bool)].mean(), 0.0, 1.0))
    return 1 - num_judges * r / (1 + (num_judges - 1) * r)


def _neutral_source(num_neutral: int, num_values: int, several: bool) -> str:
    pooled = f", their spread pooled over {num_values} values" if num_values > 1 else ""
    judges = " and the disagreement of the judges" if several else ""
    return f"content error from {num_neutral} neutral texts{pooled}{judges}; not calibrated to people"


def moderated(variance_V: np.ndarray, df_V: np.ndarray, max_df: float = np.inf) -> tuple[np.ndarray, np.ndarray]:
    """Return variances shrunk towards their common value, and their degrees of freedom (Smyth 2004,
    doi:10.2202/1544-6115.1027).

    The prior is scaled inverse chi²; its two parameters are fitted to the spread of the log variances.

    Args:
        variance_V: sample variances.
        df_V: their degrees of freedom.
        max_df: upper bound of the result's, where the samples are not independent.
    """
    if len(variance_V) < 2:
        return variance_V, df_V
    from scipy.optimize import brentq  # here, since its import takes each worker half a second of a core

    centered_V = np.log(variance_V) - digamma(df_V / 2) + np.log(df_V / 2)
    excess = float(centered_V.var(ddof=1) - polygamma(1, df_V / 2).mean())
    if excess <= 0:
        common = float(np.average(variance_V, weights=df_V))
        return np.full(len(variance_V), common), np.minimum(np.full(len(variance_V), df_V.sum()), max_df)
    prior_df = 2 * float(brentq(lambda x: polygamma(1, x) - excess, 1e-3, 1e9)) if excess < polygamma(1, 1e-3) else 2e-3
    prior = float(np.exp(centered_V.mean() + digamma(prior_df / 2) - np.log(prior_df / 2)))
    pooled_V = (prior_df * prior + df_V * variance_V) / (prior_df + df_V)
    return pooled_V, np.minimum(np.minimum(prior_df + df_V, df_V.sum()), np.maximum(max_df, df_V))


def unit_error(extreme_quantile: float) -> float:
    """Return the relative standard error of a quantile of |normal|, times the square root of the number of texts."""
    upper = ndtri((1 + min(extreme_quantile, 0.999)) / 2)
    density = np.exp(-(upper**2) / 2) / np.sqrt(2 * np.pi)
    return float(np.sqrt(extreme_quantile * (1 - min(extreme_quantile, 0.999))) / (2 * density * upper))


def _kurtosis(values: np.ndarray) -> float:
    """The kurtosis, corrected to 3 for samples of a normal distribution."""
    square, n = (values - values.mean()) ** 2, len(values)
    return float((square**2).mean() / square.mean() ** 2 * (n + 1) / (n - 1)) if square.any() else 3.0


def mixture_sd(sd_D: np.ndarray) -> float:
    """Return the half width that holds 95 % of a mixture of normals of mean 0, divided by 1.96."""
    if not sd_D.any():
        return 0.0
    from scipy.optimize import brentq  # here, since its import takes each worker half a second of a core

    positive_D = np.maximum(sd_D, 1e-9)

    def missing(half: float) -> float:
        return float((2 * ndtr(half / positive_D) - 1).mean()) - 0.95

    return float(brentq(missing, 1e-9, 4 * positive_D.max())) / Z95
