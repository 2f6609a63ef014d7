"""The four value theories as data: nodes, hierarchy, aliases, definitions, and everyday instances of the nodes."""

from valueflow.theories.instances import Instance, inventory
from valueflow.theories.taxonomy import (
    Node,
    Theory,
    expand,
    find_theory,
    fold,
    operational,
    resolve,
    resolve_theory,
    theories,
)

__all__ = [
    "Instance",
    "Node",
    "Theory",
    "expand",
    "find_theory",
    "fold",
    "inventory",
    "operational",
    "resolve",
    "resolve_theory",
    "theories",
]
