"""Concept anchors: clusters of texts that two theories or more share, their names, and how they spread over theories.

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

MEDOID = "medoid"  # what named an anchor, where no judge did
BLOCK_ROWS = 8192  # of a similarity matrix held at a time
MAX_FULL_KMEANS = 20_000  # texts up to which k-means sees all of them in every step


class AnchorsConfig(Config):
    """How many anchors, and what a cluster must be to count as one. Cosines are between centred vectors: chance is 0."""

    target: int = Field(274, ge=1, description="anchors in the end; fewer where the texts do not hold so many")
    duplicate: float = Field(0.8, gt=0, le=1, description="cosine of centres from which two clusters are one")
    min_texts: int = Field(10, ge=2, description="texts that an anchor needs")
    min_per_theory: int = Field(3, ge=1, description="texts that each of two theories needs in an anchor: it shall bridge them")
    min_cohesion: float = Field(0.3, ge=-1, le=1, description="mean cosine of an anchor's texts with its centre")
    min_similarity: float = Field(0.3, ge=-1, le=1, description="cosine below which a text is at no anchor")
    num_medoids: int = Field(5, ge=1, description="texts kept to show, and to name, an anchor")
    name_words: int = Field(8, ge=1, description="of the medoid's text that name an anchor without a judge")
    tries: int = Field(10, ge=1, description="numbers of clusters tried to come near the target")
    max_fitted: int = Field(200_000, ge=1, description="random texts that centres are fitted to; all texts are assigned")
    seed: int = 0


class AnchorTables(NamedTuple):
    """Anchors and the texts at them, as rows of `anchors` and `anchored`, and how many clusters were left out for what."""

    anchors: pa.Table
    anchored: pa.Table
    dropped: dict[str, int]


class _Space(NamedTuple):
    """The texts in the space that is clustered."""

    x_TD: np.ndarray  # unit
    has_TH: np.ndarray  # bool: the text has a label of the theory
    weight_T: np.ndarray  # every theory weighs the same, however many texts it has


class _Try(NamedTuple):
    """The clusters that one number of initial clusters leads to."""

    centre_KD: np.ndarray
    near_T: np.ndarray  # into the clusters, -1 none
    similarity_T: np.ndarray
    medoids: list[list[int]]
    names: list[str]
    dropped: Counter[str]

    @property
    def size(self) -> int:
        """Anchors: clusters whose names fold alike are one."""
        return len({fold(name) for name in self.names})


def find_anchors(z_TD: np.ndarray, examples: Examples, config: AnchorsConfig) -> AnchorTables:
    """Return the concept anchors of labelled texts, one unit vector a text of `examples.texts`; the same for the same seed.

    k-means, clusters with like centres or names merged, those dropped that are small, of one theory or diffuse, over a few
    numbers of initial clusters; the number that comes nearest to the target from above is kept, and of a surplus the anchors
    that are most unevenly spread over theories are left out. Each text goes to the nearest centre that is near enough.

    Raises:
        InputError: there is not one unit vector a text, texts of one theory only, or no cluster is an anchor.
    """
    space = _space(z_TD, examples)
    tried: dict[int, _Try] = {}
    num = min(max(round(1.3 * config.target), 2), len(z_TD))
    while num not in tried and len(tried) < config.tries:
        tried[num] = _try(space, examples, num, config)
        log.info("anchors: %d clusters -> %d anchors (target %d)", num, tried[num].size, config.target)
        if tried[num].size != config.target:
            num = _next({k: one.size for k, one in tried.items()}, config.target, len(z_TD))
    enough = [k for k in tried if tried[k].size >= config.target]
    best = tried[min(enough, key=lambda k: (tried[k].size, k)) if enough else max(tried, key=lambda k: (tried[k].size, -k))]
    if not best.size:
        raise InputError(
            f"none of the clusters of {len(z_TD):,} texts is an anchor: {dict(best.dropped)}; lower anchors.min_texts "
            f"({config.min_texts}), min_per_theory ({config.min_per_theory}), min_cohesion ({config.min_cohesion:g}) or "
            f"min_similarity ({config.min_similarity:g}), or give more texts of two theories"
        )
    found = AnchorTables(*merge_same_names(*_tables(best, space, examples)), dict(best.dropped))
    return _trimmed(found, config.target)


def rename_anchors(anchors: pa.Table, anchored: pa.Table, names: Mapping[str, str], by: str) -> tuple[pa.Table, pa.Table]:
    """Return both tables with the names given for some anchor ids; anchors whose names now fold alike are one."""
    rows = anchors.to_pylist()
    for row in rows:
        if row["anchor_id"] in names:
            row |= {"name": names[row["anchor_id"]], "named_by": by}
    return merge_same_names(pa.Table.from_pylist(rows, SCHEMAS["anchors"]), anchored)


def merge_same_names(anchors: pa.Table, anchored: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Return both tables with anchors whose names fold alike as one, under the id of the largest; largest anchors first."""
    alike: dict[str, list[dict]] = {}
    for row in sorted(anchors.to_pylist(), key=lambda row: (-row["num_texts"], row["anchor_id"])):
        alike.setdefault(fold(row["name"]), []).append(row)
    kept: list[dict] = []
    heirs: dict[str, str] = {}
    for rows in alike.values():
        sums = {name: sum(row[name] for row in rows) for name in ("num_texts", *THEORIES)}
        cohesion = sum(row["cohesion"] * row["num_texts"] for row in rows) / sums["num_texts"]
        kept.append(rows[0] | sums | {"cohesion": cohesion})
        heirs |= {row["anchor_id"]: rows[0]["anchor_id"] for row in rows}
    kept.sort(key=lambda row: (-row["num_texts"], row["anchor_id"]))
    ids = pa.array([heirs[i] for i in anchored["anchor_id"].to_pylist()], pa.string())
    return pa.Table.from_pylist(kept, SCHEMAS["anchors"]), anchored.set_column(1, "anchor_id", ids)


