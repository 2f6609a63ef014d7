"""Rows for people and programs: an aligned table with bars on the scale of intensity, CSV, JSON, or JSON lines."""

import csv
import json
import re
import shutil
import textwrap
import unicodedata
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, NamedTuple, Self, TextIO

from valueflow.records import LIMIT

BAR = 21  # cells of a bar; odd, so that zero has one
PAPER = 120  # columns of a table that no terminal shows
NARROWEST = 16  # columns that the text of a table keeps in a narrow terminal
# Background, zero, interval, intensity.
SIGNS, ASCII_SIGNS = "·│━●", ".|=o"
NUMBER = re.compile(r"[-+]?[\d.,]*")

Row = dict[str, Any]


class Screen(NamedTuple):
    """What a stream can show."""

    terminal: bool
    width: int
    unicode: bool


Lines = Callable[[list[Row], Row, Screen], Iterator[str]]


def screen(stream: TextIO) -> Screen:
    """Return what a stream can show."""
    try:
        SIGNS.encode(stream.encoding or "ascii")
        unicode = True
    except (UnicodeEncodeError, LookupError):
        unicode = False
    terminal = stream.isatty()
    return Screen(terminal, shutil.get_terminal_size().columns if terminal else PAPER, unicode)


class Sheet:
    """Rows on their way out: CSV and JSON lines go as they come, the rest when the sheet is left, however it is left.

    Args:
        kind: one of FORMATS.
        stream: where rows go.
        lines: the lines of the table, from the rows, `made`, and what the stream can show.
    """

    def __init__(self, kind: str, stream: TextIO, lines: Lines) -> None:
        self.made: Row = {}
        self._kind, self._stream, self._lines = kind, stream, lines
        self._rows: list[Row] = []
        self._csv = csv.writer(stream, lineterminator="\n")
        self._begun = False

    def add(self, row: Row) -> None:
        """Take a row; all have the same fields."""
        if self._kind == "csv":
            self._csv.writerows([row.values()] if self._begun else [row.keys(), row.values()])
        elif self._kind == "jsonl":
            self._stream.write(json.dumps(row, ensure_ascii=False) + "\n")
        else:
            self._rows.append(row)
            return
        self._begun = True
        self._stream.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._kind == "json" and (self._rows or not error):
            self._stream.write(json.dumps(self.made | {"rows": self._rows}, ensure_ascii=False, indent=1) + "\n")
        elif self._kind == "table" and (self._rows or not error):
            self._stream.writelines(f"{line}\n" for line in self._lines(self._rows, self.made, screen(self._stream)))
        self._stream.flush()


def scores(rows: list[Row], made: Row, on: Screen) -> Iterator[str]:
    """Yield the table of scores; a text stands beside the first of its values."""
    one, shown = len({row["index"] for row in rows}) == 1, []
    for before, row in zip([None, *rows], rows, strict=False):
        text = "" if one or (before and before["index"] == row["index"]) else row["text"]
        counts = {"windows": row["num_windows"] or "", "failed": row["num_failed"] or "", "error": row["error"]}
        shown.append({"text": text, "value": row["value"], **measured(row, on), **counts})
    yield from aligned(shown, on, "error" if one else "text")
    yield from made_by(made)


def comparisons(rows: list[Row], made: Row, on: Screen) -> Iterator[str]:
    """Yield the table of a comparison."""
    shown = []
    for row in rows:
        sides = {side: {name: row[f"{side}_{name}"] for name in ("intensity", "low", "high")} for side in ("first", "second")}
        both = {side: f"{signed(of['intensity'])} {interval(of)}" for side, of in sides.items()}
        chance = "-" if row["probability"] is None else f"{row['probability']:.2f}"
        error = row["first_error"] or row["second_error"]
        shown.append({"value": row["value"], "P(first is higher)": chance, **both, "error": error})
    yield from aligned(shown, on, "error")
    yield from made_by(made)


def profiles(rows: list[Row], made: Row, on: Screen) -> Iterator[str]:
    """Yield the table of a profile."""
    shown = [{"value": r["value"], **measured(r, on), "texts": r["num_texts"], "band": r["band"]} for r in rows]
    yield from aligned(shown, on, "value")
    yield from made_by(made)


def nodes(rows: list[Row], made: Row, on: Screen) -> Iterator[str]:
    """Yield the table of extracted nodes."""
    one, shown = len({row["index"] for row in rows}) == 1, []
    for before, row in zip([None, *rows], rows, strict=False):
        text = "" if one or (before and before["index"] == row["index"]) else row["text"]
        numbers = {name: f"{row[name]:.2f}" for name in ("confidence", "distance")}
        said = {1: "supports", -1: "opposes", 0: ""}[row["direction"]]
        shown.append({"text": text, "theory": row["theory"], "path": row["path"], "direction": said, **numbers})
    yield from aligned(shown, on, "path" if one else "text")
    yield f"\nmodel {made['model']}"


def definitions(rows: list[Row], _: Row, on: Screen) -> Iterator[str]:
    """Yield the table of values."""
    shown = [{"value": r["id"], "scored": "yes" if r["scored"] else "", "definition": r["definition"]} for r in rows]
    yield from aligned(shown, on, "definition")


