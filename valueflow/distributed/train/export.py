"""Write the results of a training: sentence-transformers folder, model card, metrics, curve and page."""

import functools
import json
import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from ray import ObjectRef
from ray.actor import ActorHandle

from valueflow import __version__, store
from valueflow.config import Config
from valueflow.distributed.embed import Embedder, EmbedderConfig
from valueflow.distributed.train.config import EncoderConfig, TrainHivesConfig
from valueflow.distributed.train.data import TrainingData
from valueflow.errors import InputError
from valueflow.hives.encoder import Encoder, Pooling
from valueflow.hives.metrics import EmbeddingMetric, embedding_metrics, value_vectors
from valueflow.models import fetch
from valueflow.report.model_card import metrics_table, model_card
from valueflow.report.training_page import training_page
from valueflow.store import Build, File

MODEL_FOLDER, METRICS_FILE, CURVE_FILE, TRAINING_FILE, PAGE_FILE = (
    "model",
    "metrics.json",
    "steps.jsonl",
    "training.json",
    "report.html",
)


class TrainingRecord(Config):
    """How a model folder was trained (training.json)."""

    build_id: str
    stage: int
    model: str
    revision: str
    max_length: int
    pooling: Pooling
    prompt: str
    dense: int = 0


class TrainingTask(NamedTuple):
    """Arguments of a training worker."""

    config: TrainHivesConfig
    build: Build
    start: str  # URL of stage 1's model folder; "" in stage 1
    checkpoints: str  # URL of their folder
    data: ObjectRef  # to a TrainingData
    data_id: str
    progress: ActorHandle  # of a ProgressActor


def load_start(config: EncoderConfig, start: str) -> Encoder:
    """Return the encoder that a training starts from: the base model, or with `start` the encoder of stage 1."""
    if not start:
        return Encoder.load(
            config.model, config.revision, config.max_length, config.pooling, config.prompt, config.lora, config.dense
        )
    return Encoder.load(fetch(start), "", config.max_length, config.pooling, config.prompt, config.lora, config.dense)


def read_training_record(url: str) -> TrainingRecord:
    """Return the training record of a model folder; InputError where it has none."""
    try:
        return store.read_record(f"{url}/{TRAINING_FILE}", TrainingRecord, "a training record")
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{url} has no {TRAINING_FILE}, so it is not a model folder of jobs.train_hives") from None


