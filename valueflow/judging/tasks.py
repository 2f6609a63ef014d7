"""What judges are asked, to rank windows, vote on ballots, name anchors: as questions to an LLM, and reading its replies.

A batch of questions carries the columns of its plan, `folder` (where its answers are written) and the texts; a batch of replies
carries `reply`, `failure`, `tokens_in`, `tokens_out` and `first` (see `cache.Reply`) beside the plan's columns.
"""

import pyarrow as pa

from valueflow.judging.answers import answers, votes
from valueflow.judging.configs import AnyJudge
from valueflow.judging.parse import NAME_WORDS, WORD_LENGTH, BrokenReply, parse_choice, parse_name, parse_order, structured
from valueflow.llm.configs import LlmModel
from valueflow.llm.question import Question, Task
from valueflow.prompts.render import name_messages, rank_messages, vote_messages
from valueflow.records import SCHEMAS, ValueId, conform


def _rank_question(row: dict, judge: LlmModel) -> Question:
    k = len(row["texts"])
    messages = rank_messages(ValueId.of(row["theory"], row["value"]), list(row["texts"]), judge.max_chars)
    return Question(messages, structured(k), 2 * k + 4, judge.logprobs and k == 2)


def _read_ranking(batch: pa.Table, judge: AnyJudge) -> pa.Table:
    orders: list[list[int] | None] = []
    errors: list[str | None] = []
    weights: list[float | None] = []
    for ids, reply, failure, first in _rows(batch, "text_ids", "reply", "failure", "first"):
        order, error, weight = None, failure or None, None
        if not failure:
            try:
                order = parse_order(reply, len(ids))
                if first is not None and len(ids) == 2:
                    weight = first if order == [0, 1] else 1 - first
            except BrokenReply as broken:
                error = str(broken)
        orders.append(order)
        errors.append(error)
        weights.append(weight)
    tokens = (batch["tokens_in"].to_pylist(), batch["tokens_out"].to_pylist())
    return answers(batch, judge.name, orders, batch["reply"].to_pylist(), errors, weights, *tokens)


def _vote_question(row: dict, judge: LlmModel) -> Question:
    options = list(row["options"])
    longest = max(len(option) for option in options)
    return Question(vote_messages(row, row["text"], judge.max_chars), {"choice": options}, longest // 2 + 8)


def _read_vote(batch: pa.Table, judge: AnyJudge) -> pa.Table:
    choices: list[str | None] = []
    errors: list[str | None] = []
    for options, reply, failure in _rows(batch, "options", "reply", "failure"):
        choice, error = None, failure or None
        if not failure:
            try:
                choice = parse_choice(reply, options)
            except BrokenReply as broken:
                error = str(broken)
        choices.append(choice)
        errors.append(error)
    return votes(batch, judge, choices, errors)


def _name_question(row: dict, judge: LlmModel) -> Question:
    word = f"[A-Za-z'-]{{1,{WORD_LENGTH}}}"
    pattern = f"[A-Za-z]{word}( {word}){{1,{NAME_WORDS - 1}}}"
    return Question(name_messages(list(row["texts"]), judge.max_chars), {"regex": pattern}, 6 * NAME_WORDS)


def _read_name(batch: pa.Table, judge: AnyJudge) -> pa.Table:
    names: list[str | None] = []
    errors: list[str | None] = []
    for reply, failure in _rows(batch, "reply", "failure"):
        name, error = None, failure or None
        if not failure:
            try:
                name = parse_name(reply)
            except BrokenReply as broken:
                error = str(broken)
        names.append(name)
        errors.append(error)
    table = batch.append_column("judge", pa.array([judge.name] * len(names), pa.string()))
    table = table.append_column("name", pa.array(names, pa.string())).append_column("error", pa.array(errors, pa.string()))
    return conform(table, "names").append_column("folder", batch["folder"])


def _rows(batch: pa.Table, *names: str) -> zip:
    return zip(*(batch[name].to_pylist() for name in names), strict=True)


RANK = Task("rankings", "window_id", tuple(SCHEMAS["windows"].names), _rank_question, _read_ranking)
VOTE = Task("votes", "vote_id", ("vote_id", *SCHEMAS["ballots"].names), _vote_question, _read_vote)
NAME = Task("names", "anchor_id", ("anchor_id", "texts", "round"), _name_question, _read_name)
