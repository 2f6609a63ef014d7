"""Profiles as files for other programs: CSV, JSON, the attainment format of pyvalues, and a text that conditions a model."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from valueflow.errors import InputError, allowed
from valueflow.numerics.missing import finite_or_none
from valueflow.profiles.bands import band
from valueflow.profiles.circle import CIRCLE, fit_wave
from valueflow.profiles.divergence import Divergence, Side, diverge
from valueflow.profiles.reliability import over_values
from valueflow.profiles.table import NUMBERS, UnitProfiles
from valueflow.records import LIMIT, ValueId
from valueflow.tabular.csv_writer import csv_text
from valueflow.theories import theories

COUNTS = ("num_texts", "num_clusters", "num_left_out")
MIN_SIZE = 2.0  # points: values nearer to zero are not said of a person
PHRASES = {
    "very high": "cares very strongly about", "high": "cares about", "low": "puts little weight on",
    "very low": "turns against",
}  # fmt: skip


def profiles_csv(profiles: UnitProfiles) -> str:
    """Return a row per unit and value; a missing value has empty cells."""
    header = ["unit", "theory", "value", "band", *NUMBERS]
    return csv_text(header, ([row[name] for name in header] for row in rows(profiles)))


def profiles_json(profiles: UnitProfiles, scale: Mapping[str, float], about: Mapping[str, Any]) -> dict[str, Any]:
    """Return all profiles with the reliability and wave of each unit, and what they rest on, as JSON.

    Args:
        profiles: the units.
        scale: standard deviation of each value in the version.
        about: provenance, repeated.
    """
    scale_V = np.array([scale[value] for value in profiles.values])
    reliability_U = over_values(profiles.halves_UV2S, scale_V)
    by_unit: dict[str, dict[str, Any]] = {}
    for row in rows(profiles):
        by_unit.setdefault(row.pop("unit"), {"values": []})["values"].append(row)
    for u, unit in enumerate(profiles.units):
        by_unit[unit]["reliability"] = finite_or_none(reliability_U[u])
        centred = dict(zip(profiles.values, profiles.columns["centred"][u], strict=True))
        errors = dict(zip(profiles.values, profiles.columns["centred_error"][u], strict=True))
        wave = fit_wave(centred, errors)
        by_unit[unit]["wave"] = (
            {k: v if isinstance(v, str | int) else finite_or_none(v) for k, v in wave._asdict().items()} if wave else None
        )
    return {"about": dict(about), "scale": dict(scale), "units": by_unit}


def rows(profiles: UnitProfiles) -> Iterator[dict[str, Any]]:
    """Yield a row per unit and value; numbers are None where the value is missing."""
    for u, unit in enumerate(profiles.units):
        for v, value in enumerate(profiles.values):
            numbers = {name: finite_or_none(profiles.columns[name][u, v]) for name in NUMBERS}
            numbers |= {name: int(numbers[name] or 0) for name in COUNTS}
            intensity = numbers["intensity"]
            words = None if intensity is None else band(intensity)
            yield {"unit": unit, "theory": value.theory, "value": value.node, "band": words, **numbers}


def differences(
    profiles: UnitProfiles, scale: Mapping[str, float], relative_slope_error: Mapping[str, float]
) -> tuple[np.ndarray, Divergence]:
    """Return the differences of every two units by value, the first less the second, and the numbers of the units (P, 2).

    Intervals are simultaneous over the values of a pair; p values are corrected by Holm over all pairs and values. Of models
    that answered the same queries both hold for all pairs and values, paired by query (max-T).
    """
    pairs = np.array(list(itertools.combinations(range(len(profiles.units)), 2)))
    mean_UV, error_UV, clusters_UV = (profiles.columns[name] for name in ("intensity", "standard_error", "num_clusters"))
    shared = profiles.influence_QUV
    first, second = (
        Side(mean_UV[u], error_UV[u], clusters_UV[u], None if shared is None else shared[:, u]) for u in pairs.T
    )  # fmt: skip
    scale_V, slope_V = (np.array([of[value] for value in profiles.values]) for of in (scale, relative_slope_error))
    return pairs, diverge(first, second, scale_V, slope_V)


def differences_csv(profiles: UnitProfiles, scale: Mapping[str, float], relative_slope_error: Mapping[str, float]) -> str:
    """Return `differences` as a table. The distance of a pair is the root mean square standardized difference."""
    pairs, found = differences(profiles, scale, relative_slope_error)
    numbers = ["difference", "standard_error", "low", "high", "p", "adjusted_p", "distance"]
    header = ["first", "second", "theory", "value", *numbers, "correction"]
    correction = "Holm" if profiles.influence_QUV is None else "max-T, paired by query"
    table = (found.difference_PV, found.standard_error_PV, found.low_PV, found.high_PV, found.p_PV, found.adjusted_PV)
    lines = (
        [profiles.units[i], profiles.units[j], value.theory, value.node, *(finite_or_none(x[p, v]) for x in table),
         finite_or_none(found.distance_P[p]), correction]
        for p, (i, j) in enumerate(pairs)
        for v, value in enumerate(profiles.values)
    )  # fmt: skip
    return csv_text(header, lines)


def pyvalues_tsv(profiles: UnitProfiles) -> tuple[str, str]:
    """Return the profiles in the attainment format of pyvalues, and a sidecar with intervals and numbers of texts.

    A signed intensity p becomes attained max(p, 0) / 10 and constrained max(-p, 0) / 10. The format has no place for a missing
    value, an interval or a number of texts: a missing value is 0 and 0, and the sidecar says so.

    Raises:
        InputError: the profiles have a theory that pyvalues does not, or not all twelve values.
    """
    others = sorted({value.theory for value in profiles.values} - {"svt"})
    if others:
        found = ", ".join(theories()[theory].name for theory in others)
        raise InputError(f"pyvalues has Schwartz's values only, not {found}; set values to svt for this export")
    missing = [value for value in CIRCLE if value not in profiles.values]
    if missing:
        raise InputError(f"pyvalues' format has all twelve values of svt; these profiles lack {', '.join(missing)}")
    names = [theories()["svt"].node(value.node).name for value in CIRCLE]
    header = ["ID", *(f"{name} {side}" for name in names for side in ("attained", "constrained"))]
    lines: list[list[object]] = []
    sidecar: list[list[object]] = []
    order = [profiles.values.index(value) for value in CIRCLE]
    for u, unit in enumerate(profiles.units):
        intensity_V = profiles.columns["intensity"][u, order]
        share_V = np.nan_to_num(intensity_V) / LIMIT
        lines.append([unit, *(float(x) for share in share_V for x in (max(share, 0.0), max(0.0, -share)))])
        for v, name in zip(order, names, strict=True):
            low, high, number = (profiles.columns[column][u, v] for column in ("low", "high", "num_texts"))
            cells = [finite_or_none(x / LIMIT) for x in (profiles.columns["intensity"][u, v], low, high)]
            sidecar.append([unit, name, *("" if x is None else x for x in cells), int(np.nan_to_num(number))])
    return _tsv(header, lines), _tsv(["ID", "value", "score", "low", "high", "num_texts"], sidecar)


def prompt_text(intensity: Mapping[ValueId, float], who: str = "You") -> str:
    """Return sentences that describe a profile to a model: values on a side of zero, the strongest first.

    Args:
        intensity: mean by value, points; nan is missing and not said.
        who: "You", or the name of a unit.

    Raises:
        InputError: no value has a number.
    """
    known = {value: x for value, x in intensity.items() if np.isfinite(x)}
    if not known:
        raise InputError(f"the profile has no value with enough texts ({', '.join(intensity)} are missing), so it says nothing")
    sided = sorted((value for value, x in known.items() if abs(x) > MIN_SIZE), key=lambda value: -abs(known[value]))
    if not sided:
        return f"{who}: no value stands out, none is supported or opposed clearly."
    sentences = []
    for value in sided:
        verb = PHRASES[band(known[value])]
        verb = verb if who != "You" else _second_person(verb)
        node = theories()[value.theory].node(value.node)
        sentences.append(f"{who} {verb} {node.name.lower()} ({known[value]:+.0f} of 10).")
    return " ".join(sentences)


def sentence(unit: str, name: str, row: Mapping[str, Any]) -> str:
    """Return a row of a profile in words, with its interval."""
    if row["intensity"] is None:
        return f"{name}: too few relevant texts of {unit} ({row['num_texts']})."
    side = "supports" if row["low"] > 0 else "opposes" if row["high"] < 0 else "is on no clear side of"
    numbers = f"{row['intensity']:+.1f}, 95 % interval {row['low']:+.1f} to {row['high']:+.1f}, {row['num_texts']} texts"
    return f"{name}: {row['band']}. {unit} {side} it ({numbers})."


def unit_of(profiles: UnitProfiles, unit: str) -> int:
    """Return the number of a unit; InputError names near spellings."""
    if unit not in profiles.units:
        raise InputError(f"there is no unit {unit!r}; {allowed(unit, profiles.units[:200])}")
    return profiles.of(unit)


def _second_person(verb: str) -> str:
    first, _, rest = verb.partition(" ")
    return f"{first.removesuffix('s')} {rest}"


def _tsv(header: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    return csv_text(header, lines, separator="\t", end="\n")
