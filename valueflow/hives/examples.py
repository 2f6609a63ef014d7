"""Labelled texts as arrays to learn from, and their parts: split without leaks, without the near-duplicates of other texts.

Shapes: T distinct texts, N examples (a text at a path of a theory), L levels, P paths of all theories, R rows as read;
for near-duplicates F distinct folded texts, W their words, E (text, shingle) pairs, C candidate pairs.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

from valueflow.corpora import UNDECODABLE, items
from valueflow.corpora.rows import cell, require, rows
from valueflow.errors import InputError, allowed
from valueflow.records import clean, text_id
from valueflow.theories import resolve_theory, theories
from valueflow.theories.taxonomy import THEORIES

LEVELS = ("level_1", "level_2", "level_3")
OFFICIAL = ("text", "theory", *LEVELS, "direction", "selected_individual", "selected_anchor")
ABSENT = ("", "none", "nan", "null")
DIRECTIONS = (-1, 0, 1)
UNKNOWN = 9  # stands for a direction that is not given, while rows are read
# Near-duplicates: the sets of SHINGLE successive words have a Jaccard similarity of at least ALIKE[0] / ALIKE[1].
SHINGLE, ALIKE = 5, (4, 5)
BETWEEN_WORDS = r"[^\p{L}\p{M}\p{N}]+"
PAIRS = 200_000  # compared at a time


class Examples(NamedTuple):
    """Texts at their paths; the order of texts, rows and names does not depend on that of the input."""

    texts: list[str]  # distinct
    text_ids: list[str]  # ascending
    text_N: np.ndarray  # into texts
    theory_N: np.ndarray  # into THEORIES
    prefix_NL: np.ndarray  # int64, into prefixes().names, coarsest first; -1 below the end of the path
    direction_N: np.ndarray  # int8: -1, 0, 1
    individual_N: np.ndarray  # into individuals; -1 none
    concept_N: np.ndarray  # into concepts; -1 none
    group_N: np.ndarray  # rows of equal group stay in one split
    individuals: list[str] = []
    concepts: list[str] = []


class Prefixes(NamedTuple):
    """Every path from the top of a theory, as numbered in prefix_NL."""

    names: list[str]  # svt:growth/self-transcendence
    ids: dict[str, list[int]]  # name -> itself
    ends: dict[str, list[int]]  # theory:node -> the paths that end there
    ancestors_PL: np.ndarray  # what prefix_NL holds for each path
    theory_P: np.ndarray  # into THEORIES


class Split(NamedTuple):
    """Rows of each side, ascending."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


@functools.cache
def prefixes() -> Prefixes:
    """Return the paths of all theories; each way to a node with two parents is a path of its own."""
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


def whole_paths(prefix_NL: np.ndarray) -> np.ndarray:
    """Return the id of each row's whole path: its deepest prefix."""
    return prefix_NL[np.arange(len(prefix_NL)), (prefix_NL >= 0).sum(1) - 1]


def examples_of(texts: pa.Table, labels: pa.Table) -> Examples:
    """Return the labels of table `labels` (path) or `source_labels` (node, which stands for each path that ends in it).

    Labels of texts that are not in `texts` and empty paths are left out. A text that has the same path twice has it once: a
    known direction wins over an unknown one, and directions that disagree or are all unknown count as 0.

    Raises:
        InputError: a column is missing, a label is not in its theory, a direction is not one of -1, 0, 1, null, or no label is
            left; a row is counted from 0.
    """
    kind = "labels" if "path" in labels.column_names else "source_labels"
    where = "path" if kind == "labels" else "node"
    _need(texts, "texts", ["text_id", "text", "group_id"])
    _need(labels, kind, ["text_id", "theory", where, "direction"])
    node = pc.binary_join(labels["path"], "/") if kind == "labels" else labels["node"]
    name = pc.binary_join_element_wise(labels["theory"].cast(pa.string()), node.cast(pa.string()), ":")

    def place(row: int) -> str:
        return f"{kind} row {row} (text {labels['text_id'][row].as_py()})"

    known = prefixes().ids if kind == "labels" else prefixes().ends
    paths, code_R = _parsed(name.combine_chunks(), functools.partial(_known, kind=where, choices=known), place)
    signs, sign_R = _parsed(labels["direction"].cast(pa.string()).combine_chunks(), _direction, place)
    at_R = pc.index_in(labels["text_id"], texts["text_id"].combine_chunks()).fill_null(-1).to_numpy()
    row_R, path_R = _spread(paths, code_R)
    there = at_R[row_R] >= 0
    row_R = row_R[there]
    none = np.full(len(row_R), -1)
    return _examples(texts, np.stack([none, none, path_R[there], at_R[row_R], np.array(signs)[sign_R[row_R]]]), [], [])


