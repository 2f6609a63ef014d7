"""The clients against real servers that refuse, are busy, cut connections and streams."""

import asyncio
import contextlib
import email.utils
import json
import logging
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fakes.server import FakeServer, listening, problem, raw, running, stream_lines
from fakes.service import LIMITS, FakeService, anchors, fake_score, probability
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from hypothesis import given
from hypothesis import strategies as st

from valueflow import api
from valueflow.api import VidbResponse
from valueflow.client import AsyncClient, Client
from valueflow.client.protocol import MAX_LINE, ClientProtocol, Failure, ResumableStream, ValueFlowError, num_values
from valueflow.errors import InputError

KEY = "vf-secret-0123456789"
VALUES = ["svt:benevolence", "mft:fairness-cheating", "duty:fidelity"]
REMARK = "one\u2028two"  # a separator that is not the end of a line


def scores(texts: list[str], values: list[str] = VALUES) -> list[dict]:
    """The scores of the fake server, as dicts."""
    return [fake_score(i, text, value, 3, REMARK).model_dump() for i, text in enumerate(texts) for value in values]


def lines(texts: list[str], values: list[str] = VALUES) -> list[str]:
    return stream_lines(FakeService(values, remark=REMARK), {"texts": texts})


@pytest.fixture(scope="module")
def one_server() -> Iterator[FakeServer]:
    with running(FakeServer(FakeService())) as server:
        yield server


@pytest.fixture
def fake(one_server) -> FakeServer:
    one_server.reset()
    one_server.service = FakeService(VALUES, remark=REMARK)
    return one_server


@pytest.fixture(params=["sync", "async"])
def ask(request, fake) -> Callable[..., Any]:
    """Calls a method of either client; a stream comes back as a list."""

    async def awaited(name: str, args: tuple, settings: dict, options: dict) -> Any:
        async with AsyncClient(**options) as client:
            called = getattr(client, name)(*args, **settings)
            return [line async for line in called] if name == "stream" else await called

    def call(name: str, *args: Any, options: dict | None = None, **settings: Any) -> Any:
        options = {"url": fake.url, "key": KEY} | (options or {})
        if request.param == "async":
            return asyncio.run(awaited(name, args, settings, options))
        with Client(**options) as client:
            called = getattr(client, name)(*args, **settings)
            return list(called) if name == "stream" else called

    return call


@pytest.fixture
def waits(monkeypatch) -> list[int]:
    """The attempts after which a client waited for as long as it liked, which is now next to nothing."""
    attempts: list[int] = []
    monkeypatch.setattr("valueflow.client.protocol.backoff", lambda attempt: attempts.append(attempt) or 0.001)
    return attempts


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("name", ["vidb", "stream"])
def test_a_response_without_end_is_one_sentence(ask, fake, waits, name, packed, status, monkeypatch):
    """Neither its bytes nor what they unpack to fill the memory; a stream that is no error has a limit for each line."""
    monkeypatch.setattr("valueflow.client.protocol.MAX_RESPONSE", 2**20)
    sent = []

    def endless() -> Iterator[bytes]:
        packer = zlib.compressobj(wbits=31)
        for _ in range(1000):
            sent.append(1)
            block = b"x" * 2**16
            yield packer.compress(block) + packer.flush(zlib.Z_SYNC_FLUSH) if packed else block

    headers = {"content-encoding": "gzip"} if packed else {}
    fake.intercept = lambda _: StreamingResponse(endless(), status, headers=headers)
    with pytest.raises(ValueFlowError, match=r"1 MiB") as raised:
        ask(name, *(["a text"] if name == "stream" else []))
    assert "ValueFlow server" in str(raised.value)
    assert not waits
    assert len(sent) < 900


def test_scores_of_one_text_and_of_a_list_are_the_servers_with_the_text(ask, fake):
    got = ask("score", "We help.", VALUES[0], mode="fast", m=5)
    assert fake.calls[-1].body == {"texts": ["We help."], "values": [VALUES[0]], "mode": "fast", "m": 5}
    assert fake.calls[-1].headers["authorization"] == f"Bearer {KEY}"
    assert got.judge == "minilm"
    got = ask("score", ["a", "b"])
    assert [r["text"] for r in got.rows()] == ["a", "a", "a", "b", "b", "b"]
    assert got.rows()[4] == {
        "index": 1, "text": "b", **fake_score(1, "b", VALUES[1], error=REMARK).model_dump(exclude={"index"}),
    }  # fmt: skip


