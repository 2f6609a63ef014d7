"""Measure how far a judge is from people: score rated texts against a version and write the judge's validity record."""

import logging
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from valueflow import __version__, store, vidb
from valueflow.distributed.answer import check_answers, check_lost_calls
from valueflow.distributed.audit import AuditJudgeConfig, audited_texts
from valueflow.distributed.evaluation.rounds import Evaluation, EvaluationChunk, rank_chunks, scoring_after
from valueflow.distributed.rank import rankings_details
from valueflow.distributed.texts import ResponseTexts
from valueflow.errors import InputError
from valueflow.evaluation.scoring import EvaluatorConfig, Score, check_anchors
from valueflow.judging.audit.rated_texts import SAMPLE
from valueflow.judging.configs import AnyJudge
from valueflow.judging.fingerprint import fingerprint
from valueflow.ranking.content_error import ContentError
from valueflow.ranking.known_directions import MIN_TEXTS, DirectedTexts, are_directions, from_directions
from valueflow.ranking.rating_regression import MIN_CONFORMAL, RatedTexts, from_ratings, held_out_ratios
from valueflow.records import LIMIT, ValueId, digest
from valueflow.store import Build, ResponsesDetails
from valueflow.vidb.validity import ValidityRecord, load, save

log = logging.getLogger(__name__)
CHUNK = 500  # rated texts of a value planned by one task


def measure_validity(config: AuditJudgeConfig) -> tuple[ValidityRecord, str] | None:
    """Score the rated texts of an audit against a version; return the judge's validity record and its URL.

    Without `config.vidb` there is none. Where only the direction of the texts is known, an earlier record of ratings is kept.

    Raises:
        InputError: a rating is outside [-10, 10], the version lacks the values, or there are too few ratings.
    """
    if not config.vidb:
        return None
    judge, ratings, version = config.judge, config.anchors, vidb.load(config.root, config.vidb)
    rated = audited_texts(config)
    rating_N = rated["rating"].to_numpy()
    if np.abs(rating_N).max(initial=0.0) > LIMIT:
        raise InputError(f"{ratings}: a rating is {np.abs(rating_N).max():g}; a validity record needs ratings in [-10, 10]")
    directed = ratings == SAMPLE or are_directions(rating_N)
    if directed:
        rated = rated.filter(pc.not_equal(rated["rating"], 0.0))
        earlier = load(config.root, fingerprint(judge))
        if earlier and earlier.rank > ContentError(basis="direction").rank:
            log.info("judge %r keeps its validity record of %s: it rests on ratings", judge.name, earlier.created)
            return earlier, store.validity_url(config.root, earlier.fingerprint)
    by_value: dict[ValueId, dict[str, float]] = {}
    for row in rated.to_pylist():
        value = ValueId.of(row["theory"], row["value"])
        if value in version.calibrations:
            by_value.setdefault(value, {})[row["text_id"]] = row["rating"]
    evaluator = EvaluatorConfig()
    for value in by_value:
        check_anchors(version.anchors(value), evaluator)
    evaluation, chunks = _evaluation(version, judge, rated, by_value, evaluator)
    sharpness, answers = rank_chunks(evaluation, judge, chunks, config.exam.max_broken, "validity", "exam.max_broken")
    total = evaluator.m * sum(len(chunk.text_ids) for chunk in chunks)
    answered = check_answers(answers, total, 1.0, "validity")
    if not store.reusable(evaluation.rankings):
        check_lost_calls(answers, "validity")
        settings = {"judge": judge.public(), "fingerprint": fingerprint(judge), "vidb_version": version.build.build_id}
        store.commit(evaluation.rankings, rankings_details(answered, **settings), [version.build], answers.finish())
    texts = {value: _rated(evaluation, chunks, sharpness[value], value, by_value[value]) for value in by_value}
    created = datetime.now(UTC).isoformat(timespec="seconds")
    size = sum(len(of_value.ids) for of_value in texts.values())
    errors = _from_directions(texts, version, created) if directed else _from_ratings(texts, version, created)
    if not errors:
        enough = f"{MIN_TEXTS} for and against a value" if directed else "20, of one value or of three together"
        raise InputError(
            f"{ratings} has {size} rated texts of values of VIDB {version.build.build_id}; a validity record needs at least "
            f"{enough}"
        )
    coverage = None
    if not directed and size >= MIN_CONFORMAL and len(errors) == len(version.calibrations):
        ratios = held_out_ratios(texts)
        coverage = float(np.concatenate([ratios[value] <= errors[value].factor for value in ratios]).mean())
    record = ValidityRecord(
        judge=judge.name, fingerprint=fingerprint(judge), created=created, vidb_version=version.build.build_id, ratings=ratings,
        num_texts=size, num_values=len(texts), held_out_coverage=coverage, content_errors=errors,
    )  # fmt: skip
    return record, save(config.root, record)


