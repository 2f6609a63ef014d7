"""Score responses against a published VIDB with a judge, or from saved rankings.

python -m jobs.evaluate conf/evaluate/tiny.yaml
"""

from valueflow.config import run_job
from valueflow.distributed.cluster import session
from valueflow.distributed.evaluation.config import EvaluateConfig
from valueflow.distributed.evaluation.run import EvaluationResult, dry_run, evaluate
from valueflow.report.collect import evaluation_report, score_table
from valueflow.report.terminal import cost_table

SCHEMA = EvaluateConfig


def main(config: EvaluateConfig) -> EvaluationResult | None:
    """Evaluate, print a short table and where scores and report are."""
    with session(config.cluster):
        if config.dry_run:
            print(cost_table(dry_run(config)))
            return None
        result = evaluate(config)
    print(score_table(result.build))
    print(f"scores: {result.build.url}")
    print(f"report: {evaluation_report(result.build)}")
    return result


if __name__ == "__main__":
    run_job(SCHEMA, main)
