"""Profiles of the units of one request: from scores in the wire format to profiles in the wire format."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from valueflow import api
from valueflow.numerics.missing import finite_or_none
from valueflow.profiles.bands import band
from valueflow.profiles.centred import Centred, centre
from valueflow.profiles.circle import fit_wave
from valueflow.profiles.divergence import Side, diverge
from valueflow.profiles.estimate import EstimateConfig, Estimates, TextScores, UnitTexts, estimate
from valueflow.profiles.people_scale import PeopleScale, with_residual
from valueflow.profiles.reliability import over_values
from valueflow.ranking.content_error import ContentError
from valueflow.records import ValueId

MAX_COMPARED = 8  # units of a request whose differences are listed


def corpus_sd(error: ContentError, intensity_N: np.ndarray) -> float:
    """Return the standard deviation of people's intensities of a value over the texts of a version, points."""
    return error.spread or float(np.std(intensity_N)) or 1.0


def profiles(
    request: api.ProfileRequest, scores: list[api.Scored], values: Sequence[ValueId], errors: Mapping[ValueId, ContentError],
    corpus: Mapping[ValueId, np.ndarray], radius: Mapping[ValueId, float] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return the fields `profile`, `units` and `divergence` of `api.ProfileResponse`.

    Args:
        request: texts, units and threads.
        scores: of the texts, by text and then value.
        values: of the request.
        errors: content error of the judge by value.
        corpus: intensities of the version's texts by value.
        radius: of mode fast, half the width of its intervals by value.
    """
    names = request.units or [""] * len(request.texts)
    units = list(dict.fromkeys(names))
    texts = UnitTexts.of(names, request.threads, np.ones(len(names)))
    judge_TV, relevance_TV = (
        np.array([np.nan if getattr(s, name) is None else getattr(s, name) for s in scores], float).reshape(len(names), -1)
        for name in ("judge_intensity", "relevance")
    )
    config = EstimateConfig(min_relevance=request.min_relevance, min_texts=max(request.min_texts, 2), seed=request.seed)
    errors_V = [with_residual(errors[v], radius[v], corpus[v]) if radius else errors[v] for v in values]
    scale_V = np.array([corpus_sd(error, corpus[value]) for error, value in zip(errors_V, values, strict=True)])
    found = estimate(texts, TextScores(judge_TV, relevance_TV), errors_V, config)
    relative = centre(
        found.mean_UV, found.shared_error_UV, found.influence_CV, found.unit_C, found.num_clusters_UV, scale_V,
        [value.theory for value in values],
    )  # fmt: skip
    reliability_U = over_values(found.halves_UV2S, scale_V)
    profile = []
    for u, unit in enumerate(units):
        of_unit = np.flatnonzero(texts.unit_T == u)
        for v, value in enumerate(values):
            cell = [scores[i * len(values) + v] for i in of_unit]
            profile.append(_profiled(unit, value, cell, found, relative, (u, v), request))
    summaries = [_summary(u, unit, values, texts, relative, reliability_U[u]) for u, unit in enumerate(units)]
    return {"profile": profile, "units": summaries, "divergence": _divergence(units, values, found, errors_V, scale_V)}


def _profiled(
    unit: str, value: ValueId, cell: list[api.Scored], found: Estimates, relative: Centred, at: tuple[int, int],
    request: api.ProfileRequest,
) -> api.Profiled:  # fmt: skip
    """One value of one unit; a single text keeps the interval of its score."""
    size, left_out = int(found.num_texts_UV[at]), int(found.num_left_out_UV[at])
    mean, low, high = (float(x[at]) for x in (found.mean_UV, found.low_UV, found.high_UV))
    error = next((score.error or "no window has a valid answer" for score in cell if score.intensity is None), None)
    if size == 1 and request.min_texts == 1:
        relevant = (s for s in cell if s.relevance is None or s.relevance >= request.min_relevance)
        only = next(s for s in relevant if s.intensity is not None)
        mean, low, high = (float(x or 0.0) for x in (only.intensity, only.low, only.high))
    if np.isnan(mean):
        return api.Profiled(
            unit=unit, value=value, intensity=None, low=None, high=None, num_texts=size, num_left_out=left_out, band=None,
            error=error or _reason(value, size, int(found.num_clusters_UV[at]), left_out, request),
        )  # fmt: skip
    return api.Profiled(
        unit=unit, value=value, intensity=mean, low=low, high=high, num_texts=size, num_left_out=left_out, band=band(mean),
        error=error, standard_error=finite_or_none(found.standard_error_UV[at]),
        centred=finite_or_none(relative.centred_UV[at]),
        centred_low=finite_or_none(relative.low_UV[at]), centred_high=finite_or_none(relative.high_UV[at]),
    )  # fmt: skip


def _reason(value: ValueId, size: int, clusters: int, left_out: int, request: api.ProfileRequest) -> str:
    if not size and left_out:
        return f"no text concerns {value}: the relevance of all is below {request.min_relevance:g} (min_relevance)"
    if size and size >= request.min_texts and clusters < 2:
        return f"all {size} texts are of one thread, which says nothing about others"
    return f"{size} text{'s' * (size != 1)} concern{'s' * (size == 1)} {value}, min_texts is {request.min_texts}"


def _summary(
    u: int, unit: str, values: Sequence[ValueId], texts: UnitTexts, relative: Centred, reliability: float
) -> api.UnitSummary:
    mean_rating = {value.theory: float(relative.mrat_UV[u, v]) for v, value in enumerate(values)}
    wave = fit_wave({value: float(relative.centred_UV[u, v]) for v, value in enumerate(values)})
    return api.UnitSummary(
        unit=unit, num_texts=int((texts.unit_T == u).sum()), reliability=finite_or_none(reliability),
        mean_rating={theory: mean for theory, mean in mean_rating.items() if np.isfinite(mean)},
        peak=wave.nearest if wave else None, wave_r2=wave.r2 if wave else None,
    )  # fmt: skip


def _divergence(
    units: list[str], values: Sequence[ValueId], found: Estimates, errors: Sequence[ContentError], scale_V: np.ndarray
) -> list[api.Diverged]:
    pairs = list(itertools.combinations(range(len(units)), 2))
    if not pairs or len(units) > MAX_COMPARED:
        return []
    first, second = (
        Side(found.mean_UV[index], found.standard_error_UV[index], found.num_clusters_UV[index]) for index in np.array(pairs).T
    )
    difference = diverge(first, second, scale_V, PeopleScale.of(errors).relative_slope_error())
    return [
        api.Diverged(
            value=value, first=units[i], second=units[j], difference=finite_or_none(difference.difference_PV[p, v]),
            low=finite_or_none(difference.low_PV[p, v]),
            high=finite_or_none(difference.high_PV[p, v]), p=finite_or_none(difference.adjusted_PV[p, v]),
        )
        for p, (i, j) in enumerate(pairs)
        for v, value in enumerate(values)
    ]  # fmt: skip
