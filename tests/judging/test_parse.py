"""Only exact orders are valid; every kind of invalid reply has its reason."""

import itertools
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mutations import within

from valueflow.judging.parse import order_constraint, parse_choice, parse_order, valid_orders
from valueflow.llm.answer_text import InvalidReply
from valueflow.prompts.render import LETTERS


def written(order: list[int]) -> str:
    return " > ".join(LETTERS[i] for i in order)


@given(st.integers(2, 8).flatmap(lambda k: st.permutations(range(k))))
def test_every_order_comes_back(order):
    assert parse_order(written(order), len(order)) == order
    assert parse_order(f" {written(order)}\n", len(order)) == order


@pytest.mark.parametrize("k", [2, 3, 4, 5])
def test_every_choice_replies_is_a_different_order(k):
    replies = valid_orders(k)
    assert sorted(map(tuple, (parse_order(reply, k) for reply in replies))) == sorted(itertools.permutations(range(k)))
    assert order_constraint(k) == {"choice": replies}


@given(st.integers(6, 10).flatmap(lambda k: st.permutations(range(k))))
def test_beyond_five_a_pattern_admits_every_order(order):
    pattern = order_constraint(len(order))["regex"]
    assert re.fullmatch(pattern, written(order))
    assert not re.fullmatch(pattern, written(order[:-1]))


def test_a_single_letter_is_an_order_of_two_only():
    assert parse_order("A", 2) == [0, 1]
    assert parse_order("B\n", 2) == [1, 0]
    with pytest.raises(InvalidReply, match="1 of 3 texts ordered"):
        parse_order("A", 3)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("", "empty reply"),
        (" \n\t", "empty reply"),
        ("A > B > D", "letter 'D' is not in the window"),
        ("A > Z > B", "letter 'Z' is not in the window"),
        ("A > B > A", "a letter appears twice"),
        ("A > B > C > A", "a letter appears twice"),
        ("A > B", "2 of 3 texts ordered"),
        ("C", "1 of 3 texts ordered"),
        ("The order is A > B > C", "not an order of letters"),
        ("A > B > C.", "not an order of letters"),
        ("A > B > C\nbecause A helps", "not an order of letters"),
        ("A > B > C\nA > C > B", "not an order of letters"),
        ("A>B>C", "not an order of letters"),
        ("A, B, C", "not an order of letters"),
        ("A < B < C", "not an order of letters"),
        ("A = B > C", "not an order of letters"),
        ("A > > B > C", "not an order of letters"),
        ("a > b > c", "not an order of letters"),
        ("[1, 2, 3]", "not an order of letters"),
        ("1 > 2 > 3", "not an order of letters"),
        ("\u0410 > B > C", "not an order of letters"),  # a Cyrillic A
        ("A > B > C >", "not an order of letters"),
        ("> A > B > C", "not an order of letters"),
    ],
)
def test_each_invalid_reply_has_its_reason(reply, reason):
    with pytest.raises(InvalidReply) as invalid:
        parse_order(reply, 3)
    assert str(invalid.value).startswith(reason)


THOUGHT = "<think>\nA is about a meal; B > A, so A\n</think>\n\n"


@pytest.mark.parametrize(
    "reply",
    [
        f"{THOUGHT}B > C > A",
        THOUGHT.removeprefix("<think>") + "B > C > A",  # the template has written the opening tag
        f"\n {THOUGHT}B > C > A\n",
        "<think></think>B > C > A",
        "<thinking>A > B > C</thinking>\nB > C > A",
        "[THINK]A[/THINK]B > C > A",
        "◁think▷A◁/think▷B > C > A",
        '{"answer": "B > C > A"}',
        '```json\n{"answer": "B > C > A"}\n```',
        "```\nB > C > A\n```",
        f'{THOUGHT}```json\n{{"why": "C > A > B", "answer": "B > C > A"}}\n```',
    ],
)
def test_what_stands_around_an_answer_is_dropped(reply):
    assert parse_order(reply, 3) == [1, 2, 0]
    assert parse_choice(reply, ["A > B > C", "B > C > A"]) == "B > C > A"


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("<think>B", "the model was still thinking"),
        ("<think>\nA or B?\n\nB\n", "the model was still thinking"),
        (THOUGHT, "the reply ends with the model's thinking"),
        (f"A\n{THOUGHT}B", "not an order"),  # an answer before the block
        (f"{THOUGHT}A\n{THOUGHT}B", "not an order"),  # a second block
        (f"{THOUGHT}I say B", "not an order"),
        ('{"answer": "A", "answer": "B"}', "the answer is JSON without"),
        ('{"order": "A"}', "the answer is JSON without"),
        ('{"answer": ["B"]}', "the answer is JSON without"),
        ('{"answer": "B"} because', "not an order"),
        ("```\nA\n```\nor\n```\nB\n```", "not an order"),
    ],
)
def test_a_letter_elsewhere_in_a_reply_is_no_answer(reply, reason):
    with pytest.raises(InvalidReply, match=reason):
        parse_order(reply, 2)


def test_a_rating_may_be_a_number_of_json():
    assert parse_choice('{"answer": -3}', ["-3", "3"]) == "-3"
    with pytest.raises(InvalidReply):
        parse_choice('{"answer": true}', ["1", "0"])


def test_a_long_reply_is_quoted_in_part():
    with pytest.raises(InvalidReply) as invalid:
        parse_order("blah " * 1000, 3)
    assert len(str(invalid.value)) < 120


@given(st.text() | st.text("ABC> \n"), st.integers(2, 10))
@example("AB", 2)
def test_any_reply_is_an_order_or_invalid(reply, k):
    try:
        order = parse_order(reply, k)
    except InvalidReply:
        return
    assert sorted(order) == list(range(k))
    assert reply.strip() in (written(order), LETTERS[order[0]])


def test_a_fence_that_is_not_closed_is_refused_at_once():
    with within(5), pytest.raises(InvalidReply):
        parse_order("```\n" + " " * 60_000 + "x", 2)
