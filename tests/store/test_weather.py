"""Reads and writes that fail: weather is waited for, what lasts is one sentence, and only damage is set aside."""

import errno
import fcntl
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem

from jobs import import_vidb
from valueflow import store
from valueflow.errors import DamageError, StorageError
from valueflow.job import run_job
from valueflow.llm.cache import CallCache, Reply
from valueflow.records import text_id
from valueflow.store import Build, ResponsesDetails
from valueflow.store.files import write_for_people

REPOSITORY = Path(__file__).parents[2]
pytestmark = [pytest.mark.component, pytest.mark.usefixtures("no_delay")]


def responses(*ids: str) -> pa.Table:
    same = {name: [name[0]] * len(ids) for name in ("query", "dataset", "response", "about")}
    return pa.table({"response_id": ids} | same)


def files_of(folder: Path | str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


@pytest.fixture
def build(tmp_path) -> Build:
    build = Build(str(tmp_path), "responses", "b1")
    store.write_part(build, responses("a", "b"), "0")
    store.write_part(build, responses("c"), "1", "theory=svt/value=power")
    return build


PASSING = [
    OSError(errno.EIO, "Input/output error"),
    OSError(errno.ESTALE, "Stale file handle"),
    TimeoutError("timed out"),
    ConnectionResetError(errno.ECONNRESET, "reset by peer"),
    OSError("SlowDown: reduce your request rate"),
]


@pytest.mark.parametrize("method", ["cat_file", "find", "info", "ls"])
@pytest.mark.parametrize("error", PASSING, ids=lambda error: type(error).__name__ + str(error.errno or ""))
def test_a_read_that_fails_once_changes_nothing(build, faults, method, error):
    before = files_of(build.root)
    faults(method, error)
    assert store.committed_ids(build, "response_id").tolist() == [b"a", b"b", b"c"]
    assert store.exists(build.url)
    assert store.finished(build.root, "responses") == []
    assert files_of(build.root) == before
    assert store.commit(build, ResponsesDetails()).num_rows == 3


@pytest.mark.parametrize("method", ["cat_file", "find", "info"])
def test_a_read_that_fails_for_good_is_one_sentence_and_removes_nothing(build, faults, method):
    before = files_of(build.root)
    faults(method, PASSING[0], times=10**6)
    reads = {
        "cat_file": [
            lambda: store.committed_ids(build, "response_id"), lambda: store.manifest(build), lambda: store.reusable(build),
            lambda: store.current(build.root), lambda: store.replaceable(build.root),
            lambda: store.drop_duplicates(build, "response_id"), lambda: CallCache(f"{build.root}/cache").get("k" * 64),
            lambda: store.read_input(f"{build.url}/part-0.parquet"), lambda: store.commit(build, ResponsesDetails()),
        ],
        "find": [
            lambda: store.part_paths(build), lambda: store.commit(build, ResponsesDetails()),
            lambda: store.remove_unfinished(build),
        ],
        "info": [lambda: store.exists(build.url)],
    }  # fmt: skip
    for read in reads[method]:
        with pytest.raises(StorageError, match="Input/output error") as raised:
            read()
        assert not isinstance(raised.value, DamageError)
        assert "\n" not in str(raised.value)
    assert files_of(build.root) == before


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_what_is_forbidden_is_not_tried_again(build, faults, number):
    before = files_of(build.root)
    calls = faults("cat_file", OSError(number, os.strerror(number)), times=10**6)
    with pytest.raises(StorageError, match="permission"):
        store.committed_ids(build, "response_id")
    assert len(calls) == 1
    assert files_of(build.root) == before


def test_a_finished_build_that_cannot_be_read_is_not_left_out_of_the_list(build, faults):
    store.commit(build, ResponsesDetails())
    faults("cat_file", PASSING[0], times=10**6)
    with pytest.raises(StorageError):
        store.finished(build.root, "responses")


@pytest.mark.parametrize("short", [0, 4, 100])
def test_a_file_that_was_not_read_whole_is_read_again(build, monkeypatch, short):
    real, calls = LocalFileSystem.cat_file, []

    def torn(self, path, *args, **kwargs):
        calls.append(path)
        content = real(self, path, *args, **kwargs)
        return content[:short] if len(calls) <= 2 else content

    monkeypatch.setattr(LocalFileSystem, "cat_file", torn)
    before = files_of(build.root)
    assert store.committed_ids(build, "response_id").tolist() == [b"a", b"b", b"c"]
    assert files_of(build.root) == before


def test_a_file_that_is_torn_each_time_is_not_damage(build, monkeypatch):
    monkeypatch.setattr(LocalFileSystem, "cat_file", lambda self, path, *args, **kwargs: os.urandom(50))
    with pytest.raises(StorageError, match="differ each time") as raised:
        store.committed_ids(build, "response_id")
    assert not isinstance(raised.value, DamageError)
    assert sorted(files_of(build.url)) == ["part-0.parquet", "theory=svt/value=power/part-1.parquet"]


@pytest.mark.parametrize("at", range(4, 900, 28))
def test_a_changed_bit_of_an_unfinished_part_is_damage_or_changes_no_row(build, at):
    path = Path(build.url, "part-0.parquet")
    rows, content = store.read_part(build, "part-0.parquet"), bytearray(path.read_bytes())
    content[at % len(content)] ^= 1
    path.write_bytes(content)
    if store.committed_ids(build, "response_id").tolist() == [b"c"]:
        assert Path(f"{path}.bad").read_bytes() == content
    else:
        assert store.read_part(build, "part-0.parquet").equals(rows)


def test_a_page_in_the_place_of_another_is_damage(build):
    """Each page has its checksum, so that only its place tells that it is another one."""
    path = Path(build.url, "part-0.parquet")
    content, group = path.read_bytes(), pq.read_metadata(path).row_group(0)
    before, last = (
        (column.dictionary_page_offset or column.data_page_offset, column.total_compressed_size)
        for column in (group.column(group.num_columns - 2), group.column(group.num_columns - 1))
    )
    odd = content[: last[0]] + content[before[0] : sum(before)] + content[last[0] :]
    rows = pq.read_table(pa.BufferReader(odd), page_checksum_verification=True)
    assert rows.column(rows.num_columns - 1).to_pylist() == rows.column(rows.num_columns - 2).to_pylist()
    path.write_bytes(odd)
    assert store.committed_ids(build, "response_id").tolist() == [b"c"]
    assert Path(f"{path}.bad").read_bytes() == odd


def test_a_parquet_of_other_columns_is_set_aside(build):
    path = Path(build.url, "part-9.parquet")
    pq.write_table(pa.table({"x": [1]}), path)
    assert store.committed_ids(build, "response_id").tolist() == [b"a", b"b", b"c"]
    assert Path(f"{path}.bad").exists()


def test_what_is_set_aside_is_never_replaced(build):
    for content in (b"one", b"two", b"three"):
        Path(build.url, "part-0.parquet").write_bytes(content)
        store.committed_ids(build, "response_id")
    aside = {name: content for name, content in files_of(build.url).items() if name.endswith(".bad")}
    assert sorted(aside.values()) == [b"one", b"three", b"two"]
    store.remove_unfinished(build)
    assert files_of(build.url) == aside


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"5", b'["A", 1, 1, null', b'["A", "1", 1, null]', b"\xff"])
def test_a_damaged_reply_is_asked_again_and_its_file_is_kept(tmp_path, content):
    cache, key = CallCache(str(tmp_path)), "ab" + "0" * 62
    cache.put(key, Reply("A", "", 1, 1))
    path = tmp_path / "ab" / f"{key}.json"
    path.write_bytes(content)
    assert cache.get(key) is None
    cache.put(key, Reply("B", "", 1, 1))
    assert cache.get(key) == Reply("B", "", 1, 1)
    assert Path(f"{path}.bad").read_bytes() == content


