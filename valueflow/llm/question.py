"""A question to a language model and its reply, as columns of a batch."""

from collections.abc import Callable
from typing import NamedTuple

import pyarrow as pa

from valueflow.judging.configs import AnyJudge
from valueflow.llm.cache import Reply, call_key
from valueflow.llm.configs import LlmModel, VllmModel

REPLY = {"reply": pa.string(), "failure": pa.string(), "tokens_in": pa.int32(), "tokens_out": pa.int32(), "first": pa.float64()}


class Question(NamedTuple):
    """One call: chat messages and how the answer is constrained (vLLM's structured-outputs form)."""

    messages: list[dict[str, str]]
    constraint: dict[str, object]
    max_tokens: int
    logprobs: bool = False


class Task(NamedTuple):
    """What is asked: the plan's columns, a row's question, and the answer table of a batch of replies."""

    table: str
    id_column: str
    columns: tuple[str, ...]
    question: Callable[[dict, LlmModel], Question]
    read: Callable[[pa.Table, AnyJudge], pa.Table]


def sampling(question: Question, judge: VllmModel) -> dict:
    """Return vLLM's sampling parameters of a question."""
    settings = {
        "temperature": judge.temperature, "max_tokens": question.max_tokens, "structured_outputs": question.constraint,
    }  # fmt: skip
    return settings | ({"logprobs": 5} if question.logprobs else {})


def vllm_key(question: Question, judge: VllmModel, round_: int) -> str:
    """Return the call's key in the cache; quantisation, data type and the like are part of what answers."""
    model = f"vllm {judge.model} {sorted(judge.engine.items())}"
    return call_key(model, judge.revision, question.messages, sampling(question, judge), round_)


def with_replies(batch: pa.Table, replies: list[Reply]) -> pa.Table:
    """Add the columns of replies, one a row."""
    columns = [
        [r.text for r in replies], [r.error for r in replies], [r.tokens_in for r in replies],
        [r.tokens_out for r in replies], [r.first for r in replies],
    ]  # fmt: skip
    for (name, kind), column in zip(REPLY.items(), columns, strict=True):
        batch = batch.append_column(name, pa.array(column, kind))
    return batch
