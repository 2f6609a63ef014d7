"""Parse a judge's reply strictly: its answer is an order of all items or one of the options, or there is a reason why not."""

import itertools
import re

from valueflow.llm.answer_text import InvalidReply, answer_text
from valueflow.prompts.render import LETTERS

# Up to this length every order is listed for structured output; longer orders need a pattern and the strict parser.
MAX_LISTED = 5


def valid_orders(k: int) -> list[str]:
    """Return every well-formed reply for a window of k texts: a letter for k=2, else "B > A > C"."""
    letters = LETTERS[:k]
    return list(letters) if k == 2 else [" > ".join(order) for order in itertools.permutations(letters)]


def order_constraint(k: int) -> dict[str, object]:
    """Return vLLM's `structured_outputs` for a window of k texts, under which a reply cannot be malformed."""
    if k <= MAX_LISTED:
        return {"choice": valid_orders(k)}
    letter = f"[{LETTERS[0]}-{LETTERS[k - 1]}]"
    return {"regex": letter + f"( > {letter})" * (k - 1)}


def parse_order(reply: str, k: int) -> list[int]:
    """Return the positions of a window of k texts, best first.

    Raises:
        InvalidReply: empty, prose around the answer, or a letter that is unknown, repeated or missing.
    """
    text = answer_text(reply)
    if not text:
        raise InvalidReply("empty reply")
    if k == 2 and text in tuple(LETTERS[:2]):
        return [0, 1] if text == LETTERS[0] else [1, 0]
    if not re.fullmatch(r"[A-Z]( > [A-Z])*", text):
        raise InvalidReply(f"not an order of letters: {text[:80]!r}")
    letters = text.split(" > ")
    unknown = [letter for letter in letters if letter not in LETTERS[:k]]
    if unknown:
        raise InvalidReply(f"letter {unknown[0]!r} is not in the window")
    if len(set(letters)) < len(letters):
        raise InvalidReply("a letter appears twice")
    if len(letters) < k:
        raise InvalidReply(f"{len(letters)} of {k} texts ordered")
    return [LETTERS.index(letter) for letter in letters]


def parse_choice(reply: str, options: list[str]) -> str:
    """Return the option that the reply names, in the options' spelling.

    Raises:
        InvalidReply: empty, prose around the answer, or none of the options.
    """
    text = answer_text(reply)
    if not text:
        raise InvalidReply("empty reply")
    if text not in options:
        raise InvalidReply(f"not one of the options: {text[:80]!r}")
    return text
