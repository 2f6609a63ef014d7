"""A finished build is what its manifest says, or that is said: half-copied folders and edits by hand, in every table."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from table_samples import COUNTS, FOLDER, OTHER, TABLES, VALUES, Anything, made, row

from valueflow import store, vidb
from valueflow.errors import DamageError
from valueflow.records import SCHEMAS
from valueflow.store import Build


def edit(build: Build, change: Callable[[dict], object], without: tuple[str, ...] = ()) -> None:
    path = Path(build.manifest_url)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps({key: value for key, value in content.items() if key not in without}))


def rewrite(build: Build, path: str) -> None:
    """Another part of the same size in place of one, as where two roots are mixed."""
    file = Path(build.url) / path
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 1
    file.write_bytes(content)


def fewer_files(content: dict) -> None:
    content["files"] = content["files"][1:]


BY_HAND: dict[str, Callable[[dict], object]] = {
    "one file less": fewer_files,
    "another number": lambda content: content["files"][0].update(rows=7),
    "another setting": lambda content: content["config"].update(calibrations={}),
    "another count": lambda content: content["counts"].update(errors=7),
    "another input": lambda content: content.update(inputs=[{"url": "other.csv"}]),
    "another version of the code": lambda content: content.update(code_version="0"),
}


@pytest.mark.parametrize("table", TABLES)
def test_a_whole_build_is_read_and_used_again(tmp_path, table):
    build = made(tmp_path, table)
    assert store.read_table(build).num_rows == store.require_manifest(build).num_rows == 5
    assert store.reusable(build)
    store.verify(build)


@pytest.mark.parametrize("change", BY_HAND)
@pytest.mark.parametrize("table", TABLES)
def test_a_manifest_that_was_edited_by_hand_is_named(tmp_path, table, change):
    build = made(tmp_path, table)
    edit(build, BY_HAND[change])
    for read in (store.require_manifest, store.read_table, store.verify):
        with pytest.raises(DamageError, match=rf"{table}/b1/_manifest.json is damaged.*changed after it was written"):
            read(build)
    assert store.reusable(build) is None
    assert not store.manifest(build)  # it is made again, and what was there is kept
    assert Path(f"{build.manifest_url}.bad").exists()


@pytest.mark.parametrize("table", TABLES)
def test_a_part_that_no_manifest_lists_is_named(tmp_path, table):
    build = made(tmp_path, table)
    stray = Path(build.url) / FOLDER / "part-stray.parquet"
    shutil.copy(Path(build.url) / OTHER / "part-0.parquet", stray)
    with pytest.raises(DamageError, match=r"part-stray.parquet is not in its manifest"):
        store.read_table(build)
    assert store.reusable(build) is None
    assert not stray.exists()
    assert Path(f"{stray}.bad").exists()


@pytest.mark.parametrize("table", TABLES)
def test_a_part_of_another_root_is_named_where_it_is_read(tmp_path, table):
    build = made(tmp_path, table)
    rewrite(build, f"{OTHER}/part-0.parquet")
    assert store.read_table(build, folder=FOLDER).num_rows == 3
    with pytest.raises(DamageError, match=rf"{OTHER}/part-0.parquet is damaged"):
        store.read_table(build)


@pytest.mark.parametrize("table", [*COUNTS, *VALUES])
def test_a_manifest_of_earlier_code_is_believed_only_as_far_as_its_numbers_agree(tmp_path, table):
    """One without a digest, and without the part that it no longer lists."""
    build = made(tmp_path, table)
    edit(build, lambda content: None, without=("digest",))
    assert store.reusable(build)
    assert store.read_table(build).num_rows == 5
    edit(build, fewer_files)
    (gone,) = {f"{FOLDER}/part-0.parquet", f"{OTHER}/part-0.parquet"} - {f.path for f in files_of(build)}
    (Path(build.url) / gone).unlink()
    with pytest.raises(DamageError, match=r"b1 has .* in its manifest"):
        store.read_table(build)
    assert store.reusable(build) is None


def test_a_manifest_without_its_digest_is_named(tmp_path):
    build = made(tmp_path, "windows", (made(tmp_path, "candidates"),))
    edit(build, lambda content: None, without=("digest",))
    with pytest.raises(DamageError, match=r"_manifest.json is damaged.*its digest is missing"):
        store.manifest(build)


def files_of(build: Build) -> list[store.File]:
    return [store.File.model_validate(file) for file in json.loads(Path(build.manifest_url).read_text())["files"]]


@pytest.mark.parametrize("table", ["rankings", "votes", "names"])
def test_answers_that_an_old_manifest_does_not_list_are_not_lost(tmp_path, table):
    build = made(tmp_path, table)
    edit(build, fewer_files, without=("digest",))
    assert store.reusable(build) is None
    assert store.committed_ids(build, SCHEMAS[table].names[0]).size == 5


@pytest.mark.parametrize("table", sorted(set(TABLES) - {"texts"}))
def test_an_input_that_changed_is_seen(tmp_path, table, caplog):
    source = made(tmp_path, "texts")
    build = made(tmp_path, table, (source, "users.csv"))
    assert store.require_manifest(build).inputs[0].content == store.require_manifest(source).content
    assert store.reusable(build)
    shutil.rmtree(source.url)
    assert store.reusable(build)  # an input may be gone
    store.write_part(source, pa.Table.from_pylist([row(SCHEMAS["texts"], 9)], SCHEMAS["texts"]), "0", FOLDER)
    store.commit(source, Anything())
    if table == "vidb":
        with pytest.raises(DamageError, match=r"vidb/b1 is whole, but texts/b1 is not what it was made from"):
            store.reusable(build)
        assert store.read_table(build).num_rows == 5
        return
    assert store.reusable(build) is None
    assert "texts/b1 is not what it was made from" in caplog.text or "texts/b1 has 5 rows, 1 were planned" in caplog.text


@pytest.mark.parametrize("table", TABLES)
def test_an_input_that_was_made_again_as_it_was_changes_nothing(tmp_path, table):
    source = made(tmp_path, "candidates")
    build = made(tmp_path, table, (source,)) if table != "candidates" else source
    shutil.rmtree(source.url)
    made(tmp_path, "candidates")
    assert store.reusable(build)


def test_rows_are_those_of_the_plan_also_in_builds_of_earlier_code(tmp_path, caplog):
    plan = made(tmp_path, "windows")
    rankings = Build(str(tmp_path), "rankings", "b1")
    store.write_part(rankings, pa.Table.from_pylist([row(SCHEMAS["rankings"], n) for n in range(4)], SCHEMAS["rankings"]), "0")
    store.commit(rankings, Anything(), [plan])
    edit(rankings, lambda content: content["inputs"][0].pop("content"), without=("digest",))
    assert store.reusable(rankings) is None
    assert "has 4 rows, 5 were planned" in caplog.text


def test_a_changed_calibration_is_not_served(tmp_path):
    rows = [{"theory": "svt", "value": "power", "text": f"t{i}", "intensity": i} for i in range(3)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    version, _ = vidb.import_version([str(tmp_path / "a.jsonl")], "MIT", "x", str(tmp_path))
    edit(version, lambda content: content["config"]["calibrations"]["svt:power"].update(intensity=[0.0, 1.0]))
    with pytest.raises(DamageError, match=rf"{version.build_id}/_manifest.json is damaged"):
        vidb.load(str(tmp_path), version.build_id)
    again, _ = vidb.import_version([str(tmp_path / "a.jsonl")], "MIT", "x", str(tmp_path))
    assert again == version
    assert vidb.load(str(tmp_path), version.build_id).manifest.num_rows == 3


def test_a_stray_file_of_a_model_folder_is_named(tmp_path):
    """It could make transformers load another model."""
    build = Build(str(tmp_path), "hives", "b1")
    files = [store.write_file(build, "model/config.json", b"{}")]
    store.write_file(build, "tensorboard/events", b"x")
    store.commit(build, store.HivesDetails(), files=files)
    assert store.manifest(build)
    store.write_file(build, "model/adapter_config.json", b"{}")
    with pytest.raises(DamageError, match=r"model/adapter_config.json is not in its manifest"):
        store.manifest(build)
