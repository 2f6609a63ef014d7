"""One attempt of a work at a time: leases are taken, waited for, taken over from the dead, and end with the exit code."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from valueflow import store
from valueflow.config import Config, load
from valueflow.errors import InputError, StorageError
from valueflow.job import run_job, work_of
from valueflow.store import Build, attempts
from valueflow.store.attempts import Attempt, Lease, Process, attempt, parse

REPOSITORY = Path(__file__).parents[2]


class Settings(Config):
    root: str
    number: int = 1
    cluster: dict = {}


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> Iterator[None]:
    monkeypatch.setattr(attempts, "POLL", 0.01)
    yield
    assert attempts._current is None


def lease(root: Path, work: str = "w") -> Lease:
    found = parse((root / "attempts" / f"{work}.json").read_bytes())
    assert found
    return found


def written(root: Path, **fields: object) -> bytes:
    """The lease of an attempt that runs on another machine."""
    now = attempts._now()
    content = Lease(**{"attempt": "other", "process": "elsewhere:7:1", "beat": now, "started": now, **fields}).model_dump_json()
    store.write_bytes(f"{root}/attempts/w.json", content.encode())
    return content.encode()


def test_a_lease_names_what_is_used_and_ends_with_the_exit_code(tmp_path):
    with attempt(str(tmp_path), "w", "job conf.yaml"):
        assert store.manifest(Build(str(tmp_path), "windows", "b1")) is None
        assert store.manifest(Build(f"{tmp_path}/files/", "texts", "b2")) is None
        assert store.manifest(Build(f"{tmp_path}-2", "texts", "b3")) is None
        assert lease(tmp_path).state == "running"
    after = lease(tmp_path)
    assert (after.state, after.exit_code, after.number, after.command) == ("ended", 0, 1, "job conf.yaml")
    assert after.uses == ["windows/b1", "files/texts/b2"]
    for raised, code in ((SystemExit(7), 7), (KeyboardInterrupt(), 130), (ValueError("x"), 1)):
        with pytest.raises(type(raised)), attempt(str(tmp_path), "w", ""):
            raise raised
        assert lease(tmp_path).exit_code == code
    assert lease(tmp_path).number == 4


def test_a_root_has_one_name_however_it_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with attempt("runs/demo/", "w", ""):
        store.manifest(Build(f"{tmp_path}/runs/demo", "windows", "b1"))
        store.manifest(Build(f"file://{tmp_path}/runs/demo", "windows", "b2"))
    assert lease(tmp_path / "runs" / "demo").uses == ["windows/b1", "windows/b2"]


def test_a_second_attempt_waits_for_the_first(tmp_path):
    order = []

    def second() -> None:
        held = Attempt(str(tmp_path), "w", "")
        held.begin()
        order.append("second")
        held.end(0)

    with attempt(str(tmp_path), "w", ""):
        thread = threading.Thread(target=second)
        thread.start()
        with attempt_of_another_work(tmp_path):
            order.append("another work")
        time.sleep(0.3)
        order.append("first")
    thread.join(30)
    assert order == ["another work", "first", "second"]


def attempt_of_another_work(root: Path):
    held = Attempt(str(root), "w2", "")
    held.begin()
    held.end(0)
    return threading.Lock()


def test_the_lease_of_a_killed_attempt_is_taken_at_once(tmp_path):
    code = f"""
import time
from valueflow import store
from valueflow.store.attempts import attempt
with attempt({str(tmp_path)!r}, "w", ""):
    store.manifest(store.Build({str(tmp_path)!r}, "windows", "b1"))
    print("holds", flush=True)
    time.sleep(600)
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "holds\n"
    os.kill(process.pid, signal.SIGKILL)  # not waited for: a zombie is dead
    started = time.monotonic()
    with attempt(str(tmp_path), "w", ""):
        assert time.monotonic() - started < 10
        assert lease(tmp_path).number == 2
    process.wait()


def test_a_process_of_the_same_number_that_began_later_is_another(tmp_path):
    here = Process.own()
    assert not attempts.is_dead(Lease(attempt="x", process=str(here), beat=""))
    assert attempts.is_dead(Lease(attempt="x", process=str(here._replace(start="1")), beat=attempts._now()))
    assert Process.parse(str(here)) == here


