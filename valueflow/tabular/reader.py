"""The one reader of users' tabular files (CSV, TSV, JSON lines, Parquet): a stream of rows, lenient or strict.

The extension names the format and the delimiter. `decoding` says which encodings are read. Rows are numbered by their first
line, from 1 (Parquet: by row). `rows` is lenient: it yields a bad row with its error. `strict_rows` raises the error.

A cell is null, a text or number, or an error, in every format alike. Null: an empty cell, JSON's null, NaN (in CSV a bare nan
or NaN; in quotes it is a text). Errors: `problem`.
"""

import contextlib
import csv
import itertools
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from valueflow import store
from valueflow.decoding import text_stream
from valueflow.errors import InputError
from valueflow.records import NOT_UTF8, UNDECODABLE, flaw
from valueflow.tabular.csv_records import Records

DELIMITERS = {"csv": ",", "tsv": "\t"}
KINDS = (*DELIMITERS, "jsonl", "parquet")
ALIASES = {"json": "jsonl"}
EXTENSIONS = tuple(f".{kind}" for kind in (*KINDS, *ALIASES))
BYTE_ORDER_MARK = "\ufeff"
HEAD = 100  # JSON lines have no header: their columns are the keys of the first lines


class _Repeated:
    """The value of a key that a JSON object has twice: which one is meant is not known."""


class Row(NamedTuple):
    """One row of a file; `error` is the reason it could not be parsed, else empty."""

    file: str
    number: int
    fields: dict[str, Any]
    error: str = ""

    @property
    def row_id(self) -> str:
        """File name and row number, `name.csv:12`: the id of rows whose source gives them none."""
        return f"{self.file.rpartition('/')[2]}:{self.number}"

    @property
    def location(self) -> str:
        """URL and row number, for error messages."""
        return f"{self.file}:{self.number}"


def urls(url: str) -> list[str]:
    """Return the files that a URL, path or glob matches.

    Raises:
        InputError: there is none.
        StorageError: a folder cannot be read, so nobody knows.
    """
    kind = store.entry_type(url)
    if kind == "file":
        return [url]
    matches = store.glob(url)
    if not matches and kind == "directory":
        raise InputError(f"file {url!r} is a folder; name a file or a glob such as {url.rstrip('/')}/*.csv")
    if not matches:
        raise InputError(f"file {url!r} does not exist")
    return matches


def row_names(files: list[str]) -> dict[str, str]:
    """Return by file the name that the ids of its rows begin with: the file's own.

    Files of one name in several folders are told apart by their path below the deepest folder that they share: where a copy of
    the folders lies must not change an id.
    """
    same: dict[str, list[str]] = {}
    for file in files:
        same.setdefault(file.rpartition("/")[2], []).append(file)
    named: dict[str, str] = {}
    for name, group in same.items():
        folders = [file.split("/")[:-1] for file in group]
        shared = len(list(itertools.takewhile(lambda level: len(set(level)) == 1, zip(*folders, strict=False))))
        named |= {file: "/".join([*folder[shared:], name]) for file, folder in zip(group, folders, strict=True)}
    return named


def is_table(url: str) -> bool:
    """Return whether the extension is one that this module reads."""
    return url.lower().endswith(EXTENSIONS)


def columns(url: str, quoted: bool = True, wanted: Sequence[str] = ()) -> list[str]:
    """Return the column names of a file; of JSON lines, the keys of the first 100, and of those up to the last of `wanted`.

    Raises:
        InputError: the file is missing, or its content does not fit its extension.
    """
    kind = _kind(url)
    with _readable(url, kind):
        if kind == "parquet":
            with _open(url) as file:
                return pq.ParquetFile(file).schema_arrow.names
        with _text(url, kind) as stream:
            return _keys(url, stream, wanted) if kind == "jsonl" else _header(url, Records(stream, DELIMITERS[kind], quoted))


def require(files: Sequence[str], names: Sequence[str], quoted: bool = True) -> None:
    """Check that each file has each of these columns once; JSON lines files, whose rows may leave out a key, together.

    Raises:
        InputError: one is missing or occurs twice; the message names the file, the column and the existing columns.
    """
    headers = {url: columns(url, quoted, names) for url in files}
    keys = {key for url, existing in headers.items() if _kind(url) == "jsonl" for key in existing}
    for url, existing in headers.items():
        missing = [name for name in names if name not in (keys if _kind(url) == "jsonl" else existing)]
        if missing:
            sign = DELIMITERS.get(_kind(url), "")
            alone = bool(sign) and len(existing) == 1 and any(other in existing[0] for other in ";\t|,=")
            hint = f"; cells of a .{_kind(url)} are separated by {sign!r}" if alone else ""
            raise InputError(f"{url} lacks column(s) {missing}; it has {existing}{hint}")
        _check_once(url, existing, names)


