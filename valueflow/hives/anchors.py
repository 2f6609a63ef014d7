"""Concept anchors: clusters of texts that span at least two theories, their names, and their balance over theories.

T texts, H theories, K clusters, D dimensions.
"""

import itertools
import logging
import math
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field
from sklearn.cluster import AgglomerativeClustering, KMeans, MiniBatchKMeans
from threadpoolctl import threadpool_limits

from valueflow.config import Config
from valueflow.errors import InputError
from valueflow.hives.examples import Examples
from valueflow.records import SCHEMAS, digest
from valueflow.theories.taxonomy import THEORIES, fold

log = logging.getLogger(__name__)

MEDOID = "medoid"  # `named_by` of anchors that no LLM has named
BLOCK_ROWS = 8192  # rows of the similarity matrix computed at a time
MAX_FULL_KMEANS = 20_000  # most texts for full-batch k-means


class AnchorsConfig(Config):
    """Number of anchors and criteria for clusters. Cosines are between centered vectors, so chance is 0."""

    target: int = Field(274, ge=1, description="number of anchors; fewer if the texts do not support as many")
    duplicate: float = Field(0.8, gt=0, le=1, description="cosine of centers above which clusters are merged")
    min_texts: int = Field(10, ge=2, description="fewest texts of an anchor")
    min_per_theory: int = Field(3, ge=1, description="fewest texts of an anchor in each of two theories")
    min_cohesion: float = Field(0.3, ge=-1, le=1, description="smallest mean cosine of an anchor's texts with its center")
    min_similarity: float = Field(0.3, ge=-1, le=1, description="smallest cosine of a text with its anchor")
    num_medoids: int = Field(5, ge=1, description="texts saved per anchor, for display and naming")
    name_words: int = Field(8, ge=1, description="words of the medoid's text that name an anchor without a namer")
    tries: int = Field(10, ge=1, description="most numbers of clusters to try")
    max_fitted: int = Field(200_000, ge=1, description="most random texts to fit centers to; all texts are assigned")
    seed: int = 0


class AnchorTables(NamedTuple):
    """Rows of tables `anchors` and `anchored`, and the number of rejected clusters by reason."""

    anchors: pa.Table
    anchored: pa.Table
    dropped: dict[str, int]


class _Space(NamedTuple):
    """The texts as clustered."""

    x_TD: np.ndarray  # unit vectors
    has_TH: np.ndarray  # bool: the text has a label of the theory
    weight_T: np.ndarray  # every theory has the same total weight


class _Clustering(NamedTuple):
    """The clusters from one number of initial clusters."""

    center_KD: np.ndarray
    near_T: np.ndarray  # into the clusters, -1: none
    similarity_T: np.ndarray
    medoids: list[list[int]]
    names: list[str]
    dropped: Counter[str]

    @property
    def size(self) -> int:
        """Number of anchors; clusters whose names are equal after folding are one."""
        return len({fold(name) for name in self.names})


def find_anchors(z_TD: np.ndarray, examples: Examples, config: AnchorsConfig) -> AnchorTables:
    """Return the concept anchors of labeled texts; deterministic for a seed.

    For several numbers of initial clusters: k-means; merge clusters with similar centers or equal names; reject small, diffuse
    and single-theory clusters. The number whose result is nearest to the target from above is used; surplus anchors are
    removed, the least evenly spread over theories first. Each text is assigned to its nearest center within `min_similarity`.

    Args:
        z_TD: unit vectors, one per text of `examples.texts`.
        examples: the labeled texts.
        config: number of anchors and criteria.

    Raises:
        InputError: vectors do not match the texts or have another length, labels are of one theory, or no cluster qualifies.
    """
    space = _space(z_TD, examples)
    attempts: dict[int, _Clustering] = {}
    num = min(max(round(1.3 * config.target), 2), len(z_TD))
    while num not in attempts and len(attempts) < config.tries:
        attempts[num] = _cluster(space, examples, num, config)
        log.info("anchors: %d clusters -> %d anchors (target %d)", num, attempts[num].size, config.target)
        if attempts[num].size != config.target:
            num = _next_num_clusters({k: attempt.size for k, attempt in attempts.items()}, config.target, len(z_TD))
    enough = [k for k in attempts if attempts[k].size >= config.target]
    best = attempts[
        min(enough, key=lambda k: (attempts[k].size, k)) if enough else max(attempts, key=lambda k: (attempts[k].size, -k))
    ]
    if not best.size:
        raise InputError(
            f"none of the clusters of {len(z_TD):,} texts is an anchor: {dict(best.dropped)}; lower anchors.min_texts "
            f"({config.min_texts}), min_per_theory ({config.min_per_theory}), min_cohesion ({config.min_cohesion:g}) or "
            f"min_similarity ({config.min_similarity:g}), or add texts of two theories"
        )
    tables = AnchorTables(*merge_same_names(*_tables(best, space, examples)), dict(best.dropped))
    return _trim(tables, config.target)


