"""Labeled texts as arrays; leak-free splits, and subsets without near-duplicates of other texts.

Shapes: T distinct texts, N examples (a text with one path of a theory), L levels, P paths of all theories, R rows as read.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from valueflow.corpora import items
from valueflow.errors import InputError, allowed
from valueflow.hives.near_duplicates import connected_labels, near_duplicates
from valueflow.records import clean, text_id
from valueflow.tabular import cell, strict_rows
from valueflow.theories import resolve_theory, theories
from valueflow.theories.taxonomy import THEORIES

LEVEL_COLUMNS = ("level_1", "level_2", "level_3")
OFFICIAL_COLUMNS = ("text", "theory", *LEVEL_COLUMNS, "direction", "selected_individual", "selected_anchor")
MISSING_WORDS = ("", "none", "nan", "null")
DIRECTION_SIGNS = (-1, 0, 1)
UNKNOWN_DIRECTION = 9  # code of a missing direction while rows are read


class Examples(NamedTuple):
    """Labeled texts, a row per text and path; the order of texts, rows and names is independent of the input order."""

    texts: list[str]  # distinct
    text_ids: list[str]  # ascending
    text_N: np.ndarray  # into texts
    theory_N: np.ndarray  # into THEORIES
    prefix_NL: np.ndarray  # int64, into prefixes().names, coarsest first; -1 below the end of the path
    direction_N: np.ndarray  # int8: -1, 0, 1
    individual_N: np.ndarray  # into individuals; -1: none
    concept_N: np.ndarray  # into concepts; -1: none
    group_N: np.ndarray  # rows of a group stay on one side of a split
    individuals: list[str] = []
    concepts: list[str] = []


class Prefixes(NamedTuple):
    """All paths from the root of a theory, numbered as in prefix_NL."""

    names: list[str]  # svt:growth/self-transcendence
    ids: dict[str, list[int]]  # name -> itself
    ends: dict[str, list[int]]  # value id -> the paths that end at it
    ancestors_PL: np.ndarray  # the prefixes of each path, a row of prefix_NL
    theory_P: np.ndarray  # into THEORIES


class Split(NamedTuple):
    """Row numbers of each side, ascending."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


@functools.cache
def prefixes() -> Prefixes:
    """Return the paths of all theories; a node with two parents has two paths."""
    paths = [(t, node.id, path) for t, theory in theories().items() for node in theory.nodes for path in theory.paths(node.id)]
    names = [f"{theory}:{'/'.join(path)}" for theory, _, path in paths]
    ids = {name: [i] for i, name in enumerate(names)}
    ends: dict[str, list[int]] = {}
    ancestors_PL = np.full((len(paths), max(len(path) for *_, path in paths)), -1, np.int64)
    for i, (theory, node, path) in enumerate(paths):
        ends.setdefault(f"{theory}:{node}", []).append(i)
        for level in range(len(path)):
            ancestors_PL[i, level] = ids[f"{theory}:{'/'.join(path[: level + 1])}"][0]
    return Prefixes(names, ids, ends, ancestors_PL, np.array([THEORIES.index(theory) for theory, *_ in paths]))


def path_ids(prefix_NL: np.ndarray) -> np.ndarray:
    """Return the id of each row's path, which is its deepest prefix."""
    return prefix_NL[np.arange(len(prefix_NL)), (prefix_NL >= 0).sum(1) - 1]


