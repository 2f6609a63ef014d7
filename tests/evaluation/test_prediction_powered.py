"""Prediction-powered means: answers of ppi-python, coverage and width on planted truths, and the reason for each refusal."""

import numpy as np
import pytest
from scipy.stats import t

from valueflow.errors import InputError
from valueflow.evaluation.prediction_powered import MIN_WEIGHTED, Sample, align, contrast, mean, profile

TRUTH, SPREAD, BIAS, SCALE = 1.5, 2.0, 4.0, 3.0  # of the trusted scores; of the judge, whose unit is another
NUM_TEXTS = 2000


def known() -> Sample:
    """40 texts, 12 of them with a trusted score."""
    i = np.arange(40)
    judge_T = np.round(3 * np.sin(1.7 * i) + 1.5, 3)
    return Sample(judge_T, np.where(i * 7 % 40 < 12, np.round(0.8 * judge_T + np.cos(2.3 * i) - 1, 3), np.nan))


def draw(rng: np.random.Generator, num_trusted: int, correlation: float, num_texts: int = NUM_TEXTS) -> Sample:
    """Texts of a population whose trusted mean is TRUTH; the judge's correlation with the trusted scores is planted."""
    z_T, noise_T = rng.normal(size=(2, num_texts))
    judge_T = BIAS + SCALE * (correlation * z_T + np.sqrt(1 - correlation**2) * noise_T)
    trusted_T = np.full(num_texts, np.nan)
    subset = rng.permutation(num_texts)[:num_trusted]
    trusted_T[subset] = TRUTH + SPREAD * z_T[subset]
    return Sample(judge_T, trusted_T)


def classical(sample: Sample) -> tuple[float, float]:
    """Mean of the trusted scores and half the width of its t interval."""
    trusted_n = sample.trusted_T[~np.isnan(sample.trusted_T)]
    size = len(trusted_n)
    return trusted_n.mean(), t.ppf(0.975, size - 1) * trusted_n.std(ddof=1) / np.sqrt(size)


def simulate(num_trusted: int, correlation: float, rounds: int) -> tuple[float, float, float]:
    """Coverage; mean width over that of the classical interval; variance of the estimate over that of the classical mean."""
    rng, rows = np.random.default_rng(round(1000 * correlation) + num_trusted), []
    for _ in range(rounds):
        sample = draw(rng, num_trusted, correlation)
        estimate, (middle, half) = mean(sample), classical(sample)
        width = estimate.high - estimate.low
        rows.append((abs(estimate.estimate - TRUTH) <= width / 2, width, 2 * half, estimate.estimate - TRUTH, middle - TRUTH))
    covered, width, other, error, other_error = np.array(rows, float).T
    return covered.mean(), width.mean() / other.mean(), (error**2).mean() / (other_error**2).mean()


def test_the_estimate_and_its_variance_are_those_of_ppi_python():
    """ppi_py 0.2.3: ppi_mean_pointestimate and ppi_mean_ci(alpha=0.05) / 1.96 with lam = w; its own lam gives 0.0978."""
    sample = known()
    estimate = mean(sample)
    assert estimate.judge_weights == pytest.approx((0.5494632055004259,), abs=1e-12)
    assert estimate.estimate == pytest.approx(0.08909800052776397, abs=1e-12)
    assert estimate.estimate == pytest.approx(0.09779821987084691, abs=0.01)
    # Ours is for small n: 10 degrees of freedom are left of 12, and the weight has an error of its own (one part in 80 here).
    assert estimate.standard_error == pytest.approx(0.336102327441389, rel=0.1)
    assert estimate.standard_error > 0.336102327441389
    large = draw(np.random.default_rng(5), 900, 0.8)
    weight, is_trusted = mean(large).judge_weights[0], ~np.isnan(large.trusted_T)
    rest, residual_n = large.judge_T[~is_trusted], (large.trusted_T - weight * large.judge_T)[is_trusted]
    by_formula = np.sqrt(residual_n.var() / 900 + weight**2 * rest.var() / len(rest))
    assert mean(large).standard_error == pytest.approx(by_formula, rel=0.003)


