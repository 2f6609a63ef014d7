"""Every row on tiny arrays, against closed forms and a loop over simulated judges; coverage of intervals; refusals."""

import re

import numpy as np
import pytest
from scipy.stats import norm

from valueflow.errors import InputError
from valueflow.judging.audit.rating import Comparison, Scores, compare, judge_scores, judge_spread
from valueflow.ranking import calibration
from valueflow.ranking.likelihood import LikelihoodShard
from valueflow.ranking.orders import Orders
from valueflow.ranking.plackett_luce import fit
from valueflow.ranking.windows import WindowsConfig, plan

BETWEEN = ["judge_variance", "judge_flips", "judge_pair_flips", "reliability"]
REPROMPT = ["prompt_variance", "prompt_flips", "prompt_change"]
REFERENCE = ["sign_accuracy", "pairwise_accuracy", "deviation"]
ROWS = {*BETWEEN, *REPROMPT, *REFERENCE, "zeros", "broken"}
NAN = np.nan

# judges x repeats x texts
TINY = np.array([[[4, -1, 0], [2, 1, NAN]], [[-2, -3, 5], [-4, -1, 8]]], float)
TINY_REFERENCE = np.array([5.0, -5.0, 0.0])


def compared(rating, ranking=None, reference=None, value=None, num_draws=50, seed=0) -> Comparison:
    rating = np.asarray(rating, float)
    ranking = rating if ranking is None else np.asarray(ranking, float)
    num_texts = rating.shape[-1]
    reference = np.full(num_texts, NAN) if reference is None else np.asarray(reference, float)
    value = np.full(num_texts, "svt:power") if value is None else np.asarray(value)
    scores = [Scores("ranking", ranking, reference, value), Scores("rating", rating, reference, value)]
    return compare(scores, [f"judge {j}" for j in range(len(rating))], seed, num_draws)


def rated(*args, **kwargs) -> dict[str, float]:
    return {key: row.rating.value for key, row in compared(*args, **kwargs).rows.items()}


def test_rows_by_hand():
    result = rated(TINY, reference=TINY_REFERENCE)
    assert set(result) == ROWS
    # means: 3, 0, 0 and -3, -2, 6.5
    within = (18 + 2 + 21.125) / 3
    between = np.var([0, -1, 3.25], ddof=1) - within / 2
    expected = {
        "judge_variance": within,
        "judge_flips": 1 / 3,  # zeros of the first judge never count as flips
        "judge_pair_flips": 1 / 3,
        "reliability": between / (between + within),
        "prompt_variance": (2 + 2 + 2 + 2 + 4.5) / 5,
        "prompt_flips": 1 / 5,
        "prompt_change": 11 / 5,
        "sign_accuracy": 5 / 8,
        "pairwise_accuracy": (3 + 1 + 2 + 1) / (3 + 1 + 3 + 3),
        "deviation": 49 / 11,
        "zeros": 1 / 11,
        "broken": 1 / 12,
    }
    assert result == pytest.approx(expected)


def test_texts_that_count():
    rows = compared(TINY, reference=[5.0, NAN, 0.0]).rows
    expected = dict.fromkeys(ROWS, 3) | {"sign_accuracy": 1, "pairwise_accuracy": 2, "deviation": 2}
    assert {key: row.rating.num_texts for key, row in rows.items()} == expected
    assert np.isnan(rows["sign_accuracy"].rating.low)  # one text has no interval
    assert rows["sign_accuracy"].rating.value == 0.5


def test_flips_by_pair_and_by_any():
    result = rated([[[1.0, 1.0]], [[2.0, 2.0]], [[-1.0, 3.0]]])
    assert result["judge_flips"] == 1 / 2
    assert result["judge_pair_flips"] == 2 / 6


