"""Questions and rows of generations: every sampling field, reasoning apart, refusals and failures as data; builds of a plan."""

import pytest

from valueflow import store
from valueflow.errors import InputError
from valueflow.llm.cache import Reply
from valueflow.llm.configs import EndpointModel, Price, Sampling, VllmModel
from valueflow.llm.question import with_replies
from valueflow.llm.vllm import sampling
from valueflow.records import SCHEMAS, ValueId, text_id
from valueflow.steering.conditions import Condition
from valueflow.steering.generation import (
    Answers,
    answer_and_reasoning,
    finished_generations,
    generation_task,
    generator_fingerprint,
)
from valueflow.steering.plan import Plan
from valueflow.steering.queries import Query
from valueflow.store import Build, GenerationsDetails

MODEL = VllmModel(name="m", model="folder", price=Price(tokens_in=1, tokens_out=2))
VALUE = Condition("user_texts", "value", "user", (ValueId("svt:power"),), (2,), 1, "Lead.", ("a", "b"), 7.5)
PLAN = Plan("f", (VALUE,), (Query("q1", "d", "Why?"), Query("q2", "d", "How?")), 2, Sampling(max_tokens=40, top_k=5), "")


def rows(*replies: Reply) -> list[dict]:
    task = generation_task(Answers(PLAN, "w"))
    batch = with_replies(PLAN.chunk(0).slice(0, len(replies)), list(replies))
    return task.read(batch, MODEL).to_pylist()


def test_a_question_has_the_persona_first_and_every_sampling_field():
    task = generation_task(Answers(PLAN, "w"))
    row = PLAN.chunk(0).to_pylist()[1]
    question = task.question(row, MODEL)
    assert question.messages == [{"role": "user", "content": "Lead.\n\nHow?"}]
    assert question.constraint is None
    sent = sampling(question, MODEL)
    assert sent == Sampling(max_tokens=40, top_k=5).model_dump(exclude={"stop"}) | {"seed": sent["seed"]}
    more = MODEL.model_copy(update={"extra_tokens": 100})
    assert sampling(question, more) == sent | {"max_tokens": 140}
    assert row["round"] == 0
    assert [r["round"] for r in PLAN.chunk(0).to_pylist()] == [0, 0, 1, 1]


def test_a_row_says_what_was_asked_and_what_came():
    [row] = rows(Reply("I would lead them.", "", 100, 10, finish_reason="stop", prompt_hash="abc"))
    assert set(row) == {*SCHEMAS["generations"].names, "folder"}
    planned = {
        "model": "m", "regime": "user_texts", "condition": "value", "turn": "user", "values": ["svt:power"], "levels": [2],
        "variant": 1, "replicate": 0, "query_id": "q1", "dataset": "d", "query": "Why?", "exemplar_ids": ["a", "b"],
        "requested": 7.5, "wording_hash": "w", "prompt_hash": "abc",
    }  # fmt: skip
    came = {
        "response": "I would lead them.", "response_text_id": text_id("I would lead them."), "finish_reason": "stop",
        "outcome": "answer", "outcome_by": "rules", "error": None, "tokens_in": 100, "tokens_out": 10, "reasoning_tokens": 0,
        "cost": pytest.approx(120e-6),
    }  # fmt: skip
    assert {name: row[name] for name in planned} == planned
    assert {name: row[name] for name in came} == came


def test_a_call_without_an_answer_is_asked_again_and_one_that_was_paid_for_is_not():
    lost, paid = rows(Reply("", "HTTP 500", 0, 0), Reply("", "timeout", 90, 40))
    assert [(r["response"], r["error"], r["outcome"], r["outcome_by"]) for r in (lost, paid)] == [
        ("", "HTTP 500", None, None), (None, "timeout", None, None),
    ]  # fmt: skip
    assert lost["response_text_id"] == paid["response_text_id"] == text_id("")
    table = generation_task(Answers(PLAN, "w")).read(
        with_replies(PLAN.chunk(0).slice(0, 2), [Reply("", "HTTP 500", 0, 0), Reply("", "timeout", 90, 40)]), MODEL
    )
    assert store.without_answer(table).to_pylist() == [True, False]


@pytest.mark.parametrize(
    ("reply", "answer", "reasoning"),
    [
        (Reply("<think>long thought</think> Yes.", "", 9, 16), "Yes.", 14),
        (Reply("thought, whose tag the template wrote</think>Yes.", "", 9, 10), "Yes.", 9),
        (Reply("<think>still at it", "", 9, 10), "", 10),
        (Reply("Yes.", "", 9, 2), "Yes.", 0),
        (Reply("Yes.", "", 9, 50, reasoning_tokens=48), "Yes.", 48),
        (Reply(" Ye\x00s\ud800 ", "", 9, 2), "Yes?", 0),
        (Reply("", "", 9, 0), "", 0),
    ],
)
def test_reasoning_is_stripped_and_counted(reply, answer, reasoning):
    assert answer_and_reasoning(reply) == (answer, reasoning)


@pytest.mark.parametrize(
    ("reply", "outcome", "finish"),
    [
        (Reply("I'm sorry, but I can't help with that.", "", 9, 9, finish_reason="stop"), "refusal", "stop"),
        (Reply("", "", 9, 0, finish_reason="filtered"), "refusal", "other"),
        (Reply("<think>hm", "", 9, 9, finish_reason="length"), "broken", "length"),
        (Reply("...", "", 9, 3, finish_reason="stop"), "broken", "stop"),
    ],
)
def test_what_became_of_a_query_is_kept(reply, outcome, finish):
    [row] = rows(reply)
    assert (row["outcome"], row["finish_reason"]) == (outcome, finish)


def test_the_fingerprint_is_of_what_can_change_a_reply():
    same = [{"name": "n"}, {"batch_size": 3}, {"temperature": 0.7}, {"max_chars": 99}, {"num_engines": 4}]
    other = [
        {"model": "x"},
        {"engine": {"dtype": "half"}},
        {"extra_tokens": 9},
        {"chat_template_args": {"enable_thinking": False}},
    ]
    assert {generator_fingerprint(MODEL.model_copy(update=change)) for change in same} == {generator_fingerprint(MODEL)}
    assert len({generator_fingerprint(MODEL.model_copy(update=change)) for change in [{}, *other]}) == 5
    endpoint = EndpointModel(name="e", model="m", key_env="")
    refused = endpoint.model_copy(update={"refused_fields": ["top_k"]})
    assert generator_fingerprint(endpoint) != generator_fingerprint(refused)


def test_the_latest_generations_are_those_of_all_models_of_the_newest_plan(tmp_path):
    with pytest.raises(InputError, match=r"jobs\.steer first"):
        finished_generations(str(tmp_path))
    for build_id, plan in (("old", "p1"), ("a", "p2"), ("b", "p2")):
        store.commit(Build(str(tmp_path), "generations", build_id), GenerationsDetails(plan=plan, generations=0), [])
    assert {build.build_id for build in finished_generations(str(tmp_path))} == {"a", "b"}
    assert [build.build_id for build in finished_generations(str(tmp_path), "old")] == ["old"]
    with pytest.raises(InputError, match="none"):
        finished_generations(str(tmp_path), ["none"])
