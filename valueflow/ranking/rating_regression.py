"""The content error of a judge from people's ratings: rating on judge's intensity, values pooled, intervals made conformal.

Model. y = a_v + b_v x + N(0, s_v²) for value v, with (a_v, b_v) ~ N(mu, Sigma) fitted by EM (Laird & Ware 1982) and the
variances s_v² moderated (`content_error.moderated`). So a value with few ratings borrows from the others, and a value without
any gets the line of a new value, with its uncertainty. A single value has ordinary least squares.

Intervals. From MIN_CONFORMAL texts on, the half widths are multiplied by the ceil(0.95 (n + 1))-th smallest ratio of error to
half width among texts that took no part in the fit (cross-conformal prediction, Vovk 2015, doi:10.1007/s10472-013-9368-4):
those of the value where it has so many itself, else those of all values.

Shapes: N rated texts of a value, M of all values, V values, B folds.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy.stats import t

from valueflow.numerics.intervals import Z95
from valueflow.ranking.content_error import ContentError, K, moderated

MIN_RATINGS = 20  # of a value alone, or of at least MIN_VALUES values together
MIN_VALUES = 3  # that show how values differ
MIN_CONFORMAL = 100
NUM_FOLDS = 10
COVERAGE = 0.95
MAX_EM, TOLERANCE = 200, 1e-3
MIN_RESIDUAL = 0.25  # share of the residual variance that is content error at least: sampling errors are estimates too


class RatedTexts(NamedTuple):
    """Texts of one value with the judge's intensity and its interval, and people's rating; all in points.

    Attributes:
        ids: of the texts; a text of two values is in one fold.
        intensity_N: the judge's.
        low_N: lower end of the judge's own interval.
        high_N: upper end.
        rating_N: people's, a mean over raters.
        parameters: of the judge's scale that were fitted to these ratings, beyond a line.
    """

    ids: Sequence[str]
    intensity_N: np.ndarray
    low_N: np.ndarray
    high_N: np.ndarray
    rating_N: np.ndarray
    parameters: int = 0

    def take(self, rows_N: np.ndarray) -> "RatedTexts":
        """Return some of the texts."""
        ids = [i for i, row in zip(self.ids, rows_N, strict=True) if row]
        intensity_N, low_N, high_N, rating_N = (column[rows_N] for column in self[1:5])
        return RatedTexts(ids, intensity_N, low_N, high_N, rating_N, self.parameters)


class _Line(NamedTuple):
    """A value's intercept and slope about the mean of x: posterior mean and covariance."""

    mean_2: np.ndarray
    covariance_22: np.ndarray


def from_ratings(
    rated: Mapping[K, RatedTexts], values: Sequence[K], basis: Literal["ratings", "record"], source: str
) -> dict[K, ContentError]:
    """Return the content error of each value that the ratings tell about; empty with fewer than MIN_RATINGS.

    Args:
        rated: the rated texts by value.
        values: to return; those without ratings get the line of a new value where MIN_VALUES others have ratings.
        basis: what the ratings are, for the result.
        source: the same in words; "{n}" is replaced by the number of rated texts.
    """
    rated = {value: texts for value, texts in rated.items() if len(texts.ids)}
    if len(rated) < MIN_VALUES:
        fits: dict[K, ContentError] = {}
        for value, texts in rated.items():
            if len(texts.ids) >= MIN_RATINGS:
                fits |= _fit({value: texts}, [value])
    elif sum(len(texts.ids) for texts in rated.values()) >= MIN_RATINGS:
        fits = _fit(rated, values)
    else:
        fits = {}
    factors = conformal_factors(rated, values) if fits and len(rated) >= MIN_VALUES else {}
    result = {}
    for value, fit in fits.items():
        alone = len(rated) < MIN_VALUES
        own = conformal_factors({value: rated[value]}, [value])[value] if alone else factors[value]
        n = len(rated[value].ids) if alone else sum(len(texts.ids) for texts in rated.values())
        result[value] = fit.model_copy(update={"factor": own, "basis": basis, "n": n, "source": source.format(n=f"{n:,}")})
    return {value: result[value] for value in values if value in result}


