"""Which examples meet in a batch: anchors with their positives and negatives, and anchor ids with their texts.

Shapes: N examples, E entries of an index, K keys of an index, B rows of a batch, O other places of a text, L levels.
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
    """Rows with everything the losses need to know of them; int64. Nothing depends on the order of the rows."""

    row_B: np.ndarray  # into the examples
    objective_B: np.ndarray  # HIERARCHY, INDIVIDUAL or CONCEPT
    text_B: np.ndarray  # into examples.texts
    theory_B: np.ndarray
    prefix_BL: np.ndarray
    direction_B: np.ndarray
    label_B: np.ndarray  # anchor id of the objectives INDIVIDUAL and CONCEPT; -1 else
    # The text's other places in the same theory: without them a text that shares one with another would be driven away from it.
    other_BOL: np.ndarray  # prefixes, -1 where the text has no so many
    other_sign_BO: np.ndarray  # directions


class BatchConfig(Config):
    """What one rank draws in one step. Stage 1: the defaults; stage 2: individual=16, concept=16."""

    hierarchy: int = Field(32, ge=0, description="rows of the hierarchical objective")
    groups: int = Field(1, ge=1, description="groups these rows form: an anchor, its positives, negatives of its theory")
    positives: int = Field(
        4, ge=1, description="texts of a group with the anchor's path and direction, where there are so many"
    )
    hard: float = Field(
        0.5, ge=0, le=1, description="share of the negatives that have a prefix of the anchor, half of them the other direction"
    )
    individual: int = Field(0, ge=0, description="rows of the objective over individual anchors")
    concept: int = Field(0, ge=0, description="rows of the objective over concept anchors, each of two theories or more")
    texts_per_id: int = Field(2, ge=2, description="texts drawn of an individual or concept anchor")

    @model_validator(mode="after")
    def _whole(self) -> "BatchConfig":
        if self.hierarchy % self.groups:
            raise ValueError(f"hierarchy ({self.hierarchy}) must be a multiple of groups ({self.groups})")
        per_group = self.hierarchy // self.groups
        if self.hierarchy and per_group < self.positives + 2:
            raise ValueError(
                f"hierarchy / groups ({self.hierarchy} / {self.groups}) must be at least positives + 2 ({self.positives} + 2): "
                "the anchor, its positives, a negative"
            )
        for name in ("individual", "concept"):
            size = getattr(self, name)
            if size % self.texts_per_id or size == self.texts_per_id:
                raise ValueError(
                    f"{name} ({size}) must be 0 or a multiple of texts_per_id ({self.texts_per_id}) with two ids or more: "
                    "an id has no negatives but the texts of other ids"
                )
        if not self.hierarchy + self.individual + self.concept:
            raise ValueError("hierarchy (0), individual (0) and concept (0) leave the batch empty")
        return self


class _Index(NamedTuple):
    """Rows by key: those of key k are row_E[start_K[k] : start_K[k + 1]], in the order of `then`."""

    row_E: np.ndarray
    then_E: np.ndarray
    start_K: np.ndarray

    def bounds(self, key: int) -> tuple[int, int]:
        return int(self.start_K[key]), int(self.start_K[key + 1])


class Sampler:
    """Draws batches; which ones is a function of (seed, step, rank) alone, so training can go on from any step.

    Raises:
        InputError: no path and direction has two texts and negatives, too few anchor ids have enough texts, or a concept
            anchor has texts of one theory only (all are named).
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
        """Return the batch of one rank in one step; ranks draw independently of each other."""
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
        label_B = np.where(objective_B == INDIVIDUAL, of.individual_N[row_B], of.concept_N[row_B])
        sibling_BO = self._siblings_NO[row_B]
        return Batch(
            row_B,
            objective_B,
            of.text_N[row_B],
            of.theory_N[row_B],
            of.prefix_NL[row_B],
            self._direction_N[row_B],
            np.where(objective_B == HIERARCHY, -1, label_B),
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
        self._anchors = np.flatnonzero((same_N > 1) & enough)
        alone, crowded = int((same_N == 1).sum()), int(((same_N > 1) & ~enough).sum())
        if not len(self._anchors):
            raise InputError(
                f"none of {len(text_N)} rows can be an anchor: {alone} have no other text of the same path and direction, "
                f"{crowded} no {config.hierarchy // config.groups - 1 - config.positives} negatives in their theory "
                f"(hierarchy {config.hierarchy}, groups {config.groups}, positives {config.positives})"
            )
        log.info(
            "sampler: %d of %d rows can be anchors; negatives only: %d without a positive, %d without enough negatives",
            len(self._anchors), len(text_N), alone, crowded,
        )  # fmt: skip

    def _index_anchors(self, objective: str, id_N: np.ndarray) -> tuple[_Index, np.ndarray]:
        """The rows of each anchor id, one a text, and the ids with enough texts."""
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
            shown = ", ".join(repr(examples.concepts[i]) for i in narrow)
            raise InputError(
                f"{len(narrow)} concept anchors have texts of one theory only, so they bridge nothing: {shown}; give them "
                "texts of another theory or leave them out (concept_N = -1)"
            )
        self._concepts, self._concept_ids = self._index_anchors("concept", examples.concept_N)
        has = np.flatnonzero(examples.concept_N >= 0)
        theory_then_text = examples.theory_N[has] * len(examples.texts) + examples.text_N[has]
        self._bridges = _index(examples.concept_N[has], theory_then_text, has, len(self._concepts.start_K) - 1)

    def _group(self, rng: np.random.Generator) -> np.ndarray:
        """An anchor, texts of the same path and direction, texts of the same theory without that path and direction."""
        anchor = int(self._anchors[rng.integers(len(self._anchors))])
        start, end = self._same.bounds(self._key_N[anchor])
        same = self._same.then_E[start:end]
        own = int(np.searchsorted(same, self.examples.text_N[anchor]))
        nth = rng.choice(len(same) - 1, min(self.config.positives, len(same) - 1), replace=False, shuffle=False)
        positives = self._same.row_E[start + nth + (nth >= own)]
        size = self.config.hierarchy // self.config.groups
        negatives = self._negatives(anchor, same, size - 1 - len(positives), rng)
        return np.concatenate([[anchor], positives, negatives])

    def _negatives(self, anchor: int, same: np.ndarray, num: int, rng: np.random.Generator) -> np.ndarray:
        num_hard = round(self.config.hard * num)
        rows = self._unlike(self._hard(anchor, 2 * num_hard, rng), same)[:num_hard]
        start, end = self._theory.bounds(self.examples.theory_N[anchor])
        draws = 2 * num
        while len(rows) < num:
            more = self._theory.row_E[rng.integers(start, end, draws)]
            rows, draws = self._unlike(np.concatenate([rows, more]), same), 2 * draws
        return rows[:num]

    def _hard(self, anchor: int, num: int, rng: np.random.Generator) -> np.ndarray:
        """Rows with one of the anchor's prefixes, coarse and fine alike, half of the opposite direction where it has one."""
        path = self.examples.prefix_NL[anchor]
        key = path[rng.integers((path >= 0).sum(), size=num)] * NUM_DIRECTIONS
        sign = int(self.examples.direction_N[anchor])
        opposite = (rng.random(num) < 0.5) & (sign != 0)
        start = self._near.start_K[np.where(opposite, key + 1 - sign, key)]
        end = self._near.start_K[np.where(opposite, key + 2 - sign, key + NUM_DIRECTIONS)]
        return self._near.row_E[(start + rng.random(num) * (end - start)).astype(int)[end > start]]

    def _unlike(self, rows: np.ndarray, same: np.ndarray) -> np.ndarray:
        """The rows whose text is not among the sorted texts `same`, the first of each text."""
        text = self.examples.text_N[rows]
        other = same[np.minimum(np.searchsorted(same, text), len(same) - 1)] != text
        return rows[other][np.sort(np.unique(text[other], return_index=True)[1])]

    def _ids(self, ids: np.ndarray, rows: int, rng: np.random.Generator) -> list[int]:
        return rng.choice(ids, rows // self.config.texts_per_id, replace=False, shuffle=False).tolist()

    def _texts(self, index: _Index, anchor_id: int, rng: np.random.Generator) -> np.ndarray:
        """Rows of an anchor id, each of another text."""
        start, end = index.bounds(anchor_id)
        return index.row_E[start + rng.choice(end - start, self.config.texts_per_id, replace=False, shuffle=False)]

    def _bridge(self, anchor_id: int, rng: np.random.Generator) -> np.ndarray:
        """Rows of a concept anchor, each of another text, the first two of different theories."""
        start, end = self._bridges.bounds(anchor_id)
        then, text_N = self._bridges.then_E[start:end], self.examples.text_N
        while True:
            one = int(rng.integers(len(then)))
            theory = then[one] // len(self.examples.texts)
            low, high = np.searchsorted(then, np.array([theory, theory + 1]) * len(self.examples.texts))
            two = int(rng.integers(len(then) - (high - low)))
            two += high - low if two >= low else 0
            pair = self._bridges.row_E[[start + one, start + two]]
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
    """Return what there is to learn from: rows, groups of equal path and direction or anchor, and those without a positive."""
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
    """Of each row the other rows of its text in its theory, -1 where there are no more."""
    key_N = examples.text_N.astype(np.int64) * len(THEORIES) + examples.theory_N
    order = np.argsort(key_N, kind="stable")
    _, start, size = np.unique(key_N[order], return_index=True, return_counts=True)
    siblings_NO = np.full((len(key_N), size.max() - 1), -1)
    for turn in range(1, size.max()):
        at = np.arange(len(order)) - np.repeat(start, size)
        next_at = np.repeat(start, size) + (at + turn) % np.repeat(size, size)
        more = np.repeat(size, size) > turn
        siblings_NO[order[more], turn - 1] = order[next_at[more]]
    return siblings_NO


def _index(key: np.ndarray, then: np.ndarray, row: np.ndarray, num_keys: int) -> _Index:
    """Index rows by key, one row for each (key, then)."""
    order = np.lexsort((then, key))
    key, then = key[order], then[order]
    first = np.ones(len(key), bool)
    first[1:] = (key[1:] != key[:-1]) | (then[1:] != then[:-1])
    return _Index(row[order][first], then[first], np.searchsorted(key[first], np.arange(num_keys + 1)))


def _spans(key_N: np.ndarray, other_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct keys but -1, and with how many distinct others each occurs."""
    has = key_N >= 0
    num_others = int(other_N.max()) + 1
    return np.unique(np.unique(key_N[has] * num_others + other_N[has]) // num_others, return_counts=True)
