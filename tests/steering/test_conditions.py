"""Conditions: each value, level and control once; exemplars of the bin, seeded; every order of several values; refusals."""

import itertools

import numpy as np
import pytest
from pydantic import ValidationError

from valueflow.errors import InputError
from valueflow.records import ValueId
from valueflow.steering.conditions import ConditionsConfig, Exemplar, conditions, messages, orders
from valueflow.steering.wording import LEVELS, neutral_personas, wordings
from valueflow.theories import operational

POWER, LIBERTY = ValueId("svt:power"), ValueId("mft:liberty-oppression")
TEXTS = [Exemplar(f"{n:04}", f"text {n}", intensity) for n, intensity in enumerate(np.linspace(-10, 10, 81).tolist())]


def planned(values=(POWER,), levels_of=(), texts=TEXTS, **settings):
    pairs = [(ValueId(a), ValueId(b)) for a, b in settings.get("pairs", [])]
    return conditions(ConditionsConfig(**settings), list(values), pairs, list(levels_of), lambda _: texts)


def test_every_value_has_a_persona_at_every_level_beside_the_controls():
    found = planned(operational(), controls=["bare", "neutral_persona", "irrelevant_persona", "no_refusal"])
    steered = [c for c in found if c.regime == "intensity_anchor"]
    assert len(steered) == 32 * 4
    assert {(c.values[0], c.levels[0]) for c in steered} == set(itertools.product(operational(), LEVELS))
    assert all(c.persona == wordings(c.values[0], c.levels[0])[0].text for c in steered)
    controls = {c.condition: c for c in found if c.regime == "control"}
    assert list(controls) == ["bare", "neutral_persona", "irrelevant_persona", "no_refusal"]
    assert controls["bare"].persona == ""
    assert controls["neutral_persona"].persona in neutral_personas()
    usual = np.median([len(c.persona.split()) for c in steered])
    assert len(controls["irrelevant_persona"].persona.split()) == pytest.approx(usual, abs=3)
    assert all(not c.values and not c.levels for c in controls.values())
    assert len({c.key for c in found}) == len(found)


def test_prompts_of_one_persona_are_neighbours():
    found = planned([POWER, LIBERTY], variants=[0, 1, 2])
    keys = [(c.values, c.levels) for c in found]
    assert len(list(itertools.groupby(keys))) == len(set(keys))


def test_personas_stand_in_the_user_turn_or_in_the_system_turn():
    found = planned(turns=["user", "system"], levels=[2])
    assert [(c.condition, c.turn) for c in found] == [
        ("bare", "user"), ("neutral_persona", "user"), ("neutral_persona", "system"), ("irrelevant_persona", "user"),
        ("irrelevant_persona", "system"), ("value", "user"), ("value", "system"),
    ]  # fmt: skip
    user, system = found[-2:]
    assert messages(user, "Why?", "Be brief.") == [{"role": "user", "content": f"{user.persona}\n\nWhy? Be brief."}]
    assert messages(system, "Why?", "") == [
        {"role": "system", "content": system.persona},
        {"role": "user", "content": "Why?"},
    ]
    assert messages(found[0], "Why?", "Be brief.") == [{"role": "user", "content": "Why? Be brief."}]


def test_exemplars_are_of_the_bin_seeded_and_their_intensity_is_recorded():
    intensity = {text.text_id: text.intensity for text in TEXTS}
    found = [c for c in planned(regimes=["user_texts"]) if c.values]
    assert [c.levels[0] for c in found] == list(LEVELS)
    for condition in found:
        drawn = [intensity[i] for i in condition.exemplar_ids]
        assert len(drawn) == 3
        low, high = {-2: (-10, -6), -1: (-6, -3), 1: (3, 6), 2: (6, 10)}[condition.levels[0]]
        assert all(low <= y <= high for y in drawn)
        assert condition.requested == pytest.approx(np.mean(drawn))
        assert all(f"text {int(i)}" in condition.persona for i in condition.exemplar_ids)
    assert [c for c in planned(regimes=["user_texts"]) if c.values] == found
    assert [c for c in planned(regimes=["user_texts"], seed=1) if c.values] != found


