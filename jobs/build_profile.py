"""Make the value profiles of persons, groups or models from their texts.

python -m jobs.build_profile conf/build_profile/tiny.yaml
"""

from valueflow.console import say
from valueflow.distributed.cluster import session
from valueflow.distributed.profiles.config import BuildProfileConfig
from valueflow.distributed.profiles.run import build_profiles
from valueflow.job import run_job
from valueflow.report.profile_files import write_files
from valueflow.store import Build

SCHEMA = BuildProfileConfig


def main(config: BuildProfileConfig) -> Build:
    """Make the profiles and their files; print where they are."""
    with session(config.cluster):
        profiles = build_profiles(config)
    say(f"profiles: {profiles.url}")
    for url in write_files(profiles, config.page.units, config.page.reference):
        say(f"file: {url}")
    return profiles


if __name__ == "__main__":
    run_job(SCHEMA, main)
