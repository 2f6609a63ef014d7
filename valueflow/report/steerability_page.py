"""The page of a steerability study, its tables as CSV, its results as JSON, and a fragment for the model card."""

import html
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import yaml

from valueflow import store
from valueflow.records import clean
from valueflow.report import steerability_figures as figures
from valueflow.report.dataset_card import markdown_table
from valueflow.report.formatting import interval, percent, signed
from valueflow.report.plots import Plot
from valueflow.report.steerability_figures import Row, name_of
from valueflow.report.study_files import write_tables
from valueflow.report.templates import render
from valueflow.report.terminal import Column, text_table
from valueflow.steering.study.conditions import NOT_SCORED
from valueflow.steering.study.run import StudyResult

ARM = ("model", "turn", "regime", "judge")
REGIMES = {
    "intensity_anchor": "persona in words", "user_texts": "texts of the requested intensity", "multi_value": "several values",
    "composition": "constituent values", "control": "control",
}  # fmt: skip


class VerdictLine(NamedTuple):
    """A value in the verdict table."""

    name: str
    value: str
    type: str
    reason: str
    effects: list[tuple[str, str]]  # of levels +2 and -2, with intervals
    superiority: tuple[str, str]
    told_apart: int
    against: str
    refusals: str
    other_margins: list[str]
    needed: str


class ArmSection(NamedTuple):
    """A model under one regime, judged by the first judge, as the template needs it."""

    id: str
    title: str
    model_row: Row
    probabilities: list[tuple[str, str]]
    verdicts: list[VerdictLine]
    plots: list[tuple[str, Plot]]  # heading, figure
    controls: list[Row]
    echo: list[Row]
    doses: list[Row]
    goals: list[Row]


def write_study(result: StudyResult) -> str:
    """Write JSON, CSV, model card fragment and page under the root; return the URL of the page."""
    root, folder = result.config.root, store.study_url(result.config.root, result.study_id)
    write_tables(folder, result.study_id, result.tables, result.facts, result.config.public())
    store.write_bytes(f"{folder}/model_card.md", model_card_fragment(result).encode())
    url = store.report_url(root, f"steerability-{result.study_id}")
    store.write_bytes(url, steerability_page(result).encode())
    return url


def steerability_page(result: StudyResult) -> str:
    """Return the page of a study as one self-contained HTML file."""
    tables, margin = result.tables, result.config.margin
    judge = tables["models"][0]["judge"]
    arms = [row for row in tables["models"] if row["judge"] == judge]
    sections = [_section(number, row, tables, margin) for number, row in enumerate(arms)]
    return render(
        "steerability.html",
        study_id=result.study_id,
        facts=result.facts,
        margin=margin,
        judge=judge,
        sections=sections,
        several=_overview(tables, judge) if len(arms) > 1 else None,
        judges=tables["judges"],
        pairs=_composition_plots([row for row in tables["composition"] if row["judge"] == judge]),
        sets=_set_plots([row for row in tables["sets"] if row["judge"] == judge]),
        outcomes=tables["outcomes"],
        regimes=REGIMES,
        name_of=name_of,
        csv_names=[name for name, rows in tables.items() if rows],
        config_yaml=yaml.safe_dump(result.config.public(), sort_keys=False, allow_unicode=True),
    )


def _of(rows: Sequence[Row], arm: Row) -> list[Row]:
    return [row for row in rows if all(row[name] == arm[name] for name in ARM)]


def _section(number: int, arm: Row, tables: Mapping[str, Sequence[Row]], margin: float) -> ArmSection:
    effects, verdicts = _of(tables["effects"], arm), _of(tables["verdicts"], arm)
    refusals, matrix = _of(tables["refusals"], arm), _of(tables["side_effects"], arm)
    salt = f"arm {number}"
    plots = [
        ("Reach of steering", figures.bars(effects, margin, salt)),
        ("Dose and response", figures.doses(effects, verdicts, salt)),
    ]
    refused = [row for row in refusals if row["share"] > 0 or row["share_default"] > 0]
    if refused:
        plots.append(("What refusals hide", figures.refusal_bounds(refused, margin, salt)))
    if any(row["steered"] != row["scored"] for row in matrix):  # with `pairs: about` there are no scores on other values
        plots += [
            (f"Side effects of level {signed(level, 0)}", figures.side_effect_map(matrix, level, salt))
            for level in (2, -2)
            if any(row["level"] == level for row in matrix)
        ]
    labels = [name.removeprefix("probability ") for name in arm if name.startswith("probability ")]
    return ArmSection(
        f"arm-{number}",
        f"{arm['model']}, {REGIMES.get(arm['regime'], arm['regime'])}, {arm['turn']} turn",
        arm,
        [(label, percent(arm[f"probability {label}"], 0)) for label in labels],
        _verdict_lines(effects, verdicts),
        plots,
        *(_of(tables[name], arm) for name in ("controls", "echo", "doses", "goals")),
    )


