"""Resume by anti-join for every job: read a plan's pending rows, write finished batches as parts of a build.

Who writes a part returns its record to the driver, which keeps a journal of them (`store.journal`). A rerun takes the
committed ids from the journal and asks for the rest; ids that two attempts committed are reduced to one row before the manifest
is written.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.data import Dataset

from valueflow import store
from valueflow.config import Resources
from valueflow.distributed.cluster import Progress, stage_tasks
from valueflow.distributed.watch import NOTHING, watched
from valueflow.records import digest
from valueflow.store import Build, File, Journal

ReadPart = Callable[[File], pa.Table]
Transform = Callable[[pa.Table, str], Iterator[pa.Table]]


class Done(NamedTuple):
    """Ids that need no answer; small to send.

    refs: by folder, references to arrays (`S16`): sorted ids.
    """

    refs: dict[str, list["ray.ObjectRef"]]

    @classmethod
    def of(cls, ids: Mapping[str, np.ndarray]) -> "Done":
        """Return sorted ids by folder, moved into the object store."""
        return cls({folder: [ray.put(of_folder)] for folder, of_folder in ids.items()})

    def with_records(self, records: Iterable[pa.Table]) -> "Done":
        """Return these ids and those of the records of parts."""
        refs = dict(self.refs)
        for folder, ids in store.ids_by_folder(records).items():
            refs[folder] = [*refs.get(folder, []), ray.put(np.sort(ids))]
        return Done(refs)

    def open_rows(self, rows: pa.Table, id_column: str, folder: str | None = None) -> pa.Table:
        """Return the rows of a plan that are not done.

        Args:
            rows: of one folder of the answers, or with a column `folder`.
            id_column: the column that identifies a row.
            folder: that of all rows.
        """
        if folder is None and "folder" in rows.column_names and rows.num_rows:
            tables = [rows.filter(pc.equal(rows["folder"], of)) for of in pc.unique(rows["folder"]).to_pylist()]
            return pa.concat_tables([self.open_rows(table, id_column, table["folder"][0].as_py()) for table in tables])
        for done in ray.get(self.refs.get(folder or "", [])):
            rows = rows.filter(store.missing_from(rows[id_column], done))
        return rows


class Commit(NamedTuple):
    """Writes a batch of finished rows as parts of a build, one for each folder; runs where the rows are.

    A part is named after the ids in it, so a task that is retried overwrites its own part.
    """

    build: Build
    id_column: str

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the records of the parts (`store.journal.RECORDS`). A column `folder` tells where in the build a row goes."""
        if "folder" not in batch.column_names:
            batch = batch.append_column("folder", pa.array([""] * batch.num_rows, pa.string()))
        records = [store.RECORDS.empty_table()]
        for folder in pc.unique(batch["folder"]).to_pylist():
            part = batch.filter(pc.equal(batch["folder"], folder)).drop_columns(["folder"])
            name = digest(sorted(part[self.id_column].to_pylist()))
            records.append(store.write_recorded(self.build, part, name, folder, self.id_column))
        return pa.concat_tables(records)


def pending_parts(files: list[File], read: ReadPart, id_column: str, done: Done, transform: Transform | None = None) -> Dataset:
    """Return the rows of parts whose ids are not committed yet; parts without such rows are skipped.

    Args:
        files: the parts of a plan.
        read: returns the rows of a part as its manifest lists it, with the column `id_column`.
        id_column: the column that identifies a row.
        done: the committed ids.
        transform: turns a part's pending rows and its folder into the tables to return; None: the rows as they are.
    """
    parts = [file.model_dump() for file in files]
    return ray.data.from_items(parts, override_num_blocks=len(parts)).map_batches(
        _pending_rows,
        fn_kwargs={"read": read, "id_column": id_column, "done": done, "transform": transform},
        batch_size=1,
        batch_format="pyarrow",
        **stage_tasks(),
    )


def _pending_rows(
    batch: pa.Table, read: ReadPart, id_column: str, done: Done, transform: Transform | None
) -> Iterator[pa.Table]:
    for part in map(File.model_validate, batch.to_pylist()):
        folder = part.path.rpartition("/")[0]
        rows = done.open_rows(read(part), id_column, folder)
        if not rows.num_rows:
            continue
        if transform:
            yield from transform(rows, folder)
        else:
            yield rows


def commit_batches(
    dataset: Dataset, commit: Commit, progress: Progress, journal: Journal, need: Resources = NOTHING
) -> None:  # fmt: skip
    """Run a dataset, whose stages need these resources, to its end, writing every batch as parts of a build."""
    records = dataset.map_batches(commit, batch_format="pyarrow", batch_size=None, **stage_tasks())
    run_writes(records, progress, journal, need=need)


def run_writes(
    records: Dataset, progress: Progress, journal: Journal, keep: bool = False, need: Resources = NOTHING,
    look: Callable[[], list[str]] = list,
) -> list[pa.Table]:  # fmt: skip
    """Run a dataset of records of committed parts to its end, in whatever order they come; enter them in the journal.

    Args:
        records: the dataset.
        progress: of the stage.
        journal: of the build.
        keep: whether the records are returned.
        need: resources of the stage.
        look: is called every few seconds and at the end; returns a line for each worker that has died since.

    Returns:
        The records, if `keep`.
    """
    kept = []
    try:
        batches = records.iter_batches(batch_format="pyarrow", batch_size=None)
        for batch in watched(progress.what, batches, need, look):
            journal.add(batch)
            errors = journal.totals.errors
            progress.add(pc.sum(batch["rows"]).as_py() or 0, f", {errors:,} failed" if errors else "")
            kept += [batch] if keep else []
    finally:
        journal.save()
    return kept