def examples_from_tables(texts: pa.Table, labels: pa.Table) -> Examples:
    """Return the examples of a table `labels` (column path) or `source_labels` (column node: all paths that end at it).

    Labels of texts that are not in `texts` and empty paths are skipped. Duplicate labels of a text are merged: a known
    direction wins over an unknown one; directions that disagree or are all unknown become 0.

    Raises:
        InputError: a column is missing, a label is not in its theory, a direction is not one of -1, 0, 1, null, or no label
            remains; messages count rows from 0.
    """
    kind = "labels" if "path" in labels.column_names else "source_labels"
    where = "path" if kind == "labels" else "node"
    _check_columns(texts, "texts", ["text_id", "text", "group_id"])
    _check_columns(labels, kind, ["text_id", "theory", where, "direction"])
    node = pc.binary_join(labels["path"], "/") if kind == "labels" else labels["node"]
    name = pc.binary_join_element_wise(labels["theory"].cast(pa.string()), node.cast(pa.string()), ":")

    def locate(row: int) -> str:
        return f"{kind} row {row} (text {labels['text_id'][row].as_py()})"

    choices = prefixes().ids if kind == "labels" else prefixes().ends
    paths, code_R = _parsed(name.combine_chunks(), functools.partial(_paths_of, kind=where, choices=choices), locate)
    signs, sign_R = _parsed(labels["direction"].cast(pa.string()).combine_chunks(), _direction, locate)
    text_R = pc.index_in(labels["text_id"], texts["text_id"].combine_chunks()).fill_null(-1).to_numpy()
    row_R, path_R = _expand(paths, code_R)
    exists = text_R[row_R] >= 0
    row_R = row_R[exists]
    none = np.full(len(row_R), -1)
    return _examples(texts, np.stack([none, none, path_R[exists], text_R[row_R], np.array(signs)[sign_R[row_R]]]), [], [])


def read_official(url: str) -> Examples:
    """Return the examples of a file with the official columns, in any format of `tabular`; each text is its own group.

    The deepest level of a row is its node; the row stands for every path to that node which contains the other levels. Levels
    may be omitted; rows without any level are skipped.

    Raises:
        InputError: a column is missing, a row cannot be read or has no text, a level is not in its theory or not below the one
            before it, or a direction is not one of -1, 0, 1 or empty.
    """
    records, numbers = [], []
    for row in strict_rows(url, list(OFFICIAL_COLUMNS)):
        records.append([cell(row.fields, name).strip() for name in OFFICIAL_COLUMNS])
        numbers.append(row.number)
    columns_or_empty = zip(*records, strict=True) if records else [()] * len(OFFICIAL_COLUMNS)
    cells = dict(zip(OFFICIAL_COLUMNS, columns_or_empty, strict=True))

    def locate(row: int) -> str:
        return f"{url}:{numbers[row]}"

    texts = [clean(text) for text in cells["text"]]
    if "" in texts:
        raise InputError(f"{locate(texts.index(''))}: text is empty")
    table = pa.table({"text_id": [text_id(text) for text in texts], "text": pa.array(texts, pa.large_string())})
    table = table.append_column("group_id", table["text_id"])
    level_words = ["\n".join(levels) for levels in zip(*(cells[name] for name in ("theory", *LEVEL_COLUMNS)), strict=True)]
    paths, code_R = _parsed(pa.array(level_words, pa.string()), _level_paths, locate)
    signs, sign_R = _parsed(pa.array(cells["direction"], pa.string()), _direction, locate)
    row_R, path_R = _expand(paths, code_R)
    (individuals, individual_R), (concepts, concept_R) = map(
        _name_codes, (cells["selected_individual"], cells["selected_anchor"])
    )
    first_R = pc.index_in(table["text_id"], table["text_id"].combine_chunks()).to_numpy()
    columns = (concept_R[row_R], individual_R[row_R], path_R, first_R[row_R], np.array(signs)[sign_R[row_R]])
    return _examples(table, np.stack(columns), individuals, concepts)


def select_rows(examples: Examples, rows_M: np.ndarray) -> Examples:
    """Return only these rows and their texts; the names, and so the ids, of anchors are unchanged."""
    used, text_M = np.unique(examples.text_N[rows_M], return_inverse=True)
    arrays = {name: getattr(examples, name)[rows_M] for name in Examples._fields if name.endswith(("_N", "_NL"))}
    texts = {name: [getattr(examples, name)[i] for i in used.tolist()] for name in ("texts", "text_ids")}
    return examples._replace(**(arrays | texts | {"text_N": text_M}))


