"""Rows of `profiles`, and back into arrays."""

import numpy as np
import pyarrow as pa
import pytest

from valueflow.profiles.estimate import EstimateConfig, TextScores
from valueflow.profiles.table import Basis, as_arrays, profile_rows, unit_ids
from valueflow.ranking.content_error import ContentError
from valueflow.records import SCHEMAS, ValueId, text_id
from valueflow.store.rows import check_rows

VALUES = tuple(map(ValueId, ("svt:power", "svt:benevolence", "mft:care-harm")))
BASIS = Basis(VALUES, dict.fromkeys(VALUES, ContentError()), dict.fromkeys(VALUES, 2.0), EstimateConfig())


def unit_rows(units: dict[str, int]) -> pa.Table:
    rows = []
    for unit in sorted(units):
        for i in range(units[unit]):
            text = f"{unit} {i}"
            rows.append({"row_id": text, "unit": unit, "text_id": text_id(text), "text": text, "thread": "", "weight": 1.0})
    rows.sort(key=lambda row: (row["unit"], row["text_id"]))
    return pa.Table.from_pylist(rows, SCHEMAS["unit_texts"])


def profiles_of(units: dict[str, int], seed: int = 0) -> tuple[pa.Table, pa.Table, TextScores]:
    texts = unit_rows(units)
    rng = np.random.default_rng(seed)
    scores = TextScores(rng.normal(1, 2, (len(texts), 3)), rng.random((len(texts), 3)))
    return texts, profile_rows(texts, scores, BASIS, unit_ids(texts)), scores


def test_rows_keep_to_the_rules_and_come_back_as_arrays():
    texts, rows, scores = profiles_of({"a": 12, "b": 3, "c": 20})
    check_rows("profiles", rows, "part-00.parquet", True)
    found = as_arrays(rows)
    assert found.units == ["a", "b", "c"]
    assert found.values == VALUES
    of_a = np.array(texts["unit"].to_pylist()) == "a"
    relevant = scores.relevance_TV[of_a] >= 0.1
    expected = (scores.judge_TV[of_a] * relevant).sum(0) / relevant.sum(0)
    assert found.columns["intensity"][0] == pytest.approx(expected)
    assert np.isnan(found.columns["intensity"][1]).all()
    assert found.halves_UV2S.shape == (3, 3, 20)


def test_statements_are_relevant_texts_on_the_side_of_the_mean():
    texts, rows, scores = profiles_of({"a": 30})
    place = {text: i for i, text in enumerate(texts["text_id"].to_pylist())}
    for row in rows.to_pylist():
        v = VALUES.index(ValueId.of(row["theory"], row["value"]))
        assert len(row["statements"]) == 3
        for text in row["statements"]:
            assert np.sign(scores.judge_TV[place[text], v]) == np.sign(row["intensity"])
            assert scores.relevance_TV[place[text], v] >= 0.1
        strength = [abs(scores.judge_TV[place[t], v]) * scores.relevance_TV[place[t], v] for t in row["statements"]]
        assert strength == sorted(strength, reverse=True)


def test_an_id_changes_with_a_text_a_thread_or_a_weight_and_not_with_other_units():
    texts = unit_rows({"a": 3, "b": 2})
    ids = unit_ids(texts)
    assert unit_ids(unit_rows({"a": 3}))["a"] == ids["a"]
    assert unit_ids(unit_rows({"a": 4}))["a"] != ids["a"]
    row = texts.to_pylist()[0]
    for change in ({"thread": "t"}, {"weight": 0.5}):
        changed = pa.Table.from_pylist([row | change, *texts.to_pylist()[1:]], texts.schema)
        assert unit_ids(changed)["a"] != ids["a"]
