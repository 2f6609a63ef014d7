"""Judges with simulated faults fail the corresponding metrics, and the metrics match their expected values."""

import itertools
import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, spearmanr

from valueflow.errors import InputError
from valueflow.judging.answers import answers
from valueflow.judging.audit import measures
from valueflow.judging.audit.audit import audit_result, plan_audit
from valueflow.judging.audit.result import AuditConfig, AuditFigure, AuditResult
from valueflow.judging.audit.triples import RATED_TEXTS, triples_of
from valueflow.judging.configs import SimulatedJudge
from valueflow.judging.simulated import SimulatedRanker, true_theta
from valueflow.llm.configs import Price
from valueflow.ranking import plackett_luce
from valueflow.ranking.likelihood import LikelihoodShard
from valueflow.ranking.orders import orders_of
from valueflow.records import SCHEMAS
from valueflow.theories import operational

CONFIG = AuditConfig()
SHARES = ["order_consistency", "position_effect", "transitivity", "retest", "accuracy"]


def simulated_ratings(num_values: int = 8, num_texts: int = 24, seed: int = 0, sign: int = 1) -> pa.Table:
    rows = [
        {"theory": "svt", "value": f"v{v}", "text_id": f"t{seed}-{i}", "text": f"text {i}", "rating": sign * theta}
        for v in range(num_values)
        for i in range(num_texts)
        for theta in [true_theta(f"v{v}", f"t{seed}-{i}", 3.0)]
    ]
    return pa.Table.from_pylist(rows, RATED_TEXTS)


def rated(ratings: list[float]) -> pa.Table:
    columns = {"theory": ["svt"] * len(ratings), "value": ["power"] * len(ratings), "rating": ratings}
    names = [f"t{i}" for i in range(len(ratings))]
    return pa.table(columns | {"text_id": names, "text": names}).select(RATED_TEXTS.names).cast(RATED_TEXTS)


def audit(ratings: pa.Table, config: AuditConfig = CONFIG, **judge) -> AuditResult:
    return audit_result(ratings, SimulatedRanker(SimulatedJudge(**judge))(plan_audit(ratings, config)), config, 10.0, None)


def failed(result: AuditResult) -> set[str]:
    return {metric.name for metric in result.metrics if not metric.passed}


@pytest.mark.parametrize(
    ("judge", "fails"),
    [
        ({}, set()),
        ({"position_effect": [1.0]}, set()),
        ({"sharpness": 0.5}, set()),
        ({"sharpness": 20.0}, set()),
        ({"sharpness": 0.0}, {"accuracy", "transitivity", "retest", "order_consistency", "specificity", "spearman"}),
        ({"position_effect": [6.0]}, {"order_consistency", "position_effect", "transitivity"}),
        (
            {"position_effect": [0.0, 100.0]},
            {"order_consistency", "position_effect", "accuracy", "transitivity", "specificity", "spearman"},
        ),
        ({"broken_share": 0.3}, {"broken"}),
        ({"broken_share": 0.02}, set()),
    ],
)
def test_a_judge_fails_exactly_the_metrics_of_its_faults(judge, fails):
    result = audit(simulated_ratings(), **judge)
    assert failed(result) == fails
    assert result.passed == (not fails)
    assert len(result.reasons) == len(fails)
    assert len(result.advice) == 1 + len(fails)
    for name in fails:
        metric = result.metric(name)
        reason = next(reason for reason in result.reasons if reason.startswith(metric.label))
        assert f"{metric.estimate:.3f}" in reason
        assert f"{metric.setting} {metric.mark:g}" in reason


def test_one_value_is_enough_to_pass_and_to_fail():
    one = simulated_ratings(num_values=1)
    assert audit(one).passed
    assert {"accuracy", "spearman"} <= failed(audit(one, sharpness=0.0))


def test_a_consistent_judge_with_reversed_order_is_refused():
    result = audit(simulated_ratings(sign=-1))
    assert failed(result) == {"accuracy", "specificity", "spearman"}
    assert result.detector == ""
    assert result.metric("accuracy").high < 0.2
    assert result.metric("spearman").high < -0.9
    assert any("reversed" in step for step in result.advice)