def test_an_attempt_elsewhere_is_dead_when_it_is_silent(tmp_path, monkeypatch):
    monkeypatch.setattr(attempts, "EXPIRY", 0.3)
    written(tmp_path)
    started = time.monotonic()
    with attempt(str(tmp_path), "w", ""):
        assert 0.3 <= time.monotonic() - started < 10
    written(tmp_path, beat="2020-01-01T00:00:00+00:00")  # long silent: nobody waits
    monkeypatch.setattr(attempts, "EXPIRY", 60.0)
    with attempt(str(tmp_path), "w", ""):
        assert lease(tmp_path).number == 2


def test_signs_of_life_are_waited_for_and_given(tmp_path, monkeypatch):
    monkeypatch.setattr(attempts, "EXPIRY", 3.0)
    monkeypatch.setattr(attempts, "BEAT", 0.05)
    over = threading.Event()

    def elsewhere() -> None:
        for _ in range(45):
            written(tmp_path)
            time.sleep(0.1)
        over.set()

    written(tmp_path)
    thread = threading.Thread(target=elsewhere)
    thread.start()
    with attempt(str(tmp_path), "w", ""):
        assert over.is_set()
        first = lease(tmp_path).beat
        deadline = time.monotonic() + 30
        while lease(tmp_path).beat == first:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    thread.join()


def test_an_attempt_that_was_taken_for_dead_stops_at_its_next_stage(tmp_path):
    with attempt(str(tmp_path), "w", ""):
        other = written(tmp_path)
        with pytest.raises(InputError, match="has taken over"):
            store.manifest(Build(str(tmp_path), "windows", "b1"))
    assert (tmp_path / "attempts" / "w.json").read_bytes() == other


def test_a_write_whose_answer_was_lost_is_no_other_attempt(tmp_path, monkeypatch):
    real = attempts.swap

    def lost(*arguments: object) -> bool:
        monkeypatch.setattr(attempts, "swap", real)
        real(*arguments)
        raise StorageError("the connection was cut")

    with attempt(str(tmp_path), "w", ""):
        monkeypatch.setattr(attempts, "swap", lost)
        with pytest.raises(StorageError):
            store.manifest(Build(str(tmp_path), "windows", "b1"))
        store.manifest(Build(str(tmp_path), "windows", "b2"))
    assert lease(tmp_path).uses == ["windows/b2"]


def test_a_damaged_lease_is_replaced(tmp_path):
    written(tmp_path)
    (tmp_path / "attempts" / "w.json").write_bytes(b"{half")
    with attempt(str(tmp_path), "w", ""):
        assert lease(tmp_path).number == 1


def test_a_dead_collector_is_not_waited_for(tmp_path):
    (tmp_path / "attempts").mkdir()
    dead = Lease(attempt="x", process=str(Process.own()._replace(start="1")), beat=attempts._now())
    (tmp_path / "attempts" / "collector").write_text(dead.model_dump_json())
    attempts.wait_for_collector(str(tmp_path))


def test_a_collector_that_stood_still_stops(tmp_path, monkeypatch):
    monkeypatch.setattr(attempts, "EXPIRY", 0.3)
    with attempts.Collector(str(tmp_path)) as collector:
        collector.beat()
        time.sleep(0.2)
        with pytest.raises(InputError, match="stood still"):
            collector.beat()


def test_the_work_of_a_job(tmp_path, monkeypatch):
    path = tmp_path / "a.yaml"
    path.write_text(f"root: {tmp_path}\nnumber: 1\n")
    first = work_of("job", load(Settings, str(path), []))
    assert first == work_of("job", load(Settings, str(path), ["root=elsewhere", "cluster={a: 1}"]))
    assert first != work_of("job", load(Settings, str(path), ["number=2"]))
    assert first != work_of("other", load(Settings, str(path), []))
    seen = []

    def main(config: Settings) -> None:
        seen.append(lease(tmp_path, first).command)
        raise InputError("no")

    monkeypatch.setattr(sys, "argv", ["/x/job.py", str(path)])
    with pytest.raises(SystemExit, match="2"):
        run_job(Settings, main)
    assert seen == [f"job {path}"]
    assert (lease(tmp_path, first).state, lease(tmp_path, first).exit_code) == ("ended", 2)
