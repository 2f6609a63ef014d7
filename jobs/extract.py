"""Find the values that texts express: the nearest nodes of each theory, with direction and confidence.

python -m jobs.extract conf/extract/tiny.yaml
"""

from valueflow import config as configs
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
    configs.cli(SCHEMA, main)
