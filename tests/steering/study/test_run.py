"""A study from finished builds: planted effects come back, and the reason for each refusal."""

import numpy as np
import pyarrow as pa
import pytest
from study_root import CARE, PERSONA, POWER, SECURITY, Design, evaluation_rows, save_evaluations, save_generations, study_root

from valueflow import store
from valueflow.errors import InputError
from valueflow.records import SCHEMAS
from valueflow.steering.study.config import StudyConfig
from valueflow.steering.study.data import load
from valueflow.steering.study.run import POOLED, StudyResult, study
from valueflow.store import Build, EvaluationsDetails


def config_of(root, **settings) -> StudyConfig:
    return StudyConfig(root=str(root), **({"draws": 200} | settings))


@pytest.fixture(scope="module")
def result(tmp_path_factory) -> StudyResult:
    root = tmp_path_factory.mktemp("study")
    study_root(root, Design(queries=80, pairs=True, masked=True, controls=("bare", "neutral_persona", "no_refusal")))
    return study(config_of(root))


def rows_of(result: StudyResult, table: str, **where) -> list[dict]:
    return [row for row in result.tables[table] if all(row[name] == x for name, x in where.items())]


def test_planted_types_and_effects_come_back(result):
    assert {row["value"]: row["type"] for row in result.tables["verdicts"]} == {
        POWER: "bidirectional", CARE: "hard", SECURITY: "asymmetric",
    }  # fmt: skip
    (plus,) = rows_of(result, "effects", value=POWER, contrast="effect +2")
    assert plus["low"] < 4.0 < plus["high"]
    (asymmetry,) = rows_of(result, "effects", value=SECURITY, contrast="asymmetry")
    assert asymmetry["low"] > 0
    (verdict,) = rows_of(result, "verdicts", value=POWER)
    assert verdict["levels_told_apart"] == 5
    assert verdict["superiority_plus"] > 0.9 > 0.1 > verdict["superiority_minus"]


def test_the_shift_of_any_persona_is_a_control_and_no_effect(result):
    (control,) = rows_of(result, "controls", value=CARE, condition="neutral_persona")
    assert control["low"] < PERSONA < control["high"]
    (effect,) = rows_of(result, "effects", value=CARE, contrast="effect +2")
    assert effect["low"] < 0 < effect["high"]


def test_the_pair_is_dominated_by_the_value_with_the_larger_weight(result):
    (pair,) = result.tables["composition"]
    assert {pair["a"], pair["b"]} == {POWER, SECURITY}
    assert (pair["name"], pair["dominant"]) == ("dominance", "a")
    assert len(rows_of(result, "sets", size=2)) == 3


def test_side_effects_have_their_planted_share(result):
    (aside,) = rows_of(result, "side_effects", steered=POWER, scored=CARE, level=2)
    assert aside["low"] < 0.25 * 4.0 < aside["high"]
    (goal,) = rows_of(result, "goals", value=POWER, level=2)
    assert 0.1 < goal["orthogonality"] < 0.6


def test_equal_settings_and_builds_give_equal_studies(result):
    again = study(result.config)
    assert again.study_id == result.study_id
    assert again.tables == result.tables


def test_a_single_order_of_a_pair_names_no_composition(tmp_path):
    rows = [row for row in save_generations(tmp_path / "a", Design(pairs=True)) if row["values"] != [SECURITY, POWER]]
    root = tmp_path / "b"
    build = Build(str(root), "generations", "g")
    store.write_part(build, pa.Table.from_pylist(rows, SCHEMAS["generations"]), "0")
    store.commit(build, store.GenerationsDetails(plan="p", generations=len(rows)))
    save_evaluations(root, "e1", evaluation_rows(rows, (POWER, SECURITY, CARE), "j", np.random.default_rng(0)))
    (pair,) = study(config_of(root)).tables["composition"]
    assert (pair["name"], pair["dominant"]) == ("one order only", "undetermined")


