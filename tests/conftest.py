"""Markers by fixture, one Ray cluster for all tests of a session, and the folder of real data."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

# Before numpy: the matrices of tests are small, and threads of BLAS cost more than they save (1 s became 20). vLLM and
# torch have threads of their own. Workers of Ray inherit it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest
from configs import SIMULATED, job_config
from hypothesis import settings
from moto_bucket import bucket  # noqa: F401 a fixture of tests in several folders
from roots import with_texts_of

if TYPE_CHECKING:
    from valueflow.distributed.build.pipeline import BuildStages
    from valueflow.distributed.evaluation.run import EvaluationResult

REPOSITORY = Path(__file__).parents[1]
DATA = REPOSITORY.parent / "shared" / "data"
SCORED = ["svt:benevolence", "duty:fidelity"]
SUITES = ("component", "ray", "llm", "browser", "statistics", "chaos", "gpu", "slow")
WHOLLY_MARKED = re.compile(r"^pytestmark = .*pytest\.mark\.(component|ray|llm|chaos|slow)\b", re.MULTILINE)
# Files that take a minute or more, longest first. Two processes share the files in this order (see the Makefile), so that none
# begins a long one when the other has nothing left.
LONGEST = (
    "distributed/test_endpoint_jobs.py", "serve_app/test_application.py", "distributed/train/test_training.py",
    "distributed/steering/test_generate.py", "distributed/profiles/test_build_profiles.py",
    "distributed/test_outages.py", "jobs/test_anywhere.py", "distributed/test_embed.py", "distributed/panel/test_categorize.py",
    "people/test_afternoon.py", "distributed/test_vllm.py", "distributed/test_pipeline.py", "serve_app/test_engine.py",
    "serve_app/test_serve_command.py", "distributed/test_validity.py", "distributed/build/test_builds.py",
    "distributed/test_secrets.py", "distributed/test_address.py", "distributed/build/test_aggregate.py",
)  # fmt: skip

# The same examples on every run, no time limit for one: a busy machine is no failure. --hypothesis-profile=default explores.
settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark by fixture what needs a cluster or a browser; what has no marker of a suite is a unit test."""
    for fixture, marker in (("cluster", "ray"), ("browser", "browser"), ("bucket", "component")):
        if fixture in getattr(item, "fixturenames", ()):
            item.add_marker(marker)
    if item.get_closest_marker("statistics"):
        item.add_marker("slow")
    if not any(map(item.get_closest_marker, SUITES)):
        item.add_marker("unit")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `-m unit`, files that are marked as a whole are not imported: Ray Serve and the rest take half a minute."""
    if config.option.markexpr != "unit" or collection_path.suffix != ".py":
        return None
    return True if WHOLLY_MARKED.search(collection_path.read_text("utf-8")) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first; the order within a file stays."""
    place = {REPOSITORY / "tests" / file: number for number, file in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


@pytest.fixture(scope="session")
def cluster():
    from valueflow.distributed.cluster import ClusterConfig, session

    with session(ClusterConfig(num_cpus=8)):
        yield


@pytest.fixture(scope="session")
def ingested(cluster, tmp_path_factory) -> Path:
    """A root with the sample corpus; tests that write have one of their own, `root`."""
    from jobs import ingest
    from valueflow.config import load

    root = tmp_path_factory.mktemp("ingested")
    ingest.main(load(ingest.SCHEMA, "conf/ingest/tiny.yaml", [f"root={root}"]))
    return root


@pytest.fixture
def root(ingested, tmp_path) -> Path:
    """A root of this test with the texts of the sample corpus."""
    return with_texts_of(ingested, tmp_path)


@pytest.fixture
def small_parts(monkeypatch) -> None:
    """Answers stay in the parts in which they were committed, so that `rewind` can bring a root back between them."""
    from valueflow.distributed.answer import AnswerStage

    monkeypatch.setattr(AnswerStage, "finish", lambda stage: stage.journal.close())


class Built(NamedTuple):
    """A root with a published version, and the builds of its stages."""

    root: Path
    at: "BuildStages"


@pytest.fixture(scope="session")
def built(ingested, tmp_path_factory) -> Built:
    """A root in which a simulated judge has built and published a version of the sample corpus; not to be changed."""
    from jobs import build_vidb

    root = with_texts_of(ingested, tmp_path_factory.mktemp("built"))
    windows = {"mode": "balanced", "k": 2, "m": 24, "seed": 0}
    return Built(root, build_vidb.main(job_config(build_vidb, root, judge=SIMULATED, windows=windows)))


@pytest.fixture(scope="session")
def evaluated(built) -> "EvaluationResult":
    """The sample responses scored with that version, by the same judge."""
    from jobs import evaluate

    return evaluate.main(job_config(evaluate, built.root, "evaluator.seed=3", judge=SIMULATED, values=SCORED))


@pytest.fixture
def data() -> Path:
    """The folder of real corpora and ground truth; the test is skipped where it is absent."""
    if not DATA.is_dir():
        pytest.skip(f"{DATA} is absent")
    return DATA
