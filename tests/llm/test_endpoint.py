"""The client against a real HTTP server with injected faults: retries, recorded errors, number of paid calls."""

import asyncio
import logging
import re
import socket
import time
from collections.abc import Iterator

import pytest
from fakes.server import raw
from fault_server import FAULTS, KEY, Handle, start

from valueflow import retry
from valueflow.errors import InputError
from valueflow.llm import admission
from valueflow.llm.admission import BudgetLedger
from valueflow.llm.cache import CallCache, Reply
from valueflow.llm.configs import EndpointModel
from valueflow.llm.endpoint import PROBE, Endpoint, Stats
from valueflow.llm.question import Question

ORDERS = ["A > B > C", "A > C > B", "B > A > C", "B > C > A", "C > A > B", "C > B > A"]
CHOICE, REGEX = {"choice": ORDERS}, {"regex": "[A-G]( > [A-G])*"}


@pytest.fixture(scope="module")
def running() -> Iterator[Handle]:
    with start() as handle:
        yield handle


@pytest.fixture
def server(running, monkeypatch) -> Handle:
    monkeypatch.setenv("JUDGE_KEY", KEY)
    monkeypatch.setattr(retry, "BACKOFF", 0.02)
    running.reset()
    return running


def judge(server: Handle, **settings: object) -> EndpointModel:
    defaults = {"name": "judge", "url": server.url, "model": "m", "key_env": "JUDGE_KEY", "structured": "choice", "timeout": 20}
    return EndpointModel(**defaults | settings)


def chat(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]


class Calls:
    """Concurrent calls of a new endpoint, one per prompt, and their replies."""

    def __init__(
        self, config: EndpointModel, prompts: list[str], cache: str = "", spent: BudgetLedger | None = None,
        constraint: dict | None = CHOICE, logprobs: bool = False, round_: int = 0,
    ) -> None:  # fmt: skip
        self.cache, self.spent, self.constraint = CallCache(cache) if cache else None, spent or BudgetLedger(), constraint
        self.logprobs, self.round = logprobs, round_
        self.replies: list[Reply | None] = []
        self.stats: Stats
        self.exhausted = False
        started = time.monotonic()
        asyncio.run(self._ask(config, prompts))
        self.seconds = time.monotonic() - started

    async def _ask(self, config: EndpointModel, prompts: list[str]) -> None:
        endpoint = Endpoint(config, self.cache, self.spent)
        try:
            calls = (endpoint.ask(Question(chat(prompt), self.constraint, 6, self.logprobs), self.round) for prompt in prompts)
            self.replies = await asyncio.gather(*calls)
        finally:
            self.stats, self.exhausted = endpoint.stats, endpoint.exhausted
            await endpoint.close()

    @property
    def reply(self) -> Reply:
        (reply,) = self.replies
        assert reply is not None
        return reply


def prompts(count: int) -> list[str]:
    """Prompts of 120 characters: 30 tokens by the estimate, as the server says; with 6 generated tokens a call takes 36."""
    return [f"question {i} ".ljust(120, ".") for i in range(count)]


def test_an_answer_with_its_tokens(server):
    calls = Calls(judge(server, extra={"seed": 7}, temperature=0.5), ["which?"])
    assert calls.reply.text in ORDERS
    assert calls.reply == Reply(calls.reply.text, "", 30, 6, None)
    assert (calls.spent.tokens_in, calls.spent.tokens_out) == (30, 6)
    assert calls.stats[:4] == (1, 1, 0, 0)
    last = server.seen()["last"]
    assert last["headers"]["authorization"] == f"Bearer {KEY}"
    assert len(last["headers"]["idempotency-key"]) == 64
    assert last["body"] == {
        "model": "m", "messages": [{"role": "user", "content": "which?"}], "max_tokens": 6, "temperature": 0.5, "seed": 7,
        "structured_outputs": {"choice": ORDERS},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "attempts", "paid"), [("429", 2, 1), ("500", 2, 1), ("502", 2, 1), ("408", 2, 1), ("503", 2, 1), ("", 1, 1)]
)
def test_calls_without_cost_are_repeated(server, fault, attempts, paid):
    server.reset(faults={fault: 1.0}, retry_after="0.1" if fault == "503" else "")
    calls = Calls(judge(server), ["which?"])
    seen = server.seen()
    assert (calls.reply.text in ORDERS, calls.reply.error) == (True, "")
    assert (seen["seen"], seen["paid"]) == ({"which?": attempts}, {"which?": paid})
    assert len(seen["keys"]["which?"]) == 1  # the idempotency key identifies the repeated question
    assert calls.stats.retries + calls.stats.waits == attempts - 1
    assert calls.stats.waits == (fault in ("429", "503"))


