"""Score responses against a published VIDB: plan windows of anchors, then compute the posterior of each response's theta.

No input or output: windows and posterior depend on the arguments only, whichever judge answers.

Shapes: U units (a response and a value), N windows, K texts in a window, A anchors of a value, L levels, G points of the grid
(docs/design/posterior-grid.md).
"""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from valueflow import defaults
from valueflow.config import Config
from valueflow.errors import InputError
from valueflow.evaluation import posterior_kernels
from valueflow.judging.kind import Relevance
from valueflow.ranking.content_error import ContentError, TotalScore
from valueflow.ranking.relevance import bounded
from valueflow.records import LIMIT, conform, digest
from valueflow.vidb.version import Anchors

GRID_POINTS = 1025  # the ends of the scale and of the grid are among every 2nd, 4th, … 64th point
RESPONSE = -1  # index of the response among the indices of anchors
TAILS = (0.025, 0.975)
MAX_NATS = 350.0  # bound of |sharpness * theta|, so that the ratio of two worths is finite
# The prior is flat over the scale and falls off beyond it, so that a response above every anchor can reach intensity 10.
OVERSHOOT = 6.0
TAIL_NATS_PER_POINT = 0.1
# Adaptive anchors lie at posterior quantiles within this central share: the best one measured for noise of 0 to 3 points.
ADAPTIVE_SPREAD = 0.6


class EvaluatorConfig(Config):
    """How a response is compared with the anchors."""

    k: int = Field(defaults.K, ge=2, le=10, description="texts in a window, the response included")
    m: int = Field(defaults.M, ge=1, le=100, description="windows per response and value")
    sampling: Literal["adaptive", "bucket", "random", "fixed"] = defaults.SAMPLING
    seed: int = defaults.SEED
    sharpness: float | None = Field(
        None, gt=0, description="the judge's nats per unit of theta; null: 1 for the judge that built the VIDB, else estimated"
    )
    neutral_share: float = Field(
        0.0, ge=0, le=1, description="share of the anchors shown that are neutral texts, in place of others",
        exclude_if=lambda share: not share,  # 0 is in no id, so that ids from before the setting hold
    )  # fmt: skip

    @model_validator(mode="after")
    def _anchors_of_rounds_differ(self) -> "EvaluatorConfig":
        if self.neutral_share and self.sampling == "fixed":
            raise ValueError(
                f"neutral_share ({self.neutral_share:g}) draws other neutral texts in every round, and sampling "
                f"({self.sampling!r}) shows the same anchors in all: use another sampling, or neutral_share=0"
            )
        return self

    def neutral_anchors(self, round_: int) -> int:
        """Return how many of the anchors of a window are neutral texts; over the rounds it is the share."""
        total = self.neutral_share * (self.k - 1)
        return int(total * (round_ + 1) + 1e-9) - int(total * round_ + 1e-9)


class Window(NamedTuple):
    """One question: indices of its anchors (K - 1,) and the position of the response among them."""

    anchors: np.ndarray
    position: int


class Score(NamedTuple):
    """Posterior mean and central 95 % interval of the judge's intensity."""

    intensity: float
    low: float
    high: float


class Total(NamedTuple):
    """People's intensity with its 95 % interval, the judge's own numbers, and how far the text concerns the value."""

    intensity: float
    low: float
    high: float
    judge_intensity: float
    judge_low: float
    judge_high: float
    relevance: float | None = None


