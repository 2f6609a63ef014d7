"""Whatever a server answers, an LLM's reply is a reply or an error, and the client's is an answer or one sentence."""

import asyncio
import json
from typing import Any

import httpx
import pyarrow as pa
import pytest
from fakes.server import stream_lines
from fakes.service import LIMITS, FakeService, fake_score
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import mutated, mutations, odd_json, reading

from valueflow import api
from valueflow.client import Client
from valueflow.client.protocol import ValueFlowError
from valueflow.judging.tasks import RANK, VOTE
from valueflow.llm.admission import BudgetLedger
from valueflow.llm.cache import Reply
from valueflow.llm.configs import EndpointModel
from valueflow.llm.endpoint import Endpoint
from valueflow.llm.question import with_replies

WINDOW = {
    "window_id": "w" * 16, "theory": "svt", "value": "power", "text_ids": ["a" * 16, "b" * 16], "round": 0, "folder": "",
    "texts": ["I drank tea.", "I led the team."],
}  # fmt: skip
BALLOT = {
    "vote_id": "v" * 16, "ballot_id": "b" * 16, "text_id": "a" * 16, "text": "I led.", "kind": "direction", "theory": "svt",
    "node": "power", "round": 0, "folder": "", "options": ["supports", "opposes", "neither"], "detail": "",
}  # fmt: skip
USAGE = {"prompt_tokens": 80, "completion_tokens": 3}
TOKENS = [{"token": "B", "logprob": -0.1, "top_logprobs": [{"token": "B", "logprob": -0.1}, {"token": "A", "logprob": -3}]}]
MESSAGE = {"role": "assistant", "content": "B", "reasoning_content": "A or B", "refusal": None}
COMPLETION = {
    "choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop", "logprobs": {"content": TOKENS}}],
    "usage": USAGE,
}
PARTS = [{"type": "text", "text": "B"}, {"type": "thinking", "thinking": [{"text": "A"}]}, {"answer": "B"}, "B"]
EVENTS = {"choices": [{"delta": {"content": "B", "reasoning": "A"}, "finish_reason": "stop"}], "usage": USAGE}
BODIES: dict[str, object] = {
    "completion": COMPLETION,
    "json": COMPLETION | {"choices": [{"message": {"content": '{"answer": "B"}'}, "finish_reason": "length"}]},
    "parts": COMPLETION | {"choices": [{"message": {"content": PARTS, "tool_calls": [{"function": {}}]}}]},
    "error": {
        "error": {"code": 429, "type": "rate_limit", "message": "slow down", "metadata": {"reasons": ["x"]}},
        "usage": USAGE,
    },
    "error of a choice": {"choices": [{"message": MESSAGE, "error": {"code": "overloaded", "message": "no"}}]},
    "list of errors": [{"errors": [{"status": "NOT_FOUND", "detail": "no"}], "detail": [{"msg": "x"}], "base_resp": {}}],
}
STATUSES = (*[200] * 16, 201, 302, 400, 401, 402, 403, 404, 408, 413, 422, 429, 500, 502, 503, 504, 529)
replies = st.one_of(
    *(odd_json(body) for body in BODIES.values()),
    odd_json(EVENTS).map(lambda event: b"data: " + event + b"\n\ndata: " + json.dumps(EVENTS).encode() + b"\n\ndata: [DONE]\n"),
    st.tuples(st.sampled_from(list(BODIES.values())), mutations).map(
        lambda pair: mutated(json.dumps(pair[0]).encode(), pair[1])
    ),
    st.binary(max_size=50),
)
KINDS = ("application/json", "text/event-stream", "text/html; charset=nonsense", "")


async def asked(task: Any, row: dict, settings_: dict, response: httpx.Response) -> Reply | None:
    """What one judge makes of one response to one question."""
    config = EndpointModel(name="j", model="m", url="http://127.0.0.1:9/v1", key_env="", retries=0, patience=0.001, **settings_)
    endpoint = Endpoint(config, None, BudgetLedger(), lambda line: None)
    endpoint._idle.append(httpx.AsyncClient(transport=httpx.MockTransport(lambda request: response)))
    try:
        return await endpoint.ask(task.question(row, config), 0)
    finally:
        await endpoint.close()


def check_reply(task: Any, row: dict, settings_: dict, status: int, kind: str, content: bytes) -> None:
    config = EndpointModel(name="j", model="m", url="http://127.0.0.1:9/v1", key_env="", **settings_)
    response = httpx.Response(status, headers={"content-type": kind}, content=content)

    def answer() -> Reply | None:
        return asyncio.run(asked(task, row, settings_, response))

    reply = reading(answer)  # the key, the model or the account is refused
    if reply is None:
        return
    assert isinstance(reply, Reply)
    assert reply.first_probability is None or 0 <= reply.first_probability <= 1
    assert "\n" not in reply.error
    batch = pa.Table.from_pylist([{name: value for name, value in row.items() if name not in ("text", "texts")}])
    [answered] = task.read(with_replies(batch, [reply]), config).to_pylist()
    assert answered["error"] or answered.get("order") or answered.get("choice")
    assert answered["tokens_in"] >= 0


QUESTIONS = [
    pytest.param(RANK, WINDOW, {"structured": "none", "logprobs": True}, id="window"),
    pytest.param(RANK, WINDOW, {"structured": "json_schema"}, id="window-json"),
    pytest.param(VOTE, BALLOT, {"structured": "none"}, id="ballot"),
]


@pytest.mark.parametrize(("task", "row", "settings_"), QUESTIONS)
@settings(max_examples=40, suppress_health_check=list(HealthCheck), deadline=None)
@given(status=st.sampled_from(STATUSES), kind=st.sampled_from(KINDS), content=replies)
def test_whatever_a_server_answers_is_a_reply_or_an_error(task, row, settings_, status, kind, content):
    check_reply(task, row, settings_, status, kind, content)


