"""The table of baselines: on the test side, with intervals, beside the whole file."""

import json

import numpy as np
import pytest

from valueflow.errors import InputError
from valueflow.profiles.opinionqa.baseline_table import ORACLE, baselines


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
    found = baselines(file)
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
        baselines(str(path))


def test_another_seed_is_another_split_of_the_same_file(file):
    assert baselines(file, 1).sides != baselines(file, 2).sides
    assert baselines(file, 1).whole_file == baselines(file, 2).whole_file
