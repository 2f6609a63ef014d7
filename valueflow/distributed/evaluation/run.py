"""Score responses against a VIDB version: by a judge, from saved rankings, or from the official evaluator's rankings file."""

import functools
import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import ray

from valueflow import __version__, store, vidb
from valueflow.config import Resources
from valueflow.distributed.answer import AnswerTotals, check_answers, check_error_share
from valueflow.distributed.audit import check_admitted, measured_speed
from valueflow.distributed.cluster import ordered_results, result_of
from valueflow.distributed.evaluation.config import EvaluateConfig
from valueflow.distributed.evaluation.rounds import (
    Evaluation,
    EvaluationChunk,
    first_round_sharpness,
    rank_chunks,
    scoring_after,
    stored_sharpness,
)
from valueflow.distributed.rank import rankings_details
from valueflow.distributed.texts import ResponseTexts
from valueflow.errors import InputError, allowed
from valueflow.evaluation.official_files import score_rankings, scores_csv
from valueflow.evaluation.responses import save_responses, texts_about
from valueflow.evaluation.scoring import EvaluatorConfig, Scoring, check_anchors
from valueflow.judging.configs import AnyJudge
from valueflow.judging.cost import estimate
from valueflow.judging.fingerprint import fingerprint
from valueflow.judging.kind import Relevance
from valueflow.judging.kinds import kind_of
from valueflow.judging.tasks import RANK
from valueflow.llm.cost import CostEstimate
from valueflow.ranking.windows import with_texts
from valueflow.records import SCHEMAS, ValueId, digest, text_id
from valueflow.store import Build, EvaluationsDetails, RankingsDetails
from valueflow.tabular import is_table
from valueflow.theories import expand, resolve
from valueflow.vidb import validity
from valueflow.vidb.candidates import ALL
from valueflow.vidb.version import Vidb

log = logging.getLogger(__name__)
SAMPLED_CHUNKS = 20  # chunks that a dry run looks at


class EvaluationResult(NamedTuple):
    """The build of the scores and what its manifest records."""

    build: Build
    details: EvaluationsDetails


def evaluate(config: EvaluateConfig) -> EvaluationResult:
    """Score every response on every value and return where the scores are.

    With a judge: m rounds of plan, rank, commit, then the posterior of each response (`rounds`).

    Raises:
        InputError: a column or a value is missing, the anchors are too few, or too many windows failed.
    """
    if is_table(config.rankings):
        return _evaluate_official(config)
    return _evaluate_with_judge(config, config.judge) if config.judge else _evaluate_saved(config)


def dry_run(config: EvaluateConfig) -> list[CostEstimate]:
    """Return what the judge's calls will take; nothing for saved rankings."""
    if config.judge is None:
        return []
    version, values, responses = _inputs(config)
    chunks = _chunks(responses, values, config.chunk, config.pairs)
    texts = ResponseTexts(responses, version.build)
    sample = []
    for chunk in chunks[:SAMPLED_CHUNKS]:
        anchors = version.anchors(chunk.value, bool(config.evaluator.neutral_share))
        windows = Scoring(anchors, chunk.text_ids[:1], 1.0, config.evaluator).plan(0)
        sample += with_texts(windows, texts(chunk.folder)).to_pylist()
    num_texts = sum(len(chunk.text_ids) for chunk in chunks)
    speed, num_rated = measured_speed(config.root, config.judge), num_texts
    if version.details.judge_fingerprint != fingerprint(config.judge):  # the anchors are texts that it has not seen either
        num_rated += sum(len(version.anchors(value).theta_A) for value in values)
    estimates = [estimate(config.judge, RANK, sample, config.evaluator.m * num_texts, speed, num_rated, len(values))]
    if kind_of(config.judge).relevance(config.judge) != "none":
        alone = [row | {"text_ids": row["text_ids"][:1], "texts": row["texts"][:1]} for row in sample]
        speed = speed and speed._replace(table="")  # tokens were measured on windows of several texts
        relevance = estimate(config.judge, RANK, alone, num_texts, speed)
        estimates.append(relevance._replace(name=f"{config.judge.name}, relevance"))
    return estimates


