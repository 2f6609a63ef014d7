"""The personas: complete, distinct, and refused where there are none."""

import re

import pytest

from valueflow.errors import InputError
from valueflow.records import ValueId
from valueflow.steering import LEVELS, irrelevant_persona, neutral_personas, wording_hash, wordings
from valueflow.steering.wording import VARIANTS, WordingTable, wording_table
from valueflow.theories import operational, resolve

BENEVOLENCE = ValueId("svt:benevolence")


def test_every_value_and_level_has_two_paraphrases_with_the_name_and_one_without_it():
    for value in operational():
        for level in LEVELS:
            rows = wordings(value, level)
            assert [(r.value, r.level, r.variant, r.named) for r in rows] == [
                (value, level, 0, True), (value, level, 1, True), (value, level, 2, False),
            ]  # fmt: skip
            name = wording_table().values[value].name
            assert [name in row.text for row in rows] == [True, True, False]


def test_all_texts_are_distinct():
    texts = [row.text for value in operational() for level in LEVELS for row in wordings(value, level)]
    assert len(texts) == len(set(texts)) == 32 * len(LEVELS) * VARIANTS


def test_the_name_in_the_texts_is_a_spelling_of_the_value():
    for value, entry in wording_table().values.items():
        assert resolve(f"{ValueId(value).theory}:{entry.name}") == value


@pytest.mark.parametrize("level", [-3, 0, 3])
def test_an_unknown_level_is_refused(level):
    with pytest.raises(InputError, match=rf"{level}.*-2, -1, 1, 2"):
        wordings(BENEVOLENCE, level)


def test_a_node_without_wording_is_refused():
    with pytest.raises(InputError, match=r"svt:conservation.*svt:benevolence"):
        wordings(ValueId("svt:conservation"), 1)


def test_a_table_without_a_value_or_with_a_level_too_few_is_refused():
    whole = wording_table().model_dump()
    values = {value: entry for value, entry in whole["values"].items() if value != BENEVOLENCE}
    with pytest.raises(ValueError, match=BENEVOLENCE):
        WordingTable.model_validate(whole | {"values": values})
    entry = whole["values"][BENEVOLENCE]
    shorter = values | {BENEVOLENCE: entry | {"texts": {level: entry["texts"][level] for level in (-2, -1, 1)}}}
    with pytest.raises(ValueError, match="benevolence"):
        WordingTable.model_validate(whole | {"values": shorter})


def test_an_irrelevant_persona_has_about_the_requested_length():
    for length in range(5, 250):
        persona = irrelevant_persona(length)
        assert abs(len(persona.split()) - length) <= 1
        facts = re.findall(r"[^.]+\.", persona)
        assert len(facts) == len(set(facts))
    with pytest.raises(InputError, match="0 words"):
        irrelevant_persona(0)
    with pytest.raises(InputError, match="100000 words"):
        irrelevant_persona(100_000)


def test_control_personas_name_no_value():
    """Neither the word for a value nor a longer form of it."""
    words = [entry.name.lower() for entry in wording_table().values.values()]
    for persona in [*neutral_personas(), irrelevant_persona(300)]:
        assert [word for word in words if word in persona.lower()] == []


def test_the_hash_is_stable_within_a_file():
    assert re.fullmatch(r"[0-9a-f]{16}", wording_hash())
    assert wording_hash() == wording_hash()
