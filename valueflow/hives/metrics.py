"""How well embeddings show the hierarchy of values: metrics with intervals, beside what random vectors reach.

N rows of labels, T texts of a theory, C codes (prefixes, paths or nodes), A anchors, R relations, S draws, P pairs, Q queries,
G groups, V values, D dimensions.
"""

from typing import Literal, NamedTuple

import numpy as np

from valueflow.errors import InputError
from valueflow.hives.examples import Examples, prefixes
from valueflow.theories import operational
from valueflow.theories.taxonomy import THEORIES

LeaveOut = Literal["text", "group"]
RELATIONS = ("same leaf and direction", "same leaf, other direction", "same level 2", "same level 1", "other")
NUM_DRAWS, MIN_DRAWS, MAX_DRAWS = 40_000, 8, 64  # in all; for an anchor at least and at most
NUM_PAIRS = 200_000
MAX_QUERIES = 4000  # a theory, also the queries of the accuracies by neighbours
RESAMPLES = 1000
BLOCK_ROWS = 256  # of a similarity matrix held at a time
INTERVAL_QUANTILES = (0.025, 0.975)
MIN_TEXTS = 5  # texts that a mean, or a direction to be told, needs at least
TIE_BREAK = 1e-3  # votes of neighbours count alike; their similarity only breaks ties


class EmbeddingMetric(NamedTuple):
    """A number with its 95 % interval, what random vectors reach, and the anchors, pairs, values or queries it rests on."""

    value: float
    low: float
    high: float
    floor: float
    count: int  # type: ignore[assignment] # hides tuple.count


class GroupedEstimate(NamedTuple):
    """A number, its count, and the derivative of the number by the weight of each group of texts."""

    value: float
    num: int
    influence_G: np.ndarray
    groups: np.ndarray  # that the number rests on


class TheoryTexts(NamedTuple):
    """The texts of one theory; of each, which codes it has, as 0/1 matrices whose columns are the codes."""

    texts: np.ndarray  # into Examples.texts
    z_TD: np.ndarray
    group_T: np.ndarray
    num_groups: int
    own_T: np.ndarray  # texts of equal number are no neighbours: the text itself, or its group
    anchors_A: np.ndarray  # the texts asked about
    levels: list[np.ndarray]  # TC: the root, that all texts share, then the prefixes of each level, coarsest first
    directed: list[np.ndarray]  # TC: the same, each with a direction
    path_TC: np.ndarray
    directed_path_TC: np.ndarray
    values: list[str]
    node_TV: np.ndarray  # the values that are told apart
    sign_TV: np.ndarray  # direction towards each, 0 where none is known


class RelationDraw(NamedTuple):
    """Anchors with at least two relations, and for each the texts drawn, -1 where the relation does not exist."""

    anchors_A: np.ndarray
    picks_ASR: np.ndarray


