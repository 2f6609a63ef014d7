"""Find the values that texts express: the nearest nodes of each theory, with direction and confidence.

python -m jobs.extract conf/extract/tiny.yaml
"""

from valueflow.config import run_job
from valueflow.distributed.cluster import session
from valueflow.distributed.extract import ExtractConfig, extract
from valueflow.store import Build

SCHEMA = ExtractConfig


def main(config: ExtractConfig) -> Build:
    """Extract and print where the nodes are."""
    with session(config.cluster):
        extracted = extract(config)
    print(f"extracted: {extracted.url}")
    return extracted


if __name__ == "__main__":
    run_job(SCHEMA, main)
