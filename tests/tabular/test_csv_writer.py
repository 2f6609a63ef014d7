"""CSV: no cell is a formula in a spreadsheet, and the reader returns exactly what was written."""

import ast
import csv
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from valueflow.tabular import CsvWriter, csv_text, rows, strict_rows

FORMULAS = [
    "=1+1",
    "+1+1",
    "-1+1",
    "@SUM(A1)",
    "\t=1+1",
    "\r=1+1",
    " =1+1",
    "\n=1+1",
    '=HYPERLINK("http://a","b")',
    "-- said I",
    "-",
]
TEXTS = [
    *FORMULAS, "'=1+1", "''=1+1", "'-5", "'quoted' words", "'", "nan", "NaN", "null", "NA", "", " ", "a,b", 'a "b"', "a\r\nb",
    "a\rb", "1e5", "-5", "+.5", "-1.25e-3", "é 诚实 🌱", "\ufeffa", "a;=1+1",
]  # fmt: skip


def read_back(folder: Path, content: str, names: list[str]) -> list[list[object]]:
    (folder / "a.csv").write_bytes(content.encode())
    return [[row.fields[name] for name in names] for row in rows(str(folder / "a.csv"), names)]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_text_that_a_spreadsheet_would_run_gets_an_apostrophe(text):
    ((cell, number),) = csv.reader(io.StringIO(csv_text(["text", "n"], [[text, -2.5]]).partition("\r\n")[2], newline=""))
    assert cell == f"'{text}"
    assert number == "-2.5"


@pytest.mark.parametrize("number", ["-5", "+.5", "-1.25e-3", "-3.", "+7E+2"])
def test_a_number_keeps_its_sign(number):
    assert csv_text(["n"], [[number], [float(number)]]) == f"n\r\n{number}\r\n{float(number)}\r\n"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_reader_returns_what_was_written(tmp_path, end):
    stream = io.StringIO(newline="")
    CsvWriter(stream, end).rows([["n", "text", "last"], *([n, text, text] for n, text in enumerate(TEXTS))])
    assert read_back(tmp_path, stream.getvalue(), ["n", "text", "last"]) == [[str(n), t, t] for n, t in enumerate(TEXTS)]
    assert [row.fields["text"] for row in strict_rows(str(tmp_path / "a.csv"), ["text"])] == TEXTS
    alone = [[text] for text in TEXTS]
    assert read_back(tmp_path, csv_text(["text"], alone), ["text"]) == alone


@settings(deadline=None, max_examples=200)
@given(text=st.text(st.characters(codec="utf-8"), max_size=8) | st.text("'=+-@ \t\r\n\"0.e5,na", max_size=6))
def test_every_text_is_read_back(tmp_path_factory, text):
    folder = tmp_path_factory.getbasetemp()
    assert read_back(folder, csv_text(["a", "b"], [[text, "x"]]), ["a", "b"]) == [[text, "x"]]


def test_null_is_an_empty_cell_and_a_text_nan_is_no_null(tmp_path):
    assert csv_text(["a", "b"], [[None, "nan"]]) == 'a,b\r\n,"nan"\r\n'
    assert read_back(tmp_path, csv_text(["a", "b"], [[float("nan"), "nan"]]), ["a", "b"]) == [[None, "nan"]]


def test_a_tsv_and_other_formats_keep_their_apostrophes(tmp_path):
    (tmp_path / "a.tsv").write_text("text\n'=1\n")
    (tmp_path / "a.jsonl").write_text('{"text": "\'=1"}\n')
    for name in ("a.tsv", "a.jsonl"):
        assert [row.fields["text"] for row in strict_rows(str(tmp_path / name), ["text"])] == ["'=1"]


def test_nothing_else_writes_csv():
    source = Path(__file__).parents[2]
    for path in (path for room in ("valueflow", "serve", "jobs") for path in (source / room).rglob("*.py")):
        names = {ast.unparse(node) for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Attribute)}
        assert not names & {"csv.writer", "csv.DictWriter"}, path


def test_a_tab_separates_and_is_quoted_and_other_programs_read_formulas_as_they_are(tmp_path):
    text = csv_text(["unit", "note"], [["=1+1", "a\tb"], ["x", "a,b"]], separator="\t", end="\n")
    assert text == 'unit\tnote\n=1+1\t"a\tb"\nx\t"a,b"\n'
    (tmp_path / "a.tsv").write_text(text, "utf-8")
    assert [row.fields for row in rows(str(tmp_path / "a.tsv"), ["unit", "note"])] == [
        {"unit": "=1+1", "note": "a\tb"}, {"unit": "x", "note": "a,b"},
    ]  # fmt: skip