def test_weight_zero_is_the_classical_t_interval():
    rng = np.random.default_rng(2)
    few, all_ = draw(rng, MIN_WEIGHTED - 1, 0.9), draw(rng, 60, 0.9, num_texts=60)
    constant = draw(rng, 40, 0.9)._replace(judge_T=np.full(NUM_TEXTS, 0.1))
    opposed = draw(rng, 40, -0.9)
    for sample in (few, all_, constant, opposed):
        estimate, (middle, half) = mean(sample), classical(sample)
        assert estimate.judge_weights == (0.0,)
        assert (estimate.estimate, estimate.low) == pytest.approx((middle, middle - half), abs=1e-9)
    assert mean(constant).imbalance == (0.0,)


def test_a_perfect_judge_gives_the_mean_of_all_texts():
    rng = np.random.default_rng(3)
    judge_T = rng.normal(size=1000)
    estimate = mean(Sample(judge_T, np.where(np.arange(1000) < 50, judge_T, np.nan)))
    half = 1.96 * judge_T.std() / np.sqrt(1000)
    assert (estimate.estimate, estimate.high - estimate.low) == pytest.approx((judge_T.mean(), 2 * half), rel=0.02, abs=0.002)


def test_texts_in_any_order_give_the_same_and_the_scale_of_the_judge_matters_little():
    sample = draw(np.random.default_rng(4), 40, 0.8)
    order = np.random.default_rng(5).permutation(NUM_TEXTS)
    shuffled = Sample(*(column[order] for column in sample[:2]))
    assert mean(shuffled)[:4] == pytest.approx(mean(sample)[:4], abs=1e-9)
    moved = sample._replace(judge_T=2 * sample.judge_T + 100)
    assert mean(moved)[:4] == pytest.approx(mean(sample)[:4], abs=1e-9)
    larger = Sample(3 * sample.judge_T - 1, 3 * sample.trusted_T - 1)
    assert mean(larger).estimate == pytest.approx(3 * mean(sample).estimate - 1)


@pytest.mark.parametrize(("correlation", "ratio"), [(0.0, 1.0), (0.5, 0.8), (0.9, 0.3)])
def test_coverage_and_width_on_a_planted_truth(correlation, ratio):
    """Theory: the variance is 1 - (1 - n/N) times the squared correlation of the classical one; here n = 100 of 2,000."""
    coverage, width, variance = simulate(100, correlation, rounds=300)
    theory = 1 - 0.95 * correlation**2
    assert 0.92 <= coverage <= 0.98
    assert width == pytest.approx(np.sqrt(theory), rel=0.04)
    assert variance == pytest.approx(theory, rel=0.15)
    assert ratio == pytest.approx(theory, abs=0.08)


@pytest.mark.statistics
@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("num_trusted", [30, 100, 300])
def test_coverage_is_95_percent_for_every_judge_and_subset(num_trusted, correlation):
    coverage, width, variance = simulate(num_trusted, correlation, rounds=2500)
    theory = 1 - (1 - num_trusted / NUM_TEXTS) * correlation**2
    numbers = f"coverage {coverage:.3f} width {width:.3f} variance {variance:.3f}, in theory {theory:.3f}"
    print(f"n {num_trusted} correlation {correlation}: {numbers}")
    assert 0.93 <= coverage <= 0.97
    assert width <= 1.03
    assert width == pytest.approx(np.sqrt(theory), rel=0.04)
    assert variance == pytest.approx(theory, rel=0.1)


def test_the_mean_of_a_biased_judge_alone_misses_the_truth():
    rng, covered, naive = np.random.default_rng(6), [], []
    for _ in range(200):
        sample = draw(rng, 100, 0.9)
        estimate = mean(sample)
        half = 1.96 * sample.judge_T.std() / np.sqrt(NUM_TEXTS)
        naive.append(abs(sample.judge_T.mean() - TRUTH) <= half)
        covered.append(estimate.low <= TRUTH <= estimate.high)
    assert np.mean(naive) == 0.0
    assert np.mean(covered) >= 0.9


