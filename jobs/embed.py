"""Turn texts into vectors with an encoder, in a table and, where asked for, as the official NPZ of each theory.

python -m jobs.embed conf/embed/tiny.yaml
"""

from valueflow.config import run_job
from valueflow.distributed.cluster import session
from valueflow.distributed.embed import EmbedConfig, embed_texts
from valueflow.store import Build

SCHEMA = EmbedConfig


def main(config: EmbedConfig) -> Build:
    """Embed and print where the vectors are."""
    with session(config.cluster):
        embedded, files = embed_texts(config)
    print(f"embeddings: {embedded.url}")
    for file in files:
        print(f"npz: {file}")
    return embedded


if __name__ == "__main__":
    run_job(SCHEMA, main)
