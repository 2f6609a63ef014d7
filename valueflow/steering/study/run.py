"""The study of finished builds: every table of results, by judge."""

from typing import Any, NamedTuple

import numpy as np

from valueflow import __version__, store
from valueflow.records import digest
from valueflow.steering.study import anchors
from valueflow.steering.study.arms import Arm, Row, effect_rows, fit, model_row, refusal_rows, verdict_rows
from valueflow.steering.study.conditions import (
    composition_rows,
    control_rows,
    dose_rows,
    echo_rows,
    multi_rows,
    outcome_rows,
    side_effect_rows,
)
from valueflow.steering.study.config import StudyConfig
from valueflow.steering.study.data import Scores, Study, load, reaches
from valueflow.store import GenerationsDetails

POOLED = "pooled"
TABLES = (
    "models", "verdicts", "effects", "refusals", "outcomes", "controls", "echo", "doses", "side_effects", "goals",
    "composition", "sets", "judges",
)  # fmt: skip


class StudyResult(NamedTuple):
    """A study.

    Attributes:
        study_id: hash of settings and builds.
        tables: rows by name of the table, `TABLES`.
        facts: models, judges, version, builds, queries and sources.
        config: settings.
    """

    study_id: str
    tables: dict[str, list[Row]]
    facts: dict[str, Any]
    config: StudyConfig


def study(config: StudyConfig) -> StudyResult:
    """Return the tables of a study.

    Raises:
        InputError: see `data.load`.
    """
    loaded = load(config)
    reach = reaches(loaded, config)
    tables: dict[str, list[Row]] = {name: [] for name in TABLES}
    tables["outcomes"] = outcome_rows(loaded, config)
    drawn = [
        anchors.redrawn(judge, _steered(loaded), config.anchor_draws, config.seed, config.score) if config.anchor_draws else {}
        for judge in loaded.judges
    ]
    judges = list(loaded.judges)
    if len(judges) > 1:
        judges.insert(0, pooled(loaded.judges))
        drawn.insert(0, _pooled_draws(judges[0], loaded.judges, drawn))
    for judge, of_judge in zip(judges, drawn, strict=True):
        for key in loaded.arms:
            _arm_tables(loaded, judge, Arm(*key, judge.judge), of_judge, config, reach, tables)
        tables["composition"] += composition_rows(loaded, judge, config, reach)
        tables["sets"] += multi_rows(loaded, judge)
    tables["judges"] = _agreement(tables["verdicts"], [judge.judge for judge in judges])
    facts = _facts(loaded, bool(drawn[0]))
    return StudyResult(digest(__version__, config.public(), facts["builds"]), tables, facts, config)


def _arm_tables(
    loaded: Study, judge: Scores, arm: Arm, drawn: dict[str, np.ndarray], config: StudyConfig,
    reach: dict[str, tuple[float, float]], tables: dict[str, list[Row]],
) -> None:  # fmt: skip
    fitted = fit(loaded, judge, arm, config, drawn)
    effects = effect_rows(arm, fitted)
    refusals = refusal_rows(loaded, judge, arm, fitted, config, reach)
    matrix, goals = side_effect_rows(loaded, arm, judge, fitted)
    tables["effects"] += effects
    tables["refusals"] += refusals
    tables["verdicts"] += verdict_rows(loaded, judge, arm, fitted, config, reach, effects, refusals)
    tables["models"].append(model_row(loaded, judge, arm, fitted, config))
    tables["controls"] += control_rows(loaded, arm, judge, fitted.values)
    tables["echo"] += echo_rows(loaded, arm, judge, fitted)
    tables["doses"] += dose_rows(loaded, arm, judge, fitted)
    tables["side_effects"] += matrix
    tables["goals"] += goals


def _steered(loaded: Study) -> list[str]:
    return sorted({value for arm in loaded.arms for value in loaded.values(arm)})


def pooled(judges: list[Scores]) -> Scores:
    """Return the mean score of several judges, of texts and values that all of them score."""
    first = judges[0]
    values = [value for value in first.values if all(value in judge.values for judge in judges)]
    texts = [text for text in first.text_index if all(text in judge.text_index for judge in judges)]
    aligned = []
    for judge in judges:
        index = np.ix_([judge.text_index[text] for text in texts], [judge.values.index(value) for value in values])
        aligned.append((judge.score_TW[index], judge.sd_TW[index]))
    score_TW = np.mean([score for score, _ in aligned], 0)
    sd_TW = np.sqrt(np.sum([sd**2 for _, sd in aligned], 0)) / len(judges)
    builds = tuple(build for judge in judges for build in judge.builds)
    index_of = {text: number for number, text in enumerate(texts)}
    return Scores(
        POOLED, first.version, "; ".join(sorted({j.audit for j in judges})), builds, values, index_of, score_TW, sd_TW
    )


def _pooled_draws(mean: Scores, judges: list[Scores], drawn: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Draws of the mean: the judges share the anchors, and equal seeds draw them alike."""
    texts = list(mean.text_index)
    return {
        value: np.mean([
            of_judge[value][:, [judge.text_index[text] for text in texts]]
            for judge, of_judge in zip(judges, drawn, strict=True)
        ], 0)
        for value in mean.values if all(value in of_judge for of_judge in drawn)
    }  # fmt: skip


def _agreement(verdicts: list[Row], judges: list[str]) -> list[Row]:
    """The type of every value by every judge, and whether they agree."""
    if len(judges) < 2:
        return []
    types: dict[tuple[str, ...], dict[str, str]] = {}
    for row in verdicts:
        types.setdefault((row["model"], row["turn"], row["regime"], row["value"]), {})[row["judge"]] = row["type"]
    return [
        dict(zip(("model", "turn", "regime", "value"), key, strict=True))
        | {f"type by {judge}": of_value.get(judge) for judge in judges}
        | {"agree": len({of_value.get(judge) for judge in judges if judge != POOLED}) == 1}
        for key, of_value in types.items()
    ]


def _facts(loaded: Study, with_anchor_error: bool) -> dict[str, Any]:
    generations = [f"generations/{build.build_id}" for build in loaded.builds]
    judge = loaded.judges[0]
    return {
        "models": sorted({cell.model for cell in loaded.cells}),
        "judges": [f"{j.judge} ({j.audit})" for j in loaded.judges],
        "cheap_judge": loaded.cheap.judge if loaded.cheap else "",
        "vidb_version": judge.version,
        "builds": [*generations, *(f"evaluations/{b.build_id}" for j in loaded.judges for b in j.builds)],
        "queries": len(loaded.query_ids),
        "sources": loaded.sources,
        "responses": loaded.generations.num_rows,
        "wording": sorted({store.details_of(build, GenerationsDetails).wording_hash for build in loaded.builds}),
        "anchor_error": with_anchor_error,
    }
