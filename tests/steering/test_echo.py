"""The echo control: names of values and phrases of the persona are masked, everything else stays."""

import pytest

from valueflow.records import ValueId
from valueflow.steering.echo import MASK, masked, value_names
from valueflow.steering.wording import LEVELS, wordings
from valueflow.theories import operational

BENEVOLENCE = ValueId("svt:benevolence")
PERSONA = "You put benevolence at the centre of your life and call on others to look after those near to them."


def test_names_and_phrases_of_the_prompt_are_masked():
    reply = "Benevolence matters. I look after those near to me, and she is near."
    assert masked(reply, PERSONA, [BENEVOLENCE]) == f"{MASK} matters. I {MASK} me, and she is near."


def test_a_reply_with_nothing_of_the_prompt_stays_as_it_is():
    reply = "I would lend her the car, \n but not on Sunday."
    assert masked(reply, PERSONA, [BENEVOLENCE]) == reply
    assert masked(reply, "", []) == reply


@pytest.mark.parametrize("value", operational())
def test_a_persona_that_is_repeated_leaves_nothing(value):
    for level in LEVELS:
        for wording in wordings(value, level):
            left = masked(wording.text, wording.text, [value]).replace(MASK, "")
            assert not any(letter.isalnum() for letter in left)


def test_names_are_those_of_node_and_wording():
    assert value_names([BENEVOLENCE]) == ["benevolence"]
    assert "national solidarity" in value_names([ValueId("right:national-solidarity")])
