"""Manifests: what makes a build finished, what it was made from, and which builds are finished."""

import contextlib
import hashlib
import json
import logging
import re
import subprocess
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, Field, ValidationError, field_validator

from valueflow import __version__
from valueflow.config import Config
from valueflow.console import masked, without_secrets
from valueflow.errors import DamageError, InputError
from valueflow.records import SCHEMAS
from valueflow.store import file_list
from valueflow.store.attempts import use
from valueflow.store.details import Details
from valueflow.store.file_list import File, check_bytes, describe
from valueflow.store.files import ABSENT, SET_ASIDE, folders, read_bytes, read_parsed, sizes, sweep_below, write_bytes
from valueflow.store.json_files import content_digest, strict_json, unsealed
from valueflow.store.layout import MANIFEST, Build, under, value_folder
from valueflow.store.stamp import stamp

log = logging.getLogger(__name__)
DetailsT = TypeVar("DetailsT", bound=Details)
ModelT = TypeVar("ModelT", bound=BaseModel)
# Tables whose builds hold files that are not parquet.
FILE_TABLES = ("hives", "fast")
# Tables with one file for each value.
BY_VALUE = ("candidates", "utilities", "vidb")
VALUE_ID = re.compile("[^:]+:[^:]+")
MODEL_FOLDER = "model/"
UNLISTED = "is not in its manifest"
# Counts that are the number of rows, by table.
ROWS = {
    "texts": "texts", "windows": "windows", "rankings": "windows", "votes": "questions", "responses": "responses",
    "embeddings": "texts", "names": "questions", "generations": "generations",
    "choices": "questions",
}  # fmt: skip
# What Arrow raises on bytes that are no parquet; its OSErrors are about bytes in memory here.
PARQUET_ERRORS = (pa.ArrowException, OSError)
MAKE_AGAIN = "rerun the command that made it: what is lost is made again, answers that are whole are kept"


class Input(Config):
    """Something that a build was made from: another build, or a file or folder that the user named."""

    url: str
    table: str = ""
    build_id: str = ""
    content: str = Field("", description="of a build: `Manifest.content` when it was read", exclude_if=lambda value: not value)

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
        existing = read_manifest(source)
        content = existing.content if existing else ""
        return cls(url=source.url, table=source.table, build_id=source.build_id, content=content)


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
    file_list: File | None = Field(
        None, description="the file with the list of files, where they are many", exclude_if=lambda value: value is None
    )
    attempt: str
    digest: str = Field("", description="hash of all the rest; empty in manifests of earlier code")

    @field_validator("inputs", mode="before")
    @classmethod
    def _inputs_as_urls(cls, inputs: Any) -> Any:
        """Manifests of ValueFlow before inputs were typed list URLs: those that end in a table and a build id are builds."""
        return [_input_of_url(i) if isinstance(i, str) else i for i in inputs] if isinstance(inputs, list) else inputs

    @property
    def content(self) -> str:
        """Hash of what others compute with: the files, and of a version its calibrations."""
        files = [file.model_dump() for file in self.files]
        return content_digest(
            [self.table, self.build_id, files, self.config.get("calibrations", {}) if self.table == "vidb" else {}]
        )

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
            raise self._refusal(error) from error

    def nested(self, record: type[ModelT], content: Any, key: str) -> ModelT:
        """Return settings or numbers under a key of the details as the record of their room.

        Raises:
            InputError: the manifest holds something else.
        """
        try:
            return record.model_validate(content)
        except ValidationError as error:
            raise self._refusal(error, key) from error

    def _refusal(self, error: ValidationError, *above: str) -> InputError:
        first = error.errors()[0]
        key = ".".join(map(str, (*above, *first["loc"])))
        return InputError(f"manifest of {self.table}/{self.build_id}: {key}: {first['msg']}; build it again")

    def inputs_from(self, table: str) -> list[Build]:
        """Return the builds of one table that this build was made from."""
        return [build for i in self.inputs if (build := i.build) and build.table == table]


def _parse(data: bytes) -> Manifest:
    """A manifest; ValueError where its content is not that of its digest."""
    parsed = Manifest.model_validate(strict_json(data))
    unsealed(data)
    if not parsed.digest and any(source.content for source in parsed.inputs):
        raise ValueError("its digest is missing, so it was changed after it was written")
    if len(parsed.attempt) > len(uuid.uuid4().hex):  # the end of another field, after bytes that were lost
        raise ValueError("its attempt is no id, so it was changed after it was written")
    return parsed


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
    use(build.root, f"{build.table}/{build.build_id}")
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
    if len(manifest.files) > file_list.MAX_IN_MANIFEST:
        content = file_list.written([file.model_dump() for file in manifest.files])
        listed = describe(f"{file_list.FILES}{hashlib.sha256(content).hexdigest()[:16]}", content, len(manifest.files))
        write_bytes(f"{build.url}/{listed.path}", content)
        manifest = manifest.model_copy(update={"file_list": listed})
    manifest = manifest.model_copy(update={"digest": content_digest(json.loads(_json(manifest, exclude={"digest"})))})
    manifest = _as_before(build, manifest)
    if card:
        write_bytes(f"{build.url}/README.md", card(manifest).encode())
    write_bytes(build.manifest_url, _json(manifest, indent=1).encode())
    return manifest


def _json(manifest: Manifest, **settings: Any) -> str:
    """A manifest as it is written: files that are listed elsewhere are not repeated."""
    return (manifest.model_copy(update={"files": []}) if manifest.file_list else manifest).model_dump_json(**settings)


