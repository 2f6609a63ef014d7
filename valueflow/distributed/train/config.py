"""The settings of a training of HiVES, what DeepSpeed is told of them, and the rate of each step."""

import importlib.util
import math
from typing import Any, Literal

from pydantic import Field, model_validator

from valueflow.config import Config
from valueflow.distributed.cluster import ClusterConfig
from valueflow.hives.batches import BatchConfig
from valueflow.hives.encoder import LoraConfig, Pooling
from valueflow.hives.losses import LossConfig

TrainingPrecision = Literal["auto", "bf16", "float32"]

# What DeepSpeed's configuration calls what is set here, since it also decides about ids, batches and rates.
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
# What does not change what is learnt, only where, how fast and how safely.
NOT_IN_BUILD_ID: dict[str, Any] = dict.fromkeys(
    ("root", "start", "data", "workers", "checkpoint_every", "keep_checkpoints", "tracking", "cluster"), True
) | {"encoder": {"model"}, "validation": {"beside"}}


class DataConfig(Config):
    """Which labelled texts are learnt from, and which must not be seen."""

    texts: str = Field("latest", description="build id of texts and their source_labels; latest: the newest finished ingest")
    labels: str = Field("", description="build id of labels, or latest: a panel's labels instead of the corpora's own")
    anchors: str = Field("", description="stage 2: build id of concept anchors of these texts, or latest")
    individuals: str = Field("", description="stage 2: build id of individual anchors of these texts, or latest")
    official: str = Field("", description="a file with the official columns, instead of all these")
    exclude: list[str] = Field(
        [], description="files with a column `text`: their texts and near-duplicates of them are not learnt from"
    )
    shares: tuple[float, float, float] = Field((0.9, 0.05, 0.05), description="of train, validation, test")
    seed: int = Field(0, description="of the split")

    @model_validator(mode="after")
    def _one_source(self) -> "DataConfig":
        beside = [name for name in ("labels", "anchors", "individuals") if getattr(self, name)]
        beside += ["texts"] if self.texts != "latest" else []
        if self.official and beside:
            raise ValueError(f"official ({self.official!r}) brings its own texts and anchors; leave {', '.join(beside)} out")
        if not self.shares[1]:
            raise ValueError(f"shares {self.shares} leave nothing for validation, on which the encoder is measured")
        return self


class EncoderConfig(Config):
    """The model that is trained, and how texts become vectors."""

    model: str = Field(description="hub name, folder or package://…")
    revision: str = ""
    max_length: int = Field(256, ge=8, description="tokens, the prompt's included")
    pooling: Pooling = "mean"
    prompt: str = Field("", description="stands before every text, in training and in the saved folder")
    dense: int = Field(0, ge=0, description="width of a new last layer (linear, then ReLU); 0: the pooled states as they are")
    lora: LoraConfig | None = None
    gradient_checkpointing: bool = Field(False, description="less memory for a third more time")


class OptimizerConfig(Config):
    """AdamW and the rate of every step."""

    steps: int = Field(ge=1, description="optimizer steps, warm-up included")
    lr: float = Field(1e-4, gt=0)
    new: float = Field(25.0, gt=0, description="times lr for what starts at random: encoder.dense and the reader of loss.nodes")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps in which the rate grows to lr")
    schedule: Literal["linear", "cosine"] = Field("linear", description="how the rate then falls to 0")
    weight_decay: float = Field(0.01, ge=0, description="not of biases and norms")
    clip: float = Field(1.0, ge=0, description="largest norm of a gradient; 0: none")
    accumulation: int = Field(1, ge=1, description="batches a step; they do not serve each other as negatives")


class WorkersConfig(Config):
    """The processes that train together."""

    num_workers: int = Field(1, ge=1, description="part of what is learnt: batches of all workers are negatives of each other")
    cpus_per_worker: float = Field(1, ge=0)
    gpus_per_worker: float = Field(0, ge=0)
    max_failures: int = Field(3, ge=-1, description="worker failures survived, each from the last checkpoint; -1: any number")


class ValidationConfig(Config):
    """When the encoder is measured on validation texts."""

    every: int = Field(0, ge=0, description="steps; 0: at the end only")
    texts: int = Field(5000, ge=50, description="at most so many of the validation texts")
    beside: list[str] = Field([], description="further encoders measured at the end: hub names, folders or package://…")


class TrackingConfig(Config):
    """Where curves go besides steps.jsonl and TensorBoard files, which every build has."""

    every: int = Field(10, ge=1, description="steps between two points of a curve (steps.jsonl holds every step)")
    mlflow: dict[str, Any] | None = Field(None, description="tracking_uri and experiment")
    wandb: dict[str, Any] | None = Field(None, description="keywords of wandb.init")


class CardConfig(Config):
    """What the saved folder says of itself."""

    name: str = Field("hives", description="name of the encoder")
    license: str = Field("unknown", description="licence of the weights")


