"""Files of a build of profiles: page, CSV, JSON, and the attainment format of pyvalues where it applies."""

import json
import logging
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import yaml

from valueflow import store
from valueflow.errors import InputError
from valueflow.profiles.export import differences_csv, profiles_csv, profiles_json, pyvalues_tsv, unit_of
from valueflow.profiles.people_scale import PeopleScale
from valueflow.profiles.table import UnitProfiles, as_arrays
from valueflow.ranking.content_error import ContentError
from valueflow.report.collect import rests_on
from valueflow.report.profile_page import MAX_UNITS, ProfileReport, profile_page
from valueflow.store import Build, ProfilesDetails

log = logging.getLogger(__name__)
MAX_COMPARED = 50  # units of which every two are compared
MAX_IN_FILES = 2000  # units in files and in the reference of the page; the table has all


def write_files(build: Build, units: list[str], reference: str) -> list[str]:
    """Write the files of a finished build and return their URLs, the page first.

    Args:
        build: of `profiles`.
        units: with a section on the page; []: the first ones.
        reference: unit in grey; "": the mean of all.

    Raises:
        InputError: a unit is not in the build.
    """
    details = store.details_of(build, ProfilesDetails)
    profiles = as_arrays(_rows(build, {*units, reference}))
    for unit in [*units, *([reference] if reference else [])]:
        unit_of(profiles, unit)
    shown = (units or profiles.units)[:MAX_UNITS]
    errors = {v: ContentError.model_validate(error) for v, error in details.content_errors.items()}
    slope_V = PeopleScale.of([errors[v] for v in profiles.values]).relative_slope_error()
    report = ProfileReport(
        build_id=build.build_id, profiles=profiles, scale=details.scale,
        relative_slope_error=dict(zip(profiles.values, slope_V.tolist(), strict=True)), vidb_version=details.vidb_version,
        scored_by=details.scored_by, rests_on=rests_on(details.content_errors), reliability=details.reliability,
        texts=_texts(Build(build.root, "unit_texts", details.unit_texts), profiles, shown), units=shown, reference=reference,
        config_yaml=yaml.safe_dump(details.resolved, sort_keys=False, allow_unicode=True),
    )  # fmt: skip
    page = store.report_url(build.root, f"profiles-{build.build_id}")
    store.write_bytes(page, profile_page(report).encode())
    about = {"build": build.build_id, "vidb_version": details.vidb_version, "scored_by": details.scored_by}
    return [page, *_tables(build, profiles, details, about, report.relative_slope_error)]


def _tables(
    build: Build, profiles: UnitProfiles, details: ProfilesDetails, about: dict[str, Any], slopes: dict[str, float]
) -> list[str]:
    if details.units > MAX_IN_FILES:
        log.warning("profiles: %d units are more than files are made of (%d); read the table", details.units, MAX_IN_FILES)
        return []
    files = {"profiles.csv": profiles_csv(profiles)}
    if 1 < len(profiles.units) <= MAX_COMPARED:
        files["differences.csv"] = differences_csv(profiles, details.scale, slopes)
    whole = profiles_json(profiles, details.scale, about)
    files["profiles.json"] = json.dumps(whole, ensure_ascii=False, allow_nan=False, indent=1)
    try:
        files["pyvalues.tsv"], files["pyvalues-intervals.tsv"] = pyvalues_tsv(profiles)
    except InputError as error:
        log.info("profiles: no pyvalues file: %s", error)
    for name, content in files.items():
        store.write_bytes(f"{build.url}/{name}", content.encode())
    return [f"{build.url}/{name}" for name in files]


def _rows(build: Build, wanted: set[str]) -> pa.Table:
    """The rows of at most MAX_IN_FILES units, the wanted ones among them."""
    tables, number = [], 0
    for file in store.require_manifest(build).files:
        part = store.read_part(build, file)
        names = pc.unique(part["unit"]).to_pylist()
        kept = [name for i, name in enumerate(names) if name in wanted or number + i < MAX_IN_FILES]
        number += len(names)
        tables.append(part.filter(pc.is_in(part["unit"], pa.array(kept, pa.string()))))
    return pa.concat_tables(tables)


def _texts(unit_texts: Build, profiles: UnitProfiles, units: list[str]) -> dict[str, str]:
    """The statements of some units by text id."""
    ids = {i for unit in units for value in profiles.values for i in profiles.statements[unit, value]}
    found: dict[str, str] = {}
    for file in store.require_manifest(unit_texts).files:
        part = store.read_part(unit_texts, file, ["text_id", "text"])
        part = part.filter(pc.is_in(part["text_id"], pa.array(sorted(ids), pa.string())))
        found.update(zip(part["text_id"].to_pylist(), part["text"].to_pylist(), strict=True))
    return found
