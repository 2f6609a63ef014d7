"""The page of a VIDB version is complete, escapes its texts, loads nothing and is accessible."""

import dataclasses

import numpy as np
import pytest
from markupsafe import escape
from outline import check_accessible, check_self_contained
from vidb_samples import VALUES, text_of, value_report, vidb_rows

from valueflow.ranking.calibration import Calibration
from valueflow.report.vidb_page import BuildReport, JudgeReport, vidb_page
from valueflow.store import JudgeEffects


def sample_report() -> BuildReport:
    reasons = {f"not an order of letters: '<b>{i}'": 1 for i in range(30)} | {"empty reply": 9}
    return BuildReport(
        version="v-0123456789abcdef", created="2026-03-02T10:14:09.120934+00:00", code_version="0.1.0", git_commit="abc",
        command="python -m jobs.build_vidb x.yaml", values=[value_report(VALUES[0]), value_report(VALUES[1], False, 2)],
        judges=[
            JudgeReport("judge <one>", "vllm", 1000, 39, 51234, 2000, reasons, [0.62, 0.38], 0.5),
            JudgeReport("silent", "vllm", 10, 10, 0, 0, {"empty reply": 10}, [0.0, 0.0], 0.5),
        ],
        counts={"ingest": {"texts": 1200, "duplicates": 3}}, licenses={"MIT": 40, "CC-BY-4.0": 20},
        config_yaml="windows: {k: 2}", lineage=["texts: 77aa"], warnings=["position 1 wins <62 %>", "two components"],
    )  # fmt: skip


@pytest.fixture
def report() -> BuildReport:
    return sample_report()


def test_the_page_holds_no_markup_of_the_data_and_loads_nothing(report: BuildReport) -> None:
    check_self_contained(vidb_page(report))


def test_the_page_can_be_read_without_seeing_it(report: BuildReport) -> None:
    check_accessible(vidb_page(report), num_figures=5)


def test_vidb_page_shows_every_value_judge_warning_and_count(report: BuildReport) -> None:
    page = vidb_page(report)
    text = text_of(page)
    for value in report.values:
        assert f'href="#{value.id}"' in page
        assert escape(value.definition) in text
    for expected in (
        "position 1 wins &lt;62 %&gt;", "two components", "judge &lt;one&gt;", "51,234", "duplicates 3", "CC-BY-4.0 20",
        "texts: 77aa", "windows: {k: 2}", "after 7 iterations: gradient norm 1.0e-07, tolerance 1.0e-06",
        "prior standard deviation 2.31 nats", "Fit converged", "2 components: texts in different components",
        "position 1 with 62.0 %", "same number of windows (16)", "against its number of windows",
        "All windows failed", "17 other errors 17",
    ):  # fmt: skip
        assert expected in text, expected


def test_vidb_page_shows_the_timeline_of_a_judge(report: BuildReport) -> None:
    timeline = [(0.0, 1, 0, 0), (10.0, 1, 2, 100), (20.0, 3, 4, 500), (30.0, 4, 4, 1000)]
    judge = dataclasses.replace(report.judges[0], timeline=timeline)
    page = vidb_page(dataclasses.replace(report, judges=[judge, report.judges[1]]))
    check_self_contained(page)
    check_accessible(page, num_figures=6)
    text = text_of(page)
    assert "mean 33.3" in text
    assert "thin line, 0 to 4" in text
    assert "dashed, 1 to 4" in text


def test_vidb_page_shows_the_effects_of_several_judges(report: BuildReport) -> None:
    rest = {"sharpness_error": 0.05, "places": [0.4, -0.4], "places_error": [0.1, 0.1]}
    judges = [
        JudgeEffects(name="keen", sharpness=1.3, uninformative=False, **rest),
        JudgeEffects(name="idle", sharpness=0.0, uninformative=True, **rest),
    ]
    value = value_report(VALUES[0])
    text = text_of(
        vidb_page(
            dataclasses.replace(
                report, values=[dataclasses.replace(value, fit=value.fit.model_copy(update={"judges": judges}))]
            )
        )
    )
    assert "keen 1.30 ± 0.10 0.40 ± 0.20; −0.40 ± 0.20" in text
    assert "idle uninformative for this value" in text
    assert "Judge effects" not in text_of(vidb_page(report))


def test_vidb_page_shows_the_gain_of_each_adaptive_round(report: BuildReport) -> None:
    value = dataclasses.replace(value_report(VALUES[0]), progress=[(2.0, 1.6, 2.0), (4.0, 1.2, 2.0), (6.0, 0.56, 2.0)])
    page = vidb_page(dataclasses.replace(report, values=[value]))
    assert "2 windows 0.600, 4 windows 0.800, 6 windows 0.960" in page
    assert "(last: 0.960)" in text_of(page)
    assert "tokens per text" not in page
    priced = dataclasses.replace(value, tokens=130.0)
    assert "tokens per text" in vidb_page(dataclasses.replace(report, values=[priced]))


def test_vidb_page_counts_by_sign_and_orders_the_ends(report: BuildReport) -> None:
    only = dataclasses.replace(report, values=[value_report(VALUES[0])])
    text = text_of(vidb_page(only))
    assert escape(f"{only.values[0].name} {only.values[0].theory_name} 30 15 15") in text
    most, least = text.index("Most supportive"), text.index("Least supportive")
    assert most < text.index("text 0 of svt") < text.index("text 2 of svt") < least
    assert least < text.index("text 27 of svt") < text.index("text 23 of svt")
    assert "text 10 of svt" not in text


def test_a_fit_that_missed_its_tolerance_is_marked(report: BuildReport) -> None:
    value = value_report(VALUES[0])
    unfinished = dataclasses.replace(
        report, values=[dataclasses.replace(value, fit=value.fit.model_copy(update={"gradient_norm": 1e-3}))]
    )
    assert "Fit not converged" in text_of(vidb_page(unfinished))


@pytest.mark.parametrize("mode", ["neutral", "human", "rated", "imported"])
def test_every_calibration_mode_is_explained(report: BuildReport, mode: str) -> None:
    value = dataclasses.replace(value_report(VALUES[0]), calibration=Calibration(mode=mode, theta=[-3, 3], intensity=[-10, 10]))
    assert f"Calibration {mode}: 2 knots" in text_of(vidb_page(dataclasses.replace(report, values=[value])))


def test_a_value_of_two_texts_with_equal_theta_is_drawn(report: BuildReport) -> None:
    scale = Calibration(mode="neutral", theta=[-1, 1], intensity=[-10, 10])
    rows = vidb_rows(VALUES[0], ["only this", "and that"], np.zeros(2), np.array([1, 1]), scale)
    value = dataclasses.replace(value_report(VALUES[0]), rows=rows, neutral_ids=set(), calibration=scale)
    text = text_of(vidb_page(dataclasses.replace(report, values=[value])))
    assert text.count("only this") == text.count("and that") == 1
    assert "no neutral texts" in text


def test_equal_reports_give_equal_pages(report: BuildReport) -> None:
    assert vidb_page(report) == vidb_page(report)
