"""The page and the table of a questionnaire."""

from valueflow.choices.study import ChoiceStudy
from valueflow.report.questionnaire_page import questionnaire_page, scale_table

ABOUT = {"model": "<i>m</i>", "reading": "probabilities", "value": "", "level": 0, "variant": 0}
SCALE = {"scale": "care", "mean": 4.5, "low": 4.0, "high": 5.0, "centred": 0.5, "items": 4, "answered": 4}
RESULT = ChoiceStudy(
    "s1", "root", {"options": ["never", "always"], "items": "f.csv"},
    {
        "scales": [
            ABOUT | {"condition": "bare"} | SCALE, ABOUT | {"condition": "value", "value": "svt:power", "level": -2} | SCALE,
        ],
        "checks": [ABOUT | {"condition": "bare", "acquiescence": 0.7, "inconsistent": 0.25, "unread": 0.0}],
        "effects": [
            ABOUT | {"condition": "value", "value": "svt:power", "level": -2, "scale": "care", "effect": -1.25, "low": -2.0,
                     "high": -0.5, "items": 4, "answered": 4}
        ],
        "items": [],
    },
    {"builds": ["b1"], "num_items": 4, "scales": 1, "paraphrases": 5, "conditions": 2},
)  # fmt: skip


def test_the_page_shows_scales_checks_and_effects_and_warns():
    page = questionnaire_page(RESULT)
    assert "What models say of themselves differs from what they write" in page
    assert "<i>m</i>" not in page
    for text in ("+0.70", "25 %", "4.50", "svt:power −2", "−1.25", "“never”"):
        assert text in page, text


def test_the_table_has_a_line_a_scale_and_the_checks():
    lines = scale_table(RESULT).splitlines()
    assert len(lines) == 1 + 2 + 1
    assert "acquiescence +0.70" in lines[-1]
