"""Texts -> their nearest nodes in each theory, by the labelled texts around them, with direction and confidence.

T reference texts of a theory, U distinct paths they have, L levels, V nodes, C codes of a level, Q texts asked about, K
neighbours, D dimensions.
"""

from typing import NamedTuple

import numpy as np
from sklearn.isotonic import IsotonicRegression

from valueflow.errors import InputError
from valueflow.hives.examples import Examples, path_ids, prefixes
from valueflow.theories.taxonomy import THEORIES

VOTE_SCALE = 10.0  # of the votes: a neighbour nearer by 0.1 in cosine weighs e times as much
BLOCK_ROWS = 256  # of a similarity matrix held at a time
MAX_CALIBRATION_TEXTS = 2000  # reference texts a theory
CONFIDENCE_RANKS = 3  # best, second, all later predictions: each has a confidence of its own


class NodePrediction(NamedTuple):
    """A node a text may express; path from the top, distance to the nearest reference text of the node (1 - cosine).

    direction: 1 supports, -1 opposes, 0 not told. confidence: how often such a prediction is right about reference texts.
    """

    theory: str
    node: str
    path: tuple[str, ...]
    distance: float
    direction: int
    confidence: float


class _Reference(NamedTuple):
    """The reference texts of a theory."""

    z_TD: np.ndarray
    group_T: np.ndarray
    paths_U: np.ndarray  # into prefixes().names
    has_TU: np.ndarray  # bool
    sign_TU: np.ndarray  # -1, 0, 1
    codes: list[tuple[np.ndarray, np.ndarray]]  # a level: which texts have which code (TC), the code of each path (U)
    node_U: np.ndarray  # numbers of the nodes that they end in
    num_nodes: int


class _Votes(NamedTuple):
    """What the neighbours of Q texts say of each node; score 0 where no neighbour has it."""

    score_QV: np.ndarray
    path_QV: np.ndarray  # into paths_U, the path with the best score
    distance_QV: np.ndarray
    direction_QV: np.ndarray


class Extractor:
    """Nodes of new texts from the k nearest reference texts of each theory.

    A neighbour votes with exp(10 cosine) for all its paths, level by level: the score of a path is the mean over the levels of
    the share of votes for its prefix there (a path that ends higher keeps its own votes below), so that neighbours that agree
    on the coarse level alone still count. A node with several parents has the score of its best path. Confidence: isotonic
    regression of being right on the score, for each theory and rank (best, second, later), over reference texts whose own
    group of texts was left out; it is the chance that the node is one of the text's labels in such data, no more.

    Reference texts may be prototypes or definitions of the nodes: then k = 1, several texts a node for the confidence.
    """

    def __init__(self, z_TD: np.ndarray, examples: Examples, k: int = 20, seed: int = 0) -> None:
        if len(z_TD) != len(examples.texts):
            raise InputError(f"there are {len(z_TD):,} vectors for {len(examples.texts):,} texts; give one a text")
        self.k = k
        self.references = {THEORIES[t]: _reference(z_TD, examples, t) for t in np.unique(examples.theory_N)}
        self.confidence = {name: self._calibrated(name, reference, seed) for name, reference in self.references.items()}

    def __call__(self, z_QD: np.ndarray, top: int = 3) -> list[dict[str, list[NodePrediction]]]:
        """Return for each vector the at most `top` best nodes of each theory, best first."""
        found: list[dict[str, list[NodePrediction]]] = [{} for _ in z_QD]
        for theory, reference in self.references.items():
            for start in range(0, len(z_QD), BLOCK_ROWS):
                votes = _vote(reference, z_QD[start : start + BLOCK_ROWS], self.k, None)
                order_QR = np.argsort(-votes.score_QV, axis=1, kind="stable")[:, :top]
                score_QR = np.take_along_axis(votes.score_QV, order_QR, 1)
                sure_QR = _sure(self.confidence[theory], score_QR)
                for q, r in np.argwhere(score_QR > 0):
                    v = order_QR[q, r]
                    path = _path(reference, int(votes.path_QV[q, v]))
                    direction, distance = int(votes.direction_QV[q, v]), float(votes.distance_QV[q, v])
                    node = NodePrediction(theory, path[-1], path, distance, direction, float(sure_QR[q, r]))
                    found[start + q].setdefault(theory, []).append(node)
        return found

    def _calibrated(self, name: str, reference: _Reference, seed: int) -> list[IsotonicRegression]:
        if len(np.unique(reference.group_T)) < 2:
            raise InputError(f"the reference texts of theory {name!r} are one group; confidence needs at least two groups")
        asked = np.random.default_rng(seed).permutation(len(reference.z_TD))[:MAX_CALIBRATION_TEXTS]
        scores, rights = [], []
        for start in range(0, len(asked), BLOCK_ROWS):
            part = asked[start : start + BLOCK_ROWS]
            votes = _vote(reference, reference.z_TD[part], self.k, reference.group_T[part])
            has_QV = np.zeros(votes.score_QV.shape, bool)
            for u, v in enumerate(reference.node_U):
                has_QV[:, v] |= reference.has_TU[part, u]
            order_QV = np.argsort(-votes.score_QV, axis=1, kind="stable")
            scores.append(np.take_along_axis(votes.score_QV, order_QV, 1))
            rights.append(np.take_along_axis(has_QV, order_QV, 1))
        score_TV, right_TV = np.concatenate(scores), np.concatenate(rights)
        ranks = [slice(rank, rank + 1) for rank in range(CONFIDENCE_RANKS - 1)] + [slice(CONFIDENCE_RANKS - 1, None)]
        return [_fit(score_TV[:, rank].ravel(), right_TV[:, rank].ravel()) for rank in ranks]


