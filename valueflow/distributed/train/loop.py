"""Training worker: steps, checkpoints, resume.

B rows of a batch (of this worker; of all once gathered), D dimensions, K classes of the node head.
"""

import json
import logging
import math
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import ray
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from ray.train import Checkpoint
from torch import Tensor, nn

from valueflow.distributed.train.config import TrainHivesConfig, deepspeed_config, learning_rate
from valueflow.distributed.train.export import CURVE_FILE, TrainingTask, export_encoder, load_start
from valueflow.distributed.train.tracking import Tracker
from valueflow.errors import InputError
from valueflow.hives.batches import Batch, Sampler
from valueflow.hives.collectives import gather_embeddings, gather_labels
from valueflow.hives.encoder import Encoder
from valueflow.hives.losses import NodeHead, label_tensors, total_loss
from valueflow.hives.metrics import embedding_metrics
from valueflow.store import File

log = logging.getLogger(__name__)

NUM_PREFETCHED = 4  # batches prepared in advance
SHARDS_TAG = "shards"  # folder of DeepSpeed's files in a checkpoint
T = TypeVar("T")


class WorkerResult(NamedTuple):
    """Result of rank 0: the files of the build, or the error that stopped training."""

    files: list[File] = []
    stopped: str = ""


class TrainingDiverged(InputError):
    """A loss or gradient is not finite; steps since the last checkpoint are lost."""


class ProgressActor:
    """Progress as reported by rank 0; an actor, since logs of workers do not reach the driver."""

    def __init__(self) -> None:
        self.step, self.note = -1, ""

    def update(self, step: int, note: str) -> None:
        """Record the number of steps done."""
        self.step, self.note = step, note

    def latest(self) -> tuple[int, str]:
        """Return the number of steps done, -1 before the first message, and a note."""
        return self.step, self.note


class Prefetcher:
    """Draws and tokenizes the batches of one process in advance, in the only thread that may use the tokenizer."""

    def __init__(self, sampler: Sampler, encoder: Encoder, rank: int, world: int) -> None:
        self.sampler, self.encoder, self.rank, self.world = sampler, encoder, rank, world
        self.pool = ThreadPoolExecutor(1, "prefetch")
        self.pending: dict[int, Future[tuple[Batch, dict[str, Tensor]]]] = {}
        self.num_texts = self.num_truncated = 0  # drawn; as long as the encoder reads, or longer

    def take(self, number: int) -> tuple[Batch, dict[str, Tensor]]:
        """Return a batch by its number, counted from 0, and schedule the next ones."""
        for ahead in range(number, number + NUM_PREFETCHED):
            if ahead not in self.pending:
                self.pending[ahead] = self.pool.submit(self._prepare, ahead)
        return self.pending.pop(number).result()

    def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """Return the result of `work`, run in the prefetching thread."""
        return self.pool.submit(work, *arguments).result()

    def _prepare(self, number: int) -> tuple[Batch, dict[str, Tensor]]:
        batch = self.sampler.batch(number, self.rank, self.world)
        texts = self.sampler.examples.texts
        tokens = self.encoder.tokenize([texts[i] for i in batch.text_B.tolist()])
        self.num_texts += len(batch.text_B)
        self.num_truncated += int((tokens["attention_mask"].sum(1) >= self.encoder.max_length).sum())
        return batch, tokens


