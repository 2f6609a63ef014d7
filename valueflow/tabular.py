"""Files of any tabular kind (CSV, TSV, JSON lines, parquet) as a stream of rows; a broken row is data, a broken file is not."""

import csv
import io
import itertools
import json
from collections.abc import Iterator
from typing import Any, NamedTuple, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from valueflow import store
from valueflow.errors import InputError

DELIMITERS = {"csv": ",", "tsv": "\t"}
KINDS = (*DELIMITERS, "jsonl", "parquet")
HEAD = 100  # JSON lines have no header: the columns are the keys of so many first lines


class Row(NamedTuple):
    """One row of a file; `error` says in words why it could not be read."""

    file: str
    number: int
    fields: dict[str, Any]
    error: str = ""

    @property
    def place(self) -> str:
        """The file's name and the row's line (parquet: the row), for sources that number nothing themselves."""
        return f"{self.file.rpartition('/')[2]}:{self.number}"


def urls(url: str) -> list[str]:
    """Return the files a URL, path or glob names; InputError where there is none."""
    fs, path = store.filesystem(url)
    if fs.isfile(path):
        return [url]
    found = [fs.unstrip_protocol(p) for p in sorted(fs.glob(path))] if any(sign in path for sign in "*?[") else []
    if not found and fs.isdir(path):
        raise InputError(f"corpus file {url!r} is a folder; name a file or a glob such as {url.rstrip('/')}/*.csv")
    if not found:
        raise InputError(f"corpus file {url!r} does not exist")
    return found


def columns(url: str, quoted: bool = True) -> list[str]:
    """Return the names of a file's columns; InputError where the file is not what its extension says."""
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
    """Refuse a file that lacks a column; the message names the file, the column and what exists."""
    there = columns(url, quoted)
    missing = [name for name in names if name not in there]
    if missing:
        raise InputError(f"{url} lacks column(s) {missing}; it has {there}")


def rows(url: str, wanted: list[str], quoted: bool = True) -> Iterator[Row]:
    """Yield every row of a file with at least its `wanted` columns, in memory that does not grow with the file."""
    kind = _kind(url)
    if kind == "parquet":
        yield from _parquet(url, wanted)
        return
    with _open(url) as stream:
        if kind == "jsonl":
            yield from _jsonl(url, stream)
        else:
            yield from _csv(url, _reader(stream, kind, quoted))


def cell(fields: dict[str, Any], name: str) -> str:
    """Return one field as a string, "" where it is absent or null; InputError where it holds a list or a mapping."""
    value = fields.get(name)
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, list | dict):
        raise InputError(f"{name!r} holds a {type(value).__name__}, not a string")
    return "" if value is None else str(value)


def _kind(url: str) -> str:
    kind = url.rpartition(".")[2].lower()
    if kind not in KINDS:
        raise InputError(f"corpus file {url!r} must end in one of {', '.join('.' + kind for kind in KINDS)}")
    return kind


def _open(url: str, mode: str = "r") -> Any:
    fs, path = store.filesystem(url)
    if mode == "rb":
        return fs.open(path, mode)
    # Undecodable bytes come through as lone surrogates, so that one bad row is refused and not the whole file.
    newline = "\n" if _kind(url) == "jsonl" else ""
    return fs.open(path, mode, encoding="utf-8-sig", errors="surrogateescape", newline=newline)


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
    """The next record, why it cannot be read (a field of more than 131,072 characters), or None at the end."""
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
    """Strings as bytes: parquet writers may leave undecodable ones, which `cell` lets through to be refused by row."""
    text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    return column.cast(pa.large_binary()) if text else column


def read_csv(url: str, columns: list[str]) -> list[tuple[int, dict[str, str]]]:
    """Return (line, row) of a small CSV; InputError where it is missing, not UTF-8 or lacks a column."""
    try:
        reader = csv.DictReader(io.StringIO(store.read_input(url).decode("utf-8-sig")))
    except UnicodeDecodeError as error:
        raise InputError(f"{url} is not UTF-8 text: {error}") from None
    try:
        names = reader.fieldnames or []
        found = [(reader.line_num, row) for row in reader]  # the last line of a row whose cells hold line breaks
    except csv.Error as error:
        raise InputError(f"{url}:{reader.line_num} is not CSV: {error}") from None
    missing = [c for c in columns if c not in names]
    if missing:
        raise InputError(f"{url} lacks column {missing[0]!r}; it has {', '.join(names) or 'none'}")
    for number, row in found:
        if any(row[column] is None for column in columns):
            raise InputError(f"{url}:{number} has fewer fields than the header")
    return found
