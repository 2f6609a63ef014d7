"""Values are fitted, and published if asked, while the judges work on others; the whole has the same rows either way."""

import shutil
import time
from collections.abc import Iterable

import pytest
from configs import SIMULATED, job_config

from jobs import build_vidb
from valueflow import store, vidb
from valueflow.distributed.build import pipeline
from valueflow.distributed.build.early import EarlyFits
from valueflow.records import ValueId
from valueflow.store import Build, UtilitiesDetails

pytestmark = pytest.mark.ray
VALUES = ["svt:benevolence", "svt:power", "duty:fidelity"]
JUDGE = SIMULATED | {"batch_size": 40, "seconds_per_batch": 0.05}


def build(root, *overrides: str, judges: int = 1) -> pipeline.BuildStages:
    others = [JUDGE | {"name": f"s{n}", "seed": n} for n in range(1, judges)]
    settings = {
        "candidates": {"values": VALUES, "max_texts": 40, "num_neutral": 10}, "judge": JUDGE, "further_judges": others,
        "windows": {"mode": "balanced", "k": 2, "m": 8},
    }  # fmt: skip
    return build_vidb.main(job_config(build_vidb, root, *overrides, **settings))


def rows(build: Build) -> list[dict]:
    return store.read_table(build).to_pylist()


def fits(at: pipeline.BuildStages) -> dict:
    return store.details_of(at.utilities, UtilitiesDetails).model_dump()["fits"]


@pytest.fixture
def waiting(monkeypatch) -> None:
    """A fit that has begun ends before the next answers are looked at, so that a slow machine starts it early too."""
    look = EarlyFits._look

    def look_and_wait(early: EarlyFits, folders: Iterable[str]) -> None:
        look(early, folders)
        while early._tasks:
            time.sleep(0.05)
            look(early, [])

    monkeypatch.setattr(EarlyFits, "_look", look_and_wait)


@pytest.mark.parametrize("judges", [1, 2])
def test_values_are_fitted_while_others_are_judged_and_the_fits_are_those_of_the_end(root, monkeypatch, waiting, judges):
    answered, begin = [], EarlyFits._begin

    def count(early: EarlyFits, folder: str) -> None:
        begin(early, folder)
        answered.append(sum(journal.rows.total() for journal in early._journals.values()))

    monkeypatch.setattr(EarlyFits, "_begin", count)
    at = build(root, judges=judges)
    windows = store.require_manifest(at.windows).num_rows
    assert len(answered) == len(VALUES)
    assert answered[0] < judges * windows
    early = (fits(at), rows(at.utilities), rows(at.vidb))
    for table in (at.utilities, at.vidb):
        shutil.rmtree(table.url)
    monkeypatch.setattr(EarlyFits, "_is_complete", lambda *_: False)
    assert build(root, judges=judges) == at
    assert (fits(at), rows(at.utilities), rows(at.vidb)) == early


def test_values_that_are_done_are_published_early_and_the_whole_version_replaces_them(root, waiting):
    at = build(root, "publish_early=1")
    pointer = store.current(str(root))
    assert pointer.version == at.vidb.build_id
    early = [vidb.load(str(root), version) for version in pointer.previous]
    sizes = [len(version.calibrations) for version in early]
    assert sizes in ([2, 1], [2], [1])  # two values may be done at the same look
    assert [version.details.pending for version in early] == [len(VALUES) - size for size in sizes]
    whole = vidb.load(str(root), at.vidb.build_id)
    assert whole.details.pending == 0
    for version in early:
        for value in version.calibrations:
            folder = store.value_folder(ValueId(value))
            columns = ["text_id", "theta", "standard_error", "judge_intensity"]
            assert store.read_table(version.build, columns, folder) == store.read_table(whole.build, columns, folder)
        assert "published early" in store.read_input(f"{version.build.url}/README.md").decode()
