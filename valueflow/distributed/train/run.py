"""Train HiVES on the cluster: check settings and data, run the workers from the last checkpoint, commit their files."""

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
from valueflow.config import Resources
from valueflow.distributed.cluster import Progress, require_resources, result_of
from valueflow.distributed.train.config import EncoderConfig, TrainHivesConfig
from valueflow.distributed.train.data import DataSources, TrainingData, prepare_data, resolve_sources
from valueflow.distributed.train.export import MODEL_FOLDER, TrainingTask, read_metrics, read_training_record
from valueflow.distributed.train.loop import ProgressActor, WorkerResult, train_worker
from valueflow.errors import DamageError, InputError
from valueflow.hives.encoder import check_model
from valueflow.hives.metrics import EmbeddingMetric
from valueflow.models import SCHEME, content_hash, locate
from valueflow.records import digest
from valueflow.store import Build, HivesDetails

log = logging.getLogger(__name__)

CHECKPOINT_LIST = "checkpoint_manager_snapshot.json"  # Ray's list of complete checkpoints
RUN_FILE = "run.json"  # next to the checkpoints: their number of workers


class TrainingResult(NamedTuple):
    """The build of the encoder, and the validation metrics of it and of the encoders it is compared with."""

    build: Build
    metrics: dict[str, dict[str, EmbeddingMetric]]

    @property
    def model(self) -> str:
        """The sentence-transformers folder."""
        return f"{self.build.url}/{MODEL_FOLDER}"


def train_hives(config: TrainHivesConfig) -> TrainingResult:
    """Return the encoder of these settings: a finished build as it is, an unfinished training resumed from its checkpoint.

    Raises:
        InputError: data, base model, start or cluster do not fit the settings, checkpoints have another number of workers, or
            training diverged.
    """
    config = _with_absolute_paths(config)
    sources = resolve_sources(config.root, config.data)
    start = _start_model(config)
    # Without the number of workers: a resume with another number must find the checkpoints, to be refused.
    model = content_hash(locate(config.encoder.model))
    settings = digest(__version__, sources.data_id, start[1], model, config.id_settings())
    build = Build(config.root, "hives", digest(settings, config.workers.num_workers))
    checkpoints = store.checkpoints_url(config.root, settings)
    store.use(config.root, f"checkpoints/{settings}")
    if store.manifest(build) is None:  # not made again for a damaged file: that may take days
        check_model(locate(config.encoder.model), config.encoder.model, config.encoder.revision, config.encoder.max_length)
        _check_workers(config, checkpoints)
        data_and_counts: Any = ray.remote(_prepare).options(num_cpus=1, num_returns=2).remote(config, sources)
        data, counts = data_and_counts[0], result_of("training data", data_and_counts[1], Resources(1))
        log.info("training on %s texts, %s labels: %s", f"{counts['texts']:,}", f"{counts['rows']:,}", counts)
        store.write_bytes(f"{checkpoints}/{RUN_FILE}", store.sealed({"num_workers": config.workers.num_workers}))
        progress = ray.remote(ProgressActor).options(num_cpus=0).remote()
        outcome = _fit(config, TrainingTask(config, build, start[0], checkpoints, data, sources.data_id, progress))
        if outcome.stopped:
            raise InputError(outcome.stopped)
        details = HivesDetails(resolved=config.public(), data_id=sources.data_id, start=start[1], data=counts)
        store.commit(build, details, [*sources.inputs, *_start_input(config.root, *start)], outcome.files)
    else:
        log.info("train_hives: %s, done before", build.build_id)
    store.remove_folder(checkpoints)  # not needed once the encoder is committed
    return TrainingResult(build, read_metrics(build))


def _start_input(root: str, url: str, build_id: str) -> list[Build | str]:
    """The encoder that stage 2 starts from, as an input: a build where it is under this root, else its URL."""
    if not url:
        return []
    return [Build(root, "hives", build_id)] if build_id in store.finished(root, "hives") else [url]


def _prepare(config: TrainHivesConfig, sources: DataSources) -> tuple[TrainingData, dict[str, Any]]:
    data = prepare_data(config, sources)
    return data, data.counts


def _with_absolute_paths(config: TrainHivesConfig) -> TrainHivesConfig:
    """The same settings with absolute paths, since workers run in another working directory."""
    fs, path = store.filesystem(config.root)
    model = config.encoder.model
    if not model.startswith(SCHEME) and store.exists(f"{model}/config.json"):
        model = store.filesystem(model)[1]
    root = path if "file" in fs.protocol else config.root
    return config.model_copy(update={"root": root, "encoder": config.encoder.model_copy(update={"model": model})})