def test_too_few_answers_to_exclude_chance_are_refused_with_a_reason():
    ratings = rated([0.0, 1.0, 2.0])
    windows = plan_audit(ratings, CONFIG)
    rankings = decisive_answers(windows, lambda a, b: a > b)
    other = pa.array([value != "power" for value in windows["value"].to_pylist()])
    rankings = pa.concat_tables(
        [rankings.filter(pc.invert(other)), decisive_answers(windows.filter(other), lambda a, b: a < b)]
    )
    result = audit_result(ratings, rankings, CONFIG, 1.0, None)
    assert result.metric("accuracy").estimate == 1.0
    assert not result.passed
    assert result.reasons == [
        "Accuracy is 1.000 (95 % interval 0.207 to 1.000): the interval includes chance, 0.5; audit more triples or values."
    ]


def decisive_answers(windows: pa.Table, first_wins) -> pa.Table:
    """Answers of a judge that decides by the pair of text ids."""
    orders = [[0, 1] if first_wins(*ids) else [1, 0] for ids in windows["text_ids"].to_pylist()]
    return answers(windows, "told", orders, ["A"] * len(orders), [None] * len(orders))


def test_a_right_wrong_detector_is_named():
    """A judge that knows the ratings and does not read the value: perfect, but for its specificity."""
    ratings = simulated_ratings(num_values=1)
    windows = plan_audit(ratings, CONFIG)
    rating = {(row["value"], row["text_id"]): row["rating"] for row in ratings.to_pylist()}

    def answer(value_of) -> AuditResult:
        rows = windows.to_pylist()
        better = [[rating.get((value_of(row), i), true_theta(row["value"], i, 3.0)) for i in row["text_ids"]] for row in rows]
        orders = [[0, 1] if a > b else [1, 0] for a, b in better]
        return audit_result(
            ratings, answers(windows, "told", orders, ["A"] * len(orders), [None] * len(orders)), CONFIG, 1.0, None
        )

    blind, reading = answer(lambda row: "v0"), answer(lambda row: row["value"])
    assert failed(blind) == {"specificity"}
    assert "right/wrong detector" in blind.detector
    assert not blind.passed
    assert figure(blind, "other_value").estimate == 1.0
    assert reading.passed
    assert reading.detector == ""
    assert figure(reading, "other_value").low < 0.5 < figure(reading, "other_value").high
    assert reading.metric("specificity").estimate == pytest.approx(0.5, abs=0.3)


def figure(result: AuditResult, name: str) -> AuditFigure:
    return next(figure for figure in result.figures if figure.name == name)


def test_a_judge_of_one_position_is_right_by_its_probabilities():
    """Letters: always A. Its probability moves with the texts, so both orders together are right."""
    ratings = simulated_ratings()
    windows = plan_audit(ratings, CONFIG)
    first_W = 1 / (1 + np.exp(-(probability_log_odds(windows) + 9.0)))
    count = windows.num_rows
    weighted = answers(windows, "small", [[0, 1]] * count, ["A"] * count, [None] * count, first_W.tolist())
    result = audit_result(ratings, weighted, CONFIG, 1.0, None)
    assert result.metric("order_consistency").estimate == figure(result, "single_consistency").estimate == 0.0
    assert result.metric("accuracy").estimate == figure(result, "single_accuracy").estimate == 0.5
    assert figure(result, "debiased_accuracy").estimate > 0.95
    votes = answers(windows, "small", [[0, 1]] * count, ["A"] * count, [None] * count)
    assert figure(audit_result(ratings, votes, CONFIG, 1.0, None), "debiased_accuracy").estimate == 0.5
    # The same judge, read by log-probabilities: its answers are right, and what it says in one order is kept beside them.
    margin = probability_log_odds(windows)
    orders = [[0, 1] if m > 0 else [1, 0] for m in margin]
    replies = [f"A {m + 9:+.3f}\nA {9 - m:+.3f}" for m in margin]
    read = answers(windows, "small", orders, replies, [None] * count, (1 / (1 + np.exp(-np.abs(margin)))).tolist())
    result = audit_result(ratings, read, CONFIG, 1.0, None)
    assert result.metric("order_consistency").estimate == result.metric("accuracy").estimate == 1.0
    assert figure(result, "single_consistency").estimate == 0.0
    assert figure(result, "single_accuracy").estimate == 0.5
    assert result.passed


def probability_log_odds(windows: pa.Table) -> np.ndarray:
    """True log-odds of the first position, by window."""
    pairs = zip(windows["value"].to_pylist(), windows["text_ids"].to_pylist(), strict=True)
    return np.array([true_theta(value, a, 3.0) - true_theta(value, b, 3.0) for value, (a, b) in pairs])


