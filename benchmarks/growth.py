"""Time of one Newton iteration against the number of comparisons, and two worker processes against one.

python -m benchmarks.growth [FIGURE.svg]
"""

import sys
import time

import numpy as np
import ray
from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits

from benchmarks.solver import orders
from valueflow.distributed.build.aggregate import ShardedLikelihood
from valueflow.distributed.cluster import ClusterConfig, session
from valueflow.ranking.likelihood import Layout, LikelihoodShard
from valueflow.ranking.newton import posterior_mode
from valueflow.ranking.orders import Orders
from valueflow.ranking.prior import parameter_prior

NUM_ITEMS = 10_000


class Part:
    """A shard that simulates its own orders."""

    def __init__(self, num_windows: int, seed: int) -> None:
        self.likelihood = LikelihoodShard(NUM_ITEMS, [Orders(orders(NUM_ITEMS, num_windows, 2, seed), np.ones(num_windows))])
        self.limits = threadpool_limits(1)

    def ask(self, method: str, *arguments: np.ndarray) -> object:
        """See `RankingShard`."""
        return getattr(self.likelihood, method)(*arguments)


def seconds(likelihood: LikelihoodShard | ShardedLikelihood) -> tuple[float, int]:
    """Return the shortest time of three fits of the mode, and the Newton steps."""
    counts, times, steps = likelihood.counts(), [], 0
    for attempt in range(3):
        start = np.full(NUM_ITEMS, 1e-9 * attempt)  # another start, so that no result is cached
        started = time.perf_counter()
        steps = posterior_mode(likelihood, counts, start, parameter_prior(likelihood.layout, 2.0), 1e-6).steps
        times.append(time.perf_counter() - started)
    return min(times), steps


def draw(points: np.ndarray, path: str) -> None:
    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.loglog(*points.T, marker="o", label="measured")
    axes.loglog(points[:, 0], points[-1, 1] * points[:, 0] / points[-1, 0], linestyle="--", color="0.6", label="linear")
    axes.set(xlabel="comparisons", ylabel="seconds a Newton step")
    axes.legend()
    figure.savefig(path)


def main() -> None:
    points = []
    print(f"{'comparisons':>12} {'seconds':>9} {'steps':>6} {'ns per comparison and step':>28}")
    for num_windows in (10_000, 100_000, 1_000_000, 10_000_000):
        shard = LikelihoodShard(NUM_ITEMS, [Orders(orders(NUM_ITEMS, num_windows, 2), np.ones(num_windows))])
        took, steps = seconds(shard)
        points.append((num_windows, took / steps))
        print(f"{num_windows:12,} {took:9.3f} {steps:6} {1e9 * took / steps / num_windows:28.1f}", flush=True)
    if len(sys.argv) > 1:
        draw(np.array(points), sys.argv[1])
    with session(ClusterConfig(num_cpus=4)):
        took = {}
        for workers in (1, 2):
            actors = [ray.remote(Part).options(num_cpus=1).remote(10_000_000 // workers, seed) for seed in range(workers)]
            took[workers] = seconds(ShardedLikelihood(Layout(NUM_ITEMS), actors))[0]
            del actors
        print(f"10,000,000 comparisons: one worker {took[1]:.2f} s, two {took[2]:.2f} s: {took[1] / took[2]:.2f}x")


if __name__ == "__main__":
    main()