def meaning(rows: list[Row], made: Row, on: Screen) -> Iterator[str]:
    """Yield what a value means, where it stands, and examples along its scale."""
    yield f"{made['id']}  {made['name']}"
    said = [made["definition"], *(f"{name}: {made[name]}" for name in ("supports", "opposes") if made[name])]
    for words in [*said, *("place: " + " > ".join(path) for path in made["paths"])]:
        yield textwrap.fill(words, on.width, subsequent_indent="  ")
    if rows:
        yield ""
        shown = [{"text": row["text"], **measured(row, on), "source": row["source"], "license": row["license"]} for row in rows]
        yield from aligned(shown, on, "text")
    elif not made["scored"]:
        yield "no anchors in this VIDB: texts are not scored on it"


def versions(rows: list[Row], _: Row, on: Screen) -> Iterator[str]:
    """Yield the table of versions."""
    yield from aligned(rows, on, "judge") if rows else ["no version is finished"]


def version(rows: list[Row], made: Row, on: Screen) -> Iterator[str]:
    """Yield what a version was made from, and the values it holds."""
    for name, content in made.items():
        if isinstance(content, dict):
            content = ", ".join(f"{key} {number:,}" if isinstance(number, int) else key for key, number in content.items())
        elif isinstance(content, list):
            content = ", ".join(map(str, content))
        yield f"{name}: {content}"
    yield ""
    yield from aligned(rows, on, "value")


def made_by(made: Row) -> Iterator[str]:
    """Yield what made the numbers, and for mode fast how far it can be trusted."""
    how = ", ".join(f"{name} {made[name]}" for name in ("k", "m", "sampling", "seed") if made[name] is not None)
    yield f"\njudge {made['judge']}, VIDB {made['vidb_version']}, mode {made['mode']}{', ' if how else ''}{how}"
    if made.get("agreement"):
        spans = []
        for name, words in (("spearman", "rank correlation"), ("mean_absolute_error", "mean error"), ("coverage", "coverage")):
            told = sorted(of[name] for of in made["agreement"] if of[name] is not None)
            if told:
                spans.append(f"{words} {told[0]:.2f}" + (f" to {told[-1]:.2f}" if told[-1] > told[0] else ""))
        yield f"mode fast against the VIDB, on texts it has not seen: {', '.join(spans)}"


def bar(intensity: float | None, low: float | None, high: float | None, unicode: bool) -> str:
    """Return an intensity and its interval as a bar from -10 to 10."""
    background, zero, within, point = tuple(SIGNS if unicode else ASCII_SIGNS)
    cells = [background] * BAR
    cells[BAR // 2] = zero
    if intensity is None:
        return "".join(cells)
    if low is not None and high is not None:
        for at in range(_cell(low), _cell(high) + 1):
            cells[at] = within
    cells[_cell(intensity)] = point
    return "".join(cells)


def measured(row: Row, on: Screen) -> Row:
    """Return the cells of an intensity: the number, its interval, and in a terminal the bar."""
    cells = {"intensity": signed(row["intensity"]), "95 % interval": interval(row)}
    return cells | (
        {"-10       0       +10": bar(row["intensity"], row["low"], row["high"], on.unicode)} if on.terminal else {}
    )


def signed(number: float | None) -> str:
    """Return an intensity as people read it."""
    return "-" if number is None else f"{round(number, 1) + 0.0:+.1f}"  # no -0.0


def interval(row: Row) -> str:
    """Return the interval of an intensity as people read it."""
    return "" if row["low"] is None else f"[{signed(row['low'])}, {signed(row['high'])}]"


def aligned(rows: list[Row], on: Screen, stretch: str) -> Iterator[str]:
    """Yield the lines of a table; a column without content is left out, `stretch` is cut to what the width leaves for it."""
    if not rows:
        return
    names = [name for name in rows[0] if any(row[name] not in ("", None) for row in rows)]
    cells = [{name: _plain("" if row[name] is None else str(row[name])) for name in names} for row in rows]
    widths = {name: max(_width(name), *(_width(row[name]) for row in cells)) for name in names}
    if stretch in widths:
        others = sum(widths.values()) - widths[stretch] + 2 * (len(names) - 1)
        widths[stretch] = min(widths[stretch], max(NARROWEST, on.width - others))
    right = {name for name in names if all(NUMBER.fullmatch(row[name]) for row in cells)}
    for row in [dict(zip(names, names, strict=True)), *cells]:
        padded = (_padded(_cut(row[name], widths[name], on.unicode), widths[name], name in right) for name in names)
        yield "  ".join(padded).rstrip()


def _cell(intensity: float) -> int:
    return round((min(max(intensity, -LIMIT), LIMIT) + LIMIT) / (2 * LIMIT) * (BAR - 1))


def _plain(text: str) -> str:
    """The text on one line, without signs that could steer a terminal."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in " ".join(text.split()))


def _width(text: str) -> int:
    """Columns that a text takes: wide signs take two, marks that join the sign before them none."""
    return sum(0 if unicodedata.combining(sign) else 1 + (unicodedata.east_asian_width(sign) in "WF") for sign in text)


def _cut(text: str, width: int, unicode: bool) -> str:
    if _width(text) <= width:
        return text
    mark = "…" if unicode else "..."
    while _width(text) > width - len(mark):
        text = text[: max(0, min(len(text) - 1, width))]
    return text + mark


def _padded(text: str, width: int, right: bool) -> str:
    blanks = " " * (width - _width(text))
    return blanks + text if right else text + blanks
