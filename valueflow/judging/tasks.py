"""The questions that LLM judges answer: rank a window, vote on a ballot; and reading their replies."""

import pyarrow as pa

from valueflow.judging.answers import answers, votes
from valueflow.judging.parse import order_constraint, parse_choice, parse_order
from valueflow.llm.answer_text import InvalidReply
from valueflow.llm.configs import AnyLlm
from valueflow.llm.question import Question, Task
from valueflow.prompts.render import RELEVANCE, rank_messages, relevance_messages, vote_messages
from valueflow.records import SCHEMAS, ValueId


def _rank_question(row: dict, judge: AnyLlm) -> Question:
    k = len(row["texts"])
    if k == 1:
        messages = relevance_messages(ValueId.of(row["theory"], row["value"]), row["texts"][0], judge.max_chars)
        return Question(messages, {"choice": list(RELEVANCE)}, 8, judge.logprobs)
    messages = rank_messages(ValueId.of(row["theory"], row["value"]), list(row["texts"]), judge.max_chars)
    return Question(messages, order_constraint(k), 2 * k + 4, judge.logprobs and k == 2)


def _read_ranking(batch: pa.Table, judge: AnyLlm) -> pa.Table:
    orders: list[list[int] | None] = []
    errors: list[str | None] = []
    weights: list[float | None] = []
    relevances: list[float | None] = []
    for ids, reply, failure, probability in _rows(batch, "text_ids", "reply", "failure", "first_probability"):
        order, error, weight, relevance = None, failure or None, None, None
        if not failure:
            try:
                if len(ids) == 1:
                    is_none = parse_choice(reply, list(RELEVANCE)) == RELEVANCE[0]
                    order, relevance = [0], 1 - (float(is_none) if probability is None else probability)
                else:
                    order = parse_order(reply, len(ids))
                if probability is not None and len(ids) == 2:
                    weight = probability if order == [0, 1] else 1 - probability
            except InvalidReply as invalid:
                error = str(invalid)
        orders.append(order)
        errors.append(error)
        weights.append(weight)
        relevances.append(relevance)
    tokens = (batch["tokens_in"].to_pylist(), batch["tokens_out"].to_pylist())
    replies = batch["reply"].to_pylist()
    return answers(batch, judge.name, orders, replies, errors, weights, *tokens, judge.max_chars, relevances)


def _vote_question(row: dict, judge: AnyLlm) -> Question:
    options = list(row["options"])
    longest = max(len(option) for option in options)
    return Question(vote_messages(row, row["text"], judge.max_chars), {"choice": options}, longest // 2 + 8)


def _read_vote(batch: pa.Table, judge: AnyLlm) -> pa.Table:
    choices: list[str | None] = []
    errors: list[str | None] = []
    for options, reply, failure in _rows(batch, "options", "reply", "failure"):
        choice, error = None, failure or None
        if not failure:
            try:
                choice = parse_choice(reply, options)
            except InvalidReply as invalid:
                error = str(invalid)
        choices.append(choice)
        errors.append(error)
    return votes(batch, judge.name, choices, errors, judge.price, judge.max_chars)


def _rows(batch: pa.Table, *names: str) -> zip:
    return zip(*(batch[name].to_pylist() for name in names), strict=True)


RANK = Task("rankings", "window_id", (*SCHEMAS["windows"].names, "texts"), _rank_question, _read_ranking)
VOTE = Task("votes", "vote_id", ("vote_id", *SCHEMAS["ballots"].names, "text"), _vote_question, _read_vote)
