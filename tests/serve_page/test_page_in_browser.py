"""Scoring on the page in a browser, under its content security policy: numbers, hostile texts, failures."""

import csv
import itertools
import re

import pytest
from fakes.server import problem
from fakes.service import HALTING, JUDGE, MANY, UNJUDGEABLE, VERSION, anchors, fake_score
from page_steps import BENEVOLENCE, COLD, HOSTILE, KIND, ask_scores, exact, rows, signed

from valueflow import api
from valueflow.tabular import strict_rows

KEY = "vf-secret"
STOPPED = api.Problem(title="Service Unavailable", status=503, detail="the judge stopped.")
expect = pytest.importorskip("playwright.sync_api").expect


def busy(_: dict):
    return problem(429, "2 requests are in process already.", "Too Many Requests", Retry_After="1")


def failed():
    return problem(500, "the server failed", "Internal Server Error")


def without_key(call):
    return None if call.headers.get("authorization") == f"Bearer {KEY}" else problem(401, "a key is required", "Unauthorized")


def test_two_texts_are_drawn_beside_their_neighbours_and_listed(page, server):
    ask_scores(page, [KIND, "", COLD], "Benevolence")
    expect(page.get_by_role("status").filter(has_text="2 scores.")).to_be_visible()
    assert server.bodies == [{"texts": [KIND, COLD], "values": [BENEVOLENCE], "mode": "ranked", "m": 3}]
    drawn = page.locator("#score-answer .rows > li")
    expect(drawn).to_have_count(2)
    for i, text in enumerate([KIND, COLD]):
        score = fake_score(i, text, BENEVOLENCE)
        row = drawn.nth(i)
        expect(row).to_contain_text(text)
        expect(row.locator("b")).to_have_text(signed(score.intensity))
        expect(row.locator(".interval")).to_have_text(f"{signed(score.low)} to {signed(score.high)}")
        doubt = ", sign not certain" if score.low <= 0 <= score.high else ""
        words = f"{signed(score.intensity)}, 95 % interval {signed(score.low)} to {signed(score.high)}{doubt}"
        expect(row.get_by_role("img")).to_have_attribute("aria-label", f"Text {i + 1}, Benevolence: {words}")
        for where, number in [
            ("circle|cx", score.intensity),
            (".range >> nth=0|x1", score.low),
            (".range >> nth=0|x2", score.high),
        ]:
            part, attribute = where.split("|")
            place = float(row.locator(part).get_attribute(attribute).rstrip("%"))
            assert place == pytest.approx((number + 10) * 5)
        below = max((a for a in anchors(BENEVOLENCE) if a.intensity <= score.intensity), key=lambda a: a.intensity)
        above = min((a for a in anchors(BENEVOLENCE) if a.intensity > score.intensity), key=lambda a: a.intensity)
        expect(row.locator(".near dd")).to_have_text([signed(above.intensity), above.text, signed(below.intensity), below.text])
        assert rows(page)[i][:9] == [
            str(i + 1), text, BENEVOLENCE, exact(score.intensity), exact(score.low), exact(score.high), "–", "3", "0"
        ]  # fmt: skip
    provenance = page.locator("#score-answer .made").inner_text()
    assert provenance == f"VIDB {VERSION}; judge {JUDGE}; k = 6, m = 3; sampling adaptive; seed 0; request r-123"


def test_neighbours_are_right_where_anchors_come_in_several_parts(page, server):
    texts = [f"remark {i}" for i in range(12)]
    ask_scores(page, texts, "Care/Harm")
    expect(page.locator(".near dt", has_text="below")).to_have_count(12)
    levels = [a.intensity for a in anchors(MANY)]
    for i, text in enumerate(texts):
        number = sum(level <= fake_score(i, text, MANY).intensity for level in levels)
        near = page.locator(".near").nth(i)
        expect(near).to_contain_text(f"number {levels.index(levels[number])}")
        assert near.locator("dd").nth(3).inner_text() == anchors(MANY)[number - 1].text
    assert sum(call.path.endswith("/anchors") for call in server.calls) <= 3