def _verdict_lines(effects: Sequence[Row], verdicts: Sequence[Row]) -> list[VerdictLine]:
    numbers = figures.by_contrast(effects)
    lines = []
    for row in sorted(verdicts, key=lambda row: name_of(row["value"])):
        of_value = numbers.get(row["value"], {})
        plus, minus = (_effect(of_value.get(name)) for name in ("effect +2", "effect -2"))
        depends = [
            level for level, name in (("+2", "plus"), ("−2", "minus")) if row[f"refusals_{name}"] == "depends on refusals"
        ]
        others = [f"{name.removeprefix('type_margin_')}: {row[name]}" for name in row if name.startswith("type_margin_")]
        lines.append(VerdictLine(
            name_of(row["value"]), row["value"], row["type"], row["reason"], [plus, minus],
            (percent(row["superiority_plus"], 0), percent(row["superiority_minus"], 0)), row["levels_told_apart"],
            percent(row["share_against"], 0),
            " and ".join(depends) or "no", others,
            f"{row['queries_needed']:,}" if row["queries_needed"] else "–",
        ))  # fmt: skip
    return lines


def _effect(row: Row | None) -> tuple[str, str]:
    return ("not run", "") if row is None else (signed(row["estimate"]), interval(row["low"], row["high"], 1, with_sign=True))


def _effect_texts(line: VerdictLine) -> list[str]:
    return [f"{effect} ({ends})" if ends else effect for effect, ends in line.effects]


def _overview(tables: Mapping[str, Sequence[Row]], judge: str) -> dict[str, Any]:
    """Types of every value (rows) in every arm (columns)."""
    rows = [row for row in tables["verdicts"] if row["judge"] == judge]
    arms = list(dict.fromkeys((row["model"], row["turn"], row["regime"]) for row in rows))
    types = {(row["value"], (row["model"], row["turn"], row["regime"])): row["type"] for row in rows}
    values = sorted({row["value"] for row in rows}, key=name_of)
    return {
        "columns": [f"{model}, {REGIMES.get(regime, regime)}, {turn} turn" for model, turn, regime in arms],
        "rows": [(name_of(value), [types.get((value, arm), "–") for arm in arms]) for value in values],
    }


def _composition_plots(rows: Sequence[Row]) -> list[tuple[str, list[Row], Plot | None]]:
    """By model, regime and turn: its pairs and their figure."""
    groups = list(dict.fromkeys((row["model"], row["regime"], row["turn"]) for row in rows))
    plots: list[tuple[str, list[Row], Plot | None]] = []
    for model, regime, turn in groups:
        of_group = [row for row in rows if (row["model"], row["regime"], row["turn"]) == (model, regime, turn)]
        title = f"{model}, {REGIMES.get(regime, regime)}, {turn} turn"
        scored = [row for row in of_group if row["name"] != NOT_SCORED]
        plots.append((title, of_group, figures.arrows(scored, f"pairs {title}") if scored else None))
    return plots


def _set_plots(rows: Sequence[Row]) -> list[tuple[str, Plot]]:
    groups = list(dict.fromkeys((row["model"], row["regime"], row["turn"]) for row in rows))
    plots = []
    for model, regime, turn in groups:
        of_group = [row for row in rows if (row["model"], row["regime"], row["turn"]) == (model, regime, turn)]
        title = f"{model}, {REGIMES.get(regime, regime)}, {turn} turn"
        plots.append((title, figures.set_map(of_group, f"sets {title}")))
    return plots


def model_card_fragment(result: StudyResult) -> str:
    """Return a Markdown section about steerability for the card of the models."""
    judge, facts = result.tables["models"][0]["judge"], result.facts
    parts = ["## Steerability", "", (
        f"Measured with ValueFlow on {facts['queries']:,} queries of {facts['sources']} sources, judge {judge}, VIDB "
        f"`{facts['vidb_version']}`, study `{result.study_id}`. Effects are points of intensity (−10 to 10) against a neutral "
        f"persona, with simultaneous 95 % intervals; the margin is {result.config.margin:g} points."
    )]  # fmt: skip
    for arm in (row for row in result.tables["models"] if row["judge"] == judge):
        title = f"{arm['model']}, {REGIMES.get(arm['regime'], arm['regime'])}, {arm['turn']} turn"
        lines = _verdict_lines(_of(result.tables["effects"], arm), _of(result.tables["verdicts"], arm))
        rows = [[line.name, line.type, *_effect_texts(line), line.refusals] for line in lines]
        shift = f"{signed(arm['shift'], 2)}, {interval(arm['low'], arm['high'], 2, with_sign=True)}"
        parts += [
            "",
            f"### {html.escape(clean(title), quote=False)}",
            "",
            f"The model as a whole: {arm['regime_of_model']} (mean Cliff's delta {shift}).",
            "",
        ]
        parts.append(markdown_table(["Value", "Type", "Effect of +2", "Effect of −2", "Depends on refusals"], rows))
    return "\n".join(parts) + "\n"


def verdict_table(result: StudyResult) -> str:
    """Return the verdicts of the first judge for a terminal."""
    judge = result.tables["models"][0]["judge"]
    columns = [Column(name, numeric=False) for name in ("model", "regime", "turn", "value", "type", "effect +2", "effect -2")]
    rows = []
    for arm in (row for row in result.tables["models"] if row["judge"] == judge):
        for line in _verdict_lines(_of(result.tables["effects"], arm), _of(result.tables["verdicts"], arm)):
            rows.append([arm["model"], arm["regime"], arm["turn"], line.value, line.type, *_effect_texts(line)])
    return text_table(columns, rows)
