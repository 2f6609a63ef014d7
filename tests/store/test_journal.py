"""The journal of committed parts: what it records, what a rerun reads, and what two attempts leave."""

from pathlib import Path

import pyarrow as pa
import pytest

from valueflow import store
from valueflow.records import SCHEMAS
from valueflow.store import Build, Journal, RankingsDetails

NAMES = SCHEMAS["rankings"].names


def answers(ids: list[str], round_: int = 0, lost: tuple[str, ...] = (), invalid: tuple[str, ...] = ()) -> pa.Table:
    rows = []
    for name in ids:
        error = "down" if name in lost else "no order" if name in invalid else None
        tokens = 0 if name in lost else 10
        row = {"window_id": f"{name:0>16}", "theory": "svt", "value": "power", "text_ids": ["a", "b"], "round": round_}
        row |= {
            "judge": "j",
            "truncated_ids": ["a"] if name == "a" else [],
            "order": None if error else [0, 1],
            "error": error,
            "reply": "" if name in lost else "A",
        }
        rows.append(row | {"tokens_in": tokens, "tokens_out": tokens // 10})
    return pa.Table.from_pylist(rows, SCHEMAS["rankings"])


@pytest.fixture
def build(tmp_path: Path) -> Build:
    return Build(str(tmp_path), "rankings", "b")


def committed(build: Build, name: str, rows: pa.Table, folder: str = "theory=svt/value=power") -> pa.Table:
    value = pa.array([folder.rpartition("=")[2]] * rows.num_rows)
    rows = rows.set_column(rows.column_names.index("value"), "value", value)
    return store.write_recorded(build, rows, name, folder, "window_id")


def loaded(build: Build) -> tuple[Journal, dict[str, list[str]], list[str]]:
    """A journal of a new run, the ids that it knows by folder, and the parts that it had to read."""
    read: list[str] = []

    def read_parts(paths: list[str]):
        read.extend(paths)
        yield store.read_records(build, paths, "window_id")

    journal = Journal(build, "window_id")
    ids = journal.load(read_parts)
    return journal, {folder: [i.decode().lstrip("0") for i in of] for folder, of in ids.items()}, read


def test_a_rerun_reads_only_parts_without_a_record(build):
    journal, ids, read = loaded(build)
    assert (ids, read, journal.totals.rows) == ({}, [], 0)
    journal.add(committed(build, "1", answers(["a", "b"], invalid=("b",))))
    journal.add(committed(build, "2", answers(["c"], round_=3), "theory=svt/value=security"))
    journal.save()
    committed(build, "3", answers(["d"], round_=3))
    again, ids, read = loaded(build)
    assert read == ["theory=svt/value=power/part-3.parquet"]
    assert ids == {"theory=svt/value=power": ["a", "b", "d"], "theory=svt/value=security": ["c"]}
    assert again.totals == (4, 1, 40, 4, {"no order": 1}, {0: 2, 3: 2}, {"a"})
    assert loaded(build)[2] == []
    manifest = store.commit(
        build, RankingsDetails(windows=4, errors=1, tokens_in=40, tokens_out=4, judge={}), files=again.close()
    )
    assert store.manifest(build) == manifest
    assert manifest.num_rows == 4
    assert not list(Path(build.url, "_journal").glob("*"))


def test_questions_without_an_answer_are_open_again(build):
    journal = Journal(build, "window_id")
    journal.add(committed(build, "1", answers(["a", "b"], lost=("b",))))
    journal.add(committed(build, "2", answers(["c"], lost=("c",))))
    journal.save()
    again, ids, _ = loaded(build)
    assert ids == {"theory=svt/value=power": ["a"]}
    assert (again.totals.rows, again.totals.errors) == (1, 0)
    assert store.part_paths(build) == ["theory=svt/value=power/part-1.parquet"]


def test_what_two_attempts_answered_counts_once(build):
    first, second = Journal(build, "window_id"), Journal(build, "window_id")
    first.add(committed(build, "1", answers(["a", "b"])))
    second.add(committed(build, "2", answers(["b", "c"])))
    first.save(), second.save()
    assert first.is_behind()
    again, ids, _ = loaded(build)
    assert ids == {"theory=svt/value=power": ["a", "b", "c"]}
    assert again.totals.rows == 3
    assert not again.is_behind()


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"x" * 100])
def test_a_damaged_journal_is_made_again_from_the_parts(build, damage):
    journal = Journal(build, "window_id")
    journal.add(committed(build, "1", answers(["a"])))
    journal.save()
    (segment,) = Path(build.url, "_journal").iterdir()
    segment.write_bytes(damage)
    _, ids, read = loaded(build)
    assert ids == {"theory=svt/value=power": ["a"]}
    assert read == ["theory=svt/value=power/part-1.parquet"]


