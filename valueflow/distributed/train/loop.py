"""What every worker of a training runs: steps, checkpoints, resume.

B rows of a batch (of this worker; of all once gathered), D dimensions.
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

NUM_PREFETCHED = 4  # batches made before they are needed
SHARDS_TAG = "shards"  # the folder of DeepSpeed's files in a checkpoint
T = TypeVar("T")


class WorkerResult(NamedTuple):
    """What rank 0 says at the end: the files of the build, or why training was stopped."""

    files: list[File] = []
    stopped: str = ""


class TrainingDiverged(InputError):
    """A loss or gradient is no number any more; what has been learnt since the last checkpoint is lost."""


class ProgressActor:
    """Where rank 0 says how far it is; an actor, since what workers log does not reach the driver."""

    def __init__(self) -> None:
        self.step, self.note = -1, ""

    def tell(self, step: int, note: str) -> None:
        """Note the number of steps done."""
        self.step, self.note = step, note

    def told(self) -> tuple[int, str]:
        """Return the number of steps done, -1 before the first message, and a note."""
        return self.step, self.note


class Prefetcher:
    """Batches of one rank, drawn and tokenised ahead by a thread: the only one that may use the tokenizer."""

    def __init__(self, sampler: Sampler, encoder: Encoder, rank: int, world: int) -> None:
        self.sampler, self.encoder, self.rank, self.world = sampler, encoder, rank, world
        self.pool = ThreadPoolExecutor(1, "feed")
        self.waiting: dict[int, Future[tuple[Batch, dict[str, Tensor]]]] = {}

    def take(self, number: int) -> tuple[Batch, dict[str, Tensor]]:
        """Return the batch of this number, counted from 0, and start those after it."""
        for ahead in range(number, number + NUM_PREFETCHED):
            if ahead not in self.waiting:
                self.waiting[ahead] = self.pool.submit(self._make, ahead)
        return self.waiting.pop(number).result()

    def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """Return what `work` returns, run by the feed's thread."""
        return self.pool.submit(work, *arguments).result()

    def _make(self, number: int) -> tuple[Batch, dict[str, Tensor]]:
        batch = self.sampler.batch(number, self.rank, self.world)
        texts = self.sampler.examples.texts
        return batch, self.encoder.tokenize([texts[i] for i in batch.text_B.tolist()])


