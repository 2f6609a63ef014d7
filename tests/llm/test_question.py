"""Questions: requests for constrained and free answers, keys of earlier versions, probabilities of options."""

import hashlib
import json
import math
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from valueflow.hives.naming import NAME
from valueflow.judging.fingerprint import fingerprint
from valueflow.judging.kinds import kind_of
from valueflow.judging.tasks import RANK, VOTE
from valueflow.llm.cache import Reply, call_key
from valueflow.llm.chat_completions import _sampled_tokens, request_body
from valueflow.llm.configs import EndpointModel, VllmModel
from valueflow.llm.question import (
    REPLY,
    Question,
    SampledToken,
    first_option_probability,
    option_logprobs,
    option_probability,
    with_replies,
)
from valueflow.llm.vllm import sampled_tokens, sampling, vllm_key
from valueflow.voting.descend import DIRECTIONS, Ballot

VLLM = VllmModel(
    name="v", model="Qwen/Qwen3-8B", revision="r1", engine={"max_model_len": 4096, "dtype": "bfloat16"}, logprobs=True
)
OPENAI = EndpointModel(name="o", model="gpt-4o-mini", extra={"seed": 7}, extra_tokens=5)
TEXTS = ["I kept my promise to her.", "I lied to him."]
QUESTIONS = {
    "pair": (RANK, {"theory": "duty", "value": "fidelity", "texts": TEXTS}),
    "six": (RANK, {"theory": "duty", "value": "fidelity", "texts": [f"Text {i}." for i in range(6)]}),
    "vote": (VOTE, Ballot("direction", "duty", "fidelity", "t", DIRECTIONS, 0)._asdict() | {"text": TEXTS[1]}),
    "name": (NAME, {"texts": TEXTS}),
}
# Computed by the code before chat_template_args and free text: paid replies stay in the cache.
VLLM_KEYS = {
    "pair": "c6dd25af5eee6fa075c51825a70938ac1f5cf75b692f5909dfcb9c2365e50241",
    "six": "1cac2d6b625aee8960ec80a7090c458fb8370449b8c70cd22444503f79a80836",
    "vote": "db569104182186cbc22445009d7b5383b1b445fb3c68cb7cee1f0094ca8ac8d8",
    "name": "3ab352f8405707925859f584c77b101afbde2be69f905ec780a96aedad3eb6b5",
}
# Key, and the beginning of the hash of the request's body.
ENDPOINT_CALLS = {
    ("pair", "json_schema"): ("e962091e7c7264417052fe1884ba88858a2a6d066a4801c46a3369f9f44c2115", "3052c5134abd5384"),
    ("pair", "choice"): ("11dee6afb39d46850f3c70bb66ccfb6ead66aeb20d52118000cc8d42cd2c3180", "43c37b0dc9a2605f"),
    ("pair", "none"): ("9f8d5207e24b4b2c50baed00d35b64380e01436a5605425d2d4629065dfce9d1", "082a3a0148ef7d64"),
    ("six", "json_schema"): ("2303d2cdb61284d6de0a8963460888202976e21ae47300119c9531195d8b786c", "9b12d1a413ca592a"),
    ("six", "choice"): ("227265d3bca02ee058fc21f5206c65111b94b5be4e64f37c852dcf0ab8d072ee", "4cdb3f40fe809456"),
    ("six", "none"): ("f1a74bab7d62461f7a625cbedcdeca03fd64c16704ec7a3024d81122fee20451", "9a2bea5a3a1f7a6d"),
    ("vote", "json_schema"): ("7ceee4ba918f5140218f485ceb95765ffac73373c3d09e6acf23b619bb2be7c0", "4aa95297c0dde502"),
    ("vote", "choice"): ("88043eb1743db4031b7d9894fc60aa5fec57d09db55afc10ce60b76d097c235f", "0003ca9ef815c8f4"),
    ("vote", "none"): ("bd53eec8d9c761e9085d9b8c82dec7f1c6b3f82f62eb0b04fe6b347b5e188996", "09a6d7d366494833"),
    ("name", "json_schema"): ("d1e79539a00de40e8137363f59d375ca2418ad9fa126273c8ead0a46802e73fd", "e8227b538b0cc84b"),
    ("name", "choice"): ("7040e0b29f1ca09b0dced1e3b91a9b85b2ff6b6624c782a146d47aac405ec5a6", "c555cd4ef811589b"),
    ("name", "none"): ("08d7c60405fa8f249eb116edc6359b2ed914b5336c0050562c3088c04432e5e4", "bbc9cf4b2f6e4bd5"),
}
FREE = Question([{"role": "user", "content": "Write a story."}], None, 200)