def test_every_path_answers_with_its_model(ask, fake):
    assert ask("compare", "a", "b", ["svt"]).comparisons[0].probability == probability(
        fake_score(0, "a", VALUES[0]), fake_score(1, "b", VALUES[0])
    )
    assert ask("profile", ["a", "b"]).profile[0].num_texts == 2
    assert ask("extract", "a", theories="svt", top=1).texts[0].nodes[0].path == ["a"]
    assert fake.calls[-1].body == {"texts": ["a"], "theories": ["svt"], "top": 1}
    assert ask("theories").theories[0].id == "svt"
    assert ask("value", "svt:benevolence").examples == anchors("svt:benevolence")[::9]
    with pytest.raises(ValueFlowError, match="404"):
        ask("value", "a b?c=d")
    assert fake.calls[-1].path == "values/a b?c=d"
    assert ask("anchors", "svt:benevolence", offset=5, limit=7).anchors == anchors("svt:benevolence")[5:12]
    assert fake.calls[-1].query == "offset=5&limit=7"
    assert {row.level for row in ask("steering", "svt:power").wordings} == {-2, -1, 0, 1, 2}
    assert fake.calls[-1].path == "steering/svt:power"
    assert ask("vidb").limits == LIMITS


def test_server_and_key_come_from_the_environment(fake, monkeypatch):
    monkeypatch.setenv("VALUEFLOW_SERVER", fake.url + "/")
    monkeypatch.setenv("VALUEFLOW_API_KEY", f" {KEY}\n")
    with Client() as client:
        client.theories()
    assert fake.calls[-1].headers["authorization"] == f"Bearer {KEY}"
    monkeypatch.delenv("VALUEFLOW_API_KEY")
    with Client() as client:
        client.theories()
    assert "authorization" not in fake.calls[-1].headers


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again_when_it_says_under_the_same_idempotency_key(ask, fake, waits, status):
    date = email.utils.formatdate(time.time() + 3, usegmt=True)
    fake.faults = [lambda _: problem(status, Retry_After="1"), lambda _: problem(status, Retry_After=date)]
    began = time.monotonic()
    assert ask("score", "a").scores
    assert time.monotonic() - began > 1.9
    keys = [call.headers["idempotency-key"] for call in fake.posts]
    assert len(keys) == 3
    assert len(set(keys)) == 1
    ask("score", "a")
    assert fake.calls[-1].headers["idempotency-key"] != keys[0]


def test_waits_grow_by_attempt_and_end_with_the_servers_problem(ask, fake, waits):
    fake.faults = [lambda _: problem(503, "the judge restarts")] * 9
    with pytest.raises(ValueFlowError, match=r"503 Refused: the judge restarts \(request r-p\)") as caught:
        ask("score", "a", options={"retries": 3})
    assert len(fake.posts) == 4
    assert waits[:3] == [0, 1, 2]
    assert caught.value.problem.status == 503


def test_the_wait_is_drawn_at_random_below_a_growing_bound():
    protocol, busy = ClientProtocol("http://h", "", 1.0, 9), Failure(ValueFlowError("busy"), True)
    drawn = [[protocol.wait(busy, attempt) for _ in range(50)] for attempt in range(4)]
    for attempt, seconds in enumerate(drawn):
        assert max(seconds) <= 0.5 * 2**attempt
        assert len(set(seconds)) == 50
    assert max(drawn[3]) > max(drawn[0])


def test_a_wait_longer_than_two_minutes_is_left_to_the_caller(ask, fake):
    fake.faults = [lambda _: problem(429, Retry_After="3600")]
    with pytest.raises(ValueFlowError, match="429"):
        ask("score", "a")
    assert len(fake.posts) == 1


