"""Score responses against a published VIDB with a judge, or from saved rankings.

python -m jobs.evaluate conf/evaluate/tiny.yaml
"""

from valueflow.console import say
from valueflow.distributed.cluster import session
from valueflow.distributed.evaluation.config import EvaluateConfig
from valueflow.distributed.evaluation.run import EvaluationResult, dry_run, evaluate
from valueflow.evaluation.responses import own_values
from valueflow.job import run_job
from valueflow.report.collect import evaluation_report
from valueflow.report.score_table import score_table
from valueflow.report.terminal import cost_table

SCHEMA = EvaluateConfig


def main(config: EvaluateConfig) -> EvaluationResult | None:
    """Evaluate, print a short table and where scores and report are."""
    with session(config.cluster):
        if config.dry_run:
            say(cost_table(dry_run(config)))
            return None
        result = evaluate(config)
    say(score_table(result.build, own_values(config.responses)))
    say(f"scores: {result.build.url}")
    say(f"report: {evaluation_report(result.build)}")
    return result


if __name__ == "__main__":
    run_job(SCHEMA, main)
