"""Predict the nodes of texts in each theory from labeled reference texts nearby, with direction and confidence.

T reference texts of a theory, U their distinct paths, L levels, V nodes, C codes of a level, Q query texts, K neighbors, R
ranks of predictions, D dimensions.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from valueflow.errors import InputError
from valueflow.hives.examples import Examples, path_ids, prefixes
from valueflow.theories.taxonomy import THEORIES

if TYPE_CHECKING:
    from sklearn.isotonic import IsotonicRegression

VOTE_SCALE = 10.0  # weight of a vote is exp(VOTE_SCALE * cosine): 0.1 more in cosine multiplies it by e
BLOCK_ROWS = 256  # rows of the similarity matrix computed at a time
MAX_CALIBRATION_TEXTS = 2000  # reference texts per theory
CONFIDENCE_RANKS = 3  # best, second, later predictions: one regression of confidence each


class NodePrediction(NamedTuple):
    """A predicted node of a text: its path from the root and 1 - cosine to the nearest reference text of the node.

    direction: 1 supports, -1 opposes, 0 unknown. confidence: share of such predictions that are correct on reference texts.
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
    codes: list[tuple[np.ndarray, np.ndarray]]  # per level: texts by codes (TC), the code of each path (U)
    node_U: np.ndarray  # index of the node at each path's end
    num_nodes: int


class _Votes(NamedTuple):
    """Votes of the neighbors of Q texts for each node; score 0 where no neighbor has it."""

    score_QV: np.ndarray
    path_QV: np.ndarray  # into paths_U, the path with the best score
    distance_QV: np.ndarray
    direction_QV: np.ndarray


class Extractor:
    """Predicts the nodes of texts by a vote of the k nearest reference texts of each theory.

    A neighbor votes with weight exp(10 cosine) for all its paths, level by level. The score of a path is the mean over levels
    of the share of votes for its prefix (below its end, a path counts its own votes), so neighbors that agree on the coarse
    level only still count. A node with several parents has the score of its best path.

    Confidence: isotonic regression of correctness on the score, per theory and rank (best, second, later), on reference texts
    whose own group is excluded from the vote. It estimates the probability that the node is one of the text's labels in data
    like the reference.

    Reference texts may also be prototypes or definitions of nodes: use k = 1, and several texts per node for the confidence.

    Args:
        z_TD: unit vectors, one per text of `examples.texts`.
        examples: the labeled reference texts.
        k: neighbors that vote, per theory.
        seed: of the sample of reference texts that the confidence is fitted to.

    Raises:
        InputError: the number of vectors differs from that of the texts, or all texts of a theory are one group.
    """

    def __init__(self, z_TD: np.ndarray, examples: Examples, k: int = 20, seed: int = 0) -> None:
        if len(z_TD) != len(examples.texts):
            raise InputError(f"there are {len(z_TD):,} vectors for {len(examples.texts):,} texts; pass one per text")
        self.k = k
        self.references = {THEORIES[t]: _reference(z_TD, examples, t) for t in np.unique(examples.theory_N)}
        self.confidence = {name: self._fit_confidence(name, reference, seed) for name, reference in self.references.items()}

    def __call__(self, z_QD: np.ndarray, top: int = 3) -> list[dict[str, list[NodePrediction]]]:
        """Return for each vector up to `top` nodes of each theory, best first."""
        predictions: list[dict[str, list[NodePrediction]]] = [{} for _ in z_QD]
        for theory, reference in self.references.items():
            for start in range(0, len(z_QD), BLOCK_ROWS):
                votes = _vote(reference, z_QD[start : start + BLOCK_ROWS], self.k, None)
                order_QR = np.argsort(-votes.score_QV, axis=1, kind="stable")[:, :top]
                score_QR = np.take_along_axis(votes.score_QV, order_QR, 1)
                confidence_QR = _confidence(self.confidence[theory], score_QR)
                for q, r in np.argwhere(score_QR > 0):
                    v = order_QR[q, r]
                    path = _path(reference, int(votes.path_QV[q, v]))
                    direction, distance = int(votes.direction_QV[q, v]), float(votes.distance_QV[q, v])
                    node = NodePrediction(theory, path[-1], path, distance, direction, float(confidence_QR[q, r]))
                    predictions[start + q].setdefault(theory, []).append(node)
        return predictions

    def _fit_confidence(self, name: str, reference: _Reference, seed: int) -> list["IsotonicRegression"]:
        if len(np.unique(reference.group_T)) < 2:
            raise InputError(f"the reference texts of theory {name!r} are one group; confidence needs at least two groups")
        sample = np.random.default_rng(seed).permutation(len(reference.z_TD))[:MAX_CALIBRATION_TEXTS]
        scores, correct = [], []
        for start in range(0, len(sample), BLOCK_ROWS):
            part = sample[start : start + BLOCK_ROWS]
            votes = _vote(reference, reference.z_TD[part], self.k, reference.group_T[part])
            has_QV = np.zeros(votes.score_QV.shape, bool)
            for u, v in enumerate(reference.node_U):
                has_QV[:, v] |= reference.has_TU[part, u]
            order_QV = np.argsort(-votes.score_QV, axis=1, kind="stable")
            scores.append(np.take_along_axis(votes.score_QV, order_QV, 1))
            correct.append(np.take_along_axis(has_QV, order_QV, 1))
        score_TV, correct_TV = np.concatenate(scores), np.concatenate(correct)
        ranks = [slice(rank, rank + 1) for rank in range(CONFIDENCE_RANKS - 1)] + [slice(CONFIDENCE_RANKS - 1, None)]
        return [_fit(score_TV[:, rank].ravel(), correct_TV[:, rank].ravel()) for rank in ranks]


