"""Saved rankings of the official evaluator: an order is a permutation of whole positions, all else is a failed window."""

import csv

import pytest

from valueflow.evaluation.official_files import score_rankings
from valueflow.evaluation.scoring import EvaluatorConfig
from valueflow.records import ValueId

COLUMNS = ("row_idx", "target_text", "db_score_1", "db_score_2", "ranking")


def scored(folder, *rankings: str) -> list[dict]:
    """The row of each ranking of one response between anchors of intensity 5 and -5."""
    with open(folder / "r.csv", "w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *((i, f"text {i}", 5, -5, ranking) for i, ranking in enumerate(rankings))])
    return score_rankings(str(folder / "r.csv"), ValueId("svt:power"), EvaluatorConfig())[0].to_pylist()


def test_every_spelling_of_an_order_gives_the_same_score(tmp_path):
    rows = scored(tmp_path, "[1, 2, 3]", "1,2,3", " [1,2,3,] ", "['1', '2', '3']", "[1.0, 2.0, 3.0]", "[3, 2, 1]")
    assert {(row["num_windows"], row["num_failed"]) for row in rows} == {(1, 0)}
    assert len({row["intensity"] for row in rows[:5]}) == 1
    assert rows[5]["intensity"] < rows[0]["intensity"]


@pytest.mark.parametrize(
    "ranking",
    [
        "[1.9, 2.2, 3.0]",
        "[True, 2, 3]",
        "[1e999, 2, 3]",
        "[1, 2]",
        "[1, 2, 3, 3]",
        "[0, 1, 2]",
        "[" * 50_000,
        "9" * 5_000,
        "",
        "[]",
    ],
)
def test_what_is_no_order_is_a_failed_window_and_no_other_order(tmp_path, ranking):
    failed, answered = scored(tmp_path, ranking, "[2, 1, 3]")
    assert (failed["num_windows"], failed["num_failed"], failed["intensity"]) == (0, 1, None)
    assert answered["num_windows"] == 1
