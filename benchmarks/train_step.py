"""Seconds of our training step and of a bare PyTorch loop, and the share of time spent on drawing batches.

python -m benchmarks.train_step [steps] [hierarchy]    # default: 30 steps of 32 rows

One process, MiniLM, the sample corpus, texts cut at 64 tokens. Ours: DeepSpeed (ZeRO stage 2, and none), gathered embeddings,
batches drawn and tokenised ahead, checks of loss and gradient. Bare: the same model, batches, loss, fused AdamW and clipping,
everything in turn. They take steps in turn, on the same batch; medians. `sampler`: drawing alone; `prefetcher`: drawing and
tokenizing.
"""

import csv
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from valueflow.distributed.train.config import TrainHivesConfig
from valueflow.distributed.train.loop import Trainer
from valueflow.hives.batches import Sampler
from valueflow.hives.encoder import Encoder
from valueflow.hives.examples import OFFICIAL_COLUMNS, Examples, read_official
from valueflow.hives.losses import label_tensors, total_loss
from valueflow.models import MINILM
from valueflow.tabular import strict_rows

SAMPLE = Path(__file__).parents[1] / "valueflow" / "samples" / "corpus.csv"
LENGTH = 64


def examples(folder: Path) -> Examples:
    path = folder / "official.csv"
    with path.open("w", encoding="utf-8", newline="") as write:
        writer = csv.DictWriter(write, OFFICIAL_COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(row.fields | {"level_1": row.fields["value"]} for row in strict_rows(str(SAMPLE), ["value"]))
    return read_official(str(path))


def bare(sampler: Sampler, config: TrainHivesConfig) -> Callable[[int], None]:
    encoder = Encoder.load(MINILM, max_length=LENGTH).train()
    rates = {"lr": config.optimizer.lr, "weight_decay": config.optimizer.weight_decay}
    optimizer = torch.optim.AdamW(encoder.parameters(), **rates, fused=True)
    texts = sampler.examples.texts

    def step(number: int) -> None:
        batch = sampler.batch(number)
        z_BD = encoder(**encoder.tokenize([texts[i] for i in batch.text_B.tolist()]))
        loss, _ = total_loss(z_BD, label_tensors(batch), config.loss)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), config.optimizer.clip)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()

    return step


def seconds(work: Callable[[int], object], number: int) -> float:
    started = time.perf_counter()
    work(number)
    return time.perf_counter() - started


def settings(steps: int, rows: int, stage: int) -> TrainHivesConfig:
    base = {"root": "unused", "stage": 1, "encoder": {"model": MINILM, "max_length": LENGTH}, "batch": {"hierarchy": rows}}
    zero = {"zero_optimization": {"stage": stage}}
    return TrainHivesConfig.model_validate(base | {"optimizer": {"steps": 10 * steps}, "deepspeed": zero})


def main() -> None:
    steps, rows = [int(word) for word in sys.argv[1:]] + [30, 32][len(sys.argv) - 1 :]
    config = settings(steps, rows, 2)
    os.environ["LOCAL_RANK"] = "0"  # required by DeepSpeed
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
        sampler = Sampler(examples(Path(folder)), config.batch, config.seed)
        trainers = [
            Trainer(Encoder.load(MINILM, max_length=LENGTH), sampler, settings(steps, rows, stage), 0, 1, torch.device("cpu"))
            for stage in (2, 0)
        ]
        drawn = np.median([seconds(sampler.batch, number) for number in range(1000)])
        fed = np.median([seconds(trainers[0].prefetcher._prepare, number) for number in range(200)])
        loops = {"ours, ZeRO-2": trainers[0].step, "ours, no ZeRO": trainers[1].step, "bare": bare(sampler, config)}
        times = {name: [] for name in loops}
        for number in range(steps + 3):  # three to warm up
            for name in list(loops)[:: 1 if number % 2 else -1]:
                times[name].append(seconds(loops[name], number))
        dist.destroy_process_group()
    took = {name: np.array(seconds_[3:]) for name, seconds_ in times.items()}
    print(f"{steps} steps of {rows} rows, {torch.get_num_threads()} thread(s)")
    for name, seconds_ in took.items():
        ratio = np.median(seconds_ / took["bare"])
        print(f"{name:14} {np.median(seconds_) * 1e3:6.0f} ms a step, {ratio:.3f} of the bare loop (goal: at most 1.15)")
    step = np.median(took["ours, ZeRO-2"])
    print(f"sampler {drawn * 1e3:.2f} ms, {drawn / step:.2%} of a step (goal: below 2 %)")
    print(f"prefetcher {fed * 1e3:.1f} ms, {fed / step:.1%} of a step, in advance by a thread")


if __name__ == "__main__":
    main()
