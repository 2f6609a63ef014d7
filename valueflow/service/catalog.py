"""Browsing a VIDB version: theories, values and anchors."""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from valueflow import api, store, vidb
from valueflow.errors import InputError, of_the_operator
from valueflow.ranking.content_error import ContentError
from valueflow.records import ValueId
from valueflow.service.steering import steering_of
from valueflow.theories import expand, operational, resolve, theories
from valueflow.vidb.version import Anchors, Vidb

EXAMPLES = 9  # anchors shown with a value


class ValueTables(NamedTuple):
    """The rows of one value in ascending order of intensity, and what requests look up in them."""

    rows: pa.Table
    anchors: Anchors
    texts: dict[str, str]


class Catalog:
    """Theories, values and anchors of one version; every file is read and verified once, and its rows stay in memory.

    Args:
        version: the version.
        content_errors: of the judge, by value.
    """

    def __init__(self, version: Vidb, content_errors: Mapping[ValueId, ContentError]) -> None:
        self.version, self._content_errors = version, content_errors
        self._tables = functools.lru_cache(maxsize=None)(self._read)
        self._licenses = functools.cache(self._read_licenses)

    def load(self) -> None:
        """Read all that requests will need of the version; nothing is read a second time.

        Raises:
            OperatorError: a file is missing, damaged or cannot be read.
        """
        for value in self.version.calibrations:
            self._tables(value)
        self._licenses()

    def theories(self) -> api.TheoriesResponse:
        """Return all theories with their nodes, and whether the version has anchors for each node."""
        infos = []
        for theory in theories().values():
            nodes = []
            for node in theory.nodes:
                value = ValueId.of(theory.id, node.id)
                parents: list[str] = [ValueId.of(theory.id, parent) for parent in node.parents]
                scored = value in self.version.calibrations
                nodes.append(api.NodeInfo(id=value, name=node.name, definition=node.definition, parents=parents, scored=scored))
            infos.append(api.TheoryInfo(id=theory.id, name=theory.name, nodes=nodes))
        return api.TheoriesResponse(theories=infos)

    def value(self, id: str) -> api.ValueResponse:  # noqa: A002
        """Return a value's definition, its paths in the theory, and anchors spread over its scale.

        Raises:
            InputError: there is no such value.
            OperatorError: its rows cannot be read.
        """
        value = resolve(id)
        theory = theories()[value.theory]
        node = theory.node(value.node)
        examples: list[api.Anchor] = []
        if value in self.version.calibrations:
            rows = self._tables(value).rows
            intensity = rows["intensity"].to_numpy()
            levels = np.linspace(intensity[0], intensity[-1], EXAMPLES)
            nearest = sorted({int(np.abs(intensity - level).argmin()) for level in levels})
            examples = [api.Anchor(**row) for row in rows.take(nearest).to_pylist()]
        return api.ValueResponse(
            id=value, name=node.name, definition=node.definition, supports=node.supports, opposes=node.opposes,
            paths=[list(path) for path in theory.paths(value.node)],
            scored=value in self.version.calibrations, examples=examples,
        )  # fmt: skip

    def steering(self, id: str) -> api.SteeringResponse:  # noqa: A002
        """Return the wording by which models are steered on a value.

        Raises:
            InputError: there is no such value, or models are not steered on it.
        """
        return steering_of(id)

    def anchors(self, id: str, offset: int, limit: int) -> api.AnchorsResponse:  # noqa: A002
        """Return up to `limit` of a value's anchors in ascending order of intensity, after the first `offset`.

        Raises:
            InputError: there is no such value, or the version has no anchors for it.
            OperatorError: its rows cannot be read.
        """
        value = self._require_anchors(resolve(id))
        rows = self._tables(value).rows
        anchors = [api.Anchor(**row) for row in rows.slice(offset, limit).to_pylist()]
        return api.AnchorsResponse(value=value, vidb_version=self.version.build.build_id, total=rows.num_rows, anchors=anchors)

    def values(self, names: Sequence[str]) -> list[ValueId]:
        """Return the ids that value names, theory names and `all` stand for, without duplicates.

        Raises:
            InputError: a name is unknown, or the version has no anchors for the value.
        """
        available = list(self.version.calibrations)
        values: list[ValueId] = []
        for name in names:
            if name == "all":
                values += available
            else:
                values += map(self._require_anchors, expand([name], available))
        return list(dict.fromkeys(values))

    def _require_anchors(self, value: ValueId) -> ValueId:
        if value not in self.version.calibrations:
            available = ", ".join(self.version.calibrations)
            reason = "is a node above the values that are scored" if value not in operational() else "has no anchors here"
            raise InputError(f"{value} {reason}; VIDB {self.version.build.build_id} holds: {available}")
        return value

    def _anchors(self, value: ValueId) -> Anchors:
        return self._tables(value).anchors

    def _texts(self, value: ValueId) -> dict[str, str]:
        return self._tables(value).texts

    def _read(self, value: ValueId) -> ValueTables:
        columns, folder = ["text_id", "theta", *api.Anchor.model_fields], store.value_folder(value)
        with of_the_operator():
            rows = store.read_table(self.version.build, columns, folder)
        texts = dict(zip(rows["text_id"].to_pylist(), rows["text"].to_pylist(), strict=True))
        anchors = self.version.anchors_of(value, rows)._replace(content_error=self._content_errors[value])
        return ValueTables(rows.sort_by("intensity"), anchors, texts)

    def _read_licenses(self) -> dict[str, int]:
        with of_the_operator():
            return self.version.details.licenses or vidb.licenses(self.version)
