"""The one writer of CSV. Spreadsheets must not run a text as a formula, and the reader must return what was written.

A text that begins like a formula is written with an apostrophe in front; the reader of CSV takes it away (`unguarded`).
The page of the server writes its files by the same rule (`csvCell` in serve/page.html). TSV files are for other programs,
which know no such apostrophe: neither the writer nor the reader has one there.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Protocol

from valueflow.tabular.csv_records import GUARD, GUARDED, NAN

NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)
QUOTED = re.compile(r'[",\r\n]')


class _Writable(Protocol):
    def write(self, text: str, /) -> object: ...


class CsvWriter:
    """Writes rows of cells: texts guarded, null as an empty cell, numbers as they are.

    Args:
        stream: output; a text file is opened with newline="".
        end: of a row.
        separator: of cells, a comma or a tab.
    """

    def __init__(self, stream: _Writable, end: str = "\r\n", separator: str = ",") -> None:
        self._stream, self._end, self._separator = stream, end, separator

    def rows(self, rows: Iterable[Iterable[object]]) -> None:
        """Write rows."""
        for row in rows:
            line = self._separator.join(_cell(cell, self._separator) for cell in row)
            self._stream.write((line or '""') + self._end)  # an empty line would be no row


def csv_text(header: Sequence[str], rows: Iterable[Iterable[object]], separator: str = ",", end: str = "\r\n") -> str:
    """Return the content of a CSV file, or of a TSV file with a tab as the separator."""
    parts: list[str] = []
    writer = CsvWriter(_Parts(parts), end, separator)
    writer.rows([header])
    writer.rows(rows)
    return "".join(parts)


class _Parts:
    def __init__(self, parts: list[str]) -> None:
        self.write = parts.append


def _cell(cell: object, separator: str) -> str:
    """A cell as CSV. A text that reads as null gets quotes, like one with a separator or a line end."""
    if not isinstance(cell, str):
        return "" if cell is None else str(cell)
    guard = separator == "," and GUARDED.match(cell) and not NUMBER.fullmatch(cell)
    text = GUARD + cell if guard else cell
    return '"' + text.replace('"', '""') + '"' if QUOTED.search(text) or separator in text or text in NAN else text
