"""The maths of scores, given rankings: 1,000 responses, K=6, M=3, beside one-at-a-time bisection in Python.

python -m benchmarks.scoring [RESPONSES]

Both have the same windows, orders and anchors. Bisection finds the most likely theta of each response alone, to 1e-6 nats, with
the worth of the texts left at each stage summed once, and no interval; ours finds posterior mean and 95 % interval on 1,601
points. One thread. Prints milliseconds, the ratio, and how far the two are apart where the most likely value is inside.
"""

import math
import sys
import time

import numpy as np

from benchmarks.evaluator import simulated_anchors
from valueflow.evaluator import RESPONSE, Anchors, Posterior

K, M = 6, 3


def bisected(anchors: Anchors, windows: list[tuple[list[int], list[int]]]) -> float:
    """The theta at which the derivative of the log-likelihood of a response's windows is 0."""
    tails, chosen = [], 0
    for shown, order in windows:
        left: list[float] = []
        total = 0.0
        for place in reversed(order):
            text = shown[place]
            if text == RESPONSE:
                at = len(order) - 1 - len(left)
            else:
                total += math.exp(anchors.theta_A[text])
            left.append(total)
        left.reverse()
        chosen += at < len(order) - 1
        tails += left[: min(at, len(order) - 2) + 1]
    low, high = -40.0, 40.0
    while high - low > 1e-6:
        u = math.exp((low + high) / 2)
        if chosen - sum(u / (u + tail) for tail in tails) > 0:
            low = (low + high) / 2
        else:
            high = (low + high) / 2
    return (low + high) / 2


def main() -> None:
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    anchors, rng = simulated_anchors(), np.random.default_rng(0)
    num = size * M
    shown_NK = np.stack(
        [np.insert(rng.choice(len(anchors.theta_A), K - 1, replace=False), rng.integers(K), RESPONSE) for _ in range(num)]
    )
    truth_U = rng.uniform(-9, 9, size)
    unit_N = np.repeat(np.arange(size), M)
    theta_NK = np.where(shown_NK == RESPONSE, truth_U[unit_N][:, None], anchors.theta_A[shown_NK])
    order_NK = np.argsort(-(theta_NK + rng.gumbel(size=theta_NK.shape)), axis=1)
    windows = [[(shown_NK[n].tolist(), order_NK[n].tolist()) for n in range(unit * M, unit * M + M)] for unit in range(size)]
    weight_N = np.full(num, np.nan)

    def ours() -> np.ndarray:
        posterior = Posterior(anchors, size, 1.0)
        posterior.update_all(unit_N, shown_NK, order_NK, weight_N)
        return np.array(posterior.scores())

    ours()  # compiles
    timed = []
    for run in (ours, lambda: np.array([bisected(anchors, of_unit) for of_unit in windows])):
        best, found = math.inf, np.empty(0)
        for _ in range(3):
            started = time.perf_counter()
            found = run()
            best = min(best, time.perf_counter() - started)
        timed.append((best, found))
    (mine, scores), (theirs, modes) = timed
    inside = np.abs(modes) < 9
    times = f"ours {mine * 1e3:.1f} ms, bisection {theirs * 1e3:.1f} ms, {theirs / mine:.1f} times"
    print(f"{size:,} responses, K={K}, M={M}: {times}")
    print(
        f"mean distance of posterior mean and most likely value: {np.abs(scores[inside, 0] - modes[inside]).mean():.2f} points"
    )


if __name__ == "__main__":
    main()