def grouped(rng: np.random.Generator, num_units: int, by_unit: bool) -> Sample:
    """Texts in units of 5 that share half of their variance; the subset is of whole units, or of texts."""
    units_T = np.repeat(np.arange(num_units), 5)
    z_T = np.sqrt(0.5) * (rng.normal(size=num_units)[units_T] + rng.normal(size=len(units_T)))
    judge_T = 3 * z_T + 3 * rng.normal(size=len(units_T))
    subset = np.isin(units_T, rng.permutation(num_units)[:40]) if by_unit else rng.permutation(len(units_T)) < 200
    return Sample(judge_T, np.where(subset, TRUTH + SPREAD * z_T, np.nan), [f"unit {unit}" for unit in units_T])


@pytest.mark.parametrize("by_unit", [True, False])
def test_texts_of_one_unit_count_as_dependent(by_unit):
    rng, covered, alone = np.random.default_rng(7), [], []
    for _ in range(300):
        sample = grouped(rng, 100, by_unit)
        estimate, other = mean(sample), mean(sample._replace(units=None))
        covered.append(estimate.low <= TRUTH <= estimate.high)
        alone.append(other.low <= TRUTH <= other.high)
    assert 0.92 <= np.mean(covered) <= 0.98
    assert np.mean(alone) < np.mean(covered) - 0.04  # control: as if independent


def effect(rng: np.random.Generator, num_trusted: int, num_pairs: int = 400) -> tuple[Sample, Sample]:
    """Responses to queries that differ much, before and after a change of 0.5 points; the judge sees 0.9 of it."""
    query_T, noise_T, other_T, judge_T = rng.normal(size=(4, num_pairs))
    before_T, after_T = 2 * query_T + noise_T, 2 * query_T + other_T + 0.5
    is_trusted = rng.permutation(num_pairs) < num_trusted
    units = [f"query {i}" for i in range(num_pairs)]
    return (
        Sample(3 + 0.9 * after_T + 0.5 * judge_T, np.where(is_trusted, after_T, np.nan), units),
        Sample(3 + 0.9 * before_T + 0.5 * rng.normal(size=num_pairs), np.where(is_trusted, before_T, np.nan), units),
    )


def coverage_of_contrasts(rounds: int) -> dict[str, tuple[float, float]]:
    """By design, the coverage and the mean width of the contrast."""
    rng, rows = np.random.default_rng(8), {}
    for _ in range(rounds):
        first, second = effect(rng, 60)
        apart = (first._replace(units=None), effect(rng, 60)[1]._replace(units=None))
        designs = {
            "paired": contrast(first, second, paired=True), "units": contrast(first, second), "apart": contrast(*apart),
            "as if apart": contrast(first._replace(units=None), second._replace(units=None)),
        }  # fmt: skip
        for design, of in designs.items():
            rows.setdefault(design, []).append((of.low <= 0.5 <= of.high, of.high - of.low))
    return {design: tuple(np.mean(of, axis=0)) for design, of in rows.items()}


def check_contrasts(rounds: int, low: float, high: float) -> None:
    result = coverage_of_contrasts(rounds)
    print(result)
    for design in ("paired", "units", "apart"):
        assert low <= result[design][0] <= high, design
    assert result["paired"][1] < 0.6 * result["apart"][1]
    assert result["units"][1] < 0.7 * result["apart"][1]
    assert result["as if apart"][0] > 0.98  # control: pairs taken for independent texts waste width


def test_contrasts_cover_the_difference_in_every_design():
    check_contrasts(200, 0.91, 0.99)


@pytest.mark.statistics
def test_contrasts_cover_the_difference_in_95_percent():
    check_contrasts(2000, 0.93, 0.97)


