"""Hashes of 64-bit integers for folds, random signs and shingles.

Saved results and window folds depend on every constant here. All arithmetic is modulo 2^64 on `np.uint64` arrays; numba also
compiles `splitmix64` for scalars. On NumPy scalars an overflow warns, so pass arrays.
"""

import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 divided by the golden ratio, odd: the increment of splitmix64
MULTIPLIER_1 = np.uint64(0xBF58476D1CE4E5B9)
MULTIPLIER_2 = np.uint64(0x94D049BB133111EB)
STREAM = 0xD1B54A32D192ED03
SHIFT_27, SHIFT_29, SHIFT_30, SHIFT_31, SHIFT_40 = (np.uint64(bits) for bits in (27, 29, 30, 31, 40))


def splitmix64(key: np.ndarray) -> np.ndarray:
    """Return one output of splitmix64 for each state (Steele, Lea & Flood 2014): random-looking bits from a counter."""
    key = key + GOLDEN
    key = (key ^ (key >> SHIFT_30)) * MULTIPLIER_1
    key = (key ^ (key >> SHIFT_27)) * MULTIPLIER_2
    return key ^ (key >> SHIFT_31)


def mix64(key: np.ndarray) -> np.ndarray:
    """Return a bijection of 64-bit integers: splitmix64 with the increment after the first multiplication."""
    key = (key ^ (key >> SHIFT_30)) * MULTIPLIER_1 + GOLDEN
    key = (key ^ (key >> SHIFT_27)) * MULTIPLIER_2
    return key ^ (key >> SHIFT_31)


def combine64(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return one 64-bit key of two, not symmetric in them (multiplicative hashing)."""
    return first * GOLDEN ^ second


def stream64(number: int) -> np.uint64:
    """Return a constant to XOR with keys, so that each stream number has its own random draws; 0 changes nothing."""
    return np.uint64(number * STREAM % 2**64)


def fold64(key: np.ndarray, folds: int) -> np.ndarray:
    """Return a fold in 0..folds-1 for each key, from the upper 24 bits of a multiplicative hash."""
    return ((key ^ (key >> SHIFT_29)) * GOLDEN >> SHIFT_40) % folds
