"""Texts of units (persons, groups, models) from users' files, in shards of whole units."""

import logging
import math
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from valueflow import store
from valueflow.config import Config
from valueflow.errors import InputError
from valueflow.records import SCHEMAS, clean, digest, flaw, text_id
from valueflow.store import Build, UnitTextsDetails
from valueflow.tabular import Row, cell, require, row_names, rows, urls

log = logging.getLogger(__name__)
CHUNK = 20_000  # rows that are Python objects at a time
SHARDS = 64  # parts of a build; a unit has its shard by its name, so that a longer file has it in the same one


class UnitColumns(Config):
    """The columns of a file of texts of units."""

    text: str = "text"
    unit: str = Field("unit", description="whose text it is: a person, a group, a model")
    thread: str = Field("", description="what texts of a unit belong to and depend on each other by; '': nothing")
    weight: str = Field("", description="weight of a text, above 0 and at most 1, such as the share of an answer; '': 1")

    @property
    def names(self) -> list[str]:
        """The columns that are read."""
        return [name for name in (self.text, self.unit, self.thread, self.weight) if name]


def save_unit_texts(url: str, root: str, columns: UnitColumns) -> Build:
    """Store the texts of units of CSV, TSV, JSONL or Parquet files and return their build; the files pass through memory once.

    Rows without a text or a unit, or of a weight that is none, are counted, logged and left out.

    Raises:
        InputError: a file or a column is missing, or no row is usable; the message names it and says why.
    """
    files = urls(url)
    require(files, columns.names)
    named, unusable = row_names(files), _Unusable()
    tables = list(_tables((row for file in files for row in rows(file, columns.names)), columns, named, unusable))
    if not sum(table.num_rows for table in tables):
        raise InputError(f"{url} has no text of a unit{unusable.summary()}")
    if unusable.number:
        log.warning("profiles: %d rows left out%s", unusable.number, unusable.summary())
    return store_unit_texts(pa.concat_tables(tables), root, UnitTextsDetails(path=url, unreadable=unusable.number), [url])


def store_unit_texts(table: pa.Table, root: str, details: UnitTextsDetails, inputs: Sequence[Build | str]) -> Build:
    """Store rows of `unit_texts` in shards of whole units and return their build."""
    table = table.combine_chunks()
    out = Build(root, "unit_texts", digest("".join(sorted(table["row_id"].to_pylist())), SHARDS))
    if not store.reusable(out):
        table = table.sort_by([("unit", "ascending"), ("text_id", "ascending"), ("row_id", "ascending")])
        names = pc.unique(table["unit"])
        shard_U = np.array([shard_of(name) for name in names.to_pylist()])
        shard_T = shard_U[pc.index_in(table["unit"], names).to_numpy()]
        parts = [store.write_part(out, table.filter(pa.array(shard_T == s)), f"{s:02d}") for s in np.unique(shard_U)]
        counts = {"texts": table.num_rows, "units": len(names)}
        store.commit(out, details.model_copy(update=counts), inputs, parts)
    return out


def shard_of(unit: str) -> int:
    """Return the shard of a unit."""
    return int(digest("unit", unit), 16) % SHARDS


class _Unusable:
    def __init__(self) -> None:
        self.number, self.first = 0, ""

    def add(self, place: str, reason: str) -> None:
        self.number += 1
        self.first = self.first or f"{place}: {reason}"

    def summary(self) -> str:
        return f"; of {self.number} unusable rows the first is {self.first}" if self.number else ""


def _tables(all_rows: Iterator[Row], columns: UnitColumns, named: dict[str, str], unusable: _Unusable) -> Iterator[pa.Table]:
    schema, chunk = SCHEMAS["unit_texts"], []
    for row in all_rows:
        place = f"{named[row.file]}:{row.number}"
        try:
            fields = _fields(row, columns)
        except InputError as error:
            unusable.add(place, str(error))
            continue
        chunk.append({"row_id": digest(place, *fields.values()), **fields})
        if len(chunk) == CHUNK:
            yield pa.Table.from_pylist(chunk, schema)
            chunk = []
    yield pa.Table.from_pylist(chunk, schema)


def _fields(row: Row, columns: UnitColumns) -> dict[str, object]:
    """The fields of a row; InputError where it cannot be used."""
    if row.error:
        raise InputError(row.error)
    text, unit = (clean(cell(row.fields, name)) for name in (columns.text, columns.unit))
    for name, content in ((columns.text, text), (columns.unit, unit)):
        if not content:
            raise InputError(f"{name} is empty")
        if problem := flaw(content):
            raise InputError(f"{name} has {problem}")
    thread = clean(cell(row.fields, columns.thread)) if columns.thread else ""
    return {"unit": unit, "text_id": text_id(text), "text": text, "thread": thread, "weight": _weight(row, columns.weight)}


def _weight(row: Row, column: str) -> float:
    if not column:
        return 1.0
    written = cell(row.fields, column)
    try:
        weight = float(written)
    except ValueError:
        weight = math.nan
    if not 0 < weight <= 1:
        raise InputError(f"{column} is {written!r}; a weight is above 0 and at most 1")
    return weight
