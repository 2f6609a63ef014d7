"""The dashboard and the scrape configuration name metrics, labels and ports that exist."""

import json
import re
import time
from pathlib import Path

import httpx
import pytest
import ray
import yaml
from manifests import REPOSITORY, cluster_spec, pods, ray_objects, rendered
from moto_bucket import free_port
from prometheus_client import generate_latest
from ray.autoscaler._private.prom_metrics import AutoscalerPrometheusMetrics

from serve.metrics import Metrics

MONITORING = REPOSITORY / "infra" / "monitoring"
DASHBOARD = json.loads((MONITORING / "grafana.json").read_text("utf-8"))
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
NAMES = {name for text in EXPRESSIONS for name in re.findall(r"\b((?:ray|autoscaler|valueflow)_[a-z0-9_]+)\{", text)}
RAY_DASHBOARDS = Path(ray.__file__).parent / "dashboard" / "modules" / "metrics" / "dashboards"
SCRAPE = {job["job_name"]: job for job in yaml.safe_load((MONITORING / "prometheus.yaml").read_text("utf-8"))["scrape_configs"]}


def exported(text: str) -> set[str]:
    """Names of the metrics in the text format, with those that a client of Prometheus derives."""
    return {
        name
        for metric, kind in re.findall(r"^# TYPE (\S+) (\w+)$", text, re.MULTILINE)
        for name in ([f"{metric}_{part}" for part in ("bucket", "sum", "count")] if kind == "histogram" else [metric])
    }


def test_every_panel_has_a_title_a_description_and_a_query():
    panels = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
    assert len(panels) == len({panel["title"] for panel in panels}) == 14
    assert all(panel["description"] and panel["targets"] for panel in panels)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert all(any(f"{name}{{" in text for name in NAMES) for text in EXPRESSIONS)


def test_metrics_of_the_http_api_are_its_own():
    metrics = Metrics()
    own = exported(metrics.text().decode())
    assert {name for name in NAMES if name.startswith("valueflow_")} <= own
    assert not {"valueflow_http_error_total"} & own  # a name that does not exist is not found
    assert metrics.rejected._labelnames == ("reason",)


def test_metrics_of_the_autoscaler_are_its_own():
    autoscaler = AutoscalerPrometheusMetrics(session_name="x")
    autoscaler.active_nodes.labels(NodeType="cpu", SessionName="x").set(1)
    autoscaler.pending_nodes.labels(NodeType="cpu", SessionName="x").set(1)
    assert {name for name in NAMES if name.startswith("autoscaler_")} <= exported(generate_latest(autoscaler.registry).decode())


def test_metrics_of_ray_are_on_its_own_dashboards():
    """Those that no laptop exports, such as GPUs; what one exports is read from a real node below."""
    text = "".join(path.read_text("utf-8") for path in RAY_DASHBOARDS.glob("*_panels.py"))
    known = set(re.findall(r"\bray_[a-z0-9_]+", text))
    assert {name for name in NAMES if name.startswith("ray_")} <= known


def test_ports_and_labels_of_the_scrape_configuration_are_those_of_the_pods():
    def kept(job: str, label: str) -> str:
        rules = SCRAPE[job]["relabel_configs"]
        (regex,) = (
            one["regex"] for one in rules if one["source_labels"] == [f"__meta_kubernetes_pod_{label}"] and "regex" in one
        )
        return regex

    for where, item in ray_objects():
        for name, pod in pods(cluster_spec(item)).items():
            ports = {port["name"] for port in pod["containers"][0].get("ports", [])} | {"metrics"}  # which KubeRay adds
            wanted = set(kept("ray", "container_port_name").split("|"))
            assert wanted <= ports if name == "head" else ports & wanted == {"metrics"}, (where, name)
            if item["kind"] == "RayService" and name == kept("valueflow", "label_ray_io_group"):
                assert kept("valueflow", "container_port_name") in ports
    (policy,) = (item for item in rendered("prod/common") if item["kind"] == "NetworkPolicy")
    allowed = {port["port"] for rule in policy["spec"]["ingress"] for port in rule.get("ports", [])}
    assert {8000, 8080, 44217, 44227} == allowed


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_a_real_node_exports_what_the_dashboard_shows(cluster):
    from ray import serve

    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})

    @serve.deployment(ray_actor_options={"num_cpus": 0})
    class Answer:
        async def __call__(self, request) -> str:
            return "yes"

    try:
        serve.run(Answer.bind())
        assert httpx.get(f"http://127.0.0.1:{port}/").text == "yes"
        assert ray.data.range(10).map(lambda row: row).materialize().count() == 10
        # GPUs; what ends unexpectedly or fails is first exported when it does.
        rare = {"ray_node_gpus_utilization", "ray_node_manager_unexpected_worker_failure_total"}
        wanted = {name for name in NAMES if name.startswith("ray_")} - rare
        missing = set(wanted)

        for _ in range(90):
            for node in ray.nodes():
                text = httpx.get(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics", timeout=10).text
                missing.difference_update(exported(text))
            if not missing:
                break
            time.sleep(1)
        assert not missing
        assert re.search(r'ray_serve_num_http_requests_total\{[^}]*status_code="200"', text)
    finally:
        serve.shutdown()
