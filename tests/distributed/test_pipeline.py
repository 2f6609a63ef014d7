"""Ingest, build, evaluate on a real local cluster; resume, refusal, and equality of sharded and in-process fits."""

import asyncio
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import ray
from configs import SIMULATED, job_config
from kills import run_and_kill
from roots import with_texts_of
from scipy.stats import spearmanr

from jobs import build_vidb, evaluate, import_vidb
from valueflow import store, vidb
from valueflow.api import ScoreRequest
from valueflow.config import load
from valueflow.distributed.build.aggregate import (
    AggregateConfig,
    Part,
    RankingShard,
    ShardedLikelihood,
    Source,
    fit_value,
    split,
)
from valueflow.distributed.evaluation.run import dry_run
from valueflow.errors import InputError
from valueflow.judging.simulated import true_theta
from valueflow.ranking.likelihood import Layout
from valueflow.ranking.plackett_luce import fit
from valueflow.records import text_id
from valueflow.service.local import local_service
from valueflow.store import Build, RankingsDetails

pytestmark = pytest.mark.ray
SCORED = ["svt:benevolence", "duty:fidelity"]
WINDOWS = {"mode": "balanced", "k": 2, "m": 24, "seed": 0}
ONE_VALUE = "candidates.values=[svt:benevolence]"


def build_config(root: Path, *overrides: str, judge: dict | None = None):
    return job_config(build_vidb, root, *overrides, judge=judge or SIMULATED, windows=WINDOWS)


def test_the_build_recovers_what_the_simulated_judge_believes(built):
    _, at = built
    for file in store.require_manifest(at.utilities).files:
        rows = store.read_part(at.utilities, file.path)
        truth = [true_theta(v, i, 3.0) for v, i in zip(rows["value"].to_pylist(), rows["text_id"].to_pylist(), strict=True)]
        assert spearmanr(rows["theta"], truth).statistic > 0.95
        inside = np.abs(rows["theta"].to_numpy() - (truth - np.mean(truth))) < 1.96 * rows["standard_error"].to_numpy()
        assert inside.mean() > 0.85


def test_every_window_is_answered_once_and_every_file_is_as_the_manifest_says(built):
    _, at = built
    asked = store.read_table(at.windows, ["window_id"])["window_id"].to_pylist()
    answered = store.read_table(at.rankings[0], ["window_id"])["window_id"].to_pylist()
    assert Counter(answered) == Counter(asked)
    for build in (*at[:3], *at.rankings, at.utilities, at.vidb):
        store.verify(build)


def test_a_finished_build_asks_nothing_and_writes_nothing_again(built):
    root, at = built
    builds = (*at.rankings, at.utilities, at.vidb)
    before = {path: path.stat().st_mtime_ns for build in builds for path in Path(build.url).rglob("*.parquet")}
    # More actors than the cluster has room for: asking the judge anything would be refused.
    assert build_vidb.main(build_config(root, "judge.num_actors=99")) == at
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize(
    ("override", "unchanged"),
    [
        ("windows.seed=1", "candidates"),
        ("judge={kind: simulated, name: sim, seed: 9}", "windows"),
        ("calibrate.extreme_quantile=0.9", "utilities"),
    ],
)
def test_a_changed_seed_judge_or_calibration_is_another_build(built, override, unchanged):
    from valueflow.distributed.build.pipeline import stages

    root, at = built
    changed = stages(build_config(root, override))
    assert getattr(changed, unchanged) == getattr(at, unchanged)
    assert changed.vidb != at.vidb


def test_the_published_version_loads_and_is_calibrated_with_a_real_zero(built):
    root, at = built
    version = vidb.load(str(root))
    assert version.build.build_id == at.vidb.build_id
    for value in version.calibrations:
        folder = store.value_folder(value)
        rows = store.read_table(at.vidb, folder=folder)
        neutral = store.read_table(at.candidates, ["neutral"], folder)["neutral"].to_numpy()
        assert abs(np.median(rows["intensity"].to_numpy()[neutral])) < 1e-9
        assert np.all(rows["low"].to_numpy() <= rows["intensity"].to_numpy())
        assert Path(f"{at.vidb.url}/csv/{value.split(':')[1]}_{value.split(':')[0]}.csv").exists()
    assert Path(f"{at.vidb.url}/README.md").exists()
    assert list(Path(f"{root}/reports").glob("v-*.html"))


