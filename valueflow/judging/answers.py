"""Assemble `rankings` and `votes` rows from questions and a judge's answers."""

import pyarrow as pa

from valueflow.llm.configs import Price
from valueflow.prompts.render import is_longer
from valueflow.records import SCHEMAS, conform

# Beginning of the error of a ballot that a failed voter left unanswered.
ABSTAINED_PREFIX = "voter dead: "


def truncated_ids(questions: pa.Table, ids: str, texts: str, max_chars: int | None) -> list[list[str] | None]:
    """Return for each question the ids of its texts that are longer than its prompt may hold; None without the texts.

    Args:
        questions: a row per question.
        ids: column of the id of its text, or a list of ids.
        texts: column of its text or texts.
        max_chars: of the LLM; None for judges that read texts whole.
    """
    if max_chars is None:
        return [[] for _ in range(questions.num_rows)]
    if texts not in questions.column_names:
        return [None] * questions.num_rows
    rows = zip(questions[ids].to_pylist(), questions[texts].to_pylist(), strict=True)
    pairs = ([(i, text)] if isinstance(text, str) else zip(i, text, strict=True) for i, text in rows)
    return [[i for i, text in of_question if is_longer(text, max_chars)] for of_question in pairs]


def answers(
    windows: pa.Table,
    judge: str,
    orders: list[list[int] | None],
    replies: list[str | None],
    errors: list[str | None],
    weights: list[float | None] | None = None,
    tokens_in: list[int] | None = None,
    tokens_out: list[int] | None = None,
    max_chars: int | None = None,
    relevance: list[float | None] | None = None,
) -> pa.Table:
    """Return one `rankings` row per window; exactly one of order and error is set in each. A column `folder` is kept.

    `max_chars` is the length to which the judge's prompts truncate texts, None for judges that read texts whole. `relevance` is
    of windows of one text, whose order says nothing.
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
        "truncated_ids": truncated_ids(windows, "text_ids", "texts", max_chars),
    }
    for name, column in columns.items():
        table = table.append_column(schema.field(name), pa.array(column, schema.field(name).type))
    table = conform(table, "rankings")
    return table.append_column("folder", windows["folder"]) if "folder" in windows.column_names else table


def without_answers(questions: pa.Table, judge: str, reason: str) -> pa.Table:
    """Return the rows of windows or ballots that a judge could not answer, which no rerun asks again."""
    nothing, reasons = [None] * questions.num_rows, [reason] * questions.num_rows
    if "ballot_id" in questions.column_names:
        return votes(questions, judge, list(nothing), list(reasons))
    return answers(questions, judge, list(nothing), list(nothing), list(reasons))


def votes(
    ballots: pa.Table, voter: str, choices: list[str | None], errors: list[str | None], price: Price | None = None,
    max_chars: int | None = None,
) -> pa.Table:  # fmt: skip
    """Return one `votes` row per ballot, with a column `folder`; exactly one of choice and error is set in each.

    Args:
        ballots: the plan's columns, `vote_id`, `folder` and, for an LLM, `reply` and tokens.
        voter: name.
        choices: an option of each ballot.
        errors: reason for a ballot without a choice.
        price: of an LLM's tokens.
        max_chars: length to which an LLM's prompts truncate texts.
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
        "truncated_ids": truncated_ids(ballots, "text_id", "text", max_chars),
    }
    table = ballots.select(["vote_id", *SCHEMAS["ballots"].names]).drop_columns("detail")
    for name, column in columns.items():
        table = table.append_column(schema.field(name), pa.array(column, schema.field(name).type))
    return conform(table, "votes").append_column("folder", ballots["folder"])
