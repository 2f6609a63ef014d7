"""Profiles on a real cluster: mode fast and ranked, resume, units taken over, refusals."""

import csv
from pathlib import Path

import numpy as np
import pytest
from configs import job_config
from roots import with_version_of

from jobs import build_profile
from valueflow import store
from valueflow.distributed.profiles import run as profiles_run
from valueflow.errors import InputError
from valueflow.profiles.table import as_arrays
from valueflow.store import Build, ProfilesDetails

pytestmark = pytest.mark.ray

SAMPLE = Path(__file__).parents[3] / "valueflow" / "samples" / "units.csv"


@pytest.fixture
def profiled(built, cluster, tmp_path):
    """A root with the version of `built`, and a function that runs the job with its texts."""
    root = with_version_of(built.root, tmp_path)

    def run(texts: Path = SAMPLE, **settings: object) -> Build:
        values = settings.pop("values", ["svt:benevolence"])
        config = job_config(build_profile, root, texts=str(texts), values=values, **settings)
        return profiles_run.build_profiles(config)

    return run


def with_more(tmp_path: Path, *rows: tuple[str, str]) -> Path:
    file = tmp_path / "more.csv"
    with SAMPLE.open(encoding="utf-8", newline="") as sample, file.open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows([*csv.reader(sample), *rows])
    return file


def test_profiles_of_the_sample_and_what_a_second_run_reuses(profiled, tmp_path):
    first = profiled()
    details = store.details_of(first, ProfilesDetails)
    assert (details.units, details.reused) == (3, 0)
    assert details.content_errors["svt:benevolence"]["sd"] > 0
    of_first = as_arrays(store.read_table(first))
    assert of_first.units == ["Ana", "Boris", "Chen"]
    assert profiled() == first

    longer = profiled(with_more(tmp_path, ("Chen", "I carried the old man's bags up to the fifth floor."), ("Dora", "Hello.")))
    assert store.details_of(longer, ProfilesDetails).reused == 2
    of_longer = as_arrays(store.read_table(longer))
    assert of_longer.units == ["Ana", "Boris", "Chen", "Dora"]
    for name in ("intensity", "low", "high"):
        np.testing.assert_array_equal(of_longer.columns[name][:2], of_first.columns[name][:2])
    assert np.isnan(of_longer.columns["intensity"][3]).all()


@pytest.mark.slow
def test_a_shard_that_is_written_is_not_made_again(profiled, monkeypatch):
    first = profiled()
    whole = store.read_table(first)
    paths = store.part_paths(first)
    Path(first.manifest_url).unlink()
    kept, lost = (Path(first.url) / path for path in (paths[0], paths[-1]))
    before = kept.stat().st_mtime_ns
    lost.unlink()
    assert profiled() == first
    assert kept.stat().st_mtime_ns == before
    assert store.read_table(first).equals(whole)


@pytest.mark.slow
def test_relevance_by_labelled_texts_and_a_theory_that_has_none(profiled):
    build = profiled(relevance={"by": "hives"}, estimate={"min_relevance": 0.05, "min_texts": 2})
    inputs = {source.table for source in store.require_manifest(build).inputs}
    assert {"unit_texts", "vidb", "embeddings", "source_labels"} <= inputs
    with pytest.raises(InputError, match="right"):
        profiled(relevance={"by": "hives"}, values=["right:civil-rights"])


@pytest.mark.parametrize(
    ("rows", "named"),
    [([("Solo", "I helped.")], "min_texts"), ([("Odd", "7 x 8 = 56")] * 6, "min_relevance")],
)
def test_units_without_enough_relevant_texts_alone_are_refused_in_a_sentence(profiled, tmp_path, rows, named):
    file = tmp_path / "few.csv"
    file.write_text("unit,text\n" + "".join(f"{unit},{text}\n" for unit, text in rows), "utf-8")
    with pytest.raises(InputError, match=named):
        profiled(file)


def test_scores_of_an_evaluation_become_profiles(evaluated, built, cluster):
    """The sample responses, by their query as units."""
    config = job_config(
        build_profile, built.root, texts="valueflow/samples/responses.csv", columns={"text": "response", "unit": "dataset"},
        values=["all"], evaluation=evaluated.build.build_id, estimate={"min_texts": 2},
    )  # fmt: skip
    build = profiles_run.build_profiles(config)
    found = as_arrays(store.read_table(build))
    rows = store.read_table(evaluated.build).to_pylist()
    unit = found.units[0]
    for v, value in enumerate(found.values):
        of_unit = [r["judge_intensity"] for r in rows if f"{r['theory']}:{r['value']}" == value and r["dataset"] == unit]
        assert found.columns["num_texts"][0, v] == len(of_unit)