def official(url: str) -> Examples:
    """Return the rows of a file with the official columns, in any format of `corpora.rows`; a text is its own group.

    The deepest level named is the node; the path is each of its paths that holds the other levels, whether or not the file
    names every level. A row that names no level is left out.

    Raises:
        InputError: a column is missing, a row cannot be read or has no text, a level is not in its theory or not below the one
            before it, a direction is not one of -1, 0, 1 or empty.
    """
    require(url, list(OFFICIAL))
    read, numbers = [], []
    for row in rows(url, list(OFFICIAL)):
        if row.error:
            raise InputError(f"{url}:{row.number}: {row.error}")
        read.append([cell(row.fields, name).strip() for name in OFFICIAL])
        numbers.append(row.number)
        if UNDECODABLE.search("\n".join(read[-1])):
            raise InputError(f"{url}:{row.number}: row has bytes that are not UTF-8, or lone surrogates")
    cells = dict(zip(OFFICIAL, zip(*read, strict=True), strict=True)) if read else dict.fromkeys(OFFICIAL, ())

    def place(row: int) -> str:
        return f"{url}:{numbers[row]}"

    texts = [clean(text) for text in cells["text"]]
    if "" in texts:
        raise InputError(f"{place(texts.index(''))}: text is empty")
    table = pa.table({"text_id": [text_id(text) for text in texts], "text": pa.array(texts, pa.large_string())})
    table = table.append_column("group_id", table["text_id"])
    named = ["\n".join(levels) for levels in zip(*(cells[name] for name in ("theory", *LEVELS)), strict=True)]
    paths, code_R = _parsed(pa.array(named, pa.string()), _levels, place)
    signs, sign_R = _parsed(pa.array(cells["direction"], pa.string()), _direction, place)
    row_R, path_R = _spread(paths, code_R)
    (individuals, individual_R), (concepts, concept_R) = map(_anchors, (cells["selected_individual"], cells["selected_anchor"]))
    first_R = pc.index_in(table["text_id"], table["text_id"].combine_chunks()).to_numpy()
    columns = (concept_R[row_R], individual_R[row_R], path_R, first_R[row_R], np.array(signs)[sign_R[row_R]])
    return _examples(table, np.stack(columns), individuals, concepts)


def take(examples: Examples, rows_M: np.ndarray) -> Examples:
    """Return only these rows, with only their texts; names of anchors, and so their ids, stay."""
    kept, text_M = np.unique(examples.text_N[rows_M], return_inverse=True)
    arrays = {name: getattr(examples, name)[rows_M] for name in Examples._fields if name.endswith(("_N", "_NL"))}
    texts = {name: [getattr(examples, name)[i] for i in kept.tolist()] for name in ("texts", "text_ids")}
    return examples._replace(**(arrays | texts | {"text_N": text_M}))


