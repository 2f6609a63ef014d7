"""Builds on disk: whole files or none, verified manifests, and one published version."""

import errno
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from valueflow import store
from valueflow.errors import DamageError, InputError, StorageError
from valueflow.records import SCHEMAS, conform, text_id
from valueflow.store import Build, RankingsDetails, ResponsesDetails, VidbDetails


def responses(*ids: str) -> pa.Table:
    same = {name: [name[0]] * len(ids) for name in ("query", "dataset", "response", "about")}
    return pa.table({"response_id": ids} | same)


@pytest.fixture
def build(tmp_path) -> Build:
    return Build(str(tmp_path), "responses", "b1")


@pytest.fixture
def finished(build) -> Build:
    store.write_part(build, responses("a", "b"), "0", "theory=svt/value=power")
    store.write_part(build, responses("c"), "1")
    store.commit(build, ResponsesDetails(path="r.csv", responses=3), [Build("other", "texts", "t1"), "r.csv"])
    return build


def part(build: Build, path: str = "part-1.parquet") -> Path:
    return Path(build.url) / path


def version(root: Path | str, name: str) -> str:
    empty = Build(str(root), "vidb", name)
    store.write_part(empty, SCHEMAS["vidb"].empty_table(), "0")
    store.commit(empty, VidbDetails())
    return name


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_whole(tmp_path, monkeypatch, step):
    url = f"{tmp_path}/folder/file"
    store.write_bytes(url, b"old")

    def full_disk(*_):
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(os, step, full_disk)
    with pytest.raises(StorageError, match="no space"):
        store.write_bytes(url, b"new and longer")
    assert store.read_bytes(url) == b"old"
    assert os.listdir(tmp_path / "folder") == ["file"]


def test_a_half_written_file_is_no_part_of_a_build(build):
    store.write_part(build, responses("a"), "0")
    part(build, "part-1.parquet.0123.tmp").write_bytes(b"PAR1")
    assert store.part_paths(build) == ["part-0.parquet"]
    assert store.commit(build, ResponsesDetails()).num_rows == 1
    store.verify(build)


def test_urls_and_plain_paths_are_the_same_place(finished):
    same = finished._replace(root=f"file://{finished.root}/")
    assert store.require_manifest(same) == store.require_manifest(finished)
    assert store.part_paths(same) == store.part_paths(finished)
    assert store.exists(same.url)


def test_an_unknown_protocol_is_a_sentence():
    with pytest.raises(InputError, match="cannot open 'gopher://x/y'"):
        store.exists("gopher://x/y")


def test_a_manifest_says_what_was_committed(finished):
    manifest = store.require_manifest(finished)
    assert (manifest.config, manifest.counts) == ({"path": "r.csv"}, {"responses": 3})
    assert manifest.details(ResponsesDetails) == ResponsesDetails(path="r.csv", responses=3)
    assert [source.build for source in manifest.inputs] == [Build("other", "texts", "t1"), None]
    assert [source.url for source in manifest.inputs] == ["other/texts/t1", "r.csv"]
    assert manifest.num_rows == 3
    assert [file.path for file in manifest.files] == ["part-1.parquet", "theory=svt/value=power/part-0.parquet"]
    for file in manifest.files:
        assert part(finished, file.path).stat().st_size == file.size
    store.verify(finished)


def test_the_manifest_is_the_same_with_and_without_a_list_of_files(build):
    files = [store.write_part(build, responses(name), name) for name in "cab"]
    manifest = store.commit(build, ResponsesDetails(), files=files)
    assert manifest.files == store.commit(build, ResponsesDetails()).files
    assert manifest.attempt != store.require_manifest(build).attempt


def test_a_part_written_again_replaces_the_first(build):
    store.write_part(build, responses("a", "b"), "0")
    store.write_part(build, responses("c"), "0")
    store.commit(build, ResponsesDetails())
    assert store.read_table(build)["response_id"].to_pylist() == ["c"]


def test_rows_come_back_by_table_folder_and_column(finished):
    assert sorted(store.read_table(finished)["response_id"].to_pylist()) == ["a", "b", "c"]
    inside = store.read_table(finished, ["response_id"], store.value_folder("svt:power"))
    assert inside.to_pydict() == {"response_id": ["a", "b"]}
    assert store.read_table(finished, ["query"], "theory=mft").to_pydict() == {"query": []}


def test_a_folder_is_not_taken_for_another_that_begins_alike(build):
    store.write_part(build, responses("a"), "0", store.value_folder("svt:self"))
    store.write_part(build, responses("b"), "0", store.value_folder("svt:self-direction"))
    store.commit(build, ResponsesDetails())
    assert store.read_table(build, folder=store.value_folder("svt:self"))["response_id"].to_pylist() == ["a"]