def probability(windows: pa.Table, judge: SimulatedJudge) -> np.ndarray:
    """Model probability that the first position wins, by window."""
    gamma = ([*judge.position_effect, 0.0, 0.0])[:2]
    pairs = zip(windows["value"].to_pylist(), windows["text_ids"].to_pylist(), strict=True)
    theta = np.array([[true_theta(value, i, judge.spread) for i in ids] for value, ids in pairs])
    return 1 / (1 + np.exp(-(judge.sharpness * (theta[:, 0] - theta[:, 1]) + gamma[0] - gamma[1])))


def expected(windows: pa.Table, judge: SimulatedJudge) -> dict[str, float]:
    """Expected value of each share, computed directly for 2 repeats, i.e. 4 answers per pair."""
    own = windows.filter(pc.starts_with(windows["value"], "v"))
    p_TPSR = probability(own, judge).reshape(-1, 3, 2, 2)
    first, last = p_TPSR[:, :, 0, 0], p_TPSR[:, :, 1, 0]  # higher rated text shown first, last
    won_TPA = np.stack([first, first, 1 - last, 1 - last], axis=2)
    majority = np.zeros(first.shape)
    for outcome in itertools.product((0, 1), repeat=4):
        chance = np.prod(np.where(np.array(outcome), won_TPA, 1 - won_TPA), axis=2)
        majority += chance * ((sum(outcome) > 2) + 0.5 * (sum(outcome) == 2))
    low, high, wide = majority.T
    return {
        "accuracy": float(won_TPA.mean()),
        "order_consistency": float((first * (1 - last) + (1 - first) * last).mean()),
        "position_effect": float(p_TPSR.mean() - 0.5),
        "retest": float((p_TPSR**2 + (1 - p_TPSR) ** 2).mean()),
        "transitivity": float(1 - (low * high * (1 - wide) + (1 - low) * (1 - high) * wide).mean()),
    }


@pytest.mark.parametrize("judge", [{}, {"sharpness": 0.4, "position_effect": [1.5]}, {"sharpness": 0.0}, {"broken_share": 0.2}])
def test_metrics_match_their_expected_values(judge):
    ratings = simulated_ratings(num_values=12)
    truth, result = expected(plan_audit(ratings, CONFIG), SimulatedJudge(**judge)), audit(ratings, **judge)
    for name in SHARES:
        metric = result.metric(name)
        # Twice the interval, because some of the 20 intervals would miss by chance.
        half = metric.high - metric.low
        assert abs(metric.estimate - truth[name]) < half, name
    broken = result.metric("broken")
    assert broken.low <= judge.get("broken_share", 0.0) <= broken.high


@pytest.mark.statistics
def test_intervals_cover_the_mean_of_many_audits():
    judge, draws, truth = {"sharpness": 0.5, "position_effect": [0.8], "broken_share": 0.1}, [], []
    for seed in range(80):
        ratings = simulated_ratings(num_values=2, num_texts=12, seed=seed)
        draws.append(audit(ratings, **judge))
        truth.append(expected(plan_audit(ratings, CONFIG), SimulatedJudge(**judge)))
    targets = {name: float(np.mean([one[name] for one in truth])) for name in SHARES if name != "transitivity"}
    # Broken answers reduce the answers per pair, and the mean rank correlation has no closed form: use the mean over draws.
    targets |= {name: float(np.mean([one.metric(name).estimate for one in draws])) for name in ("transitivity", "spearman")}
    for name, target in (targets | {"broken": 0.1}).items():
        covered = np.mean([one.metric(name).low <= target <= one.metric(name).high for one in draws])
        assert 0.9 <= covered <= 1.0, (name, covered)


@pytest.mark.parametrize("cluster_share", [0.0, 0.8])
def test_the_interval_of_a_share_accounts_for_correlation_within_triples(cluster_share):
    rng, covered, widths = np.random.default_rng(1), 0, []
    for _ in range(400):
        independent, shared = rng.random((30, 12)) < 0.7, rng.random((30, 1)) < 0.7
        hits = np.where(rng.random((30, 12)) < cluster_share, shared, independent)
        share = measures.share(hits, np.ones_like(hits))
        covered += share.low <= 0.7 <= share.high
        widths.append(share.high - share.low)
    assert 0.92 <= covered / 400 <= 0.98
    wilson = binomtest(252, 360).proportion_ci(method="wilson")
    factor = np.mean(widths) / (wilson.high - wilson.low)
    assert factor == pytest.approx(1.0, abs=0.1) if cluster_share == 0 else factor > 2