def test_zero_flips_with_nothing_and_is_half_right():
    result = rated([[[0.0, 0.0], [3.0, 0.0]], [[-2.0, 0.1 + 0.2 - 0.3], [-3.0, -1.0]]], reference=[4, -4])
    assert result["prompt_flips"] == 0
    assert result["sign_accuracy"] == (0.5 + 1 + 0 + 0 + 0.5 + 0.5 + 0.5 + 1) / 8
    assert result["zeros"] == 4 / 8  # the rounding error counts as zero
    assert rated([[[0.0]], [[-2.0]]])["judge_flips"] == 0


def test_pairs_are_of_one_value_and_of_different_reference():
    score = [[[1.0, 2.0, 5.0, 5.0, 9.0]]]
    result = rated(score, reference=[1, 2, 3, 4, 4], value=["a", "b", "a", "a", "a"])
    # of a: (1 < 5) twice, (1 < 9) right; the scores 5 and 5 are tied; (5 < 9) right; the references 4 and 4 are left out
    assert result["pairwise_accuracy"] == (3 + 0.5 + 1) / 5
    assert np.isnan(rated(score, reference=[1, 2, 3, 4, 4], value=list("abcde"))["pairwise_accuracy"])


def test_more_than_two_repeats_are_compared_in_pairs():
    result = rated([[[1.0], [-1.0], [3.0], [NAN]]])
    assert result["prompt_flips"] == 2 / 3
    assert result["prompt_change"] == (2 + 2 + 4) / 3
    assert result["prompt_variance"] == 4


def test_reliability_is_the_anova_of_shrout_and_fleiss_and_ignores_the_unit():
    rng = np.random.default_rng(1)
    score = rng.normal(size=25) * 3 + rng.normal(size=(4, 1, 25))
    between = 4 * score[:, 0].mean(0).var(ddof=1)
    within = score[:, 0].var(0, ddof=1).mean()
    assert rated(score)["reliability"] == pytest.approx((between - within) / (between + 3 * within))
    result, squeezed = rated(score), rated(0.1 * score)
    assert squeezed["reliability"] == pytest.approx(result["reliability"])
    assert squeezed["judge_variance"] == pytest.approx(0.01 * result["judge_variance"])


def test_reliability_is_within_values():
    score = np.array([[[1.0, 3.0, 101.0, 103.0]], [[2.0, 4.0, 102.0, 104.0]]]) / 20
    one = rated(score[:, :, :2])["reliability"]
    assert rated(score, value=list("aabb"))["reliability"] == pytest.approx(one)
    assert rated(score, value=list("aaaa"))["reliability"] > 0.99


def test_difference_is_ranking_less_rating_and_paired():
    rng = np.random.default_rng(2)
    rating = rng.normal(scale=3, size=(3, 2, 80)).clip(-10, 10)
    reference = rng.normal(scale=3, size=80).clip(-10, 10)
    shifted = compared(rating, rating / 2, reference, num_draws=200).rows
    for row in shifted.values():
        assert row.difference.value == pytest.approx(row.ranking.value - row.rating.value)
    same = compared(rating, rating, reference, num_draws=200).rows
    assert all((row.difference.low, row.difference.high) == (0, 0) for row in same.values())


def test_interval_is_that_of_drawing_texts_one_by_one():
    rng = np.random.default_rng(3)
    rating = rng.normal(scale=3, size=(3, 3, 30)).clip(-10, 10).round()
    rating[rng.random(rating.shape) < 0.1] = NAN
    reference, value = rng.integers(-3, 4, size=30).astype(float), np.array(list("ab"))[np.arange(30) % 2]
    reference[:4] = NAN
    rows = compared(rating, reference=reference, value=value, num_draws=60, seed=9).rows
    draws = np.random.default_rng(9).integers(30, size=(60, 30))
    each = [rated(rating[:, :, d], reference=reference[d], value=value[d], num_draws=0) for d in draws]
    for key, row in rows.items():
        low, high = np.quantile([one[key] for one in each], [0.025, 0.975])
        assert (row.rating.low, row.rating.high) == pytest.approx((low, high)), key