def test_hostile_texts_stay_texts(page):
    ask_scores(page, HOSTILE, "Benevolence")
    expect(page.locator("#score-answer .rows > li")).to_have_count(len(HOSTILE))
    assert page.title() == "ValueFlow"
    assert page.locator("#score-answer img, #score-answer script, #score-answer bdi > *").count() == 0
    whole = page.locator("#score-answer table tbody td:nth-child(2)")
    for i, text in enumerate(HOSTILE):
        assert whole.nth(i).locator("bdi").last.evaluate("e => e.textContent") == text
        chart = page.locator("#score-answer .rows > li").nth(i).locator("bdi").first
        displayed = chart.evaluate("e => e.textContent")
        truncated = len(displayed) <= 151 and text.startswith(displayed[:-1])
        assert displayed == text or (truncated and chart.get_attribute("title") == text)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_key_is_asked_for_kept_in_the_session_and_sent(page, server):
    expect(page.get_by_role("tab", name="Score")).to_be_visible()
    server.intercept = without_key
    ask_scores(page, [KIND], "Benevolence")
    key = page.get_by_label("API key")
    expect(key).to_be_focused()
    key.fill("wrong")
    key.press("Enter")
    expect(page.locator("#key-alert")).to_contain_text("The server rejected this key.")
    key.fill(KEY)
    key.press("Enter")
    expect(page.locator("#score-answer .rows > li")).to_have_count(1)
    expect(page.get_by_label("API key")).to_be_hidden()
    assert page.evaluate("[Object.values(sessionStorage), Object.values(localStorage), document.cookie]") == [[KEY], [], ""]
    page.reload()
    expect(page.locator("#server")).to_contain_text(VERSION)


def test_a_server_that_wants_a_key_from_the_start_asks_once(page, server):
    server.intercept = without_key
    page.reload()
    page.get_by_label("API key").fill(KEY)
    page.get_by_role("button", name="Use this key").click()
    expect(page.locator("#server")).to_contain_text(VERSION)
    expect(page.get_by_label("API key")).to_be_hidden()


def test_a_busy_server_is_asked_again_when_it_says(page, server):
    server.faults = [busy] * 2
    ask_scores(page, [KIND], "Benevolence")
    expect(page.get_by_role("status").filter(has_text="busy (429); next try in 1 second, 2 of 5")).to_be_visible()
    expect(page.locator("#score-answer .rows > li")).to_have_count(1)
    arrivals = [call.arrival for call in server.posts]
    assert len(arrivals) == 3
    assert all(later - earlier >= 0.95 for earlier, later in itertools.pairwise(arrivals))


def test_waiting_for_a_busy_server_can_be_cancelled(page, server):
    server.faults = [busy] * 100
    ask_scores(page, [KIND], "Benevolence")
    expect(page.get_by_role("status").filter(has_text="busy")).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("status").filter(has_text="Cancelled.")).to_be_visible()
    expect(page.get_by_role("button", name="Cancel")).to_be_hidden()


def test_what_the_server_refuses_is_shown_with_each_fault(page):
    page.get_by_label("Windows per text and value").first.evaluate("input => input.max = 1000")
    page.get_by_label("Windows per text and value").first.fill("500")
    ask_scores(page, [KIND], "Benevolence")
    alert = page.locator("#score-form [role=alert]")
    expect(alert).to_contain_text("(422)")
    expect(alert.locator("li")).to_have_text("body.m Input should be less than or equal to 100")
    expect(alert).to_contain_text(re.compile("Request [0-9a-f]{32}"))


def test_what_is_missing_is_said_before_anything_is_sent(page, server):
    page.get_by_role("button", name="Score", exact=True).click()
    expect(page.locator("#score-form [role=alert]")).to_contain_text("There is no text")
    page.get_by_label("Texts", exact=True).fill(KIND)
    page.get_by_role("button", name="Score", exact=True).click()
    expect(page.locator("#score-form [role=alert]")).to_contain_text("No value is chosen")
    assert server.bodies == []


def test_failures_and_doubt_are_shown(page):
    texts = [f"{UNJUDGEABLE} {KIND}", f"{HALTING} {KIND}"]
    ask_scores(page, texts, "Benevolence")
    expect(page.get_by_role("status").filter(has_text="2 scores, of which 1 failed.")).to_be_visible()
    drawn = page.locator("#score-answer .rows > li")
    expect(drawn.nth(0)).to_contain_text("No score: no usable order")
    expect(drawn.nth(1)).to_contain_text("1 of 3 windows failed: refused")
    assert [row[7:9] for row in rows(page)] == [["0", "3"], ["2", "1"]]
    many = [f"remark {i}" for i in range(30)]
    ask_scores(page, many)
    expect(drawn).to_have_count(30)
    for i, text in enumerate(many):
        score = fake_score(i, text, BENEVOLENCE)
        doubt = score.low <= 0 <= score.high
        expect(drawn.nth(i).get_by_text("sign not certain")).to_have_count(int(doubt))
        expect(drawn.nth(i).locator(".dot.open")).to_have_count(int(doubt))
        assert (rows(page)[i][9] == "sign not certain") == doubt


def test_scores_stand_without_their_anchors(page, server):
    server.intercept = lambda call: failed() if call.path.endswith("/anchors") else None
    ask_scores(page, [KIND, COLD], "Benevolence")
    alert = page.locator("#score-answer [role=alert]")
    expect(alert).to_contain_text("Some nearest anchors could not be loaded.")
    expect(alert.locator(".problem")).to_have_count(1)
    expect(page.locator("#score-answer .track")).to_have_count(2)
    assert len(rows(page)) == 2


