"""Rated texts for audits: the sample corpus, a file, or the truth of a simulated judge."""

from importlib import resources

import numpy as np
import pyarrow as pa

from valueflow import vidb
from valueflow.errors import InputError, allowed
from valueflow.judging.audit.triples import RATED_TEXTS
from valueflow.judging.configs import AnyJudge
from valueflow.judging.kinds import kind_of
from valueflow.records import ValueId, clean, text_id
from valueflow.tabular import strict_rows
from valueflow.theories import operational
from valueflow.vidb.anchor_files import RANDOM

SAMPLE = "sample"
NUM_NEUTRAL = 10  # neutral texts per value in the sample


def rated_texts(anchors: str, values: list[str]) -> pa.Table:
    """Return rated texts (`triples.RATED_TEXTS`) of some values, each text once per value.

    Args:
        anchors: "sample" (the project's statements, none of them an exemplar; rating = direction times strength, 0 for neutral
            texts), or the path of an official `{value}_{theory}.csv` or a file of theory, value, text, intensity (or rating,
            one row per rater). Of ratings that `jobs.import_ratings` wrote, those of texts that were drawn at random count.
        values: value ids; empty for all values with rated texts.

    Raises:
        InputError: a value has no rated texts.
    """
    rows = _sample() if anchors == SAMPLE else vidb.read_anchors(anchors, basis=RANDOM)
    by_value: dict[ValueId, dict[str, tuple[str, float]]] = {}
    for value, text, rating in rows:
        if value not in operational():
            raise InputError(f"{anchors}: {value} is not one of the operational values; {allowed(value, operational())}")
        if clean(text):
            by_value.setdefault(value, {}).setdefault(text_id(text), (clean(text), rating))
    missing = [value for value in values if value not in by_value]
    if missing:
        raise InputError(f"the anchors {anchors!r} have no texts of {missing[0]!r}; {allowed(missing[0], by_value)}")
    table = [
        {"theory": value.theory, "value": value.node, "text_id": i, "text": text, "rating": rating}
        for value in (map(ValueId, dict.fromkeys(values)) if values else by_value)
        for i, (text, rating) in sorted(by_value[value].items())
    ]
    return pa.Table.from_pylist(table, RATED_TEXTS)


def with_judge_truth(judge: AnyJudge, rated: pa.Table) -> pa.Table:
    """Return the rated texts with the ratings that the judge should reproduce: for a simulated judge, its own truth."""
    true_rating = kind_of(judge).true_rating
    if not true_rating:
        return rated
    pairs = zip(rated["value"].to_pylist(), rated["text_id"].to_pylist(), strict=True)
    truth = pa.array([true_rating(judge, node, text_id) for node, text_id in pairs], pa.float64())
    return rated.set_column(rated.schema.get_field_index("rating"), "rating", truth)


def _sample() -> list[tuple[ValueId, str, float]]:
    rated = [
        (ValueId.of(row["theory"], row["value"]), row["text"], float(row["direction"]) * float(row["strength"]))
        for row in _sample_rows("corpus", ["theory", "value", "text", "direction", "strength"])
    ]
    neutral, rng = [row["text"] for row in _sample_rows("neutral", ["text"])], np.random.default_rng(0)
    picks = {value: rng.permutation(len(neutral))[:NUM_NEUTRAL] for value in operational()}
    return rated + [(value, neutral[i], 0.0) for value, indices in picks.items() for i in indices]


def _sample_rows(name: str, columns: list[str]) -> list[dict[str, str]]:
    with resources.as_file(resources.files("valueflow").joinpath(f"samples/{name}.csv")) as path:
        return [row.fields for row in strict_rows(str(path), columns)]
