"""Questions with options: both orders, both readings, and what a reply chooses in the order of the plan."""

import numpy as np
import pyarrow as pa
import pytest

from valueflow.choices.questions import CHOICE, READINGS, ChoicePrompt, answers, check_readings, choice_of, plan
from valueflow.errors import InputError
from valueflow.llm.cache import Reply
from valueflow.llm.configs import EndpointModel, VllmModel
from valueflow.llm.question import NO_LOGPROBS, with_replies
from valueflow.store.rows import check_rows

PROMPT = ChoicePrompt("You are kind.", "Is it so?", ("Yes", "No", "Maybe"))
MODEL = EndpointModel(name="m", model="m", url="http://127.0.0.1:1", structured="choice", price={"tokens_in": 1e6})


def test_a_prompt_has_the_options_in_both_orders_and_the_letters_in_one():
    assert PROMPT.text(False).startswith("You are kind.\n\nQuestion: Is it so?\nA. Yes\nB. No\nC. Maybe\n")
    assert "\nA. Maybe\nB. No\nC. Yes\n" in PROMPT.text(True)
    assert PROMPT._replace(before="").text(False).startswith("Question: Is it so?")
    assert PROMPT.text(False).endswith("one option: A, B, C.")


def test_each_distinct_prompt_is_put_once_by_each_reading_in_each_order():
    other = PROMPT._replace(before="")
    calls = plan([PROMPT, other, PROMPT], READINGS)
    assert calls.num_rows == 2 * 2 * 2
    assert len(set(calls["choice_id"].to_pylist())) == 8
    texts = calls["text"].to_pylist()
    assert texts == sorted(texts, key=lambda text: not text.startswith("Question"))  # equal beginnings are neighbours


@pytest.mark.parametrize("options", [("only",), tuple(map(str, range(27)))])
def test_a_question_needs_two_options_and_a_letter_for_each(options):
    with pytest.raises(InputError, match="2 to 26"):
        plan([PROMPT._replace(options=options)], READINGS)


def test_shares_stand_in_the_order_of_the_options_whatever_was_shown():
    logprobs = np.log([0.7, 0.2, 0.05]).tolist()  # not all of the probability is on the letters
    shown = choice_of(Reply("A", "", 9, 1, None, logprobs), "probabilities", PROMPT.options, False)
    assert shown.shares == pytest.approx([0.7 / 0.95, 0.2 / 0.95, 0.05 / 0.95])
    turned = choice_of(Reply("A", "", 9, 1, None, logprobs), "probabilities", PROMPT.options, True)
    assert turned.shares == pytest.approx(shown.shares[::-1])
    assert choice_of(Reply("The answer is A.", "", 9, 5), "letter", PROMPT.options, True).shares == [0, 0, 1]
    assert choice_of(Reply("<think>B?</think>C", "", 9, 5), "letter", PROMPT.options, False).shares == [0, 0, 1]


def test_what_names_no_option_is_unread_and_what_failed_is_an_error():
    refused = choice_of(Reply("I'm sorry, I can't answer that.", "", 9, 9), "letter", PROMPT.options, False)
    assert (refused.shares, refused.unread, refused.error) == ([], "a refusal", "")
    assert choice_of(Reply("A or B", "", 9, 9), "letter", PROMPT.options, False).unread == "2 letters: A, B"
    assert choice_of(Reply("", "HTTP 500", 0, 0), "letter", PROMPT.options, False).error == "HTTP 500"
    assert choice_of(Reply("A", "", 9, 1), "probabilities", PROMPT.options, False).error == NO_LOGPROBS


def test_rows_of_choices_are_valid_and_averaged_over_both_orders():
    calls = plan([PROMPT], ["probabilities"])
    replies = [Reply("A", "", 9, 1, None, np.log([0.8, 0.1, 0.1]).tolist()) for _ in range(2)]
    rows = CHOICE.read(with_replies(calls, replies), MODEL)
    check_rows("choices", rows.drop_columns(["folder"]), "part-0.parquet", True)
    assert rows["cost"].to_pylist() == [9, 9]
    found = answers(rows, "probabilities")[PROMPT.prompt_id]
    # The model says A whatever stands there: the mean over both orders knows no better than a tie.
    assert found.share_O == pytest.approx([0.45, 0.1, 0.45])
    assert (found.consistent, found.unread) == (False, 0)
    assert answers(rows, "letter") == {}


def test_one_order_without_an_option_leaves_the_other():
    calls = plan([PROMPT], ["letter"])
    rows = CHOICE.read(with_replies(calls, [Reply("B", "", 9, 1), Reply("no idea", "", 9, 2)]), MODEL)
    found = answers(rows, "letter")[PROMPT.prompt_id]
    assert (found.share_O.tolist(), found.consistent, found.unread) == ([0, 1, 0], None, 1)
    none = CHOICE.read(with_replies(calls, [Reply("no idea", "", 9, 2)] * 2), MODEL)
    assert answers(none, "letter")[PROMPT.prompt_id].share_O is None


def test_json_has_no_log_probabilities():
    check_readings(MODEL, READINGS)
    check_readings(VllmModel(name="v", model="x"), READINGS)
    as_json = MODEL.model_copy(update={"structured": "json_schema"})
    check_readings(as_json, ["letter"])
    with pytest.raises(InputError, match="structured"):
        check_readings(as_json, ["letter", "probabilities"])


def test_logprobs_pass_through_a_batch_of_replies():
    table = with_replies(pa.table({"choice_id": ["1", "2"]}), [Reply("A", "", 1, 1, None, [-0.1, -2.0]), Reply("A", "", 1, 1)])
    assert table["logprobs"].to_pylist() == [[-0.1, -2.0], None]
