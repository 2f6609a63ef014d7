"""Texts of known rating, and the triples of them that a judge is asked about in an audit."""

import itertools
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from valueflow.errors import InputError
from valueflow.records import digest

# One row a text of known intensity. Any scale will do: of ratings the order counts, and distances in units of the scale.
RATED_TEXTS = pa.schema([(name, pa.string()) for name in ("theory", "value", "text_id", "text")] + [("rating", pa.float64())])

PAIRS = np.array([(1, 0), (2, 1), (2, 0)])  # (higher, lower) among the texts of a triple, lowest rating first
# Texts of a value that are asked about: enough that triples need not share pairs, few enough that each is in several.
MIN_POOL, MAX_POOL = 9, 40


class Triples(NamedTuple):
    """Triples as rows of the sorted known table, lowest rating first, and the value (theory:value) that each belongs to."""

    known: pa.Table
    rating_N: np.ndarray
    values: list[str]
    value_T: np.ndarray
    rows_T3: np.ndarray

    def distances(self) -> np.ndarray:
        """Return the difference of the ratings of each pair, shape (T, 3)."""
        rating_T3 = self.rating_N[self.rows_T3]
        return rating_T3[:, PAIRS[:, 0]] - rating_T3[:, PAIRS[:, 1]]


def triples_of(known: pa.Table, count: int, seed: int) -> Triples:
    """Return up to `count` triples of distinct ratings for each value; a function of seed, texts and ratings.

    Texts are spread evenly over the range of the ratings, triples are wide and narrow, and no pair is in two of them.

    Raises:
        InputError: a column is missing, a rating is not a number, a text is rated twice, a value has fewer than 3 ratings.
    """
    known = _checked(known)
    rating_N = known["rating"].to_numpy()
    owner_N = np.array([":".join(pair) for pair in zip(*(known[c].to_pylist() for c in ("theory", "value")), strict=True)])
    values, value_T, rows = np.unique(owner_N).tolist(), [], []
    for number, value in enumerate(values):
        mine = np.flatnonzero(owner_N == value)
        levels = np.unique(rating_N[mine])
        if len(levels) < 3:
            listed = ", ".join(f"{level:g}" for level in levels)
            raise InputError(
                f"{value}: an audit needs texts of 3 or more distinct ratings, these have {len(levels)} ({listed}); "
                f"rate more texts of {value} or leave it out"
            )
        rng = np.random.default_rng(int(digest(seed, value, known["text_id"].take(mine).to_pylist()), 16))
        pool = mine[_pool(rating_N[mine], count, rng)]
        chosen = pool[_triples(rating_N[pool], count, rng)]
        rows.append(chosen)
        value_T += [number] * len(chosen)
    return Triples(known, rating_N, values, np.array(value_T), np.concatenate(rows))


def _checked(known: pa.Table) -> pa.Table:
    """The known texts by value and id, or what is wrong with them."""
    missing = [name for name in RATED_TEXTS.names if name not in known.column_names]
    if missing:
        raise InputError(f"rated texts lack column(s) {missing}; they have {known.column_names}, needed: {RATED_TEXTS.names}")
    if not known.num_rows:
        raise InputError("there are no known texts: an audit needs rated texts of at least one value")
    known = (
        known.select(RATED_TEXTS.names)
        .cast(RATED_TEXTS)
        .sort_by([(name, "ascending") for name in ("theory", "value", "text_id")])
    )
    bad = known.filter(pc.invert(pc.fill_null(pc.is_finite(known["rating"]), False))).to_pylist()
    if bad:
        value, text, rating = f"{bad[0]['theory']}:{bad[0]['value']}", bad[0]["text_id"], bad[0]["rating"]
        raise InputError(f"{value}: the rating of text {text} is {rating}; give it a number or leave it out")
    keys = zip(*(known[name].to_pylist() for name in ("theory", "value", "text_id")), strict=True)
    twice = [key for key, following in itertools.pairwise(keys) if key == following]
    if twice:
        theory, value, text = twice[0]
        raise InputError(f"{theory}:{value}: text {text} is rated more than once; keep one rating of it, for example the mean")
    return known


def _pool(rating_N: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Texts spread evenly over the range of the ratings; the ends and something between them are always in."""
    size = min(len(rating_N), max(MIN_POOL, min(count, MAX_POOL)))
    left = rng.permutation(len(rating_N))
    chosen = []
    for target in np.linspace(rating_N.min(), rating_N.max(), size):
        nearest = int(np.argmin(np.abs(rating_N[left] - target)))
        chosen.append(left[nearest])
        left = np.delete(left, nearest)
    return np.array(chosen)


def _triples(rating_N: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Triples of distinct ratings, lowest first: wide and narrow ones, all texts equally often, no pair twice."""
    met_NN = rating_N[:, None] == rating_N  # pairs that may not be shown (again)
    used_N = np.zeros(len(rating_N))
    triples: list[list[int]] = []
    for width in rng.permutation((np.arange(count) + 0.5) / count) * np.ptp(rating_N):
        triple = _triple(rating_N, width, met_NN, used_N, rng)
        if triple is None:
            break
        used_N[triple] += 1
        met_NN[np.ix_(triple, triple)] = True
        triples.append(sorted(triple, key=lambda i: rating_N[i]))
    return np.array(triples)


def _triple(
    rating_N: np.ndarray, width: float, met_NN: np.ndarray, used_N: np.ndarray, rng: np.random.Generator
) -> list[int] | None:
    """Two texts about `width` apart and a third near somewhere between them, from those used least; None if all have met."""
    scale = np.ptp(rating_N)
    for first in sorted(rng.permutation(len(rating_N)), key=lambda i: used_N[i]):
        misfit_N = np.abs(np.abs(rating_N - rating_N[first]) - width) / scale + used_N
        for second in (i for i in np.argsort(misfit_N, kind="stable") if not met_NN[first, i]):
            target = rng.uniform(*sorted((rating_N[first], rating_N[second])))
            third_N = np.where(met_NN[first] | met_NN[second], np.inf, np.abs(rating_N - target) / scale + used_N)
            if np.isfinite(third_N.min()):
                return [int(first), int(second), int(np.argmin(third_N))]
    return None
