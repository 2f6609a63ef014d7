"""Collect what the report pages show from finished builds, write the pages and the dataset card beside the data."""

from collections import Counter

import numpy as np
import pyarrow.compute as pc
import yaml

from valueflow import store, vidb
from valueflow.ranking.plackett_luce import MAX_PRIOR_SD
from valueflow.records import ValueId
from valueflow.report import vidb_page
from valueflow.report.dataset_card import dataset_card
from valueflow.report.terminal import Column, text_table
from valueflow.store import Build, EvaluationsDetails, FitSummary, RankingsDetails, UtilitiesDetails, WindowsDetails
from valueflow.theories import theories


def vidb_report(texts: Build, candidates: Build, rankings: tuple[Build, ...], utilities: Build, version: Build) -> str:
    """Write the report of a VIDB version and its dataset card; return the report's URL.

    `rankings`: those of each judge.
    """
    made = vidb.load(version.root, version.build_id)
    fits = store.details_of(utilities, UtilitiesDetails).fits
    details = made.details
    windows = store.manifest(Build(version.root, "windows", details.builds["windows"]))
    progress = windows.details(WindowsDetails).progress if windows else {}
    judges = [_judge(answers) for answers in rankings]
    tokens = sum(j.tokens_in + j.tokens_out for j in judges) / max(sum(j.windows * len(j.place_wins) for j in judges), 1)
    values = [_value(made, candidates, value, fits[value], progress.get(value, []), tokens) for value in made.calibrations]
    ranked = sum((Counter(store.require_manifest(answers).counts) for answers in rankings), Counter())
    licenses = vidb.licenses(made)
    languages = sorted(set(store.read_table(texts, ["language"])["language"].drop_null().to_pylist()))
    card = dataset_card(version.build_id, made.manifest, licenses, languages, list(made.calibrations))
    store.write_bytes(f"{version.url}/README.md", card.encode())
    report = vidb_page.BuildReport(
        version=version.build_id,
        created=made.manifest.created,
        code_version=made.manifest.code_version,
        git_commit=made.manifest.git_commit,
        command="python -m jobs.build_vidb CONFIG.yaml, with the resolved configuration below",
        values=values,
        judges=judges,
        counts={
            "ingest": {k: v for k, v in store.require_manifest(texts).counts.items() if isinstance(v, int)},
            "candidates": store.require_manifest(candidates).counts,
            "rank": dict(ranked),
            "publish": {k: v for k, v in made.manifest.counts.items() if isinstance(v, int)},
        },
        licenses=licenses,
        config_yaml=yaml.safe_dump(details.resolved, sort_keys=False, allow_unicode=True),
        lineage=[f"{name}: {build_id}" for name, build_id in details.builds.items()],
        warnings=_warnings(values, judges),
    )
    return _write(store.report_url(version.root, version.build_id), vidb_page.vidb_page(report))


def evaluation_report(build: Build) -> str:
    """Write the page of an evaluation; return its URL."""
    manifest = store.require_manifest(build)
    details = manifest.details(EvaluationsDetails)
    rows = store.read_table(build)
    made = rows.slice(0, 1).to_pylist()[0]
    evaluated = vidb_page.Evaluated(
        rows=rows,
        vidb_version=details.vidb_version,
        judge=", ".join(sorted(set(rows["judge"].drop_null().to_pylist()))) + f" ({details.audit})",
        k=made["k"],
        m=made["m"],
        sampling=made["sampling"],
        sharpness=details.sharpness,
        counts=manifest.counts,
        config_yaml=yaml.safe_dump(details.resolved, sort_keys=False, allow_unicode=True),
    )
    return _write(store.report_url(build.root, f"evaluation-{build.build_id}"), vidb_page.evaluation_page(evaluated))


