"""The table and the sentences with which an evaluation ends in the terminal."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from valueflow import store
from valueflow.evaluation.responses import OwnValue
from valueflow.ranking.content_error import ContentError
from valueflow.records import ValueId, text_id
from valueflow.report.collect import rests_on
from valueflow.report.terminal import Column, text_table
from valueflow.store import Build, EvaluationsDetails

TEXT_WIDTH = 70
# Lowest squared correlation of a judge with people for each grade.
GRADES = ((0.8, "good"), (0.5, "fair"), (-np.inf, "weak"))


class OwnValueFigures(NamedTuple):
    """How an evaluation does on responses whose author says which value they are about, and on which side.

    Attributes:
        num_on: scores of responses on their own value.
        num_right: of them, those with the right sign.
        num_wrong: of them, those whose interval excludes the right sign.
        size_on: their mean |intensity|, points.
        num_off: scores on another value.
        num_zero: of them, those whose interval contains 0.
        size_off: their mean |intensity|, points; 0 without any.
    """

    num_on: int
    num_right: int
    num_wrong: int
    size_on: float
    num_off: int
    num_zero: int
    size_off: float


class _Split(NamedTuple):
    """Rows of responses on their own value with their side, and on other values."""

    on: list[tuple[dict, int]]
    off: list[dict]


def own_value_figures(build: Build, own_values: Mapping[str, OwnValue]) -> OwnValueFigures | None:
    """Return the figures of an evaluation; None where no response was scored on its own value."""
    split = _split(_rows(build), own_values)
    return _figures(split) if split.on else None


def score_table(build: Build, own_values: Mapping[str, OwnValue] | None = None) -> str:
    """Return a short table of an evaluation, what its intervals rest on, and a grade of the judge.

    Args:
        build: the `evaluations`.
        own_values: by text id, the value that a response is about and its side, where its author says so. Then the table has
            these responses on their own values, and counts right signs and intervals of responses about other values.
    """
    rows = _rows(build)
    split = _split(rows, own_values or {})
    lines = [_own_table(split.on), *_counts(_figures(split))] if split.on else [_extremes(rows)]
    errors = {v: ContentError.model_validate(e) for v, e in store.details_of(build, EvaluationsDetails).content_errors.items()}
    sources = dict.fromkeys(rests_on({value: error.model_dump() for value, error in errors.items()}).values())
    return "\n".join([*lines, *(f"intervals: {source}" for source in sources), *_grade(rows, errors)])


def _rows(build: Build) -> list[dict]:
    """The scores by value, highest first, each with its value id."""
    table = store.read_table(build).sort_by([("theory", "ascending"), ("value", "ascending"), ("intensity", "descending")])
    return [row | {"id": ValueId.of(row["theory"], row["value"])} for row in table.to_pylist() if row["intensity"] is not None]


def _split(rows: list[dict], own_values: Mapping[str, OwnValue]) -> _Split:
    own_of = [own_values.get(text_id(row["response"])) for row in rows]
    known = [(row, own) for row, own in zip(rows, own_of, strict=True) if own]
    on = [(row, own.side) for row, own in known if own.value == row["id"]]
    return _Split(on, [row for row, own in known if own.value != row["id"]])


def _figures(split: _Split) -> OwnValueFigures:
    right = sum(row["intensity"] * side > 0 for row, side in split.on)
    wrong = sum((row["high"] if side > 0 else -row["low"]) < 0 for row, side in split.on)
    size_on = float(np.mean([abs(row["intensity"]) for row, _ in split.on]))
    zero = sum(row["low"] <= 0 <= row["high"] for row in split.off)
    size_off = float(np.mean([abs(row["intensity"]) for row in split.off])) if split.off else 0.0
    return OwnValueFigures(len(split.on), right, wrong, size_on, len(split.off), zero, size_off)


def _cells(row: dict) -> list[str]:
    return [f"{row['intensity']:+.1f}", f"[{row['low']:+5.1f}, {row['high']:+5.1f}]"]


def _extremes(rows: list[dict]) -> str:
    """Each value's highest, middle and lowest response."""
    lines = []
    for value in dict.fromkeys(row["id"] for row in rows):
        of_value = [row for row in rows if row["id"] == value]
        for i in sorted({0, len(of_value) // 2, len(of_value) - 1}):
            lines.append([value, *_cells(of_value[i]), of_value[i]["response"]])
    columns = [Column("value", False), Column("intensity"), Column("95 % interval"), Column("response", False, TEXT_WIDTH)]
    return text_table(columns, lines)


def _own_table(on: list[tuple[dict, int]]) -> str:
    lines = [[row["id"], "for" if side > 0 else "against", *_cells(row), row["response"]] for row, side in on]
    columns = [Column("own value", False), Column("written", False), Column("intensity"), Column("95 % interval")]
    return text_table([*columns, Column("response", False, TEXT_WIDTH)], lines)


def _counts(f: OwnValueFigures) -> list[str]:
    right, wrong = f"{f.num_right} of {f.num_on} signs are right", f"{f.num_wrong} intervals exclude the right sign"
    lines = [f"own value: {right}, {wrong}; mean size {f.size_on:.2f}"]
    if f.num_off:
        lines.append(f"another value: {f.num_zero} of {f.num_off} intervals contain zero; mean size {f.size_off:.2f}")
    return lines


def _grade(rows: list[dict], errors: Mapping[str, ContentError]) -> list[str]:
    """How much of the judge's scores people share, and what a judge that agrees with them would save."""
    agreements = [error.agreement for error in errors.values() if error.spread]
    if not agreements or not rows:
        return []
    agreement = float(np.mean(agreements))
    grade = next(name for least, name in GRADES if agreement >= least)
    width, own = (float(np.mean([row[f"{of}high"] - row[f"{of}low"] for row in rows])) for of in ("", "judge_"))
    calibrated = all(error.calibrated_to_people or error.basis == "known" for error in errors.values())
    source = f"{grade}:" if calibrated else f"{grade} at best:"
    ratings = "" if calibrated else "; 100 ratings by people would tell (docs/howto.md, from 150 ratings)"
    better = f"a judge that agrees with people would need {own:.0f}" if own < width else "only a better judge makes it narrower"
    return [
        f"judge: {rows[0]['judge']} is {source} it shares about {agreement:.0%} of its variance with people, so an interval is "
        f"{width:.0f} points wide; {better}{ratings}"
    ]