def test_a_pair_that_is_not_scored_on_both_values_says_so(tmp_path):
    rows = save_generations(tmp_path, Design(values=(POWER, SECURITY), pairs=True))
    scores = evaluation_rows(rows, (POWER, SECURITY), "j", np.random.default_rng(0))
    of = {row["response"]: row["values"] for row in rows}
    own = [s for s in scores if not of[s["response"]] or f"{s['theory']}:{s['value']}" in of[s["response"]]]
    save_evaluations(tmp_path, "e1", own)
    (pair,) = study(config_of(tmp_path)).tables["composition"]
    assert pair["name"] == "not scored"


def test_refusals_that_decide_the_verdict_are_named(tmp_path):
    study_root(tmp_path, Design(refusals=0.4))
    tables = study(config_of(tmp_path)).tables
    (verdict,) = [row for row in tables["verdicts"] if row["value"] == POWER]
    assert verdict["refusals_minus"] == "depends on refusals"
    assert verdict["refusals_plus"] == "moved"
    refused = [row for row in tables["outcomes"] if row["level"] == "-2"]
    assert refused[0]["refusal"] == pytest.approx(0.4)
    assert "no_answer" not in refused[0]
    detector = {"sensitivity": [80, 100], "specificity": [95, 100]}
    corrected = study(config_of(tmp_path, detector=detector)).tables["outcomes"]
    (row,) = [row for row in corrected if row["level"] == "-2"]
    assert row["no_answer"] == pytest.approx((0.4 + 0.95 - 1) / (0.8 + 0.95 - 1))
    assert row["no_answer_low"] < 0.4 < row["no_answer_high"]


def test_a_detector_is_counts_of_labelled_responses(tmp_path):
    with pytest.raises(ValueError, match="are no counts"):
        config_of(tmp_path, detector={"sensitivity": [9, 8], "specificity": [1, 2]})


def test_judges_are_reported_beside_each_other_and_pooled(tmp_path):
    rows = study_root(tmp_path)
    other = evaluation_rows(rows, (POWER, SECURITY, CARE), "k", np.random.default_rng(9), bias=0.5)
    save_evaluations(tmp_path, "e2", other)
    tables = study(config_of(tmp_path, evaluations=["e1", "e2"])).tables
    assert [row["judge"] for row in tables["models"]] == [POOLED, "j", "k"]
    assert all(row["agree"] for row in tables["judges"])
    defaults = {
        row["judge"]: row["estimate"] for row in tables["effects"] if row["value"] == CARE and row["contrast"] == "default"
    }
    assert defaults[POOLED] == pytest.approx((defaults["j"] + defaults["k"]) / 2)


def test_masked_texts_are_scored_instead_of_the_replies(tmp_path):
    rows = save_generations(tmp_path, Design(values=(POWER,), masked=True))
    scores = evaluation_rows(rows, (POWER,), "j", np.random.default_rng(0))
    masked = [
        score | {"response": f"Masked {row['response_text_id']}", "response_id": f"m{score['response_id']}",
                 "intensity": 2.0, "low": 1.0, "high": 3.0}
        for row, score in zip(rows, scores, strict=True)
    ]  # fmt: skip
    save_evaluations(tmp_path, "e1", scores + masked)
    (plus,) = [row for row in study(config_of(tmp_path)).tables["echo"] if row["level"] == 2]
    assert plus["as_scored"] == pytest.approx(4.0, abs=1.0)
    assert abs(plus["masked"]) < 1.0  # every masked text has one score, near the default
    assert plus["change_high"] < 0


def test_a_requested_intensity_gives_a_dose_curve_and_a_target(tmp_path):
    study_root(tmp_path, Design(requested=True))
    tables = study(config_of(tmp_path)).tables
    of_power = [row for row in tables["doses"] if row["value"] == POWER]
    assert [row["requested"] for row in of_power] == [-8.0, -4.0, 4.0, 8.0]
    assert of_power[0]["slope_low"] < 0.5 < of_power[0]["slope_high"]  # 4 points for a request of 8
    (goal,) = [row for row in tables["goals"] if row["value"] == POWER and row["level"] == 2]
    assert goal["miscalibration"] == pytest.approx((8 - PERSONA - 4) / (8 - PERSONA), abs=0.15)


