"""A mutated YAML of a job or of Ray Serve is a valid config or is refused in one sentence."""

import importlib
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from mutations import Mutation, mutated, mutations, reading

from valueflow.config import load

REPOSITORY = Path(__file__).parents[1]
JOBS = sorted((REPOSITORY / "conf").glob("*/*.yaml"))
TINY = [path for path in JOBS if path.stem in ("tiny", "official") and path.parent.name != "train_hives"]  # a slow import
SERVED = sorted((REPOSITORY / "infra" / "serve").glob("*.yaml"))


def named(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def check_job(folder: Path, path: Path, operations: list[Mutation]) -> None:
    schema = importlib.import_module(f"jobs.{path.parent.name}").SCHEMA
    file = folder / "job.yaml"
    file.write_bytes(mutated(path.read_bytes(), operations))
    config = reading(lambda: load(schema, str(file), ["root=elsewhere"]))
    if config is not None:  # what is saved of it can be read again
        again = schema.model_validate(yaml.safe_load(yaml.safe_dump(config.model_dump())))
        assert again.model_dump() == config.model_dump()  # configs also know the texts with resolvers that they came from


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("configs")


@pytest.mark.parametrize("path", [path for path in JOBS if path.parent.name != "train_hives"], ids=named)  # a slow import
def test_what_is_saved_of_a_shipped_job_can_be_read_again(folder, path):
    check_job(folder, path, [])


@pytest.mark.parametrize("path", TINY, ids=named)
@settings(max_examples=6, suppress_health_check=list(HealthCheck))
@given(operations=mutations)
def test_a_mutated_job_is_valid_or_refused(folder, path, operations):
    check_job(folder, path, operations)


@pytest.mark.slow
@pytest.mark.parametrize("path", JOBS, ids=named)
@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(operations=mutations)
def test_many_mutated_jobs_are_valid_or_refused(folder, path, operations):
    check_job(folder, path, operations)


def check_served(folder: Path, path: Path, operations: list[Mutation]) -> None:
    from serve import check

    file = folder / "serve.yaml"
    # Not on object storage, which would be asked.
    content = re.sub(rb"root: \S+", b"root: /nowhere/runs", path.read_bytes())
    file.write_bytes(mutated(content, operations))
    reading(lambda: check.check(check.read(str(file)), str(file)))


@pytest.mark.ray
@pytest.mark.parametrize("path", SERVED, ids=named)
@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(operations=mutations)
def test_a_mutated_serve_config_is_valid_or_refused(folder, path, operations):
    check_served(folder, path, operations)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("path", SERVED, ids=named)
@settings(max_examples=400, suppress_health_check=list(HealthCheck))
@given(operations=mutations)
def test_many_mutated_serve_configs_are_valid_or_refused(folder, path, operations):
    check_served(folder, path, operations)