def test_a_journal_with_bytes_too_many_is_made_again_from_the_parts(build):
    """Its pages and their checksums are whole; where bytes came in, a page may stand where another one was."""
    journal = Journal(build, "window_id")
    journal.add(committed(build, "1", answers(["a"])))
    journal.save()
    (segment,) = Path(build.url, "_journal").iterdir()
    content = segment.read_bytes()
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    segment.write_bytes(content[:footer] + bytes(9) + content[footer:])
    _, ids, read = loaded(build)
    assert ids == {"theory=svt/value=power": ["a"]}
    assert read == ["theory=svt/value=power/part-1.parquet"]


def test_a_part_that_was_cut_is_set_aside_and_its_rows_are_open(build):
    journal = Journal(build, "window_id")
    for name in "12":
        journal.add(committed(build, name, answers([name])))
    journal.save()
    part = Path(build.url, "theory=svt/value=power/part-1.parquet")
    part.write_bytes(part.read_bytes()[:-20])
    _, ids, _ = loaded(build)
    assert ids == {"theory=svt/value=power": ["2"]}
    assert part.with_suffix(".parquet.bad").exists()


def test_small_parts_are_merged(build):
    journal = Journal(build, "window_id")
    for n in range(5):
        journal.add(committed(build, f"{n}", answers([f"x{n}", f"x{n + 5}"])))
    journal.add(committed(build, "other", answers(["z"]), "theory=svt/value=security"))
    files = journal.compact(lambda groups: [store.compact(build, paths, "window_id") for paths in groups])
    assert sorted(file.rows for file in files) == [1, 10]
    assert sorted(file.path for file in files) == store.part_paths(build)
    merged = store.read_part(build, next(file for file in files if file.rows == 10))["window_id"].to_pylist()
    assert merged == sorted(merged)
    assert loaded(build)[0].totals == journal.totals


def test_a_kill_while_parts_are_merged_loses_and_doubles_nothing(build, monkeypatch):
    for n in range(3):
        committed(build, f"{n}", answers([f"x{n}"]))
    removed = []

    def killed(url: str) -> None:
        if removed:
            raise KeyboardInterrupt
        removed.append(url)
        Path(url).unlink()

    monkeypatch.setattr("valueflow.store.journal.remove_file", killed)
    with pytest.raises(KeyboardInterrupt):
        store.compact(build, store.part_paths(build), "window_id")
    monkeypatch.undo()
    journal, ids, _ = loaded(build)
    assert ids == {"theory=svt/value=power": ["x0", "x1", "x2"]}
    assert journal.totals.rows == 3


def test_a_finished_build_is_read_and_not_changed(build):
    committed(build, "1", answers(["a", "b"], lost=("b",)))
    store.commit(build, RankingsDetails(windows=2, errors=1, tokens_in=10, tokens_out=1, judge={}))
    before = {path: path.read_bytes() for path in Path(build.url).rglob("*") if path.is_file()}
    journal, ids, _ = loaded(build)
    assert ids == {"theory=svt/value=power": ["a", "b"]}
    assert journal.totals.errors == 1
    assert {path: path.read_bytes() for path in Path(build.url).rglob("*") if path.is_file()} == before


def test_a_part_that_a_task_wrote_twice_counts_once(build):
    journal = Journal(build, "window_id")
    for _ in range(2):
        journal.add(committed(build, "1", answers(["a"])))
    assert (journal.totals.rows, len(journal.files)) == (1, 1)


def test_lost_answers_of_another_attempt_stay_when_totals_are_taken(build):
    committed(build, "1", answers(["a", "b"], lost=("b",)))
    journal = Journal(build, "window_id")
    journal.load(lambda paths: [store.read_records(build, paths, "window_id", reopen=False)])
    assert (journal.totals.rows, journal.totals.errors) == (2, 1)


def test_parts_are_merged_by_size(build, monkeypatch):
    sizes = []
    for n in range(6):
        record = committed(build, f"{n}", answers([f"x{n}"]))
        sizes.append(record["size"][0].as_py())
    journal = Journal(build, "window_id")
    journal.load()
    monkeypatch.setattr("valueflow.store.journal.MERGED_BYTES", 3 * max(sizes))
    files = journal.compact(lambda groups: [store.compact(build, paths, "window_id") for paths in groups])
    assert sorted(file.rows for file in files) == [3, 3]
    assert sorted(file.path for file in files) == store.part_paths(build)
