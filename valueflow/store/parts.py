"""Parts of builds: parquet files by folder, committed ids, resume by anti-join."""

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from valueflow.errors import DamageError
from valueflow.records import ADDED_COLUMNS, SCHEMAS, conform
from valueflow.store.files import read_parsed, remove_files, remove_listed, sizes, write_bytes
from valueflow.store.layout import JOURNAL, SEGMENT, Build
from valueflow.store.manifests import (
    BY_VALUE,
    MAKE_AGAIN,
    PARQUET_ERRORS,
    File,
    check_bytes,
    describe,
    part_paths,
    require_manifest,
)
from valueflow.store.parquet import check_layout, parquet_bytes, parquet_table
from valueflow.store.repair import reusable, withdraw
from valueflow.store.rows import VALUE, VALUE_FOLDER, check_distinct, check_rows

log = logging.getLogger(__name__)
T = TypeVar("T")


def write_part(build: Build, table: pa.Table, name: str, folder: str = "") -> File:
    """Commit rows of one stage as `[folder/]part-{name}.parquet`; writing the same name again replaces it."""
    path = f"{folder}/part-{name}.parquet".lstrip("/")
    return write_file(build, path, parquet_bytes(conform(table, build.table)), table.num_rows)


def write_file(build: Build, path: str, data: bytes, rows: int = 0) -> File:
    """Write any file of a build, and return how its manifest lists it."""
    write_bytes(f"{build.url}/{path}", data)
    return describe(path, data, rows)


def read_part(build: Build, part: str | File, columns: list[str] | None = None) -> pa.Table:
    """Return one part, by its path, or as a manifest lists it: then its bytes and rows must be those of the manifest.

    Raises:
        DamageError: it is gone, is not the parquet that a stage wrote, or differs from what is listed.
        StorageError: it cannot be read, also when tried again.
    """
    return _read(build, part, columns)[1]


def read_described(build: Build, path: str) -> tuple[File, pa.Table]:
    """Return how a manifest lists a part, and its rows; raises as `read_part` does."""
    return _read(build, path, None)


def _read(build: Build, part: str | File, columns: list[str] | None) -> tuple[File, pa.Table]:
    path = part.path if isinstance(part, File) else part
    url, schema, in_folder = f"{build.url}/{path}", SCHEMAS[build.table], bool(VALUE_FOLDER.search(path))

    def parse(data: bytes) -> tuple[File, pa.Table]:
        if isinstance(part, File):
            check_bytes(part, data)
        else:
            check_layout(data)
        # Of a part in the folder of a value also the value, which the rows must agree with.
        wanted = list(dict.fromkeys([*(columns or schema.names), *(v for v in VALUE if in_folder and v in schema.names)]))
        missing = set(ADDED_COLUMNS).intersection(wanted)
        if missing:
            missing -= set(pq.read_schema(pa.BufferReader(data)).names)
        named = [column for column in wanted if column not in missing] if columns else None
        table = parquet_table(data, named)
        for name in missing:
            table = table.append_column(schema.field(name), pa.nulls(table.num_rows, schema.field(name).type))
        if not set(wanted) <= set(table.column_names):
            raise pa.ArrowInvalid(f"its columns are {table.column_names}, not {wanted}")
        if isinstance(part, File) and table.num_rows != part.rows:
            raise ValueError(f"it has {table.num_rows} rows, its manifest says {part.rows}")
        table = table.select(wanted).cast(pa.schema([schema.field(name) for name in wanted]))
        table.validate(full=True)  # texts are UTF-8
        check_rows(build.table, table, path, isinstance(part, File))
        return part if isinstance(part, File) else describe(path, data, table.num_rows), table.select(columns or schema.names)

    try:
        return read_parsed(url, parse, (*PARQUET_ERRORS, ValueError, KeyError), "parquet")
    except FileNotFoundError:
        raise DamageError(f"{url} is gone; {MAKE_AGAIN}") from None
    except DamageError as error:
        raise DamageError(f"{error}; {MAKE_AGAIN}") from error


def read_listed(
    build: Build, path: str, parse: Callable[[bytes], T], errors: tuple[type[Exception], ...], what: str
) -> T:  # fmt: skip
    """Return what `parse` makes of a file of a finished build, whose bytes must be those of its manifest.

    Raises:
        InputError: the build is not finished.
        DamageError: the file is not listed, is gone, differs from what is listed, or is not `what` it should be.
        StorageError: it cannot be read whole.
    """
    listed = {file.path: file for file in require_manifest(build).files}
    if path not in listed:
        raise DamageError(f"{build.url}/{path} is not in its manifest; {MAKE_AGAIN}")

    def checked(data: bytes) -> T:
        check_bytes(listed[path], data)
        return parse(data)

    try:
        return read_parsed(f"{build.url}/{path}", checked, (ValueError, *errors), what)
    except FileNotFoundError:
        raise DamageError(f"{build.url}/{path} is gone; {MAKE_AGAIN}") from None


