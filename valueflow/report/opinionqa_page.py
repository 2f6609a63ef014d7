"""The page of OpinionQA answered by models, and its tables as CSV."""

import yaml
from matplotlib.axes import Axes

from valueflow.choices.study import ChoiceStudy, Row
from valueflow.report.formatting import interval, percent, signed
from valueflow.report.plots import FIRST, GRID, INK, SECOND, Plot, resize, svg
from valueflow.report.templates import render
from valueflow.report.terminal import Column, text_table

# What each arm shows a model before the question, as the page says it.
ARM_TEXTS = {
    "default": "the question alone", "label": "the name of the group", "profile": "the value profile of the group",
    "label + profile": "both", "adaptive": "the profile where the question concerns a value, else nothing",
    "shuffled profile": "control: the profile of another group", "population profile": "control: the profile of everybody",
    "irrelevant text": "control: sentences about nothing, as long as the profile",
}  # fmt: skip
READING_TEXTS = {
    "probabilities": "log-probabilities of the letters", "letter": "the option that a free reply names",
}  # fmt: skip


def opinionqa_page(result: ChoiceStudy) -> str:
    """Return the page as one self-contained HTML file."""
    measured = result.tables["measures"]
    pairs = list(dict.fromkeys((row["model"], row["reading"]) for row in measured))
    sections = []
    for number, (model, reading) in enumerate(pairs):
        rows, differences = (
            [row for row in result.tables[name] if (row["model"], row["reading"]) == (model, reading)]
            for name in ("measures", "differences")
        )
        plots = [_contrasts(rows, f"contrast {number}")]
        curve = [r for r in result.tables["calibration"] if (r["model"], r["reading"]) == (model, reading)]
        if reading == "probabilities" and curve:
            plots.append(_calibration(curve, f"calibration {number}"))
        threshold = result.facts["thresholds"].get(f"{model}, {reading}")
        sections.append((model, reading, rows, differences, plots, threshold, finding(rows, differences)))
    return render(
        "opinionqa.html", study_id=result.study_id, facts=result.facts, sections=sections,
        baselines=result.tables["baselines"], damaged=result.tables["damaged"], told=result.tables["told"], arm_texts=ARM_TEXTS,
        reading_texts=READING_TEXTS, csv_names=[name for name, rows in result.tables.items() if rows],
        config_yaml=yaml.safe_dump(result.settings, sort_keys=False, allow_unicode=True),
    )  # fmt: skip


def finding(rows: list[Row], differences: list[Row]) -> str:
    """Return in one or two sentences whether the profile of a group predicts its answers."""
    contrast = {row["arm"]: row for row in rows}.get("profile")
    if contrast is None:
        return "The arm with the profile was not asked."
    r = f"{signed(contrast['contrast'], 2)} ({interval(contrast['contrast_low'], contrast['contrast_high'], 2, True)})"
    if not contrast["contrast_low"] > 0:
        return (
            f"Nothing shows that the model uses what the profile says of a group: the correlation of its differences between "
            f"groups with the true ones is {r}, and the interval contains 0."
        )
    versus = {row["second"]: row for row in differences if row["first"] == "profile"}.get("shuffled profile")
    told = f"Told a profile, the model moves towards the group: contrast correlation {r}."
    if versus is None:
        return told
    points = f"{signed(100 * versus['difference'])} points ({interval(100 * versus['low'], 100 * versus['high'], 1, True)})"
    better = "more" if versus["low"] > 0 else "not shown to be more"
    return f"{told} Its own profile is worth {better} than another group's: {points} of expected agreement."


def _contrasts(rows: list[Row], salt: str) -> Plot:
    """The contrast correlation of each arm with its interval; zero is an arm that knows nothing of the group."""
    shown = [row for row in rows if row["arm"] != "default"]

    def draw(axes: Axes) -> None:
        resize(
            axes,
            (5.2, 0.8 + 0.3 * len(shown)),
            (0.32, 0.5 / (0.8 + 0.3 * len(shown)), 0.65, 0.9 - 0.5 / (0.8 + 0.3 * len(shown))),
        )
        axes.axvline(0, color=INK, linewidth=0.8)
        for y, row in enumerate(reversed(shown)):
            color = SECOND if ARM_TEXTS[row["arm"]].startswith("control") else FIRST
            axes.hlines(y, row["contrast_low"], row["contrast_high"], color=color, linewidth=1.6)
            axes.plot(row["contrast"], y, marker="s" if color == SECOND else "o", color=color, markersize=5, markeredgewidth=0)
        axes.set_yticks(range(len(shown)), [row["arm"] for row in reversed(shown)])
        axes.set(ylim=(-0.6, len(shown) - 0.4), xlabel="correlation with the true differences between groups")
        axes.grid(axis="x")

    alt = "Contrast correlation by arm: " + "; ".join(
        f"{row['arm']} {signed(row['contrast'], 2)}, {interval(row['contrast_low'], row['contrast_high'], 2, True)}"
        for row in shown
    )
    return Plot(svg(draw, alt, salt), (
        "Correlation of the predicted with the true differences of a group from the population, with 95 % intervals over "
        "batteries; squares are controls. An arm that knows only the question stands at 0."
    ))  # fmt: skip


def _calibration(rows: list[Row], salt: str) -> Plot:
    arms = [arm for arm in ("default", "profile") if any(row["arm"] == arm for row in rows)]

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=GRID, linewidth=1)
        for arm, color, marker in zip(arms, (INK, FIRST), ("s", "o"), strict=False):
            of = [row for row in rows if row["arm"] == arm]
            axes.plot(
                [r["predicted"] for r in of], [r["share"] for r in of], color=color, marker=marker, markersize=4, label=arm
            )
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="predicted probability", ylabel="share of people")
        axes.legend(frameon=False)

    alt = "Calibration: " + "; ".join(
        f"{row['arm']}, predicted {percent(row['predicted'], 0)}: {percent(row['share'], 0)} of people ({row['options']:,})"
        for row in rows if row["arm"] in arms
    )  # fmt: skip
    return Plot(svg(draw, alt, salt), (
        "Predicted probability of an option against the share of people who chose it, by tenths of the probability; on the "
        "line, probabilities are shares."
    ))  # fmt: skip


def measure_table(result: ChoiceStudy) -> str:
    """Return the measures of all arms and baselines as a table for the terminal."""
    columns = [
        Column("model", numeric=False, max_width=24), Column("reading", numeric=False), Column("arm", numeric=False),
        *map(Column, ("accuracy", "agreement", "JSD", "contrast r", "95 % interval", "all items", "unread")),
    ]  # fmt: skip
    rows = [
        [
            row["model"], row["reading"], row["arm"], percent(row["accuracy"]), percent(row["agreement"]), f"{row['jsd']:.3f}",
            signed(row["contrast"], 2), interval(row["contrast_low"], row["contrast_high"], 2, True),
            percent(row.get("all_items")), percent(row["unread"]),
        ]
        for row in [*result.tables["measures"], *result.tables["baselines"]]
    ]  # fmt: skip
    return text_table(columns, rows)
