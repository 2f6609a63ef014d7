"""Which texts people rate: a part at random, for calibration; the rest where a rating tells most."""

from collections.abc import Callable, Iterable, Iterator
from typing import Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from valueflow.config import Config
from valueflow.people.pool import Pool
from valueflow.people.tasks import RANDOM, Basis, Place, Task
from valueflow.records import ValueId, digest
from valueflow.store.layout import NAME

NEIGHBOURS = 4  # a chosen pair is of texts at most so many places apart


class RatingTasksConfig(Config):
    """Which texts people rate, and for whom the files are."""

    root: str = Field(description="folder or URL of all tables")
    name: str = Field(pattern=f"^{NAME.pattern}$", description="of the folder of the files, under root/people")
    vidb: str = Field("current", description="the version whose texts are rated: its id, or current")
    evaluations: list[str] = Field(
        [], description="build ids: responses of the first are rated instead; further ones by other judges show disagreement"
    )
    values: list[str] = Field(["all"], description="values and theories by any spelling, or ['all']")
    texts: int = Field(150, ge=0, description="rating tasks, over all values")
    pairs: int = Field(0, ge=0, description="pairwise tasks, over all values")
    random_share: float = Field(0.5, ge=0, le=1, description="share of the tasks of a value that are drawn at random")
    raters: list[str] = Field([], description="names for a file each, in an order of its own; none: one file without a rater")
    seed: int = 0

    @field_validator("raters")
    @classmethod
    def _plain(cls, raters: list[str]) -> list[str]:
        for rater in raters:
            if not NAME.fullmatch(rater):
                raise ValueError(f"rater {rater!r} is part of a file's name: letters, digits, '_', '-' and '.' are allowed")
        if len({rater.lower() for rater in raters}) < len(raters):
            raise ValueError(f"raters names somebody twice: {', '.join(raters)}")
        return raters

    @model_validator(mode="after")
    def _any(self) -> Self:
        if not self.texts + self.pairs:
            raise ValueError("texts and pairs are both 0; one of them must be larger")
        if self.evaluations and self.vidb != "current":
            raise ValueError(f"give either vidb ({self.vidb!r}) or evaluations ({', '.join(self.evaluations)}), not both")
        return self