def _start_model(config: TrainHivesConfig) -> tuple[str, str]:
    """URL and build id of the model folder that stage 2 starts from; ("", "") in stage 1.

    Raises:
        InputError: there is none, it is not of stage 1, or its model, prompt or pooling differ.
    """
    if config.stage == 1:
        return "", ""
    builds = [Build(config.root, "hives", build_id) for build_id in store.finished(config.root, "hives")]
    folders = {build.build_id: f"{build.url}/{MODEL_FOLDER}" for build in builds}
    if config.start == "latest":
        usable = [url for url in reversed(folders.values()) if not _start_mismatch(url, config.encoder)]
        if not usable:
            why = "; ".join(f"{build_id}: {_start_mismatch(url, config.encoder)}" for build_id, url in folders.items())
            raise InputError(
                f"start=latest: no finished encoder of stage 1 of {config.encoder.model} is under {config.root} "
                f"({why or 'there are no encoders'}); run jobs.train_hives with stage=1 first"
            )
        url = usable[0]
    else:
        url = folders.get(config.start, config.start.rstrip("/"))
        if why := _start_mismatch(url, config.encoder):
            raise InputError(f"start={config.start}: {why}")
    return url if "://" in url else store.filesystem(url)[1], read_training_record(url).build_id


def _start_mismatch(url: str, encoder: EncoderConfig) -> str:
    """The reason why stage 2 cannot start from a model folder, "" if it can."""
    record = read_training_record(url)
    if record.stage != 1:
        return f"it is of stage {record.stage}, stage 2 starts from stage 1"
    for name in ("model", "revision", "pooling", "prompt", "dense"):
        if getattr(record, name) != getattr(encoder, name):
            return f"its {name} is {getattr(record, name)!r}, encoder.{name} is {getattr(encoder, name)!r}"
    return ""


def _check_workers(config: TrainHivesConfig, checkpoints: str) -> None:
    """Check that the cluster has room for the workers, and that their number equals that of the checkpoints."""
    workers = config.workers
    num = workers.num_workers
    require_resources(
        num * workers.cpus_per_worker,
        num * workers.gpus_per_worker,
        f"a training with {num} workers",
        "Lower workers.num_workers",
    )
    try:
        store.read_parsed(f"{checkpoints}/{CHECKPOINT_LIST}", json.loads, (ValueError,), "a list of checkpoints")
    except FileNotFoundError:
        store.remove_folder(checkpoints)  # parts of an incomplete checkpoint
        return
    before = _num_workers(f"{checkpoints}/{RUN_FILE}")
    if before != num:
        raise InputError(
            f"workers.num_workers is {num}, but the unfinished training of these settings was started with {before}, "
            f"and its shards fit no other number. Set workers.num_workers={before} to continue, or delete {checkpoints}"
        )


def _num_workers(url: str) -> int:
    """The number of workers with which an unfinished training was started."""
    try:
        return store.read_parsed(
            url, lambda data: int(store.unsealed(data).content["num_workers"]), (ValueError, KeyError, TypeError), "JSON"
        )
    except FileNotFoundError:
        raise DamageError(f"{url} is missing beside the checkpoints; restore it, or remove the folder to train anew") from None


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
    with _report_progress(training.progress, f"train stage {config.stage}", config.optimizer.steps):
        try:
            result: Any = trainer.fit()
            return result.return_value
        except ray.train.TrainingFailedError as error:
            raise _input_error(error) or error from None


def _input_error(error: Any) -> InputError | None:
    """The InputError among the failures of workers, if there is one."""
    for failure in getattr(error, "worker_failures", {}).values():
        cause = getattr(failure, "_base_exc", failure)
        if isinstance(cause, InputError):
            return cause
    return None


@contextlib.contextmanager
def _report_progress(reports: ActorHandle, what: str, total: int) -> Iterator[None]:
    """Print a line of progress every two seconds."""
    finished = threading.Event()

    def follow() -> None:
        progress = None
        while not finished.wait(1):
            with contextlib.suppress(ray.exceptions.RayError):
                latest: Any = ray.get(reports.latest.remote())
                done, note = latest
                if progress is None and done >= 0:
                    progress = Progress(what, total, done)
                elif progress and done != progress.done:
                    progress.add(done - progress.done, note)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join(5)
