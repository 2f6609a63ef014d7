"""Every route over a real server: answers, streams, errors as problem details, repeats, page, metrics, OpenAPI."""

import itertools
import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from fakes.server import eventually, listening
from fakes.service import FakeService, anchors
from jsonschema import Draft202012Validator
from served import REQUEST, Served, log_lines, serving

from serve.http import create
from serve.problems import Refused
from serve.settings import HttpConfig
from valueflow.api import Problem, ScoreResponse, SteeringResponse, StreamEnd, StreamScore, StreamStart
from valueflow.errors import BudgetSpent, InputError
from valueflow.records import ValueId
from valueflow.steering import LEVELS, wording_hash, wordings

PAIR = {"first": "a", "second": "b", "values": ["svt:power"]}


@pytest.fixture(scope="module")
def server():
    with serving() as served:
        yield served


def problem(answer: httpx.Response, status: int, reason: str) -> Problem:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    body = Problem.model_validate_json(answer.content, strict=True)
    assert (body.status, body.type) == (status, f"urn:valueflow:{reason}")
    assert body.request_id == answer.headers["x-request-id"]
    return body


def lines_of(answer: httpx.Response) -> list[dict]:
    return [json.loads(line) for line in answer.text.splitlines()]


def test_score_gives_every_text_and_value_in_order(server: Served):
    answer = server.post("/v1/score", headers={"X-Request-Id": "mine-1"})
    body = ScoreResponse.model_validate_json(answer.content, strict=True)
    assert [(s.index, s.value) for s in body.scores] == [
        (i, value) for i in (0, 1) for value in ("svt:benevolence", "svt:power")
    ]
    assert body.request_id == answer.headers["x-request-id"] == "mine-1"


@pytest.mark.parametrize(
    ("path", "body", "key"),
    [
        ("/v1/compare", PAIR, "comparisons"),
        ("/v1/profile", REQUEST, "profile"),
        ("/v1/extract", {"texts": ["a"], "theories": ["svt"]}, "texts"),
    ],
)
def test_work_routes_answer(server: Served, path, body, key):
    answer = server.post(path, body)
    assert answer.status_code == 200, answer.text
    assert answer.json()[key]
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_look_ups_answer(server: Served):
    assert server.http.get("/v1/theories").json()["theories"][0]["id"] == "svt"
    assert server.http.get("/v1/values/svt:power").json()["id"] == "svt:power"
    page = server.http.get("/v1/values/svt:power/anchors", params={"offset": 7, "limit": 3}).json()
    assert [a["text"] for a in page["anchors"]] == [a.text for a in anchors("svt:power")[7:10]]
    limits = server.http.get("/v1/vidb").json()["limits"]
    assert limits == HttpConfig().limits().model_dump()


def test_the_wording_of_steering_is_returned_at_every_level(server: Served):
    body = SteeringResponse.model_validate_json(server.http.get("/v1/steering/Care_Harm").content, strict=True)
    assert (body.value, body.wording_hash) == ("mft:care-harm", wording_hash())
    assert sorted({row.level for row in body.wordings}) == [-2, -1, 0, 1, 2]
    for level in LEVELS:
        rows = [row for row in body.wordings if row.level == level]
        assert [row.text for row in rows] == [row.text for row in wordings(ValueId(body.value), level)]
        assert [row.named for row in rows] == [True, True, False]
    assert "did you mean" in problem(server.http.get("/v1/steering/mft:car-harm"), 404, "unknown-value").detail
    assert "svt:power" in problem(server.http.get("/v1/steering/svt:conservation"), 404, "unknown-value").detail


@pytest.mark.parametrize("query", ["offset=-1", "limit=0", "limit=1001", "limit=x", f"offset={'9' * 5000}"])
def test_anchors_out_of_range_are_refused(server: Served, query):
    body = problem(server.http.get(f"/v1/values/svt:power/anchors?{query}"), 422, "schema")
    assert body.errors[0]["field"] == f"query.{query.partition('=')[0]}"


def test_unknown_values_are_404_in_a_path_and_422_in_a_body(server: Served):
    assert "did you mean" in problem(server.http.get("/v1/values/svt:powr"), 404, "unknown-value").detail
    assert "svt:powr" in problem(server.post("/v1/score", REQUEST | {"values": ["svt:powr"]}), 422, "input").detail