def test_builds_without_a_manifest_are_unfinished_and_finished_builds_are_listed(finished):
    unfinished = finished._replace(build_id="b2")
    store.write_part(unfinished, responses("x"), "0")
    assert store.manifest(unfinished) is None
    with pytest.raises(InputError, match=r"no finished 'responses' build 'b2' under .* \(finished: b1\)"):
        store.read_table(unfinished)


@pytest.mark.parametrize(
    "broken",
    [
        b"{",
        b'{"table": "responses"}',
        b"[]",
        b"null",
        b"\xff",
    ],
)
def test_finished_builds_are_listed_oldest_first_and_a_broken_one_is_left_out(build, broken):
    for name in ("z", "a", "m"):
        store.commit(build._replace(build_id=name), ResponsesDetails())
    part(build._replace(build_id="broken"), "_manifest.json").parent.mkdir()
    part(build._replace(build_id="broken"), "_manifest.json").write_bytes(broken)
    assert store.finished(build.root, "responses") == ["z", "a", "m"]
    assert store.finished(build.root, "texts") == []


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"table": "responses"}'])
def test_a_corrupt_manifest_is_named(finished, content):
    part(finished, "_manifest.json").write_text(content)
    with pytest.raises(DamageError, match=r"/responses/b1/_manifest.json is damaged: it is not a manifest"):
        store.manifest(finished)


def test_a_missing_file_is_named(finished):
    part(finished).unlink()
    with pytest.raises(DamageError, match=r"/b1/part-1.parquet is missing, its manifest says \d+; rerun the command"):
        store.manifest(finished)
    with pytest.raises(DamageError, match=r"part-1.parquet is gone"):
        store.read_part(finished, "part-1.parquet")


def test_a_file_of_another_size_is_named(finished):
    content = part(finished).read_bytes()
    part(finished).write_bytes(content[:-7])
    with pytest.raises(InputError, match=rf"part-1.parquet has {len(content) - 7} bytes, its manifest says {len(content)};"):
        store.manifest(finished)


@pytest.mark.parametrize("at", [4, 40, -1])
def test_verify_detects_a_flipped_bit(finished, at):
    content = bytearray(part(finished).read_bytes())
    content[at] ^= 1
    part(finished).write_bytes(content)
    assert store.manifest(finished) is not None
    with pytest.raises(InputError, match=r"part-1.parquet differs from its manifest's hash"):
        store.verify(finished)


def test_an_unreadable_part_is_named_before_a_manifest_lists_it(build):
    store.write_part(build, responses("a"), "0")
    part(build).write_bytes(b"PAR1 cut off")
    with pytest.raises(DamageError, match=r"part-1.parquet is damaged: it is not parquet"):
        store.commit(build, ResponsesDetails())
    with pytest.raises(DamageError, match=r"part-1.parquet is damaged: it is not parquet"):
        store.read_part(build, "part-1.parquet")


