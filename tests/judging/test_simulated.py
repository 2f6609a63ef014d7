"""The simulated judge follows the Plackett-Luce model, and its failures have the format of other judges' failures."""

import itertools
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from valueflow.judging.answers import answers
from valueflow.judging.configs import EncoderJudge, SimulatedJudge
from valueflow.judging.fingerprint import fingerprint
from valueflow.judging.kinds import kind_of, true_correlation
from valueflow.judging.simulated import SimulatedRanker, correlation, true_theta
from valueflow.llm.configs import VllmModel
from valueflow.records import SCHEMAS

IDS = ["text one", "text two", "text three"]


def windows(num: int, ids: list[str] = IDS) -> pa.Table:
    columns = {"window_id": [f"w{i}" for i in range(num)], "theory": ["svt"] * num, "value": ["power"] * num}
    columns |= {"text_ids": [ids] * num, "round": [0] * num}
    return pa.table(columns).cast(SCHEMAS["windows"])


def shares(answered: pa.Table) -> dict[tuple, float]:
    orders = [tuple(order) for order in answered["order"].to_pylist()]
    return {order: count / len(orders) for order, count in Counter(orders).items()}


def plackett_luce(worth: np.ndarray) -> dict[tuple, float]:
    probabilities = {}
    for order in itertools.permutations(range(len(worth))):
        x = np.exp(worth[list(order)])
        probabilities[order] = float(np.prod([x[i] / x[i:].sum() for i in range(len(x))]))
    return probabilities


@pytest.mark.parametrize(
    ("sharpness", "effect"),
    [(1.0, []), (0.5, []), (0.0, []), (0.0, [1.0, 0.0, -1.0]), (1.0, [0.0, 2.0])],
)
def test_orders_have_the_probabilities_of_the_model(sharpness, effect):
    judge = SimulatedRanker(SimulatedJudge(spread=1.0, sharpness=sharpness, position_effect=effect))
    theta = np.array([judge.theta("power", i) for i in IDS])
    gamma = np.array((effect + [0.0] * 3)[:3])
    expected = plackett_luce(sharpness * theta + gamma)
    seen = shares(judge(windows(3000)))
    for order, probability in expected.items():
        assert seen.get(order, 0.0) == pytest.approx(probability, abs=4 * np.sqrt(probability * (1 - probability) / 3000))


def test_the_truth_depends_on_value_and_text_and_has_the_configured_spread():
    theta = np.array([true_theta("power", f"t{i}", 3.0) for i in range(2000)])
    other = np.array([true_theta("face", f"t{i}", 3.0) for i in range(2000)])
    assert theta.std() == pytest.approx(3.0, rel=0.05)
    assert theta.mean() == pytest.approx(0.0, abs=0.2)
    assert abs(np.corrcoef(theta, other)[0, 1]) < 0.07
    np.testing.assert_allclose(theta / 3.0, [true_theta("power", f"t{i}", 1.0) for i in range(2000)])


def test_the_content_error_is_fixed_for_each_text_and_its_correlation_with_the_truth_is_known():
    config = SimulatedJudge(spread=2.0, content_error=2.0)
    judge, other = SimulatedRanker(config), SimulatedRanker(config.model_copy(update={"name": "other"}))
    ids = [f"t{i}" for i in range(3000)]
    truth = np.array([true_theta("power", i, 2.0) for i in ids])
    theta, again = (np.array([ranker.theta("power", i) for i in ids]) for ranker in (judge, SimulatedRanker(config)))
    np.testing.assert_array_equal(theta, again)
    assert np.corrcoef(theta, truth)[0, 1] == pytest.approx(correlation([config]), abs=0.02)
    mean = (theta + np.array([other.theta("power", i) for i in ids])) / 2
    assert np.corrcoef(mean, truth)[0, 1] == pytest.approx(correlation([config, other.config]), abs=0.02)
    assert correlation([SimulatedJudge()]) == 1
    assert true_correlation([EncoderJudge()]) is None