def rows(url: str, names: Sequence[str], quoted: bool = True) -> Iterator[Row]:
    """Yield every row of a file with at least the columns `names`; memory does not grow with the file.

    Blank rows, in which no cell holds anything, are skipped. Undecodable bytes come through as lone surrogates, so that the
    caller can reject one row instead of the whole file; `cell` refuses them.

    Args:
        url: a CSV, TSV, JSON lines or Parquet file.
        names: the columns to read of a Parquet file; the other formats yield all.
        quoted: whether `"` quotes fields of CSV and TSV.

    Raises:
        InputError: the file is missing, its content does not fit its extension, or one of `names` occurs twice.
    """
    kind = _kind(url)
    with _readable(url, kind):
        if kind == "parquet":
            yield from _parquet(url, names)
            return
        with _text(url, kind) as stream:
            if kind == "jsonl":
                yield from _jsonl(url, stream, names)
            else:
                yield from _csv(url, Records(stream, DELIMITERS[kind], quoted), names)


def strict_rows(url: str, names: Sequence[str], quoted: bool = True, optional: Sequence[str] = ()) -> Iterator[Row]:
    """Yield every row of a file, as `rows` does; it has the columns `names`, and strings of valid Unicode.

    The columns `names` and, where a row has them, `optional` are without a `problem`.

    Raises:
        InputError: the file or a column is missing, or a row is bad; the message begins with `url:number` of the row.
    """
    if _kind(url) != "jsonl":  # lines of JSON may differ in their keys, so they are checked one by one
        require([url], names, quoted)
    for row in rows(url, [*names, *optional], quoted):
        if row.error:
            raise InputError(f"{row.location}: {row.error}")
        missing = [name for name in names if name not in row.fields]
        if missing:
            raise InputError(f"{row.location} lacks {missing[0]!r}; a row needs {', '.join(names)}")
        fields = {name: _string(value) if isinstance(value, bytes) else value for name, value in row.fields.items()}
        if any(isinstance(value, str) and UNDECODABLE.search(value) for value in fields.values()):
            raise InputError(f"{row.location}: row has {NOT_UTF8}")
        for name in (*names, *(name for name in optional if name in fields)):
            value = fields[name]
            if error := problem(name, value) or (isinstance(value, str) and flaw(value) and f"{name!r} has {flaw(value)}"):
                raise InputError(f"{row.location}: {error}")
        yield row._replace(fields=fields)


def cell(fields: dict[str, Any], name: str) -> str:
    """Return one field as a string, "" where it is absent or null.

    Raises:
        InputError: it has a `problem`.
    """
    value = fields.get(name)
    if error := problem(name, value):
        raise InputError(error)
    return "" if value is None else _string(value) if isinstance(value, bytes) else str(value)


def number(value: object) -> float | None:
    """Return the number that a cell holds, None where it holds no finite one: "5,5", "1_0", "nan", true and 1e400 are none."""
    try:
        parsed = float(str(value).replace("_", " "))  # underscores between digits are Python's, no file's
    except ValueError:
        return None
    return parsed if math.isfinite(parsed) else None


def row_error(row: Row, names: Sequence[str]) -> str:
    """Return why a row or one of the cells `names` cannot be read, "" where they can."""
    return row.error or next(filter(None, (problem(name, row.fields.get(name)) for name in names)), "")


def problem(name: str, value: object) -> str:
    """Return why a value of column `name` is neither null nor a text nor a number, "" where it is."""
    value = _string(value) if isinstance(value, bytes) else value
    match value:
        case str():
            return f"{name} has {NOT_UTF8}" if UNDECODABLE.search(value) else ""
        case float() if not math.isfinite(value):
            return f"{name!r} is {value}, not a finite number"
        case bool() | list() | dict():
            return f"{name!r} holds a {type(value).__name__}, not a string"
        case _Repeated():
            return f"{name!r} occurs twice in the row"
    return ""


