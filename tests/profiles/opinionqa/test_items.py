"""The public file: its damage is found exactly, its baselines are reproduced, a split leaks in no way."""

import json

import numpy as np
import pytest

from valueflow.errors import InputError
from valueflow.profiles.opinionqa.arms import ARMS, LABELS, letter_echoes, preamble, shuffled
from valueflow.profiles.opinionqa.baselines import (
    best_constant,
    constant,
    groups_disagree,
    leave_one_group_out,
    nearest_questions,
    uniform_accuracy,
)
from valueflow.profiles.opinionqa.batteries import batteries, check_no_leak, leaks, split
from valueflow.profiles.opinionqa.items import Item, by_question, read_items
from valueflow.profiles.opinionqa.ordinal import ranks, require_ranks


@pytest.fixture(scope="module")
def public():
    from conftest import DATA

    if not DATA.is_dir():
        pytest.skip("the real data are absent")
    return read_items(str(DATA / "opinionqa" / "steerable_dev.json"))


def item(wording: str, group: str = "Hindu", attribute: str = "RELIG", gold=(0.6, 0.4), options=("Yes", "No")) -> Item:
    question = f"q:{wording}"
    return Item(f"{question}/{attribute}_{group}", question, wording, tuple(options), attribute, group, tuple(gold))


def test_the_damage_of_the_public_file_is_found_exactly(public):
    kinds = list(public.damaged.values())
    assert {kind: kinds.count(kind) for kind in ("split", "quoted", "other")} == {"split": 33, "quoted": 14, "other": 8}
    questions = by_question(public.items)
    number = {kind: sum(len(questions[q]) for q, k in public.damaged.items() if k == kind) for kind in set(kinds)}
    assert number == {"split": 138, "quoted": 59, "other": 35, "one option": 7}
    assert len(public.duplicates) == 1
    assert (len(public.items), len(questions)) == (2787, 616)
    assert len(public.clean) == 2787 - 232 - 7


def test_baselines_of_the_public_file(public):
    items = public.items
    assert uniform_accuracy(items) == pytest.approx(0.314, abs=5e-4)
    assert best_constant(items) == 1
    right = [p.argmax() == i.mode for i, p in zip(items, constant(items, 1), strict=True) if len(i.options) > 1]
    assert np.sum(right) / len(items) == pytest.approx(0.396, abs=1e-3)
    oracle = leave_one_group_out(items)
    known = np.array([p is not None for p in oracle])
    hit = np.array([p is not None and p.argmax() == i.mode for i, p in zip(items, oracle, strict=True)])
    assert hit[known].mean() == pytest.approx(0.831, abs=1e-3)
    disagree = groups_disagree(items)
    assert hit[disagree].mean() == pytest.approx(0.615, abs=1e-3)


def test_the_split_of_the_public_file_has_whole_batteries_and_no_leak(public):
    battery_of = batteries(public.items)
    side_of = split(battery_of, 0)
    by_battery: dict[str, set[str]] = {}
    for question, side in side_of.items():
        by_battery.setdefault(battery_of[question], set()).add(side)
    assert all(len(sides) == 1 for sides in by_battery.values())
    assert set(side_of.values()) == {"profile", "validation", "test"}
    check_no_leak(public.items, side_of)


def test_a_random_split_of_questions_leaks(public):
    questions = sorted({i.question_id for i in public.items})
    side_of = dict(zip(questions, np.random.default_rng(0).choice(["profile", "test"], len(questions)), strict=True))
    assert len(leaks(public.items, side_of)) > 50


def test_a_shared_question_is_a_leak():
    shared = item("Is the sea salt?")
    other = shared._replace(item_id="other", group="Jewish")
    side_of = {shared.question_id: "profile", "other": "test"}
    with pytest.raises(InputError, match="both sides"):
        check_no_leak([shared, other], side_of)


