"""No page of a report is cut off at the right edge, on a wide screen and on a phone."""

from collections.abc import Callable
from pathlib import Path

import pytest
from chromium import browser  # noqa: F401 a fixture
from study_root import Design, study_root

from tests.report import test_audit_page as audit
from tests.report import test_evaluation_page as evaluation
from tests.report import test_panel_page as panel
from tests.report import test_profile_page as profile
from tests.report import test_rating_page as rating
from tests.report import test_training_page as training
from tests.report import test_vidb_page as vidb
from valueflow.report.evaluation_page import evaluation_page
from valueflow.report.steerability_page import steerability_page
from valueflow.report.vidb_page import vidb_page
from valueflow.steering.study.config import StudyConfig
from valueflow.steering.study.run import study

LONG = "an-encoder-of-our-own-with-a-long-name/" * 4
# The right edges of all that is no part of a box that scrolls by itself.
TOO_WIDE = """() => [...document.querySelectorAll("body *")].filter((e) => !e.closest(".scroll, pre, svg") &&
    e.getBoundingClientRect().right > innerWidth + 0.5).map((e) => e.outerHTML.slice(0, 120))"""


def steerability(folder: Path) -> str:
    study_root(folder, Design(queries=40, pairs=True, refusals=0.3))
    return steerability_page(study(StudyConfig(root=str(folder), draws=100)))


PAGES: dict[str, Callable[[Path], str]] = {
    "vidb": lambda _: vidb_page(vidb.sample_report()),
    "evaluation": lambda _: evaluation_page(evaluation.sample_report()),
    "audit": lambda _: audit.page_of(audit.audit_result(position_effect=[50.0])),
    "audit without answers": lambda _: audit.page_of(audit.audit_result(broken_share=1.0)),
    "training": lambda _: training.page({LONG: training.metrics(0.7), "base": training.metrics(0.6)}),
    "profile": lambda _: profile.page(("Ana", LONG)),
    "rating": lambda _: rating.page_of(rating.comparison(["one", "two", LONG])),
    "panel": panel.page_of,
    "steerability": steerability,
}


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_cut_off_at_the_right_edge(browser, tmp_path, name, width):  # noqa: F811 the fixture
    context = browser.new_context(viewport={"width": width, "height": 900})
    page = context.new_page()
    page.set_content(PAGES[name](tmp_path))
    page.evaluate("document.querySelectorAll('details').forEach((e) => { e.open = true })")
    assert page.evaluate(TOO_WIDE) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    context.close()