class EncoderWithHead(nn.Module):
    """The trained module: the encoder and its node head, which is discarded after training."""

    def __init__(self, encoder: Encoder, nodes: NodeHead | None) -> None:
        super().__init__()
        self.encoder, self.nodes = encoder, nodes  # these names are in the checkpoints of unfinished trainings

    def forward(self, **tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return vectors, and logits of the node head if there is one."""
        z_BD = self.encoder(**tokens)
        return z_BD, self.nodes(z_BD) if self.nodes else None


class Trainer:
    """One process of a training: DeepSpeed engine, prefetched batches, and the training step."""

    def __init__(
        self, encoder: Encoder, sampler: Sampler, config: TrainHivesConfig, rank: int, world: int, device: torch.device
    ) -> None:
        self.config, self.rank, self.world, self.device = config, rank, world, device
        self.prefetcher = Prefetcher(sampler, encoder, rank, world)
        if config.encoder.gradient_checkpointing:
            encoder.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        import deepspeed  # here, since it takes seconds to import and the driver imports this file

        # For processes on CPUs DeepSpeed would compile operations in shared memory, for minutes; gloo does what they do.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        torch.manual_seed(config.seed)
        self.node_head = NodeHead(encoder.dimension, sampler.examples).to(device) if config.loss.nodes else None
        groups, self.lr_multipliers = _parameter_groups(encoder, self.node_head, config.optimizer.new)
        self.engine = deepspeed.initialize(
            model=EncoderWithHead(encoder, self.node_head),
            model_parameters=groups,  # type: ignore[arg-type]
            config=deepspeed_config(config),
            dist_init_required=False,
        )[0]
        self.engine.train()

    def step(self, step: int) -> dict[str, float]:
        """Return loss and its parts, learning rate, gradient norm and seconds of a step, counted from 0.

        Raises:
            Diverged: a loss or the norm is no finite number.
        """
        started, waited = time.perf_counter(), 0.0
        config, engine = self.config, self.engine
        rate = learning_rate(config.optimizer, step)
        for group, multiplier in zip(engine.optimizer.param_groups, self.lr_multipliers, strict=True):
            group["lr"] = rate * multiplier
        losses = []
        for number in range(step * config.optimizer.accumulation, (step + 1) * config.optimizer.accumulation):
            before = time.perf_counter()
            batch, tokens = self.prefetcher.take(number)
            waited += time.perf_counter() - before
            # Dropout is a function of (seed, batch, rank), so a resumed run has the masks of an uninterrupted one.
            torch.manual_seed(int(np.random.SeedSequence((config.seed, number, self.rank)).generate_state(1)[0]))
            labels = label_tensors(batch, self.device)
            z_BD, logit_BK = engine(**{name: tensor.to(self.device) for name, tensor in tokens.items()})
            loss, parts = total_loss(gather_embeddings(z_BD), gather_labels(labels), config.loss)
            node_loss = self.node_head.loss(logit_BK, labels) if self.node_head else torch.zeros_like(loss)
            loss = loss + config.loss.nodes * node_loss
            engine.backward(loss)
            local_norm = _gradient_norm(engine)
            engine.step()
            losses.append(torch.stack([loss, *parts, node_loss]).detach())
        names = ("loss", *parts._fields, "nodes")
        mean = torch.stack(losses).mean(0)
        dist.all_reduce(mean)  # the node loss is per process; and every process must see a divergence
        row = dict(zip(names, (mean / self.world).tolist(), strict=True))
        norm = float(engine.get_global_grad_norm() or 0.0 if local_norm is None else local_norm)
        row |= {"learning_rate": rate, "gradient_norm": norm}
        if not (math.isfinite(row["loss"]) and math.isfinite(norm)):
            raise TrainingDiverged(_divergence_message(step, row, config))
        return {"step": step + 1, **row, "seconds": time.perf_counter() - started, "waited": waited}


def train_worker(settings: dict[str, TrainingTask]) -> WorkerResult:
    """Train from the last checkpoint, or from the start, to the last step; rank 0 evaluates and saves the encoder."""
    training = settings["training"]
    config, context = training.config, ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    device = ray.train.torch.get_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    data = ray.get(training.data)
    try:
        encoder = _on_every_process(lambda: _load_encoder(training, device), world)
    except InputError as error:
        return WorkerResult(stopped=str(error))
    trainer = Trainer(encoder, Sampler(data.train, config.batch, config.seed), config, rank, world, device)
    first, curve = _restore(trainer.engine)
    tracker = Tracker(config, training.build, first) if rank == 0 else None
    training.progress.update.remote(first, "")
    reported = time.monotonic()
    for step in range(first, config.optimizer.steps):
        try:
            row = trainer.step(step)
        except TrainingDiverged as error:
            return WorkerResult(stopped=f"{error}. {_checkpoint_hint(training, step)}")
        done, last = step + 1, step + 1 == config.optimizer.steps
        if config.validation.every and done % config.validation.every == 0 and not last:
            row |= _validation_metrics(trainer, training, data.validation)
        if tracker:
            curve.append(json.dumps(row))
            tracker.log(done, row)
        if tracker and (last or time.monotonic() - reported > 1):
            training.progress.update.remote(done, f", loss {row['loss']:.4f}")
            reported = time.monotonic()
        if done % config.checkpoint_every == 0 or last:
            _save_checkpoint(trainer.engine, done, curve)
            if tracker:
                tracker.flush()
    drawn = trainer.prefetcher
    if drawn.num_truncated:
        log.warning(
            "of %d texts drawn, %d filled max_length (%d tokens); training reads no further. Raise encoder.max_length, or "
            "split long texts", drawn.num_texts, drawn.num_truncated, encoder.max_length,
        )  # fmt: skip
    full_encoder = _gathered_encoder(trainer.engine, training)
    if tracker is None or full_encoder is None:
        return WorkerResult()
    files, scalars = trainer.prefetcher.run(export_encoder, full_encoder, training, data, curve)
    tracker.log(config.optimizer.steps, scalars, always=True)
    tracker.close()
    return WorkerResult(files)


def _load_encoder(training: TrainingTask, device: torch.device) -> Encoder:
    """The encoder that training starts from."""
    config = training.config
    if config.bf16 and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise InputError(f"{torch.cuda.get_device_name(device)} has no bfloat16; set precision=float32")
    torch.manual_seed(config.seed)  # low-rank additions are initialized at random
    encoder = load_start(config.encoder, training.start)
    if config.encoder.gradient_checkpointing and not encoder.model.supports_gradient_checkpointing:
        raise InputError(
            f"{config.encoder.model} does not support gradient checkpointing; set encoder.gradient_checkpointing=false"
        )
    return encoder


def _on_every_process(make: Callable[[], T], world: int) -> T:
    """Return what `make` returns; an InputError of one process is raised on all, so that none waits for the others."""
    results, errors = [], [""] * world
    try:
        results.append(make())
        error = ""
    except InputError as failure:
        error = str(failure)
    dist.all_gather_object(errors, error)
    for message in filter(None, errors):
        raise InputError(message)
    return results[0]


def _parameter_groups(
    encoder: Encoder, node_head: NodeHead | None, multiplier: float
) -> tuple[list[dict[str, Any]], list[float]]:
    """The parameter groups with the learning-rate multiplier of each; biases and norms have no weight decay."""
    fresh = [p for part in (encoder.dense, node_head) if part is not None for p in part.parameters()]
    pretrained = [p for p in encoder.model.parameters() if p.requires_grad]
    groups: list[tuple[dict[str, Any], float]] = []
    for parameters, rate in ((pretrained, 1.0), (fresh, multiplier)):
        groups.append(({"params": [p for p in parameters if p.dim() >= 2]}, rate))
        groups.append(({"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0}, rate))
    groups = [(group, rate) for group, rate in groups if group["params"]]
    return [group for group, _ in groups], [rate for _, rate in groups]


def _gradient_norm(engine: Any) -> Tensor | None:
    """The gradient norm in single precision without ZeRO, where DeepSpeed does not report it; else None."""
    if engine.zero_optimization() or engine.bfloat16_enabled():
        return None
    return torch.nn.utils.get_total_norm([p.grad for p in engine.module.parameters() if p.grad is not None])


def _divergence_message(step: int, row: dict[str, float], config: TrainHivesConfig) -> str:
    parts = ", ".join(f"{name} {row[name]:g}" for name in ("hierarchy", "individual", "concept", "closeness", "nodes"))
    bf16 = ", or set precision=float32" if config.bf16 else ""
    return (
        f"step {step + 1}: the loss is {row['loss']:g} ({parts}), the gradient norm {row['gradient_norm']:g}, the "
        f"learning rate {row['learning_rate']:g}. Lower optimizer.lr ({config.optimizer.lr:g}) or loss.margin "
        f"({config.loss.margin:g}), raise optimizer.warmup ({config.optimizer.warmup:g}){bf16}"
    )


def _checkpoint_hint(training: TrainingTask, step: int) -> str:
    done = step - step % training.config.checkpoint_every
    return f"The checkpoint of step {done} is in {training.checkpoints}" if done else "There is no checkpoint yet"


def _save_checkpoint(engine: Any, done: int, curve: list[str]) -> None:
    """Report a checkpoint: the shards of every process, and the curve so far."""
    with tempfile.TemporaryDirectory() as folder:
        engine.save_checkpoint(folder, tag=SHARDS_TAG, client_state={"done": done}, save_latest=False)
        if curve:
            (Path(folder) / CURVE_FILE).write_text("\n".join(curve) + "\n", "utf-8")
        checkpoint = Checkpoint.from_directory(folder)
        ray.train.report({"step": done}, checkpoint=checkpoint, checkpoint_dir_name=f"step-{done:09d}")


def _restore(engine: Any) -> tuple[int, list[str]]:
    """The number of steps done and their curve; (0, []) without a checkpoint."""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return 0, []
    with checkpoint.as_directory() as folder:
        _, state = engine.load_checkpoint(folder, tag=SHARDS_TAG)
        return state["done"], (Path(folder) / CURVE_FILE).read_text("utf-8").splitlines()


def _validation_metrics(trainer: Trainer, training: TrainingTask, validation: Any) -> dict[str, float]:
    """The metrics of the current encoder, computed on rank 0."""
    encoder = _gathered_encoder(trainer.engine, training)
    if encoder is None or trainer.rank:
        return {}
    metrics = embedding_metrics(trainer.prefetcher.run(encoder.embed, validation.texts), validation, seed=training.config.seed)
    return {f"validation/{name}": metric.value for name, metric in metrics.items()}


def _gathered_encoder(engine: Any, training: TrainingTask) -> Encoder | None:
    """The encoder with all its weights; under ZeRO stage 3 gathered on rank 0, None on other ranks."""
    if engine.zero_optimization_stage() < 3:
        return engine.module.encoder
    import deepspeed

    weights = {}
    for name, parameter in engine.module.encoder.named_parameters():
        with deepspeed.zero.GatheredParameters([parameter]):
            if engine.global_rank == 0:
                weights[name] = parameter.detach().cpu().clone()
    if engine.global_rank:
        return None
    encoder = load_start(training.config.encoder, training.start)
    encoder.load_state_dict(encoder.state_dict() | weights)
    return encoder.to(device=engine.device, dtype=next(iter(weights.values())).dtype)