def with_concept_anchors(examples: Examples, anchors: pa.Table, anchored: pa.Table) -> Examples:
    """Return the examples with the anchors as their concepts, in the order of the table `anchors`."""
    of_A = pc.index_in(anchored["anchor_id"], anchors["anchor_id"].combine_chunks())
    at_T = pc.index_in(pa.array(examples.text_ids, pa.string()), anchored["text_id"].combine_chunks())
    concept_T = of_A.take(at_T).fill_null(-1).to_numpy().astype(np.int64)
    return examples._replace(concept_N=concept_T[examples.text_N], concepts=anchors["name"].to_pylist())


class Balance(NamedTuple):
    """How anchors and texts spread: a row for each theory and level, and how many anchors have texts of how many theories."""

    levels: list[dict]
    spans: dict[str, int]


def balance(anchors: pa.Table, anchored: pa.Table, examples: Examples) -> Balance:
    """Return for each theory and level: nodes that texts have there and those at an anchor, texts and those at an anchor,
    anchors with such texts, and how evenly the texts at anchors spread over the nodes (1: equally, 0: all at one).
    """
    of = with_concept_anchors(examples, anchors, anchored)
    levels = []
    for h, theory in enumerate(THEORIES):
        for level in range(of.prefix_NL.shape[1]):
            here = (of.theory_N == h) & (of.prefix_NL[:, level] >= 0)
            if not here.any():
                continue
            at = here & (of.concept_N >= 0)
            nodes, bound = np.unique(of.prefix_NL[here, level]), np.unique(of.prefix_NL[at, level])
            pairs = np.unique(np.stack([of.prefix_NL[at, level], of.text_N[at]]), axis=1)
            row = {"theory": theory, "level": level + 1, "nodes": len(nodes), "nodes_anchored": len(bound)}
            row |= {"texts": len(np.unique(of.text_N[here])), "anchored": len(np.unique(of.text_N[at]))}
            row |= {"anchors": len(np.unique(of.concept_N[at])), "evenness": _evenness(pairs[0], len(nodes))}
            levels.append(row)
    counts_CH = np.array([anchors[theory].to_pylist() for theory in THEORIES]).T.reshape(-1, len(THEORIES))
    spans = Counter((counts_CH > 0).sum(1).tolist())
    return Balance(levels, {str(num): spans[num] for num in sorted(spans)})


def _evenness(code_N: np.ndarray, num: int) -> float:
    """Entropy of codes over the largest that `num` codes can have; 1 where there is one code only."""
    share = np.unique(code_N, return_counts=True)[1] / max(len(code_N), 1)
    return float(-(share * np.log(share)).sum() / np.log(num)) if num > 1 else 1.0


