"""The shipped reverse proxy before the application: what it refuses never gets further, the rest passes as it is."""

import contextlib
import json
import logging
import socket
import time

import httpx
import pytest
from fakes.server import eventually
from moto_bucket import free_port
from reverse_proxy import reverse_proxy
from served import REQUEST, log_lines, refused, request_head, serving, whole_request

from valueflow.api import StreamScore
from valueflow.client import Client

pytestmark = pytest.mark.slow
MB = 2**20


@pytest.fixture
def behind(tmp_path, caplog):
    """The application, and a client of the proxy in front of it."""
    with caplog.at_level(logging.INFO), serving() as served, reverse_proxy(tmp_path, served.port) as port:
        served.proxy = httpx.Client(base_url=f"http://localhost:{port}", timeout=30)
        served.proxy_port = port
        yield served


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def send_until_refused(connection: socket.socket, start: bytes, size: int) -> tuple[int, bytes]:
    """Send `start` and so many bytes more, until the other side answers; returns how many were sent, and the answer."""
    num_bytes, block = 0, b"x" * 65536
    connection.sendall(start)
    connection.settimeout(0.005)
    answer = b""
    while num_bytes < size and not answer:
        try:
            num_bytes += connection.send(block)
        except TimeoutError:
            pass
        except OSError:
            break
        try:
            answer = connection.recv(65536)
        except TimeoutError:
            continue
        except OSError:
            break
    return num_bytes, answer


def test_a_score_and_a_stream_pass(behind):
    with Client(f"http://127.0.0.1:{behind.proxy_port}") as through, Client(behind.url) as direct:
        assert (
            through.score(REQUEST["texts"], REQUEST["values"]).scores
            == direct.score(REQUEST["texts"], REQUEST["values"]).scores
        )
        texts = [f"text {i}" for i in range(300)]
        scores = [line for line in through.stream(texts, REQUEST["values"]) if isinstance(line, StreamScore)]
        assert len(scores) == 600
    assert behind.proxy.get("/").status_code == 404  # no page is set here
    assert behind.proxy.get("/healthz").text == "ok\n"


def test_the_lines_of_a_stream_are_not_held_back(behind):
    behind.service.seconds = 0.5
    with behind.proxy.stream("POST", "/v1/score/stream", json=REQUEST) as lines:
        arrivals = [time.monotonic() for line in lines.iter_lines() if json.loads(line)["type"] == "score"]
    assert len(arrivals) == 4
    assert arrivals[-1] - arrivals[0] > 1


def test_the_header_of_150_mb_is_refused_and_others_are_answered(behind, caplog):
    with connect(behind.proxy_port) as connection:
        num_bytes, answer = send_until_refused(connection, b"GET /v1/vidb HTTP/1.1\r\nHost: localhost\r\nX-Large: ", 150 * MB)
    assert num_bytes < 16 * MB  # what the buffers of two sockets take
    assert b" 431 " in answer.split(b"\r\n")[0]
    assert not log_lines(caplog.records)
    assert behind.proxy.get("/v1/vidb").status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"X-Large": "x" * 7000}, 200),
        ({"X-Large": "x" * 9000}, 431),
        ({f"X-{i}": "x" * 1000 for i in range(40)}, 431),
    ],
    ids=["within", "one", "together"],
)
def test_large_headers_are_refused_before_the_application(behind, caplog, headers, status):
    answer = behind.proxy.get("/v1/vidb", headers=headers)
    assert answer.status_code == status
    if status == 431:
        refused(answer, 431, "header-size")
        assert not log_lines(caplog.records)


def test_a_long_url_is_refused_before_the_application(behind, caplog):
    refused(behind.proxy.get("/" + "x" * 9000), 414, "url-size")
    assert not log_lines(caplog.records)


def test_half_sent_headers_are_closed_and_others_are_answered(behind, caplog):
    slow = [connect(behind.proxy_port) for _ in range(300)]
    for number, connection in enumerate(slow):
        connection.sendall(b"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nX-Half: "[: 20 + number % 30])
    start = time.monotonic()
    assert behind.proxy.post("/v1/score", json=REQUEST).status_code == 200
    assert time.monotonic() - start < 5
    assert len(log_lines(caplog.records)) == 1
    still_open = slow
    while still_open and time.monotonic() - start < 25:
        time.sleep(0.5)
        still_open = [one for one in still_open if not closed(one)]
        for one in still_open[:1]:  # a byte now and then gives no more time
            one.send(b"x")
    assert not still_open
    assert behind.proxy.get("/v1/vidb").status_code == 200
    assert len(log_lines(caplog.records)) == 2


def closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(65536) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        connection.setblocking(True)


def test_a_body_above_the_limit_is_refused_before_the_application(behind, caplog):
    refused(behind.proxy.post("/v1/score", content=b"x" * (8 * MB + 1)), 413, "body-size")
    with connect(behind.proxy_port) as connection:
        start = request_head("Transfer-Encoding: chunked") + b"%x\r\n" % (100 * MB)
        num_bytes, answer = send_until_refused(connection, start, 100 * MB)
    assert num_bytes < 32 * MB
    assert b" 413 " in answer.split(b"\r\n")[0]
    assert not log_lines(caplog.records)


