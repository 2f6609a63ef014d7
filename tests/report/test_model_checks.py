"""Model checks on the page of a version: per check a sentence that says whether the assumption holds, tables, a figure."""

import dataclasses
import re

import pyarrow as pa
import pytest
from outline import Outline

from valueflow.ranking.calibration import Calibration
from valueflow.ranking.model_checks import Bin, Checks, JudgeCheck, ModelCheck, Residual, Triads
from valueflow.records import SCHEMAS
from valueflow.report import model_checks
from valueflow.report.vidb_page import BuildReport, ValueReport, vidb_page
from valueflow.store import FitSummary

SHARES = [0.55, 0.65, 0.75, 0.85, 0.95]


def bins(*off: float, half: float = 0.04) -> list[Bin]:
    """A bin for each share, observed that far off the prediction."""
    shares = zip(SHARES, off, strict=True)
    return [
        Bin(pairs=400, difference=i + 0.5, predicted=p, observed=p + d, low=p + d - half, high=min(p + d + half, 1.0))
        for i, (p, d) in enumerate(shares)
    ]


def residual(group: str, value: float, half: float = 0.02) -> Residual:
    return Residual(group=group, pairs=1234, residual=value, low=value - half, high=value + half)


def judge(number: int = 0, z: float = 0.4, places: tuple[float, ...] = (), away: float = 0.1) -> JudgeCheck:
    positions = [residual(str(p + 1), value) for p, value in enumerate(places)]
    return JudgeCheck(judge=number, windows=4321, score=-0.5 + away * z / 10, expected=-0.5, z=z, places=positions)


def models(bradley_terry: float = -0.001, thurstone: float = -0.002, error: float = 0.001) -> list[ModelCheck]:
    less = {"plackett-luce": 0.0, "bradley-terry": bradley_terry, "thurstone": thurstone}
    return [
        ModelCheck(model=m, prior_sd=1.5, score=-0.5 + d, difference=d, error=0.0 if d == 0 else error) for m, d in less.items()
    ]


GOOD = Checks(
    windows=4321,
    pairs=4321,
    link=bins(0.01, -0.02, 0.045, 0.01, -0.01),
    transitivity=Triads(triads=20000, observed=0.101, expected=0.1, low=0.09, high=0.11),
    context=[residual("above", 0.01), residual("between", -0.005), residual("below", 0.0)],
    judges=[judge(places=(0.01, -0.01))],
    models=models(),
)
EMPTY = Checks(windows=0, pairs=0, link=[], transitivity=None, context=[], judges=[], models=[])


def sentence(name: str, **changed) -> tuple[bool | None, str]:
    """Outcome and sentence of one check, with some fields of the good checks changed."""
    return next(p[1:3] for p in model_checks.check_results(GOOD.model_copy(update=changed).model_dump()) if p.name == name)


def page_of(*checks: dict | None) -> str:
    one = dict.fromkeys(SCHEMAS["vidb"].names) | {
        "theory": "svt", "value": "power", "text_id": "t", "text": "a text", "theta": 0.5, "standard_error": 0.1,
        "num_windows": 9, "intensity": 1.0, "low": 0.5, "high": 1.5,
    }  # fmt: skip
    rows = pa.Table.from_pylist([one], SCHEMAS["vidb"])
    fit = FitSummary(
        value="svt:power", judges=[], iterations=7, gradient_norm=1e-7, tolerance=1e-6, num_components=1, prior_sd=2.3,
        num_windows=240, num_shards=1, log_likelihood=-123.4, checks={},
    )  # fmt: skip
    to = Calibration(mode="neutral", theta=[-3, 3], intensity=[-10, 10])
    value = ValueReport("svt:power", "Power", "What it is.", "Schwartz", rows, set(), fit, to)
    values = [dataclasses.replace(value, id=f"svt:power{i}", checks=each) for i, each in enumerate(checks)]
    return vidb_page(BuildReport("v-1", "2026-11-21T12:40", "0.1.0", "abc", "x", values, [], {}, {}, "k: 2", [], []))


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<svg.*?</svg>|<[^>]*>", " ", page, flags=re.DOTALL))


def test_a_page_shows_every_check_with_its_numbers():
    page = page_of(GOOD.model_dump())
    text = text_of(page)
    for expected in (
        "Model checks: all 6 as expected", "A fifth of the windows (4,321) was held out", "Logistic link , as expected.",
        "The logistic link fits: in 4 of 5 bins the predicted share is inside the interval of the observed share; at the "
        "largest deviation, the better text won 4.5 points more often where 75.0 % was predicted.",
        "Bradley-Terry −0.5010 −0.0010 ± 0.0020", "Plackett-Luce −0.5000 –", "20,000 10.1 % 10.0 %, 9.0 % to 11.0 %",
        "between them 1,234 −0.5 points −2.5 to +1.5", "1 4,321 −0.4960 −0.5000 +0.4", "1 2 1,234 −1.0 points −3.0 to +1.0",
        "The judge is as predictable as the model expects.",
    ):  # fmt: skip
        assert expected in text, expected
    assert "not as expected" not in text
    details = re.search(r'<details class="checks">.*?</details>', page, re.DOTALL)[0]
    assert details.count("<table>") == 5
    assert details.count("<svg") == 1


