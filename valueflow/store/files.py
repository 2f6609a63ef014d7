"""Files on disk or object storage: URLs, reads that outlast weather, whole-or-absent writes, damage set aside."""

import contextlib
import fcntl
import logging
import os
import struct
import time
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple, TypeVar

import fsspec
from fsspec.asyn import AsyncFileSystem
from fsspec.spec import AbstractFileSystem

from valueflow import retry
from valueflow.errors import DamageError, InputError, StorageError, check_no_password, lasts, storage_error

log = logging.getLogger(__name__)
T = TypeVar("T")

# How often an operation is tried. With the delays of `retry` this is about eight seconds.
ATTEMPTS = 6
# Object stores' clients, whose exceptions are not all OSErrors.
CLIENTS = {"aiobotocore", "aiohttp", "azure", "botocore", "fsspec", "gcsfs", "google", "requests", "s3fs", "urllib3"}
ABSENT = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
# What is raised on bytes that are no whole ZIP archive, such as NumPy's .npz.
ARCHIVE_ERRORS = (
    ValueError,
    KeyError,
    EOFError,
    RuntimeError,
    OSError,
    OverflowError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
)
TEMPORARY, SET_ASIDE = ".tmp", ".bad"
# Under which names file systems say when a file was written.
MODIFIED = ("mtime", "LastModified", "last_modified", "updated", "created")
PER_REQUEST = 1_000  # files that an object store removes at once
# Folders in which this process has looked for files of killed writers.
_swept: set[str] = set()


def filesystem(url: str) -> tuple[AbstractFileSystem, str]:
    """Return the file system and path of a URL (`s3://…`, `file://…`, a plain path); listings are never cached."""
    check_no_password(url)
    if "\0" in url:  # of which file systems raise what they like
        raise InputError(f"{url!r} holds a NUL character")
    try:
        fs, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except (ValueError, ImportError) as error:
        raise InputError(f"cannot open {url!r}: {error}") from error
    return fs, path


def attempts(doing: str, operation: Callable[[], T], absent: tuple[type[OSError], ...] = ABSENT) -> T:
    """Return the result of an operation of storage, which is tried again with backoff as long as its failure may pass.

    Args:
        doing: the operation and its URL, for the message.
        operation: must be safe to repeat.
        absent: exceptions that are an answer, and are raised as they are.

    Raises:
        StorageError: it failed every time, or with an error that lasts.
    """
    for attempt in range(ATTEMPTS):
        try:
            return operation()
        except Exception as error:
            if isinstance(error, (*absent, StorageError)) or not is_storage(error):
                raise
            if lasts(error) or attempt == ATTEMPTS - 1:
                raise storage_error(error, doing) from error
            log.info("cannot %s: %s; trying again", doing, error)
            time.sleep(retry.backoff(attempt))
    raise AssertionError("unreachable")


def entry_type(url: str) -> str:
    """Return the type of what a URL names: file, directory, other, or "" for nothing."""
    fs, path = filesystem(url)
    try:
        # Not fs.exists() or fs.isfile(), which take every failure for absence.
        return str(attempts(f"look for {url}", lambda: fs.info(path))["type"])
    except ABSENT:
        return ""


def exists(url: str) -> bool:
    """Return whether a file or folder exists."""
    return bool(entry_type(url))


class Entry(NamedTuple):
    """A file in a listing: its size in bytes, and when it was written, in seconds since 1970 by the clock of the storage."""

    size: int
    modified: float


def sizes(url: str) -> dict[str, int]:
    """Return the size in bytes of every file below a folder by its relative path; nothing where there is no folder."""
    return {path: info["size"] for path, info in _infos(url).items()}


def entries(url: str) -> dict[str, Entry]:
    """Return every file below a folder by its relative path; nothing where there is no folder.

    Raises:
        StorageError: the file system does not say when a file was written.
    """
    return {path: Entry(info["size"], modified_at(url, info)) for path, info in _infos(url).items()}


def modified_at(url: str, info: dict) -> float:
    """Return when the file of an entry was written; StorageError where the file system does not tell."""
    for name in MODIFIED:
        if name in info:
            at = info[name]
            return at.timestamp() if isinstance(at, datetime) else float(at)
    raise StorageError(f"the file system of {url} does not tell when files were written, so nothing can be deleted by age")