def _with_files(build: Build, manifest: Manifest) -> Manifest:
    """A manifest as it was read, with the files that are listed beside it; DamageError where the list is gone or another."""
    listed = manifest.file_list
    if listed is None:
        return manifest
    url = f"{build.url}/{listed.path}"

    def parse(data: bytes) -> list[File]:
        check_bytes(listed, data)
        return [File.model_validate(file) for file in file_list.parsed(data)]

    try:
        return manifest.model_copy(update={"files": read_parsed(url, parse, (*PARQUET_ERRORS, ValueError), "a list of files")})
    except FileNotFoundError:
        raise DamageError(f"{url} is gone") from None


def _as_before(build: Build, manifest: Manifest) -> Manifest:
    """The manifest that was set aside with a damaged file, where the build has the same content again."""
    same = {"table", "build_id", "config", "inputs", "counts", "files"}

    def content_of(one: Manifest) -> dict[str, Any]:
        content = json.loads(one.model_dump_json(include=same))
        content["config"].pop("timeline", None)  # when answers came, not what they are
        return content

    content = content_of(manifest)
    for name in sizes(build.url):
        if name.startswith(MANIFEST) and name.endswith(SET_ASIDE):
            with contextlib.suppress(ValueError, DamageError):
                earlier = _with_files(build, _parse(read_bytes(f"{build.url}/{name}")))
                if content_of(earlier) == content:
                    return earlier
    return manifest


def manifest(build: Build) -> Manifest | None:
    """Return the manifest of a finished build, None for an unfinished one.

    Raises:
        DamageError: the manifest is damaged or was changed, or its files are not those that it lists.
    """
    loaded = read_manifest(build)
    for flaw in flaws(build, loaded) if loaded else ():
        raise DamageError(f"{build.url}{'/' if flaw.path else ''}{flaw.path} {flaw.reason}; {MAKE_AGAIN}")
    return loaded


class Flaw(NamedTuple):
    """What is wrong with a finished build: the file ("": the manifest as a whole), and the end of a sentence about it."""

    path: str
    reason: str


def flaws(build: Build, listed: Manifest) -> Iterator[Flaw]:
    """Yield how a build differs from its manifest, as far as sizes tell."""
    actual, paths = sizes(build.url), {file.path for file in listed.files}
    for file in listed.files:
        if file.path not in actual:
            yield Flaw(file.path, f"is missing, its manifest says {file.size}")
        elif actual[file.path] != file.size:
            yield Flaw(file.path, f"has {actual[file.path]} bytes, its manifest says {file.size}")
    for path in actual:
        if path not in paths and (path.endswith(".parquet") or (listed.table == "hives" and path.startswith(MODEL_FOLDER))):
            yield Flaw(path, UNLISTED)
    number = listed.counts.get(ROWS[listed.table]) if listed.table in ROWS else None
    if number not in (None, listed.num_rows):
        yield Flaw("", f"has {number} rows, and the files in its manifest {listed.num_rows}")
    if listed.table in BY_VALUE:
        yield from _flaws_by_value(listed)


def _flaws_by_value(listed: Manifest) -> Iterator[Flaw]:
    """Each value that a manifest names has one file, and each file belongs to such a value."""
    names = listed.config.get("calibrations", {}) if listed.table == "vidb" else listed.counts
    value_of = {value_folder(name): name for name in names if VALUE_ID.fullmatch(name)} if isinstance(names, dict) else {}
    seen: set[str] = set()
    for path in (file.path for file in listed.files):
        folder = path.rpartition("/")[0]
        if folder in seen or (value_of and folder not in value_of):
            yield Flaw(path, f"is {'a second file' if folder in seen else 'of a value'} that its manifest does not name")
        seen.add(folder)
    for folder, value in value_of.items():
        if folder not in seen:
            yield Flaw("", f"has the value {value}, and no file of it in its manifest")


def read_manifest(build: Build) -> Manifest | None:
    """Return the manifest of a build without a look at its files; None where there is none. The lease names the build."""
    use(build.root, f"{build.table}/{build.build_id}")
    return unused_manifest(build)


def unused_manifest(build: Build) -> Manifest | None:
    """Return the manifest as `read_manifest` does, for the collector, which uses no build."""
    try:
        return _with_files(build, read_parsed(build.manifest_url, _parse, (ValueError,), "a manifest"))
    except FileNotFoundError:
        return None
    except DamageError as error:
        raise DamageError(f"{str(error).partition(' For further information')[0]}; {MAKE_AGAIN}") from error


_CACHE: dict[str, tuple[str, Manifest]] = {}  # by URL: `stamp` of the manifest when it was read and its files were looked at
MAX_CACHED = 64


def require_manifest(build: Build) -> Manifest:
    """Return the manifest of a finished build; it is read once by a process, and again when it was written again.

    What is read of a finished build is compared with its manifest (`parts.read_part`), so a file that was lost or changed later
    is noticed where it is read. `repair.reusable` and `verify` look at everything each time.

    Raises:
        InputError: the build is not finished; the message lists those that are.
    """
    url, version = build.manifest_url, stamp(build.manifest_url)
    if version and _CACHE.get(url, ("",))[0] == version:
        use(build.root, f"{build.table}/{build.build_id}")
        return _CACHE[url][1]
    existing = manifest(build)
    if existing is not None and version:
        if len(_CACHE) >= MAX_CACHED:
            _CACHE.clear()
        _CACHE[url] = version, existing
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
        except ABSENT:  # also a link to a file, which a listing does not tell from a folder
            continue
        with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
            created[build_id] = str(json.loads(content)["created"])
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


def git_commit() -> str:
    """Return the commit of the checkout the code runs from, "unknown" outside one."""
    here = Path(__file__).resolve().parent
    answer = subprocess.run(["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return answer.stdout.strip() or "unknown"
