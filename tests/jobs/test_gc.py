"""Garbage is deleted without a pause while a real build runs: nothing that it needs is lost, and what it leaves is whole."""

import threading
import time

import pytest
from configs import SIMULATED, job_config

from jobs import build_vidb
from valueflow import store, vidb
from valueflow.store import collector, garbage
from valueflow.store.attempts import attempt
from valueflow.store.garbage import Rules

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


@pytest.mark.slow
def test_a_build_beside_a_collection_that_never_pauses(root, monkeypatch):
    for module in (garbage, collector):
        monkeypatch.setattr(module, "MARGIN", 0.0)
    rules, over, deleted = Rules(days=0, cache_days=0, versions=1), threading.Event(), []
    config = job_config(build_vidb, root, judge=SIMULATED | {"seconds_per_batch": 0.2})
    other = job_config(build_vidb, root, "windows.seed=7", "publish=false", judge=SIMULATED)
    build_vidb.main(other)  # nobody needs it
    unneeded = {f"vidb/{name}" for name in store.finished(str(root), "vidb")}
    rounds = []

    def collect() -> None:
        while not over.is_set():
            since = time.time()
            deleted.extend(collector.collect(str(root), garbage.garbage(str(root), rules, since), rules, since))
            rounds.append(since)

    thread = threading.Thread(target=collect)
    with attempt(str(root), "build", "build"):
        thread.start()
        try:
            at = build_vidb.main(config)
        finally:
            over.set()
            thread.join(60)
    assert len(rounds) > 5
    assert unneeded <= {item.name for item in deleted}
    assert store.current(str(root)).version == at.vidb.build_id
    for build in (at.candidates, at.windows, *at.rankings, at.utilities, at.vidb):
        assert f"{build.table}/{build.build_id}" not in {item.name for item in deleted} - {
            f"candidates/{at.candidates.build_id}"
        }
        store.verify(build)
    # Without the lease too: it is published now.
    since = time.time()
    list(collector.collect(str(root), garbage.garbage(str(root), rules, since), rules, since))
    assert vidb.load(str(root)).manifest.num_rows == 216
    for build in (at.candidates, at.windows, *at.rankings, at.utilities, at.vidb):
        store.verify(build)
