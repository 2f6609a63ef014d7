"""One Ray cluster for all tests of a session; where the real data for tests lie."""

from pathlib import Path

import pytest

from valueflow.distributed.cluster import ClusterConfig, session

REPOSITORY = Path(__file__).parents[1]
DATA = REPOSITORY.parent / "shared" / "data"


@pytest.fixture(scope="session")
def cluster():
    with session(ClusterConfig(num_cpus=8)):
        yield


@pytest.fixture
def data() -> Path:
    """The folder of real corpora and ground truth; the test is skipped where it is absent."""
    if not DATA.is_dir():
        pytest.skip(f"{DATA} is absent")
    return DATA
