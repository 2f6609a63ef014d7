"""The one reader of users' CSV, TSV, JSON lines and Parquet files."""

from valueflow.tabular.reader import (
    EXTENSIONS,
    KINDS,
    Row,
    cell,
    columns,
    is_table,
    require,
    row_error,
    row_names,
    rows,
    strict_rows,
    urls,
)

__all__ = [
    "EXTENSIONS",
    "KINDS",
    "Row",
    "cell",
    "columns",
    "is_table",
    "require",
    "row_error",
    "row_names",
    "rows",
    "strict_rows",
    "urls",
]
