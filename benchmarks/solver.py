"""Seconds, precision and memory of Plackett-Luce solvers on the same orders, each in a separate process.

python -m benchmarks.solver [items pairs]    # default: 10,000 items, 1,000,000 pairs; and 200,000 windows of 5
ARENA_RANK_PYTHON=/path/to/its/bin/python python -m benchmarks.solver    # also arena-rank, installed in a separate environment

`gradient` is the largest gradient entry of the log-likelihood per window of that item, at the solver's own answer; a result
above 1e-6 is marked. Peers: scipy's Newton-CG on NumPy sums, choix (Newton-CG), evalica and arena-rank (pairs only; the latter
needs other versions of numpy and jax). `memory` is the peak above the data's process, in multiples of the item numbers (int32).
Compilation of our loops is not in the time: it happens once after an installation.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np

from valueflow.ranking.likelihood import LikelihoodShard
from valueflow.ranking.newton import posterior_mode
from valueflow.ranking.orders import Orders
from valueflow.ranking.prior import parameter_prior

PRIOR_SD = 1e3  # a flat prior
TIMEOUT = 150
ARENA_RANK = "ARENA_RANK_PYTHON"


def orders(num_items: int, num_windows: int, k: int, seed: int = 0) -> np.ndarray:
    """Plackett-Luce orders of random windows, best first."""
    rng = np.random.default_rng(seed)
    theta = rng.normal(0.0, 1.5, num_items)
    items = rng.integers(num_items, size=(num_windows, k))
    while (bad := (np.diff(np.sort(items, axis=1)) == 0).any(1)).any():
        items[bad] = rng.integers(num_items, size=(int(bad.sum()), k))
    return np.take_along_axis(items, np.argsort(-(theta[items] + rng.gumbel(size=items.shape)), axis=1), axis=1)


def ours(num_items: int, items_WK: np.ndarray) -> np.ndarray:
    shard = LikelihoodShard(num_items, [Orders(items_WK, np.ones(len(items_WK)))])
    return posterior_mode(shard, shard.counts(), np.zeros(num_items), parameter_prior(shard.layout, PRIOR_SD), 1e-6).phi


def newton_cg(num_items: int, items_WK: np.ndarray) -> np.ndarray:
    from scipy.optimize import minimize

    items_KW = np.ascontiguousarray(items_WK.T)

    def tails(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        x = theta[items_KW]
        x -= x.max(0)
        e = np.exp(x)
        return x, e, np.cumsum(e[::-1], axis=0)[::-1][:-1]

    def running(stages: np.ndarray) -> np.ndarray:
        total = np.cumsum(stages, axis=0)
        return np.concatenate([total, total[-1:]])

    def add(amount: np.ndarray) -> np.ndarray:
        return sum(np.bincount(i, a, num_items) for i, a in zip(items_KW, amount, strict=True))

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        x, e, tail = tails(theta)
        wins = np.ones_like(x)
        wins[-1] = 0
        gradient = add(wins - e * running(1 / tail)) - theta / PRIOR_SD**2
        return -float((x[:-1] - np.log(tail)).sum()) + 0.5 * theta @ theta / PRIOR_SD**2, -gradient

    def product(theta: np.ndarray, v: np.ndarray) -> np.ndarray:
        _, e, tail = tails(theta)
        mean = np.cumsum((e * v[items_KW])[::-1], axis=0)[::-1][:-1] / tail
        return add(e * (v[items_KW] * running(1 / tail) - running(mean / tail))) + v / PRIOR_SD**2

    return minimize(objective, np.zeros(num_items), jac=True, hessp=product, method="Newton-CG", options={"xtol": 1e-8}).x


def choix(num_items: int, items_WK: np.ndarray) -> np.ndarray:
    import choix

    return choix.opt_rankings(num_items, items_WK.tolist(), alpha=0.5 / PRIOR_SD**2, method="Newton-CG", tol=1e-8)


def evalica(num_items: int, items_WK: np.ndarray) -> np.ndarray:
    import evalica

    wins = [evalica.Winner.X] * len(items_WK)
    result = evalica.bradley_terry(items_WK[:, 0].tolist(), items_WK[:, 1].tolist(), wins, tolerance=1e-12, limit=10_000)
    theta = np.zeros(num_items)
    theta[result.scores.index.to_numpy()] = np.log(result.scores.to_numpy())
    return theta


def solve(method: str, path: str, num_items: int) -> None:
    """Child process: solve, and print seconds, gradient and memory."""
    items_WK = np.load(path)
    solver = {"ours": ours, "scipy": newton_cg, "choix": choix, "evalica": evalica}[method]
    solver(num_items, items_WK[:10])  # imports and compiles
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    theta = solver(num_items, items_WK)
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([seconds, gradient_of(num_items, items_WK, theta), (after - before) * 1024 / items_WK.nbytes]))


def gradient_of(num_items: int, items_WK: np.ndarray, theta: np.ndarray) -> float:
    shard = LikelihoodShard(num_items, [Orders(items_WK, np.ones(len(items_WK)))])
    windows = np.maximum(shard.counts().num_windows_N, 1)
    return float(np.abs((shard.moments(theta).gradient - theta / PRIOR_SD**2) / windows).max())


def measure(method: str, path: str, num_items: int) -> tuple[float, float, float]:
    """Seconds, gradient and memory of one solver in a separate process."""
    if method != "arena-rank":
        return tuple(json.loads(_output([sys.executable, "-m", "benchmarks.solver", method, path, str(num_items)])))
    with tempfile.NamedTemporaryFile(suffix=".npy") as theta:
        peer = [os.environ[ARENA_RANK], "benchmarks/arena_rank_peer.py", path, str(num_items), theta.name]
        seconds, memory = json.loads(_output(peer))
        return seconds, gradient_of(num_items, np.load(path), np.load(theta.name)), memory


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=True).stdout.splitlines()[-1]


def main() -> None:
    if len(sys.argv) == 4 and sys.argv[1] in ("ours", "scipy", "choix", "evalica"):
        solve(sys.argv[1], sys.argv[2], int(sys.argv[3]))
        return
    args = [int(a) for a in sys.argv[1:]]
    problems = [(args[0], args[1], 2)] if args else [(10_000, 1_000_000, 2), (10_000, 200_000, 5)]
    for num_items, num_windows, k in problems:
        print(f"{num_items:,} items, {num_windows:,} windows of {k}")
        print(f"{'solver':10} {'seconds':>9} {'gradient':>10} {'memory':>7} {'of ours':>8}")
        with tempfile.NamedTemporaryFile(suffix=".npy") as file:
            np.save(file.name, orders(num_items, num_windows, k).astype(np.int32))
            reference = 0.0
            pairs_only = ["evalica"] + ["arena-rank"] * (ARENA_RANK in os.environ)
            for method in ("ours", "scipy", *(pairs_only if k == 2 else ()), "choix"):
                try:
                    seconds, gradient, memory = measure(method, file.name, num_items)
                except subprocess.TimeoutExpired:
                    print(f"{method:10} more than {TIMEOUT} s ({TIMEOUT / reference:.0f}x)", flush=True)
                    continue
                except subprocess.CalledProcessError as error:
                    print(f"{method:10} failed: {error.stderr.splitlines()[-1][:100]}", flush=True)
                    continue
                reference = reference or seconds
                note = "" if gradient <= 1e-6 else "  not converged"
                print(
                    f"{method:10} {seconds:9.2f} {gradient:10.1e} {memory:6.1f}x {seconds / reference:7.1f}x{note}", flush=True
                )


if __name__ == "__main__":
    main()