def test_a_cheap_judge_corrects_side_effects_that_few_responses_show(tmp_path):
    rows = save_generations(tmp_path, Design(queries=100))
    full = evaluation_rows(rows, (POWER, SECURITY, CARE), "j", np.random.default_rng(0))
    needed = [
        r for row, r in zip([row for row in rows for _ in range(3)], full, strict=True)
        if not row["values"] or f"{r['theory']}:{r['value']}" in row["values"] or int(row["query_id"]) % 4 == 0
    ]  # fmt: skip
    save_evaluations(tmp_path, "e1", needed)
    save_evaluations(tmp_path, "cheap", evaluation_rows(rows, (POWER, SECURITY, CARE), "c", np.random.default_rng(0), bias=2.0))
    tables = study(config_of(tmp_path, evaluations=["e1"], cheap_evaluations=["cheap"])).tables
    (aside,) = [r for r in tables["side_effects"] if (r["steered"], r["scored"], r["level"]) == (POWER, CARE, 2)]
    assert aside["judged"] == 25
    assert aside["cheap_weight"] > 0.3
    assert abs(aside["estimate"] - 1.0) < 0.8 * (aside["high"] - aside["low"])  # more than 3 standard errors
    (alone,) = [
        r for r in study(config_of(tmp_path, evaluations=["e1"])).tables["side_effects"]
        if (r["steered"], r["scored"], r["level"]) == (POWER, CARE, 2)
    ]  # fmt: skip
    assert aside["high"] - aside["low"] < alone["high"] - alone["low"]


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"generations": ["g9"]}, "g9"),
        ({"evaluations": ["e9"]}, "e9"),
        ({"evaluations": ["e1", "other"]}, "VIDB versions"),
        ({"evaluations": ["failed"]}, "jobs.audit_judge"),
        ({"evaluations": ["few"]}, "max_missing"),
        ({"evaluations": ["power"]}, CARE),
    ],
)
def test_bad_input_is_refused_in_one_sentence(tmp_path, settings, fault):
    rows = study_root(tmp_path)
    scores = evaluation_rows(rows, (POWER, SECURITY, CARE), "j", np.random.default_rng(0))
    save_evaluations(tmp_path, "other", [row | {"vidb_version": "v-2"} for row in scores], vidb_version="v-2")
    save_evaluations(tmp_path, "failed", scores, audit="failed its audit")
    save_evaluations(tmp_path, "few", [row for n, row in enumerate(scores) if n % 2])
    save_evaluations(tmp_path, "power", [row for row in scores if row["value"] == "power"])
    with pytest.raises(InputError, match=fault) as error:
        study(config_of(tmp_path, **settings))
    assert "\n" not in str(error.value)


def test_a_judge_that_failed_its_audit_is_studied_only_on_demand(tmp_path):
    rows = save_generations(tmp_path, Design(values=(POWER,)))
    save_evaluations(tmp_path, "e1", evaluation_rows(rows, (POWER,), "j", np.random.default_rng(0)), audit="failed its audit")
    assert study(config_of(tmp_path, audit="ignore")).facts["judges"] == ["j (failed its audit)"]


def test_without_generations_or_a_neutral_persona_there_is_no_study(tmp_path):
    with pytest.raises(InputError, match=r"jobs\.steer"):
        load(config_of(tmp_path))
    study_root(tmp_path, Design(controls=("bare",)))
    with pytest.raises(InputError, match="neutral_persona"):
        load(config_of(tmp_path))


def test_latest_generations_are_the_models_of_one_plan(tmp_path):
    study_root(tmp_path, Design(models=("small", "large"), values=(POWER,)))
    loaded = load(config_of(tmp_path))
    assert [arm[0] for arm in loaded.arms] == ["large", "small"]
    assert store.details_of(Build(str(tmp_path), "evaluations", "e1"), EvaluationsDetails).vidb_version == "v-1"
