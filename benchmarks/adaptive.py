"""Rank correlation with the truth against judge calls and prompt tokens, by window design, for 500 texts.

python -m benchmarks.adaptive [simulations [FIGURE.svg]]

The judge: Plackett-Luce of sharpness 1. `log-probabilities`: its difference in nats, noise included, is read from the answer
and becomes an order probability. `embedding`: a prior of theta that correlates 0.45 with the truth, as an encoder's judgement
does. Tokens: those of the prompt for benevolence and the sample texts, counted by MiniLM's tokenizer.
"""

import sys
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import spearmanr
from threadpoolctl import threadpool_limits
from transformers import AutoTokenizer

from benchmarks.coverage import ordered
from valueflow.models import MINILM, locate
from valueflow.prompts.render import rank_messages
from valueflow.ranking.adaptive import next_windows, swiss_windows
from valueflow.ranking.likelihood import LikelihoodShard
from valueflow.ranking.orders import Orders
from valueflow.ranking.plackett_luce import fit
from valueflow.ranking.prior import ItemPriors
from valueflow.ranking.windows import WindowsConfig, plan
from valueflow.records import ValueId
from valueflow.tabular import strict_rows

NUM_TEXTS = 500
MAX_CALLS = 20  # for each text; balanced k=2, m=40
MARKS = np.array([2, 4, 6, 8, 10, 12, 14, 20.0])
EMBEDDING = 0.45


class Design(NamedTuple):
    """How windows are chosen and answered."""

    k: int = 2
    mode: str = "adaptive"
    log_probabilities: bool = False
    embedding: bool = False


DESIGNS = {
    "balanced": Design(mode="balanced"),
    "swiss": Design(mode="swiss"),
    "adaptive": Design(),
    "adaptive, log-probabilities": Design(log_probabilities=True),
    "adaptive, embedding": Design(embedding=True),
    "adaptive, k=3": Design(k=3),
    "adaptive, k=5": Design(k=5),
}


def tokens_per_window(k: int) -> float:
    """Return the mean number of prompt tokens over windows of consecutive sample texts."""
    tokenizer = AutoTokenizer.from_pretrained(locate(MINILM))
    texts = [row.fields["text"] for row in strict_rows("valueflow/samples/corpus.csv", ["text"])]
    prompts = [rank_messages(ValueId("svt:benevolence"), texts[i : i + k], 2000) for i in range(0, 300, k)]
    return float(np.mean([len(tokenizer.tokenize(" ".join(m["content"] for m in messages))) for messages in prompts]))


class Curve(NamedTuple):
    """Rank correlation by number of calls for each text."""

    calls: list[float]
    spearman: list[float]


def answered(theta_N: np.ndarray, windows_WK: np.ndarray, log_probabilities: bool, rng: np.random.Generator) -> list[Orders]:
    if not log_probabilities:
        return [ordered(theta_N, windows_WK, rng)]
    perceived_WK = theta_N[windows_WK] + rng.gumbel(size=windows_WK.shape)
    items_WK = np.take_along_axis(windows_WK, np.argsort(-perceived_WK, axis=1), axis=1)
    weight_W = 1 / (1 + np.exp(-np.abs(perceived_WK[:, 0] - perceived_WK[:, 1])))
    return [Orders(items_WK, weight_W), Orders(items_WK[:, ::-1].copy(), 1 - weight_W)]