def question(name: str, config: VllmModel | EndpointModel) -> Question:
    task, row = QUESTIONS[name]
    return task.question(row, config)


def key(question: Question, config: EndpointModel) -> str:
    body = request_body(question, config)
    sampling = {name: value for name, value in body.items() if name not in ("model", "messages")}
    return call_key(body["model"], config.revision, body["messages"], sampling, 1)


@pytest.mark.parametrize("name", QUESTIONS)
def test_calls_of_earlier_versions_are_still_in_the_cache(name):
    assert vllm_key(question(name, VLLM), VLLM, 1) == VLLM_KEYS[name]
    for structured in ("json_schema", "choice", "none"):
        config = OPENAI.model_copy(update={"structured": structured})
        body = json.dumps(request_body(question(name, config), config))
        hashed = hashlib.sha256(body.encode()).hexdigest()[:16]
        assert (key(question(name, config), config), hashed) == ENDPOINT_CALLS[name, structured]


def test_template_arguments_are_part_of_the_key_and_of_the_body():
    args = {"chat_template_args": {"enable_thinking": False}}
    vllm, openai = VLLM.model_copy(update=args), OPENAI.model_copy(update=args)
    assert vllm_key(FREE, vllm, 0) != vllm_key(FREE, VLLM, 0)
    assert key(FREE, openai) != key(FREE, OPENAI)
    assert request_body(FREE, openai)["chat_template_kwargs"] == {"enable_thinking": False}
    assert "chat_template_kwargs" not in request_body(FREE, OPENAI)
    assert "chat_template_args" not in VLLM.public()
    assert vllm.public()["chat_template_args"] == {"enable_thinking": False}


def test_free_text_is_sampled_without_a_constraint():
    assert sampling(FREE, VLLM) == {"temperature": 0.0, "max_tokens": 200}
    constrained = FREE._replace(constraint={"choice": ["A", "B"]}, logprobs=True)
    expected = {"temperature": 0.0, "max_tokens": 200, "structured_outputs": {"choice": ["A", "B"]}, "logprobs": 5}
    assert sampling(constrained, VLLM) == expected
    assert vllm_key(FREE, VLLM, 0) != vllm_key(FREE._replace(constraint={}), VLLM, 0)


@pytest.mark.parametrize("structured", ["json_schema", "choice", "none"])
def test_free_text_is_requested_without_a_constraint(structured):
    config = EndpointModel(name="o", model="m", structured=structured)
    assert request_body(FREE, config) == {"model": "m", "messages": FREE.messages, "max_tokens": 200, "temperature": 0.0}


def test_options_are_those_of_a_choice():
    assert FREE.options == []
    assert FREE._replace(constraint={"regex": "A|B"}).options == []
    assert question("pair", VLLM).options == ["A", "B"]


