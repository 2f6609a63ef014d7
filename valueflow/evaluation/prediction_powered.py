"""Means, contrasts and profiles of a judge that scores every text, corrected by a trusted judge that scores a random subset.

Estimator: PPI++ (Angelopoulos, Duchi and Zrnic 2023, arXiv 2311.01453). With trusted scores y and the judge's scores f,
averaged over the n texts of the subset (y_n, f_n) and the M others (f_M):

    estimate = y_n + w (f_M - f_n),     0 ≤ w ≤ 1

The judge may be biased, on another scale or noise: f_M - f_n has mean 0 whatever f is, if the subset is random. The weight w
minimizes the estimated variance, so a judge that follows the trusted scores narrows the interval, and a useless one has weight
0, the classical mean of the subset. `docs/method.md` has the formulas, the assumptions and when not to use it.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from valueflow.errors import InputError

# Units with a trusted score from which the weight is estimated: with fewer its error exceeds what the judge adds.
MIN_WEIGHTED = 10


class Sample(NamedTuple):
    """The scores of T texts on one value.

    Attributes:
        judge_T: scores of the judge, all finite.
        trusted_T: trusted scores; NaN where a text has none.
        units: of each text, what it belongs to (a thread, an author, a query): texts of a unit may depend on each other.
            Default: every text is independent.
    """

    judge_T: np.ndarray
    trusted_T: np.ndarray
    units: Sequence[str] | None = None


class Estimate(NamedTuple):
    """A mean or a difference of means with its 95 % interval.

    Attributes:
        estimate: of the population that the texts were drawn from.
        low: lower end of the interval.
        high: upper end.
        standard_error: of the estimate.
        num_texts: texts (paired: pairs) that the judge scored.
        num_trusted: those with a trusted score.
        judge_weights: w of each group, 0 for the classical mean of the trusted scores.
        imbalance: of each group, the judge's mean of the trusted texts less that of the others, in standard errors. Beyond 4,
            the subset is hardly random.
    """

    estimate: float
    low: float
    high: float
    standard_error: float
    num_texts: int
    num_trusted: int
    judge_weights: tuple[float, ...]
    imbalance: tuple[float, ...]


class _Part(NamedTuple):
    """Influence on the estimate of each unit with trusted texts, or of each without; `freedom` of their sum of squares."""

    influence_U: np.ndarray
    freedom: int

    @property
    def variance(self) -> float:
        return float(self.influence_U @ self.influence_U)


class _Group(NamedTuple):
    estimate: float
    weight: float
    imbalance: float
    parts: tuple[_Part, _Part]


def mean(sample: Sample) -> Estimate:
    """Return the mean of the trusted scores over the population of the texts.

    Raises:
        InputError: scores do not fit together, some of the judge are missing, or the trusted ones are fewer than 2, of one
            unit or all equal.
    """
    return _estimate([sample], [1])


def contrast(first: Sample, second: Sample, paired: bool = False) -> Estimate:
    """Return the mean of the first group less that of the second.

    Args:
        first: a group.
        second: the other group; in groups that are not paired, texts of equal `units` (queries, say) may depend on each other.
        paired: text i of both groups is a pair, such as two responses to one query, whose difference is analyzed. Only pairs
            with two trusted scores correct it, and the units are those of the first group.

    Raises:
        InputError: see `mean`; or paired groups differ in size, or only one of two groups has units.
    """
    if not paired:
        if (first.units is None) != (second.units is None):
            raise InputError("one of the two groups has units and the other has none; name the units of both, or of neither")
        return _estimate([first, second], [1, -1])
    if np.shape(first.judge_T) != np.shape(second.judge_T) or np.shape(first.trusted_T) != np.shape(second.trusted_T):
        raise InputError(f"paired groups have {len(first.judge_T)} and {len(second.judge_T)} texts; pairs need the same number")
    return mean(Sample(first.judge_T - second.judge_T, first.trusted_T - second.trusted_T, first.units))


def profile(samples: Mapping[str, Sample]) -> dict[str, Estimate]:
    """Return the mean of every value; each interval holds for its own value, not for all values together.

    Raises:
        InputError: see `mean`; the message begins with the value.
    """
    estimates = {}
    for value, sample in samples.items():
        try:
            estimates[value] = mean(sample)
        except InputError as error:
            raise InputError(f"{value}: {error}") from None
    return estimates


def align(text_ids: Sequence[str], trusted: Mapping[str, float]) -> np.ndarray:
    """Return the trusted scores in the order of the texts, NaN where a text has none.

    Raises:
        InputError: a trusted score is of none of the texts.
    """
    strays = sorted(set(trusted) - set(text_ids))
    if strays:
        raise InputError(
            f"{len(strays)} of {len(trusted)} trusted scores are of none of the {len(text_ids)} texts that the judge scored "
            f"(first: {strays[0]!r}); the trusted scores must be of a random subset of these texts"
        )
    return np.array([trusted.get(i, np.nan) for i in text_ids], float)


def check_trusted(trusted_n: np.ndarray) -> None:
    """Check that an interval follows from trusted scores.

    Raises:
        InputError: they are fewer than 2, infinite or all equal.
    """
    if len(trusted_n) < 2:
        raise InputError(f"an interval needs at least 2 trusted scores, not {len(trusted_n)}; add some of a random subset")
    if not np.isfinite(trusted_n).all():
        raise InputError("a trusted score is infinite; scores are finite, and NaN stands for none")
    if np.ptp(trusted_n) == 0:
        raise InputError(
            f"all {len(trusted_n)} trusted scores are {trusted_n[0]:g}, so their spread and with it an interval is unknown; "
            "add some of a random subset"
        )


def _estimate(samples: list[Sample], signs: list[int]) -> Estimate:
    """The sum of the means times the signs."""
    coded, size = _codes([sample.units for sample in samples], [len(sample.judge_T) for sample in samples])
    groups = [_group(sample, codes_T, size) for sample, codes_T in zip(samples, coded, strict=True)]
    parts = [part for group in groups for part in group.parts]
    influence_U = sum(sign * part.influence_U for sign, group in zip(signs, groups, strict=True) for part in group.parts)
    variance, alone = float(np.sum(influence_U**2)), sum(part.variance for part in parts)
    # Welch and Satterthwaite. The variance is itself an estimate from few trusted scores: with n = 5, an interval of ± 1.96
    # standard errors covers 88 %, not 95 %.
    freedom = alone**2 / sum(part.variance**2 / part.freedom for part in parts) if alone else 1.0
    error = float(np.sqrt(variance))
    half = float(stdtrit(freedom, 0.975)) * error
    estimate = sum(sign * group.estimate for sign, group in zip(signs, groups, strict=True))
    return Estimate(
        estimate, estimate - half, estimate + half, error,
        num_texts=sum(len(sample.judge_T) for sample in samples),
        num_trusted=sum(int((~np.isnan(sample.trusted_T)).sum()) for sample in samples),
        judge_weights=tuple(group.weight for group in groups), imbalance=tuple(group.imbalance for group in groups),
    )  # fmt: skip


def _codes(units: list[Sequence[str] | None], sizes: list[int]) -> tuple[list[np.ndarray], int]:
    """By group, the number of each text's unit, equal for equal units of two groups; and how many units there are."""
    ends, total = np.cumsum(sizes)[:-1], sum(sizes)
    if units[0] is None:
        return np.split(np.arange(total), ends), total
    for of_group, size in zip(units, sizes, strict=True):
        if of_group is None or len(of_group) != size:
            raise InputError(f"{len(of_group or ())} units for {size} texts; name the unit of every text, or of none")
    names = [name for of_group in units for name in of_group or ()]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.split(np.array([numbers[name] for name in names], int), ends), len(numbers)


