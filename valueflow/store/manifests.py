"""Manifests: what makes a build finished, what it was made from, and which builds are finished."""

import contextlib
import hashlib
import json
import logging
import subprocess
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError, field_validator

from valueflow import __version__
from valueflow.config import Config
from valueflow.console import masked, without_secrets
from valueflow.errors import DamageError, InputError
from valueflow.records import SCHEMAS
from valueflow.store.details import Details
from valueflow.store.files import SET_ASIDE, folders, read_bytes, read_parsed, sizes, sweep_below, write_bytes
from valueflow.store.layout import MANIFEST, Build, under

log = logging.getLogger(__name__)
DetailsT = TypeVar("DetailsT", bound=Details)
# Tables whose builds hold files that are not parquet.
FILE_TABLES = ("hives", "fast")
# What Arrow raises on bytes that are no parquet; its OSErrors are about bytes in memory here.
PARQUET_ERRORS = (pa.ArrowException, OSError)
MAKE_AGAIN = "rerun the command that made it: what is lost is made again, answers that are whole are kept"


class File(Config):
    """One committed file, its path relative to the build."""

    path: str
    size: int
    sha256: str
    rows: int

    @field_validator("path")
    @classmethod
    def _inside(cls, path: str) -> str:
        """A manifest may come from somebody else; what it lists lies in its build."""
        if "\\" in path or ":" in path or any(part in ("", ".", "..") for part in path.split("/")):
            raise ValueError(f"file {path!r} is not a relative path inside the build")
        return path


class Input(Config):
    """Something that a build was made from: another build, or a file or folder that the user named."""

    url: str
    table: str = ""
    build_id: str = ""

    @property
    def build(self) -> Build | None:
        """The address of the build; None for a user's file."""
        if not self.build_id:
            return None
        return Build(self.url.removesuffix(f"/{self.table}/{self.build_id}"), self.table, self.build_id)

    @classmethod
    def of(cls, source: Build | str) -> "Input":
        """Return a build or the URL of a user's file as an input."""
        if isinstance(source, str):
            return cls(url=without_secrets(source))
        return cls(url=source.url, table=source.table, build_id=source.build_id)


class Manifest(Config):
    """What makes a build finished: its files, and everything they were made from and with."""

    table: str
    build_id: str
    created: str
    code_version: str
    git_commit: str
    config: dict[str, Any]
    inputs: list[Input]
    counts: dict[str, Any]
    files: list[File]
    attempt: str

    @field_validator("inputs", mode="before")
    @classmethod
    def _inputs_as_urls(cls, inputs: Any) -> Any:
        """Manifests of ValueFlow before inputs were typed list URLs: those that end in a table and a build id are builds."""
        return [_input_of_url(i) if isinstance(i, str) else i for i in inputs] if isinstance(inputs, list) else inputs

    @property
    def num_rows(self) -> int:
        """Rows over all files."""
        return sum(file.rows for file in self.files)

    def details(self, record: type[DetailsT]) -> DetailsT:
        """Return the settings and counts of the build as the record of its table (see `details`).

        Raises:
            InputError: the manifest holds something else.
        """
        try:
            return record.read(self.config, self.counts)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise InputError(f"manifest of {self.table}/{self.build_id}: {key}: {first['msg']}; build it again") from error

    def inputs_from(self, table: str) -> list[Build]:
        """Return the builds of one table that this build was made from."""
        return [build for i in self.inputs if (build := i.build) and build.table == table]


def _input_of_url(url: str) -> Input:
    url = url.rstrip("/")
    *_, table, build_id = ["", "", *url.split("/")]
    if table in SCHEMAS or table in FILE_TABLES:
        return Input(url=url, table=table, build_id=build_id)
    return Input(url=url)


def commit(
    build: Build, details: Details, inputs: Sequence[Build | str] = (), files: Sequence[File] | None = None,
    card: Callable[[Manifest], str] | None = None,
) -> Manifest:  # fmt: skip
    """Write the manifest that makes a build finished, and return it.

    A build that was made again because a file was damaged, and is what it was, gets its earlier manifest back.

    Args:
        build: the build.
        details: settings and counts, the record of its table.
        inputs: builds and users' files that it was made from.
        files: its files; by default every part that is there is hashed and listed.
        card: makes the README.md of the build, which is written before the manifest.
    """
    sweep_below(build.url)
    if files is None:
        with ThreadPoolExecutor(8) as pool:
            files = list(pool.map(lambda path: _describe(build, path), part_paths(build)))
    config, counts = masked(details.saved(), by_name=False)
    manifest = Manifest(
        table=build.table, build_id=build.build_id, created=datetime.now(UTC).isoformat(timespec="microseconds"),
        code_version=__version__, git_commit=git_commit(), config=config, inputs=[Input.of(i) for i in inputs], counts=counts,
        files=sorted(files, key=lambda file: file.path), attempt=uuid.uuid4().hex,
    )  # fmt: skip
    manifest = _as_before(build, manifest)
    if card:
        write_bytes(f"{build.url}/README.md", card(manifest).encode())
    write_bytes(build.manifest_url, manifest.model_dump_json(indent=1).encode())
    return manifest


