"""Texts of the command line: an argument, a file or standard input; and texts of units in a table."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from valueflow.console import say
from valueflow.decoding import decode
from valueflow.errors import InputError
from valueflow.records import flaw
from valueflow.tabular import EXTENSIONS, cell, columns, is_table, row_error, rows

# One word that ends like a file: what is not there must not be scored as a text.
FILE_NAME = re.compile(
    rf"^\S+({'|'.join(map(re.escape, EXTENSIONS))}|\.(txt|xlsx?|ods|docx?|pdf|gz|zip|bz2|xz|zst))$", re.IGNORECASE
)


class Texts(NamedTuple):
    """Texts, and the unit and the thread of each; None where no column is named for them. A thread "" is none."""

    texts: list[str]
    units: list[str] | None = None
    threads: list[str] | None = None


def read_texts(argument: str, column: str) -> list[str]:
    """Return the texts of an argument: a text, a file, or - for standard input; rows left out are counted on standard error.

    Raises:
        InputError: the file is missing or unreadable, has no such column, or contains no text.
    """
    if argument == "-":
        items = _lines(sys.stdin.buffer.read(), "standard input")
    elif os.path.isfile(argument):
        is_text = argument.lower().endswith(".txt")
        items = _lines(Path(argument).read_bytes(), argument) if is_text else _cells(argument, {"--column": column})
    elif os.path.lexists(argument):
        raise InputError(f"{argument!r} is a folder or no plain file; name a file, or send the text to standard input: -")
    elif FILE_NAME.search(argument):
        raise InputError(f"file {argument!r} does not exist")
    else:
        return [one_text(argument)]
    return [text for (text,) in _usable(items, argument)]


def read_units(argument: str, column: str, unit: str, thread: str) -> Texts:
    """Return the texts of an argument with the unit and thread of each; without these columns as `read_texts` does.

    Rows without a text or a unit are counted on standard error and left out.

    Raises:
        InputError: as `read_texts`; or units or threads are named, and the argument is no table.
    """
    named = {option: name for option, name in (("--column", column), ("--unit", unit), ("--thread", thread)) if name}
    if not (unit or thread):
        return Texts(read_texts(argument, column))
    if FILE_NAME.search(argument) and not os.path.exists(argument):
        raise InputError(f"file {argument!r} does not exist")
    if not (os.path.isfile(argument) and is_table(argument)):
        option = "--unit" if unit else "--thread"
        raise InputError(f"{option} names a column of a csv, tsv, jsonl or parquet file, and {argument[:40]!r} is none")
    cells = list(zip(*_usable(_cells(argument, named), argument, 2 if unit else 1), strict=True))
    of = dict(zip(named, map(list, cells), strict=True))
    return Texts(of["--column"], of.get("--unit"), of.get("--thread"))


def one_text(argument: str) -> str:
    """Return a text of the command line; InputError if it cannot be judged."""
    if problem := flaw(argument):
        raise InputError(f"the text {argument[:40]!a} has {problem}")
    return argument


Item = tuple[str, tuple[str, ...], str]  # location, cells, the first of them the text, and error of a row


def _usable(items: Iterator[Item], argument: str, needed: int = 1) -> list[tuple[str, ...]]:
    """The cells of the rows whose first `needed` ones are not blank; the others are counted on standard error."""
    usable, skipped = [], []
    for place, cells, error in items:
        empty = next((name for name, text in zip(("text", "unit"), cells[:needed], strict=False) if not text.strip()), "")
        error = error or next(filter(None, map(flaw, cells)), "") or (f"no {empty}" if empty else "")
        if error:
            skipped.append(f"{place}: {error}")
        else:
            usable.append(cells)
    if skipped:
        say(f"{len(skipped)} of {len(skipped) + len(usable)} rows left out (first: {skipped[0]})", sys.stderr)
    if not usable:
        raise InputError(f"{argument} holds no text{' of a unit' if needed > 1 else ''}")
    return usable


def _lines(content: bytes, name: str) -> Iterator[Item]:
    """Each line that is not blank."""
    for number, line in enumerate(decode(content, name).split("\n"), 1):
        if line.strip():
            yield f"{name}:{number}", (line,), ""


def _cells(path: str, named: dict[str, str]) -> Iterator[Item]:
    """The cells of each row of a table, by the options that name their columns."""
    names = list(named.values())
    available = columns(path, wanted=names)
    for option, name in named.items():
        if name not in available:
            raise InputError(f"{path} has no column {name!r}; set {option} to one of: {', '.join(available) or 'none'}")
    for row in rows(path, names):
        error = row_error(row, names)
        yield row.row_id, tuple("" if error else cell(row.fields, name) for name in names), error