def embedding_metrics(
    z_TD: np.ndarray, examples: Examples, level: int | None = None, k: int = 10, leave: LeaveOut = "text", seed: int = 0
) -> dict[str, EmbeddingMetric]:
    """Return every metric of unit vectors, one a text of `examples.texts`: `name` over all theories, `name/theory` in each.

    Over all theories is the mean of the theories. What cannot be told in a theory is left out (no directions, one value);
    direction 0, neutral or unknown, is a direction of its own.
    - pairwise, strict: hierarchical ranking accuracy. An anchor text meets one random text of each of RELATIONS (the closest
      over the labels of both texts; relations without a text are left out, and anchors with fewer than two). pairwise: share
      of the pairs of relations in the right order of cosine, ties half; strict: share of draws with all in order.
    - correlation: Pearson of cosine with (levels shared from the root + 0.5 if the direction is the same), pairs of texts.
    - orthogonality: 1 - mean |cosine| of the vectors of different values, see `value_vectors`. Random vectors reach nearly 1.
    - label_accuracy: the value that most of the k nearest other texts have is one of the text's own.
    - direction_accuracy: the direction most of the k nearest other texts of the same value have is the text's; NOT balanced.
    Neighbours are other texts, with `leave` group texts of other groups: without it the topic of a group gives labels away.
    A value is an operational node, or with `level` (1 the coarsest) the node at that level, by whatever path it is reached.
    At most 4,000 random texts a theory are anchors and queries. Intervals are a bootstrap over examples.group_N, linear in
    the weights of the groups; those of the two accuracies by neighbours hold the texts that are neighbours fixed.

    Raises:
        InputError: there is not one vector a text, or the vectors are not of length 1.
    """
    if len(z_TD) != len(examples.texts):
        raise InputError(f"there are {len(z_TD):,} vectors for {len(examples.texts):,} texts; give one a text")
    if not np.allclose(np.linalg.norm(z_TD, axis=1), 1, atol=1e-3):
        raise InputError("vectors must have length 1, as Encoder.embed returns them")
    random_TD = np.random.default_rng([seed, 1]).standard_normal(z_TD.shape).astype(np.float32)
    random_TD /= np.linalg.norm(random_TD, axis=1, keepdims=True)
    found: list[dict[str, dict[str, GroupedEstimate]]] = [{}, {}]
    for name, theory in _theories(z_TD, examples, level, leave, seed).items():
        draw = _draw(theory, np.random.default_rng(seed))
        for vectors_TD, by in zip((z_TD, random_TD), found, strict=True):
            for metric, estimate in _measured(theory._replace(z_TD=vectors_TD[theory.texts]), draw, k, seed).items():
                by.setdefault(metric, {})[name] = estimate
    estimates, floors = map(_with_means, found)
    ends = _intervals(estimates, int(examples.group_N.max()) + 1, seed) if estimates else {}
    return {name: EmbeddingMetric(e.value, *ends[name], floors[name].value, e.num) for name, e in estimates.items()}


def value_vectors(z_TD: np.ndarray, examples: Examples, level: int | None = None) -> tuple[list[str], np.ndarray]:
    """Return the values (theory:node) that at least five texts bear on, and their vectors, not normalised.

    A vector is the mean of the supporting texts minus the mean of the opposing ones; where either are fewer than five (no
    directions, or one side only), it is the mean of the value's texts minus the mean of all texts of the theory.
    """
    names, vectors = [], []
    for theory in _theories(z_TD, examples, level, "text", 0).values():
        kept, ends = _poles(theory)
        names += [theory.values[v] for v in kept]
        vectors += [theory.z_TD[plus].mean(0) - theory.z_TD[minus].mean(0) for plus, minus in ends]
    return names, np.array(vectors).reshape(len(names), z_TD.shape[1])


def _measured(theory: TheoryTexts, draw: RelationDraw, k: int, seed: int) -> dict[str, GroupedEstimate]:
    by_relation = _ranked(theory, draw) | _correlated(theory, seed)
    return by_relation | _orthogonal(theory) | _labelled(theory, k) | _directed(theory, k)


def _with_means(found: dict[str, dict[str, GroupedEstimate]]) -> dict[str, GroupedEstimate]:
    means = {metric: _mean(list(by.values())) for metric, by in found.items()}
    return means | {f"{metric}/{name}": estimate for metric, by in found.items() for name, estimate in by.items()}


def _mean(estimates: list[GroupedEstimate]) -> GroupedEstimate:
    value, influence_G = np.mean([e.value for e in estimates]), np.mean([e.influence_G for e in estimates], axis=0)
    groups = np.unique(np.concatenate([e.groups for e in estimates]))
    return GroupedEstimate(float(value), sum(e.num for e in estimates), influence_G, groups)


