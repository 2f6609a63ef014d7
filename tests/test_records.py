"""Ids: a value id is its two parts and still a string; texts: what no text may have."""

import json
import pickle

import pytest

from valueflow.records import ValueId, clean, digest, flaw


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


def test_control_characters_that_are_not_white_space_are_a_flaw():
    controls = [chr(code) for code in [*range(0x20), *range(0x7F, 0xA0)]]
    flawed = [char for char in controls if flaw(f"a{char}b")]
    assert flawed == [char for char in controls if not char.isspace()]
    assert all(f"U+{ord(char):04X}" in flaw(f"a{char}b") for char in flawed)
    assert {clean(f"a{char}b") for char in set(controls) - set(flawed)} == {"a b"}
    assert "UTF-8" in flaw("caf\udce9")
    assert not flaw("Ærlighet 诚实 🌱 e\u0301 \u200d\ufeff\ufffd\n")
