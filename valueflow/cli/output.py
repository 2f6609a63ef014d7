"""Output of rows: an aligned table with bars on the intensity scale, CSV, JSON, or JSON lines."""

import re
import shutil
import textwrap
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self, TextIO

from valueflow.console import json_text, one_line, printable
from valueflow.records import LIMIT
from valueflow.tabular import CsvWriter

BAR = 21  # cells of a bar; odd, so that zero is a cell
DEFAULT_WIDTH = 120  # columns of a table that does not go to a terminal
MIN_TEXT_WIDTH = 16  # columns of the text column in a narrow terminal
# Background, zero, interval, intensity.
SYMBOLS, ASCII_SYMBOLS = "·│━●", ".|=o"
NUMBER = re.compile(r"[-+]?[\d.,]*")

Row = dict[str, Any]


class Screen(NamedTuple):
    """Capabilities of an output stream; `width` in columns."""

    terminal: bool
    width: int
    unicode: bool


Lines = Callable[[list[Row], Row, Screen], Iterator[str]]


def screen(stream: TextIO) -> Screen:
    """Return the capabilities of a stream."""
    try:
        SYMBOLS.encode(stream.encoding or "ascii")
        unicode = True
    except (UnicodeEncodeError, LookupError):
        unicode = False
    terminal = stream.isatty()
    return Screen(terminal, shutil.get_terminal_size().columns if terminal else DEFAULT_WIDTH, unicode)


class Sheet:
    """Writer of rows: CSV and JSON lines are written at once, tables and JSON on exit, also after an error.

    Args:
        format_: one of FORMATS.
        stream: output.
        lines: renders a table from the rows, `header` and the capabilities of the stream.
    """

    def __init__(self, format_: str, stream: TextIO, lines: Lines) -> None:
        self.header: Row = {}  # fields of the whole output, for JSON and tables
        self._format, self._stream, self._lines = format_, stream, lines
        self._rows: list[Row] = []
        self._csv = CsvWriter(self, "\n")
        self._begun = False

    def add(self, row: Row) -> None:
        """Add a row; all rows have the same fields."""
        if self._format == "csv":
            self._csv.rows([row.values()] if self._begun else [row.keys(), row.values()])
        elif self._format == "jsonl":
            self.write(json_text(row) + "\n")
        else:
            self._rows.append(row)
            return
        self._begun = True
        self._stream.flush()

    def write(self, text: str) -> None:
        """Write text; cells of CSV go into files as they are, and to terminals as they may be printed."""
        self._stream.write(printable(text) if self._stream.isatty() else text)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._format == "json" and (self._rows or not error):
            self.write(json_text(self.header | {"rows": self._rows}, indent=1) + "\n")
        elif self._format == "table" and (self._rows or not error):
            for line in self._lines(self._rows, self.header, screen(self._stream)):
                self.write(printable(line) + "\n")
        self._stream.flush()


def scores(rows: list[Row], header: Row, on: Screen) -> Iterator[str]:
    """Yield the table of scores; a text is printed with the first of its values only."""
    single_text, table = len({row["index"] for row in rows}) == 1, []
    for before, row in zip([None, *rows], rows, strict=False):
        text = "" if single_text or (before and before["index"] == row["index"]) else row["text"]
        relevance = {"relevance": row["relevance"]}
        counts = {"windows": row["num_windows"] or "", "failed": row["num_failed"] or "", "error": row["error"]}
        table.append({"text": text, "value": row["value"], **intensity_cells(row, on), **relevance, **counts})
    yield from aligned(table, on, "error" if single_text else "text")
    yield from provenance(header)


def comparisons(rows: list[Row], header: Row, on: Screen) -> Iterator[str]:
    """Yield the table of a comparison."""
    table = []
    for row in rows:
        sides = {side: {name: row[f"{side}_{name}"] for name in ("intensity", "low", "high")} for side in ("first", "second")}
        both = {side: f"{signed(of['intensity'])} {interval(of)}" for side, of in sides.items()}
        error = row["first_error"] or row["second_error"]
        table.append({"value": row["value"], "P(first is higher)": digits(row["probability"], "-"), **both, "error": error})
    yield from aligned(table, on, "error")
    yield from provenance(header)


def profiles(rows: list[Row], header: Row, on: Screen) -> Iterator[str]:
    """Yield the table of profiles; a unit is printed with the first of its values only."""
    table = []
    for before, row in zip([None, *rows], rows, strict=False):
        corrected = "method" in row
        trusted = {"trusted": row["num_trusted"], "judge's weight": f"{row['judge_weight']:.2f}"} if corrected else {}
        unit = row.get("unit", "")
        table.append(
            {
                "unit": "" if before and before.get("unit", "") == unit else unit,
                "value": row["value"],
                **intensity_cells(row, on),
                "texts": row["num_texts"],
                "left out": row.get("num_left_out") or "",
                **trusted,
                "band": row["band"],
                "missing": (row.get("error") or "no text has a score") if row["intensity"] is None else "",
            }
        )
    yield from aligned(table, on, "missing" if any(row["missing"] for row in table) else "value")
    yield from provenance(header)
    yield from map(_reliable, header.get("units", []))
    if any(row.get("num_left_out") for row in rows):
        yield "left out: texts that hardly concern the value (relevance below --min-relevance)"
    if rows and "method" in rows[0]:
        yield f"{rows[0]['method']} means: trusted scores of a random subset, and the judge's of all texts by its weight"


