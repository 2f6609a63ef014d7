"""Questions to an LLM and its replies, as columns of a batch."""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import pyarrow as pa

from valueflow.llm.answer_text import InvalidReply, answer_text
from valueflow.llm.cache import Reply
from valueflow.llm.configs import AnyLlm

# Columns of a batch of replies; see `cache.Reply`.
REPLY = {
    "reply": pa.string(), "failure": pa.string(), "tokens_in": pa.int32(), "tokens_out": pa.int32(),
    "first_probability": pa.float64(),
}  # fmt: skip
# The end of an answer or of a turn, which some servers list among the tokens of an answer.
_SPECIAL_TOKEN = re.compile(r"<\S+>|\[\S+\]")


class Question(NamedTuple):
    """One call: chat messages, and a constraint on the answer in the form of vLLM's structured outputs; None: free text."""

    messages: list[dict[str, str]]
    constraint: dict[str, object] | None
    max_tokens: int
    logprobs: bool = False

    @property
    def options(self) -> list[str]:
        """The answers to choose from; none if the constraint is not a choice."""
        options = (self.constraint or {}).get("choice", [])
        return list(options) if isinstance(options, list) else []


class Task(NamedTuple):
    """One type of question: the plan's columns, the question of a row, and the answer table of a batch of replies.

    A batch of questions carries `columns`, those of its plan and the texts, and `folder` (where its answers are written); a
    batch of replies carries the columns of `REPLY` as well.
    """

    table: str
    id_column: str
    columns: tuple[str, ...]
    question: Callable[[dict, AnyLlm], Question]
    read: Callable[[pa.Table, AnyLlm], pa.Table]


def with_replies(batch: pa.Table, replies: list[Reply]) -> pa.Table:
    """Return the batch with the columns of replies, one reply per row."""
    columns = list(zip(*replies, strict=True)) or [()] * len(REPLY)
    for (name, kind), column in zip(REPLY.items(), columns, strict=True):
        batch = batch.append_column(name, pa.array(column, kind))
    return batch


class SampledToken(NamedTuple):
    """One token of an answer: its text, its log-probability (nan: unknown), and the alternatives, which may hold it."""

    text: str
    logprob: float
    alternatives: list[tuple[str, float]]


def option_probability(tokens: Sequence[SampledToken], reply: str, options: list[str]) -> float | None:
    """Return P(first option | one of the options) at the token that is the answer.

    A model may think, open a line or quote its answer before the token that is the answer, and only white space, quotes and
    special tokens may follow it.

    Args:
        tokens: of the whole reply, in their order.
        reply: its text.
        options: the answers to choose from.

    Returns:
        A probability; None if no token is the answer, or if none of its alternatives is an option.
    """
    try:
        answer = answer_text(reply)
    except InvalidReply:
        return None
    for token in reversed(tokens if answer in options else []):
        text = token.text.strip()
        if text == answer:
            listed = {alternative for alternative, _ in token.alternatives}
            if first_option_probability(token.alternatives, options) is None:
                return None
            sampled = [] if token.text in listed else [(token.text, token.logprob)]  # too improbable to be listed
            return first_option_probability([*token.alternatives, *sampled], options)
        if re.search(r"\w", text) and not _SPECIAL_TOKEN.fullmatch(text):
            return None
    return None


def first_option_probability(logprobs: Iterable[tuple[str, float]], options: list[str]) -> float | None:
    """Return P(first option | one of the options) by the alternatives of one token.

    Args:
        logprobs: token and log-probability of each alternative; tokens may have white space around them.
        options: the answers to choose from.

    Returns:
        A probability; None if no alternative is an option.
    """
    probability: dict[str, float] = {}
    for token, logprob in logprobs:
        option = token.strip()
        if option in options and not math.isnan(logprob):
            # Rounding may put a log-probability above 0.
            probability[option] = probability.get(option, 0.0) + math.exp(min(logprob, 0.0))
    total = sum(probability.values())
    return probability.get(options[0], 0.0) / total if total else None
