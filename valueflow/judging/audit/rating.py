"""Rating compared with ranking of the same texts by the same judges: agreement of judges, of re-prompts, and with a reference.

Shapes: J judges, R repeats (re-prompts) of a judge, T texts (a text of two values counts twice), B draws of the bootstrap.

Sign of a score: 1 above zero, -1 below, and 0 for a score of zero (up to `ZERO`). Zero is no sign, so:
- a **flip** is one score above zero and another below; a zero never flips. Raters that often answer 0 therefore look stable,
  and the row `zeros` is the share of such answers.
- against a reference, a zero counts half, like a coin flip.

Every row is a statistic over texts. The bootstrap draws texts with all their scores, the same draws for both methods. The
difference is over judges and texts with a score by both methods, so that no method gains from invalid answers to hard texts; if
there are invalid answers, it is not exactly the difference of the columns. Judges, prompts and reference are fixed: an interval
is about the choice of texts, not about other judges. In simulation (tests/judging) intervals cover 90-99 % with 60 texts and
91-97 % with 200. A share of exactly 0 or 1 has an interval of width 0.
"""

from typing import Literal, NamedTuple

import numpy as np

from valueflow.errors import InputError
from valueflow.records import LIMIT

ZERO = 1e-9  # means of ratings such as 0.1, 0.2, -0.3 are zero or tied only up to rounding
NUM_DRAWS = 2000
METHODS = ("rating", "ranking")


class Scores(NamedTuple):
    """Scores by one method, in [-10, 10]; nan for an invalid answer, or a text without reference."""

    method: Literal["rating", "ranking"]
    score_JRT: np.ndarray
    reference_T: np.ndarray
    value_T: np.ndarray


class RatingEstimate(NamedTuple):
    """A statistic with its 95 % interval (nan if undefined) and its number of texts."""

    value: float
    low: float
    high: float
    num_texts: int


class Row(NamedTuple):
    """One statistic of each method, from all its scores, and ranking less rating from the texts with scores by both."""

    key: str
    rating: RatingEstimate
    ranking: RatingEstimate
    difference: RatingEstimate


class Comparison(NamedTuple):
    """The rows of all judges together and of each alone, and their scores."""

    judges: list[str]
    rows: dict[str, Row]
    by_judge: list[dict[str, Row]]
    rating: Scores
    ranking: Scores
    num_draws: int
    seed: int


class _Block(NamedTuple):
    """The texts of a value with a reference: of `pairs_NN` scored pairs, `won_NN` order the row's text above the column's."""

    index_N: np.ndarray
    won_NN: np.ndarray
    pairs_NN: np.ndarray


class _Terms(NamedTuple):
    """Terms of the sums behind the rows: numerators, denominators, means and variances of texts, and pairs of texts."""

    ratios: dict[str, tuple[np.ndarray, np.ndarray]]
    blocks: list[_Block]
    mean_T: np.ndarray
    variance_T: np.ndarray
    num_judges_T: np.ndarray
    value_T: np.ndarray


def compare(scores: list[Scores], judges: list[str], seed: int, num_draws: int = NUM_DRAWS) -> Comparison:
    """Return every row for rating, ranking and ranking less rating, with 95 % percentile bootstrap intervals over texts.

    The rows, where "a score" is one answer of one judge, and "a judge's score" the mean over its repeats:
    - judge_variance: variance (n - 1) of the judges' scores of a text, mean over texts with two or more judges.
    - judge_flips: share of these texts on which one judge's score is above zero and another's below.
    - judge_pair_flips: the same as a share of pairs of judges.
    - reliability: variance between texts of a value over the sum of it and judge_variance (one-way intraclass correlation).
      Unlike the variance it does not fall when all scores are squeezed towards zero.
    - prompt_variance: variance (n - 1) of a judge's repeats on a text, mean over judges and texts.
    - prompt_flips, prompt_change: share of flips, and mean absolute difference, over pairs of repeats.
    - sign_accuracy: share of scores with the sign of a reference that is not zero.
    - pairwise_accuracy: share of pairs of texts of one value, of different reference, that scores of one judge and repeat
      order as the reference does; tied scores count half.
    - deviation: mean absolute difference of score and reference.
    - zeros, broken: share of answers that are zero; share of invalid answers.

    Raises:
        InputError: not one rating and one ranking of the same judges, texts, values and references, in [-10, 10].
    """
    rating, ranking = _checked(scores, judges)
    weight_BT = _weights(len(rating.value_T), seed, num_draws)
    rows = _rows(rating, ranking, weight_BT)
    alone = [[each._replace(score_JRT=judge[None]) for judge in each.score_JRT] for each in (rating, ranking)]
    by_judge = [_rows(one, other, weight_BT) for one, other in zip(alone[0], alone[1], strict=True)]
    return Comparison(list(judges), rows, by_judge, rating, ranking, num_draws, seed)


