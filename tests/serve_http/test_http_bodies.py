"""Bodies that are invalid, too large, too slow or just unusual: a clear refusal, or an answer."""

import json
import logging
import time

import pytest
from fakes.server import eventually
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served import JSON, PARSERS, REQUEST, Served, busy, log_lines, refused, request_head, serving, status_of

from valueflow.api import Problem


@pytest.fixture(scope="module")
def server():
    with serving(max_body_bytes=100_000, max_chars=1000, max_texts=50, max_units=200) as served:
        yield served


DEEP = b"[" * 5000
BROKEN = {
    "empty": (b"", 422),
    "no JSON": (b"texts=a", 400),
    "cut": (b'{"texts": ["a"', 400),
    "rest": (b'{"texts": ["a"]} x', 400),
    "NaN": (b'{"texts": ["a"], "seed": NaN}', 400),
    "infinity": (b'{"texts": ["a"], "seed": -Infinity}', 400),
    "overflow": (b'{"texts": ["a"], "seed": 1e999}', 422),
    "huge number": (b'{"texts": ["a"], "seed": ' + b"9" * 50_000 + b"}", 400),
    "large number": (b'{"texts": ["a"], "seed": ' + b"9" * 4000 + b"}", 422),
    "float": (b'{"texts": ["a"], "k": 6.0}', 422),
    "deep": (DEEP, 400),
    "deeper than texts are many": (b"[" * 50_000, 422),
    "deep in a field": (b'{"texts": ' + DEEP + b"}", 400),
    "deep and closed": (b'{"texts": ' + b"[" * 150 + b"]" * 150 + b"}", 422),
    "not UTF-8": (b'{"texts": ["\xff\xfe"]}', 400),
    "overlong UTF-8": (b'{"texts": ["\xc0\xaf"]}', 400),
    "surrogate bytes": (b'{"texts": ["\xed\xa0\x80"]}', 400),
    "lone surrogate": (b'{"texts": ["\\ud800"]}', 400),
    "lone low surrogate": (b'{"texts": ["\\udc00 a"]}', 400),
    "swapped surrogates": (b'{"texts": ["\\udc00\\ud800"]}', 400),
    "UTF-16": ('{"texts": ["a"]}'.encode("utf-16"), 400),
    "byte order mark": (b"\xef\xbb\xbf" + b'{"texts": ["a"]}', 400),
    "raw control character": (b'{"texts": ["\x01"]}', 400),
    "a list": (b'[{"texts": ["a"]}]', 422),
    "a string": (b'"a"', 422),
    "null": (b"null", 422),
    "text for texts": (b'{"texts": "a"}', 422),
    "number in texts": (b'{"texts": ["a", 1]}', 422),
    "null in texts": (b'{"texts": [null]}', 422),
    "no texts": (b'{"texts": []}', 422),
    "empty text": (b'{"texts": [""]}', 422),
    "unknown key": (b'{"texts": ["a"], "text": "a"}', 422),
    "long unknown key": (b'{"texts": ["a"], "' + b"x" * 90_000 + b'": 1}', 422),
    "a key twice": (b'{"texts": ["a"], "texts": ["b"]}', 422),
    "many keys": (json.dumps({f"k{i}": i for i in range(10_000)}).encode()[:99_000], 422),  # never parsed
    "keys": (json.dumps({f"k{i}": i for i in range(1000)}).encode(), 422),
    "boolean k": (b'{"texts": ["a"], "k": true}', 422),
    "k too large": (b'{"texts": ["a"], "k": 11}', 422),
    "mode": (b'{"texts": ["a"], "mode": "guess"}', 422),
    "10,000 values": (
        json.dumps({"texts": ["a"], "values": ["svt:power"] * 10_000})[:].replace("svt:power", "svt").encode(),
        422,
    ),
    "10,000 wrong texts": (json.dumps({"texts": [1] * 10_000}).encode(), 422),
    "empty value": (b'{"texts": ["a"], "values": [""]}', 422),
    "value of newlines": (b'{"texts": ["a"], "values": ["\\n\\r\\u0000"]}', 422),
    "value with a colon": (b'{"texts": ["a"], "values": [":", "::", "svt:"]}', 422),
}


@pytest.mark.parametrize("path", ["/v1/score", "/v1/score/stream", "/v1/profile"])
@pytest.mark.parametrize("name", BROKEN)
def test_broken_bodies_are_refused(server: Served, path, name):
    body, status = BROKEN[name]
    answer = server.http.post(path, content=body, headers=JSON)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert Problem.model_validate_json(answer.content, strict=True).detail
    assert len(answer.content) < 5000


@pytest.mark.parametrize(
    "text",
    [
        "\u0000", " ", "\n", "👩‍👩‍👧‍👦", "مرحبا", "a\u0301" * 300, "\u202e", "\ufeff", "\U0010ffff", "\ufffe",
        "<script>alert(1)</script>",
        '"', "\\", "__NONCE__", "{0}", "%s",
    ],
)  # fmt: skip
def test_unusual_texts_are_texts(server: Served, text):
    answer = server.post("/v1/score", {"texts": [text], "values": ["svt:power"]})
    assert answer.status_code == 200, answer.text
    as_is = json.dumps({"texts": [text], "values": ["svt:power"]}, ensure_ascii=False).encode()
    assert server.http.post("/v1/score", content=as_is, headers=JSON).json()["scores"] == answer.json()["scores"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
FIELDS = st.sampled_from(["texts", "values", "mode", "k", "m", "sampling", "seed", "first", "second", "theories", "top"])


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["/v1/score", "/v1/score/stream", "/v1/compare", "/v1/profile", "/v1/extract"]),
    st.dictionaries(FIELDS, json_values, max_size=5).map(lambda body: json.dumps(body).encode()) | st.binary(max_size=60),
)
def test_random_bodies_are_answered_or_refused(server: Served, path, body):
    answer = server.http.post(path, content=body, headers=JSON)
    assert answer.status_code in (200, 400, 422), answer.text
    if answer.status_code != 200:
        Problem.model_validate_json(answer.content, strict=True)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(min_size=1, max_size=50), min_size=1, max_size=5))
