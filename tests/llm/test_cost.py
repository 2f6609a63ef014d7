"""Estimates against prices and speeds computed by hand."""

import pytest

from valueflow.judging.configs import EncoderJudge, SimulatedJudge
from valueflow.judging.cost import estimate
from valueflow.judging.tasks import RANK, VOTE
from valueflow.llm.configs import Budget, EndpointModel, LlmModel, Price, VllmModel
from valueflow.llm.cost import CostEstimate, MeasuredSpeed, Spent, cost_summary, exceeds
from valueflow.prompts.render import rank_messages, vote_messages
from valueflow.records import ValueId
from valueflow.voting.descend import DIRECTIONS, Ballot

TEXTS = ["I kept my promise to her.", "I lied to him about the ring."]
MEASURED = MeasuredSpeed(per_second=4.0, tokens_in=300.0, tokens_out=2.0)


def window(texts: list[str]) -> dict:
    return {"theory": "duty", "value": "fidelity", "texts": texts}


def ballot(text: str) -> dict:
    return Ballot("direction", "duty", "fidelity", "t", DIRECTIONS, 0)._asdict() | {"text": text}


def vllm(**settings: object) -> VllmModel:
    return VllmModel(name="v", model="m", **settings)


def openai(**settings: object) -> EndpointModel:
    return EndpointModel(name="o", model="m", structured="none", **settings)


@pytest.mark.parametrize("judge", [EncoderJudge(name="j"), SimulatedJudge(name="j")])
@pytest.mark.parametrize("task", [RANK, VOTE])
def test_a_judge_without_tokens_costs_time_only(judge, task):
    assert estimate(judge, task, [], 500) == CostEstimate("j", 500, 0, 0, None, 0.0, "")
    assert estimate(judge, task, [], 500, MeasuredSpeed(20.0, 0.0, 0.0)) == CostEstimate("j", 500, 0, 0, 25.0, 0.0, "")


@pytest.mark.parametrize("make", [vllm, openai])
def test_tokens_are_estimated_from_the_prompts_of_the_sample(make):
    def characters(messages: list[dict]) -> int:
        return sum(len(message["content"]) for message in messages)

    length = characters(rank_messages(ValueId("duty:fidelity"), TEXTS, 2000))
    cost = estimate(make(), RANK, [window(TEXTS)], 1000)
    assert cost[1:] == (
        1000,
        round(1000 * (length / 4 + 12)),
        8000,
        None,
        None,
        "USD",
    )  # an answer of two texts: 8 at most
    assert estimate(make(), RANK, [window([*TEXTS, "So."])], 1000).tokens_out == 10_000
    length = characters(vote_messages(ballot(TEXTS[0]), TEXTS[0], 2000))
    cost = estimate(make(), VOTE, [ballot(TEXTS[0])], 1000)
    assert cost[1:] == (1000, round(1000 * (length / 4 + 12)), 12_000, None, None, "USD")


def test_the_estimate_is_the_mean_of_the_sample_with_texts_as_in_the_prompt():
    judge = vllm(max_chars=500)
    short, long, cut = (estimate(judge, VOTE, [ballot("x" * n)], 100).tokens_in for n in (100, 500, 90_000))
    assert (long - short, cut) == (100 * 100, long)
    both = estimate(judge, VOTE, [ballot("x" * 100), ballot("x" * 500)], 100)
    assert (both.tokens_in, both.tokens_out) == ((short + long) / 2, 1200)


def test_windows_use_the_tokens_and_the_time_of_the_audit():
    cost = estimate(vllm(price=Price(tokens_in=1.0, tokens_out=100.0)), RANK, [window(TEXTS)], 10_000, MEASURED)
    assert cost == CostEstimate("v", 10_000, 3_000_000, 20_000, pytest.approx(2500.0), pytest.approx(3.0 + 2.0), "USD")


def test_ballots_use_estimated_tokens_at_the_measured_speed():
    guessed, cost = (estimate(openai(), VOTE, [ballot(TEXTS[0])], 1000, measured) for measured in (None, MEASURED))
    assert (cost.tokens_in, cost.tokens_out) == (guessed.tokens_in, guessed.tokens_out)
    assert cost.seconds == pytest.approx((cost.tokens_in + cost.tokens_out) / (4.0 * 302.0))