def judge_scores(scores: Scores) -> np.ndarray:
    """Return each judge's score of each text, the mean over repeats (J, T); nan if all are invalid."""
    return _moments(scores.score_JRT, 1)[0]


def judge_spread(scores: Scores) -> np.ndarray:
    """Return the standard deviation between the judges' scores of each text (T,); nan with fewer than two judges."""
    return np.sqrt(_moments(judge_scores(scores), 0)[1])


def _checked(scores: list[Scores], judges: list[str]) -> tuple[Scores, Scores]:
    by_method = {each.method: each for each in scores}
    if len(scores) != 2 or set(by_method) != set(METHODS):
        raise InputError(f"a comparison is of the methods {METHODS}, each once; got {[each.method for each in scores]}")
    rating, ranking = by_method["rating"], by_method["ranking"]
    for each in (rating, ranking):
        shape, num_texts = each.score_JRT.shape, len(each.value_T)
        if len(shape) != 3 or shape[0] != len(judges) or shape[2] != num_texts or each.reference_T.shape != (num_texts,):
            raise InputError(
                f"{each.method} scores must be judges x repeats x texts; got {shape} for {len(judges)} judges, "
                f"{num_texts} value ids and references {each.reference_T.shape}"
            )
        if not all(shape):
            raise InputError(f"{each.method} scores are empty: {shape} judges x repeats x texts")
        for name, array in (("scores", each.score_JRT), ("references", each.reference_T)):
            outside = array[np.abs(array) > LIMIT]
            if len(outside):
                raise InputError(f"{each.method} {name} must lie in [-{LIMIT:g}, {LIMIT:g}] or be nan; got {outside[0]}")
    same = np.array_equal(rating.reference_T, ranking.reference_T, equal_nan=True)
    if not (same and np.array_equal(rating.value_T, ranking.value_T)):
        raise InputError("rating and ranking must be of the same texts in the same order, but values or references differ")
    return rating, ranking


def _weights(num_texts: int, seed: int, num_draws: int) -> np.ndarray:
    """Multiplicity of each text in each draw (B, T); the first row is the data itself."""
    drawn = np.random.default_rng(seed).integers(num_texts, size=(num_draws, num_texts))
    cell = drawn + num_texts * np.arange(num_draws)[:, None]
    counts = np.bincount(cell.ravel(), minlength=num_draws * num_texts).reshape(num_draws, num_texts)
    return np.concatenate([np.ones((1, num_texts)), counts])


def _rows(rating: Scores, ranking: Scores, weight_BT: np.ndarray) -> dict[str, Row]:
    has_rating, has_ranking = np.isfinite(judge_scores(rating)), np.isfinite(judge_scores(ranking))
    separate = [_evaluated(each, weight_BT) for each in (rating, ranking)]
    shared = separate
    if not np.array_equal(has_rating, has_ranking):
        both = (has_rating & has_ranking)[:, None]
        masked = [each._replace(score_JRT=np.where(both, each.score_JRT, np.nan)) for each in (rating, ranking)]
        shared = [
            _evaluated(each, weight_BT) | {"broken": whole["broken"]} for each, whole in zip(masked, separate, strict=True)
        ]
    rows = {}
    for key in separate[0]:
        (rating_B, in_rating), (ranking_B, in_ranking) = shared[0][key], shared[1][key]
        difference = _estimate(ranking_B - rating_B, in_rating & in_ranking)
        rows[key] = Row(key, _estimate(*separate[0][key]), _estimate(*separate[1][key]), difference)
    return rows


