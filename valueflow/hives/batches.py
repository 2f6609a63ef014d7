"""Draw batches: query rows with positives and negatives of the hierarchy, and anchor ids with their texts.

Shapes: N examples, E entries of an index, K keys of an index, B rows of a batch, O other labels of a text, L levels.
"""

import logging
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from valueflow.config import Config
from valueflow.errors import InputError
from valueflow.hives.examples import DIRECTION_SIGNS, Examples, path_ids, prefixes
from valueflow.theories.taxonomy import THEORIES

log = logging.getLogger(__name__)

HIERARCHY, INDIVIDUAL, CONCEPT = range(3)
NUM_DIRECTIONS = len(DIRECTION_SIGNS)


class Batch(NamedTuple):
    """Rows with their labels, all int64. Nothing depends on the order of the rows."""

    row_B: np.ndarray  # into the examples
    objective_B: np.ndarray  # HIERARCHY, INDIVIDUAL or CONCEPT
    text_B: np.ndarray  # into examples.texts
    theory_B: np.ndarray
    prefix_BL: np.ndarray
    direction_B: np.ndarray
    anchor_id_B: np.ndarray  # anchor id for the objectives INDIVIDUAL and CONCEPT, else -1
    # The text's other labels in the same theory: without them texts that share such a label would repel each other.
    other_BOL: np.ndarray  # prefixes, -1 padded
    other_sign_BO: np.ndarray  # directions


class BatchConfig(Config):
    """What each worker draws per step. Stage 1: the defaults; stage 2: individual=16, concept=16."""

    hierarchy: int = Field(32, ge=0, description="rows of the hierarchical objective")
    groups: int = Field(1, ge=1, description="groups that these rows form: a query, its positives, negatives of its theory")
    positives: int = Field(4, ge=1, description="most texts per group with the query's path and direction")
    hard: float = Field(
        0.5,
        ge=0,
        le=1,
        description="share of negatives with a prefix of the query, half of them of the opposite direction",
    )
    individual: int = Field(0, ge=0, description="rows of the objective over individual anchors")
    concept: int = Field(0, ge=0, description="rows of the objective over concept anchors, which span at least two theories")
    texts_per_id: int = Field(2, ge=2, description="texts drawn per individual or concept anchor")

    @model_validator(mode="after")
    def _divisible(self) -> "BatchConfig":
        if self.hierarchy % self.groups:
            raise ValueError(f"hierarchy ({self.hierarchy}) must be a multiple of groups ({self.groups})")
        per_group = self.hierarchy // self.groups
        if self.hierarchy and per_group < self.positives + 2:
            raise ValueError(
                f"hierarchy / groups ({self.hierarchy} / {self.groups}) must be at least positives + 2 ({self.positives} + 2): "
                "the query, its positives, a negative"
            )
        for name in ("individual", "concept"):
            size = getattr(self, name)
            if size % self.texts_per_id or size == self.texts_per_id:
                raise ValueError(
                    f"{name} ({size}) must be 0 or a multiple of texts_per_id ({self.texts_per_id}) with two ids or more: "
                    "the negatives of an anchor are the texts of other anchors"
                )
        if not self.hierarchy + self.individual + self.concept:
            raise ValueError("hierarchy (0), individual (0) and concept (0) leave the batch empty")
        return self


class _Index(NamedTuple):
    """Rows by key: those of key k are row_E[start_K[k] : start_K[k + 1]], sorted by their second key."""

    row_E: np.ndarray
    second_E: np.ndarray
    start_K: np.ndarray

    def bounds(self, key: int) -> tuple[int, int]:
        return int(self.start_K[key]), int(self.start_K[key + 1])