def test_an_answer_is_a_function_of_window_and_config():
    judge, table = SimulatedJudge(broken_share=0.2), windows(50)
    together = SimulatedRanker(judge)(table)
    reverse = table.take(np.arange(50)[::-1])
    apart = pa.concat_tables([SimulatedRanker(judge)(reverse.slice(i, 7)) for i in range(0, 50, 7)])
    assert apart.sort_by("window_id").equals(together.sort_by("window_id"))
    assert not SimulatedRanker(SimulatedJudge(broken_share=0.2, seed=1))(table).equals(together)


@pytest.mark.parametrize("k", [2, 3])
def test_broken_replies_are_rows_with_a_reason(k):
    answered = SimulatedRanker(SimulatedJudge(broken_share=0.25))(windows(2000, IDS[:k]))
    rows = answered.to_pylist()
    broken = [row for row in rows if row["error"]]
    assert len(broken) / len(rows) == pytest.approx(0.25, abs=0.04)
    assert all((row["order"] is None) == bool(row["error"]) for row in rows)
    assert all(row["error"].startswith("not an order of letters: 'I think that") for row in broken)
    assert answered.schema == SCHEMAS["rankings"]


def test_answers_keep_the_folder_that_a_row_belongs_to():
    table = windows(2).append_column("folder", pa.array(["theory=svt/value=power"] * 2))
    answered = answers(table, "j", [[0, 1, 2], None], ["A > B > C", "?"], [None, "why"], tokens_in=[5, 6])
    assert answered["folder"].to_pylist() == ["theory=svt/value=power"] * 2
    assert answered.drop_columns("folder").schema == SCHEMAS["rankings"]
    assert answered["tokens_in"].to_pylist() == [5, 6]


@pytest.mark.parametrize(
    ("judge", "faster", "other"),
    [
        (SimulatedJudge(), {"batch_size": 7, "num_actors": 3, "seconds_per_batch": 1.0}, {"sharpness": 2.0}),
        (EncoderJudge(), {"num_cpus": 2, "num_gpus": 1}, {"model": "m"}),
        (VllmModel(name="a", model="m"), {"num_engines": 2, "env": {"TOKEN": "x"}}, {"engine": {"dtype": "half"}}),
    ],
)
def test_a_fingerprint_changes_with_what_can_change_an_answer(judge, faster, other):
    assert fingerprint(judge.model_copy(update=faster)) == fingerprint(judge)
    assert fingerprint(judge.model_copy(update=other)) != fingerprint(judge)


def test_half_of_the_texts_concern_a_value_and_the_judge_says_so_with_its_accuracy():
    judge = SimulatedRanker(SimulatedJudge(concern_share=0.5, relevance_accuracy=0.8))
    ids = [f"t{i}" for i in range(4000)]
    alone = windows(len(ids)).set_column(3, "text_ids", pa.array([[i] for i in ids]))
    said = np.array(judge(alone)["relevance"].to_pylist())
    concern = np.array([true_theta("power", i, 3.0, 0.5) != 0 for i in ids])
    assert concern.mean() == pytest.approx(0.5, abs=0.03)
    assert set(said.round(6)) == {0.2, 0.8}
    for level in (0.2, 0.8):  # what it says is the probability
        assert concern[said.round(6) == level].mean() == pytest.approx(level, abs=0.03)
    assert all(judge.theta("power", i) == 0 for i, is_about in zip(ids, concern, strict=True) if not is_about)


def test_by_default_all_texts_concern_all_values_and_ids_are_those_from_before_the_setting():
    assert SimulatedRanker(SimulatedJudge())(windows(3))["relevance"].to_pylist() == [None] * 3
    assert not {"concern_share", "relevance_accuracy"} & set(SimulatedJudge().model_dump())
    assert kind_of(SimulatedJudge()).relevance(SimulatedJudge()) == "none"
    assert {"concern_share", "relevance_accuracy"} <= set(SimulatedJudge(concern_share=0.5, relevance_accuracy=1).model_dump())
