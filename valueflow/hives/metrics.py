"""Metrics of how well embeddings reflect the hierarchy of values, with intervals and the level of random vectors.

N rows of labels, T texts of a theory, C codes (prefixes, paths or nodes), R relations, S draws, P pairs, Q queries,
G groups, V values, D dimensions.
"""

from typing import NamedTuple

import numpy as np

from valueflow.errors import InputError
from valueflow.hives.examples import Examples
from valueflow.hives.theory_texts import LeaveOut, TheoryTexts, texts_by_theory
from valueflow.records import ValueId

RELATIONS = ("same leaf and direction", "same leaf, other direction", "same level 2", "same level 1", "other")
NUM_DRAWS, MIN_DRAWS, MAX_DRAWS = 40_000, 8, 64  # in total; bounds per query
NUM_PAIRS = 200_000
RESAMPLES = 1000
BLOCK_ROWS = 256  # rows of the similarity matrix computed at a time
INTERVAL_QUANTILES = (0.025, 0.975)
MIN_TEXTS = 5  # fewest texts for a mean or for predicting directions
TIE_BREAK = 1e-3  # neighbors have equal votes; their similarity only breaks ties


class EmbeddingMetric(NamedTuple):
    """A metric with its 95 % interval, the level of random vectors, and the number of queries, pairs or values behind it."""

    value: float
    low: float
    high: float
    floor: float
    count: int  # type: ignore[assignment] # hides tuple.count


class GroupedEstimate(NamedTuple):
    """An estimate, its sample size, and its derivative with respect to the weight of each group of texts."""

    value: float
    num: int
    influence_G: np.ndarray
    groups: np.ndarray  # that contribute


class RelationDraw(NamedTuple):
    """Queries with at least two relations, and the texts drawn for each relation, -1 where it has no text."""

    query_Q: np.ndarray
    picks_QSR: np.ndarray


def embedding_metrics(
    z_TD: np.ndarray, examples: Examples, level: int | None = None, k: int = 10, leave: LeaveOut = "text", seed: int = 0
) -> dict[str, EmbeddingMetric]:
    """Return every metric of unit vectors: `name` is the mean over theories, `name/theory` the metric within one theory.

    Metrics that are undefined in a theory (no directions, a single value) are omitted. Direction 0 (neutral or unknown) counts
    as a direction of its own.
    - pairwise, strict: hierarchical ranking accuracy. A query text meets one random text per relation (RELATIONS, the closest
      over the labels of both texts; relations without texts are skipped, and queries with fewer than two relations).
      pairwise: share of pairs of relations with cosines in the right order, ties count half; strict: share of draws with all
      cosines in order.
    - correlation: Pearson, over pairs of texts, of cosine with (levels shared from the root + 0.5 for the same direction).
    - orthogonality: 1 - mean |cosine| of the vectors of different values, see `value_vectors`. Random vectors reach nearly 1.
    - label_accuracy: the majority value of the k nearest other texts is one of the text's values.
    - direction_accuracy: the majority direction of the k nearest other texts of the same value is the text's; not balanced.

    Args:
        z_TD: unit vectors, one per text of `examples.texts`.
        examples: the labeled texts.
        level: values are the nodes at this level (1: the coarsest), on any path; None: the operational nodes.
        k: neighbors of the two accuracies.
        leave: neighbors are other texts ("text") or of other groups ("group"), since the topic of a group reveals its labels.
        seed: of the sample of queries (at most 4,000 per theory), draws, pairs and the bootstrap.

    Intervals come from a bootstrap over examples.group_N, linearized in the weights of the groups; for the two accuracies the
    neighbors are held fixed.

    Raises:
        InputError: the number of vectors differs from the number of texts, or a vector is not of length 1.
    """
    if len(z_TD) != len(examples.texts):
        raise InputError(f"there are {len(z_TD):,} vectors for {len(examples.texts):,} texts; pass one per text")
    if not np.allclose(np.linalg.norm(z_TD, axis=1), 1, atol=1e-3):
        raise InputError("vectors must have length 1, as Encoder.embed returns them")
    random_TD = np.random.default_rng([seed, 1]).standard_normal(z_TD.shape).astype(np.float32)
    random_TD /= np.linalg.norm(random_TD, axis=1, keepdims=True)
    by_vectors: list[dict[str, dict[str, GroupedEstimate]]] = [{}, {}]
    for name, theory in texts_by_theory(z_TD, examples, level, leave, seed).items():
        draw = _draw(theory, np.random.default_rng(seed))
        for vectors_TD, by_metric in zip((z_TD, random_TD), by_vectors, strict=True):
            for metric, estimate in _theory_metrics(theory._replace(z_TD=vectors_TD[theory.texts]), draw, k, seed).items():
                by_metric.setdefault(metric, {})[name] = estimate
    estimates, floors = map(_with_means, by_vectors)
    ends = _intervals(estimates, int(examples.group_N.max()) + 1, seed) if estimates else {}
    return {name: EmbeddingMetric(e.value, *ends[name], floors[name].value, e.num) for name, e in estimates.items()}


