"""Texts by id for the workers that render questions; every source is small to send and reads on the worker."""

import functools
from collections import ChainMap
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from valueflow import store
from valueflow.evaluation.responses import response_texts
from valueflow.store import Build


class TextSource(Protocol):
    """Where the texts of the questions in one folder of a plan are read."""

    def __call__(self, folder: str) -> Mapping[str, str]:
        """Return text by id."""
        ...


class GivenTexts(NamedTuple):
    """The same texts for every folder, sent along."""

    texts: dict[str, str]

    def __call__(self, folder: str) -> Mapping[str, str]:
        """Return text by id."""
        return self.texts


class ValueTexts(NamedTuple):
    """Texts of builds that are stored by value, such as candidates and versions: those of the folder's value."""

    builds: tuple[Build, ...]

    def __call__(self, folder: str) -> Mapping[str, str]:
        """Return text by id."""
        return _texts_in(self.builds, _value_level(folder))


class ResponseTexts(NamedTuple):
    """Responses, and the anchors of the folder's value that they are compared with."""

    responses: Build
    version: Build

    def __call__(self, folder: str) -> Mapping[str, str]:
        """Return text by id."""
        return ChainMap(response_texts(self.responses), _texts_in((self.version,), _value_level(folder)))


def texts_of_ids(build: Build, text_ids: Iterable[str]) -> dict[str, str]:
    """Return the texts with these ids, read part by part; ids that the build lacks are left out."""
    wanted = pa.array(sorted(set(text_ids)), pa.string())
    texts: dict[str, str] = {}
    for file in store.require_manifest(build).files:
        part = store.read_part(build, file, ["text_id", "text"])
        part = part.filter(pc.is_in(part["text_id"], wanted))
        texts.update(zip(part["text_id"].to_pylist(), part["text"].to_pylist(), strict=True))
    return texts


def _value_level(folder: str) -> str:
    """The value's folder of a folder in or below it."""
    return "/".join(level for level in folder.split("/") if level.startswith(("theory=", "value=")))


@functools.lru_cache(maxsize=64)
def _texts_in(builds: tuple[Build, ...], folder: str) -> dict[str, str]:
    """Kept per worker process: many batches ask for the same value."""
    texts: dict[str, str] = {}
    for build in builds:
        table = store.read_table(build, ["text_id", "text"], folder)
        texts.update(zip(table["text_id"].to_pylist(), table["text"].to_pylist(), strict=True))
    return texts
