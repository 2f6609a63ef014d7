"""One Ray cluster for all tests of a session; where the real data for tests lie."""

from pathlib import Path

import pytest
from hypothesis import settings

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


@pytest.fixture
def data() -> Path:
    """The folder of real corpora and ground truth; the test is skipped where it is absent."""
    if not DATA.is_dir():
        pytest.skip(f"{DATA} is absent")
    return DATA
