"""Users' files, models and folders of trainings: a failure that passes changes nothing, one that lasts is one sentence."""

import errno
import hashlib
import os
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileOpener, LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from valueflow import store
from valueflow.distributed.build.ingest import _content_hash
from valueflow.errors import InputError, StorageError
from valueflow.models import fetch
from valueflow.tabular import columns, rows, urls

WEATHER = OSError(errno.EIO, "Input/output error")
TEXTS = [f"text {i}" for i in range(20_000)]
# Where reading a table may fail: its place, the folder of a glob, the file's beginning, and the reads.
OPERATIONS = [(LocalFileSystem, "info"), (LocalFileSystem, "ls"), (LocalFileSystem, "open"), (LocalFileOpener, "read")]


@pytest.fixture(params=["csv", "jsonl", "parquet"])
def table(request, tmp_path) -> Path:
    """A table that is not read at once."""
    path = tmp_path / "data" / f"t.{request.param}"
    path.parent.mkdir()
    if request.param == "parquet":
        pq.write_table(pa.table({"text": TEXTS}), path, row_group_size=1000)
    else:
        lines = [f'{{"text": "{text}"}}' if request.param == "jsonl" else text for text in TEXTS]
        path.write_text("\n".join(lines if request.param == "jsonl" else ["text", *lines]) + "\n")
    return path


def texts_of(path: Path) -> list[str]:
    """As jobs read a glob of files."""
    (file,) = urls(f"{path.parent}/*")
    assert columns(file) == ["text"]
    values = [row.fields["text"] for row in rows(file, ["text"])]
    return [value.decode() if isinstance(value, bytes) else value for value in values]


@pytest.mark.parametrize(("system", "method"), OPERATIONS, ids=lambda part: getattr(part, "__name__", part))
def test_a_users_file_that_fails_some_times_has_the_same_rows(table, faults, system, method):
    calls = faults(method, WEATHER, 3, of=system)
    assert texts_of(table) == TEXTS
    assert len(calls) > 3


@pytest.mark.parametrize(("system", "method"), OPERATIONS, ids=lambda part: getattr(part, "__name__", part))
def test_a_users_file_that_fails_for_good_is_not_said_to_be_absent(table, faults, system, method):
    faults(method, WEATHER, 10**6, of=system)
    with pytest.raises(StorageError, match="Input/output error") as raised:
        texts_of(table)
    assert "\n" not in str(raised.value)


def test_a_read_that_fails_in_the_middle_goes_on_at_its_place(table, monkeypatch):
    real, count = LocalFileOpener.read, [0]

    def read(self, *args):
        count[0] += 1
        if count[0] % 2:
            real(self, 10)  # the place is lost
            raise WEATHER
        return real(self, *args)

    monkeypatch.setattr("valueflow.retry.BACKOFF", 0.0)
    monkeypatch.setattr(LocalFileOpener, "read", read)
    assert texts_of(table) == TEXTS
    assert count[0] > 4


@pytest.mark.parametrize(("system", "method"), [OPERATIONS[0], *OPERATIONS[2:]])
def test_the_hash_of_a_corpus_outlasts_weather(table, faults, system, method):
    expected = [hashlib.sha256(table.read_bytes()).hexdigest()]
    faults(method, WEATHER, 3, of=system)
    assert _content_hash(str(table)) == expected
    faults(method, WEATHER, 10**6, of=system)
    with pytest.raises(StorageError):
        _content_hash(str(table))


def test_a_glob_is_that_of_the_file_system(tmp_path):
    for name in ("a.csv", "b.jsonl", "x/a.csv", "x/c.csv", "x/y/a.csv", "z/a.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    fs = LocalFileSystem()
    for pattern in (
        "*.csv",
        "*",
        "?.csv",
        "[ab].*",
        "*/a.csv",
        "x/*",
        "x/*/*.csv",
        "**/a.csv",
        "nothing/*.csv",
        "a.csv/*",
    ):
        assert store.glob(f"{tmp_path}/{pattern}") == [fs.unstrip_protocol(p) for p in sorted(fs.glob(f"{tmp_path}/{pattern}"))]
    assert store.glob(f"{tmp_path}/a.csv") == []


def test_what_is_no_file_is_told_from_what_is_not_there(tmp_path):
    for name, message in (
        ("missing.csv", "does not exist"),
        ("", "is a folder"),
        ("*.csv", "does not exist"),
        ("a\0.csv", "NUL"),
    ):
        with pytest.raises(InputError, match=message) as raised:
            urls(f"{tmp_path}/{name}")
        assert not isinstance(raised.value, StorageError)


@pytest.fixture
def model():
    """The URL of a model folder that is not of this machine."""
    memory = fsspec.filesystem("memory")
    memory.pipe({"/model/config.json": b"{}", "/model/1_Pooling/config.json": b"{}", "/model/weights": b"w" * 1000})
    yield "memory://model"
    memory.rm("/model", recursive=True)


@pytest.mark.parametrize("method", ["info", "find", "_open"])
def test_a_model_behind_a_url_outlasts_weather(model, tmp_path, monkeypatch, faults, method):
    monkeypatch.setenv("VALUEFLOW_CACHE", str(tmp_path / "cache"))
    faults(method, WEATHER, 2, of=MemoryFileSystem)
    folder = Path(fetch(model))
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) == [
        "1_Pooling/config.json", "config.json", "weights",
    ]  # fmt: skip
    assert (folder / "weights").read_bytes() == b"w" * 1000
    monkeypatch.setenv("VALUEFLOW_CACHE", str(tmp_path / "another"))
    faults(method, WEATHER, 10**6, of=MemoryFileSystem)
    with pytest.raises(StorageError):
        fetch(model)


def test_folders_are_removed_and_uploaded_whatever_the_weather(model, tmp_path, faults):
    (tmp_path / "curves" / "run").mkdir(parents=True)
    (tmp_path / "curves" / "run" / "events").write_bytes(b"e")
    faults("_open", WEATHER, 2, of=MemoryFileSystem)
    store.upload(f"{tmp_path}/curves", f"{model}/curves")
    assert fsspec.filesystem("memory").cat_file("/model/curves/run/events") == b"e"
    calls = faults("rm", WEATHER, 2)
    store.remove_folder(f"{tmp_path}/curves")
    assert (len(calls), os.listdir(tmp_path)) == (3, [])
    store.remove_folder(f"{tmp_path}/curves")
    faults("rm", WEATHER, 10**6)
    with pytest.raises(StorageError, match="cannot remove"):
        store.remove_folder(f"{tmp_path}/curves")
