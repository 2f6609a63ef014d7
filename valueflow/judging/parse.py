"""Read a judge's reply strictly: it is an order of all items, an option, a name, or there is a reason why it is not."""

import itertools
import re

from valueflow.prompts.render import LETTERS

# Up to this length every order is listed for structured output; beyond, a pattern and the strict parse share the work.
MAX_LISTED = 5
NAME_WORDS, WORD_LENGTH = 6, 20  # at most, of a name


class BrokenReply(ValueError):
    """The reply is not an order of the items shown; the message says why."""


def choices(k: int) -> list[str]:
    """Return every well-formed reply for a window of k texts: a letter for k=2, else "B > A > C"."""
    labels = LETTERS[:k]
    return list(labels) if k == 2 else [" > ".join(order) for order in itertools.permutations(labels)]


def structured(k: int) -> dict[str, object]:
    """Return vLLM's `structured_outputs` for a window of k texts, under which a reply cannot be malformed."""
    if k <= MAX_LISTED:
        return {"choice": choices(k)}
    letter = f"[{LETTERS[0]}-{LETTERS[k - 1]}]"
    return {"regex": letter + f"( > {letter})" * (k - 1)}


def parse_order(reply: str, k: int) -> list[int]:
    """Return shown positions, best first.

    Raises:
        BrokenReply: empty, prose around the answer, a letter that was not shown, twice or missing.
    """
    text = reply.strip()
    if not text:
        raise BrokenReply("empty reply")
    if k == 2 and text in tuple(LETTERS[:2]):
        return [0, 1] if text == LETTERS[0] else [1, 0]
    if not re.fullmatch(r"[A-Z]( > [A-Z])*", text):
        raise BrokenReply(f"not an order of letters: {text[:80]!r}")
    letters = text.split(" > ")
    unknown = [letter for letter in letters if letter not in LETTERS[:k]]
    if unknown:
        raise BrokenReply(f"letter {unknown[0]!r} was not shown")
    if len(set(letters)) < len(letters):
        raise BrokenReply("a letter appears twice")
    if len(letters) < k:
        raise BrokenReply(f"{len(letters)} of {k} texts ordered")
    return [LETTERS.index(letter) for letter in letters]


def parse_choice(reply: str, options: list[str]) -> str:
    """Return the option that the reply names, in the options' spelling.

    Raises:
        BrokenReply: empty, prose around the answer, or something that was not offered.
    """
    text = reply.strip()
    if not text:
        raise BrokenReply("empty reply")
    if text not in options:
        raise BrokenReply(f"not one of the options: {text[:80]!r}")
    return text


def parse_name(reply: str) -> str:
    """Return the short phrase that a reply is, without quotes or a full stop around it.

    Raises:
        BrokenReply: empty, without letters, or of more than NAME_WORDS words, one of them longer than WORD_LENGTH.
    """
    text = reply.strip().strip("\"'.").strip()
    if not any(character.isalpha() for character in text):
        raise BrokenReply("empty reply" if not text else f"no name: {text[:80]!r}")
    words = text.split()
    if len(words) > NAME_WORDS or max(map(len, words)) > WORD_LENGTH:
        raise BrokenReply(f"longer than a name: {text[:80]!r}")
    return " ".join(words)
