"""The files for `ray up`: valid for Ray's own schema and merge of defaults, and for EC2's description of its calls."""

import json
from pathlib import Path

import jsonschema
import pytest
import ray.autoscaler
import yaml
from manifests import CRDS, REPOSITORY
from ray.autoscaler._private.util import prepare_config, validate_config

from jobs import build_vidb
from valueflow import config

FILES = {path.stem: path for path in sorted((REPOSITORY / "infra" / "ray-up").glob("*.yaml"))}


def read(name: str) -> dict:
    return yaml.safe_load(FILES[name].read_text("utf-8"))


def test_there_is_one_file_for_each_cloud():
    assert {name: read(name)["provider"]["type"] for name in FILES} == {"aws": "aws", "gcp": "gcp"}


@pytest.mark.parametrize("name", FILES)
def test_ray_takes_the_file(name):
    merged = prepare_config(read(name))
    validate_config(merged)
    assert merged["setup_commands"] == []  # Ray's defaults install another Ray
    assert merged["head_node_type"] in merged["available_node_types"]


@pytest.mark.parametrize("name", FILES)
def test_ray_refuses_an_unknown_key(name):
    with pytest.raises(jsonschema.ValidationError):
        validate_config(prepare_config(read(name) | {"max_worker": 3}))


def test_the_schema_is_the_one_that_was_read_for_the_files():
    shared = CRDS / "ray-schema.json"
    if not shared.is_file():
        pytest.skip(f"{shared} is absent")
    assert json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text()) == json.loads(shared.read_text())


@pytest.mark.parametrize("name", FILES)
def test_the_head_is_on_demand_without_work_and_gpus_are_spot_first_and_start_at_none(name):
    content = read(name)
    types = content["available_node_types"]
    head = types.pop(content["head_node_type"])
    assert head["resources"] == {"CPU": 0}
    assert any("--num-cpus=0" in command for command in content["head_start_ray_commands"])
    assert "spot" not in str(head).lower()
    assert "preemptible" not in str(head)
    assert all(one["min_workers"] == 0 for one in types.values())
    assert types["gpu-spot"]["priority"] > types["gpu-on-demand"].get("priority", 0)
    spot = {"aws": "'MarketType': 'spot'", "gcp": "'preemptible': True"}[name]
    assert {key for key, one in types.items() if spot in str(one)} == {"gpu-spot"}
    assert sum(one["max_workers"] for one in types.values()) >= content["max_workers"] >= types["gpu-spot"]["max_workers"]


@pytest.mark.parametrize("name", FILES)
def test_each_group_of_gpus_holds_the_judge_of_the_full_build(name):
    judge = config.load(build_vidb.SCHEMA, str(REPOSITORY / "conf" / "build_vidb" / "full.yaml"), []).judge
    for group in ("gpu-spot", "gpu-on-demand"):
        node = read(name)["available_node_types"][group]
        assert node["max_workers"] * (node["resources"]["GPU"] // judge.gpus_per_engine) >= judge.num_engines
        assert node["resources"]["CPU"] >= judge.cpus_per_engine * node["resources"]["GPU"] / judge.gpus_per_engine


@pytest.mark.parametrize("name", FILES)
def test_every_node_asks_for_the_token(name):
    content = read(name)
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        starts = [command for command in content[key] if "ray start" in command]
        assert starts
        assert all("RAY_AUTH_MODE=token" in command for command in starts)
    assert content["file_mounts"] == {"/home/valueflow/.ray/auth_token": "~/.ray/auth_token"}
    assert "--dashboard-host=127.0.0.1" in " ".join(content["head_start_ray_commands"])


def test_ec2_knows_every_setting_of_a_node():
    loaders, validate = pytest.importorskip("botocore.loaders"), pytest.importorskip("botocore.validate")
    model = pytest.importorskip("botocore.model")
    ec2 = model.ServiceModel(loaders.Loader().load_service_model("ec2", "service-2"))
    shape = ec2.operation_model("RunInstances").input_shape
    for name, one in read("aws")["available_node_types"].items():
        node = one["node_config"]
        assert set(node) <= set(shape.members), name
        errors = validate.ParamValidator().validate(node | {"MinCount": 1, "MaxCount": 1}, shape)
        assert not errors.has_errors(), (name, errors.generate_report())
        assert node["InstanceType"] in shape.members["InstanceType"].enum, name


def test_the_gpu_nodes_differ_in_their_price_only():
    for name in FILES:
        spot, demand = (
            str(read(name)["available_node_types"][group]["node_config"]) for group in ("gpu-spot", "gpu-on-demand")
        )
        for words in ("'InstanceMarketOptions': {'MarketType': 'spot'}, ", "{'preemptible': True}, "):
            spot = spot.replace(words, "")
        assert spot == demand, name
