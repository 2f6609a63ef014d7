"""Ids: a value id is its two parts and still a string."""

import json
import pickle

import pytest

from valueflow.records import ValueId, digest


def test_a_value_id_has_two_parts_and_stays_a_string():
    value = ValueId("svt:benevolence")
    assert (value.theory, value.node) == ("svt", "benevolence")
    assert value == "svt:benevolence" == ValueId.of("svt", "benevolence")
    assert {value: 1}["svt:benevolence"] == 1
    assert json.loads(json.dumps([value])) == ["svt:benevolence"]
    assert digest(value) == digest("svt:benevolence")
    assert type(pickle.loads(pickle.dumps(value))) is ValueId


@pytest.mark.parametrize("text", ["benevolence", "svt:", ":benevolence", "svt:a:b", ""])
def test_other_strings_are_refused(text):
    with pytest.raises(ValueError, match="svt:benevolence"):
        ValueId(text)
