"""Whatever a server answers, a window gets the right order or one reason; tokens are those that the server counts."""

import asyncio
import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import pyarrow as pa
import pytest

from valueflow import retry
from valueflow.errors import InputError
from valueflow.judging.tasks import RANK
from valueflow.llm.admission import BudgetLedger
from valueflow.llm.configs import EndpointModel
from valueflow.llm.endpoint import MOST_BYTES, Endpoint
from valueflow.llm.question import with_replies
from valueflow.llm.responses import read_response

USAGE = {"prompt_tokens": 80, "completion_tokens": 3}
WINDOW = {
    "window_id": "w" * 16, "theory": "svt", "value": "power", "text_ids": ["a" * 16, "b" * 16], "round": 0,
    "texts": ["I drank tea.", "I led the team."],
}  # fmt: skip
Turn = tuple[int, dict[str, str], bytes]


def turn(body: object, status: int = 200, **headers: str) -> Turn:
    """A response of the server; text or an object as JSON."""
    content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    return status, {"content-type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()}, content


def answer(content: object = "B", finish: str | None = "stop", usage: dict | None = USAGE, **more: object) -> dict:
    """A completion with one choice; `more`: fields of its message."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content} | more, "finish_reason": finish}
    return {"choices": [choice], "usage": usage}


def error(code: object, message: str = "Rate limit exceeded", **more: object) -> dict:
    return {"error": {"code": code, "message": message} | more}


class Server:
    """A server that gives its turns one after another, and the last one ever after."""

    def __init__(self, turns: list[Turn]) -> None:
        self.turns, self.paths = turns, []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None: ...

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                status, headers, content = outer.turns[min(len(outer.paths), len(outer.turns) - 1)]
                outer.paths.append(self.path)
                self.send_response(status)
                for name, value in (headers | {"content-length": str(len(content))}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()


class Outcome(NamedTuple):
    """A row of `rankings`, the paths that were requested, and the tokens counted."""

    order: list[int] | None
    error: str | None
    weight: float | None
    paths: list[str]
    tokens: tuple[int, int]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "BACKOFF", 0.01)


def ask(turns: list[Turn], suffix: str = "", **settings: object) -> Outcome:
    """What becomes of one window, in which B is the better text."""
    server, ledger = Server(turns), BudgetLedger()
    defaults = {"name": "j", "url": server.url + suffix, "model": "m", "key_env": "", "structured": "none", "timeout": 10}
    config = EndpointModel(**defaults | settings)

    async def call():
        endpoint = Endpoint(config, None, ledger)
        try:
            return await endpoint.ask(RANK.question(WINDOW, config), 0)
        finally:
            await endpoint.close()

    try:
        reply = asyncio.run(call())
    finally:
        server.http.shutdown()
        server.http.server_close()
    batch = pa.Table.from_pylist([{name: cell for name, cell in WINDOW.items() if name != "texts"}])
    row = RANK.read(with_replies(batch, [reply]), config).to_pylist()[0]
    assert (row["tokens_in"], row["tokens_out"]) == (ledger.tokens_in, ledger.tokens_out)
    return Outcome(row["order"], row["error"], row["weight"], server.paths, (ledger.tokens_in, ledger.tokens_out))


IN_CHOICE = {"choices": [{"finish_reason": "error", "error": {"code": 502, "message": "down"}, "message": {"content": ""}}]}


@pytest.mark.parametrize(
    "body",
    [
        error(429),
        error("429"),
        error(429.0),
        error("rate_limit_exceeded"),
        error(None, type="RateLimitError"),
        error(None, "Too many requests"),
        error(8, status="RESOURCE_EXHAUSTED"),
        error(500),
        error(503),
        error(529, "Overloaded"),
        error(None, "no words"),
        error(1302),
        {"error": "the model is loading"},
        [error(503)],
        {"object": "error", "message": "down", "code": 500},
        {"errors": [{"message": "down"}]},
        {"choices": []},
        {"choices": [], "usage": None},
        {"choices": None},
        {"choices": [{}]},
        {"choices": [{"message": None}]},
        {"choices": [], "usage": {"prompt_tokens": 0, "completion_tokens": 0}},
        {},
        [],
        None,
        IN_CHOICE,
        answer("", "error", None),
        answer("B", "error", None),  # broken off: nobody knows how it went on
        answer(None, None, None) | error(502),
        IN_CHOICE | {"usage": None, "error": None},
    ],
)
def test_a_call_that_failed_within_a_success_costs_nothing_and_is_repeated(body):
    outcome = ask([turn(body), turn(answer())])
    assert outcome[:2] == ([1, 0], None)
    assert (len(outcome.paths), outcome.tokens) == (2, (80, 3))


@pytest.mark.parametrize("body", [error(502, "Provider returned error"), IN_CHOICE, {"choices": []}])
def test_retries_within_successes_end(body):
    outcome = ask([turn(body)], retries=2)
    assert (outcome.order, len(outcome.paths), outcome.tokens) == (None, 3, (0, 0))
    assert outcome.error.endswith("(after 2 retries)")


def test_a_refusal_within_a_success_waits_as_long_as_its_header_says():
    outcome = ask([turn(error(429), retry_after="100")], patience=5)
    assert "patience" in outcome.error
    assert (len(outcome.paths), outcome.tokens) == (1, (0, 0))


@pytest.mark.parametrize(
    ("code", "setting"),
    [
        (401, "key_env"),
        (402, "credit"),
        (403, "access"),
        (404, "url"),
        ("invalid_api_key", "key_env"),
        ("model_not_found", "model"),
        ("insufficient_quota", "credit"),
    ],
)
def test_a_misconfigured_judge_is_an_exception_also_within_a_success(code, setting):
    with pytest.raises(InputError, match=setting):
        ask([turn(error(code, "no"))])


@pytest.mark.parametrize("status", [200, 403])
def test_a_text_that_a_gateway_flags_is_an_error_of_its_row(status):
    flagged = error(403, "input flagged", metadata={"reasons": ["violence"], "flagged_input": "I led"})
    outcome = ask([turn(flagged, status)])
    assert (outcome.order, outcome.tokens, len(outcome.paths)) == (None, (0, 0), 1)
    assert "input flagged" in outcome.error


@pytest.mark.parametrize("body", [error(400, "too long"), error("context_length_exceeded", "too long")])
def test_an_error_of_the_question_is_not_repeated(body):
    outcome = ask([turn(body)])
    assert "too long" in outcome.error
    assert (len(outcome.paths), outcome.tokens) == (1, (0, 0))


@pytest.mark.parametrize(
    "body",
    [
        error(502) | {"usage": USAGE},
        IN_CHOICE | {"usage": USAGE},
        {"choices": [], "usage": USAGE},
        error(429) | {"usage": USAGE},
    ],
)
@pytest.mark.parametrize("status", [200, 500])
def test_a_failed_call_that_the_server_counts_is_booked_once_and_not_repeated(body, status):
    outcome = ask([turn(body, status), turn(answer())])
    assert (outcome.order, len(outcome.paths), outcome.tokens) == (None, 1, (80, 3))
    assert outcome.error


EVENTS = (
    ": comment\n\n"
    'data: {"choices": [{"delta": {"role": "assistant", "content": "", "reasoning_content": "A?"}}]}\n\n'
    'data: {"choices": [{"delta": {"content": "\\n"}}]}\n\n'
    'data: {"choices": [{"delta": {"content": "B"}, "finish_reason": "stop"}]}\n\n'
    'data: {"choices": [], "usage": {"prompt_tokens": 80, "completion_tokens": 3}}\n\ndata: [DONE]\n\n'
)


@pytest.mark.parametrize(
    "response",
    [
        turn(answer([{"type": "text", "text": "B"}])),
        turn(answer([{"type": "thinking", "thinking": [{"type": "text", "text": "A"}]}, {"type": "text", "text": "B"}])),
        turn(answer([{"type": "reasoning", "text": "A"}, {"type": "output_text", "text": "\nB\n"}])),
        turn(answer({"type": "text", "text": "B"})),
        turn(answer({"answer": "B"})),
        turn(answer(["B"])),
        turn(answer(reasoning_content="A", refusal=None, tool_calls=[])),
        turn(answer(finish=None)),
        turn(answer(finish="eos")),
        turn(answer(usage={"prompt_tokens": 80.0, "completion_tokens": "3"})),
        turn(answer() | {"error": None}),
        turn(answer() | {"error": {"message": "a warning"}}),
        turn({"choices": [answer()["choices"][0], answer("A")["choices"][0]], "usage": USAGE}),  # n=2: the first
        turn(answer(), content_type="text/plain"),
        turn("\ufeff" + json.dumps(answer())),
        turn("\n\n  " + json.dumps(answer()) + "\n"),
        turn(EVENTS, content_type="text/event-stream"),
        turn(EVENTS.replace("\n", "\r\n"), content_type="text/plain"),
        (200, {"content-type": "application/json", "content-encoding": "gzip"}, gzip.compress(json.dumps(answer()).encode())),
        turn(answer("<think>A</think>B")),
        turn(answer('```json\n{"answer": "B"}\n```')),
    ],
)
def test_an_answer_in_any_shape_is_read(response):
    outcome = ask([response])
    assert outcome == ([1, 0], None, None, ["/v1/chat/completions"], (80, 3))


@pytest.mark.parametrize(
    "content",
    ['{"answer": "B"}', '{"answer": "B"}' + "\n" * 20, '<think>A</think>{"answer": "B"}', '```\n{"answer": "B"}\n```', "B"],
)
def test_an_answer_as_json_is_read(content):
    finish = "length" if content.endswith("\n\n") else "stop"  # white space up to max_tokens
    outcome = ask([turn(answer(content, finish))], structured="json_schema")
    assert (outcome.order, outcome.error, outcome.tokens) == ([1, 0], None, (80, 3))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (answer(None, reasoning="B is better"), "only thought"),
        (answer("", reasoning_content="B"), "only thought"),
        (answer([{"type": "thinking", "thinking": "B"}]), "only thought"),
        (answer(None, "length", reasoning_content="B"), "max_tokens"),
        (answer("B", "MAX_TOKENS"), "max_tokens"),
        (answer("<think>B", "length"), "max_tokens"),
        (answer("<think>\nB"), "still thinking"),
        (answer("B", "SAFETY"), "content filter"),
        (answer("B", refusal="I cannot."), "refused: I cannot."),
        (answer([{"type": "refusal", "refusal": "I cannot."}]), "refused: I cannot."),
        (answer(None, "tool_calls", tool_calls=[{"function": {"arguments": '{"answer": "B"}'}}]), "called a tool"),
        (answer(None, "function_call", function_call={"arguments": "B"}), "called a tool"),
        (answer([{"type": "image_url", "image_url": {"url": "B"}}]), "empty answer"),
        (answer(None), "empty answer"),
        (answer(7), "empty answer"),
        (answer("The answer is B"), "not an order"),
    ],
)
def test_what_is_no_answer_has_one_reason_and_is_paid_once(body, reason):
    outcome = ask([turn(body)])
    assert (outcome.order, outcome.tokens, len(outcome.paths)) == (None, (80, 3), 1)
    assert reason in outcome.error


@pytest.mark.parametrize(
    ("response", "reason", "is_paid"),
    [
        (turn("<html>Sign in</html>", content_type="text/html"), "not JSON", False),
        (turn(""), "not JSON", False),
        (turn('{"choices": [{"mess'), "not JSON", True),  # a part of an answer
        (turn(EVENTS[:200], content_type="text/event-stream"), "not JSON", True),
        (turn("[" * 100_000), "not JSON", True),
        ((200, {"content-type": "application/json", "content-encoding": "gzip"}, b"not gzip"), "connection broke", True),
        (turn("{" + " " * MOST_BYTES), "MiB", True),
        (turn("slow", 504), "504", True),
        (turn(error(504, "upstream timed out")), "504", True),
        (turn("moved", 304), "304", False),
    ],
)
def test_a_response_that_cannot_be_read_is_booked_only_where_it_may_be_an_answer(response, reason, is_paid):
    outcome = ask([response])
    assert (outcome.order, len(outcome.paths)) == (None, 1)
    assert reason in outcome.error
    assert bool(sum(outcome.tokens)) == is_paid


def test_a_redirection_names_its_target():
    with pytest.raises(InputError, match=r"https://elsewhere/v1.*set url to the target"):
        ask([turn("", 308, location="https://elsewhere/v1/chat/completions")])


@pytest.mark.parametrize("count", [-1, 10**15, "many", True, 1.5, [80], 1e400])
def test_a_count_that_is_none_is_estimated(count):
    outcome = ask([turn(answer(usage={"prompt_tokens": count, "completion_tokens": 3}))])
    assert outcome.order == [1, 0]
    assert 100 < outcome.tokens[0] < 1000


def place(*alternatives: tuple[str, float]) -> dict:
    token, logprob = alternatives[0]
    return {"token": token, "logprob": logprob, "top_logprobs": [{"token": t, "logprob": p} for t, p in alternatives]}


@pytest.mark.parametrize(
    ("places", "weight"),
    [
        ([place(("B", -0.02), ("A", -4.0))], 0.9817),
        ([place(("A", -0.05), ("B", -6.0)), place(("</think>", -0.01)), place(("B", -0.02), ("A", -4.0))], 0.9817),
        ([place(("A", -0.05), ("B", -6.0)), place((" thoughts", -0.01))], None),
        ([{"token": "B", "logprob": -0.02}], None),
        ([None, 7, {"token": 3}], None),
        ([place(("B", float("nan")), ("A", float("nan")))], None),
        ("B", None),
    ],
)
def test_a_weight_is_that_of_the_answer(places, weight):
    body = answer()
    body["choices"][0]["logprobs"] = {"content": places}
    outcome = ask([turn(body)], logprobs=True, extra_tokens=100)
    assert outcome.order == [1, 0]
    assert outcome.weight == (weight and pytest.approx(weight, abs=1e-4))


@pytest.mark.parametrize(
    ("suffix", "path"),
    [
        ("", "/v1/chat/completions"),
        ("/", "/v1/chat/completions"),
        ("?api-version=2024-10-21", "/v1/chat/completions?api-version=2024-10-21"),
        ("/?a=b/&c=d", "/v1/chat/completions?a=b/&c=d"),
        ("/chat/completions", "/v1/chat/completions"),
        ("/chat/completions/?a=b", "/v1/chat/completions?a=b"),
        ("#part", "/v1/chat/completions"),
        ("?a=b#part", "/v1/chat/completions?a=b"),
        ("/deployments/a%20b", "/v1/deployments/a%20b/chat/completions"),
    ],
)
def test_the_url_of_a_call(suffix, path):
    assert ask([turn(answer())], suffix).paths == [path]


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"data: {\n\n", b": \n", b'"text"', b"1e999", b'{"error": 7}', b'{"choices": "x"}']
)
def test_no_body_is_an_exception(content):
    for status in (200, 400, 500):
        response = read_response(status, {}, content)
        assert response.is_success == (status == 200 and response.body is None)
        assert isinstance(response.error, str)
