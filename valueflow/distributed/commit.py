"""Resume by anti-join for every job: read a plan's pending rows, write finished batches as parts of a build.

A part is named after the ids in it, so a retried task overwrites its own part. A rerun reads the committed ids and asks for the
rest; ids that two attempts committed are removed by `store.drop_duplicates` before the manifest is written.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.data import Dataset

from valueflow import store
from valueflow.distributed.cluster import Progress
from valueflow.records import digest
from valueflow.store import Build, File

ReadPart = Callable[[File], pa.Table]
Transform = Callable[[pa.Table, str], Iterator[pa.Table]]


class BatchTotals(NamedTuple):
    """Rows written, and how many of them have an error."""

    rows: int
    errors: int


def pending_parts(
    files: list[File], read: ReadPart, id_column: str, done: "ray.ObjectRef", transform: Transform | None = None
) -> Dataset:
    """Return the rows of parts whose ids are not committed yet; parts without such rows are skipped.

    Args:
        files: the parts of a plan.
        read: returns the rows of a part as its manifest lists it, with the column `id_column`.
        id_column: the column that identifies a row.
        done: reference to the committed ids (`store.committed_ids`).
        transform: turns a part's pending rows and its folder into the tables to return; None: the rows as they are.
    """
    parts = [file.model_dump() for file in files]
    return ray.data.from_items(parts, override_num_blocks=len(parts)).map_batches(
        _pending_rows,
        fn_kwargs={"read": read, "id_column": id_column, "done": done, "transform": transform},
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=0.1,
    )


def _pending_rows(
    batch: pa.Table, read: ReadPart, id_column: str, done: "ray.ObjectRef", transform: Transform | None
) -> Iterator[pa.Table]:
    for part in map(File.model_validate, batch.to_pylist()):
        rows = read(part)
        rows = rows.filter(store.missing_from(rows[id_column], ray.get(done)))
        if not rows.num_rows:
            continue
        if transform:
            yield from transform(rows, part.path.rpartition("/")[0])
        else:
            yield rows


def commit_batches(dataset: Dataset, build: Build, id_column: str, progress: Progress) -> BatchTotals:
    """Run a dataset to its end, writing every batch as parts of `build`, and return its totals.

    Rows with a column `folder` go to that folder of the build; rows whose column `error` is not null count as errors.
    """
    written = dataset.map_batches(
        _write_batch, fn_kwargs={"build": build, "id_column": id_column}, batch_format="pyarrow", batch_size=None, num_cpus=0.1
    )
    return run_writes(written, progress)


def run_writes(written: Dataset, progress: Progress) -> BatchTotals:
    """Run a dataset of write counts (columns rows, errors) to its end, reporting progress, and return the totals."""
    rows = errors = 0
    for batch in written.iter_batches(batch_format="pyarrow", batch_size=None):
        new = pc.sum(batch["rows"]).as_py() or 0
        rows, errors = rows + new, errors + (pc.sum(batch["errors"]).as_py() or 0)
        progress.add(new, f", {errors:,} failed" if errors else "")
    return BatchTotals(rows, errors)


def write_counts(rows: list[int], errors: list[int] | None = None) -> pa.Table:
    """Return rows of a dataset of write counts, one per part."""
    return pa.table({"rows": pa.array(rows, pa.int64()), "errors": pa.array(errors or [0] * len(rows), pa.int64())})


def _write_batch(batch: pa.Table, build: Build, id_column: str) -> pa.Table:
    if not batch.num_rows:
        return write_counts([])
    if "folder" not in batch.column_names:
        batch = batch.append_column("folder", pa.array([""] * batch.num_rows, pa.string()))
    rows, errors = [], []
    for folder in pc.unique(batch["folder"]).to_pylist():
        part = batch.filter(pc.equal(batch["folder"], folder)).drop_columns(["folder"])
        store.write_part(build, part, digest(sorted(part[id_column].to_pylist())), folder)
        rows.append(part.num_rows)
        errors.append(part.num_rows - part["error"].null_count if "error" in part.column_names else 0)
    return write_counts(rows, errors)
