"""Garbage collection keeps what is needed, and loses nothing beside a build, a publication, a pin or a rollback."""

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from garbage_world import Line, make, make_old

from jobs import gc
from valueflow import retry, store
from valueflow.config import load
from valueflow.errors import InputError
from valueflow.store import Build, EvaluationsDetails, attempts, collector, files, garbage, pins, swap
from valueflow.store.attempts import Lease, attempt
from valueflow.store.garbage import Rules

OLD = Rules(days=30)


@pytest.fixture(scope="module")
def old(tmp_path_factory) -> Path:
    """The root of `garbage_world`, 100 days old; not to be changed."""
    root = tmp_path_factory.mktemp("old")
    make(str(root))
    make_old(str(root))
    return root


@pytest.fixture
def root(old, tmp_path) -> str:
    return str(shutil.copytree(old, tmp_path / "root"))


def names(root: str, rules: Rules = OLD) -> set[str]:
    return {item.name for item in garbage.garbage(root, rules)}


def delete(root: str, rules: Rules = OLD) -> set[str]:
    since = time.time()
    return {item.name for item in collector.collect(root, garbage.garbage(root, rules, since), rules, since)}


def whole(root: str, line: str, *, without: tuple[str, ...] = ()) -> None:
    """Every build of a line is finished, and its bytes are those of its manifest."""
    for build in Line(root, line).builds:
        if build.table not in without:
            store.verify(build)


def tables_of(line: str, *tables: str) -> set[str]:
    return {f"{table}/{'v-' if table == 'vidb' else ''}{line}" for table in tables}


STAGES = ("texts", "candidates", "windows", "rankings", "utilities", "vidb")


def test_what_nobody_needs_is_listed_and_deleted_and_nothing_else(root):
    before = {str(path.relative_to(root)): path.read_bytes() for path in Path(root).rglob("*") if path.is_file()}
    listed = names(root)
    builds = tables_of("b", *STAGES) | tables_of("c", "texts", "candidates", "windows", "rankings")
    assert listed == builds | {"cache/ab", "texts/a", "attempts"}  # of texts/a what was set aside
    assert {str(path.relative_to(root)): path.read_bytes() for path in Path(root).rglob("*") if path.is_file()} == before
    assert delete(root) == listed
    assert names(root) == set()
    whole(root, "a")
    assert store.current(root).version == "v-a"
    left = {str(path.relative_to(root)) for path in Path(root).rglob("*") if path.is_file()}
    people = {"vidb/v-b/human_queue.csv", "people/round/ratings.csv"}
    assert people | {"reports/v-b.html", "audits/f.json", "validity/f.json"} <= left
    assert not [path for path in left - people if "/b/" in path or "/c/" in path or "v-b/" in path or path.endswith(".bad")]


def test_a_build_goes_before_what_it_was_made_from(root):
    order = [item.name for item in garbage.garbage(root, OLD) if item.key and item.name.endswith("b")]
    assert [name.partition("/")[0] for name in order] == ["vidb", "utilities", "rankings", "windows", "candidates", "texts"]


def test_ages(root):
    assert names(root, Rules(days=200, cache_days=200)) == set()
    assert names(root, Rules(days=200, cache_days=50)) == {"cache/ab"}
    assert "cache/ab" not in names(root, Rules(days=30, cache_days=None))
    store.write_bytes(f"{root}/windows/c/part-new.parquet", b"")  # somebody works at it
    assert names(root) & tables_of("c", *STAGES) == {"rankings/c"}  # what it was made from is needed


def test_pinned_and_earlier_versions_are_kept_with_their_lineage(root):
    store.pin(root, "v-b")
    assert not names(root) & tables_of("b", *STAGES)
    store.unpin(root, "v-b")
    assert names(root) >= tables_of("b", *STAGES)
    store.publish(root, "v-b", store.current(root))
    assert store.current(root).previous == ("v-a",)
    assert names(root) & tables_of("a", *STAGES) == {"texts/a"}  # set aside files of it
    assert "vidb/v-a" in names(root, Rules(versions=1))
    with pytest.raises(InputError, match="v-b' is not pinned"):
        store.unpin(root, "v-b")
    with pytest.raises(InputError, match="no finished 'vidb' build 'v-c'"):
        store.pin(root, "v-c")
    assert store.pinned(root) == []


def test_results_are_kept_with_what_they_were_made_from(root):
    out = Build(root, "evaluations", "e")
    store.commit(out, EvaluationsDetails(), [Line(root, "b").version])
    make_old(root)
    assert not names(root) & ({"evaluations/e"} | tables_of("b", *STAGES))
    assert names(root, Rules(result_days=60)) >= {"evaluations/e"} | tables_of("b", *STAGES)


def test_a_running_attempt_keeps_what_it_names_however_old_that_is(root):
    with attempt(root, "build-c", ""):
        assert store.manifest(Line(root, "c").windows)
        assert not names(root) & tables_of("c", "texts", "candidates", "windows")
        assert "rankings/c" in names(root)  # not looked at yet
        make_old(root)
        assert "windows/c" not in names(root)  # its lease is old and its process lives
    make_old(root)
    assert "windows/c" in names(root)