def _fit(score: np.ndarray, right: np.ndarray) -> IsotonicRegression:
    """Chance to be right by score; where there is no prediction, 0."""
    score, right = score[score > 0], right[score > 0].astype(float)
    middle = right.mean() if len(right) else 0.0
    # One text as right as the average at either end: a few texts there do not make anything certain.
    ends = [score.min(), score.max()] if len(score) else [0.0, 1.0]
    regression = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
    return regression.fit(np.append(score, ends), np.append(right, [middle, middle]))


def _sure(regressions: list[IsotonicRegression], score_QR: np.ndarray) -> np.ndarray:
    """Confidence of the predictions, best first; a later one is never surer than one before it."""
    sure = [regressions[min(rank, CONFIDENCE_RANKS - 1)].predict(score_QR[:, rank]) for rank in range(score_QR.shape[1])]
    return np.minimum.accumulate(np.stack(sure, 1), axis=1)


def _reference(z_TD: np.ndarray, examples: Examples, theory: int) -> _Reference:
    of_N = examples.theory_N == theory
    texts, first, row = np.unique(examples.text_N[of_N], return_index=True, return_inverse=True)
    paths_U, column = np.unique(path_ids(examples.prefix_NL[of_N]), return_inverse=True)
    has_TU, sign_TU = np.zeros((len(texts), len(paths_U)), bool), np.zeros((len(texts), len(paths_U)))
    has_TU[row, column] = True
    np.add.at(sign_TU, (row, column), examples.direction_N[of_N])
    ends = [prefixes().names[p].partition(":")[2].rpartition("/")[2] for p in paths_U]
    nodes, node_U = np.unique(ends, return_inverse=True)
    codes = []
    ancestors_UL = prefixes().ancestors_PL[paths_U]
    for prefix_U in ancestors_UL[:, (ancestors_UL >= 0).any(0)].T:
        # Below its end a path is a code of its own: to stop there is a choice like any other.
        _, code_U = np.unique(np.where(prefix_U >= 0, prefix_U, len(prefixes().names) + paths_U), return_inverse=True)
        has_TC = np.zeros((len(texts), code_U.max() + 1), np.float32)
        for u, code in enumerate(code_U):
            has_TC[has_TU[:, u], code] = 1
        codes.append((has_TC, code_U))
    return _Reference(z_TD[texts], examples.group_N[of_N][first], paths_U, has_TU, np.sign(sign_TU), codes, node_U, len(nodes))


def _vote(reference: _Reference, z_QD: np.ndarray, k: int, left_out_Q: np.ndarray | None) -> _Votes:
    """Ask the neighbours, of each text those of another group than `left_out_Q`."""
    sim_QT = z_QD @ reference.z_TD.T
    if left_out_Q is not None:
        sim_QT[left_out_Q[:, None] == reference.group_T] = -np.inf
    k = min(k, sim_QT.shape[1])
    near_QK = np.argpartition(-sim_QT, k - 1, axis=1)[:, :k]
    sim_QK = np.take_along_axis(sim_QT, near_QK, 1)
    weight_QK = np.exp(VOTE_SCALE * (sim_QK - sim_QK.max(1, keepdims=True)))
    weight_QK /= weight_QK.sum(1, keepdims=True)
    score_QU = np.zeros((len(z_QD), len(reference.paths_U)))
    for has_TC, code_U in reference.codes:
        score_QU += np.einsum("qk,qkc->qc", weight_QK, has_TC[near_QK])[:, code_U] / len(reference.codes)
    has_QKU = reference.has_TU[near_QK] & (weight_QK > 0)[..., None]
    score_QU[~has_QKU.any(1)] = 0
    nearest_QU = np.where(has_QKU, sim_QK[..., None], -np.inf).max(1)
    leaning_QU = np.einsum("qk,qku->qu", weight_QK, reference.sign_TU[near_QK])
    best_QV = np.stack(
        [
            np.flatnonzero(reference.node_U == v)[score_QU[:, reference.node_U == v].argmax(1)]
            for v in range(reference.num_nodes)
        ],
        1,
    )
    score_QV, nearest_QV, leaning_QV = (np.take_along_axis(x, best_QV, 1) for x in (score_QU, nearest_QU, leaning_QU))
    return _Votes(score_QV, best_QV, 1 - nearest_QV, np.sign(leaning_QV).astype(int))


def _path(reference: _Reference, u: int) -> tuple[str, ...]:
    return tuple(prefixes().names[reference.paths_U[u]].partition(":")[2].split("/"))
