"""A Serve config is checked before it is deployed: shipped ones pass with a root of their own, each fault is one sentence."""

import re
import subprocess
import sys
import time
from copy import deepcopy
from pathlib import Path

import pytest
import yaml
from foreign import foreign_version
from moto_bucket import free_port
from ray_head import BIN, head_node

from serve import check, local
from serve.app import builder
from valueflow.errors import InputError

FOLDER = Path(__file__).parents[2] / "infra" / "serve"
FILES = sorted(FOLDER.glob("*.yaml"))


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> str:
    root = tmp_path_factory.mktemp("check") / "root"
    foreign_version(root, None)
    return str(root)


def checked(content: object, folder: Path, monkeypatch, capsys) -> tuple[int, str]:
    """The exit code of the command, and what it prints."""
    path = folder / "serve.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), "utf-8")
    monkeypatch.setattr(sys, "argv", ["check", str(path)])
    try:
        check.main()
        code = 0
    except SystemExit as end:
        code = end.code
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return code, (out + err).strip()


def shipped(name: str, root: str) -> dict:
    content = yaml.safe_load((FOLDER / f"{name}.yaml").read_text("utf-8"))
    content["applications"][0]["args"] |= {
        "root": root,
        "judge": content["applications"][0]["args"].get("judge") or {"kind": "encoder"},
    }
    return content


@pytest.mark.parametrize("name", [path.stem for path in FILES])
def test_every_shipped_config_passes_with_a_root_of_its_own(root, tmp_path, monkeypatch, capsys, name):
    code, text = checked(shipped(name, root), tmp_path, monkeypatch, capsys)
    assert (code, text) == (0, f"{tmp_path}/serve.yaml: valid")


@pytest.mark.parametrize("name", [path.stem for path in FILES])
def test_as_shipped_each_names_the_root_that_is_to_be_replaced(tmp_path, monkeypatch, capsys, name):
    monkeypatch.setattr("valueflow.store.files.ATTEMPTS", 1)
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    code, text = checked((FOLDER / f"{name}.yaml").read_text("utf-8"), tmp_path, monkeypatch, capsys)
    assert code == 2
    assert len(text.splitlines()) == 1
    assert re.search("'runs/demo' is relative" if name == "laptop" else "s3://my-bucket/valueflow", text)


def changed(content: dict, path: str, value: object) -> dict:
    """The config with one value replaced; None removes the key."""
    content = deepcopy(content)
    *folders, key = path.split("/")
    place = content
    for folder in folders:
        place = place[int(folder) if isinstance(place, list) else folder]
    if value is None:
        del place[key]
    else:
        place[key] = value
    return content


APP, ARGS, FIRST = "applications/0", "applications/0/args", "applications/0/deployments/0"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("http_option", {"port": 1}, "http_option: unknown key; did you mean 'http_options'"),
        ("http_options/prot", 8000, "http_options: prot: unknown key; did you mean 'port'"),
        ("http_options/port", "many", "http_options.port"),
        ("http_options/request_timeout_s", 10, "request_timeout_s, 10, must be above http.timeout_seconds, 300"),
        ("proxy_location", "Nowhere", "proxy_location"),
        ("applications", [], "applications is empty"),
        ("applications", None, "applications: required"),
        (f"{APP}/import_paht", "x", r"applications\[0\]: import_paht: unknown key"),
        (f"{APP}/import_path", "serve.app:bulider", "import_path is 'serve.app:bulider'"),
        (f"{APP}/route_prefix", "valueflow", "route_prefix"),
        (f"{FIRST}/num_replica", 2, "num_replica: unknown key; did you mean 'num_replicas'"),
        (f"{FIRST}/num_replicas", -1, "num_replicas"),
        (f"{FIRST}/name", "evalutor", "'evalutor': unknown name; did you mean 'evaluator'"),
        (f"{FIRST}/user_config", {"version": "v-1"}, "user_config .* 'version'; allowed: vidb"),
        (f"{FIRST}/user_config", {"vidb": "v-none"}, "v-none"),
        (f"{FIRST}/autoscaling_config", {"max_replica": 3}, "max_replica: unknown key; did you mean 'max_replicas'"),
        (f"{ARGS}/rot", "x", "rot: unknown key; did you mean 'root'"),
        (f"{ARGS}/root", None, "root: required"),
        (f"{ARGS}/root", "runs/demo", "'runs/demo' is relative"),
        (f"{ARGS}/root", "./demo", "'./demo' is relative"),
        (f"{ARGS}/root", "/nowhere/at/all", "nothing is published under /nowhere/at/all"),
        (f"{ARGS}/root", "s4://bucket/x", "s4://bucket/x"),
        (f"{ARGS}/root", 5, "root"),
        (f"{ARGS}/judge/kind", "vlm", "judge"),
        (f"{ARGS}/judge/engine", "fast", "judge"),
        (f"{ARGS}/http/max_in_flight", 0, "http.max_in_flight"),
        (f"{ARGS}/extraction", {}, "jobs.ingest|no ingested texts"),
    ],
)  # fmt: skip
def test_each_fault_is_one_sentence_and_exit_code_2(root, tmp_path, monkeypatch, capsys, path, value, message):
    code, text = checked(changed(shipped("gpu-node", root), path, value), tmp_path, monkeypatch, capsys)
    assert code == 2
    assert len(text.splitlines()) == 1
    assert text.startswith(f"error: {tmp_path}/serve.yaml: ")
    assert re.search(message, text)