def score_table(build: Build) -> str:
    """Return a short table of an evaluation for the terminal: each value's lowest, middle and highest response."""
    rows = store.read_table(build).sort_by("intensity")
    lines = []
    for theory, node in sorted(set(zip(rows["theory"].to_pylist(), rows["value"].to_pylist(), strict=True))):
        of_value = rows.filter(pc.and_(pc.equal(rows["theory"], theory), pc.equal(rows["value"], node)))
        scored = of_value.filter(pc.is_valid(of_value["intensity"])).to_pylist()
        for row in [scored[i] for i in sorted({0, len(scored) // 2, len(scored) - 1})] if scored else []:
            interval = f"[{row['low']:+5.1f}, {row['high']:+5.1f}]"
            lines.append([ValueId.of(theory, node), f"{row['intensity']:+.1f}", interval, row["response"]])
    columns = [Column("value", False), Column("intensity"), Column("95 % interval"), Column("response", False, 70)]
    return text_table(columns, lines)


def _value(
    made: vidb.Vidb, candidates: Build, value: str, fit: FitSummary, progress: list, tokens: float
) -> vidb_page.ValueReport:
    theory, _, node_id = value.partition(":")
    node = theories()[theory].node(node_id)
    folder = store.value_folder(value)
    pool = store.read_table(candidates, ["text_id", "neutral"], folder)
    return vidb_page.ValueReport(
        id=value,
        name=node.name,
        definition=node.definition.strip(),
        theory_name=theories()[theory].name,
        rows=store.read_table(made.build, folder=folder),
        neutral_ids=set(pool.filter(pool["neutral"])["text_id"].to_pylist()),
        fit=fit,
        calibration=made.calibrations[ValueId(value)],
        progress=progress,
        tokens=tokens,
        checks=fit.checks,
    )


def _judge(rankings: Build) -> vidb_page.JudgeReport:
    manifest = store.require_manifest(rankings)
    reasons: Counter[str] = Counter()
    firsts: list[np.ndarray] = []
    sizes: Counter[int] = Counter()
    for file in manifest.files:
        part = store.read_part(rankings, file.path, ["error", "order", "text_ids"])
        reasons.update(part["error"].drop_null().to_pylist())
        firsts.append(pc.list_element(part["order"].drop_null(), 0).to_numpy())
        for entry in pc.value_counts(pc.list_value_length(part["text_ids"])).to_pylist():
            sizes[entry["values"]] += entry["counts"]
    k = max(sizes)
    first = np.concatenate(firsts)
    wins = np.bincount(first, minlength=k) / max(len(first), 1)
    details = manifest.details(RankingsDetails)
    return vidb_page.JudgeReport(
        details.judge["name"], details.judge["kind"], details.windows, details.errors, details.tokens_in,
        details.tokens_out, dict(reasons), wins.tolist(), 1 / k, details.audit,
    )  # fmt: skip


def _warnings(values: list[vidb_page.ValueReport], judges: list[vidb_page.JudgeReport]) -> list[str]:
    found = []
    for value in values:
        if value.fit.num_components > 1:
            found.append(
                f"{value.id}: the comparisons fall into {value.fit.num_components} groups that never meet; intensities of "
                "different groups are not comparable. Raise windows.m."
            )
    capped = [value.id for value in values if value.fit.prior_sd >= MAX_PRIOR_SD]
    if capped:
        found.append(
            f"{', '.join(capped)}: the judge never contradicts itself, so the spread of theta is set by its upper limit "
            f"({MAX_PRIOR_SD:g} nats); order and intervals hold for this judge's own axis, not for people."
        )
    for value in values:
        low, high = value.rows["low"].to_numpy(), value.rows["high"].to_numpy()
        if np.mean((low > 0) | (high < 0)) < 0.05:
            found.append(f"{value.id}: hardly any text is surely on one side of zero; raise windows.m or use a better judge.")
    for judge in judges:
        found += _doubts(judge)
        silent = [value.id for value in values for j in value.fit.judges if j.name == judge.name and j.uninformative]
        if silent:
            found.append(f"judge {judge.name} says nothing about {', '.join(silent)} and counts for nothing there.")
    return found


def _doubts(judge: vidb_page.JudgeReport) -> list[str]:
    found = []
    if judge.audit.startswith("failed"):
        found.append(f"judge {judge.name} {judge.audit}.")
    answered = judge.windows - judge.errors
    chance = 3 * np.sqrt(judge.place_expected * (1 - judge.place_expected) / max(answered, 1))
    if max(judge.place_wins) - judge.place_expected > max(chance, 0.05):
        found.append(
            f"judge {judge.name}: one place wins {max(judge.place_wins):.0%} of windows; it follows places, not texts."
        )
    return found


def _write(url: str, html: str) -> str:
    store.write_bytes(url, html.encode())
    return url