def test_resume_counts_existing_rows_and_sets_damaged_parts_aside(build, caplog):
    store.write_part(build, responses("d", "b"), "0")
    store.write_part(build, responses("a", "b"), "2", "theory=svt/value=power")
    whole = part(build, "part-0.parquet").read_bytes()
    for name, content in (("cut", whole[: len(whole) // 2]), ("empty", b""), ("zeros", b"\0" * 100)):
        part(build, f"part-{name}.parquet").write_bytes(content)
    ids = store.committed_ids(build, "response_id")
    assert ids.tolist() == [b"a", b"b", b"d"]
    assert store.part_paths(build) == ["part-0.parquet", "theory=svt/value=power/part-2.parquet"]
    for name in ("cut", "empty", "zeros"):
        assert f"part-{name}.parquet" in caplog.text
        assert part(build, f"part-{name}.parquet.bad").exists()
    assert part(build, "part-cut.parquet.bad").read_bytes() == whole[: len(whole) // 2]


def test_duplicate_ids_are_written_once(build):
    store.write_part(build, responses("b", "a", "b"), "0", "theory=svt/value=power")
    store.write_part(build, responses("c", "d"), "1")
    store.write_part(build, responses("a", "e", "c"), "2")
    store.drop_duplicates(build, "response_id")
    ids = [i for path in store.part_paths(build) for i in store.read_part(build, path)["response_id"].to_pylist()]
    assert sorted(ids) == ["a", "b", "c", "d", "e"]
    before = {path: part(build, path).read_bytes() for path in store.part_paths(build)}
    store.drop_duplicates(build, "response_id")
    assert {path: part(build, path).read_bytes() for path in store.part_paths(build)} == before


LOST = {"error": "no connection", "reply": "", "tokens_in": 0, "tokens_out": 0}
VALID = {"order": [1, 0], "reply": "B", "tokens_in": 200, "tokens_out": 2}


@pytest.fixture
def rankings(tmp_path) -> Build:
    """Two parts of answers, valid and not."""
    build = Build(str(tmp_path), "rankings", "r1")
    paid = {"error": "no complete answer within timeout", "reply": "", "tokens_in": 200, "tokens_out": 8}
    empty = {"error": "empty answer", "reply": "", "tokens_in": 0, "tokens_out": 1}
    of_no_llm = {"error": "not an order", "reply": "I think", "tokens_in": 0, "tokens_out": 0}
    vote = {"error": "not one of the options", "reply": None, "tokens_in": 0, "tokens_out": 0}
    write_answers(
        build, "0", {"a": LOST, "b": VALID, "c": LOST, "d": paid, "e": of_no_llm, "f": vote, "g": empty}, "theory=svt"
    )
    write_answers(build, "1", {"h": LOST, "i": LOST})
    return build


def write_answers(build: Build, name: str, by_id: dict[str, dict], folder: str = "") -> None:
    columns = SCHEMAS["rankings"].names
    rows = [
        dict.fromkeys(columns) | {"window_id": i, "text_ids": ["x", "y"], "round": 0} | answer for i, answer in by_id.items()
    ]
    store.write_part(build, pa.Table.from_pylist(rows, SCHEMAS["rankings"]), name, folder)


def answers_by_id(build: Build) -> dict[str, dict]:
    rows = [row for path in store.part_paths(build) for row in store.read_part(build, path).to_pylist()]
    return {row["window_id"]: row for row in rows}


def test_rows_without_an_answer_that_cost_nothing_are_open_again(rankings):
    before = answers_by_id(rankings)
    store.Journal(rankings, "window_id").load()
    assert answers_by_id(rankings) == {i: row for i, row in before.items() if i in "bdefg"}
    assert store.part_paths(rankings) == ["theory=svt/part-0.parquet"]
    modified = part(rankings, "theory=svt/part-0.parquet").stat().st_mtime_ns
    store.Journal(rankings, "window_id").load()
    assert part(rankings, "theory=svt/part-0.parquet").stat().st_mtime_ns == modified


def test_rows_without_an_answer_are_final_where_they_are_settled_or_the_build_is_finished(rankings):
    before = answers_by_id(rankings)
    store.settle_unanswered(rankings)
    settled = answers_by_id(rankings)
    assert settled == {i: row | ({"reply": None} if i in "achi" else {}) for i, row in before.items()}
    store.Journal(rankings, "window_id").load()
    assert answers_by_id(rankings) == settled
    write_answers(rankings, "2", {"j": LOST})
    store.commit(rankings, RankingsDetails(windows=10, errors=9, tokens_in=0, tokens_out=0))
    store.Journal(rankings, "window_id").load()
    store.settle_unanswered(rankings)
    assert answers_by_id(rankings)["j"]["reply"] == ""
    store.verify(rankings)


def test_a_damaged_part_is_set_aside_by_what_opens_questions_again(rankings):
    part(rankings, "part-1.parquet").write_bytes(b"PAR1 cut off")
    store.Journal(rankings, "window_id").load()
    assert part(rankings, "part-1.parquet.bad").exists()
    assert "h" not in answers_by_id(rankings)


def test_nothing_is_committed_where_nothing_was_begun(build):
    assert store.committed_ids(build, "response_id").tolist() == []
    assert store.part_paths(build) == []
    store.remove_unfinished(build)


def test_clear_removes_an_unfinished_build(build):
    store.write_part(build, responses("a"), "0")
    store.remove_unfinished(build)
    assert not store.exists(build.url)


def test_missing_from_is_the_anti_join():
    rng = np.random.default_rng(0)
    names = np.array([text_id(str(i)) for i in range(200)])
    done = rng.choice(names, 90, replace=False)
    ids = rng.choice(names, 300)
    mask = store.missing_from(pa.chunked_array([ids[:100], ids[100:]]), np.unique(done.astype("S16")))
    assert mask.to_pylist() == [name not in set(done) for name in ids]
    assert store.missing_from(pa.chunked_array([names]), np.empty(0, "S16")).to_pylist() == [True] * 200


def test_what_does_not_fit_its_schema_is_refused_by_column():
    with pytest.raises(InputError, match=r"table 'responses' lacks column\(s\) \['dataset', 'response', 'about'\]; it has"):
        conform(responses("a").select(["response_id", "query"]), "responses")
    odd = responses("a").set_column(0, "response_id", pa.array([["a"]]))
    with pytest.raises(InputError, match="table 'responses' does not fit its schema"):
        conform(odd, "responses")


def test_an_all_null_column_is_written_with_its_type(build):
    store.write_part(build, responses("a").set_column(1, "query", pa.nulls(1)), "0")
    assert store.read_part(build, "part-0.parquet").schema == SCHEMAS["responses"]


def test_texts_that_look_alike_have_one_id():
    assert text_id("cafe\u0301  noir\n") == text_id("caf\u00e9 noir")
    assert text_id("a") != text_id("A")


def test_publishing_moves_the_pointer_and_counts(tmp_path):
    root = str(tmp_path)
    assert store.current(root) == store.Pointer(None, 0, None)
    for sequence, name in enumerate(["v-1", "v-2", "v-3"], 1):
        store.publish(root, version(root, name), store.current(root))
        assert store.current(root)[:2] == (name, sequence)


def test_publishing_the_current_version_again_changes_nothing(tmp_path):
    root = str(tmp_path)
    store.publish(root, version(root, "v-1"), store.current(root))
    before = store.current(root)
    store.publish(root, "v-1", before)
    assert store.current(root) == before


@pytest.mark.parametrize("first", [True, False])
def test_a_late_publisher_is_refused_and_the_version_stays(tmp_path, first):
    root = str(tmp_path)
    if not first:
        store.publish(root, version(root, "v-0"), store.current(root))
    seen = store.current(root)
    store.publish(root, version(root, "v-1"), seen)
    with pytest.raises(InputError, match=r"VIDB 'v-1' was published while 'v-2' was being built; 'v-2' is kept"):
        store.publish(root, version(root, "v-2"), seen)
    assert store.current(root).version == "v-1"
    store.verify(Build(root, "vidb", "v-2"))


def test_a_return_to_an_old_version_does_not_hide_later_publications(tmp_path):
    root = str(tmp_path)
    store.publish(root, version(root, "v-1"), store.current(root))
    seen = store.current(root)
    store.publish(root, version(root, "v-2"), seen)
    store.publish(root, "v-1", store.current(root))
    with pytest.raises(InputError, match="'v-1' was published while 'v-3'"):
        store.publish(root, version(root, "v-3"), seen)


def test_one_of_many_concurrent_publishers_wins(tmp_path):
    root = str(tmp_path)
    names, seen, start = [version(root, f"v-{i}") for i in range(8)], store.current(root), threading.Barrier(8)

    def publish(name: str) -> bool:
        start.wait()
        try:
            store.publish(root, name, seen)
        except InputError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = [name for name, done in zip(names, pool.map(publish, names), strict=True) if done]
    assert won == [store.current(root).version]
    assert store.current(root).sequence == 1


def test_only_a_finished_version_can_be_published(tmp_path):
    with pytest.raises(InputError, match="no finished 'vidb' build 'v-9'"):
        store.publish(str(tmp_path), "v-9", store.current(str(tmp_path)))
    assert store.current(str(tmp_path)).version is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"v-1",
        b"[]",
        b'"v-1"',
        b'{"version": "v-1"}',
        b'{"sequence": 1}',
        b"\xff",
        b'{"version": 3, "sequence": 1}',
        b'{"version": "../../elsewhere", "sequence": 1}',
        b'{"version": "/etc", "sequence": 1}',
        b'{"version": "v-1", "sequence": "1"}',
    ],
)
def test_a_corrupt_pointer_is_named(tmp_path, content):
    (tmp_path / "vidb").mkdir()
    (tmp_path / "vidb/CURRENT").write_bytes(content)
    with pytest.raises(InputError, match=r"vidb/CURRENT is damaged: .*; publish a version again"):
        store.current(str(tmp_path))


ESCAPES = ("../b2", "..", ".", "", "/etc", "a/../../b", "a\\b", "s3://bucket/a", "http://127.0.0.1:9/a", "a b", "a\x00b", "~")


@pytest.mark.parametrize("name", ESCAPES)
def test_no_name_of_a_build_leads_out_of_its_root(tmp_path, name):
    for build in (Build(str(tmp_path), "vidb", name), Build(str(tmp_path), name, "v-1")):
        with pytest.raises(InputError, match="name"):
            store.manifest(build)


@pytest.mark.parametrize(
    "path", ["../b2/part-0.parquet", "/etc/passwd", "a/../part-1.parquet", "s3://bucket/a", "a\\b", "a//b", ""]
)
def test_no_file_of_a_manifest_lies_outside_its_build(finished, path):
    manifest = json.loads(part(finished, "_manifest.json").read_text("utf-8"))
    manifest["files"][1]["path"] = path
    part(finished, "_manifest.json").write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(InputError, match="inside the build"):
        store.manifest(finished)