def test_each_judge_alone():
    rng = np.random.default_rng(4)
    rating = rng.normal(scale=3, size=(3, 2, 20)).clip(-10, 10)
    reference = rng.normal(size=20)
    result = compared(rating, reference=reference)
    assert len(result.by_judge) == 3
    for j, rows in enumerate(result.by_judge):
        alone = compared(rating[j : j + 1], reference=reference).rows
        for key in ROWS:
            np.testing.assert_allclose(rows[key].rating, alone[key].rating)
        assert all(np.isnan(rows[key].rating.value) for key in BETWEEN)
        assert all(np.isfinite(rows[key].rating.value) for key in ROWS - set(BETWEEN))


def test_a_judge_that_always_breaks_is_in_no_row_but_broken():
    rng = np.random.default_rng(5)
    good = rng.normal(scale=3, size=(2, 2, 20)).clip(-10, 10)
    broken = np.full((1, 2, 20), NAN)
    reference = rng.normal(size=20)
    with_it = compared(np.concatenate([good, broken]), reference=reference)
    without = compared(good, reference=reference)
    for key in ROWS - {"broken"}:
        np.testing.assert_allclose(with_it.rows[key].rating, without.rows[key].rating)
    assert with_it.rows["broken"].rating.value == pytest.approx(1 / 3)
    alone = with_it.by_judge[2]
    assert alone["broken"].rating.value == 1
    assert all(np.isnan(alone[key].rating[:3]).all() and alone[key].rating.num_texts == 0 for key in ROWS - {"broken"})


def test_the_difference_is_over_judges_and_texts_that_both_methods_scored():
    rng = np.random.default_rng(10)
    rating, ranking = rng.normal(scale=3, size=(2, 3, 2, 30)).clip(-10, 10)
    reference = rng.normal(size=30)
    rating[2], rating[0, :, 7], rating[1, 0, 8] = NAN, NAN, NAN  # a judge, an answer, one of two repeats
    result = compared(rating, ranking, reference)
    without = ranking.copy()
    without[2], without[0, :, 7] = NAN, NAN
    paired, whole = compared(rating, without, reference).rows, compared(ranking, reference=reference).rows
    for key in ROWS - {"broken"}:
        np.testing.assert_allclose(result.rows[key].ranking, whole[key].rating)
        np.testing.assert_allclose(result.rows[key].difference, paired[key].difference)
        assert np.isnan(result.by_judge[2][key].difference.value)
    assert result.rows["broken"].difference.value == pytest.approx(-(60 + 2 + 1) / 180)
    assert result.by_judge[2]["broken"].difference.value == -1
    assert np.isfinite(result.by_judge[2]["pairwise_accuracy"].ranking.value)


def test_nothing_usable_at_all():
    rows = compared(np.full((2, 2, 5), NAN), reference=np.full(5, NAN)).rows
    assert {key for key, row in rows.items() if not np.isnan(row.rating.value)} == {"broken"}


def test_one_repeat_says_nothing_about_reprompts():
    result = rated(TINY[:, :1], reference=TINY_REFERENCE)
    assert {key for key, number in result.items() if np.isnan(number)} == set(REPROMPT)


def test_methods_may_differ_in_repeats():
    rows = compared(TINY, TINY[:, [0, 1, 0]]).rows
    assert rows["prompt_flips"].rating.value == 1 / 5
    assert rows["prompt_flips"].ranking.value == 2 / (3 + 3 + 1 + 9)


def test_scores_and_spread_of_judges():
    scores = Scores("rating", TINY, TINY_REFERENCE, np.full(3, "a"))
    np.testing.assert_allclose(judge_scores(scores), [[3, 0, 0], [-3, -2, 6.5]])
    np.testing.assert_allclose(judge_spread(scores), np.sqrt([18, 2, 21.125]))
    assert np.isnan(judge_spread(scores._replace(score_JRT=TINY[:1]))).all()


