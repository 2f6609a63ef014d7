"""A model that always answers the first letter is a judge by its log-probabilities; scores become honest orders."""

import asyncio
import math

import numpy as np
import pyarrow as pa
import pytest
from fakes.small_llm import SmallLlm
from pydantic import ValidationError
from scipy.stats import norm, spearmanr

from valueflow.errors import InputError
from valueflow.judging.fingerprint import fingerprint
from valueflow.judging.logprobs import (
    LOGISTIC,
    NUM_NEUTRAL,
    SCALE,
    LogprobJudge,
    calls_of,
    judgement,
    neutral_texts,
    single_answer,
)  # fmt: skip
from valueflow.judging.tasks import RANK
from valueflow.llm.cache import Reply
from valueflow.llm.configs import EndpointModel, VllmModel
from valueflow.llm.question import with_replies
from valueflow.ranking.likelihood import LikelihoodShard
from valueflow.ranking.orders import orders_of
from valueflow.ranking.plackett_luce import fit
from valueflow.ranking.windows import WindowsConfig, plan_table, with_texts
from valueflow.records import text_id

LETTER = VllmModel(name="small", model="m", logprobs=True)
PAIRS = VllmModel(name="small", model="m", answer="logprobs")
RATING = VllmModel(name="small", model="m", answer="rating")
VALUE = ("svt", "benevolence")


def texts(count: int = 40, spread: float = 1.0) -> dict[str, float]:
    """Worth by text, evenly over a normal distribution, in random order."""
    worth = norm.ppf((np.arange(count) + 0.5) / count) * spread
    return dict(zip((f"Text {i}." for i in np.random.default_rng(0).permutation(count)), worth.tolist(), strict=True))


def windows(worth: dict[str, float], k: int = 2, m: int = 8) -> pa.Table:
    by_id = {text_id(text): text for text in worth}
    return with_texts(plan_table(*VALUE, list(by_id), WindowsConfig(k=k, m=m)), by_id)


def judged(config: VllmModel, llm: SmallLlm, planned: pa.Table) -> pa.Table:
    return asyncio.run(LogprobJudge(config, llm)(planned))


def recovery(rows: pa.Table, worth: dict[str, float]) -> float:
    """Rank correlation of the fitted theta with the planted worth."""
    by_id = {text_id(text): value for text, value in worth.items()}
    ids = sorted(by_id)
    return float(spearmanr(fit(LikelihoodShard(len(ids), orders_of(rows, ids))).theta_N, [by_id[i] for i in ids]).statistic)


def test_letters_of_a_first_position_model_say_nothing_and_its_log_probabilities_do():
    worth = texts()
    planned = windows(worth)
    llm = SmallLlm(worth)
    replies = [asyncio.run(llm(RANK.question(row, LETTER), row["round"])) for row in planned.to_pylist()]
    plain = [Reply(reply.text, "", 1, 1) for reply in replies]
    letters = RANK.read(with_replies(planned, plain), LETTER)
    assert set(letters["reply"].to_pylist()) == {"A"}
    assert abs(recovery(letters, worth)) < 0.4
    for config in (PAIRS, RATING):
        rows = judged(config, SmallLlm(worth), planned)
        assert rows["error"].null_count == rows.num_rows
        assert recovery(rows, worth) > 0.9, config.answer


def test_windows_of_several_texts_are_drawn_from_the_ratings():
    worth = texts()
    rows = judged(RATING, SmallLlm(worth), windows(worth, k=5, m=20))
    assert rows["weight"].null_count == rows.num_rows
    assert recovery(rows, worth) > 0.9
    again = judged(RATING, SmallLlm(worth), windows(worth, k=5, m=20))
    assert again.equals(rows)


