"""Scales, acquiescence and effects of planted answers."""

import numpy as np
import pytest

from valueflow.choices.questions import Answered
from valueflow.questionnaires.items import Item
from valueflow.questionnaires.scoring import acquiescence, check_row, effect_rows, item_answer, mean_interval, scale_rows

ITEMS = [Item(f"{scale}{n}", ("text",), scale, 1 if n % 2 == 0 else -1) for scale in ("care", "power") for n in range(4)]
OPTIONS = 6


def answered(rating: float, consistent: bool = True) -> Answered:
    """Shares whose expected rating is planted: on the two options around it."""
    low = min(int(rating), OPTIONS - 1)
    share_O = np.zeros(OPTIONS)
    share_O[low - 1], share_O[low] = low + 1 - rating, rating - low
    return Answered(share_O, consistent, 0)


def sheet(truth: dict[str, float], bias: float = 0.0) -> dict:
    """A model of true scale scores, which adds a bias to whatever it rates."""
    return {
        i.item_id: item_answer([answered(np.clip((truth[i.scale] if i.key > 0 else 7 - truth[i.scale]) + bias, 1, 6))], OPTIONS)
        for i in ITEMS
    }


def test_scales_are_scored_by_their_key():
    rows = {row["scale"]: row for row in scale_rows(ITEMS, sheet({"care": 5.0, "power": 2.0}), OPTIONS)}
    assert rows["care"]["mean"] == pytest.approx(5)
    assert rows["power"]["mean"] == pytest.approx(2)
    assert rows["care"]["centred"] == pytest.approx(1.5)
    assert (rows["care"]["items"], rows["care"]["answered"]) == (4, 4)


def test_agreement_with_everything_is_acquiescence_and_leaves_balanced_scales():
    yes = sheet({"care": 4.0, "power": 3.0}, bias=1.0)
    assert acquiescence(ITEMS, yes, OPTIONS) == pytest.approx(1.0)
    assert acquiescence(ITEMS, sheet({"care": 4.0, "power": 3.0}), OPTIONS) == pytest.approx(0)
    rows = {row["scale"]: row for row in scale_rows(ITEMS, yes, OPTIONS)}
    assert rows["care"]["mean"] == pytest.approx(4)
    assert rows["care"]["high"] - rows["care"]["low"] > 1  # its items contradict each other
    one_key = [item for item in ITEMS if item.key > 0]
    assert np.isnan(acquiescence(one_key, yes, OPTIONS))


def test_effects_are_paired_by_item():
    rows = {
        r["scale"]: r for r in effect_rows(ITEMS, sheet({"care": 5, "power": 3}), sheet({"care": 3.5, "power": 3}), OPTIONS)
    }
    assert rows["care"]["effect"] == pytest.approx(1.5)
    assert rows["care"]["low"] == pytest.approx(1.5)
    assert rows["power"]["effect"] == pytest.approx(0)


def test_replies_without_an_option_leave_the_item_out_and_are_counted():
    answers = sheet({"care": 5.0, "power": 2.0}) | {"care0": item_answer([Answered(None, None, 2)], OPTIONS)}
    care = scale_rows(ITEMS, answers, OPTIONS)[0]
    assert (care["answered"], care["mean"]) == (3, pytest.approx(5))
    assert check_row(ITEMS, answers, OPTIONS)["unread"] == pytest.approx(2 / 16)


def test_a_choice_that_follows_the_place_is_inconsistent():
    answers = {i.item_id: item_answer([answered(3.5, consistent=n % 2 == 0)], OPTIONS) for n, i in enumerate(ITEMS)}
    assert check_row(ITEMS, answers, OPTIONS)["inconsistent"] == 0.5


def test_paraphrases_are_averaged():
    of = item_answer([answered(2.0), answered(4.0), Answered(None, None, 2)], OPTIONS)
    assert (of.rating, of.unread, of.replies) == (3.0, 2, 6)


def test_intervals_of_means_cover():
    rng = np.random.default_rng(0)
    ends = [mean_interval(rng.normal(0, 1, 5))[1:] for _ in range(2000)]
    assert 0.935 < np.mean([low <= 0 <= high for low, high in ends]) < 0.965
    assert np.isnan(mean_interval(np.array([1.0, np.nan]))[1])
    assert np.isnan(mean_interval(np.array([]))[0])
