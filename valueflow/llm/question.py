"""Questions to an LLM and its replies, as columns of a batch."""

import asyncio
import math
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from valueflow.llm.answer_text import InvalidReply, answer_text
from valueflow.llm.cache import Reply
from valueflow.llm.configs import AnyLlm

# Columns of a batch of replies; see `cache.Reply`.
REPLY = {
    "reply": pa.string(), "failure": pa.string(), "tokens_in": pa.int32(), "tokens_out": pa.int32(),
    "first_probability": pa.float64(), "finish_reason": pa.string(), "prompt_hash": pa.string(),
    "reasoning_tokens": pa.int32(), "logprobs": pa.list_(pa.float64()),
}  # fmt: skip
_ATTRIBUTES = {"reply": "text", "failure": "error"}  # of `cache.Reply`, where the column has another name
# The end of an answer or of a turn, which some servers list among the tokens of an answer.
_SPECIAL_TOKEN = re.compile(r"<\S+>|\[\S+\]")
SMALLEST = 1e-9  # probability that a log-probability is taken of
NO_LOGPROBS = "the reply has no log-probabilities of the options"


class Question(NamedTuple):
    """One call: chat messages, and a constraint on the answer in the form of vLLM's structured outputs; None: free text.

    `sampling` holds every sampling field of a free text, in the place of the LLM's temperature; None: the LLM's.
    """

    messages: list[dict[str, str]]
    constraint: dict[str, object] | None
    max_tokens: int
    logprobs: bool = False
    alternatives: int = 5  # listed for each token, with `logprobs`; some servers refuse a larger number
    needs_logprobs: bool = False  # a reply without log-probabilities of the options is an error
    sampling: Mapping[str, Any] | None = None

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
    for name, kind in REPLY.items():
        column = [getattr(reply, _ATTRIBUTES.get(name, name)) for reply in replies]
        batch = batch.append_column(name, pa.array(column, kind))
    return batch


def replies_of(batch: pa.Table) -> list[Reply]:
    """Return the replies in the columns of a batch."""
    columns = [batch[name].to_pylist() for name in REPLY]
    names = [_ATTRIBUTES.get(name, name) for name in REPLY]
    return [Reply(**dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]


# A question and its round -> the reply, None if it was not put: no budget, or not in the cache.
AskLlm = Callable[[Question, int], Awaitable[Reply | None]]


async def ask_all(
    batch: pa.Table, task: Task, config: AnyLlm, ask: AskLlm, unreadable: Callable[[str], None] = lambda _: None
) -> pa.Table:  # fmt: skip
    """Return the answers to a batch whose questions are put at once; rows whose question was not put are left out.

    `unreadable` is called with the error of each reply that came and is no answer.
    """
    replies = await asyncio.gather(*(ask(task.question(row, config), row["round"]) for row in batch.to_pylist()))
    put = pa.array([n for n, reply in enumerate(replies) if reply is not None], pa.int64())
    given = [reply for reply in replies if reply is not None]
    answers = task.read(with_replies(batch.take(put), given), config)
    for reply, error in zip(given, answers["error"].to_pylist(), strict=True):
        if error and not reply.error:
            unreadable(error)
    return answers


class SampledToken(NamedTuple):
    """One token of an answer: its text, its log-probability (nan: unknown), and the alternatives, which may hold it."""

    text: str
    logprob: float
    alternatives: list[tuple[str, float]]


def option_probability(tokens: Sequence[SampledToken], reply: str, options: list[str]) -> float | None:
    """Return P(first option | one of the options) at the token that is the answer.

    Args:
        tokens: of the whole reply, in their order.
        reply: its text.
        options: the answers to choose from.

    Returns:
        A probability; None if no token is the answer, or if none of its alternatives is an option.
    """
    token = _answer_token(tokens, reply, options)
    if token is None or first_option_probability(token.alternatives, options) is None:
        return None
    return first_option_probability(_with_sampled(token), options)


def option_logprobs(tokens: Sequence[SampledToken], reply: str, options: list[str]) -> list[float] | None:
    """Return the log-probability of each option at the token that is the answer.

    A reply that is none of the options was given all the same by a model that had a probability for each of them where its
    reply begins: those count. An option that the server did not list has at most the smallest log-probability that it did
    list, and at most the probability that the listed ones leave: it gets the smaller of both.

    Returns:
        One number per option; None if the server sent no log-probabilities, or none of an option.
    """
    token = _answer_token(tokens, reply, options)
    if token is None and tokens and not _is_option(reply, options):
        token = tokens[0]
    alternatives = (
        [(text, min(logprob, 0.0)) for text, logprob in _with_sampled(token) if not math.isnan(logprob)] if token else []
    )
    if not any(text.strip() in options for text, _ in alternatives):
        return None
    rest = 1 - sum(math.exp(logprob) for _, logprob in alternatives)
    bound = min(min(logprob for _, logprob in alternatives), math.log(max(rest, SMALLEST)))
    listed = [[logprob for text, logprob in alternatives if text.strip() == option] for option in options]
    return [math.log(max(sum(map(math.exp, logprobs)), SMALLEST)) if logprobs else bound for logprobs in listed]


def _is_option(reply: str, options: list[str]) -> bool:
    try:
        return answer_text(reply) in options
    except InvalidReply:
        return False


def _with_sampled(token: SampledToken) -> list[tuple[str, float]]:
    """The alternatives of a token, and the token itself if it is too improbable to be listed."""
    listed = {alternative for alternative, _ in token.alternatives}
    return [*token.alternatives, *([] if token.text in listed else [(token.text, token.logprob)])]


def _answer_token(tokens: Sequence[SampledToken], reply: str, options: list[str]) -> SampledToken | None:
    """The token that is the answer, None if there is none.

    A model may think, open a line or quote its answer before it, and only white space, quotes and special tokens may follow it.
    """
    if not _is_option(reply, options):
        return None
    answer = answer_text(reply)
    for token in reversed(tokens):
        text = token.text.strip()
        if text == answer:
            return token
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
