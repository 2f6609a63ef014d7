"""A question with lettered options, put with the options in their order and reversed, and the shares of the options in a reply.

Models prefer some letters whatever stands beside them; the mean over both orders takes most of that away. There are two
readings, since the letter that an instruction model would begin with and the option that its text names differ (2402.14499):

- *probabilities*: log-probabilities of the letters where the answer stands, scaled to sum to 1;
- *letter*: the option that a free reply names, read strictly; a refusal or two letters name none.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pyarrow as pa

from valueflow.choices.letters import LETTERS, parse_letter
from valueflow.errors import InputError
from valueflow.llm.answer_text import InvalidReply, without_thinking
from valueflow.llm.cache import Reply
from valueflow.llm.configs import AnyLlm, EndpointModel
from valueflow.llm.question import NO_LOGPROBS, Question, Task, replies_of
from valueflow.records import SCHEMAS, conform, digest

Reading = Literal["probabilities", "letter"]
READINGS: tuple[Reading, ...] = get_args(Reading)
LETTER_TOKENS, REPLY_TOKENS = 8, 48  # of an answer that is a letter, and of a free one
ALTERNATIVES = 20  # of a token, the most that OpenAI and vLLM list by default
PLAN = pa.schema(
    [
        ("choice_id", pa.string()), ("round", pa.int32()), ("prompt_id", pa.string()), ("text", pa.string()),
        ("options", pa.list_(pa.string())), ("reading", pa.string()), ("reverse", pa.bool_()), ("folder", pa.string()),
    ]
)  # fmt: skip


class ChoicePrompt(NamedTuple):
    """A question and what comes before it ("": nothing); `options` are in the order of the letters."""

    before: str
    question: str
    options: tuple[str, ...]

    @property
    def prompt_id(self) -> str:
        """Hash of all that a model is shown."""
        return digest("choice", *self)

    def text(self, reverse: bool) -> str:
        """Return what a model reads; with `reverse` the options are in the other order, and the letters stay in theirs."""
        options = self.options[::-1] if reverse else self.options
        lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)]
        task = f"Answer with the letter of one option: {', '.join(LETTERS[: len(options)])}."
        return "\n".join([*([self.before, ""] if self.before else []), f"Question: {self.question}", *lines, task])


def plan(prompts: Iterable[ChoicePrompt], readings: Sequence[Reading]) -> pa.Table:
    """Return the calls of distinct prompts, each by every reading in both orders (`PLAN`).

    Prompts that begin alike are neighbours: an engine with a prefix cache reads the beginning once.

    Raises:
        InputError: a prompt has fewer than 2 options or more than there are letters.
    """
    distinct = sorted(set(prompts))
    for prompt in distinct:
        if not 2 <= len(prompt.options) <= len(LETTERS):
            raise InputError(f"question {prompt.question!r} has {len(prompt.options)} options; 2 to {len(LETTERS)} are allowed")
    rows = [
        {
            "choice_id": digest(prompt.prompt_id, reading, reverse), "round": 0, "prompt_id": prompt.prompt_id,
            "text": prompt.text(reverse), "options": list(prompt.options), "reading": reading, "reverse": reverse, "folder": "",
        }
        for prompt in distinct for reading in readings for reverse in (False, True)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, PLAN)


def check_readings(model: AnyLlm, readings: Sequence[Reading]) -> None:
    """Raise InputError where a model cannot be read so."""
    if "probabilities" in readings and isinstance(model, EndpointModel) and model.structured == "json_schema":
        raise InputError(
            f"models: {model.name!r} is to be read by log-probabilities, which structured: json_schema rules out; set "
            "structured to choice (vLLM) or none, or readings to [letter]"
        )


def _question(row: dict[str, Any], _: AnyLlm) -> Question:
    messages = [{"role": "user", "content": row["text"]}]
    if row["reading"] == "letter":
        return Question(messages, None, REPLY_TOKENS)
    letters = list(LETTERS[: len(row["options"])])
    return Question(messages, {"choice": letters}, LETTER_TOKENS, True, ALTERNATIVES, needs_logprobs=True)


class Choice(NamedTuple):
    """What a reply chooses: shares of the options in their own order ([]: none), and why it names none."""

    shares: list[float]
    unread: str = ""
    error: str = ""


def choice_of(reply: Reply, reading: str, options: Sequence[str], reverse: bool) -> Choice:
    """Return the choice in a reply to a question with these options, in the order of the plan."""
    if reply.error:
        return Choice([], error=reply.error)
    if reading == "probabilities":
        if not reply.logprobs:
            return Choice([], error=NO_LOGPROBS)
        shown_O = np.exp(np.array(reply.logprobs) - max(reply.logprobs))
        shown_O /= shown_O.sum()
    else:
        try:
            text = without_thinking(reply.text)
        except InvalidReply as invalid:
            return Choice([], unread=str(invalid))
        found = parse_letter(text, options[::-1] if reverse else options)
        if found.option is None:
            return Choice([], unread=found.error)
        shown_O = np.eye(len(options))[found.option]
    return Choice((shown_O[::-1] if reverse else shown_O).tolist())


def _read(batch: pa.Table, model: AnyLlm) -> pa.Table:
    rows = []
    planned = batch.select(["choice_id", "prompt_id", "options", "reading", "reverse"]).to_pylist()
    for row, reply in zip(planned, replies_of(batch), strict=True):
        choice = choice_of(reply, row["reading"], row["options"], row["reverse"])
        rows.append(
            row | {
                "model": model.name, "shares": choice.shares, "unread": choice.unread, "error": choice.error or None,
                "reply": reply.text, "tokens_in": reply.tokens_in, "tokens_out": reply.tokens_out,
                "cost": model.price.of(reply.tokens_in, reply.tokens_out),
            }
        )  # fmt: skip
    table = conform(pa.Table.from_pylist(rows, SCHEMAS["choices"]), "choices")
    return table.append_column("folder", batch["folder"])


CHOICE = Task("choices", "choice_id", tuple(name for name in PLAN.names if name != "folder"), _question, _read)


class Answered(NamedTuple):
    """The answer to a prompt by one reading, both orders together.

    Attributes:
        share_O: mean share of each option over the orders that have an answer; None where neither has.
        consistent: whether both orders choose the same option; None unless both have an answer.
        unread: number of the two orders whose reply names no option.
    """

    share_O: np.ndarray | None
    consistent: bool | None
    unread: int


def answers(choices: pa.Table, reading: str) -> dict[str, Answered]:
    """Return the answers of one reading by prompt id."""
    shares: dict[str, list[list[float]]] = {}
    for row in choices.select(["prompt_id", "reading", "shares"]).to_pylist():
        if row["reading"] == reading:
            shares.setdefault(row["prompt_id"], []).append(row["shares"])
    found = {}
    for prompt_id, orders in shares.items():
        read = [np.array(share) for share in orders if share]
        agree = len({int(share.argmax()) for share in read}) == 1 if len(read) == 2 else None
        found[prompt_id] = Answered(np.mean(read, 0) if read else None, agree, len(orders) - len(read))
    return found
