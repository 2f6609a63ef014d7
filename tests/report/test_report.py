"""Pages: everything asked for is there, texts stay text, nothing is loaded. Card: valid front matter, working code."""

import dataclasses
import re

import numpy as np
import pyarrow as pa
import pytest
import yaml
from markupsafe import escape
from outline import Outline

from valueflow import store
from valueflow.ranking import calibration
from valueflow.ranking.calibration import Calibration
from valueflow.records import SCHEMAS, text_id
from valueflow.report.dataset_card import COLUMNS, dataset_card
from valueflow.report.vidb_page import MAX_ROWS, BuildReport, Evaluated, JudgeReport, ValueReport, evaluation_page, vidb_page
from valueflow.store import Build, FitSummary, JudgeEffects, VidbDetails
from valueflow.theories import theories

VALUES = ["svt:benevolence", "mft:care-harm"]
HOSTILE = "<script>alert('x')</script><img src=https://evil.example/x.png onerror=alert(1)>"


def vidb_rows(value: str, texts: list[str], theta: np.ndarray, num_windows: np.ndarray, to: Calibration) -> pa.Table:
    theory, _, node = value.partition(":")
    size, error = len(texts), 1 / np.sqrt(num_windows)
    columns = {
        "theory": [theory] * size, "value": [node] * size, "text_id": [text_id(t) for t in texts], "text": texts,
        "theta": theta, "standard_error": error, "num_windows": num_windows, "wins": theta * 0, "component": theta * 0,
        "intensity": to.to_intensity(theta), "low": to.to_intensity(theta - 2 * error),
        "high": to.to_intensity(theta + 2 * error), "flags": [None] * size, "human_mean": [None] * size,
        "final_rating": to.to_intensity(theta), "agreed": [True] * size, "direction": np.sign(theta),
        "source": ["made up"] * size, "license": ["MIT"] * size,
    }  # fmt: skip
    return pa.table(columns).cast(SCHEMAS["vidb"], safe=False)


def value_report(value: str, same_windows: bool = True, num_components: int = 1) -> ValueReport:
    texts = [HOSTILE, "x & y " * 200, *(f"text {i} of {value}" for i in range(28))]
    theta = np.linspace(3, -3, 30)
    to = calibration.neutral(theta, np.abs(theta) < 0.5, 0.99)
    rows = vidb_rows(value, texts, theta, np.full(30, 16) if same_windows else np.arange(4, 34), to)
    fit = FitSummary(
        value=value, judges=[], iterations=7, gradient_norm=1e-7, tolerance=1e-6, num_components=num_components, prior_sd=2.31,
        num_windows=240, num_shards=1, log_likelihood=-123.4, checks={},
    )  # fmt: skip
    theory, _, node = value.partition(":")
    found = theories()[theory].node(node)
    neutral = {text_id(t) for t, x in zip(texts, theta, strict=True) if abs(x) < 0.5}
    return ValueReport(value, found.name, found.definition, theories()[theory].name, rows, neutral, fit, to)


@pytest.fixture
def report() -> BuildReport:
    reasons = {f"not an order of letters: '<b>{i}'": 1 for i in range(30)} | {"empty reply": 9}
    return BuildReport(
        version="v-0123456789abcdef", created="2026-03-02T10:14:09.120934+00:00", code_version="0.1.0", git_commit="abc",
        command="python -m jobs.build_vidb x.yaml", values=[value_report(VALUES[0]), value_report(VALUES[1], False, 2)],
        judges=[
            JudgeReport("judge <one>", "vllm", 1000, 39, 51234, 2000, reasons, [0.62, 0.38], 0.5),
            JudgeReport("silent", "vllm", 10, 10, 0, 0, {"empty reply": 10}, [0.0, 0.0], 0.5),
        ],
        counts={"ingest": {"texts": 1200, "duplicates": 3}}, licenses={"MIT": 40, "CC-BY-4.0": 20},
        config_yaml="windows: {k: 2}", lineage=["texts: 77aa"], warnings=["place 1 wins <62 %>", "two components"],
    )  # fmt: skip


@pytest.fixture
def evaluated() -> Evaluated:
    rows = [
        {
            "response_id": f"{value}{i:03}", "query": f"query {i}", "dataset": "d", "response": f"response {i} of {value}",
            "theory": value.split(":")[0], "value": value.split(":")[1], "intensity": i / 10 - 4, "low": i / 10 - 5,
            "high": i / 10 - 3, "num_windows": 3, "num_failed": 0, "judge": "j", "vidb_version": "v-1",
            "sampling": "adaptive", "k": 6, "m": 3,
        }
        for value in VALUES for i in range(70)
    ]  # fmt: skip
    rows[0] |= {"query": HOSTILE, "response": HOSTILE * 40, "num_failed": 2}
    rows[1] |= {"intensity": None, "low": None, "high": None, "num_failed": 3}
    table = pa.Table.from_pylist(rows, SCHEMAS["evaluations"])
    return Evaluated(table, "v-1", "j <x>", 6, 3, "adaptive", dict.fromkeys(VALUES, 1.25), {"windows": 420}, "k: 6")


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL))