def change(**changes):
    def changed(scores):
        return [scores[0], scores[1]._replace(**changes)]

    return changed


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda scores: scores[:1], "of the methods ('rating', 'ranking'), each once; got ['rating']"),
        (lambda scores: [scores[0], scores[0]], "each once; got ['rating', 'rating']"),
        (change(score_JRT=TINY[:1]), "ranking scores must be judges x repeats x texts; got (1, 2, 3) for 2 judges"),
        (change(score_JRT=TINY[0]), "got (2, 3) for 2 judges"),
        (change(reference_T=np.zeros(2)), "references (2,)"),
        (change(score_JRT=TINY[:, :0]), "ranking scores are empty: (2, 0, 3)"),
        (change(score_JRT=TINY * 2), "ranking scores must lie in [-10, 10] or be nan; got 16.0"),
        (change(score_JRT=np.where(TINY == 5, np.inf, TINY)), "must lie in [-10, 10] or be nan; got inf"),
        (change(reference_T=TINY_REFERENCE + 6), "ranking references must lie in [-10, 10] or be nan; got 11.0"),
        (change(reference_T=TINY_REFERENCE + 1), "same texts in the same order, but values or references differ"),
        (change(value_T=np.array(["a", "a", "b"])), "same texts in the same order"),
    ],
)
def test_refusals(wrong, message):
    scores = [Scores(method, TINY, TINY_REFERENCE, np.full(3, "a")) for method in ("rating", "ranking")]
    with pytest.raises(InputError, match=re.escape(message)):
        compare(wrong(scores), ["a", "b"], 0)


# Simulated judges of one truth: score = offset + gain * truth + noise. Raters use the scale differently, rankers do not.
OFFSET, GAIN = np.array([1.5, -1.0, 0.0]), np.array([1.3, 0.5, 1.0])
RATER_NOISE, RANKER_NOISE, NUM_REPEATS = 1.0, 0.6, 2


