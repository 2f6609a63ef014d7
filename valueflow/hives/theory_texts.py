"""Labeled texts by theory, as 0/1 matrices over the codes of their labels: the input of the metrics.

N rows of labels, T texts of a theory, C codes (prefixes, paths or nodes), Q queries, V values, D dimensions.
"""

from typing import Literal, NamedTuple

import numpy as np

from valueflow.hives.examples import Examples, prefixes
from valueflow.records import ValueId
from valueflow.theories import operational
from valueflow.theories.taxonomy import THEORIES

LeaveOut = Literal["text", "group"]
MAX_QUERIES = 4000  # per theory


class TheoryTexts(NamedTuple):
    """The texts of one theory, and their codes as 0/1 matrices with a column per code."""

    texts: np.ndarray  # into Examples.texts
    z_TD: np.ndarray
    group_T: np.ndarray
    num_groups: int
    exclusion_T: np.ndarray  # texts with equal numbers are not neighbors: the text itself, or its group
    query_Q: np.ndarray  # the texts that metrics are computed for
    levels: list[np.ndarray]  # TC: the root, which all texts share, then the prefixes of each level, coarsest first
    directed: list[np.ndarray]  # TC: the same with directions
    path_TC: np.ndarray
    directed_path_TC: np.ndarray
    values: list[ValueId]
    node_TV: np.ndarray  # the values to distinguish
    sign_TV: np.ndarray  # direction towards each value, 0: unknown


def texts_by_theory(
    z_TD: np.ndarray, examples: Examples, level: int | None, leave: LeaveOut, seed: int
) -> dict[str, TheoryTexts]:
    """Return the texts of each theory with at least two labeled texts; see `metrics.embedding_metrics` for the arguments."""
    by_theory = {}
    for t in np.unique(examples.theory_N):
        of_N = examples.theory_N == t
        texts, first, row = np.unique(examples.text_N[of_N], return_index=True, return_inverse=True)
        if len(texts) < 2:
            continue
        prefix_NL, direction_N = examples.prefix_NL[of_N], examples.direction_N[of_N].astype(int)
        prefix_NL = prefix_NL[:, (prefix_NL >= 0).any(0)]
        path_N = prefix_NL[np.arange(len(row)), (prefix_NL >= 0).sum(1) - 1]
        values, value_P = path_values(THEORIES[t], level)
        value_N = value_P[path_N]
        node_TV = np.zeros((len(texts), len(values)), np.float32)
        sign_TV = np.zeros((len(texts), len(values)))
        node_TV[row[value_N >= 0], value_N[value_N >= 0]] = 1
        np.add.at(sign_TV, (row[value_N >= 0], value_N[value_N >= 0]), direction_N[value_N >= 0])
        levels = [np.zeros(len(row), int), *prefix_NL.T]
        by_theory[THEORIES[t]] = TheoryTexts(
            texts,
            z_TD[texts],
            examples.group_N[of_N][first],
            int(examples.group_N.max()) + 1,
            examples.group_N[of_N][first] if leave == "group" else texts,
            np.sort(np.random.default_rng([seed, t]).permutation(len(texts))[:MAX_QUERIES]),
            [_codes(row, prefix_N) for prefix_N in levels],
            [_codes(row, _with_direction(prefix_N, direction_N)) for prefix_N in levels],
            _codes(row, path_N),
            _codes(row, _with_direction(path_N, direction_N)),
            values,
            node_TV,
            np.sign(sign_TV),
        )
    return by_theory


def path_values(theory: str, level: int | None) -> tuple[list[ValueId], np.ndarray]:
    """Return the value ids of a theory, and for every path (by its id) the index of the value on it, -1 for none."""
    value_P = np.full(len(prefixes().names), -1)
    values: dict[ValueId, int] = {}
    for p, name in enumerate(prefixes().names):
        of, _, path = name.partition(":")
        nodes = [ValueId.of(of, node) for node in path.split("/")]
        on = [node for node in nodes if node in operational()] if level is None else nodes[level - 1 : level]
        if of == theory and on:
            value_P[p] = values.setdefault(on[0], len(values))
    return list(values), value_P


def _with_direction(prefix_N: np.ndarray, direction_N: np.ndarray) -> np.ndarray:
    return np.where(prefix_N >= 0, 3 * prefix_N + direction_N + 1, -1)


def _codes(row: np.ndarray, code_N: np.ndarray) -> np.ndarray:
    """Matrix of texts by codes: 1 where a row of the text has the code."""
    used = code_N >= 0
    codes, column = np.unique(code_N[used], return_inverse=True)
    matrix_TC = np.zeros((row.max() + 1, len(codes)), np.float32)
    matrix_TC[row[used], column] = 1
    return matrix_TC
