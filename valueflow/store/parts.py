"""Parts of builds: parquet files by folder, committed ids, resume by anti-join."""

import hashlib
import io
import logging

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from valueflow.errors import InputError
from valueflow.records import SCHEMAS, conform
from valueflow.store.files import filesystem, read_bytes, write_bytes
from valueflow.store.layout import Build
from valueflow.store.manifests import File, part_paths, require_manifest

log = logging.getLogger(__name__)


def write_part(build: Build, table: pa.Table, name: str, folder: str = "") -> File:
    """Commit rows of one stage as `[folder/]part-{name}.parquet`; writing the same name again replaces it."""
    content = io.BytesIO()
    pq.write_table(conform(table, build.table), content, compression="zstd")
    data = content.getvalue()
    path = f"{folder}/part-{name}.parquet".lstrip("/")
    return write_file(build, path, data, table.num_rows)


def write_file(build: Build, path: str, data: bytes, rows: int = 0) -> File:
    """Write any file of a build, and return how its manifest lists it."""
    write_bytes(f"{build.url}/{path}", data)
    return File(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest(), rows=rows)


def read_part(build: Build, path: str, columns: list[str] | None = None) -> pa.Table:
    """Return one part; InputError naming the file where it cannot be read."""
    url = f"{build.url}/{path}"
    try:
        table = pq.read_table(pa.BufferReader(read_bytes(url)), columns=columns, partitioning=None)
    except FileNotFoundError:
        raise InputError(f"{url} is gone though its manifest lists it; delete the build's folder and rerun") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{url} is not readable parquet ({error}); delete the build's folder and rerun") from error
    schema = SCHEMAS[build.table]
    return conform(table, build.table) if columns is None else table.cast(pa.schema([schema.field(c) for c in columns]))


def read_table(build: Build, columns: list[str] | None = None, folder: str = "") -> pa.Table:
    """Return the rows of a finished build, or of one of its hive folders. For tables that fit in memory."""
    parts = [
        read_part(build, file.path, columns)
        for file in require_manifest(build).files
        if not folder or file.path.startswith(f"{folder}/")
    ]
    schema = SCHEMAS[build.table]
    return pa.concat_tables(parts) if parts else schema.empty_table().select(columns or schema.names)


def committed_ids(build: Build, column: str) -> np.ndarray:
    """Return the sorted ids (array of S16) that an unfinished build already holds; unreadable parts are removed and redone."""
    ids: list[np.ndarray] = []
    for path in part_paths(build):
        try:
            ids.append(read_part(build, path, [column])[column].to_numpy().astype("S16"))
        except InputError as error:
            log.warning("resume: %s; removed, its rows are done again", error)
            fs, folder = filesystem(build.url)
            fs.rm_file(f"{folder}/{path}")
    return np.unique(np.concatenate(ids)) if ids else np.empty(0, "S16")


def missing_from(ids: pa.ChunkedArray, done: np.ndarray) -> pa.Array:
    """Return a mask of the ids that are not among the sorted `done` (the anti-join of resume)."""
    if not len(done):
        return pa.array(np.ones(len(ids), bool))
    id_N = ids.to_numpy().astype("S16")
    nearest_N = np.minimum(np.searchsorted(done, id_N), len(done) - 1)
    return pc.invert(pa.array(done[nearest_N] == id_N))


def drop_duplicates(build: Build, column: str) -> None:
    """Rewrite the parts of an unfinished build so that each id has one row (two attempts may have answered it)."""
    seen: set[bytes] = set()
    for path in part_paths(build):
        part = read_part(build, path)
        keep = []
        for row_id in part[column].to_numpy().astype("S16").tolist():
            keep.append(row_id not in seen)
            seen.add(row_id)
        if not all(keep):
            folder, _, name = path.rpartition("/")
            write_part(build, part.filter(pa.array(keep)), name.removeprefix("part-").removesuffix(".parquet"), folder)


def remove_unfinished(build: Build) -> None:
    """Remove the files of an unfinished build, for stages that start over rather than resume."""
    fs, path = filesystem(build.url)
    if fs.exists(path):
        fs.rm(path, recursive=True)
