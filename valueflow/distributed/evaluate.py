"""Score responses against a VIDB on the cluster, round by round; also from rankings that already exist."""

import functools
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from pydantic import Field, model_validator

from valueflow import __version__, store, vidb
from valueflow.config import Config
from valueflow.distributed.answer import AnswerTotals, check_answers, check_error_share, collect_answers
from valueflow.distributed.audit import Policy, check_admitted, measured_speed
from valueflow.distributed.build.rank import rankings_details, with_texts
from valueflow.distributed.cluster import ClusterConfig
from valueflow.distributed.judge import warm_pools
from valueflow.errors import InputError, allowed
from valueflow.evaluation.official_files import score_rankings, scores_csv
from valueflow.evaluation.responses import response_texts, save_responses
from valueflow.evaluation.scoring import EvaluatorConfig, Scoring, check_anchors, estimate_sharpness
from valueflow.judging.configs import AnyJudge, JudgeConfig
from valueflow.judging.fingerprint import fingerprint
from valueflow.judging.tasks import RANK
from valueflow.llm.cost import CostEstimate, estimate
from valueflow.records import SCHEMAS, digest, text_id
from valueflow.store import Build, EvaluationsDetails, RankingsDetails
from valueflow.theories import resolve
from valueflow.vidb.candidates import ALL
from valueflow.vidb.version import Anchors, Vidb

log = logging.getLogger(__name__)


class EvaluateConfig(Config):
    """Which responses are scored, against what, by whom."""

    root: str = Field(description="folder or URL under which all tables live")
    responses: str = Field("", description="CSV, JSONL or Parquet with columns query, dataset, response")
    max_responses: int | None = Field(None, ge=1, description="score only the first so many")
    vidb: str = Field("current", description="version id, or current")
    values: list[str] = Field(ALL, description="values by any spelling, or ['all'] of the version")
    evaluator: EvaluatorConfig = EvaluatorConfig()
    judge: JudgeConfig | None = Field(None, description="not needed with rankings")
    rankings: str = Field(
        "", description="score saved rankings again instead of asking: a build id (e-…) under root, or an official rankings CSV"
    )
    max_error_share: float = Field(0.05, ge=0, le=1)
    audit: Policy = Field("refuse", description="refuse a judge that failed its audit, require a passed one, or ignore")
    dry_run: bool = Field(False, description="print what the judge's calls will take, ask nothing")
    chunk: int = Field(500, ge=1, description="responses planned and scored together by one task")
    cluster: ClusterConfig = ClusterConfig()

    @model_validator(mode="after")
    def _judge_or_rankings(self) -> "EvaluateConfig":
        if (self.judge is None) != bool(self.rankings):
            raise ValueError("give either judge (to ask) or rankings (to score saved answers), not both and not neither")
        if bool(self.responses) == bool(self.rankings):
            raise ValueError("responses (a CSV, JSONL or Parquet file with columns query, dataset, response) goes with judge")
        return self


class ResponseChunk(NamedTuple):
    """Some distinct response texts and one value: the unit that a task plans and scores."""

    value: str
    number: int
    text_ids: list[str]

    @property
    def folder(self) -> str:
        """Where the chunk's windows and rankings lie."""
        return f"{store.value_folder(self.value)}/chunk={self.number:05d}"


class EvaluationResult(NamedTuple):
    """Where the scores are and what they rest on."""

    build: Build
    details: EvaluationsDetails


def evaluate(config: EvaluateConfig) -> EvaluationResult:
    """Score every response on every value; m rounds of plan, judge, commit, then the posterior of each response.

    Raises:
        InputError: a column or a value is missing, the anchors are too few, or too many answers are broken.
    """
    if config.rankings.endswith(".csv"):
        return _evaluate_official(config)
    return _evaluate_asking(config, config.judge) if config.judge else _evaluate_saved(config)


def dry_run(config: EvaluateConfig) -> list[CostEstimate]:
    """Return what the judge's calls will take; nothing for saved rankings."""
    if config.judge is None:
        return []
    version, values, responses = _inputs(config)
    chunks = _chunks(responses, values, config.chunk)
    texts = response_texts(responses)
    sample = []
    for chunk in chunks[:20]:
        anchors = version.anchors(chunk.value)
        table = Scoring(anchors, chunk.text_ids[:1], 1.0, config.evaluator).plan(0)
        sample += with_texts(table, [version.build], chunk.folder, {i: texts[i] for i in chunk.text_ids[:1]}).to_pylist()
    calls = config.evaluator.m * sum(len(chunk.text_ids) for chunk in chunks)
    return [estimate(config.judge, RANK, sample, calls, measured_speed(config.root, config.judge))]