def _inputs(config: EvaluateConfig) -> tuple[Vidb, list[ValueId], Build]:
    """The version, the values to score, which have enough anchors, and the stored responses."""
    version = vidb.load(config.root, config.vidb)
    values = _values(config, list(version.calibrations))
    for value in values:
        check_anchors(version.anchors(value, bool(config.evaluator.neutral_share)), config.evaluator)
    return version, values, save_responses(config.responses, config.root, config.max_responses, config.pairs == "about")


def _evaluate_with_judge(config: EvaluateConfig, judge: AnyJudge) -> EvaluationResult:
    audit = check_admitted(config.root, judge, config.audit)
    version, values, responses = _inputs(config)
    settings: dict[str, Any] = {
        "vidb_version": version.build.build_id, "responses": responses.build_id, "values": values, "chunk": config.chunk,
        "evaluator": config.evaluator.model_dump(), "fingerprint": fingerprint(judge),
    }  # fmt: skip
    if config.pairs != "all":  # the default is in no id, so that ids from before the setting hold
        settings["pairs"] = config.pairs
    relevance, knowledge = kind_of(judge).relevance(judge), kind_of(judge).relevance_knowledge(judge)
    _check_relevance(config, relevance)
    asked = [relevance, knowledge] if relevance != "none" else []
    rankings = Build(config.root, "rankings", f"e-{digest(__version__, settings, *asked)}")
    record = validity.load(config.root, fingerprint(judge))
    out = _evaluations(config, settings, *asked, *([record.id] if record else []))
    if not store.reusable(out):
        chunks = _chunks(responses, values, config.chunk, config.pairs)
        errors = validity.content_errors(version, fingerprint(judge), record)
        texts = ResponseTexts(responses, version.build)
        evaluation = Evaluation(version, texts, rankings, config.evaluator, errors, relevance)
        sharpness, answers = rank_chunks(evaluation, judge, chunks, config.max_error_share, "evaluate")
        totals = check_answers(answers, evaluation.windows(chunks, config.evaluator.m), config.max_error_share, "evaluate")
        about = {"judge": judge.public(), "audit": audit, "relevance_source": relevance, "timeline": answers.timeline()}
        details = rankings_details(totals, **about, **settings)
        if not store.reusable(rankings):
            store.commit(rankings, details, [responses, version.build], answers.finish())
        _score(config, evaluation, responses, chunks, sharpness, out)
    return _result(out)


def _evaluate_saved(config: EvaluateConfig) -> EvaluationResult:
    """Score answered windows again, with another sharpness or fewer values; everything else is as when they were ranked."""
    rankings = Build(config.root, "rankings", config.rankings)
    manifest = store.require_manifest(rankings)
    saved = manifest.details(RankingsDetails)
    if saved.evaluator is None:
        ids = ", ".join(i for i in store.finished(config.root, "rankings") if i.startswith("e-")) or "none"
        raise InputError(f"rankings {config.rankings!r} are not those of an evaluation; finished ones: {ids}")
    store.verify(rankings)  # parts of an evaluation's rankings are read by path
    _check_relevance(config, saved.relevance_source)
    version = vidb.load(config.root, saved.vidb_version)
    responses = Build(config.root, "responses", saved.responses)
    values = _values(config, list(map(ValueId, saved.values)))
    missing = [value for value in values if value not in saved.values]
    if missing:
        raise InputError(f"rankings {config.rankings!r} do not hold {missing[0]}; {allowed(missing[0], saved.values)}")
    evaluator = manifest.nested(EvaluatorConfig, saved.evaluator | {"sharpness": config.evaluator.sharpness}, "evaluator")
    record = validity.load(config.root, saved.fingerprint)
    of_record = [record.id] if record else []
    settings = [rankings.build_id, values, evaluator.model_dump(), *of_record]
    out = _evaluations(config, *settings)
    if not store.reusable(out):
        chunks = _chunks(responses, values, saved.chunk, saved.pairs)
        errors = validity.content_errors(version, saved.fingerprint, record)
        texts = ResponseTexts(responses, version.build)
        evaluation = Evaluation(version, texts, rankings, evaluator, errors, saved.relevance_source)
        sharpness = {
            value: stored_sharpness(evaluation, saved.fingerprint, value) or first_round_sharpness(evaluation, chunks, value)
            for value in values
        }
        _score(config, evaluation, responses, chunks, sharpness, out)
    return _result(out)