def conformal_factors(rated: Mapping[K, RatedTexts], values: Sequence[K]) -> dict[K, float]:
    """Return by value the factor on half widths by which 95 % of texts outside the fit are covered.

    A value with MIN_CONFORMAL rated texts has its own; the others share that of all rated texts, or 1 where these are fewer.
    """
    if sum(len(texts.ids) for texts in rated.values()) < MIN_CONFORMAL:
        return dict.fromkeys(values, 1.0)
    ratios = held_out_ratios(rated)
    shared = _factor(np.concatenate(list(ratios.values())))
    return {v: _factor(ratios[v]) if v in ratios and len(ratios[v]) >= MIN_CONFORMAL else shared for v in values}


def _factor(ratio_N: np.ndarray) -> float:
    """The ceil(0.95 (n + 1))-th smallest ratio, or the largest."""
    rank = math.ceil(COVERAGE * (len(ratio_N) + 1))
    return float(np.sort(ratio_N)[min(rank, len(ratio_N)) - 1])


def held_out_ratios(rated: Mapping[K, RatedTexts], seed: int = 0) -> dict[K, np.ndarray]:
    """Return |rating - prediction| / half width of the texts of each value, predicted by a fit without their fold."""
    ids = sorted({i for texts in rated.values() for i in texts.ids})
    folds = np.random.default_rng(seed).permutation(len(ids)) % NUM_FOLDS
    fold_of = dict(zip(ids, folds.tolist(), strict=True))
    fold_by = {value: np.array([fold_of[i] for i in texts.ids]) for value, texts in rated.items()}
    ratios: dict[K, list[np.ndarray]] = {}
    for fold in range(NUM_FOLDS):
        training = {value: texts.take(fold_by[value] != fold) for value, texts in rated.items()}
        training = {value: texts for value, texts in training.items() if len(texts.ids)}
        fits = _fit(training, list(rated))
        for value, texts in rated.items():
            held_out = texts.take(fold_by[value] == fold)
            if len(held_out.ids):
                ratios.setdefault(value, []).append(_ratios(fits[value], held_out))
    return {value: np.concatenate(of_folds) for value, of_folds in ratios.items()}


def _ratios(fit: ContentError, texts: RatedTexts) -> np.ndarray:
    mean_N = fit.intercept + fit.slope * texts.intensity_N
    side_N = np.where(texts.rating_N < mean_N, texts.intensity_N - texts.low_N, texts.high_N - texts.intensity_N)
    half_N = np.sqrt((fit.slope * side_N) ** 2 + Z95**2 * fit.variance(texts.intensity_N))
    return np.abs(texts.rating_N - mean_N) / half_N


def _fit(rated: Mapping[K, RatedTexts], values: Sequence[K]) -> dict[K, ContentError]:
    """The line of each value with its errors, on the scale of 1.96 standard errors."""
    x_M = np.concatenate([texts.intensity_N for texts in rated.values()])
    y_M = np.concatenate([texts.rating_N for texts in rated.values()])
    middle, spread = float(x_M.mean()), float(y_M.std())
    designs = {value: np.stack([np.ones(len(r.ids)), r.intensity_N - middle], 1) for value, r in rated.items()}
    lines, new, leverage = _lines(designs, {value: texts.rating_N for value, texts in rated.items()})
    residual, df = {}, {}
    for value, texts in rated.items():
        error_N = texts.rating_N - designs[value] @ _monotone(lines[value]).mean_2
        df[value] = max(len(texts.ids) - leverage[value] - texts.parameters, 1.0)
        residual[value] = max(float(error_N @ error_N) / df[value], 1e-9)
    variance_V, df_V = moderated(np.array(list(residual.values())), np.array(list(df.values())))
    by_value = dict(zip(rated, zip(variance_V.tolist(), df_V.tolist(), strict=True), strict=True))
    pooled = float(np.average(list(residual.values()), weights=list(df.values()))), sum(df.values())
    sampling_M = np.concatenate([(texts.high_N - texts.low_N) / (2 * Z95) for texts in rated.values()]) ** 2
    result = {}
    for value in values:
        variance, freedom = by_value.get(value, pooled)
        line = _monotone(lines.get(value, new))
        width = float(t.ppf(0.975, freedom)) / Z95
        (intercept, slope), (aa, ab, bb) = line.mean_2.tolist(), line.covariance_22[[0, 0, 1], [0, 1, 1]].tolist()
        content = max(variance - slope**2 * float(sampling_M.mean()), MIN_RESIDUAL * variance)
        at_center = aa - ab**2 / bb if bb > 0 else aa
        result[value] = ContentError(
            slope=slope, intercept=intercept - slope * middle, sd=width * content**0.5,
            shared_sd=width * max(at_center, 0.0) ** 0.5, slope_sd=width * bb**0.5,
            center=middle - (ab / bb if bb > 0 else 0.0), spread=spread,
        )  # fmt: skip
    return result


