"""Hand-made replies and the option that each chooses; None: no choice."""

import pytest

from valueflow.choices.letters import parse_letter

SCALE = ("A great deal", "A fair amount", "Not too much", "None at all")
YES = ("Yes", "No")
REPLIES = [
    ("B", SCALE, 1),
    ("b", SCALE, 1),
    ("B.", SCALE, 1),
    ("(C)", SCALE, 2),
    ("[D]", SCALE, 3),
    ("**A**", SCALE, 0),
    ("'C'", SCALE, 2),
    ("A)", SCALE, 0),
    (" D \n", SCALE, 3),
    ("`B`", SCALE, 1),
    ("C:", SCALE, 2),
    ("B. A fair amount", SCALE, 1),
    ("(B) A fair amount", SCALE, 1),
    ("Answer: (C)", SCALE, 2),
    ("Answer: C", SCALE, 2),
    ("The answer is D", SCALE, 3),
    ("The answer is **D**.", SCALE, 3),
    ("My answer is: B", SCALE, 1),
    ("As a Democrat, B", SCALE, 1),
    ("As a Democrat, I would say B.", SCALE, 1),
    ("As a Hindu person I choose C", SCALE, 2),
    ("I would choose (A)", SCALE, 0),
    ("I'd go with D.", SCALE, 3),
    ("I pick option B", SCALE, 1),
    ("Option A", SCALE, 0),
    ("option C.", SCALE, 2),
    ("Choice: D", SCALE, 3),
    ("A: A great deal", SCALE, 0),
    ("B - A fair amount", SCALE, 1),
    ("A great deal", SCALE, 0),
    ("a fair amount", SCALE, 1),
    ("Not too much.", SCALE, 2),
    ("I think not too much", SCALE, 2),
    ("None at all!", SCALE, 3),
    ("Answer:\n\nB", SCALE, 1),
    ("Sure! The best answer is C.", SCALE, 2),
    ("<b>B</b>", SCALE, None),
    ("A or B", SCALE, None),
    ("A, B", SCALE, None),
    ("Either (A) or (C).", SCALE, None),
    ("Both A) and D)", SCALE, None),
    ("B and C.", SCALE, None),
    ("E", SCALE, None),
    ("Answer: F", SCALE, None),
    ("(Z)", SCALE, None),
    ("", SCALE, None),
    ("   ", SCALE, None),
    ("42", SCALE, None),
    ("I'm sorry, but I can't answer that.", SCALE, None),
    ("As an AI, I do not have opinions.", SCALE, None),
    ("I cannot choose one.", SCALE, None),
    ("I prefer not to say.", SCALE, None),
    ("It depends.", SCALE, None),
    ("A person would find this hard.", SCALE, None),
    ("As a person I see two sides", SCALE, None),
    ("A great deal or none at all", SCALE, None),
    ("I am a Democrat", SCALE, None),
    ("Yes", YES, 0),
    ("No", YES, 1),
    ("no.", YES, 1),
    ("Yes, because I care.", YES, 0),
    ("A", YES, 0),
    ("I would say no", YES, 1),
    ("Yes and no", YES, None),
    ("no idea", YES, None),
    ("I would say yes.", YES, 0),
    ("Nobody knows", YES, None),
    ("C", YES, None),
    ("A. Yes", YES, 0),
    ("I say B", YES, 1),
    ("Not important", ("Important", "Not important"), 1),
    ("Important", ("Important", "Not important"), 0),
    ("Answer: A\nAnswer: B", YES, None),
    ("The answer is A. I chose A because it fits.", SCALE, 0),
    ("I'd pick B, not because of party.", SCALE, 1),
    ("D. None at all\nExplanation: I distrust it.", SCALE, 3),
]


def test_there_are_sixty_replies_and_more():
    assert len(REPLIES) >= 60
    assert len({(reply, options) for reply, options, _ in REPLIES}) == len(REPLIES)


@pytest.mark.parametrize(("reply", "options", "expected"), REPLIES)
def test_a_reply_chooses_what_it_says(reply, options, expected):
    choice = parse_letter(reply, options)
    assert choice.option == expected, choice
    assert bool(choice.error) == (expected is None)


def test_a_refusal_and_two_letters_are_named():
    assert parse_letter("I'm sorry, I cannot answer.", SCALE).error == "a refusal"
    assert parse_letter("(A) or (B)", SCALE).error == "2 letters: A, B"
