"""Coverage of Plackett-Luce's 95 % intervals: simulated texts, a judge of sharpness 1, balanced and adaptive windows.

python -m benchmarks.coverage
"""

import time
from typing import NamedTuple

import numpy as np
from scipy.stats import spearmanr
from threadpoolctl import threadpool_limits

from valueflow.numerics.intervals import Z95
from valueflow.ranking.adaptive import next_windows
from valueflow.ranking.likelihood import LikelihoodShard
from valueflow.ranking.orders import Orders
from valueflow.ranking.plackett_luce import fit
from valueflow.ranking.windows import WindowsConfig, plan

NUM_TEXTS = 500


class Recovery(NamedTuple):
    """Agreement of one fit with the truth behind simulated answers."""

    spearman: float
    coverage: float


def simulate(k: int, m: int, sd: float, seed: int, num_texts: int = NUM_TEXTS, mode: str = "balanced") -> Recovery:
    """Draw true log-worths N(0, sd^2), let a Plackett-Luce judge order windows, and fit without access to the truth."""
    rng = np.random.default_rng(seed)
    truth_N = rng.normal(0.0, sd, num_texts)
    windows_WK = plan(num_texts, WindowsConfig(k=k, m=m if mode == "balanced" else k), rng).items_WK
    orders, counts_NK = [ordered(truth_N, windows_WK, rng)], np.zeros((num_texts, k), int)
    # At this size one BLAS thread is faster than two, and ten times faster where the other core is busy.
    with threadpool_limits(1):
        fitted = fit(LikelihoodShard(num_texts, orders))
        while mode == "adaptive":
            counts_NK += np.stack([np.bincount(column, minlength=num_texts) for column in windows_WK.T], axis=1)
            remaining = (m * num_texts - counts_NK.sum()) // k
            if remaining <= 0:
                break
            windows_WK = next_windows(fitted.theta_N, fitted.root_NS, counts_NK, 2, rng)[:remaining]
            orders.append(ordered(truth_N, windows_WK, rng))
            fitted = fit(LikelihoodShard(num_texts, orders))
    # Only differences are in the data: the truth is centred over the same texts as theta.
    error_N = np.abs(fitted.theta_N - (truth_N - truth_N.mean()))
    return Recovery(
        float(spearmanr(truth_N, fitted.theta_N).statistic), float((error_N < Z95 * fitted.standard_error_N).mean())
    )


def ordered(truth_N: np.ndarray, windows_WK: np.ndarray, rng: np.random.Generator) -> Orders:
    perceived_WK = truth_N[windows_WK] + rng.gumbel(size=windows_WK.shape)
    return Orders(np.take_along_axis(windows_WK, np.argsort(-perceived_WK, axis=1), axis=1), np.ones(len(windows_WK)))


def main() -> None:
    print(f"{NUM_TEXTS} texts, prior estimated; coverage of 95 % intervals, the goal is 0.93 to 0.97")
    print("mode      k   m   sd simulations  coverage mean Spearman lowest Spearman  seconds")
    designs = [("balanced", 2, 40, 3.0, 200), ("balanced", 2, 12, 3.0, 50), ("balanced", 5, 20, 3.0, 50)]
    designs += [("adaptive", 2, 24, 3.0, 20), ("adaptive", 2, 24, 1.5, 20), ("adaptive", 5, 20, 3.0, 20)]
    for mode, k, m, sd, num_simulations in designs:
        started = time.perf_counter()
        results = [simulate(k, m, sd, seed, mode=mode) for seed in range(num_simulations)]
        seconds = (time.perf_counter() - started) / num_simulations
        spearman, coverage = np.array(results).T
        print(
            f"{mode:8} {k:2d} {m:3d} {sd:4.1f} {num_simulations:11d} {coverage.mean():9.4f} {spearman.mean():13.4f} "
            f"{spearman.min():15.4f} {seconds:6.2f}"
        )


if __name__ == "__main__":
    main()
