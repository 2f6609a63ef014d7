"""Configuration of HiVES training, the DeepSpeed configuration derived from it, and the learning-rate schedule."""

import importlib.util
import math
from typing import Any, Literal

from pydantic import Field, model_validator

from valueflow.config import Config
from valueflow.distributed.job_config import JobConfig, LabeledTextsConfig
from valueflow.hives.batches import BatchConfig
from valueflow.hives.encoder import LoraConfig, Pooling
from valueflow.hives.losses import LossConfig

TrainingPrecision = Literal["auto", "bf16", "float32"]

# DeepSpeed keys derived from our settings, which also enter ids, batches and schedules -> where to set them.
MANAGED_DEEPSPEED_KEYS = {
    "train_batch_size": "batch and workers.num_workers",
    "train_micro_batch_size_per_gpu": "batch",
    "gradient_accumulation_steps": "optimizer.accumulation",
    "gradient_clipping": "optimizer.clip",
    "scheduler": "optimizer.schedule and optimizer.warmup",
    "bf16": "precision",
    "fp16": "precision (float16 is not offered: it skips steps)",
    "optimizer.params.lr": "optimizer.lr",
    "optimizer.params.weight_decay": "optimizer.weight_decay",
}
# Settings that do not change the trained weights, or that enter the build id by other means (`id_settings`).
NOT_IN_BUILD_ID: dict[str, Any] = dict.fromkeys(
    ("root", "start", "data", "workers", "checkpoint_every", "keep_checkpoints", "tracking", "cluster"), True
) | {"encoder": {"model"}, "validation": {"beside"}}


class DataConfig(LabeledTextsConfig):
    """The labeled texts to train on, and texts to exclude."""

    anchors: str = Field("", description="stage 2: build id of concept anchors of these texts, or latest")
    individuals: str = Field("", description="stage 2: build id of individual anchors of these texts, or latest")
    official: str = Field("", description="file with the official columns, instead of the builds above")
    exclude: list[str] = Field([], description="files with a column `text`; these texts and their near-duplicates are excluded")
    shares: tuple[float, float, float] = Field((0.9, 0.05, 0.05), description="shares of train, validation, test")
    seed: int = Field(0, description="seed of the split")

    @model_validator(mode="after")
    def _one_source(self) -> "DataConfig":
        conflicting = [name for name in ("labels", "anchors", "individuals") if getattr(self, name)]
        conflicting += ["texts"] if self.texts != "latest" else []
        if self.official and conflicting:
            raise ValueError(f"official ({self.official!r}) has its own texts and anchors; leave {', '.join(conflicting)} out")
        if not self.shares[1]:
            raise ValueError(f"shares {self.shares} leave nothing for validation, on which metrics are computed")
        return self


class EncoderConfig(Config):
    """The model to train, and how texts become vectors."""

    model: str = Field(description="hub name, folder or package://…")
    revision: str = ""
    max_length: int = Field(256, ge=8, description="tokens, including the prompt's")
    pooling: Pooling = "mean"
    prompt: str = Field("", description="prefix of every text, in training and in the saved folder")
    dense: int = Field(0, ge=0, description="width of a layer (linear, then ReLU) after the pooling; 0: none")
    lora: LoraConfig | None = None
    gradient_checkpointing: bool = Field(False, description="less memory, about a third more time")


class OptimizerConfig(Config):
    """AdamW and the learning-rate schedule."""

    steps: int = Field(ge=1, description="optimizer steps, including warm-up")
    lr: float = Field(1e-4, gt=0)
    new: float = Field(
        25.0, gt=0, description="learning-rate multiplier of randomly initialized layers (encoder.dense, node head)"
    )
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps in which the learning rate rises to lr")
    schedule: Literal["linear", "cosine"] = Field("linear", description="decay of the learning rate to 0")
    weight_decay: float = Field(0.01, ge=0, description="not applied to biases and norms")
    clip: float = Field(1.0, ge=0, description="gradient norm to clip at; 0: no clipping")
    accumulation: int = Field(1, ge=1, description="batches per step; negatives are drawn within a batch only")


class WorkersConfig(Config):
    """The data-parallel processes."""

    num_workers: int = Field(1, ge=1, description="changes results: the batches of all workers provide each other's negatives")
    cpus_per_worker: float = Field(1, ge=0)
    gpus_per_worker: float = Field(0, ge=0)
    max_failures: int = Field(3, ge=-1, description="worker failures to recover from at the last checkpoint; -1: no limit")


class ValidationConfig(Config):
    """When metrics are computed on validation texts."""

    every: int = Field(0, ge=0, description="steps between evaluations; 0: at the end only")
    texts: int = Field(5000, ge=50, description="most validation texts to use")
    beside: list[str] = Field([], description="encoders to compare with at the end: hub names, folders or package://…")


class TrackingConfig(Config):
    """Trackers of the training curves, in addition to the steps.jsonl and TensorBoard files of every build."""

    every: int = Field(10, ge=1, description="steps between points of a curve (steps.jsonl has every step)")
    mlflow: dict[str, Any] | None = Field(None, description="tracking_uri and experiment")
    wandb: dict[str, Any] | None = Field(None, description="arguments of wandb.init")