def test_a_body_within_the_limit_passes_also_when_it_waits_in_a_file(behind):
    texts = [f"{i} " + "x" * 15_000 for i in range(100)]  # 1.5 MB
    answer = behind.proxy.post("/v1/score", json={"texts": texts, "values": ["svt:power"]})
    assert answer.status_code == 200
    assert len(answer.json()["scores"]) == 100


def test_a_half_sent_body_never_reaches_the_application(behind, caplog):
    whole = whole_request()
    with connect(behind.proxy_port) as connection:
        connection.sendall(whole[:-10])
        assert behind.proxy.post("/v1/score", json=REQUEST).status_code == 200
        eventually(lambda: closed(connection), 20)
    assert len(log_lines(caplog.records)) == 1


def test_many_connections_and_requests_of_one_address_are_429(behind):
    behind.service.seconds = 3.0
    slow = [connect(behind.proxy_port) for _ in range(80)]
    for connection in slow:
        connection.sendall(whole_request())
    statuses = [int(one.recv(65536).split(b" ")[1]) for one in slow]
    assert statuses.count(429) >= 16
    behind.service.seconds = 0.0
    answers = [behind.proxy.get("/healthz") for _ in range(300)]
    one = next(answer for answer in answers if answer.status_code == 429)
    refused(one, 429, "rate")
    assert one.headers["retry-after"] == "1"


@pytest.mark.parametrize("sent", ["mine-1", "a b", "x" * 65, "", '"},{"', "é".encode(), b"\xff\xfe", b"\x1b[31m", "../../x"])
def test_there_is_one_request_id(behind, caplog, sent):
    answer = behind.proxy.post("/v1/score", json=REQUEST, headers=[("X-Request-Id", sent), ("x-request-id", "second")])
    (request_id,) = answer.headers.get_list("x-request-id")
    assert answer.status_code == 200
    assert request_id == answer.json()["request_id"]
    assert (request_id == sent) == (sent == "mine-1")
    assert [line["request_id"] for line in log_lines(caplog.records)] == [request_id]


def test_what_is_refused_here_has_one_request_id_too(behind):
    for headers in ({"X-Request-Id": "mine-1"}, {"X-Request-Id": "not valid"}):
        answer = behind.proxy.get("/" + "x" * 9000, headers=headers)
        (request_id,) = answer.headers.get_list("x-request-id")
        assert refused(answer, 414, "url-size").request_id == request_id


def test_without_the_service_it_is_502_with_a_time(tmp_path):
    with reverse_proxy(tmp_path, free_port()) as proxy:
        answer = httpx.post(f"http://127.0.0.1:{proxy}/v1/score", json=REQUEST)
        refused(answer, 502, "proxy")
        assert answer.headers["retry-after"] == "5"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("accepts", [True, False], ids=["held", "unanswered"])
def test_a_probe_is_503_soon_when_no_replica_answers(tmp_path, method, accepts):
    """Ray's proxy takes a request and holds it while there is no replica; a full backlog does not even take it."""
    with socket.socket() as silent, contextlib.ExitStack() as full:
        silent.bind(("127.0.0.1", 0))
        silent.listen(64 if accepts else 0)
        for _ in range(0 if accepts else 8):
            one = full.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(silent.getsockname())
        with reverse_proxy(tmp_path, silent.getsockname()[1]) as proxy:
            start = time.monotonic()
            answer = httpx.request(method, f"http://127.0.0.1:{proxy}/readyz", timeout=20)
            assert time.monotonic() - start < 3
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
            assert answer.headers["content-type"] == "application/problem+json"
            if method == "GET":
                refused(answer, 503, "proxy")
            else:
                assert answer.content == b""


def test_a_probe_without_a_service_is_503(tmp_path):
    with reverse_proxy(tmp_path, free_port()) as proxy:
        refused(httpx.get(f"http://127.0.0.1:{proxy}/readyz"), 503, "proxy")


def test_the_answers_to_probes_pass(behind):
    assert behind.proxy.get("/readyz").text == "ready\n"
    assert behind.proxy.head("/readyz").status_code == 200
    behind.service.check = unreachable
    eventually(lambda: behind.http.get("/readyz").status_code == 503, 20)  # not of the proxy, which limits calls
    refused(behind.proxy.get("/readyz"), 503, "not-ready")


async def unreachable() -> None:
    raise ConnectionError("no judge")


def test_a_client_that_leaves_ends_its_request(behind):
    behind.service.seconds = 30.0
    with pytest.raises(httpx.ReadTimeout):
        behind.proxy.post("/v1/score", json=REQUEST, timeout=1)
    eventually(lambda: not behind.metric("valueflow_http_in_flight"))


def test_the_log_of_the_proxy_has_no_texts_keys_or_queries(behind, tmp_path):
    behind.proxy.post("/v1/score?q=secret-query", json=REQUEST, headers={"Authorization": "Bearer secret-key"})
    behind.proxy.get("/x" * 5000)
    log = tmp_path / "logs.jsonl"
    eventually(lambda: log.read_text().count("\n") == 2)
    assert [json.loads(line)["status"] for line in log.read_text().splitlines()] == [200, 414]
    text = log.read_text() + (tmp_path / "error.log").read_text()
    assert not any(secret in text for secret in ("secret-key", REQUEST["texts"][0]))
    assert "secret-query" not in log.read_text()
