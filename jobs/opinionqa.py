"""Check a file of OpinionQA: damage, a split without leaks, and the baselines that any model must beat.

python -m jobs.opinionqa conf/opinionqa/public.yaml
"""

from pydantic import Field

from valueflow.config import Config
from valueflow.console import say
from valueflow.job import run_job
from valueflow.profiles.opinionqa.baseline_table import Baselines, baselines


class OpinionQaConfig(Config):
    """The file and its split."""

    items: str = Field(description="JSON list of items in the public format")
    seed: int = Field(0, ge=0, description="of the split by battery")


SCHEMA = OpinionQaConfig


def main(config: OpinionQaConfig) -> Baselines:
    """Print what is damaged and the table of the baselines."""
    found = baselines(config.items, config.seed)
    say("\n".join(found.lines()))
    return found


if __name__ == "__main__":
    run_job(SCHEMA, main)
