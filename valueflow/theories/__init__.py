"""The four value theories as data: nodes, hierarchy, aliases, definitions, and everyday instances of the nodes."""

from valueflow.theories.instances import Instance, inventory
from valueflow.theories.taxonomy import Node, Theory, fold, operational, resolve, resolve_theory, theories

__all__ = ["Instance", "Node", "Theory", "fold", "inventory", "operational", "resolve", "resolve_theory", "theories"]
