"""How a manifest lists a file, and long lists, as a Parquet file beside it.

JSON of 100,000 files is 20 MB, which every reader would parse.
"""

import hashlib
from typing import Any

import pyarrow as pa
from pydantic import field_validator

from valueflow.config import Config
from valueflow.store.parquet import parquet_bytes, parquet_table

MAX_IN_MANIFEST = 1_000  # files
FILES = "_files-"  # and the first digits of its hash; no part, so its name does not end like one
COLUMNS = pa.schema({"path": pa.string(), "size": pa.int64(), "sha256": pa.string(), "rows": pa.int64()})


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
        is_text = path.isprintable()  # no half of a surrogate pair, which no file system takes
        if not is_text or "\\" in path or ":" in path or any(part in ("", ".", "..") for part in path.split("/")):
            raise ValueError(f"file {path!r} is not a relative path inside the build")
        return path


def describe(path: str, data: bytes, rows: int) -> File:
    """Return how a manifest lists a file."""
    return File(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest(), rows=rows)


def check_bytes(file: File, data: bytes) -> None:
    """Raise ValueError where bytes are not those that a manifest lists."""
    if len(data) != file.size or hashlib.sha256(data).hexdigest() != file.sha256:
        raise ValueError("its hash is not that of its manifest")


def written(files: list[dict[str, Any]]) -> bytes:
    """Return the bytes of a list of files."""
    return parquet_bytes(pa.Table.from_pylist(files, COLUMNS))


def parsed(data: bytes) -> list[dict[str, Any]]:
    """Return the files in the bytes of a list; ValueError where its columns are others."""
    table = parquet_table(data)
    if table.schema != COLUMNS:
        raise ValueError(f"its columns are {table.column_names}, not {COLUMNS.names}")
    return table.to_pylist()
