"""What rows hold beyond their types: finite numbers in their range, distinct ids, whole orders, the value of their folder.

A build may come from somebody else, with a manifest that agrees with its files: what is wrong here would be wrong numbers.
"""

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from valueflow.records import ADDED_COLUMNS, LIMIT

ROUNDING = 1e-6  # on the ends of a range
VALUE = ("theory", "value")
VALUE_FOLDER = re.compile(r"theory=([^/]*)/value=([^/]*)/")
# Columns that identify a row; within a folder of a value, where the table has such folders.
KEYS: dict[str, tuple[str, ...]] = {
    "texts": ("text_id",), "candidates": ("text_id",), "windows": ("window_id",), "utilities": ("text_id",),
    "vidb": ("text_id",), "responses": ("response_id",), "evaluations": ("response_id", *VALUE), "embeddings": ("text_id",),
    "labels": ("text_id", "theory"), "anchors": ("anchor_id",), "anchored": ("text_id",), "individuals": ("text_id", "theory"),
    "generations": ("generation_id",), "choices": ("choice_id",),
    "unit_texts": ("row_id",), "profiles": ("profile_id",),
}  # fmt: skip
TOKENS = ("tokens_in", "tokens_out")  # null counts as 0
# Columns of numbers and lists that may be null, and when: docs/data.md.
NULLS: dict[str, set[str]] = {
    "source_labels": {"direction", "annotators"},
    "candidates": {"direction"},
    "votes": {"cost", *TOKENS},
    "labels": {"direction", "agreement"},
    "rankings": {"order", "weight", *TOKENS},
    "names": {*TOKENS},
    "vidb": {
        "standard_error", "num_windows", "wins", "component", "low", "high", "judge_intensity", "judge_low", "judge_high",
        "flags", "human_mean", "direction",
    },
    "generations": {"requested"},
    "choices": {*TOKENS},
    "evaluations": {"intensity", "low", "high", "judge_intensity", "judge_low", "judge_high"},
    "profiles": {
        "intensity", "low", "high", "standard_error", "shared_error", "standardized", "mean_rating", "centred", "centred_low",
        "centred_high", "centred_error",
    },
}  # fmt: skip
_POINTS, _SHARE, _COUNT = (-LIMIT, LIMIT), (0.0, 1.0), (0.0, np.inf)
# Least and largest number, by column; a column has one meaning in all tables.
RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("intensity", "low", "high", "judge_intensity", "judge_low", "judge_high", "requested"), _POINTS),
    **dict.fromkeys(("human_mean", "final_rating"), _POINTS),
    **dict.fromkeys(("weight", "agreement", "confidence", "relevance", "shares"), _SHARE),
    **dict.fromkeys(("standard_error", "num_windows", "num_failed", "wins", "component", "flags", "round"), _COUNT),
    **dict.fromkeys(("shared_error", "centred_error", "num_clusters", "num_left_out"), _COUNT),
    **dict.fromkeys((*TOKENS, "cost", "num_texts", "annotators", "k", "m"), _COUNT),
    **dict.fromkeys(("reasoning_tokens", "variant", "replicate"), _COUNT),
    "direction": (-1.0, 1.0),
    "rank": (1.0, np.inf),
}


def check_rows(table: str, rows: pa.Table, path: str, finished: bool) -> None:
    """Check the columns that were read of a part.

    Args:
        table: name of the table.
        rows: some or all of its columns.
        path: of the part in its build.
        finished: whether a manifest lists it; else two attempts may have written a row.

    Raises:
        ValueError: what is wrong, with the column and the first such value.
    """
    folder = VALUE_FOLDER.search(path)
    for name, expected in zip(VALUE, folder.groups() if folder else (), strict=False):
        if name in rows.column_names:
            others = rows[name].filter(pc.not_equal(rows[name], expected))
            if len(others):
                raise ValueError(f"it has rows of {name} {others[0].as_py()!r}, and its folder is that of {expected!r}")
    nullable = NULLS.get(table, set()).union(ADDED_COLUMNS)  # builds of earlier code lack these
    for name in rows.column_names:
        column = rows[name]
        is_text = pa.types.is_string(column.type)
        needed = finished and (name.endswith("_id") or name in (*VALUE, "text")) if is_text else name not in nullable
        if column.null_count and needed:
            raise ValueError(f"column {name!r} has {column.null_count} nulls")
        if pa.types.is_list(column.type):
            _check_lists(name, column)
        elif pa.types.is_floating(column.type) or pa.types.is_integer(column.type):
            _check_numbers(name, column)
    _check_answers(table, rows)
    if finished:
        check_distinct(table, rows)