def test_a_page_of_checks_is_as_safe_and_readable_as_one_without():
    page = page_of(GOOD.model_dump(), None, EMPTY.model_dump())
    outline = Outline(page)
    assert not outline.tags & {"script", "img", "iframe", "link", "object", "form"}
    assert all(after <= before + 1 for before, after in zip(outline.headings, outline.headings[1:], strict=False))
    assert len(outline.ids) == len(set(outline.ids))
    assert len(outline.figures) == 3 * 2 + 1
    assert outline.figures[2].startswith("Observed by predicted share: 55.0 %: 56.0 % (52.0 % to 60.0 %); ")
    assert "var(--first)" in page
    assert not re.search(r"#0[1-4]0[1-4]0[1-4]", page)
    assert page.count('<details class="checks">') == 2
    assert text_of(page).count("Model checks: too few windows to hold some out") == 1
    assert page == page_of(GOOD.model_dump(), None, EMPTY.model_dump())


def test_what_fails_is_named_in_the_summary_and_marked():
    bad = GOOD.model_copy(update={"link": bins(0.1, 0.1, 0.1, 0.1, 0.04), "judges": [judge(z=-14.2)]})
    page = page_of(bad.model_dump())
    assert '<span class="bad">3 of 5 as expected, not: logistic link, judges</span>' in page
    assert page.count('<span class="bad">not as expected</span>') == 2
    assert "Position bias" not in text_of(page)  # the answers have no positions


@pytest.mark.parametrize(
    ("off", "half", "expected", "words"),
    [
        ((0.0, 0.0, 0.0, 0.0, 0.0), 0.04, True, "fits: in 5 of 5 bins"),
        ((0.005, 0.005, 0.009, 0.005, 0.005), 0.002, True, "fits nearly: in 0 of 5 bins .* 0.9 points more often where 75.0 %"),
        ((0.07, 0.07, 0.07, 0.07, 0.03), 0.04, False, "does not fit: in 1 of 5 bins .* 7.0 points more often where"),
        # No bin misses alone, but all lean to one side.
        (
            (-0.035, -0.035, -0.035, -0.035, -0.039),
            0.04,
            False,
            "does not fit: in 5 of 5 bins .* 3.9 points less often where 95",
        ),
    ],
)
def test_the_link_is_tested_over_all_bins(off, half, expected, words):
    passed, message = sentence("Logistic link", link=bins(*off, half=half))
    assert passed is expected
    assert re.search(words, message)


@pytest.mark.parametrize(
    ("changed", "expected", "words"),
    [
        ({}, True, "No other model predicts held-out pairs significantly better"),
        ({"thurstone": 0.0015}, True, "No other model"),
        ({"thurstone": 0.004}, True, r"normal\) predicts held-out pairs slightly better .* \+0.0040 nats"),
        ({"thurstone": 0.004, "bradley_terry": 0.03}, False, r"Bradley-Terry predicts held-out pairs better .* \+0.0300 nats"),
    ],
)
def test_another_model_counts_if_it_is_significantly_and_clearly_better(changed, expected, words):
    passed, message = sentence("Choice of model", models=models(**changed))
    assert passed is expected
    assert re.search(words, message)


@pytest.mark.parametrize(
    ("observed", "expected", "words"),
    [
        (0.04, True, "The answers fit on one scale"),
        (0.1, True, "The answers fit on one scale"),
        (0.108, True, "The answers nearly fit on one scale: .* 0.8 points more"),
        (0.25, False, "The answers do not fit on one scale: .* 15.0 points more"),
        (None, None, "No three texts were compared pairwise"),
    ],
)
def test_cycles_are_compared_with_those_of_a_single_scale(observed, expected, words):
    triads = None if observed is None else Triads(triads=999, observed=observed, expected=0.1, low=0.095, high=0.105)
    passed, message = sentence("One scale", transitivity=triads)
    assert passed is expected
    assert re.search(words, message)


@pytest.mark.parametrize(
    ("value", "half", "expected", "words"),
    [
        (0.025, 0.02, True, "do not affect"),  # outside its own interval, within chance for one of three
        (0.008, 0.002, True, "hardly affect .* where most of them are below both, the better .* 0.8 points more often"),
        (
            0.08,
            0.02,
            False,
            "window affect which .* where most of them are below both, the better text wins 8.0 points more often than",
        ),
    ],
)
def test_context_matters_if_a_group_deviates_significantly_and_clearly(value, half, expected, words):
    groups = [residual("above", 0.0, half), residual("between", 0.0, half), residual("below", value, half)]
    passed, message = sentence("Context", context=groups)
    assert passed is expected
    assert re.search(words, message)
    assert sentence("Context", context=[]) == (None, "No window has a third text that could matter.")


def test_judges_are_tested_one_by_one():
    assert sentence("Judges", judges=[judge(0), judge(1)]) == (True, "All 2 judges are as predictable as the model expects.")
    passed, message = sentence("Judges", judges=[judge(0, z=5.0), judge(1), judge(2, z=-14.2)])
    assert not passed
    assert message == (
        "Not all judges are as predictable as the model expects: judge 1 is more predictable, judge 3 is less predictable."
    )
    assert sentence("Judges", judges=[judge(z=-5.0)]) == (False, "The judge is less predictable than the model expects.")
    assert sentence("Judges", judges=[judge(z=-5.0, away=0.01)])[0]  # significant, but negligible


def test_the_position_with_the_largest_deviation_is_named():
    passed, message = sentence("Position bias", judges=[judge(0, places=(0.01, -0.01)), judge(1, places=(0.08, -0.07))])
    assert not passed
    assert message.startswith("There is position bias: ")
    assert message.endswith("position 1 of judge 2 wins 8.0 points more often than predicted.")
    assert sentence("Position bias", judges=[judge(0, places=(0.01, -0.012))])[1].endswith(
        "position 2 wins 1.2 points less often than predicted."
    )
