"""Adaptive rounds: choose the windows whose answers are expected to be most informative, given all answers so far.

The expected gain of a pair (i, j) is E[p (1 - p)] Var(theta_i - theta_j): the information of the answer, averaged over the
posterior of the pair, times the remaining uncertainty (the first-order decrease of log det of the posterior covariance). Close
neighbours have the largest p (1 - p). Pairs far apart in the comparison graph have the largest variance, so comparing them
keeps the chain of neighbours from drifting.

Shapes: N texts, K texts in a window, S columns of the factor of the covariance (`plackett_luce.Fit.root_NS`), E pairs.
"""

import numpy as np

# Each text is paired with its NEAR nearest neighbours on either side, and with others at growing distances up to REACH in all.
NEAR, REACH = 20, 40


def gains(theta_N: np.ndarray, root_NS: np.ndarray, i_E: np.ndarray, j_E: np.ndarray) -> np.ndarray:
    """Return the expected information gain of each pair's answer, nats (E,)."""
    variance_E = np.square(root_NS[i_E] - root_NS[j_E]).sum(1)
    # Expectation of the logistic under a normal difference: MacKay (1992), within 0.01.
    p_E = 1 / (1 + np.exp(-np.abs(theta_N[i_E] - theta_N[j_E]) / np.sqrt(1 + np.pi * variance_E / 8)))
    return p_E * (1 - p_E) * variance_E


def next_windows(
    theta_N: np.ndarray, root_NS: np.ndarray, counts_NK: np.ndarray, per_text: int, rng: np.random.Generator
) -> np.ndarray:
    """Return the windows (W, K) of a round, texts by position: each text in about `per_text` of them, no set of texts twice.

    Windows start from the pairs with the largest gain and are filled with the texts that add the most gain with the texts
    already in the window. Positions are chosen to stay balanced for each text.

    Args:
        theta_N: posterior means.
        root_NS: factor of the posterior covariance.
        counts_NK: number of times each text was shown in each position so far.
        per_text: upper bound of a text's windows in the round.
        rng: perturbs the gains, so that a round does not concentrate on one region.
    """
    k, n = counts_NK.shape[1], len(theta_N)
    by_theta = np.argsort(theta_N, kind="stable")
    rank_N = np.empty(n, int)
    rank_N[by_theta] = np.arange(n)
    i_E, j_E = _candidate_pairs(by_theta)
    gain_E = gains(theta_N, root_NS, i_E, j_E) * rng.uniform(0.7, 1.0, len(i_E))
    best_first = np.argsort(-gain_E, kind="stable")
    remaining, counts, windows, seen = [per_text] * n, counts_NK.copy(), [], set()
    for i, j in zip(i_E[best_first].tolist(), j_E[best_first].tolist(), strict=True):
        if not (remaining[i] and remaining[j]):
            continue
        window = [i, j]
        while len(window) < k:
            near = by_theta[max(rank_N[i] - NEAR, 0) : rank_N[i] + NEAR + 1]
            available = np.array([t for t in near.tolist() if remaining[t] and t not in window], int)
            if not len(available):
                break
            gain = sum(gains(theta_N, root_NS, np.full(len(available), t), available) for t in window)
            window.append(int(available[np.argmax(gain)]))
        if len(window) < k or frozenset(window) in seen:
            continue
        seen.add(frozenset(window))
        for text in window:
            remaining[text] -= 1
        windows.append(_balanced_positions(window, counts))
    return np.array(windows, dtype=np.int64).reshape(-1, k)


def swiss_windows(theta_N: np.ndarray, counts_NK: np.ndarray, per_text: int, rng: np.random.Generator) -> np.ndarray:
    """Return the windows (W, K) of a round with texts of similar theta, as in a Swiss-system tournament.

    This is the baseline of `next_windows`. Each text is in about `per_text` windows, one for each pass over the texts. The
    grouping of neighbours starts at a random offset in each pass and theta is jittered by half a nat, so that the same texts
    do not share a window again and again.
    """
    k, n, counts = counts_NK.shape[1], len(theta_N), counts_NK.copy()
    windows = []
    for _ in range(per_text):
        by_theta = np.argsort(theta_N + 0.5 * rng.normal(size=n))
        first = rng.integers(k)
        windows += [_balanced_positions(by_theta[at : at + k].tolist(), counts) for at in range(first, n - k + 1, k)]
    return np.array(windows, dtype=np.int64).reshape(-1, k)


def _candidate_pairs(by_theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs of texts by their distance in order of theta: all near ones, then increasingly sparse ones."""
    n = len(by_theta)
    far = np.geomspace(NEAR, max(NEAR, n // 3), REACH - NEAR).astype(int)
    offsets = [o for o in np.unique(np.concatenate([np.arange(1, NEAR + 1), far])) if o < n]
    return np.concatenate([by_theta[:-o] for o in offsets]), np.concatenate([by_theta[o:] for o in offsets])


def _balanced_positions(window: list[int], counts_NK: np.ndarray) -> list[int]:
    """Return the window's texts by position, each in a position it seldom had before; updates the counts."""
    free, texts = list(range(len(window))), [0] * len(window)
    # Texts with the most uneven counts choose first.
    for text in sorted(window, key=lambda t: (counts_NK[t].min() - counts_NK[t].max(), t)):
        position = min(free, key=lambda p: counts_NK[text, p])
        free.remove(position)
        texts[position] = text
        counts_NK[text, position] += 1
    return texts
