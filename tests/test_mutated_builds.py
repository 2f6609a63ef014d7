"""Whatever bytes a file under a root holds, it is read as it was written or refused in one sentence.

Where a manifest agrees with the bytes, because somebody handed over both, every number is still finite and of its table.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from foreign import foreign_version
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import mutated, mutations, odd_json, reading
from table_samples import FOLDER, OTHER, TABLES, made, row

from valueflow import store, vidb
from valueflow.api import Agreement
from valueflow.errors import DamageError
from valueflow.evaluation.regression import RidgeLine, _load, _save, training_texts
from valueflow.evaluation.sharpness import SharpnessFile
from valueflow.judging.audit.result import AccuracyGroup, AuditConfig, AuditResult
from valueflow.llm.cache import CallCache, Reply
from valueflow.models import fetch
from valueflow.people.pool import version_pool
from valueflow.ranking.content_error import ContentError
from valueflow.records import SCHEMAS, ValueId
from valueflow.service.catalog import Catalog
from valueflow.service.local import judge_of
from valueflow.store import Build
from valueflow.store.manifests import part_paths
from valueflow.vidb import validity
from valueflow.vidb.publish import _review_of_version
from valueflow.vidb.validity import ValidityRecord, of_judge

POWER, BENEVOLENCE = ValueId("svt:power"), ValueId("svt:benevolence")
KEY = "ab" + "0" * 62
ERROR = ContentError(slope=0.5, sd=2.0, shared_sd=0.25, basis="record", n=40, source="40 rated texts")


class Kept(NamedTuple):
    """A file under a root: how it is written, found and read."""

    write: Callable[[Path], object]
    find: Callable[[Path], Path]
    read: Callable[[Path], object]


def only(pattern: str) -> Callable[[Path], Path]:
    return lambda root: next(path for path in root.glob(pattern) if path.is_file())


def version(root: Path) -> vidb.Vidb:
    return vidb.load(str(root))


def audit_result() -> AuditResult:
    group = AccuracyGroup(label="near", distance=1.5, estimate=0.75, low=0.5, high=0.875, n=40)
    fields: dict[str, Any] = dict.fromkeys(("num_contradictions", "num_triples", "num_windows"), 1)
    fields |= {"tokens_in": 80.5, "tokens_out": 1.25, "windows_per_second": 2.5, "cost_per_thousand": None, "currency": "USD"}
    return AuditResult(
        judge="j", created="2026", passed=True, reasons=[], advice=[], metrics=[], by_distance=[group], by_value=[],
        contradictions=[], config=AuditConfig(), **fields,
    )  # fmt: skip


def validity_record() -> ValidityRecord:
    return ValidityRecord(
        judge="j", fingerprint="77aa", created="2026", vidb_version="v-1", ratings="r.csv", num_texts=40, num_values=1,
        held_out_coverage=0.9375, content_errors={POWER: ERROR},
    )  # fmt: skip


def fast_fit(root: Path) -> None:
    of = vidb.load(str(root))
    line = RidgeLine(np.array([0.5, -0.25, 2.0]), 0.125, 3.5)
    agreement = Agreement(value=BENEVOLENCE, texts=60, spearman=0.5, mean_absolute_error=1.0, coverage=0.9, width=7.0)
    _save(Build(str(root), "fast", "f1"), of, "m", np.array([1.0, 0.0, 0.0]), {BENEVOLENCE: (line, agreement)})


def fast_scores(root: Path) -> object:
    build = Build(str(root), "fast", "f1")
    regression = _load(build, store.require_manifest(build), vidb.load(str(root)), "m", np.array([1.0, 0.0, 0.0]))
    return {value: [numbers.tolist() for numbers in regression(np.eye(3), value)] for value in regression.lines}


def journal(root: Path) -> store.Journal:
    return store.Journal(Build(str(root), "rankings", "j1"), "window_id")


def committed(root: Path) -> None:
    """Two parts of answers with their records, without a manifest."""
    schema, of = SCHEMAS["rankings"], journal(root)
    for folder, numbers in ((FOLDER, range(3)), (OTHER, range(3, 5))):
        rows = pa.Table.from_pylist([row(schema, n, folder) for n in numbers], schema)
        of.add(store.write_recorded(of.build, rows, "0", folder, "window_id"))
    of.save()


def resumed(root: Path) -> object:
    of = journal(root)
    return {folder: ids.tolist() for folder, ids in of.load().items()}, of.totals, sorted(of.files.items())


KEPT: dict[str, Kept] = {
    "pointer": Kept(lambda root: None, only("vidb/CURRENT"), lambda root: store.current(str(root)).version),
    "manifest": Kept(lambda root: None, only("vidb/*/_manifest.json"), lambda root: version(root).manifest.model_dump()),
    "part of a version": Kept(
        lambda root: None,
        only("vidb/*/*/*/*.parquet"),
        lambda root: store.read_table(version(root).build).to_pylist(),
    ),
    "reply": Kept(
        lambda root: CallCache(f"{root}/cache").put(KEY, Reply("A > B", "", 120, 12, 0.25)),
        only("cache/ab/*.json"),
        lambda root: CallCache(f"{root}/cache").get(KEY),
    ),
    "sharpness": Kept(
        lambda root: SharpnessFile(version(root), "77aa").put(POWER, 0.75),
        only("cache/sharpness/*.json"),
        lambda root: SharpnessFile(version(root), "77aa").get(POWER),
    ),
    "validity record": Kept(
        lambda root: validity.save(str(root), validity_record()),
        only("validity/*.json"),
        lambda root: validity.load(str(root), "77aa"),
    ),
    "audit": Kept(
        lambda root: store.write_record(store.audit_url(str(root), "77aa"), audit_result()),
        only("audits/*.json"),
        lambda root: store.read_record(store.audit_url(str(root), "77aa"), AuditResult, "the result of an audit"),
    ),
    "journal": Kept(committed, only("rankings/j1/**/*.records"), resumed),
    "fit of mode fast": Kept(fast_fit, only("fast/f1/*.npz"), fast_scores),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A root with a version and one file of every kind."""
    root = tmp_path_factory.mktemp("whole")
    foreign_version(root, None)
    for kept in KEPT.values():
        kept.write(root)
    return root