def rating_tasks(values: list[ValueId], pool_of: Callable[[ValueId], Pool], config: RatingTasksConfig) -> list[Task]:
    """Return the tasks of every value, as many of each as possible; one pool is in memory at a time.

    Values with few texts give theirs all, and others more.
    """
    sizes = {value: len(pool_of(value).text_ids) for value in values}
    texts = shares(sizes, config.texts, config.seed)
    pairs = shares({value: size * (size - 1) // 2 for value, size in sizes.items()}, config.pairs, config.seed)
    tasks: list[Task] = []
    for value in values:
        if texts[value] or pairs[value]:
            pool = pool_of(value)
            rng = np.random.default_rng([config.seed, int(digest(value), 16)])
            tasks += _ratings(value, pool, texts[value], config.random_share, rng)
            tasks += _pairs(value, pool, pairs[value], config.random_share, rng)
    return tasks


def shares(sizes: dict[ValueId, int], total: int, seed: int) -> dict[ValueId, int]:
    """Return how many of `total` each value gets: equally many, none more than its size; the remainder goes by lot."""
    result = dict.fromkeys(sizes, 0)
    lot = [list(sizes)[i] for i in np.random.default_rng(seed).permutation(len(sizes))]
    while total > 0 and (unfilled := [value for value in lot if result[value] < sizes[value]]):
        step = max(1, total // len(unfilled))
        for value in unfilled:
            more = min(step, sizes[value] - result[value], total)
            result[value], total = result[value] + more, total - more
    return result


def _ratings(value: ValueId, pool: Pool, count: int, random_share: float, rng: np.random.Generator) -> Iterator[Task]:
    order_N = rng.permutation(len(pool.text_ids))
    num_random = round(random_share * count)
    intensity_N, low_N, high_N = pool.place_N3.T
    chosen: list[tuple[int, Basis, str]] = [(int(n), RANDOM, "random") for n in order_N[:num_random]]
    chosen += _best(
        order_N[num_random:],
        {
            "judges disagree": np.where(pool.disagreement_N > 0, pool.disagreement_N, np.nan),
            "wide interval": high_N - low_N,
            "extreme intensity": np.abs(intensity_N),
        },
        count - num_random,
    )
    for n, basis, why in chosen:
        yield Task("rating", value, pool.text_ids[n], pool.texts[n], basis, why, Place(*map(float, pool.place_N3[n])))


def _best(order: Iterable[int], criteria: dict[str, np.ndarray], count: int) -> list[tuple[int, Basis, str]]:
    """The first texts by each criterion in turn; ties, and then texts without any criterion, in the given order."""
    rows = list(map(int, order))
    queues = {}
    for why, measure_N in criteria.items():
        measured = [n for n in rows if np.isfinite(measure_N[n])]
        queues[why] = iter([measured[i] for i in np.argsort(-measure_N[measured], kind="stable")] if measured else [])
    queues["nothing known"] = iter([n for n in rows if not any(np.isfinite(x[n]) for x in criteria.values())])
    taken: dict[int, str] = {}
    *known, last = queues
    while len(taken) < count:
        before = len(taken)
        for why in known:
            n = next((n for n in queues[why] if n not in taken), None)
            if n is not None and len(taken) < count:
                taken[n] = why
        if len(taken) == before:
            taken |= dict.fromkeys(list(queues[last])[: count - before], last)
            break
    return [(n, "chosen", why) for n, why in taken.items()]


def _pairs(value: ValueId, pool: Pool, count: int, random_share: float, rng: np.random.Generator) -> Iterator[Task]:
    """Pairs of texts: some at random, the rest of neighbours whose order is least sure."""
    size, num_random = len(pool.text_ids), round(random_share * count)
    pairs: dict[tuple[int, int], tuple[Basis, str]] = {}
    while len(pairs) < num_random:
        first, second = sorted(rng.choice(size, 2, replace=False).tolist())
        pairs.setdefault((first, second), (RANDOM, "random"))
    for pair in _close_pairs(pool, rng):
        if len(pairs) >= count:
            break
        pairs.setdefault(pair, ("chosen", "close intensities"))
    while len(pairs) < count:
        first, second = sorted(rng.choice(size, 2, replace=False).tolist())
        pairs.setdefault((first, second), ("chosen", "any pair"))
    for (first, second), (basis, why) in pairs.items():
        a, b = (first, second) if rng.random() < 0.5 else (second, first)
        yield Task(
            "pair", value, pool.text_ids[a], pool.texts[a], basis, why, Place(*map(float, pool.place_N3[a])), pool.text_ids[b],
            pool.texts[b], float(pool.place_N3[b][0]),
        )  # fmt: skip


def _close_pairs(pool: Pool, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Pairs of near intensities, the least sure first; each text once before any is there twice."""
    intensity_N, low_N, high_N = pool.place_N3.T
    error_N = np.nan_to_num(high_N - low_N, nan=1.0) + 1e-3
    lot_N = rng.permutation(len(intensity_N))
    sorted_N = lot_N[np.argsort(intensity_N[lot_N], kind="stable")]
    near = [(int(a), int(b)) for step in range(1, NEIGHBOURS + 1) for a, b in zip(sorted_N, sorted_N[step:], strict=False)]
    near.sort(key=lambda p: abs(intensity_N[p[0]] - intensity_N[p[1]]) / (error_N[p[0]] + error_N[p[1]]))
    used: set[int] = set()
    once = []
    for pair in near:
        if used.isdisjoint(pair):
            used.update(pair)
            once.append(pair)
    first = set(once)
    return [(min(pair), max(pair)) for pair in (*once, *(pair for pair in near if pair not in first))]