MAYBE_PAID = "may have been paid for, so the call is not repeated"


@pytest.mark.parametrize(
    ("fault", "text", "error", "tokens"),
    [
        ("hang", "", f"no complete answer within timeout (0.4 s); the answer {MAYBE_PAID}", (2, 6)),
        ("drip", "", f"no complete answer within timeout (0.4 s); the answer {MAYBE_PAID}", (2, 6)),
        ("cut", "", f"the connection broke (.*); the answer {MAYBE_PAID}", (2, 6)),
        ("504", "", f"HTTP 504: status 504 .*; the answer {MAYBE_PAID}", (2, 6)),
        ("empty", "", "empty answer", (30, 6)),
        ("refusal", "", "the model refused: I cannot judge this.", (30, 6)),
        ("content_filter", ".* > .*", "the answer was withheld by the server's content filter", (30, 6)),
        ("length", "A > ", "the answer was cut at max_tokens; raise extra_tokens .*", (30, 6)),
        ("not json", "", "the response body is not JSON: '<html>oops</html>'", (0, 0)),  # no answer, nothing counted
        ("no choices", "", "the response has no choices: .*", (30, 6)),
        ("400", "", "HTTP 400: status 400 for Bearer \\*\\*\\*", (0, 0)),
        ("422", "", "HTTP 422: status 422 for Bearer \\*\\*\\*", (0, 0)),
        ("prose", "Sure! The order is .*", "", (30, 6)),
        ("short", "A > B", "", (30, 6)),
        ("twice", "A > A > B", "", (30, 6)),
        ("surrogate", "A\\?", "", (30, 6)),
    ],
)
def test_calls_with_a_possible_cost_are_recorded_and_not_repeated(server, fault, text, error, tokens):
    server.reset(faults={fault: 1.0})
    slow = fault in ("hang", "drip")
    calls = Calls(judge(server, timeout=0.4 if slow else 20), ["which?"])
    seen = server.seen()
    assert re.fullmatch(text, calls.reply.text), calls.reply
    assert re.fullmatch(re.escape(error) if slow else error.replace("(.*)", "\\(.*\\)"), calls.reply.error), calls.reply
    assert (calls.reply.tokens_in, calls.reply.tokens_out) == tokens
    assert seen["seen"] == {"which?": 1}
    assert seen["paid"] == ({} if fault.isdigit() else {"which?": 1})
    assert (calls.spent.tokens_in, calls.spent.tokens_out) == (calls.reply.tokens_in, calls.reply.tokens_out)


def test_retries_end(server):
    server.reset(faults={"500": 1.0}, times=99)
    calls = Calls(judge(server, retries=2), ["which?"])
    assert calls.reply == Reply("", "HTTP 500: status 500 for Bearer *** (after 2 retries)", 0, 0)
    assert server.seen()["seen"] == {"which?": 3}


def test_an_unreachable_server_costs_nothing(server):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        calls = Calls(judge(server, url=url, retries=2), ["which?"])
    assert calls.reply.error.startswith("no connection (")
    assert calls.reply.error.endswith("(after 2 retries)")
    assert (calls.stats.retries, calls.spent.tokens_in) == (2, 0)


@pytest.mark.parametrize(("retry_after", "at_least", "at_most"), [("0.7", 0.7, 2), ("date", 0.9, 4)])
def test_a_refused_call_waits_for_retry_after(server, retry_after, at_least, at_most):
    server.reset(faults={"429": 1.0}, retry_after=retry_after)
    calls = Calls(judge(server), ["which?"])
    first, second = server.seen()["arrivals"]
    assert calls.reply.text in ORDERS
    assert at_least <= second - first < at_most