def split(examples: Examples, shares: tuple[float, float, float], seed: int) -> Split:
    """Return the rows of train, validation and test: no group, text or near-duplicate is on two sides.

    Whatever is linked by a chain of shared groups and near-duplicates goes to one side; these units are dealt out in a random
    order, so that the shares are met as nearly as the sizes of the units allow.

    Raises:
        InputError: shares are negative or do not sum to 1, or a side with a share gets no row.
    """
    if min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise InputError(f"shares {tuple(shares)} must be three numbers from 0 that sum to 1 (train, validation, test)")
    num_texts = len(examples.texts)
    i = np.concatenate([examples.text_N, np.arange(num_texts)])
    j = np.concatenate([num_texts + examples.group_N, near_duplicates(examples.texts)])
    unit_T = _components(i, j, num_texts + int(examples.group_N.max()) + 1)
    unit_N = np.unique(unit_T[examples.text_N], return_inverse=True)[1]
    size_U = np.bincount(unit_N)
    order = np.random.default_rng(seed).permutation(len(size_U))
    middle = (np.cumsum(size_U[order]) - size_U[order] / 2) / len(unit_N)
    side_U = np.empty(len(size_U), int)
    side_U[order] = np.searchsorted(np.cumsum(shares)[:-1], middle, side="right")
    sides = [np.flatnonzero(side_U[unit_N] == side) for side in range(len(Split._fields))]
    for name, share, found in zip(Split._fields, shares, sides, strict=True):
        if share and not len(found):
            raise InputError(
                f"shares {tuple(shares)} leave {name} without a row: the {len(unit_N)} rows form {len(size_U)} units that must "
                f"stay together (same group or near-duplicates), the largest of {size_U.max()} rows"
            )
    return Split(*sides)


def without(examples: Examples, other_texts: Iterable[str]) -> Examples:
    """Return the examples whose text is no (near-)duplicate of any of the other texts, also not through a chain of them."""
    others = list(other_texts)
    label = near_duplicates([*examples.texts, *others])
    leaked_T = np.isin(label[: len(examples.texts)], label[len(examples.texts) :])
    return take(examples, np.flatnonzero(~leaked_T[examples.text_N]))


def near_duplicates(texts: list[str]) -> np.ndarray:
    """Return for each text the position of the text that stands for all of the same words or linked by near-duplicates.

    Words are lower-cased runs of letters, marks and digits. Two texts are near-duplicates when their sets of five successive
    words have a Jaccard similarity of at least 0.8 (a shorter text is one set element). The join is exact: such sets share an
    element among the rarest fifth of either (prefix filtering: Chaudhuri et al. 2006, Bayardo et al. 2007).
    """
    raw = pa.array(texts, pa.large_string())
    folded = pc.utf8_trim_whitespace(pc.replace_substring_regex(pc.utf8_lower(raw), pattern=BETWEEN_WORDS, replacement=" "))
    encoded = pc.if_else(pc.equal(folded, ""), raw, folded).dictionary_encode()
    code_T = encoded.indices.to_numpy()
    first_F = np.unique(code_T, return_index=True)[1]
    return first_F[_linked(*_shingles(encoded.dictionary), len(first_F))][code_T]


