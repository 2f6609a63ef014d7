"""The view Profile: what is pasted or uploaded, the numbers of one or two units, what is missing, keyboard and phone."""

import csv
import re
from importlib import resources

import pytest
from fakes.service import UNJUDGEABLE, VERSION
from page_steps import BENEVOLENCE, HOSTILE, exact, rows, signed

from valueflow.profiles.circle import CIRCLE

expect = pytest.importorskip("playwright.sync_api").expect
ANA, BORIS = ([f"{name} says, number {i}" for i in range(8)] for name in ("Ana", "Boris"))
TABLE = "unit,text,thread\n" + "".join(
    f'{text.split()[0]},"{text}",t{i // 2}\n' for of in (ANA, BORIS) for i, text in enumerate(of)
)


@pytest.fixture
def profile(page):
    """The view, with a function that sends the form and returns the answer of the server."""
    page.get_by_role("tab", name="Profile").click()

    def send() -> dict:
        with page.expect_response("**/v1/profile") as response:
            page.get_by_role("button", name="Profile", exact=True).click()
        expect(page.locator("#profile-answer h2")).to_be_visible()
        return response.value.json()

    return send


def fill(page, first: str, second: str = "") -> None:
    page.get_by_label("Texts of the first unit").fill(first)
    page.get_by_label("Texts of the second unit").fill(second)


def upload(page, path, content: bytes) -> None:
    path.write_bytes(content)
    page.get_by_label("or a file").first.set_input_files(path)


def test_two_units_side_by_side(page, server, profile):
    page.get_by_label("Name").first.fill("Ana")
    page.get_by_label("Name").nth(1).fill("Boris")
    fill(page, "\n".join(ANA), "\n\n".join(BORIS))
    expect(page.locator("#units-hint")).to_contain_text("8 texts of Ana, 8 texts of Boris; 192 scores.")
    answer = profile()
    assert server.bodies == [
        {"texts": ANA + BORIS, "units": ["Ana"] * 8 + ["Boris"] * 8, "values": server.bodies[0]["values"], "min_texts": 5,
         "mode": "ranked", "m": 3}
    ]  # fmt: skip
    assert sorted(server.bodies[0]["values"]) == sorted(CIRCLE)
    of = {(p["unit"], p["value"]): p for p in answer["profile"]}
    ranked = sorted(CIRCLE, key=lambda value: -of["Ana", value]["intensity"])
    drawn = page.locator("#profile-answer .rows > li")
    expect(drawn).to_have_count(12)
    for i, value in enumerate(ranked):
        both = [of[unit, value] for unit in ("Ana", "Boris")]
        expect(drawn.nth(i).locator("b")).to_have_text([signed(p["intensity"]) for p in both])
        expect(drawn.nth(i).locator(".interval").first).to_contain_text(
            f"{signed(both[0]['low'])} to {signed(both[0]['high'])}"
        )
        place = float(drawn.nth(i).locator(".second > svg").get_attribute("x").rstrip("%"))
        assert place == pytest.approx((both[1]["intensity"] + 10) * 5)
    table = rows(page, "profile")
    assert len(table) == 12 + 24
    first = answer["divergence"][0]
    assert table[0][1:4] == [exact(first[name]) for name in ("difference", "low", "high")]
    apart = first["p"] < 0.05
    assert table[0][5] == (f"{'Ana' if first['difference'] > 0 else 'Boris'} is higher" if apart else "cannot be told apart")
    for row, p in zip(table[12:], answer["profile"], strict=True):
        numbers = [exact(p[name]) for name in ("intensity", "low", "high", "centred", "centred_low", "centred_high")]
        assert row[:8] == [p["unit"], p["value"], *numbers]
    expect(page.locator("#profile-answer .wheel path")).to_have_count(4)
    expect(page.locator("#profile-answer .units li")).to_have_text([re.compile("Ana: 8 texts; reliab"), re.compile("Boris: 8")])
    expect(page.locator("#profile-answer .made")).to_contain_text(f"VIDB {VERSION}")


def test_the_circle_is_that_of_the_theory():
    page = resources.files("serve").joinpath("page.html").read_text("utf-8")
    (listed,) = re.findall(r"const CIRCLE = \[([^]]*)\]", page)
    assert [f"svt:{node}" for node in re.findall('"([^"]+)"', listed)] == list(CIRCLE)


def test_one_unit_has_no_differences_and_what_is_missing_is_said(page, profile):
    fill(page, "\n".join([*ANA[:4], f"{UNJUDGEABLE}"]))
    page.get_by_label("Texts that a value needs").fill("4")
    profile()
    expect(page.locator("#profile-answer")).to_contain_text("a text has no score: no usable order")
    assert page.get_by_role("heading", name="Differences").count() == 0
    page.get_by_label("Texts that a value needs").fill("5")
    profile()
    drawn = page.locator("#profile-answer .rows > li")
    expect(drawn.first).to_contain_text("missing: no usable order")
    assert drawn.locator("b, .track").count() == 0
    assert page.locator("#profile-answer .wheel").count() == 0
    status = page.get_by_role("status").filter(has_text="12 numbers, of which 12 are missing.")
    expect(status).to_be_visible()
    assert rows(page, "profile")[0][2:5] == ["–", "–", "–"]


