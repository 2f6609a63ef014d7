"""Collect the contents of pages and of the dataset card from builds; write the pages."""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow.compute as pc
import yaml

from valueflow import store, vidb
from valueflow.prompts.render import truncation
from valueflow.ranking.content_error import ContentError
from valueflow.ranking.plackett_luce import MAX_PRIOR_SD
from valueflow.records import ValueId
from valueflow.report.dataset_card import dataset_card
from valueflow.report.evaluation_page import EvaluationReport, evaluation_page
from valueflow.report.formatting import percent
from valueflow.report.vidb_page import BuildReport, JudgeReport, ValueReport, vidb_page
from valueflow.store import (
    Build,
    EvaluationsDetails,
    FitSummary,
    RankingsDetails,
    UtilitiesDetails,
    VidbDetails,
    WindowsDetails,
)
from valueflow.theories import theories


def vidb_report(texts: Build, candidates: Build, rankings: tuple[Build, ...], utilities: Build, version: Build) -> str:
    """Write the page of a VIDB version; return its URL. `rankings` has a build per judge."""
    database = vidb.load(version.root, version.build_id)
    fits = store.details_of(utilities, UtilitiesDetails).fits
    details = database.details
    windows = store.manifest(Build(version.root, "windows", details.builds["windows"]))
    progress = windows.details(WindowsDetails).progress if windows else {}
    judges = [_judge(answers) for answers in rankings]
    tokens = sum(j.tokens_in + j.tokens_out for j in judges) / max(sum(j.windows * len(j.position_wins) for j in judges), 1)
    values = [
        _value(database, candidates, value, fits[value], progress.get(value, []), tokens) for value in database.calibrations
    ]
    ranked = sum((Counter(store.require_manifest(answers).counts) for answers in rankings), Counter())
    ranked.pop("truncated", None)  # the same texts for every judge; each says its own
    licenses = vidb.licenses(database)
    report = BuildReport(
        version=version.build_id,
        created=database.manifest.created,
        code_version=database.manifest.code_version,
        git_commit=database.manifest.git_commit,
        command="python -m jobs.build_vidb CONFIG.yaml, with the resolved config below",
        values=values,
        judges=judges,
        counts={
            "ingest": {k: v for k, v in store.require_manifest(texts).counts.items() if isinstance(v, int)},
            "candidates": store.require_manifest(candidates).counts,
            "rank": dict(ranked),
            "publish": {k: v for k, v in database.manifest.counts.items() if isinstance(v, int)},
        },
        licenses=licenses,
        config_yaml=yaml.safe_dump(details.resolved, sort_keys=False, allow_unicode=True),
        lineage=[f"{name}: {build_id}" for name, build_id in details.builds.items()],
        warnings=_warnings(values, judges),
    )
    return _write(store.report_url(version.root, version.build_id), vidb_page(report))


def version_card(texts: Build, manifest: store.Manifest) -> str:
    """Return the dataset card of a VIDB version that is about to be finished."""
    details = manifest.details(VidbDetails)
    languages = sorted(set(store.read_table(texts, ["language"])["language"].drop_null().to_pylist()))
    values = [ValueId(value) for value in details.calibrations]
    return dataset_card(manifest.build_id, manifest, details.licenses, languages, values)


def evaluation_report(build: Build) -> str:
    """Write the page of an evaluation; return its URL."""
    manifest = store.require_manifest(build)
    details = manifest.details(EvaluationsDetails)
    rows = store.read_table(build)
    first = rows.slice(0, 1).to_pylist()[0]
    report = EvaluationReport(
        rows=rows,
        vidb_version=details.vidb_version,
        judge=", ".join(sorted(set(rows["judge"].drop_null().to_pylist()))) + f" ({details.audit})",
        k=first["k"],
        m=first["m"],
        sampling=first["sampling"],
        sharpness=details.sharpness,
        counts=manifest.counts,
        truncated=truncation(details.truncated, first["judge"], None) if details.truncated else "",
        config_yaml=yaml.safe_dump(details.resolved, sort_keys=False, allow_unicode=True),
        rests_on=rests_on(details.content_errors),
    )
    return _write(store.report_url(build.root, f"evaluation-{build.build_id}"), evaluation_page(report))


