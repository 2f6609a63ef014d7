"""Clusters that are gone, malformed addresses, tokens and versions: one line that names the address and who set it."""

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import ray
from configs import job_yaml

from valueflow.distributed import address as address_module
from valueflow.distributed.address import Address, cluster_address
from valueflow.errors import InputError

pytestmark = pytest.mark.component

GONE = "127.0.0.1:1"


@pytest.fixture
def no_address(monkeypatch, tmp_path):
    """No cluster is named, neither by the environment nor by a file that Ray wrote."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))


@pytest.fixture
def from_file(no_address, tmp_path) -> Path:
    file = tmp_path / "ray" / "ray_current_cluster"
    file.parent.mkdir()
    file.write_text(GONE)
    return file


def test_the_config_decides_then_the_environment_then_this_machine(no_address, monkeypatch):
    assert not cluster_address(None).joins
    assert not cluster_address("local").joins
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert cluster_address(None)[:2] == ("10.0.0.1:6379", "environment variable RAY_ADDRESS")
    assert cluster_address("10.0.0.2:6379")[:2] == ("10.0.0.2:6379", "cluster.address")
    assert cluster_address("auto").address == "10.0.0.1:6379"
    monkeypatch.setenv("RAY_ADDRESS", " ")
    assert not cluster_address(None).joins
    assert cluster_address("auto").address == "auto"


def test_auto_is_the_address_that_ray_wrote(from_file):
    with pytest.raises(InputError, match=rf"at {GONE} \(cluster.address is auto, Ray wrote this into {from_file}\).*remove"):
        cluster_address("auto").check()


@pytest.mark.parametrize("address", [GONE, f"ray://{GONE}", "no-such-host.invalid:6379"])
def test_a_cluster_that_is_gone_is_named_with_who_set_it(no_address, monkeypatch, address):
    with pytest.raises(InputError, match=rf"at {address} \(cluster.address\): nothing answers .*set it to null"):
        cluster_address(address).check()
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(InputError, match=rf"at {address} \(environment variable RAY_ADDRESS\): nothing answers .*unset it"):
        cluster_address(None).check()


@pytest.mark.parametrize("address", ["head", "head:", ":6379", "head:port", "head:0", "head:70000", "head:６３７９"])
def test_a_malformed_address_is_refused(no_address, address):
    with pytest.raises(InputError, match=r"\(cluster.address\): that is no address. It must be host:port"):
        cluster_address(address).check()


def test_the_address_of_a_dashboard_is_refused(no_address):
    with pytest.raises(InputError, match="ray job submit"):
        cluster_address("http://127.0.0.1:8265").check()


@pytest.mark.parametrize("answer", [b"\0", b""])
def test_an_address_that_answers_passes(no_address, answer):
    """A server with TLS hangs up without a byte."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        port = listener.getsockname()[1]

        def serve() -> None:
            for _ in range(3):
                connection = listener.accept()[0]
                connection.recv(100)
                connection.sendall(answer)
                connection.close()

        served = pool.submit(serve)
        for address in (f"127.0.0.1:{port}", f"localhost:{port}", f"ray://127.0.0.1:{port}"):
            cluster_address(address).check()
        served.result(10)


def test_a_server_that_listens_and_says_nothing_is_no_cluster(no_address, monkeypatch):
    monkeypatch.setattr(address_module, "GREETING", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(InputError, match="says nothing"):
        cluster_address(f"127.0.0.1:{listener.getsockname()[1]}").check()


def test_a_cluster_of_ray_passes(cluster):
    cluster_address(ray.get_runtime_context().gcs_address).check()


def test_what_ray_raises_is_one_line_with_what_to_do():
    joined = Address("h:1", "cluster.address", "change it")
    mismatch = "Version mismatch: The cluster was started with:\n    Ray: 2.0.0\n    Python: 3.9.1\nThis process was"
    for error, said in (
        (RuntimeError(mismatch), "Ray: 2.0.0 Python: 3.9.1 .*Use the cluster's versions"),
        (ConnectionError("Failed to connect to Ray cluster at h:1"), "See whether the cluster is up, or change it"),
    ):
        with pytest.raises(InputError, match=said) as raised:
            raise joined.failure(error)
        assert "\n" not in str(raised.value)
    started = Address("local", "", "").failure(Exception("The current node timed out during startup. This could\nhappen"))
    assert "Ray did not start on this machine: The current node timed out during startup. This could happen" in str(started)
    assert "load is" in str(started)


def job(tmp_path: Path, prefix: str = "", **env: str) -> subprocess.CompletedProcess:
    """Run a job as a program, in a Python that has run `prefix` before."""
    config = job_yaml("ingest", tmp_path, root=str(tmp_path))
    code = f"{prefix}\nimport runpy; runpy.run_module('jobs.ingest', run_name='__main__')"
    command = [sys.executable, "-c", code, str(config)]
    return subprocess.run(command, env=os.environ | env, capture_output=True, text=True, timeout=300)


def test_a_job_whose_cluster_is_gone_ends_with_one_line(tmp_path):
    done = job(tmp_path, RAY_ADDRESS=GONE)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: cannot join the Ray cluster at {GONE} (environment variable RAY")
    assert "Traceback" not in done.stderr


def test_a_ray_that_does_not_start_is_one_line(tmp_path):
    done = job(tmp_path, RAY_ADDRESS="", RAY_TMPDIR=str(tmp_path / ("long" * 30)))  # too long for the path of a socket
    assert done.returncode == 2, done.stderr[-3000:]
    assert done.stderr.splitlines()[-1].startswith("error: Ray did not start on this machine: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("prefix", "env", "said"),
    [
        ("import ray; ray.__version__ = '2.0.0'", {}, "Version mismatch"),
        ("", {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "x" * 40}, "Set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to"),
        ("", {"RAY_AUTH_MODE": "disabled"}, "Set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to"),
        ("", {"RAY_AUTH_MODE": "token", "HOME": "/nonexistent", "RAY_AUTH_TOKEN": ""}, "Set RAY_AUTH_MODE=token and RAY_AUTH"),
    ],
)
def test_another_version_and_a_wrong_or_missing_token_are_one_line(cluster, tmp_path, prefix, env, said):
    import ray

    address = ray.get_runtime_context().gcs_address
    done = job(tmp_path, prefix, RAY_ADDRESS=address, **env)
    assert done.returncode == 2, done.stderr[-3000:]
    assert said in done.stderr.splitlines()[-1]
    assert address in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