def rename_anchors(anchors: pa.Table, anchored: pa.Table, names: Mapping[str, str], by: str) -> tuple[pa.Table, pa.Table]:
    """Return both tables with new names (by anchor id) from the namer `by`; anchors with equal folded names are merged."""
    rows = anchors.to_pylist()
    for row in rows:
        if row["anchor_id"] in names:
            row |= {"name": names[row["anchor_id"]], "named_by": by}
    return merge_same_names(pa.Table.from_pylist(rows, SCHEMAS["anchors"]), anchored)


def merge_same_names(anchors: pa.Table, anchored: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Return both tables with anchors of equal folded names merged under the id of the largest; largest anchors first."""
    groups: dict[str, list[dict]] = {}
    for row in sorted(anchors.to_pylist(), key=lambda row: (-row["num_texts"], row["anchor_id"])):
        groups.setdefault(fold(row["name"]), []).append(row)
    rows_out: list[dict] = []
    merged_into: dict[str, str] = {}
    for rows in groups.values():
        sums = {name: sum(row[name] for row in rows) for name in ("num_texts", *THEORIES)}
        cohesion = sum(row["cohesion"] * row["num_texts"] for row in rows) / sums["num_texts"]
        rows_out.append(rows[0] | sums | {"cohesion": cohesion})
        merged_into |= {row["anchor_id"]: rows[0]["anchor_id"] for row in rows}
    rows_out.sort(key=lambda row: (-row["num_texts"], row["anchor_id"]))
    ids = pa.array([merged_into[i] for i in anchored["anchor_id"].to_pylist()], pa.string())
    return pa.Table.from_pylist(rows_out, SCHEMAS["anchors"]), anchored.set_column(1, "anchor_id", ids)


def with_concept_anchors(examples: Examples, anchors: pa.Table, anchored: pa.Table) -> Examples:
    """Return the examples with the anchors as concepts, in the order of table `anchors`."""
    anchor_A = pc.index_in(anchored["anchor_id"], anchors["anchor_id"].combine_chunks())
    row_T = pc.index_in(pa.array(examples.text_ids, pa.string()), anchored["text_id"].combine_chunks())
    concept_T = anchor_A.take(row_T).fill_null(-1).to_numpy().astype(np.int64)
    return examples._replace(concept_N=concept_T[examples.text_N], concepts=anchors["name"].to_pylist())


class Balance(NamedTuple):
    """Coverage of nodes and texts per theory and level, and the number of anchors by number of theories."""

    levels: list[dict]
    spans: dict[str, int]


def balance(anchors: pa.Table, anchored: pa.Table, examples: Examples) -> Balance:
    """Return the balance of anchors over theories.

    Per theory and level: nodes and texts that occur, those of them with an anchor, anchors with such texts, and the evenness of
    anchored texts over nodes (normalized entropy; 1: equal, 0: all in one node).
    """
    with_anchors = with_concept_anchors(examples, anchors, anchored)
    levels = []
    for h, theory in enumerate(THEORIES):
        for level in range(with_anchors.prefix_NL.shape[1]):
            occurs_N = (with_anchors.theory_N == h) & (with_anchors.prefix_NL[:, level] >= 0)
            if not occurs_N.any():
                continue
            anchored_N = occurs_N & (with_anchors.concept_N >= 0)
            nodes, anchored_nodes = (
                np.unique(with_anchors.prefix_NL[occurs_N, level]),
                np.unique(with_anchors.prefix_NL[anchored_N, level]),
            )
            pairs = np.unique(np.stack([with_anchors.prefix_NL[anchored_N, level], with_anchors.text_N[anchored_N]]), axis=1)
            row = {"theory": theory, "level": level + 1, "nodes": len(nodes), "nodes_anchored": len(anchored_nodes)}
            row |= {
                "texts": len(np.unique(with_anchors.text_N[occurs_N])),
                "anchored": len(np.unique(with_anchors.text_N[anchored_N])),
            }
            row |= {"anchors": len(np.unique(with_anchors.concept_N[anchored_N])), "evenness": _evenness(pairs[0], len(nodes))}
            levels.append(row)
    counts_CH = np.array([anchors[theory].to_pylist() for theory in THEORIES]).T.reshape(-1, len(THEORIES))
    spans = Counter((counts_CH > 0).sum(1).tolist())
    return Balance(levels, {str(num): spans[num] for num in sorted(spans)})


def _evenness(code_N: np.ndarray, num: int) -> float:
    """Entropy of codes divided by its maximum log(num); 1 for a single code."""
    share = np.unique(code_N, return_counts=True)[1] / max(len(code_N), 1)
    return float(-(share * np.log(share)).sum() / np.log(num)) if num > 1 else 1.0


def _space(z_TD: np.ndarray, examples: Examples) -> _Space:
    if len(z_TD) != len(examples.texts):
        raise InputError(f"there are {len(z_TD):,} vectors for {len(examples.texts):,} texts; pass one per text")
    if not np.allclose(np.einsum("td,td->t", z_TD, z_TD), 1, atol=2e-3):
        raise InputError("vectors must have length 1, as Encoder.embed returns them")
    has_TH = np.zeros((len(z_TD), len(THEORIES)), bool)
    has_TH[examples.text_N, examples.theory_N] = True
    present_H = has_TH.any(0)
    if present_H.sum() < 2:
        raise InputError(
            f"all labels are of theory {THEORIES[int(present_H.argmax())]!r}; anchors span theories: use labels of at least two"
        )
    share_TH = (has_TH[:, present_H] / has_TH[:, present_H].sum(0)).astype(np.float32)
    # Vectors of most encoders share a common direction; after centering, a cosine of 0 is chance for every encoder.
    x_TD = z_TD - (share_TH.T @ z_TD).mean(0)
    x_TD /= np.sqrt(np.maximum(np.einsum("td,td->t", x_TD, x_TD), 1e-18))[:, None]
    return _Space(x_TD, has_TH, share_TH.sum(1) / share_TH.sum(1).mean())


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-9)


def _cluster(space: _Space, examples: Examples, num: int, config: AnchorsConfig) -> _Clustering:
    center_KD = _merge_close(*_clusters(space, num, config), config.duplicate)
    dropped = Counter({"like another": num - len(center_KD)})
    while True:
        near_T, similarity_T = _assign(space.x_TD, center_KD, config.min_similarity)
        faults = _faults(space, near_T, similarity_T, len(center_KD), config)
        dropped.update(fault for fault in faults if fault)
        if not any(faults):
            break
        center_KD = center_KD[[not fault for fault in faults]]
    medoids = _medoids(space, near_T, similarity_T, len(center_KD), config.num_medoids)
    names = [_phrase(examples.texts[texts[0]], config.name_words) for texts in medoids]
    return _Clustering(center_KD, near_T, similarity_T, medoids, names, +dropped)


def _clusters(space: _Space, num: int, config: AnchorsConfig) -> tuple[np.ndarray, np.ndarray]:
    """Centers of k-means, and the total weight of each cluster."""
    sample = np.sort(np.random.default_rng(config.seed).permutation(len(space.x_TD))[: config.max_fitted])
    x_FD, weight_F = space.x_TD[sample], space.weight_T[sample]
    if len(sample) <= MAX_FULL_KMEANS:
        kmeans = KMeans(num, n_init=3, random_state=config.seed)
    else:
        kmeans = MiniBatchKMeans(num, n_init=1, random_state=config.seed, batch_size=4096)
    # One thread: the order of floating-point sums depends on the number of threads.
    with threadpool_limits(1, user_api="openmp"):
        kmeans.fit(x_FD, sample_weight=weight_F)
    mass_K = np.bincount(kmeans.labels_, weight_F, num)
    return _unit(kmeans.cluster_centers_[mass_K > 0]).astype(np.float32), mass_K[mass_K > 0]


def _merge_close(center_KD: np.ndarray, mass_K: np.ndarray, bound: float) -> np.ndarray:
    """Centers with pairwise cosines up to the bound: groups above it are replaced by their mean until none remains."""
    while len(center_KD) > 1:
        link = AgglomerativeClustering(None, metric="cosine", linkage="average", distance_threshold=1 - bound)
        group_K = link.fit_predict(center_KD)
        if link.n_clusters_ == len(center_KD):
            break
        member_GK = group_K == np.arange(link.n_clusters_)[:, None]
        center_KD = _unit((member_GK * mass_K) @ center_KD).astype(np.float32)
        mass_K = member_GK @ mass_K
    return center_KD


def _assign(x_TD: np.ndarray, center_KD: np.ndarray, bound: float) -> tuple[np.ndarray, np.ndarray]:
    """The nearest center of each text, -1 below the bound, and the cosine with it."""
    near_T, similarity_T = np.full(len(x_TD), -1), np.full(len(x_TD), -1.0, np.float32)
    for start in range(0, len(x_TD) if len(center_KD) else 0, BLOCK_ROWS):
        part = slice(start, start + BLOCK_ROWS)
        sim_TK = x_TD[part] @ center_KD.T
        near_T[part] = sim_TK.argmax(1)
        similarity_T[part] = sim_TK.max(1)
    near_T[similarity_T < bound] = -1
    return near_T, similarity_T


def _faults(space: _Space, near_T: np.ndarray, similarity_T: np.ndarray, num: int, config: AnchorsConfig) -> list[str]:
    """The reason to reject each cluster; "" for anchors."""
    assigned_T = near_T >= 0
    size_K = np.bincount(near_T[assigned_T], minlength=num)
    cohesion_K = np.bincount(near_T[assigned_T], similarity_T[assigned_T], num) / np.maximum(size_K, 1)
    spans_K = (_by_theory(space, near_T, num) >= config.min_per_theory).sum(1)
    return [
        "too small" if size < config.min_texts
        else "one theory" if spans < 2
        else "too diffuse" if cohesion < config.min_cohesion
        else ""
        for size, spans, cohesion in zip(size_K, spans_K, cohesion_K, strict=True)
    ]  # fmt: skip


def _by_theory(space: _Space, near_T: np.ndarray, num: int) -> np.ndarray:
    """Number of texts (K, H) per cluster and theory."""
    return np.stack([np.bincount(near_T[(near_T >= 0) & has_T], minlength=num) for has_T in space.has_TH.T], 1)


def _medoids(space: _Space, near_T: np.ndarray, similarity_T: np.ndarray, num: int, num_medoids: int) -> list[list[int]]:
    """The texts nearest to each center, alternating between theories so that the common concept is visible."""
    order = np.lexsort((-similarity_T, near_T))
    bounds = np.searchsorted(near_T[order], np.arange(num + 1))
    medoids = []
    for start, end in itertools.pairwise(bounds):
        members = order[start:end]
        queues = [members[space.has_TH[members, h]][:num_medoids].tolist() for h in range(len(THEORIES))]
        queues = sorted((queue for queue in queues if queue), key=lambda queue: -similarity_T[queue[0]])
        turns = itertools.chain.from_iterable(itertools.zip_longest(*queues))
        medoids.append(list(dict.fromkeys(text for text in turns if text is not None))[:num_medoids])
    return medoids


def _phrase(text: str, num_words: int) -> str:
    words = text.split()
    return " ".join(words[:num_words]) + ("…" if len(words) > num_words else "")


def _next_num_clusters(sizes: dict[int, int], target: int, max_clusters: int) -> int:
    """The next number of initial clusters to try; an earlier number ends the search.

    `sizes` maps numbers tried to anchors. Anchors increase with clusters until clusters become too small to qualify.
    """
    tried = sorted(sizes)
    high = next((k for k in tried if sizes[k] >= target), 0)
    low = max((k for k in tried if k < high), default=0)
    if high and not low:
        return max(math.floor(high * max(target / sizes[high], 0.5)), 1)
    if high:
        share = (target - sizes[low]) / (sizes[high] - sizes[low])
        return high if high - low < 2 else min(max(round(low + share * (high - low)), low + 1), high - 1)
    best = max(tried, key=lambda k: (sizes[k], -k))
    if best == tried[-1]:
        return min(math.ceil(best * min(max(target / max(sizes[best], 1), 1.1), 2)), max_clusters)
    if best == tried[0]:
        return max(best // 2, 1)
    at = tried.index(best)
    gap, start = max((tried[i + 1] - tried[i], tried[i]) for i in (at - 1, at))
    return start + gap // 2


def _tables(best: _Clustering, space: _Space, examples: Examples) -> tuple[pa.Table, pa.Table]:
    num, assigned_T = len(best.names), best.near_T >= 0
    size_K = np.bincount(best.near_T[assigned_T], minlength=num)
    counts_KH = _by_theory(space, best.near_T, num)
    text_ids = [[examples.text_ids[i] for i in texts] for texts in best.medoids]
    ids = [digest("anchor", medoids) for medoids in text_ids]
    columns = {
        "anchor_id": ids,
        "name": best.names,
        "named_by": [MEDOID] * num,
        "medoids": text_ids,
        "num_texts": size_K,
        "cohesion": np.bincount(best.near_T[assigned_T], best.similarity_T[assigned_T], num) / size_K,
    } | dict(zip(THEORIES, counts_KH.T, strict=True))
    schema = SCHEMAS["anchors"]
    anchors = pa.table([pa.array(columns[field.name], field.type) for field in schema], schema=schema)
    anchored = {
        "text_id": np.array(examples.text_ids)[assigned_T].tolist(),
        "anchor_id": [ids[k] for k in best.near_T[assigned_T].tolist()],
        "similarity": best.similarity_T[assigned_T].astype(float),
    }
    return anchors, pa.table(anchored, SCHEMAS["anchored"])


def _trim(tables: AnchorTables, target: int) -> AnchorTables:
    """Keep the target number of anchors, those with the most even shares of theories (relative to each theory's total)."""
    surplus = tables.anchors.num_rows - target
    if surplus <= 0:
        return tables
    counts_CH = np.array([tables.anchors[theory].to_pylist() for theory in THEORIES], float).T
    share_CH = counts_CH / np.maximum(counts_CH.sum(0), 1)
    share_CH /= share_CH.sum(1, keepdims=True)
    entropy_C = -(share_CH * np.log(np.maximum(share_CH, 1e-12))).sum(1)
    anchors = tables.anchors.take(np.sort(np.argsort(-entropy_C, kind="stable")[:target]))
    anchored = tables.anchored.filter(pc.is_in(tables.anchored["anchor_id"], anchors["anchor_id"].combine_chunks()))
    return AnchorTables(anchors, anchored, tables.dropped | {"beyond the target": surplus})
