"""Extract the values that texts express: nodes of each theory with direction and confidence.

python -m jobs.extract conf/extract/tiny.yaml
"""

from valueflow.console import say
from valueflow.distributed.cluster import session
from valueflow.distributed.extract import ExtractConfig, extract
from valueflow.job import run_job
from valueflow.store import Build

SCHEMA = ExtractConfig


def main(config: ExtractConfig) -> Build:
    """Extract the nodes and print their URL."""
    with session(config.cluster):
        extracted = extract(config)
    say(f"extracted: {extracted.url}")
    return extracted


if __name__ == "__main__":
    run_job(SCHEMA, main)
