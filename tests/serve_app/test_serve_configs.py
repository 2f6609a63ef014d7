"""The shipped Serve configs are valid for Ray Serve and the application, and their limits are consistent."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from foreign import HOSTILE, SECRET, foreign_version, hostile_judge, listener
from ray.serve.schema import ServeDeploySchema

from serve import app
from serve.app import DRAIN_SECONDS, ServeConfig, builder
from valueflow import config, store, vidb
from valueflow.errors import InputError
from valueflow.judging.configs import AnyJudge, EncoderJudge, SimulatedJudge
from valueflow.llm.configs import EndpointModel

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
            drain = deployment.get("graceful_shutdown_timeout_s", DRAIN_SECONDS)
            assert drain >= min(served.http.timeout_seconds, DRAIN_SECONDS)


def test_three_configs_ship():
    assert [path.stem for path in FILES] == ["cluster", "gpu-node", "laptop"]


def actor_options(monkeypatch, args: dict, built_by: AnyJudge | None = None) -> dict[str, dict[str, float]]:
    """The resources that each deployment of the application asks Ray for; the version is never read."""
    monkeypatch.setattr(vidb, "load", lambda root, version: SimpleNamespace(build=None))
    monkeypatch.setattr(store, "verify", lambda build: None)
    monkeypatch.setattr(app, "judge_of", lambda version, configured: configured or built_by or EncoderJudge())
    options, front = {}, builder(args)
    bound = [front._bound_deployment]
    while bound:
        deployment = bound.pop()
        options[deployment.name] = deployment.ray_actor_options
        bound += [arg._bound_deployment for arg in deployment.init_args if hasattr(arg, "_bound_deployment")]
    return {name: {kind: float(one.get(kind) or 0) for kind in ("num_cpus", "num_gpus")} for name, one in options.items()}


def shipped(name: str) -> dict:
    read = yaml.safe_load(next(path for path in FILES if path.stem == name).read_text("utf-8"))
    return read["applications"][0]["args"] | ({"root": "/r"} if name == "laptop" else {})


def test_replicas_reserve_the_cpus_and_gpus_of_the_shipped_configs(monkeypatch):
    cluster = actor_options(monkeypatch, shipped("cluster"))
    assert cluster["judge"] == {"num_cpus": 4, "num_gpus": 1}
    assert cluster["encoder"] == {"num_cpus": 2, "num_gpus": 0}
    node = actor_options(monkeypatch, shipped("gpu-node"))
    assert node["judge"] == {"num_cpus": 4, "num_gpus": 1}
    laptop = actor_options(monkeypatch, shipped("laptop"))
    assert sum(one["num_cpus"] for one in laptop.values()) <= 2


@pytest.mark.parametrize(
    ("judge", "options"),
    [
        (EncoderJudge(num_cpus=3, num_gpus=0.5, num_actors=4), {"num_cpus": 3, "num_gpus": 0.5}),
        (SimulatedJudge(num_cpus=0.25), {"num_cpus": 0.25, "num_gpus": 0}),
        (EndpointModel(name="o", model="m", key_env="", num_cpus=0.5), {"num_cpus": 0.5, "num_gpus": 0}),
    ],
    ids=lambda x: getattr(x, "kind", ""),
)
def test_replicas_reserve_the_cpus_and_gpus_of_their_settings(monkeypatch, judge, options):
    encoder = {"num_cpus": 1.5, "num_gpus": 0.25}
    settings = {"root": "/r", "judge": judge.model_dump(), "encoder": encoder}
    assert actor_options(monkeypatch, settings) == {
        "evaluator": {"num_cpus": 0.5, "num_gpus": 0}, "judge": options, "encoder": encoder,
    }  # fmt: skip
    assert actor_options(monkeypatch, {"root": "/r"}, built_by=judge)["judge"] == options


@pytest.mark.parametrize("name", HOSTILE)
def test_no_application_is_built_with_the_judge_of_a_version_that_was_handed_over(tmp_path, monkeypatch, name):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    with listener() as (url, heard):
        foreign_version(tmp_path / "root", hostile_judge(name, url, tmp_path / "model"))
        with pytest.raises(InputError, match="--judge"):
            builder({"root": str(tmp_path / "root")})
        assert heard == []
    own = builder({"root": str(tmp_path / "root"), "judge": {"kind": "simulated"}, "fast": False})
    assert own._bound_deployment.init_args[0].judge == SimulatedJudge()
