"""The demo ends with numbers that a sceptic accepts: the builds and the evaluation of `make demo`."""

import pytest
from roots import with_texts_of

from jobs import build_vidb, evaluate
from valueflow.config import load
from valueflow.evaluation.responses import own_values
from valueflow.report.score_table import OwnValueFigures, own_value_figures

pytestmark = pytest.mark.ray
SIGNS, OFF_TO_ON = 12 / 16, 0.36  # the levels reached: 75 %, and a size of 1.04 about another value against 2.95


@pytest.fixture(scope="module")
def figures(ingested, tmp_path_factory) -> OwnValueFigures:
    root = with_texts_of(ingested, tmp_path_factory.mktemp("demo"))
    build_vidb.main(load(build_vidb.SCHEMA, "conf/build_vidb/tiny.yaml", [f"root={root}"]))
    config = load(evaluate.SCHEMA, "conf/evaluate/tiny.yaml", [f"root={root}"])
    result = own_value_figures(evaluate.main(config).build, own_values(config.responses))
    assert result.num_on == 16
    assert result.num_off == 176
    return result


@pytest.mark.timeout(600)
def test_intervals_of_responses_about_another_value_contain_zero_and_are_small(figures):
    assert figures.num_zero / figures.num_off >= 0.90
    assert figures.size_off / figures.size_on <= OFF_TO_ON


@pytest.mark.timeout(600)
@pytest.mark.xfail(reason="not reached: 0.354", strict=True)
def test_responses_about_another_value_are_a_third_as_large(figures):
    assert figures.size_off / figures.size_on <= 1 / 3


@pytest.mark.timeout(600)
def test_intervals_do_not_exclude_the_right_sign(figures):
    assert figures.num_wrong / figures.num_on <= 0.05


@pytest.mark.timeout(600)
def test_most_signs_are_right(figures):
    assert figures.num_right / figures.num_on >= SIGNS


@pytest.mark.timeout(600)
@pytest.mark.xfail(reason="not reached: 12 of 16", strict=True)
def test_nearly_all_signs_are_right(figures):
    assert figures.num_right / figures.num_on >= 0.85