def test_the_interval_of_a_constant_share_depends_on_the_number_of_triples():
    wilson = binomtest(25, 25).proportion_ci(method="wilson")
    share = measures.share(np.ones((25, 12)), np.ones((25, 12)))
    assert share == pytest.approx((1.0, wilson.low, 1.0, 300), abs=1e-6)
    assert measures.share(np.zeros((25, 12)), np.ones((25, 12)))[:3] == pytest.approx((0.0, 0.0, 1 - wilson.low), abs=1e-6)
    assert np.isnan(measures.share(np.ones((25, 12)), np.zeros((25, 12))).estimate)


def test_transitivity_counts_cycles_and_ties():
    def of(*shares: float) -> float:
        """Transitivity of a triple, from the share of 4 answers that the higher-rated text of each pair wins."""
        won_PA = np.array([[1.0] * round(4 * share) + [0.0] * (4 - round(4 * share)) for share in shares])
        return measures.transitivity(won_PA.reshape(1, 3, 2, 2)).estimate

    assert of(1, 1, 1) == 1.0
    assert of(0.75, 1, 0.75) == 1.0
    assert of(1, 1, 0) == 0.0
    assert of(0, 0, 1) == 0.0
    assert of(0, 0, 0) == 1.0  # reversed, but on one axis
    assert of(0.5, 0.5, 0.5) == 0.75
    assert of(1, 1, 0.5) == 0.5
    assert of(1, 0, 0.5) == 1.0
    unanswered = np.full((1, 3, 2, 2), np.nan)
    assert np.isnan(measures.transitivity(unanswered).estimate)


def test_rank_correlation_is_close_to_that_of_plackett_luce():
    ratings = simulated_ratings(num_values=6)
    for sharpness in (0.3, 1.0):
        rankings = SimulatedRanker(SimulatedJudge(sharpness=sharpness))(plan_audit(ratings, CONFIG))
        correlations = []
        for value in range(6):
            rows = rankings.filter(pc.equal(rankings["value"], f"v{value}"))
            ids = sorted({i for window in rows["text_ids"].to_pylist() for i in window})
            fit = plackett_luce.fit(LikelihoodShard(len(ids), orders_of(rows, ids)), 3.0)
            correlations.append(spearmanr([true_theta(f"v{value}", i, 3.0) for i in ids], fit.theta_N).statistic)
        assert audit_result(ratings, rankings, CONFIG, 1.0, None).metric("spearman").estimate == pytest.approx(
            np.mean(correlations), abs=0.015
        )


def test_accuracy_grows_with_distance_and_groups_hold_every_answer():
    result = audit(simulated_ratings(), sharpness=0.7)
    shares = [group.estimate for group in result.by_distance]
    assert len(shares) == 5
    assert shares == sorted(shares)
    assert shares[0] < 0.75 < 0.97 < shares[-1]
    num_own = result.num_windows - 2 * result.num_triples  # the others ask about another value
    assert sum(group.n for group in result.by_distance) == sum(group.n for group in result.by_value) == num_own
    assert [group.label for group in result.by_value] == [f"svt:v{v}" for v in range(8)]
    steps = audit(rated([-2.0, -1.0, 0.0, 1.0, 2.0] * 4)).by_distance
    assert [group.label for group in steps] == ["1", "2", "3", "4"]


def test_contradictions_are_pairs_whose_presentations_differ_farthest_first():
    ratings = simulated_ratings(num_values=3)
    assert audit(ratings, sharpness=1000.0).contradictions == []
    follower = audit(ratings, position_effect=[0.0, 100.0])
    assert follower.num_contradictions == 3 * CONFIG.triples * 3
    assert len(follower.contradictions) == 8
    assert {pair.place for pair in follower.contradictions} == {1}
    assert {pair.value for pair in follower.contradictions[:3]} == {"svt:v0", "svt:v1", "svt:v2"}
    distances = [pair.higher_rating - pair.lower_rating for pair in follower.contradictions]
    assert min(distances) > 0
    assert distances[:3] == sorted(distances[:3], reverse=True)
    assert all(pair.place == 0 for pair in audit(ratings, position_effect=[100.0]).contradictions)


