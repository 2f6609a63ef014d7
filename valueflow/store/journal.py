"""The journal of an unfinished build of answers: one record per committed part, so that nobody reads the parts again.

Who commits a part returns its record. The driver adds it to the journal, which grows by new work alone, and saves records in
segments beside the parts. A rerun lists the parts, reads the segments, and reads only parts without a record, those of the last
moments before a kill. The parts remain the state: a journal that is lost or damaged is made again from them.
"""

import json
import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from valueflow.records import digest
from valueflow.store.files import exists, read_or_set_aside, remove_file, remove_files, sizes, write_bytes
from valueflow.store.layout import JOURNAL, SEGMENT, Build
from valueflow.store.manifests import PARQUET_ERRORS, File
from valueflow.store.parquet import check_layout, parquet_bytes, parquet_table
from valueflow.store.parts import (
    drop_duplicates,
    read_part,
    remove_segments,
    rewrite,
    whole_parts,
    without_answer,
    write_part,
)
from valueflow.store.stage_time import StageTime

log = logging.getLogger(__name__)
ID_TYPE = "S16"
RECORDS = pa.schema(
    {
        "path": pa.string(), "size": pa.int64(), "sha256": pa.string(), "rows": pa.int64(), "errors": pa.int64(),
        "tokens_in": pa.int64(), "tokens_out": pa.int64(), "reasons": pa.string(), "rounds": pa.string(), "ids": pa.binary(),
        "lost": pa.int64(), "truncated": pa.list_(pa.string()),
    }
)  # fmt: skip
ANSWER_COLUMNS = {"error", "tokens_in", "tokens_out"}  # and the reply, or the response of a generation
MAX_REASONS = 20  # of one part
# A segment is saved after so many records or seconds; what a kill leaves out of it is read from the parts.
SEGMENT_RECORDS = 256
SEGMENT_SECONDS = 10.0
MERGED_BYTES = 128 << 20
ReadRecords = Callable[[list[str]], Iterable[pa.Table]]


class Totals(NamedTuple):
    """Sums over the parts of a build.

    Attributes:
        rows: answers; more than questions where two attempts answered some.
        errors: answers that are not valid.
        tokens_in, tokens_out: of the calls.
        reasons: number of errors by reason.
        rounds: number of rows by round.
        truncated: ids of the texts of which an LLM read the beginning.
    """

    rows: int
    errors: int
    tokens_in: int
    tokens_out: int
    reasons: Counter[str]
    rounds: Counter[int]
    truncated: set[str]


def write_recorded(build: Build, rows: pa.Table, name: str, folder: str, id_column: str) -> pa.Table:
    """Commit rows as a part (`write_part`) and return its record, a row of `RECORDS`."""
    return _record(write_part(build, rows, name, folder), rows, id_column)


def _record(file: File, rows: pa.Table, id_column: str) -> pa.Table:
    names = set(rows.column_names)
    reasons = Counter(rows["error"].drop_null().to_pylist() if "error" in names else [])
    rounds = Counter(rows["round"].drop_null().to_pylist() if "round" in names else [])
    columns = {
        "path": file.path, "size": file.size, "sha256": file.sha256, "rows": file.rows, "errors": reasons.total(),
        "tokens_in": (pc.sum(rows["tokens_in"]).as_py() or 0) if "tokens_in" in names else 0,
        "tokens_out": (pc.sum(rows["tokens_out"]).as_py() or 0) if "tokens_out" in names else 0,
        "reasons": json.dumps(dict(reasons.most_common(MAX_REASONS))),
        "rounds": json.dumps(dict(rounds)),
        "ids": rows[id_column].to_numpy().astype(ID_TYPE).tobytes(),
        "truncated": pc.unique(pc.list_flatten(rows["truncated_ids"])).to_pylist() if "truncated_ids" in names else [],
        "lost": pc.sum(without_answer(rows)).as_py() or 0 if names >= ANSWER_COLUMNS and names & {"reply", "response"} else 0,
    }  # fmt: skip
    return pa.Table.from_pylist([columns], RECORDS)


