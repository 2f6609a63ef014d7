"""Output for people: bars, aligned columns, and the capabilities of streams."""

import csv
import io
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from valueflow.cli import output
from valueflow.cli.output import BAR, Screen, Sheet, aligned, bar, intensity_cells, screen, signed

SCREEN = Screen(terminal=False, width=120, unicode=True)
POINTS = st.floats(-10, 10)


@pytest.mark.parametrize(
    ("scored", "expected"),
    [
        ((0.0, -2.0, 2.0), "········━━●━━········"),
        ((7.0, 6.0, 9.6), "··········│·····━●━━━"),
        ((-10.0, -10.0, -10.0), "●·········│··········"),
        ((10.0, None, None), "··········│·········●"),
        ((None, None, None), "··········│··········"),
    ],
)
def test_a_bar_shows_intensity_and_interval_on_the_scale(scored, expected):
    assert bar(*scored, unicode=True) == expected
    assert bar(*scored, unicode=False) == expected.translate(str.maketrans("·│━●", ".|=o"))


@given(st.tuples(POINTS, POINTS, POINTS).map(sorted))
def test_a_bar_is_one_run_around_its_point(scored):
    low, intensity, high = scored
    drawn = bar(intensity, low, high, unicode=False)
    assert len(drawn) == BAR
    run = drawn.strip(".|")
    assert run.count("o") == 1
    assert set(run) <= {"o", "="}


def test_columns_are_aligned_numbers_at_the_right_and_empty_ones_left_out():
    rows = [{"text": "aå", "n": "5", "error": None}, {"text": "我们", "n": "+10.5", "error": ""}]
    assert list(aligned(rows, SCREEN, "text")) == ["text      n", "aå        5", "我们  +10.5"]
    assert list(aligned([], SCREEN, "text")) == []


@pytest.mark.parametrize(("unicode", "cut"), [(True, "We looked after…"), (False, "We looked aft...")])
def test_a_narrow_terminal_cuts_the_text_and_nothing_else(unicode, cut):
    rows = [{"text": "We looked after the children", "value": "svt:benevolence"}]
    narrow = Screen(terminal=True, width=20, unicode=unicode)
    assert list(aligned(rows, narrow, "text"))[1].split("  ") == [cut + " " * (16 - len(cut)), "svt:benevolence"]
    wide = [{"text": "我们照顾了邻居的孩子", "n": "1"}]
    assert list(aligned(wide, narrow._replace(unicode=True), "text"))[1] == "我们照顾了邻居的…  1"


def test_control_characters_do_not_reach_the_terminal():
    assert list(aligned([{"text": "a\n\tb\x1b[2J\u202e"}], SCREEN, "text")) == ["text", "a b\ufffd[2J\ufffd"]


def test_zero_has_no_minus():
    assert [signed(number) for number in (-0.004, 0.004, -0.006, None)] == ["+0.00", "+0.00", "-0.01", "-"]
    assert "[-1.00, +0.00]" in intensity_cells({"intensity": -0.5, "low": -1.0, "high": -0.001}, SCREEN).values()


NUMBERS = st.sampled_from([1e-05, -3.3e-17, 0.1 + 0.2, 9.999999999999998, 1 / 3])
COUNTS = st.sampled_from([0, 7, 1234, 1234567])


