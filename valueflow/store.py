"""Builds on disk or object storage: atomic files, manifests, committed ids, the published pointer. Knows every layout.

`{root}/{table}/{build_id}/[theory=…/value=…/]part-*.parquet` hold rows; `_manifest.json` beside them makes the build exist.
`{root}/vidb/CURRENT` names the published VIDB version. Files without a manifest are an unfinished build that a rerun continues.
"""

import contextlib
import fcntl
import hashlib
import io
import json
import logging
import os
import subprocess
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import ValidationError

from valueflow import __version__
from valueflow.config import Config
from valueflow.errors import InputError
from valueflow.records import SCHEMAS, conform

log = logging.getLogger(__name__)


class File(Config):
    """One committed file, its path relative to the build."""

    path: str
    size: int
    sha256: str
    rows: int


class Manifest(Config):
    """What makes a build exist: its files and everything that made them."""

    table: str
    build_id: str
    created: str
    code_version: str
    git_commit: str
    config: dict
    inputs: list[str]
    counts: dict
    files: list[File]
    attempt: str

    @property
    def num_rows(self) -> int:
        """Rows over all files."""
        return sum(file.rows for file in self.files)


class Build(NamedTuple):
    """The address of one build."""

    root: str
    table: str
    build_id: str

    @property
    def url(self) -> str:
        """The folder of the build."""
        return f"{self.root.rstrip('/')}/{self.table}/{self.build_id}"


def filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system and path of a URL (`s3://…`, `file://…`, a plain path); listings are never cached."""
    try:
        fs, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except (ValueError, ImportError) as error:
        raise InputError(f"cannot open {url!r}: {error}") from error
    return fs, path


def exists(url: str) -> bool:
    """Return whether a file or folder is there."""
    fs, path = filesystem(url)
    return fs.exists(path)


def read_bytes(url: str) -> bytes:
    """Return a file's bytes; FileNotFoundError where there is none."""
    fs, path = filesystem(url)
    return fs.cat_file(path)


def read_input(url: str) -> bytes:
    """Return the bytes of a file the user named; InputError where there is none."""
    try:
        return read_bytes(url)
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"{url} does not exist or is not a file") from None


def write_bytes(url: str, content: bytes) -> None:
    """Write a whole file or nothing: readers never see a part of it."""
    fs, path = filesystem(url)
    if "file" not in _protocols(fs):
        fs.pipe_file(path, content)
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


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


def partition(theory: str, value: str) -> str:
    """Return the hive folder of one value."""
    return f"theory={theory}/value={value}"


def part_paths(build: Build, folder: str = "") -> list[str]:
    """Return the relative paths of every part of a build or of one of its folders, committed or not, sorted."""
    fs, path = filesystem(build.url)
    prefix = fs._strip_protocol(path).rstrip("/") + "/"
    searched = f"{prefix}{folder}".rstrip("/")
    if not fs.exists(searched):
        return []
    found = (str(p).removeprefix(prefix) for p in fs.find(searched))
    return sorted(p for p in found if p.endswith(".parquet"))


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
    """Return the rows of a committed build, or of one of its hive folders. For tables that fit one machine."""
    parts = [
        read_part(build, file.path, columns)
        for file in require_manifest(build).files
        if not folder or file.path.startswith(f"{folder}/")
    ]
    schema = SCHEMAS[build.table]
    return pa.concat_tables(parts) if parts else schema.empty_table().select(columns or schema.names)


def committed_ids(build: Build, column: str) -> np.ndarray:
    """Return the sorted ids (strings) that an unfinished build already holds; unreadable parts are removed and redone."""
    ids: list[np.ndarray] = []
    for path in part_paths(build):
        try:
            ids.append(read_part(build, path, [column])[column].to_numpy().astype("S16"))
        except InputError as error:
            log.warning("resume: %s; removed, its rows are done again", error)
            fs, folder = filesystem(build.url)
            fs.rm_file(f"{folder}/{path}")
    return np.unique(np.concatenate(ids)) if ids else np.empty(0, "S16")