def test_evaluation_scores_every_response_and_again_from_its_saved_rankings(built, evaluated, tmp_path):
    root, _ = built
    rows = store.read_table(evaluated.build).to_pandas()
    assert len(rows) == 2 * 48
    assert (rows.num_windows == 3).all()
    assert (rows.num_failed == 0).all()
    assert ((rows.low <= rows.intensity) & (rows.intensity <= rows.high)).all()
    # The judge's own belief about the response is what the score must find.
    calibration = vidb.load(str(root)).calibrations["svt:benevolence"]
    mine = rows[rows.value == "benevolence"]
    truth = calibration.to_intensity(np.array([true_theta("benevolence", text_id(t), 3.0) for t in mine.response]))
    assert spearmanr(truth, mine.intensity).statistic > 0.85
    rankings = next(Path(f"{root}/rankings").glob("e-*")).name
    saved = tmp_path / "saved.yaml"
    saved.write_text(f"{{root: {root}, rankings: {rankings}, evaluator: {{seed: 3}}}}")
    again = store.read_table(evaluate.main(load(evaluate.SCHEMA, str(saved), [])).build).to_pandas()
    with pytest.raises(InputError, match="duty:justice"):
        evaluate.main(load(evaluate.SCHEMA, str(saved), ["values=[duty:justice]"]))
    pick = ["response_id", "value", "intensity", "low", "high"]
    both = rows[pick].merge(again[pick], on=["response_id", "value"])
    assert len(both) == len(rows)
    np.testing.assert_array_equal(both.intensity_x, both.intensity_y)
    assert Path(f"{evaluated.build.url}/scores.csv").read_text().startswith("query,dataset,response,")


def test_relevance_is_asked_beside_the_windows_and_filters_on_request(built, cluster):
    root, _ = built
    judge = SIMULATED | {"concern_share": 0.5, "relevance_accuracy": 0.95}
    settings = {"judge": judge, "values": ["svt:benevolence"]}
    with pytest.raises(InputError, match="relevance_accuracy"):
        evaluate.main(job_config(evaluate, root, "min_relevance=0.5", judge=SIMULATED, values=["svt:benevolence"]))
    dry = dry_run(job_config(evaluate, root, **settings))
    assert [estimate.calls for estimate in dry] == [3 * 48, 48]
    everything, filtered = (
        store.read_table(evaluate.main(job_config(evaluate, root, *overrides, **settings)).build).to_pandas()
        for overrides in ([], ["min_relevance=0.5"])
    )
    about = np.array([true_theta("benevolence", text_id(text), 3.0, 0.5) != 0 for text in everything.response])
    assert (everything.relevance.round(2).isin([0.05, 0.95])).all()
    assert ((everything.relevance > 0.5) == about).mean() > 0.85
    assert (everything.num_windows == 3).all()
    low = everything.relevance < 0.5
    assert ((everything.low <= 0) & (everything.high >= 0))[low].all()
    np.testing.assert_array_equal(filtered.intensity.isna(), low)
    np.testing.assert_array_equal(filtered.judge_intensity, everything.judge_intensity)
    np.testing.assert_array_equal(filtered.intensity[~low], everything.intensity[~low])


def test_a_service_gives_the_very_numbers_of_the_batch_job(built, evaluated):
    root, _ = built
    rows = store.read_table(evaluated.build).to_pylist()
    texts = list(dict.fromkeys(row["response"] for row in rows))
    asked = ScoreRequest(texts=texts, values=["svt:benevolence", "duty:fidelity"], seed=3)
    served = asyncio.run(local_service(str(root)).score(asked, "r"))
    assert served.judge == "sim"
    mine = {(texts[s.index], s.value): (s.intensity, s.low, s.high, s.num_windows) for s in served.scores}
    for row in rows:
        expected = (row["intensity"], row["low"], row["high"], row["num_windows"])
        assert mine[row["response"], f"{row['theory']}:{row['value']}"] == expected


def test_broken_answers_are_rows_and_too_many_stop_the_job(root):
    few = build_vidb.main(build_config(root, ONE_VALUE, "judge.broken_share=0.02", "publish=false"))
    details = store.details_of(few.rankings[0], store.RankingsDetails)
    assert 0 < details.errors < 0.05 * details.windows
    with pytest.raises(InputError, match=r"have no valid answer, max_error_share is 5.0%.*not an order of letters"):
        build_vidb.main(build_config(root, ONE_VALUE, "judge.broken_share=0.3"))


def test_a_pool_smaller_than_k_is_a_sentence(root):
    with pytest.raises(InputError, match=r"k \(10\) is larger than the pool \(3 texts\)"):
        build_vidb.main(
            build_config(root, "windows.k=10", "windows.m=10", "candidates.max_texts=2", "candidates.num_neutral=1")
        )


def test_a_model_that_is_not_there_is_a_sentence(root):
    judge = {"kind": "encoder", "model": "package://no_such_package/model"}
    with pytest.raises(InputError, match="'no_such_package' is not installed"):
        build_vidb.main(build_config(root, ONE_VALUE, judge=judge))


