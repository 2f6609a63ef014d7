"""Window plans: which texts a judge sees together, in which order, decided before any judge is called."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from valueflow.config import Config
from valueflow.errors import InputError
from valueflow.records import conform, digest

# Differences between any two of these offsets are distinct (Mian-Chowla), so two texts meet at most once in a round.
SIDON = np.array([0, 1, 3, 7, 12, 20, 30, 44, 65, 80])

# Rounds from here on follow from answers; those before are of the first, balanced plan.
ADAPTED = 1000


class WindowsConfig(Config):
    """How the texts of one value are arranged into windows."""

    mode: Literal["balanced", "random", "adaptive", "swiss"] = Field(
        "balanced",
        description="adaptive: rounds of plan, judge, fit, each asking what is expected to tell the most; swiss: rounds in "
        "which texts of like rank meet",
    )
    k: int = Field(2, ge=2, le=10, description="texts in a window")
    m: int = Field(
        8, ge=1, description="windows in which each text appears (on average for random; at most, on average, with rounds)"
    )
    per_round: int = Field(2, ge=1, description="adaptive, swiss: windows of each text in one round")
    target_error: float | None = Field(
        None,
        gt=0,
        description="adaptive, swiss: a value is done when its texts' root mean square standard error is at most this, nats",
    )
    mirrored: bool = Field(False, description="k=2 only: ask each pair in both orders; both count towards m")
    seed: int = 0

    @property
    def in_rounds(self) -> bool:
        """Whether windows are planned round by round, from the answers so far."""
        return self.mode in ("adaptive", "swiss")

    @property
    def start(self) -> "WindowsConfig":
        """The plan of the first round of a build in rounds: every text once at each place, which connects all texts."""
        return self.model_copy(update={"mode": "balanced", "m": self.k * (2 if self.mirrored else 1)})

    @model_validator(mode="after")
    def _enough(self) -> "WindowsConfig":
        if self.in_rounds and self.m < self.start.m:
            raise ValueError(
                f"m ({self.m}) must be at least {self.start.m} in mode {self.mode} with k ({self.k}): its first round"
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
            what = "4 when mirrored" if self.mirrored else f"k ({self.k})"
            raise ValueError(
                f"m ({self.m}) must be a multiple of {what} in mode balanced, so that each text is equally often at each "
                f"place; use {near}"
            )
        return self


class Plan(NamedTuple):
    """Windows as positions into the sorted text ids."""

    positions_WK: np.ndarray  # int, the order shown
    round_W: np.ndarray


def plan(num_texts: int, config: WindowsConfig, rng: np.random.Generator) -> Plan:
    """Return the windows over texts 0..num_texts-1.

    `balanced`: every text is in exactly m windows, m/k times at each place, and the comparison graph is connected
    (each round walks a random cycle through all texts). `random`: num_texts * m / k windows of random texts.

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
    """One round: texts on a random circle, window i holds i plus fixed offsets; each text is once at each place."""
    offsets = SIDON[:k] if num_texts > 2 * SIDON[k - 1] else np.arange(k)
    circle = rng.permutation(num_texts)
    return circle[(np.arange(num_texts)[:, None] + rng.permutation(offsets)) % num_texts]


def plan_table(theory: str, value: str, text_ids: list[str], config: WindowsConfig) -> pa.Table:
    """Return the `windows` rows of one value; a function of the set of texts, the config and nothing else."""
    ids = np.array(sorted(text_ids), dtype=object)
    rng = np.random.default_rng(int(digest(config.seed, theory, value, list(ids)), 16))
    try:
        positions_WK, rounds = plan(len(ids), config, rng)
    except InputError as error:
        raise InputError(f"{theory}:{value}: {error}") from None
    return windows_table(theory, value, ids[positions_WK].tolist(), rounds)


def windows_table(theory: str, value: str, shown: list[list[str]], rounds: np.ndarray) -> pa.Table:
    """Return `windows` rows of text ids in the order shown; the same window in another round is another question."""
    occurrence: dict[str, int] = {}
    window_ids = []
    for window, round_ in zip(shown, rounds.tolist(), strict=True):
        key = "|".join(window) if round_ < ADAPTED else f"{round_}|{'|'.join(window)}"
        occurrence[key] = occurrence.get(key, -1) + 1
        window_ids.append(digest(theory, value, key, occurrence[key]))
    columns = {"window_id": window_ids, "theory": [theory] * len(shown), "value": [value] * len(shown)}
    return conform(pa.table(columns | {"text_ids": pa.array(shown, pa.list_(pa.string())), "round": rounds}), "windows")


def with_texts(windows: pa.Table, texts: Mapping[str, str]) -> pa.Table:
    """Return the windows with a column `texts`: the text of every id, in the order of the positions."""
    rows = [[texts[text_id] for text_id in window] for window in windows["text_ids"].to_pylist()]
    return windows.append_column("texts", pa.array(rows, pa.list_(pa.string())))