def test_other_refusals_raise_the_servers_problem_at_once(ask, fake):
    sent = api.Problem(title="Unprocessable", status=422, detail="bad", errors=[{"field": "values.0", "message": "unknown"}])
    fake.faults = [lambda _: Response(sent.model_dump_json(), 422)]
    with pytest.raises(ValueFlowError, match=r"422 Unprocessable: bad; values.0: unknown") as caught:
        ask("score", "a")
    assert caught.value.problem == sent
    assert len(fake.posts) == 1
    fake.faults = [lambda _: problem(500)]
    with pytest.raises(ValueFlowError, match="500"):
        ask("score", "a")
    assert len(fake.posts) == 2
    fake.faults = [lambda _: problem(401)]
    with pytest.raises(ValueFlowError, match="VALUEFLOW_API_KEY"):
        ask("score", "a")


def test_a_gateway_whose_server_died_is_asked_again(ask, fake, monkeypatch):
    monkeypatch.setattr("valueflow.client.protocol.backoff", lambda _: 0.01)
    fake.faults = [lambda _: PlainTextResponse("<html>\nno such gateway", 502), lambda _: PlainTextResponse("died", 500)]
    assert ask("score", "a").scores
    assert len({post.headers["idempotency-key"] for post in fake.posts}) == 1
    fake.faults = [lambda _: PlainTextResponse("<html>\nno such gateway", 502)] * 9
    with pytest.raises(ValueFlowError, match="502 Bad Gateway: <html> no such gateway"):
        ask("score", "a")


def test_something_else_than_a_valueflow_server_is_named(ask, fake):
    fake.faults = [lambda _: JSONResponse({"scores": []}), lambda _: PlainTextResponse("hello")] * 2
    for _ in range(2):
        with pytest.raises(ValueFlowError, match="is this a ValueFlow server"):
            ask("score", "a")
    fake.faults = [lambda _: PlainTextResponse("hello\n")]
    with pytest.raises(ValueFlowError, match="line that is not of API version 1: 'hello'"):
        ask("stream", ["a"])


def test_a_server_that_starts_late_is_waited_for(ask, fake, monkeypatch):
    monkeypatch.setattr("valueflow.client.protocol.backoff", lambda _: 0.1)
    with socket.create_server(("127.0.0.1", 0)) as socket_:
        port = socket_.getsockname()[1]
    with pytest.raises(ValueFlowError, match=f"cannot reach http://127.0.0.1:{port}.*VALUEFLOW_SERVER"):
        ask("theories", options={"url": f"http://127.0.0.1:{port}", "retries": 1})
    with contextlib.ExitStack() as stack:
        late = threading.Timer(0.3, lambda: stack.enter_context(listening(fake, port=port)))
        late.start()
        assert ask("theories", options={"url": f"http://127.0.0.1:{port}", "retries": 50}).theories
        late.join()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_a_refused_connection_on_this_machine_is_tried_twice(ask, waits, monkeypatch, host):
    with socket.create_server(("127.0.0.1", 0)) as socket_:
        url = f"http://{host}:{socket_.getsockname()[1]}"
    for call in (("theories",), ("score", "a"), ("stream", ["a"])):
        waits.clear()
        with pytest.raises(
            ValueFlowError, match=r"python -m serve\.local root=FOLDER.*--server.*VALUEFLOW_SERVER.*--root"
        ) as error:
            ask(*call, options={"url": url})
        assert len(waits) == 1
        assert "\n" not in str(error.value)


def test_a_server_of_this_machine_that_answered_before_is_waited_for(fake, waits):
    with listening(fake) as port:
        client = Client(f"http://127.0.0.1:{port}")
        client.theories()
    with pytest.raises(ValueFlowError, match="cannot reach"):
        client.theories()
    assert len(waits) == 8


def test_connections_cut_before_the_answer_was_whole_are_asked_again(ask, fake, waits):
    body = asyncio.run(fake.service.score(api.ScoreRequest(texts=["a"]), "r")).model_dump_json().encode()
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    with raw([b"", whole[:30], whole[:-5], whole]) as (url, received):
        assert len(ask("score", "a", options={"url": url}).scores) == 3
    assert len({request.lower().partition(b"idempotency-key: ")[2][:32] for request in received}) == 1
    with raw([b""] * 3) as (url, received), pytest.raises(ValueFlowError, match="the connection was lost"):
        ask("score", "a", options={"url": url, "retries": 2})
    assert len(received) == 3


def test_a_server_that_says_nothing_is_not_asked_again(ask, waits):
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(ValueFlowError, match=r"no data for 0\.2 s"):
        ask("score", "a", options={"url": f"http://127.0.0.1:{silent.getsockname()[1]}", "timeout": 0.2})
    assert not waits


