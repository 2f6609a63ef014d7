"""Window plans: balanced by construction, connected, deterministic, and independent of the order of the texts."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from valueflow.errors import InputError
from valueflow.ranking.windows import SIDON, WindowsConfig, plan, plan_table

BALANCED = st.integers(2, 10).flatmap(
    lambda k: st.tuples(st.integers(k, 200), st.just(k), st.integers(1, 4).map(lambda rounds: rounds * k), st.integers(0, 99))
)


def num_components(positions: np.ndarray, num_texts: int) -> int:
    first, rest = np.repeat(positions[:, 0], positions.shape[1]), positions.ravel()
    graph = coo_array((np.ones(len(rest)), (first, rest)), (num_texts, num_texts))
    return connected_components(graph, directed=False)[0]


def texts(num: int) -> list[str]:
    return [f"text {i}" for i in range(num)]


@given(BALANCED)
def test_balanced_windows_show_every_text_equally_often_in_every_position(size):
    num_texts, k, m, seed = size
    windows = plan(num_texts, WindowsConfig(k=k, m=m), np.random.default_rng(seed))
    assert windows.items_WK.shape == (num_texts * m // k, k)
    for place in range(k):
        assert (np.bincount(windows.items_WK[:, place], minlength=num_texts) == m // k).all()
    ordered = np.sort(windows.items_WK, axis=1)
    assert (np.diff(ordered, axis=1) > 0).all()
    assert num_components(windows.items_WK, num_texts) == 1


@given(st.integers(2, 200), st.integers(1, 5), st.integers(0, 99))
def test_mirrored_windows_have_each_pair_in_both_orders(num_texts, rounds, seed):
    windows = plan(num_texts, WindowsConfig(m=4 * rounds, mirrored=True), np.random.default_rng(seed))
    pairs = Counter(map(tuple, windows.items_WK.tolist()))
    assert pairs == Counter((b, a) for a, b in pairs.elements())
    assert (np.bincount(windows.items_WK.ravel(), minlength=num_texts) == 4 * rounds).all()
    assert num_components(windows.items_WK, num_texts) == 1


@pytest.mark.parametrize("k", range(2, 11))
def test_two_texts_meet_at_most_once_a_round_where_the_pool_allows(k):
    num_texts = 2 * SIDON[k - 1] + 1
    all_windows = plan(num_texts, WindowsConfig(k=k, m=3 * k), np.random.default_rng(0))
    for round_ in range(3):
        windows = all_windows.items_WK[all_windows.round_W == round_]
        pairs = Counter(frozenset((w[a], w[b])) for w in windows.tolist() for a in range(k) for b in range(a))
        assert max(pairs.values()) == 1


@given(st.integers(2, 60), st.integers(2, 5), st.integers(1, 9), st.booleans())
def test_random_windows_have_the_configured_number_and_no_text_twice(num_texts, k, m, mirrored):
    k = 2 if mirrored else min(k, num_texts)
    config = WindowsConfig(mode="random", k=k, m=m, mirrored=mirrored)
    windows = plan(num_texts, config, np.random.default_rng(0)).items_WK
    assert abs(len(windows) - num_texts * m / k) <= (2 if mirrored else 1)
    assert all(len(set(window)) == k for window in windows.tolist())


@given(st.permutations(texts(12)), st.sampled_from(["balanced", "random"]))
def test_the_plan_does_not_depend_on_the_order_of_the_ids(ids, mode):
    config = WindowsConfig(mode=mode, k=3, m=6)
    assert plan_table("svt", "power", ids, config).equals(plan_table("svt", "power", texts(12), config))


@pytest.mark.parametrize(
    "changed",
    [
        ("svt", "face", texts(12), 0),
        ("mft", "power", texts(12), 0),
        ("svt", "power", texts(13), 0),
        ("svt", "power", texts(12), 1),
    ],
)
def test_another_value_pool_or_seed_is_another_plan(changed):
    theory, value, ids, seed = changed
    base = plan_table("svt", "power", texts(12), WindowsConfig())["text_ids"].to_pylist()
    assert plan_table(theory, value, ids, WindowsConfig(seed=seed))["text_ids"].to_pylist() != base


@pytest.mark.parametrize(
    "config", [WindowsConfig(m=40), WindowsConfig(m=40, mirrored=True), WindowsConfig(mode="random", m=99)]
)
def test_window_ids_are_unique_even_where_the_same_texts_meet_again(config):
    ids = [i for v in ("power", "face") for i in plan_table("svt", v, texts(3), config)["window_id"].to_pylist()]
    assert len(set(ids)) == len(ids)


def test_rounds_are_numbered_and_each_shows_every_text():
    rows = plan_table("svt", "power", texts(20), WindowsConfig(k=4, m=12)).to_pylist()
    for round_ in range(3):
        appearances = Counter(i for row in rows if row["round"] == round_ for i in row["text_ids"])
        assert appearances == dict.fromkeys(texts(20), 4)


@pytest.mark.parametrize("mode", ["balanced", "random"])
def test_a_pool_smaller_than_a_window_is_refused(mode):
    with pytest.raises(InputError, match=r"svt:power: k \(3\) is larger than the pool \(2 texts\); lower windows.k or add"):
        plan_table("svt", "power", texts(2), WindowsConfig(mode=mode, k=3, m=3))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 3, "m": 8}, "m (8) must be a multiple of k (3) in mode balanced"),
        ({"k": 3, "m": 8}, "use 6 or 9"),
        ({"k": 5, "m": 3}, "use 5"),
        ({"m": 6, "mirrored": True}, "m (6) must be a multiple of 4 when mirrored"),
        ({"m": 6, "mirrored": True}, "use 4 or 8"),
        ({"k": 3, "m": 12, "mirrored": True}, "mirrored windows need k=2, k is 3"),
        ({"m": 0}, "greater than or equal to 1"),
        ({"k": 1}, "greater than or equal to 2"),
        ({"k": 11, "m": 11}, "less than or equal to 10"),
    ],
)
def test_unbalanced_settings_are_refused_with_valid_ones(settings, message):
    with pytest.raises(ValidationError) as refused:
        WindowsConfig(**settings)
    assert message in str(refused.value)