def read_records(build: Build, paths: list[str], id_column: str, reopen: bool = True) -> pa.Table:
    """Return the records of parts that have none, of which every byte is read.

    A damaged part is set aside.

    Args:
        build: unfinished or finished; a finished one is not changed.
        paths: its parts.
        id_column: the column that identifies a row.
        reopen: remove rows without an answer, so that their questions are open again. A part is written again or removed as a
            whole, so a kill in between leaves fewer of them, and every other row stays.

    Raises:
        StorageError: a part cannot be read; whether it is damaged is unknown, and it stays.
    """
    records, reopen = [RECORDS.empty_table()], reopen and not exists(build.manifest_url)
    for file, rows in whole_parts(build, paths):
        if reopen and set(rows.column_names) >= ANSWER_COLUMNS:
            answered = rows.filter(pc.invert(without_answer(rows)))
            if not answered.num_rows:
                remove_file(f"{build.url}/{file.path}")
                continue
            if answered.num_rows < rows.num_rows:
                file, rows = rewrite(build, file.path, answered), answered
        records.append(_record(file, rows, id_column))
    return pa.concat_tables(records)


def ids_by_folder(records: Iterable[pa.Table]) -> dict[str, np.ndarray]:
    """Return the ids (`ID_TYPE`) in the recorded parts by folder, as often as they occur."""
    ids: dict[str, list[np.ndarray]] = {}
    for table in records:
        for path, raw in zip(table["path"].to_pylist(), table["ids"].to_pylist(), strict=True):
            ids.setdefault(path.rpartition("/")[0], []).append(np.frombuffer(raw, ID_TYPE))
    return {folder: np.concatenate(of_parts) for folder, of_parts in ids.items()}


def compact(build: Build, paths: list[str], id_column: str) -> pa.Table:
    """Merge parts of one folder into one, sorted by id; return its record, and remove the parts.

    A kill in between leaves rows twice, which the next run reduces to one.
    """
    rows = pa.concat_tables([read_part(build, path) for path in paths]).sort_by(id_column)
    record = write_recorded(build, rows, digest(rows[id_column].to_pylist()), paths[0].rpartition("/")[0], id_column)
    for path in paths:
        if path != record["path"][0].as_py():
            remove_file(f"{build.url}/{path}")
    return record