@pytest.mark.slow
@pytest.mark.parametrize(("task", "row", "settings_"), QUESTIONS)
@settings(max_examples=300, suppress_health_check=list(HealthCheck), deadline=None)
@given(status=st.sampled_from(STATUSES), kind=st.sampled_from(KINDS), content=replies)
def test_many_answers_of_a_server_are_replies_or_errors(task, row, settings_, status, kind, content):
    check_reply(task, row, settings_, status, kind, content)


SCORES = [fake_score(i, text, value).model_dump() for i, text in enumerate(("a", "b")) for value in ("svt:power", "svt:face")]
PROVENANCE = {
    "request_id": "r",
    "vidb_version": "v",
    "judge": "j",
    "mode": "ranking",
    "k": 6,
    "m": 3,
    "sampling": "bucket",
    "seed": 0,
}
VIDB = {
    "version": "v", "judge": "j", "modes": ["ranking"], "extract": False, "values": {"svt:power": 9}, "num_texts": 9,
    "licenses": {"MIT": 9}, "lineage": [], "created": "2026", "valueflow": "0", "limits": LIMITS.model_dump(),
}  # fmt: skip
PROBLEM = api.Problem(title="Refused", status=422, detail="no", request_id="r", errors=[{"field": "k", "message": "m"}])
NODE = {"theory": "svt", "node": "power", "path": ["x"], "distance": 0.5, "direction": 1, "confidence": 0.5}
EXTRACTED = {
    "request_id": "r",
    "model": "m",
    "texts": [{"index": 0, "nodes": [NODE], "error": None}, {"index": 1, "nodes": []}],
}
LINES = [json.loads(line) for line in stream_lines(FakeService(["svt:power", "svt:face"]), {"texts": ["a", "b"]})]
FAILED = [*LINES[:-2], LINES[-1] | {"problem": PROBLEM.model_dump()}]
ANSWERS: dict[str, Any] = {"/v1/score": PROVENANCE | {"scores": SCORES}, "/v1/extract": EXTRACTED, "/v1/vidb": VIDB}


def odd_lines(lines: list[dict]) -> st.SearchStrategy[bytes]:
    """A stream of which one line is odd."""
    return st.integers(0, len(lines) - 1).flatmap(
        lambda odd: odd_json(lines[odd]).map(
            lambda line: (
                b"\n".join(
                    [
                        *(json.dumps(one).encode() for one in lines[:odd]),
                        line,
                        *(json.dumps(one).encode() for one in lines[odd + 1 :]),
                    ]
                )
                + b"\n"
            )
        )
    )


STREAM = b"\n".join(json.dumps(line).encode() for line in LINES) + b"\n"
WHOLE = [json.dumps(VIDB).encode(), STREAM]
messages = {
    "score": st.tuples(st.just("/v1/score"), odd_json(ANSWERS["/v1/score"])),
    "extract": st.tuples(st.just("/v1/extract"), odd_json(EXTRACTED)),
    "limits": st.tuples(st.just("/v1/vidb"), odd_json(VIDB)),
    "problem": st.tuples(st.just("/v1/score"), odd_json(PROBLEM.model_dump())),
    "stream": st.tuples(st.just("/v1/score/stream"), odd_lines(LINES) | odd_lines(FAILED)),
    "bytes": st.tuples(st.sampled_from([*ANSWERS, "/v1/score/stream"]), st.tuples(st.sampled_from(WHOLE), mutations).map(
        lambda pair: mutated(*pair)
    )),
}  # fmt: skip


def check_client(status: int, kind: str, message: tuple[str, bytes]) -> None:
    """Call each method that a message is for: rows of the texts that were sent, or one sentence."""
    target, content = message

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == target:
            return httpx.Response(status, headers={"content-type": kind, "x-request-id": "a\tb"}, content=content)
        if request.url.path == "/v1/score/stream":
            return httpx.Response(200, content=STREAM)
        return httpx.Response(200, json=ANSWERS[request.url.path])

    with Client("http://127.0.0.1:9", "key", retries=0) as client:
        client._http = httpx.Client(transport=httpx.MockTransport(answer))
        values = ["svt:power", "svt:face"]
        scores = reading(lambda: client.score(["a", "b"], values), ValueFlowError)
        if scores:
            assert all(row["text"] in ("a", "b") and row["intensity"] == row["intensity"] for row in scores.rows())
        lines = reading(lambda: list(client.stream(["a", "b"], values)), ValueFlowError)
        if lines:
            assert [line.index for line in lines[1:-1]] == [0, 0, 1, 1]
        reading(lambda: client.extract(["a", "b"]), ValueFlowError)
        reading(client.vidb, ValueFlowError)


@pytest.mark.parametrize("message", messages)
@settings(max_examples=25, suppress_health_check=list(HealthCheck), deadline=None)
@given(data=st.data(), status=st.sampled_from(STATUSES), kind=st.sampled_from(KINDS))
def test_whatever_the_client_gets_is_an_answer_or_one_sentence(message, data, status, kind):
    check_client(status, kind, data.draw(messages[message]))


@pytest.mark.slow
@pytest.mark.parametrize("message", messages)
@settings(max_examples=100, suppress_health_check=list(HealthCheck), deadline=None)
@given(data=st.data(), status=st.sampled_from(STATUSES), kind=st.sampled_from(KINDS))
def test_many_messages_to_the_client_are_answers_or_one_sentence(message, data, status, kind):
    check_client(status, kind, data.draw(messages[message]))