@pytest.mark.parametrize("content", ["", "[]", "a: [", "- 1", "\x00", "applications: 5", "applications: [5]", "5: 6"])
def test_a_file_that_is_no_serve_config_is_one_sentence(tmp_path, monkeypatch, capsys, content):
    code, text = checked(content, tmp_path, monkeypatch, capsys)
    assert (code, len(text.splitlines())) == (2, 1)


def test_an_absent_file_is_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["check", str(tmp_path / "none.yaml")])
    with pytest.raises(SystemExit, match="2"):
        check.main()
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_keys_that_are_on_this_machine_are_checked(root, tmp_path, monkeypatch, capsys):
    keys = tmp_path / "keys.yaml"
    keys.write_text("- {name: a, sha256: short}")
    content = changed(shipped("gpu-node", root), f"{ARGS}/http/keys_file", str(keys))
    code, text = checked(content, tmp_path, monkeypatch, capsys)
    assert code == 2
    assert "keys_file" in text


# Roots


def test_a_relative_root_is_refused_where_a_cluster_builds_the_application(root, monkeypatch):
    monkeypatch.chdir(Path(root).parent)
    args = {"root": "root", "fast": False, "judge": {"kind": "simulated"}}
    assert builder(args)._bound_deployment.init_args[0].root == root
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    with pytest.raises(InputError, match="'root' is relative"):
        builder(args)
    assert builder(args | {"root": root})._bound_deployment.init_args[0].root == root


@pytest.mark.slow
@pytest.mark.ray
def test_ray_refuses_to_deploy_a_relative_root(tmp_path):
    """`serve deploy` itself ends with code 0; that the application fails, and why, is in `serve status`."""
    content = yaml.safe_load((FOLDER / "laptop.yaml").read_text("utf-8"))
    content["http_options"]["port"] = free_port()
    (tmp_path / "laptop.yaml").write_text(yaml.safe_dump(content), "utf-8")
    assert content["applications"][0]["args"]["root"] == "runs/demo"
    with head_node(tmp_path) as head:

        def command(*words: str) -> str:
            words = (str(BIN / "serve"), *words, "-a", head.url)
            done = subprocess.run(words, env=head.environment, capture_output=True, text=True, timeout=120, check=False)
            assert done.returncode == 0, done.stderr
            return done.stdout

        command("deploy", str(tmp_path / "laptop.yaml"))
        deadline, application = time.monotonic() + 150, {}
        while application.get("status") != "DEPLOY_FAILED" and time.monotonic() < deadline:
            time.sleep(1)
            application = (yaml.safe_load(command("status")) or {}).get("applications", {}).get("valueflow", {})
    assert application.get("status") == "DEPLOY_FAILED", application
    assert "InputError: root 'runs/demo' is relative" in application["message"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["root"], "root does not exist"),
        (["root=runs/x", "what"], "'what' is no setting"),
        (["rot=x"], "rot: unknown key; did you mean 'root'"),
        (["root=none"], "nothing is published under /"),
        (["root=ROOT", "fast=maybe"], "fast"),
        (["root=ROOT", "judge.kind=simulated", "--port", "99999"], "port 99999"),
        ([str(FOLDER / "cluster.yaml")], "http_options.host is '0.0.0.0'"),
    ],
)
def test_mistakes_on_the_command_line_are_one_sentence(root, monkeypatch, capsys, words, message):
    for name in local.ENVIRONMENT:
        monkeypatch.setenv(name, "")  # restored afterwards
    with pytest.raises(SystemExit, match="2"):
        local.main([word.replace("ROOT", root) for word in words])
    err = capsys.readouterr().err
    assert re.search(message, err)
    assert len(err.splitlines()) == 1