def manifest(build: Build) -> Manifest | None:
    """Return the manifest of a finished build, None for an unfinished one.

    Raises:
        InputError: the manifest cannot be read, or a file it lists is missing or has another size.
    """
    url = f"{build.url}/_manifest.json"
    try:
        loaded = Manifest.model_validate_json(read_bytes(url))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        why = error.errors()[0]["msg"]
        raise InputError(f"manifest {url} is corrupt ({why}); delete it and rerun: finished rows are kept") from error
    fs, path = filesystem(build.url)
    listed = fs.find(path, detail=True)
    prefix = fs._strip_protocol(path).rstrip("/") + "/"
    sizes = {str(p).removeprefix(prefix): info["size"] for p, info in listed.items()}
    for file in loaded.files:
        if sizes.get(file.path) != file.size:
            seen = "is missing" if file.path not in sizes else f"has {sizes[file.path]} bytes"
            raise InputError(
                f"{build.url}/{file.path} {seen}, its manifest says {file.size}; delete the folder {build.url} and rerun"
            )
    return loaded


def finished_manifest(build: Build, stage: str, rows: str) -> Manifest | None:
    """Return the manifest of a build that an earlier run finished, and say so; None where there is work to do."""
    found = manifest(build)
    if found:
        log.info("%s: %s %s, done before", stage, f"{found.num_rows:,}", rows)
    return found


def ingested(root: str, texts: str, else_: str = "") -> Build:
    """Return the texts of a build id, or with `latest` those of the newest finished ingest.

    Raises:
        InputError: nothing is ingested; `else_` ends the sentence with what else could be done.
    """
    there = finished(root, "texts")
    if not there:
        raise InputError(f"no ingested texts under {root}; run python -m jobs.ingest first{else_}")
    return Build(root, "texts", there[-1] if texts == "latest" else texts)


def require_manifest(build: Build) -> Manifest:
    """Return the manifest of a build that must be finished."""
    found = manifest(build)
    if found is None:
        there = ", ".join(finished(build.root, build.table)) or "none"
        raise InputError(f"no finished {build.table!r} build {build.build_id!r} under {build.root} (finished: {there})")
    return found


def finished(root: str, table: str) -> list[str]:
    """Return the ids of the finished builds of a table, oldest first."""
    fs, path = filesystem(f"{root.rstrip('/')}/{table}")
    if not fs.exists(path):
        return []
    created = {}
    for found in fs.glob(f"{path}/*/_manifest.json"):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            created[str(found).split("/")[-2]] = json.loads(fs.cat_file(found))["created"]
    return sorted(created, key=lambda build_id: created[build_id])


def commit(build: Build, config: dict, inputs: list[str], counts: dict, files: list[File] | None = None) -> Manifest:
    """Write the manifest that makes the build exist; without `files` every part found is hashed and listed."""
    if files is None:
        with ThreadPoolExecutor(8) as pool:
            files = list(pool.map(lambda path: _describe(build, path), part_paths(build)))
    made = Manifest(
        table=build.table, build_id=build.build_id, created=datetime.now(UTC).isoformat(timespec="microseconds"),
        code_version=__version__, git_commit=git_commit(), config=config, inputs=inputs, counts=counts,
        files=sorted(files, key=lambda file: file.path), attempt=uuid.uuid4().hex,
    )  # fmt: skip
    write_bytes(f"{build.url}/_manifest.json", made.model_dump_json(indent=1).encode())
    return made


def drop_duplicates(build: Build, column: str) -> None:
    """Rewrite the parts of an unfinished build so that each id stands in one row (two attempts may have answered it)."""
    seen: set[bytes] = set()
    for path in part_paths(build):
        part = read_part(build, path)
        ids = part[column].to_numpy().astype("S16").tolist()
        first = [i not in seen and i not in ids[:n] for n, i in enumerate(ids)] if len(set(ids)) < len(ids) else None
        keep = first or [i not in seen for i in ids]
        seen.update(ids)
        if not all(keep):
            folder, _, name = path.rpartition("/")
            write_part(build, part.filter(pa.array(keep)), name.removeprefix("part-").removesuffix(".parquet"), folder)