def _inputs(config: EvaluateConfig) -> tuple[Vidb, list[str], Build]:
    """The version, the values asked, whose anchors are enough, and the stored responses."""
    version = vidb.load(config.root, config.vidb)
    values = _values(config, list(version.calibrations))
    for value in values:
        check_anchors(version.anchors(value), config.evaluator)
    return version, values, save_responses(config.responses, config.root, config.max_responses)


def _evaluate_asking(config: EvaluateConfig, judging: AnyJudge) -> EvaluationResult:
    admitted = check_admitted(config.root, judging, config.audit)
    version, values, responses = _inputs(config)
    asked = {
        "vidb_version": version.build.build_id, "responses": responses.build_id, "values": values, "chunk": config.chunk,
        "evaluator": config.evaluator.model_dump(), "fingerprint": fingerprint(judging),
    }  # fmt: skip
    rankings = Build(config.root, "rankings", f"e-{digest(__version__, asked)}")
    out = Build(config.root, "evaluations", digest(__version__, asked))
    chunks = _chunks(responses, values, config.chunk)
    if not store.manifest(out):
        sharpness = ask_rounds(config.evaluator, judging, version, responses, chunks, rankings, "evaluate")
        total = config.evaluator.m * sum(len(c.text_ids) for c in chunks)
        totals = check_answers(rankings, RANK, total, config.max_error_share, "evaluate")
        about = {name: setting for name, setting in asked.items() if name in RankingsDetails.model_fields}
        details = rankings_details(totals, judge=judging.public(), audit=admitted, **about)
        store.commit(rankings, details, [responses, version.build])
        _score(config, version, responses, rankings, chunks, sharpness, config.evaluator, out)
    return _scored(out)


def _evaluate_saved(config: EvaluateConfig) -> EvaluationResult:
    """Score answered windows again, with another sharpness or other values; all else is as they were asked."""
    rankings = Build(config.root, "rankings", config.rankings)
    saved = store.details_of(rankings, RankingsDetails)
    if saved.evaluator is None:
        there = ", ".join(b for b in store.finished(config.root, "rankings") if b.startswith("e-")) or "none"
        raise InputError(f"rankings {config.rankings!r} are not those of an evaluation; there are: {there}")
    version = vidb.load(config.root, saved.vidb_version)
    responses = Build(config.root, "responses", saved.responses)
    values = _values(config, saved.values)
    unasked = [value for value in values if value not in saved.values]
    if unasked:
        raise InputError(f"rankings {config.rankings!r} do not ask about {unasked[0]}; {allowed(unasked[0], saved.values)}")
    evaluator = EvaluatorConfig.model_validate(saved.evaluator | {"sharpness": config.evaluator.sharpness})
    out = Build(config.root, "evaluations", digest(__version__, rankings.build_id, values, evaluator.model_dump()))
    chunks = _chunks(responses, values, saved.chunk)
    if not store.manifest(out):
        sharpness = {
            v: _given_sharpness(version, evaluator, saved.fingerprint, v)
            or _sharpness_of(version, rankings, [c for c in chunks if c.value == v], evaluator)
            for v in values
        }
        _score(config, version, responses, rankings, chunks, sharpness, evaluator, out)
    return _scored(out)


def _values(config: EvaluateConfig, there: list[str]) -> list[str]:
    return there if config.values == ALL else list(dict.fromkeys(map(resolve, config.values)))


def _chunks(responses: Build, values: list[str], size: int) -> list[ResponseChunk]:
    texts = store.read_table(responses, ["response"])["response"]
    ids = sorted({text_id(text) for text in texts.to_pylist()} - {text_id("")})
    if not ids:
        raise InputError(f"every response in {store.require_manifest(responses).inputs[0].url} is empty")
    starts = range(0, len(ids), size)
    return [ResponseChunk(value, n, ids[start : start + size]) for value in values for n, start in enumerate(starts)]


