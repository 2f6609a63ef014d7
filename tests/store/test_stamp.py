"""A manifest is read once by a process, and again when it was written again; whoever makes a build looks each time."""

import os
import time
from pathlib import Path

import pyarrow as pa
import pytest

from valueflow import store
from valueflow.errors import DamageError
from valueflow.records import SCHEMAS
from valueflow.store import Build, WindowsDetails, files
from valueflow.store.stamp import stamp


def windows(ids: list[str]) -> pa.Table:
    rows = [{"window_id": f"{i:0>16}", "theory": "svt", "value": "power", "text_ids": ["a", "b"], "round": 0} for i in ids]
    return pa.Table.from_pylist(rows, SCHEMAS["windows"])


@pytest.fixture
def build(tmp_path: Path) -> Build:
    build = Build(str(tmp_path), "windows", "b")
    return committed(build, ["1", "2"])


def committed(build: Build, ids: list[str]) -> Build:
    file = store.write_part(build, windows(ids), "0", "theory=svt/value=power")
    store.commit(build, WindowsDetails(windows=len(ids)), [], [file])
    return build


def aged(build: Build) -> Build:
    at = time.time() - 60
    os.utime(build.manifest_url, (at, at))
    return build


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    read: list[str] = []
    before = files.read_bytes
    monkeypatch.setattr("valueflow.store.files.read_bytes", lambda url: (read.append(url), before(url))[1])
    return read


def test_a_manifest_is_read_once(build, reads):
    aged(build)
    first = store.require_manifest(build)
    assert [store.require_manifest(build) for _ in range(3)] == [first] * 3
    assert reads == [build.manifest_url]


def test_a_manifest_that_was_written_again_is_read_again(build, reads):
    aged(build)
    assert store.require_manifest(build).num_rows == 2
    committed(build, ["1", "2", "3"])
    assert store.require_manifest(build).num_rows == 3
    assert store.require_manifest(aged(build)).num_rows == 3


def test_a_manifest_of_a_moment_ago_is_read_each_time(build, reads):
    assert stamp(build.manifest_url) == ""
    assert store.require_manifest(build) == store.require_manifest(build)
    assert len(reads) == 2


def test_there_is_no_stamp_of_nothing(tmp_path):
    assert stamp(f"{tmp_path}/nothing") == ""


def test_whoever_makes_a_build_looks_at_its_files_each_time(build):
    aged(build)
    store.require_manifest(build)
    Path(build.url, store.require_manifest(build).files[0].path).unlink()
    with pytest.raises(DamageError, match="gone"):
        store.read_table(build)
    assert store.reusable(build) is None
