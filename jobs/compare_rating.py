"""Compare rating with ranking of the same texts by the same judges: variance, sign flips, re-prompts, accuracy.

python -m jobs.compare_rating conf/compare_rating/tiny.yaml
"""

import yaml

from valueflow.console import say
from valueflow.distributed.cluster import session
from valueflow.distributed.rating import CompareRatingConfig, compare_rating, dry_run
from valueflow.job import run_job
from valueflow.judging.audit.rating import Comparison
from valueflow.records import digest
from valueflow.report.rating_page import rating_page, rating_table
from valueflow.report.terminal import cost_table
from valueflow.store import report_url, write_bytes

SCHEMA = CompareRatingConfig


def main(config: CompareRatingConfig) -> Comparison | None:
    """Compare; print the table and the URL of the page."""
    with session(config.cluster):
        if config.dry_run:
            say(cost_table(dry_run(config)))
            return None
        comparison = compare_rating(config)
    resolved = config.public()
    url = report_url(config.root, f"rating-{digest(resolved)}")
    settings = {"values": ", ".join(config.values), "repeats": str(config.repeats), "windows": str(config.windows)}
    page = rating_page(comparison, config.anchors, settings, yaml.safe_dump(resolved, sort_keys=False))
    write_bytes(url, page.encode())
    say(rating_table(comparison))
    say(f"report: {url}")
    return comparison


if __name__ == "__main__":
    run_job(SCHEMA, main)