@st.composite
def tables(draw):
    """A table of the command, with its rows and header."""
    number, count = draw(NUMBERS), draw(COUNTS)
    scored = {"intensity": number, "low": draw(NUMBERS), "high": draw(NUMBERS)}
    windows = {"relevance": draw(NUMBERS | st.none()), "num_windows": count, "num_failed": draw(COUNTS), "error": None}
    provenance = {"judge": "j", "vidb_version": "v", "mode": "ranked", "k": 6, "m": 3, "sampling": "fixed", "seed": 2**31 - 1}
    agreement = [{"spearman": number, "mean_absolute_error": number, "coverage": number}]
    anchors = {"text": "a", "source": "s", "license": "l"}
    sides = {f"{side}_{name}": cell for side in ("first", "second") for name, cell in (scored | windows).items()}
    node = {"theory": "svt", "path": "a > b", "direction": 1, "confidence": number, "distance": draw(NUMBERS)}
    value = {"id": "svt:a", "name": "A", "definition": "d", "supports": "", "opposes": "", "paths": [["a"]], "scored": True}
    listed = {"version": "v", "created": "2026", "texts": count, "values": count, "judge": "j", "current": ""}
    header = {"version": "v", "num_texts": count, "licenses": {"MIT": count}, "share": number, "lineage": ["a"]}
    tables = [
        (output.scores, {"index": 0, "text": "a", "value": "svt:a"} | scored | windows, provenance | {"agreement": agreement}),
        (output.comparisons, {"value": "svt:a", "probability": number, **sides}, provenance),
        (output.profiles, {"value": "svt:a", **scored, "num_texts": count, "num_left_out": count, "band": "low"}, provenance),
        (output.nodes, {"index": 0, "text": "a", **node}, {"model": "m"}),
        (output.definition, anchors | scored, value),
        (output.plan, {"texts": count, "values": 3, "windows": count, "relevance": count, "sharpness": 0, "calls": count}, {}),
        (output.versions, listed, {}),
        (output.version, {"value": "svt:a", "anchors": count}, header),
    ]  # fmt: skip
    return draw(st.sampled_from(tables))


@given(tables(), st.booleans())
def test_tables_have_the_digits_that_people_read(table, terminal):
    lines, row, header = table
    shown = "\n".join(
        line for line in lines([row], header, SCREEN._replace(terminal=terminal)) if not line.startswith("\njudge")
    )
    assert not re.search(r"\d\.\d{3}|\de[-+]\d|\.\d\b", shown), shown
    assert not re.search(r"\d{4}", shown.replace("2026", "")), shown
    for name in ("low", "confidence", "probability"):
        if name in row:
            assert f"{row[name] + 0.0:.2f}".replace("-0.00", "0.00") in shown
    if "texts" in row:
        assert f"{row['texts']:,}" in shown


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1), st.sampled_from(["csv", "json", "jsonl"]))
def test_files_keep_every_digit(numbers, format_):
    stream = io.StringIO()
    with Sheet(format_, stream, output.scores) as sheet:
        for number in numbers:
            sheet.add({"intensity": number, "windows": 1234567})
    text = stream.getvalue()
    rows = (
        json.loads(text)["rows"]
        if format_ == "json"
        else [json.loads(line) for line in text.splitlines() if format_ == "jsonl"]
    )
    rows = rows or list(csv.DictReader(io.StringIO(text)))
    assert [(float(row["intensity"]), int(row["windows"])) for row in rows] == [(number, 1234567) for number in numbers]


@pytest.mark.parametrize(("encoding", "unicode"), [("utf-8", True), ("ascii", False), ("latin-1", False)])
def test_capabilities_of_a_stream(encoding, unicode):
    capabilities = screen(io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    assert capabilities == Screen(terminal=False, width=120, unicode=unicode)
    assert len(intensity_cells({"intensity": 1.0, "low": 0.0, "high": 2.0}, capabilities)) == 2  # no bar
    assert len(intensity_cells({"intensity": 1.0, "low": 0.0, "high": 2.0}, capabilities._replace(terminal=True))) == 3


@pytest.mark.parametrize(
    ("format_", "expected"),
    [
        ("csv", 'a,b\n1,"x ""y"""\n'),
        ("jsonl", '{"a": 1, "b": "x \\"y\\""}\n'),
        ("json", '{\n "judge": "j",\n "rows": [\n  {\n   "a": 1,\n   "b": "x \\"y\\""\n  }\n ]\n}\n'),
        ("table", "1 row by j\n"),
    ],
)
def test_rows_before_an_error_are_written(format_, expected):
    stream = io.StringIO()

    def interrupted() -> None:
        with Sheet(format_, stream, lambda rows, header, _: iter([f"{len(rows)} row by {header['judge']}"])) as sheet:
            sheet.header = {"judge": "j"}
            sheet.add({"a": 1, "b": 'x "y"'})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert stream.getvalue() == expected