def test_a_reply_that_cannot_be_read_once_is_not_paid_again(tmp_path, faults):
    cache, key = CallCache(str(tmp_path)), "0" * 64
    cache.put(key, Reply("A", "", 1, 1))
    faults("cat_file", PASSING[0])
    assert cache.get(key) == Reply("A", "", 1, 1)


# --- damage of finished builds


@pytest.fixture
def finished(build) -> Build:
    store.commit(build, ResponsesDetails(path="r.csv", responses=3), ["r.csv"])
    return build


def make_again(build: Build) -> store.Manifest:
    """What a stage does."""
    existing = store.reusable(build)
    if existing:
        return existing
    store.write_part(build, responses("a", "b"), "0")
    store.write_part(build, responses("c"), "1", "theory=svt/value=power")
    return store.commit(build, ResponsesDetails(path="r.csv", responses=3), ["r.csv"])


DAMAGES = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "empty": lambda path: path.write_bytes(b""),
    "missing": lambda path: path.unlink(),
    "one bit": lambda path: path.write_bytes(
        bytes([path.read_bytes()[0]]) + bytes([path.read_bytes()[1] ^ 1]) + path.read_bytes()[2:]
    ),
}


@pytest.mark.parametrize("name", ["part-0.parquet", "theory=svt/value=power/part-1.parquet"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_part_of_a_finished_build_is_made_again_and_the_build_is_what_it_was(finished, name, damage):
    before = files_of(finished.url)
    DAMAGES[damage](Path(finished.url, name))
    damaged = files_of(finished.url)
    with pytest.raises(DamageError, match=r"rerun the command"):
        store.verify(finished)
    assert files_of(finished.url) == damaged  # a reader sets nothing aside
    make_again(finished)
    after = files_of(finished.url)
    assert {path: content for path, content in after.items() if not path.endswith(".bad")} == before
    if damage != "missing":
        assert after[f"{name}.bad"] == damaged[name]
    store.verify(finished)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"table": "responses"}', b"\xff"])
def test_a_damaged_manifest_is_set_aside_and_the_parts_stay(finished, content):
    parts = {name: text for name, text in files_of(finished.url).items() if name.endswith(".parquet")}
    Path(finished.manifest_url).write_bytes(content)
    assert store.reusable(finished) is None
    assert files_of(finished.url) == parts | {"_manifest.json.bad": content}
    assert make_again(finished).num_rows == 3
    store.verify(finished)


def test_a_whole_finished_build_is_not_touched(finished):
    before = {path: os.stat(path).st_mtime_ns for path in map(str, Path(finished.url).rglob("*"))}
    for _ in range(2):
        make_again(finished)
    assert {path: os.stat(path).st_mtime_ns for path in map(str, Path(finished.url).rglob("*"))} == before


def test_weather_is_no_damage_of_a_finished_build(finished, faults):
    before = files_of(finished.url)
    faults("cat_file", PASSING[0], times=3)
    assert store.reusable(finished)
    faults("cat_file", PASSING[0], times=10**6)
    with pytest.raises(StorageError):
        store.reusable(finished)
    assert files_of(finished.url) == before


def test_builds_of_one_stage_are_made_again_together(finished):
    other = finished._replace(table="texts")
    assert store.reusable_together([finished, other]) is None
    assert store.manifest(finished) is None
    assert make_again(finished).num_rows == 3
    assert store.reusable_together([finished]) is not None


def test_a_file_that_a_person_filled_in_is_not_replaced(tmp_path):
    url = f"{tmp_path}/human_queue.csv"
    write_for_people(url, b"text,rating\na,\n")
    write_for_people(url, b"text,rating\na,\n")
    assert os.listdir(tmp_path) == ["human_queue.csv"]
    Path(url).write_bytes(b"text,rating\na,5\n")
    write_for_people(url, b"text,rating\na,\n")
    assert files_of(tmp_path) == {"human_queue.csv": b"text,rating\na,\n", "human_queue.csv.bad": b"text,rating\na,5\n"}


# --- writers that end


def test_files_of_killed_writers_are_removed_by_the_next_one_and_those_of_live_ones_stay(tmp_path, monkeypatch):
    monkeypatch.setattr("valueflow.store.files._swept", set())
    (tmp_path / "part-1.parquet.0123.tmp").write_bytes(b"PAR1")
    with open(tmp_path / "part-2.parquet.4567.tmp", "wb") as live:
        fcntl.flock(live, fcntl.LOCK_EX)
        store.write_bytes(f"{tmp_path}/part-0.parquet", b"whole")
        assert sorted(os.listdir(tmp_path)) == ["part-0.parquet", "part-2.parquet.4567.tmp"]


def test_a_finished_build_holds_no_file_of_a_killed_writer(build):
    (Path(build.url) / "theory=svt/value=power/part-7.parquet.0123.tmp").write_bytes(b"PAR1")
    store.commit(build, ResponsesDetails())
    assert not list(Path(build.root).rglob("*.tmp"))


WRITER = """
import sys
import pyarrow as pa
import pyarrow.parquet as pq
from valueflow import store
from valueflow.records import text_id

build = store.Build(sys.argv[1], "responses", "b1")
done = store.committed_ids(build, "response_id")
print(flush=True)
for number in range(1000):
    ids = [text_id(f"{number}-{row}") for row in range(50)]
    if store.missing_from(pa.chunked_array([ids]), done).to_pylist() == [False] * 50:
        continue
    columns = {"response_id": ids, "query": ["q"] * 50, "dataset": ["d"] * 50, "response": [str(number)] * 50}
    store.write_part(build, pa.table(columns), f"{number:04d}")
"""


@pytest.mark.timeout(300)
def test_what_is_left_by_writers_killed_at_random_is_whole(tmp_path):
    """Kills by SIGKILL: parts are whole or absent, and one file of a killed writer is there at most, until the next writes."""
    build = Build(str(tmp_path), "responses", "b1")
    moments, before = random.Random(3), 0
    for _ in range(int(os.environ.get("KILLS", "5"))):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], cwd=REPOSITORY, stdout=subprocess.PIPE)
        assert writer.stdout
        writer.stdout.readline()
        time.sleep(moments.uniform(0, 0.3))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        rows = [store.read_part(build, path) for path in store.part_paths(build)]
        assert all(part.num_rows == 50 and len(set(part["response"].to_pylist())) == 1 for part in rows)
        assert len(rows) >= before
        before = len(rows)
        assert len(list(Path(build.url).glob("*.tmp"))) <= 1
    manifest = store.commit(build, ResponsesDetails())
    assert manifest.num_rows == 50 * before
    assert store.committed_ids(build, "response_id").tolist() == sorted(
        text_id(f"{number}-{row}").encode() for number in range(before) for row in range(50)
    )
    assert not [name for name in files_of(tmp_path) if name.endswith((".tmp", ".bad"))]