def _infos(url: str) -> dict[str, dict]:
    fs, path = filesystem(url)
    top = fs._strip_protocol(path).rstrip("/")
    # Abstract walks leave out what they cannot list, and `on_error` does not reach the folders below the first.
    walks = type(fs).find is AbstractFileSystem.find or getattr(type(fs), "_find", None) is AsyncFileSystem._find

    def find() -> dict[str, dict]:
        try:
            return dict(_files_below(fs, top)) if walks else fs.find(top, detail=True)
        except ABSENT:
            fs.info(top)
            raise OSError("a folder in it vanished meanwhile") from None

    try:
        files = attempts(f"list {url}", find)
    except ABSENT:
        return {}
    return {str(name).removeprefix(f"{top}/"): info for name, info in files.items() if str(name) != top}


def _files_below(fs: AbstractFileSystem, folder: str) -> Iterator[tuple[str, dict]]:
    for entry in fs.ls(folder, detail=True):
        if entry["type"] == "directory":
            yield from _files_below(fs, entry["name"])
        else:
            yield entry["name"], entry


def folders(url: str) -> list[str]:
    """Return the names of the folders directly in a folder; nothing where there is none."""
    fs, path = filesystem(url)
    try:
        entries = attempts(f"list {url}", lambda: fs.ls(path, detail=True))
    except ABSENT:
        return []
    return sorted(str(entry["name"]).rstrip("/").rpartition("/")[2] for entry in entries if entry["type"] != "file")


def read_bytes(url: str) -> bytes:
    """Return a file's bytes.

    Raises:
        FileNotFoundError: the file does not exist.
        StorageError: it cannot be read, also when tried again.
    """
    fs, path = filesystem(url)
    return attempts(f"read {url}", lambda: fs.cat_file(path))


def read_input(url: str) -> bytes:
    """Return the bytes of a file that the user named.

    Raises:
        InputError: the file does not exist or is a folder.
    """
    try:
        return read_bytes(url)
    except ABSENT:
        raise InputError(f"{url} does not exist or is not a file") from None


def read_parsed(url: str, parse: Callable[[bytes], T], errors: tuple[type[Exception], ...], what: str) -> T:
    """Return a file's content as `parse` makes it of its bytes.

    Bytes that it refuses are read again: only bytes that come twice and have the length that the store tells are damage.

    Raises:
        FileNotFoundError: the file does not exist.
        DamageError: the file is not `what` it should be (parquet, JSON …).
        StorageError: it cannot be read whole.
    """
    refused: tuple[type[Exception], ...] = (*errors, RecursionError)
    fs, path = filesystem(url)
    for attempt in range(ATTEMPTS):
        data = read_bytes(url)
        try:
            return parse(data)
        except MemoryError:
            raise
        except refused as error:
            reason = " ".join(str(error).split())
            if read_bytes(url) == data and attempts(f"look for {url}", lambda: fs.info(path))["size"] == len(data):
                raise DamageError(f"{url} is damaged: it is not {what} ({reason})") from error
            time.sleep(retry.backoff(attempt))
    raise StorageError(f"cannot read {url}: its bytes differ each time. Nothing was lost; rerun")


def read_or_set_aside(url: str, parse: Callable[[bytes], T], errors: tuple[type[Exception], ...], what: str) -> T | None:
    """Return a file's content as `read_parsed` does; None where there is no file, or a damaged one, which is set aside.

    For files that are made again where they are missing.

    Raises:
        StorageError: the file cannot be read whole, so nobody knows whether it is damaged.
    """
    try:
        return read_parsed(url, parse, errors, what)
    except FileNotFoundError:
        return None
    except DamageError as error:
        log.warning("%s; it is set aside", error)
        set_aside(url)
        return None


def write_bytes(url: str, content: bytes) -> None:
    """Write a file atomically: readers see the old content or the new one, never a part.

    Raises:
        StorageError: it cannot be written, also when tried again; the old content is there.
    """
    fs, path = filesystem(url)
    if is_local(fs):
        # A folder may vanish while it is written to (another attempt starts over): that passes.
        attempts(f"write {url}", lambda: _write_local(path, content), absent=())
        return
    try:
        attempts(f"write {url}", lambda: fs.pipe_file(path, content))
    except ABSENT as error:  # no such bucket
        raise storage_error(error, f"write {url}") from error


def write_for_people(url: str, content: bytes) -> None:
    """Write a file that people may have filled in: an existing one with other content is set aside, not replaced."""
    try:
        if read_bytes(url) == content:
            return
        set_aside(url)
    except FileNotFoundError:
        pass
    write_bytes(url, content)


