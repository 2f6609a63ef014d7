"""The command of `make serve` beside another Ray: its own Ray, loopback, token; one log line a request; nginx before it."""

import ipaddress
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import grpc
import httpx
import psutil
import pytest
import yaml
from fakes.server import eventually
from foreign import foreign_version
from kills import kill_tree
from moto_bucket import free_port
from reverse_proxy import reverse_proxy
from served import status_of

from valueflow.api import StreamScore
from valueflow.client import Client

pytestmark = [pytest.mark.ray, pytest.mark.slow]
REPOSITORY = Path(__file__).parents[2]
VALUE = "svt:benevolence"
REQUEST = {"texts": ["a secret text"], "values": [VALUE]}
BYSTANDER = """
import sys, ray
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""
VALID_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Running(NamedTuple):
    """The command, the other Ray of the machine, and what the command writes."""

    process: psutil.Process
    bystander: psutil.Process
    port: int
    output: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def lines(self) -> list[dict]:
        """The log lines of requests."""
        found = re.findall(r"^.*ServeReplica:valueflow:evaluator.*?(\{.*\})\s*$", self.output.read_text("utf-8"), re.MULTILINE)
        return [json.loads(line) for line in found]

    def log(self, request_id: str) -> dict:
        """The one line of a request."""
        eventually(lambda: any(line["request_id"] == request_id for line in self.lines()))
        (line,) = (line for line in self.lines() if line["request_id"] == request_id)
        return line


def tree(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[Running]:
    """The command with the shipped laptop.yaml and two replicas, while RAY_ADDRESS names another Ray."""
    folder = tmp_path_factory.mktemp("command")
    foreign_version(folder / "root", None)
    port, output = free_port(), folder / "output"
    content = yaml.safe_load((REPOSITORY / "infra" / "serve" / "laptop.yaml").read_text("utf-8"))
    (application,) = content["applications"]
    application["args"] |= {"root": "root", "fast": False, "judge": {"kind": "simulated", "num_cpus": 0.1}}
    application["args"]["http"] = {"max_in_flight": 16}
    application["deployments"][0] |= {"num_replicas": 2}
    (folder / "serve.yaml").write_text(yaml.safe_dump(content), "utf-8")
    bystander = subprocess.Popen([sys.executable, "-c", BYSTANDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        environment = os.environ | {"RAY_ADDRESS": bystander.stdout.readline().strip(), "PYTHONPATH": str(REPOSITORY)}
        command = [sys.executable, "-m", "serve.local", "serve.yaml", "--port", str(port)]
        with output.open("wb") as file:
            process = subprocess.Popen(command, cwd=folder, env=environment, stdout=file, stderr=file)
        try:
            running = Running(psutil.Process(process.pid), psutil.Process(bystander.pid), port, output)
            wait_until_ready(running, process)
            yield running
        finally:
            kill_tree(process, 20)
    finally:
        kill_tree(bystander, 10)


def wait_until_ready(running: Running, process: subprocess.Popen) -> None:
    end = time.monotonic() + 120
    while True:
        waiting = process.poll() is None and time.monotonic() < end
        assert waiting, running.output.read_text("utf-8")[-3000:]
        try:
            if httpx.get(f"{running.url}/readyz", timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.5)


def test_the_make_target_runs_the_command():
    done = subprocess.run(["make", "-n", "serve"], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1].endswith("/python -m serve.local root=runs/demo")


def test_another_ray_of_the_machine_is_not_joined(running):
    names = {
        name: " ".join(n for p in tree(one) for n in p.cmdline())
        for name, one in running._asdict().items()
        if name in ("process", "bystander")
    }
    assert "ServeReplica:valueflow:evaluator" in names["process"]
    assert "gcs_server" in names["process"]
    assert "gcs_server" in names["bystander"]
    assert "Serve" not in names["bystander"]


def listening(process: psutil.Process) -> list[tuple[str, int]]:
    """The addresses and ports on which a process accepts connections."""
    return [tuple(one.laddr) for one in process.net_connections("inet") if one.status == psutil.CONN_LISTEN]


def test_all_but_one_port_of_each_replica_is_on_loopback(running):
    """Ray Serve binds that port, for calls between replicas, to [::] and nowhere else; it asks for the token."""
    ports = {process: listening(process) for process in tree(running.process)}
    assert sum(map(len, ports.values())) > 5
    for process, addresses in ports.items():
        others = [port for ip, port in addresses if not ipaddress.ip_address(ip.removeprefix("::ffff:")).is_loopback]
        name = " ".join(process.cmdline())
        assert len(others) <= name.startswith("ray::ServeReplica:"), name
        for port in others:
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, pytest.raises(grpc.RpcError) as refusal:
                channel.unary_unary("/ray.serve.ASGIService/HandleRequest")(b"", timeout=30)
            assert refusal.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_nobody_gets_in_without_the_token(running):
    dashboard = re.search(r"http://127\.0\.0\.1:[0-9]+", running.output.read_text("utf-8").split("dashboard", 1)[1])[0]
    assert httpx.put(f"{dashboard}/api/serve/applications/", json={"applications": []}).status_code == 401
    assert httpx.post(f"{dashboard}/api/jobs/", json={"entrypoint": "true"}).status_code == 401


def test_each_request_is_one_line_of_its_replica(running):
    with httpx.Client(base_url=running.url, timeout=60) as client, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.post("/v1/score", json=REQUEST), range(40)))
        answers += [client.get("/nowhere"), client.post("/v1/score", json={"texts": []})]
    assert {answer.status_code for answer in answers} == {200, 404, 422}
    for answer in answers:
        line = running.log(answer.headers["x-request-id"])
        assert line["status"] == answer.status_code
        if answer.status_code == 200:
            assert (line["route"], line["num_texts"], line["num_units"], line["reason"]) == ("/v1/score", 1, 1, "")
    text = running.output.read_text("utf-8")
    assert REQUEST["texts"][0] not in text
    assert len(set(re.findall(r"evaluator pid=([0-9]+)", text))) == 2
    assert "repeated" not in re.sub(r'"repeated": (true|false)', "", text)


@pytest.mark.parametrize(
    "sent", ["a b", "x" * 65, "x" * 5000, "", '"}, {"status": 200', "é".encode(), "\u202e".encode(), "%0d%0aX: y", "mine-1"]
)
def test_a_harmful_request_id_is_in_no_line(running, sent):
    before = len(running.lines())
    answer = httpx.get(f"{running.url}/v1/values/{VALUE}/nothing", headers={"X-Request-Id": sent})
    assert answer.status_code == 404
    (request_id,) = answer.headers.get_list("x-request-id")
    assert request_id == answer.json()["request_id"]
    assert VALID_ID.fullmatch(request_id)
    assert (request_id == sent) == (sent == "mine-1")
    assert running.log(request_id)["status"] == 404
    assert len(running.lines()) == before + 1


@pytest.mark.parametrize(("sent", "status"), [(b"\xff\xfe", 200), (b"\x1b[31mred", 400), (b"a\x00b", 400)])
def test_a_request_id_that_is_no_text_reaches_no_line_and_no_other_request(running, sent, status):
    """Control characters are no HTTP, which the proxy refuses."""
    before = len(running.lines())
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as connection:
        connection.sendall(b"GET /v1/vidb HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: " + sent + b"\r\n\r\n")
        assert status_of(connection) == status
    assert httpx.get(f"{running.url}/v1/vidb").status_code == 200
    eventually(lambda: len(running.lines()) == before + 1 + (status == 200))
    assert sent.decode("latin-1") not in running.output.read_text("latin-1")


def test_behind_the_reverse_proxy(running, tmp_path):
    with reverse_proxy(tmp_path, running.port) as port:
        url = f"http://127.0.0.1:{port}"
        with Client(url) as client:
            assert client.score(REQUEST["texts"], [VALUE]).scores[0].intensity is not None
            lines = list(client.stream([f"text {i}" for i in range(50)], [VALUE]))
        assert sum(isinstance(line, StreamScore) for line in lines) == 50
        for sent in (b"\xff\xfe", "a b", "mine-2"):
            answer = httpx.post(f"{url}/v1/score", json=REQUEST, headers={"X-Request-Id": sent}, timeout=30)
            (request_id,) = answer.headers.get_list("x-request-id")
            assert (answer.status_code, answer.json()["request_id"]) == (200, request_id)
            assert (request_id == sent) == (sent == "mine-2")
            running.log(request_id)
        before = len(running.lines())
        half = [socket.create_connection(("127.0.0.1", port)) for _ in range(300)]
        for connection in half:
            connection.sendall(b"POST /v1/score HTTP/1.1\r\nX-Half: ")
        large = socket.create_connection(("127.0.0.1", port))
        large.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Large: " + b"x" * 40_000)
        assert status_of(large) == 431
        assert httpx.post(f"{url}/v1/score", content=b"x" * (8 * 2**20 + 1), timeout=30).status_code == 413
        assert httpx.post(f"{url}/v1/score", json=REQUEST, timeout=30).status_code == 200
        eventually(lambda: len(running.lines()) == before + 1)
        for connection in [large, *half]:
            connection.close()
