"""Kubernetes manifests of infra/kuberay as kubectl renders them, and KubeRay's CRDs as strict JSON schemas."""

import functools
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).parents[1]
KUBERAY = REPOSITORY / "infra" / "kuberay"
CRDS = REPOSITORY.parent / "shared" / "crds"
OVERLAYS = sorted(
    str(path.parent.relative_to(KUBERAY))
    for stage in ("dev", "prod")
    for path in KUBERAY.glob(f"{stage}/*/kustomization.yaml")
    if path.parent.name != "settings"
)


@functools.cache
def rendered(overlay: str) -> tuple[dict[str, Any], ...]:
    """The objects of an overlay; the test is skipped without kubectl or kustomize."""
    if kubectl := shutil.which("kubectl"):
        command = [kubectl, "kustomize"]
    elif kustomize := shutil.which("kustomize"):
        command = [kustomize, "build"]
    else:
        pytest.skip("neither kubectl nor kustomize is installed")
    output = subprocess.run([*command, str(KUBERAY / overlay)], capture_output=True, text=True, check=False)
    assert output.returncode == 0, output.stderr
    assert output.stderr == "", "a deprecated field"
    return tuple(yaml.safe_load_all(output.stdout))


def ray_objects(overlays: list[str] = OVERLAYS) -> Iterator[tuple[str, dict[str, Any]]]:
    """All objects of KubeRay's kinds, with a name for messages."""
    for overlay in overlays:
        for item in rendered(overlay):
            if item["apiVersion"].startswith("ray.io/"):
                yield f"{overlay}: {item['kind']}", item


def job_spec(item: dict[str, Any]) -> dict[str, Any] | None:
    """The RayJob that an object is or makes."""
    return {"RayJob": lambda: item["spec"], "RayCronJob": lambda: item["spec"]["jobTemplate"]}.get(item["kind"], lambda: None)()


def cluster_spec(item: dict[str, Any]) -> dict[str, Any]:
    """The cluster of an object of KubeRay."""
    if item["kind"] == "RayCluster":
        return item["spec"]
    if item["kind"] == "RayService":
        return item["spec"]["rayClusterConfig"]
    return (job_spec(item) or {})["rayClusterSpec"]


def groups(cluster: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The worker groups by name."""
    return {group["groupName"]: group for group in cluster["workerGroupSpecs"]}


def pods(cluster: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The pod specs of a cluster by group; the head's is `head`."""
    head = {"head": cluster["headGroupSpec"]["template"]["spec"]}
    return head | {name: group["template"]["spec"] for name, group in groups(cluster).items()}


@functools.cache
def crd(kind: str) -> dict[str, Any]:
    """The JSON schema of a kind; fields that the API server would drop are errors. The test is skipped without the CRDs.

    Rules in CEL (x-kubernetes-validations) are not evaluated.
    """
    path = CRDS / f"ray.io_{kind.lower()}s.yaml"
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    content = yaml.load(path.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    (version,) = (one for one in content["spec"]["versions"] if one["name"] == "v1")
    return _closed(version["schema"]["openAPIV3Schema"], top=True)


def _closed(schema: Any, top: bool = False) -> Any:
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {
        key: {name: _closed(part) for name, part in value.items()} if key == "properties" else _closed(value)
        for key, value in schema.items()
        if key not in ("description", "default", "example")
    }
    if "properties" in schema and not top and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema.setdefault("additionalProperties", False)
    return schema
