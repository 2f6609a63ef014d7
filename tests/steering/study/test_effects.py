"""Paired effects with fixed strata: closed forms, missing scores, monotone association."""

import numpy as np
import pytest
from scipy.stats import kendalltau, ttest_rel

from valueflow.steering.study.effects import CONTRASTS, SCALE, contrasts, monotone, strata, stratified


def test_one_stratum_is_the_paired_t_test():
    rng = np.random.default_rng(0)
    y_QL = rng.normal(size=(40, 5)) + np.arange(5) * 0.3
    effects = stratified(contrasts(y_QL, ["effect +2"]), np.zeros(40, int))
    expected = ttest_rel(y_QL[:, 4], y_QL[:, 2])
    assert effects.p_values()[0] == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval(0.95)
    assert [end[0] for end in effects.interval()] == pytest.approx([interval.low, interval.high])


def test_strata_weigh_equally_whatever_their_size():
    d_QJ = np.concatenate([np.zeros(30), np.full(10, 4.0)])[:, None] + np.tile([-1.0, 1.0], 20)[:, None]
    effects = stratified(d_QJ, np.repeat([0, 1], [30, 10]))
    assert effects.estimate_J[0] == pytest.approx(2.0)  # not the mean of all, 1
    variance = 0.25 * (30 / 29 / 30 + 10 / 9 / 10)  # of ±1 in each stratum
    assert effects.error_J[0] == pytest.approx(np.sqrt(variance))
    assert effects.freedom_J[0] == 38


def test_contrasts_are_slopes_asymmetry_and_steps_of_the_levels():
    values = dict(zip(CONTRASTS, contrasts(np.array([[-3.0, -1.0, 0.0, 2.0, 8.0]]))[0], strict=True))
    assert values["effect -2"] == -3
    assert (values["slope -"], values["slope +"]) == (1.5, 4)
    assert values["asymmetry"] == 2.5
    assert (values["+2 over +1"], values["+1 over 0"], values["0 over -1"], values["-1 over -2"]) == (6, 2, 1, 2)
    assert values["curvature +"] == 8 - 2 * 2 + 0


def test_a_missing_level_makes_only_its_contrasts_missing():
    y_QL = np.random.default_rng(1).normal(size=(20, 5))
    y_QL[:, 1] = np.nan
    y_QL[0, 4] = np.nan
    effects = stratified(contrasts(y_QL), np.zeros(20, int))
    known = dict(zip(CONTRASTS, effects.num_J, strict=True))
    assert known["effect -1"] == 0
    assert known["effect -2"] == 20
    assert known["effect +2"] == 19
    assert np.isnan(effects.estimate_J[list(CONTRASTS).index("effect -1")])


def test_sources_of_one_query_share_a_stratum():
    assert strata(["a", "a", "b", "c"]).tolist() == [0, 0, 1, 1]
    assert strata(["a", "a", "b"]).tolist() == [0, 0, 0]


def test_tau_is_the_mean_of_kendalls_tau_over_queries():
    rng = np.random.default_rng(2)
    y_QL = np.round(rng.normal(size=(30, 5)) + 0.8 * np.array(SCALE), 1)
    order = monotone(y_QL, np.zeros(30, int))
    assert order.tau == pytest.approx(np.mean([kendalltau(SCALE, y_L).statistic for y_L in y_QL]))
    assert order.against == np.mean([np.polyfit(SCALE, y_L, 1)[0] < 0 for y_L in y_QL])
    assert order.page_p is not None
    assert order.page_p < 0.01
    assert monotone(-y_QL, np.zeros(30, int)).page_p > 0.99
