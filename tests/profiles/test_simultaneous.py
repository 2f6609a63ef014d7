"""Models that answered the same queries: paired by query, intervals that hold for all pairs and values together."""

import csv
import io
import itertools

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import t

from valueflow.profiles.divergence import Divergence, Side, diverge
from valueflow.profiles.estimate import EstimateConfig, Estimates, TextScores, UnitTexts, estimate
from valueflow.profiles.export import differences_csv
from valueflow.profiles.simultaneous import MaxT
from valueflow.profiles.table import Basis, as_arrays, profile_rows, unit_ids
from valueflow.ranking.content_error import ContentError
from valueflow.records import SCHEMAS, ValueId, text_id


def replies(
    rng: np.random.Generator, mean_MV: np.ndarray, num_queries: int, query_sd: float, relevant: float = 1.0
) -> np.ndarray:
    """Intensities of the replies of models to the same queries (M, Q, V); nan where a reply does not concern a value."""
    num_models, num_values = mean_MV.shape
    query_QV = query_sd * rng.normal(size=(num_queries, num_values))
    y_MQV = mean_MV[:, None] + query_QV + 1.5 * rng.normal(size=(num_models, num_queries, num_values))
    return np.where(rng.random(y_MQV.shape) < relevant, y_MQV, np.nan)


def profiles_of(y_MQV: np.ndarray) -> tuple[Estimates, np.ndarray]:
    """Profiles of the models, and the influence of queries on them (Q, M, V)."""
    num_models, num_queries, num_values = y_MQV.shape
    number = num_models * num_queries
    texts = UnitTexts(np.repeat(np.arange(num_models), num_queries), np.arange(number), np.ones(number))
    scores = TextScores(y_MQV.reshape(number, num_values), np.full((number, num_values), np.nan))
    found = estimate(texts, scores, [ContentError()] * num_values, EstimateConfig())
    return found, found.influence_CV.reshape(y_MQV.shape).transpose(1, 0, 2)


def compared(y_MQV: np.ndarray, paired: bool = True) -> tuple[Divergence, np.ndarray]:
    """Differences of every two models, and the pairs."""
    found, influence_QMV = profiles_of(y_MQV)
    pairs = np.array(list(itertools.combinations(range(len(y_MQV)), 2)))
    columns = (found.mean_UV, found.standard_error_UV, found.num_clusters_UV)
    sides = [Side(*(column[index] for column in columns), influence_QMV[:, index] if paired else None) for index in pairs.T]
    num_values = y_MQV.shape[2]
    return diverge(*sides, np.ones(num_values), np.zeros(num_values)), pairs


def test_two_models_on_one_value_have_the_paired_t_interval():
    y_MQV = replies(np.random.default_rng(0), np.zeros((2, 1)), 40, 4.0)
    found, _ = compared(y_MQV)
    d_Q = y_MQV[0, :, 0] - y_MQV[1, :, 0]
    error = d_Q.std(ddof=1) / np.sqrt(40)
    assert found.difference_PV[0, 0] == pytest.approx(d_Q.mean())
    assert found.standard_error_PV[0, 0] == pytest.approx(error)
    assert found.high_PV[0, 0] - d_Q.mean() == pytest.approx(t.ppf(0.975, 39) * error, rel=0.06)
    assert found.p_PV[0, 0] == pytest.approx(2 * t.sf(abs(d_Q.mean() / error), 39))


def test_models_without_a_common_query_have_the_interval_of_welch():
    y_MQV = replies(np.random.default_rng(0), np.zeros((2, 1)), 60, 2.0)
    y_MQV[0, :40], y_MQV[1, 40:] = np.nan, np.nan
    found, apart = compared(y_MQV)[0], compared(y_MQV, paired=False)[0]
    assert found.standard_error_PV == pytest.approx(apart.standard_error_PV)
    assert found.p_PV == pytest.approx(apart.p_PV)


def test_a_contrast_twice_costs_nothing_and_others_cost():
    rng = np.random.default_rng(1)
    one_Q11, many = rng.normal(size=(60, 1, 1)), rng.normal(size=(60, 4, 5))
    assert MaxT(np.repeat(one_Q11, 5, axis=2)).level() == pytest.approx(MaxT(one_Q11).level())
    assert 0.05 / 20 < MaxT(many).level() < 0.008 < MaxT(one_Q11).level()


