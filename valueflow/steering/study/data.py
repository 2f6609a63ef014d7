"""Responses of steered models joined with their scores, as arrays by query.

Shapes: G generations, T distinct texts, W scored values, Q queries, R responses of a query in a cell (replicates and wordings).
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from valueflow import store, vidb
from valueflow.errors import InputError, allowed
from valueflow.numerics.intervals import Z95
from valueflow.records import ValueId, text_id
from valueflow.steering.echo import MASKED_DATASET
from valueflow.steering.generation import LATEST, finished_generations
from valueflow.steering.study.config import StudyConfig
from valueflow.steering.study.effects import SCALE, strata
from valueflow.steering.study.refusals import Responses
from valueflow.store import Build, EvaluationsDetails, GenerationsDetails
from valueflow.tabular import cell, rows, urls

STEERED = ("intensity_anchor", "user_texts")  # regimes of one value
COLUMNS = [
    "generation_id", "model", "regime", "condition", "turn", "values", "levels", "variant", "replicate", "query_id", "dataset",
    "requested", "response_text_id", "finish_reason", "outcome", "error", "tokens_out",
]  # fmt: skip


class Cell(NamedTuple):
    """The conditions whose responses are one cell of a design: a model under one request."""

    model: str
    turn: str
    regime: str
    condition: str
    values: tuple[str, ...] = ()
    levels: tuple[int, ...] = ()


class Scores(NamedTuple):
    """Scores of one judge; NaN where a text is not scored on a value."""

    judge: str
    version: str
    audit: str
    builds: tuple[Build, ...]
    values: list[ValueId]
    text_index: dict[str, int]
    score_TW: np.ndarray
    sd_TW: np.ndarray

    def of(self, text_ids: Sequence[str], value: str) -> tuple[np.ndarray, np.ndarray]:
        """Return score and standard deviation of texts on a value."""
        if value not in self.values:
            return np.full(len(text_ids), np.nan), np.full(len(text_ids), np.nan)
        column = self.values.index(ValueId(value))
        index = np.array([self.text_index.get(i, -1) for i in text_ids], int)
        known = index >= 0
        return tuple(np.where(known, table[index, column], np.nan) for table in (self.score_TW, self.sd_TW))  # type: ignore[return-value]

    def redrawn(self, value: str, score_T: np.ndarray) -> "Scores":
        """Return the scores on one value alone, with other numbers for all texts."""
        column = self.values.index(ValueId(value))
        return self._replace(values=[self.values[column]], score_TW=score_T[:, None], sd_TW=self.sd_TW[:, [column]])


class Study:
    """Generations in cells, and the scores of their texts by each judge.

    Attributes:
        builds: of the generations.
        generations: rows with the columns `COLUMNS`.
        cells: row numbers of every cell.
        stratum_Q: the source of every query.
        judges: scores by judge; the first is the study's.
        cheap: scores of the cheap judge, None without.
        masked: text id of a response -> text id of the same with the echo of the prompt masked.
        anchors: by value, intensities of the texts of the version.
    """

    def __init__(
        self, builds: list[Build], generations: pa.Table, judges: list[Scores], cheap: Scores | None, masked: dict[str, str]
    ) -> None:
        self.builds, self.generations, self.judges, self.cheap, self.masked = builds, generations, judges, cheap, masked
        self.text_ids = generations["response_text_id"].to_pylist()
        self.outcomes = np.array(generations["outcome"].fill_null("broken").to_pylist())
        query_ids, datasets = generations["query_id"].to_pylist(), generations["dataset"].to_pylist()
        source = dict(zip(query_ids, datasets, strict=True))
        self.query_ids = sorted(source)
        number = {query: q for q, query in enumerate(self.query_ids)}
        self.query_G = np.array([number[query] for query in query_ids])
        self.stratum_Q = strata([source[query] for query in self.query_ids])
        self.sources = len(set(source.values()))
        columns = [generations[name].to_pylist() for name in ("model", "turn", "regime", "condition", "values", "levels")]
        grouped: dict[Cell, list[int]] = defaultdict(list)
        for row, (model, turn, regime, condition, values, levels) in enumerate(zip(*columns, strict=True)):
            grouped[Cell(model, turn, regime, condition, tuple(values), tuple(levels))].append(row)
        self.cells = {key: np.array(of_key) for key, of_key in grouped.items()}

    @property
    def arms(self) -> list[tuple[str, str, str]]:
        """Model, turn and regime of every arm that steers on one value, sorted."""
        return sorted({(c.model, c.turn, c.regime) for c in self.cells if c.regime in STEERED and len(c.values) == 1})

    def values(self, arm: tuple[str, str, str]) -> list[str]:
        """Return the values that an arm steers on."""
        return sorted({c.values[0] for c in self.cells if (c.model, c.turn, c.regime) == arm and len(c.values) == 1})

    def steered(self, arm: tuple[str, str, str], value: str, level: int) -> Cell:
        """Return the cell of a value and level; level 0 is the neutral persona."""
        return Cell(*arm, "value", (value,), (level,)) if level else self.control(arm, "neutral_persona")

    def control(self, arm: tuple[str, str, str], condition: str) -> Cell:
        """Return the cell of a control: with the arm's turn, else with the other one (a bare query has no persona to place)."""
        model, turn, _ = arm
        same = Cell(model, turn, "control", condition)
        others = [c for c in self.cells if (c.model, c.regime, c.condition) == (model, "control", condition)]
        return same if same in self.cells or not others else others[0]

    def responses(self, cell: Cell, value: str, judge: Scores, non_answers: Sequence[str], masked: bool = False) -> Responses:
        """Return the scores of a cell on a value (Q, R); see `on_queries` for cells of unequal size."""
        rows = self.cells.get(cell, np.empty(0, int))
        score_g, _ = judge.of([self._scored_id(row, masked) for row in rows], value)
        answered_g = ~np.isin(self.outcomes[rows], list(non_answers))
        y_QR, answered_QR = self.on_queries(rows, score_g), self.on_queries(rows, answered_g.astype(float))
        return Responses(y_QR, np.nan_to_num(answered_QR, nan=1.0) > 0)

    def deviations(self, cell: Cell, value: str, judge: Scores) -> np.ndarray:
        """Return the standard deviations of the judge's scores of a cell (Q, R)."""
        rows = self.cells.get(cell, np.empty(0, int))
        return self.on_queries(rows, judge.of([self.text_ids[row] for row in rows], value)[1])

    def on_queries(self, rows: np.ndarray, number_g: np.ndarray) -> np.ndarray:
        """Return numbers of generations by query (Q, R); NaN where a query has fewer than R."""
        order = np.argsort(self.query_G[rows], kind="stable")
        query_g = self.query_G[rows][order]
        position_g = np.arange(len(rows)) - np.searchsorted(query_g, query_g)
        size = int(position_g.max()) + 1 if len(rows) else 1
        number_QR = np.full((len(self.query_ids), size), np.nan)
        number_QR[query_g, position_g] = np.asarray(number_g, float)[order]
        return number_QR

    def _scored_id(self, row: int, masked: bool) -> str:
        return self.masked.get(self.text_ids[row], self.text_ids[row]) if masked else self.text_ids[row]


