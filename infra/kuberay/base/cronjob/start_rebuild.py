"""Start the rebuild that a RayCronJob describes, unless one runs: for a KubeRay without the feature gate RayCronJob.

Runs in the pod of base/cronjob, with its service account. Exit code 1: the cluster's API refused.
"""

import os
import sys
import time
from pathlib import Path

import httpx

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
FINISHED = ("Complete", "Failed", "ValidationFailed")


def start(api: httpx.Client, template: str, name: str) -> str:
    """Create RayJob `name` from RayCronJob `template` after the one before, if that has ended; return what was done.

    Raises:
        httpx.HTTPError: the API does not answer or refuses.
    """
    previous = api.get(f"rayjobs/{name}")
    if previous.status_code != 404:
        status = previous.raise_for_status().json().get("status", {}).get("jobDeploymentStatus", "")
        if status not in FINISHED:
            return f"{name} is still {status or 'new'}: nothing started"
        api.delete(f"rayjobs/{name}", params={"propagationPolicy": "Foreground"}).raise_for_status()
        while api.get(f"rayjobs/{name}").status_code != 404:
            time.sleep(1)
    spec = api.get(f"raycronjobs/{template}").raise_for_status().json()["spec"]["jobTemplate"]
    metadata = {"name": name, "labels": {"app.kubernetes.io/part-of": "valueflow"}}
    body = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": metadata, "spec": spec}
    api.post("rayjobs", json=body).raise_for_status()
    return f"{name} started"


def main() -> None:
    """Start it with the account of the pod; arguments: name of the RayCronJob, name of the RayJob."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    namespace, token = (ACCOUNT / "namespace").read_text(), (ACCOUNT / "token").read_text()
    with httpx.Client(
        base_url=f"https://{host}:{port}/apis/ray.io/v1/namespaces/{namespace}/",
        headers={"Authorization": f"Bearer {token}"},
        verify=str(ACCOUNT / "ca.crt"),
        timeout=30,
    ) as api:
        sys.stdout.write(start(api, sys.argv[1], sys.argv[2]) + "\n")


if __name__ == "__main__":
    main()