def test_a_stream_is_a_start_the_scores_in_order_and_an_end(ask, fake):
    got = ask("stream", ["a", "b"], "svt", seed=7)
    assert [line.type for line in got] == ["start", *["score"] * 6, "end"]
    assert got[0].num_scores == got[-1].num_scores == 6
    assert [(line.index, line.value, line.intensity) for line in got[1:-1]] == [
        (i, v, fake_score(i, t, v).intensity) for i, t in enumerate("ab") for v in VALUES
    ]
    assert got[1].error == REMARK  # a line ends at a line feed only
    assert fake.calls[-1].body == {"texts": ["a", "b"], "values": ["svt"], "seed": 7}


def test_a_cut_stream_goes_on_with_the_texts_that_are_missing(ask, fake, waits):
    texts = list("abcdef")
    # 0 lines; start and one text and two thirds; start alone; start and a third of a text; then whole
    fake.faults = [lambda b, n=n: fake.stream(b, n) for n in (0, 6, 1, 2)]
    got = ask("stream", texts)
    assert got[1:-1] == [api.StreamScore(**s) for s in scores(texts)]
    assert got[0].num_scores == got[-1].num_scores == 18
    assert [call.body["texts"] for call in fake.posts] == [texts, texts, texts[1:], texts[1:], texts[1:]]
    keys = [call.headers["idempotency-key"] for call in fake.posts]
    assert len(set(keys)) == 2
    assert keys[0] == keys[1] != keys[2]


def test_a_stream_that_is_cut_again_and_again_says_how_many_scores_came(ask, fake, waits):
    fake.faults = [lambda b: fake.stream(b, 3)] + [lambda b: fake.stream(b, 1)] * 9
    with pytest.raises(ValueFlowError, match=r"connection was lost.*; 2 scores were received before") as caught:
        ask("stream", ["a", "b"], options={"retries": 4})
    assert caught.value.num_scores == 2
    assert len(fake.posts) == 1 + 4


def ended(body: dict, come: int, status: int) -> Response:
    sent = lines(body["texts"])[: come + 1]
    end = api.StreamEnd(num_scores=come, problem=api.Problem(title="Ended", status=status, detail="early"))
    return PlainTextResponse("".join([*sent, "\n", end.model_dump_json() + "\n"]))


def test_a_stream_ended_for_lack_of_time_goes_on_if_it_got_anywhere(ask, fake, waits):
    fake.faults = [lambda b: ended(b, 4, 504), lambda b: ended(b, 3, 503)]
    assert [line.index for line in ask("stream", ["a", "b", "c"])[1:-1]] == [0] * 3 + [1] * 3 + [2] * 3
    fake.faults = [lambda b: ended(b, 4, 504), lambda b: ended(b, 1, 504)]
    with pytest.raises(ValueFlowError, match="504 Ended: early; 4 scores"):
        ask("stream", ["a", "b", "c"])


def test_a_stream_ended_by_a_problem_raises_it(ask, fake, waits):
    fake.faults = [lambda b: ended(b, 5, 500)]
    with pytest.raises(ValueFlowError, match="500 Ended: early; 5 scores") as caught:
        ask("stream", ["a", "b"])
    assert caught.value.problem.status == 500
    fake.faults = [lambda _: problem(429), lambda _: problem(422, "no")]
    with pytest.raises(ValueFlowError, match="422 Refused: no"):
        ask("stream", ["a", "b"])
    assert waits == [0]


@pytest.mark.parametrize("field", ["vidb_version", "judge"])
def test_scores_made_by_different_things_are_not_mixed(ask, fake, waits, field):
    fake.faults = [lambda b: fake.stream(b, 3), lambda b: fake.stream(b, **{field: "other"})]
    with pytest.raises(ValueFlowError, match=f"changed {field} from .* to other"):
        ask("stream", ["a", "b"])


@pytest.mark.parametrize(
    ("indices", "message"),
    [([0, 2, 1], "out of order"), ([1, 2], "out of order"), ([0, 1, -1], "before the last"), ([0, 1, 2, 3, 3], "out of order")],
)
def test_a_stream_that_breaks_its_own_rules_is_no_result(ask, fake, waits, indices, message):
    sent = lines(["a", "b", "c"], VALUES[:1])
    fake.faults = [lambda _: PlainTextResponse("".join(sent[i] for i in indices))]
    with pytest.raises(ValueFlowError, match=message):
        ask("stream", ["a", "b", "c"])