class Sampler:
    """Draws batches, each a function of (seed, step, rank) alone, so that training can resume at any step.

    Raises:
        InputError: no (path, direction) has two texts and enough negatives, too few anchors have enough texts, or concept
            anchors have texts of one theory only (the message lists them).
    """

    def __init__(self, examples: Examples, config: BatchConfig, seed: int) -> None:
        self.examples, self.config, self.seed = examples, config, seed
        self._direction_N = examples.direction_N.astype(np.int64)
        self._siblings_NO = _siblings(examples)
        if config.hierarchy:
            self._index_hierarchy()
        if config.individual:
            self._individuals, self._individual_ids = self._index_anchors("individual", examples.individual_N)
        if config.concept:
            self._index_concepts()

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """Return the batch of one process in one step; processes draw independently."""
        if not 0 <= rank < world:
            raise InputError(f"rank ({rank}) must be from 0 to below world ({world})")
        config, rng = self.config, np.random.default_rng((self.seed, step, rank))
        drawn = [self._group(rng) for _ in range(config.groups if config.hierarchy else 0)]
        if config.individual:
            ids = self._ids(self._individual_ids, config.individual, rng)
            drawn += [self._texts(self._individuals, i, rng) for i in ids]
        if config.concept:
            drawn += [self._bridge(i, rng) for i in self._ids(self._concept_ids, config.concept, rng)]
        row_B = np.concatenate(drawn)
        objective_B = np.repeat([HIERARCHY, INDIVIDUAL, CONCEPT], [config.hierarchy, config.individual, config.concept])
        of = self.examples
        anchor_id_B = np.where(objective_B == INDIVIDUAL, of.individual_N[row_B], of.concept_N[row_B])
        sibling_BO = self._siblings_NO[row_B]
        return Batch(
            row_B,
            objective_B,
            of.text_N[row_B],
            of.theory_N[row_B],
            of.prefix_NL[row_B],
            self._direction_N[row_B],
            np.where(objective_B == HIERARCHY, -1, anchor_id_B),
            np.where(sibling_BO[..., None] >= 0, of.prefix_NL[sibling_BO], -1),
            np.where(sibling_BO >= 0, self._direction_N[sibling_BO], 0),
        )

    def _index_hierarchy(self) -> None:
        examples, config = self.examples, self.config
        text_N, num_prefixes = examples.text_N, len(prefixes().names)
        self._key_N = path_ids(examples.prefix_NL) * NUM_DIRECTIONS + self._direction_N + 1
        self._same = _index(self._key_N, text_N, np.arange(len(text_N)), num_prefixes * NUM_DIRECTIONS)
        row, level = np.nonzero(examples.prefix_NL >= 0)
        prefix_key = examples.prefix_NL[row, level] * NUM_DIRECTIONS + self._direction_N[row] + 1
        self._near = _index(prefix_key, text_N[row], row, num_prefixes * NUM_DIRECTIONS)
        self._theory = _index(examples.theory_N, np.arange(len(text_N)), np.arange(len(text_N)), len(THEORIES))
        by_text = _index(examples.theory_N, text_N, np.arange(len(text_N)), len(THEORIES))
        same_N = np.diff(self._same.start_K)[self._key_N]
        other_N = np.diff(by_text.start_K)[examples.theory_N] - same_N
        positives_N = np.minimum(config.positives, same_N - 1)
        enough = other_N >= config.hierarchy // config.groups - 1 - positives_N
        self._queries = np.flatnonzero((same_N > 1) & enough)
        alone, crowded = int((same_N == 1).sum()), int(((same_N > 1) & ~enough).sum())
        if not len(self._queries):
            raise InputError(
                f"none of {len(text_N)} rows can be a query: {alone} have no other text of the same path and direction, "
                f"{crowded} no {config.hierarchy // config.groups - 1 - config.positives} negatives in their theory "
                f"(hierarchy {config.hierarchy}, groups {config.groups}, positives {config.positives})"
            )
        log.info(
            "sampler: %d of %d rows can be queries; used as negatives only: %d without a positive, %d without enough negatives",
            len(self._queries), len(text_N), alone, crowded,
        )  # fmt: skip

    def _index_anchors(self, objective: str, id_N: np.ndarray) -> tuple[_Index, np.ndarray]:
        """The rows of each anchor id, one per text, and the ids with enough texts."""
        has = np.flatnonzero(id_N >= 0)
        index = _index(id_N[has], self.examples.text_N[has], has, int(id_N.max()) + 1)
        sizes = np.diff(index.start_K)
        ids = np.flatnonzero(sizes >= self.config.texts_per_id)
        needed = getattr(self.config, objective) // self.config.texts_per_id
        if len(ids) < needed:
            raise InputError(
                f"{objective} / texts_per_id ({getattr(self.config, objective)} / {self.config.texts_per_id}) is {needed} "
                f"anchors a batch; {len(ids)} of the {int((sizes > 0).sum())} have {self.config.texts_per_id} texts"
            )
        return index, ids

    def _index_concepts(self) -> None:
        examples = self.examples
        narrow = single_theory_concepts(examples).tolist()
        if narrow:
            names = ", ".join(repr(examples.concepts[i]) for i in narrow)
            raise InputError(
                f"{len(narrow)} concept anchors have texts of one theory only, so they bridge nothing: {names}; give them "
                "texts of another theory or leave them out (concept_N = -1)"
            )
        self._concepts, self._concept_ids = self._index_anchors("concept", examples.concept_N)
        has = np.flatnonzero(examples.concept_N >= 0)
        theory_then_text = examples.theory_N[has] * len(examples.texts) + examples.text_N[has]
        self._bridges = _index(examples.concept_N[has], theory_then_text, has, len(self._concepts.start_K) - 1)

    def _group(self, rng: np.random.Generator) -> np.ndarray:
        """A query, its positives (same path and direction) and its negatives (same theory, another path or direction)."""
        query = int(self._queries[rng.integers(len(self._queries))])
        start, end = self._same.bounds(self._key_N[query])
        same = self._same.second_E[start:end]
        query_position = int(np.searchsorted(same, self.examples.text_N[query]))
        nth = rng.choice(len(same) - 1, min(self.config.positives, len(same) - 1), replace=False, shuffle=False)
        positives = self._same.row_E[start + nth + (nth >= query_position)]
        size = self.config.hierarchy // self.config.groups
        negatives = self._negatives(query, same, size - 1 - len(positives), rng)
        return np.concatenate([[query], positives, negatives])

    def _negatives(self, query: int, same: np.ndarray, num: int, rng: np.random.Generator) -> np.ndarray:
        num_hard = round(self.config.hard * num)
        rows = self._other_texts(self._hard(query, 2 * num_hard, rng), same)[:num_hard]
        start, end = self._theory.bounds(self.examples.theory_N[query])
        draws = 2 * num
        while len(rows) < num:
            more = self._theory.row_E[rng.integers(start, end, draws)]
            rows, draws = self._other_texts(np.concatenate([rows, more]), same), 2 * draws
        return rows[:num]

    def _hard(self, query: int, num: int, rng: np.random.Generator) -> np.ndarray:
        """Rows that share a random prefix with the query, half of them of the opposite direction if the query has one."""
        path = self.examples.prefix_NL[query]
        key = path[rng.integers((path >= 0).sum(), size=num)] * NUM_DIRECTIONS
        sign = int(self.examples.direction_N[query])
        opposite = (rng.random(num) < 0.5) & (sign != 0)
        start = self._near.start_K[np.where(opposite, key + 1 - sign, key)]
        end = self._near.start_K[np.where(opposite, key + 2 - sign, key + NUM_DIRECTIONS)]
        return self._near.row_E[(start + rng.random(num) * (end - start)).astype(int)[end > start]]

    def _other_texts(self, rows: np.ndarray, same: np.ndarray) -> np.ndarray:
        """The first row of each text that is not among the sorted texts `same`."""
        text = self.examples.text_N[rows]
        other = same[np.minimum(np.searchsorted(same, text), len(same) - 1)] != text
        return rows[other][np.sort(np.unique(text[other], return_index=True)[1])]

    def _ids(self, ids: np.ndarray, rows: int, rng: np.random.Generator) -> list[int]:
        return rng.choice(ids, rows // self.config.texts_per_id, replace=False, shuffle=False).tolist()

    def _texts(self, index: _Index, anchor_id: int, rng: np.random.Generator) -> np.ndarray:
        """Rows of an anchor, each of a different text."""
        start, end = index.bounds(anchor_id)
        return index.row_E[start + rng.choice(end - start, self.config.texts_per_id, replace=False, shuffle=False)]

    def _bridge(self, anchor_id: int, rng: np.random.Generator) -> np.ndarray:
        """Rows of a concept anchor, each of a different text, the first two of different theories."""
        start, end = self._bridges.bounds(anchor_id)
        second, text_N = self._bridges.second_E[start:end], self.examples.text_N
        while True:
            first = int(rng.integers(len(second)))
            theory = second[first] // len(self.examples.texts)
            low, high = np.searchsorted(second, np.array([theory, theory + 1]) * len(self.examples.texts))
            other = int(rng.integers(len(second) - (high - low)))
            other += high - low if other >= low else 0
            pair = self._bridges.row_E[[start + first, start + other]]
            if text_N[pair[0]] != text_N[pair[1]]:
                break
        more = self._texts(self._concepts, anchor_id, rng)
        more = more[~np.isin(text_N[more], text_N[pair])]
        return np.concatenate([pair, more[: self.config.texts_per_id - 2]])


def single_theory_concepts(examples: Examples) -> np.ndarray:
    """Return the ids of the concept anchors whose texts are all of one theory."""
    concepts, num_theories = _spans(examples.concept_N, examples.theory_N)
    return concepts[num_theories < 2]


def example_counts(examples: Examples) -> dict[str, Any]:
    """Return counts of texts, rows, levels, directions, distinct labels and anchors, and of those with a single text."""
    names = [name for i, name in enumerate(THEORIES) if (examples.theory_N == i).any()]
    levels = {name: (examples.prefix_NL[examples.theory_N == THEORIES.index(name)] >= 0).sum(0).tolist() for name in names}
    paths = path_ids(examples.prefix_NL) * len(DIRECTION_SIGNS) + examples.direction_N + 1
    counts: dict[str, Any] = {
        "texts": len(examples.texts),
        "rows": len(examples.text_N),
        "levels": {name: [count for count in by_level if count] for name, by_level in levels.items()},
        "directions": {str(sign): int((examples.direction_N == sign).sum()) for sign in DIRECTION_SIGNS},
        "concepts of one theory": [examples.concepts[i] for i in single_theory_concepts(examples).tolist()],
    }
    for name, key_N in (("paths", paths), ("individuals", examples.individual_N), ("concepts", examples.concept_N)):
        num_texts = _spans(key_N, examples.text_N)[1]
        counts |= {name: len(num_texts), f"{name} of one text": int((num_texts == 1).sum())}
    return counts


def _siblings(examples: Examples) -> np.ndarray:
    """The other rows of each row's text in its theory, -1 padded."""
    key_N = examples.text_N.astype(np.int64) * len(THEORIES) + examples.theory_N
    order = np.argsort(key_N, kind="stable")
    _, start, size = np.unique(key_N[order], return_index=True, return_counts=True)
    siblings_NO = np.full((len(key_N), size.max() - 1), -1)
    for shift in range(1, size.max()):
        position = np.arange(len(order)) - np.repeat(start, size)
        following = np.repeat(start, size) + (position + shift) % np.repeat(size, size)
        more = np.repeat(size, size) > shift
        siblings_NO[order[more], shift - 1] = order[following[more]]
    return siblings_NO


def _index(key: np.ndarray, second: np.ndarray, row: np.ndarray, num_keys: int) -> _Index:
    """Index rows by key, one row per (key, second)."""
    order = np.lexsort((second, key))
    key, second = key[order], second[order]
    first = np.ones(len(key), bool)
    first[1:] = (key[1:] != key[:-1]) | (second[1:] != second[:-1])
    return _Index(row[order][first], second[first], np.searchsorted(key[first], np.arange(num_keys + 1)))


def _spans(key_N: np.ndarray, other_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct keys except -1, and the number of distinct others with which each occurs."""
    has = key_N >= 0
    num_others = int(other_N.max()) + 1
    return np.unique(np.unique(key_N[has] * num_others + other_N[has]) // num_others, return_counts=True)