@pytest.mark.slow
def test_sharded_fit_equals_the_fit_in_one_process(built, tmp_path):
    _, at = built
    folder = store.value_folder("svt:benevolence")
    answers = store.read_table(at.rankings[0], folder=folder)
    source = Source(Build(str(tmp_path), "rankings", "parts"))
    files = [store.write_part(source.rankings, answers.slice(start, 200), f"{start}", folder) for start in range(0, 648, 200)]
    settings = store.details_of(at.rankings[0], RankingsDetails)
    store.commit(source.rankings, settings.model_copy(update={"windows": 648}), files=files)
    parts = [Part(source, f.path, f.rows) for f in files]
    ids = sorted(store.read_table(at.candidates, ["text_id"], folder)["text_id"].to_pylist())
    layout = Layout(len(ids))
    alone = fit(RankingShard(parts, ids, layout).likelihood)
    for size in (1, 400):
        shards = split(parts, size)
        actors = [ray.remote(RankingShard).options(num_cpus=0.1).remote(shard, ids, layout) for shard in shards]
        together = fit(ShardedLikelihood(layout, actors))
        np.testing.assert_allclose(together.theta_N, alone.theta_N, atol=1e-9)
        np.testing.assert_allclose(together.standard_error_N, alone.standard_error_N, atol=1e-9)
        np.testing.assert_array_equal(together.counts.component_N, alone.counts.component_N)
    shards = split(parts, 250)
    fitted = fit_value(at.candidates, folder, shards, 2, AggregateConfig(), Build("/tmp", "utilities", "t"))
    assert fitted.num_shards == len(shards)


@pytest.mark.chaos
def test_killed_half_way_the_same_command_ends_with_the_same_version(built, tmp_path):
    """The one kill -9 of `make test`; the stages that share its mechanism start from half-written builds."""
    root, at = built
    with_texts_of(root, tmp_path)
    build_config(tmp_path, judge=SIMULATED | {"seconds_per_batch": 0.7})
    rankings = Path(at.rankings[0].url.replace(str(root), str(tmp_path)))
    command = [sys.executable, "-m", "jobs.build_vidb", str(tmp_path / "build_vidb.yaml")]
    run_and_kill(command, lambda: len(list(rankings.rglob("*.parquet"))) >= 4, 240)
    assert not (rankings / "_manifest.json").exists()
    # A part that a crash left unreadable is done again.
    next(iter(rankings.rglob("*.parquet"))).write_bytes(b"PAR1 cut")
    done = build_vidb.main(build_config(tmp_path))
    assert done.vidb.build_id == at.vidb.build_id
    assert Counter(store.read_table(done.rankings[0], ["window_id"])["window_id"].to_pylist()) == Counter(
        store.read_table(at.rankings[0], ["window_id"])["window_id"].to_pylist()
    )
    for value in vidb.load(str(root)).calibrations:
        folder = store.value_folder(value)
        assert store.read_table(done.vidb, folder=folder).equals(store.read_table(at.vidb, folder=folder))


def test_official_rankings_need_no_judge(cluster, tmp_path):
    path = tmp_path / "rankings.csv"
    lines = ["row_idx,target_text,db_text_1,db_score_1,db_text_2,db_score_2,ranking"]
    lines += [f'{i},good,a,-5,b,5,"[1, 3, 2]"\n{i},bad,a,-5,b,5,"[3, 2, 1]"' for i in range(20)]
    lines += ['99,odd,a,-5,b,5,"[2, 3]"', "99,odd,a,-5,b,5,the first"]
    path.write_text("\n".join(lines))
    settings = [f"root={tmp_path}", f"rankings={path}", "values=[svt:benevolence]", "max_error_share=0.1"]
    (tmp_path / "e.yaml").write_text("{}")
    scored = evaluate.main(load(evaluate.SCHEMA, str(tmp_path / "e.yaml"), settings))
    rows = store.read_table(scored.build).to_pandas().set_index("response")
    assert rows.loc["good"].intensity.min() > 5
    assert rows.loc["bad"].intensity.max() < -5
    assert rows.loc["odd"].num_failed == 2
    assert np.isnan(rows.loc["odd"].intensity)


def test_an_imported_version_is_an_anchor_set(cluster, tmp_path, data):
    (tmp_path / "i.yaml").write_text("license: CC-BY-NC-SA-4.0\n")
    files = f"files=[{data}/vidb_anchors/dev.jsonl]"
    import_vidb.main(load(import_vidb.SCHEMA, str(tmp_path / "i.yaml"), [f"root={tmp_path}", files]))
    version = vidb.load(str(tmp_path))
    assert len(version.calibrations) == 30
    overrides = ["evaluator.sampling=random", "evaluator.k=3"]
    scored = evaluate.main(job_config(evaluate, tmp_path, *overrides, judge=SIMULATED, values=SCORED))
    assert store.require_manifest(scored.build).num_rows == 2 * 48
    assert isinstance(store.read_table(scored.build), pa.Table)
