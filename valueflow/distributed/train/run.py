"""Train HiVES on the cluster: check everything, let workers train from the last checkpoint, commit what they leave."""

import contextlib
import json
import logging
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import ray
import ray.train
from pyarrow import fs as arrow
from ray.actor import ActorHandle
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from valueflow import __version__, store
from valueflow.distributed.cluster import Progress, require_resources
from valueflow.distributed.train.config import EncoderConfig, TrainHivesConfig
from valueflow.distributed.train.data import DataSources, TrainingData, prepare_data, resolve_sources
from valueflow.distributed.train.export import MODEL_FOLDER, TrainingTask, read_metrics, read_training_record
from valueflow.distributed.train.loop import ProgressActor, WorkerResult, train_worker
from valueflow.errors import InputError
from valueflow.hives.encoder import check_model
from valueflow.hives.metrics import EmbeddingMetric
from valueflow.models import SCHEME, content_hash, locate
from valueflow.records import digest
from valueflow.store import Build, HivesDetails

log = logging.getLogger(__name__)

CHECKPOINT_LIST = "checkpoint_manager_snapshot.json"  # Ray's list of whole checkpoints
RUN_FILE = "run.json"  # beside the checkpoints: with how many workers they were made


class TrainingResult(NamedTuple):
    """Where the encoder is, and the metrics of it and of those it is compared with, on validation."""

    build: Build
    metrics: dict[str, dict[str, EmbeddingMetric]]

    @property
    def model(self) -> str:
        """The sentence-transformers folder."""
        return f"{self.build.url}/{MODEL_FOLDER}"


def train_hives(config: TrainHivesConfig) -> TrainingResult:
    """Train, or go on with, the encoder of these settings and return it; a finished one is returned as it is.

    Raises:
        InputError: data, base model, start or cluster do not fit the settings, checkpoints are of another number of workers,
            or the loss is no number any more.
    """
    config = _absolute(config)
    found = resolve_sources(config.root, config.data)
    start = _start(config)
    # Without the number of workers, so that a resume with another number finds the checkpoints and can be refused.
    model = content_hash(locate(config.encoder.model))
    settings = digest(__version__, found.data_id, start[1], model, config.learnt_from())
    build = Build(config.root, "hives", digest(settings, config.workers.num_workers))
    checkpoints = store.checkpoints_url(config.root, settings)
    made = store.manifest(build)
    if made is None:
        check_model(locate(config.encoder.model), config.encoder.model, config.encoder.revision, config.encoder.max_length)
        _check_workers(config, checkpoints)
        both: Any = ray.remote(_prepared).options(num_cpus=1, num_returns=2).remote(config, found)
        data, numbers = both[0], ray.get(both[1])
        log.info("training on %s texts, %s labels: %s", f"{numbers['texts']:,}", f"{numbers['rows']:,}", numbers)
        _begin(checkpoints, config.workers.num_workers)
        watch = ray.remote(ProgressActor).options(num_cpus=0).remote()
        outcome = _fit(config, TrainingTask(config, build, start[0], checkpoints, data, found.data_id, watch))
        if outcome.stopped:
            raise InputError(outcome.stopped)
        details = HivesDetails(resolved=config.public(), data_id=found.data_id, start=start[1], data=numbers)
        made = store.commit(build, details, [*found.inputs, *_start_input(config.root, *start)], outcome.files)
    else:
        log.info("train_hives: %s, done before", build.build_id)
    _remove(checkpoints)  # of no use once the encoder is there
    return TrainingResult(build, read_metrics(build))


def _start_input(root: str, url: str, build_id: str) -> list[Build | str]:
    """The encoder that stage 2 starts from, as an input: a build where it is under this root, else its URL."""
    if not url:
        return []
    return [Build(root, "hives", build_id)] if build_id in store.finished(root, "hives") else [url]


def _begin(checkpoints: str, num_workers: int) -> None:
    try:
        store.write_bytes(f"{checkpoints}/{RUN_FILE}", json.dumps({"num_workers": num_workers}).encode())
    except OSError as error:
        raise InputError(f"cannot write {checkpoints}/{RUN_FILE}: {error}; change root") from error


def _remove(url: str) -> None:
    fs, path = store.filesystem(url)
    with contextlib.suppress(FileNotFoundError):
        fs.rm(path, recursive=True)


def _prepared(config: TrainHivesConfig, found: DataSources) -> tuple[TrainingData, dict[str, Any]]:
    made = prepare_data(config, found)
    return made, made.counts


def _absolute(config: TrainHivesConfig) -> TrainHivesConfig:
    """The same settings with folders that workers find too: they run in a folder of their own."""
    fs, path = store.filesystem(config.root)
    model = config.encoder.model
    if not model.startswith(SCHEME) and store.exists(f"{model}/config.json"):
        model = store.filesystem(model)[1]
    root = path if "file" in fs.protocol else config.root
    return config.model_copy(update={"root": root, "encoder": config.encoder.model_copy(update={"model": model})})


