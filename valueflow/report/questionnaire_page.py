"""The page of a questionnaire that models answered."""

import yaml

from valueflow.choices.study import ChoiceStudy, Row
from valueflow.report.formatting import decimal, interval, percent, signed
from valueflow.report.templates import render
from valueflow.report.terminal import Column, text_table

CONDITIONS = {"bare": "no persona", "neutral_persona": "neutral persona", "irrelevant_persona": "irrelevant persona"}


def questionnaire_page(result: ChoiceStudy) -> str:
    """Return the page as one self-contained HTML file."""
    pairs = list(dict.fromkeys((row["model"], row["reading"]) for row in result.tables["scales"]))
    sections = []
    for model, reading in pairs:
        scales, checks, effects = (
            [
                row | {"name": condition_name(row)}
                for row in result.tables[table]
                if (row["model"], row["reading"]) == (model, reading)
            ]
            for table in ("scales", "checks", "effects")
        )
        sections.append((model, reading, [row for row in scales if row["condition"] != "value"], checks, effects))
    return render(
        "questionnaire.html", study_id=result.study_id, facts=result.facts, sections=sections,
        options=result.settings["options"], csv_names=[name for name, rows in result.tables.items() if rows],
        config_yaml=yaml.safe_dump(result.settings, sort_keys=False, allow_unicode=True),
    )  # fmt: skip


def condition_name(row: Row) -> str:
    """Return what a condition is called on the page."""
    if row["condition"] == "value":
        return f"{row['value']} {signed(row['level'], 0)}"
    return CONDITIONS.get(row["condition"]) or str(row["condition"])


def scale_table(result: ChoiceStudy) -> str:
    """Return the scales of all models and conditions as a table for the terminal."""
    columns = [
        Column("model", numeric=False, max_width=24), Column("reading", numeric=False), Column("condition", numeric=False),
        Column("scale", numeric=False, max_width=32), *map(Column, ("mean", "95 % interval", "centred", "answered")),
    ]  # fmt: skip
    rows = [
        [
            row["model"], row["reading"], condition_name(row), row["scale"], decimal(row["mean"]),
            interval(row["low"], row["high"]), signed(row["centred"], 2), f"{row['answered']} of {row['items']}",
        ]
        for row in result.tables["scales"]
    ]  # fmt: skip
    checks = [
        f"{row['model']}, {row['reading']}, {condition_name(row)}: acquiescence {signed(row['acquiescence'], 2)}, choice by "
        f"place {percent(row['inconsistent'], 0)}, unread {percent(row['unread'], 0)}"
        for row in result.tables["checks"] if row["condition"] != "value"
    ]  # fmt: skip
    return "\n".join([text_table(columns, rows), *checks])
