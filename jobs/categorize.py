"""Label texts by a panel of voters, level by level through the theories; what stays open goes to a human queue.

python -m jobs.categorize conf/categorize/tiny.yaml
"""

from valueflow.config import run_job
from valueflow.distributed.cluster import session
from valueflow.distributed.panel.categorize import CategorizeConfig, Categorized, categorize, dry_run
from valueflow.report.panel_page import panel_report
from valueflow.report.terminal import cost_table

SCHEMA = CategorizeConfig


def main(config: CategorizeConfig) -> Categorized | None:
    """Label, and print where the labels, the human queue and the report are."""
    with session(config.cluster):
        if config.dry_run:
            print(cost_table(dry_run(config)))
            return None
        at = categorize(config)
    print(f"labels: {at.labels.url}")
    print(f"human queue: {at.queue.url}/human_queue.csv")
    print(f"report: {panel_report(at.labels, at.votes, at.queue)}")
    return at


if __name__ == "__main__":
    run_job(SCHEMA, main)