class TrainHivesConfig(Config):
    """Everything that makes an encoder."""

    root: str = Field(description="folder or URL under which all tables live")
    stage: Literal[1, 2] = Field(description="1: within theories; 2: across them, from an encoder of stage 1")
    start: str = Field("", description="stage 2: build id or model folder of stage 1, or latest: the newest under root")
    data: DataConfig = DataConfig()
    encoder: EncoderConfig
    batch: BatchConfig = BatchConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig
    precision: TrainingPrecision = Field("auto", description="auto: bf16 on GPUs, float32 on CPUs")
    deepspeed: dict[str, Any] = Field({"zero_optimization": {"stage": 2}}, description="DeepSpeed's own configuration")
    workers: WorkersConfig = WorkersConfig()
    validation: ValidationConfig = ValidationConfig()
    checkpoint_every: int = Field(1000, ge=1, description="steps")
    keep_checkpoints: int = Field(2, ge=1)
    tracking: TrackingConfig = TrackingConfig()
    card: CardConfig = CardConfig()
    seed: int = 0
    cluster: ClusterConfig = ClusterConfig()

    @model_validator(mode="after")
    def _consistent(self) -> "TrainHivesConfig":
        for path, instead in MANAGED_DEEPSPEED_KEYS.items():
            if _at(self.deepspeed, path) is not None:
                raise ValueError(f"deepspeed.{path} is decided by {instead}; leave it out of deepspeed")
        if self.stage == 1 and self.start:
            raise ValueError(f"start ({self.start!r}) is for stage 2; stage 1 starts from encoder.model")
        if self.stage == 1 and self.batch.individual + self.batch.concept:
            raise ValueError(
                f"stage 1 learns within theories; batch.individual ({self.batch.individual}) and batch.concept "
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
                "stage 2 refines the space that stage 1 has made, so it needs an encoder of stage 1: train one with stage=1 "
                "and set start=latest, or start to its build id or model folder"
            )
        for name in ("mlflow", "wandb"):
            if getattr(self.tracking, name) is not None and importlib.util.find_spec(name) is None:
                raise ValueError(f"tracking.{name} needs the library {name}, which is not installed: pip install {name}")
        if self.encoder.lora and importlib.util.find_spec("peft") is None:
            raise ValueError("encoder.lora needs the library peft, which is not installed: pip install 'valueflow[lora]'")
        return self

    @property
    def bf16(self) -> bool:
        """Whether weights are bfloat16 while they are trained."""
        return self.precision == "bf16" or (self.precision == "auto" and self.workers.gpus_per_worker > 0)

    @property
    def rows(self) -> int:
        """Rows of a batch of one worker."""
        return self.batch.hierarchy + self.batch.individual + self.batch.concept

    def learnt_from(self) -> dict[str, Any]:
        """Return the settings that decide what is learnt; data, start, model and number of workers have ids of their own."""
        return self.model_dump(exclude=NOT_IN_BUILD_ID, mode="json") | {"precision": "bf16" if self.bf16 else "float32"}


def learning_rate(config: OptimizerConfig, step: int) -> float:
    """Return the rate of a step, counted from 0: up to lr in the warm-up, then down, to reach 0 after the last step."""
    warm = round(config.warmup * config.steps)
    if step < warm:
        return config.lr * (step + 1) / warm
    done = (step - warm) / (config.steps - warm)
    return config.lr * (1 - done if config.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2)


def deepspeed_config(config: TrainHivesConfig) -> dict[str, Any]:
    """Return the configuration of DeepSpeed: the user's, with what is set elsewhere filled in."""
    theirs = config.deepspeed
    zero = {"stage3_gather_16bit_weights_on_model_save": True} | theirs.get("zero_optimization", {})
    optimizer = {"type": "AdamW", "params": {}} | theirs.get("optimizer", {})
    params = {"lr": config.optimizer.lr, "weight_decay": config.optimizer.weight_decay} | optimizer["params"]
    if optimizer["type"] in ("Adam", "AdamW") and "offload_optimizer" not in zero:
        # PyTorch's: DeepSpeed's own is compiled when it is first used, which needs a CUDA toolkit. Fused is twice as fast.
        params = {"torch_adam": True, "fused": True} | params
    return theirs | {
        "train_micro_batch_size_per_gpu": config.rows,
        "gradient_accumulation_steps": config.optimizer.accumulation,
        "gradient_clipping": config.optimizer.clip,
        "optimizer": optimizer | {"params": params},
        "bf16": {"enabled": config.bf16},
        "zero_optimization": zero,
    }


def _at(settings: dict[str, Any], path: str) -> Any:
    for key in path.split("."):
        settings = settings.get(key) if isinstance(settings, dict) else None  # type: ignore[assignment]
    return settings