def _evaluate_official(config: EvaluateConfig) -> EvaluationResult:
    """Score an official rankings CSV."""
    if config.values == ALL or len(config.values) != 1:
        raise InputError(f"an official rankings CSV is about one value; set values to it, got {config.values}")
    value = resolve(config.values[0])
    rows, sharpness = score_rankings(config.rankings, value, config.evaluator)
    out = Build(config.root, "evaluations", digest(rows.to_pylist(), config.evaluator.model_dump()))
    totals = AnswerTotals(pc.sum(rows["m"]).as_py(), pc.sum(rows["num_failed"]).as_py(), 0, 0, 0)
    reasons = Counter({"not an order of all positions": totals.errors})
    check_error_share(totals, config.max_error_share, "official rankings", config.rankings, reasons)
    if not store.reusable(out):
        store.write_part(out, rows, "0")
        details = EvaluationsDetails(
            resolved=config.public(), sharpness={value: sharpness}, vidb_version=config.rankings, windows=totals.questions,
            errors=totals.errors, tokens_in=0, tokens_out=0,
        )  # fmt: skip
        _commit_scores(out, details, [config.rankings], by_chunk=False)
    return _result(out)


def _check_relevance(config: EvaluateConfig, relevance: Relevance) -> None:
    if config.min_relevance is not None and relevance == "none":
        raise InputError(
            f"min_relevance is {config.min_relevance:g}, but the judge does not say relevance; set judge.relevance to true (a "
            "simulated judge: relevance_accuracy), or leave out min_relevance"
        )


def _evaluations(config: EvaluateConfig, *settings: object) -> Build:
    """The build of the scores; a filter that is off is not in its id."""
    least = [] if config.min_relevance is None else [config.min_relevance]
    return Build(config.root, "evaluations", digest(__version__, *settings, *least))


def _values(config: EvaluateConfig, available: list[ValueId]) -> list[ValueId]:
    return available if config.values == ALL else expand(config.values, available)


def _chunks(responses: Build, values: list[ValueId], size: int, pairs: str) -> list[EvaluationChunk]:
    texts = store.read_table(responses, ["response"])["response"]
    ids = sorted({text_id(text) for text in texts.to_pylist()} - {text_id("")})
    if not ids:
        raise InputError(f"every response in {store.require_manifest(responses).inputs[0].url} is empty")
    of_value = texts_about(responses, values) if pairs == "about" else dict.fromkeys(values, ids)
    return [
        EvaluationChunk(value, n, of[start : start + size])
        for value, of in of_value.items()
        for n, start in enumerate(range(0, len(of), size))
    ]


def _score(
    config: EvaluateConfig, evaluation: Evaluation, responses: Build, chunks: list[EvaluationChunk],
    sharpness: dict[ValueId, float], out: Build,
) -> None:  # fmt: skip
    task = ray.remote(_score_chunk).options(num_cpus=1)
    least = config.min_relevance or 0.0
    tasks = [task.remote(evaluation, responses, chunk, sharpness[chunk.value], least, out) for chunk in chunks]
    ordered_results("score", tasks, Resources(1))
    answered = store.details_of(evaluation.rankings, RankingsDetails)
    version = evaluation.version.build
    details = EvaluationsDetails(
        resolved=config.public(), sharpness=sharpness, vidb_version=version.build_id, audit=answered.audit,
        content_errors={value: evaluation.content_errors[value].model_dump() for value in sharpness},
        windows=answered.windows, errors=answered.errors, tokens_in=answered.tokens_in, tokens_out=answered.tokens_out,
        truncated=answered.truncated,
    )  # fmt: skip
    # With `about` a chunk has other responses for each value.
    _commit_scores(out, details, [responses, version, evaluation.rankings], by_chunk=answered.pairs == "all")


