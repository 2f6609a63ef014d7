"""The human queue is exported as CSV, edited, and read back; unusable rows are named."""

import csv
import io
from pathlib import Path

import pyarrow as pa
import pytest

from valueflow.errors import InputError
from valueflow.records import SCHEMAS
from valueflow.voting.descend import DIRECTIONS, Ballot, ballot_table
from valueflow.voting.human import HumanDecision, queue_csv, read_decisions

HOSTILE = [
    'She said "no", then "yes".',
    "two\nlines\r\nand a third",
    "Größe, naïveté, 正義, 🙂, e\u0301",
    '=HYPERLINK("http://x.example","click")',
    "+1, -1, @SUM(A1)\t|",
    "'; comma, semicolon; \\ backslash",
]
DECISIONS = [("power", "-1"), ("neutral", ""), ("", ""), ("hedonism", "1"), ("face", "0"), ("growth", "1")]


def queue(texts: list[str], theory: str = "svt") -> pa.Table:
    rows = [
        {
            "text_id": f"t{i}", "text": text, "theory": theory, "path": ["growth"], "kind": "child", "asked": "growth",
            "options": ["self-transcendence", "openness-to-change"], "counts": '{"openness-to-change": 4}',
        }
        for i, text in enumerate(texts)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, SCHEMAS["queue"])


def cells(content: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content, newline="")))


def saved(folder: Path, rows: list[dict[str, str]], encoding: str = "utf-8", name: str = "filled.csv") -> str:
    path = folder / name
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def decided(*rows: dict[str, str]) -> list[dict[str, str]]:
    """Rows of an edited queue; the default is text t0, svt, power, 1."""
    return [{"text_id": "t0", "theory": "svt", "node": "power", "direction": "1"} | row for row in rows]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])  # spreadsheets write the latter
def test_a_queue_of_hostile_texts_is_read_back_with_its_decisions(tmp_path, encoding):
    rows = cells(queue_csv(queue(HOSTILE)))
    # A text that a spreadsheet would take for a formula gets an apostrophe; decisions are matched by id, not by text.
    assert [row["text"] for row in rows] == [f"'{text}" if text[0] in "=+-@" else text for text in HOSTILE]
    assert (rows[0]["path"], rows[0]["options"]) == ("growth", "self-transcendence | openness-to-change")
    assert {(row["node"], row["direction"]) for row in rows} == {("", "")}
    filled = [row | {"node": node, "direction": direction} for row, (node, direction) in zip(rows, DECISIONS, strict=True)]
    assert read_decisions([saved(tmp_path, filled, encoding)], ["svt"]).decisions == {
        ("t0", "svt"): HumanDecision("power", -1),
        ("t1", "svt"): HumanDecision("", 0),
        ("t3", "svt"): HumanDecision("hedonism", 1),
        ("t4", "svt"): HumanDecision("face", 0),
        ("t5", "svt"): HumanDecision("growth", 1),
    }


def test_an_unedited_queue_has_no_decisions(tmp_path):
    for texts in (HOSTILE, []):
        (tmp_path / "queue.csv").write_bytes(queue_csv(queue(texts)).encode())
        assert read_decisions([str(tmp_path / "queue.csv")], ["svt"]) == ({}, {})


@pytest.mark.parametrize(
    ("row", "key", "decision"),
    [
        ({"node": "Universalism: nature", "direction": "Supports"}, "svt", HumanDecision("universalism-nature", 1)),
        ({"node": " HUM ", "direction": " opposes "}, "svt", HumanDecision("humility", -1)),
        ({"theory": "Schwartz", "direction": "+1"}, "svt", HumanDecision("power", 1)),
        ({"theory": "pvq", "direction": "neither"}, "svt", HumanDecision("power", 0)),
        ({"theory": "mft", "node": "tradition"}, "mft", HumanDecision("tradition", 1)),  # svt has one too
        ({"node": "Neutral", "direction": ""}, "svt", HumanDecision("", 0)),
        ({"node": " neutral ", "direction": "1"}, "svt", HumanDecision("", 0)),  # a neutral text has no direction
    ],
)
def test_nodes_theories_and_directions_by_any_spelling(tmp_path, row, key, decision):
    assert read_decisions([saved(tmp_path, decided(row))], ["svt", "mft"]).decisions == {("t0", key): decision}


def test_the_same_decision_twice_is_one(tmp_path):
    rows = decided({"node": "humility"}, {"node": "modesty", "theory": "schwartz", "direction": "supports"})
    rows += decided({"theory": "mft", "node": "purity", "direction": "-1"})  # of another theory: no contradiction
    decisions = read_decisions([saved(tmp_path, rows)], ["mft", "svt"]).decisions
    assert decisions == {("t0", "svt"): HumanDecision("humility", 1), ("t0", "mft"): HumanDecision("purity", -1)}


