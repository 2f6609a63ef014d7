"""Read corpora into the tables texts, source_labels and rejected.

python -m jobs.ingest conf/ingest/tiny.yaml
"""

from pydantic import Field

from valueflow.config import Config
from valueflow.console import say
from valueflow.corpora import CorpusConfig
from valueflow.distributed.build.ingest import ingest
from valueflow.distributed.cluster import ClusterConfig, session
from valueflow.job import run_job
from valueflow.store import Build


class IngestConfig(Config):
    """Corpora to read, and the root to write into."""

    root: str = Field(description="folder or URL under which all tables live")
    corpora: list[CorpusConfig] = Field(min_length=1)
    cluster: ClusterConfig = ClusterConfig()


SCHEMA = IngestConfig


def main(config: IngestConfig) -> Build:
    """Ingest the corpora and print the URL of the texts."""
    with session(config.cluster):
        texts = ingest(config.corpora, config.root)
    say(f"texts: {texts.url}")
    return texts


if __name__ == "__main__":
    run_job(SCHEMA, main)
