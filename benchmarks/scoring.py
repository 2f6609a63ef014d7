"""The maths of scores, given rankings: 1,000 responses, K=6, M=3, beside one-at-a-time bisection in Python.

python -m benchmarks.scoring [RESPONSES]

All have the same windows, orders and anchors. Bisection finds the most likely theta of each response alone, to 1e-6 nats,
without an interval: as the formula is written, which sums the worth of the texts left at every step, and with these sums made
once. Ours finds posterior mean and 95 % interval. One thread. Prints milliseconds, the ratios, and how far mean and most likely
value are apart where the latter is inside.
"""

import math
import sys
import time
from collections.abc import Callable

import numpy as np

from benchmarks.evaluator import simulated_anchors
from valueflow.evaluator import RESPONSE, Anchors, Posterior, Score

K, M = 6, 3


Windows = list[tuple[list[int], list[int]]]  # of one response: shown texts, and their positions best first


def root(slope: Callable[[float], float]) -> float:
    """Where a falling function is 0."""
    low, high = -40.0, 40.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        if slope(middle) > 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def bisected(anchors: Anchors, windows: Windows) -> float:
    """The theta at which the derivative of the log-likelihood of a response's windows is 0, as the formula is written."""

    def slope(theta: float) -> float:
        total = 0.0
        for shown, order in windows:
            for stage in range(len(order) - 1):
                left = [shown[place] for place in order[stage:]]
                if RESPONSE not in left:
                    break
                worth = [math.exp(theta if text == RESPONSE else anchors.theta_A[text]) for text in left]
                total += (left[0] == RESPONSE) - math.exp(theta) / sum(worth)
        return total

    return root(slope)


def bisected_prepared(anchors: Anchors, windows: Windows) -> float:
    """The same with the worth of the texts left at each stage summed once."""
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

    def slope(theta: float) -> float:
        u = math.exp(theta)
        return chosen - sum(u / (u + tail) for tail in tails)

    return root(slope)


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

    def ours() -> list[Score]:
        posterior = Posterior(anchors, size, 1.0)
        posterior.update_all(unit_N, shown_NK, order_NK, weight_N)
        return posterior.scores()

    ours()  # compiles
    # Plain numbers for plain Python, whose lists are faster than arrays one by one.
    plain = anchors._replace(theta_A=anchors.theta_A.tolist())  # type: ignore[arg-type]

    def by(method: Callable[[Anchors, Windows], float]) -> Callable[[], list[float]]:
        return lambda: [method(plain, of_unit) for of_unit in windows]

    timed = []
    for run in (ours, by(bisected), by(bisected_prepared)):
        best = math.inf
        for _ in range(3):
            started = time.perf_counter()
            found = run()
            best = min(best, time.perf_counter() - started)
        timed.append((best, found))
    (mine, scores), (written, modes), (prepared, _) = timed
    mean, mode = np.array(scores)[:, 0], np.array(modes)
    inside = np.abs(mode) < 9
    print(f"{size:,} responses, K={K}, M={M}: ours {mine * 1e3:.1f} ms")
    for name, theirs in (("as written", written), ("sums made once", prepared)):
        print(f"bisection, {name}: {theirs * 1e3:.1f} ms, {theirs / mine:.0f} times ours")
    apart = np.abs(mean - mode)[inside].mean()
    print(f"mean distance of posterior mean and most likely value: {apart:.2f} points")


if __name__ == "__main__":
    main()