# --- disks that are full or read-only


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", disk], capture_output=True, check=False).returncode:
        pytest.skip("no permission to mount a disk")
    yield disk
    subprocess.run(["umount", disk], check=True)


IMPORT = textwrap.dedent(
    """
    import sys
    from jobs import import_vidb
    from valueflow.job import run_job

    sys.argv = ["import_vidb", *sys.argv[1:]]
    run_job(import_vidb.SCHEMA, import_vidb.main)
    """
)


def import_command(root: Path, folder: Path) -> list[str]:
    """The arguments of a job that imports 300 texts."""
    texts = "".join(f'{{"theory": "svt", "value": "power", "text": "I lead {i}.", "intensity": 1}}\n' for i in range(300))
    (folder / "rated.jsonl").write_text(texts)
    (folder / "import.yaml").write_text(f"{{root: {root}, files: [{folder}/rated.jsonl], license: MIT}}")
    return ["import_vidb", f"{folder}/import.yaml"]


def import_job(root: Path, folder: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", IMPORT, *import_command(root, folder)[1:]]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)


def one_line(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("error: ")
    return line


def test_a_full_disk_is_one_line_and_leaves_nothing_half(small_disk, tmp_path):
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space"):
        filler.write_bytes(b"0" * (1 << 20))
    assert "no space" in one_line(import_job(small_disk / "root", tmp_path))
    assert not list(small_disk.rglob("*.tmp"))
    filler.unlink()
    done = import_job(small_disk / "root", tmp_path)
    assert done.returncode == 0, done.stderr
    version = store.current(str(small_disk / "root")).version
    assert version is not None
    store.verify(Build(str(small_disk / "root"), "vidb", version))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full is Linux's")
def test_a_job_whose_output_is_full_is_one_line(tmp_path):
    command = [sys.executable, "-c", IMPORT, *import_command(tmp_path / "root", tmp_path)[1:]]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, cwd=REPOSITORY, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    assert "No space left on device" in one_line(done)
    assert store.current(str(tmp_path / "root")).version is not None


@pytest.mark.parametrize(("number", "remedy"), [(errno.ENOSPC, "no space"), (errno.EROFS, "read-only")])
def test_a_disk_that_refuses_writes_is_one_line_and_leaves_nothing_half(tmp_path, monkeypatch, capsys, number, remedy):
    """Without permission to mount a disk: the job in this process, whose bytes never reach the disk."""

    def refuse(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(sys, "argv", import_command(tmp_path / "root", tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(SystemExit) as end:
            run_job(import_vidb.SCHEMA, import_vidb.main)
    assert end.value.code == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("error: cannot write ")
    assert remedy in line
    assert store.current(str(tmp_path / "root")).version is None
    assert not [name for name in files_of(tmp_path / "root") if name.endswith((".tmp", ".parquet", "_manifest.json"))]
    run_job(import_vidb.SCHEMA, import_vidb.main)
    version = store.current(str(tmp_path / "root")).version
    assert version is not None
    store.verify(Build(str(tmp_path / "root"), "vidb", version))


def test_a_read_only_disk_is_one_line_and_can_be_read(small_disk, tmp_path):
    done = import_job(small_disk / "root", tmp_path)
    assert done.returncode == 0, done.stderr
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert import_job(small_disk / "root", tmp_path).returncode == 0  # all is done: nothing is written
    assert "read-only" in one_line(import_job(small_disk / "another", tmp_path))