def value_vectors(z_TD: np.ndarray, examples: Examples, level: int | None = None) -> tuple[list[ValueId], np.ndarray]:
    """Return the ids of values with at least five texts, and their vectors (not normalized).

    A vector is the mean of supporting texts minus the mean of opposing texts; with fewer than five of either, it is the mean of
    the value's texts minus the mean of all texts of the theory.
    """
    names, vectors = [], []
    for theory in texts_by_theory(z_TD, examples, level, "text", 0).values():
        columns, poles = _poles(theory)
        names += [theory.values[v] for v in columns]
        vectors += [theory.z_TD[plus].mean(0) - theory.z_TD[minus].mean(0) for plus, minus in poles]
    return names, np.array(vectors).reshape(len(names), z_TD.shape[1])


def _theory_metrics(theory: TheoryTexts, draw: RelationDraw, k: int, seed: int) -> dict[str, GroupedEstimate]:
    by_cosine = _ranking_accuracy(theory, draw) | _similarity_correlation(theory, seed) | _orthogonality(theory)
    return by_cosine | _label_accuracy(theory, k) | _direction_accuracy(theory, k)


def _with_means(by_metric: dict[str, dict[str, GroupedEstimate]]) -> dict[str, GroupedEstimate]:
    means = {metric: _mean(list(by_theory.values())) for metric, by_theory in by_metric.items()}
    return means | {
        f"{metric}/{name}": estimate for metric, by_theory in by_metric.items() for name, estimate in by_theory.items()
    }


def _mean(estimates: list[GroupedEstimate]) -> GroupedEstimate:
    value, influence_G = np.mean([e.value for e in estimates]), np.mean([e.influence_G for e in estimates], axis=0)
    groups = np.unique(np.concatenate([e.groups for e in estimates]))
    return GroupedEstimate(float(value), sum(e.num for e in estimates), influence_G, groups)


def _ranking_accuracy(theory: TheoryTexts, draw: RelationDraw) -> dict[str, GroupedEstimate]:
    """Hierarchical ranking accuracy, pairwise and strict."""
    query_Q, picks_QSR = draw
    if not len(query_Q):
        return {}
    has_Q1R = picks_QSR[:, :1] >= 0
    sims_QSR = np.stack(
        [np.einsum("ad,asd->as", theory.z_TD[query_Q], theory.z_TD[picks_QSR[:, :, r]]) for r in range(len(RELATIONS))], -1
    )
    near, far = np.triu_indices(len(RELATIONS), 1)
    both_Q1P = has_Q1R[:, :, near] & has_Q1R[:, :, far]
    right_QSP = (sims_QSR[:, :, near] > sims_QSR[:, :, far]) + 0.5 * (sims_QSR[:, :, near] == sims_QSR[:, :, far])
    share_QSP = np.where(both_Q1P, right_QSP, 0.0) / both_Q1P.sum(-1, keepdims=True)
    # Influence of a drawn text: it changes only its own pairs within the mean over its query's draws.
    added_QSP = share_QSP - share_QSP.mean(1, keepdims=True)
    added_QSR = np.stack([added_QSP[:, :, (near == r) | (far == r)].sum(-1) for r in range(len(RELATIONS))], -1)
    strict_QS = np.where(both_Q1P, right_QSP == 1, True).all(-1).astype(float)
    strict_QSR = np.repeat((strict_QS - strict_QS.mean(1, keepdims=True))[..., None], len(RELATIONS), -1)
    return {
        "pairwise": _ranking(theory, draw, share_QSP.sum(-1), added_QSR),
        "strict": _ranking(theory, draw, strict_QS, strict_QSR),
    }


