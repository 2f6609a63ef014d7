"""The four value theories as data: nodes, hierarchy, aliases, definitions."""

from valueflow.theories.taxonomy import Node, Theory, fold, operational, resolve, resolve_theory, theories

__all__ = ["Node", "Theory", "fold", "operational", "resolve", "resolve_theory", "theories"]
