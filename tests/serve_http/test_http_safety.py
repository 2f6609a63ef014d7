"""Keys, rate limits, queues, timeouts, and cancellation of work when a client disconnects."""

import asyncio
import hashlib
import json
import logging
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from fakes.server import eventually
from fakes.service import FakeService
from pydantic import ValidationError
from served import (
    BEARER,
    KEY,
    OTHER_KEY,
    PARSERS,
    REQUEST,
    busy,
    key_config,
    log_lines,
    refused,
    reset,
    serving,
    whole_request,
)

from serve.settings import HttpConfig
from valueflow.errors import InputError

# Keys


def test_wrong_and_missing_keys_are_401_and_right_ones_pass():
    with serving(keys=[key_config(), key_config(OTHER_KEY, "other")], docs=False) as served:
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"X-API-Key": ""},
            {"Authorization": "Basic eDp5"},
            {"X-API-Key": KEY[:-1]},
            {"X-API-Key": hashlib.sha256(KEY.encode()).hexdigest()},
            {"Authorization": "Bearer wrong", "X-API-Key": KEY},
            {"X-API-Key": "schlüssel".encode()},
        ):
            answer = served.post("/v1/score", headers=headers)
            refused(answer, 401, "key")
            assert answer.headers["www-authenticate"].startswith("Bearer")
        for headers in (BEARER, {"authorization": f"bearer {KEY}"}, {"X-API-Key": KEY}, {"X-API-Key": OTHER_KEY}):
            assert served.post("/v1/score", headers=headers).status_code == 200
        assert len(served.service.requests) == 4


def test_which_paths_are_open():
    with serving(keys=[key_config()], page="page") as served:
        for path in ("/healthz", "/readyz", "/"):
            assert served.http.get(path).status_code == 200
        for path in ("/metrics", "/v1/vidb", "/openapi.json", "/nowhere", "/v1/values/svt:power"):
            refused(served.http.get(path), 401, "key")
        assert served.http.get("/metrics", headers=BEARER).status_code == 200
    with serving(keys=[key_config()], metrics_open=True) as served:
        assert served.http.get("/metrics").status_code == 200


def test_openapi_names_the_keys():
    with serving(keys=[key_config()]) as served:
        document = served.http.get("/openapi.json", headers=BEARER).json()
    assert document["security"] == [{"bearer": []}, {"header": []}]
    assert document["paths"]["/healthz"]["get"]["security"] == []


def test_rate_limit_is_of_a_key_and_says_when_to_come_again():
    keys = [key_config(requests_per_minute=30), key_config(OTHER_KEY, "other", requests_per_minute=30)]
    with serving(keys=keys) as served:
        answers = [served.http.get("/v1/vidb", headers=BEARER) for _ in range(31)]
        assert [a.status_code for a in answers[:30]] == [200] * 30
        refused(answers[30], 429, "rate")
        wait = int(answers[30].headers["retry-after"])
        assert 1 <= wait <= 2
        assert served.http.get("/v1/vidb", headers={"X-API-Key": OTHER_KEY}).status_code == 200
        time.sleep(wait)
        assert served.http.get("/v1/vidb", headers=BEARER).status_code == 200


def test_concurrency_is_of_a_key():
    service = FakeService()
    service.blocks.set()
    keys = [key_config(concurrency=2), key_config(OTHER_KEY, "other")]
    with serving(service, keys=keys) as served, ThreadPoolExecutor() as pool:
        url = f"{served.url}/v1/score"
        two = [pool.submit(httpx.post, url, json=REQUEST, headers=BEARER, timeout=30) for _ in range(2)]
        assert all(service.entered.acquire(timeout=5) for _ in two)
        answer = served.post("/v1/score", headers=BEARER)
        refused(answer, 429, "concurrency")
        assert int(answer.headers["retry-after"]) >= 1
        other = pool.submit(httpx.post, url, json=REQUEST, headers={"X-API-Key": OTHER_KEY}, timeout=30)
        assert service.entered.acquire(timeout=5)
        service.blocks.clear()
        assert [a.result().status_code for a in (*two, other)] == [200] * 3
        assert served.post("/v1/score", headers=BEARER).status_code == 200