def remove_unfinished(build: Build) -> None:
    """Remove what an unfinished build left behind, for stages that start over rather than continue."""
    fs, path = filesystem(build.url)
    if fs.exists(path):
        fs.rm(path, recursive=True)


def verify(build: Build) -> None:
    """Read every byte of a finished build and compare it with the manifest's hashes."""
    for file in require_manifest(build).files:
        if hashlib.sha256(read_bytes(f"{build.url}/{file.path}")).hexdigest() != file.sha256:
            raise InputError(f"{build.url}/{file.path} differs from its manifest's hash; delete {build.url} and rerun")


class Pointer(NamedTuple):
    """What CURRENT said when a job started: the fence that a late attempt cannot pass."""

    version: str | None
    sequence: int
    raw: bytes | None


def current(root: str) -> Pointer:
    """Return the published VIDB version; version None where nothing is published."""
    url = f"{root.rstrip('/')}/vidb/CURRENT"
    try:
        raw = read_bytes(url)
        content = json.loads(raw)
        return Pointer(content["version"], content["sequence"], raw)
    except FileNotFoundError:
        return Pointer(None, 0, None)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{url} is corrupt ({error!r}); delete it and publish a version again") from error


def publish(root: str, version: str, seen: Pointer) -> None:
    """Point CURRENT at a finished version with one write, only if nobody has published since `seen` was read.

    Raises:
        InputError: another job published meanwhile; the version stays readable by its id.
    """
    if seen.version == version:
        return
    require_manifest(Build(root, "vidb", version))
    content = {"version": version, "sequence": seen.sequence + 1, "published": datetime.now(UTC).isoformat()}
    if not _swap(f"{root.rstrip('/')}/vidb/CURRENT", json.dumps(content).encode(), seen.raw):
        raise InputError(
            f"VIDB {current(root).version!r} was published while {version!r} was being built; {version!r} is kept but not "
            f"made current. Rerun the command to publish it, or use it with vidb={version}"
        )


def _swap(url: str, content: bytes, expected: bytes | None) -> bool:
    """Replace a small file if it still holds `expected` (None: does not exist). Atomic on local disks and S3."""
    fs, path = filesystem(url)
    if "file" in _protocols(fs):
        with _locked(path):
            if (Path(path).read_bytes() if Path(path).exists() else None) != expected:
                return False
            write_bytes(url, content)
            return True
    if (fs.cat_file(path) if fs.exists(path) else None) != expected:
        return False
    if "s3" not in _protocols(fs):
        fs.pipe_file(path, content)
        return True
    condition = {"IfNoneMatch": "*"} if expected is None else {"IfMatch": fs.info(path)["ETag"]}
    bucket, key, _ = fs.split_path(path)
    try:
        fs.call_s3("put_object", Bucket=bucket, Key=key, Body=content, **condition)
    except OSError as error:
        if "recondition" in str(error) or isinstance(error, FileExistsError):
            return False
        raise
    return True


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(f"{path}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _describe(build: Build, path: str) -> File:
    data = read_bytes(f"{build.url}/{path}")
    try:
        rows = pq.read_metadata(pa.BufferReader(data)).num_rows
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{build.url}/{path} is not readable parquet ({error}); delete it and rerun") from error
    return File(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest(), rows=rows)


def _protocols(fs: fsspec.AbstractFileSystem) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def git_commit() -> str:
    """Return the commit of the checkout the code runs from, "unknown" outside one."""
    here = Path(__file__).resolve().parent
    answer = subprocess.run(["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return answer.stdout.strip() or "unknown"


def missing_from(ids: pa.ChunkedArray, done: np.ndarray) -> pa.Array:
    """Return a mask of the ids that are not among the sorted `done` (the anti-join of resume)."""
    if not len(done):
        return pa.array(np.ones(len(ids), bool))
    asked = ids.to_numpy().astype("S16")
    at = np.minimum(np.searchsorted(done, asked), len(done) - 1)
    return pc.invert(pa.array(done[at] == asked))
