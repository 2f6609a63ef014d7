"""The Serve configs that ship are ones that Ray Serve and the application take, and keep what their comments promise."""

from pathlib import Path

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from serve.app import DRAIN, ServeConfig
from valueflow import config

FILES = sorted((Path(__file__).parents[2] / "infra" / "serve").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_config_is_valid_and_its_limits_fit_each_other(path):
    read = yaml.safe_load(path.read_text("utf-8"))
    (application,) = ServeDeploySchema.model_validate(read).applications
    assert application.import_path == "serve.app:builder"
    served = config.parse(ServeConfig, application.args, str(path))
    assert read["http_options"].get("request_timeout_s", 1e9) > served.http.timeout_seconds
    for deployment in read["applications"][0].get("deployments", []):
        assert deployment["name"] in ("evaluator", "judge", "encoder")
        scaling = deployment.get("autoscaling_config")
        if scaling and "max_ongoing_requests" in deployment:
            assert deployment["max_ongoing_requests"] > scaling["target_ongoing_requests"]
        if deployment["name"] == "evaluator":
            assert deployment["user_config"] == {"vidb": "current"}
            drain = deployment.get("graceful_shutdown_timeout_s", DRAIN)
            assert drain >= min(served.http.timeout_seconds, DRAIN)


def test_three_configs_ship():
    assert [path.stem for path in FILES] == ["cluster", "gpu-node", "laptop"]