class CardConfig(Config):
    """Model card of the saved folder."""

    name: str = Field("hives", description="name of the encoder")
    license: str = Field("unknown", description="license of the weights")


class TrainHivesConfig(JobConfig):
    """Configuration of one training of an encoder."""

    stage: Literal[1, 2] = Field(description="1: within theories; 2: across theories, starting from an encoder of stage 1")
    start: str = Field("", description="stage 2: build id or model folder of stage 1; latest: the newest under root")
    data: DataConfig = DataConfig()
    encoder: EncoderConfig
    batch: BatchConfig = BatchConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig
    precision: TrainingPrecision = Field("auto", description="auto: bf16 on GPUs, float32 on CPUs")
    deepspeed: dict[str, Any] = Field({"zero_optimization": {"stage": 2}}, description="configuration of DeepSpeed")
    workers: WorkersConfig = WorkersConfig()
    validation: ValidationConfig = ValidationConfig()
    checkpoint_every: int = Field(1000, ge=1, description="steps")
    keep_checkpoints: int = Field(2, ge=1)
    tracking: TrackingConfig = TrackingConfig()
    card: CardConfig = CardConfig()
    seed: int = 0

    @model_validator(mode="after")
    def _consistent(self) -> "TrainHivesConfig":
        for path, instead in MANAGED_DEEPSPEED_KEYS.items():
            if _nested(self.deepspeed, path) is not None:
                raise ValueError(f"deepspeed.{path} is derived from {instead}; leave it out of deepspeed")
        if self.stage == 1 and self.start:
            raise ValueError(f"start ({self.start!r}) is for stage 2; stage 1 starts from encoder.model")
        if self.stage == 1 and self.batch.individual + self.batch.concept:
            raise ValueError(
                f"stage 1 trains within theories; batch.individual ({self.batch.individual}) and batch.concept "
                f"({self.batch.concept}) are for stage 2"
            )
        for name, table in (("concept", "anchors"), ("individual", "individuals")):
            rows = getattr(self.batch, name)
            if rows and not (getattr(self.data, table) or self.data.official):
                raise ValueError(
                    f"batch.{name} ({rows}) needs {name} anchors: run jobs.build_anchors and set data.{table}=latest, or give "
                    "data.official"
                )
        if self.stage == 2 and not self.start:
            raise ValueError(
                "stage 2 starts from an encoder of stage 1: train one with stage=1 and set start=latest, or set start to its "
                "build id or model folder"
            )
        for name in ("mlflow", "wandb"):
            if getattr(self.tracking, name) is not None and importlib.util.find_spec(name) is None:
                raise ValueError(f"tracking.{name} needs the library {name}, which is not installed: pip install {name}")
        if self.encoder.lora and importlib.util.find_spec("peft") is None:
            raise ValueError("encoder.lora needs the library peft, which is not installed: pip install 'valueflow[lora]'")
        return self

    @property
    def bf16(self) -> bool:
        """Whether weights are bfloat16 during training."""
        return self.precision == "bf16" or (self.precision == "auto" and self.workers.gpus_per_worker > 0)

    @property
    def rows(self) -> int:
        """Rows per batch and worker."""
        return self.batch.hierarchy + self.batch.individual + self.batch.concept

    def id_settings(self) -> dict[str, Any]:
        """Return the settings in the build id; data, start, model and number of workers enter it separately."""
        return self.model_dump(exclude=NOT_IN_BUILD_ID, mode="json") | {"precision": "bf16" if self.bf16 else "float32"}


def learning_rate(config: OptimizerConfig, step: int) -> float:
    """Return the learning rate of a step, counted from 0: it rises to lr in the warm-up, then decays to 0 after the last."""
    warm = round(config.warmup * config.steps)
    if step < warm:
        return config.lr * (step + 1) / warm
    progress = (step - warm) / (config.steps - warm)
    return config.lr * (1 - progress if config.schedule == "linear" else (1 + math.cos(math.pi * progress)) / 2)


def deepspeed_config(config: TrainHivesConfig) -> dict[str, Any]:
    """Return the configuration of DeepSpeed: the user's, completed from our other settings."""
    user = config.deepspeed
    zero = {"stage3_gather_16bit_weights_on_model_save": True} | user.get("zero_optimization", {})
    optimizer = {"type": "AdamW", "params": {}} | user.get("optimizer", {})
    params = {"lr": config.optimizer.lr, "weight_decay": config.optimizer.weight_decay} | optimizer["params"]
    if optimizer["type"] in ("Adam", "AdamW") and "offload_optimizer" not in zero:
        # PyTorch's, since DeepSpeed compiles its own at first use, which needs a CUDA toolkit. Fused is twice as fast.
        params = {"torch_adam": True, "fused": True} | params
    return user | {
        "train_micro_batch_size_per_gpu": config.rows,
        "gradient_accumulation_steps": config.optimizer.accumulation,
        "gradient_clipping": config.optimizer.clip,
        "optimizer": optimizer | {"params": params},
        "bf16": {"enabled": config.bf16},
        "zero_optimization": zero,
    }


def _nested(settings: dict[str, Any], path: str) -> Any:
    for key in path.split("."):
        settings = settings.get(key) if isinstance(settings, dict) else None  # type: ignore[assignment]
    return settings
