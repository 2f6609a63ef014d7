"""Rated texts, and the triples of them that an audit consists of."""

import itertools
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from valueflow.errors import InputError
from valueflow.records import ValueId, digest

# One row per rated text. Any scale will do: only the order of ratings counts, and their distances in units of the scale.
RATED_TEXTS = pa.schema([(name, pa.string()) for name in ("theory", "value", "text_id", "text")] + [("rating", pa.float64())])

PAIRS = np.array([(1, 0), (2, 1), (2, 0)])  # (higher, lower) among the texts of a triple, lowest rating first
# Texts per value in an audit: enough that triples need not share pairs, few enough that each text is in several triples.
MIN_POOL, MAX_POOL = 9, 40


class Triples(NamedTuple):
    """Triples as rows of the sorted table of rated texts, lowest rating first, and the value of each triple."""

    rated: pa.Table
    rating_N: np.ndarray
    values: list[ValueId]
    value_T: np.ndarray
    rows_T3: np.ndarray

    def distances(self) -> np.ndarray:
        """Return the difference of the ratings of each pair, shape (T, 3)."""
        rating_T3 = self.rating_N[self.rows_T3]
        return rating_T3[:, PAIRS[:, 0]] - rating_T3[:, PAIRS[:, 1]]


def triples_of(rated: pa.Table, count: int, seed: int) -> Triples:
    """Return up to `count` triples of distinct ratings for each value; a function of seed, texts and ratings.

    Texts are spread evenly over the range of the ratings, triples are wide and narrow, and no pair is in two of them.

    Raises:
        InputError: a column is missing, a rating is not a number, a text is rated twice, a value has fewer than 3 ratings.
    """
    rated = _checked(rated)
    rating_N = rated["rating"].to_numpy()
    value_N = np.array([":".join(pair) for pair in zip(*(rated[c].to_pylist() for c in ("theory", "value")), strict=True)])
    values, value_T, rows = [ValueId(value) for value in np.unique(value_N).tolist()], [], []
    for number, value in enumerate(values):
        candidates = np.flatnonzero(value_N == value)
        levels = np.unique(rating_N[candidates])
        if len(levels) < 3:
            listed = ", ".join(f"{level:g}" for level in levels)
            raise InputError(
                f"{value}: an audit needs texts of 3 or more distinct ratings, but these have {len(levels)} ({listed}); "
                f"rate more texts of {value} or leave it out"
            )
        rng = np.random.default_rng(int(digest(seed, value, rated["text_id"].take(candidates).to_pylist()), 16))
        pool = candidates[_pool(rating_N[candidates], count, rng)]
        triples = pool[_triples(rating_N[pool], count, rng)]
        rows.append(triples)
        value_T += [number] * len(triples)
    return Triples(rated, rating_N, values, np.array(value_T), np.concatenate(rows))


def _checked(rated: pa.Table) -> pa.Table:
    """The rated texts sorted by value and id; InputError if they are not valid."""
    missing = [name for name in RATED_TEXTS.names if name not in rated.column_names]
    if missing:
        raise InputError(f"rated texts lack column(s) {missing}; they have {rated.column_names}, required: {RATED_TEXTS.names}")
    if not rated.num_rows:
        raise InputError("there are no rated texts: an audit needs rated texts of at least one value")
    rated = (
        rated.select(RATED_TEXTS.names)
        .cast(RATED_TEXTS)
        .sort_by([(name, "ascending") for name in ("theory", "value", "text_id")])
    )
    bad = rated.filter(pc.invert(pc.fill_null(pc.is_finite(rated["rating"]), False))).to_pylist()
    if bad:
        value, text, rating = f"{bad[0]['theory']}:{bad[0]['value']}", bad[0]["text_id"], bad[0]["rating"]
        raise InputError(f"{value}: the rating of text {text} is {rating}; give it a number or leave it out")
    keys = zip(*(rated[name].to_pylist() for name in ("theory", "value", "text_id")), strict=True)
    twice = [key for key, following in itertools.pairwise(keys) if key == following]
    if twice:
        theory, value, text = twice[0]
        raise InputError(f"{theory}:{value}: text {text} is rated more than once; keep one rating of it, for example the mean")
    return rated


def _pool(rating_N: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Indices of texts spread evenly over the range of the ratings, with both ends and at least one between them."""
    size = min(len(rating_N), max(MIN_POOL, min(count, MAX_POOL)))
    remaining = rng.permutation(len(rating_N))
    pool = []
    for target in np.linspace(rating_N.min(), rating_N.max(), size):
        nearest = int(np.argmin(np.abs(rating_N[remaining] - target)))
        pool.append(remaining[nearest])
        remaining = np.delete(remaining, nearest)
    return np.array(pool)


def _triples(rating_N: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Triples of distinct ratings, lowest first: wide and narrow ones, every text about equally often, no pair twice."""
    excluded_NN = rating_N[:, None] == rating_N  # pairs that tie or are in a triple
    uses_N = np.zeros(len(rating_N))
    triples: list[list[int]] = []
    for width in rng.permutation((np.arange(count) + 0.5) / count) * np.ptp(rating_N):
        triple = _triple(rating_N, width, excluded_NN, uses_N, rng)
        if triple is None:
            break
        uses_N[triple] += 1
        excluded_NN[np.ix_(triple, triple)] = True
        triples.append(sorted(triple, key=lambda i: rating_N[i]))
    return np.array(triples)


def _triple(
    rating_N: np.ndarray, width: float, excluded_NN: np.ndarray, uses_N: np.ndarray, rng: np.random.Generator
) -> list[int] | None:
    """Two texts about `width` apart and a third one between them, preferably rarely used; None if all pairs are excluded."""
    scale = np.ptp(rating_N)
    for first in sorted(rng.permutation(len(rating_N)), key=lambda i: uses_N[i]):
        misfit_N = np.abs(np.abs(rating_N - rating_N[first]) - width) / scale + uses_N
        for second in (i for i in np.argsort(misfit_N, kind="stable") if not excluded_NN[first, i]):
            target = rng.uniform(*sorted((rating_N[first], rating_N[second])))
            third_N = np.where(excluded_NN[first] | excluded_NN[second], np.inf, np.abs(rating_N - target) / scale + uses_N)
            if np.isfinite(third_N.min()):
                return [int(first), int(second), int(np.argmin(third_N))]
    return None
