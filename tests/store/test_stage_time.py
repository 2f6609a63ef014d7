"""What attempts took is kept beside the journal: a rerun adds to it, and lost records of parts do not lose it."""

from pathlib import Path

import pytest

from valueflow import store
from valueflow.store import Build, Journal, Sample
from valueflow.store.stage_time import MAX_SAMPLES, with_sample


@pytest.fixture
def build(tmp_path: Path) -> Build:
    return Build(str(tmp_path), "rankings", "b")


def run(build: Build, *samples: Sample, engines: float = 1.0, gpus: float = 0.0) -> Journal:
    journal = Journal(build, "window_id")
    journal.load()
    for sample in samples:
        journal.time.add(10 * engines, 10 * gpus, sample)
    journal.save()
    return journal


def test_a_rerun_adds_to_what_attempts_before_it_took(build):
    run(build, Sample(2.0, 1, 2, 40), Sample(4.0, 2, 4, 80), engines=2, gpus=4)
    again = run(build, Sample(3.0, 1, 1, 100))
    assert (again.time.engine_seconds, again.time.gpu_seconds) == (50.0, 80.0)
    assert again.time.timeline() == [(2.0, 1, 2, 40), (4.0, 2, 4, 80), (7.0, 1, 1, 100)]
    assert run(build).time.engine_seconds == 50.0
    again.close()
    assert not list(Path(build.url).rglob("*.time"))


def test_it_outlasts_the_records_of_parts(build):
    run(build, Sample(2.0, 1, 2, 40))
    store.settle_unanswered(build)
    assert run(build).time.engine_seconds == 10.0


def test_a_damaged_record_is_set_aside(build):
    run(build, Sample(2.0, 1, 2, 40))
    (record,) = Path(build.url).rglob("*.time")
    record.write_bytes(record.read_bytes()[:-9])
    assert run(build).time.engine_seconds == 0.0
    assert record.with_suffix(".time.bad").exists()


def test_a_long_timeline_is_thinned_evenly():
    samples: list[Sample] = []
    for n in range(5_000):
        samples = with_sample(samples, Sample(2.0 * n, 1, 1, n))
    seconds = [sample.seconds for sample in samples]
    assert len(samples) <= MAX_SAMPLES
    assert seconds == sorted(seconds)
    assert samples[-1] == Sample(9_998.0, 1, 1, 4_999)
    early = sum(second < 2_500 for second in seconds)
    assert abs(early - len(samples) / 4) <= 1
