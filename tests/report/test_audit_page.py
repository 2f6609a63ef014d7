"""The page of an audit gives its result, reasons and metrics, escapes texts and loads nothing."""

import re

import pyarrow as pa
import pytest
from markupsafe import escape
from outline import Outline

from valueflow.judging.answers import answers
from valueflow.judging.audit import AuditConfig, AuditResult, plan_audit
from valueflow.judging.audit.audit import audit_result as evaluated
from valueflow.judging.audit.triples import RATED_TEXTS
from valueflow.judging.configs import SimulatedJudge
from valueflow.judging.simulated import SimulatedRanker, true_theta
from valueflow.llm.configs import Price
from valueflow.report.audit_page import audit_page

HOSTILE = "<script>alert('x')</script><img src=https://evil.example/x.png onerror=alert(1)>"
VALUES = ("power", "face")


def rated_texts() -> pa.Table:
    rows = [
        {"theory": "svt", "value": v, "text_id": f"t{i}", "text": f"{HOSTILE} text {i}", "rating": true_theta(v, f"t{i}", 3.0)}
        for v in VALUES
        for i in range(12)
    ]
    return pa.Table.from_pylist(rows, RATED_TEXTS)


def audit_result(price: Price | None = None, **judge) -> AuditResult:
    rankings = SimulatedRanker(SimulatedJudge(name=HOSTILE, **judge))(plan_audit(rated_texts(), AuditConfig()))
    return evaluated(rated_texts(), rankings, AuditConfig(), 8.0, price, "2026-11-21T12:40:00+00:00")


def page_of(result: AuditResult) -> str:
    return audit_page(result, SimulatedJudge(name=HOSTILE).public(), "anchors & <more>.csv")


@pytest.mark.parametrize(
    "judge", [{}, {"position_effect": [50.0]}, {"sharpness": 0.0}, {"broken_share": 0.5}, {"broken_share": 1.0}]
)
def test_a_page_gives_the_result_its_reasons_and_every_metric(judge):
    result = audit_result(**judge)
    page = page_of(result)
    assert ("Passed." in page, "Failed." in page) == (result.passed, not result.passed)
    for sentence in [*result.reasons, *result.advice]:
        assert str(escape(sentence)) in page
    for metric in result.metrics:
        assert f'<th scope="row">{metric.label}' in page
        if metric.estimate is not None:
            assert f"{abs(metric.estimate):.2f}" in page
    unmeasured = sum(metric.estimate is None for metric in result.metrics)
    assert page.count('<span class="good">passed</span>') == sum(metric.passed for metric in result.metrics)
    assert page.count('<span class="bad">failed</span>') == sum(not m.passed for m in result.metrics) - unmeasured
    assert page.count('<span class="bad">not measurable</span>') == unmeasured
    for group in result.by_value:
        assert f"<code>{group.label}</code>" in page
    assert "2026-11-21 12:40" in page


@pytest.mark.parametrize("judge", [{}, {"position_effect": [50.0]}, {"broken_share": 1.0}])
def test_a_page_keeps_texts_text_and_loads_nothing(judge):
    page = page_of(audit_result(**judge))
    outline = Outline(page)
    assert not outline.tags & {"script", "iframe", "object", "embed", "link", "form", "base", "img"}
    assert all(address.startswith("#") for address in outline.addresses)
    assert len(set(outline.ids)) == len(outline.ids)
    assert {address[1:] for address in outline.addresses} <= set(outline.ids)
    assert page.count("url(") == page.count("url(#")
    assert HOSTILE not in page
    assert "anchors &amp; &lt;more&gt;.csv" in page
    assert "prefers-color-scheme: dark" in page
    assert not re.search(r"#0[1-4]0[1-4]0[1-4]", page)
    assert outline.headings[0] == 1
    assert set(outline.headings[1:]) == {2}


def test_figures_without_a_threshold_stand_beside_and_a_right_wrong_detector_is_named():
    result = audit_result()
    page = page_of(result)
    for figure in result.figures:
        assert f'<th scope="row">{figure.label}' in page
        assert f"{figure.estimate:.2f}" in page
    assert "right/wrong detector" not in page
    metrics = [
        metric.model_copy(update={"passed": False}) if metric.name == "specificity" else metric for metric in result.metrics
    ]
    blind = result.model_copy(update={"metrics": metrics, "passed": False})
    assert f"This judge is {blind.detector}. It may not be used" in page_of(blind)
    assert "another value</h2>" not in page_of(result.model_copy(update={"figures": []}))  # an audit of an earlier version


def test_figures_describe_themselves_and_need_answers():
    distances, positions = Outline(page_of(audit_result())).figures
    assert re.match(r"Accuracy by difference of ratings: [\d.]+ to [\d.]+: 0\.\d\d \(0\.\d\d to 0\.\d\d\); ", distances)
    assert re.fullmatch(r"Share of answers won by each position: first 0\.\d\d, second 0\.\d\d", positions)
    assert Outline(page_of(audit_result(position_effect=[50.0]))).figures[1].endswith("first 1.00, second 0.00")
    nothing = page_of(audit_result(broken_share=1.0))
    assert Outline(nothing).figures == []
    assert "All windows failed, so there is nothing to plot." in nothing


@pytest.mark.parametrize(("effect", "winners", "position"), [([50.0], "AB", "first"), ([0.0, 50.0], "BA", "second")])
def test_contradictions_show_both_presentations_and_answers(effect, winners, position):
    page = page_of(audit_result(position_effect=effect))
    assert "For 72 pairs the winner changed" in page
    assert page.count(f"Shown A, B: {winners[0]} wins.<br>Shown B, A: {winners[1]} wins.") == 8
    assert page.count(f"The {position} position won both times.") == 8
    assert page.count(str(escape(HOSTILE)) + " text ") == 16


def test_a_judge_without_contradictions():
    assert "No winner changed when the texts of a pair swapped positions" in page_of(audit_result(sharpness=1000.0))


def test_speed_and_cost():
    windows = plan_audit(rated_texts(), AuditConfig())
    count = windows.num_rows
    rankings = answers(windows, "j", [[0, 1]] * count, ["A"] * count, [None] * count, None, [310] * count, [2] * count)
    page = page_of(evaluated(rated_texts(), rankings, AuditConfig(), 8.0, Price(tokens_in=1.0, tokens_out=5.0, currency="EUR")))
    for cell in ("42.0", "310.0", "2.0", "0.3200 EUR"):
        assert f'<td class="n">{cell}</td>' in page
    assert "Audited" not in page
    unpriced = page_of(evaluated(rated_texts(), rankings, AuditConfig(), 0.0, None))
    for cell in ("not measured", "no price set"):
        assert f'<td class="n">{cell}</td>' in unpriced
    assert "no price set" in page_of(audit_result(Price()))


def test_a_page_is_a_function_of_the_audit_result():
    result = audit_result()
    again = AuditResult.model_validate_json(result.model_dump_json())
    assert page_of(again) == page_of(result)
