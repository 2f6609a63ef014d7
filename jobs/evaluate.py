"""Score responses against a published VIDB with a judge, or from saved rankings.

python -m jobs.evaluate conf/evaluate/tiny.yaml
"""

from valueflow import config as configs
from valueflow.distributed.cluster import session
from valueflow.distributed.evaluate import EvaluateConfig, Evaluated, evaluate
from valueflow.report.build import evaluation_report

SCHEMA = EvaluateConfig


def main(config: EvaluateConfig) -> Evaluated:
    """Evaluate, print a short table and where scores and report are."""
    with session(config.cluster):
        evaluated = evaluate(config)
    print(evaluation_report(evaluated))
    return evaluated


if __name__ == "__main__":
    configs.cli(SCHEMA, main)
