"""The manifests of infra/kuberay: valid for KubeRay's CRDs and its operator's rules, with jobs and files that exist."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from manifests import KUBERAY, OVERLAYS, REPOSITORY, cluster_spec, crd, groups, job_spec, pods, ray_objects, rendered
from ray._private.ray_constants import RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S
from ray.serve.schema import ServeDeploySchema
from reverse_proxy import nginx

from serve.app import ServeConfig
from valueflow import config
from valueflow.judging.fingerprint import fingerprint

pytestmark = pytest.mark.component

RAY = next(
    line for line in (REPOSITORY / "pyproject.toml").read_text().splitlines() if "ray[data,default]==" in line
).split("==")[1].strip('",')  # fmt: skip
JOBS = ["dev/rebuild", "prod/rebuild", "prod/train"]


def test_the_overlays_are_these():
    assert OVERLAYS == [
        "dev/cluster", "dev/common", "dev/rebuild",
        "prod/cluster", "prod/common", "prod/cronjob", "prod/rebuild", "prod/schedule", "prod/serve", "prod/train",
    ]  # fmt: skip


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_valid_for_the_crds(overlay):
    for _, item in ray_objects([overlay]):
        jsonschema.Draft202012Validator(crd(item["kind"])).validate(item)


def test_the_validation_refuses_what_the_api_server_would_drop():
    (item,) = rendered("prod/rebuild")
    validator = jsonschema.Draft202012Validator(crd("RayJob"))
    for spec in ({"backofLimit": 3}, {"backoffLimit": "3"}):
        assert not validator.is_valid(item | {"spec": item["spec"] | spec})


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_job_keeps_the_rules_of_the_operator(overlay):
    """`ValidateRayJobSpec` and `ValidateRayCronJobSpec` of KubeRay 1.7, as far as the manifests touch them."""
    for where, item in ray_objects([overlay]):
        if (job := job_spec(item)) is None:
            continue
        assert len(item["metadata"]["name"]) <= 47, where
        assert job["shutdownAfterJobFinishes"] or not job.get("suspend"), where
        assert not ("clusterSelector" in job and (job.get("suspend") or job.get("backoffLimit"))), where
        assert job["backoffLimit"] == 0 or job["submissionMode"] != "InteractiveMode", where
        if job["submissionMode"] == "SidecarMode":
            assert not {"submitterPodTemplate", "submitterConfig"} & set(job), where
        assert not ("deletionStrategy" in job and job["shutdownAfterJobFinishes"]), where
        assert job["activeDeadlineSeconds"] > job["preRunningDeadlineSeconds"] > 0, where
        assert "TZ" not in item["spec"].get("schedule", ""), where


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_cluster_keeps_the_rules_of_the_operator(overlay):
    """`ValidateRayClusterSpec`: the autoscaler v2, priorities, tokens and resources."""
    for where, item in ray_objects([overlay]):
        cluster = cluster_spec(item)
        version = tuple(map(int, cluster["rayVersion"].split(".")))
        assert cluster["enableInTreeAutoscaling"], where
        assert cluster["autoscalerOptions"]["version"] == "v2", where
        assert cluster["authOptions"]["mode"] == "token", where
        assert cluster["authOptions"]["secretName"], where
        assert version >= (2, 56, 0), "priorities need 2.56, tokens 2.52"
        for name, pod in pods(cluster).items():
            assert pod.get("restartPolicy", "Never") == "Never", (where, name)
            names = {variable["name"] for container in pod["containers"] for variable in container.get("env", [])}
            assert not names & {"RAY_enable_autoscaler_v2", "RAY_REDIS_ADDRESS", "RAY_AUTH_TOKEN"}, (where, name)
        for name, group in groups(cluster).items():
            assert 0 <= group["minReplicas"] <= group["maxReplicas"], (where, name)
            assert not ("resources" in group and set(group["rayStartParams"]) & {"num-cpus", "num-gpus", "memory"}), (
                where,
                name,
            )


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_cluster_has_the_ray_that_is_tested_an_idle_head_and_spot_before_on_demand(overlay):
    for where, item in ray_objects([overlay]):
        cluster = cluster_spec(item)
        assert cluster["rayVersion"] == RAY, where
        assert cluster["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}, where
        head = pods(cluster)["head"]
        assert "nvidia.com/gpu" not in head["containers"][0]["resources"]["limits"], where
        assert head.get("nodeSelector", {}).get("valueflow/capacity") != "spot", where
        spot = [group for name, group in groups(cluster).items() if name.endswith("-spot")]
        demand = [group for name, group in groups(cluster).items() if name.endswith("-on-demand")]
        assert bool(spot) == overlay.startswith("prod/"), where
        for group in spot:
            assert all(group["priority"] > other.get("priority", 0) for other in demand), where
            assert group["minReplicas"] == 0, where


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_run_without_root_and_stop_after_ray_has_drained_them(overlay):
    for where, item in ray_objects([overlay]):
        for name, pod in pods(cluster_spec(item)).items():
            assert pod["securityContext"]["runAsNonRoot"], (where, name)
            (container,) = pod["containers"]
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}, (where, name)
            assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"], (where, name)
            environment = {one["name"]: one["value"] for one in container.get("env", [])}
            drain = float(environment.get("RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S", RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S))
            assert pod["terminationGracePeriodSeconds"] > drain, (where, name)


def commands(entrypoint: str) -> list[list[str]]:
    """The commands of an entrypoint as the head runs them: the submitter's shell has split it, Ray has joined it again."""
    joined = subprocess.list2cmdline(shlex.split(entrypoint))  # as `ray job submit` does
    script = f'python() {{ printf "%s\\n" "$@" --; }}; cd() {{ :; }}; export -f python cd\n{joined}'
    environment = {"VALUEFLOW_ROOT": "s3://bucket/root", "HIVES_ROOT": "s3://bucket/hives", "PATH": "/usr/bin:/bin"}
    output = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=True).stdout
    return [part.split("\n") for part in output.removesuffix("\n--\n").split("\n--\n")]


