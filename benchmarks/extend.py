"""Cost and accuracy of extending a version by 1 % of texts against rebuilding it, with a simulated judge of sharpness 1.

python -m benchmarks.extend [texts]    # default 2,000

Old texts: balanced windows of 2, m=24, fitted. New ones: m=16 windows of 2 with old texts, chosen adaptively (as
`jobs.build_vidb extend=current`), then a fit of the texts in these windows with the old estimates as priors.
"""

import sys
import time

import numpy as np
import pyarrow as pa
from scipy.stats import spearmanr

from valueflow.distributed.build.extend import merge_fit, refit_texts
from valueflow.evaluation.scoring import EvaluatorConfig, Posterior, plan_round
from valueflow.ranking.calibration import neutral
from valueflow.ranking.likelihood import LikelihoodShard
from valueflow.ranking.orders import Orders
from valueflow.ranking.plackett_luce import fit
from valueflow.ranking.windows import WindowsConfig, plan
from valueflow.records import ValueId
from valueflow.vidb.version import Anchors

M_OLD, M_NEW, SD = 24, 16, 3.0


def best_first(theta_N: np.ndarray, windows_WK: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.argsort(-(theta_N[windows_WK] + rng.gumbel(size=windows_WK.shape)), axis=1)


def built(theta_N: np.ndarray, rng: np.random.Generator) -> tuple[pa.Table, float, int, float]:
    """Return a version's utilities, its prior_sd, the number of windows and the seconds of the fit."""
    windows_WK = plan(len(theta_N), WindowsConfig(m=M_OLD), rng).items_WK
    items_WK = np.take_along_axis(windows_WK, best_first(theta_N, windows_WK, rng), axis=1)
    started = time.perf_counter()
    fitted = fit(LikelihoodShard(len(theta_N), [Orders(items_WK, np.ones(len(items_WK)))]))
    seconds = time.perf_counter() - started
    columns = {
        "theory": ["svt"] * len(theta_N), "value": ["power"] * len(theta_N), "text_id": ids(len(theta_N)),
        "theta": fitted.theta_N, "standard_error": fitted.standard_error_N,
        "num_windows": fitted.counts.num_windows_N.astype(int), "wins": fitted.counts.wins_N,
        "component": fitted.counts.component_N,
    }  # fmt: skip
    return pa.table(columns), fitted.prior_sd, len(windows_WK), seconds


def ids(count: int) -> list[str]:
    return [f"{i:016d}" for i in range(count)]


def answer_new(old: pa.Table, theta_N: np.ndarray, new: list[int], rng: np.random.Generator) -> pa.Table:
    """Return the answers about the new texts, collected in adaptive rounds."""
    by_theta = np.argsort(old["theta"].to_numpy())
    theta_A = old["theta"].to_numpy()[by_theta]
    scale = neutral(theta_A, np.abs(theta_A) < 0.5, 0.99)
    anchors = Anchors("svt", "power", old["text_id"].to_numpy()[by_theta], theta_A, scale)
    config = EvaluatorConfig(k=2, m=M_NEW)
    names = ids(len(theta_N))
    posterior, used, rows = Posterior(anchors, len(new), 1.0), [set() for _ in new], []
    for round_ in range(M_NEW):
        windows = plan_round(posterior, [names[i] for i in new], [names[i] for i in new], used, round_, config)
        for unit, window in enumerate(windows):
            window_texts = np.insert(by_theta[window.anchors], window.position, new[unit])
            order = best_first(theta_N, window_texts[None], rng)[0].tolist()
            posterior.update(unit, window, order, None)
            rows.append({"window_id": f"{len(rows):016d}", "text_ids": [names[i] for i in window_texts], "order": order})
    more = {"error": pa.nulls(len(rows), pa.string()), "weight": pa.nulls(len(rows), pa.float64())}
    table = pa.Table.from_pylist(rows)
    for name, column in more.items():
        table = table.append_column(name, column)
    return table


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000
    new = list(range(count, count + count // 100))
    rng = np.random.default_rng(0)
    theta_N = rng.normal(0.0, SD, count + len(new))
    theta_N -= theta_N[:count].mean()
    old, spread, _, _ = built(theta_N[:count], rng)
    _, _, rebuilt_calls, _ = rebuilt = built(theta_N, rng)
    answers = answer_new(old, theta_N, new, rng)
    started = time.perf_counter()
    touched, fitted = refit_texts(old, answers, spread, 1e-9)
    rows = merge_fit(old, ValueId("svt:power"), touched, fitted).sort_by("text_id")
    extend_seconds = time.perf_counter() - started
    print(f"{count:,} texts, {len(new)} added; k=2, m={M_OLD} for a build, m={M_NEW} for the added")
    print(f"{'':12}{'calls':>9}{'seconds':>9}{'Spearman, added':>17}{'coverage':>10}{'rms error':>11}")
    for name, table, calls, seconds in (
        ("extended", rows, answers.num_rows, extend_seconds), ("rebuilt", rebuilt[0], rebuilt_calls, rebuilt[3])
    ):  # fmt: skip
        theta, error = table["theta"].to_numpy(), table["standard_error"].to_numpy()
        off = (theta - theta_N)[new]
        inside = np.abs(off) < 1.96 * error[new]
        order = spearmanr(theta[new], theta_N[new])[0]
        print(f"{name:12}{calls:9,}{seconds:9.2f}{order:17.4f}{inside.mean():10.1%}{np.sqrt(np.mean(off**2)):11.3f}")
    before, after, error = old["theta"].to_numpy(), rows["theta"].to_numpy()[:count], old["standard_error"].to_numpy()
    moved = np.abs(after - before)
    print(f"calls: {answers.num_rows / rebuilt_calls:.1%} of a build; old texts refitted: {np.sum(moved > 0)}, largest change")
    print(f"{moved.max():.3f} nats; within their 95 % interval: {np.mean(moved <= 1.96 * error):.1%}")


if __name__ == "__main__":
    main()
