"""The echo control: a reply without the words of its prompt, so that a judge scores what the model adds.

A reply that repeats the value's name or whole phrases of the persona looks like expression of the value and is none.
"""

import re
from collections.abc import Iterable

from valueflow.records import ValueId
from valueflow.steering.wording import wording_table

MASK = "…"
MASKED_DATASET = " (masked)"  # end of the dataset of a masked reply
GRAM = 3  # words of a phrase of the prompt that is masked
_TOKEN = re.compile(r"[\w'’-]+")


def value_names(values: Iterable[ValueId]) -> list[str]:
    """Return the words that name values: the node's name and the name in the wording."""
    names: set[str] = set()
    for value in values:
        worded = wording_table().values[value].name
        names.update(name.lower() for name in (value.node.replace("-", " "), worded))
    return sorted(names, key=len, reverse=True)


def masked(reply: str, persona: str, values: Iterable[ValueId]) -> str:
    """Return a reply whose phrases of `GRAM` or more words of the persona, and names of the values, are one ellipsis each.

    Args:
        reply: text.
        persona: what the model was told.
        values: those of the condition.
    """
    tokens = list(_TOKEN.finditer(reply))
    words, of_persona = [t[0].lower() for t in tokens], [w.lower() for w in _TOKEN.findall(persona)]
    phrases = {tuple(of_persona[i : i + GRAM]) for i in range(len(of_persona) - GRAM + 1)}
    hidden = [False] * len(words)
    for i in range(len(words) - GRAM + 1):
        if tuple(words[i : i + GRAM]) in phrases:
            hidden[i : i + GRAM] = [True] * GRAM
    for name in value_names(values):
        parts = _TOKEN.findall(name)
        for i in range(len(words) - len(parts) + 1):
            if words[i : i + len(parts)] == parts:
                hidden[i : i + len(parts)] = [True] * len(parts)
    pieces, position = [], 0
    for token, is_hidden in zip(tokens, hidden, strict=True):
        pieces.append(reply[position : token.start()] + (MASK if is_hidden else token[0]))
        position = token.end()
    text = "".join([*pieces, reply[position:]])
    return re.sub(rf"{MASK}(?:[\s,;:]*{MASK})+", MASK, text).strip()