class Journal:
    """The committed parts of a build, in the memory of the driver.

    Attributes:
        files: how a manifest would list each part, by path.
        totals: sums over the parts.
        rows: answers by folder.
        time: of the attempts at the build.
        on_rows: is called with the folders of the parts that were added.
    """

    def __init__(self, build: Build, id_column: str) -> None:
        self.build, self.id_column = build, id_column
        self._attempt, self._num_segments = uuid.uuid4().hex[:8], 0
        self.time = StageTime(build, self._attempt)
        self.on_rows: Callable[[set[str]], None] = lambda _: None
        self._clear()

    def load(self, read: ReadRecords | None = None) -> dict[str, np.ndarray]:
        """Take over what earlier runs committed, and return the sorted ids (`ID_TYPE`) of their answers by folder.

        Args:
            read: returns the records of parts, as `read_records` does; default: that function in this process.

        Raises:
            StorageError: a part cannot be read; whether it is damaged is unknown, and it stays.
        """
        self.time.load()
        while True:
            self._clear()
            ids = ids_by_folder(self._counted(read or (lambda paths: [read_records(self.build, paths, self.id_column)])))
            distinct = {folder: np.unique(of_folder) for folder, of_folder in ids.items()}
            twice = [folder for folder, of_folder in ids.items() if len(distinct[folder]) < len(of_folder)]
            if not twice or exists(self.build.manifest_url):
                return distinct
            remove_segments(self.build)
            for folder in twice:  # two attempts answered the same questions
                drop_duplicates(self.build, self.id_column, folder)

    def is_behind(self) -> bool:
        """Return whether the build holds other parts than those of the journal, as those of another attempt."""
        return set(self.files) != {path for path in sizes(self.build.url) if path.endswith(".parquet")}

    def _clear(self) -> None:
        self.files: dict[str, File] = {}
        self.rows: Counter[str] = Counter()
        self.totals = Totals(0, 0, 0, 0, Counter(), Counter(), set())
        self._unsaved: list[pa.Table] = []
        self._saved = time.monotonic()

    def _counted(self, read: ReadRecords) -> Iterator[pa.Table]:
        for records in self._records_of_parts(read):
            self._count(records)
            yield records

    def _records_of_parts(self, read: ReadRecords) -> Iterator[pa.Table]:
        unread = {path: size for path, size in sizes(self.build.url).items() if path.endswith(".parquet")}
        folder = f"{self.build.url}/{JOURNAL}"
        for name in sizes(folder) if unread else ():
            if not name.endswith(SEGMENT):
                continue
            records = read_or_set_aside(f"{folder}/{name}", _parse, (*PARQUET_ERRORS, ValueError), "a journal")
            if records is None:
                continue
            # A part may be in two segments. One that was written again has another size, or its journal was removed.
            columns = zip(records["path"].to_pylist(), records["size"].to_pylist(), strict=True)
            current = [n for n, (path, size) in enumerate(columns) if unread.get(path) == size and unread.pop(path)]
            yield records.take(pa.array(current, pa.int64()))
        for records in read(sorted(unread)) if unread else ():
            self._unsaved.append(records)
            yield records
        self.save()

    def add(self, records: pa.Table) -> None:
        """Take over the records of parts that were committed."""
        self._count(records)
        self._unsaved.append(records)
        if sum(rows.num_rows for rows in self._unsaved) >= SEGMENT_RECORDS:
            self.save()
        self.save_in_time()
        self.on_rows({path.rpartition("/")[0] for path in records["path"].to_pylist()})

    def save_in_time(self) -> None:
        """Save what is not saved yet if the last time was some seconds ago."""
        if time.monotonic() > self._saved + SEGMENT_SECONDS:
            self.save()

    def save(self) -> None:
        """Write the records that no segment has, except of parts with lost answers: a rerun reads these, and asks again.

        Also what this attempt took.
        """
        records = pa.concat_tables([RECORDS.empty_table(), *self._unsaved])
        records = records.filter(pc.equal(records["lost"], 0))
        self._unsaved, self._saved = [], time.monotonic()
        if (not records.num_rows and self.time.is_saved) or exists(self.build.manifest_url):
            return
        self.time.save()
        if records.num_rows:
            name = f"{self._attempt}-{self._num_segments:06d}{SEGMENT}"
            self._num_segments += 1
            write_bytes(f"{self.build.url}/{JOURNAL}/{name}", parquet_bytes(records))

    def compact(self, merge: Callable[[list[list[str]]], Iterable[pa.Table]]) -> list[File]:
        """Merge the many parts of a folder into few, then `close`.

        Args:
            merge: returns the records of groups of parts, each as `compact` merged it.
        """
        groups = merge_groups(self.files)
        merged = list(merge(groups)) if groups else []
        self.replace([path for paths in groups for path in paths], pa.concat_tables([RECORDS.empty_table(), *merged]))
        return self.close()

    def replace(self, paths: list[str], records: pa.Table) -> None:
        """Take over the records of parts into which these ones were merged."""
        for path in paths:
            self.files.pop(path)
        self.files.update({row["path"]: _file(row) for row in records.drop_columns(["ids"]).to_pylist()})

    def close(self) -> list[File]:
        """Remove the journal, and return the files for the manifest."""
        remove_files(f"{self.build.url}/{JOURNAL}")
        return list(self.files.values())

    def _count(self, records: pa.Table) -> None:
        for row in records.drop_columns(["ids"]).to_pylist():
            again = row["path"] in self.files  # a task that Ray has run twice
            self.files[row["path"]] = _file(row)
            if again:
                continue
            self.rows[row["path"].rpartition("/")[0]] += row["rows"]
            self.totals.truncated.update(row["truncated"])
            self.totals.reasons.update(json.loads(row["reasons"]))
            self.totals.rounds.update({int(key): count for key, count in json.loads(row["rounds"]).items()})
            sums = {name: getattr(self.totals, name) + row[name] for name in ("rows", "errors", "tokens_in", "tokens_out")}
            self.totals = self.totals._replace(**sums)


def _parse(content: bytes) -> pa.Table:
    check_layout(content)
    records = parquet_table(content)
    if records.schema != RECORDS:
        raise ValueError(f"its columns are {records.column_names}, not {RECORDS.names}")
    return records


def _file(record: dict) -> File:
    return File(path=record["path"], size=record["size"], sha256=record["sha256"], rows=record["rows"])


def merge_groups(files: Mapping[str, File]) -> list[list[str]]:
    """Return the paths of parts of one folder whose bytes fit in one part, where there are several."""
    groups: list[list[str]] = []
    folder, room = "", 0
    for path, file in sorted(files.items()):
        of = path.rpartition("/")[0]
        if not groups or of != folder or file.size > room:
            groups.append([])
            folder, room = of, MERGED_BYTES
        groups[-1].append(path)
        room -= file.size
    return [paths for paths in groups if len(paths) > 1]