def check_distinct(table: str, rows: pa.Table) -> None:
    """Raise ValueError where two rows have one id, as far as the columns that were read tell."""
    key = [name for name in KEYS.get(table, ()) if name in rows.column_names]
    if not key or len(key) < len(KEYS[table]):
        return
    counts = rows.select(key).group_by(key).aggregate([([], "count_all")])
    if counts.num_rows < rows.num_rows:
        twice = counts.filter(pc.greater(counts["count_all"], 1)).slice(0, 1).to_pylist()[0]
        raise ValueError(f"{twice['count_all']} rows have the {key[0]} {twice[key[0]]!r}")


def _check_numbers(name: str, column: pa.ChunkedArray) -> None:
    least, largest = RANGES.get(name, (-np.inf, np.inf))
    numbers = column.drop_null().cast(pa.float64()).to_numpy()
    wrong = ~(np.isfinite(numbers) & (numbers >= least - ROUNDING) & (numbers <= largest + ROUNDING))
    if wrong.any():
        limits = f"numbers from {least:g} to {largest:g} are" if np.isfinite([least, largest]).any() else "finite numbers are"
        raise ValueError(f"column {name!r} has {numbers[wrong.argmax()]:g}; {limits} allowed")


def _check_lists(name: str, column: pa.ChunkedArray) -> None:
    inside = pc.list_flatten(column)
    if inside.null_count:
        raise ValueError(f"column {name!r} has nulls in a list")
    if pa.types.is_list(inside.type):
        _check_lists(name, inside)
        return
    if name == "embedding":
        sizes = pc.unique(pc.list_value_length(column))
        if len(sizes) > 1 or (len(sizes) and sizes[0].as_py() == 0):
            raise ValueError(f"column {name!r} has vectors of {sizes.to_pylist()[:5]} numbers")
    if pa.types.is_floating(inside.type):
        _check_numbers(name, inside)


def _check_answers(table: str, rows: pa.Table) -> None:
    """Windows have distinct texts, and an order has each of its positions once."""
    if table not in ("windows", "rankings"):
        return
    names = set(rows.column_names)
    if "text_ids" in names and (repeated := _first_repeated(rows["text_ids"])):
        raise ValueError(f"a window has the text {repeated!r} twice")
    if "order" not in names:
        return
    valid = rows.filter(pc.is_valid(rows["order"]))
    if "error" in names and pc.any(pc.equal(pc.is_valid(rows["order"]), pc.is_valid(rows["error"]))).as_py():
        raise ValueError("a row has both an order and an error, or neither")
    size_W = pc.list_value_length(valid["order"]).to_numpy()
    if "text_ids" in names and not np.array_equal(size_W, pc.list_value_length(valid["text_ids"]).to_numpy()):
        raise ValueError("an order has another length than its window")
    flat = pc.list_flatten(valid["order"]).to_numpy()
    row = np.repeat(np.arange(len(size_W)), size_W)
    positions = np.arange(len(flat)) - np.repeat(np.cumsum(size_W) - size_W, size_W)
    wrong = flat[np.lexsort((flat, row))] != positions
    if wrong.any():
        order = valid["order"][int(row[wrong.argmax()])].as_py()
        raise ValueError(f"{order} is no order: each position from 0 to {len(order) - 1} occurs once in one")


def _first_repeated(lists: pa.ChunkedArray) -> str:
    """The first element that is twice in one list."""
    sizes = pc.list_value_length(lists).to_numpy()
    row = np.repeat(np.arange(len(sizes)), sizes)
    flat = pc.list_flatten(lists).combine_chunks()
    code = flat.dictionary_encode().indices.to_numpy()
    by_row = np.lexsort((code, row))
    same = (np.diff(code[by_row]) == 0) & (np.diff(row[by_row]) == 0)
    return str(flat[int(by_row[same.argmax()])].as_py()) if same.any() else ""