def test_a_waiting_call_holds_no_slot(server):
    share = {prompt: i for i, prompt in enumerate(prompts(6))}
    server.reset(faults={"429": 0.5}, retry_after="1")
    calls = Calls(judge(server, concurrency=1), list(share))
    seen = server.seen()
    refused = sum(seen["seen"].values()) - 6
    assert 0 < refused < 6
    assert sum(at - seen["arrivals"][0] < 0.9 for at in seen["arrivals"]) == 6  # each is sent once before any is repeated
    assert all(reply.text in ORDERS for reply in calls.replies)


def test_waiting_ends_with_patience(server):
    server.reset(faults={"429": 1.0}, retry_after="100")
    calls = Calls(judge(server, patience=5), ["which?"])
    assert calls.reply == Reply("", "HTTP 429: too many calls (waiting 100.0 s more would exceed patience, 5 s)", 0, 0)
    server.reset(faults={"429": 1.0}, retry_after="0.4", times=10_000)
    calls = Calls(judge(server, patience=1.5), prompts(300))
    assert all("patience" in reply.error for reply in calls.replies)
    assert 1 < calls.seconds < 8
    assert server.seen()["refusals"] < 60  # few calls while it refuses everything


def test_calls_wait_for_the_rate_limit_of_the_server(server):
    server.reset(per_minute=1800, retry_after="0.3")
    calls = Calls(judge(server), prompts(90))
    assert all(reply.text in ORDERS for reply in calls.replies)
    assert set(server.seen()["paid"].values()) == {1}
    assert calls.seconds < 10


@pytest.mark.parametrize("rate", [{"requests_per_minute": 1200}, {"tokens_per_minute": 1200 * 36}])
def test_configured_rates_per_minute(server, rate):
    calls = Calls(judge(server, **rate), prompts(50))
    arrivals = sorted(server.seen()["arrivals"])
    assert calls.seconds > 1.4  # 20 a second, of which the first 20 at once
    assert max(sum(start <= at < start + 1 for at in arrivals) for start in arrivals) <= 45


def test_the_budget_holds_over_runs(server):
    budget = {"tokens": 1000}  # 27 calls of 36 tokens
    first = Calls(judge(server, budget=budget), prompts(100))
    answered = [reply for reply in first.replies if reply is not None]
    assert len(answered) == 27
    assert first.exhausted
    assert sum(server.seen()["seen"].values()) == 27
    earlier = BudgetLedger(first.spent.tokens_in, first.spent.tokens_out)
    assert Calls(judge(server, budget=budget), prompts(100), spent=earlier).replies == [None] * 100
    more = Calls(judge(server, budget={"tokens": 1100}), prompts(100), spent=earlier)
    assert sum(reply is not None for reply in more.replies) == 3
    assert earlier.tokens_in + earlier.tokens_out == 30 * 36


def test_a_budget_in_money_counts_used_and_not_reserved_tokens(server):
    price = {"tokens_in": 1.0, "tokens_out": 10.0}  # 30 + 60 millionths a call, estimated as 30 + 1060
    calls = Calls(judge(server, price=price, budget={"money": 0.003}, extra_tokens=100), prompts(40))
    assert sum(reply is not None for reply in calls.replies) == 22  # 22 * 90 + 1090 <= 3000 < 23 * 90 + 1090
    assert calls.exhausted


def test_cached_and_failed_calls_cost_nothing(server, tmp_path):
    cache = str(tmp_path)
    Calls(judge(server), prompts(3), cache)
    again = Calls(judge(server, budget={"tokens": 1}), prompts(4), cache)
    assert [reply is None for reply in again.replies] == [False, False, False, True]
    assert again.spent.tokens_in == 0
    server.reset(faults={"400": 1.0})
    assert not Calls(judge(server, budget={"tokens": 36}), prompts(5)).exhausted


