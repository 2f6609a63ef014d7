"""Profiles of one request in the wire format."""

import numpy as np
import pytest

from valueflow import api
from valueflow.evaluation.scoring import Total, totals
from valueflow.numerics.intervals import Z95
from valueflow.profiles.estimate import UnitTexts
from valueflow.profiles.requested import profiles
from valueflow.ranking.content_error import ContentError
from valueflow.records import ValueId

POWER, CARE = ValueId("svt:power"), ValueId("svt:benevolence")
EXACT = ContentError()


def scored(value, x, error=EXACT, relevance=None, sd=0.5) -> api.Scored:
    (total,) = totals(error, np.array([[x], [x - Z95 * sd], [x + Z95 * sd]]))
    total = total._replace(relevance=relevance)
    return api.Scored(index=0, value=value, **total._asdict(), num_windows=3, num_failed=0)


def unscored(value) -> api.Scored:
    return api.Scored(index=0, value=value, **dict.fromkeys(Total._fields), num_windows=0, num_failed=3, error="no order")


def profile_of(scores, values=(POWER,), errors=EXACT, **request) -> dict:
    texts = [f"text {i}" for i in range(len(scores) // len(values))]
    body = api.ProfileRequest(texts=texts, **request)
    return profiles(body, scores, values, dict.fromkeys(values, errors), dict.fromkeys(values, np.array([-3.0, 3.0])))


def test_a_profile_of_one_text_is_its_score():
    error = ContentError(slope=0.5, sd=2.0, spread=4.0)
    only = scored(POWER, 6.0, error)
    (row,) = profile_of([only], errors=error)["profile"]
    assert (row.intensity, row.low, row.high) == (only.intensity, only.low, only.high)
    assert row.num_texts == 1
    assert row.standard_error is None


def test_texts_that_do_not_concern_the_value_are_named():
    (row,) = profile_of([scored(POWER, 6.0, relevance=0.01)] * 3)["profile"]
    assert row.intensity is None
    assert row.num_left_out == 3
    assert "min_relevance" in row.error


def test_the_one_relevant_text_keeps_its_score_and_the_others_are_left_out():
    rows = [scored(POWER, 1.0, relevance=0.01), scored(POWER, 6.0, relevance=0.9), scored(POWER, 2.0, relevance=0.0)]
    (row,) = profile_of(rows)["profile"]
    assert (row.intensity, row.num_texts, row.num_left_out) == (6.0, 1, 2)


def test_a_text_without_an_answer_is_a_reason_and_not_a_zero():
    (row,) = profile_of([scored(POWER, 4.0), unscored(POWER), scored(POWER, 2.0)])["profile"]
    assert (row.intensity, row.num_texts, row.error) == (3.0, 2, "no order")


def test_min_texts_makes_a_value_missing_and_says_so():
    (row,) = profile_of([scored(POWER, 4.0)] * 3, min_texts=5)["profile"]
    assert row.intensity is None
    assert row.band is None
    assert "min_texts" in row.error


def test_units_have_profiles_of_their_own_and_their_difference_is_tested():
    rng = np.random.default_rng(0)
    scores, units = [], []
    for i in range(40):
        unit = "ab"[i % 2]
        units.append(unit)
        scores += [scored(POWER, (4 if unit == "a" else -4) + rng.normal()), scored(CARE, rng.normal())]
    answer = profile_of(scores, (POWER, CARE), units=units)
    assert [(row.unit, row.value) for row in answer["profile"]] == [("a", POWER), ("a", CARE), ("b", POWER), ("b", CARE)]
    power, care = answer["divergence"]
    assert (power.first, power.second) == ("a", "b")
    assert power.difference == pytest.approx(8, abs=1)
    assert power.low < 8 < power.high
    assert power.p < 1e-6 < care.p
    assert [unit.num_texts for unit in answer["units"]] == [20, 20]


def test_a_thread_counts_once_for_the_certainty_of_a_profile():
    scores = [scored(POWER, x) for x in (1.0, 1.0, 3.0, 3.0, 5.0, 5.0)]
    (alone,), (threads,) = (profile_of(scores, threads=of)["profile"] for of in (None, ["x", "x", "y", "y", "z", "z"]))
    assert threads.high - threads.low > 1.5 * (alone.high - alone.low)


def test_units_of_another_number_than_the_texts_are_refused():
    with pytest.raises(ValueError, match="units has 1 entries for 2 texts"):
        api.ProfileRequest(texts=["a", "b"], units=["x"])


def test_clusters_of_a_unit_are_consecutive_in_the_order_of_the_units():
    texts = UnitTexts.of(["b", "a", "b", "a"], ["t", "t", "t", ""], np.ones(4))
    assert texts.unit_T.tolist() == [0, 1, 0, 1]
    assert texts.cluster_T.tolist() == [0, 1, 0, 2]


@pytest.mark.parametrize("size", [3, 10, 40])
def test_profiles_hold_the_mean_of_what_people_would_say(size):
    """Persons ~ N(0, 3²), their texts ~ N(person, 2²): all texts have the spread that the judge was calibrated on."""
    rng, covered, errors, shrunk = np.random.default_rng(size), [], [], []
    content = 3.0
    rho2 = 13.0 / (13.0 + content**2)
    error = ContentError(slope=rho2, sd=np.sqrt(13.0) * np.sqrt(1 - rho2), spread=np.sqrt(13.0))
    for _ in range(300):
        person = rng.normal(0, 3.0)
        judge = rng.normal(person, 2.0, size) + content * rng.normal(size=size)
        (row,) = profile_of([scored(POWER, x, error, sd=2.0) for x in judge], errors=error)["profile"]
        covered.append(row.low <= person <= row.high)
        errors.append(row.intensity - person)
        shrunk.append(rho2 * judge.mean() - person)
    assert 0.92 <= np.mean(covered) <= 0.98
    if size == 40:  # the mean of many texts needs less of the move that a single text needs
        assert np.mean(np.square(errors)) < 0.8 * np.mean(np.square(shrunk))
