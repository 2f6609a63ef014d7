"""Build concept anchors, clusters of texts that span value theories, for stage 2 of HiVES.

python -m jobs.build_anchors conf/build_anchors/tiny.yaml
"""

from valueflow.console import say
from valueflow.distributed.anchors import AnchorBuilds, BuildAnchorsConfig, build_anchors, dry_run
from valueflow.distributed.cluster import session
from valueflow.job import run_job
from valueflow.report.terminal import balance_table, cost_table

SCHEMA = BuildAnchorsConfig


def main(config: BuildAnchorsConfig) -> AnchorBuilds | None:
    """Build the anchors; print their balance over theories and their URLs."""
    with session(config.cluster):
        if config.dry_run:
            say(cost_table(dry_run(config)))
            return None
        builds = build_anchors(config)
    say(balance_table(builds.balance))
    say(f"anchors: {builds.anchors.url}\ntexts at anchors: {builds.anchored.url}")
    return builds


if __name__ == "__main__":
    run_job(SCHEMA, main)
