"""/readyz asks whether requests can be answered, and answers at once; /healthz is about the process alone."""

import asyncio
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from fakes.server import eventually, listening
from fakes.service import FakeService
from served import REQUEST, refused, serving

from serve import readiness
from serve.http import create
from serve.settings import HttpConfig


class Backend:
    """Counts how often it is asked; it answers, fails, or hangs."""

    def __init__(self) -> None:
        self.asked, self.state = 0, "up"

    async def __call__(self) -> None:
        self.asked += 1
        if self.state == "hangs":
            await asyncio.sleep(600)
        if self.state == "dead":
            raise ConnectionError("no connection to http://judge.internal:8000 (s3://our-bucket)")


@pytest.fixture
def backend(monkeypatch) -> Backend:
    monkeypatch.setattr(readiness, "FRESH_SECONDS", 0.2)
    monkeypatch.setattr(readiness, "CHECK_SECONDS", 1.0)
    return Backend()


def served_with(backend: Backend):
    service = FakeService()
    service.check = backend
    return serving(service)


def test_a_dead_judge_is_503_without_its_address_and_ready_again_when_it_is_back(backend, caplog):
    with caplog.at_level(logging.INFO), served_with(backend) as served:
        assert served.http.get("/readyz").text == "ready\n"
        backend.state = "dead"
        eventually(lambda: served.http.get("/readyz").status_code == 503)
        answer = served.http.get("/readyz")
        assert "internal" not in refused(answer, 503, "not-ready").detail
        assert "bucket" not in answer.text
        assert "judge.internal" in caplog.text
        assert served.http.get("/healthz").text == "ok\n"
        backend.state = "up"
        eventually(lambda: served.http.get("/readyz").status_code == 200)


def test_head_has_the_status_of_get(backend):
    with served_with(backend) as served:
        assert (served.http.head("/readyz").status_code, served.http.head("/readyz").content) == (200, b"")
        assert served.http.head("/healthz").status_code == 200
        backend.state = "dead"
        eventually(lambda: served.http.head("/readyz").status_code == 503)


def test_a_judge_that_hangs_holds_up_no_probe(backend):
    with served_with(backend) as served:
        for state, expected in (("hangs", 503), ("up", 200), ("hangs", 503)):
            backend.state, status, deadline = state, 0, time.monotonic() + 10
            while status != expected:
                began = time.monotonic()
                status = served.http.get("/readyz").status_code
                assert time.monotonic() - began < readiness.PROBE_SECONDS + 0.5
                assert began < deadline


def test_many_probes_are_one_question(backend, monkeypatch):
    monkeypatch.setattr(readiness, "FRESH_SECONDS", 60.0)
    with served_with(backend) as served, ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: served.http.get("/readyz").status_code, range(40))) == {200}
        assert backend.asked == 1


def test_a_starting_server_answers_probes_at_once_and_holds_requests_until_it_has_started():
    service, started, holder = FakeService(), asyncio.Event(), []
    app = create(lambda: next(iter(holder), None), HttpConfig(), "a page", started=started)
    loops = []

    async def with_loop(scope, receive, send) -> None:
        loops.append(asyncio.get_running_loop())
        await app(scope, receive, send)

    with listening(with_loop) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as http:
        answers: list[httpx.Response] = []
        threads = [
            threading.Thread(target=lambda: answers.append(http.post("/v1/score", json=REQUEST))),
            threading.Thread(target=lambda: answers.append(http.get("/v1/theories"))),
        ]
        for thread in threads:
            thread.start()
        for _ in range(3):
            began = time.monotonic()
            refused(http.get("/readyz"), 503, "not-ready")
            assert http.head("/readyz").status_code == 503
            assert http.get("/healthz").status_code == http.get("/metrics").status_code == http.get("/").status_code == 200
            assert time.monotonic() - began < 1
        assert not answers
        holder.append(service)
        loops[0].call_soon_threadsafe(started.set)
        for thread in threads:
            thread.join()
        assert [answer.status_code for answer in answers] == [200, 200]
        assert http.get("/readyz").status_code == 200


def test_requests_to_a_server_that_could_not_start_are_503_at_once():
    started = asyncio.Event()
    started.set()
    with (
        listening(create(lambda: None, HttpConfig(), started=started)) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}") as http,
    ):
        refused(http.post("/v1/score", json=REQUEST), 503, "not-ready")
        refused(http.get("/v1/theories"), 503, "not-ready")
