"""Settings that the configs of several jobs share."""

from pydantic import Field

from valueflow.config import Config
from valueflow.distributed.cluster import ClusterConfig


class JobConfig(Config):
    """Base of a job's config: where its tables are and where it runs."""

    root: str = Field(description="folder or URL of all tables")
    cluster: ClusterConfig = ClusterConfig()


class TextsConfig(Config):
    """A build of texts."""

    texts: str = Field("latest", description="build id of the texts; latest: the newest finished ingest")


class LabeledTextsConfig(TextsConfig):
    """A build of texts and its labels."""

    labels: str = Field("", description='build id of a panel\'s labels, or latest; "": the labels that came with the corpora')