def _score(
    config: EvaluateConfig, version: Vidb, responses: Build, rankings: Build, chunks: list[ResponseChunk],
    sharpness: dict[str, float], evaluator: EvaluatorConfig, out: Build,
) -> None:  # fmt: skip
    task = ray.remote(_score_chunk).options(num_cpus=1)
    ray.get([task.remote(version, responses, rankings, c, sharpness[c.value], evaluator, out) for c in chunks])
    answered = store.details_of(rankings, RankingsDetails)
    details = EvaluationsDetails(
        resolved=config.public(), sharpness=sharpness, vidb_version=version.build.build_id, audit=answered.audit,
        windows=answered.windows, errors=answered.errors, tokens_in=answered.tokens_in, tokens_out=answered.tokens_out,
    )  # fmt: skip
    _finish(out, details, [responses, version.build, rankings])


def _scored(out: Build) -> EvaluationResult:
    manifest = store.require_manifest(out)
    log.info("evaluate: %s scores", f"{manifest.num_rows:,}")
    return EvaluationResult(out, manifest.details(EvaluationsDetails))


def _evaluate_official(config: EvaluateConfig) -> EvaluationResult:
    """Score an official rankings CSV."""
    if config.values == ALL or len(config.values) != 1:
        raise InputError(f"an official rankings CSV is about one value; set values to it, got {config.values}")
    value = resolve(config.values[0])
    rows, sharpness = score_rankings(config.rankings, value, config.evaluator)
    content = digest(rows.to_pylist(), config.evaluator.model_dump())
    out = Build(config.root, "evaluations", content)
    totals = AnswerTotals(pc.sum(rows["m"]).as_py(), pc.sum(rows["num_failed"]).as_py(), 0, 0)
    reasons = Counter({"not an order of all positions": totals.errors})
    check_error_share(totals, config.max_error_share, "official rankings", config.rankings, reasons)
    if not store.manifest(out):
        store.write_part(out, rows, "0")
        details = EvaluationsDetails(
            resolved=config.public(), sharpness={value: sharpness}, vidb_version=config.rankings, windows=totals.questions,
            errors=totals.errors, tokens_in=0, tokens_out=0,
        )  # fmt: skip
        _finish(out, details, [config.rankings])
    return _scored(out)


def _finish(out: Build, details: EvaluationsDetails, inputs: Sequence[Build | str]) -> None:
    """Commit the scores, with the official scores CSV beside them."""
    rows = pa.concat_tables([store.read_part(out, path) for path in store.part_paths(out)])
    store.write_bytes(f"{out.url}/scores.csv", scores_csv(rows).encode())
    store.commit(out, details, inputs)


def ask_rounds(
    config: EvaluatorConfig,
    judging: AnyJudge,
    version: Vidb,
    texts: Build,
    chunks: list[ResponseChunk],
    rankings: Build,
    what: str,
) -> dict[str, float]:
    """Bring every round to its end and return each value's sharpness, fixed after the first round where it is estimated.

    `texts` holds those of the chunks: stored responses, or pools by value.
    """
    values = sorted({chunk.value for chunk in chunks})
    given = {value: _given_sharpness(version, config, fingerprint(judging), value) for value in values}
    if None in given.values() and config.k == 2:
        raise InputError(
            "evaluator.k (2) shows one anchor a window, too few to tell the sharpness of a judge that did not build this VIDB; "
            "set evaluator.k to 3 or more, or evaluator.sharpness to the judge's nats per unit of theta"
        )
    sharpness = {value: known or 1.0 for value, known in given.items()}
    per_round = sum(len(c.text_ids) for c in chunks)
    with warm_pools([judging], RANK):
        for round_ in range(config.m):
            settings = {
                "version": version, "texts": texts, "rankings": rankings, "round_": round_,
                "config": config, "sharpness": sharpness,
            }  # fmt: skip
            planned = functools.partial(_planned, chunks, settings)
            collect_answers(judging, RANK, planned, rankings, per_round * (round_ + 1), f"{what} round {round_ + 1}/{config.m}")
            if round_ == 0 and None in given.values():
                sharpness = {
                    v: known or _sharpness_of(version, rankings, [c for c in chunks if c.value == v], config)
                    for v, known in given.items()
                }
                log.info("judge sharpness, nats per unit of theta: %s", {v: round(s, 3) for v, s in sharpness.items()})
    return sharpness


def _planned(chunks: list[ResponseChunk], settings: dict, done: "ray.ObjectRef") -> ray.data.Dataset:
    """The windows of a round with their texts, without those that are done."""
    return ray.data.from_items([c._asdict() for c in chunks], override_num_blocks=len(chunks)).map_batches(
        _plan_chunk, fn_kwargs=settings | {"done": done}, batch_size=1, batch_format="pyarrow", num_cpus=0.1
    )


