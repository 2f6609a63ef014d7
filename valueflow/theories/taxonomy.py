"""Theories as directed acyclic graphs of named nodes, and the resolution of any spelling to a value id."""

import functools
import re
from collections.abc import Iterable
from importlib import resources

import yaml
from pydantic import Field, ValidationError, model_validator

from valueflow.config import Config
from valueflow.errors import InputError, allowed
from valueflow.records import ValueId

THEORIES = ("svt", "mft", "duty", "right")


class Node(Config):
    """A value, virtue, duty or right, or a group of them."""

    id: str = Field(pattern=r"^[a-z]+(-[a-z]+)*$")
    name: str
    parents: list[str] = []
    aliases: list[str] = []
    operational: bool = Field(False, description="one of the 32 values of VIDB, the evaluator and steering")
    definition: str = Field(min_length=40)
    supports: str = Field("", description="how a text expresses the value (operational values)")
    opposes: str = Field("", description="how a text rejects the value (operational values)")

    @model_validator(mode="after")
    def _poles(self) -> "Node":
        if self.operational and not (self.supports and self.opposes):
            raise ValueError(f"operational node {self.id!r} needs both 'supports' and 'opposes'")
        return self


class Theory(Config):
    """A directed acyclic graph of nodes; a node may have several parents (svt:hedonism, svt:face, svt:humility)."""

    id: str
    name: str
    aliases: list[str] = []
    source: str
    nodes: list[Node]

    @model_validator(mode="after")
    def _consistent(self) -> "Theory":
        ids = [node.id for node in self.nodes]
        if len(set(ids)) < len(ids):
            raise ValueError(f"theory {self.id!r} names a node twice")
        for node in self.nodes:
            for parent in node.parents:
                if parent not in ids:
                    raise ValueError(f"node {node.id!r} has the unknown parent {parent!r}; {allowed(parent, ids)}")
        spellings: dict[str, str] = {}
        for node in self.nodes:
            for spelling in {fold(s) for s in (node.id, node.name, *node.aliases)}:
                if spellings.setdefault(spelling, node.id) != node.id:
                    raise ValueError(f"{spelling!r} names both {spellings[spelling]!r} and {node.id!r} in {self.id!r}")
        for node in self.nodes:
            self.paths(node.id)
        return self

    def node(self, node_id: str) -> Node:
        """Return the node with this exact id."""
        return self._by_id[node_id]

    def __contains__(self, node_id: object) -> bool:
        """Whether a node has this exact id."""
        return node_id in self._by_id

    def children(self, node_id: str | None) -> list[Node]:
        """Return the nodes directly below `node_id`; the top level for None."""
        return [node for node in self.nodes if (node_id in node.parents if node_id else not node.parents)]

    def paths(self, node_id: str) -> list[tuple[str, ...]]:
        """Return every path from the top level down to the node, both included."""
        return self._paths(node_id, ())

    def _paths(self, node_id: str, below: tuple[str, ...]) -> list[tuple[str, ...]]:
        if node_id in below:
            raise ValueError(f"theory {self.id!r} has a cycle through {node_id!r}")
        path = (node_id, *below)
        parents = self._by_id[node_id].parents
        return [p for parent in parents for p in self._paths(parent, path)] if parents else [path]

    @functools.cached_property
    def _by_id(self) -> dict[str, Node]:
        return {node.id: node for node in self.nodes}

    @functools.cached_property
    def spellings(self) -> dict[str, str]:
        """Folded id, name and aliases -> node id."""
        return {fold(s): node.id for node in self.nodes for s in (node.id, node.name, *node.aliases)}


def fold(name: str) -> str:
    """Return the normalized spelling by which ids, names and aliases are compared: `Care/Harm`, `care_harm` -> `care-harm`."""
    return re.sub(r"[\s/_:-]+", "-", name.strip().lower()).strip("-")


@functools.cache
def theories() -> dict[str, Theory]:
    """Return the four theories by id."""
    loaded = {}
    for theory_id in THEORIES:
        text = resources.files("valueflow.theories").joinpath(f"{theory_id}.yaml").read_text("utf-8")
        try:
            loaded[theory_id] = Theory.model_validate(yaml.safe_load(text))
        except ValidationError as error:
            raise InputError(f"valueflow/theories/{theory_id}.yaml: {error}") from error
    return loaded


@functools.cache
def operational() -> tuple[ValueId, ...]:
    """Return the ids of the 32 operational values, theory by theory."""
    return tuple(ValueId.of(t.id, node.id) for t in theories().values() for node in t.nodes if node.operational)


@functools.cache
def _theory_names() -> dict[str, str]:
    """Folded id, name and aliases -> theory id."""
    return {fold(s): t.id for t in theories().values() for s in (t.id, t.name, *t.aliases)}


def find_theory(name: str) -> str | None:
    """Return the theory id for any spelling of its id, name or aliases; None if there is no such theory."""
    return _theory_names().get(fold(name))


def expand(names: Iterable[str], available: Iterable[ValueId] | None = None) -> list[ValueId]:
    """Return the values that names of values and theories stand for, without duplicates.

    Args:
        names: any spellings; a theory stands for those of its values that are available.
        available: default: the 32 operational values.

    Raises:
        InputError: there is no such value or theory (a near spelling is suggested), or it is ambiguous.
    """
    choices = list(operational() if available is None else available)
    values: list[ValueId] = []
    for name in names:
        theory = find_theory(name)
        of_theory = [value for value in choices if value.theory == theory]
        if theory and not of_theory:
            raise InputError(f"there is no value of {theory!r} here; {allowed(name, choices)}")
        values += of_theory or [resolve(name)]
    return list(dict.fromkeys(values))


def _nearest(name: str, spellings: Iterable[str], choices: Iterable[str]) -> str:
    """Suggest the nearest of the spellings, else list the choices."""
    near = allowed(fold(name), spellings)
    return near if near.startswith("did") else allowed("", choices)


def resolve_theory(name: str) -> str:
    """Return the theory id for an id or alias (`pvq`, `schwartz`, `duties`, ...).

    Raises:
        InputError: the theory is unknown; the message suggests a near spelling.
    """
    theory = find_theory(name)
    if theory is None:
        raise InputError(f"unknown theory {name!r}; {_nearest(name, _theory_names(), THEORIES)}")
    return theory


def resolve(name: str, theory: str | None = None) -> ValueId:
    """Return the value id for any spelling of a node, with or without its theory.

    Raises:
        InputError: no node has that name (a near spelling is suggested), or nodes of several theories do (all are named).
    """
    if theory is None and ":" in name:
        prefix, _, rest = name.partition(":")
        if known := find_theory(prefix):
            return resolve(rest, known)
    searched = [theories()[resolve_theory(theory)]] if theory else list(theories().values())
    matches = [ValueId.of(t.id, t.spellings[fold(name)]) for t in searched if fold(name) in t.spellings]
    if not matches:
        spellings = [*(() if theory else _theory_names()), *(spelling for t in searched for spelling in t.spellings)]
        near = allowed(name, spellings)
        hint = near if near.startswith("did") else f"the values are {', '.join(operational())}"
        raise InputError(f"unknown value {(f'{searched[0].id}:{name}' if theory else name)!r}; {hint}")
    if len(matches) > 1:
        raise InputError(f"value {name!r} is ambiguous; write one of {', '.join(matches)}")
    return matches[0]