def test_a_dead_attempt_keeps_nothing_after_that_age(root):
    lease = Lease(attempt="x", process="elsewhere:1:1", beat="2020-01-01T00:00:00+00:00", uses=["windows/c"])
    store.write_bytes(f"{root}/attempts/build-c.json", lease.model_dump_json().encode())
    assert "windows/c" not in names(root)
    make_old(root)
    assert "windows/c" in names(root)


def test_a_damaged_pointer_stops_it(root):
    store.write_bytes(store.pointer_url(root), b"{")
    with pytest.raises(InputError, match="CURRENT"):
        names(root)


def test_tables_that_are_links_are_left_alone(root, tmp_path):
    shared = tmp_path / "shared"
    shutil.move(f"{root}/windows", shared)
    Path(root, "windows").symlink_to(shared)
    delete(root)
    assert (shared / "c" / "_manifest.json").exists()


def test_temporary_files_of_killed_writers(root):
    Path(root, "cache/ab/x.json.0f.tmp").write_bytes(b"half")
    assert "cache" not in names(root)
    make_old(root)
    assert "cache" in delete(root)
    assert not Path(root, "cache/ab/x.json.0f.tmp").exists()


def test_the_job_lists_and_deletes_only_when_told(root, capsys):
    listed = gc.main(load(gc.SCHEMA, "conf/gc/tiny.yaml", [f"root={root}"]))
    out = capsys.readouterr().out
    assert "build vidb/v-b: 2 files" in out
    assert "nothing was deleted" in out
    assert gc.main(load(gc.SCHEMA, "conf/gc/tiny.yaml", [f"root={root}", "delete=true"])) == listed
    assert not Path(root, "vidb/v-b/_manifest.json").exists()


def test_rollback(root):
    with pytest.raises(InputError, match="no version that was published before"):
        store.rollback(root)
    store.publish(root, "v-b", store.current(root))
    assert store.rollback(root).version == "v-b"
    assert store.current(root)[:2] == ("v-a", 3)
    assert store.pinned(root) == []
    with pytest.raises(InputError, match="is the published one already"):
        store.rollback(root, "v-a")
    part = next(Path(root, "vidb/v-b").rglob("*.parquet"))
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    with pytest.raises(InputError, match="differs from its manifest"):
        store.rollback(root, "v-b")
    assert store.current(root).version == "v-a"


def test_a_rollback_beside_a_publication_changes_nothing(root, monkeypatch):
    store.publish(root, "v-b", store.current(root))
    with attempt(root, "build-c", ""):
        Line(root, "c").build()

    def meanwhile(build: Build) -> None:
        store.publish(root, "v-b", store.current(root))

    monkeypatch.setattr(pins, "verify", meanwhile)
    with pytest.raises(InputError, match="v-b' was published meanwhile"):
        store.rollback(root, "v-a")
    assert store.current(root).version == "v-b"
    assert store.pinned(root) == []


# Races: at every operation of the one, the other runs until it ends or waits.


class Steps:
    """Calls `at` before the operation of storage of this thread with a number; counts them."""

    def __init__(self, monkeypatch, number: int, at: Callable[[], None]) -> None:
        self.count, self.number, self.at, self.thread = 0, number, at, threading.get_ident()
        real = files.attempts

        def hooked(doing: str, operation: Callable, **options: object) -> object:
            if threading.get_ident() == self.thread:
                self.count += 1
                if self.count == self.number:
                    self.at()
            return real(doing, operation, **options)

        for module in (files, swap):
            monkeypatch.setattr(module, "attempts", hooked)


class Beside:
    """Another process, as a thread: `start` returns when it has ended or waits for the collector."""

    def __init__(self, monkeypatch, work: Callable[[], object]) -> None:
        self.pause, self.work, self.result = threading.Event(), work, []
        self.thread = threading.Thread(target=self._run)
        real = time.sleep

        def sleep(seconds: float) -> None:
            if threading.current_thread() is self.thread:
                self.pause.set()
            real(0.002)

        monkeypatch.setattr(attempts.time, "sleep", sleep)

    def _run(self) -> None:
        try:
            self.result.append(self.work())
        finally:
            self.pause.set()

    def start(self) -> None:
        self.thread.start()
        assert self.pause.wait(60)

    def end(self) -> object:
        if not self.thread.is_alive() and self.thread.ident is None:
            self.start()
        self.thread.join(60)
        assert not self.thread.is_alive()
        return self.result[0]  # an exception of the thread leaves none


def build_c(root: str) -> int:
    with attempt(root, "build-c", ""):
        return Line(root, "c").build()


def publish_b(root: str) -> int:
    with attempt(root, "build-b", ""):
        return Line(root, "b").build()


