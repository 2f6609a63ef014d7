"""The table of baselines: on the test side, with intervals, beside the whole file."""

import json

import numpy as np
import pytest

from valueflow.errors import InputError
from valueflow.profiles.opinionqa.baseline_table import ORACLE, baselines
from valueflow.profiles.opinionqa.sides import read_sides, whole_questions


@pytest.fixture
def file(tmp_path):
    rng = np.random.default_rng(0)
    entries = []
    for _ in range(60):
        words = " ".join("".join(rng.choice(list("abcdefghij"), 5)) for _ in range(6))
        base = rng.dirichlet(np.ones(3) * 2)
        for group in ("Hindu", "Jewish", "Muslim"):
            gold = 0.9 * base + 0.1 * rng.dirichlet(np.ones(3))
            options = ["A great deal", "Some", "None at all"]
            entry = {"question": f"Question: {words}?\nOptions: A. B. C.\nAnswer:", "options": options}
            entries.append(entry | {"attribute": f"RELIG_{group}", "gold_distribution": gold.tolist()})
    path = tmp_path / "items.json"
    path.write_text(json.dumps([*entries, entries[0]]), "utf-8")
    return str(path)


def test_every_baseline_is_there_and_the_oracle_wins(file):
    found = baselines(read_sides(file))
    assert (found.items, found.duplicates, found.damaged) == (180, 1, {})
    assert set(found.sides) == {"profile", "validation", "test"}
    oracle = found.clean[ORACLE]
    assert oracle.accuracy.estimate > found.clean["uniform"].accuracy.estimate
    assert oracle.accuracy.low <= oracle.accuracy.estimate <= oracle.accuracy.high
    assert oracle.agreement.estimate <= oracle.ceiling
    assert found.clean["uniform"].contrast == (0, 0, 0)
    text = "\n".join(found.lines())
    assert "oracle: sees other groups' answers" in text
    assert "nearest questions" in text


def test_a_file_of_one_battery_cannot_be_split(tmp_path):
    gold = {"options": ["Yes", "No"], "attribute": "SEX_Male", "gold_distribution": [0.5, 0.5]}
    path = tmp_path / "one.json"
    path.write_text(json.dumps([gold | {"question": "Is it so?"}]), "utf-8")
    with pytest.raises(InputError, match="batteries"):
        read_sides(str(path))


def test_another_seed_is_another_split_of_the_same_file(file):
    one, other = (baselines(read_sides(file, seed), seed) for seed in (1, 2))
    assert one.sides != other.sides
    assert one.whole_file == other.whole_file


def test_items_are_drawn_by_whole_questions(file):
    test = read_sides(file).of("test")
    drawn = whole_questions(test, 10, 0)
    assert 10 <= len(drawn) < 13
    of_question = {item.question_id for item in drawn}
    assert sum(item.question_id in of_question for item in test) == len(drawn)
    assert whole_questions(test, None, 0) == test
    assert whole_questions(test, 10, 1) != drawn