def run(design: Design, sd: float, seed: int) -> Curve:
    rng = np.random.default_rng(seed)
    theta_N, curve, k = rng.normal(0.0, sd, NUM_TEXTS), Curve([], []), design.k
    item_priors = None
    if design.embedding:
        embedding_N = EMBEDDING * theta_N + np.sqrt(1 - EMBEDDING**2) * rng.normal(0.0, sd, NUM_TEXTS)
        item_priors = ItemPriors(EMBEDDING * embedding_N, np.full(NUM_TEXTS, sd * np.sqrt(1 - EMBEDDING**2)))
    windows = plan(NUM_TEXTS, WindowsConfig(k=k, m=k), rng).items_WK
    orders, counts_NK = [], np.zeros((NUM_TEXTS, k), int)
    while True:
        orders += answered(theta_N, windows, design.log_probabilities, rng)
        counts_NK += np.stack([np.bincount(column, minlength=NUM_TEXTS) for column in windows.T], axis=1)
        fitted = fit(LikelihoodShard(NUM_TEXTS, orders), item_priors=item_priors)
        curve.calls.append(counts_NK.sum() / k / NUM_TEXTS)
        curve.spearman.append(float(spearmanr(fitted.theta_N, theta_N)[0]))
        if curve.calls[-1] >= MAX_CALLS - 0.1:
            return curve
        if design.mode == "balanced":
            windows = plan(NUM_TEXTS, WindowsConfig(k=k, m=2 * k), rng).items_WK
        elif design.mode == "swiss":
            windows = swiss_windows(fitted.theta_N, counts_NK, 2, rng)
        else:
            windows = next_windows(fitted.theta_N, fitted.root_NS, counts_NK, 2 if k == 2 else k, rng)


def needed(curve: Curve, goal: float) -> float:
    """Return the calls for each text at which the curve, made monotone, reaches a goal."""
    return float(np.interp(goal, np.maximum.accumulate(curve.spearman), curve.calls, right=np.inf))


def mean(curves: list[Curve]) -> Curve:
    at = np.array(curves[0].calls)
    return Curve(at.tolist(), np.mean([np.interp(at, c.calls, c.spearman) for c in curves], axis=0).tolist())


def draw(curves: dict[float, dict[str, Curve]], tokens: dict[int, float], path: str) -> None:
    figure = Figure(figsize=(11, 3.4 * len(curves)), layout="constrained")
    axes = figure.subplots(len(curves), 2, squeeze=False, sharey="row")
    for row, (sd, lines) in zip(axes, curves.items(), strict=True):
        for name, curve in lines.items():
            style = {"color": "0.5", "linestyle": "--"} if name == "balanced" else {}
            error = [1 - s for s in curve.spearman]
            row[0].plot(curve.calls, error, label=name, **style)
            row[1].plot(np.array(curve.calls) * tokens[DESIGNS[name].k], error, label=name, **style)
        row[0].axhline(1 - lines["balanced"].spearman[-1], color="0.8", linewidth=0.8)
        row[0].set(ylabel=f"1 - Spearman, spread {sd:g} nats", xlabel="calls for each text", yscale="log", xlim=(0, MAX_CALLS))
        row[1].set(xlabel="prompt tokens for each text", xlim=(0, MAX_CALLS * tokens[2]))
    axes[0, 1].legend(fontsize=8)
    figure.savefig(path)


def main() -> None:
    simulations = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    tokens = {k: tokens_per_window(k) for k in (2, 3, 5)}
    print("prompt tokens a window: " + ", ".join(f"k={k} {count:.0f}" for k, count in tokens.items()))
    curves: dict[float, dict[str, Curve]] = {}
    for sd in (1.5, 3.0, 5.0):
        with threadpool_limits(1):
            lines = {name: mean([run(design, sd, seed) for seed in range(simulations)]) for name, design in DESIGNS.items()}
        curves[sd] = lines
        goal = float(np.interp(MAX_CALLS, lines["balanced"].calls, lines["balanced"].spearman))
        print(f"\ntheta ~ N(0, {sd:g}²), {NUM_TEXTS} texts, {simulations} simulations: Spearman by calls for each text")
        print(f"{'':30}" + "".join(f"{mark:8g}" for mark in MARKS) + f"   calls, tokens for balanced's at {MAX_CALLS}")
        for name, line in lines.items():
            calls = needed(line, goal)
            share = (
                "not reached"
                if np.isinf(calls)
                else f"{calls / MAX_CALLS:.0%}, {calls * tokens[DESIGNS[name].k] / (MAX_CALLS * tokens[2]):.0%}"
            )
            marks = "".join(f"{np.interp(mark, line.calls, line.spearman):8.4f}" for mark in MARKS)
            print(f"{name:30}{marks}   {share}", flush=True)
    if len(sys.argv) > 2:
        draw(curves, tokens, sys.argv[2])


if __name__ == "__main__":
    main()
