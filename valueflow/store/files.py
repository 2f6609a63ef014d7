"""Files on disk or object storage: URLs, whole-or-absent writes, compare-and-swap."""

import contextlib
import fcntl
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec

from valueflow.errors import InputError


def filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system and path of a URL (`s3://…`, `file://…`, a plain path); listings are never cached."""
    try:
        fs, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except (ValueError, ImportError) as error:
        raise InputError(f"cannot open {url!r}: {error}") from error
    return fs, path


def exists(url: str) -> bool:
    """Return whether a file or folder exists."""
    fs, path = filesystem(url)
    return fs.exists(path)


def read_bytes(url: str) -> bytes:
    """Return a file's bytes.

    Raises:
        FileNotFoundError: the file does not exist.
    """
    fs, path = filesystem(url)
    return fs.cat_file(path)


def read_input(url: str) -> bytes:
    """Return the bytes of a file that the user named.

    Raises:
        InputError: the file does not exist or is a folder.
    """
    try:
        return read_bytes(url)
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"{url} does not exist or is not a file") from None


def write_bytes(url: str, content: bytes) -> None:
    """Write a file atomically: readers see the old content or the new one, never a part."""
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


def swap(url: str, content: bytes, expected: bytes | None) -> bool:
    """Replace a small file if it still holds `expected` (None: does not exist) and return whether it did.

    Atomic on local disks (a lock file) and S3 (a conditional write); elsewhere two writers at the same moment may both succeed.
    """
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


def _protocols(fs: fsspec.AbstractFileSystem) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)