def _space(z_TD: np.ndarray, examples: Examples) -> _Space:
    if len(z_TD) != len(examples.texts):
        raise InputError(f"there are {len(z_TD):,} vectors for {len(examples.texts):,} texts; give one a text")
    if not np.allclose(np.einsum("td,td->t", z_TD, z_TD), 1, atol=2e-3):
        raise InputError("vectors must have length 1, as Encoder.embed returns them")
    has_TH = np.zeros((len(z_TD), len(THEORIES)), bool)
    has_TH[examples.text_N, examples.theory_N] = True
    there = has_TH.any(0)
    if there.sum() < 2:
        raise InputError(
            f"all labels are of theory {THEORIES[int(there.argmax())]!r}; anchors bridge theories, so give labels of two"
        )
    share_TH = (has_TH[:, there] / has_TH[:, there].sum(0)).astype(np.float32)
    # Vectors of most encoders share a direction that says nothing; without it, a cosine of 0 is chance for every encoder.
    x_TD = z_TD - (share_TH.T @ z_TD).mean(0)
    x_TD /= np.sqrt(np.maximum(np.einsum("td,td->t", x_TD, x_TD), 1e-18))[:, None]
    return _Space(x_TD, has_TH, share_TH.sum(1) / share_TH.sum(1).mean())


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-9)


def _try(space: _Space, examples: Examples, num: int, config: AnchorsConfig) -> _Try:
    centre_KD = _distinct(*_clusters(space, num, config), config.duplicate)
    dropped = Counter({"like another": num - len(centre_KD)})
    while True:
        near_T, similarity_T = _assign(space.x_TD, centre_KD, config.min_similarity)
        faults = _faults(space, near_T, similarity_T, len(centre_KD), config)
        dropped.update(fault for fault in faults if fault)
        if not any(faults):
            break
        centre_KD = centre_KD[[not fault for fault in faults]]
    medoids = _medoids(space, near_T, similarity_T, len(centre_KD), config.num_medoids)
    names = [_phrase(examples.texts[texts[0]], config.name_words) for texts in medoids]
    return _Try(centre_KD, near_T, similarity_T, medoids, names, +dropped)


def _clusters(space: _Space, num: int, config: AnchorsConfig) -> tuple[np.ndarray, np.ndarray]:
    """Centres of k-means, and the weight of the texts at each."""
    fitted = np.sort(np.random.default_rng(config.seed).permutation(len(space.x_TD))[: config.max_fitted])
    x_FD, weight_F = space.x_TD[fitted], space.weight_T[fitted]
    if len(fitted) <= MAX_FULL_KMEANS:
        kmeans = KMeans(num, n_init=3, random_state=config.seed)
    else:
        kmeans = MiniBatchKMeans(num, n_init=1, random_state=config.seed, batch_size=4096)
    # Threads would add up sums in an order of their own.
    with threadpool_limits(1, user_api="openmp"):
        kmeans.fit(x_FD, sample_weight=weight_F)
    mass_K = np.bincount(kmeans.labels_, weight_F, num)
    return _unit(kmeans.cluster_centers_[mass_K > 0]).astype(np.float32), mass_K[mass_K > 0]


def _distinct(centre_KD: np.ndarray, mass_K: np.ndarray, bound: float) -> np.ndarray:
    """Centres of which no two have a cosine above the bound: those that do are replaced by their mean, until none is left."""
    while len(centre_KD) > 1:
        link = AgglomerativeClustering(None, metric="cosine", linkage="average", distance_threshold=1 - bound)
        group_K = link.fit_predict(centre_KD)
        if link.n_clusters_ == len(centre_KD):
            break
        member_GK = group_K == np.arange(link.n_clusters_)[:, None]
        centre_KD = _unit((member_GK * mass_K) @ centre_KD).astype(np.float32)
        mass_K = member_GK @ mass_K
    return centre_KD


def _assign(x_TD: np.ndarray, centre_KD: np.ndarray, bound: float) -> tuple[np.ndarray, np.ndarray]:
    """The nearest centre of each text, -1 where none is near enough, and the cosine with it."""
    near_T, similarity_T = np.full(len(x_TD), -1), np.full(len(x_TD), -1.0, np.float32)
    for start in range(0, len(x_TD) if len(centre_KD) else 0, BLOCK_ROWS):
        part = slice(start, start + BLOCK_ROWS)
        sim_TK = x_TD[part] @ centre_KD.T
        near_T[part] = sim_TK.argmax(1)
        similarity_T[part] = sim_TK.max(1)
    near_T[similarity_T < bound] = -1
    return near_T, similarity_T


