"""Hashes: the reference value of splitmix64, bijections, and the values on which saved folds and draws depend."""

import numpy as np
import pytest

from valueflow.numerics.hashing import combine64, fold64, mix64, splitmix64, stream64
from valueflow.ranking import kernels

KEYS = np.array([0, 1, 2, 2**63, 2**64 - 1, 123456789], np.uint64)


def test_splitmix64_has_the_published_first_output():
    """Seed 1234567 of the reference implementation (Vigna's splitmix64.c)."""
    assert splitmix64(np.array([1234567], np.uint64)).tolist() == [6457827717110365317]


def test_the_compiled_splitmix64_is_the_same_function():
    assert [int(kernels.splitmix64(key)) for key in KEYS] == splitmix64(KEYS).tolist()


def test_the_hashes_that_saved_results_depend_on():
    assert mix64(KEYS).tolist() == [
        5100133766535989624, 10185970320053629582, 5471067039820978089, 18142464649659238926, 16449298754637310620,
        5923283563260760610,
    ]  # fmt: skip
    assert combine64(KEYS, KEYS[::-1]).tolist() == [
        123456789, 7046029254386353130, 13578057601791621162, 9223372036854775810, 7046029254386353130, 13722978258477121209,
    ]  # fmt: skip
    assert int(stream64(3)) == 8439708973090260745
    assert stream64(0) == 0
    assert fold64(KEYS, 5).tolist() == [0, 4, 3, 1, 3, 1]


@pytest.mark.parametrize("mix", [mix64, splitmix64])
def test_mixing_keeps_keys_distinct_and_spreads_their_bits(mix):
    hashes = mix(np.arange(10_000, dtype=np.uint64))
    assert len(np.unique(hashes)) == len(hashes)
    bits = np.unpackbits(hashes.view(np.uint8)).reshape(len(hashes), 64)
    np.testing.assert_allclose(bits.mean(0), 0.5, atol=0.03)


def test_folds_are_about_equal():
    counts = np.bincount(fold64(np.random.default_rng(0).integers(2**64, size=10_000, dtype=np.uint64), 5).astype(int))
    np.testing.assert_allclose(counts, 2000, rtol=0.1)
