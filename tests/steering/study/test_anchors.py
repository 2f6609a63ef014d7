"""Scores under redrawn anchors from the builds that an evaluation leaves."""

import numpy as np
import pyarrow as pa
import pytest
from study_root import save_evaluations

from benchmarks.steering_worlds import CountingJudge, rank_all, ranked_world
from valueflow import store
from valueflow.evaluation.scoring import EvaluatorConfig, Scoring
from valueflow.records import SCHEMAS, text_id
from valueflow.steering.study.anchors import redrawn
from valueflow.steering.study.config import StudyConfig
from valueflow.steering.study.data import Scores, reaches, score_judges
from valueflow.store import Build, EvaluationsDetails, RankingsDetails, VidbDetails

CONFIG = EvaluatorConfig(k=4, m=2, seed=0)
FOLDER = "theory=svt/value=power"
TEXTS = [f"response {i}" for i in range(6)]
IDS = [text_id(text) for text in TEXTS]


def saved(root, standard_error: float | None) -> list[float]:
    """Write a version, rankings and evaluations of one value; return the scores."""
    rng = np.random.default_rng(0)
    world = ranked_world(30, 0.3, rng)
    anchors = world.published._replace(value="power")
    judge = CountingJudge(world, dict(zip(IDS, np.linspace(-2, 2, 6).tolist(), strict=True)), rng)
    answers = rank_all(world._replace(published=anchors), judge, IDS, CONFIG)
    version = Build(str(root), "vidb", "v-1")
    intensity = anchors.calibration.to_intensity(anchors.theta_A).tolist()
    rows = [
        dict.fromkeys(SCHEMAS["vidb"].names) | {
            "theory": "svt", "value": "power", "text_id": i, "text": i, "theta": theta, "standard_error": standard_error,
            "intensity": x, "low": x, "high": x, "final_rating": x, "agreed": True, "source": "s", "license": "l",
        }
        for i, theta, x in zip(anchors.text_ids.tolist(), anchors.theta_A.tolist(), intensity, strict=True)
    ]  # fmt: skip
    store.write_part(version, pa.Table.from_pylist(rows, SCHEMAS["vidb"]), "0", FOLDER)
    store.commit(version, VidbDetails(calibrations={"svt:power": anchors.calibration.model_dump()}, judge_fingerprint="f"))
    rankings = Build(str(root), "rankings", "e-1")
    table = [dict.fromkeys(SCHEMAS["rankings"].names) | row | {"judge": "j", "truncated_ids": []} for _, row in answers]
    store.write_part(rankings, pa.Table.from_pylist(table, SCHEMAS["rankings"]), "0", f"{FOLDER}/chunk=00000")
    details = RankingsDetails(fingerprint="f", vidb_version="v-1", evaluator=CONFIG.model_dump(), windows=len(table))
    store.commit(rankings, details, [version])
    scoring = Scoring(anchors, IDS, 1.0, CONFIG)
    scoring.take(answers)
    totals = scoring.scores()
    scores = [
        {
            "response_id": i, "query": "q", "dataset": "d", "response": text, "theory": "svt", "value": "power",
            **total._asdict(), "num_windows": 2, "num_failed": 0, "judge": "j", "vidb_version": "v-1", "sampling": "adaptive",
            "k": 4, "m": 2,
        }
        for i, text, total in zip(IDS, TEXTS, totals, strict=True)
    ]  # fmt: skip
    evaluations = Build(str(root), "evaluations", "e1")
    store.write_part(evaluations, pa.Table.from_pylist(scores, SCHEMAS["evaluations"]), "0", FOLDER)
    of_judge = EvaluationsDetails(vidb_version="v-1", audit="passed", sharpness={"svt:power": 1.0})
    store.commit(evaluations, of_judge, [version, rankings])
    return [total.intensity for total in totals]


def judged(root) -> Scores:
    return score_judges(StudyConfig(root=str(root), evaluations=["e1"]), ["e1"], "evaluations")[0]


def test_nearly_exact_anchors_give_back_the_evaluation(tmp_path):
    expected = saved(tmp_path, 1e-9)
    scores = judged(tmp_path)
    drawn = redrawn(scores, ["svt:power"], 2, 0, "intensity")["svt:power"]
    index = [scores.text_index[i] for i in IDS]
    assert drawn[:, index] == pytest.approx(np.array([expected, expected]), abs=1e-6)


def test_errors_of_the_version_spread_the_scores_and_equal_seeds_draw_alike(tmp_path):
    saved(tmp_path, 0.5)
    first, second = (redrawn(judged(tmp_path), ["svt:power"], 50, 1, "intensity")["svt:power"] for _ in range(2))
    assert (first == second).all()
    assert first.std(0).min() > 0.1


def test_an_imported_version_and_an_unknown_value_are_left_out(tmp_path):
    saved(tmp_path, None)
    assert redrawn(judged(tmp_path), ["svt:power", "svt:security"], 2, 0, "intensity") == {}


def test_the_reach_is_the_quantiles_of_the_anchors(tmp_path):
    saved(tmp_path, 0.5)

    class Loaded:
        judges = (judged(tmp_path),)

    (reach,) = reaches(Loaded(), StudyConfig(root=str(tmp_path), reach_quantile=0.9)).values()
    rows = store.read_table(Build(str(tmp_path), "vidb", "v-1"), ["intensity"])["intensity"].to_numpy()
    assert reach == pytest.approx(tuple(np.quantile(rows, [0.1, 0.9])))


def test_evaluations_without_saved_rankings_have_nothing_to_redraw(tmp_path):
    saved(tmp_path, 0.5)
    rows = store.read_table(Build(str(tmp_path), "evaluations", "e1")).to_pylist()
    save_evaluations(tmp_path, "e2", rows)
    (scores,) = score_judges(StudyConfig(root=str(tmp_path)), ["e2"], "evaluations")
    assert redrawn(scores, ["svt:power"], 2, 0, "intensity") == {}
