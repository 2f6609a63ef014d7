"""Put queries to models under conditions (values, levels, controls) and keep the replies.

python -m jobs.steer conf/steer/tiny.yaml
"""

from valueflow.console import say
from valueflow.distributed.cluster import session
from valueflow.distributed.steering.generate import SteerResult, outcome_lines, steer
from valueflow.distributed.steering.generate_config import SteerConfig
from valueflow.distributed.steering.generate_estimate import dry_run, estimate_table
from valueflow.job import run_job

SCHEMA = SteerConfig


def main(config: SteerConfig) -> SteerResult | None:
    """Steer the models, print what became of the queries and where the replies are."""
    if config.dry_run:
        say(estimate_table(dry_run(config)))
        return None
    with session(config.cluster):
        result = steer(config)
    for line in outcome_lines(result.builds):
        say(line)
    for name, files in result.exports.items():
        say(f"to score {name}: python -m jobs.evaluate YAML responses='{files}' pairs=about")
    return result


if __name__ == "__main__":
    run_job(SCHEMA, main)