def test_the_pages_hold_no_markup_of_the_data_and_load_nothing(report: BuildReport, evaluated: Evaluated) -> None:
    for page in (vidb_page(report), evaluation_page(evaluated)):
        outline = Outline(page)
        assert not outline.tags & {"script", "img", "iframe", "link", "object", "form"}
        assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in page
        assert all(address.startswith(("#", "data:image/png;base64,")) for address in outline.addresses)
        assert not re.search(r"url\((?!#)|@import", page)
        assert "default-src 'none'" in page


def test_the_pages_can_be_read_without_seeing_them(report: BuildReport, evaluated: Evaluated) -> None:
    for page, num_figures in ((vidb_page(report), 5), (evaluation_page(evaluated), 0)):
        outline = Outline(page)
        assert outline.headings[0] == 1
        assert outline.headings.count(1) == 1
        assert all(after <= before + 1 for before, after in zip(outline.headings, outline.headings[1:], strict=False))
        assert len(outline.ids) == len(set(outline.ids))
        assert {a for a in outline.addresses if a.startswith("#")} <= {f"#{name}" for name in outline.ids}
        assert len(outline.figures) == num_figures
        assert all(outline.figures)


def test_vidb_page_shows_every_value_judge_warning_and_count(report: BuildReport) -> None:
    page = vidb_page(report)
    shown = text_of(page)
    for value in report.values:
        assert f'href="#{value.id}"' in page
        assert escape(value.definition) in shown
    for expected in (
        "place 1 wins &lt;62 %&gt;", "two components", "judge &lt;one&gt;", "51,234", "duplicates 3", "CC-BY-4.0 20",
        "texts: 77aa", "windows: {k: 2}", "after 7 iterations: gradient norm 1.0e-07, tolerance 1.0e-06",
        "standard deviation of the prior 2.31 nats", "Fit converged", "2 components: texts of different ones",
        "place 1 with 62.0%", "same number of windows (16)", "against the number of windows it was in",
        "No window has an order", "17 other reasons 17",
    ):  # fmt: skip
        assert expected in shown, expected


def test_vidb_page_shows_what_was_estimated_of_several_judges(report: BuildReport) -> None:
    about = {"sharpness_error": 0.05, "places": [0.4, -0.4], "places_error": [0.1, 0.1]}
    judges = [
        JudgeEffects(name="keen", sharpness=1.3, uninformative=False, **about),
        JudgeEffects(name="idle", sharpness=0.0, uninformative=True, **about),
    ]
    value = value_report(VALUES[0])
    shown = text_of(
        vidb_page(
            dataclasses.replace(
                report, values=[dataclasses.replace(value, fit=value.fit.model_copy(update={"judges": judges}))]
            )
        )
    )
    assert "keen 1.30 ± 0.10 0.40 ± 0.20; −0.40 ± 0.20" in shown
    assert "idle says nothing about this value" in shown
    assert "Judge effects" not in text_of(vidb_page(report))


def test_vidb_page_shows_what_each_round_brought(report: BuildReport) -> None:
    value = dataclasses.replace(value_report(VALUES[0]), progress=[(2.0, 1.6, 2.0), (4.0, 1.2, 2.0), (6.0, 0.56, 2.0)])
    page = vidb_page(dataclasses.replace(report, values=[value]))
    assert "2 windows 0.600, 4 windows 0.800, 6 windows 0.960" in page
    assert "(last: 0.960)" in text_of(page)
    assert "tokens a text" not in page
    priced = dataclasses.replace(value, tokens=130.0)
    assert "tokens a text" in vidb_page(dataclasses.replace(report, values=[priced]))


def test_vidb_page_counts_by_sign_and_orders_the_ends(report: BuildReport) -> None:
    only = dataclasses.replace(report, values=[value_report(VALUES[0])])
    shown = text_of(vidb_page(only))
    assert escape(f"{only.values[0].name} {only.values[0].theory_name} 30 15 15") in shown
    most, least = shown.index("Most supportive"), shown.index("Least supportive")
    assert most < shown.index("text 0 of svt") < shown.index("text 2 of svt") < least
    assert least < shown.index("text 27 of svt") < shown.index("text 23 of svt")
    assert "text 10 of svt" not in shown


def test_a_fit_that_missed_its_tolerance_is_called_so(report: BuildReport) -> None:
    value = value_report(VALUES[0])
    broken = dataclasses.replace(
        report, values=[dataclasses.replace(value, fit=value.fit.model_copy(update={"gradient_norm": 1e-3}))]
    )
    assert "Fit not converged" in text_of(vidb_page(broken))


@pytest.mark.parametrize("mode", ["neutral", "human", "rated", "imported"])
def test_every_calibration_mode_has_its_words(report: BuildReport, mode: str) -> None:
    value = dataclasses.replace(value_report(VALUES[0]), calibration=Calibration(mode=mode, theta=[-3, 3], intensity=[-10, 10]))
    assert f"Calibration {mode}: 2 knots" in text_of(vidb_page(dataclasses.replace(report, values=[value])))