def test_random_texts_are_scored(server: Served, texts):
    answer = server.post("/v1/score", {"texts": texts, "values": ["svt:power"]})
    assert [s["index"] for s in answer.json()["scores"]] == list(range(len(texts)))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "application/json-patch+json"},
        {"Content-Type": "application/json; charset=utf-16"},
        JSON | {"Content-Encoding": "gzip"},
    ],
)
def test_other_content_is_415(server: Served, headers):
    refused(server.http.post("/v1/score", content=json.dumps(REQUEST).encode(), headers=headers), 415, "content-type")


@pytest.mark.parametrize("kind", ["application/json; charset=UTF-8", "Application/JSON", 'application/json;charset="utf-8"'])
def test_json_by_other_spellings_is_taken(server: Served, kind):
    assert server.http.post("/v1/score", content=json.dumps(REQUEST), headers={"Content-Type": kind}).status_code == 200


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"texts": ["a"] * 51, "values": ["svt:power"]}, "max_texts, 50"),
        ({"texts": ["a", "b" * 1001], "values": ["svt:power"]}, "texts[1] with 1001 characters"),
        ({"texts": ["a"] * 7, "values": ["all"]}, "7 texts x 32 values = 224 scores"),
        ({"texts": ["a"] * 7}, "224 scores"),
        ({"texts": ["a"] * 17, "values": ["svt"]}, "204 scores"),
    ],
)
def test_requests_beyond_the_limits_name_the_limit(server: Served, body, message):
    before = len(server.service.requests)
    assert message in refused(server.post("/v1/score", body), 422, "limits").detail
    assert len(server.service.requests) == before


def test_compare_has_the_limits_too(server: Served):
    refused(server.post("/v1/compare", {"first": "a", "second": "b" * 1001}), 422, "limits")


def test_streams_have_a_limit_of_their_own():
    with serving(max_texts=2, max_streamed=3) as served:
        body = {"texts": ["a"] * 3, "values": ["svt:power"]}
        assert served.post("/v1/score/stream", body).status_code == 200
        refused(served.post("/v1/score", body), 422, "limits")
        assert "max_streamed, 3" in refused(served.post("/v1/score/stream", body | {"texts": ["a"] * 4}), 422, "limits").detail


@pytest.mark.parametrize("parser", PARSERS)
def test_a_body_of_10_mb_is_413(parser):
    with serving(http=parser) as served:
        refused(served.post("/v1/score", {"texts": ["x" * 10_000_000]}), 413, "body-size")
        # Chunked, so that no length is told.
        chunks = (b"x" * 65_536 for _ in range(200))
        refused(served.http.post("/v1/score", content=chunks, headers=JSON), 413, "body-size")
        assert served.post("/v1/score").status_code == 200
        assert len(served.service.requests) == 1


@pytest.mark.parametrize("parser", PARSERS)
def test_an_endless_chunked_body_is_refused_while_it_comes(parser):
    with serving(max_body_bytes=100_000, http=parser) as served, served.connect() as connection:
        connection.sendall(request_head("Transfer-Encoding: chunked"))
        sent = 0
        connection.settimeout(0.05)
        answer = b""
        while not answer and sent < 5_000_000:
            connection.sendall(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
            sent += 10_000
            try:
                answer = connection.recv(65536)
            except TimeoutError:
                continue
        assert answer.startswith(b"HTTP/1.1 413")
        assert sent <= 400_000


@pytest.mark.parametrize("parser", PARSERS)
def test_a_declared_length_is_refused_before_the_body(parser):
    with serving(http=parser) as served, served.connect() as connection:
        connection.sendall(request_head("Content-Length: 99999999999"))
        assert status_of(connection) == 413


@pytest.mark.parametrize("parser", PARSERS)
def test_a_slow_body_is_408_and_leaves_the_queue(parser):
    with serving(body_seconds=0.6, max_in_flight=1, max_queued=0, http=parser) as served, served.connect() as connection:
        connection.sendall(request_head("Content-Length: 1000"))
        began = time.monotonic()
        connection.settimeout(0.1)
        answer = b""
        while not answer and time.monotonic() - began < 10:
            connection.sendall(b" ")
            try:
                answer = connection.recv(65536)
            except TimeoutError:
                continue
        assert answer.startswith(b"HTTP/1.1 408")
        assert 0.5 < time.monotonic() - began < 5
        assert served.post("/v1/score").status_code == 200


@pytest.mark.parametrize("parser", PARSERS)
def test_a_client_that_disconnects_within_its_body_leaves_the_queue(parser, caplog):
    with caplog.at_level(logging.INFO), serving(max_in_flight=1, max_queued=0, http=parser) as served:
        with served.connect() as connection:
            connection.sendall(request_head("Content-Length: 1000") + b'{"texts"')
            eventually(lambda: busy(served) == (0, 1))
            refused(served.post("/v1/score"), 429, "queue")
        eventually(lambda: served.metric("valueflow_http_queued") == 0)
        assert served.post("/v1/score").status_code == 200
        assert [x["status"] for x in log_lines(caplog.records) if x["reason"] == "client-left"] == [499]
