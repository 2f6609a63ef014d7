"""Do Plackett-Luce's 95 % intervals hold the truth? Simulated texts, a judge of sharpness 1, balanced windows.

python -m benchmarks.coverage
"""

import time
from typing import NamedTuple

import numpy as np
from scipy.stats import spearmanr
from threadpoolctl import threadpool_limits

from valueflow.ranking.plackett_luce import fit
from valueflow.ranking.sums import Orders, Shard
from valueflow.ranking.windows import WindowsConfig, plan

NUM_TEXTS = 500
Z95 = 1.959964


class Recovery(NamedTuple):
    """How well one fit finds the truth behind simulated answers."""

    spearman: float
    coverage: float


def simulate(k: int, m: int, sd: float, seed: int, num_texts: int = NUM_TEXTS) -> Recovery:
    """Draw true log-worths N(0, sd^2), let a Plackett-Luce judge order balanced windows, fit with nothing told of the truth."""
    rng = np.random.default_rng(seed)
    truth_N = rng.normal(0.0, sd, num_texts)
    shown_WK = plan(num_texts, WindowsConfig(k=k, m=m), rng).positions_WK
    heard_WK = truth_N[shown_WK] + rng.gumbel(size=shown_WK.shape)
    order_WK = np.take_along_axis(shown_WK, np.argsort(-heard_WK, axis=1), axis=1)
    # At this size one BLAS thread is faster than two, and ten times faster where the other core is busy.
    with threadpool_limits(1):
        fitted = fit(Shard(num_texts, [Orders(order_WK, np.ones(len(order_WK)))]))
    # Only differences are in the data: the truth is centred over the same texts as theta.
    error_N = np.abs(fitted.theta_N - (truth_N - truth_N.mean()))
    return Recovery(
        float(spearmanr(truth_N, fitted.theta_N).statistic), float((error_N < Z95 * fitted.standard_error_N).mean())
    )


def main() -> None:
    print(f"{NUM_TEXTS} texts, mode balanced, prior estimated; coverage of 95 % intervals, the goal is 0.93 to 0.97")
    print(" k   m   sd simulations  coverage mean Spearman lowest Spearman  s/fit")
    for k, m, sd, num_simulations in ((2, 40, 3.0, 200), (2, 12, 3.0, 50), (5, 20, 3.0, 50)):
        started = time.perf_counter()
        found = [simulate(k, m, sd, seed) for seed in range(num_simulations)]
        seconds = (time.perf_counter() - started) / num_simulations
        spearman, coverage = np.array(found).T
        print(
            f"{k:2d} {m:3d} {sd:4.1f} {num_simulations:11d} {coverage.mean():9.4f} {spearman.mean():13.4f} "
            f"{spearman.min():15.4f} {seconds:6.2f}"
        )


if __name__ == "__main__":
    main()