class Posterior:
    """Posterior of the theta of U units on a grid that is even in intensity.

    A unit's numbers do not depend on other units, nor on whether its windows are added together or one by one.
    """

    def __init__(self, anchors: Anchors, num_units: int, sharpness: float) -> None:
        self.anchors = anchors
        points_G = np.linspace(-LIMIT - OVERSHOOT, LIMIT + OVERSHOOT, GRID_POINTS)
        self.theta_G = anchors.calibration.to_theta(points_G)
        # Keeps ratios of exp(sharpness * theta) finite; a sharper judge would be practically certain anyway.
        self.sharpness = min(sharpness, MAX_NATS / max(np.abs(self.theta_G).max(), np.abs(anchors.theta_A).max()))
        prior_G = -TAIL_NATS_PER_POINT * np.maximum(np.abs(points_G) - LIMIT, 0.0)
        self._points_H4G = posterior_kernels.points(self.sharpness * self.theta_G, prior_G, np.clip(points_G, -LIMIT, LIMIT))
        self._terms = posterior_kernels.WindowTerms(
            np.empty((num_units, 0)), np.empty((num_units, 0)), np.zeros(num_units, np.int64), np.zeros(num_units)
        )

    def update(self, unit: int, window: Window, order: list[int], weight: float | None) -> None:
        """Add one answered window; `order` has positions, best first, `weight` is the order probability or None."""
        texts = np.insert(window.anchors, window.position, RESPONSE)
        self.update_all(np.array([unit]), texts[None], np.array([order]), np.array([np.nan if weight is None else weight]))

    def update_all(self, unit_N: np.ndarray, window_NK: np.ndarray, order_NK: np.ndarray, weight_N: np.ndarray) -> None:
        """Add N answered windows.

        Args:
            unit_N: the unit of each window.
            window_NK: anchor index of each text by position, -1 for the response.
            order_NK: positions, best first.
            weight_N: order probability, nan for a plain order.
        """
        old = self._terms
        stages_N = (window_NK.shape[1] - 1) * np.where(np.isnan(weight_N), 1, 2)
        max_stages = int((old.num_U + np.bincount(unit_N, stages_N, len(old.num_U)).astype(int)).max())
        more_US = np.empty((len(old.num_U), max(max_stages - old.worth_US.shape[1], 0)))
        worth_US, scale_US = (np.concatenate([term_US, more_US], 1) for term_US in (old.worth_US, old.scale_US))
        self._terms = old._replace(worth_US=worth_US, scale_US=scale_US)
        worth_A = np.exp(self.sharpness * self.anchors.theta_A)
        posterior_kernels.add_windows(unit_N, window_NK, order_NK, weight_N, worth_A, *self._terms)

    def log_density(self) -> np.ndarray:
        """Return the log-density at every point of the grid, up to a constant (U, G)."""
        return posterior_kernels.log_posteriors(*self._terms, self._points_H4G)

    def probabilities(self) -> np.ndarray:
        """Return the posterior probability of every point of the grid (U, G)."""
        log_UG = self.log_density()
        weight_UG = np.exp(log_UG - log_UG.max(1, keepdims=True))
        return weight_UG / weight_UG.sum(1, keepdims=True)

    def quantile(self, levels_UL: np.ndarray) -> np.ndarray:
        """Return the posterior quantiles of theta at the levels of each unit (U, L)."""
        return posterior_kernels.quantiles(*self._terms, self._points_H4G, levels_UL) / self.sharpness

    def scores(self) -> list[Score]:
        """Return the posterior mean and interval of every unit."""
        return list(map(Score._make, posterior_kernels.summaries(*self._terms, self._points_H4G, *TAILS).tolist()))


class AnsweredWindows(NamedTuple):
    """N answered windows, the arguments of `Posterior.update_all`."""

    unit_N: np.ndarray
    window_NK: np.ndarray
    order_NK: np.ndarray
    weight_N: np.ndarray