def test_unknown_routes_are_problems(server: Served):
    problem(server.http.get("/v2/score"), 404, "not-found")
    problem(server.http.post("/v1/score/"), 404, "not-found")
    refused = server.http.get("/v1/score")
    problem(refused, 405, "method")
    assert refused.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (InputError("no such thing"), 422, "input"),
        (BudgetSpent("cents of ours"), 503, "budget"),
        (Refused(503, "busy", "later", {"Retry-After": "7"}), 503, "busy"),
        (RuntimeError("secret internals"), 500, "internal"),
        (TimeoutError("secret internals"), 500, "internal"),
        (KeyError("secret internals"), 500, "internal"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/score", "/v1/score/stream", "/v1/compare"])
def test_errors_of_the_service_become_problems(path, error, status, reason):
    service = FakeService()
    service.error = error
    with serving(service) as served:
        answer = served.post(path, PAIR if path == "/v1/compare" else REQUEST)
        body = problem(answer, status, reason)
        assert "secret" not in answer.text
        assert "ours" not in answer.text
        if reason == "busy":
            assert answer.headers["retry-after"] == "7"
        if reason == "input":
            assert body.detail == "no such thing"


def test_a_failing_look_up_is_a_problem():
    service = FakeService()
    service.error = RuntimeError("secret")
    with serving(service) as served:
        problem(served.http.get("/v1/theories"), 500, "internal")


def test_traceback_is_in_the_log_with_the_request_id_and_without_the_text(caplog):
    service = FakeService()
    service.error = RuntimeError(f"cannot score {REQUEST['texts'][0]}")
    with caplog.at_level(logging.INFO), serving(service) as served:
        served.post("/v1/score", headers={"X-Request-Id": "broken-1"})
        eventually(lambda: log_lines(caplog.records))
    line = log_lines(caplog.records)[0]
    assert line["request_id"] == "broken-1"
    assert "fakes/service.py" in line["traceback"]
    assert "builtins.RuntimeError" in line["traceback"]
    assert REQUEST["texts"][0] not in caplog.text


def test_stream_has_a_line_for_each_score(server: Served):
    answer = server.post("/v1/score/stream")
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    start, *scores, end = lines_of(answer)
    assert StreamStart.model_validate(start).num_scores == len([StreamScore.model_validate(s) for s in scores]) == 4
    assert StreamEnd.model_validate(end) == StreamEnd(num_scores=4)
    assert start["request_id"] == answer.headers["x-request-id"]
    assert [s["intensity"] for s in scores] == [s["intensity"] for s in server.post("/v1/score").json()["scores"]]


def test_stream_lines_come_one_by_one():
    service = FakeService()
    service.seconds = 0.3
    with serving(service) as served, served.http.stream("POST", "/v1/score/stream", json=REQUEST) as answer:
        times = [time.monotonic() for _ in answer.iter_lines()]
    assert len(times) == 6
    assert all(later - earlier > 0.1 for earlier, later in itertools.pairwise(times[:5]))


def test_an_error_in_mid_stream_is_its_last_line():
    service = FakeService()
    service.end_after, service.ending = 3, RuntimeError("a failure")
    with serving(service) as served:
        answer = served.post("/v1/score/stream")
        *_, last = lines_of(answer)
        end = StreamEnd.model_validate(last)
        assert end.num_scores == 3
        assert end.problem is not None
        assert end.problem.status == 500
        assert end.problem.request_id == answer.headers["x-request-id"]
        assert "failure" not in answer.text
        eventually(lambda: served.metric('valueflow_http_rejected_total{reason="internal"}') == 1)


def test_a_stream_that_takes_too_long_ends_with_a_problem():
    service = FakeService()
    service.seconds = 0.4
    with serving(service, stream_seconds=1) as served:
        *lines, last = lines_of(served.post("/v1/score/stream"))
        assert last["problem"]["status"] == 504
        assert last["num_scores"] == len(lines) - 1 < 4
        assert service.cancelled.acquire(timeout=5)
        assert service.closed.acquire(timeout=5)


def test_not_ready_then_ready_then_another_service():
    state: dict = {"service": None}
    with listening(create(lambda: state["service"], HttpConfig())) as port:
        http = httpx.Client(base_url=f"http://127.0.0.1:{port}")
        assert http.get("/healthz").text == "ok\n"
        answer = http.get("/readyz")
        problem(answer, 503, "not-ready")
        assert answer.headers["retry-after"] == "5"
        problem(http.post("/v1/score", json=REQUEST), 503, "not-ready")
        problem(http.get("/v1/vidb"), 503, "not-ready")
        old = state["service"] = FakeService(version="old")
        assert http.get("/readyz").status_code == 200
        old.blocks.set()
        with ThreadPoolExecutor() as pool:
            first = pool.submit(httpx.post, f"http://127.0.0.1:{port}/v1/score", json=REQUEST, timeout=30)
            assert old.entered.acquire(timeout=5)
            state["service"] = FakeService(version="new")
            assert http.post("/v1/score", json=REQUEST).json()["vidb_version"] == "new"
            old.blocks.clear()
            assert first.result().json()["vidb_version"] == "old"


@pytest.mark.parametrize("request_id", ["", "a" * 65, "a b", "ä".encode(), "x;y", "<script>"])
def test_an_invalid_request_id_is_replaced(server: Served, request_id):
    answer = server.http.get("/v1/vidb", headers={"X-Request-Id": request_id})
    assert len(answer.headers["x-request-id"]) == 32


@pytest.mark.parametrize("path", ["/healthz", "/v1/vidb", "/nowhere", "/openapi.json", "/metrics"])
def test_common_headers(server: Served, path):
    headers = server.http.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-request-id"]


def test_page_has_a_new_nonce_each_time_and_a_strict_policy():
    with serving(page="<script nonce=__NONCE__>1</script><style nonce=__NONCE__></style>") as served:
        answers = [served.http.get("/") for _ in range(2)]
    assert answers[0].text != answers[1].text
    for answer in answers:
        nonce = answer.text.split("nonce=")[1].split(">")[0]
        assert "__NONCE__" not in answer.text
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert answer.headers["content-security-policy"] == (
            f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )


def test_without_a_page_the_root_is_404(server: Served):
    problem(server.http.get("/"), 404, "not-found")


def test_docs_only_when_asked_for(server: Served):
    problem(server.http.get("/docs"), 404, "not-found")
    with serving(docs=True) as served:
        assert "swagger" in served.http.get("/docs").text


def test_openapi_is_valid_and_documents_every_error(server: Served):
    document = server.http.get("/openapi.json").json()
    assert "HTTPValidationError" not in json.dumps(document)
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    operations = [(p, op) for p, ops in document["paths"].items() for op in ops.values()]
    assert len(operations) == 13
    for path, operation in operations:
        errors = {status: answer for status, answer in operation["responses"].items() if status != "200"}
        assert "500" in errors, path
        for answer in errors.values():
            assert answer["content"] == {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    named = set(document["components"]["schemas"])
    assert {"Problem", "StreamStart", "StreamScore", "StreamEnd"} <= named


def test_no_cors_unless_allowed(server: Served):
    ask = {"Origin": "https://page.example", "Access-Control-Request-Method": "POST"}
    assert server.http.options("/v1/score", headers=ask).status_code == 405
    assert "access-control-allow-origin" not in server.post("/v1/score", headers=ask).headers
    with serving(origins=["https://page.example"]) as served:
        assert served.http.options("/v1/score", headers=ask).headers["access-control-allow-origin"] == "https://page.example"
        refused = served.post("/v1/score", {}, headers=ask)
        problem(refused, 422, "schema")
        assert refused.headers["access-control-allow-origin"] == "https://page.example"
        other = served.post("/v1/score", headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers


def test_a_repeated_request_gets_the_stored_response():
    with serving() as served:
        first, again = (served.post("/v1/score", headers={"Idempotency-Key": "k1"}) for _ in range(2))
        assert first.content == again.content
        assert (first.headers.get("idempotency-replayed"), again.headers["idempotency-replayed"]) == (None, "true")
        assert first.headers["x-request-id"] != again.headers["x-request-id"]
        assert len(served.service.requests) == 1
        problem(served.post("/v1/score", REQUEST | {"seed": 1}, headers={"Idempotency-Key": "k1"}), 422, "idempotency")
        problem(served.post("/v1/profile", headers={"Idempotency-Key": "k1"}), 422, "idempotency")
        served.post("/v1/score", headers={"Idempotency-Key": "k2"})
        assert len(served.service.requests) == 2
        problem(served.post("/v1/score", headers={"Idempotency-Key": "k" * 256}), 422, "idempotency")


def test_stored_responses_are_bounded_in_number_bytes_and_time():
    with serving() as served:
        size = len(served.post("/v1/score").content)

    def num_processed(keys: str, **settings) -> int:
        with serving(**settings) as served:
            for key in keys:
                assert served.post("/v1/score", headers={"Idempotency-Key": key}).status_code == 200
                time.sleep(0.05)
            return len(served.service.requests)

    assert num_processed("abab", repeat_answers=2) == 2
    assert num_processed("abcab", repeat_answers=2) == 5
    assert num_processed("abab", repeat_bytes=2 * size) == 2
    assert num_processed("abab", repeat_bytes=2 * size - 1) == 4
    assert num_processed("aa", repeat_bytes=10) == 2
    assert num_processed("aa", repeat_answers=0) == 2
    assert num_processed("aa", repeat_seconds=0.01) == 2


def test_a_repeat_waits_for_the_first_and_takes_over_when_it_fails():
    service = FakeService()
    service.blocks.set()
    with serving(service) as served, ThreadPoolExecutor() as pool:

        def send() -> httpx.Response:
            return httpx.post(f"{served.url}/v1/score", json=REQUEST, headers={"Idempotency-Key": "k"}, timeout=30)

        same = [pool.submit(send) for _ in range(5)]
        assert service.entered.acquire(timeout=5)
        time.sleep(0.2)
        assert len(service.requests) == 1
        service.blocks.clear()
        assert len({one.result().content for one in same}) == 1
        assert len(service.requests) == 1

        service.error = RuntimeError("first fails")
        assert httpx.post(f"{served.url}/v1/score", json=REQUEST, headers={"Idempotency-Key": "new"}).status_code == 500
        service.error = None
        assert httpx.post(f"{served.url}/v1/score", json=REQUEST, headers={"Idempotency-Key": "new"}).status_code == 200


def test_when_the_first_of_two_equal_requests_goes_away_the_second_works():
    service = FakeService()
    service.blocks.set()
    with serving(service) as served, ThreadPoolExecutor() as pool:
        same = {"json": REQUEST, "headers": {"Idempotency-Key": "k"}}
        first = pool.submit(httpx.post, f"{served.url}/v1/score", timeout=1, **same)
        assert service.entered.acquire(timeout=5)
        second = pool.submit(httpx.post, f"{served.url}/v1/score", timeout=30, **same)
        assert service.cancelled.acquire(timeout=5)
        assert service.entered.acquire(timeout=5)
        service.blocks.clear()
        assert second.result().status_code == 200
        assert isinstance(first.exception(), httpx.ReadTimeout)


def test_metrics_count_routes_statuses_reasons_texts_and_units():
    with serving() as served:
        served.post("/v1/score")
        served.post("/v1/score", {})
        for path in ("/nowhere", "/else", "/v1/values/svt:power", "/v1/values/svt:achievement"):
            served.http.get(path)
        assert served.metric('valueflow_http_requests_total{route="/v1/score",status="200"}') == 1
        assert served.metric('valueflow_http_requests_total{route="/v1/score",status="422"}') == 1
        assert served.metric('valueflow_http_requests_total{route="none",status="404"}') == 2
        assert served.metric('valueflow_http_requests_total{route="/v1/values/{id}",status="200"}') == 2
        assert served.metric('valueflow_http_rejected_total{reason="schema"}') == 1
        assert served.metric('valueflow_http_texts_total{route="/v1/score"}') == 2
        assert served.metric('valueflow_http_units_total{route="/v1/score"}') == 4
        assert served.metric('valueflow_http_seconds_count{route="/v1/score"}') == 2
        assert served.metric("valueflow_http_in_flight") == 0


def test_two_applications_do_not_share_their_numbers():
    with serving() as one, serving() as other:
        one.post("/v1/score")
        assert other.metric('valueflow_http_requests_total{route="/v1/score"') == 0


def test_many_requests_at_once_keep_their_own_answers():
    with serving(max_queued=500) as served, ThreadPoolExecutor(16) as pool:
        lock, wrong = threading.Lock(), []

        def send(i: int) -> None:
            body = REQUEST | {"texts": [f"text {i}"], "seed": i}
            answer = httpx.post(f"{served.url}/v1/score", json=body, headers={"X-Request-Id": f"id-{i}"}, timeout=30)
            if (answer.json().get("seed"), answer.json().get("request_id")) != (i, f"id-{i}"):
                with lock:
                    wrong.append(answer.text)

        list(pool.map(send, range(100)))
        assert not wrong
