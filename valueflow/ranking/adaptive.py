"""Adaptive windows: ask next what tells the most, given all answers so far.

A pair (i, j) is expected to tell E[p (1 - p)] Var(theta_i - theta_j): the information of the answer where the posterior says
the pair lies, times what is still unknown about it (the first-order decrease of log det of the posterior covariance). Pairs of
near
neighbours have the largest p (1 - p); pairs far apart in the comparison graph the largest variance, which keeps the chain of
neighbours from drifting.

Shapes: N texts, K texts in a window, S columns of the factor of the covariance (`plackett_luce.Fit.root_NS`), E pairs.
"""

import numpy as np

# Each text is considered with so many nearest neighbours on either side, and up to REACH in all, ever farther away.
NEAR, REACH = 20, 40


def gains(theta_N: np.ndarray, root_NS: np.ndarray, i_E: np.ndarray, j_E: np.ndarray) -> np.ndarray:
    """Return how much each pair's answer is expected to tell, nats."""
    variance_E = np.square(root_NS[i_E] - root_NS[j_E]).sum(1)
    # E of the logistic under a normal difference: MacKay (1992), within 0.01.
    p_E = 1 / (1 + np.exp(-np.abs(theta_N[i_E] - theta_N[j_E]) / np.sqrt(1 + np.pi * variance_E / 8)))
    return p_E * (1 - p_E) * variance_E


def next_windows(
    theta_N: np.ndarray, root_NS: np.ndarray, shown_NK: np.ndarray, per_text: int, rng: np.random.Generator
) -> np.ndarray:
    """Return a round of windows (W, K) in the order shown: each text in about `per_text` of them, no pair twice.

    Windows are begun with the most telling pairs and filled with the texts that tell most together with the first; texts are
    put where they were seldom before, so that places stay balanced.

    Args:
        theta_N: posterior means.
        root_NS: factor of their covariance.
        shown_NK: how often each text was shown at each place so far.
        per_text: windows of the round each text may be in.
        rng: breaks ties, so that a round does not look at one region only.
    """
    k, n = shown_NK.shape[1], len(theta_N)
    by_theta = np.argsort(theta_N, kind="stable")
    rank_N = np.empty(n, int)
    rank_N[by_theta] = np.arange(n)
    i_E, j_E = _candidates(by_theta)
    gain_E = gains(theta_N, root_NS, i_E, j_E) * rng.uniform(0.7, 1.0, len(i_E))
    best_first = np.argsort(-gain_E, kind="stable")
    left, shown, windows, seen = [per_text] * n, shown_NK.copy(), [], set()
    for i, j in zip(i_E[best_first].tolist(), j_E[best_first].tolist(), strict=True):
        if not (left[i] and left[j]):
            continue
        window = [i, j]
        while len(window) < k:
            near = by_theta[max(rank_N[i] - NEAR, 0) : rank_N[i] + NEAR + 1]
            open_ = np.array([t for t in near.tolist() if left[t] and t not in window], int)
            if not len(open_):
                break
            told = sum(gains(theta_N, root_NS, np.full(len(open_), t), open_) for t in window)
            window.append(int(open_[np.argmax(told)]))
        if len(window) < k or frozenset(window) in seen:
            continue
        seen.add(frozenset(window))
        for text in window:
            left[text] -= 1
        windows.append(_placed(window, shown))
    return np.array(windows, dtype=np.int64).reshape(-1, k)


def swiss_windows(theta_N: np.ndarray, shown_NK: np.ndarray, per_text: int, rng: np.random.Generator) -> np.ndarray:
    """Return a round of windows (W, K) of texts of like rank, as in a Swiss-system tournament: the baseline for `next_windows`.

    Each text is in about `per_text` windows; the grouping of neighbours starts elsewhere in each of these passes, and theta is
    jittered by half a nat, so that the same texts do not meet again and again.
    """
    k, n, shown = shown_NK.shape[1], len(theta_N), shown_NK.copy()
    windows = []
    for _ in range(per_text):
        by_theta = np.argsort(theta_N + 0.5 * rng.normal(size=n))
        first = rng.integers(k)
        windows += [_placed(by_theta[at : at + k].tolist(), shown) for at in range(first, n - k + 1, k)]
    return np.array(windows, dtype=np.int64).reshape(-1, k)


def _candidates(by_theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of texts near each other in order of theta: all of the nearest, then ever sparser."""
    n = len(by_theta)
    far = np.geomspace(NEAR, max(NEAR, n // 3), REACH - NEAR).astype(int)
    offsets = [o for o in np.unique(np.concatenate([np.arange(1, NEAR + 1), far])) if o < n]
    return np.concatenate([by_theta[:-o] for o in offsets]), np.concatenate([by_theta[o:] for o in offsets])


def _placed(window: list[int], shown_NK: np.ndarray) -> list[int]:
    """The window's texts in the order shown, each where it was seldom before; counts are updated."""
    free, placed = list(range(len(window))), [0] * len(window)
    # Those with the most uneven past choose first.
    for text in sorted(window, key=lambda t: (shown_NK[t].min() - shown_NK[t].max(), t)):
        place = min(free, key=lambda p: shown_NK[text, p])
        free.remove(place)
        placed[place] = text
        shown_NK[text, place] += 1
    return placed
