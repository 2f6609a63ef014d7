"""The Arrow schema of each table that passes between stages, the hashes behind ids, and value ids."""

import hashlib
import json
import re
import unicodedata
from typing import Self

import pyarrow as pa

from valueflow.errors import InputError

LIMIT = 10.0  # intensities lie in [-LIMIT, LIMIT]
UNDECODABLE = re.compile("[\ud800-\udfff]")  # surrogates: a text with one has no UTF-8 encoding
CONTROL = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]")  # all control characters that are not white space
NOT_UTF8 = "bytes that are not UTF-8, or lone surrogates"

S, F, N = pa.string(), pa.float64(), pa.int32()

# Every column is explained in docs/data.md.
# fmt: off
SCHEMAS = {
    "texts": pa.schema(
        [("text_id", S), ("text", S), ("language", S), ("group_id", S), ("source", S), ("source_id", S), ("license", S)]
    ),
    "source_labels": pa.schema(
        [("text_id", S), ("theory", S), ("node", S), ("direction", pa.int8()), ("annotators", N), ("source", S)]
    ),
    "rejected": pa.schema([("source", S), ("source_id", S), ("file", S), ("reason", S)]),
    "ballots": pa.schema(
        [
            ("ballot_id", S), ("kind", S), ("theory", S), ("node", S), ("text_id", S), ("options", pa.list_(S)),
            ("round", N), ("detail", S),
        ]
    ),
    "votes": pa.schema(
        [
            ("vote_id", S), ("ballot_id", S), ("kind", S), ("theory", S), ("node", S), ("text_id", S), ("round", N),
            ("voter", S), ("options", pa.list_(S)), ("choice", S), ("error", S), ("reply", S), ("tokens_in", N),
            ("tokens_out", N), ("cost", F), ("truncated_ids", pa.list_(S)),
        ]
    ),
    "labels": pa.schema(
        [
            ("text_id", S), ("theory", S), ("path", pa.list_(S)), ("paths", pa.list_(pa.list_(S))), ("direction", pa.int8()),
            ("decision", S), ("agreement", F), ("unanimous", pa.bool_()),
        ]
    ),
    "queue": pa.schema(
        [
            ("text_id", S), ("text", S), ("theory", S), ("path", pa.list_(S)), ("kind", S), ("asked", S),
            ("options", pa.list_(S)), ("counts", S),
        ]
    ),
    "candidates": pa.schema(
        [
            ("theory", S), ("value", S), ("text_id", S), ("text", S), ("direction", pa.int8()),
            ("neutral", pa.bool_()), ("source", S), ("license", S),
        ]
    ),
    "windows": pa.schema([("window_id", S), ("theory", S), ("value", S), ("text_ids", pa.list_(S)), ("round", N)]),
    "rankings": pa.schema(
        [
            ("window_id", S), ("theory", S), ("value", S), ("text_ids", pa.list_(S)), ("round", N), ("judge", S),
            ("order", pa.list_(N)), ("weight", F), ("relevance", F), ("error", S), ("reply", S), ("tokens_in", N),
            ("tokens_out", N), ("truncated_ids", pa.list_(S)),
        ]
    ),
    "utilities": pa.schema(
        [
            ("theory", S), ("value", S), ("text_id", S), ("theta", F), ("standard_error", F),
            ("num_windows", N), ("wins", F), ("component", N),
        ]
    ),
    "vidb": pa.schema(
        [
            ("theory", S), ("value", S), ("text_id", S), ("text", S), ("theta", F), ("standard_error", F),
            ("num_windows", N), ("wins", F), ("component", N), ("intensity", F), ("low", F), ("high", F),
            ("judge_intensity", F), ("judge_low", F), ("judge_high", F), ("flags", N), ("human_mean", F),
            ("final_rating", F), ("agreed", pa.bool_()), ("direction", pa.int8()), ("source", S), ("license", S),
        ]
    ),
    "responses": pa.schema([("response_id", S), ("query", S), ("dataset", S), ("response", S), ("about", S)]),
    "evaluations": pa.schema(
        [
            ("response_id", S), ("query", S), ("dataset", S), ("response", S), ("theory", S), ("value", S),
            ("intensity", F), ("low", F), ("high", F), ("judge_intensity", F), ("judge_low", F), ("judge_high", F),
            ("relevance", F), ("num_windows", N), ("num_failed", N),
            ("judge", S), ("vidb_version", S), ("sampling", S), ("k", N), ("m", N),
        ]
    ),
    "generations": pa.schema(
        [
            ("generation_id", S), ("model", S), ("regime", S), ("condition", S), ("turn", S), ("values", pa.list_(S)),
            ("levels", pa.list_(N)), ("variant", N), ("replicate", N), ("query_id", S), ("dataset", S), ("query", S),
            ("exemplar_ids", pa.list_(S)), ("requested", F), ("prompt_hash", S), ("wording_hash", S), ("response", S),
            ("response_text_id", S), ("finish_reason", S), ("outcome", S), ("outcome_by", S), ("error", S),
            ("tokens_in", N), ("tokens_out", N), ("reasoning_tokens", N), ("cost", F),
        ]
    ),
    "choices": pa.schema(
        [
            ("choice_id", S), ("prompt_id", S), ("model", S), ("reading", S), ("reverse", pa.bool_()), ("options", pa.list_(S)),
            ("shares", pa.list_(F)), ("unread", S), ("error", S), ("reply", S), ("tokens_in", N), ("tokens_out", N),
            ("cost", F),
        ]
    ),
    "unit_texts": pa.schema([("row_id", S), ("unit", S), ("text_id", S), ("text", S), ("thread", S), ("weight", F)]),
    "profiles": pa.schema(
        [
            ("profile_id", S), ("unit_id", S), ("unit", S), ("theory", S), ("value", S), ("intensity", F), ("low", F),
            ("high", F), ("standard_error", F), ("shared_error", F), ("num_texts", N), ("num_clusters", N),
            ("num_left_out", N), ("standardized", F), ("mean_rating", F), ("centred", F), ("centred_low", F),
            ("centred_high", F), ("centred_error", F), ("halves", pa.list_(F)), ("statements", pa.list_(S)),
            ("threads", pa.list_(S)), ("influence", pa.list_(F)),
        ]
    ),
    "embeddings": pa.schema([("text_id", S), ("embedding", pa.list_(pa.float32()))]),
    "anchors": pa.schema(
        [
            ("anchor_id", S), ("name", S), ("named_by", S), ("medoids", pa.list_(S)), ("num_texts", N), ("svt", N), ("mft", N),
            ("duty", N), ("right", N), ("cohesion", F),
        ]
    ),
    "anchored": pa.schema([("text_id", S), ("anchor_id", S), ("similarity", F)]),
    "individuals": pa.schema([("text_id", S), ("theory", S), ("individual", S), ("similarity", F)]),
    "names": pa.schema(
        [
            ("anchor_id", S), ("texts", pa.list_(S)), ("round", N), ("judge", S), ("name", S), ("error", S), ("reply", S),
            ("tokens_in", N), ("tokens_out", N), ("truncated_ids", pa.list_(S)),
        ]
    ),
    "extracted": pa.schema(
        [
            ("text_id", S), ("theory", S), ("path", pa.list_(S)), ("rank", N), ("distance", F), ("direction", pa.int8()),
            ("confidence", F),
        ]
    ),
}

