"""Label texts by a panel of voters, level by level through the theories; open questions go to a human queue.

python -m jobs.categorize conf/categorize/tiny.yaml
"""

from valueflow.console import say
from valueflow.distributed.cluster import session
from valueflow.distributed.panel.categorize import Categorization, CategorizeConfig, categorize, dry_run
from valueflow.job import run_job
from valueflow.report.panel_page import panel_report
from valueflow.report.terminal import cost_table

SCHEMA = CategorizeConfig


def main(config: CategorizeConfig) -> Categorization | None:
    """Label the texts and print the URLs of the labels, the human queue and the report."""
    with session(config.cluster):
        if config.dry_run:
            say(cost_table(dry_run(config)))
            return None
        builds = categorize(config)
    say(f"labels: {builds.labels.url}")
    say(f"human queue: {builds.queue.url}/human_queue.csv")
    say(f"report: {panel_report(builds.labels, builds.votes, builds.queue)}")
    return builds


if __name__ == "__main__":
    run_job(SCHEMA, main)
