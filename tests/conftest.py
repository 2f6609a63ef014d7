"""One Ray cluster for all tests of a session; where the real data for tests lie."""

from pathlib import Path

import pytest
from hypothesis import settings
from roots import with_texts_of

from jobs import ingest
from valueflow.config import load
from valueflow.distributed.cluster import ClusterConfig, session

REPOSITORY = Path(__file__).parents[1]
DATA = REPOSITORY.parent / "shared" / "data"

# The same examples on every run, no time limit for one: a busy machine is no failure. --hypothesis-profile=default explores.
settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")


@pytest.fixture(scope="session")
def cluster():
    with session(ClusterConfig(num_cpus=8)):
        yield


@pytest.fixture(scope="session")
def ingested(cluster, tmp_path_factory) -> Path:
    """A root with the sample corpus; tests that write have one of their own, `root`."""
    root = tmp_path_factory.mktemp("ingested")
    ingest.main(load(ingest.SCHEMA, "conf/ingest/tiny.yaml", [f"root={root}"]))
    return root


@pytest.fixture
def root(ingested, tmp_path) -> Path:
    """A root of this test with the texts of the sample corpus."""
    return with_texts_of(ingested, tmp_path)


@pytest.fixture
def data() -> Path:
    """The folder of real corpora and ground truth; the test is skipped where it is absent."""
    if not DATA.is_dir():
        pytest.skip(f"{DATA} is absent")
    return DATA
