"""Responses to be scored: reading them from a file, storing them as a build, and looking their texts up by id."""

import functools
import itertools
import logging

import pyarrow as pa

from valueflow import store
from valueflow.errors import InputError
from valueflow.records import clean, digest, flaw, text_id
from valueflow.store import Build, ResponsesDetails
from valueflow.tabular import Row, cell, require, row_names, rows, urls

log = logging.getLogger(__name__)
COLUMNS = ("query", "dataset", "response")


def save_responses(url: str, root: str, limit: int | None = None) -> Build:
    """Store the responses of CSV, JSONL or Parquet files and return their build.

    Unreadable rows (undecodable bytes, a list instead of a text, control characters in the response) are counted, logged and
    left out. `limit` is the maximum number of rows read, unreadable ones included.

    Raises:
        InputError: a file or a column is missing, or no row is readable; the message names it and says why.
    """
    table: dict[str, list[str]] = {name: [] for name in ("response_id", *COLUMNS)}
    unreadable = []
    files = urls(url)
    require(files, list(COLUMNS))
    named = row_names(files)
    all_rows = (row for file in files for row in rows(file, list(COLUMNS)))
    for row in itertools.islice(all_rows, limit):
        row_id = f"{named[row.file]}:{row.number}"
        try:
            fields = _response(row)
        except InputError as error:
            unreadable.append(f"{row_id}: {error}")
            log.warning("responses: %s; left out", unreadable[-1])
            continue
        for name, value in fields.items():
            table[name].append(value)
        table["response_id"].append(digest(row_id, *fields.values()))
    if not table["response"]:
        reason = f": {len(unreadable)} rows are unreadable, the first is {unreadable[0]}" if unreadable else ""
        raise InputError(f"{url} has no response{reason}")
    out = Build(root, "responses", digest(table))
    if not store.reusable(out):
        parts = [store.write_part(out, pa.table(table), "0")]
        details = ResponsesDetails(path=url, responses=len(table["response"]), unreadable=len(unreadable))
        store.commit(out, details, [url], parts)
    return out


def _response(row: Row) -> dict[str, str]:
    """The cleaned fields of a row; InputError where it cannot be stored, or its response cannot be judged."""
    if row.error:
        raise InputError(row.error)
    fields = {name: cell(row.fields, name) for name in COLUMNS}
    if problem := flaw(fields["response"]):
        raise InputError(f"response has {problem}")
    return {name: clean(text) for name, text in fields.items()}


@functools.lru_cache(maxsize=4)
def response_texts(responses: Build) -> dict[str, str]:
    """Return the distinct texts of stored responses by text id; cached per process."""
    return {text_id(text): text for text in store.read_table(responses, ["response"])["response"].to_pylist()}
