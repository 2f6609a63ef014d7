"""Responses to be scored: reading them from a file, storing them as a build, and looking their texts up by id."""

import contextlib
import functools
import itertools
import logging
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from valueflow import store
from valueflow.errors import InputError
from valueflow.records import ValueId, clean, digest, flaw, text_id
from valueflow.store import Build, ResponsesDetails
from valueflow.tabular import Row, cell, columns, require, row_names, rows, urls
from valueflow.theories import resolve

log = logging.getLogger(__name__)
COLUMNS = ("query", "dataset", "response")
ABOUT = ("about", "stance")  # optional: a value, and a number above zero for it or below against it
SEPARATOR = "|"  # between the values of a row


class OwnValue(NamedTuple):
    """What the author of a response says of it: the value that it is about, and its side (1 for it, -1 against it)."""

    value: ValueId
    side: int


def own_values(url: str) -> dict[str, OwnValue]:
    """Return the own value of each response by text id; rows that name no value or no side have none."""
    own: dict[str, OwnValue] = {}
    for file in urls(url) if url else []:
        if set(ABOUT) <= set(columns(file, wanted=list(ABOUT))):
            for row in rows(file, ["response", *ABOUT]):
                with contextlib.suppress(InputError, ValueError):
                    about, stance, response = (cell(row.fields, name) for name in (*ABOUT, "response"))
                    if side := np.sign(float(stance)):
                        own[text_id(response)] = OwnValue(resolve(about), int(side))
    return own


def save_responses(url: str, root: str, limit: int | None = None, with_about: bool = False) -> Build:
    """Store the responses of CSV, JSONL or Parquet files and return their build.

    With `with_about` also the column `about`, the values that a response is to be scored on, joined by `SEPARATOR`.

    Unreadable rows (undecodable bytes, a list instead of a text, control characters in the response) are counted, logged and
    left out. `limit` is the maximum number of rows read, unreadable ones included.

    Raises:
        InputError: a file or a column is missing, or no row is readable; the message names it and says why.
    """
    names = [*COLUMNS, *(ABOUT[:1] if with_about else ())]
    table: dict[str, list[str]] = {name: [] for name in ("response_id", *names)}
    unreadable = []
    files = urls(url)
    require(files, names)
    named = row_names(files)
    all_rows = (row for file in files for row in rows(file, names))
    for row in itertools.islice(all_rows, limit):
        row_id = f"{named[row.file]}:{row.number}"
        try:
            fields = _response(row, names)
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
        about = {} if with_about else {"about": pa.nulls(len(table["response"]), pa.string())}
        parts = [store.write_part(out, pa.table(table | about), "0")]
        details = ResponsesDetails(path=url, responses=len(table["response"]), unreadable=len(unreadable))
        store.commit(out, details, [url], parts)
    return out


def _response(row: Row, names: list[str]) -> dict[str, str]:
    """The cleaned fields of a row; InputError where it cannot be stored, or its response cannot be judged."""
    if row.error:
        raise InputError(row.error)
    fields = {name: cell(row.fields, name) for name in names}
    if problem := flaw(fields["response"]):
        raise InputError(f"response has {problem}")
    return {name: clean(text) for name, text in fields.items()}


def texts_about(responses: Build, values: list[ValueId]) -> dict[ValueId, list[str]]:
    """Return by value the sorted ids of the distinct texts that the column `about` names it for.

    Raises:
        InputError: a row names something that is no value, or no row names one of `values`.
    """
    rows = store.read_table(responses, ["response", "about"])
    texts: dict[ValueId, set[str]] = {value: set() for value in values}
    resolved: dict[str, set[ValueId]] = {}
    for response, about in zip(rows["response"].to_pylist(), rows["about"].to_pylist(), strict=True):
        if about not in resolved:
            resolved[about] = {resolve(name) for name in (about or "").split(SEPARATOR) if name}
        for value in resolved[about].intersection(texts):
            texts[value].add(text_id(response))
    if not any(texts.values()):
        raise InputError(
            f"pairs: about: column 'about' names none of the values {', '.join(values)}; it holds value ids joined by "
            f"{SEPARATOR!r}, as the files of jobs/steer do"
        )
    return {value: sorted(of - {text_id("")}) for value, of in texts.items()}


@functools.lru_cache(maxsize=4)
def response_texts(responses: Build) -> dict[str, str]:
    """Return the distinct texts of stored responses by text id; cached per process."""
    return {text_id(text): text for text in store.read_table(responses, ["response"])["response"].to_pylist()}