def export_encoder(
    encoder: Encoder, training: TrainingTask, data: TrainingData, curve: list[str]
) -> tuple[list[File], dict[str, float]]:
    """Write model, card, metrics, curve and page into the build; return the files and the encoder's validation metrics."""
    config, validation = training.config, data.validation
    z_TD = encoder.embed(validation.texts)
    metrics = {config.card.name: embedding_metrics(z_TD, validation, seed=config.seed)}
    device = next(encoder.parameters()).device
    without_lora = config.encoder.model_copy(update={"lora": None})
    compared: dict[str, Callable[[], Encoder]] = (
        {"stage 1": lambda: load_start(without_lora, training.start)} if training.start else {}
    )
    compared[config.encoder.model] = lambda: load_start(without_lora.model_copy(update={"dense": 0}), "")
    compared |= {name: functools.partial(_load_other, name) for name in config.validation.beside}
    for name, load in compared.items():
        metrics[name] = embedding_metrics(load().to(device).embed(validation.texts), validation, seed=config.seed)
    measured_on = f"{len(validation.texts):,} validation texts of the same sources (data {training.data_id})"
    settings = _settings(config, training.start)
    losses = [json.loads(row)["loss"] for row in curve]
    page = training_page(
        config.card.name, metrics, *value_vectors(z_TD, validation), losses, data.corpora, settings, measured_on
    )
    card = model_card(
        name=config.card.name,
        base=config.encoder.model,
        license_=config.card.license,
        corpora=data.corpora,
        settings=settings,
        encoders=metrics,
        measured_on=measured_on,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        encoder.save(path / MODEL_FOLDER, card)
        store.write_record(str(path / MODEL_FOLDER / TRAINING_FILE), _training_record(training))
        (path / METRICS_FILE).write_text(json.dumps(_without_nan(metrics), indent=1), "utf-8")
        (path / PAGE_FILE).write_text(page, "utf-8")
        (path / CURVE_FILE).write_text("\n".join(curve) + "\n", "utf-8")
        files = [_upload(training.build, path, file) for file in sorted(path.rglob("*")) if file.is_file()]
    return files, {f"validation/{name}": metric.value for name, metric in metrics[config.card.name].items()}


def _load_other(model: str) -> Encoder:
    return Embedder(EmbedderConfig(model=model)).encoder


def read_metrics(build: Build) -> dict[str, dict[str, EmbeddingMetric]]:
    """Return the metrics of a finished build, by encoder and metric."""
    return store.read_listed(build, METRICS_FILE, _metrics_of, (AttributeError, TypeError), "a file of metrics")


def _metrics_of(content: bytes) -> dict[str, dict[str, EmbeddingMetric]]:
    numbers: Mapping[str, Mapping[str, Mapping[str, Any]]] = store.unsealed(content).content
    return {
        encoder: {
            name: EmbeddingMetric(**{key: math.nan if value is None else value for key, value in metric.items()})
            for name, metric in metrics.items()
        }
        for encoder, metrics in numbers.items()
    }


def overall_metrics_table(metrics: dict[str, dict[str, EmbeddingMetric]]) -> str:
    """Return a table of the metrics over all theories, one column per encoder."""
    means = {encoder: {n: m for n, m in by_name.items() if "/" not in n} for encoder, by_name in metrics.items()}
    return metrics_table(means)


def _without_nan(metrics_by_encoder: dict[str, dict[str, EmbeddingMetric]]) -> dict[str, Any]:
    return {
        encoder: {
            name: {key: None if math.isnan(value) else value for key, value in metric._asdict().items()}
            for name, metric in metrics.items()
        }
        for encoder, metrics in metrics_by_encoder.items()
    }


def _training_record(training: TrainingTask) -> TrainingRecord:
    encoder = training.config.encoder
    return TrainingRecord(
        build_id=training.build.build_id,
        stage=training.config.stage,
        model=encoder.model,
        revision=encoder.revision,
        max_length=encoder.max_length,
        pooling=encoder.pooling,
        prompt=encoder.prompt,
        dense=encoder.dense,
    )


def _settings(config: TrainHivesConfig, start: str) -> dict[str, object]:
    batch = {name: value for name, value in config.batch.model_dump().items() if value}
    zero = config.deepspeed.get("zero_optimization", {}).get("stage", 0)
    return {
        "stage": f"2, from {start}" if start else "1",
        "steps": config.optimizer.steps,
        "optimizer": ", ".join(f"{k} {v}" for k, v in config.optimizer.model_dump().items() if k != "steps"),
        "workers": config.workers.num_workers,
        "batch of a worker": ", ".join(f"{k} {v}" for k, v in batch.items()),
        "loss": ", ".join(f"{k} {v}" for k, v in config.loss.model_dump().items()),
        "precision": f"{'bf16' if config.bf16 else 'float32'}, ZeRO stage {zero}",
        "low-rank additions": "none" if config.encoder.lora is None else str(config.encoder.lora),
        "max_length": config.encoder.max_length,
        "pooling": config.encoder.pooling,
        "last layer": f"linear to {config.encoder.dense}, then ReLU" if config.encoder.dense else "none",
        "prompt": json.dumps(config.encoder.prompt, ensure_ascii=False),
        "seed": config.seed,
        "ValueFlow": __version__,
        "torch": torch.__version__,
    }


def _upload(build: Build, folder: Path, path: Path) -> File:
    """Upload one file; its manifest entry counts rows for the curve only."""
    data, name = path.read_bytes(), path.relative_to(folder).as_posix()
    return store.write_file(build, name, data, data.count(b"\n") if name == CURVE_FILE else 0)