def test_a_judge_without_valid_answers_is_refused_and_its_result_is_json():
    result = audit(simulated_ratings(num_values=2), broken_share=1.0)
    assert failed(result) == {metric.name for metric in result.metrics}
    assert result.reasons == [
        "Failed share is 1.000 (95 % interval 0.862 to 1.000), above max_broken 0.05: share of windows without a valid answer.",
        "There are too few valid answers to measure order consistency, position effect, transitivity, retest reliability, "
        "accuracy, value specificity, rank correlation.",
    ]
    assert result.advice[1].startswith("Read the column error")
    content = result.model_dump_json()
    assert json.loads(content)["metrics"][5]["estimate"] is None
    assert AuditResult.model_validate_json(content) == result


@pytest.mark.parametrize("broken", [0.0, 0.5, 0.95, 0.99])
def test_results_survive_json(broken):
    result = audit(simulated_ratings(num_values=1), broken_share=broken)
    assert AuditResult.model_validate_json(result.model_dump_json()) == result


def test_the_result_does_not_depend_on_the_order_of_the_answers():
    ratings = simulated_ratings(num_values=2)
    rankings = SimulatedRanker(SimulatedJudge())(plan_audit(ratings, CONFIG))
    again = rankings.take(np.random.default_rng(0).permutation(rankings.num_rows))
    twice = pa.concat_tables([rankings, rankings.slice(0, 50)])
    assert len({audit_result(ratings, one, CONFIG, 10.0, None).model_dump_json() for one in (rankings, again, twice)}) == 1


def test_speed_tokens_and_cost_are_per_window():
    ratings = simulated_ratings(num_values=1)
    windows = plan_audit(ratings, CONFIG)
    count = windows.num_rows
    columns = ([[0, 1]] * count, ["A"] * count, [None] * count, None, [300] * count, [2] * count)
    result = audit_result(
        ratings, answers(windows, "j", *columns), CONFIG, 4.0, Price(tokens_in=1.0, tokens_out=5.0, currency="EUR"), "now"
    )
    assert (result.judge, result.created, result.currency) == ("j", "now", "EUR")
    assert (result.tokens_in, result.tokens_out, result.windows_per_second) == (300, 2, count / 4)
    assert result.cost_per_thousand == pytest.approx((300 * 1.0 + 2 * 5.0) / 1e6 * 1000)
    free = audit_result(ratings, answers(windows, "j", *columns), CONFIG, 0.0, None)
    assert (free.windows_per_second, free.cost_per_thousand) == (None, None)


@pytest.mark.parametrize(("num_texts", "num_triples", "repeats"), [(24, 12, 2), (12, 12, 3), (60, 30, 2), (9, 4, 2)])
def test_a_plan_has_both_presentations_of_every_pair_and_their_repeats(num_texts, num_triples, repeats):
    config = AuditConfig(triples=num_triples, repeats=repeats)
    ratings = simulated_ratings(num_values=2, num_texts=num_texts)
    windows = plan_audit(ratings, config)
    assert windows.schema == SCHEMAS["windows"]
    num_own = 2 * num_triples * 3 * 2 * repeats
    assert len(set(windows["window_id"].to_pylist())) == windows.num_rows == num_own + 2 * num_triples * 2
    other = windows.slice(num_own).to_pylist()
    widest = triples_of(ratings, num_triples, 0).rows_T3[:, [0, 2]].tolist()
    ids = triples_of(ratings, num_triples, 0).rated["text_id"].to_pylist()
    assert [row["text_ids"] for row in other] == [w for a, b in widest for w in ([ids[b], ids[a]], [ids[a], ids[b]])]
    assert {row["value"] for row in other} <= {value.node for value in operational() if value.theory == "svt"}
    assert all(row["value"] == following["value"] for row, following in zip(other[::2], other[1::2], strict=True))
    windows = windows.slice(0, num_own)
    rounds_by_pair: dict[tuple, list[int]] = {}
    for row in windows.to_pylist():
        rounds_by_pair.setdefault((row["value"], *row["text_ids"]), []).append(row["round"])
    assert all(sorted(rounds) == list(range(repeats)) for rounds in rounds_by_pair.values())
    assert {(value, b, a) for value, a, b in rounds_by_pair} == set(rounds_by_pair)
    triples = triples_of(ratings, num_triples, 0)
    reach = np.array([np.ptp(triples.rating_N[np.unique(triples.rows_T3[triples.value_T == v])]) for v in (0, 1)])
    distance = triples.distances() / reach[triples.value_T][:, None]
    assert distance.min() > 0
    assert np.quantile(distance, 0.25) < 0.35
    assert distance.max() > 0.75
    used = np.bincount(triples.rows_T3.ravel())
    assert np.ptp(used[used > 0]) <= 2
    low_high = np.concatenate([rating_range(ratings, v) for v in (0, 1)])
    assert set(low_high) <= set(triples.rating_N[triples.rows_T3].ravel())