def test_tokens_are_estimated_where_the_server_counts_none(server):
    server.reset(usage=False)
    calls = Calls(judge(server), prompts(1))
    assert (calls.reply.tokens_in, calls.reply.tokens_out) == (30, 3)
    assert (calls.spent.tokens_in, calls.spent.tokens_out) == (30, 3)


def test_a_second_client_pays_nothing(server, tmp_path):
    first = Calls(judge(server), prompts(20), str(tmp_path))
    second = Calls(judge(server), prompts(20), str(tmp_path))
    assert second.replies == first.replies
    assert set(server.seen()["seen"].values()) == {1}
    assert (second.stats.calls, second.stats.paid) == (20, 0)


@pytest.mark.parametrize(
    ("change", "ask"),
    [
        ({"model": "n"}, {}),
        ({"revision": "2"}, {}),
        ({"temperature": 1.0}, {}),
        ({"extra": {"seed": 1}}, {}),
        ({"extra": {"model": "n"}}, {}),
        ({"extra_tokens": 1}, {}),
        ({"structured": "json_schema"}, {}),
        ({}, {"constraint": REGEX}),
        ({}, {"logprobs": True}),
        ({}, {"round_": 1}),
    ],
)
def test_settings_that_affect_an_answer_are_part_of_the_cache_key(server, tmp_path, change, ask):
    Calls(judge(server), ["which?"], str(tmp_path))
    Calls(judge(server, **change), ["which?"], str(tmp_path), **ask)
    assert sum(server.seen()["seen"].values()) == 2


def test_other_settings_are_not_part_of_the_cache_key(server, tmp_path):
    Calls(judge(server), ["which?"], str(tmp_path))
    Calls(judge(server, name="other", concurrency=3, timeout=5, retries=1), ["which?"], str(tmp_path))
    assert sum(server.seen()["seen"].values()) == 1


def test_errors_are_not_cached(server, tmp_path):
    server.reset(faults={"refusal": 1.0})
    assert Calls(judge(server), ["which?"], str(tmp_path)).reply.error
    assert Calls(judge(server), ["which?"], str(tmp_path)).reply.text in ORDERS
    assert server.seen()["paid"] == {"which?": 2}


def test_a_torn_file_is_a_miss(server, tmp_path):
    first = Calls(judge(server), ["which?"], str(tmp_path))
    (file,) = tmp_path.rglob("*.json")
    for torn in (file.read_bytes()[:-4], b"", b"\xff\xfe", b"null", b"[1]"):
        file.write_bytes(torn)
        assert Calls(judge(server), ["which?"], str(tmp_path)).replies == first.replies
    assert server.seen()["seen"] == {"which?": 6}
    Calls(judge(server), ["which?"], str(tmp_path))
    assert server.seen()["seen"] == {"which?": 6}


def test_two_clients_at_once_share_a_cache(server, tmp_path):
    async def both() -> tuple[list, list]:
        clients = [Endpoint(judge(server), CallCache(str(tmp_path)), BudgetLedger()) for _ in range(2)]
        questions = [[client.ask(Question(chat(prompt), CHOICE, 6), 0) for prompt in prompts(50)] for client in clients]
        replies = await asyncio.gather(*(asyncio.gather(*calls) for calls in questions))
        for client in clients:
            await client.close()
        return replies

    first, second = asyncio.run(both())
    assert first == second == Calls(judge(server), prompts(50), str(tmp_path)).replies
    assert max(server.seen()["paid"].values()) <= 2