def _faults(space: _Space, near_T: np.ndarray, similarity_T: np.ndarray, num: int, config: AnchorsConfig) -> list[str]:
    """Why each cluster is no anchor; "" where it is one."""
    at = near_T >= 0
    size_K = np.bincount(near_T[at], minlength=num)
    cohesion_K = np.bincount(near_T[at], similarity_T[at], num) / np.maximum(size_K, 1)
    spans_K = (_by_theory(space, near_T, num) >= config.min_per_theory).sum(1)
    return [
        "too small" if size < config.min_texts
        else "one theory" if spans < 2
        else "too diffuse" if cohesion < config.min_cohesion
        else ""
        for size, spans, cohesion in zip(size_K, spans_K, cohesion_K, strict=True)
    ]  # fmt: skip


def _by_theory(space: _Space, near_T: np.ndarray, num: int) -> np.ndarray:
    """Texts of each theory at each cluster."""
    return np.stack([np.bincount(near_T[(near_T >= 0) & has_T], minlength=num) for has_T in space.has_TH.T], 1)


def _medoids(space: _Space, near_T: np.ndarray, similarity_T: np.ndarray, num: int, most: int) -> list[list[int]]:
    """The texts nearest to each centre, the theories taking turns, so that what bridges them is seen."""
    order = np.lexsort((-similarity_T, near_T))
    bounds = np.searchsorted(near_T[order], np.arange(num + 1))
    medoids = []
    for start, end in itertools.pairwise(bounds):
        members = order[start:end]
        queues = [members[space.has_TH[members, h]][:most].tolist() for h in range(len(THEORIES))]
        queues = sorted((queue for queue in queues if queue), key=lambda queue: -similarity_T[queue[0]])
        turns = itertools.chain.from_iterable(itertools.zip_longest(*queues))
        medoids.append(list(dict.fromkeys(text for text in turns if text is not None))[:most])
    return medoids


def _phrase(text: str, num_words: int) -> str:
    words = text.split()
    return " ".join(words[:num_words]) + ("…" if len(words) > num_words else "")


def _next(sizes: dict[int, int], target: int, most: int) -> int:
    """The number of initial clusters to try next; one that was tried where there is nothing better to try.

    Anchors grow in number with the clusters, up to where the clusters become too small to be anchors.
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
        return min(math.ceil(best * min(max(target / max(sizes[best], 1), 1.1), 2)), most)
    if best == tried[0]:
        return max(best // 2, 1)
    at = tried.index(best)
    gap, start = max((tried[i + 1] - tried[i], tried[i]) for i in (at - 1, at))
    return start + gap // 2


def _tables(best: _Try, space: _Space, examples: Examples) -> tuple[pa.Table, pa.Table]:
    num, at = len(best.names), best.near_T >= 0
    size_K = np.bincount(best.near_T[at], minlength=num)
    counts_KH = _by_theory(space, best.near_T, num)
    text_ids = [[examples.text_ids[i] for i in texts] for texts in best.medoids]
    ids = [digest("anchor", medoids) for medoids in text_ids]
    columns = {
        "anchor_id": ids,
        "name": best.names,
        "named_by": [MEDOID] * num,
        "medoids": text_ids,
        "num_texts": size_K,
        "cohesion": np.bincount(best.near_T[at], best.similarity_T[at], num) / size_K,
    } | dict(zip(THEORIES, counts_KH.T, strict=True))
    schema = SCHEMAS["anchors"]
    anchors = pa.table([pa.array(columns[field.name], field.type) for field in schema], schema=schema)
    anchored = {
        "text_id": np.array(examples.text_ids)[at].tolist(),
        "anchor_id": [ids[k] for k in best.near_T[at].tolist()],
        "similarity": best.similarity_T[at].astype(float),
    }
    return anchors, pa.table(anchored, SCHEMAS["anchored"])


def _trimmed(found: AnchorTables, target: int) -> AnchorTables:
    """The target number of anchors: those that theories share most evenly, each theory by its share of texts at an anchor."""
    surplus = found.anchors.num_rows - target
    if surplus <= 0:
        return found
    counts_CH = np.array([found.anchors[theory].to_pylist() for theory in THEORIES], float).T
    share_CH = counts_CH / np.maximum(counts_CH.sum(0), 1)
    share_CH /= share_CH.sum(1, keepdims=True)
    entropy_C = -(share_CH * np.log(np.maximum(share_CH, 1e-12))).sum(1)
    kept = found.anchors.take(np.sort(np.argsort(-entropy_C, kind="stable")[:target]))
    left = found.anchored.filter(pc.is_in(found.anchored["anchor_id"], kept["anchor_id"].combine_chunks()))
    return AnchorTables(kept, left, found.dropped | {"beyond the target": surplus})