def load(config: StudyConfig) -> Study:
    """Return the study of the builds that a config names.

    Raises:
        InputError: a build is missing, a judge failed its audit, evaluations are of several versions, a value was never
            scored, the neutral persona is missing, or too many responses have no score.
    """
    builds = finished_generations(config.root, config.generations)
    tables = [store.read_table(build, COLUMNS) for build in builds]
    judges = score_judges(config, config.evaluations, "evaluations")
    cheap = score_judges(config, config.cheap_evaluations, "cheap_evaluations")
    if len(cheap) > 1:
        raise InputError(
            f"cheap_evaluations are by {len(cheap)} judges ({', '.join(s.judge for s in cheap)}); name those of one"
        )
    study = Study(builds, pa.concat_tables(tables), judges, cheap[0] if cheap else None, _masked(builds))
    _check(study, config)
    return study


def _named(root: str, table: str, build_id: str, available: list[str]) -> Build:
    chosen = available[-1] if build_id == LATEST and available else build_id
    if chosen not in available:
        known = allowed(build_id, available) if available else f"there is none under {root}"
        raise InputError(f"{table}: no finished build {build_id!r}; {known}")
    return Build(root, table, chosen)


def score_judges(config: StudyConfig, names: list[str], setting: str) -> list[Scores]:
    """Return the scores by judge, in the order of the names; all against one version.

    Raises:
        InputError: a build is missing, a judge failed its audit, or the builds are of several versions.
    """
    available = store.finished(config.root, "evaluations") if names else []
    builds = [_named(config.root, "evaluations", name, available) for name in dict.fromkeys(names)]
    details = [store.details_of(build, EvaluationsDetails) for build in builds]
    versions = sorted({d.vidb_version for d in details})
    if len(versions) > 1:
        raise InputError(
            f"{setting} are against {len(versions)} VIDB versions ({', '.join(versions)}), whose scales differ; evaluate the "
            "responses against one version"
        )
    tables: dict[str, list[tuple[Build, EvaluationsDetails, pa.Table]]] = defaultdict(list)
    for build, detail in zip(builds, details, strict=True):
        if detail.audit.startswith("failed") and config.audit == "refuse":
            raise InputError(
                f"evaluations/{build.build_id}: the judge {detail.audit}; evaluate with a judge that passes jobs.audit_judge, "
                "or set audit to ignore"
            )
        table = store.read_table(build, ["response", "theory", "value", *_score_columns(config.score), "judge"])
        judge = next((name for name in table["judge"].to_pylist() if name), build.build_id)
        tables[judge].append((build, detail, table))
    return [_scores(judge, of_judge, config.score) for judge, of_judge in tables.items()]