def split_examples(examples: Examples, shares: tuple[float, float, float], seed: int) -> Split:
    """Return the rows of train, validation and test such that no group, text or near-duplicate is on two sides.

    Rows linked by a chain of shared groups and near-duplicates form a unit and stay together. Units are assigned in random
    order, which meets the shares as closely as the sizes of the units allow.

    Raises:
        InputError: shares are negative or do not sum to 1, or a side with a share gets no row.
    """
    if min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise InputError(f"shares {tuple(shares)} must be three numbers from 0 that sum to 1 (train, validation, test)")
    num_texts = len(examples.texts)
    i = np.concatenate([examples.text_N, np.arange(num_texts)])
    j = np.concatenate([num_texts + examples.group_N, near_duplicates(examples.texts)])
    unit_T = connected_labels(i, j, num_texts + int(examples.group_N.max()) + 1)
    unit_N = np.unique(unit_T[examples.text_N], return_inverse=True)[1]
    size_U = np.bincount(unit_N)
    order = np.random.default_rng(seed).permutation(len(size_U))
    middle = (np.cumsum(size_U[order]) - size_U[order] / 2) / len(unit_N)
    side_U = np.empty(len(size_U), int)
    side_U[order] = np.searchsorted(np.cumsum(shares)[:-1], middle, side="right")
    sides = [np.flatnonzero(side_U[unit_N] == side) for side in range(len(Split._fields))]
    for name, share, rows_M in zip(Split._fields, shares, sides, strict=True):
        if share and not len(rows_M):
            raise InputError(
                f"shares {tuple(shares)} leave {name} without a row: the {len(unit_N)} rows form {len(size_U)} units that must "
                f"stay together (same group or near-duplicates), the largest of {size_U.max()} rows"
            )
    return Split(*sides)


def without_near_duplicates(examples: Examples, other_texts: Iterable[str]) -> Examples:
    """Return the examples whose text is not linked to any of the other texts by a chain of (near-)duplicates."""
    others = list(other_texts)
    label = near_duplicates([*examples.texts, *others])
    leaked_T = np.isin(label[: len(examples.texts)], label[len(examples.texts) :])
    return select_rows(examples, np.flatnonzero(~leaked_T[examples.text_N]))


def _check_columns(table: pa.Table, name: str, columns: list[str]) -> None:
    missing = [column for column in columns if column not in table.column_names]
    if missing:
        raise InputError(f"table {name!r} lacks column(s) {missing}; it has {table.column_names}")


def _parsed(column: pa.Array, parse: Callable[[str | None], Any], locate: Callable[[int], str]) -> tuple[list, np.ndarray]:
    """The parsed value of each distinct word, and the code of each row's word; InputError locates the first invalid row."""
    encoded = column.dictionary_encode(null_encoding="encode")
    code_R, parsed = encoded.indices.to_numpy(), []
    for code, word in enumerate(encoded.dictionary.to_pylist()):
        try:
            parsed.append(parse(word))
        except InputError as error:
            raise InputError(f"{locate(int(np.argmax(code_R == code)))}: {error}") from None
    return parsed, code_R