@pytest.fixture(scope="module")
def changed(whole, tmp_path_factory) -> Path:
    return shutil.copytree(whole, tmp_path_factory.mktemp("changed") / "root")


def odd_bytes(content: bytes) -> st.SearchStrategy[bytes]:
    changes = mutations.map(lambda operations: mutated(content, operations))
    return odd_json(json.loads(content)) | changes if content[:1] in b"{[" else changes


def check_kept(whole: Path, changed: Path, name: str, data: st.DataObject) -> None:
    kept = KEPT[name]
    path = kept.find(whole)
    content = path.read_bytes()
    target = changed / path.relative_to(whole)
    try:
        target.write_bytes(data.draw(odd_bytes(content)))
        read = reading(lambda: kept.read(changed))
        assert read is None or read == kept.read(whole)
    finally:
        shutil.rmtree(target.parent)  # what is damaged was set aside
        shutil.copytree(path.parent, target.parent)


@pytest.mark.parametrize("name", KEPT)
@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_mutated_file_is_read_as_it_was_written_or_refused(whole, changed, name, data):
    check_kept(whole, changed, name, data)


@pytest.mark.slow
@pytest.mark.parametrize("name", KEPT)
@settings(max_examples=400, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_many_mutated_files_are_read_as_they_were_written_or_refused(whole, changed, name, data):
    check_kept(whole, changed, name, data)


# --- parts of every table


@pytest.fixture(scope="module")
def builds(tmp_path_factory) -> dict[str, Build]:
    root = tmp_path_factory.mktemp("builds")
    return {table: made(root, table) for table in TABLES}


def numbers_of(value: object) -> list[float]:
    if isinstance(value, dict | list):
        return [n for part in (value.values() if isinstance(value, dict) else value) for n in numbers_of(part)]
    return [value] if isinstance(value, float) else []


def agreeing(manifest: dict[str, Any], path: str, content: bytes) -> bytes:
    """The manifest of earlier code, which lists the content."""
    files = [
        file | {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()} if file["path"] == path else file
        for file in manifest["files"]
    ]
    return json.dumps({key: value for key, value in (manifest | {"files": files}).items() if key != "digest"}).encode()


def check_part(build: Build, operations: list) -> None:
    """A part of a finished build, of an unfinished one, and of one that was handed over with its manifest."""
    path = part_paths(build)[0]
    file, manifest_file = Path(build.url) / path, Path(build.manifest_url)
    content, manifest = file.read_bytes(), manifest_file.read_bytes()
    before, rows = store.read_table(build).to_pylist(), store.read_part(build, path).to_pylist()
    try:
        odd = mutated(content, operations)
        file.write_bytes(odd)
        read = reading(lambda: store.read_table(build).to_pylist())
        assert read in (None, before)
        read = reading(lambda: store.read_part(build, path).to_pylist())
        assert read in (None, rows)
        manifest_file.write_bytes(agreeing(json.loads(manifest), path, odd))
        read = reading(lambda: store.read_table(build).to_pylist())
        assert all(map(math.isfinite, numbers_of(read)))
    finally:
        file.write_bytes(content)
        manifest_file.write_bytes(manifest)


@pytest.mark.parametrize("table", TABLES)
@settings(max_examples=4, suppress_health_check=list(HealthCheck))
@given(operations=mutations)
def test_a_mutated_part_is_read_as_it_was_written_or_refused(builds, table, operations):
    check_part(builds[table], operations)


@pytest.mark.slow
@pytest.mark.parametrize("table", TABLES)
@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(operations=mutations)
def test_many_mutated_parts_are_read_as_they_were_written_or_refused(builds, table, operations):
    check_part(builds[table], operations)


# --- a version that was handed over: its manifest holds anything, and its digest agrees


def use(root: Path) -> None:
    """All that is made of a version and its manifest without a judge."""
    loaded = vidb.load(str(root))
    reading(lambda: judge_of(loaded, None))
    reading(lambda: training_texts(loaded))
    reading(lambda: _review_of_version(loaded))
    reading(lambda: Catalog(loaded, of_judge(loaded, "")).load())
    reading(lambda: SharpnessFile(loaded, "77aa"))
    for value in loaded.calibrations:
        anchors = reading(lambda value=value: loaded.anchors(value))
        assert anchors is None or np.isfinite(anchors.theta_A).all()
        reading(lambda value=value: version_pool(loaded.build, value))
        reading(lambda value=value: loaded.sharpness("77aa", value))
        catalog = Catalog(loaded, of_judge(loaded, ""))
        reading(lambda value=value, catalog=catalog: catalog.value(value))


def check_manifest(whole: Path, changed: Path, data: st.DataObject) -> None:
    path = KEPT["manifest"].find(whole)
    tree = {key: value for key, value in json.loads(path.read_bytes()).items() if key != "digest"}
    target = changed / path.relative_to(whole)
    try:
        odd = data.draw(odd_json(tree))
        target.write_bytes(odd)
        reading(lambda: use(changed))
        reading(lambda: store.reusable(version(whole).build._replace(root=str(changed))))
    finally:
        shutil.rmtree(target.parent)  # what is damaged was set aside
        shutil.copytree(path.parent, target.parent)


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_manifest_that_was_handed_over_is_used_or_refused(whole, changed, data):
    check_manifest(whole, changed, data)


@pytest.mark.slow
@settings(max_examples=2_000, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_many_manifests_that_were_handed_over_are_used_or_refused(whole, changed, data):
    check_manifest(whole, changed, data)


DETAILS = [getattr(store, name) for name in dir(store) if name.endswith("Details") and name != "Details"]


@pytest.mark.parametrize("record", DETAILS, ids=lambda record: record.__name__)
@settings(max_examples=4, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_settings_and_counts_of_any_manifest_are_a_record_or_refused(tmp_path_factory, record, data):
    check_details(tmp_path_factory, record, data)


@pytest.mark.slow
@pytest.mark.parametrize("record", DETAILS, ids=lambda record: record.__name__)
@settings(max_examples=200, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_many_settings_and_counts_are_a_record_or_refused(tmp_path_factory, record, data):
    check_details(tmp_path_factory, record, data)


def check_details(tmp_path_factory: pytest.TempPathFactory, record: type[store.Details], data: st.DataObject) -> None:
    """Of every table, with the names of its fields and odd values in them."""
    config = {name: field.get_default(call_default_factory=True) for name, field in record.model_fields.items()}
    tree = {
        "table": "texts", "build_id": "b1", "created": "", "code_version": "", "git_commit": "", "attempt": "", "inputs": [],
        "files": [], "config": config, "counts": config,
    }  # fmt: skip
    root = tmp_path_factory.getbasetemp() / "details"
    build = Build(str(root), "texts", "b1")
    store.write_bytes(build.manifest_url, data.draw(odd_json(tree)))
    reading(lambda: store.details_of(build, record))


# --- folders of encoders


@pytest.mark.parametrize("place", range(5))
def test_a_model_folder_of_a_build_is_what_was_trained(tmp_path, place):
    build = Build(str(tmp_path), "hives", "h1")
    names = [
        "metrics.json",
        "model/1_Pooling/config.json",
        "model/config.json",
        "model/model.safetensors",
        "model/training.json",
    ]
    files = [store.write_file(build, name, f"content of {name}".encode()) for name in names]
    store.commit(build, store.HivesDetails(), files=files)
    folder = f"{build.url}/model"
    assert fetch(folder) == folder
    file = Path(build.url) / names[place]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(DamageError, match=file.name):
        fetch(folder)
