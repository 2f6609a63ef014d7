"""`valueflow steer-prompt`: texts, JSON, and mistakes in one line; without a server, a root or a judge."""

import json

import pytest

from valueflow.cli.main import main
from valueflow.records import ValueId
from valueflow.steering import neutral_personas, wording_hash, wordings

FAIRNESS = ValueId("mft:fairness-cheating")


@pytest.mark.parametrize("spelling", ["fairness", "Fairness/Cheating", "mft:fairness-cheating", "fairness_cheating"])
@pytest.mark.parametrize("level", ["2", "+2"])
def test_any_spelling_gives_the_texts_one_a_line(capsys, spelling, level):
    assert main(["steer-prompt", spelling, level]) == 0
    assert capsys.readouterr().out.splitlines() == [row.text for row in wordings(FAIRNESS, 2)]


def test_a_negative_level_is_no_option_and_a_variant_is_one_text(capsys):
    assert main(["steer-prompt", "fairness", "-2", "--variant", "2"]) == 0
    assert capsys.readouterr().out == f"{wordings(FAIRNESS, -2)[2].text}\n"


def test_level_0_is_the_neutral_persona(capsys):
    assert main(["steer-prompt", "fairness", "0"]) == 0
    assert capsys.readouterr().out.splitlines() == neutral_personas()


def test_json_has_the_value_the_variants_and_the_hash(capsys):
    assert main(["steer-prompt", "fairness", "-1", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["value"], answer["name"], answer["wording_hash"]) == (FAIRNESS, "fairness", wording_hash())
    rows = [(row["level"], row["variant"], row["named"], row["text"]) for row in answer["wordings"]]
    assert rows == [(row.level, row.variant, row.named, row.text) for row in wordings(FAIRNESS, -1)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fairnes", "1"], "did you mean 'fairness'"),
        (["fairness", "3"], "-2, -1, 0, 1, 2"),
        (["fairness", "high"], "'high'"),
        (["fairness", "1", "--variant", "3"], "0 to 2"),
        (["svt:conservation", "1"], "no wording"),
    ],
)
def test_a_mistake_is_one_line_and_code_2(capsys, words, message):
    assert main(["steer-prompt", *words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert message in said.err
