"""The page's other views; keyboard and phone."""

import re
from importlib import resources

import pytest
from fakes.service import MANY, UNJUDGEABLE, VERSION, anchors, fake_score, probability
from page_steps import BENEVOLENCE, COLD, HOSTILE, KIND, ask_scores, choose, exact, rows, signed

expect = pytest.importorskip("playwright.sync_api").expect


def test_two_texts_are_compared_in_words_and_numbers(page, server):
    page.get_by_role("tab", name="Compare").click()
    page.get_by_label("First text").fill(KIND)
    page.get_by_label("Second text").fill(COLD)
    choose(page, "compare", "Benevolence", "Fidelity")
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page.locator("#compare-answer section")).to_have_count(2)
    assert server.bodies == [
        {"first": KIND, "second": COLD, "values": [BENEVOLENCE, "duty:fidelity"], "mode": "ranked", "m": 3}
    ]
    for i, (value, name) in enumerate([(BENEVOLENCE, "Benevolence"), ("duty:fidelity", "Fidelity")]):
        first, second = fake_score(0, KIND, value), fake_score(1, COLD, value)
        p = probability(first, second)
        section = page.locator("#compare-answer section").nth(i)
        sure, more = max(p, 1 - p), "first" if p >= 0.5 else "second"
        grades = [(0.975, "Almost certainly"), (0.9, "Very probably"), (0.7, "Probably")]
        grade = next((word for least, word in grades if sure >= least), None)
        words = f"{grade} the {more} text expresses {name} more." if grade else f"The texts cannot be distinguished on {name}."
        expect(section.locator(".verdict")).to_have_text(words)
        assert float(section.locator("rect.one").get_attribute("width").rstrip("%")) == pytest.approx(100 * p)
        expect(section.locator(".number b")).to_have_text([signed(first.intensity), signed(second.intensity)])
        numbers = [exact(number) for s in (first, second) for number in (s.intensity, s.low, s.high)]
        assert rows(page, "compare")[i][:8] == [value, f"{p:.3f}", *numbers]
    expect(page.locator("#compare-answer .made")).to_contain_text("request r-123")


def test_a_comparison_without_a_score_says_so(page):
    page.get_by_role("tab", name="Compare").click()
    page.get_by_label("First text").fill(KIND)
    page.get_by_label("Second text").fill(UNJUDGEABLE)
    choose(page, "compare", "Benevolence")
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page.locator("#compare-answer .verdict")).to_have_text("Benevolence: unknown, because a text has no score.")
    expect(page.locator("#compare-answer section")).to_contain_text("No score: no usable order")