def _given_sharpness(version: Vidb, config: EvaluatorConfig, judged_by: str, value: str) -> float | None:
    """The configured sharpness, or that of a judge that built the version; None where it must be estimated."""
    return config.sharpness or version.sharpness(judged_by, value)


@functools.lru_cache(maxsize=64)
def _anchors(root: str, version: str, value: str) -> Anchors:
    return vidb.load(root, version).anchors(value)


def _plan_chunk(
    batch: pa.Table, version: Vidb, texts: Build, rankings: Build, round_: int, config: EvaluatorConfig,
    sharpness: dict[str, float], done: "ray.ObjectRef",
) -> Iterator[pa.Table]:  # fmt: skip
    """The windows of one round that are not answered yet, with their texts."""
    for row in batch.to_pylist():
        chunk = ResponseChunk(row["value"], row["number"], row["text_ids"])
        scoring, _ = _after(version, chunk, rankings, sharpness[chunk.value], config, round_)
        table = scoring.plan(round_)
        table = table.filter(store.missing_from(table["window_id"], ray.get(done)))
        if not table.num_rows:
            continue
        if texts.table == "responses":
            yield with_texts(table, [version.build], chunk.folder, {i: response_texts(texts)[i] for i in chunk.text_ids})
        else:
            yield with_texts(table, [version.build, texts], chunk.folder)


def _after(
    version: Vidb, chunk: ResponseChunk, rankings: Build, sharpness: float, config: EvaluatorConfig, rounds: int
) -> tuple[Scoring, list[tuple[int, dict]]]:
    """A chunk's scoring after the first rounds, and their answered windows, each once, with the text each is about."""
    anchors = _anchors(version.build.root, version.build.build_id, chunk.value)
    scoring = Scoring(anchors, chunk.text_ids, sharpness, config)
    asked = scoring.window_ids(rounds)
    paths = store.part_paths(rankings, chunk.folder)
    rows = {row["window_id"]: row for path in paths for row in store.read_part(rankings, path).to_pylist()}
    answers = [(asked[i], row) for i, row in rows.items() if i in asked]
    scoring.take(answers)
    return scoring, answers


def _sharpness_of(version: Vidb, rankings: Build, chunks: list[ResponseChunk], config: EvaluatorConfig) -> float:
    """Maximum likelihood over the first round of at most 20 chunks."""
    shown, orders = [], []
    for chunk in chunks[:20]:
        scoring, answers = _after(version, chunk, rankings, 1.0, config, 1)
        theta = dict(zip(scoring.anchors.text_ids, scoring.anchors.theta_A, strict=True))
        for unit, row in answers:
            if row["order"] is not None:
                shown.append(np.array([np.nan if i == chunk.text_ids[unit] else theta[i] for i in row["text_ids"]]))
                orders.append(row["order"])
    return estimate_sharpness(shown, orders)


def _score_chunk(
    version: Vidb,
    responses: Build,
    rankings: Build,
    chunk: ResponseChunk,
    sharpness: float,
    config: EvaluatorConfig,
    out: Build,
) -> None:
    """Write the evaluations of one chunk; a response without any answered window has no score, and its counts say so."""
    scoring, answers = _after(version, chunk, rankings, sharpness, config, config.m)
    scores = dict(zip(chunk.text_ids, scoring.posterior.scores(), strict=True))
    theory, _, node = chunk.value.partition(":")
    rows = []
    for response in store.read_table(responses).to_pylist():
        text = text_id(response["response"])
        # An empty response is kept, once a value, without a score.
        if text not in scores and (response["response"] or chunk.number):
            continue
        of_text = [row for unit, row in answers if chunk.text_ids[unit] == text]
        answered = sum(row["order"] is not None for row in of_text)
        score = scores[text]._asdict() if answered else {}
        about = {"theory": theory, "value": node, "num_windows": answered, "num_failed": len(of_text) - answered}
        made_by = {"judge": of_text[0]["judge"] if of_text else None, "vidb_version": version.build.build_id}
        rows.append(response | about | made_by | score | config.model_dump(include={"sampling", "k", "m"}))
    store.write_part(out, pa.Table.from_pylist(rows, SCHEMAS["evaluations"]), "0", chunk.folder)