def test_a_near_twin_is_a_leak_and_another_question_is_none():
    one, twin = item("How often do scientists care about the public"), item("How often do doctors care about the public")
    other = item("Is the sea salt?")
    with pytest.raises(InputError, match="near-twins"):
        check_no_leak([one, twin], {one.question_id: "profile", twin.question_id: "test"})
    check_no_leak([one, other], {one.question_id: "profile", other.question_id: "test"})
    battery_of = batteries([one, twin, other])
    assert battery_of[one.question_id] == battery_of[twin.question_id] != battery_of[other.question_id]


def test_a_group_by_another_name_is_a_leak():
    same = frozenset({"POLPARTY_Democrat", "PARTY_Dem"})
    one, alias = item("Is it?", "Democrat", "POLPARTY"), item("Is it?", "Dem", "PARTY")
    side_of = {one.question_id: "test"}
    check_no_leak([one, alias], side_of)
    with pytest.raises(InputError, match="2 names"):
        check_no_leak([one, alias], side_of, [same])


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("{", "not JSON"),
        ("[]", "no list of items"),
        ('[{"question": "Q"}]', "entry 1 is no item"),
        (
            json.dumps([{"question": "Q", "options": ["a", "b"], "attribute": "SEX_Male", "gold_distribution": [1.0]}]),
            "1 shares",
        ),
        (
            json.dumps([{"question": "Q", "options": ["a", "b"], "attribute": "SEX_Male", "gold_distribution": [0.9, 0.9]}]),
            "not a distribution",
        ),
    ],
)
def test_another_file_is_refused_with_the_entry(tmp_path, content, named):
    file = tmp_path / "items.json"
    file.write_text(content, "utf-8")
    with pytest.raises(InputError, match=named):
        read_items(str(file))


def test_known_scales_are_ordered_in_any_order_and_others_are_not():
    assert ranks(("A great deal", "A fair amount", "Not too much", "None at all")) == [0, 1, 2, 3]
    assert ranks(("Not at all important", "Very important", "Somewhat important")) == [2, 0, 1]
    assert ranks(("Yes", "No")) is None
    assert ranks(("Red", "Green", "Blue")) is None
    with pytest.raises(InputError, match="no known scale"):
        require_ranks(("Red", "Green"))


def test_many_option_sets_of_the_public_file_are_ordered(public):
    ordered = [ranks(i.options) is not None for i in public.clean if len(i.options) > 2]
    assert np.mean(ordered) > 0.4


def test_neighbors_know_the_group_and_not_the_question():
    profile = [item("Do you like tea in the morning", gold=(0.9, 0.1)), item("Is the moon round", gold=(0.1, 0.9))]
    (near,) = nearest_questions([item("Do you like tea in the evening")], profile, 1)
    assert near[0] == pytest.approx(0.9, abs=0.01)
    (unknown,) = nearest_questions([item("Do you like tea", group="Muslim")], profile)
    assert unknown == pytest.approx([0.5, 0.5])


def test_arms_differ_in_what_they_say_and_have_the_length_of_the_profile(public):
    groups = sorted({f"{i.attribute}_{i.group}" for i in public.items})
    assert {group.partition("_")[0] for group in groups} == set(LABELS)
    profiles = {group: f"Values of {group}. " * 6 for group in groups} | {"population": "Values of all. " * 6}
    other = shuffled(groups, 0)
    assert sorted(other.values()) == groups
    assert all(group != own for group, own in other.items())
    one = public.items[0]
    said = {arm: preamble(arm, one, profiles, other) for arm in ARMS}
    assert said["default"] == ""
    assert said["adaptive"] == said["profile"]
    assert preamble("adaptive", one, profiles, other, relevance=0.1, threshold=0.5) == ""
    assert len(set(said.values())) == len(ARMS) - 1
    assert abs(len(said["irrelevant text"]) - len(said["profile"])) <= 2
    with pytest.raises(InputError, match="one group"):
        shuffled(["RELIG_Hindu"], 0)


def test_an_option_that_a_profile_repeats_is_named():
    one = item("Is it?", options=("A great deal of confidence in it", "No"))
    assert letter_echoes("They have a great deal of confidence in it.", [one]) == ["A great deal of confidence in it"]
    assert letter_echoes("They are kind. No.", [one]) == []
