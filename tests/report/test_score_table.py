"""The end of an evaluation in the terminal: own values first, right signs, intervals of other values, a grade of the judge."""

import pyarrow as pa
import pytest

from valueflow import store
from valueflow.evaluation.responses import OwnValue
from valueflow.ranking.content_error import ContentError
from valueflow.records import SCHEMAS, ValueId, text_id
from valueflow.report.score_table import OwnValueFigures, own_value_figures, score_table
from valueflow.store import Build, EvaluationsDetails

VALUE, OTHER = ValueId("svt:power"), ValueId("svt:security")
# Response, value, intensity, low, high.
ROWS = [
    ("right", VALUE, 4.0, -1.0, 9.0), ("wrong", VALUE, -3.0, -8.0, 2.0), ("far off", VALUE, -6.0, -9.0, -2.0),
    ("right", OTHER, 0.5, -4.0, 5.0), ("wrong", OTHER, 2.0, 0.5, 5.0), ("unknown", OTHER, 9.0, 8.0, 10.0),
]  # fmt: skip
OWN = {text_id(text): OwnValue(VALUE, 1) for text in ("right", "wrong", "far off")}


def build(root, error: ContentError, own: float = 1.0) -> Build:
    rows = [
        {
            "response_id": text + value, "response": text, "query": "", "theory": value.theory, "value": value.node,
            "intensity": x, "low": low, "high": high, "judge_intensity": x,
            "judge_low": max(x - own, -10.0), "judge_high": min(x + own, 10.0),
            "judge": "j", "num_windows": 8, "num_failed": 0, "k": 3, "m": 8,
        }
        for text, value, x, low, high in ROWS
    ]  # fmt: skip
    out = Build(str(root), "evaluations", "e")
    store.write_part(out, pa.Table.from_pylist(rows, SCHEMAS["evaluations"]), "0")
    store.commit(out, EvaluationsDetails(content_errors={VALUE: error.model_dump(), OTHER: error.model_dump()}))
    return out


def test_own_values_come_first_and_signs_and_intervals_are_counted(tmp_path):
    lines = score_table(build(tmp_path, ContentError(sd=4.0, spread=5.0, source="40 texts")), OWN).splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["own", VALUE, VALUE, VALUE]
    assert "1 of 3 signs are right, 1 intervals exclude the right sign; mean size 4.33" in lines[4]
    assert "1 of 2 intervals contain zero; mean size 1.25" in lines[5]
    assert lines[6] == "intervals: 40 texts"
    assert lines[7].startswith("judge: j is weak at best: it shares about 36% of its variance with people")
    assert "7 points wide; a judge that agrees with people would need 2" in lines[7]


def test_a_judge_whose_own_intervals_are_wider_is_said_to_need_a_better_one(tmp_path):
    lines = score_table(build(tmp_path, ContentError(sd=5.0, spread=5.0), own=9.0), OWN).splitlines()
    assert "about 0% of its variance with people, so an interval is 7 points wide; only a better judge" in lines[7]


def test_the_figures_of_the_sentences_are_numbers_too(tmp_path):
    at = build(tmp_path, ContentError())
    assert own_value_figures(at, OWN) == OwnValueFigures(3, 1, 1, pytest.approx(13 / 3), 2, 1, 1.25)
    assert own_value_figures(at, {}) is None


def test_without_own_values_each_value_shows_its_highest_middle_and_lowest(tmp_path):
    text = score_table(build(tmp_path, ContentError()))
    assert text.splitlines()[0].split() == ["value", "intensity", "95", "%", "interval", "response"]
    assert "signs" not in text
    assert "judge:" not in text


@pytest.mark.parametrize(("sd", "grade"), [(1.0, "good"), (3.0, "fair"), (4.5, "weak")])
def test_the_grade_is_how_much_of_the_variance_people_share(tmp_path, sd, grade):
    assert f"j is {grade} at best:" in score_table(build(tmp_path, ContentError(sd=sd, spread=5.0)), OWN)
    assert f"j is {grade}:" in score_table(build(tmp_path / "rated", ContentError(sd=sd, spread=5.0, basis="ratings")), OWN)