def test_draws_of_a_level_share_no_text():
    found = [c for c in planned(regimes=["user_texts"], levels=[2]) if c.values]
    two = [
        c
        for c in conditions(
            ConditionsConfig(regimes=["user_texts"], levels=[2], exemplars={"draws": 2}), [POWER], [], [], lambda v: TEXTS
        )
        if c.values
    ]
    assert two[0].exemplar_ids == found[0].exemplar_ids
    assert not set(two[0].exemplar_ids) & set(two[1].exemplar_ids)
    assert [c.variant for c in two] == [0, 1]


def test_a_version_with_too_few_texts_of_a_level_is_refused():
    with pytest.raises(InputError, match=r"2 texts of svt:power .* level 2 .* needs 3.*exemplars.strong"):
        planned(regimes=["user_texts"], levels=[2], texts=TEXTS[-2:])


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_orders_are_a_latin_square(count):
    square = np.array(orders(count))
    assert square.shape == (count, count)
    for lines in (square, square.T):
        assert all(sorted(line) == list(range(count)) for line in lines)


@pytest.mark.parametrize("count", [2, 4])
def test_orders_of_an_even_count_put_each_part_after_each_other_one_once(count):
    followers = [pair for order in orders(count) for pair in itertools.pairwise(order)]
    assert sorted(followers) == sorted((a, b) for a in range(count) for b in range(count) if a != b)


def test_several_values_come_in_every_order():
    profile = {POWER: 2, LIBERTY: -1}
    settings = {"regimes": ["multi_value"], "profiles": [{"values": {"power": 2, "liberty-oppression": -1}}], "controls": []}
    both = planned(levels_of=[profile], **settings)
    assert [c.values for c in both] == [(POWER, LIBERTY), (LIBERTY, POWER)]
    assert [c.levels for c in both] == [(2, -1), (-1, 2)]
    assert [c.variant for c in both] == [0, 1]
    texts = [wordings(POWER, 2)[0].text, wordings(LIBERTY, -1)[0].text]
    assert both[0].persona.index(texts[0]) < both[0].persona.index(texts[1])
    assert both[1].persona.index(texts[0]) > both[1].persona.index(texts[1])


def test_several_values_can_be_shown_by_texts():
    settings = {"regimes": ["multi_value"], "controls": []}
    profiles = [{"values": {"power": 2, "liberty-oppression": -1}, "texts": "exemplars"}]
    both = planned(levels_of=[{POWER: 2, LIBERTY: -1}], **settings | {"profiles": profiles})
    assert [len(c.exemplar_ids) for c in both] == [6, 6]
    assert both[0].exemplar_ids == both[1].exemplar_ids[3:] + both[1].exemplar_ids[:3]
    assert both[0].requested is None


def test_a_pair_is_a_factorial_in_both_orders():
    settings = {"regimes": ["composition"], "pairs": [[POWER, LIBERTY]], "controls": ["neutral_persona"]}
    found = [c for c in planned(**settings) if c.values]
    alone = {(c.values, c.levels) for c in found if c.condition == "value"}
    assert alone == {((v,), (level,)) for v in (POWER, LIBERTY) for level in (-2, 2)}
    both = [c for c in found if c.condition == "values"]
    assert len(both) == 4 * 2
    assert {frozenset(zip(c.values, c.levels, strict=True)) for c in both} == {
        frozenset({(POWER, a), (LIBERTY, b)}) for a in (-2, 2) for b in (-2, 2)
    }


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"levels": [3]}, "unknown level 3"),
        ({"levels": [0]}, "neutral persona"),
        ({"pair_levels": [5]}, "unknown level 5"),
        ({"regimes": ["multi_value"]}, "goes with profiles"),
        ({"pairs": [["power", "face"]]}, "goes with pairs"),
        ({"regimes": ["composition"], "pairs": [["power"]]}, "not 2"),
        ({"regimes": ["multi_value"], "profiles": [{"values": {"power": 2}}]}, "profiles"),
        ({"regimes": ["multi_value"], "profiles": [{"values": {"power": 2, "face": 7}}]}, "unknown level 7"),
        ({"controls": ["nothing"]}, "controls"),
    ],
)
def test_settings_that_make_no_conditions_are_refused(settings, reason):
    with pytest.raises((ValidationError, InputError), match=reason):
        ConditionsConfig(**settings)


def test_a_value_without_wording_and_an_unknown_variant_are_refused():
    with pytest.raises(InputError, match="has no wording"):
        planned([ValueId("svt:self-transcendence")])
    with pytest.raises(InputError, match=r"no wording variant 7 .*0, 1, 2"):
        planned(variants=[7])