def _start(config: TrainHivesConfig) -> tuple[str, str]:
    """The model folder that stage 2 starts from and its build id, ("", "") for stage 1.

    Raises:
        InputError: there is none, or it is of another model, prompt or pooling, or not of stage 1.
    """
    if config.stage == 1:
        return "", ""
    builds = [Build(config.root, "hives", build_id) for build_id in store.finished(config.root, "hives")]
    folders = {build.build_id: f"{build.url}/{MODEL_FOLDER}" for build in builds}
    if config.start == "latest":
        usable = [url for url in reversed(folders.values()) if not _unlike(url, config.encoder)]
        if not usable:
            why = "; ".join(f"{build_id}: {_unlike(url, config.encoder)}" for build_id, url in folders.items())
            raise InputError(
                f"start=latest: no finished encoder of stage 1 of {config.encoder.model} is under {config.root} "
                f"({why or 'there is no encoder at all'}); run jobs.train_hives with stage=1 first"
            )
        url = usable[0]
    else:
        url = folders.get(config.start, config.start.rstrip("/"))
        if why := _unlike(url, config.encoder):
            raise InputError(f"start={config.start}: {why}")
    return url if "://" in url else store.filesystem(url)[1], read_training_record(url).build_id


def _unlike(url: str, wanted: EncoderConfig) -> str:
    """Why stage 2 cannot start from a model folder, "" where it can."""
    there = read_training_record(url)
    if there.stage != 1:
        return f"it is of stage {there.stage}, stage 2 starts from stage 1"
    for name in ("model", "revision", "pooling", "prompt", "dense"):
        if getattr(there, name) != getattr(wanted, name):
            return f"its {name} is {getattr(there, name)!r}, encoder.{name} is {getattr(wanted, name)!r}"
    return ""


def _check_workers(config: TrainHivesConfig, checkpoints: str) -> None:
    """Refuse workers that the cluster cannot place, or that are not as many as those who made the checkpoints."""
    workers = config.workers
    num = workers.num_workers
    require_resources(
        num * workers.cpus_per_worker,
        num * workers.gpus_per_worker,
        f"a training with {num} workers",
        "Lower workers.num_workers",
    )
    if not store.exists(f"{checkpoints}/{CHECKPOINT_LIST}"):
        _remove(checkpoints)  # parts of a checkpoint that was never whole
        return
    before = json.loads(store.read_bytes(f"{checkpoints}/{RUN_FILE}"))["num_workers"]
    if before != num:
        raise InputError(
            f"workers.num_workers is {num}, but the unfinished training of these settings was begun with {before}, and "
            f"its shards fit no other number. Set workers.num_workers={before} to go on, or delete {checkpoints} to start over"
        )


def _fit(config: TrainHivesConfig, training: TrainingTask) -> WorkerResult:
    workers = config.workers
    resources = {"CPU": workers.cpus_per_worker} | ({"GPU": workers.gpus_per_worker} if workers.gpus_per_worker else {})
    fs, path = store.filesystem(training.checkpoints)
    folder, _, name = path.rstrip("/").rpartition("/")
    on_gpu = workers.gpus_per_worker > 0
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"training": training},
        scaling_config=ScalingConfig(num_workers=workers.num_workers, use_gpu=on_gpu, resources_per_worker=resources),
        torch_config=TorchConfig(backend="nccl" if on_gpu else "gloo"),
        run_config=RunConfig(  # type: ignore[call-arg] # Ray's types are those of Train v1
            name=name,
            storage_path=folder,
            storage_filesystem=None if "file" in fs.protocol else arrow.PyFileSystem(arrow.FSSpecHandler(fs)),
            failure_config=FailureConfig(max_failures=workers.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=config.keep_checkpoints),
            worker_runtime_env={"env_vars": {"DS_ACCELERATOR": "cuda" if on_gpu else "cpu"}},
        ),
    )
    with _watched(training.watch, f"train stage {config.stage}", config.optimizer.steps):
        try:
            result: Any = trainer.fit()
            return result.return_value
        except ray.train.TrainingFailedError as error:
            raise _mistake(error) or error from None


def _mistake(error: Any) -> InputError | None:
    """The user's mistake among the failures of workers, if that is what stopped them."""
    for failure in getattr(error, "worker_failures", {}).values():
        cause = getattr(failure, "_base_exc", failure)
        if isinstance(cause, InputError):
            return cause
    return None


@contextlib.contextmanager
def _watched(watch: ActorHandle, what: str, total: int) -> Iterator[None]:
    """Print a line of progress every two seconds."""
    ended = threading.Event()

    def follow() -> None:
        progress = None
        while not ended.wait(1):
            with contextlib.suppress(ray.exceptions.RayError):
                told: Any = ray.get(watch.told.remote())
                done, note = told
                if progress is None and done >= 0:
                    progress = Progress(what, total, done)
                elif progress and done != progress.done:
                    progress.add(done - progress.done, note)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(5)
