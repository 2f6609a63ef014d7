"""The content error of a judge from texts of which only the direction is known: for or against a value.

Model. People's intensity y and the judge's intensity x of the texts are bivariate normal with correlation rho. The probability
that a text with y > 0 has the larger x than one with y < 0 is then

    AUC = 1/2 + 2/pi asin(rho / sqrt(2)),        rho = sqrt(2) sin(pi/2 (AUC - 1/2)),

four times an orthant probability of (x1 - x2, y1, -y2) (Sheppard 1899). Texts that are all clearly for or against a value are
easier than the normal distribution says, so they make a judge look better than it is: rated texts come first.

The AUCs of several values are pooled (DerSimonian & Laird 1986, doi:10.1016/0197-2456(86)90046-2) as logits, since the variance
of an AUC near 1 is small because it is near 1 (Debray et al. 2017, doi:10.1136/bmj.i6460); a value without texts gets that of a
new value.

Shapes: N texts of a value, V values, D draws.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy.special import expit, logit
from scipy.stats import rankdata

from valueflow.numerics.intervals import Z95
from valueflow.ranking.content_error import DRAWS, ContentError, K, mixture_sd
from valueflow.ranking.rating_regression import MIN_RESIDUAL

MIN_TEXTS = 20  # of all values together
MIN_SIDE = 2  # texts for and against that show how far AUCs of a value scatter


class DirectedTexts(NamedTuple):
    """Texts of one value: the judge's intensity with its own interval, points, and the side, 1 for and -1 against."""

    intensity_N: np.ndarray
    low_N: np.ndarray
    high_N: np.ndarray
    side_N: np.ndarray


class Auc(NamedTuple):
    """An AUC, or its logit, with its variance."""

    mean: float
    variance: float


def from_directions(
    directed: Mapping[K, DirectedTexts], before: Mapping[K, ContentError], source: str
) -> dict[K, ContentError]:
    """Return the content error of each value of `before`; empty with fewer than MIN_TEXTS usable texts.

    Args:
        directed: the texts by value.
        before: what is known without them, by value: spread of people's intensities, errors of the zero and of the anchors.
        source: what the result rests on, for readers; "{n}" is replaced by the number of texts.
    """
    usable = {v: texts for v, texts in directed.items() if min((texts.side_N > 0).sum(), (texts.side_N < 0).sum()) >= MIN_SIDE}
    n = sum(len(texts.side_N) for texts in usable.values())
    if n < MIN_TEXTS:
        return {}
    aucs, new = pooled({value: on_logits(texts) for value, texts in usable.items()})
    x_M = np.concatenate([texts.intensity_N for texts in usable.values()])
    error_M = np.concatenate([(texts.high_N - texts.low_N) / (2 * Z95) for texts in usable.values()])
    square, sampling = max(float((x_M**2).mean()), 1e-9), float((error_M**2).mean())
    result = {}
    for number, (value, known) in enumerate(before.items()):
        of_value = aucs.get(value, new)
        draws_D = np.random.default_rng([0, number]).normal(of_value.mean, of_value.variance**0.5, DRAWS)
        rho_D = np.clip(np.sqrt(2) * np.sin(np.pi / 2 * np.clip(expit(draws_D) - 0.5, 0.0, 0.5)), 0.0, 1.0)
        spread = known.spread or square**0.5
        slope_D = rho_D * spread / square**0.5
        residual_D = spread**2 * (1 - rho_D**2)
        content_D = np.maximum(residual_D - slope_D**2 * sampling, MIN_RESIDUAL * residual_D)
        slope = float(slope_D.mean())
        zero = known.shared_sd / known.slope if known.slope else 0.0
        result[value] = ContentError(
            slope=slope, sd=mixture_sd(np.sqrt(content_D)), shared_sd=slope * zero, slope_sd=float(slope_D.std()),
            spread=spread, anchor_sd=known.anchor_sd, basis="direction", n=n, source=source.format(n=f"{n:,}"),
        )  # fmt: skip
    return result


def auc(texts: DirectedTexts) -> Auc:
    """Return the AUC of the judge's intensity for the side, ties counting half, and its variance.

    That of DeLong et al. 1988 (doi:10.2307/2531595).
    """
    pro_N, con_N = texts.intensity_N[texts.side_N > 0], texts.intensity_N[texts.side_N < 0]
    both = rankdata(np.concatenate([pro_N, con_N]))
    above_N = (both[: len(pro_N)] - rankdata(pro_N)) / len(con_N)
    below_N = 1 - (both[len(pro_N) :] - rankdata(con_N)) / len(pro_N)
    variance = above_N.var(ddof=1) / len(pro_N) + below_N.var(ddof=1) / len(con_N)
    # Complete separation has no variance by this formula: at least that of the mean of as many coins that all fell alike.
    least = 1 / (12 * len(pro_N) * len(con_N))
    return Auc(float(above_N.mean()), max(float(variance), least))


def on_logits(texts: DirectedTexts) -> Auc:
    """Return the logit of the AUC and its variance (delta method); of texts wholly apart, half a pair counts as misordered."""
    mean, variance = auc(texts)
    half = 0.5 / int((texts.side_N > 0).sum() * (texts.side_N < 0).sum())
    mean = float(np.clip(mean, half, 1 - half))
    return Auc(float(logit(mean)), variance / (mean * (1 - mean)) ** 2)


def pooled(aucs: Mapping[K, Auc]) -> tuple[dict[K, Auc], Auc]:
    """Return each AUC shrunk towards the mean over values, and the AUC of a new value."""
    mean_V, variance_V = np.array(list(aucs.values())).T
    if len(mean_V) < 2:
        (only,) = aucs.values()
        return dict(aucs), only
    weight_V = 1 / variance_V
    common = float(np.average(mean_V, weights=weight_V))
    excess = float((weight_V * (mean_V - common) ** 2).sum()) - (len(mean_V) - 1)
    between = max(excess / (weight_V.sum() - (weight_V**2).sum() / weight_V.sum()), 0.0)
    weight_V = 1 / (variance_V + between)
    common, of_mean = float(np.average(mean_V, weights=weight_V)), 1 / float(weight_V.sum())
    share_V = between / (variance_V + between)  # of a value's own AUC in its estimate
    own = {
        value: Auc(float(share * at.mean + (1 - share) * common), float(share * at.variance + (1 - share) ** 2 * of_mean))
        for share, (value, at) in zip(share_V, aucs.items(), strict=True)
    }
    return own, Auc(common, between + of_mean)


def are_directions(rating_N: np.ndarray) -> bool:
    """Return whether numbers are directions and no ratings: all of them are -1, 0 or 1."""
    return bool(np.isin(rating_N, (-1.0, 0.0, 1.0)).all())