def pin_b(root: str) -> int:
    try:
        store.pin(root, "v-b")
    except InputError:  # it was gone already
        assert store.pinned(root) == []
        assert not Path(root, "vidb/v-b/_manifest.json").exists()
    return 0


def rollback_b(root: str) -> int:
    try:
        store.rollback(root, "v-b")
    except InputError:
        assert store.current(root).version == "v-a"
        assert not Path(root, "vidb/v-b/_manifest.json").exists()
    return 0


def check(root: str, work: Callable, asked: int, deleted: set[str]) -> None:
    """What must hold whatever happened first."""
    whole(root, "a")
    if work is build_c:
        whole(root, "c")
        assert store.current(root).version == "v-c"
        assert asked == (3 if "rankings/c" in deleted else 2)  # the answer that was there is lost with its build or not at all
    if work is publish_b:
        whole(root, "b")
        assert store.current(root).version == "v-b"
        assert asked == (3 if "rankings/b" in deleted else 0)
    if store.pinned(root) or store.current(root).version == "v-b":
        whole(root, "b")
    # No finished build lacks an input.
    for build in garbage.found_builds(root).values():
        assert all(Path(root, *key).exists() for key in (garbage.inputs(build.manifest) if build.manifest else ()))
    # A later collection finds nothing that is needed.
    delete(root)
    whole(root, "a")
    if store.current(root).version != "v-a":
        whole(root, store.current(root).version[2:])


def quicken(monkeypatch) -> None:
    """Fewer operations of no interest: tables that are not there, and waits for the disk."""
    monkeypatch.setattr(garbage, "TABLES", STAGES)
    monkeypatch.setattr(files.os, "fsync", lambda _: None)  # no power fails here


WORKS = [
    build_c,
    publish_b,
    pytest.param(pin_b, marks=pytest.mark.slow),
    pytest.param(rollback_b, marks=pytest.mark.slow),
]


EVERY_STEP = pytest.mark.parametrize("every", [6, pytest.param(1, marks=pytest.mark.slow)])  # of so many


@pytest.mark.timeout(600)
@EVERY_STEP
@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.__name__)
def test_another_runs_at_a_step_of_a_collection(old, tmp_path, monkeypatch, work, every):
    monkeypatch.setattr(retry, "BACKOFF", 0.0)
    quicken(monkeypatch)
    lost: set[int] = set()
    for number in range(1, 1_000, every):
        root = str(shutil.copytree(old, tmp_path / str(number)))
        with monkeypatch.context() as patch:
            other = Beside(patch, lambda root=root: work(root))
            steps = Steps(patch, number, other.start)
            deleted = delete(root)
            done = steps.count < number
            asked = other.end()
        check(root, work, asked, deleted)
        lost.add(len(deleted))
        shutil.rmtree(root)
        if done:
            break
    assert number > 50  # the whole collection was walked through
    assert len(lost) > 1  # and who came first mattered


@pytest.mark.timeout(600)
@EVERY_STEP
@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.__name__)
def test_a_collection_runs_at_a_step_of_another(old, tmp_path, monkeypatch, work, every):
    monkeypatch.setattr(retry, "BACKOFF", 0.0)
    quicken(monkeypatch)
    for number in range(1, 1_000, every):
        root = str(shutil.copytree(old, tmp_path / str(number)))
        deleted: set[str] = set()
        with monkeypatch.context() as patch:
            steps = Steps(patch, number, lambda root=root, deleted=deleted: deleted.update(delete(root)))
            asked = work(root)
            done = steps.count < number
        check(root, work, asked, deleted)
        shutil.rmtree(root)
        if done:
            break
    assert number > 4


@pytest.mark.timeout(180)
@pytest.mark.parametrize("number", [20, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 40, 60, 80))])
def test_on_s3(bucket, tmp_path, monkeypatch, number):
    """Times of objects are whole seconds; a build runs at a step of the collection."""
    for module in (garbage, collector):
        monkeypatch.setattr(module, "MARGIN", 1.0)
    root, rules = f"{bucket}/{tmp_path.name}", Rules(days=0, cache_days=0)
    make(root)
    time.sleep(2.5)
    builds = tables_of("b", *STAGES) | tables_of("c", "texts", "candidates", "windows", "rankings")
    store.pin(root, "v-b")
    assert not names(root, rules) & tables_of("b", *STAGES)
    store.unpin(root, "v-b")
    assert names(root, rules) == builds | {"cache/ab", "texts/a", "attempts"}
    with monkeypatch.context() as patch:
        other = Beside(patch, lambda: build_c(root))
        Steps(patch, number, other.start)
        deleted = delete(root, rules)
        asked = other.end()
    assert asked == (3 if "rankings/c" in deleted else 2)
    assert deleted >= tables_of("b", *STAGES) | {"cache/ab"}
    whole(root, "a")
    whole(root, "c")
    assert store.current(root)[0::3] == ("v-c", ("v-a",))
    time.sleep(2.5)
    assert store.rollback(root).version == "v-c"
    delete(root, rules)
    whole(root, "a")
    whole(root, "c")
