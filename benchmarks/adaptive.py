"""How many questions do adaptive windows save? Rank correlation with the truth against windows per text, 500 texts.

python -m benchmarks.adaptive [simulations]
"""

import sys

import numpy as np
from scipy.stats import spearmanr
from threadpoolctl import threadpool_limits

from valueflow.ranking.adaptive import next_windows
from valueflow.ranking.plackett_luce import fit
from valueflow.ranking.sums import Orders, Shard
from valueflow.ranking.windows import WindowsConfig, plan

NUM_TEXTS = 500
MARKS = (8, 12, 16, 20, 24, 28, 40)


def answered(theta_N: np.ndarray, shown_WK: np.ndarray, rng: np.random.Generator) -> Orders:
    """A judge of sharpness 1."""
    best_first = np.argsort(-(theta_N[shown_WK] + rng.gumbel(size=shown_WK.shape)), axis=1)
    return Orders(np.take_along_axis(shown_WK, best_first, axis=1), np.ones(len(shown_WK)))


def balanced(sd: float, seed: int) -> dict[int, float]:
    """Spearman by windows per text."""
    rng = np.random.default_rng(seed)
    theta_N, found = rng.normal(0.0, sd, NUM_TEXTS), {}
    for m in MARKS:
        shown_WK = plan(NUM_TEXTS, WindowsConfig(m=m), rng).positions_WK
        found[m] = spearmanr(fit(Shard(NUM_TEXTS, [answered(theta_N, shown_WK, rng)])).theta_N, theta_N)[0]
    return found


def adaptive(sd: float, seed: int) -> dict[int, float]:
    """Spearman by windows per text; rounds of two a text."""
    rng = np.random.default_rng(seed)
    theta_N, found = rng.normal(0.0, sd, NUM_TEXTS), {}
    windows = plan(NUM_TEXTS, WindowsConfig(m=2), rng).positions_WK
    orders, shown_NK = [], np.zeros((NUM_TEXTS, 2), int)
    while True:
        orders.append(answered(theta_N, windows, rng))
        shown_NK += np.stack([np.bincount(place, minlength=NUM_TEXTS) for place in windows.T], axis=1)
        fitted, m = fit(Shard(NUM_TEXTS, orders)), round(shown_NK.sum() / NUM_TEXTS)
        if m in MARKS:
            found[m] = spearmanr(fitted.theta_N, theta_N)[0]
        if m >= MARKS[-1]:
            return found
        windows = next_windows(fitted.theta_N, fitted.root_NS, shown_NK, 2, rng)


def main() -> None:
    simulations = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    for sd in (1.5, 3.0, 5.0):
        with threadpool_limits(1):
            curves = {run.__name__: [run(sd, seed) for seed in range(simulations)] for run in (balanced, adaptive)}
        means = {name: {m: float(np.mean([c[m] for c in runs if m in c])) for m in MARKS} for name, runs in curves.items()}
        print(f"theta ~ N(0, {sd:g}²), {NUM_TEXTS} texts, {simulations} simulations: Spearman at m windows a text")
        print(f"{'m':10}" + "".join(f"{m:9}" for m in MARKS))
        for name, line in means.items():
            print(f"{name:10}" + "".join(f"{line[m]:9.4f}" for m in MARKS))
        goal, line = means["balanced"][40], means["adaptive"]
        needed = float(np.interp(goal, [line[m] for m in MARKS], MARKS))
        print(f"balanced at 40 is reached with {needed:.1f} windows a text: {needed / 40:.0%} of the calls\n", flush=True)


if __name__ == "__main__":
    main()
