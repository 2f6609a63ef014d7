"""Agreement of raters by known answers, and raters of known faults."""

import numpy as np
import pytest
from people_samples import sample_tasks

from valueflow.people.agreement import by_value, judge_check, pair_checks, rater_checks
from valueflow.people.answers import Answer
from valueflow.people.tasks import Place, Task
from valueflow.records import ValueId

POWER = ValueId("svt:power")


def rated(ratings: dict[str, list[float | None]], seconds: float | None = None) -> list[Answer]:
    """Ratings by rater; text n was drawn at random if n is even, and judges put it at n."""
    return [
        Answer(_task(n), rater, number, seconds, "")
        for rater, numbers in ratings.items()
        for n, number in enumerate(numbers)
        if number is not None
    ]


def _task(n: int) -> Task:
    return Task("rating", POWER, f"t{n}", f"text {n}", ("random", "chosen")[n % 2], "", Place(n, n - 1.0, n + 1.0))


def interval_alpha(ratings: list[list[float | None]]) -> float:
    """Krippendorff's definition, pair by pair."""
    units = [[x for x in column if x is not None] for column in zip(*ratings, strict=True)]
    units = [unit for unit in units if len(unit) > 1]
    pooled = [x for unit in units for x in unit]
    observed = sum((a - b) ** 2 / (len(unit) - 1) for unit in units for a in unit for b in unit)
    expected = sum((a - b) ** 2 for a in pooled for b in pooled) / (len(pooled) - 1)
    return 1 - observed / expected


def test_alpha_is_that_of_its_definition():
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 4, 12)
    matrix = [[None if rng.random() < 0.3 else round(float(x + rng.normal(0, 2)), 1) for x in truth] for _ in range(4)]
    (all_, power) = by_value(rated({f"r{i}": row for i, row in enumerate(matrix)}))
    assert all_.alpha == pytest.approx(interval_alpha(matrix))
    assert (power.value, power.alpha, all_.value) == (POWER, all_.alpha, "all")
    assert all_.num_ratings == sum(x is not None for row in matrix for x in row)


def test_alpha_of_nothing_is_unknown():
    for ratings in ({"a": [1.0, 2.0]}, {"a": [3.0, 3.0], "b": [3.0, 3.0]}, {"a": [1.0, None], "b": [None, 2.0]}):
        assert np.isnan(by_value(rated(ratings))[0].alpha)


def test_every_fault_of_a_rater_is_noted():
    truth = [float(x) for x in np.tile([-8, -4, 0, 4, 8], 4)]
    rng = np.random.default_rng(1)
    ratings = {
        "good": truth,
        "fine": [x + 1 for x in truth],
        "same": [2.0] * 20,
        "high": [x + 6 for x in truth],
        "dice": [float(x) for x in rng.permutation(truth)],
    }
    checks = {check.rater: check for check in rater_checks(rated(ratings), num_tasks=25)}
    assert checks["good"].notes == []
    assert checks["fine"].notes == []
    assert "100% of the ratings are equal" in checks["same"].notes
    assert checks["same"].longest_run == 20
    assert any("from the others" in note for note in checks["high"].notes)
    assert any("hardly follows" in note for note in checks["dice"].notes)
    assert checks["good"].num_open == 5
    (fast,) = rater_checks(rated({"a": [1.0, 2.0]}, seconds=0.8), 2)
    assert fast.notes == ["takes 0.8 s for a text"]
    assert np.isnan(fast.correlation)


def test_judges_are_compared_on_random_texts_only():
    check = judge_check(rated({"a": [0.5, 99.0, 2.0, -99.0, 6.0], "b": [0.5, 99.0, 2.0, -99.0, 8.0]}))
    assert check.num_texts == 3
    assert check.covered == pytest.approx(2 / 3)
    assert check.rmse == pytest.approx(np.sqrt((0.25 + 0 + 9) / 3))
    assert judge_check(rated({"a": [None, 1.0]})).num_texts == 0


def test_pairs_are_counted_for_and_against_the_judges():
    pairs = [task for task in sample_tasks() if task.kind == "pair"]
    prefers = [np.sign(task.place.intensity - task.other_intensity) for task in pairs]
    answers = [Answer(task, "a", float(sign), None, "") for task, sign in zip(pairs, prefers, strict=True)]
    answers += [answer._replace(rater="b", number=0.0 if n else -answer.number) for n, answer in enumerate(answers)]
    random, both = pair_checks(answers)
    assert (both.num_answers, both.num_equal, random.basis) == (2 * len(pairs), len(pairs) - 1, "random")
    assert both.with_judges == pytest.approx(len(pairs) / (len(pairs) + 1))
    assert both.between_raters == 0.0
