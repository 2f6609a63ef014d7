"""`valueflow profile` with units: the numbers of the service, as a table, CSV and JSON; differences; refusals."""

import csv
import io
import json
from pathlib import Path

import pytest
from fakes.server import FakeServer, running
from fakes.service import UNJUDGEABLE, FakeService

from valueflow.cli.main import main
from valueflow.client import Client

VALUES = ["svt:benevolence", "svt:power", "mft:fairness-cheating"]
ROWS = [(unit, f"{unit} says, number {i}", f"t{i // 2}" if i else "") for i in range(9) for unit in ("Ana", "Boris")]


@pytest.fixture
def local(monkeypatch) -> FakeService:
    service = FakeService(VALUES, request_id="r-123")
    monkeypatch.setattr("valueflow.service.local.local_service", lambda *_: service)
    for name in ("VALUEFLOW_SERVER", "VALUEFLOW_ROOT"):
        monkeypatch.delenv(name, raising=False)
    return service


@pytest.fixture
def run(capsys, local):
    def command(*words: object) -> tuple[int, str, list[str]]:
        code = main(["profile", *map(str, words)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err.splitlines()

    return command


def said(path: Path, rows: list[tuple[str, ...]] = ROWS) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["who", "text", "thread"], *rows])
    return path


@pytest.fixture
def file(tmp_path) -> Path:
    return said(tmp_path / "said.csv")


def test_units_have_the_profiles_that_a_server_gives(run, file, monkeypatch):
    words = [file, "--unit", "who", "--thread", "thread", "--min-texts", 5]
    code, out, err = run(*words, "--format", "json")
    assert (code, err) == (0, [])
    found = json.loads(out)
    with running(FakeServer(FakeService(VALUES, request_id="r-123"))) as server:
        with Client(server.url) as client:
            units, texts, threads = zip(*ROWS, strict=True)
            answer = client.profile(list(texts), units=list(units), threads=list(threads), min_texts=5).model_dump()
        assert {name: found[name] for name in ("units", "divergence", "vidb_version")} == {
            name: answer[name] for name in ("units", "divergence", "vidb_version")
        }
        assert found["rows"] == answer["profile"]
        monkeypatch.setenv("VALUEFLOW_SERVER", server.url)
        assert run(*words, "--format", "json")[1] == out
    monkeypatch.delenv("VALUEFLOW_SERVER")
    rows = list(csv.DictReader(io.StringIO(run(*words, "--format", "csv")[1])))
    assert [row["unit"] for row in rows] == ["Ana"] * 3 + ["Boris"] * 3


def test_the_table_names_a_unit_once_and_says_how_steady_it_is(run, file):
    code, out, _ = run(file, "--unit", "who")
    lines = out.splitlines()
    assert code == 0
    assert [line.split()[0] for line in lines[1:7]] == ["Ana", *VALUES[1:], "Boris", *VALUES[1:]]
    assert lines[-2].startswith("Ana: 9 texts, reliability unknown")


def test_differences_of_units_are_written_in_place_of_their_profiles(run, file):
    code, out, _ = run(file, "--unit", "who", "--compare", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    assert [(row["first"], row["second"], row["value"]) for row in rows] == [("Ana", "Boris", value) for value in VALUES]
    whole = json.loads(run(file, "--unit", "who", "--format", "json")[1])
    assert [float(row["difference"]) for row in rows] == [d["difference"] for d in whole["divergence"]]
    table = run(file, "--unit", "who", "--compare")[1].splitlines()
    assert table[1].startswith("Ana less Boris")
    assert "corrected" in table[-1]


def test_what_is_missing_says_why_in_every_format(run, tmp_path):
    rows = [*ROWS, ("Chen", "One text.", ""), ("Dora", UNJUDGEABLE, ""), ("", "whose?", ""), ("Ana", " ", "")]
    words = [said(tmp_path / "said.csv", rows), "--unit", "who", "--min-texts", 2]
    code, out, err = run(*words)
    assert code == 0
    assert "1 text concerns svt:power, min_texts is 2" in out
    assert "no usable order" in out
    assert err[0].startswith("2 of 22 rows left out")
    assert err[1] == "3 of 60 scores are missing (first: Dora svt:benevolence: no usable order)"
    rows = list(csv.DictReader(io.StringIO(run(*words, "--format", "csv")[1])))
    assert [(r["intensity"], "min_texts" in r["error"]) for r in rows if r["unit"] == "Chen"] == [("", True)] * 3


def test_a_person_with_one_text_has_its_score_or_a_reason(run, tmp_path):
    path = said(tmp_path / "one.csv", [("Chen", "One text.", "")])
    (row, *_) = json.loads(run(path, "--unit", "who", "--format", "json")[1])["rows"]
    assert (row["num_texts"], row["intensity"] is None, row["standard_error"]) == (1, False, None)
    (row, *_) = json.loads(run(path, "--unit", "who", "--min-texts", 5, "--format", "json")[1])["rows"]
    assert (row["intensity"], row["error"]) == (None, "1 text concerns svt:benevolence, min_texts is 5")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["said.csv", "--unit", "whom"], "error: said.csv has no column 'whom'; set --unit to one of: who, text, thread"),
        (["said.csv", "--unit", "who", "--thread", "t"], "error: said.csv has no column 't'; set --thread to one of"),
        (["A text.", "--unit", "who"], "error: --unit names a column of a csv, tsv, jsonl or parquet file, and 'A text.'"),
        (["none.csv", "--unit", "who"], "error: file 'none.csv' does not exist"),
        (["said.csv", "--compare"], "error: --compare lists the differences of every two of 2 to 8 units, and --unit names no"),
        (
            ["one.csv", "--unit", "who", "--compare"],
            "error: --compare lists the differences of every two of 2 to 8 units, and col",
        ),
        (["many.csv", "--unit", "who"], "error: many.csv has 1,200 texts of 2 units, and one request takes 1,000"),
        (["said.csv", "--unit", "who", "--trusted", "t.csv"], "error: --unit excludes --trusted"),
        (["said.csv", "--unit", "who", "--min-texts", "0"], "error: min_texts: Input should be greater than or equal to 1"),
        (["blank.csv", "--unit", "who"], "error: blank.csv holds no text of a unit"),
    ],
)
def test_bad_input_is_one_sentence(run, tmp_path, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    said(tmp_path / "said.csv")
    said(tmp_path / "one.csv", ROWS[:1])
    said(tmp_path / "many.csv", [(unit, f"{i}", "") for i in range(600) for unit in ("Ana", "Boris")])
    said(tmp_path / "blank.csv", [("", "", "")])
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert err[-1].startswith(sentence)
