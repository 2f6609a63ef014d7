"""Files of a build that has many are listed in a Parquet file beside the manifest; nobody who reads the build notices."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from valueflow import store
from valueflow.errors import DamageError
from valueflow.records import SCHEMAS
from valueflow.store import Build, WindowsDetails


@pytest.fixture
def build(tmp_path: Path, monkeypatch) -> Build:
    monkeypatch.setattr("valueflow.store.file_list.MAX_IN_MANIFEST", 3)
    return Build(str(tmp_path), "windows", "b")


def commit(build: Build, parts: int) -> store.Manifest:
    files = []
    for n in range(parts):
        row = {"window_id": f"{n:0>16}", "theory": "svt", "value": "power", "text_ids": ["a", "b"], "round": 0}
        rows = pa.Table.from_pylist([row], SCHEMAS["windows"])
        files.append(store.write_part(build, rows, f"{n}", "theory=svt/value=power"))
    return store.commit(build, WindowsDetails(windows=parts), [], files)


def file_list(build: Build) -> Path:
    (path,) = Path(build.url).glob("_files-*")
    return path


def test_a_long_list_is_read_like_a_short_one(build, monkeypatch):
    written = commit(build, 5)
    saved = json.loads(Path(build.manifest_url).read_text())
    assert (saved["files"], saved["file_list"]["rows"]) == ([], 5)
    assert store.manifest(build) == written == store.reusable(build)
    assert store.read_table(build)["window_id"].to_pylist() == [f"{n:0>16}" for n in range(5)]
    monkeypatch.undo()
    short = commit(Build(build.root, "windows", "c"), 5)
    assert "file_list" not in json.loads(Path(Build(build.root, "windows", "c").manifest_url).read_text())
    assert short.files == written.files


def test_a_short_list_stays_in_the_manifest(build):
    commit(build, 3)
    assert not list(Path(build.url).glob("_files-*"))


@pytest.mark.parametrize("damage", [b"", b"PAR1", None])
def test_a_list_that_is_damaged_or_gone_is_named_and_made_again(build, damage):
    commit(build, 5)
    path = file_list(build)
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage)
    with pytest.raises(DamageError, match="_files-"):
        store.manifest(build)
    assert store.reusable(build) is None
    assert commit(build, 5) == store.manifest(build)