def _ranking(theory: TheoryTexts, draw: RelationDraw, score_QS: np.ndarray, added_QSR: np.ndarray) -> GroupedEstimate:
    score_Q, value = score_QS.mean(1), float(score_QS.mean())
    drawn = draw.picks_QSR >= 0
    added_QSR = added_QSR / (score_QS.shape[1] - 1)
    influence_G = np.bincount(theory.group_T[draw.query_Q], score_Q - value, theory.num_groups)
    influence_G += np.bincount(theory.group_T[draw.picks_QSR[drawn]], added_QSR[drawn], theory.num_groups)
    return GroupedEstimate(value, len(score_Q), influence_G / len(score_Q), np.unique(theory.group_T))


def _draw(theory: TheoryTexts, rng: np.random.Generator) -> RelationDraw:
    num_draws = min(max(NUM_DRAWS // max(len(theory.query_Q), 1), MIN_DRAWS), MAX_DRAWS)
    picks_QSR = np.full((len(theory.query_Q), num_draws, len(RELATIONS)), -1)
    for start in range(0, len(theory.query_Q), BLOCK_ROWS):
        queries = theory.query_Q[start : start + BLOCK_ROWS]
        relation = _relations(theory, queries)
        relation[np.arange(len(queries)), queries] = -1
        for r in range(len(RELATIONS)):
            row, text = np.nonzero(relation == r)
            size_Q = np.bincount(row, minlength=len(queries))
            first_Q = np.cumsum(size_Q) - size_Q
            nth_QS = first_Q[:, None] + (rng.random((len(queries), num_draws)) * size_Q[:, None]).astype(int)
            some = size_Q > 0
            picks_QSR[start : start + BLOCK_ROWS, :, r][some] = text[nth_QS[some]]
    enough = (picks_QSR[:, 0] >= 0).sum(-1) >= 2
    return RelationDraw(theory.query_Q[enough], picks_QSR[enough])


def _relations(theory: TheoryTexts, queries: np.ndarray) -> np.ndarray:
    """The relation of each query to every text, the closest over the labels of both."""
    relation_QT = np.full((len(queries), len(theory.z_TD)), len(RELATIONS) - 1, np.int8)
    shared = [(4 - level, theory.levels[level]) for level in (1, 2) if level < len(theory.levels)]
    for r, codes_TC in [*shared, (1, theory.path_TC), (0, theory.directed_path_TC)]:
        relation_QT[codes_TC[queries] @ codes_TC.T > 0] = r
    return relation_QT


def _closeness(theory: TheoryTexts, i_P: np.ndarray, j_P: np.ndarray) -> np.ndarray:
    """Levels shared from the root + 0.5 for the same direction, for the closest labels of each pair of texts."""
    closeness_P = np.zeros(len(i_P))
    for level, (codes_TC, directed_TC) in enumerate(zip(theory.levels, theory.directed, strict=True)):
        closeness_P[_dots(codes_TC, i_P, j_P) > 0] = level
        closeness_P[_dots(directed_TC, i_P, j_P) > 0] = level + 0.5
    return closeness_P


def _dots(x_TD: np.ndarray, i_P: np.ndarray, j_P: np.ndarray) -> np.ndarray:
    parts = [slice(start, start + 40 * BLOCK_ROWS) for start in range(0, len(i_P), 40 * BLOCK_ROWS)]
    return np.concatenate([np.einsum("pd,pd->p", x_TD[i_P[part]], x_TD[j_P[part]]) for part in parts])


def _similarity_correlation(theory: TheoryTexts, seed: int) -> dict[str, GroupedEstimate]:
    """Similarity correlation: Pearson of cosine and closeness over all pairs of texts, or a sample of them."""
    size = len(theory.z_TD)
    if size * (size - 1) // 2 <= NUM_PAIRS:
        i_P, j_P = np.triu_indices(size, 1)
    else:
        rng = np.random.default_rng(seed)
        i_P = rng.integers(size, size=NUM_PAIRS)
        j_P = (i_P + rng.integers(1, size, NUM_PAIRS)) % size
    near_P = _closeness(theory, i_P, j_P)
    if near_P.std() == 0:
        return {}
    cosine_P = _dots(theory.z_TD, i_P, j_P).astype(float)
    x_P, y_P = ((v - v.mean()) / max(v.std(), 1e-12) for v in (cosine_P, near_P))
    value = float((x_P * y_P).mean())
    influence_P = (x_P * y_P - value * (x_P**2 + y_P**2) / 2) / len(i_P)
    ends = np.concatenate([theory.group_T[i_P], theory.group_T[j_P]])
    influence_G = np.bincount(ends, np.tile(influence_P, 2), theory.num_groups)
    return {"correlation": GroupedEstimate(value, len(i_P), influence_G, np.unique(theory.group_T))}


def _poles(theory: TheoryTexts) -> tuple[np.ndarray, list[list[np.ndarray]]]:
    """Columns of the values with enough texts, and the two sets of texts of each whose means differ by its vector."""
    every_T = np.ones(len(theory.z_TD), bool)
    columns, ends = [], []
    for v in range(theory.node_TV.shape[1]):
        of_T = theory.node_TV[:, v] > 0
        poles = [theory.sign_TV[:, v] > 0, theory.sign_TV[:, v] < 0]
        if of_T.sum() >= MIN_TEXTS:
            columns.append(v)
            ends.append(poles if min(pole.sum() for pole in poles) >= MIN_TEXTS else [of_T, every_T])
    return np.array(columns, int), ends


def _orthogonality(theory: TheoryTexts) -> dict[str, GroupedEstimate]:
    """Value-vector orthogonality, with its derivative with respect to the weight of each text."""
    columns, ends = _poles(theory)
    num = len(columns)
    if num < 2:
        return {}
    z_TD = theory.z_TD.astype(float)
    vector_VD = np.stack([z_TD[plus].mean(0) - z_TD[minus].mean(0) for plus, minus in ends])
    length_V = np.linalg.norm(vector_VD, axis=1)
    if length_V.min() < 1e-6:  # a value without a direction
        return {}
    unit_VD = vector_VD / length_V[:, None]
    cosine_VV = unit_VD @ unit_VD.T
    np.fill_diagonal(cosine_VV, 0.0)
    sign_VV = np.sign(cosine_VV)
    slope_VD = (sign_VV @ unit_VD - (sign_VV * cosine_VV).sum(1)[:, None] * unit_VD) / length_V[:, None]
    along_TV = z_TD @ slope_VD.T
    influence_T = np.zeros(len(z_TD))
    for v, (plus, minus) in enumerate(ends):
        for end, sign in ((plus, 1), (minus, -1)):
            influence_T[end] += sign * (along_TV[end, v] - along_TV[end, v].mean()) / end.sum()
    influence_G = np.bincount(theory.group_T, -2 * influence_T / (num * (num - 1)), theory.num_groups)
    value = float(1 - np.abs(cosine_VV).sum() / (num * (num - 1)))
    return {"orthogonality": GroupedEstimate(value, num, influence_G, np.unique(theory.group_T))}


def _label_accuracy(theory: TheoryTexts, k: int) -> dict[str, GroupedEstimate]:
    """k-NN label accuracy: the majority value of the nearest other texts is one of the text's values."""
    has_T = theory.node_TV.sum(1) > 0
    queries, candidates = theory.query_Q[has_T[theory.query_Q]], np.flatnonzero(has_T)
    if len(candidates) < 2 or (theory.node_TV.sum(0) > 0).sum() < 2:
        return {}
    right = []
    for start in range(0, len(queries), BLOCK_ROWS):
        part = queries[start : start + BLOCK_ROWS]
        near_QK, weight_QK = _nearest(theory, part, candidates, k)
        votes_QV = np.einsum("qk,qkv->qv", weight_QK, theory.node_TV[near_QK])
        right.append(theory.node_TV[part, votes_QV.argmax(1)])
    return {"label_accuracy": _accuracy(theory, queries, np.concatenate(right))}


def _direction_accuracy(theory: TheoryTexts, k: int) -> dict[str, GroupedEstimate]:
    """Direction accuracy: the majority direction of the nearest other texts of the same value is the text's."""
    parts, right = [], []
    for v in range(theory.node_TV.shape[1]):
        sign_T = theory.sign_TV[:, v]
        candidates = np.flatnonzero(sign_T)
        if len(candidates) < MIN_TEXTS or len(np.unique(sign_T[candidates])) < 2:
            continue
        queries = theory.query_Q[sign_T[theory.query_Q] != 0]
        for start in range(0, len(queries), BLOCK_ROWS):
            part = queries[start : start + BLOCK_ROWS]
            near_QK, weight_QK = _nearest(theory, part, candidates, k)
            vote_Q = (weight_QK * sign_T[near_QK]).sum(1)
            parts.append(part)
            right.append(np.sign(vote_Q) == sign_T[part])
    return {"direction_accuracy": _accuracy(theory, np.concatenate(parts), np.concatenate(right))} if parts else {}


def _nearest(theory: TheoryTexts, queries: np.ndarray, candidates: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k candidates nearest to each query, without its own text or group, and the weights of their votes."""
    sim_QT = theory.z_TD[queries] @ theory.z_TD[candidates].T
    sim_QT[theory.exclusion_T[candidates] == theory.exclusion_T[queries][:, None]] = -np.inf
    nearest_QK = np.argpartition(-sim_QT, min(k, len(candidates) - 1) - 1, axis=1)[:, : min(k, len(candidates) - 1)]
    sim_QK = np.take_along_axis(sim_QT, nearest_QK, 1)
    return candidates[nearest_QK], np.where(sim_QK > -np.inf, 1 + TIE_BREAK * sim_QK, 0)


def _accuracy(theory: TheoryTexts, queries: np.ndarray, right_Q: np.ndarray) -> GroupedEstimate:
    value = float(np.mean(right_Q, dtype=float))
    influence_G = np.bincount(theory.group_T[queries], right_Q - value, theory.num_groups) / len(queries)
    return GroupedEstimate(value, len(queries), influence_G, np.unique(theory.group_T[queries]))


def _intervals(estimates: dict[str, GroupedEstimate], num_groups: int, seed: int) -> dict[str, tuple[float, float]]:
    """Percentile intervals of a linearized bootstrap over groups; NaN where fewer than two groups contribute."""
    rng = np.random.default_rng(seed)
    influence_GM = np.stack([e.influence_G for e in estimates.values()], 1)
    resamples = (rng.integers(num_groups, size=num_groups) for _ in range(RESAMPLES))
    deviations = [(np.bincount(groups, minlength=num_groups) - 1.0) @ influence_GM for groups in resamples]
    num_groups_M = np.array([len(e.groups) for e in estimates.values()])
    scale_M = np.sqrt(num_groups_M / np.maximum(num_groups_M - 1, 1))
    ends_2M = np.quantile(np.stack(deviations) * scale_M, INTERVAL_QUANTILES, axis=0)
    ends_2M[:, num_groups_M < 2] = np.nan
    return {
        name: (float(e.value + low), float(e.value + high))
        for (name, e), low, high in zip(estimates.items(), *ends_2M, strict=True)
    }