@given(
    texts=st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=6),
    num=st.integers(1, 3),
    cuts=st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 700)), max_size=8),
    most=st.integers(1, 6),
)
def test_wherever_it_is_cut_a_stream_gives_every_line_once(texts, num, cuts, most):
    protocol = ClientProtocol("http://h", "", 1.0, 99)
    protocol.vidb = FakeService().vidb().model_copy(update={"limits": LIMITS.model_copy(update={"max_streamed": most})})
    stream, got = ResumableStream(protocol, texts, {"values": ["all"]}), []
    while (call := stream.next_call()) is not None:
        assert len(call.body.texts) <= most
        answer = "".join(lines(call.body.texts, VALUES[:num])).encode()
        stop, size = cuts.pop() if cuts else (len(answer), 64)
        for at in range(0, min(stop, len(answer)), size):
            got += stream.feed(answer[at : min(at + size, stop)])
        stream.wait(None)
    assert got[0].num_scores == stream.end().num_scores == len(texts) * num
    assert [line.model_dump(exclude={"type"}) for line in got[1:]] == scores(texts, VALUES[:num])


@pytest.mark.parametrize(
    ("limit", "values", "sizes"),
    [
        ({"max_texts": 4}, ["svt:power"], [10]),
        ({"max_texts": 4, "max_streamed": 4}, ["svt:power"], [4, 4, 2]),
        ({"max_units": 7}, ["svt:power", "svt:face"], [3, 3, 3, 1]),
        ({"max_units": 7}, ["all"], [1] * 10),
        ({"max_body_bytes": 200}, ["svt:power"], [3, 3, 3, 1]),
    ],
)
def test_a_list_beyond_the_servers_limits_is_asked_in_parts(ask, fake, limit, values, sizes):
    texts = [f"{i}" + "é" * 20 for i in range(10)]
    fake.service.limits = LIMITS.model_copy(update=limit)
    got = ask("score", texts, values)
    assert [s.model_dump() for s in got.scores] == scores(texts)
    assert [len(call.body["texts"]) for call in fake.posts] == sizes
    assert {call.path for call in fake.posts} == {"score/stream"}
    assert all(int(call.headers["content-length"]) <= fake.service.limits.max_body_bytes for call in fake.posts)
    assert got.rows()[-1]["text"] == texts[-1]


@pytest.mark.parametrize(
    ("settings", "sizes"), [({}, [3, 3, 3, 1]), ({"m": 6}, [5, 5]), ({"mode": "fast"}, [7, 3])]
)  # fmt: skip
def test_parts_leave_room_for_what_the_first_request_on_a_value_takes(ask, fake, settings, sizes):
    fake.service.limits, fake.service.sharpness = LIMITS.model_copy(update={"max_units": 7}), {"svt:power": 12}
    ask("score", [f"t{i}" for i in range(10)], ["svt:power"], **settings)
    assert [len(call.body["texts"]) for call in fake.posts] == sizes


def test_nodes_of_a_long_list_are_asked_in_parts(ask, fake):
    fake.service.limits = LIMITS.model_copy(update={"max_texts": 4})
    got = ask("extract", [f"t{i}" for i in range(10)])
    assert [(text.index, text.nodes[0].path) for text in got.texts] == [(i, [f"t{i}"]) for i in range(10)]
    assert len(fake.posts) == len(got.request_id.split()) == 3


@pytest.mark.parametrize(
    ("names", "least"), [(["svt:benevolence"], 1), (["svt", "duty:fidelity"], 2), (["Schwartz"], 2), (["all", "svt:face"], 32)]
)
def test_the_number_of_values_of_names_is_an_upper_bound(names, least):
    assert least <= num_values(names) <= 32


