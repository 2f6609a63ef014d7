"""Rated texts: the sample covers every value on both sides and at zero, and both file formats are equivalent."""

import csv
import json
from collections import Counter

import pyarrow.compute as pc
import pytest

from valueflow.errors import InputError
from valueflow.judging.audit.audit import audit_result, plan_audit
from valueflow.judging.audit.rated_texts import NUM_NEUTRAL, SAMPLE, rated_texts, with_judge_truth
from valueflow.judging.audit.result import AuditConfig
from valueflow.judging.audit.triples import RATED_TEXTS
from valueflow.judging.configs import EncoderJudge, SimulatedJudge
from valueflow.judging.simulated import SimulatedRanker
from valueflow.judging.value_head import exemplars
from valueflow.records import clean, text_id
from valueflow.theories import operational

BENEVOLENCE = [("She fed the stray cats.", 6.0), ("He let her fall.", -9.5), ("The bus is red.", 0.0)]


@pytest.fixture(scope="module")
def sample():
    return rated_texts(SAMPLE, [])


def official(folder, rows: list[tuple[str, float]], name: str = "benevolence_svt.csv") -> str:
    with (folder / name).open("w", newline="") as file:
        csv.writer(file).writerows([("text", "final_rating"), *rows])
    return str(folder / name)


def jsonl(folder, rows: list[tuple[str, float]], theory: str = "Schwartz", value: str = "Benevolence") -> str:
    lines = [json.dumps({"theory": theory, "value": value, "text": text, "intensity": rating}) for text, rating in rows]
    (folder / "anchors.jsonl").write_text("\n".join(lines))
    return str(folder / "anchors.jsonl")


def test_the_sample_has_both_sides_and_zero_of_every_value(sample):
    assert sample.schema == RATED_TEXTS
    ratings: dict[str, list[float]] = {}
    for row in sample.to_pylist():
        assert (row["text_id"], row["text"]) == (text_id(row["text"]), clean(row["text"]))
        ratings.setdefault(f"{row['theory']}:{row['value']}", []).append(row["rating"])
    assert ratings.keys() == set(operational())
    for value, of_value in ratings.items():
        assert {-3, -2, -1, 0, 1, 2, 3} == set(of_value), value
        assert Counter(of_value)[0] >= NUM_NEUTRAL, value
    keys = [tuple(row[name] for name in ("theory", "value", "text_id")) for row in sample.to_pylist()]
    assert len(set(keys)) == len(keys)


def test_the_encoder_judge_has_seen_no_text_of_the_sample(sample):
    assert not set(sample["text_id"].to_pylist()) & {text_id(row["text"]) for row in exemplars()}


def test_selected_values_are_their_rows_in_the_requested_order(sample):
    table = rated_texts(SAMPLE, ["right:civil-rights", "svt:power"])
    assert list(dict.fromkeys(table["value"].to_pylist())) == ["civil-rights", "power"]
    parts = [sample.filter(pc.equal(sample["value"], value)) for value in ("civil-rights", "power")]
    assert table.to_pylist() == [row for part in parts for row in part.to_pylist()]


def test_an_official_csv_and_a_jsonl_of_the_same_anchors_are_the_same(tmp_path):
    table = rated_texts(official(tmp_path, BENEVOLENCE), [])
    assert {(row["theory"], row["value"], row["text"], row["rating"]) for row in table.to_pylist()} == {
        ("svt", "benevolence", *row) for row in BENEVOLENCE
    }
    assert table.schema == RATED_TEXTS
    assert rated_texts(jsonl(tmp_path, BENEVOLENCE[::-1]), ["svt:benevolence"]).equals(table)


def test_the_first_rating_of_a_duplicate_text_counts(tmp_path):
    table = rated_texts(official(tmp_path, [("A  cat\n sat.", 3.0), (" A cat sat. ", -4.0), ("B.", 1.0)]), [])
    assert dict(zip(table["text"].to_pylist(), table["rating"].to_pylist(), strict=True)) == {"A cat sat.": 3.0, "B.": 1.0}


def test_a_value_without_anchors_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"'sample' have no texts of 'svt:benevolance'; did you mean 'svt:benevolence'\?"):
        rated_texts(SAMPLE, ["svt:power", "svt:benevolance"])
    path = official(tmp_path, BENEVOLENCE)
    with pytest.raises(InputError, match=r"benevolence_svt\.csv' have no texts of 'duty:justice'; allowed: svt:benevolence"):
        rated_texts(path, ["svt:benevolence", "duty:justice"])
    with pytest.raises(InputError, match=r"nowhere_svt\.csv|unknown value"):
        rated_texts(str(tmp_path / "nowhere_svt.csv"), [])


def test_other_judges_are_compared_with_the_ratings(sample):
    assert with_judge_truth(EncoderJudge(), sample) is sample


@pytest.mark.parametrize("spread", [0.5, 3.0])
def test_a_simulated_judge_is_compared_with_its_simulated_truth(sample, spread):
    judge = SimulatedJudge(spread=spread, sharpness=1000.0)
    truth = with_judge_truth(judge, sample)
    assert truth.schema == RATED_TEXTS
    assert truth.drop_columns("rating").equals(sample.drop_columns("rating"))
    answered = SimulatedRanker(judge)(plan_audit(truth, AuditConfig(triples=4)))
    verdict = audit_result(truth, answered, AuditConfig(triples=4), 1.0, None)
    assert verdict.metric("accuracy").estimate > 0.99
    result_by_ratings = audit_result(
        sample, SimulatedRanker(judge)(plan_audit(sample, AuditConfig(triples=4))), AuditConfig(triples=4), 1.0, None
    )
    assert result_by_ratings.metric("accuracy").estimate < 0.6  # its simulated truth is independent of the texts
