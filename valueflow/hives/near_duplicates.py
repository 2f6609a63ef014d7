"""Find near-duplicate texts by an exact prefix join on shingles.

Shapes: T texts, F distinct folded texts, W their words, E (text, shingle) pairs, S shingles, C candidate pairs.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

from valueflow.numerics.hashing import mix64

# Near-duplicates: the sets of SHINGLE successive words have a Jaccard similarity of at least ALIKE[0] / ALIKE[1].
SHINGLE, MIN_JACCARD = 5, (4, 5)
WORD_SEPARATORS = r"[^\p{L}\p{M}\p{N}]+"
BLOCK_PAIRS = 200_000  # pairs compared at a time


def near_duplicates(texts: list[str]) -> np.ndarray:
    """Return for each text the index of the representative of its component: texts linked by equal words or near-duplication.

    Words are lower-cased runs of letters, marks and digits. Two texts are near-duplicates when their sets of five successive
    words have a Jaccard similarity of at least 0.8 (a text of fewer words is one element). The join is exact: such sets share
    an element among the rarest fifth of either (prefix filtering: Chaudhuri et al. 2006, Bayardo et al. 2007).
    """
    raw = pa.array(texts, pa.large_string())
    folded = pc.utf8_trim_whitespace(pc.replace_substring_regex(pc.utf8_lower(raw), pattern=WORD_SEPARATORS, replacement=" "))
    encoded = pc.if_else(pc.equal(folded, ""), raw, folded).dictionary_encode()
    code_T = encoded.indices.to_numpy()
    first_F = np.unique(code_T, return_index=True)[1]
    return first_F[_linked(*_shingles(encoded.dictionary), len(first_F))][code_T]


def _shingles(folded: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """The (text, shingle) pairs of folded texts, shingles numbered from 0."""
    words = pc.split_pattern(folded, " ")
    length_F = pc.list_value_length(words).to_numpy().astype(np.int64)
    text_W = np.repeat(np.arange(len(length_F)), length_F)
    nth_W = np.arange(len(text_W)) - (np.cumsum(length_F) - length_F)[text_W]
    remaining_W = length_F[text_W] - nth_W
    word_W = words.flatten().dictionary_encode().indices.to_numpy().astype(np.uint64)
    hash_W = mix64(word_W)
    for ahead in range(1, SHINGLE):
        hash_W = np.where(remaining_W > ahead, mix64(hash_W + np.roll(word_W, -ahead)), hash_W)
    starts = (remaining_W >= SHINGLE) | (nth_W == 0)
    return text_W[starts], pa.array(hash_W[starts]).dictionary_encode().indices.to_numpy().astype(np.int64)


def _linked(text_E: np.ndarray, shingle_E: np.ndarray, num_texts: int) -> np.ndarray:
    """The components of texts under the exact Jaccard join, each text's as the index of its first text."""
    uses_S = np.bincount(shingle_E)
    # A text whose whole prefix is of unique shingles has no near-duplicates; this removes most texts.
    unique_F = np.bincount(text_E[uses_S[shingle_E] == 1], minlength=num_texts)
    candidate_E = (unique_F < _prefix_length(np.bincount(text_E, minlength=num_texts)))[text_E]
    candidate_F, text_E = np.unique(text_E[candidate_E], return_inverse=True)
    text_E, shingle_E = np.divmod(np.unique(text_E * len(uses_S) + shingle_E[candidate_E]), len(uses_S))
    size_F = np.bincount(text_E)
    sets = csr_array((np.ones(len(text_E), np.int32), (text_E, shingle_E)), (len(candidate_F), len(uses_S)))
    rarest_first = np.lexsort((shingle_E, uses_S[shingle_E], text_E))
    nth_E = np.arange(len(text_E)) - (np.cumsum(size_F) - size_F)[text_E]
    prefix = rarest_first[nth_E < _prefix_length(size_F)[text_E]]
    prefix = prefix[np.argsort(shingle_E[prefix], kind="stable")]
    text_C, shingle_C = text_E[prefix], shingle_E[prefix]
    label_F, position, ahead = np.arange(len(candidate_F)), np.arange(len(prefix)), 0
    while len(position):
        ahead += 1
        position = position[position + ahead < len(prefix)]
        position = position[shingle_C[position] == shingle_C[position + ahead]]
        apart = position[label_F[text_C[position]] != label_F[text_C[position + ahead]]]
        i, j = np.divmod(np.unique(text_C[apart] * len(candidate_F) + text_C[apart + ahead]), max(len(candidate_F), 1))
        alike = _above_bound(sets, size_F, i, j)
        if alike.any():
            label_F = connected_labels(label_F[i[alike]], label_F[j[alike]], len(candidate_F))[label_F]
    component_F = np.arange(num_texts)
    _, first, part_F = np.unique(label_F, return_index=True, return_inverse=True)
    component_F[candidate_F] = candidate_F[first[part_F]]
    return component_F


def _prefix_length(size: np.ndarray) -> np.ndarray:
    """Length of the prefix of rarest elements that any two sets above the Jaccard bound must share an element of."""
    return size - -(-size * MIN_JACCARD[0] // MIN_JACCARD[1]) + 1


def _above_bound(sets: csr_array, size_F: np.ndarray, i_C: np.ndarray, j_C: np.ndarray) -> np.ndarray:
    chunks = [(i_C[s : s + BLOCK_PAIRS], j_C[s : s + BLOCK_PAIRS]) for s in range(0, len(i_C), BLOCK_PAIRS)]
    both = [np.asarray(sets[i].multiply(sets[j]).sum(axis=1)).ravel() for i, j in chunks]
    both_C = np.concatenate([np.empty(0, np.int64), *both])
    return both_C * MIN_JACCARD[1] >= (size_F[i_C] + size_F[j_C] - both_C) * MIN_JACCARD[0]


def connected_labels(i: np.ndarray, j: np.ndarray, num_nodes: int) -> np.ndarray:
    """The component of each node of the graph with edges (i, j)."""
    edges = coo_array((np.ones(len(i), bool), (i, j)), (num_nodes, num_nodes))
    return connected_components(edges, directed=False)[1].astype(np.int64)