@pytest.mark.parametrize(
    ("texts", "settings", "message"),
    [
        ([], {}, "texts"),
        (["a", float("nan")], {}, r"texts\[1\] is nan"),
        (["a", ""], {}, r"texts\[1\] is ''"),
        (["\ud800"], {}, r"texts\[0\] has bytes"),
        ("a", {"k": 99}, "k: .*10 .*got '99'"),
        ("a", {"sampling": "best"}, "sampling: .*'best'"),
        ("a", {"mod": "fast"}, "no setting 'mod'; did you mean 'mode'"),
        ("a", {"values": []}, "values"),
    ],
)
def test_invalid_requests_are_refused_before_anything_is_sent(ask, fake, texts, settings, message):
    for method in ("score", "stream"):
        with pytest.raises(InputError, match=message):
            ask(method, texts, **settings)
    assert not fake.posts


def test_keys_are_never_shown(ask, fake, waits, caplog):
    caplog.set_level(logging.DEBUG)
    fake.faults = [lambda _: problem(503), lambda _: problem(401, f"the key {KEY} is unknown")]
    with pytest.raises(ValueFlowError, match=r"the key \[key\] is unknown") as caught:
        ask("score", "a")
    for client in (Client(fake.url, KEY), AsyncClient(fake.url, KEY)):
        assert KEY not in repr(client)
        assert KEY not in repr(vars(client))
    assert KEY not in caplog.text + repr(caught.value) + repr(vars(caught.value))
    assert "retrying" in caplog.text
    for wrong in (f"{KEY}\n{KEY}", f"{KEY}é"):
        with pytest.raises(InputError, match="VALUEFLOW_API_KEY") as caught:
            Client(fake.url, wrong)
        assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://host", "http://", "http://host?key=1", "http://me:secret@host", "http://h:p/secret@h", ""]
)
def test_invalid_addresses_are_refused(url):
    with pytest.raises(InputError, match="VALUEFLOW") as caught:
        Client(url)
    assert "secret" not in str(caught.value)


def test_a_client_loads_nothing_heavy():
    code = "import valueflow.client, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not set(loaded) & {"torch", "ray", "pandas", "transformers", "matplotlib", "scipy", "numba"}


@pytest.mark.parametrize("size", [MAX_LINE + 1, 3 * MAX_LINE])
def test_a_line_without_an_end_is_refused_and_not_read_on(ask, fake, size):
    sent = []

    async def endless() -> Any:
        for _ in range(1_000):
            sent.append(size // 10)
            await asyncio.sleep(0.001)  # where the server hears that the client has gone
            yield b"x" * (size // 10)

    fake.faults = [lambda _: StreamingResponse(endless())]
    with pytest.raises(ValueFlowError, match="a line of more than 1 MiB"):
        ask("stream", ["a"])
    assert sum(sent) < 50 * MAX_LINE


@pytest.mark.parametrize(
    "change",
    [{"index": 2}, {"index": -1}, {"intensity": float("nan")}, {"high": float("inf")}],
    ids=str,
)
def test_scores_of_other_texts_and_numbers_that_are_none_are_refused(ask, fake, change):
    body = ask("score", ["a", "b"]).model_dump(exclude={"texts"})
    body["scores"][1] |= change
    content = json.dumps(body)
    fake.faults = [lambda _: Response(content, media_type="application/json")] * 2
    with pytest.raises(ValueFlowError, match="the same API version"):
        ask("score", ["a", "b"])


def test_limits_of_a_server_that_are_none_send_one_text_at_a_time():
    protocol = ClientProtocol("http://h", "", 1.0, 0)
    protocol.vidb = VidbResponse.model_construct(limits=LIMITS.model_copy(update={"max_texts": -5, "max_units": -1}))
    assert protocol.first_batch(["a", "b"], 0, {"values": ["all"]}) == ["a"]


def test_a_stream_that_announces_less_than_no_score_is_refused(ask, fake):
    start = json.loads(lines(["a"])[0]) | {"num_scores": -3}
    fake.faults = [lambda _: PlainTextResponse(json.dumps(start) + "\n")]
    with pytest.raises(ValueFlowError, match="announced -3 scores"):
        ask("stream", ["a"])


def test_what_a_server_says_is_one_line_of_a_bounded_length_without_signs_for_terminals(ask, fake):
    fake.faults = [lambda _: problem(422, "first\nsecond\x1b[2J" + "x" * 10_000)]
    with pytest.raises(ValueFlowError) as caught:
        ask("score", "a")
    message = str(caught.value)
    assert message.isprintable()
    assert "first second" in message
    assert len(message) <= 2_000
