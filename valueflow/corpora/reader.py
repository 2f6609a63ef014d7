"""Read a corpus of any supported format as tables of texts, labels and rejected rows."""

import itertools
from collections.abc import Iterator
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field, model_validator

from valueflow.config import Config
from valueflow.corpora import ethics, fulcra, generic, mfrc, social_chemistry, valueeval, valuenet, valueprism
from valueflow.corpora.items import Adapter, Item
from valueflow.errors import InputError
from valueflow.records import SCHEMAS, clean, conform, digest, flaw, text_id
from valueflow.tabular import Row, cell, columns, require, row_names, rows, urls

CHUNK = 5_000  # rows
LICENSES = {
    "valueeval": "CC-BY-4.0",
    "mfrc": "CC-BY-4.0",
    "social_chemistry": "CC-BY-SA-4.0",
    "valuenet": "CC-BY-NC-SA-4.0",
    "valueprism": "AI2-ImpACT-MR",
    "fulcra": "unknown",
    "ethics": "MIT",
}


class CorpusConfig(Config):
    """Location and format of one corpus."""

    format: Literal["valueeval", "mfrc", "social_chemistry", "valuenet", "valueprism", "fulcra", "ethics", "generic"]
    path: str = Field(min_length=1, description="URL or path of the .csv, .tsv, .jsonl or .parquet file; may be a glob")
    labels: str = Field("", description="valueeval: the labels TSV; may be a glob; empty: texts without labels")
    license: str = Field("", description="default: the license of the public corpus; generic: required, here or in columns")
    language: str = "en"
    source: str = Field("", description="name of the corpus in every row; default: the format")
    columns: dict[generic.Name, str] = Field({}, description="generic: ValueFlow's column name -> the file's")
    text: Literal["situation", "rot", "action"] = Field("situation", description="social_chemistry: the column of texts")
    values: list[str] = Field([], description="ethics: read commonsense files; wrong conduct opposes these values")
    max_rows: int | None = Field(None, ge=1, description="read at most this many rows, rejected ones included")

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
            raise ValueError(f"columns.text is required for format 'generic': the column that holds the texts of {self.path}")
        if not (self.license or "license" in self.columns):
            raise ValueError("license is required for format 'generic': give license=NAME or columns.license=COLUMN")
        if "value" not in self.columns and ("theory" in self.columns or "direction" in self.columns):
            raise ValueError("columns.theory and columns.direction need columns.value")
        return self


def check(config: CorpusConfig) -> None:
    """Open every file and check its columns.

    Raises:
        InputError: a file or a column is missing; the message names it and the existing columns.
    """
    _open(config)


def read(config: CorpusConfig) -> Iterator[tuple[pa.Table, pa.Table, pa.Table]]:
    """Return chunks of (texts, source_labels, rejected); a bad row goes to `rejected` with the reason.

    Nothing is deduplicated: a text that occurs in several rows is returned once per row, each time with that row's labels.

    Raises:
        InputError: as `check`.
    """
    return _chunks(config, *_open(config))


def _open(config: CorpusConfig) -> tuple[Adapter, list[str]]:
    files = urls(config.path)
    adapter = _adapter(config, files)
    require(files, adapter.required, adapter.quoted)
    return adapter, files


def _adapter(config: CorpusConfig, files: list[str]) -> Adapter:
    match config.format:
        case "valueeval":
            return valueeval.adapter(config.labels)
        case "mfrc":
            return mfrc.adapter(columns(files[0], wanted=[mfrc.ANNOTATION]))
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
    names = [*adapter.required, *adapter.optional]
    all_rows = (row for file in files for row in rows(file, names, adapter.quoted))
    limited = itertools.islice(all_rows, config.max_rows)
    named = row_names(files)
    while chunk := list(itertools.islice(limited, CHUNK)):
        yield _tables(config, adapter, chunk, named)


def _tables(
    config: CorpusConfig, adapter: Adapter, chunk: list[Row], named: dict[str, str]
) -> tuple[pa.Table, pa.Table, pa.Table]:
    source = config.source or config.format
    texts: list[dict[str, Any]] = []
    labels: list[dict[str, Any]] = []
    rejected: list[dict[str, Any]] = []
    for row in chunk:
        source_id = row_id = f"{named[row.file]}:{row.number}"
        try:
            source_id = cell(row.fields, adapter.source_id) or row_id
            item = _item(row, adapter)
            text = _text(item, config, source, source_id)
        except InputError as error:
            entry = {"source": source, "source_id": source_id, "file": row.file, "reason": str(error)}
            rejected.append({name: _printable(text) for name, text in entry.items()})
        else:
            texts.append(text)
            labels.extend(_labels(item, text["text_id"], source))
    return _table(texts, "texts"), _table(labels, "source_labels"), _table(rejected, "rejected")


def _item(row: Row, adapter: Adapter) -> Item:
    """The item of a row; InputError where it cannot be read or the text is not natural language."""
    if row.error:
        raise InputError(row.error)
    item = adapter.item(row.fields)
    if problem := flaw(item.text):
        raise InputError(f"text has {problem}")
    if not item.text.strip():
        raise InputError("text is empty")
    if not any(character.isalpha() for character in item.text):
        raise InputError("text has no letters, only numbers or signs")
    return item


def _text(item: Item, config: CorpusConfig, source: str, source_id: str) -> dict[str, Any]:
    license_ = item.license.strip() or config.license or LICENSES.get(config.format, "")
    if not license_:
        raise InputError("row has no license, and the corpus' config gives none")
    identifier = text_id(item.text)
    return {
        "text_id": identifier,
        "text": clean(item.text),
        "language": item.language.strip() or config.language,
        "group_id": digest(clean(item.group)) if item.group.strip() else identifier,
        "source": source,
        "source_id": source_id,
        "license": license_,
    }


def _labels(item: Item, identifier: str, source: str) -> list[dict[str, Any]]:
    return [
        {
            "text_id": identifier, "theory": label.value.theory, "node": label.value.node, "direction": label.direction,
            "annotators": label.annotators, "source": source,
        }
        for label in item.labels
    ]  # fmt: skip


def _table(records: list[dict[str, Any]], name: str) -> pa.Table:
    return conform(pa.Table.from_pylist(records, schema=SCHEMAS[name]), name)


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