def test_the_probability_of_the_first_option():
    logprobs = [("A", math.log(0.5)), (" A", math.log(0.1)), ("B\n", math.log(0.2)), ("C", math.log(0.2))]
    assert first_option_probability(logprobs, ["A", "B"]) == pytest.approx(0.6 / 0.8)
    assert first_option_probability(logprobs, ["B", "A"]) == pytest.approx(0.2 / 0.8)
    assert first_option_probability([("B", -1.0)], ["A", "B"]) == 0.0
    assert first_option_probability([("C", -1.0)], ["A", "B"]) is None
    assert first_option_probability([], ["A", "B"]) is None
    assert first_option_probability([("A", 1e-9), ("B", -1.0)], ["A", "B"]) == 1 / (1 + math.exp(-1))  # a rounding above 0


def tokens(*places: tuple[tuple[str, float], ...]) -> list[SampledToken]:
    """The first alternative of each place is the one that was sampled."""
    return [SampledToken(*place[0], list(place)) for place in places]


THOUGHT = [(("A", -0.05), ("B", -6.0)), ((" helps", -0.1),), (("</think>", -0.01),)]
ANSWER = (("B", -0.02), ("A", -4.0))
P_A = math.exp(-4) / (math.exp(-4) + math.exp(-0.02))


@pytest.mark.parametrize(
    ("reply", "places"),
    [
        ("B", [ANSWER]),
        ("\nB", [(("\n", -0.01), ("A", -5.0), ("B", -9.0)), ANSWER]),
        ("B", [*THOUGHT, ANSWER]),
        ("A helps</think>B", [*THOUGHT, ANSWER, (("<|im_end|>", -0.1), ("A", -3.0))]),
        ("B", [ANSWER, (("", -0.1),)]),
        ('{"answer": "B"}', [(('{"', -0.1),), (("answer", -0.1),), (('":"', -0.1),), ANSWER, (('"}', -0.1),)]),
    ],
)
def test_the_probability_is_that_of_the_token_that_is_the_answer(reply, places):
    assert option_probability(tokens(*places), reply, ["A", "B"]) == pytest.approx(P_A)


@pytest.mark.parametrize(
    ("reply", "places"),
    [
        ("C", [ANSWER]),  # no option
        ("B", []),
        ("B", [*THOUGHT, (("->B", -0.1), ("B", -0.2))]),  # a letter of the thoughts is not the answer
        ("B because", [ANSWER, ((" because", -0.1),)]),
        ("<think>B", [(("<think>", -0.1),), ANSWER]),
        ("B", [(("B", math.nan),)]),
        ("B", [(("B ", -0.1),), (("words", -0.1),)]),
    ],
)
def test_without_a_token_that_is_the_answer_there_is_no_probability(reply, places):
    assert option_probability(tokens(*places), reply, ["A", "B"]) is None


def test_a_sampled_token_that_is_too_improbable_to_be_listed_counts():
    sampled = SampledToken("B", -4.0, [("A", -0.02), ("C", -5.0)])
    assert option_probability([sampled], "B", ["A", "B"]) == pytest.approx(1 - P_A)
    assert option_probability([SampledToken("B", -4.0, [("X", -0.02)])], "B", ["A", "B"]) is None


@pytest.mark.parametrize(
    ("reply", "places", "expected"),
    [
        ("B", [ANSWER], [-4.0, -0.02]),
        ("A helps</think>B", [*THOUGHT, ANSWER], [-4.0, -0.02]),
        ("The text", [(("The", -0.5), ("A", -1.0), (" A", -2.0), ("B", -3.0))], [math.log(math.exp(-1) + math.exp(-2)), -3.0]),
        (
            "B",
            [(("B", -0.5), ("X", -1.2))],
            [math.log(1 - math.exp(-0.5) - math.exp(-1.2)), -0.5],
        ),  # what the listed ones leave
        ("B", [(("B", -0.5), ("X", -3.0))], [-3.0, -0.5]),  # the smallest that is listed
        ("B", [(("B", 0.0),)], [math.log(1e-9), 0.0]),
    ],
)
def test_the_log_probability_of_every_option(reply, places, expected):
    assert option_logprobs(tokens(*places), reply, ["A", "B"]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("reply", "places"),
    [("B", []), ("The", [(("The", -0.1), ("X", -3.0))]), ("<think>", [(("<think>", -0.1),)]), ("B", [(("B", math.nan),)])],
)
def test_without_an_option_among_the_alternatives_there_are_no_log_probabilities(reply, places):
    assert option_logprobs(tokens(*places), reply, ["A", "B"]) is None