def _string(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def _check_once(url: str, existing: Sequence[str], names: Sequence[str]) -> None:
    for name in names:
        if existing.count(name) > 1:
            raise InputError(f"{url} has {existing.count(name)} columns {name!r}; rename or delete all but one")


def _kind(url: str) -> str:
    extension = url.rpartition(".")[2].lower()
    kind = ALIASES.get(extension, extension)
    if kind not in KINDS:
        raise InputError(f"file {url!r} must end in one of {', '.join('.' + kind for kind in KINDS)}, not compressed")
    return kind


@contextlib.contextmanager
def _readable(url: str, kind: str) -> Iterator[None]:
    """Errors of the libraries that read a file, in one sentence."""
    try:
        yield
    except InputError:
        raise
    except (pa.ArrowException, csv.Error, OSError, ValueError, MemoryError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{url} is not readable as {kind} ({reason})") from error


def _open(url: str) -> BinaryIO:
    try:
        return store.open_bytes(url)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise InputError(f"{url} does not exist or is not a file") from None


def _text(url: str, kind: str) -> TextIO:
    return text_stream(_open(url), url, "\n" if kind == "jsonl" else "")


def _csv(url: str, records: Records, names: Sequence[str]) -> Iterator[Row]:
    header = _header(url, records)
    _check_once(url, header, names)
    for start, end, values in records:
        span = f"; it spans lines {start} to {end}, is a quote unclosed?" if end > start else ""
        if isinstance(values, str):
            yield Row(url, start, {}, values + span)
        elif not any(values) and len(values) != 1:
            continue  # a blank row; a single empty cell can be one
        elif len(values) < len(header) or any(values[len(header) :]):
            yield Row(url, start, {}, f"row has {len(values)} fields, the header has {len(header)}{span}")
        elif _without_mark(values) == header:
            yield Row(url, start, {}, "row repeats the header")
        else:
            yield Row(url, start, dict(zip(header, values, strict=False)))


def _without_mark(values: Sequence[str | None]) -> list[str | None]:
    """The cells of a row without the byte order mark of a file that was joined to another."""
    return [values[0].removeprefix(BYTE_ORDER_MARK), *values[1:]] if values and values[0] else list(values)


def _header(url: str, records: Records) -> list[str]:
    if any(map(flaw, records.header)):
        raise InputError(f"{url} does not begin with a line of UTF-8 text; save it in UTF-8, not compressed")
    return records.header


def _keys(url: str, stream: TextIO, wanted: Sequence[str]) -> list[str]:
    """The keys of the first lines, and of more while one of `wanted` has not occurred."""
    keys: dict[str, None] = {}
    for row in _jsonl(url, stream, []):
        keys.update(dict.fromkeys(row.fields))
        if row.number >= HEAD and all(name in keys for name in wanted):
            break
    return list(keys)


def _jsonl(url: str, stream: TextIO, names: Sequence[str]) -> Iterator[Row]:
    blank = True
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        if blank and line.lstrip().startswith("["):
            raise InputError(f"{url} holds a JSON array; write one object per line")
        blank = False
        fields = _parse(line)
        if isinstance(fields, str):
            yield Row(url, number, {}, fields)
            continue
        twice = [problem(name, fields[name]) for name in names if isinstance(fields.get(name), _Repeated)]
        yield Row(url, number, {}, twice[0]) if twice else Row(url, number, fields)


def _parse(line: str) -> dict[str, Any] | str:
    """The object on a line, or the error."""
    try:
        fields = json.loads(line, parse_constant=_constant, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        return f"row is not JSON: {error}"
    return fields if isinstance(fields, dict) else "row is not a JSON object"


def _constant(word: str) -> float | None:
    """NaN is what writers make of a missing cell."""
    return None if word == "NaN" else float(word)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        occurrences = Counter(name for name, _ in pairs)
        fields |= {name: _Repeated() for name in fields if occurrences[name] > 1}
    return fields


def _parquet(url: str, wanted: Sequence[str]) -> Iterator[Row]:
    with _open(url) as file:
        parquet = pq.ParquetFile(file, page_checksum_verification=True)
        existing = parquet.schema_arrow.names
        _check_once(url, existing, wanted)
        names = [name for name in existing if name in wanted]
        number = 0
        for batch in parquet.iter_batches(batch_size=1000, columns=names):
            values = [_values(batch.column(name)) for name in names]
            for record in zip(*values, strict=True):
                number += 1
                yield Row(url, number, dict(zip(names, record, strict=True)))


def _values(column: pa.Array) -> list[Any]:
    """Strings as bytes: Parquet writers do not validate UTF-8, and one undecodable string must not end the stream."""
    column = column.storage if isinstance(column, pa.ExtensionArray) else column
    column = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return column.cast(pa.large_binary()).to_pylist()
    if pa.types.is_floating(kind):
        return [None if value is None or math.isnan(value) else value for value in column.to_pylist()]
    try:
        return column.to_pylist()
    except (ValueError, OverflowError):  # times that Python's types cannot hold
        return column.cast(pa.string()).to_pylist()