def _reliable(unit: Row) -> str:
    """What holds for the whole profile of a unit."""
    known = unit["reliability"] is not None
    words = f"reliability over values {digits(unit['reliability'])}" if known else "reliability unknown (it needs 4 values)"
    peak = f", peak of the circle at {unit['peak']} (R² {digits(unit['wave_r2'])})" if unit["peak"] else ""
    return f"{unit['unit'] or 'profile'}: {unit['num_texts']:,} text{'s' * (unit['num_texts'] != 1)}, {words}{peak}"


def divergences(rows: list[Row], header: Row, on: Screen) -> Iterator[str]:
    """Yield the table of differences of units; a pair is printed with the first of its values only."""
    table = []
    for before, row in zip([None, *rows], rows, strict=False):
        pair = f"{row['first']} less {row['second']}"
        same = before and (before["first"], before["second"]) == (row["first"], row["second"])
        numbers = {"difference": signed(row["difference"]), "95 % interval": interval(row), "p (Holm)": _p(row["p"])}
        table.append({"units": "" if same else pair, "value": row["value"], **numbers})
    yield from aligned(table, on, "units")
    yield from provenance(header)
    yield "intervals hold for all values of a pair together; p values are corrected for all values and pairs"


def _p(p: float | None) -> str:
    return "missing" if p is None else "< 0.01" if p < 0.01 else digits(p)


def nodes(rows: list[Row], header: Row, on: Screen) -> Iterator[str]:
    """Yield the table of extracted nodes."""
    single_text, table = len({row["index"] for row in rows}) == 1, []
    for before, row in zip([None, *rows], rows, strict=False):
        text = "" if single_text or (before and before["index"] == row["index"]) else row["text"]
        numbers = {name: row[name] for name in ("confidence", "distance")}
        direction = {1: "supports", -1: "opposes", 0: ""}[row["direction"]]
        table.append({"text": text, "theory": row["theory"], "path": row["path"], "direction": direction, **numbers})
    yield from aligned(table, on, "path" if single_text else "text")
    yield f"\nmodel {header['model']}"


def definitions(rows: list[Row], _: Row, on: Screen) -> Iterator[str]:
    """Yield the table of values."""
    table = [{"value": r["id"], "scored": "yes" if r["scored"] else "", "definition": r["definition"]} for r in rows]
    yield from aligned(table, on, "definition")


def definition(rows: list[Row], header: Row, on: Screen) -> Iterator[str]:
    """Yield a value's definition, its paths in the theory, and example anchors."""
    yield f"{header['id']}  {header['name']}"
    details = [header["definition"], *(f"{name}: {header[name]}" for name in ("supports", "opposes") if header[name])]
    for paragraph in [*details, *("path: " + " > ".join(path) for path in header["paths"])]:
        yield textwrap.fill(paragraph, on.width, subsequent_indent="  ")
    if rows:
        yield ""
        table = [
            {"text": row["text"], **intensity_cells(row, on), "source": row["source"], "license": row["license"]}
            for row in rows
        ]
        yield from aligned(table, on, "text")
    elif not header["scored"]:
        yield "no anchors in this VIDB: texts are not scored on it"


def plan(rows: list[Row], _: Row, on: Screen) -> Iterator[str]:
    """Yield the calls that a command would take."""
    yield from aligned(rows, on, "calls")
    if any(row["relevance"] for row in rows):
        yield "relevance: whether each text concerns each value, once; a judge that is no LLM knows it at no cost"
    if any(row["sharpness"] for row in rows):
        yield "sharpness: calls about anchors alone, since the judge did not build the VIDB; their result is kept"
    yield "dry run: nothing was asked"


def versions(rows: list[Row], _: Row, on: Screen) -> Iterator[str]:
    """Yield the table of versions."""
    yield from aligned(rows, on, "judge") if rows else ["no version is finished"]


def version(rows: list[Row], header: Row, on: Screen) -> Iterator[str]:
    """Yield the provenance of a version and its values."""
    for name, content in header.items():
        if isinstance(content, dict):
            content = ", ".join(f"{key} {digits(number)}" for key, number in content.items())
        elif isinstance(content, list):
            content = ", ".join(map(str, content))
        yield f"{name}: {digits(content)}"
    yield ""
    yield from aligned(rows, on, "value")


