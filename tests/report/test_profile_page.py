"""The page of profiles: what is asked for is there, texts stay text."""

import re

import numpy as np
from outline import check_self_contained

from tests.profiles.test_export import profiles
from valueflow.profiles.circle import CIRCLE
from valueflow.profiles.table import UnitProfiles
from valueflow.report.profile_page import ProfileReport, profile_page

HOSTILE = "<script>alert('x')</script>"


def page(names=("Ana", HOSTILE), influence_QUV=None, **settings) -> str:
    made = profiles(units=names)
    columns = dict(made.columns)
    columns["centred"] = np.cos(np.radians(30 * np.arange(12)))[None].repeat(len(names), 0)
    columns["centred_low"], columns["centred_high"] = columns["centred"] - 0.2, columns["centred"] + 0.2
    columns["standard_error"] = np.full(columns["centred"].shape, 0.1)
    columns["num_clusters"] = np.full(columns["centred"].shape, 60.0)
    statements = {(unit, value): ["t1"] for unit in names for value in CIRCLE}
    made = UnitProfiles(made.units, made.values, columns, made.halves_UV2S, statements, influence_QUV)
    report = ProfileReport(
        build_id="b", profiles=made, scale=dict.fromkeys(CIRCLE, 3.0), relative_slope_error=dict.fromkeys(CIRCLE, 0.0),
        vidb_version="v-1", scored_by="encoder", rests_on=dict.fromkeys(CIRCLE, "neutral texts"),
        reliability=dict.fromkeys(CIRCLE, None), texts={"t1": f"I said {HOSTILE}"}, config_yaml="root: r", **settings,
    )  # fmt: skip
    return profile_page(report)


def test_a_unit_has_a_circle_with_a_band_a_reference_and_its_values_ranked():
    html = page()
    assert html.count('<svg class="wheel"') == 2
    assert html.count('class="band"') == html.count('class="reference"') == 2
    first = html[html.index('id="unit-1"') : html.index('id="unit-2"')]
    numbers = [float(x.replace("−", "-")) for x in re.findall(r"<b>([+−]?[\d.]+)</b> <span class=\"interval\">", first)]
    assert len(numbers) == 11  # one is missing, and said to be
    assert numbers == sorted(numbers, reverse=True)
    assert "too few relevant texts of Ana" in first
    assert "peaks near Self-direction" in first


def test_names_and_texts_of_units_stay_text():
    html = page()
    assert HOSTILE not in html
    check_self_contained(html)


def test_a_unit_in_grey_is_named_and_the_difference_from_it_is_said():
    html = page(("Ana", "Boris"), reference="Boris", units=["Ana"])
    assert "Grey and dashed: Boris" in html
    assert html.count('<svg class="wheel"') == 1
    assert "Differs most from Boris" in html


def test_models_stand_side_by_side_with_the_differences_that_are_certain():
    names = ("kind", "hard", HOSTILE)
    influence_QUV = np.random.default_rng(1).normal(0, 0.02, (60, 3, 12))
    html = page(names, influence_QUV)
    beside = html[html.index("Side by side") : html.index('id="unit-1"')]
    made = profiles(units=names)
    assert beside.count("<td>") == 36
    assert beside.count("<td>missing</td>") == 1
    shown = f"{made.columns['intensity'][2, 3]:+.1f}".replace("-", "−")
    assert shown in beside
    number, of = map(int, re.search(r"(\d+) of (\d+) differences", beside).groups())
    assert of == 3 * 12 - 2  # the value that one model lacks is missing in two pairs
    assert 1 <= number <= of
    assert beside.count("<li>") == min(number, 30)
    assert "max-T" not in page()


def test_one_unit_has_nothing_beside_it():
    assert "Side by side" not in page(("Ana",))