class EncoderWithHead(nn.Module):
    """What is trained: the encoder, and what reads nodes from its vectors, which is left behind in the end."""

    def __init__(self, encoder: Encoder, nodes: NodeHead | None) -> None:
        super().__init__()
        self.encoder, self.nodes = encoder, nodes

    def forward(self, **tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return vectors, and logits of nodes where they are read."""
        z_BD = self.encoder(**tokens)
        return z_BD, self.nodes(z_BD) if self.nodes else None


class Trainer:
    """One rank's part of a training: the engine, its batches, and a step of it."""

    def __init__(
        self, encoder: Encoder, sampler: Sampler, config: TrainHivesConfig, rank: int, world: int, device: torch.device
    ) -> None:
        self.config, self.rank, self.world, self.device = config, rank, world, device
        self.feed = Prefetcher(sampler, encoder, rank, world)
        if config.encoder.gradient_checkpointing:
            encoder.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        import deepspeed  # here, since the driver imports this file but not what takes seconds to import

        torch.manual_seed(config.seed)
        self.nodes = NodeHead(encoder.dimension, sampler.examples).to(device) if config.loss.nodes else None
        groups, self.times = _groups(encoder, self.nodes, config.optimizer.new)
        self.engine = deepspeed.initialize(
            model=EncoderWithHead(encoder, self.nodes),
            model_parameters=groups,  # type: ignore[arg-type]
            config=deepspeed_config(config),
            dist_init_required=False,
        )[0]
        self.engine.train()

    def step(self, step: int) -> dict[str, float]:
        """Return the loss and its parts, rate, norm of the gradient and seconds of a step, counted from 0.

        Raises:
            Diverged: a loss or the norm is no finite number.
        """
        started, waited = time.perf_counter(), 0.0
        config, engine = self.config, self.engine
        rate = learning_rate(config.optimizer, step)
        for group, times in zip(engine.optimizer.param_groups, self.times, strict=True):
            group["lr"] = rate * times
        found = []
        for number in range(step * config.optimizer.accumulation, (step + 1) * config.optimizer.accumulation):
            before = time.perf_counter()
            batch, tokens = self.feed.take(number)
            waited += time.perf_counter() - before
            # Dropout is a function of (seed, batch, rank), so that a resumed run drops what an unbroken one drops.
            torch.manual_seed(int(np.random.SeedSequence((config.seed, number, self.rank)).generate_state(1)[0]))
            labels = label_tensors(batch, self.device)
            z_BD, logit_BK = engine(**{name: tensor.to(self.device) for name, tensor in tokens.items()})
            loss, parts = total_loss(gather_embeddings(z_BD), gather_labels(labels), config.loss)
            of_nodes = self.nodes.loss(logit_BK, labels) if self.nodes else torch.zeros_like(loss)
            loss = loss + config.loss.nodes * of_nodes
            engine.backward(loss)
            own_norm = _norm(engine)
            engine.step()
            found.append(torch.stack([loss, *parts, of_nodes]).detach())
        names = ("loss", *parts._fields, "nodes")
        mean = torch.stack(found).mean(0)
        dist.all_reduce(mean)  # the loss of nodes is a rank's own; and all ranks see where one diverges
        row = dict(zip(names, (mean / self.world).tolist(), strict=True))
        norm = float(engine.get_global_grad_norm() or 0.0 if own_norm is None else own_norm)
        row |= {"learning_rate": rate, "gradient_norm": norm}
        if not (math.isfinite(row["loss"]) and math.isfinite(norm)):
            raise TrainingDiverged(_why(step, row, config))
        return {"step": step + 1, **row, "seconds": time.perf_counter() - started, "waited": waited}


def train_worker(settings: dict[str, TrainingTask]) -> WorkerResult:
    """Train from the last checkpoint, or from the start, to the last step; rank 0 measures and saves the encoder."""
    training = settings["training"]
    config, context = training.config, ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    device = ray.train.torch.get_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    data = ray.get(training.data)
    try:
        encoder = _agreed(lambda: _loaded(training, device), world)
    except InputError as error:
        return WorkerResult(stopped=str(error))
    learner = Trainer(encoder, Sampler(data.train, config.batch, config.seed), config, rank, world, device)
    first, curve = _restored(learner.engine)
    tracker = Tracker(config, training.build, first) if rank == 0 else None
    training.watch.tell.remote(first, "")
    told = time.monotonic()
    for step in range(first, config.optimizer.steps):
        try:
            row = learner.step(step)
        except TrainingDiverged as error:
            return WorkerResult(stopped=f"{error}. {_kept(training, step)}")
        done, last = step + 1, step + 1 == config.optimizer.steps
        if config.validation.every and done % config.validation.every == 0 and not last:
            row |= _measured(learner, training, data.validation)
        if tracker:
            curve.append(json.dumps(row))
            tracker.log(done, row)
        if tracker and (last or time.monotonic() - told > 1):
            training.watch.tell.remote(done, f", loss {row['loss']:.4f}")
            told = time.monotonic()
        if done % config.checkpoint_every == 0 or last:
            _save(learner.engine, done, curve)
            if tracker:
                tracker.flush()
    trained = _whole(learner.engine, training)
    if tracker is None or trained is None:
        return WorkerResult()
    files, scalars = learner.feed.run(export_encoder, trained, training, data, curve)
    tracker.log(config.optimizer.steps, scalars, always=True)
    tracker.close()
    return WorkerResult(files)


def _loaded(training: TrainingTask, device: torch.device) -> Encoder:
    """The encoder that training starts from."""
    config = training.config
    if config.bf16 and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise InputError(f"{torch.cuda.get_device_name(device)} has no bfloat16; set precision=float32")
    torch.manual_seed(config.seed)  # low-rank additions start at random
    encoder = load_start(config.encoder, training.start)
    if config.encoder.gradient_checkpointing and not encoder.model.supports_gradient_checkpointing:
        raise InputError(f"{config.encoder.model} knows no gradient checkpointing; set encoder.gradient_checkpointing=false")
    return encoder


def _agreed(make: Callable[[], T], world: int) -> T:
    """Return what `make` returns; InputError on every rank where it is raised on one, so that none waits for the others."""
    made, errors = [], [""] * world
    try:
        made.append(make())
        error = ""
    except InputError as refused:
        error = str(refused)
    dist.all_gather_object(errors, error)
    for found in filter(None, errors):
        raise InputError(found)
    return made[0]


def _groups(encoder: Encoder, nodes: NodeHead | None, times: float) -> tuple[list[dict[str, Any]], list[float]]:
    """The parameters that are trained, and how many times the rate each group learns; biases and norms are not drawn to 0."""
    new = [p for part in (encoder.dense, nodes) if part is not None for p in part.parameters()]
    old = [p for p in encoder.model.parameters() if p.requires_grad]
    made: list[tuple[dict[str, Any], float]] = []
    for parameters, faster in ((old, 1.0), (new, times)):
        made.append(({"params": [p for p in parameters if p.dim() >= 2]}, faster))
        made.append(({"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0}, faster))
    kept = [(group, faster) for group, faster in made if group["params"]]
    return [group for group, _ in kept], [faster for _, faster in kept]


def _norm(engine: Any) -> Tensor | None:
    """The norm of the gradient where DeepSpeed does not tell it: in single precision without ZeRO."""
    if engine.zero_optimization() or engine.bfloat16_enabled():
        return None
    return torch.nn.utils.get_total_norm([p.grad for p in engine.module.parameters() if p.grad is not None])


def _why(step: int, row: dict[str, float], config: TrainHivesConfig) -> str:
    parts = ", ".join(f"{name} {row[name]:g}" for name in ("hierarchy", "individual", "concept", "closeness", "nodes"))
    bf16 = ", or set precision=float32" if config.bf16 else ""
    return (
        f"step {step + 1}: the loss is {row['loss']:g} ({parts}), the norm of the gradient {row['gradient_norm']:g}, the "
        f"learning rate {row['learning_rate']:g}. Lower optimizer.lr ({config.optimizer.lr:g}) or loss.margin "
        f"({config.loss.margin:g}), raise optimizer.warmup ({config.optimizer.warmup:g}){bf16}"
    )


def _kept(training: TrainingTask, step: int) -> str:
    done = step - step % training.config.checkpoint_every
    return f"The checkpoint of step {done} is kept in {training.checkpoints}" if done else "There is no checkpoint yet"


def _save(engine: Any, done: int, curve: list[str]) -> None:
    """Report a checkpoint: every rank's shards, and the curve so far."""
    with tempfile.TemporaryDirectory() as folder:
        engine.save_checkpoint(folder, tag=SHARDS_TAG, client_state={"done": done}, save_latest=False)
        if curve:
            (Path(folder) / CURVE_FILE).write_text("\n".join(curve) + "\n", "utf-8")
        checkpoint = Checkpoint.from_directory(folder)
        ray.train.report({"step": done}, checkpoint=checkpoint, checkpoint_dir_name=f"step-{done:09d}")


def _restored(engine: Any) -> tuple[int, list[str]]:
    """How many steps are done, and their curve; (0, nothing) without a checkpoint."""
    found = ray.train.get_checkpoint()
    if found is None:
        return 0, []
    with found.as_directory() as folder:
        _, state = engine.load_checkpoint(folder, tag=SHARDS_TAG)
        return state["done"], (Path(folder) / CURVE_FILE).read_text("utf-8").splitlines()


def _measured(learner: Trainer, training: TrainingTask, validation: Any) -> dict[str, float]:
    """The metrics of the encoder as it is now, on rank 0."""
    encoder = _whole(learner.engine, training)
    if encoder is None or learner.rank:
        return {}
    found = embedding_metrics(learner.feed.run(encoder.embed, validation.texts), validation, seed=training.config.seed)
    return {f"validation/{name}": metric.value for name, metric in found.items()}


def _whole(engine: Any, training: TrainingTask) -> Encoder | None:
    """The encoder with all its weights; under ZeRO stage 3, where no rank has them, on rank 0 only, else None."""
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
