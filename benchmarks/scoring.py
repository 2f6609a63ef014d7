"""The maths of scores, given rankings: 1,000 responses, K=6, M=3, beside one-at-a-time bisection in Python.

python -m benchmarks.scoring [RESPONSES]

All have the same windows, orders and anchors. Bisection finds the most likely theta of each response alone, to 1e-6 nats,
without an interval: as the formula is written, which sums the worth of the texts left at every step, and with these sums made
once. Ours finds posterior mean and 95 % interval. One thread. Prints medians over turns of milliseconds and ratios, and how far
mean and most likely value are apart where the latter is inside.
"""

import math
import sys
import timeit
from collections.abc import Callable

import numpy as np

from benchmarks.evaluator import simulated_anchors
from valueflow.evaluation.scoring import RESPONSE, Posterior, Score
from valueflow.vidb.version import Anchors

K, M = 6, 3
TURNS = 15


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

    # Plain numbers for plain Python, whose lists are faster than arrays one by one.
    plain = anchors._replace(theta_A=anchors.theta_A.tolist())  # type: ignore[arg-type]

    def by(method: Callable[[Anchors, Windows], float]) -> Callable[[], list[float]]:
        return lambda: [method(plain, of_unit) for of_unit in windows]

    as_written = by(bisected)
    mean, mode = np.array(ours())[:, 0], np.array(as_written())  # compiles ours
    # In turn, each for some tenths of a second, since a shared machine is now fast and now slow.
    runs = ((ours, 200), (as_written, 1), (by(bisected_prepared), 10))
    seconds_TR = np.array([[timeit.timeit(run, number=n) / n for run, n in runs] for _ in range(TURNS)])
    inside = np.abs(mode) < 9
    milliseconds_R = 1e3 * np.median(seconds_TR, axis=0)
    print(f"{size:,} responses, K={K}, M={M}: ours {milliseconds_R[0]:.2f} ms")
    for r, name in ((1, "as written"), (2, "sums made once")):
        low, middle, high = np.quantile(seconds_TR[:, r] / seconds_TR[:, 0], (0.1, 0.5, 0.9))
        print(f"bisection, {name}: {milliseconds_R[r]:.1f} ms, {middle:.0f} times ours (turns: {low:.0f} to {high:.0f})")
    apart = np.abs(mean - mode)[inside].mean()
    print(f"mean distance of posterior mean and most likely value: {apart:.2f} points")


if __name__ == "__main__":
    main()