def _as_before(build: Build, manifest: Manifest) -> Manifest:
    """The manifest that was set aside with a damaged file, where the build has the same content again."""
    same = {"table", "build_id", "config", "inputs", "counts", "files"}
    content = json.loads(manifest.model_dump_json(include=same))
    for name in sizes(build.url):
        if name.startswith(MANIFEST) and name.endswith(SET_ASIDE):
            with contextlib.suppress(ValidationError):
                earlier = Manifest.model_validate_json(read_bytes(f"{build.url}/{name}"))
                if json.loads(earlier.model_dump_json(include=same)) == content:
                    return earlier
    return manifest


def manifest(build: Build) -> Manifest | None:
    """Return the manifest of a finished build, None for an unfinished one.

    Raises:
        DamageError: the manifest is damaged, or a file it lists is missing or has another size.
    """
    loaded = read_manifest(build)
    if loaded is None:
        return None
    actual = sizes(build.url)
    for file in loaded.files:
        if actual.get(file.path) != file.size:
            state = f"has {actual[file.path]} bytes" if file.path in actual else "is missing"
            raise DamageError(f"{build.url}/{file.path} {state}, its manifest says {file.size}; {MAKE_AGAIN}")
    return loaded


def read_manifest(build: Build) -> Manifest | None:
    """Return the manifest of a build without a look at its files; None where there is none."""
    try:
        return read_parsed(build.manifest_url, Manifest.model_validate_json, (ValidationError,), "a manifest")
    except FileNotFoundError:
        return None
    except DamageError as error:
        raise DamageError(f"{str(error).partition(' For further information')[0]}; {MAKE_AGAIN}") from error


def require_manifest(build: Build) -> Manifest:
    """Return the manifest of a finished build.

    Raises:
        InputError: the build is not finished; the message lists those that are.
    """
    existing = manifest(build)
    if existing is None:
        ids = ", ".join(finished(build.root, build.table)) or "none"
        raise InputError(f"no finished {build.table!r} build {build.build_id!r} under {build.root} (finished: {ids})")
    return existing


def details_of(build: Build, record: type[DetailsT]) -> DetailsT:
    """Return the settings and counts of a finished build.

    Raises:
        InputError: the build is not finished, or its manifest holds something else.
    """
    return require_manifest(build).details(record)


def finished(root: str, table: str) -> list[str]:
    """Return the ids of the finished builds of a table, oldest first; a build with a damaged manifest is left out."""
    created = {}
    for build_id in folders(under(root, table)):
        try:
            content = read_bytes(Build(root, table, build_id).manifest_url)
        except FileNotFoundError:
            continue
        with contextlib.suppress(ValueError, KeyError, TypeError):
            created[build_id] = json.loads(content)["created"]
    return sorted(created, key=lambda build_id: created[build_id])


def ingested(root: str, texts: str, alternative: str = "") -> Build:
    """Return the texts with a build id, or with `latest` those of the newest finished ingest.

    Raises:
        InputError: nothing is ingested; `alternative` ends the sentence with what else the user can do.
    """
    ids = finished(root, "texts")
    if not ids:
        raise InputError(f"no ingested texts under {root}; run python -m jobs.ingest first{alternative}")
    return Build(root, "texts", ids[-1] if texts == "latest" else texts)


def part_paths(build: Build, folder: str = "") -> list[str]:
    """Return the relative paths of every part of a build or of one of its folders, committed or not, sorted."""
    prefix = f"{folder}/" if folder else ""
    return sorted(f"{prefix}{path}" for path in sizes(f"{build.url}/{folder}".rstrip("/")) if path.endswith(".parquet"))


def _describe(build: Build, path: str) -> File:
    url = f"{build.url}/{path}"

    def read(data: bytes) -> File:
        return describe(path, data, pq.read_metadata(pa.BufferReader(data)).num_rows)

    return read_parsed(url, read, PARQUET_ERRORS, "parquet")


def describe(path: str, data: bytes, rows: int) -> File:
    """Return how a manifest lists a file."""
    return File(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest(), rows=rows)


def git_commit() -> str:
    """Return the commit of the checkout the code runs from, "unknown" outside one."""
    here = Path(__file__).resolve().parent
    answer = subprocess.run(["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return answer.stdout.strip() or "unknown"
