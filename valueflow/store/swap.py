"""Compare-and-swap of a small file, on disk and on S3."""

import time
from pathlib import Path

from fsspec.spec import AbstractFileSystem

from valueflow import retry
from valueflow.errors import lasts, storage_error
from valueflow.store.files import (
    ABSENT,
    ATTEMPTS,
    attempts,
    filesystem,
    is_local,
    is_storage,
    locked,
    protocols,
    read_bytes,
    write_bytes,
)


def swap(url: str, content: bytes, expected: bytes | None) -> bool:
    """Replace a small file if it still holds `expected` (None: does not exist), and return whether it holds `content` then.

    Atomic on local disks (a lock file) and S3 (a conditional write); elsewhere two writers at the same moment may both succeed.

    Raises:
        StorageError: the file cannot be read or written.
    """
    fs, path = filesystem(url)
    if is_local(fs):
        return attempts(f"write {url}", lambda: _swap_locked(url, path, content, expected), absent=())
    if "s3" in protocols(fs):
        return _swap_on_s3(fs, url, path, content, expected)
    now = _content(url)
    if now == expected:
        write_bytes(url, content)
    return now in (expected, content)


def _swap_locked(url: str, path: str, content: bytes, expected: bytes | None) -> bool:
    with locked(path):
        now = Path(path).read_bytes() if Path(path).exists() else None
        if now == expected:
            write_bytes(url, content)
        return now in (expected, content)


def _swap_on_s3(fs: AbstractFileSystem, url: str, path: str, content: bytes, expected: bytes | None) -> bool:
    """What a failed write has done is read from the file: its answer may be lost, or be that of its own second try."""
    bucket, key, _ = fs.split_path(path)
    failure: Exception | None = None
    for attempt in range(ATTEMPTS + 1):
        # Before the bytes: where somebody writes in between, the tag is of an older file, and the write is refused.
        tag = _tag(fs, url, path)
        now = _content(url)
        if now != expected:
            return now == content
        if attempt == ATTEMPTS:
            break
        condition = {"IfMatch": tag} if tag else {"IfNoneMatch": "*"}
        try:
            fs.call_s3("put_object", Bucket=bucket, Key=key, Body=content, **condition)
            return True
        except Exception as error:
            if not is_storage(error):
                raise
            failure = error
            if lasts(error) or isinstance(error, ABSENT):
                break
        time.sleep(retry.backoff(attempt))
    assert failure
    raise storage_error(failure, f"write {url}") from failure


def _tag(fs: AbstractFileSystem, url: str, path: str) -> str | None:
    try:
        return attempts(f"look for {url}", lambda: fs.info(path))["ETag"]
    except ABSENT:
        return None


def _content(url: str) -> bytes | None:
    try:
        return read_bytes(url)
    except FileNotFoundError:
        return None
