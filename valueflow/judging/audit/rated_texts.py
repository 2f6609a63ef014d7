"""Anchors of known intensity on which judges are examined: the sample corpus, a file, or the truth of a simulated judge."""

from importlib import resources

import numpy as np
import pyarrow as pa

from valueflow import vidb
from valueflow.errors import InputError, allowed
from valueflow.judging.audit.triples import RATED_TEXTS
from valueflow.judging.configs import AnyJudge, SimulatedJudge
from valueflow.judging.simulated import true_theta
from valueflow.records import clean, text_id
from valueflow.tabular import strict_rows
from valueflow.theories import operational

SAMPLE = "sample"
NUM_NEUTRAL = 10  # neutral texts in the sample's pool of every value


def rated_texts(anchors: str, values: list[str]) -> pa.Table:
    """Return anchors (`audit.KNOWN`) of some values, each text once a value.

    Args:
        anchors: "sample" (the project's statements that no exemplar repeats; rating = direction times strength, neutral texts
            0), or the path of an official `{value}_{theory}.csv` or a JSONL of theory, value, text, intensity.
        values: value ids; empty for all that the anchors have.

    Raises:
        InputError: a value has no anchors.
    """
    rows = _sample() if anchors == SAMPLE else vidb.read_anchors(anchors)
    by_value: dict[str, dict[str, tuple[str, float]]] = {}
    for value, text, rating in rows:
        if value not in operational():
            raise InputError(f"{anchors}: {value} is not one of the operational values; {allowed(value, operational())}")
        if clean(text):
            by_value.setdefault(value, {}).setdefault(text_id(text), (clean(text), rating))
    missing = [value for value in values if value not in by_value]
    if missing:
        raise InputError(f"the anchors {anchors!r} have no {missing[0]!r}; {allowed(missing[0], by_value)}")
    found = [
        {"theory": value.partition(":")[0], "value": value.partition(":")[2], "text_id": i, "text": text, "rating": rating}
        for value in (dict.fromkeys(values) or by_value)
        for i, (text, rating) in sorted(by_value[value].items())
    ]
    return pa.Table.from_pylist(found, RATED_TEXTS)


def with_judge_truth(judge: AnyJudge, anchors: pa.Table) -> pa.Table:
    """Return the anchors with the ratings that the judge is held to: for a simulated judge its own truth."""
    if not isinstance(judge, SimulatedJudge):
        return anchors
    pairs = zip(anchors["value"].to_pylist(), anchors["text_id"].to_pylist(), strict=True)
    truth = pa.array([true_theta(value, i, judge.spread) for value, i in pairs], pa.float64())
    return anchors.set_column(anchors.schema.get_field_index("rating"), "rating", truth)


def _sample() -> list[tuple[str, str, float]]:
    rated = [
        (f"{row['theory']}:{row['value']}", row["text"], float(row["direction"]) * float(row["strength"]))
        for row in _sample_rows("corpus", ["theory", "value", "text", "direction", "strength"])
    ]
    neutral, rng = [row["text"] for row in _sample_rows("neutral", ["text"])], np.random.default_rng(0)
    chosen = {value: rng.permutation(len(neutral))[:NUM_NEUTRAL] for value in operational()}
    return rated + [(value, neutral[i], 0.0) for value, places in chosen.items() for i in places]


def _sample_rows(name: str, columns: list[str]) -> list[dict[str, str]]:
    with resources.as_file(resources.files("valueflow").joinpath(f"samples/{name}.csv")) as path:
        return [row.fields for row in strict_rows(str(path), columns)]