def _expand(paths: list[list[int]], code_R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The row and the path of every (row, path) pair."""
    width = max(map(len, paths), default=0)
    padded = np.array([ids + [-1] * (width - len(ids)) for ids in paths], int).reshape(len(paths), width)
    row, nth = np.nonzero(padded[code_R] >= 0)
    return row, padded[code_R[row], nth]


def _direction(word: str | None) -> int:
    direction = items.direction("" if word is None or word.strip().lower() in MISSING_WORDS else word)
    return UNKNOWN_DIRECTION if direction is None else direction


def _paths_of(name: str | None, kind: str, choices: dict[str, list[int]]) -> list[int]:
    spelling, _, rest = (name or ":").partition(":")
    if name is None or not (rest or kind == "path"):
        raise InputError(f"theory or {kind} is missing")
    theory = resolve_theory(spelling)
    name = f"{theory}:{rest}"
    if rest and name not in choices:
        of_theory = [choice.partition(":")[2] for choice in choices if choice.startswith(f"{theory}:")]
        raise InputError(f"{theory} has no {kind} {rest!r}; {allowed(rest, of_theory)}")
    return choices[name] if rest else []


def _level_paths(word: str | None) -> list[int]:
    """The paths of an official row, from its theory and levels, joined by newlines."""
    name, *levels = (word or "").split("\n")
    theory = resolve_theory(name)
    present = [level for level in levels if level.lower() not in MISSING_WORDS]
    nodes = list(dict.fromkeys(items.value(level, theory).partition(":")[2] for level in present))
    if not nodes:
        return []
    paths = ["/".join(path) for path in theories()[theory].paths(nodes[-1]) if [n for n in path if n in nodes] == nodes]
    if not paths:
        alternatives = " or ".join("/".join(path) for path in theories()[theory].paths(nodes[-1]))
        raise InputError(f"{theory}: {'/'.join(nodes)} is not on one path; {nodes[-1]!r} is at {alternatives}")
    return [i for path in paths for i in prefixes().ids[f"{theory}:{path}"]]


def _name_codes(names: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """The distinct names in alphabetical order, and each row's index among them; -1: none."""
    distinct = sorted({name for name in names if name.lower() not in MISSING_WORDS})
    return distinct, pc.index_in(pa.array(names, pa.string()), pa.array(distinct, pa.string())).fill_null(-1).to_numpy()


def _examples(texts: pa.Table, columns_5R: np.ndarray, individuals: list[str], concepts: list[str]) -> Examples:
    """Sort texts by id and rows by (text, path, anchors), merge duplicate rows and their directions.

    The five rows of the array are concept, individual, path, text (a row of the table) and direction.
    """
    if not columns_5R.size:
        raise InputError("no row has both a path and a known text")
    used = np.unique(columns_5R[3])
    used = used[pc.sort_indices(texts["text_id"].take(pa.array(used))).to_numpy()]
    texts = texts.take(pa.array(used))
    rank_T = np.empty(used.max() + 1, int)
    rank_T[used] = np.arange(len(used))
    columns_5R[3] = rank_T[columns_5R[3]]
    columns_5R = columns_5R[:, np.lexsort(columns_5R[:4])]
    pair_R = columns_5R[3] * len(prefixes().names) + columns_5R[2]
    new_R = np.diff(pair_R, prepend=-1) != 0
    low = np.minimum.reduceat(columns_5R[4], np.flatnonzero(new_R))
    high = np.maximum.reduceat(
        np.where(columns_5R[4] == UNKNOWN_DIRECTION, -UNKNOWN_DIRECTION, columns_5R[4]), np.flatnonzero(new_R)
    )
    direction = np.where(low == high, low, 0).astype(np.int8)
    distinct_R = new_R | np.diff(columns_5R[:2], axis=1, prepend=-2).any(0)
    concept_N, individual_N, path_N, text_N, _ = columns_5R[:, distinct_R]
    return Examples(
        texts=texts["text"].to_pylist(),
        text_ids=texts["text_id"].to_pylist(),
        text_N=text_N,
        theory_N=prefixes().theory_P[path_N],
        prefix_NL=prefixes().ancestors_PL[path_N],
        direction_N=direction[(np.cumsum(new_R) - 1)[distinct_R]],
        individual_N=individual_N,
        concept_N=concept_N,
        group_N=texts["group_id"].combine_chunks().dictionary_encode().indices.to_numpy()[text_N].astype(np.int64),
        individuals=individuals,
        concepts=concepts,
    )
