"""The page of a steerability study: all figures and tables are there, texts stay text, nothing is loaded; files beside it."""

import csv
import io
import json

import pytest
from outline import Outline, check_accessible, check_self_contained
from study_root import CARE, POWER, Design, study_root
from vidb_samples import HOSTILE, text_of

from valueflow import store
from valueflow.report.steerability_figures import DIVERGING, name_of
from valueflow.report.steerability_page import model_card_fragment, steerability_page, verdict_table, write_study
from valueflow.steering.study.config import StudyConfig
from valueflow.steering.study.run import StudyResult, study

CONTROLS = ("bare", "neutral_persona", "irrelevant_persona", "no_refusal")


@pytest.fixture(scope="module")
def result(tmp_path_factory) -> StudyResult:
    root = tmp_path_factory.mktemp("page")
    study_root(root, Design(models=(HOSTILE,), queries=40, pairs=True, refusals=0.3, controls=CONTROLS, requested=True))
    return study(StudyConfig(root=str(root), draws=100))


@pytest.fixture(scope="module")
def page(result) -> str:
    return steerability_page(result)


def test_the_page_holds_no_markup_of_the_data_and_loads_nothing(page):
    check_self_contained(page)


def test_the_page_can_be_read_without_seeing_it(page):
    check_accessible(page, num_figures=7)  # bars, doses, refusals, side effects of both levels, arrows, sets


def test_every_figure_says_what_it_shows_and_what_follows(page):
    text = text_of(page)
    for words in ("as bars from the score under the neutral persona", "against the requested level", "Manski",
                  "side effects are", "effects add up", "members of the set"):  # fmt: skip
        assert words in text, words
    assert all(len(alt) > 30 for alt in Outline(page).figures)


def test_the_verdicts_stand_with_effects_refusals_and_other_margins(page, result):
    text = text_of(page)
    for row in result.tables["verdicts"]:
        assert name_of(row["value"]) in text
        assert row["reason"] in text
    assert "verdicts depend on refusals" in text
    assert "0.5: " in text
    assert "Bootstrap probabilities" in text
    assert "length of a persona" in text
    assert "anchors as exact" in text


def test_both_ends_of_the_colors_differ_in_more_than_hue_from_the_middle():
    def lightness(color: float) -> float:
        red, green, blue, _ = DIVERGING(color)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    assert lightness(0.5) - max(lightness(0.0), lightness(1.0)) > 0.4
    assert DIVERGING(0.0)[0] > DIVERGING(0.0)[2]
    assert DIVERGING(1.0)[2] > DIVERGING(1.0)[0]  # orange and blue: told apart with every color vision


def test_the_files_beside_the_page_hold_its_numbers(result):
    url = write_study(result)
    assert store.read_bytes(url).decode() == steerability_page(result)
    folder = store.study_url(result.config.root, result.study_id)
    rows = list(csv.DictReader(io.StringIO(store.read_bytes(f"{folder}/effects.csv").decode())))
    assert len(rows) == len(result.tables["effects"])
    assert float(rows[0]["estimate"]) == result.tables["effects"][0]["estimate"]
    content = json.loads(store.read_bytes(f"{folder}/study.json"))
    assert content["tables"]["verdicts"] == result.tables["verdicts"]
    assert content["config"]["margin"] == 1.0


def test_the_model_card_fragment_is_a_table_of_verdicts(result):
    card = model_card_fragment(result)
    assert card.startswith("## Steerability")
    assert f"| {name_of(POWER)} |" in card
    assert "<script>" not in card
    assert result.study_id in card


def test_the_terminal_shows_one_line_a_value(result):
    lines = verdict_table(result).splitlines()
    assert len(lines) == 1 + len(result.tables["verdicts"])
    assert any(CARE in line for line in lines)


def test_several_arms_get_an_overview_and_several_judges_a_comparison(result):
    tables = {
        name: table + [row | {"model": "second"} for row in table if "model" in row] for name, table in result.tables.items()
    }
    tables["judges"] = [{"model": "m", "turn": "user", "regime": "r", "value": POWER, "type by a": "hard", "type by b": None,
                         "agree": False}]  # fmt: skip
    text = text_of(steerability_page(result._replace(tables=tables)))
    assert "Types by model and regime" in text
    assert "Judges beside each other" in text