def test_the_key_comes_from_the_environment(server, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", f" {KEY}\n")
    assert Calls(judge(server), ["which?"]).reply.text in ORDERS
    for value in ("", "  "):
        monkeypatch.setenv("JUDGE_KEY", value)
        with pytest.raises(InputError, match=r"set the environment variable JUDGE_KEY, or key_env"):
            Endpoint(judge(server), None, BudgetLedger())
    monkeypatch.setenv("JUDGE_KEY", "sk-\nsecret")
    with pytest.raises(InputError, match="JUDGE_KEY holds characters that no API key has") as refused:
        Endpoint(judge(server), None, BudgetLedger())
    assert "secret" not in str(refused.value)
    server.reset(key="")
    assert Calls(judge(server, key_env=""), ["which?"]).reply.text in ORDERS
    assert "authorization" not in server.seen()["last"]["headers"]


def test_what_a_server_shows_of_a_call_is_saved_without_secrets(server):
    server.reset(faults={"echo": 1.0})
    config = judge(server, url=f"{server.url}?api-key=in-the-url", extra={"password": "in-the-body", "x": [{"token": "deep"}]})
    calls = Calls(config, ["a"])
    (reply,) = calls.replies
    assert "bad request" in reply.error
    assert not [secret for secret in (KEY, "in-the-url", "in-the-body", "deep") if secret in reply.error]


def test_the_key_is_never_in_errors_or_logs(server, tmp_path, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    errors = []
    for fault in ("400", "500", "504", "cut", "hang", "not json"):
        server.reset(faults={fault: 1.0}, times=9)  # the server repeats the key in its messages
        errors.append(Calls(judge(server, timeout=0.5, retries=1), ["which?"], str(tmp_path)).reply.error)
    monkeypatch.setenv("JUDGE_KEY", "sk-wrong-key")
    with pytest.raises(InputError) as refused:
        Calls(judge(server), ["which?"])
    output = " ".join([*errors, str(refused.value), repr(refused.value.__context__), caplog.text])
    assert "Bearer ***" in output
    assert KEY not in output
    assert "sk-wrong-key" not in output
    assert not any(KEY.encode() in file.read_bytes() for file in tmp_path.rglob("*.json"))


@pytest.mark.parametrize(
    ("fault", "todo"),
    [
        ("401", r"put a valid key into the environment variable that key_env names \('JUDGE_KEY'\)"),
        ("402", r"add credit to the account behind key_env"),
        ("429 quota", r"add credit to the account behind key_env"),
        ("403", r"give the key in key_env \('JUDGE_KEY'\) access to model \('m'\)"),
        ("404", r"change url \(the base URL, without /chat/completions\) or model \('m'\)"),
    ],
)
def test_a_judge_that_is_misconfigured_is_an_exception(server, fault, todo):
    server.reset(faults={fault: 1.0}, times=9)
    status = fault.split()[0]
    with pytest.raises(InputError, match=rf"LLM 'judge': {server.url}/chat/completions answered {status} \(.+\); {todo}"):
        Calls(judge(server), prompts(100))
    assert sum(server.seen()["seen"].values()) <= admission.INITIAL_PROBES


def test_lost_calls_lower_the_concurrency_and_are_told_as_they_happen(server, caplog):
    server.reset(faults={"hang": 1.0}, times=99)
    calls = Calls(judge(server, timeout=0.3, patience=2), prompts(40))
    assert all("timeout" in reply.error or "patience" in reply.error for reply in calls.replies)
    assert sum(server.seen()["seen"].values()) < 20  # a server that answers nothing is left alone
    assert "timeout (0.3 s)" in caplog.text
    assert "may be in flight now" in caplog.text
    assert "raise timeout" not in caplog.text


def test_slow_answers_are_hinted_at(server, caplog):
    server.reset(service=[0.6, 0.7])
    Calls(judge(server, timeout=1), prompts(3))
    assert "raise timeout" in caplog.text


def test_an_address_without_a_server_is_refused(server):
    with pytest.raises(InputError, match=r"url 'http:///v1' names no server; change url"):
        Endpoint(judge(server, url="http:///v1"), None, BudgetLedger())


def test_a_server_that_answers_is_up_whatever_it_thinks_of_the_question(server):
    asyncio.run(Endpoint(judge(server), None, BudgetLedger()).check())  # it has no /models: 404


@pytest.mark.parametrize("status", ["502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout"])
def test_a_gateway_without_a_server_behind_it_is_not_up(server, status):
    with raw([f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()]) as (url, received):
        with pytest.raises(ConnectionError, match=status[:3]):
            asyncio.run(Endpoint(judge(server, url=f"{url}/v1/?v=2"), None, BudgetLedger()).check())
        assert received[0].startswith(b"GET /v1/models?v=2 ")


def test_a_server_that_is_down_or_misconfigured_is_not_up(server):
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(ConnectionError, match="no connection"):
        asyncio.run(Endpoint(judge(server, url=url), None, BudgetLedger()).check())

    async def ask_then_check() -> None:
        server.reset(key="another")
        endpoint = Endpoint(judge(server), None, BudgetLedger())
        with pytest.raises(InputError, match="key_env"):
            await endpoint.ask(Question(chat("p"), CHOICE, 20), 0)
        with pytest.raises(InputError, match="key_env"):
            await endpoint.check()

    asyncio.run(ask_then_check())


def test_json_schema_on_the_wire(server):
    calls = Calls(judge(server, structured="json_schema"), ["which?"])
    assert calls.reply.text in ORDERS
    body = server.seen()["last"]["body"]
    answer = {"type": "object", "properties": {"answer": {"type": "string", "enum": ORDERS}}, "required": ["answer"]}
    schema = {"name": "answer", "strict": True, "schema": answer | {"additionalProperties": False}}
    assert body["response_format"] == {"type": "json_schema", "json_schema": schema}
    assert "JSON" in body["messages"][-1]["content"]
    assert body["max_tokens"] > 6  # the braces take some
    Calls(judge(server, structured="json_schema"), ["which?"], constraint=REGEX)
    schema = server.seen()["last"]["body"]["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["answer"] == {"type": "string", "pattern": "^([A-G]( > [A-G])*)$"}


@pytest.mark.parametrize(
    ("fault", "text", "error"),
    [
        ("prose", "Sure! The order is", ""),
        ("no answer", '{"order": "A"}', 'the answer is JSON without a string "answer"'),
        ("surrogate", "A?", ""),  # not JSON: unchanged, for the strict parser
        ("empty", "", "empty answer"),
    ],
)
def test_invalid_json(server, fault, text, error):
    server.reset(faults={fault: 1.0})
    reply = Calls(judge(server, structured="json_schema"), ["which?"]).reply
    assert reply.text.startswith(text)
    assert reply.error == error


def test_the_other_forms_on_the_wire(server):
    Calls(judge(server, structured="choice"), ["which?"], constraint=REGEX)
    assert server.seen()["last"]["body"]["structured_outputs"] == REGEX
    Calls(
        judge(server, structured="none", temperature=None, max_tokens_field="max_completion_tokens", extra_tokens=50),
        ["which?"],
    )
    messages = [{"role": "user", "content": "which?"}]
    assert server.seen()["last"]["body"] == {"model": "m", "messages": messages, "max_completion_tokens": 56}


@pytest.mark.parametrize("structured", ["json_schema", "choice", "none"])
def test_free_text_is_neither_constrained_nor_unwrapped(server, structured):
    calls = Calls(judge(server, structured=structured), ["Write a story."], constraint=None)
    body = server.seen()["last"]["body"]
    assert body == {"model": "m", "messages": chat("Write a story."), "max_tokens": 6, "temperature": 0.0}
    assert calls.reply == Reply("A > B > C", "", 30, 6, None)
    server.reset(faults={"no answer": 1.0})
    assert Calls(judge(server, structured=structured), ["Write JSON."], constraint=None).reply.text == '{"order": "A"}'


def test_template_arguments_on_the_wire(server, tmp_path):
    Calls(judge(server), ["which?"], str(tmp_path))
    assert "chat_template_kwargs" not in server.seen()["last"]["body"]
    Calls(judge(server, chat_template_args={"enable_thinking": False}), ["which?"], str(tmp_path))
    assert server.seen()["last"]["body"]["chat_template_kwargs"] == {"enable_thinking": False}
    assert server.seen()["seen"] == {"which?": 2}  # another question to the cache


def test_log_probabilities_become_the_share_of_the_first_choice(server):
    server.reset(logprobs={"A": -0.2231, " A": -3.0, "B": -1.6094, "C": -0.1})
    calls = Calls(judge(server), ["which?"], constraint={"choice": ["A", "B"]}, logprobs=True)
    assert calls.reply.first_probability == pytest.approx((0.8 + 0.0498) / (0.8 + 0.0498 + 0.2), abs=1e-4)
    body = server.seen()["last"]["body"]
    assert (body["logprobs"], body["top_logprobs"]) == (True, 5)
    server.reset(logprobs={"X": -0.1})
    assert Calls(judge(server), ["which?"], constraint={"choice": ["A", "B"]}, logprobs=True).reply.first_probability is None


def option_calls(server, cache: str = "", **settings: object) -> list[Reply | None]:
    """Replies to three questions whose log-probabilities are needed, put at once."""
    config = judge(server, structured="none", answer="rating", **settings)

    async def ask() -> list[Reply | None]:
        endpoint = Endpoint(config, CallCache(cache) if cache else None, BudgetLedger())
        try:
            questions = [Question(chat(prompt), {"choice": ["A", "B"]}, 6, True, 20, True) for prompt in ("x?", "y?", "z?")]
            return await asyncio.gather(*(endpoint.ask(question, 0) for question in questions))
        finally:
            await endpoint.close()

    return asyncio.run(ask())


PROBED = PROBE[0]["content"]


def test_a_server_that_sends_log_probabilities_is_asked_one_more_question_once(server, tmp_path):
    server.reset(logprobs={"A": -0.2, "B": -2.0, "1": -4.0, "2": -3.0})
    replies = option_calls(server, str(tmp_path))
    assert [reply.logprobs for reply in replies] == [pytest.approx([-0.2, -2.0])] * 3
    assert server.seen()["paid"] == {PROBED: 1, "x?": 1, "y?": 1, "z?": 1}
    assert server.seen()["last"]["body"]["top_logprobs"] == 20
    assert option_calls(server, str(tmp_path)) == [reply._replace(first_probability=None) for reply in replies]
    assert server.seen()["paid"] == {PROBED: 1, "x?": 1, "y?": 1, "z?": 1}


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ({}, "has no log-probabilities"),
        ({"logprobs": {"X": -0.1}}, "has no log-probabilities"),
        ({"faults": {"400": 1.0}}, "HTTP 400"),
    ],
)
def test_a_server_without_log_probabilities_is_refused_before_the_questions(server, behaviour, reason):
    server.reset(**behaviour)
    with pytest.raises(InputError, match=rf"sends no log-probabilities \(.*{reason}.*answer: rating .*set answer to letter$"):
        option_calls(server)
    assert set(server.seen()["seen"]) == {PROBED}


def test_a_server_that_is_down_is_not_taken_for_one_without_log_probabilities(server):
    server.reset(faults={"500": 1.0}, times=99)
    replies = option_calls(server, retries=0)
    assert [reply.error[:8] for reply in replies] == ["HTTP 500"] * 3


def ask_with_faults(server: Handle, num_calls: int) -> float:
    """Ask while a fifth of the calls fail; every call has an answer or an error, none is paid twice, the limit is reached.

    Returns the mean number of calls in flight.
    """
    server.reset(limit=40, service=[0.2, 0.4], retry_after="1", total=num_calls, faults=dict.fromkeys(FAULTS, 0.02))
    calls = Calls(judge(server, timeout=2), prompts(num_calls))
    seen = server.seen()
    assert len(calls.replies) == num_calls
    assert all(reply is not None and bool(reply.text) != bool(reply.error) for reply in calls.replies)
    assert set(seen["paid"].values()) == {1}
    lost = [reply.error.split(" ")[0] for reply in calls.replies if reply.error]
    assert set(lost) == {"no", "the", "empty"}  # no complete answer; the connection broke, the model refused; empty answer
    assert 0.07 * num_calls < len(lost) < 0.15 * num_calls
    assert calls.stats.retries > 0.01 * num_calls
    assert seen["most"] == 40
    return seen["concurrency"]


def test_calls_of_which_a_fifth_fail(server):
    ask_with_faults(server, 400)


@pytest.mark.slow
def test_two_thousand_calls_of_which_a_fifth_fail_stay_at_the_limit_of_the_server(server):
    concurrency: list[float] = []
    while not concurrency or (max(concurrency) < 36 and len(concurrency) < 3):  # a busy machine only ever slows a run down
        concurrency.append(ask_with_faults(server, 2000))
    assert max(concurrency) >= 36