def _from_ratings(texts: dict[ValueId, RatedTexts], version: vidb.Vidb, created: str) -> dict[ValueId, ContentError]:
    source = f"content error from {{n}} rated texts (validity record of {created[:10]})"
    return from_ratings(texts, list(version.calibrations), "record", source)


def _from_directions(texts: dict[ValueId, RatedTexts], version: vidb.Vidb, created: str) -> dict[ValueId, ContentError]:
    record = f"(validity record of {created[:10]})"
    source = f"content error from {{n}} texts of known direction {record}; sizes are not calibrated to people"
    sides = {v: DirectedTexts(at.intensity_N, at.low_N, at.high_N, np.sign(at.rating_N)) for v, at in texts.items()}
    return from_directions(sides, {value: version.content_error(value) for value in version.calibrations}, source)


def _evaluation(
    version: vidb.Vidb, judge: AnyJudge, rated: pa.Table, by_value: dict[ValueId, dict[str, float]],
    config: EvaluatorConfig,
) -> tuple[Evaluation, list[EvaluationChunk]]:  # fmt: skip
    """The rated texts as responses, and the chunks in which each is scored on the values that it is rated on."""
    root, texts = version.build.root, sorted(set(rated["text"].to_pylist()))
    blank = [""] * len(texts)
    ids = [digest("rated", text) for text in texts]
    table = {"response_id": ids, "query": blank, "dataset": blank, "response": texts, "about": [None] * len(texts)}
    responses = Build(root, "responses", digest("rated", texts))
    if not store.reusable(responses):
        part = store.write_part(responses, pa.table(table), "0")
        store.commit(responses, ResponsesDetails(path="rated texts", responses=len(texts)), [], [part])
    chunks = []
    for value, ratings in sorted(by_value.items()):
        ids = sorted(ratings)
        chunks += [EvaluationChunk(value, at // CHUNK, ids[at : at + CHUNK]) for at in range(0, len(ids), CHUNK)]
    settings = [version.build.build_id, [[c.value, c.text_ids] for c in chunks], config.model_dump(), fingerprint(judge)]
    rankings = Build(root, "rankings", f"a-{digest(__version__, 'validity', settings)}")
    return Evaluation(version, ResponseTexts(responses, version.build), rankings, config), chunks


def _rated(
    evaluation: Evaluation, chunks: list[EvaluationChunk], sharpness: float, value: ValueId, ratings: dict[str, float]
) -> RatedTexts:
    """The judge's own intensities of a value's rated texts; texts whose windows all failed are left out."""
    ids: list[str] = []
    rows: list[Score] = []
    for chunk in chunks:
        if chunk.value != value:
            continue
        scoring, answers = scoring_after(evaluation, chunk, sharpness, evaluation.config.m)
        valid = {unit for unit, row in answers if row["order"] is not None}
        scores = scoring.posterior.scores()
        ids += [chunk.text_ids[unit] for unit in sorted(valid)]
        rows += [scores[unit] for unit in sorted(valid)]
    intensity_N, low_N, high_N = np.array(rows, float).reshape(-1, 3).T
    return RatedTexts(ids, intensity_N, low_N, high_N, np.array([ratings[i] for i in ids], float))