def test_a_table_names_its_units_and_threads_and_formulas_are_texts(page, server, profile, tmp_path):
    upload(page, tmp_path / "two.csv", b"\xef\xbb\xbf" + TABLE.encode() + b"Boris,,\nBoris,'=1+1,\n")
    expect(page.locator("#units-hint")).to_contain_text(
        "8 texts of Ana, 9 texts of Boris; 204 scores. 1 row without a text left"
    )
    profile()
    (body,) = server.bodies
    assert body["texts"] == [*ANA, *BORIS, "=1+1"]
    assert body["units"] == ["Ana"] * 8 + ["Boris"] * 9
    assert body["threads"] == [f"t{i // 2}" for i in [*range(8), *range(8)]] + [""]


def test_one_or_two_of_more_units_are_chosen(page, server, profile):
    lines = [f'{{"text": "{text}", "unit": "{unit}"}}' for unit in ("Ana", "Boris", "Chen") for text in ANA[:5]]
    fill(page, "\n".join(lines))
    expect(page.locator("#units-hint")).to_contain_text("5 texts of Ana, 5 texts of Boris;")
    page.get_by_label("Boris").uncheck()
    page.get_by_label("Ana").uncheck()
    page.get_by_role("button", name="Profile", exact=True).click()
    expect(page.locator("#profile-form")).to_contain_text("Choose one or two units: 0 of 3 are chosen.")
    page.get_by_label("Chen").check()
    profile()
    assert server.bodies[-1]["units"] == ["Chen"] * 5


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.csv", b"author,body\nAna,Hello\n", "a.csv has no column text: it has author, body"),
        ("a.csv", b'unit,text\nAna,"open\n', "a.csv is no table: a quote in line 2 is not closed"),
        ("a.jsonl", b'{"text": "a"}\n{"text"\n', "Line 2 of a.jsonl is not JSON"),
        ("a.jsonl", b'{"text": "a"}\nnull\n', "Line 2 of a.jsonl is not JSON"),
        ("a.txt", "öffentlich".encode("latin-1"), "a.txt is not UTF-8"),
        ("a.txt", b"x" * 40_000_000, "a.txt is too large"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_sentence(page, server, profile, tmp_path, name, content, sentence):
    upload(page, tmp_path / name, content)
    expect(page.locator("#profile-form")).to_contain_text(sentence)
    page.get_by_role("button", name="Profile", exact=True).click()
    expect(page.locator("#profile-form [role=alert]").filter(has_text=re.compile("."))).not_to_have_count(0)
    assert server.bodies == []


def test_hostile_texts_and_names_stay_texts(page, profile):
    page.get_by_label("Name").first.fill(HOSTILE[0][:80])
    fill(page, "\n".join(HOSTILE))
    profile()
    assert page.title() == "ValueFlow"
    assert page.locator("#profile-answer img, #profile-answer script, #profile-answer bdi > *").count() == 0
    assert page.locator("#profile-answer h2 bdi").evaluate("e => e.textContent") == HOSTILE[0][:80]


def test_the_profile_is_saved_as_csv(page, profile, tmp_path):
    fill(page, "\n".join(ANA), "\n".join(BORIS))
    answer = profile()
    with page.expect_download() as saved:
        page.locator("#profile-answer").get_by_role("button", name="Download as CSV").click()
    saved.value.save_as(tmp_path / "profile.csv")
    with (tmp_path / "profile.csv").open(encoding="utf-8-sig", newline="") as file:
        found = list(csv.DictReader(file))
    assert [(r["unit"], r["value"], float(r["intensity"])) for r in found] == [
        (p["unit"], p["value"], p["intensity"]) for p in answer["profile"]
    ]
    assert {r["vidb_version"] for r in found} == {VERSION}


def test_a_profile_can_be_made_with_the_keyboard(page):
    page.get_by_role("tab", name="Score").focus()
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Profile")).to_be_focused()
    expect(page.get_by_label("Name").first).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_label("Name").first).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.type("\n".join(ANA))
    page.keyboard.press("Control+Enter")
    expect(page.locator("#profile-answer .rows > li")).to_have_count(12)
    page.locator("#profile-answer .rows a").first.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("tab", name="Browse")).to_be_focused()


@pytest.mark.parametrize("page", [{"viewport": {"width": 360, "height": 740}}], indirect=True)
def test_the_profile_fits_on_a_phone_and_everything_has_a_name(page, profile):
    page.get_by_label("Name").first.fill("w" * 100)
    fill(page, "\n".join(ANA), "\n".join(BORIS))
    profile()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    nameless = """() => [...document.querySelectorAll("input, textarea, button, [role=img], progress")].filter((e) =>
        !(e.labels?.length || e.getAttribute("aria-label") || e.textContent.trim())).map((e) => e.outerHTML)"""
    assert page.evaluate(nameless) == []
    assert page.locator("table:not(:has(caption))").count() == 0


@pytest.mark.parametrize("page", [{"color_scheme": "dark"}, {"color_scheme": "light"}], indirect=True)
def test_units_have_colours_and_forms_of_their_own_in_light_and_dark(page, profile):
    fill(page, "\n".join(ANA), "\n".join(BORIS))
    profile()
    legend = page.locator("#profile-answer .key .dot")
    expect(legend.nth(1)).to_have_js_property("tagName", "rect")
    first, second = (legend.nth(i).evaluate("e => getComputedStyle(e).fill") for i in (0, 1))
    assert first != second
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper not in (first, second)


def test_a_value_is_reached_from_its_row(page, profile):
    fill(page, "\n".join(ANA))
    profile()
    page.locator("#profile-answer .rows").get_by_role("link", name="Benevolence").click()
    expect(page.locator("#browse-answer h2")).to_contain_text(BENEVOLENCE)