def _shingles(folded: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """The (text, shingle) pairs of folded texts, shingles numbered from 0."""
    words = pc.split_pattern(folded, " ")
    length_F = pc.list_value_length(words).to_numpy().astype(np.int64)
    text_W = np.repeat(np.arange(len(length_F)), length_F)
    place_W = np.arange(len(text_W)) - (np.cumsum(length_F) - length_F)[text_W]
    left_W = length_F[text_W] - place_W
    word_W = words.flatten().dictionary_encode().indices.to_numpy().astype(np.uint64)
    hash_W = _mixed(word_W)
    for ahead in range(1, SHINGLE):
        hash_W = np.where(left_W > ahead, _mixed(hash_W + np.roll(word_W, -ahead)), hash_W)
    starts = (left_W >= SHINGLE) | (place_W == 0)
    return text_W[starts], pa.array(hash_W[starts]).dictionary_encode().indices.to_numpy().astype(np.int64)


def _mixed(x: np.ndarray) -> np.ndarray:
    """A bijection of 64-bit integers that spreads them (splitmix64)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _linked(text_E: np.ndarray, shingle_E: np.ndarray, num_texts: int) -> np.ndarray:
    """The components of texts under the exact Jaccard join."""
    uses_S = np.bincount(shingle_E)
    # A text with a whole prefix of shingles of its own is like no other; most are, and leave here.
    own_F = np.bincount(text_E[uses_S[shingle_E] == 1], minlength=num_texts)
    maybe_E = (own_F < _prefix(np.bincount(text_E, minlength=num_texts)))[text_E]
    kept_F, text_E = np.unique(text_E[maybe_E], return_inverse=True)
    text_E, shingle_E = np.divmod(np.unique(text_E * len(uses_S) + shingle_E[maybe_E]), len(uses_S))
    size_F = np.bincount(text_E)
    sets = csr_array((np.ones(len(text_E), np.int32), (text_E, shingle_E)), (len(kept_F), len(uses_S)))
    rarest_first = np.lexsort((shingle_E, uses_S[shingle_E], text_E))
    nth_E = np.arange(len(text_E)) - (np.cumsum(size_F) - size_F)[text_E]
    prefix = rarest_first[nth_E < _prefix(size_F)[text_E]]
    prefix = prefix[np.argsort(shingle_E[prefix], kind="stable")]
    text_C, shingle_C = text_E[prefix], shingle_E[prefix]
    label_F, at, ahead = np.arange(len(kept_F)), np.arange(len(prefix)), 0
    while len(at):
        ahead += 1
        at = at[at + ahead < len(prefix)]
        at = at[shingle_C[at] == shingle_C[at + ahead]]
        apart = at[label_F[text_C[at]] != label_F[text_C[at + ahead]]]
        i, j = np.divmod(np.unique(text_C[apart] * len(kept_F) + text_C[apart + ahead]), max(len(kept_F), 1))
        alike = _alike(sets, size_F, i, j)
        if alike.any():
            label_F = _components(label_F[i[alike]], label_F[j[alike]], len(kept_F))[label_F]
    found = np.arange(num_texts)
    _, first, part_F = np.unique(label_F, return_index=True, return_inverse=True)
    found[kept_F] = kept_F[first[part_F]]
    return found


def _prefix(size: np.ndarray) -> np.ndarray:
    """How many of its rarest elements a set shares at least one of with every set it is like."""
    return size - -(-size * ALIKE[0] // ALIKE[1]) + 1


def _alike(sets: csr_array, size_F: np.ndarray, i_C: np.ndarray, j_C: np.ndarray) -> np.ndarray:
    chunks = [(i_C[s : s + PAIRS], j_C[s : s + PAIRS]) for s in range(0, len(i_C), PAIRS)]
    both = [np.asarray(sets[i].multiply(sets[j]).sum(axis=1)).ravel() for i, j in chunks]
    both_C = np.concatenate([np.empty(0, np.int64), *both])
    return both_C * ALIKE[1] >= (size_F[i_C] + size_F[j_C] - both_C) * ALIKE[0]


def _components(i: np.ndarray, j: np.ndarray, num_nodes: int) -> np.ndarray:
    """The component of each node of the graph with edges (i, j)."""
    edges = coo_array((np.ones(len(i), bool), (i, j)), (num_nodes, num_nodes))
    return connected_components(edges, directed=False)[1].astype(np.int64)


def _need(table: pa.Table, name: str, columns: list[str]) -> None:
    missing = [column for column in columns if column not in table.column_names]
    if missing:
        raise InputError(f"table {name!r} lacks column(s) {missing}; it has {table.column_names}")


def _parsed(column: pa.Array, parse: Callable[[str | None], Any], place: Callable[[int], str]) -> tuple[list, np.ndarray]:
    """What each distinct word means and which word each row has; InputError with the place of the first bad row."""
    encoded = column.dictionary_encode(null_encoding="encode")
    code_R, found = encoded.indices.to_numpy(), []
    for code, word in enumerate(encoded.dictionary.to_pylist()):
        try:
            found.append(parse(word))
        except InputError as error:
            raise InputError(f"{place(int(np.argmax(code_R == code)))}: {error}") from None
    return found, code_R


def _spread(paths: list[list[int]], code_R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The row and the path of every (row, path of its label)."""
    width = max(map(len, paths), default=0)
    padded = np.array([ids + [-1] * (width - len(ids)) for ids in paths], int).reshape(len(paths), width)
    row, nth = np.nonzero(padded[code_R] >= 0)
    return row, padded[code_R[row], nth]


def _direction(word: str | None) -> int:
    found = items.direction("" if word is None or word.strip().lower() in ABSENT else word)
    return UNKNOWN if found is None else found


def _known(name: str | None, kind: str, choices: dict[str, list[int]]) -> list[int]:
    theory, _, rest = (name or ":").partition(":")
    if name is None or not (rest or kind == "path"):
        raise InputError(f"theory or {kind} is missing")
    if theory not in THEORIES:
        raise InputError(f"unknown theory {theory!r}; {allowed(theory, THEORIES)}")
    if rest and name not in choices:
        of_theory = [choice.partition(":")[2] for choice in choices if choice.startswith(f"{theory}:")]
        raise InputError(f"{theory} has no {kind} {rest!r}; {allowed(rest, of_theory)}")
    return choices[name] if rest else []


def _levels(word: str | None) -> list[int]:
    """The paths that an official row's theory and levels stand for."""
    name, *levels = (word or "").split("\n")
    theory = resolve_theory(name)
    named = [level for level in levels if level.lower() not in ABSENT]
    nodes = list(dict.fromkeys(items.value(level, theory).partition(":")[2] for level in named))
    if not nodes:
        return []
    paths = ["/".join(path) for path in theories()[theory].paths(nodes[-1]) if [n for n in path if n in nodes] == nodes]
    if not paths:
        there = " or ".join("/".join(path) for path in theories()[theory].paths(nodes[-1]))
        raise InputError(f"{theory}: {'/'.join(nodes)} is not on one path; {nodes[-1]!r} is at {there}")
    return [i for path in paths for i in prefixes().ids[f"{theory}:{path}"]]


def _anchors(names: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """The distinct names in alphabetical order, and each row's place among them; -1 none."""
    given = sorted({name for name in names if name.lower() not in ABSENT})
    return given, pc.index_in(pa.array(names, pa.string()), pa.array(given, pa.string())).fill_null(-1).to_numpy()


def _examples(texts: pa.Table, read_5R: np.ndarray, individuals: list[str], concepts: list[str]) -> Examples:
    """Sort texts by id and rows by (text, path, anchors), drop what is said twice, settle directions.

    The five are concept, individual, path, text (a row of the table) and direction.
    """
    if not read_5R.size:
        raise InputError("no row has a path and a text that is given")
    used = np.unique(read_5R[3])
    used = used[pc.sort_indices(texts["text_id"].take(pa.array(used))).to_numpy()]
    texts = texts.take(pa.array(used))
    place_T = np.empty(used.max() + 1, int)
    place_T[used] = np.arange(len(used))
    read_5R[3] = place_T[read_5R[3]]
    read_5R = read_5R[:, np.lexsort(read_5R[:4])]
    at_R = read_5R[3] * len(prefixes().names) + read_5R[2]
    new_R = np.diff(at_R, prepend=-1) != 0
    low = np.minimum.reduceat(read_5R[4], np.flatnonzero(new_R))
    high = np.maximum.reduceat(np.where(read_5R[4] == UNKNOWN, -UNKNOWN, read_5R[4]), np.flatnonzero(new_R))
    direction = np.where(low == high, low, 0).astype(np.int8)
    once_R = new_R | np.diff(read_5R[:2], axis=1, prepend=-2).any(0)
    concept_N, individual_N, path_N, text_N, _ = read_5R[:, once_R]
    return Examples(
        texts=texts["text"].to_pylist(),
        text_ids=texts["text_id"].to_pylist(),
        text_N=text_N,
        theory_N=prefixes().theory_P[path_N],
        prefix_NL=prefixes().ancestors_PL[path_N],
        direction_N=direction[(np.cumsum(new_R) - 1)[once_R]],
        individual_N=individual_N,
        concept_N=concept_N,
        group_N=texts["group_id"].combine_chunks().dictionary_encode().indices.to_numpy()[text_N].astype(np.int64),
        individuals=individuals,
        concepts=concepts,
    )