@pytest.mark.parametrize(
    ("judge", "measured", "money"),
    [
        (vllm(), MEASURED, None),
        (vllm(price=Price(hour=3.0), num_engines=4), MEASURED, 4 * 3.0 * 1000 / 3600 / 4),
        (vllm(price=Price(hour=3.0, tokens_out=500.0)), MEASURED, 3.0 * 1000 / 3600 / 4 + 1000 * 500e-6 * 2),
        (vllm(price=Price(hour=3.0)), None, None),  # hours of unknown length
        (vllm(price=Price(hour=3.0)), MeasuredSpeed(4.0, 0.0, 0.0), None),
        (openai(), MEASURED, None),
        (openai(price=Price(tokens_in=2.0, tokens_out=10.0)), MEASURED, 1000 * (2e-6 * 300 + 10e-6 * 2)),
    ],
)
def test_money(judge, measured, money):
    result = estimate(judge, RANK, [window(TEXTS)], 1000, measured).money
    assert result == (None if money is None else pytest.approx(money))


def test_a_price_of_tokens_needs_no_speed():
    for judge in (vllm(price=Price(tokens_in=2.0, tokens_out=8.0)), openai(price=Price(tokens_in=2.0, tokens_out=8.0))):
        cost = estimate(judge, RANK, [window(TEXTS)], 1000)
        assert cost.money == pytest.approx(2e-6 * cost.tokens_in + 8e-6 * 8000)


def test_nothing_to_ask_costs_nothing():
    assert estimate(vllm(price=Price(tokens_in=1.0)), RANK, [], 0, MEASURED) == CostEstimate("v", 0, 0, 0, 0.0, 0.0, "USD")
    assert estimate(vllm(price=Price(tokens_in=1.0)), VOTE, [], 0)[1:] == (0, 0, 0, None, 0.0, "USD")


@pytest.mark.parametrize(
    ("judge", "summary"),
    [
        (EncoderJudge(), "1,000 calls, 2,000,000 tokens in, 4,000 out; 30 min in this run"),
        (vllm(), "1,000 calls, 2,000,000 tokens in, 4,000 out; 30 min in this run"),
        (vllm(price=Price(hour=4.0), num_engines=2), "1,000 calls, 2,000,000 tokens in, 4,000 out, 4 USD; 30 min in this run"),
        (
            openai(price=Price(tokens_in=0.25, tokens_out=2.0, currency="EUR")),
            "1,000 calls, 2,000,000 tokens in, 4,000 out, 0.508 EUR; 30 min in this run",
        ),
    ],
)
def test_the_cost_of_a_finished_run(judge, summary):
    model = judge if isinstance(judge, LlmModel) else None
    assert cost_summary(1000, 2_000_000, 4000, 1800.0, model) == summary


@pytest.mark.parametrize(
    ("budget", "spent", "over"),
    [
        ({}, Spent(10**9, 10**9, 1e6, 1e6), False),
        ({"tokens": 100}, Spent(60, 39), False),
        ({"tokens": 100}, Spent(60, 40), True),
        ({"money": 5.0}, Spent(1_000_000, 0, 1.0), False),  # 1 for the tokens, 3 for the hour
        ({"money": 4.0}, Spent(1_000_000, 0, 1.0), True),
        ({"gpu_hours": 2.0}, Spent(0, 0, 50.0, 1.99), False),
        ({"gpu_hours": 2.0}, Spent(0, 0, 0.0, 2.0), True),
    ],
)
def test_a_budget_of_tokens_money_or_gpu_hours(budget, spent, over):
    assert exceeds(Budget(**budget), Price(tokens_in=1.0, hour=3.0), spent) == over


@pytest.mark.parametrize(
    ("judge", "engines", "gpus"),
    [
        (EncoderJudge(num_actors=2, max_actors=5, num_gpus=0.5), 5, 2.5),
        (SimulatedJudge(num_actors=3), 3, 0.0),
        (vllm(num_engines=2, gpus_per_engine=4), 2, 8.0),
        (vllm(num_engines=2, max_engines=6, gpus_per_engine=1), 6, 6.0),
        (openai(), 0, 0.0),
    ],
)
def test_the_engines_and_gpus_that_time_is_counted_for(judge, engines, gpus):
    assert (judge.most_engines, judge.most_gpus) == (engines, gpus)
