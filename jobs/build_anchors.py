"""Find concept anchors, clusters of texts that value theories share: for stage 2 of HiVES.

python -m jobs.build_anchors conf/build_anchors/tiny.yaml
"""

from valueflow.config import run_job
from valueflow.distributed.anchors import AnchorBuilds, BuildAnchorsConfig, build_anchors, dry_run
from valueflow.distributed.cluster import session
from valueflow.report.terminal import balance_table, cost_table

SCHEMA = BuildAnchorsConfig


def main(config: BuildAnchorsConfig) -> AnchorBuilds | None:
    """Find, print how the anchors spread over theories and where they are."""
    with session(config.cluster):
        if config.dry_run:
            print(cost_table(dry_run(config)))
            return None
        at = build_anchors(config)
    print(balance_table(at.balance))
    print(f"anchors: {at.anchors.url}\ntexts at anchors: {at.anchored.url}")
    return at


if __name__ == "__main__":
    run_job(SCHEMA, main)