# fmt: on

# Null in older builds: before 0.6 `intensity`, `low` and `high` are the judge's own; truncated texts were not counted, and
# relevance was not known, nor the values that a response is about.
ADDED_COLUMNS = ("judge_intensity", "judge_low", "judge_high", "truncated_ids", "relevance", "about")


class ValueId(str):
    """The id of a value, `theory:node` (`svt:benevolence`): a string with the properties `theory` and `node`."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Return the id.

        Raises:
            ValueError: the text is not of the form theory:node.
        """
        if text.count(":") != 1 or text.startswith(":") or text.endswith(":"):
            raise ValueError(f"{text!r} is not a value id; write theory:node, for example svt:benevolence")
        return super().__new__(cls, text)

    @classmethod
    def of(cls, theory: str, node: str) -> Self:
        """Return the id of a node of a theory."""
        return cls(f"{theory}:{node}")

    @property
    def theory(self) -> str:
        """The id of the theory, for example svt."""
        return self.partition(":")[0]

    @property
    def node(self) -> str:
        """The id of the node within its theory, for example benevolence."""
        return self.partition(":")[2]


_JSON = json.JSONEncoder(sort_keys=True, ensure_ascii=False)


def conform(table: pa.Table, name: str) -> pa.Table:
    """Return `table` with exactly the columns and types of table `name`.

    Raises:
        InputError: a column is missing or cannot be cast; the message names it and the existing columns.
    """
    schema = SCHEMAS[name]
    missing = [column for column in schema.names if column not in table.column_names]
    if missing:
        raise InputError(f"table {name!r} lacks column(s) {missing}; it has {table.column_names}")
    try:
        return table.select(schema.names).cast(schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(f"table {name!r} does not fit its schema: {error}") from error


def digest(*parts: object) -> str:
    """Return a 64-bit hexadecimal hash of JSON-serializable parts: the id of a window, a ballot or a build."""
    return hashlib.sha256(_JSON.encode(parts).encode()).hexdigest()[:16]


def flaw(text: str) -> str:
    """Return what a text has that no text may have, "" if nothing: undecodable bytes or control characters.

    These are signs of binary data or of another encoding. Such a text is refused wherever texts come in, never judged.
    """
    if UNDECODABLE.search(text):
        return NOT_UTF8
    control = CONTROL.search(text)
    return f"the control character U+{ord(control[0]):04X}: binary data" if control else ""


def clean(text: str) -> str:
    """Return `text` in Unicode NFC with each run of white space as one space: the form that is stored, judged and hashed."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def text_id(text: str) -> str:
    """Return the content id of a text; equal texts (up to white space and Unicode form) have equal ids."""
    return hashlib.sha256(clean(text).encode("utf-8", "surrogatepass")).hexdigest()[:16]
