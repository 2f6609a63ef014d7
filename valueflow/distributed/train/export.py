"""What a training leaves behind: the encoder as a sentence-transformers folder, its card, metrics beside the base's."""

import functools
import json
import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import ValidationError
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
    """What a model folder says of how it came about (training.json)."""

    build_id: str
    stage: int
    model: str
    revision: str
    max_length: int
    pooling: Pooling
    prompt: str
    dense: int = 0


class TrainingTask(NamedTuple):
    """All that a worker is told."""

    config: TrainHivesConfig
    build: Build
    start: str  # URL of the model folder that stage 2 starts from, "" for stage 1
    checkpoints: str  # where they are kept
    data: ObjectRef  # of Prepared
    data_id: str
    watch: ActorHandle


def load_start(config: EncoderConfig, start: str) -> Encoder:
    """Return the encoder that a training starts from: the base model, or with `start` what stage 1 has made of it."""
    if not start:
        where, revision = config.model, config.revision
        return Encoder.load(where, revision, config.max_length, config.pooling, config.prompt, config.lora, config.dense)
    return Encoder.load(fetch(start), "", config.max_length, config.pooling, config.prompt, config.lora, config.dense)


def read_training_record(url: str) -> TrainingRecord:
    """Return what a model folder says of itself; InputError where it is not one of ours."""
    try:
        return TrainingRecord.model_validate_json(store.read_bytes(f"{url}/{TRAINING_FILE}"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{url} holds no {TRAINING_FILE}, so it is no model folder of jobs.train_hives") from None
    except ValidationError as error:
        raise InputError(f"{url}/{TRAINING_FILE} is corrupt ({error.errors()[0]['msg']})") from error


def export_encoder(
    encoder: Encoder, training: TrainingTask, data: TrainingData, curve: list[str]
) -> tuple[list[File], dict[str, float]]:
    """Write model, metrics and curve into the build; return its files and the encoder's metrics on validation."""
    config, validation = training.config, data.validation
    z_TD = encoder.embed(validation.texts)
    found = {config.card.name: embedding_metrics(z_TD, validation, seed=config.seed)}
    device = next(encoder.parameters()).device
    plain = config.encoder.model_copy(update={"lora": None})
    compared: dict[str, Callable[[], Encoder]] = (
        {"stage 1": lambda: load_start(plain, training.start)} if training.start else {}
    )
    compared[config.encoder.model] = lambda: load_start(plain.model_copy(update={"dense": 0}), "")
    compared |= {name: functools.partial(_other, name) for name in config.validation.beside}
    for name, other in compared.items():
        found[name] = embedding_metrics(other().to(device).embed(validation.texts), validation, seed=config.seed)
    measured_on = f"{len(validation.texts):,} validation texts of the same sources (data {training.data_id})"
    settings = _settings(config, training.start)
    losses = [json.loads(row)["loss"] for row in curve]
    page = training_page(config.card.name, found, *value_vectors(z_TD, validation), losses, data.corpora, settings, measured_on)
    card = model_card(
        name=config.card.name,
        base=config.encoder.model,
        license_=config.card.license,
        corpora=data.corpora,
        settings=settings,
        encoders=found,
        measured_on=measured_on,
    )
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        encoder.save(at / MODEL_FOLDER, card)
        (at / MODEL_FOLDER / TRAINING_FILE).write_text(_origin(training).model_dump_json(indent=1), "utf-8")
        (at / METRICS_FILE).write_text(json.dumps(_plain(found), indent=1), "utf-8")
        (at / PAGE_FILE).write_text(page, "utf-8")
        (at / CURVE_FILE).write_text("\n".join(curve) + "\n", "utf-8")
        files = [_put(training.build, at, path) for path in sorted(at.rglob("*")) if path.is_file()]
    return files, {f"validation/{name}": metric.value for name, metric in found[config.card.name].items()}


def _other(model: str) -> Encoder:
    return Embedder(EmbedderConfig(model=model)).encoder


def read_metrics(build: Build) -> dict[str, dict[str, EmbeddingMetric]]:
    """Return the metrics of a finished build: by encoder, by name."""
    read = json.loads(store.read_bytes(f"{build.url}/{METRICS_FILE}"))
    numbers: Mapping[str, Mapping[str, Mapping[str, Any]]] = read
    return {
        encoder: {
            name: EmbeddingMetric(**{key: math.nan if value is None else value for key, value in metric.items()})
            for name, metric in metrics.items()
        }
        for encoder, metrics in numbers.items()
    }


def overall_metrics_table(found: dict[str, dict[str, EmbeddingMetric]]) -> str:
    """Return the metrics over all theories as a table, an encoder a column."""
    means = {encoder: {n: m for n, m in metrics.items() if "/" not in n} for encoder, metrics in found.items()}
    return metrics_table(means)


def _plain(found: dict[str, dict[str, EmbeddingMetric]]) -> dict[str, Any]:
    return {
        encoder: {
            name: {key: None if math.isnan(value) else value for key, value in metric._asdict().items()}
            for name, metric in metrics.items()
        }
        for encoder, metrics in found.items()
    }


def _origin(training: TrainingTask) -> TrainingRecord:
    of = training.config.encoder
    return TrainingRecord(
        build_id=training.build.build_id,
        stage=training.config.stage,
        model=of.model,
        revision=of.revision,
        max_length=of.max_length,
        pooling=of.pooling,
        prompt=of.prompt,
        dense=of.dense,
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


def _put(build: Build, folder: Path, path: Path) -> File:
    """Upload one file; rows are counted for the curve only."""
    data, name = path.read_bytes(), path.relative_to(folder).as_posix()
    return store.write_file(build, name, data, data.count(b"\n") if name == CURVE_FILE else 0)
