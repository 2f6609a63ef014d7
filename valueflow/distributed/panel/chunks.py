"""Chunks of the ingested texts: the unit of work of a task that plans or labels, and its texts by id."""

import functools
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from valueflow import store
from valueflow.store import Build


class TextChunk(NamedTuple):
    """Some rows of one part of the texts."""

    file: store.File
    start: int
    size: int
    number: int

    @property
    def folder(self) -> str:
        """Folder of the chunk's ballots, votes and labels within their builds."""
        return f"chunk={self.number:05d}"


class ChunkTexts(NamedTuple):
    """The texts of all chunks: a `distributed.texts.TextSource`, cached per worker process."""

    texts: Build
    chunks: tuple[TextChunk, ...]
    sources: tuple[str, ...]  # corpora to which the texts are limited; empty: all

    def __call__(self, folder: str) -> dict[str, str]:
        """Return text by id of the chunk with this folder."""
        return _read_chunk(self, int(folder.partition("=")[2]))


@functools.lru_cache(maxsize=16)
def _read_chunk(source: ChunkTexts, number: int) -> dict[str, str]:
    chunk = source.chunks[number]
    rows = store.read_part(source.texts, chunk.file, ["text_id", "text", "source"]).slice(chunk.start, chunk.size)
    if source.sources:
        rows = rows.filter(pc.is_in(rows["source"], pa.array(source.sources, pa.string())))
    return dict(zip(rows["text_id"].to_pylist(), rows["text"].to_pylist(), strict=True))


def chunks_of(texts: Build, size: int, max_texts: int | None) -> list[TextChunk]:
    """Return the chunks of a build of texts, in the order of its files."""
    chunks: list[TextChunk] = []
    remaining = max_texts or store.require_manifest(texts).num_rows
    for file in store.require_manifest(texts).files:
        for start in range(0, file.rows, size):
            rows = min(size, file.rows - start, remaining)
            if rows > 0:
                chunks.append(TextChunk(file, start, rows, len(chunks)))
                remaining -= rows
    return chunks