@pytest.mark.parametrize("overlay", JOBS)
def test_an_entrypoint_names_jobs_and_configurations_that_exist_and_load(overlay, monkeypatch):
    (item,) = (item for _, item in ray_objects([overlay]))
    roots = set()
    for dash, module, path, *overrides in commands(job_spec(item)["entrypoint"]):
        assert dash == "-m"
        assert re.fullmatch(r"jobs\.[a-z_]+", module)
        job = __import__(module, fromlist=["SCHEMA"])
        monkeypatch.chdir(REPOSITORY)
        roots.add(config.load(job.SCHEMA, path, overrides).root)
    assert roots == {"s3://bucket/hives" if overlay == "prod/train" else "s3://bucket/root"}


def loaded(overlay: str, job: str) -> Any:
    """The configuration of one job of an entrypoint."""
    (item,) = (item for _, item in ray_objects([overlay]))
    command = next(one for one in commands(job_spec(item)["entrypoint"]) if one[1] == f"jobs.{job}")
    return config.load(__import__(f"jobs.{job}", fromlist=["SCHEMA"]).SCHEMA, str(REPOSITORY / command[2]), command[3:])


def test_each_group_of_gpus_can_hold_the_judge_and_the_training():
    (item,) = (item for _, item in ray_objects(["prod/rebuild"]))
    judge = loaded("prod/rebuild", "build_vidb").judge
    workers = loaded("prod/train", "train_hives").workers
    (training,) = (item for _, item in ray_objects(["prod/train"]))
    for cluster, gpus, cpus, number in (
        (cluster_spec(item), judge.gpus_per_engine, judge.cpus_per_engine, judge.num_engines),
        (cluster_spec(training), workers.gpus_per_worker, workers.cpus_per_worker, workers.num_workers),
    ):
        for name in ("gpu-spot", "gpu-on-demand"):
            limits = groups(cluster)[name]["template"]["spec"]["containers"][0]["resources"]["limits"]
            assert int(limits["nvidia.com/gpu"]) >= gpus, name
            assert int(limits["cpu"]) >= cpus, name
            assert groups(cluster)[name]["maxReplicas"] * (int(limits["nvidia.com/gpu"]) // gpus) >= number, name


def test_the_rebuild_audits_the_judge_that_it_builds_with():
    audited, used = (fingerprint(loaded("prod/rebuild", job).judge) for job in ("audit_judge", "build_vidb"))
    assert audited == used


def test_the_standing_cluster_and_the_schedules_are_those_of_the_rebuild():
    for stage in ("dev", "prod"):
        (rebuild,) = rendered(f"{stage}/rebuild")
        (cluster,) = rendered(f"{stage}/cluster")
        assert cluster["spec"] == rebuild["spec"]["rayClusterSpec"]
    (rebuild,) = rendered("prod/rebuild")
    for overlay in ("prod/schedule", "prod/cronjob"):
        (schedule,) = (item for _, item in ray_objects([overlay]))
        assert schedule["spec"]["jobTemplate"] == rebuild["spec"]
        assert schedule["spec"].get("suspend", False) == (overlay == "prod/cronjob")


def named(overlay: str, kind: str) -> dict[str, Any]:
    (item,) = (item for item in rendered(overlay) if item["kind"] == kind)
    return item


def test_the_service_is_the_shipped_serve_config():
    service = named("prod/serve", "RayService")
    shipped = (REPOSITORY / "infra" / "serve" / "cluster.yaml").read_text()
    assert service["spec"]["serveConfigV2"] == shipped
    serve = ServeDeploySchema.model_validate(yaml.safe_load(shipped))
    cluster = cluster_spec(service)
    ports = {port["name"]: port["containerPort"] for port in pods(cluster)["cpu"]["containers"][0]["ports"]}
    assert ports["serve"] == serve.http_options.port
    (application,) = serve.applications
    settings = config.parse(ServeConfig, application.args, "serveConfigV2")
    for name, pod in pods(cluster).items():
        mounts = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
        assert mounts[str(Path(settings.http.keys_file).parent)] in {volume["name"] for volume in pod["volumes"]}, name
    drains = [deployment.graceful_shutdown_timeout_s for deployment in application.deployments]
    longest = max(drain for drain in drains if isinstance(drain, (int, float)))
    for name, group in groups(cluster).items():
        container = group["template"]["spec"]["containers"][0]
        (drain,) = (int(one["value"]) for one in container["env"] if one["name"] == "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S")
        assert drain > longest, name
    scaling = {one.name: one for one in application.deployments}
    judge = groups(cluster)
    assert judge["gpu-on-demand"]["minReplicas"] >= scaling["judge"].autoscaling_config["min_replicas"]
    assert judge["gpu-on-demand"]["maxReplicas"] >= scaling["judge"].autoscaling_config["max_replicas"]
    assert judge["cpu"]["minReplicas"] >= scaling["evaluator"].autoscaling_config["min_replicas"]


def test_the_proxy_runs_the_shipped_configuration_in_front_of_the_service(tmp_path):
    pod = named("prod/serve", "Deployment")["spec"]["template"]["spec"]
    (configure,) = pod["initContainers"]
    conf = tmp_path / "nginx.conf"
    shipped = REPOSITORY / "infra" / "serve" / "nginx.conf"
    arguments = [
        argument.replace("/var/lib/valueflow-proxy", str(tmp_path)).replace("/etc/valueflow/nginx.conf", str(shipped))
        for argument in configure["args"]
    ]
    subprocess.run(["sed", *arguments], check=True, stdout=subprocess.DEVNULL)
    before, after = shipped.read_text().splitlines(), conf.read_text().splitlines()
    changes = [(old.strip(), new.strip()) for old, new in zip(before, after, strict=True) if old != new]
    name = named("prod/serve", "RayService")["metadata"]["name"]
    assert changes == [
        ("access_log logs.jsonl json;", "access_log /dev/stdout json;"),
        ("server 127.0.0.1:8000 max_fails=0;", f"server {name}-serve-svc:8000 max_fails=0;"),
    ]
    conf.write_text(conf.read_text().replace(f"{name}-serve-svc", "localhost"))  # a name that resolves here
    subprocess.run([nginx(), "-t", "-p", str(tmp_path), "-c", str(conf)], check=True, capture_output=True)
    assert pod["containers"][0]["command"][:3] == ["nginx", "-p", "/var/lib/valueflow-proxy"]


def test_secrets_are_named_and_never_written():
    secrets = set()
    for overlay in OVERLAYS:
        text = yaml.safe_dump_all(rendered(overlay))
        assert not re.search(r"(?i)(sk-|AKIA|hf_)[A-Za-z0-9]{8,}", text)
        assert not [item for item in rendered(overlay) if item["kind"] == "Secret"]
        secrets |= set(re.findall(r"secretName: (\S+)", text))
        secrets |= set(re.findall(r"secretRef:\n\s+name: (\S+)", text))
    assert secrets == {"valueflow-ray-token", "valueflow-http-keys", "valueflow-keys"}
    operations = (REPOSITORY / "docs" / "operations.md").read_text()
    assert all(secret in operations for secret in secrets)


def test_every_image_comes_from_the_registry_of_the_overlay_or_is_the_proxy():
    for overlay in OVERLAYS:
        images = set(re.findall(r"image: (\S+)", yaml.safe_dump_all(rendered(overlay))))
        own = {image for image in images if image.startswith("registry.example/valueflow:")}
        assert images - own <= {"nginxinc/nginx-unprivileged:1.28.0-alpine"}, overlay
        assert all(re.search(r":\d+\.\d+\.\d+-(cpu|gpu|train)$", image) for image in own), overlay


def test_no_file_is_left_out_of_the_overlays():
    bases = {path.parent.name for path in KUBERAY.glob("base/*/kustomization.yaml")}
    assert bases == {overlay.split("/")[1] for overlay in OVERLAYS if overlay.startswith("prod/")}


def test_no_two_clusters_of_a_namespace_share_a_name():
    """KubeRay names services after them."""
    for stage in ("dev", "prod"):
        names = [
            item["metadata"]["name"]
            for overlay in OVERLAYS
            if overlay.startswith(stage)
            for _, item in ray_objects([overlay])
            if item["kind"] in ("RayCluster", "RayService", "RayJob")
        ]
        assert len(names) == len(set(names))
