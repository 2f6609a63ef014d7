"""Page and table of rating against ranking: complete, escaped, self-contained, and gaps are explained."""

import re

import numpy as np
import pytest
from markupsafe import escape
from outline import Outline

from valueflow.judging.audit.rating import Comparison, RatingEstimate, Row, Scores, compare
from valueflow.report.rating_page import GROUPS, Statistic, better_method, rating_page, rating_table

HOSTILE = "<script>alert('x')</script><img src=https://evil.example/x.png onerror=alert(1)>"
STATISTICS = [statistic for group in GROUPS.values() for statistic in group]


def comparison(judges: list[str], num_repeats: int = 2, with_reference: bool = True, broken: int | None = None) -> Comparison:
    rng = np.random.default_rng(0)
    truth = rng.uniform(-6, 6, 60).round(2)
    shape = (len(judges), num_repeats, 60)
    offset = np.linspace(-2, 2, len(judges))[:, None, None] if len(judges) > 1 else 0.0
    rating = (truth + offset + rng.normal(scale=2, size=shape)).round().clip(-10, 10)
    ranking = (truth + rng.normal(scale=0.5, size=shape)).clip(-10, 10)
    if broken is not None:
        rating[broken] = np.nan
    reference = truth if with_reference else np.full(60, np.nan)
    value = np.array(["svt:power", "mft:care-harm"])[np.arange(60) % 2]
    scores = [Scores("rating", rating, reference, value), Scores("ranking", ranking, reference, value)]
    return compare(scores, judges, seed=3, num_draws=100)


def page_of(result: Comparison) -> str:
    return rating_page(result, "human ratings", {"VIDB version": "v-1234"}, "judge:\n  kind: vllm\n")


def text_of(page: str) -> str:
    body = re.sub(r"<style>.*?</style>|<svg.*?</svg>", "", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", body).split())


@pytest.fixture(scope="module")
def three() -> Comparison:
    return comparison(["one", "two", "three"])


def test_page_is_self_contained_and_serves_light_and_dark(three):
    page = page_of(three)
    outline = Outline(page)
    assert not outline.tags & {"script", "link", "iframe", "object", "embed", "form"}
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in outline.addresses)
    assert "default-src 'none'" in page
    assert "prefers-color-scheme: dark" in page
    assert not re.search(r"#0[1-4]0[1-4]0[1-4]", page)  # stand-in colours of figures
    assert outline.headings == [1, 2, 2, 3, 3, 3, 2]


def test_page_has_every_row_with_its_meaning_intervals_and_the_papers_figures(three):
    text = text_of(page_of(three))
    for statistic in STATISTICS:
        assert statistic.label in text
        assert str(escape(statistic.meaning)) in text
    row = three.rows["judge_variance"]
    numbers = (STATISTICS[0].number(x) for x in row.rating[:3])
    assert "{} {} to {}".format(*numbers) in text
    for figures in ("12.6, 2.1", "48, 29", "77.4, 84.2"):
        assert figures in text
    assert "arXiv 2602.03160" in text
    for expected in ("human ratings", "VIDB version", "v-1234", "kind: vllm", "100 bootstrap draws", "60 texts of 2 values"):
        assert expected in text


def test_page_draws_the_spread_between_judges_and_each_judge_against_the_reference(three):
    figures = Outline(page_of(three)).figures
    assert len(figures) == page_of(three).count("<svg") == 1 + 2 * 3
    assert all(figures)
    assert "standard deviation between judges" in figures[0]
    assert [figure.split(" against")[0] for figure in figures[1:3]] == ["rating by one", "ranking by one"]


def test_page_escapes_texts():
    result = comparison([HOSTILE, "other"], broken=0)
    page = rating_page(result, HOSTILE, {HOSTILE: HOSTILE}, HOSTILE)
    assert Outline(page).tags.isdisjoint({"script", "img"})
    assert HOSTILE not in page
    assert page.count(str(escape(HOSTILE))) >= 6


def test_a_judge_whose_answers_all_failed_is_named():
    result = comparison(["good", "fine", "bad"], broken=2)
    note = "All rating answers of judge bad failed: it counts only in the row Failed."
    page = page_of(result)
    assert note in text_of(page)
    assert note in rating_table(result)
    assert len(Outline(page).figures) == page.count("<svg") == 1 + 2 + 2 + 1


def test_one_judge_one_repeat_no_reference():
    result = comparison(["lonely"], num_repeats=1, with_reference=False)
    page, text = page_of(result), text_of(page_of(result))
    for note in (
        "One rating per judge and text: there is no variance of repeats.",
        "One ranking per judge and text: there is no variance of repeats.",
        "One judge: there is no variance between judges.",
        "No text has a reference.",
    ):
        assert note in text
    assert Outline(page).figures == []
    assert "<svg" not in page
    assert "nan" not in re.sub(r"[a-z]*nan[a-z]+|[a-z]+nan[a-z]*", "", text.lower())
    assert "0 texts rated, 0 ranked." in text


def test_absent_limits_are_omitted(three):
    assert "Limits of this comparison" not in page_of(three)


def test_table_for_the_terminal(three):
    lines = rating_table(three).splitlines()
    assert len(lines) == 1 + len(GROUPS) + len(STATISTICS)
    assert lines[0].split("  ")[-1] == "Paper: rating, ranking"
    row = three.rows["judge_flips"]
    line = next(line for line in lines if line.startswith("Sign flips, any two judges, %"))
    assert f"{100 * row.rating.value:.1f} [{100 * row.rating.low:.1f} to {100 * row.rating.high:.1f}]" in line
    assert f"{100 * row.difference.value:+.1f}" in line
    assert line.endswith("48, 29")
    assert "−" not in rating_table(three)
    ends = {line.index("]") for line in lines if "]" in line}
    assert len(ends) == 1


@pytest.mark.parametrize(
    ("low", "high", "better", "verdict"),
    [
        (0.1, 0.3, "high", "ranking better"),
        (0.1, 0.3, "low", "rating better"),
        (-0.3, -0.1, "low", "ranking better"),
        (-0.3, -0.1, "high", "rating better"),
        (-0.1, 0.3, "high", ""),
        (0.0, 0.0, "high", ""),
        (np.nan, np.nan, "high", ""),
        (0.1, 0.3, "", ""),
    ],
)
def test_a_method_is_better_only_if_the_interval_excludes_zero(low, high, better, verdict):
    assert (
        better_method(RatingEstimate((low + high) / 2, low, high, 9), Statistic("x", "x", "share", better, None, "")) == verdict
    )


def test_numbers():
    share, points = (Statistic("x", "x", unit, "", None, "") for unit in ("share", "points"))
    assert [share.number(x) for x in (0.4766, 1.0, -0.00001)] == ["47.7", "100.0", "0.0"]
    assert [points.number(x, with_sign=True) for x in (1.239, -0.5, -0.001, 0.001)] == ["+1.24", "−0.50", "0.00", "0.00"]


def test_every_row_of_a_comparison_is_presented(three):
    assert {statistic.key for statistic in STATISTICS} == set(three.rows)
    assert all(isinstance(row, Row) and row.key == key for key, row in three.rows.items())