def _score_columns(score: str) -> list[str]:
    prefix = "judge_" if score == "judge_intensity" else ""
    return [score, f"{prefix}low", f"{prefix}high"]


def _scores(judge: str, evaluations: list[tuple[Build, EvaluationsDetails, pa.Table]], score: str) -> Scores:
    table = pa.concat_tables([rows for _, _, rows in evaluations])
    encoded = table["response"].combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    distinct = [text_id(text or "") for text in encoded.dictionary.to_pylist()]
    text_index = {text: number for number, text in enumerate(dict.fromkeys(distinct))}
    text_N = np.array([text_index[text] for text in distinct], int)[encoded.indices.to_numpy()]
    names = list(map(":".join, zip(table["theory"].to_pylist(), table["value"].to_pylist(), strict=True)))
    values = sorted(set(names))
    column = {value: number for number, value in enumerate(values)}
    value_N = np.array([column[name] for name in names], int)
    score_N, low_N, high_N = (table[name].to_numpy(zero_copy_only=False).astype(float) for name in _score_columns(score))
    score_TW = np.full((len(text_index), len(values)), np.nan)
    sd_TW = score_TW.copy()
    score_TW[text_N, value_N], sd_TW[text_N, value_N] = score_N, (high_N - low_N) / (2 * Z95)
    _, details, _ = evaluations[0]
    builds = tuple(build for build, _, _ in evaluations)
    return Scores(judge, details.vidb_version, details.audit, builds, list(map(ValueId, values)), text_index, score_TW, sd_TW)


def _masked(builds: list[Build]) -> dict[str, str]:
    """Text id of a response -> text id of its masked form, from the files that were written for the evaluation."""
    masked: dict[str, str] = {}
    for build in builds:
        export = store.details_of(build, GenerationsDetails).export
        if not export:
            continue
        ids = store.read_table(build, ["generation_id", "response_text_id"])
        text_of = dict(zip(ids["generation_id"].to_pylist(), ids["response_text_id"].to_pylist(), strict=True))
        for file in urls(export):
            for row in rows(file, ["dataset", "response", "generation_id"]):
                if cell(row.fields, "dataset").endswith(MASKED_DATASET):
                    original = text_of.get(cell(row.fields, "generation_id"))
                    if original:
                        masked[original] = text_id(cell(row.fields, "response"))
    return masked


def _check(study: Study, config: StudyConfig) -> None:
    judge = study.judges[0]
    if not study.arms:
        raise InputError(
            f"the generations have no responses that are steered on one value (regimes {' or '.join(STEERED)}); add such a "
            "regime to jobs.steer"
        )
    for arm in study.arms:
        if study.control(arm, "neutral_persona") not in study.cells:
            raise InputError(
                f"model {arm[0]!r} has no responses under the neutral persona, against which effects are measured; add the "
                "control neutral_persona to jobs.steer"
            )
    steered = sorted({value for arm in study.arms for value in study.values(arm)})
    missing = [value for value in steered if value not in judge.values]
    if missing:
        raise InputError(
            f"evaluations do not score {', '.join(missing)}, which models are steered on; run jobs.evaluate with these values "
            "on the export of the generations"
        )
    total, without = 0, 0
    for arm in study.arms:
        for value in study.values(arm):
            for level in SCALE:
                rows_ = study.cells.get(study.steered(arm, value, level), np.empty(0, int))
                answers = rows_[study.outcomes[rows_] != "broken"]
                score_g, _ = judge.of([study.text_ids[row] for row in answers], value)
                total, without = total + len(answers), without + int(np.isnan(score_g).sum())
    if without > config.max_missing * total:
        raise InputError(
            f"{without:,} of {total:,} responses have no score on their value by judge {judge.judge!r}; evaluate the export of "
            f"these generations, or raise max_missing ({config.max_missing:g})"
        )


def reaches(study: Study, config: StudyConfig) -> dict[str, tuple[float, float]]:
    """Return by value the lowest and the highest score that a response can reach: quantiles of the version's anchors.

    Evaluations of an official rankings file have no version under the root; there the whole scale counts as reachable.
    """
    judge = study.judges[0]
    if judge.version not in store.finished(config.root, "vidb"):
        return dict.fromkeys(judge.values, (-10.0, 10.0))
    version = vidb.load(config.root, judge.version)
    reach: dict[str, tuple[float, float]] = {}
    for value in judge.values:
        table = store.read_table(version.build, ["intensity", "judge_intensity"], store.value_folder(value))
        column = table[config.score]
        intensity = (column if column.null_count < len(column) else table["intensity"]).drop_null().to_numpy()
        low, high = np.quantile(intensity, [1 - config.reach_quantile, config.reach_quantile])
        reach[value] = (float(low), float(high))
    return reach
