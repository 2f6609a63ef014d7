"""Time to compute scores from rankings: 1,000 responses, K=6, M=3, against bisection of one response at a time in Python.

python -m benchmarks.scoring [RESPONSES]

All have the same windows, orders and anchors. Bisection finds the most likely theta of each response alone, to 1e-6 nats,
without an interval: as the formula is written, which sums the worth of the remaining texts at every step, and with these sums
precomputed. Ours computes posterior mean and 95 % interval. One thread. Prints medians over turns of milliseconds and ratios,
and the mean distance of mean and most likely value where the latter is inside the scale.
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


Windows = list[tuple[list[int], list[int]]]  # of one response: texts by position, and positions best first


def root(slope: Callable[[float], float]) -> float:
    """Return the zero of a decreasing function."""
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
        for window, order in windows:
            for stage in range(len(order) - 1):
                remaining = [window[position] for position in order[stage:]]
                if RESPONSE not in remaining:
                    break
                worth = [math.exp(theta if text == RESPONSE else anchors.theta_A[text]) for text in remaining]
                total += (remaining[0] == RESPONSE) - math.exp(theta) / sum(worth)
        return total

    return root(slope)


def bisected_prepared(anchors: Anchors, windows: Windows) -> float:
    """The same with the summed worth of the remaining texts at each stage precomputed."""
    tails, chosen = [], 0
    for window, order in windows:
        tail_worths: list[float] = []
        total = 0.0
        for position in reversed(order):
            text = window[position]
            if text == RESPONSE:
                response_rank = len(order) - 1 - len(tail_worths)
            else:
                total += math.exp(anchors.theta_A[text])
            tail_worths.append(total)
        tail_worths.reverse()
        chosen += response_rank < len(order) - 1
        tails += tail_worths[: min(response_rank, len(order) - 2) + 1]

    def slope(theta: float) -> float:
        u = math.exp(theta)
        return chosen - sum(u / (u + tail) for tail in tails)

    return root(slope)


def main() -> None:
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    anchors, rng = simulated_anchors(), np.random.default_rng(0)
    num = size * M
    window_NK = np.stack(
        [np.insert(rng.choice(len(anchors.theta_A), K - 1, replace=False), rng.integers(K), RESPONSE) for _ in range(num)]
    )
    truth_U = rng.uniform(-9, 9, size)
    unit_N = np.repeat(np.arange(size), M)
    theta_NK = np.where(window_NK == RESPONSE, truth_U[unit_N][:, None], anchors.theta_A[window_NK])
    order_NK = np.argsort(-(theta_NK + rng.gumbel(size=theta_NK.shape)), axis=1)
    windows = [[(window_NK[n].tolist(), order_NK[n].tolist()) for n in range(unit * M, unit * M + M)] for unit in range(size)]
    weight_N = np.full(num, np.nan)

    def ours() -> list[Score]:
        posterior = Posterior(anchors, size, 1.0)
        posterior.update_all(unit_N, window_NK, order_NK, weight_N)
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
    for r, name in ((1, "as written"), (2, "sums precomputed")):
        low, middle, high = np.quantile(seconds_TR[:, r] / seconds_TR[:, 0], (0.1, 0.5, 0.9))
        print(f"bisection, {name}: {milliseconds_R[r]:.1f} ms, {middle:.0f} times ours (turns: {low:.0f} to {high:.0f})")
    apart = np.abs(mean - mode)[inside].mean()
    print(f"mean distance of posterior mean and most likely value: {apart:.2f} points")


if __name__ == "__main__":
    main()