def test_the_unit_of_the_log_probabilities_does_not_matter():
    for config in (PAIRS, RATING):
        of_scale = []
        for scale in (0.02, 0.2):
            worth = texts(60, scale)
            of_scale.append(judged(config, SmallLlm(worth, noise=scale), windows(worth)))
        small, large = (rows["weight"].to_numpy() for rows in of_scale)
        assert small == pytest.approx(large, abs=0.1), config.answer
        assert 0.7 < small.mean() < 0.95


def test_a_margin_of_one_noise_is_as_uncertain_as_its_probability_says():
    """Of texts anywhere on the scale, so that the margin is all that is known about a pair."""
    worth = texts(200, 3.0)
    rows = judged(PAIRS, SmallLlm(worth, noise=1.0), windows(worth, m=20)).to_pylist()
    of = {text_id(text): value for text, value in worth.items()}
    for low, high in ((0.5, 0.7), (0.7, 0.9), (0.9, 0.98)):
        some = [row for row in rows if low < row["weight"] < high]
        right = np.mean([of[r["text_ids"][r["order"][0]]] > of[r["text_ids"][r["order"][1]]] for r in some])
        assert right == pytest.approx(np.mean([row["weight"] for row in some]), abs=0.12), (low, right)
        assert len(some) > 50


def test_a_judge_without_signal_is_a_coin():
    worth = texts()
    for config in (PAIRS, RATING):
        rows = judged(config, SmallLlm({}), windows(worth))
        assert abs(recovery(rows, worth)) < 0.4, config.answer


def test_each_text_is_rated_once_and_each_pair_once_in_both_orders():
    worth = texts(10)
    planned = windows(worth, m=8)
    mirrored = pa.concat_tables([planned, with_texts(mirror(planned), {text_id(text): text for text in worth})])
    rating, pairs = SmallLlm(worth), SmallLlm(worth)
    rows = judged(RATING, rating, mirrored)
    assert set(rating.asked.values()) == {1}
    assert len(rating.asked) == 10 + NUM_NEUTRAL
    assert sum(rows["tokens_in"].to_pylist()) == 100 * len(rating.asked)
    judged(PAIRS, pairs, mirrored)
    assert set(pairs.asked.values()) == {1}
    assert (
        len(pairs.asked)
        == 2 * len({(r, *sorted(i)) for r, i in zip(*(planned[c].to_pylist() for c in ("round", "text_ids")), strict=True)})
        + NUM_NEUTRAL
    )


def mirror(planned: pa.Table) -> pa.Table:
    """The windows with the texts in the opposite order, under other ids."""
    ids = pa.array([window[::-1] for window in planned["window_id"].to_pylist()])
    swapped = pa.array([pair[::-1] for pair in planned["text_ids"].to_pylist()])
    planned = planned.drop_columns("texts")
    return planned.set_column(0, "window_id", ids).set_column(3, "text_ids", swapped)


def reply(logprobs: list[float] | None, **more) -> Reply:
    return Reply("A", "", 10, 1, None, logprobs)._replace(**more)


ROW = {"theory": "svt", "value": "benevolence", "texts": ["I lied.", "I helped."], "window_id": "w", "round": 0}
EVEN = [math.log(0.2)] * 5


def test_a_pair_by_hand():
    # Log-odds of the first letter: 3 as shown, 2 the other way round: half a nat for the first text.
    own = [reply([-0.1, -3.1]), reply([-0.1, -2.1])]
    neutral = [reply([-1.0, -1.0]), reply([-1.0, -2.0])] * 10  # margins of half a nat
    order, weight, text, error = judgement(ROW, own + neutral, PAIRS)
    assert (order, error, text) == ([0, 1], None, "A +3.000\nA +2.000")
    assert weight == pytest.approx(1 / (1 + math.exp(-LOGISTIC)))
    assert single_answer(text, order) == 1.0
    # Cached before log-probabilities were: the probability of the first letter stands for them.
    old = [reply(None, first_probability=p) for p in (1 / (1 + math.exp(-3)), 1 / (1 + math.exp(-2)))]
    assert judgement(ROW, old + neutral, PAIRS)[1] == pytest.approx(weight)


