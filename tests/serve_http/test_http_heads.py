"""Heads of requests before any key: their size, the host, the method, and the request id; and clients that leave."""

import asyncio
import json
import logging

import httpx
import pytest
from fakes.service import FakeService
from heavy import post
from served import BEARER, PARSERS, REQUEST, Served, key_config, log_lines, refused, request_head, serving

from serve import access_log
from serve.heads import MAX_HEAD_BYTES, MAX_URL_BYTES
from serve.http import create
from serve.request_ids import VALID_ID, proxy_middlewares
from serve.settings import HttpConfig

LARGE = {"X-Large": "x" * MAX_HEAD_BYTES}


@pytest.fixture(scope="module", params=PARSERS)
def server(request):
    with serving(http=request.param) as served:
        yield served


@pytest.fixture
def sent():
    with serving(http="httptools") as served:
        yield served


def answered(served: Served, request: bytes) -> bytes:
    with served.connect() as connection:
        connection.sendall(request)
        return connection.recv(65536)


# Size


@pytest.mark.parametrize("path", ["/v1/vidb", "/healthz", "/", "/nowhere", "/metrics"])
def test_large_headers_are_431_before_any_key(path):
    with serving(keys=[key_config()], http="httptools") as served:
        assert refused(served.http.get(path, headers=LARGE), 431, "header-size").detail.endswith(
            f"{MAX_HEAD_BYTES} are allowed"
        )
        many = {f"X-{i}": "x" * 100 for i in range(400)} | BEARER
        refused(served.http.get(path, headers=many), 431, "header-size")


def test_large_headers_of_a_scoring_request_are_431_and_never_work(sent):
    refused(sent.post("/v1/score", headers=LARGE), 431, "header-size")
    assert not sent.service.requests


def test_headers_just_below_the_limit_pass(sent):
    assert sent.http.get("/v1/vidb", headers={"X-Large": "x" * (MAX_HEAD_BYTES - 1000)}).status_code == 200


@pytest.mark.parametrize("url", ["/v1/vidb?" + "a=1&" * 4000, "/" + "x" * 9000, "/v1/values/" + "%C3%A4" * 2000])
def test_long_urls_are_414(sent, url):
    assert str(MAX_URL_BYTES) in refused(sent.http.get(url), 414, "url-size").detail


# Host


LOCAL = [
    "localhost",
    "localhost:8000",
    "LOCALHOST",
    "localhost.",
    "127.0.0.1",
    "127.0.0.1:8000",
    "127.1.2.3",
    "[::1]",
    "[::1]:80",
]
FOREIGN = [
    "evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "evil.example:localhost",
    "10.0.0.1", "[2001:db8::1]", "0.0.0.0", "xn--localhost", "localhost@evil.example", "[localhost", "", " ", "é",
]  # fmt: skip


@pytest.mark.parametrize("path", ["/v1/vidb", "/", "/metrics", "/openapi.json", "/nowhere"])
def test_without_keys_only_this_machine_is_answered_for(sent, path):
    for host in LOCAL:
        assert sent.http.get(path, headers={"Host": host}).status_code in (200, 404), host
    for host in FOREIGN:
        head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode("latin-1")
        assert b"HTTP/1.1 403" in answered(sent, head), host


def test_the_refusal_names_the_host_and_the_setting(sent):
    detail = refused(sent.post("/v1/score", headers={"Host": "evil.example"}), 403, "host").detail
    assert "'evil.example'" in detail
    assert "http.hosts" in detail
    assert not sent.service.requests


def test_two_host_headers_must_both_be_allowed(sent):
    head = b"GET /v1/vidb HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
    assert b" 403 " in answered(sent, head)


def test_other_hosts_are_a_setting():
    with serving(hosts=["api.example.org"]) as served:
        for host in ("api.example.org", "API.example.org:443", "localhost"):
            assert served.http.get("/v1/vidb", headers={"Host": host}).status_code == 200
        assert "api.example.org" in refused(served.http.get("/v1/vidb", headers={"Host": "example.org"}), 403, "host").detail
    with serving(hosts=["*"]) as served:
        assert served.http.get("/v1/vidb", headers={"Host": "evil.example"}).status_code == 200


def test_with_keys_any_host_is_answered_for_unless_hosts_are_set():
    with serving(keys=[key_config()]) as served:
        assert served.http.get("/v1/vidb", headers=BEARER | {"Host": "api.example.org"}).status_code == 200
    with serving(keys=[key_config()], hosts=["api.example.org"]) as served:
        refused(served.http.get("/v1/vidb", headers=BEARER | {"Host": "evil.example"}), 403, "host")


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_may_name_an_address(sent, path):
    assert sent.http.get(path, headers={"Host": "10.1.2.3:8000"}).status_code == 200


# Methods and versions


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/v1/vidb", "/v1/theories", "/v1/values/svt:power", "/metrics"])
def test_head_is_get_without_a_body(server, path):
    answer, whole = server.http.head(path), server.http.get(path)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == whole.headers["content-type"]
    assert server.http.get("/healthz").status_code == 200  # the connection is still in step


