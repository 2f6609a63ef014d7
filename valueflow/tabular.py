"""The one reader of users' tabular files (CSV, TSV, JSON lines, Parquet): a stream of rows, lenient or strict.

The extension names the format and the delimiter. `decoding` says which encodings are read. Rows are numbered by their first
line, from 1 (Parquet: by row). `rows` is lenient: it yields a bad row with its error. `strict_rows` raises the error.
"""

import csv
import itertools
import json
from collections.abc import Iterator
from typing import Any, NamedTuple, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from valueflow import store
from valueflow.decoding import text_stream
from valueflow.errors import InputError
from valueflow.records import NOT_UTF8, UNDECODABLE, flaw

DELIMITERS = {"csv": ",", "tsv": "\t"}
KINDS = (*DELIMITERS, "jsonl", "parquet")
ALIASES = {"json": "jsonl"}
HEAD = 100  # JSON lines have no header: their columns are the keys of the first lines


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
    """
    fs, path = store.filesystem(url)
    if fs.isfile(path):
        return [url]
    matches = [fs.unstrip_protocol(p) for p in sorted(fs.glob(path))] if any(sign in path for sign in "*?[") else []
    if not matches and fs.isdir(path):
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


def columns(url: str, quoted: bool = True) -> list[str]:
    """Return the column names of a file; of JSON lines, the keys of the first 100.

    Raises:
        InputError: the file is missing, or its content does not fit its extension.
    """
    kind = _kind(url)
    try:
        if kind == "parquet":
            with _open(url, "rb") as file:
                return pq.ParquetFile(file).schema_arrow.names
        with _open(url) as stream:
            if kind == "jsonl":
                head = [_parse(line) for line in itertools.islice(stream, HEAD)]
                return list(dict.fromkeys(name for fields in head if isinstance(fields, dict) for name in fields))
            return next(_reader(stream, kind, quoted), [])
    except (pa.ArrowInvalid, csv.Error) as error:
        raise InputError(f"{url} is not readable as {kind} ({error})") from error


def require(url: str, names: list[str], quoted: bool = True) -> None:
    """Check that a file has these columns.

    Raises:
        InputError: one is missing; the message names the file, the column and the existing columns.
    """
    existing = columns(url, quoted)
    missing = [name for name in names if name not in existing]
    if missing:
        raise InputError(f"{url} lacks column(s) {missing}; it has {existing}")


def rows(url: str, names: list[str], quoted: bool = True) -> Iterator[Row]:
    """Yield every row of a file with at least the columns `names`; memory does not grow with the file.

    Undecodable bytes come through as lone surrogates, so that the caller can reject one row instead of the whole file.

    Args:
        url: a CSV, TSV, JSON lines or Parquet file.
        names: the columns to read of a Parquet file; the other formats yield all.
        quoted: whether `"` quotes fields of CSV and TSV.
    """
    kind = _kind(url)
    if kind == "parquet":
        yield from _parquet(url, names)
        return
    with _open(url) as stream:
        if kind == "jsonl":
            yield from _jsonl(url, stream)
        else:
            yield from _csv(url, _reader(stream, kind, quoted))


def strict_rows(url: str, names: list[str], quoted: bool = True) -> Iterator[Row]:
    """Yield every row of a file, as `rows` does; each has all columns `names`, and its strings are valid Unicode.

    Raises:
        InputError: the file or a column is missing, or a row is bad; the message begins with `url:number` of the row.
    """
    if _kind(url) != "jsonl":  # lines of JSON may differ in their keys, so they are checked one by one
        require(url, names, quoted)
    for row in rows(url, names, quoted):
        if row.error:
            raise InputError(f"{row.location}: {row.error}")
        missing = [name for name in names if name not in row.fields]
        if missing:
            raise InputError(f"{row.location} lacks {missing[0]!r}; a row needs {', '.join(names)}")
        fields = {name: _string(value) if isinstance(value, bytes) else value for name, value in row.fields.items()}
        if any(isinstance(value, str) and UNDECODABLE.search(value) for value in fields.values()):
            raise InputError(f"{row.location}: row has {NOT_UTF8}")
        for name in names:
            if isinstance(fields[name], list | dict):
                raise InputError(f"{row.location}: {_nested(name, fields[name])}")
            if isinstance(fields[name], str) and (problem := flaw(fields[name])):
                raise InputError(f"{row.location}: {name!r} has {problem}")
        yield row._replace(fields=fields)


def cell(fields: dict[str, Any], name: str) -> str:
    """Return one field as a string, "" where it is absent or null.

    Raises:
        InputError: it is a list or a mapping.
    """
    value = fields.get(name)
    if isinstance(value, bytes):
        return _string(value)
    if isinstance(value, list | dict):
        raise InputError(_nested(name, value))
    return "" if value is None else str(value)


def _string(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def _nested(name: str, value: object) -> str:
    return f"{name!r} holds a {type(value).__name__}, not a string"


def _kind(url: str) -> str:
    extension = url.rpartition(".")[2].lower()
    kind = ALIASES.get(extension, extension)
    if kind not in KINDS:
        raise InputError(f"file {url!r} must end in one of {', '.join('.' + kind for kind in KINDS)}")
    return kind


def _open(url: str, mode: str = "r") -> Any:
    fs, path = store.filesystem(url)
    try:
        file = fs.open(path, "rb")
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"{url} does not exist or is not a file") from None
    return file if mode == "rb" else text_stream(file, url, "\n" if _kind(url) == "jsonl" else "")


def _reader(stream: TextIO, kind: str, quoted: bool) -> Any:
    return csv.reader(stream, delimiter=DELIMITERS[kind], quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE)


def _csv(url: str, reader: Any) -> Iterator[Row]:
    header: list[str] = next(reader, [])
    start = reader.line_num + 1
    while (values := _next(reader)) is not None:
        span = f"; it spans lines {start} to {reader.line_num}, is a quote unclosed?" if reader.line_num > start else ""
        if isinstance(values, str):
            yield Row(url, start, {}, values + span)
        elif len(values) == len(header):
            yield Row(url, start, dict(zip(header, values, strict=True)))
        elif values:
            yield Row(url, start, {}, f"row has {len(values)} fields, the header has {len(header)}{span}")
        start = reader.line_num + 1


def _next(reader: Any) -> list[str] | str | None:
    """The next record; the error where it cannot be parsed (a field of more than 131,072 characters); None at the end."""
    try:
        return next(reader, None)
    except csv.Error as error:
        return f"row cannot be parsed: {error}"


def _jsonl(url: str, stream: TextIO) -> Iterator[Row]:
    for number, line in enumerate(stream, 1):
        fields = _parse(line)
        if isinstance(fields, dict):
            yield Row(url, number, fields)
        elif line.strip():
            yield Row(url, number, {}, fields)


def _parse(line: str) -> dict[str, Any] | str:
    """The object on a line, or the error."""
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"row is not JSON: {error}"
    return fields if isinstance(fields, dict) else "row is not a JSON object"


def _parquet(url: str, wanted: list[str]) -> Iterator[Row]:
    with _open(url, "rb") as file:
        parquet = pq.ParquetFile(file)
        names = [name for name in parquet.schema_arrow.names if name in wanted]
        number = 0
        for batch in parquet.iter_batches(batch_size=1000, columns=names):
            values = [_bytes(column).to_pylist() for column in batch.columns]
            for record in zip(*values, strict=True):
                number += 1
                yield Row(url, number, dict(zip(names, record, strict=True)))


def _bytes(column: pa.Array) -> pa.Array:
    """Strings as bytes: Parquet writers do not validate UTF-8, and one undecodable string must not end the stream."""
    text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    return column.cast(pa.large_binary()) if text else column
