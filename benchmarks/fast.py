"""Mode fast on held-out texts: coverage and width of its 95 % intervals, Spearman, mean absolute error; and its speed.

OMP_NUM_THREADS=1 python -m benchmarks.fast ROOT [MODEL]    # the version published under ROOT; MODEL: default MiniLM
python -m benchmarks.fast ROOT [MODEL] ranked                # also mode ranked with a vLLM judge (CPU: SmolLM2)

Ten times, a random tenth of the texts (near-duplicates together) is held out and the model is fitted on the rest. By value and
pooled: the number of held-out texts, coverage of the intervals, mean width after clipping, Spearman (pooled: mean over values),
and mean absolute error of the model and of a baseline that predicts the value's mean; `stated` is the coverage that the fit
itself reports. Then seconds to fit, and texts per second of embedding and of regression on all values. With `ranked`: texts
per second of one value (k=6, m=3) with a running vLLM engine of known sharpness, those of mode fast on the same texts
(embedding included), and their ratio.
"""

import asyncio
import sys
import time

import numpy as np
import torch
from scipy.stats import spearmanr

from valueflow import api, vidb
from valueflow.cli.backend import read_judge
from valueflow.distributed.embed import Embedder, EmbedderConfig
from valueflow.evaluation.regression import IntensityRegression, TrainingTexts, fit, training_texts
from valueflow.hives.encoder import Encoder
from valueflow.hives.near_duplicates import near_duplicates
from valueflow.llm.configs import VllmModel
from valueflow.models import MINILM
from valueflow.service.local import LOCAL_LIMITS
from valueflow.service.service import Service
from valueflow.vidb.version import Vidb

SPLITS, TIMED, RANKED = 10, 500, 32
RANKED_BY = "conf/build_vidb/tiny-llm.yaml"


def held_out(z_ND: np.ndarray, unit_N: np.ndarray, training: dict[str, TrainingTexts], seed: int) -> dict[str, np.ndarray]:
    """Truth, prediction, low, high, baseline and stated coverage of each value's held-out texts, shape (6, texts)."""
    out_U = np.random.default_rng(seed).permutation(int(unit_N.max()) + 1) % SPLITS == 0
    out_N = out_U[unit_N]
    remaining = {v: TrainingTexts(t.text_M[~out_N[t.text_M]], t.intensity_M[~out_N[t.text_M]]) for v, t in training.items()}
    fits = fit(z_ND, unit_N, remaining, seed)
    fast = IntensityRegression(
        "", "", {v: line for v, (line, _) in fits.items()}, {v: agreement for v, (_, agreement) in fits.items()}
    )
    rows = {}
    for value in fast.lines:
        text_M, y_M = training[value]
        chosen = out_N[text_M]
        predictions = fast(z_ND[text_M[chosen]], value)
        same = np.ones(chosen.sum())
        baseline, stated = remaining[value].intensity_M.mean() * same, fast.agreement[value].coverage * same
        rows[value] = np.stack([y_M[chosen], *predictions, baseline, stated])
    return rows


def line(name: str, rows: np.ndarray, spearman: float) -> str:
    y, predicted, low, high, baseline, stated = rows
    covered = ((low <= y) & (y <= high)).mean()
    error, baseline_error = np.abs(predicted - y).mean(), np.abs(baseline - y).mean()
    return (
        f"{name:28}{len(y):6,} {covered:9.3f} {stated.mean():7.3f} {(high - low).mean():6.2f} {spearman:9.3f} {error:6.2f} "
        f"{baseline_error:9.2f}"
    )


async def ranked(version: Vidb, texts: list[str], value: str) -> float:
    """Texts per second of mode ranked."""
    from valueflow.distributed.vllm_engine import OnlineEngine

    judge = read_judge(RANKED_BY)
    assert isinstance(judge, VllmModel)
    judge = judge.model_copy(update={"engine": judge.engine | {"max_model_len": 2048}})  # six texts of the demo
    engine = OnlineEngine(judge)
    service = Service(version, judge, engine, LOCAL_LIMITS)
    await service.score(api.ScoreRequest(texts=["A first text."], values=[value]), "warm")
    started = time.monotonic()
    await service.score(api.ScoreRequest(texts=texts, values=[value]), "timed")
    seconds = time.monotonic() - started
    engine.engine.shutdown()
    return len(texts) / seconds


def compare(version: Vidb, fast: IntensityRegression, encoder: Encoder, texts: list[str]) -> None:
    """Print both modes' texts per second."""
    value = next(iter(fast.lines))
    slow = asyncio.run(ranked(version, texts, value))
    torch.set_num_threads(2)  # as many as the engine has
    encoder.embed(texts)
    started = time.monotonic()
    fast(encoder.embed(texts), value)
    quick = len(texts) / (time.monotonic() - started)
    print(f"{value}, {len(texts)} texts: ranked by SmolLM2 {slow:.2f}/s, fast {quick:.1f}/s, {quick / slow:.0f} times")


def main() -> None:
    torch.set_num_threads(1)
    words = [word for word in sys.argv[2:] if word != "ranked"]
    version, model = vidb.load(sys.argv[1]), (words or [MINILM])[0]
    encoder = Embedder(EmbedderConfig(model=model)).encoder
    texts, training = training_texts(version)
    timed = texts[:TIMED]
    encoder.embed(timed[:64])
    started = time.monotonic()
    encoder.embed(timed)
    embedding = time.monotonic() - started
    z_ND, unit_N = encoder.embed(texts), np.unique(near_duplicates(texts), return_inverse=True)[1]

    print(f"VIDB {version.build.build_id}: {len(texts):,} texts, {len(training)} values; {SPLITS} splits; {model}")
    print(f"{'value':28}{'texts':>6} {'coverage':>9} {'stated':>7} {'width':>6} {'Spearman':>9} {'error':>6} {'baseline':>9}")
    splits = [held_out(z_ND, unit_N, training, seed) for seed in range(SPLITS)]
    values = sorted({value for rows in splits for value in rows})
    pooled = {value: np.concatenate([rows[value] for rows in splits if value in rows], axis=1) for value in values}
    spearman = {value: float(spearmanr(*rows[:2]).statistic) for value, rows in pooled.items()}
    for value, rows in pooled.items():
        print(line(value, rows, spearman[value]))
    print(line("all", np.concatenate(list(pooled.values()), axis=1), float(np.mean(list(spearman.values())))))

    started = time.monotonic()
    fits = fit(z_ND, unit_N, training, 0)
    fitting = time.monotonic() - started
    fast = IntensityRegression(model, version.build.build_id, {v: line_ for v, (line_, _) in fits.items()}, {})
    started = time.monotonic()
    for value in fast.lines:
        fast(z_ND[: len(timed)], value)
    regression = time.monotonic() - started
    print(
        f"fit {fitting:.1f} s; embedding {len(timed) / embedding:,.0f} texts/s, regression on {len(fast.lines)} values "
        f"{len(timed) / regression:,.0f} texts/s, together {len(timed) / (embedding + regression):,.0f} texts/s, one thread"
    )
    if "ranked" in sys.argv:
        compare(version, fast, encoder, texts[:RANKED])


if __name__ == "__main__":
    main()