@pytest.mark.parametrize("method", ["HEAD", "GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_are_405_and_name_the_right_one(server, method):
    answer = server.http.request(method, "/v1/score")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_the_log_names_the_method_that_was_sent(caplog):
    with caplog.at_level(logging.INFO), serving() as served:
        served.http.head("/v1/vidb")
    assert [line["method"] for line in log_lines(caplog.records)] == ["HEAD"]


def test_http_1_0_is_answered(server):
    for head in (b"GET /v1/vidb HTTP/1.0\r\n\r\n", b"GET /v1/vidb HTTP/1.0\r\nHost: localhost\r\n\r\n"):
        assert b" 200 " in answered(server, head).split(b"\r\n")[0]
    body = json.dumps(REQUEST).encode()
    head = request_head(f"Content-Length: {len(body)}").replace(b"HTTP/1.1", b"HTTP/1.0")
    assert b" 200 " in answered(server, head + body).split(b"\r\n")[0]


def test_a_length_that_is_no_number_is_400(server):
    for length in ("-1", "abc", "1e3", "0x10"):
        assert b" 400 " in answered(server, request_head(f"Content-Length: {length}")).split(b"\r\n")[0]


def test_every_error_of_the_head_is_documented(sent):
    for path, operations in sent.http.get("/openapi.json").json()["paths"].items():
        for operation in operations.values():
            assert {"403", "414", "431"} <= set(operation["responses"]) or path in ("/healthz", "/readyz")


# Request ids


@pytest.mark.parametrize("client_id", ["mine-1", "", "a b", "x" * 65])
def test_there_is_one_request_id(sent, client_id):
    answer = sent.post("/v1/score", headers={"X-Request-Id": client_id})
    assert answer.headers.get_list("x-request-id") == [answer.json()["request_id"]]


def test_behind_a_proxy_that_sends_the_id_the_application_does_not():
    async def get_ids() -> list[bytes]:
        app = create(FakeService, HttpConfig(), proxy_sends_id=True)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            answer = await client.post("/v1/score", json=REQUEST, headers={"X-Request-Id": "of-the-proxy"})
        assert answer.json()["request_id"] == "of-the-proxy"
        return answer.headers.get_list("x-request-id")

    assert asyncio.run(get_ids()) == []


@pytest.mark.parametrize(
    "client_ids", [[b"mine-1"], [], [b"a b"], [b"x" * 65], [b"one", b"two"], [b""], [b"\xff"], [b"a\r\nX: y"]]
)
def test_rays_proxy_gets_one_valid_request_id(client_ids):
    """Its own middleware, which repeats whatever comes in, is asked here as Ray puts them together."""
    from ray.serve._private.http_util import _apply_middlewares  # takes seconds

    seen = []

    async def application(scope, receive, send):
        seen.extend(value for name, value in scope["headers"] if name == b"x-request-id")
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def answered() -> list[bytes]:
        sent = []

        async def send(message):
            sent.append(message)

        headers = [(b"host", b"h"), *((b"x-request-id", client_id) for client_id in client_ids)]
        await _apply_middlewares(application, proxy_middlewares())({"type": "http", "headers": headers}, None, send)
        return [value for name, value in sent[0]["headers"] if name == b"x-request-id"]

    (request_id,) = asyncio.run(answered())
    assert [request_id] == seen
    assert VALID_ID.fullmatch(request_id.decode())
    assert (request_id == b"mine-1") == (client_ids == [b"mine-1"])


# Clients that leave


class Lost(Exception):
    """Stands for what a server raises when it cannot fetch more of a body."""


@pytest.mark.parametrize("path", ["/v1/score", "/v1/score/stream", "/v1/compare", "/v1/profile", "/v1/extract"])
@pytest.mark.parametrize(
    "failure", [Lost(), KeyError("a request"), asyncio.CancelledError()], ids=lambda one: type(one).__name__
)
def test_a_client_that_leaves_within_its_body_is_no_error_of_the_server(path, failure, caplog):
    sent = []

    async def leave() -> None:
        scope = {
            "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
            "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
        }  # fmt: skip
        messages = [{"type": "http.request", "body": b'{"texts"', "more_body": True}]

        async def receive() -> dict:
            if messages:
                return messages.pop()
            raise failure

        async def send(message: dict) -> None:
            sent.append(message)

        await create(FakeService, HttpConfig())(scope, receive, send)

    with caplog.at_level(logging.INFO):
        if isinstance(failure, asyncio.CancelledError):
            with pytest.raises(asyncio.CancelledError):
                asyncio.run(leave())
        else:
            asyncio.run(leave())
    (line,) = log_lines(caplog.records)
    assert (line["status"], line["reason"], line.get("traceback"), sent) == (499, "client-left", None, [])


# The log of a replica


@pytest.fixture
def bare_loggers(monkeypatch):
    """Loggers without level or handler, as Ray Serve leaves them; they are as before at the end."""
    monkeypatch.setattr(access_log, "log", logging.Logger("a replica's"))
    loggers = [logging.getLogger(name) for name in ("serve", "valueflow.service")]
    before = [(one.handlers, one.level, one.propagate) for one in loggers]
    for one in loggers:
        one.handlers = []
    yield
    for one, (handlers, level, propagate) in zip(loggers, before, strict=True):
        one.handlers, one.propagate = handlers, propagate
        one.setLevel(level)


def test_a_replica_writes_one_line_a_request_to_its_output(capsys, bare_loggers):
    access_log.log_in_replica()
    access_log.log_in_replica()
    asyncio.run(post(create(FakeService, HttpConfig()), "/v1/score", json.dumps(REQUEST).encode()))
    (line,) = capsys.readouterr().out.splitlines()
    assert (json.loads(line)["route"], json.loads(line)["status"], json.loads(line)["num_texts"]) == ("/v1/score", 200, 2)
    assert REQUEST["texts"][0] not in line


def test_a_replica_says_what_a_request_takes_beyond_its_windows(capsys, bare_loggers):
    service = logging.getLogger("valueflow.service.service")
    service.info("before")
    access_log.log_in_replica()
    access_log.log_in_replica()
    service.info("60 calls about anchors")
    assert capsys.readouterr().err.splitlines() == ["60 calls about anchors"]
