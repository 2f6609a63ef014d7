"""Train HiVES, the hierarchical value embedding: stage 1 within theories, stage 2 across theories.

python -m jobs.train_hives conf/train_hives/tiny.yaml
"""

from valueflow.console import say
from valueflow.distributed.cluster import session
from valueflow.distributed.train.config import TrainHivesConfig
from valueflow.distributed.train.export import PAGE_FILE, overall_metrics_table
from valueflow.distributed.train.run import TrainingResult, train_hives
from valueflow.job import run_job

SCHEMA = TrainHivesConfig


def main(config: TrainHivesConfig) -> TrainingResult:
    """Train; print the metrics compared with the base model, and the URLs of encoder and page."""
    with session(config.cluster):
        trained = train_hives(config)
    say(overall_metrics_table(trained.metrics))
    say(f"encoder: {trained.model}\npage: {trained.build.url}/{PAGE_FILE}")
    return trained


if __name__ == "__main__":
    run_job(SCHEMA, main)
