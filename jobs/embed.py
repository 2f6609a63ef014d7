"""Embed texts with an encoder; optionally write the official NPZ file of each theory.

python -m jobs.embed conf/embed/tiny.yaml
"""

from valueflow.console import say
from valueflow.distributed.cluster import session
from valueflow.distributed.embed import EmbedConfig, embed_texts
from valueflow.job import run_job
from valueflow.store import Build

SCHEMA = EmbedConfig


def main(config: EmbedConfig) -> Build:
    """Embed the texts and print the URLs of the results."""
    with session(config.cluster):
        embeddings, files = embed_texts(config)
    say(f"embeddings: {embeddings.url}")
    for file in files:
        say(f"npz: {file}")
    return embeddings


if __name__ == "__main__":
    run_job(SCHEMA, main)