def _monotone(line: _Line) -> _Line:
    """A judge that contradicts people on a value tells nothing about it: the slope is not below 0."""
    if line.mean_2[1] >= 0:
        return line
    return _Line(np.array([line.mean_2[0], 0.0]), line.covariance_22)


def _lines(designs: Mapping[K, np.ndarray], ratings: Mapping[K, np.ndarray]) -> tuple[dict[K, _Line], _Line, dict[K, float]]:
    """Posterior lines of all values, the line of a new value, and the trace of each value's hat matrix."""
    gram = {value: X.T @ X for value, X in designs.items()}
    moment = {value: X.T @ ratings[value] for value, X in designs.items()}
    square = sum(float(y @ y) for y in ratings.values())
    size, num_values = sum(len(y) for y in ratings.values()), len(designs)
    mu_2 = np.linalg.lstsq(sum(gram.values()), sum(moment.values()), rcond=None)[0]
    variance = max((square - float(mu_2 @ sum(moment.values()))) / max(size - 2, 1), 1e-9)
    if num_values < MIN_VALUES:
        covariance_22 = variance * np.linalg.pinv(sum(gram.values()))
        line = _Line(mu_2, covariance_22)
        return dict.fromkeys(designs, line), line, dict.fromkeys(designs, 2.0)
    scale_22 = np.diag([variance, variance / max(sum(gram.values())[1, 1] / size, 1e-9)])
    sigma_22, floor_22 = 0.1 * scale_22, 1e-6 * scale_22
    lines: dict[K, _Line] = {}
    for _ in range(MAX_EM):  # one more step changes no interval: EM need not end
        inverse_22 = np.linalg.inv(sigma_22)
        before = sigma_22
        for value in designs:
            covariance_22 = np.linalg.inv(gram[value] / variance + inverse_22)
            lines[value] = _Line(covariance_22 @ (moment[value] / variance + inverse_22 @ mu_2), covariance_22)
        mu_2 = np.mean([line.mean_2 for line in lines.values()], axis=0)
        spreads = [line.covariance_22 + np.outer(line.mean_2 - mu_2, line.mean_2 - mu_2) for line in lines.values()]
        sigma_22 = np.mean(spreads, axis=0) + floor_22
        residual = square + sum(_squares(line, gram[value], moment[value]) for value, line in lines.items())
        variance = max(residual / size, 1e-9)
        if np.abs(sigma_22 - before).max() < TOLERANCE * np.abs(sigma_22).max():
            break
    # The mean over values is itself an estimate: its error is common to all of them.
    of_mean_22 = sigma_22 / num_values
    new = _Line(mu_2, sigma_22 + of_mean_22)
    leverage = {value: float(np.trace(line.covariance_22 @ gram[value])) / variance for value, line in lines.items()}
    errors = {value: _with_error_of_mean(line, sigma_22, of_mean_22) for value, line in lines.items()}
    return {v: line._replace(covariance_22=errors[v]) for v, line in lines.items()}, new, leverage


def _with_error_of_mean(line: _Line, sigma_22: np.ndarray, of_mean_22: np.ndarray) -> np.ndarray:
    weight_22 = line.covariance_22 @ np.linalg.inv(sigma_22)  # of the mean in the line
    return line.covariance_22 + weight_22 @ of_mean_22 @ weight_22.T


def _squares(line: _Line, gram_22: np.ndarray, moment_2: np.ndarray) -> float:
    """Expected squared residuals of a value without the squares of its ratings."""
    b_2 = line.mean_2
    return float(b_2 @ gram_22 @ b_2 - 2 * b_2 @ moment_2 + np.trace(line.covariance_22 @ gram_22))
