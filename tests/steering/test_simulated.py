"""The simulated generator: planted shifts, persona shift and refusals come back; a reply is a function of its id."""

import numpy as np
import pytest

from valueflow.llm.question import Question
from valueflow.steering.outcomes import outcome_of
from valueflow.steering.simulated import SimulatedGenerator, expected, planted, simulated_reply

IDS = [f"{n:016x}" for n in range(2000)]
QUESTION = Question([{"role": "user", "content": "Why?"}], None, 40, sampling={})


def mean(config: SimulatedGenerator, dose: str) -> float:
    return float(np.mean([planted(config, dose, i) for i in IDS]))


def test_shifts_by_value_and_level_and_of_personas_are_planted():
    config = SimulatedGenerator(shift={"svt:power=2": 1.0, "2": 4.0}, persona_shift=1.5, noise=2.0)
    se = 2.0 / np.sqrt(len(IDS))
    for dose, truth in (
        ("svt:power=2", 2.5), ("svt:face=2", 5.5), ("svt:face=-1", -1.5), ("neutral_persona", 1.5), ("irrelevant_persona", 1.5),
        ("bare", 0.0), ("no_refusal", 0.0), ("svt:power=2|svt:face=-1", 2.5),
    ):  # fmt: skip
        assert expected(config, dose) == pytest.approx(truth)
        assert abs(mean(config, dose) - truth) < 4 * se, dose


def test_a_reply_is_a_function_of_id_and_settings():
    config = SimulatedGenerator(refusals={-2: 0.3})
    replies = [simulated_reply(config, QUESTION, "svt:power=-2", i) for i in IDS[:50]]
    assert [simulated_reply(config, QUESTION, "svt:power=-2", i) for i in IDS[:50]] == replies
    other = config.model_copy(update={"seed": 1})
    assert [simulated_reply(other, QUESTION, "svt:power=-2", i) for i in IDS[:50]] != replies


def test_refusals_have_their_share_and_are_missing_not_at_random():
    config = SimulatedGenerator(refusals={-2: 0.2})
    told = [(simulated_reply(config, QUESTION, "svt:power=-2", i).text, planted(config, "svt:power=-2", i)) for i in IDS]
    refused = np.array([outcome_of(text) == "refusal" for text, _ in told])
    truth = np.array([y for _, y in told])
    assert refused.mean() == pytest.approx(0.2, abs=4 * np.sqrt(0.16 / len(IDS)))
    assert truth[refused].max() < -6 < truth[~refused].mean()
    assert not any(outcome_of(simulated_reply(config, QUESTION, "svt:power=2", i).text) == "refusal" for i in IDS[:300])


def test_failures_and_empty_replies_have_their_share():
    config = SimulatedGenerator(failed_share=0.1, broken_share=0.2)
    replies = [simulated_reply(config, QUESTION, "bare", i) for i in IDS]
    assert np.mean([bool(r.error) for r in replies]) == pytest.approx(0.1, abs=0.03)
    assert np.mean([not r.error and not r.text for r in replies]) == pytest.approx(0.18, abs=0.04)
    assert all(r.tokens_in + r.tokens_out for r in replies), "nothing of it is asked again"
