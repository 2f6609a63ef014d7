"""The job that steers: rows once, resume with nothing asked twice, budgets, several models, and what the evaluation reads."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from configs import SIMULATED, job_config, job_yaml
from fakes.sampling_server import start
from kills import rewind, run_and_kill
from roots import with_version_of

from jobs import evaluate, steer
from valueflow import store, vidb
from valueflow.distributed.steering.generate import steer as steer_models
from valueflow.distributed.steering.generate_estimate import dry_run
from valueflow.errors import BudgetSpent, InputError, TooManyErrors
from valueflow.records import text_id
from valueflow.steering.generation import finished_generations
from valueflow.steering.study.config import StudyConfig
from valueflow.steering.study.run import study
from valueflow.store import Build, GenerationsDetails
from valueflow.theories import operational

GENERATOR = {"kind": "simulated", "name": "sim", "batch_size": 20}
VALUES = ["svt:benevolence", "duty:fidelity"]
ROWS = 20 * (2 * 4 + 3)


def config(root: Path, *overrides: str, **settings: object):
    conditions = {"values": VALUES, "controls": ["bare", "neutral_persona", "irrelevant_persona"]}
    return job_config(steer, root, *overrides, **{"models": [GENERATOR], "conditions": conditions} | settings)


def generations(build: Build) -> pa.Table:
    return store.read_table(build).sort_by("generation_id")


def endpoint(url: str, **settings: object) -> dict:
    return {"kind": "openai", "name": "stub", "model": "m", "url": url, "key_env": "", "batch_size": 20, **settings}


def test_every_row_of_the_plan_is_answered_once(cluster, tmp_path):
    result = steer.main(config(tmp_path, models=[GENERATOR, GENERATOR | {"name": "other", "seed": 1}]))
    assert result is not None
    tables = {name: generations(build) for name, build in result.builds.items()}
    assert [table.num_rows for table in tables.values()] == [ROWS, ROWS]
    assert len({i for table in tables.values() for i in table["generation_id"].to_pylist()}) == 2 * ROWS
    rows = tables["sim"].to_pylist()
    cells = Counter((tuple(r["values"]), tuple(r["levels"]), r["condition"]) for r in rows)
    assert set(cells.values()) == {20}
    assert len(cells) == 11
    assert all(r["error"] is None and r["outcome"] in ("answer", "refusal") for r in rows)
    details = store.details_of(result.builds["sim"], GenerationsDetails)
    assert details.sampling["top_p"] == 1.0
    assert (details.generations, details.errors) == (ROWS, 0)
    assert sum(details.outcomes.values()) == ROWS
    assert set(details.prompts) == {
        "control/bare/user", "control/neutral_persona/user", "control/irrelevant_persona/user", "intensity_anchor/value/user",
    }  # fmt: skip
    assert set(finished_generations(str(tmp_path))) == set(result.builds.values())


def test_a_finished_job_is_not_run_again_and_a_model_can_be_added(cluster, tmp_path):
    first = steer.main(config(tmp_path))
    manifest = Path(first.builds["sim"].manifest_url)
    before = manifest.stat().st_mtime_ns
    more = steer.main(config(tmp_path, models=[GENERATOR, GENERATOR | {"name": "other", "seed": 1}]))
    assert more.builds["sim"] == first.builds["sim"]
    assert manifest.stat().st_mtime_ns == before


def test_a_job_that_was_killed_in_the_middle_ends_with_the_same_rows(cluster, tmp_path, small_parts):
    settings = {"models": [GENERATOR | {"refusals": {-2: 0.2}}]}
    [build] = steer_models(config(tmp_path, **settings)).builds.values()
    whole = generations(build)
    for parts in (7, 3):
        rewind(build, parts)
        assert not store.exists(build.manifest_url)
        kept = {p: Path(build.url, p).read_bytes() for p in store.part_paths(build)[: parts - 1]}
        assert steer_models(config(tmp_path, **settings)).builds == {"sim": build}
        assert generations(build).equals(whole)
        assert sum(Path(build.url, path).read_bytes() == content for path, content in kept.items()) >= parts - 2


def test_each_call_of_an_endpoint_is_paid_once_and_sends_all_fields(cluster, tmp_path):
    with start() as stub:
        settings = {"models": [endpoint(stub.url)], "replicates": 2}
        [build] = steer_models(config(tmp_path, **settings)).builds.values()
        calls = len(stub.bodies)
        assert calls == 2 * ROWS + 1, "and one to learn which fields the server takes"
        for path in Path(tmp_path, "generations").rglob("*.parquet"):
            path.unlink()
        Path(build.manifest_url).unlink()
        whole = steer_models(config(tmp_path, **settings)).builds["stub"]
        assert len(stub.bodies) == calls, "all replies come from the call cache"
    assert {tuple(sorted(s.items())) for s in stub.sampled} == {
        (("min_p", 0.0), ("repetition_penalty", 1.0), ("temperature", 1.0), ("top_k", 0), ("top_p", 1.0))
    }
    assert len({body["seed"] for body in stub.bodies}) == calls
    rows = generations(whole).to_pylist()
    assert len({r["prompt_hash"] for r in rows}) == len(rows)
    assert {r["replicate"] for r in rows} == {0, 1}


def test_fields_that_a_server_refuses_are_in_the_manifest(cluster, tmp_path):
    with start(refuses=("top_k", "min_p", "repetition_penalty")) as stub:
        result = steer_models(config(tmp_path, models=[endpoint(stub.url)]))
    details = store.details_of(result.builds["stub"], GenerationsDetails)
    assert set(details.refused) == {"top_k", "min_p", "repetition_penalty"}
    assert details.sampling["top_k"] == 0


def test_a_budget_that_is_spent_in_the_middle_loses_nothing(cluster, tmp_path):
    with start() as stub:
        with pytest.raises(BudgetSpent, match="no question is put twice"):
            steer_models(config(tmp_path, models=[endpoint(stub.url, budget={"tokens": 9000})]))
        paid = len(stub.sampled)
        assert 10 < paid < ROWS
        [build] = steer_models(config(tmp_path, models=[endpoint(stub.url, budget={"tokens": 900_000})])).builds.values()
        assert len(stub.sampled) == ROWS + 1
    assert generations(build).num_rows == ROWS


def test_a_judge_votes_on_every_outcome_and_no_vote_is_paid_twice(cluster, tmp_path):
    with start() as stub:
        judge = endpoint(stub.url, name="judge", structured="choice")
        settings = {"outcome_judge": judge, "models": [GENERATOR | {"broken_share": 0.1}]}
        [build] = steer_models(config(tmp_path, **settings)).builds.values()
        paid = len(stub.bodies)
        Path(build.manifest_url).unlink()
        assert steer_models(config(tmp_path, **settings)).builds["sim"] == build
        assert len(stub.bodies) == paid
    rows = generations(build).to_pylist()
    assert {r["outcome_by"] for r in rows} == {"judge"}
    assert len({r["outcome"] for r in rows}) == 4, "the stub votes at random"
    [votes] = [Build(str(tmp_path), "votes", i) for i in store.finished(str(tmp_path), "votes")]
    table = store.read_table(votes)
    choice = dict(zip(table["ballot_id"].to_pylist(), table["choice"].to_pylist(), strict=True))
    assert {r["generation_id"]: r["outcome"] for r in rows} == choice
    assert store.details_of(build, GenerationsDetails).outcomes == dict(sorted(Counter(choice.values()).items()))


def test_a_model_that_fails_too_often_ends_the_job_and_keeps_its_replies(cluster, tmp_path):
    with pytest.raises(TooManyErrors, match="simulated failure"):
        steer_models(config(tmp_path, models=[GENERATOR | {"failed_share": 0.5}]))
    [folder] = Path(tmp_path, "generations").iterdir()
    assert store.part_paths(Build(str(tmp_path), "generations", folder.name))


def test_replies_go_to_the_evaluation_as_they_are(built, tmp_path):
    root = with_version_of(built.root, tmp_path)
    result = steer.main(config(root, models=[GENERATOR | {"refusals": {-2: 0.3}}]))
    rows = generations(result.builds["sim"]).to_pylist()
    exported = pq.read_table(next(Path(root).glob("exports/*/responses-*.parquet"))).to_pylist()
    plain = [r for r in exported if not r["dataset"].endswith(" (masked)")]
    assert {text_id(r["response"]) for r in plain} == {r["response_text_id"] for r in rows}
    assert len(plain) == len({r["response_text_id"] for r in rows})
    about: dict[str, set[str]] = {}
    for row in rows:
        about.setdefault(row["response_text_id"], set()).update(row["values"] or VALUES)
    assert {text_id(r["response"]): set(r["about"].split("|")) for r in plain} == about
    of_id = {r["generation_id"]: r for r in rows}
    for row in exported:
        side = of_id[row["generation_id"]]["levels"]
        assert row["stance"] == "" or (float(row["stance"]) > 0) == (side[0] > 0)
    scored = evaluate.main(job_config(
        evaluate, root, judge=SIMULATED, values=VALUES, pairs="about", responses=result.exports["sim"],
        evaluator={"k": 6, "m": 3, "sampling": "adaptive", "seed": 0},
    ))  # fmt: skip
    scores = store.read_table(scored.build)
    pairs = {(text_id(r["response"]), f"{r['theory']}:{r['value']}") for r in scores.to_pylist()}
    masked = {(text_id(r["response"]), v) for r in exported for v in r["about"].split("|")}
    assert pairs == masked
    found = study(StudyConfig(root=str(root), anchor_draws=2, draws=100))
    assert {row["value"] for row in found.tables["verdicts"]} == set(VALUES)
    assert found.tables["echo"], "the study reads the masked replies where the job wrote them"
    rankings = next(i.build_id for i in store.require_manifest(scored.build).inputs if i.table == "rankings")
    again = evaluate.main(job_config(
        evaluate, root, judge=None, responses="", values=VALUES, rankings=rankings,
        evaluator={"k": 6, "m": 3, "sampling": "adaptive", "seed": 0},
    ))  # fmt: skip
    assert {(text_id(r["response"]), f"{r['theory']}:{r['value']}") for r in store.read_table(again.build).to_pylist()} == pairs


def test_values_of_a_pair_are_scored_on_both_axes_also_where_one_is_alone(cluster, tmp_path):
    conditions = {"regimes": ["composition"], "values": ["svt:face"], "pairs": [VALUES], "controls": ["neutral_persona"]}
    steer_models(config(tmp_path, conditions=conditions))
    [file] = Path(tmp_path).glob("exports/*/responses-*.parquet")
    [build] = finished_generations(str(tmp_path))
    of_id = {row["generation_id"]: row for row in generations(build).to_pylist()}
    assert len(of_id) == 20 * (4 + 8 + 1)
    for row in pq.read_table(file).to_pylist():
        regime = of_id[row["generation_id"]]["regime"]
        assert set(VALUES) == set(row["about"].split("|")), regime
    assert {len(row["values"]) for row in of_id.values() if row["condition"] == "value"} == {1}


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"conditions": {"values": ["svt:nothing"]}}, "nothing"),
        ({"conditions": {"levels": [3]}}, "unknown level 3"),
        ({"conditions": {"values": ["svt:power"], "variants": [9]}}, "no wording variant 9"),
        ({"conditions": {"regimes": ["user_texts"], "values": ["right:civil-political-rights"]}}, "right"),
        ({"models": [GENERATOR, GENERATOR]}, "names must differ"),
        ({"user_turn_only": ["nobody"]}, "name of no model"),
        ({"models": [{"kind": "openai", "name": "e", "model": "m", "temperature": 0.7}]}, "sampling.temperature"),
        ({"queries": ["none.csv"]}, "does not exist"),
    ],
)
def test_bad_settings_are_refused_in_one_sentence_before_anything_is_asked(built, tmp_path, settings, reason):
    root = with_version_of(built.root, tmp_path)
    with pytest.raises(InputError, match=reason) as refused:
        steer_models(config(root, **settings))
    assert "\n" not in str(refused.value)
    assert not Path(root, "generations").exists()


def test_texts_of_a_version_are_shown_and_its_values_must_be_there(built, tmp_path):
    root = with_version_of(built.root, tmp_path)
    exemplars = {"weak": (0.5, 4.0), "strong": (4.0, 10.01), "count": 2}
    conditions = {
        "regimes": ["user_texts"],
        "values": ["svt:benevolence"],
        "levels": [-1, 1],
        "controls": [],
        "exemplars": exemplars,
    }
    [build] = steer_models(config(root, conditions=conditions)).builds.values()
    rows = generations(build).to_pylist()
    assert {len(r["exemplar_ids"]) for r in rows} == {2}
    assert all((r["requested"] > 0) == (r["levels"] == [1]) for r in rows)
    assert store.require_manifest(build).inputs[-1].table == "vidb"
    missing = next(value for value in operational() if value not in vidb.load(str(root)).calibrations)
    with pytest.raises(InputError, match=f"has no '{missing}'"):
        steer_models(config(root, conditions=conditions | {"values": [str(missing)]}))


def test_a_dry_run_counts_the_rows_and_calls_nothing(tmp_path):
    settings = config(tmp_path, models=[GENERATOR, GENERATOR | {"name": "b"}], tokens_per_second={"sim": 100.0}, dry_run=True)
    timed, untimed = dry_run(settings)
    assert (timed.cost.calls, untimed.cost.calls) == (ROWS, ROWS)
    assert timed.cost.tokens_out == ROWS * 150
    assert timed.cost.seconds == pytest.approx(ROWS * 150 / 100)
    assert untimed.gpu_hours is None
    assert steer.main(settings) is None
    assert not Path(tmp_path, "generations").exists()


def test_the_study_of_the_paper_is_counted_without_a_version(data, tmp_path, monkeypatch, capsys):
    steer.main(job_config(steer, tmp_path, "dry_run=true", name="paper"))
    lines = capsys.readouterr().out
    assert "1,300,000" in lines
    assert "GPU-hours" in lines
    assert "USD" in lines


@pytest.mark.llm
@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.timeout(1500)  # three engines
def test_smollm2_in_a_real_engine_killed_twice_loses_nothing(tmp_path):
    pytest.importorskip("vllm")
    config = str(job_yaml("steer", tmp_path, "tiny-llm", root=str(tmp_path), max_queries=2))  # of each of three sources
    command = [sys.executable, "-m", "jobs.steer", config]
    before: dict[str, dict] = {}
    for parts in (2, 4):
        run_and_kill(command, lambda parts=parts: len(list(tmp_path.rglob("part-*.parquet"))) >= parts, 600)
        rows = [row for path in tmp_path.rglob("part-*.parquet") for row in pq.read_table(path, partitioning=None).to_pylist()]
        assert all(row == before[row["generation_id"]] for row in rows if row["generation_id"] in before)
        before |= {row["generation_id"]: row for row in rows}
    subprocess.run(command, check=True)
    table = generations(finished_generations(str(tmp_path))[0])
    assert table.num_rows == 6 * (2 * 4 + 1)
    final = {row["generation_id"]: row for row in table.to_pylist()}
    assert before
    assert {i: final[i] for i in before} == before, "what was committed before a kill is there, bit for bit"