def test_a_rating_by_hand():
    support = [-50.0, -50.0, -50.0, math.log(0.5), math.log(0.5)]
    middle = [-50.0, -50.0, 0.0, -50.0, -50.0]
    for_it = [-50.0, -50.0, -50.0, 0.0, -50.0]
    neutral = [reply(middle), reply(for_it)] * 10  # 0 and 5 points: mean 2.5, standard deviation 2.56
    order, weight, text, _ = judgement(ROW, [reply(middle), reply(support), *neutral], RATING)
    assert order == [1, 0]
    score, sd = 7.5, math.sqrt(20 / 19) * 2.5
    assert weight == pytest.approx(1 / (1 + math.exp(-LOGISTIC * score / (math.sqrt(2) * sd))), abs=1e-3)
    assert text == "3 -2.500\n4 +5.000"
    assert (single_answer(text, order), single_answer(text[::-1][::-1], None)) == (0.0, None)


@pytest.mark.parametrize("config", [PAIRS, RATING])
def test_replies_without_log_probabilities_are_failed_windows(config):
    own = [reply(EVEN if config is RATING else [-1.0, -1.0])] * 2
    neutral = own * (NUM_NEUTRAL // 2)
    assert judgement(ROW, own + neutral, config).error is None
    lost = judgement(ROW, [own[0], reply(None, text="Sure!"), *neutral], config)
    assert (lost.order, lost.reply) == (None, "Sure!")
    assert "log-probabilities" in lost.error
    failed = judgement(ROW, own + [reply(None, error="HTTP 500")] * NUM_NEUTRAL, config)
    assert failed.error == "only 0 of the neutral texts have an answer: HTTP 500"
    # A few neutral texts may fail.
    assert judgement(ROW, own + neutral[:12] + [reply(None, error="HTTP 500")] * 8, config).error is None


def test_equal_log_probabilities_are_a_tie():
    own = [reply([-0.1, -3.0])] * 2
    assert judgement(ROW, own + own * 10, PAIRS)[:2] == ([0, 1], 0.5)
    assert judgement(ROW, [reply(EVEN)] * 22, RATING)[:2] == ([0, 1], 0.5)


@pytest.mark.parametrize(
    ("text", "order", "answer"),
    [("B", [1, 0], 0.0), (None, [0, 1], 1.0), ("B -0.100\nA +2.000", [0, 1], 0.0), ("3 +0.100\n3 +0.000", [0, 1], 0.5),
     ("2 -0.100\n4 +2.000", [1, 0], 0.0)],
)  # fmt: skip
def test_the_single_answer_is_the_one_without_log_probabilities(text, order, answer):
    assert single_answer(text, order) == answer


def test_a_call_that_cost_nothing_is_put_again_and_a_paid_one_is_not():
    asked = []

    async def ask(question, round_):
        asked.append(question)
        return Reply("", "HTTP 500", 0, 0) if len(asked) <= 22 else SmallLlm({}) and await SmallLlm({})(question, round_)

    async def twice():
        judge = LogprobJudge(RATING, ask)
        row = windows(texts(10)).slice(0, 1)
        return [await judge(row), await judge(row), await judge(row)]

    first, second, third = asyncio.run(twice())
    assert first["error"].to_pylist() == ["HTTP 500"]
    assert second["error"].to_pylist() == third["error"].to_pylist() == [None]
    assert len(asked) == 44
    assert (second["tokens_in"].to_pylist(), third["tokens_in"].to_pylist()) == ([2200], [0])


class Waiting:
    """An LLM that answers once it is let go; `begun` and `cancelled` count its calls."""

    def __init__(self) -> None:
        self.llm, self.let_go, self.begun, self.cancelled = SmallLlm({}), asyncio.Event(), [], 0

    async def __call__(self, question, round_):
        self.begun.append(question)
        try:
            await self.let_go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return await self.llm(question, round_)


@pytest.mark.parametrize("others", [0, 1])
def test_questions_are_taken_back_once_nobody_waits_for_them(others):
    """Those that another caller waits for too, such as the ones about neutral texts, are answered."""
    planned = windows(texts(10))

    async def main() -> tuple[Waiting, pa.Table]:
        llm = Waiting()
        judge = LogprobJudge(RATING, llm)
        gone, stays = (asyncio.create_task(judge(planned)) for _ in range(2))
        await asyncio.sleep(0.01)
        if not others:
            stays.cancel()
        gone.cancel()
        await asyncio.sleep(0.01)
        llm.let_go.set()
        return llm, await (stays if others else judge(planned))

    llm, rows = asyncio.run(main())
    assert rows["error"].null_count == rows.num_rows
    assert llm.cancelled == (0 if others else 30)
    assert len(llm.begun) == (30 if others else 60)


def test_the_questions_about_neutral_texts_of_every_value_come_first():
    """Other callers wait for them too; after thousands of windows of another value they would come late."""
    one = windows(texts(10), m=4)
    other = one.set_column(one.schema.get_field_index("value"), "value", pa.array(["power"] * one.num_rows))
    ids = pa.array([f"other{i}" for i in range(one.num_rows)])
    other = other.set_column(other.schema.get_field_index("window_id"), "window_id", ids)
    both, asked, llm = pa.concat_tables([one, other]), [], SmallLlm({})

    async def ask(question, round_):
        asked.append(question.messages[-1]["content"])
        return await llm(question, round_)

    rows = judged(PAIRS, ask, both)
    assert rows["window_id"].to_pylist() == both["window_id"].to_pylist()
    alone = [judged(PAIRS, SmallLlm({}), part) for part in (one, other)]
    assert rows["order"].to_pylist() == [order for part in alone for order in part["order"].to_pylist()]
    neutral = [i for i, prompt in enumerate(asked) if any(text in prompt for text in neutral_texts())]
    assert len(neutral) == 2 * NUM_NEUTRAL
    assert max(neutral) < 2 * (NUM_NEUTRAL + 2)


def test_windows_whose_questions_were_not_put_are_left_out():
    async def spent(question, round_):
        return None

    assert judged(RATING, spent, windows(texts(10))).num_rows == 0


def test_log_probabilities_judge_windows_of_two():
    with pytest.raises(InputError, match="set k to 2"):
        judged(PAIRS, SmallLlm({}), windows(texts(), k=3, m=3))


def test_neutral_texts_are_asked_in_both_orders_of_each_value():
    calls = calls_of(ROW, PAIRS)
    assert len(calls) == 2 + NUM_NEUTRAL
    prompts = [call.question.messages[-1]["content"] for call in calls[2:4]]
    first, second = neutral_texts()[:2]
    assert all(first in prompt and second in prompt for prompt in prompts)
    assert prompts[0].index(first) < prompts[0].index(second)
    assert prompts[1].index(first) > prompts[1].index(second)
    assert [call.question.options for call in calls_of(ROW, RATING)] == [list(SCALE)] * (2 + NUM_NEUTRAL)


def test_the_way_to_answer_is_part_of_the_fingerprint_and_the_default_is_not():
    plain = VllmModel(name="v", model="m")
    assert "answer" not in plain.model_dump()
    assert len({fingerprint(plain.model_copy(update={"answer": answer})) for answer in ("letter", "logprobs", "rating")}) == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"answer": "rating", "logprobs": True, "structured": "none"}, "logprobs"),
     ({"answer": "rating"}, "structured"), ({"answer": "logprobs"}, "structured"), ({"answer": "number"}, "answer"),
     ({"logprobs": True}, "structured"), ({"logprobs": True, "structured": "json_schema"}, "structured")],
)  # fmt: skip
def test_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        EndpointModel(name="o", model="m", **settings)