def _score_chunk(
    evaluation: Evaluation, responses: Build, chunk: EvaluationChunk, sharpness: float, min_relevance: float, out: Build
) -> None:
    """Write the evaluations of one chunk.

    A response whose windows all failed has no score, and its counts say so; one of less relevance has the judge's alone.
    """
    config = evaluation.config
    scoring, answers = scoring_after(evaluation, chunk, sharpness, config.m)
    scores = dict(zip(chunk.text_ids, scoring.scores(), strict=True))
    answers_of: dict[str, list[dict]] = {text: [] for text in chunk.text_ids}
    for unit, row in answers:
        answers_of[chunk.text_ids[unit]].append(row)
    # An empty response is kept, once per value, without a score.
    texts = [*chunk.text_ids, *([] if chunk.number else [text_id("")])]
    by_text = _responses_by_text(responses)
    rows = []
    for _, response in sorted((entry for text in texts for entry in by_text.get(text, [])), key=lambda entry: entry[0]):
        text = text_id(response["response"])
        windows = answers_of.get(text, [])
        num_valid = sum(row["order"] is not None for row in windows)
        about = {"theory": chunk.value.theory, "value": chunk.value.node}
        numbers = {"num_windows": num_valid, "num_failed": len(windows) - num_valid}
        source = {"judge": windows[0]["judge"] if windows else None, "vidb_version": evaluation.version.build.build_id}
        score = scores[text]._asdict() if num_valid else {"relevance": scores[text].relevance} if windows else {}
        relevance = score.get("relevance")
        if relevance is not None and relevance < min_relevance:
            score |= dict.fromkeys(("intensity", "low", "high"))
        rows.append(response | about | numbers | source | score | config.model_dump(include={"sampling", "k", "m"}))
    store.write_part(out, pa.Table.from_pylist(rows, SCHEMAS["evaluations"]), "0", chunk.folder)


@functools.lru_cache(maxsize=4)
def _responses_by_text(responses: Build) -> dict[str, list[tuple[int, dict[str, Any]]]]:
    """Position and row of each response by text id; read once per worker process, not once per chunk and value."""
    by_text: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for position, row in enumerate(store.read_table(responses).to_pylist()):
        by_text.setdefault(text_id(row["response"]), []).append((position, row))
    return by_text


def _commit_scores(out: Build, details: EvaluationsDetails, inputs: Sequence[Build | str], by_chunk: bool) -> None:
    """Commit the scores, with the official scores CSV beside them; `by_chunk`: a chunk has the same texts for all values."""
    result_of("scores.csv", ray.remote(_write_csv).options(num_cpus=1).remote(out, by_chunk), Resources(1))
    store.commit(out, details, inputs)


def _write_csv(out: Build, by_chunk: bool) -> None:
    """Write the scores in the order of the chunks, one in memory at a time."""
    groups: dict[str, list[str]] = {}
    values: dict[str, None] = {}
    for path in store.part_paths(out):
        groups.setdefault(path.rpartition("/")[0].rpartition("/")[2] if by_chunk else "", []).append(path)
        values |= dict.fromkeys(store.read_part(out, path, ["value"])["value"].to_pylist()[:1])
    tables = (pa.concat_tables([store.read_part(out, path) for path in groups[chunk]]) for chunk in sorted(groups))
    store.write_bytes(f"{out.url}/scores.csv", scores_csv(tables, list(values)).encode())


def _result(out: Build) -> EvaluationResult:
    manifest = store.require_manifest(out)
    log.info("evaluate: %s scores", f"{manifest.num_rows:,}")
    return EvaluationResult(out, manifest.details(EvaluationsDetails))
