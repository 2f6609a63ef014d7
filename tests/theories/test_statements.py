"""The statements of the package: enough of each kind, two disjoint halves, and none from the published ground truth."""

import json
import re
from collections import Counter
from importlib import resources

import pytest

from valueflow.records import ValueId, text_id
from valueflow.tabular import strict_rows
from valueflow.theories import operational, resolve

SAMPLES = resources.files("valueflow.samples")
# Lower bounds of the number of statements of each value, by direction: in a half, and in both.
HALF = {1: 10, -1: 10, 0: 3}
TOTAL = {1: 20, -1: 20, 0: 6}


def sample(name: str, *columns: str) -> list[dict[str, str]]:
    return [row.fields for row in strict_rows(str(SAMPLES.joinpath(name)), list(columns))]


def exemplars() -> list[dict]:
    lines = resources.files("valueflow.theories").joinpath("exemplars.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def corpus() -> list[dict]:
    """The corpus with values and directions as the exemplars have them."""
    rows = sample("corpus.csv", "text", "theory", "value", "direction", "strength")
    return [row | {"value": ValueId.of(row["theory"], row["value"]), "direction": int(row["direction"])} for row in rows]


def per_value(rows: list[dict]) -> Counter:
    return Counter((row["value"], row["direction"]) for row in rows)


def normalised(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()


def shipped() -> dict[str, list[str]]:
    return {
        "exemplars": [row["text"] for row in exemplars()],
        "corpus": [row["text"] for row in corpus()],
        "neutral": [row["text"] for row in sample("neutral.csv", "text")],
        "responses": [row["response"] for row in sample("responses.csv", "response")],
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
    responses = sample("responses.csv", "about")
    assert all(resolve(row["about"]) == row["about"] in operational() for row in responses)


def test_the_files_share_no_text():
    texts = shipped()
    assert len(texts["neutral"]) >= 100
    owner = {}
    for name, statements in texts.items():
        ids = {text_id(text) for text in statements}
        assert len(ids) == len(statements), f"{name} holds a text twice"
        for identifier in ids:
            assert owner.setdefault(identifier, name) == name
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
    for row in sample("responses.csv", "query", "stance"):
        by_query.setdefault(row["query"], []).append(int(row["stance"]))
    assert all(min(stances) < 0 < max(stances) for stances in by_query.values())


def test_no_statement_is_part_of_the_published_ground_truth(data):
    anchors = (data / "vidb_anchors" / "dev.jsonl").read_text("utf-8").splitlines()
    published = {normalised(json.loads(line)["text"]) for line in anchors}
    assert len(published) > 300
    for name, texts in shipped().items():
        assert not published & {normalised(text) for text in texts}, name
