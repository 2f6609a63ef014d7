"""Score a response against a published VIDB: plan windows of anchors, then the posterior of the one unknown theta.

Shapes: U units (a response and a value), K texts in a window, A anchors of a value, G grid points of the posterior.
Pure: whoever judges, the windows and the posterior are the same.
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import Field

from valueflow.config import Config
from valueflow.errors import InputError
from valueflow.evaluation import posterior_kernels
from valueflow.records import LIMIT, conform, digest
from valueflow.vidb.version import Anchors

GRID_POINTS = 1025  # the ends of scale and grid are among every 2nd, 4th, … 64th
RESPONSE = -1  # stands for the response among the indices of anchors
TAILS = (0.025, 0.975)
FARTHEST = 350.0  # nats from 0: the worth of two texts has a finite ratio
# The prior is flat in intensity over the scale and falls off beyond it, so that a response above every anchor can end at 10.
OVERSHOOT = 6.0
TAIL_NATS_PER_POINT = 0.1
# Adaptive anchors lie at posterior quantiles within this central share; measured best for noise from 0 to 3 points.
ADAPTIVE_SPREAD = 0.6


class EvaluatorConfig(Config):
    """How a response meets the anchors."""

    k: int = Field(6, ge=2, le=10, description="texts in a window, the response included")
    m: int = Field(3, ge=1, le=100, description="windows per response and value")
    sampling: Literal["adaptive", "bucket", "random", "fixed"] = "adaptive"
    seed: int = 0
    sharpness: float | None = Field(
        None, gt=0, description="the judge's nats per unit of theta; null: 1 for the judge that built the VIDB, else estimated"
    )


class Window(NamedTuple):
    """One question: the anchors (A index) and the place at which the response is shown among them."""

    anchors: np.ndarray
    place: int


class Score(NamedTuple):
    """Posterior mean and central 95 % interval of the intensity."""

    intensity: float
    low: float
    high: float


class Posterior:
    """Posterior over the theta of U units on a grid that is even in intensity.

    A unit's numbers do not depend on the others, nor on whether its windows come at once or one by one in the same order.
    """

    def __init__(self, anchors: Anchors, num_units: int, sharpness: float) -> None:
        self.anchors = anchors
        points_G = np.linspace(-LIMIT - OVERSHOOT, LIMIT + OVERSHOOT, GRID_POINTS)
        self.theta_G = anchors.calibration.to_theta(points_G)
        # Ratios of exp(sharpness * theta) stay finite; a judge beyond is as good as certain.
        self.sharpness = min(sharpness, FARTHEST / max(np.abs(self.theta_G).max(), np.abs(anchors.theta_A).max()))
        prior_G = -TAIL_NATS_PER_POINT * np.maximum(np.abs(points_G) - LIMIT, 0.0)
        self._points_H4G = posterior_kernels.points(self.sharpness * self.theta_G, prior_G, np.clip(points_G, -LIMIT, LIMIT))
        self._stages = posterior_kernels.WindowTerms(
            np.empty((num_units, 0)), np.empty((num_units, 0)), np.zeros(num_units, np.int64), np.zeros(num_units)
        )

    def update(self, unit: int, window: Window, order: list[int], weight: float | None) -> None:
        """Take in one answered window; `order` holds shown positions, best first, `weight` the probability of that order."""
        shown = np.insert(window.anchors, window.place, RESPONSE)
        self.update_all(np.array([unit]), shown[None], np.array([order]), np.array([np.nan if weight is None else weight]))

    def update_all(self, unit_N: np.ndarray, shown_NK: np.ndarray, order_NK: np.ndarray, weight_N: np.ndarray) -> None:
        """Take in N answered windows.

        Args:
            unit_N: the unit that each is about.
            shown_NK: A index of the texts in the order shown, -1 the response.
            order_NK: shown positions, best first.
            weight_N: the probability of that order, nan for a plain order.
        """
        had = self._stages
        of_window_N = (shown_NK.shape[1] - 1) * np.where(np.isnan(weight_N), 1, 2)
        most = int((had.num_U + np.bincount(unit_N, of_window_N, len(had.num_U)).astype(int)).max())
        more_US = np.empty((len(had.num_U), max(most - had.worth_US.shape[1], 0)))
        worth_US, scale_US = (np.concatenate([of_stage_US, more_US], 1) for of_stage_US in (had.worth_US, had.scale_US))
        self._stages = had._replace(worth_US=worth_US, scale_US=scale_US)
        worth_A = np.exp(self.sharpness * self.anchors.theta_A)
        posterior_kernels.add_windows(unit_N, shown_NK, order_NK, weight_N, worth_A, *self._stages)

    def log_density(self) -> np.ndarray:
        """Logarithm of the density at every point of the grid up to a constant, shape (U, G)."""
        return posterior_kernels.log_posteriors(*self._stages, self._points_H4G)

    def probabilities(self) -> np.ndarray:
        """Posterior weights of the points of the grid, shape (U, G)."""
        log_UG = self.log_density()
        weight_UG = np.exp(log_UG - log_UG.max(1, keepdims=True))
        return weight_UG / weight_UG.sum(1, keepdims=True)

    def quantile(self, levels_UL: np.ndarray) -> np.ndarray:
        """Theta at the given posterior levels of each unit, shape (U, L)."""
        return posterior_kernels.quantiles(*self._stages, self._points_H4G, levels_UL) / self.sharpness

    def scores(self) -> list[Score]:
        """Posterior mean and interval of every unit."""
        return list(map(Score._make, posterior_kernels.summaries(*self._stages, self._points_H4G, *TAILS).tolist()))


class Scoring:
    """Texts (U distinct ids) scored on one value: what to ask in each round, and what the answers so far say.

    The batch job makes one from stored answers for each round, the service keeps one through a request; both ask the same
    windows and come to the same numbers.
    """

    def __init__(self, anchors: Anchors, text_ids: list[str], sharpness: float, config: EvaluatorConfig) -> None:
        self.anchors, self.text_ids, self.config = anchors, text_ids, config
        self.posterior = Posterior(anchors, len(text_ids), sharpness)
        self.used: list[set[int]] = [set() for _ in text_ids]
        self._value = f"{anchors.theory}:{anchors.value}"
        self._index = {anchor: i for i, anchor in enumerate(anchors.text_ids)}

    def window_ids(self, rounds: int) -> dict[str, int]:
        """Return the ids of the windows of the first rounds, and the text (U index) that each is about."""
        return {self._window_id(unit, r): unit for unit in range(len(self.text_ids)) for r in range(rounds)}

    def plan(self, round_: int) -> pa.Table:
        """Return the windows of a round; it depends on the answers taken in so far where sampling is adaptive."""
        units = [f"{self._value}/{i}" for i in self.text_ids]
        # Planning marks anchors as used, but only answers that are taken in count: a round may be planned again.
        used = [set(met) for met in self.used]
        windows = plan_round(self.posterior, units, self.text_ids, used, round_, self.config)
        shown = [self.anchors.text_ids[window.anchors].tolist() for window in windows]
        for ids, text, window in zip(shown, self.text_ids, windows, strict=True):
            ids.insert(window.place, text)
        table = {
            "window_id": [self._window_id(unit, round_) for unit in range(len(shown))],
            "theory": [self.anchors.theory] * len(shown), "value": [self.anchors.value] * len(shown),
            "text_ids": shown, "round": pa.array([round_] * len(shown), pa.int32()),
        }  # fmt: skip
        return conform(pa.table(table), "windows")

    def take(self, answers: Iterable[tuple[int, dict]]) -> None:
        """Take in answered windows (U index, row of `rankings`), in the order of rounds whatever the order given."""
        units, shown, orders, weights = [], [], [], []
        for unit, row in sorted(answers, key=lambda answer: answer[1]["round"]):
            window = [RESPONSE if i == self.text_ids[unit] else self._index[i] for i in row["text_ids"]]
            self.used[unit].update(set(window) - {RESPONSE})
            if row["order"] is not None:
                units.append(unit)
                shown.append(window)
                orders.append(row["order"])
                weights.append(np.nan if row["weight"] is None else row["weight"])
        if units:
            self.posterior.update_all(np.array(units), np.array(shown), np.array(orders), np.array(weights, float))

    def _window_id(self, unit: int, round_: int) -> str:
        return digest("evaluate", self._value, self.text_ids[unit], round_)


def check_anchors(anchors: Anchors, config: EvaluatorConfig) -> None:
    """Refuse an anchor set that is too small for the windows asked for."""
    needed = {"fixed": config.k - 1}.get(config.sampling, (config.k - 1) * config.m) + 1
    if len(anchors.theta_A) < needed:
        raise InputError(
            f"{anchors.theory}:{anchors.value} has {len(anchors.theta_A)} anchors; sampling {config.sampling!r} with "
            f"k={config.k}, m={config.m} needs {needed}. Lower evaluator.k or evaluator.m, or build a larger VIDB"
        )


def plan_round(
    posterior: Posterior, unit_ids: list[str], text_ids: list[str], used: list[set[int]], round_: int, config: EvaluatorConfig
) -> list[Window]:
    """Return the next window of every unit; depends on (seed, unit, round) and, for `adaptive`, on the answers so far.

    The response's place moves through the window over the rounds from a random start, so that a judge's liking of a place
    cancels out. A text is never its own anchor. `used` collects each unit's anchors and is updated.
    """
    anchors, count, k = posterior.anchors, len(posterior.anchors.theta_A), config.k
    streams = [np.random.default_rng(int(digest(config.seed, unit, round_), 16)) for unit in unit_ids]
    starts = [int(digest(config.seed, unit, "place"), 16) for unit in unit_ids]
    jitter_UL = np.stack([(np.arange(k - 1) + rng.random(k - 1)) / (k - 1) for rng in streams])
    if config.sampling == "adaptive":
        levels_UL = 0.5 + ADAPTIVE_SPREAD * (jitter_UL - 0.5)
        wanted_UL = np.searchsorted(anchors.theta_A, posterior.quantile(levels_UL))
    elif config.sampling == "bucket":
        # (k-1) * m strata of equal size over all rounds; round r takes strata r, r+m, r+2m, ...
        strata = np.arange(k - 1) * config.m + round_
        inside_UL = jitter_UL * (k - 1) - np.arange(k - 1)
        wanted_UL = (_finer_at_the_ends((strata + inside_UL) / ((k - 1) * config.m)) * count).astype(int)
    elif config.sampling == "fixed":
        wanted_UL = np.tile(((np.arange(k - 1) + 0.5) / (k - 1) * count).astype(int), (len(unit_ids), 1))
    else:
        wanted_UL = np.stack([rng.choice(count, k - 1, replace=False) for rng in streams])
    windows = []
    for i, rng in enumerate(streams):
        taken = set() if config.sampling == "fixed" else used[i]
        chosen = [_nearest_free(int(w), anchors, taken, text_ids[i]) for w in wanted_UL[i]]
        place = (starts[i] + round_ * max(1, round(k / config.m))) % k
        windows.append(Window(rng.permutation(chosen), place))
    return windows


def _finer_at_the_ends(level: np.ndarray) -> np.ndarray:
    """Quantile levels in [0, 1], denser towards 0 and 1: extreme texts are rare, so equal strata would leave the ends blunt."""
    return (1 - np.cos(np.pi * level)) / 2


def _nearest_free(wanted: int, anchors: Anchors, taken: set[int], text_id: str) -> int:
    """The free anchor nearest to index `wanted`, marked as taken."""
    count = len(anchors.theta_A)
    for distance in range(count + 1):
        for index in (wanted + distance, wanted - distance):
            if 0 <= index < count and index not in taken and anchors.text_ids[index] != text_id:
                taken.add(index)
                return index
    raise InputError(f"{anchors.theory}:{anchors.value} has too few anchors left; lower evaluator.k or evaluator.m")


def estimate_sharpness(anchor_theta: list[np.ndarray], orders: list[list[int]]) -> float:
    """Return the judge's nats per unit of theta by maximum likelihood from the anchors' own order in answered windows.

    Args:
        anchor_theta: theta of the texts of each window in the order shown, nan at the response.
        orders: shown positions best first.
    """
    grid = np.geomspace(0.02, 20.0, 181)
    total = np.zeros(len(grid))
    for theta_K, order in zip(anchor_theta, orders, strict=True):
        x = theta_K[order]
        x = x[~np.isnan(x)]
        scaled = grid[:, None] * (x - x.max())[None, :]
        tails = np.logaddexp.accumulate(scaled[:, ::-1], axis=1)[:, ::-1]
        total += (scaled - tails)[:, :-1].sum(1)
    # A weak log-normal prior around 1 keeps perfectly ordered anchors (infinite sharpness) finite.
    return float(grid[np.argmax(total - 0.5 * (np.log(grid) / 2.0) ** 2)])
