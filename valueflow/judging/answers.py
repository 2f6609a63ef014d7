"""Assemble `rankings` and `votes` rows from questions and a judge's answers."""

import pyarrow as pa

from valueflow.llm.configs import Price
from valueflow.records import SCHEMAS, conform

# Beginning of the error of a ballot that a failed voter left unanswered.
ABSTAINED_PREFIX = "voter dead: "


def answers(
    windows: pa.Table,
    judge: str,
    orders: list[list[int] | None],
    replies: list[str | None],
    errors: list[str | None],
    weights: list[float | None] | None = None,
    tokens_in: list[int] | None = None,
    tokens_out: list[int] | None = None,
    relevance: list[float | None] | None = None,
) -> pa.Table:
    """Return one `rankings` row per window; exactly one of order and error is set in each. A column `folder` is kept.

    `relevance` is of windows of one text, whose order says nothing.
    """
    count, schema = windows.num_rows, SCHEMAS["rankings"]
    table = windows.select(SCHEMAS["windows"].names)
    columns = {
        "judge": [judge] * count,
        "order": orders,
        "weight": weights or [None] * count,
        "relevance": relevance or [None] * count,
        "error": errors,
        "reply": replies,
        "tokens_in": tokens_in or [0] * count,
        "tokens_out": tokens_out or [0] * count,
    }
    for name, column in columns.items():
        table = table.append_column(schema.field(name), pa.array(column, schema.field(name).type))
    table = conform(table, "rankings")
    return table.append_column("folder", windows["folder"]) if "folder" in windows.column_names else table


def votes(
    ballots: pa.Table, voter: str, choices: list[str | None], errors: list[str | None], price: Price | None = None
) -> pa.Table:
    """Return one `votes` row per ballot, with a column `folder`; exactly one of choice and error is set in each.

    Args:
        ballots: the plan's columns, `vote_id`, `folder` and, for an LLM, `reply` and tokens.
        voter: name.
        choices: an option of each ballot.
        errors: reason for a ballot without a choice.
        price: of an LLM's tokens.
    """
    count, schema = ballots.num_rows, SCHEMAS["votes"]
    has_replies = "reply" in ballots.column_names
    tokens_in = ballots["tokens_in"].to_pylist() if has_replies else [0] * count
    tokens_out = ballots["tokens_out"].to_pylist() if has_replies else [0] * count
    columns = {
        "voter": [voter] * count,
        "choice": choices,
        "error": errors,
        "reply": ballots["reply"].to_pylist() if has_replies else choices,
        "tokens_in": tokens_in,
        "tokens_out": tokens_out,
        "cost": [price.of(i, o) for i, o in zip(tokens_in, tokens_out, strict=True)] if price else [0.0] * count,
    }
    table = ballots.select(["vote_id", *SCHEMAS["ballots"].names]).drop_columns("detail")
    for name, column in columns.items():
        table = table.append_column(schema.field(name), pa.array(column, schema.field(name).type))
    return conform(table, "votes").append_column("folder", ballots["folder"])
