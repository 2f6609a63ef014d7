"""Corpora as texts, labels and rejected rows: one small module per public format, and one for the user's own files."""

import itertools
import re
from collections.abc import Iterator
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field, model_validator

from valueflow.config import Config
from valueflow.corpora import ethics, fulcra, generic, mfrc, social_chemistry, valueeval, valuenet, valueprism
from valueflow.corpora.items import Adapter, Item
from valueflow.errors import InputError
from valueflow.records import SCHEMAS, UNDECODABLE, clean, conform, digest, text_id
from valueflow.tabular import Row, cell, columns, require, rows, urls

CHUNK = 5_000
LICENSES = {
    "valueeval": "CC-BY-4.0",
    "mfrc": "CC-BY-4.0",
    "social_chemistry": "CC-BY-SA-4.0",
    "valuenet": "CC-BY-NC-SA-4.0",
    "valueprism": "AI2-ImpACT-MR",
    "fulcra": "unknown",
    "ethics": "MIT",
}
BINARY = re.compile(r"[\x00-\x08\x0e-\x1b\x7f]")


class CorpusConfig(Config):
    """One corpus: where its files are and how to read them."""

    format: Literal["valueeval", "mfrc", "social_chemistry", "valuenet", "valueprism", "fulcra", "ethics", "generic"]
    path: str = Field(min_length=1, description="URL or path of the .csv, .tsv, .jsonl or .parquet file; may be a glob")
    labels: str = Field("", description="valueeval: the labels TSV; may be a glob; empty leaves the texts unlabelled")
    license: str = Field("", description="default: the public corpus' own; generic: required, or mapped in columns")
    language: str = "en"
    source: str = Field("", description="name of the corpus in every row; default: the format")
    columns: dict[generic.Name, str] = Field({}, description="generic: our name -> the file's column")
    text: Literal["situation", "rot", "action"] = Field("situation", description="social_chemistry: the column of texts")
    values: list[str] = Field([], description="ethics, of its commonsense part: the values that wrong conduct opposes")
    max_rows: int | None = Field(None, ge=1, description="read only so many rows, rejected ones included")

    @model_validator(mode="after")
    def _fits_format(self) -> "CorpusConfig":
        for name, owner in (
            ("labels", "valueeval"),
            ("columns", "generic"),
            ("text", "social_chemistry"),
            ("values", "ethics"),
        ):
            if self.format != owner and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is for format {owner!r} only, not for {self.format!r}")
        if self.format != "generic":
            return self
        if "text" not in self.columns:
            raise ValueError(f"columns.text is required for format 'generic': the column of texts in {self.path}")
        if not (self.license or "license" in self.columns):
            raise ValueError("license is required for format 'generic': give license=NAME or columns.license=COLUMN")
        if "value" not in self.columns and ("theory" in self.columns or "direction" in self.columns):
            raise ValueError("columns.theory and columns.direction need columns.value")
        return self


def check(config: CorpusConfig) -> None:
    """Open the head of every file; InputError for a missing file or column (names the file, the column, what exists)."""
    _open(config)


def read(config: CorpusConfig) -> Iterator[tuple[pa.Table, pa.Table, pa.Table]]:
    """Return chunks of (texts, source_labels, rejected); refuses what `check` refuses, a bad row goes to `rejected`.

    Nothing is deduplicated: a text that occurs in several rows comes out as often, each time with that row's labels.
    """
    return _chunks(config, *_open(config))


def _open(config: CorpusConfig) -> tuple[Adapter, list[str]]:
    files = urls(config.path)
    adapter = _adapter(config, files)
    for file in files:
        require(file, adapter.required, adapter.quoted)
    return adapter, files


def _adapter(config: CorpusConfig, files: list[str]) -> Adapter:
    match config.format:
        case "valueeval":
            return valueeval.adapter(config.labels)
        case "mfrc":
            return mfrc.adapter(columns(files[0]))
        case "social_chemistry":
            return social_chemistry.adapter(config.text)
        case "valuenet":
            return valuenet.adapter()
        case "valueprism":
            return valueprism.adapter()
        case "fulcra":
            return fulcra.adapter()
        case "ethics":
            return ethics.adapter(files, config.values)
        case "generic":
            return generic.adapter(config.columns)


def _chunks(config: CorpusConfig, adapter: Adapter, files: list[str]) -> Iterator[tuple[pa.Table, pa.Table, pa.Table]]:
    wanted = [*adapter.required, *adapter.optional]
    every = (row for file in files for row in rows(file, wanted, adapter.quoted))
    wanted_rows = itertools.islice(every, config.max_rows)
    while chunk := list(itertools.islice(wanted_rows, CHUNK)):
        yield _tables(config, adapter, chunk)


def _tables(config: CorpusConfig, adapter: Adapter, chunk: list[Row]) -> tuple[pa.Table, pa.Table, pa.Table]:
    source = config.source or config.format
    texts: list[dict[str, Any]] = []
    labels: list[dict[str, Any]] = []
    rejected: list[dict[str, Any]] = []
    for row in chunk:
        source_id = row.place
        try:
            source_id = cell(row.fields, adapter.source_id) or row.place
            item = _item(row, adapter, source_id)
            text = _text(item, config, source, source_id)
        except InputError as error:
            refused = {"source": source, "source_id": source_id, "file": row.file, "reason": str(error)}
            rejected.append({name: _printable(word) for name, word in refused.items()})
        else:
            texts.append(text)
            labels.extend(_labels(item, text["text_id"], source))
    return _table(texts, "texts"), _table(labels, "source_labels"), _table(rejected, "rejected")


def _item(row: Row, adapter: Adapter, source_id: str) -> Item:
    """The row as an item whose every string can be stored and whose text is language."""
    if row.error:
        raise InputError(row.error)
    item = adapter.item(row.fields)
    if any(UNDECODABLE.search(word) for word in (item.text, item.group, item.language, item.license, source_id)):
        raise InputError("row has bytes that are not UTF-8, or lone surrogates")
    if binary := BINARY.search(item.text):
        raise InputError(f"text has the control character U+{ord(binary[0]):04X}: binary data")
    if not item.text.strip():
        raise InputError("text is empty")
    if not any(character.isalpha() for character in item.text):
        raise InputError("text has no letters, only numbers or signs")
    return item


def _text(item: Item, config: CorpusConfig, source: str, source_id: str) -> dict[str, Any]:
    license_ = item.license.strip() or config.license or LICENSES.get(config.format, "")
    if not license_:
        raise InputError("row has no license, and the corpus' config gives none")
    own = text_id(item.text)
    return {
        "text_id": own,
        "text": clean(item.text),
        "language": item.language.strip() or config.language,
        "group_id": digest(clean(item.group)) if item.group.strip() else own,
        "source": source,
        "source_id": source_id,
        "license": license_,
    }


def _labels(item: Item, own: str, source: str) -> list[dict[str, Any]]:
    labels = []
    for label in item.labels:
        theory, _, node = label.value.partition(":")
        names = {"text_id": own, "theory": theory, "node": node, "source": source}
        labels.append(names | {"direction": label.direction, "annotators": label.annotators})
    return labels


def _table(records: list[dict[str, Any]], name: str) -> pa.Table:
    return conform(pa.Table.from_pylist(records, schema=SCHEMAS[name]), name)


def _printable(word: str) -> str:
    return word.encode("utf-8", "backslashreplace").decode()
