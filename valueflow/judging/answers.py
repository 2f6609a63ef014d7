"""Assemble `rankings` rows from windows and what a judge said."""

import pyarrow as pa

from valueflow.records import SCHEMAS, conform


def answers(
    windows: pa.Table,
    judge: str,
    orders: list[list[int] | None],
    replies: list[str | None],
    errors: list[str | None],
    weights: list[float | None] | None = None,
    tokens_in: list[int] | None = None,
    tokens_out: list[int] | None = None,
) -> pa.Table:
    """Return one row a window; exactly one of order and error is set in each. A column `folder` travels on."""
    count, schema = windows.num_rows, SCHEMAS["rankings"]
    table = windows.select(SCHEMAS["windows"].names)
    columns = {
        "judge": [judge] * count,
        "order": orders,
        "weight": weights or [None] * count,
        "error": errors,
        "reply": replies,
        "tokens_in": tokens_in or [0] * count,
        "tokens_out": tokens_out or [0] * count,
    }
    for name, column in columns.items():
        table = table.append_column(schema.field(name), pa.array(column, schema.field(name).type))
    table = conform(table, "rankings")
    return table.append_column("folder", windows["folder"]) if "folder" in windows.column_names else table
