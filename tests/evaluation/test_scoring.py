"""The evaluator recovers a simulated truth with calibrated intervals, independent of positions, row order and sampling."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.evaluator import NOISE, OFFICIAL, TRUTHS, UNBEATABLE, simulate, simulated_anchors
from valueflow.errors import InputError
from valueflow.evaluation import scoring
from valueflow.evaluation.scoring import (
    GRID_POINTS,
    EvaluatorConfig,
    Posterior,
    Window,
    check_anchors,
    estimate_sharpness,
    plan_round,
)
from valueflow.ranking.calibration import Calibration
from valueflow.vidb.version import Anchors

ANCHORS = simulated_anchors()
TRUTH = np.repeat(TRUTHS, 30)
SAMPLINGS = ["adaptive", "bucket", "random", "fixed"]
IDENTITY = Calibration(mode="imported", theta=[-10.0, 10.0], intensity=[-10.0, 10.0])
# Upper bounds of the mean absolute error at noise 0, 1, 2, 3: the output of `python -m benchmarks.evaluator` plus 10 to 20 %.
ALLOWED = {"adaptive": (0.2, 0.85, 1.4, 1.95), "bucket": (0.6, 1.03, 1.5, 1.98)}


def anchors(theta: list[float] | np.ndarray, calibration: Calibration = IDENTITY) -> Anchors:
    return Anchors("svt", "power", np.array([f"t{i}" for i in range(len(theta))]), np.array(theta, float), calibration)


def plan_all_rounds(
    units: list[str], config: EvaluatorConfig, anchor_set: Anchors = ANCHORS, text_ids: list[str] | None = None
) -> list[list[Window]]:
    """The windows of all rounds for units without answers."""
    used: list[set[int]] = [set() for _ in units]
    posterior = Posterior(anchor_set, len(units), 1.0)
    return [plan_round(posterior, units, text_ids or units, used, round_, config) for round_ in range(config.m)]


@pytest.mark.parametrize("sampling", ["adaptive", "bucket"])
@pytest.mark.parametrize("at", range(4))
def test_the_error_is_below_the_official_one_and_intervals_cover_the_truth(sampling, at):
    result = simulate(ANCHORS, TRUTH, NOISE[at], sampling)
    assert result.error <= ALLOWED[sampling][at] < OFFICIAL[at]
    assert result.coverage >= 0.92
    if NOISE[at]:
        assert result.coverage <= 0.985
        assert result.sharpness == pytest.approx(1 / NOISE[at], rel=0.15)


@pytest.mark.parametrize("sampling", ["adaptive", "bucket"])
@pytest.mark.parametrize("noise", [1, 3])
def test_position_bias_does_not_move_the_mean(sampling, noise):
    plain, biased = (simulate(ANCHORS, TRUTH, noise, sampling, bias).intensity_R for bias in (0.0, 2.0))
    assert abs((biased - plain).mean()) < 0.25


@pytest.mark.parametrize("sampling", ["adaptive", "bucket"])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_response_beyond_all_anchors_scores_near_ten(sampling, sign):
    for noise in NOISE:
        result = simulate(ANCHORS, np.full(60, sign * UNBEATABLE), noise, sampling)
        assert (sign * result.intensity_R).min() > 9.3


def test_more_windows_and_sharper_judges_narrow_the_interval():
    def width(noise: float, m: int) -> float:
        result = simulate(ANCHORS, TRUTH[::3], noise, "adaptive", m=m)
        return float((result.high_R - result.low_R).mean())

    assert width(1, 6) < width(1, 3) < width(2, 3) < width(3, 3)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_the_plan_of_a_unit_does_not_depend_on_the_others(sampling):
    units, config = [f"u{i}" for i in range(7)], EvaluatorConfig(sampling=sampling)
    alone = {unit: plan_all_rounds([unit], config) for unit in units}
    together, reverse = plan_all_rounds(units, config), plan_all_rounds(units[::-1], config)
    for round_ in range(config.m):
        for at, unit in enumerate(units):
            for window in (together[round_][at], reverse[round_][-1 - at]):
                assert window.position == alone[unit][round_][0].position
                assert window.anchors.tolist() == alone[unit][round_][0].anchors.tolist()


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_another_seed_shows_other_windows(sampling):
    first, other = (plan_all_rounds(["u"], EvaluatorConfig(sampling=sampling, seed=seed)) for seed in (0, 1))
    assert [w.anchors.tolist() for (w,) in first] != [w.anchors.tolist() for (w,) in other]


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("k", [2, 3, 6, 10])
def test_windows_exclude_the_response_and_repeat_no_anchor(sampling, k):
    anchor_set, config = anchors(np.linspace(-10, 10, 40)), EvaluatorConfig(k=k, m=3, sampling=sampling)
    text_ids = [f"t{i}" for i in range(40)]
    rounds = plan_all_rounds([f"u{i}" for i in range(40)], config, anchor_set, text_ids)
    for unit in range(40):
        windows = [anchor_set.text_ids[rounds[r][unit].anchors].tolist() for r in range(3)]
        assert all(text_ids[unit] not in window for window in windows)
        assert all(len(set(window)) == k - 1 for window in windows)
        if sampling != "fixed":
            assert len({text for window in windows for text in window}) == 3 * (k - 1)


@pytest.mark.parametrize("k", [2, 3, 6])
def test_over_all_units_the_response_is_in_every_position_equally_often(k):
    units, config = [f"u{i}" for i in range(600)], EvaluatorConfig(k=k, m=3)
    rounds = plan_all_rounds(units, config, anchors(np.linspace(-10, 10, 60)))
    positions = Counter(window.position for windows in rounds for window in windows)
    assert sorted(positions) == list(range(k))
    assert all(count == pytest.approx(1800 / k, rel=0.2) for count in positions.values())
    assert all(len({rounds[r][unit].position for r in range(3)}) == min(3, k) for unit in range(600))


def test_bucket_windows_reach_over_the_whole_scale():
    for (window,) in plan_all_rounds(["u"], EvaluatorConfig(sampling="bucket")):
        theta_K = ANCHORS.theta_A[window.anchors]
        assert theta_K.min() < -3 < 3 < theta_K.max()


def test_fixed_windows_have_the_same_anchors_for_all_responses():
    rounds = plan_all_rounds([f"u{i}" for i in range(20)], EvaluatorConfig(sampling="fixed"))
    assert len({frozenset(window.anchors.tolist()) for windows in rounds for window in windows}) == 1


def test_adaptive_windows_close_in_on_the_response():
    config, used = EvaluatorConfig(m=3), [set[int]()]
    posterior, spread = Posterior(ANCHORS, 1, 5.0), []
    for round_ in range(3):
        (window,) = plan_round(posterior, ["u"], ["u"], used, round_, config)
        theta_K = np.insert(ANCHORS.theta_A[window.anchors], window.position, 4.2)
        posterior.update(0, window, np.argsort(-theta_K).tolist(), None)
        spread.append(np.abs(theta_K - 4.2).max())
    assert spread[2] < spread[1] < spread[0]


def with_neutral(anchor_set: Anchors, count: int) -> Anchors:
    """The same anchors, of which `count` near zero are neutral texts."""
    near = np.flatnonzero(np.abs(anchor_set.theta_A) < 0.5)
    chosen = np.random.default_rng(0).choice(near, count, replace=False)
    return anchor_set._replace(neutral_ids=frozenset(anchor_set.text_ids[chosen].tolist()))


def mean_size_off_topic(share: float, sampling: str) -> float:
    """Mean |intensity| of texts about something else, by a judge that likes each more or less than it should.

    The more of the other texts of a window do not concern the value either, the less so: alone among neutral texts it is one of
    them.
    """
    config, anchor_set, rng = (
        EvaluatorConfig(sampling=sampling, neutral_share=share),
        with_neutral(ANCHORS, 40),
        np.random.default_rng(1),
    )
    units, liking_U = [f"u{i}" for i in range(200)], rng.normal(0, 4, 200)
    used: list[set[int]] = [set() for _ in units]
    posterior = Posterior(anchor_set, len(units), 1.0)
    for round_ in range(config.m):
        for unit, window in enumerate(plan_round(posterior, units, units, used, round_, config)):
            about = np.mean([i not in anchor_set.neutral_ids for i in anchor_set.text_ids[window.anchors]])
            seen_K = np.insert(anchor_set.theta_A[window.anchors], window.position, about * liking_U[unit])
            posterior.update(unit, window, np.argsort(-(seen_K + rng.gumbel(size=config.k))).tolist(), None)
    return float(np.abs([score.intensity for score in posterior.scores()]).mean())


@pytest.mark.parametrize("sampling", ["bucket", "adaptive"])
def test_neutral_anchors_move_texts_about_something_else_towards_zero(sampling):
    assert mean_size_off_topic(0.4, sampling) < 0.8 * mean_size_off_topic(0.0, sampling)


@pytest.mark.parametrize("sampling", ["bucket", "adaptive"])
def test_neutral_anchors_cost_little_where_the_judge_errs_by_chance_alone(sampling):
    plain, shared = (
        simulate(with_neutral(ANCHORS, 40), np.zeros(300), 3, sampling, neutral_share=share) for share in (0.0, 0.6)
    )
    assert plain.error < shared.error < 1.1 * plain.error  # it costs, and that is why it is off by default
    assert shared.coverage >= 0.92


@pytest.mark.parametrize(("share", "numbers"), [(0.0, [0, 0, 0]), (0.2, [1, 1, 1]), (0.5, [2, 3, 2]), (1.0, [5, 5, 5])])
def test_the_share_of_neutral_anchors_is_kept_over_the_rounds(share, numbers):
    config, anchor_set = EvaluatorConfig(neutral_share=share), with_neutral(ANCHORS, 40)
    windows = [window for (window,) in plan_all_rounds(["u"], config, anchor_set)]
    shown = [[i in anchor_set.neutral_ids for i in anchor_set.text_ids[window.anchors]] for window in windows]
    assert [sum(of_window) for of_window in shown] >= numbers  # an anchor of theta near zero may be neutral too
    assert [config.neutral_anchors(round_) for round_ in range(3)] == numbers
    assert len({int(i) for window in windows for i in window.anchors}) == 15


def test_without_neutral_anchors_settings_and_windows_are_as_before():
    assert "neutral_share" not in EvaluatorConfig().model_dump()
    assert EvaluatorConfig(neutral_share=0.2).model_dump()["neutral_share"] == 0.2
    same = zip(
        plan_all_rounds(["u"], EvaluatorConfig(), with_neutral(ANCHORS, 40)),
        plan_all_rounds(["u"], EvaluatorConfig()),
        strict=True,
    )
    assert all(a[0].anchors.tolist() == b[0].anchors.tolist() for a, b in same)


def test_a_share_that_the_neutral_texts_do_not_reach_is_refused():
    config = EvaluatorConfig(neutral_share=0.4)  # 2 of 5 in 3 rounds, and the text itself may be neutral
    with pytest.raises(InputError, match=r"6 neutral texts.* needs 7"):
        check_anchors(with_neutral(ANCHORS, 6), config)
    check_anchors(with_neutral(ANCHORS, 7), config)
    with pytest.raises(ValueError, match="neutral_share"):
        EvaluatorConfig(neutral_share=0.4, sampling="fixed")


@pytest.mark.parametrize(("sampling", "enough"), [("adaptive", 16), ("bucket", 16), ("random", 16), ("fixed", 6)])
def test_too_few_anchors_are_refused_with_the_required_number(sampling, enough):
    config = EvaluatorConfig(sampling=sampling)
    with pytest.raises(InputError) as refused:
        check_anchors(anchors(np.linspace(-5, 5, enough - 1)), config)
    assert f"svt:power has {enough - 1} anchors; sampling {sampling!r} with k=6, m=3 needs {enough}" in str(refused.value)
    exactly = anchors(np.linspace(-5, 5, enough))
    check_anchors(exactly, config)
    for text_id in ("t0", "t3", "elsewhere"):
        plan_all_rounds(["u"], config, exactly, [text_id])


def test_without_any_answer_the_score_is_the_middle_and_the_interval_the_scale():
    (score,) = Posterior(ANCHORS, 1, 1.0).scores()
    assert score.intensity == pytest.approx(0.0, abs=1e-9)
    assert score.low < -9.5
    assert score.high > 9.5


@given(
    st.lists(st.floats(-10, 10), min_size=1, max_size=6).flatmap(
        lambda t: st.tuples(st.just(t), st.permutations(range(len(t) + 1)))
    ),
    st.floats(0.1, 5.0),
)
def test_the_likelihood_is_plackett_luce(window, sharpness):
    theta, order = window
    anchor_set = anchors(theta)
    for position in range(len(order)):
        posterior = Posterior(anchor_set, 1, sharpness)
        prior = posterior.log_density()
        posterior.update(0, Window(np.arange(len(theta)), position), order, None)
        theta_K = np.insert(np.array(theta), position, 0.0)
        direct = np.zeros(GRID_POINTS)
        x_KG = np.tile(sharpness * theta_K[:, None], GRID_POINTS)
        x_KG[position] = sharpness * posterior.theta_G
        for stage in range(len(order) - 1):
            direct += x_KG[order[stage]] - np.logaddexp.reduce(x_KG[order[stage:]], axis=0)
        seen = (posterior.log_density() - prior)[0]
        # Stages after the response are constants.
        np.testing.assert_allclose(seen - seen[0], direct - direct[0], atol=1e-8)


@pytest.mark.parametrize(
    ("k", "m", "sharpness"), [(6, 3, 1.0), (2, 3, 1.0), (6, 20, 1.0), (6, 3, 5.0), (10, 20, 5.0), (10, 40, 20.0)]
)
@pytest.mark.parametrize("weighted", [False, True])
def test_mean_and_interval_are_those_of_a_grid_thirty_times_as_fine(k, m, sharpness, weighted, monkeypatch):
    rng, size = np.random.default_rng(0), 24
    unit_N = np.repeat(np.arange(size), m)
    anchor_NK = np.array(
        [np.insert(rng.choice(len(ANCHORS.theta_A), k - 1, replace=False), rng.integers(k), -1) for _ in unit_N]
    )
    truth_N = np.repeat(rng.uniform(-11, 11, size), m)
    worth_NK = sharpness * np.where(anchor_NK < 0, truth_N[:, None], ANCHORS.theta_A[anchor_NK])
    order_NK = np.argsort(-(worth_NK + rng.gumbel(size=worth_NK.shape)), axis=1)
    weight_N = (
        np.where(rng.random(len(unit_N)) < 0.5, rng.random(len(unit_N)), np.nan) if weighted else np.full(len(unit_N), np.nan)
    )
    coarse = Posterior(ANCHORS, size, sharpness)
    coarse.update_all(unit_N, anchor_NK, order_NK, weight_N)
    monkeypatch.setattr(scoring, "GRID_POINTS", 32 * (GRID_POINTS - 1) + 1)
    fine = Posterior(ANCHORS, size, sharpness)
    fine.update_all(unit_N, anchor_NK, order_NK, weight_N)
    p_UG, x_G = fine.probabilities(), np.clip(np.linspace(-16, 16, 32 * (GRID_POINTS - 1) + 1), -10, 10)
    below_UG = np.cumsum(p_UG, 1) - p_UG / 2
    expected = [[p @ x_G, *np.interp([0.025, 0.975], below, x_G)] for p, below in zip(p_UG, below_UG, strict=True)]
    np.testing.assert_allclose(coarse.scores(), expected, atol=0.02)


def test_many_sharp_answers_have_a_finite_likelihood():
    anchor_set, sharpness = anchors([-10.0]), 3.5
    posterior = Posterior(anchor_set, 1, sharpness)
    u_G, direct_G = sharpness * posterior.theta_G, posterior.log_density()[0]
    for n in range(120):
        weight = 0.9 if n % 2 else None
        posterior.update(0, Window(np.array([0]), 0), [0, 1], weight)
        direct_G = direct_G + (weight or 1.0) * u_G - np.logaddexp(u_G, -10.0 * sharpness)
    p_G = np.exp(direct_G - direct_G.max())
    mean = p_G @ np.clip(np.linspace(-16, 16, GRID_POINTS), -10, 10) / p_G.sum()
    assert posterior.scores()[0].intensity == pytest.approx(mean, abs=0.02)


@pytest.mark.parametrize("truth", [-12.0, -9.99, 0.013, 12.0])
def test_a_posterior_narrower_than_the_grid_is_at_the_truth(truth):
    near = anchors([-13.0, -11.0, -9.98, -5.0, 0.0, 0.02, 5.0, 11.0, 13.0])
    posterior = Posterior(near, 1, 5000.0)
    theta_K = np.append(near.theta_A, truth)
    posterior.update(0, Window(np.arange(9), 9), np.argsort(-theta_K).tolist(), None)
    (score,) = posterior.scores()
    assert np.isfinite(score).all()
    assert score.low <= score.intensity <= score.high
    assert score.intensity == pytest.approx(np.clip(truth, -10, 10), abs=0.1)


def test_a_unit_has_the_same_numbers_alone_and_window_by_window():
    rng = np.random.default_rng(0)
    unit_N, weight_N = np.repeat(np.arange(8), 5), np.where(np.arange(40) % 3, np.nan, 0.3)
    anchor_NK = np.array([np.insert(rng.choice(len(ANCHORS.theta_A), 4, replace=False), 2, -1) for _ in unit_N])
    order_NK = np.array([rng.permutation(5) for _ in unit_N])
    together, single = Posterior(ANCHORS, 8, 1.0), Posterior(ANCHORS, 8, 1.0)
    together.update_all(unit_N, anchor_NK, order_NK, weight_N)
    for n in range(40):
        single.update_all(unit_N[n : n + 1], anchor_NK[n : n + 1], order_NK[n : n + 1], weight_N[n : n + 1])
        single.scores()
    assert together.scores() == single.scores()
    for unit in range(8):
        alone, mine = Posterior(ANCHORS, 1, 1.0), unit_N == unit
        alone.update_all(np.zeros(5, int), anchor_NK[mine], order_NK[mine], weight_N[mine])
        assert alone.scores() == together.scores()[unit : unit + 1]


def test_probability_one_equals_a_plain_answer_and_one_half_is_uninformative():
    anchor_set = anchors([0.0])
    plain, sure, torn = (Posterior(anchor_set, 1, 1.0) for _ in range(3))
    window = Window(np.array([0]), 0)
    plain.update(0, window, [0, 1], None)
    sure.update(0, window, [0, 1], 1.0)
    torn.update(0, window, [0, 1], 0.5)
    np.testing.assert_allclose(sure.log_density(), plain.log_density())
    assert torn.scores()[0].intensity == pytest.approx(0.0, abs=1e-9)
    assert plain.scores()[0].intensity > 1


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), min_size=2, max_size=2, unique=True))
def test_a_higher_order_probability_gives_a_higher_score(weights):
    scores = []
    for weight in sorted(weights):
        posterior = Posterior(anchors([1.0]), 1, 1.0)
        posterior.update(0, Window(np.array([0]), 1), [1, 0], weight)
        scores.append(posterior.scores()[0].intensity)
    assert scores[0] < scores[1]


def test_a_higher_rank_is_a_higher_score():
    window, scores = Window(np.array([500, 2500, 5000, 7500, 9500]), 0), []
    for at in range(6):
        posterior = Posterior(ANCHORS, 1, 1.0)
        posterior.update(0, window, [*[5, 4, 3, 2, 1][:at], 0, *[5, 4, 3, 2, 1][at:]], None)
        scores.append(posterior.scores()[0].intensity)
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 5
    assert scores[5] < -5


def test_scores_go_through_the_calibration():
    bent = Calibration(mode="human", theta=[-4.0, 1.0, 2.0], intensity=[-10.0, 0.0, 10.0])
    for theta, intensity in ((-1.5, -5.0), (1.0, 0.0), (1.5, 5.0)):
        anchor_set = anchors(np.linspace(-4, 2, 601), bent)
        posterior = Posterior(anchor_set, 1, 200.0)
        near = np.searchsorted(anchor_set.theta_A, [theta - 0.05, theta + 0.05])
        posterior.update(0, Window(near, 0), [2, 0, 1], None)
        (score,) = posterior.scores()
        assert score.intensity == pytest.approx(intensity, abs=0.5)
        assert score.low <= score.intensity <= score.high


@pytest.mark.parametrize("sharpness", [0.1, 0.5, 2.0, 6.0])
def test_sharpness_is_recovered_from_the_order_of_the_anchors(sharpness):
    rng = np.random.default_rng(0)
    theta_WK = rng.normal(0, 1, (800, 6))
    orders = np.argsort(-(sharpness * theta_WK + rng.gumbel(size=theta_WK.shape)), axis=1)
    theta_WK[:, 2] = np.nan
    assert estimate_sharpness(list(theta_WK), orders.tolist()) == pytest.approx(sharpness, rel=0.1, abs=0.04)


def test_all_windows_failed_leave_sharpness_one_and_the_widest_interval():
    assert estimate_sharpness([], []) == pytest.approx(1.0, rel=0.05)
    rounds = plan_all_rounds(["u"], EvaluatorConfig())
    assert len(rounds) == 3
    (score,) = Posterior(ANCHORS, 1, estimate_sharpness([], [])).scores()
    assert score.high - score.low > 19


def test_a_perfect_and_a_random_judge_have_finite_sharpness():
    theta_WK = [np.array([3.0, np.nan, 1.0, -2.0])] * 50
    assert estimate_sharpness(theta_WK, [[0, 1, 2, 3]] * 50) > 3
    assert estimate_sharpness(theta_WK, [[3, 2, 1, 0]] * 50) < 0.1


def test_where_the_judge_says_relevance_each_text_is_asked_about_once_beside_the_first_round():
    config, ids = EvaluatorConfig(k=3, m=2), ["a", "b"]
    plain, asking = (scoring.Scoring(ANCHORS, ids, 1.0, config, relevance) for relevance in ("none", "apart"))
    first, second = asking.plan(0), asking.plan(1)
    assert first.slice(0, 2).equals(plain.plan(0))
    assert first["text_ids"].to_pylist()[2:] == [["a"], ["b"]]
    assert second.num_rows == 2
    assert asking.window_ids(2).keys() - plain.window_ids(2).keys() == set(first["window_id"].to_pylist()[2:])
    rows = [row | {"order": [0], "weight": None, "relevance": 0.3} for row in first.to_pylist()[2:]]
    asking.take([(0, rows[0]), (1, rows[1] | {"order": None, "relevance": None})])
    assert [total.relevance for total in asking.scores()] == [0.3, None]


@pytest.mark.parametrize("relevance", ["apart", "in orders"])
def test_scores_follow_the_relevance_and_those_without_one_are_as_before(relevance):
    own_3T = np.array([[9.0, 9.0, 9.0], [7.0, 7.0, 7.0], [10.0, 10.0, 10.0]])
    error = scoring.ContentError(sd=1.0)
    plain, (concerned, irrelevant, unknown) = scoring.totals(error, own_3T), scoring.totals(
        error, own_3T, 0, [1.0, 0.0, None], relevance
    )  # fmt: skip
    assert unknown == plain[0]
    assert concerned[:6] == plain[0][:6]
    assert 0 < irrelevant.intensity <= 1
    assert irrelevant.low <= 0 <= irrelevant.high
    assert irrelevant[3:6] == (9.0, 7.0, 10.0)