def test_idempotency_keys_of_two_callers_are_two():
    with serving(keys=[key_config(), key_config(OTHER_KEY, "other")]) as served:
        for headers in (BEARER, {"X-API-Key": OTHER_KEY}):
            assert served.post("/v1/score", headers=headers | {"Idempotency-Key": "same"}).status_code == 200
        assert len(served.service.requests) == 2


def test_no_keys_is_said_once_in_the_log(caplog):
    with serving() as served:
        served.post("/v1/score")
        served.post("/v1/score")
    assert caplog.text.count("no API keys") == 1


def test_keys_come_from_a_file_too(tmp_path):
    for name, text in (
        ("keys.json", json.dumps([key_config(OTHER_KEY, "other")])),
        ("keys.yaml", f"- name: other\n  sha256: {hashlib.sha256(OTHER_KEY.encode()).hexdigest()}\n"),
    ):
        (tmp_path / name).write_text(text)
        with serving(keys=[key_config()], keys_file=str(tmp_path / name)) as served:
            for key in (KEY, OTHER_KEY):
                assert served.http.get("/v1/vidb", headers={"X-API-Key": key}).status_code == 200


@pytest.mark.parametrize(
    "text", ["{", "[1]", "{}", "", f"- {{name: a, sha256: {KEY}}}", f"- {KEY}: [", json.dumps([key_config(), key_config()])]
)
def test_a_bad_file_of_keys_is_refused_and_not_repeated(tmp_path, text):
    (tmp_path / "keys").write_text(text)
    with pytest.raises(InputError, match=r"keys_file .*keys: ") as error:
        HttpConfig(keys_file=str(tmp_path / "keys")).all_keys()
    assert KEY not in str(error.value)


