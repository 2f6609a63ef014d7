"""The page of OpinionQA: what it says of a model that uses profiles, and of one that does not."""

import numpy as np
import pytest
from profiles.opinion_world import softmax, world

from valueflow.choices.study import ChoiceStudy
from valueflow.profiles.opinionqa.batteries import SIDES
from valueflow.profiles.opinionqa.items import Items
from valueflow.profiles.opinionqa.sides import Sides
from valueflow.profiles.opinionqa.study import (
    ArmAnswers,
    arm_rows,
    baseline_rows,
    calibration_rows,
    difference_rows,
)
from valueflow.report.opinionqa_page import finding, measure_table, opinionqa_page

STEPS = np.array([1.5, 0.5, -0.5, -1.5])


def result(use: float) -> ChoiceStudy:
    items, value_G, pole_Q, base_QO, battery_of = world(num_questions=90)
    sides = Sides(Items(items, {}, []), battery_of, {q: SIDES[int(q[1:]) % 3] for q in battery_of})
    test = sides.of("test")

    def arm(shift: int | None) -> ArmAnswers:
        of = []
        for item in test:
            q, g = int(item.question_id[1:]), int(item.group)
            value = 0.0 if shift is None else value_G[(g + shift) % 6]
            of.append(softmax(base_QO[q] + use * pole_Q[q] * value * STEPS))
        return ArmAnswers(of, [True] * len(of), 0)

    answers = {"default": arm(None), "profile": arm(0), "shuffled profile": arm(1)}
    about = {"model": "<b>m</b>", "reading": "probabilities"}
    tables = {
        "measures": [about | row for row in arm_rows(answers, test, sides, 0)],
        "differences": [about | row for row in difference_rows(answers, test, sides, 0)],
        "calibration": [about | row for row in calibration_rows(answers, test, sides)],
        "baselines": [{"model": "none", "reading": ""} | row for row in baseline_rows(test, sides, 0)],
        "damaged": [{"question_id": "q", "damage": "split", "side": "test", "question": "Is it?", "options": "Yes | no"}],
        "told": [{"group": "ATTR0_0", "text": "You care about power (+4 of 10)."}],
    }  # fmt: skip
    facts = {
        "builds": ["b1"], "profiles": "p1", "num_items": len(test), "clean": len(test), "validation": 5, "questions": 30,
        "batteries": 10, "groups": 6, "near_ties": 0.1, "duplicates": 1, "prompts": 9,
        "thresholds": {"<b>m</b>, probabilities": 0.4},
    }  # fmt: skip
    return ChoiceStudy("s1", "root", {"items": "file.json"}, tables, facts)


@pytest.fixture(scope="module")
def uses():
    return result(0.5)


def test_a_model_that_uses_profiles_is_said_to(uses):
    page = opinionqa_page(uses)
    assert "Told a profile, the model moves towards the group" in page
    assert "worth more than another group" in page
    assert "<b>m</b>" not in page
    assert "//" not in page.replace("http://www.w3.org", "")
    assert page.count("<svg") == 2
    assert "threshold was chosen on the validation side alone" in page
    for arm in ("default", "profile", "shuffled profile", "nearest questions", "leave one group out"):
        assert arm in page


def test_a_model_that_does_not_is_not(uses):
    tables = result(0.0).tables
    assert finding(tables["measures"], tables["differences"]).startswith("Nothing shows that the model uses")
    assert (
        finding([row for row in tables["measures"] if row["arm"] == "default"], []) == "The arm with the profile was not asked."
    )
    without = [row for row in uses.tables["differences"] if row["second"] != "shuffled profile"]
    assert "worth" not in finding(uses.tables["measures"], without)


def test_the_terminal_has_a_line_for_each_arm_and_baseline(uses):
    lines = measure_table(uses).splitlines()
    assert len(lines) == 1 + 3 + 4
    assert "contrast r" in lines[0]
