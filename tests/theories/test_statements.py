"""The statements that ship: enough of each kind, in two halves that share nothing, and none taken from the ground truth."""

import csv
import json
import re
from collections import Counter
from importlib import resources

import pytest

from valueflow.records import text_id
from valueflow.theories import operational, resolve

SAMPLES = resources.files("valueflow.samples")
# The least a half holds of each value, by direction.
HALF = {1: 10, -1: 10, 0: 3}
TOTAL = {1: 20, -1: 20, 0: 6}


def read_csv(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(SAMPLES.joinpath(name).read_text("utf-8").splitlines()))


def exemplars() -> list[dict]:
    lines = resources.files("valueflow.theories").joinpath("exemplars.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def corpus() -> list[dict]:
    """The corpus with values and directions as the exemplars have them."""
    rows = read_csv("corpus.csv")
    return [row | {"value": f"{row['theory']}:{row['value']}", "direction": int(row["direction"])} for row in rows]


def per_value(rows: list[dict]) -> Counter:
    return Counter((row["value"], row["direction"]) for row in rows)


def normalised(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()


def shipped() -> dict[str, list[str]]:
    return {
        "exemplars": [row["text"] for row in exemplars()],
        "corpus": [row["text"] for row in corpus()],
        "neutral": [row["text"] for row in read_csv("neutral.csv")],
        "responses": [row["response"] for row in read_csv("responses.csv")],
    }


def test_each_half_has_enough_scenes_of_every_value():
    scenes = per_value([row for row in exemplars() if row["kind"] == "scene"])
    held_out = per_value(corpus())
    for value in operational():
        for direction in (1, -1, 0):
            assert scenes[value, direction] >= HALF[direction], (value, direction)
            assert held_out[value, direction] >= HALF[direction], (value, direction)
            assert scenes[value, direction] + held_out[value, direction] >= TOTAL[direction], (value, direction)


def test_statements_are_about_operational_values_only():
    for rows in (exemplars(), corpus()):
        assert {row["value"] for row in rows} == set(operational())
        assert {row["direction"] for row in rows} == {-1, 0, 1}
        assert all((row["direction"] == 0) == (int(row["strength"]) == 0) for row in rows)
    responses = read_csv("responses.csv")
    assert all(resolve(row["about"]) == row["about"] in operational() for row in responses)


def test_the_files_share_no_text():
    texts = shipped()
    assert len(texts["neutral"]) >= 100
    owner = {}
    for name, listed in texts.items():
        ids = {text_id(text) for text in listed}
        assert len(ids) == len(listed), f"{name} holds a text twice"
        for found in ids:
            assert owner.setdefault(found, name) == name
    words = [{normalised(text) for text in texts[name]} for name in ("exemplars", "corpus", "neutral")]
    assert not words[0] & words[1]
    assert not (words[0] | words[1]) & words[2]


@pytest.mark.parametrize("name", ["exemplars", "corpus", "neutral", "responses"])
def test_a_text_is_not_empty_and_not_padded(name):
    for text in shipped()[name]:
        assert text.strip() == text
        assert len(normalised(text)) > 10


def test_every_query_is_answered_from_both_sides():
    by_query: dict[str, list[int]] = {}
    for row in read_csv("responses.csv"):
        by_query.setdefault(row["query"], []).append(int(row["stance"]))
    assert all(min(stances) < 0 < max(stances) for stances in by_query.values())


def test_no_statement_is_part_of_the_published_ground_truth(data):
    anchors = (data / "vidb_anchors" / "dev.jsonl").read_text("utf-8").splitlines()
    published = {normalised(json.loads(line)["text"]) for line in anchors}
    assert len(published) > 300
    for name, texts in shipped().items():
        assert not published & {normalised(text) for text in texts}, name