@pytest.mark.parametrize("other", [{"node": "face"}, {"direction": "-1"}, {"node": "neutral", "direction": ""}])
def test_two_different_decisions_are_refused(tmp_path, other):
    with pytest.raises(InputError, match=r"filled\.csv:4: text t0 has two different decisions in 'svt'"):
        read_decisions([saved(tmp_path, decided({}, {"text_id": "t1"}, other))], ["svt"])
    first, second = (saved(tmp_path, decided(row), name=name) for name, row in (("a.csv", {}), ("b.csv", other)))
    with pytest.raises(InputError, match=r"b\.csv:2: text t0 has two different decisions .*a\.csv:2"):
        read_decisions([first, second], ["svt"])


def test_every_decision_has_its_place(tmp_path):
    first, second = (
        saved(tmp_path, decided({}, {"text_id": i, "node": node}), name=name)
        for name, i, node in (("a.csv", "t1", "face"), ("b.csv", "t2", ""))
    )
    with pytest.raises(InputError, match=r"b\.csv:3 has the direction"):
        read_decisions([first, second], ["svt"])
    assert read_decisions([first], ["svt"]).places == {("t0", "svt"): f"{first}:2", ("t1", "svt"): f"{first}:3"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"node": "powr"}, r"unknown value 'svt:powr'; did you mean 'power'\?"),
        ({"node": "gratitude"}, "unknown value 'svt:gratitude'"),  # a node, but of another theory
        ({"node": "=power"}, "unknown value 'svt:=power'"),
        ({"theory": "swt"}, r"unknown theory 'swt'; did you mean 'svt'\?"),
        ({"theory": "duty", "node": "gratitude"}, "theory 'duty' is not in this job; its theories are svt, mft"),
        ({"theory": "duty", "node": "neutral"}, "theory 'duty' is not in this job; its theories are svt, mft"),
        ({"node": ""}, "has the direction '1' but no node; write a node, or 'neutral'"),
        ({"node": "  ", "direction": "opposes"}, "has the direction 'opposes' but no node"),
        ({"direction": "up"}, r"direction is 'up'; write 1 \(supports\), -1 \(opposes\) or 0 \(neither\)"),
        ({"direction": ""}, "direction is ''; write 1"),
        ({"direction": "2"}, "direction is '2'; write 1"),
    ],
)
def test_an_unusable_row_is_named(tmp_path, row, message):
    with pytest.raises(InputError, match=rf"filled\.csv:3:? {message}"):
        read_decisions([saved(tmp_path, decided({}, {"text_id": "t1"} | row))], ["svt", "mft"])


@pytest.mark.parametrize("column", ["text_id", "theory", "node", "direction"])
def test_a_missing_column_is_named(tmp_path, column):
    rows = [{name: cell for name, cell in row.items() if name != column} for row in decided({})]
    with pytest.raises(InputError, match=rf"lacks column\(s\) \['{column}'\]"):
        read_decisions([saved(tmp_path, rows)], ["svt"])


def test_files_that_are_no_filled_in_queue(tmp_path):
    path = tmp_path / "q.csv"
    path.write_text("text_id;theory;node;direction\nt0;svt;power;1\n")
    with pytest.raises(InputError, match=r"lacks column\(s\) .*it has \['text_id;theory;node;direction'\]"):
        read_decisions([str(path)], ["svt"])
    path.write_text("text_id,theory,node,direction\nt0,svt,power\n")
    with pytest.raises(InputError, match=r"q\.csv:2: row has 3 fields, the header has 4"):
        read_decisions([str(path)], ["svt"])
    path.write_bytes("text_id,theory,node,direction,text\nt0,svt,power,1,café\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"q\.csv:2: row has bytes that are not UTF-8"):
        read_decisions([str(path)], ["svt"])
    with pytest.raises(InputError, match=r"nowhere\.csv does not exist"):
        read_decisions([str(tmp_path / "nowhere.csv")], ["svt"])


def test_a_ballot_table_keeps_the_fields_of_the_ballot_ids():
    first = Ballot("plausible", "svt", "power", "t", ("plausible", "weird"), 0, "+3.0")
    others = [first._replace(detail="-3.0"), first._replace(round=1), first._replace(options=("weird", "plausible"))]
    ballots = [first, *others, Ballot("direction", "svt", "", "t", DIRECTIONS, 0)]
    table = ballot_table(ballots)
    assert table.schema == SCHEMAS["ballots"]
    rows = table.to_pylist()
    assert len({row["ballot_id"] for row in rows}) == 5
    for row, ballot in zip(rows, ballots, strict=True):
        again = Ballot(**{name: row[name] for name in Ballot._fields})
        assert again._replace(options=tuple(again.options)) == ballot
        assert again.ballot_id == row["ballot_id"]
    empty = ballot_table([])
    assert (empty.num_rows, empty.schema) == (0, SCHEMAS["ballots"])
