"""Build a VIDB from ingested texts: curate, plan, rank, aggregate, calibrate, publish, report.

python -m jobs.build_vidb conf/build_vidb/tiny.yaml
"""

from valueflow.console import say
from valueflow.distributed.build.pipeline import BuildStages, BuildVidbConfig, build_vidb, dry_run
from valueflow.distributed.cluster import session
from valueflow.job import run_job
from valueflow.report.collect import vidb_report
from valueflow.report.terminal import cost_table

SCHEMA = BuildVidbConfig


def main(config: BuildVidbConfig) -> BuildStages | None:
    """Build, publish and print where the version and its report are."""
    with session(config.cluster):
        if config.dry_run:
            say(cost_table(dry_run(config)))
            return None
        at = build_vidb(config)
    say(f"VIDB {at.vidb.build_id}: {at.vidb.url}")
    say(f"report: {vidb_report(at.texts, at.candidates, at.rankings, at.utilities, at.vidb)}")
    return at


if __name__ == "__main__":
    run_job(SCHEMA, main)
