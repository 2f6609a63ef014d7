"""The page of an evaluation is complete, escapes its texts, loads nothing and is accessible."""

import dataclasses

import pyarrow as pa
import pytest
from outline import check_accessible, check_self_contained
from vidb_samples import HOSTILE, VALUES, text_of

from valueflow.prompts.render import truncation
from valueflow.records import SCHEMAS
from valueflow.report.evaluation_page import MAX_ROWS, EvaluationReport, evaluation_page


def sample_report() -> EvaluationReport:
    rows = [
        {
            "response_id": f"{value}{i:03}", "query": f"query {i}", "dataset": "d", "response": f"response {i} of {value}",
            "theory": value.theory, "value": value.node, "intensity": i / 10 - 4, "low": i / 10 - 5,
            "high": i / 10 - 3, "num_windows": 3, "num_failed": 0, "judge": "j", "vidb_version": "v-1",
            "sampling": "adaptive", "k": 6, "m": 3,
        }
        for value in VALUES for i in range(70)
    ]  # fmt: skip
    rows[0] |= {"query": HOSTILE, "response": HOSTILE * 40, "num_failed": 2}
    rows[1] |= {"intensity": None, "low": None, "high": None, "num_failed": 3}
    table = pa.Table.from_pylist(rows, SCHEMAS["evaluations"])
    return EvaluationReport(table, "v-1", "j <x>", 6, 3, "adaptive", dict.fromkeys(VALUES, 1.25), {"windows": 420}, "k: 6")


@pytest.fixture
def report() -> EvaluationReport:
    return sample_report()


def test_the_page_holds_no_markup_of_the_data_and_loads_nothing(report: EvaluationReport) -> None:
    check_self_contained(evaluation_page(report))


def test_the_page_can_be_read_without_seeing_it(report: EvaluationReport) -> None:
    check_accessible(evaluation_page(report), num_figures=0)


def test_evaluation_page_shows_the_highest_and_lowest_and_counts_the_rest(report: EvaluationReport) -> None:
    page = evaluation_page(report)
    text = text_of(page)
    assert page.count("<circle") == 2 * MAX_ROWS
    assert "The 30 highest and 30 lowest are shown; 10 more" in text
    assert "The 30 highest and 30 lowest are shown; 9 more" in text  # one of the 70 has no intensity
    assert "1 without intensity: all windows failed" in text
    assert "2 windows failed" in text
    assert text.index("response 69 of svt") < text.index("response 40 of svt") < text.index("response 2 of svt")
    assert "response 35 of svt" not in text
    for expected in ("j &lt;x&gt;", "v-1", "adaptive", "1.25", "k: 6", "windows 420", "more characters"):
        assert expected in text, expected


def test_evaluation_page_says_that_texts_were_read_in_part(report: EvaluationReport) -> None:
    assert "read their beginning" not in text_of(evaluation_page(report))
    page = evaluation_page(dataclasses.replace(report, truncated=truncation(3, "j <x>", 2000)))
    sentence = "3 texts are longer than max_chars (2,000) of &#39;j &lt;x&gt;&#39;, which read their beginning only"
    assert sentence in text_of(page)
    check_accessible(page, num_figures=0)


def test_evaluation_page_without_any_intensity(report: EvaluationReport) -> None:
    rows = report.rows.slice(1, 1)
    assert "1 without intensity" in text_of(evaluation_page(dataclasses.replace(report, rows=rows)))


def test_responses_that_do_not_concern_a_value_are_told_from_those_whose_windows_failed(report: EvaluationReport) -> None:
    rows = report.rows.to_pylist()
    for row in rows:
        row |= {"judge_intensity": row["intensity"], "judge_low": row["low"], "judge_high": row["high"], "relevance": 0.75}
    for row in rows[2:5]:
        row |= {"intensity": None, "low": None, "high": None, "relevance": 0.05}
    table = pa.Table.from_pylist(rows, report.rows.schema)
    text = text_of(evaluation_page(dataclasses.replace(report, rows=table)))
    assert "3 left out: their relevance is below the setting min_relevance" in text
    assert "1 without intensity: all windows failed" in text
    assert "relevance 0.75" in text
    assert "relevance" not in text_of(evaluation_page(report)).replace("Relevance", "")
