"""Files and folders that are no builds: users' files, models, checkpoints. What fails once is tried again, as in `files`."""

import contextlib
import functools
import io
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from fsspec.spec import AbstractFileSystem
from fsspec.utils import glob_translate

from valueflow.store.files import ABSENT, attempts, filesystem, sizes

WILDCARD = re.compile(r"[*?\[]")
BUFFER = 1 << 17  # bytes


def glob(url: str) -> list[str]:
    """Return the files and folders that a glob matches, as sorted URLs; nothing for a URL without wildcards.

    Not fs.glob(), which leaves out what it cannot list.
    """
    fs, pattern = filesystem(url)
    wildcard = WILDCARD.search(pattern)
    if not wildcard:
        return []
    top = pattern[: wildcard.start()].rpartition("/")[0]
    depth = math.inf if "**" in pattern else pattern.count("/", wildcard.start())
    matches = re.compile(glob_translate(pattern)).match
    try:
        names = attempts(f"list {url}", lambda: list(filter(matches, _names_below(fs, top or fs.root_marker, depth))))
    except ABSENT:
        return []
    return [fs.unstrip_protocol(name) for name in sorted(names)]


def _names_below(fs: AbstractFileSystem, folder: str, depth: float) -> Iterator[str]:
    for entry in fs.ls(folder, detail=True):
        name = str(entry["name"]).rstrip("/")
        if name == folder.rstrip("/"):  # the mark of an empty folder on an object store
            continue
        yield name
        if entry["type"] == "directory" and depth > 0:
            try:
                yield from _names_below(fs, name, depth - 1)
            except ABSENT:
                raise OSError(f"the folder {name} vanished meanwhile") from None


def open_bytes(url: str) -> io.BufferedReader:
    """Open a file for reading; a read that fails is tried again at its place.

    Raises:
        FileNotFoundError: there is no such file.
        StorageError: it cannot be opened; reads raise it too.
    """
    return io.BufferedReader(_Input(url), BUFFER)


class _Input(io.RawIOBase):
    """A file that is opened again, and continued at the same place, after a read that failed."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url, self._at = url, 0
        self._fs, self._path = filesystem(url)
        self._file = attempts(f"open {url}", self._open)

    def _open(self) -> Any:
        return self._fs.open(self._path, "rb")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        at_end = whence == io.SEEK_END
        self._at = self._file.seek(offset + (self._at if whence == io.SEEK_CUR else 0), whence if at_end else io.SEEK_SET)
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = attempts(f"read {self._url}", lambda: self._read(len(buffer)))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _read(self, size: int) -> bytes:
        if self._file.closed:
            self._file = self._open()
        try:
            self._file.seek(self._at)
            return self._file.read(size)
        except Exception:
            with contextlib.suppress(Exception):  # of a connection that is broken already
                self._file.close()
            raise

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def checksums(url: str) -> dict[str, str]:
    """Return what tells the state of each file below a folder, by its relative path, sorted."""
    fs, top = filesystem(url)
    names = {name: f"{top.rstrip('/')}/{name}" for name in sorted(sizes(url))}
    return {
        name: str(attempts(f"look for {path}", functools.partial(fs.checksum, path), absent=())) for name, path in names.items()
    }


def download(url: str, names: Sequence[str], folder: str) -> None:
    """Copy files below a folder, by their relative paths, into a folder of this machine."""
    fs, top = filesystem(url)
    files = [f"{top.rstrip('/')}/{name}" for name in names], [f"{folder}/{name}" for name in names]
    attempts(f"copy {url}", lambda: fs.get(*files), absent=())


def upload(folder: str, url: str) -> None:
    """Copy all files below a folder of this machine into another folder."""
    fs, path = filesystem(url)
    attempts(f"write {url}", lambda: fs.put(f"{folder}/", f"{path}/", recursive=True), absent=())


def remove_folder(url: str) -> None:
    """Remove a folder and all in it; nothing happens where it is gone."""
    fs, path = filesystem(url)
    with contextlib.suppress(*ABSENT):
        attempts(f"remove {url}", lambda: fs.rm(path, recursive=True))
