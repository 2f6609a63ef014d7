"""Free texts: every sampling field is sent, what a reply lacks is no error, and its finish and reasoning are kept."""

import pytest

from valueflow.llm.admission import Tokens
from valueflow.llm.cache import CallCache, Reply
from valueflow.llm.chat_completions import read_reply, request_body
from valueflow.llm.configs import EndpointModel, Sampling, VllmModel
from valueflow.llm.question import Question
from valueflow.llm.responses import Response
from valueflow.llm.vllm import sampling, vllm_key

FIELDS = Sampling(top_p=1.0, seed=7).model_dump(exclude={"stop"})
QUESTION = Question([{"role": "user", "content": "Why?"}], None, 150, sampling=FIELDS)
ENDPOINT = EndpointModel(name="e", model="m", key_env="")
ESTIMATE = Tokens(5, 150)


def answered(message: dict, finish: str = "stop", usage: dict | None = None, question: Question = QUESTION) -> Reply:
    body = {"choices": [{"message": message, "finish_reason": finish}], "usage": usage}
    return read_reply(Response(200, 200, {}, body, "", False), question, ENDPOINT, ESTIMATE)


def test_all_fields_are_in_the_request_so_that_no_server_fills_one():
    body = request_body(QUESTION, ENDPOINT)
    assert {name: body[name] for name in FIELDS} == FIELDS
    assert body["max_tokens"] == 150
    more = ENDPOINT.model_copy(update={"extra_tokens": 1000, "max_tokens_field": "max_completion_tokens"})
    sent = request_body(QUESTION, more)
    assert sent["max_completion_tokens"] == 1150
    assert "max_tokens" not in sent


def test_refused_fields_are_not_sent():
    body = request_body(QUESTION, ENDPOINT.model_copy(update={"refused_fields": ["top_k", "min_p"]}))
    assert set(FIELDS) - set(body) == {"top_k", "min_p"}


def test_the_sampling_of_a_question_goes_before_that_of_the_llm():
    model = VllmModel(name="v", model="m", temperature=0.3)
    assert sampling(QUESTION, model) == FIELDS
    assert sampling(QUESTION._replace(sampling=None), model) == {"temperature": 0.3, "max_tokens": 150}
    keys = {vllm_key(QUESTION._replace(sampling=FIELDS | {name: 0.5}), model, 0) for name in ("top_p", "min_p", "temperature")}
    assert len({*keys, vllm_key(QUESTION, model, 0), vllm_key(QUESTION, model, 1)}) == 5


@pytest.mark.parametrize(
    ("finish", "kind"),
    [("stop", "stop"), ("length", "length"), ("max_tokens", "length"), ("content_filter", "filtered"), ("", "other")],
)
def test_why_a_text_ended_is_kept_and_no_error(finish, kind):
    reply = answered({"content": "I would"}, finish)
    assert (reply.text, reply.error, reply.finish_reason) == ("I would", "", kind)


def test_a_refusal_and_an_empty_text_are_texts():
    assert answered({"content": None, "refusal": "I can't help."}).text == "I can't help."
    empty = answered({"content": ""})
    assert (empty.text, empty.error) == ("", "")


def test_a_free_text_without_sampling_is_read_as_before():
    assert answered({"content": ""}, question=QUESTION._replace(sampling=None)).error == "empty answer"


def test_reasoning_is_counted_by_the_server_or_by_its_length():
    usage = {"prompt_tokens": 9, "completion_tokens": 60, "completion_tokens_details": {"reasoning_tokens": 50}}
    assert answered({"content": "Yes."}, usage=usage).reasoning_tokens == 50
    guessed = answered({"content": "Yes.", "reasoning_content": "x" * 40})
    assert guessed.reasoning_tokens == 10
    assert answered({"content": "Yes."}).reasoning_tokens is None


def test_the_hash_of_the_prompt_is_of_messages_and_sampling():
    hashes = {
        answered({"content": "a"}).prompt_hash,
        answered({"content": "b"}).prompt_hash,
        answered({"content": "a"}, question=QUESTION._replace(sampling=FIELDS | {"top_p": 0.8})).prompt_hash,
        answered({"content": "a"}, question=QUESTION._replace(messages=[{"role": "user", "content": "How?"}])).prompt_hash,
    }
    assert len(hashes) == 3


def test_a_cached_free_text_has_all_of_it(tmp_path):
    cache, key = CallCache(str(tmp_path)), "ab" * 32
    reply = Reply("Yes.", "", 9, 60, finish_reason="length", prompt_hash="abc", reasoning_tokens=50)
    cache.put(key, reply)
    assert cache.get(key) == reply