def _evaluated(scores: Scores, weight_BT: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Every row under every weighting of the texts (B,), and a mask of its texts (T,)."""
    terms = _terms(scores)
    statistics, masks = _statistics(terms, weight_BT), _masks(terms)
    return {key: (statistics[key], masks[key]) for key in statistics}


def _estimate(value_B: np.ndarray, mask_T: np.ndarray) -> RatingEstimate:
    """The statistic of the data and the quantiles of its draws; no interval from one text."""
    num_texts = int(mask_T.sum())
    draws = value_B[1:][np.isfinite(value_B[1:])]
    if num_texts < 2 or not len(draws) or not np.isfinite(value_B[0]):
        return RatingEstimate(float(value_B[0]), np.nan, np.nan, num_texts)
    low, high = np.quantile(draws, [0.025, 0.975])
    return RatingEstimate(float(value_B[0]), float(low), float(high), num_texts)


def _terms(scores: Scores) -> _Terms:
    score_JRT, reference_T = scores.score_JRT, scores.reference_T
    sign_JRT, mean_JT = _sign(score_JRT), judge_scores(scores)
    sign_JT, sign_T = _sign(mean_JT), _sign(reference_T)
    mean_T, variance_T = _moments(mean_JT, 0)
    flipped_T = (sign_JT > 0).any(0) & (sign_JT < 0).any(0)
    answered = np.isfinite(score_JRT)
    one, other = np.triu_indices(score_JRT.shape[0], 1)
    first, second = np.triu_indices(score_JRT.shape[1], 1)
    ratios = {
        "judge_variance": _cells(variance_T),
        "judge_flips": _cells(np.where(np.isfinite(variance_T), flipped_T, np.nan)),
        "judge_pair_flips": _cells(_flips(sign_JT[one], sign_JT[other])),
        "prompt_variance": _cells(_moments(score_JRT, 1)[1]),
        "prompt_flips": _cells(_flips(sign_JRT[:, first], sign_JRT[:, second])),
        "prompt_change": _cells(np.abs(score_JRT[:, first] - score_JRT[:, second])),
        "sign_accuracy": _cells(np.where(sign_T != 0, (1 + sign_JRT * sign_T) / 2, np.nan)),
        "deviation": _cells(np.abs(score_JRT - reference_T)),
        "zeros": _cells(np.where(answered, sign_JRT == 0, np.nan)),
        "broken": _cells(np.where(answered, 0.0, 1.0)),
    }
    return _Terms(ratios, _blocks(scores), mean_T, variance_T, np.isfinite(mean_JT).sum(0), scores.value_T)


def _blocks(scores: Scores) -> list[_Block]:
    """Dense pairs of each value: 16 bytes times the square of its texts with a reference."""
    blocks = []
    for value in np.unique(scores.value_T):
        index_N = np.flatnonzero((scores.value_T == value) & np.isfinite(scores.reference_T))
        if len(index_N) < 2:
            continue
        reference_N = scores.reference_T[index_N]
        higher = reference_N[:, None] - reference_N > ZERO
        won, pairs = np.zeros(higher.shape), np.zeros(higher.shape)
        for score_N in scores.score_JRT[:, :, index_N].reshape(-1, len(index_N)):
            apart = score_N[:, None] - score_N
            pairs += higher & np.isfinite(apart)
            won += higher * ((apart > ZERO) + 0.5 * (np.abs(apart) <= ZERO))
        blocks.append(_Block(index_N, won, pairs))
    return blocks


def _masks(terms: _Terms) -> dict[str, np.ndarray]:
    """Mask of the texts of each row (T,)."""
    masks = {key: below_T > 0 for key, (_, below_T) in terms.ratios.items()}
    paired = np.zeros(len(terms.value_T), bool)
    for index_N, _, pairs_NN in terms.blocks:
        paired[index_N] = (pairs_NN + pairs_NN.T).any(1)
    return masks | {"pairwise_accuracy": paired, "reliability": np.isfinite(terms.variance_T)}


def _statistics(terms: _Terms, weight_BT: np.ndarray) -> dict[str, np.ndarray]:
    """Every row under every weighting of the texts: key -> (B,)."""
    ratios = {key: _ratio(weight_BT @ above, weight_BT @ below) for key, (above, below) in terms.ratios.items()}
    won_B, pairs_B = np.zeros(len(weight_BT)), np.zeros(len(weight_BT))
    for index_N, won_NN, pairs_NN in terms.blocks:
        weight_BN = weight_BT[:, index_N]
        won_B += (weight_BN @ won_NN * weight_BN).sum(1)
        pairs_B += (weight_BN @ pairs_NN * weight_BN).sum(1)
    return ratios | {"pairwise_accuracy": _ratio(won_B, pairs_B), "reliability": _reliability(terms, weight_BT)}


def _reliability(terms: _Terms, weight_BT: np.ndarray) -> np.ndarray:
    """Intraclass correlation from the analysis of variance of judges within texts within values."""
    mask_T = np.isfinite(terms.variance_T)
    if not mask_T.any():
        return np.full(len(weight_BT), np.nan)
    weight_BN, variance_N = weight_BT[:, mask_T], terms.variance_T[mask_T]
    values, value_N = np.unique(terms.value_T[mask_T], return_inverse=True)
    is_NV = np.equal.outer(value_N, np.arange(len(values))).astype(float)
    mean_N = terms.mean_T[mask_T]
    mean_N = mean_N - (mean_N @ is_NV / is_NV.sum(0))[value_N]  # centered, so that the squares below do not cancel
    size_BV, total_BV = weight_BN @ is_NV, weight_BN @ (mean_N[:, None] * is_NV)
    squares_B = weight_BN @ mean_N**2 - (total_BV**2 / np.maximum(size_BV, 1)).sum(1)
    num_B = weight_BN.sum(1)
    within_B = _ratio(weight_BN @ variance_N, num_B)
    noise_B = _ratio(weight_BN @ (variance_N / terms.num_judges_T[mask_T]), num_B)
    between_B = _ratio(squares_B, np.maximum(size_BV - 1, 0).sum(1)) - noise_B
    return _ratio(between_B, between_B + within_B)


def _sign(score: np.ndarray) -> np.ndarray:
    """-1, 0 or 1; nan stays nan."""
    return np.where(np.abs(score) <= ZERO, 0.0, np.sign(score))


def _flips(sign: np.ndarray, other: np.ndarray) -> np.ndarray:
    product = sign * other
    return np.where(np.isfinite(product), product < 0, np.nan)


def _moments(x: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance (n - 1) of the finite entries along an axis; nan with fewer than one, or two, entries."""
    finite = np.isfinite(x)
    count = finite.sum(axis, keepdims=True)
    mean = np.where(finite, x, 0.0).sum(axis, keepdims=True) / np.maximum(count, 1)
    squares = np.where(finite, (x - mean) ** 2, 0.0).sum(axis, keepdims=True)
    variance = np.where(count > 1, squares / np.maximum(count - 1, 1), np.nan)
    return np.where(count > 0, mean, np.nan).squeeze(axis), variance.squeeze(axis)


def _cells(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of the finite entries of each text (the last axis)."""
    flat = x.reshape(-1, x.shape[-1])
    finite = np.isfinite(flat)
    return np.where(finite, flat, 0.0).sum(0), finite.sum(0).astype(float)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)