def read_table(build: Build, columns: list[str] | None = None, folder: str = "") -> pa.Table:
    """Return the rows of a finished build, or of one of its hive folders. For tables that fit in memory."""
    listed = require_manifest(build).files
    parts = [read_part(build, file, columns) for file in listed if not folder or file.path.startswith(f"{folder}/")]
    if not parts:
        return SCHEMAS[build.table].empty_table().select(columns or SCHEMAS[build.table].names)
    rows = pa.concat_tables(parts)
    if len(parts) > 1 and build.table not in BY_VALUE:
        try:
            check_distinct(build.table, rows)
        except ValueError as error:
            raise DamageError(f"{build.url} is damaged: over its parts, {error}; {MAKE_AGAIN}") from error
    return rows


def committed_ids(build: Build, column: str) -> np.ndarray:
    """Return the sorted ids (array of S16) that a build already holds.

    A damaged part is set aside and its rows are done again.

    Raises:
        StorageError: a part cannot be read; whether it is damaged is unknown, and it stays.
    """
    ids = [rows[column].to_numpy().astype("S16") for _, rows in whole_parts(build, part_paths(build))]
    return np.unique(np.concatenate(ids)) if ids else np.empty(0, "S16")


def whole_parts(build: Build, paths: Iterable[str]) -> Iterator[tuple[File, pa.Table]]:
    """Yield parts as a manifest lists them, with their rows; damaged ones are set aside."""
    for path in paths:
        try:
            # All columns: a part of which another column is damaged must not count as done.
            part = read_described(build, path)
        except DamageError as error:
            log.warning("resume: %s", error)
            withdraw(build, path)
        else:
            yield part


def missing_from(ids: pa.ChunkedArray, done: np.ndarray) -> pa.Array:
    """Return a mask of the ids that are not among the sorted `done` (the anti-join of resume)."""
    if not len(done):
        return pa.array(np.ones(len(ids), bool))
    id_N = ids.to_numpy().astype("S16")
    nearest_N = np.minimum(np.searchsorted(done, id_N), len(done) - 1)
    return pc.invert(pa.array(done[nearest_N] == id_N))


def drop_duplicates(build: Build, column: str, folder: str = "") -> list[str]:
    """Rewrite the parts of an unfinished build, or of one of its folders, so that each id has one row; return those rewritten.

    Two attempts may have answered a question.
    """
    seen: set[bytes] = set()
    rewritten = []
    for path in part_paths(build, folder):
        part = read_part(build, path)
        keep = []
        for row_id in part[column].to_numpy().astype("S16").tolist():
            keep.append(row_id not in seen)
            seen.add(row_id)
        if not all(keep):
            rewrite(build, path, part.filter(pa.array(keep)))
            rewritten.append(path)
    return rewritten


def without_answer(rows: pa.Table) -> pa.Array:
    """Return a mask of the rows whose question got no answer and cost nothing: an error, no tokens and an empty reply.

    Only an LLM's call can be lost. Judges of other kinds count no tokens, and an error of theirs is an answer: their reply is a
    text, or null. The reply of a generation is its response.
    """
    reply = rows["reply" if "reply" in rows.column_names else "response"]
    no_tokens = pc.and_(*(pc.equal(pc.fill_null(rows[name], 0), 0) for name in ("tokens_in", "tokens_out")))
    return pc.and_(pc.and_(pc.is_valid(rows["error"]), no_tokens), pc.fill_null(pc.equal(reply, ""), False))


def settle_unanswered(build: Build) -> None:
    """Make the rows without an answer final in an unfinished build: their reply becomes null, so no rerun asks again.

    For a step from whose answers the next one is planned.
    """
    remove_segments(build)  # its records are of the parts as they were
    for path, part, lost in _unanswered(build):
        column = part.schema.get_field_index("reply")
        replies = pc.if_else(lost, pa.scalar(None, pa.string()), part["reply"])
        rewrite(build, path, part.set_column(column, part.schema.field("reply"), replies))


def remove_segments(build: Build) -> None:
    """Remove the records of the parts of a build, which are then read again; what its attempts took stays."""
    folder = f"{build.url}/{JOURNAL}"
    if names := [name for name in sizes(folder) if name.endswith(SEGMENT)]:
        remove_listed(folder, names)


def _unanswered(build: Build) -> Iterator[tuple[str, pa.Table, pa.Array]]:
    """Path, rows and mask of the parts with rows without an answer; none in a finished build."""
    for file, part in () if reusable(build) else whole_parts(build, part_paths(build)):
        lost = without_answer(part)
        if pc.any(lost).as_py():
            yield file.path, part, lost


def rewrite(build: Build, path: str, rows: pa.Table) -> File:
    """Replace the rows of a part of an unfinished build, and return how its manifest lists it."""
    folder, _, name = path.rpartition("/")
    return write_part(build, rows, name.removeprefix("part-").removesuffix(".parquet"), folder)


def remove_unfinished(build: Build) -> None:
    """Remove the files of an unfinished build, for stages that start over rather than resume; what was set aside stays."""
    remove_files(build.url)
