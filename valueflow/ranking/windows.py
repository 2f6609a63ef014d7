"""Window plans: which texts a judge sees together and in which positions, decided before any judge is called.

Shapes: W windows, K texts in a window.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from valueflow.config import Config
from valueflow.errors import InputError
from valueflow.records import conform, digest

# All differences of two of these offsets are distinct (Mian-Chowla), so two texts share at most one window of a round.
SIDON = np.array([0, 1, 3, 7, 12, 20, 30, 44, 65, 80])

# Adaptive rounds are numbered from here; smaller numbers belong to the first, balanced plan.
FIRST_ADAPTIVE_ROUND = 1000


class WindowsConfig(Config):
    """How the texts of one value are arranged into windows."""

    mode: Literal["balanced", "random", "adaptive", "swiss"] = Field(
        "balanced",
        description="balanced: each text in exactly m windows; random; adaptive: rounds of plan, judge, fit that choose the "
        "most informative windows; swiss: rounds of windows with texts of similar theta",
    )
    k: int = Field(2, ge=2, le=10, description="texts in a window")
    m: int = Field(
        8,
        ge=1,
        description="windows with each text: exact for balanced, mean for random, bound of the mean for the others",
    )
    per_round: int = Field(2, ge=1, description="adaptive, swiss: windows with each text in one round")
    target_error: float | None = Field(
        None,
        gt=0,
        description="adaptive, swiss: stop when the root mean square standard error of a value's texts is at most this, nats",
    )
    mirrored: bool = Field(False, description="k=2 only: ask each pair in both presentations; both count towards m")
    seed: int = 0

    @property
    def in_rounds(self) -> bool:
        """Whether windows are planned in adaptive rounds, from the answers so far."""
        return self.mode in ("adaptive", "swiss")

    @property
    def start(self) -> "WindowsConfig":
        """The plan before the first adaptive round: every text once in each position, which connects all texts."""
        return self.model_copy(update={"mode": "balanced", "m": self.k * (2 if self.mirrored else 1)})

    @model_validator(mode="after")
    def _enough(self) -> "WindowsConfig":
        if self.in_rounds and self.m < self.start.m:
            raise ValueError(
                f"m ({self.m}) must be at least {self.start.m} in mode {self.mode} with k ({self.k}), for its first round"
            )
        if not self.in_rounds and self.target_error is not None:
            raise ValueError(f"target_error ({self.target_error:g}) needs mode adaptive or swiss, mode is {self.mode}")
        return self

    @model_validator(mode="after")
    def _divisible(self) -> "WindowsConfig":
        if self.mirrored and self.k != 2:
            raise ValueError(f"mirrored windows need k=2, k is {self.k}")
        unit = 4 if self.mirrored else self.k
        if self.mode == "balanced" and self.m % unit:
            below, above = self.m - self.m % unit, self.m - self.m % unit + unit
            near = f"{below} or {above}" if below else f"{above}"
            divisor = "4 when mirrored" if self.mirrored else f"k ({self.k})"
            raise ValueError(
                f"m ({self.m}) must be a multiple of {divisor} in mode balanced, so that each text is equally often in "
                f"each position; use {near}"
            )
        return self


class Plan(NamedTuple):
    """Windows as indices into the sorted text ids."""

    items_WK: np.ndarray  # int, by position in the window
    round_W: np.ndarray


def plan(num_texts: int, config: WindowsConfig, rng: np.random.Generator) -> Plan:
    """Return the windows over texts 0..num_texts-1.

    `balanced`: every text is in exactly m windows, m/k times in each position, and the comparison graph is connected, because
    each round follows a random cycle through all texts. `random`: num_texts * m / k windows of random texts.

    Raises:
        InputError: fewer texts than k.
    """
    k, m = config.k, config.m
    if num_texts < k:
        raise InputError(f"k ({k}) is larger than the pool ({num_texts} texts); lower windows.k or add texts")
    if config.mode == "random":
        num_windows = max(1, round(num_texts * m / k / (2 if config.mirrored else 1)))
        positions = np.stack([rng.choice(num_texts, k, replace=False) for _ in range(num_windows)])
        rounds = np.zeros(num_windows, np.int32)
    else:
        num_rounds = m // k // (2 if config.mirrored else 1)
        positions = np.concatenate([_cycle(num_texts, k, rng) for _ in range(num_rounds)])
        rounds = np.repeat(np.arange(num_rounds, dtype=np.int32), num_texts)
    if config.mirrored:
        positions = np.concatenate([positions, positions[:, ::-1]])
        rounds = np.concatenate([rounds, rounds])
    return Plan(positions, rounds)


def _cycle(num_texts: int, k: int, rng: np.random.Generator) -> np.ndarray:
    """Return one round: window i has the texts at i + fixed offsets on a random circle; each text is once in each position."""
    offsets = SIDON[:k] if num_texts > 2 * SIDON[k - 1] else np.arange(k)
    circle = rng.permutation(num_texts)
    return circle[(np.arange(num_texts)[:, None] + rng.permutation(offsets)) % num_texts]


def plan_table(theory: str, value: str, text_ids: list[str], config: WindowsConfig) -> pa.Table:
    """Return the `windows` rows of one value; they depend on the set of texts and the config only.

    Raises:
        InputError: fewer texts than k.
    """
    ids = np.array(sorted(text_ids), dtype=object)
    rng = np.random.default_rng(int(digest(config.seed, theory, value, list(ids)), 16))
    try:
        items_WK, rounds = plan(len(ids), config, rng)
    except InputError as error:
        raise InputError(f"{theory}:{value}: {error}") from None
    return windows_table(theory, value, ids[items_WK].tolist(), rounds)


def windows_table(theory: str, value: str, text_ids: list[list[str]], rounds: np.ndarray) -> pa.Table:
    """Return `windows` rows from the text ids of each window by position; a window repeated in another round has another id."""
    occurrence: dict[str, int] = {}
    window_ids = []
    for window, round_ in zip(text_ids, rounds.tolist(), strict=True):
        key = "|".join(window) if round_ < FIRST_ADAPTIVE_ROUND else f"{round_}|{'|'.join(window)}"
        occurrence[key] = occurrence.get(key, -1) + 1
        window_ids.append(digest(theory, value, key, occurrence[key]))
    columns = {"window_id": window_ids, "theory": [theory] * len(text_ids), "value": [value] * len(text_ids)}
    return conform(pa.table(columns | {"text_ids": pa.array(text_ids, pa.list_(pa.string())), "round": rounds}), "windows")


def with_texts(windows: pa.Table, texts: Mapping[str, str]) -> pa.Table:
    """Return the windows with a column `texts`: the text of every id, in the order of the positions."""
    rows = [[texts[text_id] for text_id in window] for window in windows["text_ids"].to_pylist()]
    return windows.append_column("texts", pa.array(rows, pa.list_(pa.string())))
