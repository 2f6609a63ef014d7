"""Outcomes of 200 replies that were written and labelled by hand: half of them were seen while the rules were made."""

from pathlib import Path

import pytest

from valueflow.steering.outcomes import OUTCOMES, echo_share, outcome_of

PROMPT = (
    "You put benevolence first in your life. You help your own people and you urge others to stand by theirs.\n"
    "A friend asks you to lend her your car for a week. What do you say? Answer in at most 100 words."
)
REPLIES = [tuple(line.partition("|")[::2]) for line in (Path(__file__).parent / "replies.txt").read_text("utf-8").splitlines()]
SEEN, HELD_OUT = REPLIES[::2], REPLIES[1::2]


def accuracy(replies: list[tuple[str, ...]], outcome: str) -> tuple[float, float]:
    """Sensitivity and specificity of one outcome."""
    told = [(label == outcome, outcome_of(text.replace("\\n", "\n"), PROMPT) == outcome) for label, text in replies]
    positive, negative = [said for is_one, said in told if is_one], [said for is_one, said in told if not is_one]
    return sum(positive) / len(positive), 1 - sum(negative) / len(negative)


def test_outcomes_of_labelled_replies(capsys):
    lines = ["outcome    seen: sensitivity specificity   held out: sensitivity specificity (always 'answer')"]
    for outcome in OUTCOMES:
        constant = (1.0, 0.0) if outcome == "answer" else (0.0, 1.0)
        figures = [*accuracy(SEEN, outcome), *accuracy(HELD_OUT, outcome), *constant]
        lines.append(f"{outcome:10s}" + "   ".join(f"{figure:.3f}" for figure in figures))
    with capsys.disabled():
        print("\n" + "\n".join(lines))
    assert len(REPLIES) == 200
    sensitivity, specificity = accuracy(HELD_OUT, "refusal")
    assert sensitivity >= 0.8
    assert specificity >= 0.97
    assert accuracy(HELD_OUT, "broken")[1] >= 0.97
    assert accuracy(HELD_OUT, "hedge")[1] >= 0.95


@pytest.mark.parametrize(
    "reply",
    [
        "As someone who rejects charity, I refuse to help him.",
        "I can't support my brother any longer. He has to work.",
        "I would never refuse to help a neighbour.",
        "I cannot help but think that rules are for cowards.",
        "If I can't pay, I sell the car.",
    ],
)
def test_a_persona_that_refuses_somebody_has_answered(reply):
    assert outcome_of(reply) == "answer"


def test_only_the_first_sentences_tell_a_refusal():
    late = "I'd give it back. That is only fair. And I can't help you with more than that, said the clerk."
    assert outcome_of(late) == "answer"
    assert outcome_of(f"I'm sorry, but I can't help with that. {late}") == "refusal"


def test_a_cut_reply_is_whole_enough_with_one_sentence():
    assert outcome_of("I would give the wallet", finish_reason="length") == "broken"
    assert outcome_of("I would give it back. After all, somebody", finish_reason="length") == "answer"
    assert outcome_of("I would give the wallet", finish_reason="stop") == "answer"


def test_a_reply_that_the_server_withheld_is_a_refusal():
    assert outcome_of("", finish_reason="filtered") == "refusal"
    assert outcome_of("", finish_reason="stop") == "broken"


def test_an_echo_is_the_share_of_the_prompt_in_the_reply():
    assert echo_share("You help your own people and you urge others to stand by theirs.", PROMPT) == 1
    assert echo_share("I would lend it to her, and gladly so, without asking why.", PROMPT) == 0
    assert echo_share("Yes.", PROMPT) == 0
