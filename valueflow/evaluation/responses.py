"""Responses to be scored: reading them from a file, storing them as a build, and looking their texts up by id."""

import functools
import itertools
import logging

import pyarrow as pa

from valueflow import store
from valueflow.errors import InputError
from valueflow.records import clean, digest, text_id
from valueflow.store import Build, ResponsesDetails
from valueflow.tabular import cell, require, rows, urls

log = logging.getLogger(__name__)
COLUMNS = ("query", "dataset", "response")


def save_responses(url: str, root: str, limit: int | None = None) -> Build:
    """Store the responses of a CSV, JSONL or Parquet file and return their build.

    Unreadable rows are counted, logged and left out. `limit` is the maximum number of rows read per file.

    Raises:
        InputError: the file or a column is missing; the message names both and lists what exists.
    """
    table: dict[str, list[str]] = {name: [] for name in ("response_id", *COLUMNS)}
    unreadable = 0
    for file in urls(url):
        require(file, list(COLUMNS))
        for row in itertools.islice(rows(file, list(COLUMNS)), limit):
            if row.error:
                unreadable += 1
                log.warning("responses: %s %s; left out", row.row_id, row.error)
                continue
            fields = {name: clean(cell(row.fields, name).encode("utf-8", "replace").decode()) for name in COLUMNS}
            for name, value in fields.items():
                table[name].append(value)
            table["response_id"].append(digest(row.row_id, *fields.values()))
    if not table["response"]:
        raise InputError(f"{url} has no response")
    out = Build(root, "responses", digest(table))
    if not store.manifest(out):
        parts = [store.write_part(out, pa.table(table), "0")]
        details = ResponsesDetails(path=url, responses=len(table["response"]), unreadable=unreadable)
        store.commit(out, details, [url], parts)
    return out


@functools.lru_cache(maxsize=4)
def response_texts(responses: Build) -> dict[str, str]:
    """Return the distinct texts of stored responses by text id; cached per process."""
    return {text_id(text): text for text in store.read_table(responses, ["response"])["response"].to_pylist()}