class Scoring:
    """Scoring of texts (U distinct ids) on one value: the windows of each round and the posterior from the answers so far.

    The batch job rebuilds it from stored answers for each round; the service keeps one for a request. Both get the same windows
    and the same numbers.
    """

    def __init__(
        self, anchors: Anchors, text_ids: list[str], sharpness: float, config: EvaluatorConfig, relevance: Relevance = "none"
    ) -> None:
        self.anchors, self.text_ids, self.config, self.relevance = anchors, text_ids, config, relevance
        self.relevance_U: list[float | None] = [None] * len(text_ids)
        self.posterior = Posterior(anchors, len(text_ids), sharpness)
        self.used: list[set[int]] = [set() for _ in text_ids]
        self._value = f"{anchors.theory}:{anchors.value}"
        self._index = {anchor: i for i, anchor in enumerate(anchors.text_ids)}

    def window_ids(self, rounds: int) -> dict[str, int]:
        """Return window id -> text (U index) for the first `rounds` rounds."""
        units = range(len(self.text_ids))
        about = {self._relevance_id(unit): unit for unit in units} if self.relevance != "none" and rounds else {}
        return about | {self._window_id(unit, r): unit for unit in units for r in range(rounds)}

    def plan(self, round_: int) -> pa.Table:
        """Return the `windows` rows of a round; with adaptive sampling they depend on the answers added so far.

        Where the judge says relevance, a window of each text alone follows those of the first round.
        """
        units = [f"{self._value}/{i}" for i in self.text_ids]
        # On copies, since a round may be planned again: only added answers mark their anchors as used.
        used = [set(anchors) for anchors in self.used]
        windows = plan_round(self.posterior, units, self.text_ids, used, round_, self.config)
        window_texts = [self.anchors.text_ids[window.anchors].tolist() for window in windows]
        for shown, text, window in zip(window_texts, self.text_ids, windows, strict=True):
            shown.insert(window.position, text)
        ids = [self._window_id(unit, round_) for unit in range(len(windows))]
        if self.relevance != "none" and round_ == 0:
            window_texts += [[text] for text in self.text_ids]
            ids += map(self._relevance_id, range(len(windows)))
        table = {
            "window_id": ids, "theory": [self.anchors.theory] * len(ids), "value": [self.anchors.value] * len(ids),
            "text_ids": window_texts, "round": pa.array([round_] * len(ids), pa.int32()),
        }  # fmt: skip
        return conform(pa.table(table), "windows")

    def take(self, answers: Iterable[tuple[int, dict]]) -> None:
        """Add answered windows (U index, row of `rankings`), sorted by round."""
        windows = self.parse(answers)
        if len(windows.unit_N):
            self.posterior.update_all(*windows)

    def parse(self, answers: Iterable[tuple[int, dict]]) -> "AnsweredWindows":
        """Return answered windows as arrays; their anchors count as used, and answers about relevance are noted."""
        units, texts, orders, weights = [], [], [], []
        for unit, row in sorted(answers, key=lambda answer: answer[1]["round"]):
            if is_alone(row):
                self.relevance_U[unit] = row["relevance"]
                continue
            window = [RESPONSE if i == self.text_ids[unit] else self._index[i] for i in row["text_ids"]]
            self.used[unit].update(set(window) - {RESPONSE})
            if row["order"] is not None:
                units.append(unit)
                texts.append(window)
                orders.append(row["order"])
                weights.append(np.nan if row["weight"] is None else row["weight"])
        return AnsweredWindows(np.array(units), np.array(texts), np.array(orders), np.array(weights, float))

    def scores(self) -> list[Total]:
        """Return people's intensity of every text given the answers so far."""
        own_3U = np.array(self.posterior.scores()).reshape(-1, 3).T
        num_anchors_U = np.array([len(anchors) for anchors in self.used])
        return totals(self.anchors.content_error, own_3U, num_anchors_U, self.relevance_U, self.relevance)

    def _relevance_id(self, unit: int) -> str:
        return digest("relevance", self._value, self.text_ids[unit])

    def _window_id(self, unit: int, round_: int) -> str:
        return digest("evaluate", self._value, self.text_ids[unit], round_)


def is_alone(row: dict) -> bool:
    """Return whether a window has one text: its answer is a relevance."""
    return len(row["text_ids"]) == 1


def totals(
    content_error: ContentError, own_3T: np.ndarray, num_anchors_T: int | np.ndarray = 0,
    relevance_T: Sequence[float | None] | None = None, relevance: Relevance = "none",
) -> list[Total]:  # fmt: skip
    """Return people's intensity of texts.

    Args:
        content_error: of the judge.
        own_3T: the judge's intensity, low and high.
        num_anchors_T: that each text was compared with.
        relevance_T: of each text; None where it is not known.
        relevance: whether the judge's intensities know it.
    """
    known_T = np.array(relevance_T or [], float)
    intensity_T, low_T, high_T = own_3T
    total = content_error.total(intensity_T, low_T, high_T, num_anchors_T, known_T if relevance == "apart" else None)
    if relevance == "in orders":
        total = TotalScore(*bounded(*total, known_T, content_error.agreement))
    columns = [*np.concatenate([np.array(total), own_3T]).tolist(), relevance_T or [None] * own_3T.shape[1]]
    return list(map(Total._make, zip(*columns, strict=True)))