def _group(sample: Sample, codes_T: np.ndarray, size: int) -> _Group:
    """The estimate of one group, and the influence of every unit on it."""
    f_T, y_T = np.asarray(sample.judge_T, float), np.asarray(sample.trusted_T, float)
    if f_T.ndim != 1 or f_T.shape != y_T.shape:
        raise InputError(
            f"shapes {f_T.shape} and {y_T.shape} of the judge's and the trusted scores; both have one number per text"
        )
    if not (finite_T := np.isfinite(f_T)).all():
        raise InputError(
            f"{int((~finite_T).sum())} of {len(f_T)} scores of the judge are missing or infinite (first: text "
            f"{int(finite_T.argmin()) + 1}); score these texts again, or give all of them the same number"
        )
    is_trusted_T = ~np.isnan(y_T)
    check_trusted(y_T[is_trusted_T])
    has_trusted_U = np.bincount(codes_T[is_trusted_T], minlength=size) > 0
    num_units = int(has_trusted_U.sum())
    if num_units < 2:
        raise InputError("all trusted scores are of one unit; an interval needs at least 2 units with trusted scores")

    num_trusted, num_rest = int(is_trusted_T.sum()), int((~is_trusted_T).sum())
    y_n, f_n = y_T[is_trusted_T], f_T[is_trusted_T]
    gap = float(f_T[~is_trusted_T].mean() - f_n.mean()) if num_rest else 0.0
    # Influence of each unit on y_n and on f_n - f_M. Deviations of the others are from the mean of all texts, so that a single
    # other text has a spread too.
    y_U = np.bincount(codes_T[is_trusted_T], (y_n - y_n.mean()) / num_trusted, size)
    f_U = np.bincount(codes_T[is_trusted_T], (f_n - f_n.mean()) / num_trusted, size)
    if num_rest:
        f_U -= np.bincount(codes_T[~is_trusted_T], (f_T[~is_trusted_T] - f_T.mean()) / num_rest, size)
    power = float(f_U @ f_U)
    best = float(y_U @ f_U) / power if num_rest and num_units >= MIN_WEIGHTED and np.ptp(f_n) > 0 else 0.0
    weight = min(max(best, 0.0), 1.0)

    influence_U, scale = y_U - weight * f_U, 1.0
    freedom = num_units - 1
    if 0 < weight < 1:  # estimated: one more parameter, and its error times the gap
        freedom -= 1
        scale = 1 + gap**2 * float(f_U[has_trusted_U] @ f_U[has_trusted_U]) / (num_units * power**2)
    scale *= num_units / freedom
    parts = (
        _Part(np.where(has_trusted_U, influence_U * np.sqrt(scale), 0.0), freedom),
        _Part(np.where(has_trusted_U, 0.0, influence_U), max(1, len(np.unique(codes_T)) - num_units)),
    )
    return _Group(float(y_n.mean()) + weight * gap, weight, _imbalance(f_T, is_trusted_T, codes_T), parts)


def _imbalance(f_T: np.ndarray, is_trusted_T: np.ndarray, codes_T: np.ndarray) -> float:
    """The judge's mean of the trusted texts less that of the others, over its standard error if the subset is random.

    A score test: deviations are from the mean of all, so that few trusted scores (under 16) never exceed 4 by chance.
    """
    if is_trusted_T.all() or np.ptp(f_T) == 0:
        return 0.0
    share_T = np.where(is_trusted_T, 1 / is_trusted_T.sum(), -1 / (~is_trusted_T).sum())
    influence_U = np.bincount(codes_T, share_T * (f_T - f_T.mean()))
    return float(influence_U.sum() / np.sqrt(influence_U @ influence_U))