def test_a_contrast_is_the_difference_of_the_means():
    first, second = effect(np.random.default_rng(9), 60)
    both = contrast(first, second)
    assert both.estimate == pytest.approx(mean(first).estimate - mean(second).estimate)
    assert (both.num_texts, both.num_trusted) == (800, 120)
    assert both.judge_weights == mean(first).judge_weights + mean(second).judge_weights
    paired = contrast(first, second, paired=True)
    assert (paired.num_texts, paired.num_trusted, len(paired.judge_weights)) == (400, 60, 1)
    apart = contrast(first._replace(units=None), second._replace(units=None))
    assert apart.standard_error == pytest.approx(np.hypot(mean(first).standard_error, mean(second).standard_error))


def test_pairs_with_one_trusted_score_do_not_correct():
    first, second = effect(np.random.default_rng(10), 60)
    where = np.flatnonzero(~np.isnan(first.trusted_T))[:10]
    second.trusted_T[where] = np.nan
    assert contrast(first, second, paired=True).num_trusted == 50


def test_a_profile_is_the_mean_of_every_value_and_names_the_value_that_fails():
    samples = {"svt:power": known(), "svt:face": draw(np.random.default_rng(11), 50, 0.5)}
    assert profile(samples) == {value: mean(sample) for value, sample in samples.items()}
    with pytest.raises(InputError, match=r"svt:face: .*at least 2 trusted scores, not 0"):
        profile(samples | {"svt:face": Sample(np.arange(3.0), np.full(3, np.nan))})


def test_a_subset_that_is_not_random_is_seen_in_the_imbalance():
    sample = draw(np.random.default_rng(12), 100, 0.5)
    assert abs(mean(sample).imbalance[0]) < 4
    top = sample.judge_T > np.quantile(sample.judge_T, 0.95)
    assert mean(sample._replace(trusted_T=np.where(top, sample.judge_T, np.nan))).imbalance[0] > 4


def test_trusted_scores_find_their_text_or_are_refused():
    np.testing.assert_array_equal(align(["a", "b", "c", "a"], {"a": 1.0, "c": -2.0}), [1, np.nan, -2, 1])
    for trusted in ({"a": 1.0, "x": 2.0, "w": 1.0}, dict.fromkeys("abcdx", 1.0), {"w": 0.0, "a": 1.0}):
        with pytest.raises(InputError, match=r"[12] of \d trusted scores are of none of the 3 texts .*first: '[dwx]'"):
            align(["a", "b", "c"], trusted)


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (Sample(np.arange(5.0), np.full(5, np.nan)), "at least 2 trusted scores, not 0"),
        (Sample(np.arange(5.0), np.array([1, *[np.nan] * 4])), "at least 2 trusted scores, not 1"),
        (Sample(np.arange(5.0), np.array([1, 1, 1, np.nan, np.nan])), "all 3 trusted scores are 1"),
        (Sample(np.arange(5.0), np.array([1, np.inf, 1, np.nan, np.nan])), "infinite"),
        (Sample(np.array([1, 2, np.nan, np.inf]), np.array([1, 2, 3.0, 4])), r"2 of 4 scores of the judge .*first: text 3"),
        (Sample(np.arange(5.0), np.arange(6.0)), r"shapes \(5,\) .*\(6,\)"),
        (Sample(np.zeros((2, 2)), np.zeros((2, 2))), r"one number per text"),
        (Sample(np.arange(3.0), np.arange(3.0), ["u", "u", "u"]), "of one unit"),
        (Sample(np.arange(3.0), np.arange(3.0), ["u", "v"]), "2 units for 3 texts"),
        (Sample(np.array([]), np.array([])), "at least 2 trusted scores, not 0"),
    ],
)
def test_scores_that_give_no_interval_are_refused_in_one_sentence(sample, message):
    with pytest.raises(InputError, match=message) as refusal:
        mean(sample)
    assert "\n" not in str(refusal.value)


def test_groups_that_do_not_fit_are_refused():
    first, second = effect(np.random.default_rng(13), 60)
    with pytest.raises(InputError, match="400 and 399 texts"):
        contrast(first, Sample(second.judge_T[1:], second.trusted_T[1:]), paired=True)
    with pytest.raises(InputError, match="units of both, or of neither"):
        contrast(first, second._replace(units=None))