@pytest.mark.parametrize(("ending", "message"), [(None, "The response was cut off"), (STOPPED, "the judge stopped.")])
def test_a_stream_that_ends_early_shows_what_came_and_says_so(page, server, ending, message):
    server.service.end_after, server.service.ending = 2, ending
    ask_scores(page, [f"remark {i}" for i in range(5)], "Benevolence")
    alert = page.locator("#score-form [role=alert]")
    expect(alert).to_contain_text(message)
    expect(alert).to_contain_text("2 of 5 scores received")
    expect(page.locator("#score-answer .rows > li")).to_have_count(2)


def test_cancelling_keeps_what_has_come(page, server):
    server.service.seconds = 0.2
    ask_scores(page, [f"remark {i}" for i in range(100)], "Benevolence")
    expect(page.locator("#score-form .going")).to_contain_text(re.compile("[1-9] of 100"))
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("status").filter(has_text="Cancelled.")).to_be_visible()
    assert 1 <= page.locator("#score-answer .rows > li").count() < 100
    expect(page.get_by_role("button", name="Score", exact=True)).to_be_focused()


def test_texts_between_blank_lines_and_more_rows_than_are_shown_at_once(page, server):
    texts = [f"first line {i}\nsecond line {i}" for i in range(130)]
    page.get_by_label("blank lines").check()
    ask_scores(page, ["\n\n".join(texts)], "Benevolence")
    expect(page.locator("#score-answer .rows > li")).to_have_count(100)
    assert server.bodies[0]["texts"] == texts
    page.get_by_role("button", name="Show more (100 of 130)").click()
    expect(page.locator("#score-answer .rows > li")).to_have_count(130)
    assert len(rows(page)) == 130


def test_mode_fast_is_offered_where_there_is_one_and_says_how_far_to_trust_it(page, server):
    expect(page.get_by_label("Texts", exact=True)).to_be_visible()
    assert page.get_by_label("Fast: regression on an embedding").first.is_hidden()
    server.service.modes = ["ranked", "fast"]
    page.reload()
    page.get_by_label("Fast: regression on an embedding").first.check()
    expect(page.get_by_label("Windows per text and value").first).to_be_hidden()
    ask_scores(page, [KIND], "Benevolence")
    expect(page.locator("#score-answer .made")).to_contain_text("fast; encoder minilm; request")
    assert server.bodies == [{"texts": [KIND], "values": [BENEVOLENCE], "mode": "fast"}]
    assert rows(page)[0] == [BENEVOLENCE, "120", "0.81", "1.26", "95 %"]


def test_the_csv_holds_every_score_and_no_formula(page, tmp_path):
    texts = [
        '=HYPERLINK("http://x")',
        "+1 for that",
        '@sum, and "more"',
        "-3.5",
        "-2+3",
        "'= it",
        "nan",
        "plain, text",
        UNJUDGEABLE,
    ]
    ask_scores(page, texts, "Benevolence", "Power")
    with page.expect_download() as saved:
        page.get_by_role("button", name="Download as CSV").click()
    saved.value.save_as(tmp_path / "scores.csv")
    assert saved.value.suggested_filename == "valueflow-scores-r-123.csv"
    with (tmp_path / "scores.csv").open(encoding="utf-8-sig", newline="") as file:
        saved_rows = list(csv.DictReader(file))
    safe = [
        '\'=HYPERLINK("http://x")',
        "'+1 for that",
        '\'@sum, and "more"',
        "-3.5",
        "'-2+3",
        "''= it",
        "nan",
        "plain, text",
        UNJUDGEABLE,
    ]
    assert [row["text"] for row in saved_rows] == [text for text in safe for _ in range(2)]
    assert [row.fields["text"] for row in strict_rows(str(tmp_path / "scores.csv"), ["text"])] == [
        t for t in texts for _ in range(2)
    ]
    for i, row in enumerate(saved_rows):
        score = fake_score(i // 2, texts[i // 2], [BENEVOLENCE, "svt:power"][i % 2])
        assert row["value"] == score.value
        numbers = [row[name] for name in ("intensity", "low", "high")]
        if score.intensity is None:
            assert numbers == ["", "", ""]
        else:
            assert [float(n) for n in numbers] == [score.intensity, score.low, score.high]
        assert (row["vidb_version"], row["judge"], row["m"], row["request_id"]) == (VERSION, JUDGE, "3", "r-123")


def test_a_server_that_fails_at_first_is_asked_again_by_a_button(page, server):
    expect(page.locator("#server")).to_contain_text(VERSION)
    remaining = [failed(), failed()]
    server.intercept = lambda _: remaining.pop() if remaining else None
    page.reload()
    expect(page.locator("#boot-alert")).to_contain_text("Internal Server Error (500): the server failed")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#server")).to_contain_text(VERSION)
    expect(page.locator("#boot-alert")).to_be_empty()
    expect(page.locator("#score-values .list")).to_have_count(1)