def test_adjusted_p_values_are_larger_in_the_same_order_and_agree_with_the_level():
    largest = MaxT(np.random.default_rng(2).normal(size=(60, 2, 4)))
    p_PV = np.array([[0.001, 0.04, np.nan, 0.9]])
    adjusted = largest.adjusted(p_PV)[0]
    assert np.isnan(adjusted[2])
    assert (adjusted[[0, 1, 3]] > p_PV[0, [0, 1, 3]]).all()
    assert adjusted[0] < adjusted[1] < adjusted[3]
    assert largest.adjusted(np.array([[largest.level()]]))[0, 0] == pytest.approx(0.05, abs=0.003)


def test_a_value_that_one_model_lacks_is_missing_for_its_pairs_alone():
    y_MQV = replies(np.random.default_rng(3), np.zeros((3, 2)), 30, 2.0)
    y_MQV[0, :, 1] = np.nan
    found, _ = compared(y_MQV)
    assert np.isnan(found.difference_PV[:, 1]).tolist() == [True, True, False]
    assert np.isfinite(found.low_PV[2]).all()
    assert np.isnan(found.adjusted_PV[0, 1])


def test_rows_of_models_keep_the_influence_of_queries_and_files_say_how_they_were_compared():
    values = (ValueId("svt:power"), ValueId("svt:benevolence"))
    rng, rows = np.random.default_rng(4), []
    for unit in "ab":
        for q in range(12):
            text = f"{unit} {q}"
            row = {"row_id": text, "unit": unit, "text_id": text_id(text), "text": text, "thread": f"q{q}", "weight": 1.0}
            rows.append(row)
    texts = pa.Table.from_pylist(rows, SCHEMAS["unit_texts"])
    query_Q = 4 * rng.normal(size=12)
    judge_TV = np.stack([np.tile(query_Q, 2) + rng.normal(size=24), rng.normal(size=24)], 1)
    scores = TextScores(judge_TV, np.full((24, 2), np.nan))
    halves = {}
    for shared in (True, False):
        basis = Basis(values, dict.fromkeys(values, ContentError()), dict.fromkeys(values, 2.0), EstimateConfig(), shared)
        found = as_arrays(profile_rows(texts, scores, basis, unit_ids(texts)))
        assert (found.influence_QUV is not None) == shared
        table = list(csv.DictReader(io.StringIO(differences_csv(found, basis.scale, dict.fromkeys(values, 0.0)))))
        assert {row["correction"] for row in table} == {"max-T, paired by query" if shared else "Holm"}
        halves[shared] = float(table[0]["high"]) - float(table[0]["low"])
        if shared:
            error_UV = np.sqrt((found.influence_QUV**2).sum(0))
            assert error_UV == pytest.approx(found.columns["standard_error"])
    assert halves[True] < 0.5 * halves[False]


def simulate(number: int, relevant: float, query_sd: float = 2.0) -> tuple[float, float]:
    """Share of simulations in which all true differences are covered, and the mean width relative to unpaired intervals."""
    rng, covered, ratios = np.random.default_rng(number), [], []
    for _ in range(number):
        mean_MV = rng.normal(0, 1, (4, 6))
        y_MQV = replies(rng, mean_MV, 50, query_sd, relevant)
        found, pairs = compared(y_MQV)
        true_PV = mean_MV[pairs[:, 0]] - mean_MV[pairs[:, 1]]
        inside_PV = (found.low_PV <= true_PV) & (true_PV <= found.high_PV)
        covered.append((inside_PV | np.isnan(found.low_PV)).all())
        apart, _ = compared(y_MQV, paired=False)
        ratios.append(np.nanmean(found.standard_error_PV / apart.standard_error_PV))
    return float(np.mean(covered)), float(np.mean(ratios))


def test_paired_differences_are_narrower():
    _, ratio = simulate(5, 1.0)
    assert ratio < 0.7


@pytest.mark.statistics
@pytest.mark.parametrize("relevant", [1.0, 0.6])
def test_all_differences_are_covered_together(relevant):
    """Four models, six values, 50 queries: 36 differences."""
    coverage, ratio = simulate(1000, relevant)
    assert 0.93 <= coverage <= 0.97
    assert ratio < (0.7 if relevant == 1.0 else 1.0)


@pytest.mark.statistics
def test_intervals_over_few_common_replies_do_not_cover_too_little():
    """Means of about 15 replies, a third of them to common queries: more than 97 % are covered (docs/profiles.md)."""
    coverage, _ = simulate(500, 0.3)
    assert coverage >= 0.93
