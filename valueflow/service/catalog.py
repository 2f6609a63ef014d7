"""Browsing a VIDB version: theories, values and anchors."""

import functools
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from valueflow import api, store
from valueflow.errors import InputError, allowed
from valueflow.records import ValueId
from valueflow.theories import operational, resolve, resolve_theory, theories
from valueflow.vidb.version import Vidb

EXAMPLES = 9  # anchors shown with a value


class Catalog:
    """Theories, values and anchors of one version; tables are read once."""

    def __init__(self, version: Vidb) -> None:
        self.version = version
        self._anchors = functools.lru_cache(maxsize=None)(version.anchors)
        self._texts = functools.lru_cache(maxsize=None)(self._read_texts)
        self._rows = functools.lru_cache(maxsize=8)(self._read_rows)

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
        """
        value = resolve(id)
        theory = theories()[value.theory]
        node = theory.node(value.node)
        examples: list[api.Anchor] = []
        if value in self.version.calibrations:
            rows = self._rows(value)
            intensity = rows["intensity"].to_numpy()
            levels = np.linspace(intensity[0], intensity[-1], EXAMPLES)
            nearest = sorted({int(np.abs(intensity - level).argmin()) for level in levels})
            examples = [api.Anchor(**row) for row in rows.take(nearest).to_pylist()]
        return api.ValueResponse(
            id=value, name=node.name, definition=node.definition, supports=node.supports, opposes=node.opposes,
            paths=[list(path) for path in theory.paths(value.node)],
            scored=value in self.version.calibrations, examples=examples,
        )  # fmt: skip

    def anchors(self, id: str, offset: int, limit: int) -> api.AnchorsResponse:  # noqa: A002
        """Return up to `limit` of a value's anchors in ascending order of intensity, after the first `offset`.

        Raises:
            InputError: there is no such value, or the version has no anchors for it.
        """
        value = self._require_anchors(resolve(id))
        rows = self._rows(value)
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
            elif name.strip().lower() in _theory_names():
                theory = resolve_theory(name)
                of_theory = [value for value in available if value.theory == theory]
                if not of_theory:
                    build_id = self.version.build.build_id
                    raise InputError(f"VIDB {build_id} has no value of {theory!r}; {allowed(name, available)}")
                values += of_theory
            else:
                values.append(self._require_anchors(resolve(name)))
        return list(dict.fromkeys(values))

    def warm(self, value: ValueId) -> None:
        """Load the tables that the first request on a value would load."""
        self._anchors(value)
        self._texts(value)

    def _require_anchors(self, value: ValueId) -> ValueId:
        if value not in self.version.calibrations:
            available = ", ".join(self.version.calibrations)
            reason = "is a node above the values that are scored" if value not in operational() else "has no anchors here"
            raise InputError(f"{value} {reason}; VIDB {self.version.build.build_id} holds: {available}")
        return value

    def _read_texts(self, value: ValueId) -> dict[str, str]:
        return dict(zip(*(self._rows(value)[name].to_pylist() for name in ("text_id", "text")), strict=True))

    def _read_rows(self, value: ValueId) -> pa.Table:
        columns, folder = ["text_id", *api.Anchor.model_fields], store.value_folder(value)
        return store.read_table(self.version.build, columns, folder).sort_by("intensity")


def _theory_names() -> set[str]:
    return {name.lower() for theory in theories().values() for name in (theory.id, theory.name, *theory.aliases)}
