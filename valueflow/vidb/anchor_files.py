"""Files of texts with intensities (official CSV, JSON lines): read them, import them as a version."""

from typing import Final

import numpy as np
import pyarrow as pa

from valueflow import store
from valueflow.errors import InputError
from valueflow.ranking.calibration import Calibration
from valueflow.records import LIMIT, ValueId, clean, digest, text_id
from valueflow.store import Build, VidbDetails
from valueflow.tabular import cell, columns, number, strict_rows
from valueflow.theories import operational, resolve

# The column that says how a text came to be rated, and its word for texts that were drawn by lot. An empty cell means the same.
BASIS: Final = "basis"
RANDOM: Final = "random"


def intensity_of(raw: object, what: str) -> float:
    """Return an intensity that was read from a file.

    Raises:
        InputError: it is not a number in [-10, 10]; the message begins with `what`.
    """
    intensity = number(raw)
    if intensity is None:
        raise InputError(f"{what} is {raw!r}, not a number")
    if not -LIMIT <= intensity <= LIMIT:
        raise InputError(f"{what} is {intensity:g}; intensities lie in [-10, 10]")
    return intensity


def import_version(paths: list[str], license_: str, source: str, root: str) -> tuple[Build, dict[str, int]]:
    """Write a version from official CSVs (`{value}_{theory}.csv`: text, final_rating) or JSON lines (theory, value, text,
    intensity).

    Theta is set to the intensity: its scale in nats is unknown, so the evaluator estimates the judge's sharpness on it.

    Returns:
        The version, and the numbers of texts, duplicates and empty texts.

    Raises:
        InputError: a file cannot be read, a value is not operational, or there is no text.
    """
    counts = {"texts": 0, "duplicates": 0, "empty": 0}
    pools: dict[ValueId, dict[str, tuple[str, float]]] = {}
    for path in paths:
        for value, text, intensity in read_anchors(path):
            if value not in operational():
                raise InputError(f"{path}: {value} is not one of the 32 operational values: {', '.join(operational())}")
            text = clean(text)
            pool = pools.setdefault(value, {})
            counts["empty" if not text else "duplicates" if text_id(text) in pool else "texts"] += 1
            if text:
                pool.setdefault(text_id(text), (text, intensity))
    if not counts["texts"]:
        raise InputError(f"no text in {', '.join(paths)}")
    content = {v: sorted((i, r) for i, (_, r) in pool.items()) for v, pool in pools.items()}
    out = Build(root, "vidb", f"import-{digest(content, license_, source)}")
    if store.reusable(out):
        return out, counts
    for value, pool in pools.items():
        theory, node = value.theory, value.node
        ids = sorted(pool)
        rating = np.array([pool[i][1] for i in ids])
        size = len(ids)
        columns = {
            "theory": [theory] * size, "value": [node] * size, "text_id": ids, "text": [pool[i][0] for i in ids],
            "theta": rating, "standard_error": [None] * size, "num_windows": [None] * size, "wins": [None] * size,
            "component": [None] * size, "intensity": rating, "low": [None] * size, "high": [None] * size,
            "judge_intensity": [None] * size, "judge_low": [None] * size, "judge_high": [None] * size,
            "flags": [None] * size, "human_mean": [None] * size, "final_rating": rating, "agreed": [True] * size,
            "direction": np.sign(rating).astype(np.int8), "source": [source] * size, "license": [license_] * size,
        }  # fmt: skip
        store.write_part(out, pa.table(columns), "0", store.value_folder(value))
    identity = Calibration.identity().model_dump()
    store.commit(out, VidbDetails(imported=paths, calibrations=dict.fromkeys(pools, identity), **counts), paths)
    return out, counts


def read_anchors(path: str, basis: str = "") -> list[tuple[ValueId, str, float]]:
    """Return (value id, text, intensity) of each row of a file of either form, in any format of `tabular`.

    Official: columns text and final_rating, named `{value}_{theory}.csv`. Rated texts: theory, value, text, intensity; or, one
    row per rater, rating, of which each text gets the mean. A file with both ratings is official if it is a CSV.

    Args:
        path: the file.
        basis: rows of rated texts whose column basis holds another word are left out; "": none.

    Raises:
        InputError: the file, a column or a field is missing, a row is bad, or an intensity is not a number in [-10, 10].
    """
    names = columns(path)
    has_rating, has_intensity = "final_rating" in names, "intensity" in names or {"value", "rating"} <= set(names)
    official = path.lower().endswith((".csv", ".tsv")) if has_rating == has_intensity else has_rating
    return _official(path) if official else _rated(path, basis, "intensity" if "intensity" in names else "rating")


def _official(path: str) -> list[tuple[ValueId, str, float]]:
    node, _, theory = path.rpartition("/")[2].rpartition(".")[0].rpartition("_")
    if not node:
        raise InputError(f"{path}: the name must be {{value}}_{{theory}}.csv, for example benevolence_svt.csv")
    value = resolve(node, theory)
    return [
        (value, cell(row.fields, "text"), intensity_of(row.fields["final_rating"], f"{row.location} final_rating"))
        for row in strict_rows(path, ["text", "final_rating"])
    ]


def _rated(path: str, basis: str, column: str) -> list[tuple[ValueId, str, float]]:
    rated: list[tuple[ValueId, str, float]] = []
    for row in strict_rows(path, ["theory", "value", "text", column], optional=[BASIS]):
        is_empty = column == "rating" and not cell(row.fields, column).strip()
        if is_empty or (basis and cell(row.fields, BASIS) not in ("", basis)):
            continue
        try:
            value = resolve(cell(row.fields, "value"), cell(row.fields, "theory"))
        except InputError as error:
            raise InputError(f"{row.location}: {error}") from None
        text = "" if row.fields["text"] is None else row.fields["text"]
        if not isinstance(text, str):
            raise InputError(f"{row.location}: text is {text!r}, not a string")
        rated.append((value, text, intensity_of(row.fields[column], f"{row.location} {column}")))
    return rated if column == "intensity" else _means(rated)


def _means(rated: list[tuple[ValueId, str, float]]) -> list[tuple[ValueId, str, float]]:
    """The mean rating of each text over its raters."""
    ratings: dict[tuple[ValueId, str], tuple[str, list[float]]] = {}
    for value, text, rating in rated:
        ratings.setdefault((value, text_id(text)), (text, []))[1].append(rating)
    return [(value, text, sum(of_text) / len(of_text)) for (value, _), (text, of_text) in ratings.items()]