def _write_local(path: str, content: bytes) -> None:
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    if folder not in _swept:
        _swept.add(folder)
        sweep(folder)
    temporary = f"{path}.{uuid.uuid4().hex}{TEMPORARY}"
    try:
        with open(temporary, "xb") as file:
            # The lock says that this writer lives; a sweep that was faster has removed the file.
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def sweep(folder: str) -> None:
    """Remove the files that killed writers left in a local folder; those of live writers are locked and stay."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for path in [entry.path for entry in entries if entry.name.endswith(TEMPORARY)]:
            # Where locks do not work, or the file belongs to somebody else, it stays.
            with contextlib.suppress(OSError), open(path, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(path)


def sweep_below(url: str) -> None:
    """Sweep a folder and all folders in it; nothing on object stores, whose files appear whole."""
    fs, path = filesystem(url)
    if is_local(fs):
        for folder, _, _ in os.walk(fs._strip_protocol(path)):
            sweep(folder)


def set_aside(url: str) -> str:
    """Rename a damaged file to `{url}.bad` (`.2.bad` where that is taken) and return the new URL; "" where it is gone."""
    number = 1
    while exists(target := f"{url}{'' if number == 1 else f'.{number}'}{SET_ASIDE}"):
        number += 1
    (fs, path), new = filesystem(url), filesystem(target)[1]

    def move() -> None:
        if is_local(fs):
            os.rename(path, new)
            return
        fs.cp_file(path, new)
        fs.rm_file(path)

    try:
        attempts(f"rename {url}", move)
    except ABSENT:
        return ""
    return target


def remove_files(url: str) -> None:
    """Remove the files below a folder, except those that were set aside and those of live writers."""
    fs, path = filesystem(url)
    top = fs._strip_protocol(path).rstrip("/")
    files = [f"{top}/{name}" for name in sizes(url) if not name.endswith((SET_ASIDE, TEMPORARY))]

    def remove() -> None:
        if not is_local(fs):
            fs.rm(files)
            return
        for file in files:
            with contextlib.suppress(FileNotFoundError):  # another attempt was faster
                os.unlink(file)

    if files:
        attempts(f"remove the files of {url}", remove, absent=())
    sweep_below(url)
    if is_local(fs):
        for folder, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):  # not empty
                os.rmdir(folder)


def remove_file(url: str) -> None:
    """Remove one file; nothing happens where it is gone."""
    fs, path = filesystem(url)
    with contextlib.suppress(*ABSENT):
        attempts(f"remove {url}", lambda: fs.rm_file(path))


def remove_listed(url: str, paths: Sequence[str]) -> None:
    """Remove files below a folder, by their relative paths, and the folders that are empty then; what is gone stays gone."""
    fs, top = filesystem(url)
    if not is_local(fs):
        for at in range(0, len(paths), PER_REQUEST):
            some = [f"{top}/{path}" for path in paths[at : at + PER_REQUEST]]
            with contextlib.suppress(*ABSENT):
                attempts(f"remove files of {url}", lambda some=some: fs.rm(some))  # type: ignore[misc]
        return
    for path in paths:
        file = f"{top}/{path}"
        with contextlib.suppress(*ABSENT):
            attempts(f"remove {file}", lambda file=file: os.unlink(file))  # type: ignore[misc]
        folder = os.path.dirname(file)
        with contextlib.suppress(OSError):  # not empty
            while len(folder) >= len(top.rstrip("/")):
                os.rmdir(folder)
                folder = os.path.dirname(folder)


@contextlib.contextmanager
def locked(path: str) -> Iterator[None]:
    """Hold the lock of a local file."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(f"{path}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def is_link(url: str) -> bool:
    """Return whether a path of this machine is a link."""
    fs, path = filesystem(url)
    return is_local(fs) and os.path.islink(path.rstrip("/"))


def is_local(fs: AbstractFileSystem) -> bool:
    """Return whether a file system is that of this machine."""
    return "file" in protocols(fs)


def protocols(fs: AbstractFileSystem) -> tuple[str, ...]:
    """Return the names of a file system in URLs."""
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def is_storage(error: Exception) -> bool:
    """Return whether an exception is one of a file system or of an object store's client."""
    return isinstance(error, OSError) or any(c.__module__.partition(".")[0] in CLIENTS for c in type(error).__mro__)