def rests_on(content_errors: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Return by value what the intervals rest on."""
    return {value: ContentError.model_validate(error).source for value, error in content_errors.items()}


def _value(
    database: vidb.Vidb, candidates: Build, value: ValueId, fit: FitSummary, progress: list, tokens: float
) -> ValueReport:
    theory = theories()[value.theory]
    node = theory.node(value.node)
    folder = store.value_folder(value)
    pool = store.read_table(candidates, ["text_id", "neutral"], folder)
    return ValueReport(
        id=value,
        name=node.name,
        definition=node.definition.strip(),
        theory_name=theory.name,
        rows=store.read_table(database.build, folder=folder),
        neutral_ids=set(pool.filter(pool["neutral"])["text_id"].to_pylist()),
        fit=fit,
        calibration=database.calibrations[value],
        progress=progress,
        tokens=tokens,
        checks=fit.checks,
        rests_on=database.content_error(value).source,
    )


def _judge(rankings: Build) -> JudgeReport:
    manifest = store.require_manifest(rankings)
    reasons: Counter[str] = Counter()
    firsts: list[np.ndarray] = []
    sizes: Counter[int] = Counter()
    for file in manifest.files:
        part = store.read_part(rankings, file, ["error", "order", "text_ids"])
        reasons.update(part["error"].drop_null().to_pylist())
        firsts.append(pc.list_element(part["order"].drop_null(), 0).to_numpy())
        for entry in pc.value_counts(pc.list_value_length(part["text_ids"])).to_pylist():
            sizes[entry["values"]] += entry["counts"]
    k = max(sizes)
    first = np.concatenate(firsts)
    wins = np.bincount(first, minlength=k) / max(len(first), 1)
    details = manifest.details(RankingsDetails)
    return JudgeReport(
        details.judge["name"], details.judge["kind"], details.windows, details.errors, details.tokens_in,
        details.tokens_out, dict(reasons), wins.tolist(), 1 / k, details.audit, details.truncated,
        details.judge.get("max_chars"), details.timeline,
    )  # fmt: skip


def _warnings(values: list[ValueReport], judges: list[JudgeReport]) -> list[str]:
    warnings = []
    for value in values:
        if value.fit.num_components > 1:
            warnings.append(
                f"{value.id}: the comparison graph has {value.fit.num_components} components; intensities of different "
                "components are not comparable. Raise windows.m."
            )
    capped = [value.id for value in values if value.fit.prior_sd >= MAX_PRIOR_SD]
    if capped:
        warnings.append(
            f"{', '.join(capped)}: the judge never contradicts itself, so the prior standard deviation of theta is at its "
            f"upper limit ({MAX_PRIOR_SD:g} nats). The order and intervals describe this judge, not people."
        )
    for value in values:
        low, high = value.rows["low"].to_numpy(), value.rows["high"].to_numpy()
        if np.mean((low > 0) | (high < 0)) < 0.05:
            warnings.append(f"{value.id}: almost no text has a certain sign; raise windows.m or use a better judge.")
    for judge in judges:
        warnings += _judge_warnings(judge)
        uninformative = [v.id for v in values for j in v.fit.judges if j.name == judge.name and j.uninformative]
        if uninformative:
            warnings.append(f"judge {judge.name} is uninformative for {', '.join(uninformative)} and gets no weight there.")
    return warnings


def _judge_warnings(judge: JudgeReport) -> list[str]:
    warnings = []
    if judge.audit.startswith("failed"):
        warnings.append(f"judge {judge.name} {judge.audit}.")
    if judge.truncated:
        warnings.append(f"{truncation(judge.truncated, judge.name, judge.max_chars)}.")
    valid = judge.windows - judge.errors
    expected, highest = judge.expected_wins, max(judge.position_wins)
    if highest - expected > max(3 * np.sqrt(expected * (1 - expected) / max(valid, 1)), 0.05):
        warnings.append(
            f"judge {judge.name} has position bias: one position is ranked first in {percent(highest, 0)} of the windows."
        )
    return warnings


def _write(url: str, html: str) -> str:
    store.write_bytes(url, html.encode())
    return url