def simulate(rng: np.random.Generator, num_texts: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ratings, rankings and truth; the truth is narrow enough that no score is clipped."""
    truth = rng.uniform(-4, 4, num_texts)
    noise = rng.normal(size=(2, 3, NUM_REPEATS, num_texts))
    rating = OFFSET[:, None, None] + GAIN[:, None, None] * truth + RATER_NOISE * noise[0]
    return rating.clip(-10, 10), (truth + RANKER_NOISE * noise[1]).clip(-10, 10), truth


def predicted(offset, gain, noise, truth) -> dict[str, float]:
    """Expected rows for the simulated truth of the texts."""
    mean_JT = offset[:, None] + gain[:, None] * truth
    above_JT, score_above_JT = norm.cdf(mean_JT / noise), norm.cdf(mean_JT / noise * np.sqrt(NUM_REPEATS))
    variance_T = mean_JT.var(0, ddof=1) + noise**2 / NUM_REPEATS
    one, other = np.triu_indices(len(offset), 1)
    flips_PT = score_above_JT[one] * (1 - score_above_JT[other]) + score_above_JT[other] * (1 - score_above_JT[one])
    away_JT = mean_JT - truth
    folded_JT = noise * np.sqrt(2 / np.pi) * np.exp(-(away_JT**2) / (2 * noise**2)) + away_JT * (
        1 - 2 * norm.cdf(-away_JT / noise)
    )
    apart_TT = truth[:, None] - truth
    right = [norm.cdf(g * apart_TT[apart_TT > 0] / (noise * np.sqrt(2))).mean() for g in gain]
    return {
        "judge_variance": variance_T.mean(),
        "judge_flips": (1 - score_above_JT.prod(0) - (1 - score_above_JT).prod(0)).mean(),
        "judge_pair_flips": flips_PT.mean(),
        "prompt_variance": noise**2,
        "prompt_flips": (2 * above_JT * (1 - above_JT)).mean(),
        "prompt_change": 2 * noise / np.sqrt(np.pi),
        "sign_accuracy": np.where(truth > 0, above_JT, 1 - above_JT).mean(),
        "pairwise_accuracy": np.mean(right),
        "deviation": folded_JT.mean(),
        "zeros": 0.0,
        "broken": 0.0,
    }


def test_judges_that_use_the_scale_differently_match_the_closed_forms():
    rating, ranking, truth = simulate(np.random.default_rng(6), 1500)
    rows = compared(rating, ranking, truth, num_draws=300).rows
    by_rating = predicted(OFFSET, GAIN, RATER_NOISE, truth)
    by_ranking = predicted(np.zeros(3), np.ones(3), RANKER_NOISE, truth)
    for key, number in by_rating.items():
        row = rows[key]
        wanted = (number, by_ranking[key], by_ranking[key] - number)
        for estimate, expected in zip((row.rating, row.ranking, row.difference), wanted, strict=True):
            standard_error = (estimate.high - estimate.low) / 3.92
            assert abs(estimate.value - expected) <= 4 * standard_error + 1e-12, key
    for key in ("judge_variance", "judge_flips", "judge_pair_flips", "prompt_variance", "prompt_flips", "deviation"):
        assert rows[key].difference.high < 0
    for key in ("reliability", "sign_accuracy", "pairwise_accuracy"):
        assert rows[key].difference.low > 0


def test_intervals_cover():
    rng = np.random.default_rng(7)
    rating, ranking, truth = simulate(rng, 10_000)
    # Many values only because pairs are held as a matrix; the truth is the same for all.
    of_all = compared(rating, ranking, truth, value=np.arange(10_000) % 50, num_draws=0).rows
    num_runs, inside = 120, dict.fromkeys(ROWS - {"zeros", "broken"}, 0)
    for run in range(num_runs):
        rating, ranking, truth = simulate(rng, 100)
        rows = compared(rating, ranking, truth, num_draws=200, seed=run).rows
        for key in inside:
            inside[key] += rows[key].difference.low <= of_all[key].difference.value <= rows[key].difference.high
    coverage = {key: count / num_runs for key, count in inside.items()}
    # 600 runs of 60 texts covered 0.91 to 0.97, of 200 texts 0.92 to 0.96; one row of 120 runs is known to 0.022.
    assert min(coverage.values()) > 0.86, coverage
    assert 0.92 < np.mean(list(coverage.values())) < 0.98, coverage


def ranked(truth: np.ndarray, sharpness: float, rng: np.random.Generator) -> np.ndarray:
    """Intensities as a build computes them: windows, answers with Gumbel noise, Plackett-Luce, calibration to neutral texts."""
    items_WK = plan(len(truth), WindowsConfig(k=4, m=24), rng).items_WK
    worth_WK = sharpness * truth[items_WK] + rng.gumbel(size=items_WK.shape)
    order_WK = np.take_along_axis(items_WK, np.argsort(-worth_WK, axis=1), axis=1)
    theta = fit(LikelihoodShard(len(truth), [Orders(order_WK, np.ones(len(order_WK)))])).theta_N
    return calibration.neutral(theta, np.abs(truth) < 0.5, 0.99).to_intensity(theta)


def test_plackett_luce_takes_out_offset_and_gain():
    rng = np.random.default_rng(8)
    truth = np.append(rng.uniform(-5, 5, 50), np.linspace(-0.4, 0.4, 10))
    rating = 2 * (OFFSET[:, None, None] + GAIN[:, None, None] * truth + RATER_NOISE * rng.normal(size=(3, 2, 60)))
    ranking = np.array([[ranked(truth, sharpness, rng) for _ in range(2)] for sharpness in GAIN])
    rows = compared(rating.round().clip(-10, 10), ranking, 2 * truth, num_draws=300).rows
    for key in ("judge_variance", "judge_flips", "judge_pair_flips", "prompt_variance", "deviation"):
        assert rows[key].difference.high < 0, key
    assert rows["reliability"].difference.low > 0
    assert rows["pairwise_accuracy"].difference.low > 0
