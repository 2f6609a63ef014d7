"""A model's own values: profiles of models from their replies to queries without a persona, generated here or by jobs.steer.

python -m jobs.profile_model conf/profile_model/tiny.yaml
"""

from valueflow.console import say
from valueflow.distributed.cluster import session
from valueflow.distributed.profiles.config import ProfileModelConfig
from valueflow.distributed.profiles.own_values import profile_models
from valueflow.distributed.steering.generate_estimate import dry_run, estimate_table
from valueflow.job import run_job
from valueflow.report.profile_files import write_files
from valueflow.store import Build

SCHEMA = ProfileModelConfig


def main(config: ProfileModelConfig) -> Build | None:
    """Make the profiles and their files; print where they are."""
    if config.dry_run:
        say(estimate_table(dry_run(config.steering())))
        return None
    with session(config.cluster):
        profiles = profile_models(config)
    say(f"profiles: {profiles.url}")
    for url in write_files(profiles, config.page.units, config.page.reference):
        say(f"file: {url}")
    return profiles


if __name__ == "__main__":
    run_job(SCHEMA, main)