def provenance(header: Row) -> Iterator[str]:
    """Yield the provenance of scores and, for mode fast, its agreement with the VIDB."""
    settings = ", ".join(f"{name} {header[name]}" for name in ("k", "m", "sampling", "seed") if header[name] is not None)
    yield f"\njudge {header['judge']}, VIDB {header['vidb_version']}, mode {header['mode']}{', ' if settings else ''}{settings}"
    yield from rests_on(header.get("rests_on") or {})
    if header.get("agreement"):
        ranges = []
        for name, words in (("spearman", "rank correlation"), ("mean_absolute_error", "mean error"), ("coverage", "coverage")):
            numbers = sorted(of[name] for of in header["agreement"] if of[name] is not None)
            if numbers:
                low, high = digits(numbers[0]), digits(numbers[-1])
                ranges.append(f"{words} {low}" + (f" to {high}" if high != low else ""))
        yield f"agreement of mode fast with the VIDB on held-out texts: {', '.join(ranges)}"


def rests_on(sources: Mapping[str, str]) -> Iterator[str]:
    """Yield what the intervals rest on, each source once, with its values where there are several sources."""
    by_source: dict[str, list[str]] = {}
    for value, source in sources.items():
        by_source.setdefault(source, []).append(value)
    for source, values in by_source.items():
        yield f"intervals: {source}" + (f" ({', '.join(values)})" if len(by_source) > 1 else "")


def bar(intensity: float | None, low: float | None, high: float | None, unicode: bool) -> str:
    """Return an intensity and its interval as a bar over [-10, 10]."""
    background, zero, within, point = tuple(SYMBOLS if unicode else ASCII_SYMBOLS)
    cells = [background] * BAR
    cells[BAR // 2] = zero
    if intensity is None:
        return "".join(cells)
    if low is not None and high is not None:
        for cell in range(_cell(low), _cell(high) + 1):
            cells[cell] = within
    cells[_cell(intensity)] = point
    return "".join(cells)


def intensity_cells(row: Row, on: Screen) -> Row:
    """Return the cells of an intensity: the number, its interval and, in a terminal, a bar."""
    cells = {"intensity": signed(row["intensity"]), "95 % interval": interval(row)}
    return cells | (
        {"-10       0       +10": bar(row["intensity"], row["low"], row["high"], on.unicode)} if on.terminal else {}
    )


def digits(content: Any, missing: str = "") -> str:
    """Return a cell as people read it: two decimals, thousands with commas, words as they are, `missing` for None."""
    if content is None:
        return missing
    if isinstance(content, float):
        return f"{round(content, 2) + 0.0:,.2f}"  # no -0.00
    return f"{content:,}" if isinstance(content, int) and not isinstance(content, bool) else str(content)


def signed(number: float | None) -> str:
    """Return an intensity with its sign and two decimals."""
    return "-" if number is None else f"{round(number, 2) + 0.0:+.2f}"


def interval(row: Row) -> str:
    """Return the interval of an intensity, "" if there is none."""
    return "" if row["low"] is None else f"[{signed(row['low'])}, {signed(row['high'])}]"


def aligned(rows: list[Row], on: Screen, stretch: str) -> Iterator[str]:
    """Yield the lines of a table; empty columns are left out, and column `stretch` is truncated to fit the width."""
    if not rows:
        return
    names = [name for name in rows[0] if any(row[name] not in ("", None) for row in rows)]
    cells = [{name: one_line(digits(row[name])) for name in names} for row in rows]
    widths = {name: max(_width(name), *(_width(row[name]) for row in cells)) for name in names}
    if stretch in widths:
        others = sum(widths.values()) - widths[stretch] + 2 * (len(names) - 1)
        widths[stretch] = min(widths[stretch], max(MIN_TEXT_WIDTH, on.width - others))
    right = {name for name in names if all(NUMBER.fullmatch(row[name]) for row in cells)}
    for row in [dict(zip(names, names, strict=True)), *cells]:
        padded = (_padded(_truncate(row[name], widths[name], on.unicode), widths[name], name in right) for name in names)
        yield "  ".join(padded).rstrip()


def _cell(intensity: float) -> int:
    return round((min(max(intensity, -LIMIT), LIMIT) + LIMIT) / (2 * LIMIT) * (BAR - 1))


def _width(text: str) -> int:
    """Display width in columns: wide characters take two, combining ones and invisible marks none."""
    return sum(
        0
        if unicodedata.combining(char) or unicodedata.category(char) == "Cf"
        else 1 + (unicodedata.east_asian_width(char) in "WF")
        for char in text
    )


def _truncate(text: str, width: int, unicode: bool) -> str:
    if _width(text) <= width:
        return text
    ellipsis = "…" if unicode else "..."
    while _width(text) > width - len(ellipsis):
        text = text[: max(0, min(len(text) - 1, width))]
    return text + ellipsis


def _padded(text: str, width: int, right: bool) -> str:
    blanks = " " * (width - _width(text))
    return blanks + text if right else text + blanks