def _fit(score: np.ndarray, correct: np.ndarray) -> "IsotonicRegression":
    """Regression of correctness on score over predictions (score > 0)."""
    from sklearn.isotonic import IsotonicRegression  # here, since every service and command imports this file

    score, correct = score[score > 0], correct[score > 0].astype(float)
    mean = correct.mean() if len(correct) else 0.0
    # One pseudo-observation of average correctness at either end, so that a few texts do not yield certainty.
    ends = [score.min(), score.max()] if len(score) else [0.0, 1.0]
    regression = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
    return regression.fit(np.append(score, ends), np.append(correct, [mean, mean]))


def _confidence(regressions: list["IsotonicRegression"], score_QR: np.ndarray) -> np.ndarray:
    """Confidence of the predictions, best first, made non-increasing."""
    by_rank = [regressions[min(rank, CONFIDENCE_RANKS - 1)].predict(score_QR[:, rank]) for rank in range(score_QR.shape[1])]
    return np.minimum.accumulate(np.stack(by_rank, 1), axis=1)


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
        # Below its end a path has a code of its own: ending there is a choice like any other.
        _, code_U = np.unique(np.where(prefix_U >= 0, prefix_U, len(prefixes().names) + paths_U), return_inverse=True)
        has_TC = np.zeros((len(texts), code_U.max() + 1), np.float32)
        for u, code in enumerate(code_U):
            has_TC[has_TU[:, u], code] = 1
        codes.append((has_TC, code_U))
    return _Reference(z_TD[texts], examples.group_N[of_N][first], paths_U, has_TU, np.sign(sign_TU), codes, node_U, len(nodes))


def _vote(reference: _Reference, z_QD: np.ndarray, k: int, excluded_group_Q: np.ndarray | None) -> _Votes:
    """Let the k nearest reference texts vote; texts of the group `excluded_group_Q` do not take part."""
    sim_QT = z_QD @ reference.z_TD.T
    if excluded_group_Q is not None:
        sim_QT[excluded_group_Q[:, None] == reference.group_T] = -np.inf
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
    direction_QU = np.einsum("qk,qku->qu", weight_QK, reference.sign_TU[near_QK])
    best_QV = np.stack(
        [
            np.flatnonzero(reference.node_U == v)[score_QU[:, reference.node_U == v].argmax(1)]
            for v in range(reference.num_nodes)
        ],
        1,
    )
    score_QV, nearest_QV, direction_QV = (np.take_along_axis(x, best_QV, 1) for x in (score_QU, nearest_QU, direction_QU))
    return _Votes(score_QV, best_QV, 1 - nearest_QV, np.sign(direction_QV).astype(int))


def _path(reference: _Reference, u: int) -> tuple[str, ...]:
    return tuple(prefixes().names[reference.paths_U[u]].partition(":")[2].split("/"))