def test_a_value_is_browsed_along_its_scale(page):
    page.get_by_role("tab", name="Browse").click()
    page.get_by_label("Find a value to browse").fill("care")
    page.get_by_role("link", name="Care/Harm").click()
    answer = page.locator("#browse-answer")
    expect(answer.get_by_role("heading", name="Care/Harm")).to_be_visible()
    expect(answer).to_contain_text("1 to 20 of 1,200 anchors, weakest first")
    listed = answer.locator(".rows").last.locator("li")
    first = anchors(MANY)[0]
    expect(listed.first).to_contain_text(f"{first.text}remarks; license CC-BY-4.0")
    expect(listed.first.locator("b")).to_have_text(signed(first.intensity))
    page.get_by_role("button", name="Weaker").press("Enter")  # there are none
    expect(answer).to_contain_text("1 to 20 of")
    page.get_by_role("button", name="Stronger").click()
    expect(answer).to_contain_text("21 to 40 of")
    expect(listed.first).to_contain_text(anchors(MANY)[20].text)
    page.get_by_label("Near intensity").fill("9")
    page.get_by_role("button", name="Show").click()
    number = sum(a.intensity <= 9 for a in anchors(MANY))
    expect(listed.first).to_contain_text(anchors(MANY)[number // 20 * 20].text)
    page.get_by_label("Near intensity").fill("10")
    page.get_by_role("button", name="Show").click()
    expect(answer).to_contain_text("1,181 to 1,200 of")


def test_a_value_with_two_places_and_one_without_anchors(page):
    page.goto(f"{page.url}#browse/svt%3Ahedonism")
    expect(page.locator("#browse-answer .path")).to_have_text(
        [re.compile("Growth.*Openness to change.*Hedonism"), re.compile("Self-protection.*Self-enhancement.*Hedonism")]
    )
    page.get_by_role("link", name="Conservation").click()
    expect(page.locator("#browse-answer")).to_contain_text("The VIDB has no anchors for this value")
    page.go_back()
    expect(page.locator("#browse-answer h2")).to_contain_text("Hedonism")


def test_everything_can_be_done_with_the_keyboard(page):
    expect(page.locator("#server")).to_contain_text(VERSION)
    press = page.keyboard.press
    press("Tab")
    expect(page.get_by_role("tab", name="Score")).to_be_focused()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    press("ArrowRight")
    expect(page.get_by_role("tab", name="Compare")).to_be_focused()
    expect(page.get_by_label("First text")).to_be_visible()
    press("End")
    expect(page.get_by_role("tab", name="Browse")).to_have_attribute("aria-selected", "true")
    press("ArrowRight")
    expect(page.get_by_role("tab", name="Score")).to_be_focused()
    press("Tab")
    page.keyboard.type(KIND)
    press("Tab")
    press("Tab")
    page.keyboard.type("univ")
    press("ArrowDown")  # to the theory
    press("ArrowDown")
    expect(page.get_by_label("Universalism").first).to_be_focused()
    press("Space")
    expect(page.locator("#score-values")).to_contain_text("1 chosen: Universalism")
    press("Tab")  # to the windows, as the rest of the list is filtered away
    press("Tab")
    expect(page.get_by_role("button", name="Score", exact=True)).to_be_focused()
    press("Enter")
    expect(page.locator("#score-answer .rows > li")).to_have_count(1)
    page.locator("#texts").focus()
    press("Control+Enter")
    expect(page.get_by_role("status").filter(has_text="1 score.")).to_be_visible()
    page.locator("#score-answer .rows a").focus()
    press("Enter")
    expect(page.locator("#browse-answer h2")).to_contain_text("Universalism")
    expect(page.get_by_role("tab", name="Browse")).to_be_focused()


@pytest.mark.parametrize("page", [{"viewport": {"width": 360, "height": 740}}], indirect=True)
def test_a_phone_need_not_scroll_sideways(page):
    fits = "document.documentElement.scrollWidth <= innerWidth"
    ask_scores(page, [*HOSTILE, KIND, UNJUDGEABLE, "w" * 300], "Benevolence")
    expect(page.locator("#score-answer .near dt").nth(1)).to_be_visible()
    assert page.evaluate(fits)
    page.get_by_role("tab", name="Compare").click()
    page.get_by_label("First text").fill("w" * 300)
    page.get_by_label("Second text").fill(COLD)
    choose(page, "compare", "Benevolence")
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page.locator("#compare-answer section")).to_have_count(1)
    assert page.evaluate(fits)
    page.get_by_role("tab", name="Browse").click()
    page.get_by_role("link", name="Care/Harm").click()
    expect(page.locator("#browse-answer .rows").last.locator("li")).to_have_count(20)
    assert page.evaluate(fits)


def test_every_control_has_a_name_and_every_table_a_caption(page):
    ask_scores(page, [KIND], "Benevolence", "Power")
    expect(page.locator("#score-answer .rows > li")).to_have_count(2)
    nameless = """() => [...document.querySelectorAll("input, textarea, button, [role=img], progress")].filter((e) =>
        !(e.labels?.length || e.getAttribute("aria-label") || e.textContent.trim())).map((e) => e.outerHTML)"""
    assert page.evaluate(nameless) == []
    assert page.locator("table:not(:has(caption))").count() == 0


def test_the_file_stands_alone():
    page = resources.files("serve").joinpath("page.html").read_text("utf-8")
    assert page.count("__NONCE__") == 2
    assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|\son\w+=|style=\"", page)
    assert set(re.findall(r"https?://[^\s\"')]+", page)) == {"http://www.w3.org/2000/svg"}