def test_a_missing_file_of_keys_is_refused(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        HttpConfig(keys_file=str(tmp_path / "nowhere")).all_keys()


def test_two_keys_of_one_name_are_refused():
    with pytest.raises(ValidationError, match="'tester'"):
        HttpConfig(keys=[key_config(), key_config(OTHER_KEY)])


# Logs


def test_log_has_one_line_a_request_and_neither_key_nor_text(caplog):
    with caplog.at_level(logging.DEBUG), serving(keys=[key_config()]) as served:
        served.post("/v1/score", headers=BEARER | {"X-Request-Id": "good"})
        served.post("/v1/score", headers={"Authorization": "Bearer wrong-key-0123"})
        served.post("/v1/score", REQUEST | {"values": ["a private value"]}, headers=BEARER)
        served.post("/v1/score", REQUEST | {"a private key": 1}, headers=BEARER)
        served.http.get("/private/path", headers=BEARER)
        eventually(lambda: len(log_lines(caplog.records)) == 5)
    lines = log_lines(caplog.records)
    assert [(x["status"], x["key"], x["reason"], x["route"]) for x in lines] == [
        (200, "tester", "", "/v1/score"),
        (401, "", "key", "/v1/score"),
        (422, "tester", "input", "/v1/score"),
        (422, "tester", "schema", "/v1/score"),
        (404, "tester", "not-found", "none"),
    ]
    assert set(lines[0]) == {
        "time", "request_id", "key", "method", "route", "status", "milliseconds", "num_texts", "num_units", "repeated",
        "reason",
    }  # fmt: skip
    assert (lines[0]["request_id"], lines[0]["num_texts"], lines[0]["num_units"]) == ("good", 2, 4)
    for secret in (KEY, "wrong-key-0123", *REQUEST["texts"], "private", hashlib.sha256(KEY.encode()).hexdigest()):
        assert secret not in "".join(r.getMessage() for r in caplog.records if r.name != "httpx")


def test_texts_are_logged_when_asked_for(caplog):
    service = FakeService()
    service.error = RuntimeError("the message")
    with caplog.at_level(logging.INFO), serving(service, log_texts=True) as served:
        served.post("/v1/score")
        eventually(lambda: log_lines(caplog.records))
    line = log_lines(caplog.records)[0]
    assert line["texts"] == REQUEST["texts"]
    assert "RuntimeError: the message" in line["traceback"]


# Time, queue and disconnecting clients


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize("leave", [socket.socket.close, reset], ids=["FIN", "RST"])
@pytest.mark.parametrize("path", ["/v1/score", "/v1/score/stream"])
def test_work_is_cancelled_when_the_client_goes_away(path, leave, parser, caplog):
    service = FakeService()
    service.blocks.set()
    with caplog.at_level(logging.INFO), serving(service, http=parser) as served:
        connection = served.connect()
        connection.sendall(whole_request(REQUEST, path))
        assert service.entered.acquire(timeout=5)
        assert not service.cancelled.acquire(timeout=0.2)
        leave(connection)
        assert service.cancelled.acquire(timeout=5)
        eventually(lambda: [(x["status"], x["reason"]) for x in log_lines(caplog.records)] == [(499, "client-left")])
        assert service.working == 0
        assert served.metric("valueflow_http_in_flight") == 0


@pytest.mark.parametrize("parser", PARSERS)
def test_a_stream_is_cancelled_when_its_reader_goes_away(parser):
    service = FakeService()
    service.seconds = 0.2
    with serving(service, http=parser) as served:
        with served.http.stream("POST", "/v1/score/stream", json=REQUEST | {"values": ["all"]}) as answer:
            next(answer.iter_lines())
        assert service.cancelled.acquire(timeout=5)
        assert service.closed.acquire(timeout=5)


def test_a_reader_that_does_not_read_holds_the_stream_back_and_is_cut(caplog, monkeypatch):
    monkeypatch.setattr("serve.admission.STREAM_GRACE_SECONDS", 1.0)
    limits = {"stream_seconds": 4, "max_units": 320_000, "max_in_flight": 1}
    with caplog.at_level(logging.INFO), serving(**limits) as served, served.connect(receive_bytes=4096) as connection:
        connection.sendall(whole_request({"texts": ["a"] * 4000}, "/v1/score/stream"))
        assert served.service.entered.acquire(timeout=5)
        assert not served.service.closed.acquire(timeout=3)
        assert served.service.closed.acquire(timeout=20)
        eventually(lambda: log_lines(caplog.records))
        assert log_lines(caplog.records)[0]["reason"] == "timeout"
        assert served.post("/v1/score").status_code == 200


def test_requests_one_after_another_do_not_meet_each_other():
    with serving(keys=[key_config(concurrency=1, requests_per_minute=1000)], max_in_flight=1, max_queued=0) as served:
        for path in ("/v1/score", "/v1/score/stream"):
            assert {served.post(path, headers=BEARER).status_code for _ in range(50)} == {200}


@pytest.mark.parametrize("path", ["/v1/score", "/v1/compare", "/v1/profile", "/v1/extract"])
def test_work_that_takes_too_long_is_cancelled_and_504(path):
    service = FakeService()
    service.blocks.set()
    bodies = {"/v1/compare": {"first": "a", "second": "b"}, "/v1/extract": {"texts": ["a"]}}
    with serving(service, timeout_seconds=0.3) as served:
        refused(served.post(path, bodies.get(path)), 504, "timeout")
        assert service.cancelled.acquire(timeout=5)
        assert service.working == 0


def test_so_many_work_so_many_wait_and_the_rest_is_told_when_to_come_again():
    service = FakeService()
    service.blocks.set()
    with serving(service, max_in_flight=2, max_queued=3) as served, ThreadPoolExecutor(8) as pool:
        five = [pool.submit(httpx.post, f"{served.url}/v1/score", json=REQUEST, timeout=30) for _ in range(5)]
        eventually(lambda: busy(served) == (2, 3))
        answer = served.post("/v1/score")
        refused(answer, 429, "queue")
        assert int(answer.headers["retry-after"]) >= 1
        service.blocks.clear()
        assert [a.result().status_code for a in five] == [200] * 5
        assert service.max_working == 2
        assert served.metric('valueflow_http_rejected_total{reason="queue"}') == 1
        assert served.post("/v1/score").status_code == 200


def test_one_slot_is_not_held_by_the_caller_of_all_others_and_callers_take_turns_in_the_queue():
    service, keys = FakeService(), [key_config(name="heavy"), key_config(OTHER_KEY, "light")]
    service.blocks.set()
    with serving(service, keys=keys, metrics_open=True, max_in_flight=2) as served, ThreadPoolExecutor(8) as pool:

        def send(key: str, m: int):
            headers = {"Authorization": f"Bearer {key}"}
            return pool.submit(httpx.post, f"{served.url}/v1/score", json=REQUEST | {"m": m}, headers=headers, timeout=30)

        heavy = [send(KEY, 3) for _ in range(4)]
        eventually(lambda: busy(served) == (1, 3))
        light = send(OTHER_KEY, 4)
        eventually(lambda: busy(served) == (2, 3))
        assert [request.m for request in service.requests] == [3, 4]
        service.blocks.clear()
        assert [answer.result().status_code for answer in [*heavy, light]] == [200] * 5


def test_retry_after_grows_with_the_time_that_work_takes():
    service = FakeService()
    with serving(service, max_in_flight=1, max_queued=1) as served, ThreadPoolExecutor(8) as pool:
        service.seconds = 0.6
        for _ in range(3):
            served.post("/v1/score")
        service.blocks.set()
        two = [pool.submit(httpx.post, f"{served.url}/v1/score", json=REQUEST, timeout=30) for _ in range(2)]
        eventually(lambda: busy(served) == (1, 1))
        assert int(served.post("/v1/score").headers["retry-after"]) == 2
        service.blocks.clear()
        assert [a.result().status_code for a in two] == [200] * 2


def test_who_waits_too_long_gets_504_without_working():
    service = FakeService()
    service.blocks.set()
    with serving(service, max_in_flight=1, timeout_seconds=0.5) as served, ThreadPoolExecutor() as pool:
        # A stream may work longer than others may wait.
        stream = pool.submit(httpx.post, f"{served.url}/v1/score/stream", json=REQUEST, timeout=30)
        assert service.entered.acquire(timeout=5)
        refused(served.post("/v1/score"), 504, "timeout")
        service.blocks.clear()
        assert stream.result().status_code == 200
        assert len(service.requests) == 1


def test_who_goes_away_while_waiting_never_works():
    service = FakeService()
    service.blocks.set()
    with serving(service, max_in_flight=1) as served, ThreadPoolExecutor() as pool:
        first = pool.submit(httpx.post, f"{served.url}/v1/score", json=REQUEST, timeout=30)
        assert service.entered.acquire(timeout=5)
        with served.connect() as connection:
            connection.sendall(whole_request())
            eventually(lambda: served.metric("valueflow_http_queued") == 1)
        eventually(lambda: served.metric("valueflow_http_queued") == 0)
        service.blocks.clear()
        assert first.result().status_code == 200
        assert len(service.requests) == 1


def test_work_cancelled_from_inside_is_503():
    service = FakeService()

    async def stopped(*_: object) -> None:
        raise asyncio.CancelledError

    service.score = stopped
    with serving(service) as served:
        answer = served.post("/v1/score")
        refused(answer, 503, "stopped")
        assert answer.headers["retry-after"] == "1"


def test_pipelined_and_repeated_requests_on_one_connection():
    with serving() as served, served.connect() as connection:
        connection.sendall(whole_request() * 3)
        data = b""
        while data.count(b"HTTP/1.1 200") < 3 or data.count(b'"scores"') < 3:
            data += connection.recv(65536)
        assert len(served.service.requests) == 3
