"""Records of CSV and TSV text: quotes are read strictly, so that no broken row is taken for another; a bare NaN is null."""

import csv
import io
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TextIO

NAN = frozenset(("nan", "NaN"))
ESCAPED = '\\"'
# Writers of CSV, ours too, put it before texts that a spreadsheet would run as formulas, and before texts that look guarded.
GUARD = "'"
GUARDED = re.compile(r"'*(?:[ \t\r\n]*[=+\-@]|[\t\r])")


class Record(NamedTuple):
    """A record on lines `start` to `end`: its cells, or why it cannot be parsed."""

    start: int
    end: int
    cells: list[str] | list[str | None] | str


class Records:
    """The records after the header.

    Args:
        stream: the text, opened with newline="".
        delimiter: the sign between cells.
        quoted: whether `"` quotes cells.

    Raises:
        csv.Error: the header cannot be parsed.
    """

    def __init__(self, stream: TextIO, delimiter: str, quoted: bool) -> None:
        self._options: dict[str, Any] = {
            "delimiter": delimiter, "quoting": csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE, "strict": True,
        }  # fmt: skip
        self._quoted_nan = re.compile(rf'(?<![^{delimiter}\r\n])"(?:nan|NaN)"(?=[{delimiter}\r\n]|$)') if quoted else None
        self._guarded = quoted and delimiter == ","
        self._lines = _Lines(stream)
        self._reader = csv.reader(self._lines, **self._options)
        self.header: list[str] = next(self._reader, [])

    def __iter__(self) -> Iterator[Record]:
        while True:
            start = self._lines.number + 1
            self._lines.record.clear()
            try:
                cells = next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                reason = self._skip(str(error))
                yield Record(start, self._lines.number, reason)
            else:
                read = cells if NAN.isdisjoint(cells) else self._with_nulls(cells)
                yield Record(start, self._lines.number, list(map(unguarded, read)) if self._guarded else read)

    def _skip(self, error: str) -> str:
        """Go to the end of a record that cannot be parsed, and return why it cannot."""
        is_long, is_escaped = error.startswith("field larger"), any(ESCAPED in line for line in self._lines.record)
        if is_long or is_escaped:  # the lines up to the closing quote are no rows
            self._lines.skip_quotes()
        hint = "" if is_long else "; a quote inside quotes is written twice" + (", not with a backslash" if is_escaped else "")
        return f"row cannot be parsed: {error}{hint}"

    def _with_nulls(self, cells: list[str]) -> list[str | None]:
        """The cells with null for each bare NaN: those that are still there when the quoted ones are another word."""
        if self._quoted_nan is None:
            return [None if cell in NAN else cell for cell in cells]
        marked = self._quoted_nan.sub('"-"', "".join(self._lines.record))
        words = next(csv.reader(io.StringIO(marked, newline=""), **self._options))
        return [None if word in NAN else cell for cell, word in zip(cells, words, strict=True)]


def unguarded(cell: str | None) -> str | None:
    """Return a cell without the apostrophe that keeps spreadsheets from running it."""
    return cell[1:] if cell and cell[0] == GUARD and GUARDED.match(cell) else cell


class _Lines:
    """The lines of a stream; `number` of them were read, `record` holds those of the record at hand."""

    def __init__(self, stream: Iterable[str]) -> None:
        self.number = 0
        self.record: list[str] = []
        self._stream = iter(stream)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._stream)
        self.number += 1
        self.record.append(line)
        return line

    def skip_quotes(self) -> None:
        """Go to the line that closes the quotes of the record; a quote after a backslash does not count."""
        is_open = sum(map(_num_quotes, self.record)) % 2
        while is_open and (line := next(self, "")):
            is_open ^= _num_quotes(line) % 2
            self.record.clear()


def _num_quotes(line: str) -> int:
    return line.replace(ESCAPED, "").count('"')
