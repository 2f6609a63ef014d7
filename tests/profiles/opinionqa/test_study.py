"""The study of arms: planted models that use the group, the profile, or nothing but the question."""

import numpy as np
import pytest
from profiles.opinion_world import softmax, world

from valueflow.choices.questions import Answered
from valueflow.errors import InputError
from valueflow.profiles.opinionqa.arms import ARMS, POPULATION
from valueflow.profiles.opinionqa.batteries import SIDES
from valueflow.profiles.opinionqa.items import Items
from valueflow.profiles.opinionqa.sides import Sides
from valueflow.profiles.opinionqa.study import (
    Told,
    adaptive,
    agreement,
    arm_answers,
    arm_rows,
    baseline_rows,
    calibration_rows,
    difference_rows,
    prompt,
    put_arms,
    tuned_threshold,
)

STEPS = np.array([1.5, 0.5, -0.5, -1.5])


@pytest.fixture(scope="module")
def planted():
    """Items, and the answers of a model that knows each question and whatever value it is told."""
    items, value_G, pole_Q, base_QO, battery_of = world(num_questions=150)
    groups = sorted({f"{i.attribute}_{i.group}" for i in items})
    value_of = {name: value_G[int(name[-1])] for name in groups} | {POPULATION: 0.0}
    told = Told(
        {name: f"profile {value:+.3f}" for name, value in value_of.items()},
        dict(zip(groups, groups[1:] + groups[:1], strict=True)),
    )
    label_value = {f"g{i.group}": value_G[int(i.group)] for i in items}

    def answered(arm, item):
        before = prompt(arm, item, told).before
        value = float(before.rpartition("profile ")[2]) if "profile" in before else 0.0
        value = value or next((v for name, v in label_value.items() if f": {name[1:]}" in before), 0.0)
        q = int(item.question_id[1:])
        return Answered(softmax(base_QO[q] + 0.5 * pole_Q[q] * value * STEPS), True, 0)

    sides = Sides(Items(items, {}, []), battery_of, {q: SIDES[int(q[1:]) % 3] for q in battery_of})
    prompts = {prompt(a, i, told).prompt_id: answered(a, i) for a in ARMS if a != "adaptive" for i in items}
    return sides, told, prompts


def rows_of(planted, arms=ARMS):
    sides, told, prompts = planted
    test = sides.of("test")
    of = {arm: arm_answers(arm, test, told, prompts) for arm in put_arms(arms)}
    return of, {row["arm"]: row for row in arm_rows(of, test, sides, 0)}


def test_the_profile_earns_a_contrast_that_the_controls_do_not(planted):
    _, rows = rows_of(planted)
    assert rows["profile"]["contrast_low"] > 0.6
    assert rows["shuffled profile"]["contrast_high"] < rows["profile"]["contrast_low"]
    for arm in ("default", "population profile", "irrelevant text"):
        assert rows[arm]["contrast"] == pytest.approx(0, abs=0.02), arm
    assert rows["profile"]["skill"] > 0.5
    assert rows["default"]["skill"] == 0
    assert rows["profile"]["all_items"] == rows["profile"]["accuracy"]


def test_differences_are_tested_over_batteries_and_corrected(planted):
    sides = planted[0]
    of, _ = rows_of(planted)
    rows = {(row["first"], row["second"]): row for row in difference_rows(of, sides.of("test"), sides, 0)}
    own = rows["profile", "shuffled profile"]
    assert own["difference"] > 0
    assert own["low"] > 0
    assert own["p"] <= own["holm_p"] < 0.05
    assert rows["profile", "irrelevant text"]["low"] > 0
    assert ("adaptive", "default") not in rows  # it was not among the answers


def test_adaptive_learns_on_the_validation_side_when_a_profile_helps(planted):
    sides, told, prompts = planted
    items = sides.of("validation")
    default, profile = (arm_answers(arm, items, told, prompts) for arm in ("default", "profile"))
    relevance_N = np.random.default_rng(0).random(len(items))
    # Where relevance is low, the profile misleads: what it says is turned round.
    misled = [p[::-1] if r < 0.5 else p for p, r in zip(profile.predicted, relevance_N, strict=True)]
    threshold = tuned_threshold(items, relevance_N, profile._replace(predicted=misled), default)
    assert 0.4 <= threshold <= 0.6
    chosen = adaptive(relevance_N, threshold, profile._replace(predicted=misled), default)
    for other in (misled, default.predicted):
        assert agreement(items, chosen.predicted).mean() > agreement(items, other).mean()
    with pytest.raises(InputError, match="adaptive"):
        tuned_threshold([], np.array([]), profile, default)


def test_damaged_items_are_out_of_the_headline_and_in_the_row_of_all(planted):
    sides, told, prompts = planted
    test = sides.of("test")
    damaged = {item.question_id: "split" for item in test[:60]}
    with_damage = sides._replace(items=sides.items._replace(damaged=damaged))
    of = {"default": arm_answers("default", test, told, prompts)}
    (row,) = arm_rows(of, test, with_damage, 0)
    right = np.array([p.argmax() == i.mode for p, i in zip(of["default"].predicted, test, strict=True)])
    assert row["accuracy"] == pytest.approx(right[60:].mean())
    assert row["all_items"] == pytest.approx(right.mean())
    assert sum(r["options"] for r in calibration_rows(of, test, with_damage)) == 4 * (len(test) - 60)


def test_replies_that_name_no_option_are_wrong_and_counted(planted):
    sides, told, prompts = planted
    test = sides.of("test")
    silent = {i: Answered(None, None, 2) for i in prompts}
    of = {"default": arm_answers("default", test, told, silent)}
    (row,) = arm_rows(of, test, sides, 0)
    assert (row["accuracy"], row["agreement"], row["unread"]) == (0, 0, 1)
    assert row["unread_replies"] == 2 * len(test)
    assert np.isnan(row["consistent"])


def test_baselines_stand_beside_on_the_same_items(planted):
    sides = planted[0]
    rows = {row["arm"]: row for row in baseline_rows(sides.of("test"), sides, 0)}
    assert len(rows) == 4
    assert rows["uniform"]["accuracy"] == 0.25


def test_adaptive_puts_the_arms_that_it_chooses_from():
    assert put_arms(["adaptive"]) == ["default", "profile"]
    assert put_arms(["label"]) == ["default", "label"]