def check_anchors(anchors: Anchors, config: EvaluatorConfig) -> None:
    """Check that a value has enough anchors for the windows.

    Raises:
        InputError: fewer anchors, or neutral texts among them, than the windows of one response show.
    """
    shown = sum(map(config.neutral_anchors, range(config.m)))
    if shown and len(anchors.neutral_ids) < shown + 1:
        raise InputError(
            f"{anchors.theory}:{anchors.value} has {len(anchors.neutral_ids)} neutral texts; neutral_share "
            f"{config.neutral_share:g} with k={config.k}, m={config.m} needs {shown + 1}. Lower evaluator.neutral_share, or "
            "build the VIDB with a larger candidates.num_neutral"
        )
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

    From a random start, the response's position moves through the window over the rounds, so that position bias cancels. A text
    is never its own anchor. `used` collects each unit's anchors and is updated.

    Raises:
        InputError: too few anchors are unused.
    """
    anchors, count, k = posterior.anchors, len(posterior.anchors.theta_A), config.k
    streams = [np.random.default_rng(int(digest(config.seed, unit, round_), 16)) for unit in unit_ids]
    starts = [int(digest(config.seed, unit, "place"), 16) for unit in unit_ids]
    jitter_UL = np.stack([(np.arange(k - 1) + rng.random(k - 1)) / (k - 1) for rng in streams])
    if config.sampling == "adaptive":
        levels_UL = 0.5 + ADAPTIVE_SPREAD * (jitter_UL - 0.5)
        target_UL = np.searchsorted(anchors.theta_A, posterior.quantile(levels_UL))
    elif config.sampling == "bucket":
        # (k-1) * m strata of equal size over all rounds; round r takes strata r, r+m, r+2m, ...
        strata = np.arange(k - 1) * config.m + round_
        offset_UL = jitter_UL * (k - 1) - np.arange(k - 1)
        target_UL = (_finer_at_the_ends((strata + offset_UL) / ((k - 1) * config.m)) * count).astype(int)
    elif config.sampling == "fixed":
        target_UL = np.tile(((np.arange(k - 1) + 0.5) / (k - 1) * count).astype(int), (len(unit_ids), 1))
    else:
        target_UL = np.stack([rng.choice(count, k - 1, replace=False) for rng in streams])
    num_neutral = config.neutral_anchors(round_)
    neutral = np.flatnonzero([i in anchors.neutral_ids for i in anchors.text_ids]) if num_neutral else np.empty(0, int)
    windows = []
    for i, rng in enumerate(streams):
        unavailable = set() if config.sampling == "fixed" else used[i]
        chosen = _take_neutral(neutral, num_neutral, anchors, unavailable, text_ids[i], rng)
        target_L = rng.permutation(target_UL[i])[len(chosen) :] if chosen else target_UL[i]
        chosen += [_take_nearest(int(t), anchors, unavailable, text_ids[i]) for t in target_L]
        position = (starts[i] + round_ * max(1, round(k / config.m))) % k
        windows.append(Window(rng.permutation(chosen), position))
    return windows


def _finer_at_the_ends(level: np.ndarray) -> np.ndarray:
    """Return levels in [0, 1], denser towards 0 and 1: texts are rare there, so equal strata would resolve the ends badly."""
    return (1 - np.cos(np.pi * level)) / 2


def _take_neutral(
    neutral: np.ndarray, count: int, anchors: Anchors, unavailable: set[int], text_id: str, rng: np.random.Generator
) -> list[int]:
    """Return the indices of neutral texts drawn among those that are available, and mark them as unavailable."""
    if not count:
        return []
    free = [int(i) for i in neutral if i not in unavailable and anchors.text_ids[i] != text_id]
    if len(free) < count:
        raise InputError(f"{anchors.theory}:{anchors.value} has too few unused neutral texts; lower evaluator.neutral_share")
    chosen = [free[i] for i in rng.choice(len(free), count, replace=False)]
    unavailable.update(chosen)
    return chosen


def _take_nearest(target: int, anchors: Anchors, unavailable: set[int], text_id: str) -> int:
    """Return the available anchor nearest to index `target` and mark it as unavailable."""
    count = len(anchors.theta_A)
    for distance in range(count + 1):
        for index in (target + distance, target - distance):
            if 0 <= index < count and index not in unavailable and anchors.text_ids[index] != text_id:
                unavailable.add(index)
                return index
    raise InputError(f"{anchors.theory}:{anchors.value} has too few unused anchors; lower evaluator.k or evaluator.m")


def estimate_sharpness(anchor_theta: list[np.ndarray], orders: list[list[int]]) -> float:
    """Return the judge's nats per unit of theta by maximum likelihood from the anchors' own order in answered windows.

    Args:
        anchor_theta: theta of each window's texts by position, nan for the response.
        orders: positions, best first.
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