def test_log_probabilities_of_vllm_as_objects_or_as_dicts():
    first = SampledToken("A", -0.1, [("A", -0.1), ("None", -3.0)])
    objects = [
        {1: SimpleNamespace(decoded_token="A", logprob=-0.1), 2: SimpleNamespace(decoded_token=None, logprob=-3.0)},
        {7: SimpleNamespace(decoded_token="<|im_end|>", logprob=0.0)},
    ]
    dicts = [{i: vars(entry) for i, entry in place.items()} for place in objects]
    ids = np.array([1, 7])
    assert (
        sampled_tokens(ids, objects)
        == sampled_tokens([1, 7], dicts)
        == [first, SampledToken("<|im_end|>", 0.0, [("<|im_end|>", 0.0)])]
    )
    assert sampled_tokens(ids, objects)[0].text == "A"
    assert option_probability(sampled_tokens(ids, objects), "A", ["A", "B"]) == 1.0
    assert sampled_tokens([], None) == sampled_tokens([1], []) == []


def test_replies_become_columns():
    batch = with_replies(pa_table(2), [Reply("A", "", 1, 2, 0.5), Reply("", "HTTP 500", 3, 4)])
    assert batch.column_names == ["id", *REPLY]
    assert batch["first_probability"].to_pylist() == [0.5, None]
    empty = with_replies(pa_table(0), [])
    assert empty.schema == batch.schema


def pa_table(count: int):
    import pyarrow as pa

    return pa.table({"id": pa.array(range(count), pa.int32())})


def test_a_log_probability_that_no_float_holds_is_unknown():
    top = [{"token": "A", "logprob": -0.5}, {"token": "B", "logprob": 10**400}]
    choice = {"logprobs": {"content": [{"token": "A", "logprob": -(10**400), "top_logprobs": top}]}}
    [token] = _sampled_tokens(choice)
    assert math.isnan(token.logprob)
    assert option_probability([token], "A", ["A", "B"]) == 1.0


ALONE = {"theory": "duty", "value": "fidelity", "text_ids": ["t"], "texts": [TEXTS[0]]}


def test_a_window_of_one_text_asks_whether_it_concerns_the_value():
    asked = RANK.question(ALONE, VLLM)
    assert asked.options == ["none", "for", "against"]
    assert asked.logprobs
    assert json.dumps(TEXTS[0]) in asked.messages[1]["content"]


@pytest.mark.parametrize(
    ("reply", "probability", "relevance"),
    [("none", None, 0.0), ("for", None, 1.0), ("against", None, 1.0), ("for", 0.25, 0.75), ("It is for.", None, None)],
)
def test_the_reply_to_it_is_a_relevance_or_a_failure(reply, probability, relevance):
    columns = {"window_id": ["w"], "theory": ["duty"], "value": ["fidelity"], "text_ids": [["t"]]}
    batch = pa.table(columns | {"round": pa.array([0], pa.int32()), "texts": [[TEXTS[0]]]})
    row = RANK.read(with_replies(batch, [Reply(reply, "", 9, 1, probability)]), VLLM).to_pylist()[0]
    assert row["relevance"] == relevance
    assert row["weight"] is None
    assert (row["error"] is None) == (relevance is not None)
    assert row["order"] == (None if relevance is None else [0])


def test_asking_for_relevance_is_off_by_default_and_another_judge_it_does_not_make():
    for config in (VLLM, OPENAI):
        asking = config.model_copy(update={"relevance": True})
        assert kind_of(config).relevance(config) == "none"
        assert kind_of(asking).relevance(asking) == "apart"
        assert fingerprint(asking) == fingerprint(config)