def rating_range(table: pa.Table, value: int) -> list[float]:
    ratings = table.filter(pc.equal(table["value"], f"v{value}"))["rating"].to_numpy()
    return [ratings.min(), ratings.max()]


def test_a_plan_is_a_function_of_seed_and_texts():
    ratings = simulated_ratings(num_values=2)
    shuffled = ratings.take(np.random.default_rng(3).permutation(ratings.num_rows)).append_column(
        "more", pa.array([0] * len(ratings))
    )
    assert plan_audit(shuffled, CONFIG).equals(plan_audit(ratings, CONFIG))
    assert plan_audit(shuffled, CONFIG.model_copy(update={"max_broken": 0.5})).equals(plan_audit(ratings, CONFIG))
    ids = [set(plan_audit(ratings, AuditConfig(seed=seed))["window_id"].to_pylist()) for seed in (0, 1)]
    assert ids[0] != ids[1]
    alone = ratings.filter(pc.equal(ratings["value"], "v1"))
    assert set(plan_audit(alone, CONFIG)["window_id"].to_pylist()) < set(plan_audit(ratings, CONFIG)["window_id"].to_pylist())


@given(ratings=st.lists(st.integers(-3, 3), min_size=3, max_size=30), seed=st.integers(0, 5))
def test_triples_have_three_ratings_and_share_no_pair(ratings, seed):
    table = rated([float(rating) for rating in ratings])
    if len(set(ratings)) < 3:
        with pytest.raises(InputError, match="svt:power: an audit needs texts of 3 or more distinct ratings"):
            triples_of(table, 12, seed)
        return
    triples = triples_of(table, 12, seed)
    assert 1 <= len(triples.rows_T3) <= 12
    assert (np.diff(triples.rating_N[triples.rows_T3], axis=1) > 0).all()
    pairs = [frozenset(pair) for triple in triples.rows_T3.tolist() for pair in itertools.combinations(triple, 2)]
    assert len(set(pairs)) == len(pairs)


def change(table: pa.Table, name: str, row: int, value: object) -> pa.Table:
    column = table[name].to_pylist()
    column[row] = value
    return table.set_column(table.column_names.index(name), name, pa.array(column, table[name].type))


@pytest.mark.parametrize(
    ("ratings", "message"),
    [
        (
            rated([1.0, 1.0, 2.0]),
            r"svt:power: an audit needs texts of 3 or more distinct ratings, but these have 2 \(1, 2\); rate more",
        ),
        (rated([1.0, 2.0, 3.0]).drop_columns("rating"), r"rated texts lack column\(s\) \['rating'\]"),
        (rated([]), "there are no rated texts"),
        (rated([1.0, 2.0, float("nan")]), "svt:power: the rating of text t2 is nan; give it a number"),
        (change(rated([1.0, 2.0, 3.0]), "rating", 1, None), "svt:power: the rating of text t1 is None"),
        (change(rated([1.0, 2.0, 3.0]), "text_id", 1, "t0"), "svt:power: text t0 is rated more than once"),
    ],
)
def test_unusable_ratings_are_refused(ratings, message):
    with pytest.raises(InputError, match=message):
        plan_audit(ratings, CONFIG)


def test_rankings_that_do_not_fit_the_plan_are_refused():
    ratings = simulated_ratings(num_values=1)
    windows = plan_audit(ratings, CONFIG)
    rankings = SimulatedRanker(SimulatedJudge())(windows)
    with pytest.raises(InputError, match=r"4 of 168 windows have no row in rankings, the first is [0-9a-f]{16}"):
        audit_result(ratings, rankings.slice(0, 164), CONFIG, 1.0, None)
    with pytest.raises(InputError, match=r"answers are of windows outside the plan, .*triples, repeats and seed"):
        audit_result(ratings, rankings, CONFIG.model_copy(update={"seed": 1}), 1.0, None)
    both = pa.concat_tables([rankings, change(rankings.slice(0, 1), "judge", 0, "another")])
    with pytest.raises(InputError, match=r"2: another, simulated"):
        audit_result(ratings, both, CONFIG, 1.0, None)
    with pytest.raises(InputError, match="lacks column"):
        audit_result(ratings, windows, CONFIG, 1.0, None)