def test_values_of_two_texts_and_texts_of_one_worth_are_drawn(report: BuildReport) -> None:
    to = Calibration(mode="neutral", theta=[-1, 1], intensity=[-10, 10])
    rows = vidb_rows(VALUES[0], ["only this", "and that"], np.zeros(2), np.array([1, 1]), to)
    value = dataclasses.replace(value_report(VALUES[0]), rows=rows, neutral_ids=set(), calibration=to)
    shown = text_of(vidb_page(dataclasses.replace(report, values=[value])))
    assert shown.count("only this") == shown.count("and that") == 1
    assert "no neutral texts" in shown


def test_equal_reports_give_equal_pages(report: BuildReport) -> None:
    assert vidb_page(report) == vidb_page(report)


def test_evaluation_page_draws_both_ends_and_says_what_it_leaves_out(evaluated: Evaluated) -> None:
    page = evaluation_page(evaluated)
    shown = text_of(page)
    assert page.count("<circle") == 2 * MAX_ROWS
    assert "The 30 highest and 30 lowest are drawn; 10 more" in shown
    assert "The 30 highest and 30 lowest are drawn; 9 more" in shown  # one of the 70 has no intensity
    assert "1 without intensity: no window was answered" in shown
    assert "2 windows failed" in shown
    assert shown.index("response 69 of svt") < shown.index("response 40 of svt") < shown.index("response 2 of svt")
    assert "response 35 of svt" not in shown
    for expected in ("j &lt;x&gt;", "v-1", "adaptive", "1.25", "k: 6", "windows 420", "more characters"):
        assert expected in shown, expected


def test_evaluation_page_without_any_intensity(evaluated: Evaluated) -> None:
    rows = evaluated.rows.slice(1, 1)
    assert "1 without intensity" in text_of(evaluation_page(dataclasses.replace(evaluated, rows=rows)))


@pytest.fixture
def version(tmp_path) -> Build:
    build = Build(str(tmp_path), "vidb", "v-1")
    reports = [value_report(value) for value in VALUES]
    for value in reports:
        store.write_part(build, value.rows, "0", store.value_folder(value.id))
    config = {
        "resolved": {"judge": {"kind": "vllm", "name": "a|b", "model": "m-1", "env": {"TOKEN": "secret"}},
                     "windows": {"mode": "balanced", "k": 2, "m": 16}},
        "judge_fingerprint": "77aa", "builds": {"texts": "t-1"},
        "calibrations": {value.id: value.calibration.model_dump() for value in reports},
    }  # fmt: skip
    store.commit(build, VidbDetails(**config), ["candidates/x", "utilities/y"])
    return build


def front_matter(card: str) -> dict:
    _, front, _ = card.split("---\n", 2)
    return yaml.safe_load(front)


def test_card_names_columns_licences_and_what_made_it(version: Build) -> None:
    card = dataset_card("v-1", store.require_manifest(version), {"MIT": 40, "a|<b>": 20}, ["en", "no", ""], VALUES)
    front = front_matter(card)
    assert front["license"] == "other"
    assert front["license_name"] == "per-row"
    assert front["language"] == ["en", "no"]
    assert front["size_categories"] == ["n<1K"]
    assert front["configs"][0] == {"config_name": "svt", "data_files": "theory=svt/**/*.parquet"}
    assert list(COLUMNS) == SCHEMAS["vidb"].names
    for expected in ("a\\|b (vllm, model m-1)", "| a\\|&lt;b&gt; | 20 |", "neutral", "t-1", "not comparable across values"):
        assert expected in card, expected
    assert "secret" not in card


def test_card_of_one_licence_and_of_an_imported_version(version: Build) -> None:
    identity = Calibration(mode="imported", theta=[-10, 10], intensity=[-10, 10]).model_dump()
    config = {"imported": ["benevolence_svt.csv"], "calibrations": {VALUES[0]: identity}}
    manifest = store.require_manifest(version).model_copy(update={"config": config})
    assert front_matter(dataset_card("v-1", manifest, {"CC-BY-4.0": 60}, ["en"], VALUES))["license"] == "cc-by-4.0"
    named = front_matter(dataset_card("v-1", manifest, {"AI2-ImpACT-MR": 60}, ["en"], VALUES))
    assert (named["license"], named["license_name"]) == ("other", "AI2-ImpACT-MR")
    card = dataset_card("v-1", manifest, {}, [], VALUES)
    assert "| calibration | imported |" in card
    assert "how they were judged is not recorded" in card


def test_the_code_on_the_card_runs(version: Build, monkeypatch) -> None:
    card = dataset_card("v-1", store.require_manifest(version), {"MIT": 60}, ["en"], VALUES)
    monkeypatch.chdir(version.url)
    found: dict = {}
    for block in re.findall(r"```python\n(.*?)```", card, re.DOTALL):
        exec(block.replace("ROOT", version.root), found)
    assert len(found["rows"]) == found["table"].num_rows == len(found["anchors"].theta_A) == 30