def _theories(z_TD: np.ndarray, examples: Examples, level: int | None, leave: LeaveOut, seed: int) -> dict[str, TheoryTexts]:
    """The theories that at least two texts have a place in."""
    found = {}
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
        found[THEORIES[t]] = TheoryTexts(
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
    return found


def path_values(theory: str, level: int | None) -> tuple[list[str], np.ndarray]:
    """Return the values of a theory (theory:node) and, of every path by its id, which it leads to or through; -1 none."""
    value_P = np.full(len(prefixes().names), -1)
    values: dict[str, int] = {}
    for p, name in enumerate(prefixes().names):
        of, _, path = name.partition(":")
        nodes = [f"{of}:{node}" for node in path.split("/")]
        on = [node for node in nodes if node in operational()] if level is None else nodes[level - 1 : level]
        if of == theory and on:
            value_P[p] = values.setdefault(on[0], len(values))
    return list(values), value_P


def _with_direction(prefix_N: np.ndarray, direction_N: np.ndarray) -> np.ndarray:
    return np.where(prefix_N >= 0, 3 * prefix_N + direction_N + 1, -1)


def _codes(row: np.ndarray, code_N: np.ndarray) -> np.ndarray:
    """Texts by codes: 1 where a row of the text has the code."""
    used = code_N >= 0
    codes, column = np.unique(code_N[used], return_inverse=True)
    matrix_TC = np.zeros((row.max() + 1, len(codes)), np.float32)
    matrix_TC[row[used], column] = 1
    return matrix_TC


def _ranked(theory: TheoryTexts, draw: RelationDraw) -> dict[str, GroupedEstimate]:
    """Hierarchical ranking accuracy, pairwise and strict."""
    anchors_A, picks_ASR = draw
    if not len(anchors_A):
        return {}
    there_A1R = picks_ASR[:, :1] >= 0
    sims_ASR = np.stack(
        [np.einsum("ad,asd->as", theory.z_TD[anchors_A], theory.z_TD[picks_ASR[:, :, r]]) for r in range(len(RELATIONS))], -1
    )
    near, far = np.triu_indices(len(RELATIONS), 1)
    both_A1P = there_A1R[:, :, near] & there_A1R[:, :, far]
    right_ASP = (sims_ASR[:, :, near] > sims_ASR[:, :, far]) + 0.5 * (sims_ASR[:, :, near] == sims_ASR[:, :, far])
    share_ASP = np.where(both_A1P, right_ASP, 0.0) / both_A1P.sum(-1, keepdims=True)
    # A drawn text changes only the pairs it is in: what it adds to its anchor's mean over the draws.
    added_ASP = share_ASP - share_ASP.mean(1, keepdims=True)
    added_ASR = np.stack([added_ASP[:, :, (near == r) | (far == r)].sum(-1) for r in range(len(RELATIONS))], -1)
    strict_AS = np.where(both_A1P, right_ASP == 1, True).all(-1).astype(float)
    strict_ASR = np.repeat((strict_AS - strict_AS.mean(1, keepdims=True))[..., None], len(RELATIONS), -1)
    return {
        "pairwise": _ranking(theory, draw, share_ASP.sum(-1), added_ASR),
        "strict": _ranking(theory, draw, strict_AS, strict_ASR),
    }


def _ranking(theory: TheoryTexts, draw: RelationDraw, score_AS: np.ndarray, added_ASR: np.ndarray) -> GroupedEstimate:
    score_A, value = score_AS.mean(1), float(score_AS.mean())
    drawn = draw.picks_ASR >= 0
    added_ASR = added_ASR / (score_AS.shape[1] - 1)
    influence_G = np.bincount(theory.group_T[draw.anchors_A], score_A - value, theory.num_groups)
    influence_G += np.bincount(theory.group_T[draw.picks_ASR[drawn]], added_ASR[drawn], theory.num_groups)
    return GroupedEstimate(value, len(score_A), influence_G / len(score_A), np.unique(theory.group_T))


def _draw(theory: TheoryTexts, rng: np.random.Generator) -> RelationDraw:
    num_draws = min(max(NUM_DRAWS // max(len(theory.anchors_A), 1), MIN_DRAWS), MAX_DRAWS)
    picks_ASR = np.full((len(theory.anchors_A), num_draws, len(RELATIONS)), -1)
    for start in range(0, len(theory.anchors_A), BLOCK_ROWS):
        anchors = theory.anchors_A[start : start + BLOCK_ROWS]
        relation = _relations(theory, anchors)
        relation[np.arange(len(anchors)), anchors] = -1
        for r in range(len(RELATIONS)):
            row, text = np.nonzero(relation == r)
            size_A = np.bincount(row, minlength=len(anchors))
            first_A = np.cumsum(size_A) - size_A
            at_AS = first_A[:, None] + (rng.random((len(anchors), num_draws)) * size_A[:, None]).astype(int)
            some = size_A > 0
            picks_ASR[start : start + BLOCK_ROWS, :, r][some] = text[at_AS[some]]
    enough = (picks_ASR[:, 0] >= 0).sum(-1) >= 2
    return RelationDraw(theory.anchors_A[enough], picks_ASR[enough])


def _relations(theory: TheoryTexts, anchors: np.ndarray) -> np.ndarray:
    """The relation of each anchor to every text, the closest over the labels of both."""
    found = np.full((len(anchors), len(theory.z_TD)), len(RELATIONS) - 1, np.int8)
    shared = [(4 - level, theory.levels[level]) for level in (1, 2) if level < len(theory.levels)]
    for r, codes_TC in [*shared, (1, theory.path_TC), (0, theory.directed_path_TC)]:
        found[codes_TC[anchors] @ codes_TC.T > 0] = r
    return found


def _closeness(theory: TheoryTexts, i_P: np.ndarray, j_P: np.ndarray) -> np.ndarray:
    """Return for pairs of texts the number of levels shared from the root + 0.5 if of the same direction, closest labels."""
    found_P = np.zeros(len(i_P))
    for level, (codes_TC, directed_TC) in enumerate(zip(theory.levels, theory.directed, strict=True)):
        found_P[_dots(codes_TC, i_P, j_P) > 0] = level
        found_P[_dots(directed_TC, i_P, j_P) > 0] = level + 0.5
    return found_P


def _dots(x_TD: np.ndarray, i_P: np.ndarray, j_P: np.ndarray) -> np.ndarray:
    parts = [slice(start, start + 40 * BLOCK_ROWS) for start in range(0, len(i_P), 40 * BLOCK_ROWS)]
    return np.concatenate([np.einsum("pd,pd->p", x_TD[i_P[part]], x_TD[j_P[part]]) for part in parts])


def _correlated(theory: TheoryTexts, seed: int) -> dict[str, GroupedEstimate]:
    """Similarity correlation: Pearson of cosine and closeness over pairs of texts, all of them where there are few."""
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
    """The values with enough texts, and of each the groups of texts whose means differ by its vector."""
    every_T = np.ones(len(theory.z_TD), bool)
    kept, ends = [], []
    for v in range(theory.node_TV.shape[1]):
        of_T = theory.node_TV[:, v] > 0
        poles = [theory.sign_TV[:, v] > 0, theory.sign_TV[:, v] < 0]
        if of_T.sum() >= MIN_TEXTS:
            kept.append(v)
            ends.append(poles if min(pole.sum() for pole in poles) >= MIN_TEXTS else [of_T, every_T])
    return np.array(kept, int), ends


def _orthogonal(theory: TheoryTexts) -> dict[str, GroupedEstimate]:
    """Value-vector orthogonality, and how it moves with the weight of each text (the derivative of every cosine)."""
    kept, ends = _poles(theory)
    num = len(kept)
    if num < 2:
        return {}
    z_TD = theory.z_TD.astype(float)
    vector_VD = np.stack([z_TD[plus].mean(0) - z_TD[minus].mean(0) for plus, minus in ends])
    length_V = np.linalg.norm(vector_VD, axis=1)
    if length_V.min() < 1e-6:  # one is no direction
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


def _labelled(theory: TheoryTexts, k: int) -> dict[str, GroupedEstimate]:
    """k-NN label accuracy: the value most of the nearest other texts have is one of the text's."""
    has_T = theory.node_TV.sum(1) > 0
    queries, known = theory.anchors_A[has_T[theory.anchors_A]], np.flatnonzero(has_T)
    if len(known) < 2 or (theory.node_TV.sum(0) > 0).sum() < 2:
        return {}
    right = []
    for start in range(0, len(queries), BLOCK_ROWS):
        part = queries[start : start + BLOCK_ROWS]
        near_QK, weight_QK = _nearest(theory, part, known, k)
        votes_QV = np.einsum("qk,qkv->qv", weight_QK, theory.node_TV[near_QK])
        right.append(theory.node_TV[part, votes_QV.argmax(1)])
    return {"label_accuracy": _share_right(theory, queries, np.concatenate(right))}


def _directed(theory: TheoryTexts, k: int) -> dict[str, GroupedEstimate]:
    """Direction accuracy: the direction of most of the nearest other texts of the same value is the text's."""
    asked, right = [], []
    for v in range(theory.node_TV.shape[1]):
        sign_T = theory.sign_TV[:, v]
        known = np.flatnonzero(sign_T)
        if len(known) < MIN_TEXTS or len(np.unique(sign_T[known])) < 2:
            continue
        queries = theory.anchors_A[sign_T[theory.anchors_A] != 0]
        for start in range(0, len(queries), BLOCK_ROWS):
            part = queries[start : start + BLOCK_ROWS]
            near_QK, weight_QK = _nearest(theory, part, known, k)
            vote_Q = (weight_QK * sign_T[near_QK]).sum(1)
            asked.append(part)
            right.append(np.sign(vote_Q) == sign_T[part])
    return {"direction_accuracy": _share_right(theory, np.concatenate(asked), np.concatenate(right))} if asked else {}


def _nearest(theory: TheoryTexts, queries: np.ndarray, known: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k texts of `known` nearest to each query, its own left out, and the weight of their votes."""
    sim_QT = theory.z_TD[queries] @ theory.z_TD[known].T
    sim_QT[theory.own_T[known] == theory.own_T[queries][:, None]] = -np.inf
    at_QK = np.argpartition(-sim_QT, min(k, len(known) - 1) - 1, axis=1)[:, : min(k, len(known) - 1)]
    sim_QK = np.take_along_axis(sim_QT, at_QK, 1)
    return known[at_QK], np.where(sim_QK > -np.inf, 1 + TIE_BREAK * sim_QK, 0)


def _share_right(theory: TheoryTexts, queries: np.ndarray, right_Q: np.ndarray) -> GroupedEstimate:
    value = float(np.mean(right_Q, dtype=float))
    influence_G = np.bincount(theory.group_T[queries], right_Q - value, theory.num_groups) / len(queries)
    return GroupedEstimate(value, len(queries), influence_G, np.unique(theory.group_T[queries]))


def _intervals(estimates: dict[str, GroupedEstimate], num_groups: int, seed: int) -> dict[str, tuple[float, float]]:
    """Percentile intervals of a bootstrap over groups, linearised; NaN where fewer than two groups bear on a number."""
    rng = np.random.default_rng(seed)
    influence_GM = np.stack([e.influence_G for e in estimates.values()], 1)
    drawn = (rng.integers(num_groups, size=num_groups) for _ in range(RESAMPLES))
    moved = [(np.bincount(groups, minlength=num_groups) - 1.0) @ influence_GM for groups in drawn]
    bearing_M = np.array([len(e.groups) for e in estimates.values()])
    scale_M = np.sqrt(bearing_M / np.maximum(bearing_M - 1, 1))
    ends_2M = np.quantile(np.stack(moved) * scale_M, INTERVAL_QUANTILES, axis=0)
    ends_2M[:, bearing_M < 2] = np.nan
    return {
        name: (float(e.value + low), float(e.value + high))
        for (name, e), low, high in zip(estimates.items(), *ends_2M, strict=True)
    }
