"""Training curves during a run: TensorBoard files in the build, optionally MLflow and Weights & Biases."""

import tempfile
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from valueflow import store
from valueflow.distributed.train.config import TrainHivesConfig
from valueflow.store import Build

TENSORBOARD_FOLDER = "tensorboard"


class Tracker:
    """Writes curves from rank 0; a resumed run continues its curves."""

    def __init__(self, config: TrainHivesConfig, build: Build, first: int) -> None:
        self.every = config.tracking.every
        self.url = f"{build.url}/{TENSORBOARD_FOLDER}"
        fs, path = store.filesystem(self.url)
        self.temporary = None if "file" in fs.protocol else tempfile.TemporaryDirectory()
        # TensorBoard then ignores points of an earlier attempt from step `first` on.
        self.writer = SummaryWriter(self.temporary.name if self.temporary else path, purge_step=first)
        settings = config.public()
        self.mlflow = _mlflow(config.tracking.mlflow, build, settings) if config.tracking.mlflow is not None else None
        self.wandb = _wandb(config.tracking.wandb, build, settings) if config.tracking.wandb is not None else None

    def log(self, step: int, row: dict[str, float], always: bool = False) -> None:
        """Add a point to every curve if `always`, every `every` steps, and for rows with validation metrics."""
        if not (always or step % self.every == 0 or any("/" in name for name in row)):
            return
        scalars = {name: value for name, value in row.items() if name != "step"}
        for name, value in scalars.items():
            self.writer.add_scalar(name, value, step)
        if self.mlflow:
            client, run_id = self.mlflow
            for name, value in scalars.items():
                client.log_metric(run_id, name, value, step=step)
        if self.wandb:
            self.wandb.log(scalars, step=step)

    def flush(self) -> None:
        """Upload TensorBoard's files to the build."""
        self.writer.flush()
        if self.temporary:
            store.upload(self.temporary.name, self.url)

    def close(self) -> None:
        """Finish the curves."""
        self.flush()
        self.writer.close()
        if self.temporary:
            self.temporary.cleanup()
        if self.mlflow:
            client, run_id = self.mlflow
            client.set_terminated(run_id)
        if self.wandb:
            self.wandb.finish()


def _mlflow(settings: dict[str, Any], build: Build, config: dict[str, Any]) -> tuple[Any, str]:
    """A client and the run id of this build; a resumed training reuses its run."""
    from mlflow import MlflowClient

    client = MlflowClient(settings.get("tracking_uri"))
    name = settings.get("experiment", "valueflow")
    existing = client.get_experiment_by_name(name)
    experiment = existing.experiment_id if existing else client.create_experiment(name)
    for run in client.search_runs([experiment], f"tags.valueflow_build = '{build.build_id}'", max_results=1):
        return client, run.info.run_id
    run = client.create_run(experiment, run_name=build.build_id, tags={"valueflow_build": build.build_id})
    for section, values in config.items():
        client.log_param(run.info.run_id, section, str(values)[:500])
    return client, run.info.run_id


def _wandb(settings: dict[str, Any], build: Build, config: dict[str, Any]) -> Any:
    import wandb

    return wandb.init(**({"project": "valueflow"} | settings), id=build.build_id, resume="allow", config=config)
